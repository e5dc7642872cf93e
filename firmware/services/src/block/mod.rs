//! Block devices: the trait that drivers implement, and the protocols made of it.

mod bytes;

use alloc::boxed::Box;
use core::fmt;

pub use bytes::{ByteDevice, Bytes};

/// Why a transfer failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockError {
    /// The device or its backend failed, or answered nonsense.
    Device,
    /// The range is not on the medium, or the buffer is no whole number of blocks.
    InvalidParameter,
    /// The medium may not be written.
    WriteProtected,
    /// There is no medium.
    NoMedia,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device error",
            Self::InvalidParameter => "range outside the device",
            Self::WriteProtected => "write protected",
            Self::NoMedia => "no medium",
        })
    }
}

impl core::error::Error for BlockError {}

/// What a block device is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Bytes in a block: a power of two, 512 or more.
    pub block_size: u32,
    /// Number of blocks.
    pub blocks: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether the medium can be taken out.
    pub removable: bool,
    /// Alignment a buffer must have, in bytes (a power of two; 1 for none).
    pub io_align: u32,
    /// Blocks in a physical sector: 1, or more where the device works best in larger units.
    pub blocks_per_physical: u32,
}

/// A disk, or a part of one. Transfers are whole blocks.
pub trait BlockDevice {
    /// Its geometry. Does not change while the device exists.
    fn geometry(&self) -> Geometry;
    /// Reads `into.len() / block_size` blocks from `lba` on. Large reads are cheaper than many small ones.
    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError>;
    /// Writes blocks from `lba` on.
    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError>;
    /// Makes all completed writes durable.
    fn flush(&mut self) -> Result<(), BlockError>;
}

impl<T: BlockDevice + ?Sized> BlockDevice for Box<T> {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }
    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        (**self).read(lba, into)
    }
    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        (**self).write(lba, from)
    }
    fn flush(&mut self) -> Result<(), BlockError> {
        (**self).flush()
    }
}

impl<T: BlockDevice + ?Sized> BlockDevice for &mut T {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }
    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        (**self).read(lba, into)
    }
    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        (**self).write(lba, from)
    }
    fn flush(&mut self) -> Result<(), BlockError> {
        (**self).flush()
    }
}
