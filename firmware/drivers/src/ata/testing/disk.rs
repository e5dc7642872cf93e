//! A disk and a CD drive, as they answer commands and packets.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::ata::command::{
    FLUSH_CACHE, FLUSH_CACHE_EXT, IDENTIFY_DEVICE, IDENTIFY_PACKET_DEVICE, Identity, READ_DMA, READ_DMA_EXT,
    READ_SECTORS, READ_SECTORS_EXT, WRITE_DMA, WRITE_DMA_EXT, WRITE_SECTORS, WRITE_SECTORS_EXT,
};

fn set(identity: &mut Identity, word: usize, value: u16) {
    identity[word * 2..word * 2 + 2].copy_from_slice(&value.to_le_bytes());
}

fn set_model(identity: &mut Identity, model: &str) {
    for (word, pair) in (27..47).zip(format!("{model:40}").into_bytes().chunks(2)) {
        set(identity, word, u16::from_be_bytes([pair[0], pair[1]]));
    }
}

/// What IDENTIFY DEVICE gives for a disk with 48-bit commands and DMA.
pub fn disk_identity(sectors: u64) -> Identity {
    let mut identity = [0; 512];
    set(&mut identity, 0, 0x0040);
    set_model(&mut identity, "FAKE HARDDISK");
    set(&mut identity, 49, 0x0300);
    let narrow = sectors.min((1 << 28) - 1) as u32;
    set(&mut identity, 60, narrow as u16);
    set(&mut identity, 61, (narrow >> 16) as u16);
    set(&mut identity, 83, 0x7400);
    for word in 0..4 {
        set(&mut identity, 100 + word, (sectors >> (word * 16)) as u16);
    }
    identity
}

/// What IDENTIFY PACKET DEVICE gives for a CD drive.
pub fn cd_identity() -> Identity {
    let mut identity = [0; 512];
    set(&mut identity, 0, 0x8580);
    set_model(&mut identity, "FAKE CD-ROM");
    set(&mut identity, 49, 0x0300);
    identity
}

/// What a device does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    #[default]
    None,
    /// Busy for ever once it has a command.
    Stuck,
    /// Busy for ever, and after a reset too.
    Dead,
    /// Ends commands without moving data.
    NoData,
    /// Fails every transfer.
    BadSector,
    /// The controller fails every transfer.
    Dma,
    /// Nothing answers any more.
    Pulled,
}

/// What a command does.
#[derive(Debug)]
pub enum Answer {
    /// Gives data.
    Give(Vec<u8>),
    /// Takes so many bytes for this place on the disk.
    Take(usize, usize),
    /// Is done.
    Done,
    /// Refused, with the error register.
    Abort(u8),
}

/// What tests see of a device.
#[derive(Default)]
pub struct Shared {
    pub fault: Cell<Fault>,
    /// Content.
    pub bytes: RefCell<Vec<u8>>,
    /// Commands (code, sector, count), or packets (first byte, block, count).
    pub seen: RefCell<Vec<(u8, u64, usize)>>,
    /// Sense data to be told, one for each packet to come: key, code, qualifier.
    pub sense: RefCell<Vec<(u8, u8, u8)>>,
}

/// A device.
pub struct FakeDisk {
    pub shared: Rc<Shared>,
    pub identity: Identity,
    pub atapi: bool,
    current_sense: (u8, u8, u8),
}

impl FakeDisk {
    /// A disk.
    pub fn disk(bytes: Vec<u8>) -> Self {
        let identity = disk_identity(bytes.len() as u64 / 512);
        Self::new(bytes, identity, false)
    }

    /// A CD drive; empty without `bytes`.
    pub fn cd(bytes: Vec<u8>) -> Self {
        Self::new(bytes, cd_identity(), true)
    }

    fn new(bytes: Vec<u8>, identity: Identity, atapi: bool) -> Self {
        let shared = Shared { bytes: RefCell::new(bytes), ..Shared::default() };
        Self { shared: Rc::new(shared), identity, atapi, current_sense: (0, 0, 0) }
    }

    /// Runs a command.
    pub fn command(&mut self, code: u8, lba: u64, count: u16) -> Answer {
        const ABORTED: u8 = 4;
        const UNCORRECTABLE: u8 = 0x40;
        let (narrow, write) = match code {
            READ_DMA | READ_SECTORS => (true, false),
            READ_DMA_EXT | READ_SECTORS_EXT => (false, false),
            WRITE_DMA | WRITE_SECTORS => (true, true),
            WRITE_DMA_EXT | WRITE_SECTORS_EXT => (false, true),
            IDENTIFY_DEVICE if !self.atapi => return Answer::Give(self.identity.to_vec()),
            IDENTIFY_PACKET_DEVICE if self.atapi => return Answer::Give(self.identity.to_vec()),
            FLUSH_CACHE | FLUSH_CACHE_EXT if !self.atapi => {
                self.shared.seen.borrow_mut().push((code, lba, 0));
                return Answer::Done;
            }
            _ => return Answer::Abort(ABORTED),
        };
        let most = if narrow { 256 } else { 65536 };
        let count = match count as usize % most {
            0 => most,
            count => count,
        };
        self.shared.seen.borrow_mut().push((code, lba, count));
        let (start, length) = (lba as usize * 512, count * 512);
        let bytes = self.shared.bytes.borrow();
        if self.atapi || self.shared.fault.get() == Fault::BadSector || start + length > bytes.len() {
            return Answer::Abort(UNCORRECTABLE);
        }
        if write { Answer::Take(start, length) } else { Answer::Give(bytes[start..start + length].to_vec()) }
    }

    /// Runs a packet.
    pub fn packet(&mut self, packet: &[u8]) -> Answer {
        let refuse = |this: &mut Self, sense: (u8, u8, u8)| {
            this.current_sense = sense;
            Answer::Abort(sense.0 << 4)
        };
        let block = u32::from_be_bytes(packet[2..6].try_into().unwrap());
        let count = u16::from_be_bytes(packet[7..9].try_into().unwrap());
        self.shared.seen.borrow_mut().push((packet[0], block.into(), count.into()));
        if packet[0] == 0x03 {
            let (key, code, qualifier) = self.current_sense;
            let mut data = vec![0; 18];
            (data[0], data[2], data[7], data[12], data[13]) = (0x70, key, 10, code, qualifier);
            data.truncate(packet[4].into());
            return Answer::Give(data);
        }
        if !self.shared.sense.borrow().is_empty() {
            let sense = self.shared.sense.borrow_mut().remove(0);
            return refuse(self, sense);
        }
        let length = self.shared.bytes.borrow().len();
        if length == 0 {
            return refuse(self, (2, 0x3A, 0));
        }
        match packet[0] {
            0x00 => Answer::Done,
            0x25 => {
                let last = (length / 2048) as u32 - 1;
                Answer::Give([last.to_be_bytes(), 2048u32.to_be_bytes()].concat())
            }
            0x28 => {
                let start = block as usize * 2048;
                let end = start + usize::from(count) * 2048;
                if self.shared.fault.get() == Fault::BadSector || end > length {
                    return refuse(self, (3, 0x11, 0));
                }
                Answer::Give(self.shared.bytes.borrow()[start..end].to_vec())
            }
            _ => refuse(self, (5, 0x20, 0)),
        }
    }

    /// Takes what was written.
    pub fn take(&mut self, start: usize, data: &[u8]) {
        self.shared.bytes.borrow_mut()[start..start + data.len()].copy_from_slice(data);
    }
}
