//! A part of a block device as a block device.

use services::block::{BlockDevice, BlockError, Geometry};

/// Blocks `start..start + blocks` of a device.
#[derive(Debug)]
pub struct Slice<B> {
    device: B,
    start: u64,
    blocks: u64,
}

impl<B: BlockDevice> Slice<B> {
    /// A part of `device`, or `InvalidParameter` if it lies outside.
    pub fn new(device: B, start: u64, blocks: u64) -> Result<Self, BlockError> {
        match start.checked_add(blocks) {
            Some(end) if end <= device.geometry().blocks => Ok(Self { device, start, blocks }),
            _ => Err(BlockError::InvalidParameter),
        }
    }

    /// Where `length` bytes from `lba` on lie on the whole device.
    fn translate(&self, lba: u64, length: usize) -> Result<u64, BlockError> {
        let block = u64::from(self.device.geometry().block_size).max(1);
        let count = (length as u64).div_ceil(block);
        match lba.checked_add(count) {
            Some(end) if end <= self.blocks => Ok(self.start + lba),
            _ => Err(BlockError::InvalidParameter),
        }
    }
}

impl<B: BlockDevice> BlockDevice for Slice<B> {
    fn geometry(&self) -> Geometry {
        Geometry { blocks: self.blocks, ..self.device.geometry() }
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let lba = self.translate(lba, into.len())?;
        self.device.read(lba, into)
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        let lba = self.translate(lba, from.len())?;
        self.device.write(lba, from)
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        self.device.flush()
    }
}
