//! Commands, what comes of them, and the way to a device.

use core::fmt;

use services::block::BlockError;

use super::packet::Sense;
use crate::domain::SECOND;

/// READ SECTORS (ACS-3 §7).
pub const READ_SECTORS: u8 = 0x20;
/// READ SECTORS EXT.
pub const READ_SECTORS_EXT: u8 = 0x24;
/// READ DMA EXT.
pub const READ_DMA_EXT: u8 = 0x25;
/// WRITE SECTORS.
pub const WRITE_SECTORS: u8 = 0x30;
/// WRITE SECTORS EXT.
pub const WRITE_SECTORS_EXT: u8 = 0x34;
/// WRITE DMA EXT.
pub const WRITE_DMA_EXT: u8 = 0x35;
/// PACKET.
pub const PACKET: u8 = 0xA0;
/// IDENTIFY PACKET DEVICE.
pub const IDENTIFY_PACKET_DEVICE: u8 = 0xA1;
/// READ DMA.
pub const READ_DMA: u8 = 0xC8;
/// WRITE DMA.
pub const WRITE_DMA: u8 = 0xCA;
/// FLUSH CACHE.
pub const FLUSH_CACHE: u8 = 0xE7;
/// FLUSH CACHE EXT.
pub const FLUSH_CACHE_EXT: u8 = 0xEA;
/// IDENTIFY DEVICE.
pub const IDENTIFY_DEVICE: u8 = 0xEC;

/// Bits of the status register (ACS-3 §6.2).
pub mod status {
    /// The device is busy; no other bit means anything.
    pub const BUSY: u8 = 1 << 7;
    /// Device fault.
    pub const FAULT: u8 = 1 << 5;
    /// It waits for data to be moved.
    pub const DATA_REQUEST: u8 = 1 << 3;
    /// The command failed.
    pub const ERROR: u8 = 1 << 0;
}

/// How long a command that moves no data of the medium may take.
pub const SHORT: u64 = 5 * SECOND;
/// How long a transfer, or a flush, may take: as long as Linux's driver waits.
pub const LONG: u64 = 30 * SECOND;

/// A command as the device gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// What to do.
    pub code: u8,
    /// Number of sectors as the register has it: 0 stands for the most there can be.
    pub count: u16,
    /// First sector.
    pub lba: u64,
    /// Whether it is a 48-bit command; else sector numbers have 28 bits and the count 8.
    pub wide: bool,
    /// How long it may take, in nanoseconds.
    pub patience: u64,
}

impl Command {
    /// A command about no sectors.
    pub const fn new(code: u8, patience: u64) -> Self {
        Self { code, count: 0, lba: 0, wide: false, patience }
    }
}

/// A SCSI command for a packet device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The command descriptor block.
    pub bytes: [u8; 12],
    /// How long it may take, in nanoseconds.
    pub patience: u64,
}

/// How data moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Through the data register.
    Pio,
    /// The device reads or writes memory by itself.
    Dma,
}

/// The caller's memory.
#[derive(Debug)]
pub enum Data<'a> {
    /// The command moves no data.
    None,
    /// From the device.
    In(&'a mut [u8]),
    /// To the device.
    Out(&'a [u8]),
}

impl Data<'_> {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::In(into) => into.len(),
            Self::Out(from) => from.len(),
        }
    }

    /// Whether it goes to the device.
    pub const fn is_out(&self) -> bool {
        matches!(self, Self::Out(_))
    }

    /// Its address: through the mutable reference where the device will write there.
    pub fn address(&mut self) -> *const u8 {
        match self {
            Self::None => core::ptr::null(),
            Self::In(into) => into.as_mut_ptr(),
            Self::Out(from) => from.as_ptr(),
        }
    }

    /// A part of it.
    pub fn part(&mut self, start: usize, length: usize) -> Data<'_> {
        match self {
            Self::None => Data::None,
            Self::In(into) => Data::In(&mut into[start..start + length]),
            Self::Out(from) => Data::Out(&from[start..start + length]),
        }
    }
}

/// Why a command failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The device says so: its status and error registers.
    Device(u8, u8),
    /// The drive says so.
    Sense(Sense),
    /// The device did not get so far in time: what was waited for, and the status register.
    Stuck(&'static str, u8),
    /// It wants no data, or less than the command moves.
    Short,
    /// The controller failed: a register that tells how.
    Controller(u32),
    /// What was there does not answer any more.
    Gone,
    /// No memory that the device can reach.
    NoMemory,
    /// What it says about itself makes no sense.
    Nonsense(&'static str),
}

impl Error {
    /// Whether the way to the device failed, not the device.
    pub const fn is_of_link(&self) -> bool {
        matches!(self, Self::Stuck(..) | Self::Short | Self::Controller(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(status, error) => write!(f, "the device failed: status {status:#04x}, error {error:#04x}"),
            Self::Sense(sense) => write!(f, "{sense}"),
            Self::Stuck(what, status) => write!(f, "timeout while waiting for {what}, status {status:#04x}"),
            Self::Short => f.write_str("the device moved less data than it was asked for"),
            Self::Controller(register) => write!(f, "the controller failed: {register:#x}"),
            Self::Gone => f.write_str("the device does not answer any more"),
            Self::NoMemory => f.write_str("no memory that the device can reach"),
            Self::Nonsense(what) => write!(f, "the device says nonsense about its {what}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<Error> for BlockError {
    fn from(error: Error) -> Self {
        match error {
            Error::Sense(sense) if sense.means_no_medium() || sense.is_attention() => Self::NoMedia,
            Error::Sense(sense) if sense.means_write_protected() => Self::WriteProtected,
            _ => Self::Device,
        }
    }
}

/// What a device turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A disk.
    Ata,
    /// A drive that takes packets.
    Atapi,
}

/// What IDENTIFY DEVICE or IDENTIFY PACKET DEVICE gives.
pub type Identity = [u8; 512];

/// The way to the devices of an IDE channel, or to the one at an AHCI port. One command is under way at a time.
pub trait Link {
    /// Asks a device what it is; `None` where there is none.
    fn identify(&mut self, device: u8) -> Result<Option<(Kind, Identity)>, Error>;

    /// How much of `data` a transfer by [`way`](Self::way) moves at most: a multiple of `block`.
    fn reach(&mut self, data: &mut Data<'_>, block: usize) -> Result<usize, Error>;

    /// How transfers are best made.
    fn way(&self) -> Way;

    /// Runs a command that moves all of `data`.
    fn run(&mut self, device: u8, command: &Command, data: Data<'_>, way: Way) -> Result<(), Error>;

    /// Runs a packet; returns how many bytes of `data` were moved.
    fn run_packet(&mut self, device: u8, packet: &Packet, data: Data<'_>, way: Way) -> Result<usize, Error>;

    /// Stops everything, for good. Allocates nothing.
    fn stop(&mut self);
}
