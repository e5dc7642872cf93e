//! An IDE channel with a bus master, which checks what a controller relies on.

use std::cell::RefCell;
use std::rc::Rc;

use hw::fake::{FakeDevice, FakeHypervisor};

use super::disk::{Answer, FakeDisk, Fault};
use super::{dma_read, dma_write};
use crate::ata::command::{PACKET, status};
use crate::ata::ide::Registers;
use crate::domain::MILLISECOND;

/// Where the channel is.
pub const REGISTERS: Registers = Registers { command: 0x1F0, control: 0x3F6, bus_master: 0xC000 };
const READY: u8 = 0x50;

/// What data is being moved.
#[derive(Default)]
enum Phase {
    #[default]
    None,
    /// The packet is awaited.
    Packet,
    /// Through the data register to the guest: data, and what of it was taken.
    Give(Vec<u8>, usize),
    /// From the guest: place on the disk, data so far, length.
    Take(usize, Vec<u8>, usize),
    /// By the bus master.
    Dma(Answer),
}

/// A channel.
#[derive(Default)]
pub struct FakeIde {
    pub devices: [Option<FakeDisk>; 2],
    /// Accesses to any register since the test last looked.
    pub accesses: usize,
    /// Bus master transfers since the test began.
    pub transfers: usize,
    /// Entries of the table in the last of them.
    pub entries: usize,
    pub control: u8,
    selected: usize,
    features: u8,
    count: u16,
    lba: [u8; 6],
    select: u8,
    status: [u8; 2],
    error: u8,
    phase: Phase,
    pub bus_master: u8,
    pub bus_master_status: u8,
    table: u32,
}

/// How long a look at a busy device takes.
const BUSY_LOOK: u64 = 5 * MILLISECOND;

/// The ports of a channel.
pub struct IdePorts(pub Rc<RefCell<FakeIde>>, pub &'static FakeHypervisor);

impl FakeDevice for IdePorts {
    fn read(&mut self, port: u16, width: u8) -> Option<u32> {
        let mut ide = self.0.borrow_mut();
        let place = Place::of(port)?;
        ide.accesses += 1;
        if ide.status() & (status::BUSY | status::DATA_REQUEST) != 0 && matches!(place, Place::Command(7)) {
            self.1.time_ns.set(self.1.time_ns.get() + BUSY_LOOK);
        }
        Some(match (place, width) {
            (Place::Command(0), 2) => ide.read_data().into(),
            (Place::Command(register), 2) => u16::from_le_bytes([ide.read(register), ide.read(register + 1)]).into(),
            (Place::Command(register), 1) => ide.read(register).into(),
            (Place::Control, 1) => ide.status().into(),
            (Place::BusMaster(2), 1) => ide.bus_master_status.into(),
            (place, width) => panic!("read of {width} bytes at {place:?}"),
        })
    }

    fn write(&mut self, port: u16, width: u8, value: u32) -> bool {
        let Some(place) = Place::of(port) else { return false };
        let mut ide = self.0.borrow_mut();
        ide.accesses += 1;
        match (place, width) {
            (Place::Command(0), 2) => ide.write_data(value as u16),
            (Place::Command(register), 2) => {
                ide.write(register, value as u8);
                ide.write(register + 1, (value >> 8) as u8);
            }
            (Place::Command(register), 1) => ide.write(register, value as u8),
            (Place::Control, 1) => ide.write_control(value as u8),
            (Place::BusMaster(0), 1) => ide.write_bus_master(value as u8),
            (Place::BusMaster(2), 1) => ide.bus_master_status &= !(value as u8 & 6),
            (Place::BusMaster(4), 4) => ide.table = value,
            (place, width) => panic!("write of {width} bytes at {place:?}"),
        }
        true
    }
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Command(u16),
    Control,
    BusMaster(u16),
}

impl Place {
    fn of(port: u16) -> Option<Self> {
        match port {
            0x1F0..=0x1F7 => Some(Self::Command(port - 0x1F0)),
            0x3F6 => Some(Self::Control),
            0xC000..=0xC007 => Some(Self::BusMaster(port - 0xC000)),
            _ => None,
        }
    }
}

impl FakeIde {
    /// A channel with these devices, and the same for its ports.
    pub fn new(master: Option<FakeDisk>, slave: Option<FakeDisk>) -> Rc<RefCell<Self>> {
        let status = [&master, &slave].map(|device| if device.is_some() { READY } else { 0 });
        Rc::new(RefCell::new(Self { devices: [master, slave], status, ..Self::default() }))
    }

    fn fault(&self) -> Fault {
        self.devices[self.selected].as_ref().map_or(Fault::None, |device| device.shared.fault.get())
    }

    fn status(&self) -> u8 {
        match (&self.devices[self.selected], self.fault()) {
            (_, Fault::Pulled) => 0xFF,
            (None, _) => 0,
            _ => self.status[self.selected],
        }
    }

    fn set(&mut self, status: u8, error: u8) {
        self.status[self.selected] = status;
        self.error = error;
    }

    fn read(&mut self, register: u16) -> u8 {
        match register {
            1 => self.error,
            4 => self.lba[1],
            5 => self.lba[2],
            7 => self.status(),
            register => panic!("register {register} is not read"),
        }
    }

    fn write(&mut self, register: u16, value: u8) {
        if register != 6 {
            assert!(self.status() & (status::BUSY | status::DATA_REQUEST) == 0 || self.status() == 0xFF, "not idle");
        }
        match register {
            1 => self.features = value,
            2 => self.count = self.count << 8 | u16::from(value),
            3..=5 => {
                let index = usize::from(register - 3);
                self.lba[index + 3] = self.lba[index];
                self.lba[index] = value;
            }
            6 => {
                self.select = value;
                self.selected = usize::from(value >> 4 & 1);
            }
            7 => self.command(value),
            register => panic!("register {register} is not written"),
        }
    }

    fn write_control(&mut self, value: u8) {
        if self.control & 4 != 0 && value & 4 == 0 {
            self.selected = 0;
            self.phase = Phase::None;
            for (status, device) in self.status.iter_mut().zip(&self.devices) {
                *status = match device {
                    Some(device) if device.shared.fault.get() == Fault::Dead => status::BUSY,
                    Some(device) if device.atapi => 0,
                    Some(_) => READY,
                    None => 0,
                };
            }
            self.sign();
        }
        self.control = value;
    }

    /// What a packet device says instead of a sector number.
    fn sign(&mut self) {
        if self.devices[self.selected].as_ref().is_some_and(|device| device.atapi) {
            (self.lba[1], self.lba[2]) = (0x14, 0xEB);
        }
    }

    fn command(&mut self, code: u8) {
        let wide = matches!(code, 0x24 | 0x25 | 0x34 | 0x35 | 0xEA);
        let [a, b, c, d, e, f] = self.lba;
        let [d, e, f] = if wide { [d, e, f] } else { [self.select & 0xF, 0, 0] };
        let lba = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let count = if wide { self.count } else { self.count & 0xFF };
        let fault = self.fault();
        let Some(device) = &mut self.devices[self.selected] else { return };
        if matches!(fault, Fault::Stuck | Fault::Dead) {
            return self.set(status::BUSY, 0);
        }
        if code == PACKET {
            if !device.atapi {
                return self.set(READY | status::ERROR, 4);
            }
            self.phase = Phase::Packet;
            return self.set(READY | status::DATA_REQUEST, 0);
        }
        let answer = device.command(code, lba, count);
        if matches!(answer, Answer::Abort(_)) {
            self.sign();
        }
        let dma = matches!(code, 0x25 | 0x35 | 0xC8 | 0xCA);
        self.begin(answer, dma);
    }

    fn begin(&mut self, answer: Answer, dma: bool) {
        if self.fault() == Fault::NoData {
            return self.set(READY, 0);
        }
        self.phase = Phase::None;
        match answer {
            Answer::Done => self.set(READY, 0),
            Answer::Abort(error) => self.set(READY | status::ERROR, error),
            answer if dma => {
                self.phase = Phase::Dma(answer);
                self.set(READY | status::DATA_REQUEST, 0);
                self.move_dma();
            }
            Answer::Give(data) => {
                self.set(READY | status::DATA_REQUEST, 0);
                let portion = (data.len() as u16).to_le_bytes();
                (self.lba[1], self.lba[2]) = (portion[0], portion[1]);
                self.phase = Phase::Give(data, 0);
            }
            Answer::Take(start, length) => {
                self.set(READY | status::DATA_REQUEST, 0);
                self.phase = Phase::Take(start, Vec::new(), length);
            }
        }
    }

    fn read_data(&mut self) -> u16 {
        let Phase::Give(data, at) = &mut self.phase else { panic!("data read where none is") };
        let word = [data[*at], data.get(*at + 1).copied().unwrap_or(0)];
        *at += 2;
        if *at >= data.len() {
            self.phase = Phase::None;
            self.set(READY, 0);
        }
        u16::from_le_bytes(word)
    }

    fn write_data(&mut self, word: u16) {
        match &mut self.phase {
            Phase::Packet => {
                self.phase = Phase::Take(usize::MAX, word.to_le_bytes().to_vec(), 12);
            }
            Phase::Take(start, data, length) => {
                data.extend(word.to_le_bytes());
                if data.len() == *length {
                    let (start, data) = (*start, std::mem::take(data));
                    self.phase = Phase::None;
                    self.set(READY, 0);
                    let dma = self.features & 1 != 0;
                    let device = self.devices[self.selected].as_mut().unwrap();
                    if start == usize::MAX {
                        let answer = device.packet(&data);
                        self.begin(answer, dma);
                    } else {
                        device.take(start, &data);
                    }
                }
            }
            _ => panic!("data written where none is wanted"),
        }
    }

    fn write_bus_master(&mut self, value: u8) {
        let started = value & !self.bus_master & 1 != 0;
        self.bus_master = value;
        if started {
            self.bus_master_status |= 1;
            self.move_dma();
        } else if value & 1 == 0 {
            self.bus_master_status &= !1;
        }
    }

    /// Moves data once both sides are ready.
    fn move_dma(&mut self) {
        if self.bus_master & 1 == 0 {
            return;
        }
        let Phase::Dma(answer) = std::mem::take(&mut self.phase) else { return };
        self.transfers += 1;
        if self.fault() == Fault::Dma {
            self.bus_master_status |= 2;
            return self.set(READY, 0);
        }
        let mut pieces = Vec::new();
        loop {
            let mut entry = [0; 8];
            assert!(pieces.len() < 512, "the table is longer than a page");
            dma_read(u64::from(self.table) + pieces.len() as u64 * 8, &mut entry);
            let [address, length] = [0, 4].map(|at| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()));
            let size = match length & 0xFFFF {
                0 => 0x1_0000,
                size => size,
            };
            assert!(address % 2 == 0 && size % 2 == 0, "odd");
            assert!(address >> 16 == (address + (size - 1)) >> 16, "crosses 64 KiB");
            pieces.push((u64::from(address), size as usize));
            if length >> 31 != 0 {
                break;
            }
        }
        self.entries = pieces.len();
        let total: usize = pieces.iter().map(|piece| piece.1).sum();
        let mut at = 0;
        match answer {
            Answer::Give(data) => {
                assert_eq!(self.bus_master & 8, 8, "direction");
                assert_eq!(total, data.len(), "the table describes what is moved");
                for (address, length) in pieces {
                    dma_write(address, &data[at..at + length]);
                    at += length;
                }
            }
            Answer::Take(start, length) => {
                assert_eq!(self.bus_master & 8, 0, "direction");
                let mut data = vec![0; length];
                assert_eq!(total, length, "the table describes what is moved");
                for (address, length) in pieces {
                    dma_read(address, &mut data[at..at + length]);
                    at += length;
                }
                self.devices[self.selected].as_mut().unwrap().take(start, &data);
            }
            Answer::Done | Answer::Abort(_) => unreachable!(),
        }
        self.bus_master_status = self.bus_master_status & !1 | 4;
        self.set(READY, 0);
    }
}
