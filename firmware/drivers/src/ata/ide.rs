//! A channel of a PCI IDE controller with bus mastering (PIIX3, PIIX4): two devices, one command at a time.
//!
//! Registers with neighbouring addresses are written two at a time where their order does not matter or is the order of their
//! addresses; a controller takes that as two writes of 8 bits. The end of a command is seen in the status register, which is all
//! it takes to know that the device is content; the bus master is looked at once, afterwards. While memory is being filled, its
//! end is watched instead of registers: a look at a register keeps the device model from the very work that is waited for.

use hw::shared::{PAGE_SIZE, SharedPages};

use super::command::{
    Command, Data, Error, IDENTIFY_DEVICE, IDENTIFY_PACKET_DEVICE, Identity, Kind, Link, PACKET, Packet, SHORT, Way,
    status,
};
use super::memory::{Limits, Memory};
use super::{rest, wait};
use crate::domain::{EmulatedMachine, MILLISECOND, SECOND};

/// Offsets in the command block (ATA8-APT §7, "register delivered").
mod register {
    pub const DATA: u16 = 0;
    /// Error when read, features when written.
    pub const ERROR: u16 = 1;
    pub const FEATURES: u16 = 1;
    /// Count; the low byte of the sector number follows.
    pub const COUNT: u16 = 2;
    /// The middle byte of the sector number; the high byte follows. Byte count of a packet command.
    pub const LBA_MIDDLE: u16 = 4;
    /// Device; the command register follows.
    pub const DEVICE: u16 = 6;
    /// Status when read, command when written.
    pub const STATUS: u16 = 7;
}

/// Bits of the device control register.
mod control {
    pub const NO_INTERRUPT: u8 = 1 << 1;
    pub const RESET: u8 = 1 << 2;
}

/// The bus master (Programming Interface for Bus Master IDE Controller §2).
mod bus_master {
    pub const COMMAND: u16 = 0;
    pub const STATUS: u16 = 2;
    pub const TABLE: u16 = 4;
    /// Command: run.
    pub const START: u8 = 1 << 0;
    /// Command: from the device to memory.
    pub const TO_MEMORY: u8 = 1 << 3;
    /// Status: not all of the table has been moved.
    pub const ACTIVE: u8 = 1 << 0;
    /// Status: a transfer on the bus failed. Written as 1 to clear.
    pub const ERROR: u8 = 1 << 1;
    /// Status: the device has asked for an interrupt. Written as 1 to clear.
    pub const INTERRUPT: u8 = 1 << 2;
    /// Status: what software noted about the devices; kept.
    pub const CAPABLE: u8 = 0b11 << 5;
}

const DEVICE_FIXED: u8 = 0xA0;
const DEVICE_LBA: u8 = 0x40;
/// What the middle and high bytes of the sector number say of a packet device after a reset or a refused IDENTIFY DEVICE.
const PACKET_SIGNATURE: u16 = 0xEB14;
/// What the status register reads as where nothing is: pulled down, floating, and with the pull-down that ATA asks for.
const NOTHING: [u8; 3] = [0x00, 0xFF, 0x7F];

/// How long a device that is there may be busy when it is first looked at.
const PROBE: u64 = SECOND;
/// How long a reset may take.
const RESET: u64 = 5 * SECOND;
/// How long the bus master may take to write out the last bytes.
const DRAIN: u64 = 100 * MILLISECOND;
/// How long memory is watched at first before registers are looked at.
const WATCH: u64 = 50 * MILLISECOND;
/// Bytes of an entry in the table of memory.
const ENTRY: usize = 8;
/// Last entry of the table.
const LAST: u32 = 1 << 31;
/// Most bytes that a packet device moves at a time through the data register.
const BYTE_COUNT: u16 = 0xFFFE;
/// The table is a page: device models look no further.
const LIMITS: Limits = Limits { pieces: PAGE_SIZE / ENTRY, longest: 64 << 10, last: u32::MAX as u64 };

/// Where a channel's registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registers {
    /// Command block: 8 ports.
    pub command: u16,
    /// Device control and alternate status.
    pub control: u16,
    /// Bus master: 8 ports; 0 where there is none.
    pub bus_master: u16,
}

/// A channel.
pub struct Channel {
    machine: EmulatedMachine,
    registers: Registers,
    memory: Memory,
    /// The table of memory, while bus mastering works.
    table: Option<SharedPages>,
    /// Whether the bus master knows where the table is.
    table_set: bool,
    /// The device that listens.
    selected: Option<u8>,
    /// Whether it is not used any more.
    gone: bool,
}

impl Channel {
    /// A channel with its registers there. Interrupts of its devices are turned off.
    pub fn new(machine: EmulatedMachine, registers: Registers) -> Self {
        let frames = machine.domain.frames;
        let table = (registers.bus_master != 0).then(|| frames.allocate(1)).flatten();
        let reachable = |table: &SharedPages| (table.gfn(0).0 + 1) * PAGE_SIZE as u64 - 1 <= LIMITS.last;
        let channel = Self {
            machine,
            registers,
            memory: Memory::new(frames, LIMITS),
            table: table.filter(reachable),
            table_set: false,
            selected: None,
            gone: false,
        };
        machine.ports.write_u8(registers.control, control::NO_INTERRUPT);
        channel
    }

    fn read(&self, register: u16) -> u8 {
        self.machine.ports.read_u8(self.registers.command + register)
    }

    fn write(&self, register: u16, value: u8) {
        self.machine.ports.write_u8(self.registers.command + register, value);
    }

    /// Writes a register and the one behind it.
    fn write_pair(&self, register: u16, low: u8, high: u8) {
        self.machine.ports.write_u16(self.registers.command + register, u16::from_le_bytes([low, high]));
    }

    fn status(&self) -> u8 {
        self.read(register::STATUS)
    }

    /// Makes a device listen. A read of the status gives it the time it may take to do that (400 ns), and more.
    fn select(&mut self, device: u8) {
        if self.selected != Some(device) {
            self.write(register::DEVICE, DEVICE_FIXED | device << 4);
            self.status();
            self.selected = Some(device);
        }
    }

    /// Gives a device a command.
    fn issue(&mut self, device: u8, command: &Command) {
        self.select(device);
        let [lba0, lba1, lba2, lba3, lba4, lba5, ..] = command.lba.to_le_bytes();
        let [count, count_high] = command.count.to_le_bytes();
        let mut select = DEVICE_FIXED | DEVICE_LBA | device << 4;
        if command.wide {
            self.write_pair(register::COUNT, count_high, lba3);
            self.write_pair(register::LBA_MIDDLE, lba4, lba5);
        } else {
            select |= lba3 & 0xF;
        }
        self.write_pair(register::COUNT, count, lba0);
        self.write_pair(register::LBA_MIDDLE, lba1, lba2);
        self.write_pair(register::DEVICE, select, command.code);
    }

    /// Waits until the device is not busy; returns its status.
    fn wait_idle(&self, what: &'static str, patience: u64) -> Result<u8, Error> {
        self.wait_status(what, patience, |status| status & status::BUSY == 0)
    }

    fn wait_status(&self, what: &'static str, patience: u64, done: impl Fn(u8) -> bool) -> Result<u8, Error> {
        let mut last = 0;
        let found = wait(&self.machine, patience, || {
            last = self.status();
            // Nothing drives the bus: no device is that busy.
            (last == u8::MAX || done(last)).then_some(last)
        });
        match found {
            Some(u8::MAX) => Err(Error::Gone),
            Some(status) => Ok(status),
            None => Err(Error::Stuck(what, last)),
        }
    }

    /// Waits for the end of a transfer; returns the status then. Registers are looked at when the end of `data` has been filled, and
    /// rarely before: a transfer may fail.
    fn wait_transfer(&self, data: &Data<'_>, patience: u64) -> Result<u8, Error> {
        let done = |status: u8| status & (status::BUSY | status::DATA_REQUEST) == 0;
        let filled = || (!self.memory.is_marked(data)).then_some(());
        let start = self.machine.domain.now();
        let elapsed = || self.machine.domain.now().saturating_sub(start);
        while self.machine.poll(elapsed().max(WATCH).min(patience), filled).is_none() && elapsed() < patience {
            let status = self.status();
            if done(status) {
                return Ok(status);
            }
        }
        self.wait_status("the end of a transfer", patience.saturating_sub(elapsed()), done)
    }

    /// What a status at the end of a command means.
    fn outcome(&self, status: u8) -> Result<(), Error> {
        if status & (status::ERROR | status::FAULT) != 0 {
            return Err(Error::Device(status, self.read(register::ERROR)));
        }
        Ok(())
    }

    /// Runs a command, and brings the channel back in order if that fails.
    fn recovering<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.gone {
            return Err(Error::Gone);
        }
        let result = run(self);
        match &result {
            Err(error) if error.is_of_link() => self.reset(),
            // A device that failed and still wants data would take the next command for that.
            Err(Error::Device(status, _)) if status & status::DATA_REQUEST != 0 => self.reset(),
            Err(Error::Gone) => self.gone = true,
            _ => {}
        }
        result
    }

    /// Software reset of both devices (ATA8-APT §9.2).
    fn reset(&mut self) {
        const PULSE: u64 = 10_000;
        const SETTLE: u64 = 2 * MILLISECOND;
        let Registers { control, .. } = self.registers;
        self.machine.ports.write_u8(control, control::NO_INTERRUPT | control::RESET);
        rest(&self.machine, PULSE);
        self.machine.ports.write_u8(control, control::NO_INTERRUPT);
        rest(&self.machine, SETTLE);
        self.selected = None;
        if self.wait_idle("a reset", RESET).is_err() {
            self.gone = true;
        }
    }

    /// A command that moves data through the data register, a sector at a time, or none.
    fn run_pio(&mut self, device: u8, command: &Command, mut data: Data<'_>) -> Result<(), Error> {
        const SECTOR: usize = 512;
        self.issue(device, command);
        let (length, mut at) = (data.len(), 0);
        while at < length {
            let status = self.wait_idle("data", command.patience)?;
            self.outcome(status)?;
            if status & status::DATA_REQUEST == 0 {
                return Err(Error::Short);
            }
            let size = SECTOR.min(length - at);
            match data.part(at, size) {
                Data::In(into) => self.machine.ports.read_words(self.registers.command + register::DATA, into),
                Data::Out(from) => self.machine.ports.write_words(self.registers.command + register::DATA, from),
                Data::None => {}
            }
            at += size;
        }
        let status = self.wait_idle("the end of a command", command.patience)?;
        self.outcome(status)?;
        if status & status::DATA_REQUEST != 0 { Err(Error::Stuck("the end of its data", status)) } else { Ok(()) }
    }

    /// Tells the bus master where the data is.
    fn prepare_dma(&mut self, data: &mut Data<'_>) -> Result<(), Error> {
        let table = self.table.as_ref().ok_or(Error::NoMemory)?;
        let count = self.memory.describe(data, |index, (address, length)| {
            table.write_u32(index * ENTRY, address as u32);
            // 64 KiB is 0 in 16 bits.
            table.write_u32(index * ENTRY + 4, length as u32 & 0xFFFF);
        })?;
        let last = count.saturating_sub(1) * ENTRY + 4;
        table.write_u32(last, table.read_u32(last) | LAST);
        hw::shared::memory_barrier();
        if !self.table_set {
            let address = table.gfn(0).0 * PAGE_SIZE as u64;
            self.clear_bus_master(bus_master::CAPABLE);
            self.machine.ports.write_u32(self.registers.bus_master + bus_master::TABLE, address as u32);
            self.table_set = true;
        }
        Ok(())
    }

    /// Moves the data of a command that was given; ends when device and bus master are done.
    fn move_dma(&mut self, data: &mut Data<'_>, patience: u64) -> Result<(), Error> {
        let ports = self.machine.ports;
        let base = self.registers.bus_master;
        let direction = if data.is_out() { 0 } else { bus_master::TO_MEMORY };
        ports.write_u8(base + bus_master::COMMAND, direction | bus_master::START);
        let result = self.wait_transfer(data, patience);
        let mut master = ports.read_u8(base + bus_master::STATUS);
        if matches!(result, Ok(status) if status & (status::ERROR | status::FAULT) == 0)
            && master & bus_master::ACTIVE != 0
        {
            let drained = wait(&self.machine, DRAIN, || {
                master = ports.read_u8(base + bus_master::STATUS);
                (master & bus_master::ACTIVE == 0).then_some(())
            });
            // Reported below.
            let _ = drained;
        }
        ports.write_u8(base + bus_master::COMMAND, direction);
        if master & (bus_master::ERROR | bus_master::INTERRUPT) != 0 {
            self.clear_bus_master(master);
        }
        self.outcome(result?)?;
        if master & (bus_master::ERROR | bus_master::ACTIVE) != 0 {
            return Err(Error::Controller(master.into()));
        }
        self.memory.collect(data);
        Ok(())
    }

    fn clear_bus_master(&self, status: u8) {
        let value = status & bus_master::CAPABLE | bus_master::ERROR | bus_master::INTERRUPT;
        self.machine.ports.write_u8(self.registers.bus_master + bus_master::STATUS, value);
    }

    fn run_dma(&mut self, device: u8, command: &Command, mut data: Data<'_>) -> Result<(), Error> {
        self.prepare_dma(&mut data)?;
        self.issue(device, command);
        self.move_dma(&mut data, command.patience)
    }

    /// Gives a device a packet command and its packet (ATA8-APT §9.10).
    fn issue_packet(&mut self, device: u8, packet: &Packet, way: Way) -> Result<(), Error> {
        let limit = BYTE_COUNT.to_le_bytes();
        self.select(device);
        self.write(register::FEATURES, u8::from(way == Way::Dma));
        self.write_pair(register::LBA_MIDDLE, limit[0], limit[1]);
        self.write_pair(register::DEVICE, DEVICE_FIXED | device << 4, PACKET);
        let status = self.wait_idle("a packet to be taken", packet.patience)?;
        self.outcome(status)?;
        if status & status::DATA_REQUEST == 0 {
            return Err(Error::Short);
        }
        self.machine.ports.write_words(self.registers.command + register::DATA, &packet.bytes);
        Ok(())
    }

    /// Moves the data of a packet through the data register, in portions as the device likes.
    fn move_packet_pio(&mut self, mut data: Data<'_>, patience: u64) -> Result<usize, Error> {
        let data_port = self.registers.command + register::DATA;
        let (length, mut at) = (data.len(), 0);
        loop {
            let status = self.wait_idle("a drive", patience)?;
            if status & status::DATA_REQUEST == 0 {
                self.outcome(status)?;
                return Ok(at);
            }
            let portion = self.machine.ports.read_u16(self.registers.command + register::LBA_MIDDLE);
            let portion = usize::from(portion);
            // A drive that gives more than was asked for, or an odd piece in between, is out of step.
            if portion == 0 || portion > length - at || portion % 2 != 0 && at + portion != length {
                return Err(Error::Stuck("the end of its data", status));
            }
            match data.part(at, portion) {
                Data::In(into) => {
                    self.machine.ports.read_words(data_port, into);
                    if let Some(odd) = into.chunks_exact_mut(2).into_remainder().first_mut() {
                        *odd = self.machine.ports.read_u16(data_port) as u8;
                    }
                }
                Data::Out(_) | Data::None => return Err(Error::Short),
            }
            at += portion;
        }
    }
}

impl Link for Channel {
    fn identify(&mut self, device: u8) -> Result<Option<(Kind, Identity)>, Error> {
        if self.gone {
            return Ok(None);
        }
        self.select(device);
        let signature =
            |channel: &Self| channel.machine.ports.read_u16(channel.registers.command + register::LBA_MIDDLE);
        let mut packet = false;
        match self.status() {
            // After a reset a packet device is not ready, and has no other bit set either.
            0 if signature(self) == PACKET_SIGNATURE => packet = true,
            status if NOTHING.contains(&status) => return Ok(None),
            status if status & status::BUSY != 0 => match self.wait_idle("a device", PROBE) {
                Err(Error::Gone) => return Ok(None),
                result => {
                    result?;
                }
            },
            _ => {}
        }
        let mut identity = [0; 512];
        if !packet {
            let identify = Command::new(IDENTIFY_DEVICE, SHORT);
            match self.recovering(|channel| channel.run_pio(device, &identify, Data::In(&mut identity))) {
                Ok(()) => return Ok(Some((Kind::Ata, identity))),
                Err(Error::Device(..)) if signature(self) == PACKET_SIGNATURE => {}
                // Refused, or there is nobody to refuse.
                Err(Error::Device(..) | Error::Gone) => return Ok(None),
                Err(Error::Short) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let identify = Command::new(IDENTIFY_PACKET_DEVICE, SHORT);
        self.recovering(|channel| channel.run_pio(device, &identify, Data::In(&mut identity)))?;
        Ok(Some((Kind::Atapi, identity)))
    }

    fn reach(&mut self, data: &mut Data<'_>, block: usize) -> Result<usize, Error> {
        match self.way() {
            Way::Dma => self.memory.reach(data, block),
            Way::Pio => Ok(data.len() - data.len() % block),
        }
    }

    fn way(&self) -> Way {
        if self.table.is_some() { Way::Dma } else { Way::Pio }
    }

    fn run(&mut self, device: u8, command: &Command, data: Data<'_>, way: Way) -> Result<(), Error> {
        let result = self.recovering(|channel| match way {
            Way::Dma => channel.run_dma(device, command, data),
            Way::Pio => channel.run_pio(device, command, data),
        });
        self.doubt_bus_master(way, result.as_ref().err());
        result
    }

    fn run_packet(&mut self, device: u8, packet: &Packet, mut data: Data<'_>, way: Way) -> Result<usize, Error> {
        let result = self.recovering(|channel| {
            if way == Way::Dma {
                channel.prepare_dma(&mut data)?;
            }
            channel.issue_packet(device, packet, way)?;
            match way {
                Way::Dma => channel.move_dma(&mut data, packet.patience).map(|()| data.len()),
                Way::Pio => channel.move_packet_pio(data, packet.patience),
            }
        });
        self.doubt_bus_master(way, result.as_ref().err());
        result
    }

    fn stop(&mut self) {
        if self.registers.bus_master != 0 {
            self.machine.ports.write_u8(self.registers.bus_master + bus_master::COMMAND, 0);
        }
        // Reading the status takes back an interrupt that is pending; then interrupts are on again, as after a reset.
        self.status();
        self.machine.ports.write_u8(self.registers.control, 0);
        self.gone = true;
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(table) = self.table.take() {
            self.machine.domain.frames.free(table);
        }
    }
}

impl Channel {
    /// After a failure of the bus master data goes through the data register.
    fn doubt_bus_master(&mut self, way: Way, error: Option<&Error>) {
        let failed = error.is_some_and(|error| error.is_of_link());
        if way == Way::Dma && failed && self.table.is_some() {
            log::warn!("IDE at port {:#x}: DMA does not work", self.registers.command);
            // The bus master may hold on to the page; it is not given back.
            self.table = None;
        }
    }
}
