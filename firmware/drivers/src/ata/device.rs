//! Disks and CDs as [`BlockDevice`]s.

use alloc::rc::Rc;
use alloc::string::String;
use core::cell::RefCell;
use core::fmt;

use services::block::{BlockDevice, BlockError, Geometry};

use super::Unit;
use super::command::{
    Command, Data, Error, FLUSH_CACHE, FLUSH_CACHE_EXT, Kind, LONG, Link, READ_DMA, READ_DMA_EXT, READ_SECTORS,
    READ_SECTORS_EXT, SHORT, WRITE_DMA, WRITE_DMA_EXT, WRITE_SECTORS, WRITE_SECTORS_EXT, Way,
};
use super::identify::{self, CdDrive, Disk};
use super::packet;
use crate::domain::EmulatedMachine;

/// A link that several devices and the controller share.
pub type SharedLink = Rc<RefCell<dyn Link>>;

/// Sector numbers of 28-bit commands end here.
const NARROW_END: u64 = 1 << 28;
/// Most sectors of a 28-bit command.
const NARROW_COUNT: usize = 1 << 8;
/// Most sectors of a 48-bit command.
const WIDE_COUNT: usize = 1 << 16;

/// What is read and written.
#[derive(Clone, Debug)]
enum Medium {
    Disk(Disk),
    Cd(CdDrive, u64),
}

struct Inner {
    unit: Unit,
    link: SharedLink,
    /// Its number at the link.
    device: u8,
    medium: Medium,
    /// Whether something was written since the last flush.
    dirty: bool,
    /// Whether it is not to be used any more.
    closed: bool,
}

/// A disk, or a drive with a CD in it; clones are the same.
#[derive(Clone)]
pub struct Device {
    inner: Rc<RefCell<Inner>>,
    geometry: Geometry,
    unit: Unit,
}

/// What was found at a place.
pub enum Found {
    /// A disk, or a drive with a CD in it.
    Device(Device),
    /// Nothing.
    Nothing,
    /// A drive without a medium.
    NoMedium,
    /// Something that is neither a disk nor a CD drive.
    Other,
}

/// Looks what there is.
pub fn find(machine: &EmulatedMachine, link: &SharedLink, device: u8, unit: Unit) -> Result<Found, Error> {
    let mut at_work = link.try_borrow_mut().map_err(|_| Error::Gone)?;
    let medium = match at_work.identify(device)? {
        None => return Ok(Found::Nothing),
        Some((Kind::Ata, identity)) => Medium::Disk(identify::disk(&identity)?),
        Some((Kind::Atapi, identity)) => {
            let Some(drive) = identify::cd_drive(&identity)? else { return Ok(Found::Other) };
            match packet::medium(machine, &mut *at_work, device) {
                Ok(blocks) => Medium::Cd(drive, blocks),
                Err(Error::Sense(sense)) if sense.means_no_medium() => return Ok(Found::NoMedium),
                Err(error) => return Err(error),
            }
        }
    };
    let geometry = medium.geometry();
    let inner = Inner { unit, link: link.clone(), device, medium, dirty: false, closed: false };
    Ok(Found::Device(Device { inner: Rc::new(RefCell::new(inner)), geometry, unit }))
}

impl Medium {
    fn geometry(&self) -> Geometry {
        match self {
            Self::Disk(disk) => Geometry {
                block_size: disk.sector_size,
                blocks: disk.sectors,
                read_only: false,
                removable: false,
                io_align: 1,
                blocks_per_physical: disk.sectors_per_physical,
            },
            Self::Cd(_, blocks) => Geometry {
                block_size: packet::BLOCK,
                blocks: *blocks,
                read_only: true,
                removable: true,
                io_align: 1,
                blocks_per_physical: 1,
            },
        }
    }

    fn model(&self) -> &str {
        match self {
            Self::Disk(disk) => &disk.model,
            Self::Cd(drive, _) => &drive.model,
        }
    }

    /// How the device moves data if the link can.
    fn way(&self) -> Way {
        match self {
            Self::Disk(disk) => disk.way,
            Self::Cd(drive, _) => drive.way,
        }
    }

    /// Most blocks of a command.
    fn most_blocks(&self) -> usize {
        match self {
            Self::Disk(disk) if disk.wide => WIDE_COUNT,
            Self::Disk(_) => NARROW_COUNT,
            Self::Cd(..) => packet::BLOCKS_MAX,
        }
    }
}

/// The command that moves `count` sectors; 28-bit commands, where they reach, take fewer register accesses.
fn transfer_command(lba: u64, count: usize, out: bool, way: Way) -> Command {
    let narrow = count <= NARROW_COUNT && lba + count as u64 <= NARROW_END;
    let code = match (way, out, narrow) {
        (Way::Dma, false, true) => READ_DMA,
        (Way::Dma, false, false) => READ_DMA_EXT,
        (Way::Dma, true, true) => WRITE_DMA,
        (Way::Dma, true, false) => WRITE_DMA_EXT,
        (Way::Pio, false, true) => READ_SECTORS,
        (Way::Pio, false, false) => READ_SECTORS_EXT,
        (Way::Pio, true, true) => WRITE_SECTORS,
        (Way::Pio, true, false) => WRITE_SECTORS_EXT,
    };
    // The most there can be is 0 in the register.
    let count = count % if narrow { NARROW_COUNT } else { WIDE_COUNT };
    Command { code, count: count as u16, lba, wide: !narrow, patience: LONG }
}

impl Inner {
    /// Moves whole blocks, in as few commands as the link can do it in.
    fn transfer(&mut self, mut lba: u64, mut data: Data<'_>) -> Result<(), Error> {
        let block = self.medium.geometry().block_size as usize;
        let link = self.link.clone();
        let mut link = link.try_borrow_mut().map_err(|_| Error::Gone)?;
        let (length, mut at) = (data.len(), 0);
        let mut tried = false;
        while at < length {
            let most = (length - at).min(self.medium.most_blocks() * block);
            let size = link.reach(&mut data.part(at, most), block)?;
            match self.command(&mut *link, lba, data.part(at, size)) {
                Ok(()) => {
                    at += size;
                    lba += (size / block) as u64;
                }
                // The link is in order again, and may go another way now.
                Err(error) if error.is_of_link() && !tried => {
                    log::warn!("{}: {error}; trying again", self.unit);
                    tried = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Moves what one command can.
    fn command(&mut self, link: &mut dyn Link, lba: u64, data: Data<'_>) -> Result<(), Error> {
        let way = if self.medium.way() == Way::Dma { link.way() } else { Way::Pio };
        match (&self.medium, data) {
            (Medium::Cd(..), Data::In(into)) => packet::read(link, self.device, lba, into, way),
            (Medium::Cd(..), _) => Err(Error::Short),
            (Medium::Disk(disk), data) => {
                let count = data.len() / disk.sector_size as usize;
                let command = transfer_command(lba, count, data.is_out(), way);
                self.dirty |= data.is_out();
                link.run(self.device, &command, data, way)
            }
        }
    }

    fn flush(&mut self, patience: u64) -> Result<(), Error> {
        let Medium::Disk(disk) = &self.medium else { return Ok(()) };
        let command = match (disk.flush_wide && disk.wide, disk.flush) {
            (true, _) => Command { wide: true, ..Command::new(FLUSH_CACHE_EXT, patience) },
            (false, true) => Command::new(FLUSH_CACHE, patience),
            (false, false) => return Ok(()),
        };
        if self.dirty {
            let mut link = self.link.try_borrow_mut().map_err(|_| Error::Gone)?;
            link.run(self.device, &command, Data::None, Way::Pio)?;
            self.dirty = false;
        }
        Ok(())
    }
}

impl Device {
    /// Where it is.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Its name for people.
    pub fn title(&self) -> String {
        let unit = self.unit;
        match self.inner.try_borrow() {
            Ok(inner) => alloc::format!("{unit} ({})", inner.medium.model()),
            Err(_) => alloc::format!("{unit}"),
        }
    }

    /// Flushes what was written, and refuses everything from then on. Allocates nothing.
    pub fn close(&self) {
        if let Ok(mut inner) = self.inner.try_borrow_mut()
            && !inner.closed
        {
            if let Err(error) = inner.flush(SHORT) {
                log::error!("{}: flush failed: {error}", self.unit);
            }
            inner.closed = true;
        }
    }

    fn work(&self, what: &str, lba: u64, run: impl FnOnce(&mut Inner) -> Result<(), Error>) -> Result<(), BlockError> {
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return Err(BlockError::Device) };
        if inner.closed {
            return Err(BlockError::Device);
        }
        run(&mut inner).map_err(|error| {
            log::error!("{}: {what} at block {lba} failed: {error}", self.unit);
            error.into()
        })
    }

    fn check(&self, lba: u64, length: usize) -> Result<(), BlockError> {
        let Geometry { block_size, blocks, .. } = self.geometry;
        let whole = (length as u64).is_multiple_of(u64::from(block_size));
        let end = lba.checked_add(length as u64 / u64::from(block_size));
        if whole && end.is_some_and(|end| end <= blocks) { Ok(()) } else { Err(BlockError::InvalidParameter) }
    }
}

impl BlockDevice for Device {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        self.check(lba, into.len())?;
        self.work("read", lba, |inner| inner.transfer(lba, Data::In(into)))
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        self.check(lba, from.len())?;
        if self.geometry.read_only {
            return Err(BlockError::WriteProtected);
        }
        self.work("write", lba, |inner| inner.transfer(lba, Data::Out(from)))
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        self.work("flush", 0, |inner| inner.flush(LONG))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title())
    }
}
