//! A port of an AHCI controller: one device, one command at a time, no interrupts, no native command queueing.
//!
//! The controller writes what the device says at the end of a command into memory, so the end is looked for there; registers are
//! looked at only now and then, for what is not told that way.

use alloc::rc::Rc;

use hw::device::Window;
use hw::shared::{PAGE_SIZE, SharedPages, memory_barrier, read_barrier};

use super::command::{
    Command, Data, Error, IDENTIFY_DEVICE, IDENTIFY_PACKET_DEVICE, Identity, Kind, Link, PACKET, Packet, SHORT, Way,
    status,
};
use super::memory::{Limits, Memory};
use super::rest;
use crate::domain::{EmulatedMachine, MILLISECOND, SECOND};

/// Registers of the controller (AHCI 1.3.1 §3.1), by their offsets in bytes.
mod register {
    pub const CAPABILITIES: usize = 0x00;
    pub const CONTROL: usize = 0x04;
    pub const PORTS: usize = 0x0C;
    /// Registers of port 0; those of the next follow.
    pub const PORT: usize = 0x100;
    pub const PORT_SIZE: usize = 0x80;
}

/// Registers of a port (AHCI 1.3.1 §3.3).
mod port {
    pub const LIST: usize = 0x00;
    pub const FIS: usize = 0x08;
    pub const INTERRUPTS: usize = 0x10;
    pub const COMMAND: usize = 0x18;
    pub const TASK_FILE: usize = 0x20;
    pub const SIGNATURE: usize = 0x24;
    pub const SATA_STATUS: usize = 0x28;
    pub const SATA_CONTROL: usize = 0x2C;
    pub const SATA_ERROR: usize = 0x30;
    pub const ISSUE: usize = 0x38;
}

/// Bits of the controller's control register.
mod control {
    pub const ENABLE: u32 = 1 << 31;
    pub const INTERRUPTS: u32 = 1 << 1;
}

/// Bits of a port's command register.
mod port_command {
    pub const START: u32 = 1 << 0;
    pub const SPIN_UP: u32 = 1 << 1;
    pub const POWER_ON: u32 = 1 << 2;
    pub const FIS_RECEIVE: u32 = 1 << 4;
    pub const FIS_RUNNING: u32 = 1 << 14;
    pub const LIST_RUNNING: u32 = 1 << 15;
}

/// Capability: addresses have 64 bits.
const WIDE_ADDRESSES: u32 = 1 << 31;
/// Interrupts that say that a command will never end: task file, host bus and interface errors.
const FATAL: u32 = 0b1111 << 27;
/// Signature of a packet device.
const PACKET_SIGNATURE: u32 = 0xEB14_0101;
/// Signature of a disk.
const DISK_SIGNATURE: u32 = 0x0000_0101;

/// What a port's page holds (AHCI 1.3.1 §4.2), by offsets: the command list, of which one entry is used ...
const LIST: usize = 0x000;
/// ... what the device sends ...
const RECEIVED: usize = 0x400;
/// ... among it the registers at the end of a command ...
const RECEIVED_REGISTERS: usize = RECEIVED + 0x40;
/// ... and the command with its table of memory.
const TABLE: usize = 0x800;
const TABLE_PACKET: usize = TABLE + 0x40;
const TABLE_MEMORY: usize = TABLE + 0x80;
/// Bytes of an entry of that.
const ENTRY: usize = 16;

/// Types of what is sent (Serial ATA 3.0 §10.3): registers to the device, and from it.
const TO_DEVICE: u8 = 0x27;
const FROM_DEVICE: u8 = 0x34;

/// How long a device that is there may be busy when it is first looked at.
const PROBE: u64 = SECOND;
/// How long a port may take to stop (AHCI 1.3.1 §10.3.2).
const STOP: u64 = 500 * MILLISECOND;
/// How long a device may take to be seen again after a reset.
const RESET: u64 = SECOND;
/// How long memory alone is watched at first; looks at the registers then get rarer and rarer.
const WATCH: u64 = 50 * MILLISECOND;

/// An AHCI controller's registers.
pub struct Controller {
    machine: EmulatedMachine,
    registers: Rc<dyn Window>,
    wide: bool,
    ports: u32,
}

impl Controller {
    /// Takes a controller into use: in AHCI mode, with interrupts off. `None` if its registers do not make sense.
    pub fn start(machine: EmulatedMachine, registers: Rc<dyn Window>) -> Option<Self> {
        if registers.len() < register::PORT + register::PORT_SIZE {
            return None;
        }
        let before = registers.read_u32(register::CONTROL);
        let wanted = (before | control::ENABLE) & !control::INTERRUPTS;
        if before == u32::MAX {
            return None;
        }
        if wanted != before {
            registers.write_u32(register::CONTROL, wanted);
        }
        let wide = registers.read_u32(register::CAPABILITIES) & WIDE_ADDRESSES != 0;
        let ports = registers.read_u32(register::PORTS);
        Some(Self { machine, registers, wide, ports })
    }

    /// The ports that there are.
    pub fn ports(&self) -> impl Iterator<Item = u8> {
        let room = (self.registers.len() - register::PORT) / register::PORT_SIZE;
        let there = self.ports;
        (0..32).filter(move |&port| there >> port & 1 != 0 && usize::from(port) < room)
    }

    /// One of [`ports`](Self::ports).
    pub fn port(&self, number: u8) -> Port {
        let last = if self.wide { u64::MAX } else { u32::MAX.into() };
        let limits = Limits { pieces: (PAGE_SIZE - TABLE_MEMORY) / ENTRY, longest: 4 << 20, last };
        Port {
            machine: self.machine,
            registers: self.registers.clone(),
            base: register::PORT + usize::from(number) * register::PORT_SIZE,
            memory: Memory::new(self.machine.domain.frames, limits),
            last,
            page: None,
            gone: false,
        }
    }
}

/// A port.
pub struct Port {
    machine: EmulatedMachine,
    registers: Rc<dyn Window>,
    /// Offset of its registers.
    base: usize,
    memory: Memory,
    /// Last address the controller reaches.
    last: u64,
    /// Command list, received data and command, once it is started.
    page: Option<SharedPages>,
    /// Whether it is not used any more.
    gone: bool,
}

/// What a command is, beside its data.
enum Order<'a> {
    Command(&'a Command),
    Packet(&'a Packet),
}

impl Port {
    fn read(&self, register: usize) -> u32 {
        self.registers.read_u32(self.base + register)
    }

    fn write(&self, register: usize, value: u32) {
        self.registers.write_u32(self.base + register, value);
    }

    fn wait(&self, nanoseconds: u64, done: impl Fn(&Self) -> bool) -> bool {
        super::wait(&self.machine, nanoseconds, || done(self).then_some(())).is_some()
    }

    /// Whether there is a device and the connection to it is up.
    fn is_connected(&self) -> bool {
        const DETECTION: u32 = 0xF;
        const CONNECTED: u32 = 3;
        self.read(port::SATA_STATUS) & DETECTION == CONNECTED
    }

    /// Stops the port (AHCI 1.3.1 §10.1.2). Allocates nothing.
    fn halt(&self) -> bool {
        let mut command = self.read(port::COMMAND);
        for (switch, running) in
            [(port_command::START, port_command::LIST_RUNNING), (port_command::FIS_RECEIVE, port_command::FIS_RUNNING)]
        {
            if command & (switch | running) == 0 {
                continue;
            }
            command &= !switch;
            self.write(port::COMMAND, command);
            if !self.wait(STOP, |port| port.read(port::COMMAND) & running == 0) {
                return false;
            }
        }
        true
    }

    /// Gives the port its memory and lets it run. Returns what the device is.
    fn start(&mut self) -> Result<Option<Kind>, Error> {
        if !self.halt() {
            return Err(Error::Controller(self.read(port::COMMAND)));
        }
        let page = self.machine.domain.frames.allocate(1).ok_or(Error::NoMemory)?;
        let address = page.gfn(0).0 * PAGE_SIZE as u64;
        if address > self.last {
            self.machine.domain.frames.free(page);
            return Err(Error::NoMemory);
        }
        for (register, offset) in [(port::LIST, LIST), (port::FIS, RECEIVED)] {
            let address = address + offset as u64;
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.page = Some(page);
        self.write(port::SATA_ERROR, u32::MAX);
        self.write(port::INTERRUPTS, u32::MAX);
        let command = self.read(port::COMMAND);
        let command = command | port_command::FIS_RECEIVE | port_command::SPIN_UP | port_command::POWER_ON;
        self.write(port::COMMAND, command);
        if !self.wait(PROBE, Self::is_idle) {
            return Err(Error::Stuck("a device", self.read(port::TASK_FILE) as u8));
        }
        let kind = match self.read(port::SIGNATURE) {
            DISK_SIGNATURE => Kind::Ata,
            PACKET_SIGNATURE => Kind::Atapi,
            _ => return Ok(None),
        };
        self.write(port::COMMAND, command | port_command::START);
        Ok(Some(kind))
    }

    fn is_idle(&self) -> bool {
        self.read(port::TASK_FILE) as u8 & (status::BUSY | status::DATA_REQUEST) == 0
    }

    /// Makes the port usable again after a failure (AHCI 1.3.1 §6.2.2): stops it, resets the device if it is still busy, and lets
    /// it run again.
    fn recover(&mut self) {
        const RESET_DEVICE: u32 = 1;
        const PULSE: u64 = MILLISECOND;
        let command = self.read(port::COMMAND) & !port_command::START;
        self.write(port::COMMAND, command);
        let mut usable = self.wait(STOP, |port| port.read(port::COMMAND) & port_command::LIST_RUNNING == 0);
        if usable && !self.is_idle() {
            let control = self.read(port::SATA_CONTROL) & !0xF;
            self.write(port::SATA_CONTROL, control | RESET_DEVICE);
            rest(&self.machine, PULSE);
            self.write(port::SATA_CONTROL, control);
            usable = self.wait(RESET, Self::is_connected);
        }
        self.write(port::SATA_ERROR, u32::MAX);
        self.write(port::INTERRUPTS, u32::MAX);
        self.write(port::COMMAND, command);
        if usable && self.wait(PROBE, Self::is_idle) {
            self.write(port::COMMAND, command | port_command::START);
        } else {
            self.gone = true;
        }
    }

    /// Runs a command; returns how many bytes were moved.
    fn execute(&mut self, order: &Order<'_>, mut data: Data<'_>) -> Result<usize, Error> {
        if self.gone {
            return Err(Error::Gone);
        }
        let result = self.issue(order, &mut data).and_then(|()| self.finish(order, &mut data));
        if matches!(result, Err(error) if error.is_of_link() || matches!(error, Error::Device(..))) {
            self.recover();
        }
        result
    }

    /// Writes the command into memory and tells the controller.
    fn issue(&mut self, order: &Order<'_>, data: &mut Data<'_>) -> Result<(), Error> {
        const COMMAND: u8 = 1 << 7;
        const DEVICE_LBA: u8 = 0x40;
        /// Length of the command in 32-bit words.
        const WORDS: u32 = 5;
        const IS_PACKET: u32 = 1 << 5;
        const IS_WRITE: u32 = 1 << 6;
        const BYTE_COUNT: u64 = 0xFFFE;
        let page = self.page.as_ref().ok_or(Error::Gone)?;
        let out = data.is_out();
        let entries = match data {
            Data::None => 0,
            data => self.memory.describe(data, |index, (address, length)| {
                let at = TABLE_MEMORY + index * ENTRY;
                page.write_u64(at, address);
                page.write_u32(at + 8, 0);
                page.write_u32(at + 12, length as u32 - 1);
            })?,
        };
        let (code, features, lba, count, device) = match order {
            Order::Command(command) => {
                let top = if command.wide { 0 } else { (command.lba >> 24) as u8 & 0xF };
                let lba = if command.wide { command.lba } else { command.lba & 0xFF_FFFF };
                (command.code, 0, lba, command.count, DEVICE_LBA | top)
            }
            // The middle bytes of the sector number hold how much may be moved at a time.
            Order::Packet(_) => (PACKET, u8::from(entries > 0), BYTE_COUNT << 8, 0, 0),
        };
        let [lba0, lba1, lba2, lba3, lba4, lba5, ..] = lba.to_le_bytes();
        let [count, count_high] = count.to_le_bytes();
        let words = [
            [TO_DEVICE, COMMAND, code, features],
            [lba0, lba1, lba2, device],
            [lba3, lba4, lba5, 0],
            [count, count_high, 0, 0],
            [0; 4],
        ];
        page.copy_in(TABLE, words.as_flattened());
        let mut flags = WORDS | (entries as u32) << 16;
        if let Order::Packet(packet) = order {
            page.copy_in(TABLE_PACKET, &packet.bytes);
            page.write_u32(TABLE_PACKET + packet.bytes.len(), 0);
            flags |= IS_PACKET;
        }
        if out {
            flags |= IS_WRITE;
        }
        page.write_u32(LIST, flags);
        page.write_u32(LIST + 4, 0);
        page.write_u64(LIST + 8, page.gfn(0).0 * PAGE_SIZE as u64 + TABLE as u64);
        page.write_u32(RECEIVED_REGISTERS, 0);
        memory_barrier();
        self.write(port::ISSUE, 1);
        Ok(())
    }

    /// Waits for the end of the command.
    fn finish(&mut self, order: &Order<'_>, data: &mut Data<'_>) -> Result<usize, Error> {
        let page = self.page.as_ref().ok_or(Error::Gone)?;
        let patience = match order {
            Order::Command(command) => command.patience,
            Order::Packet(packet) => packet.patience,
        };
        let mut pause = WATCH;
        let mut look = self.machine.domain.deadline(pause);
        let task_file = self.machine.poll(patience, || {
            let [kind, _, status, error] = page.read_u32(RECEIVED_REGISTERS).to_le_bytes();
            if kind == FROM_DEVICE {
                return Some(Ok([status, error]));
            }
            if self.machine.domain.now() < look {
                return None;
            }
            pause *= 2;
            look = self.machine.domain.deadline(pause);
            let interrupts = self.read(port::INTERRUPTS);
            let [status, error, ..] = self.read(port::TASK_FILE).to_le_bytes();
            if interrupts == u32::MAX {
                return Some(Err(Error::Gone));
            }
            // Not all commands end with registers from the device.
            if status & status::ERROR != 0 || self.read(port::ISSUE) & 1 == 0 {
                return Some(Ok([status, error]));
            }
            (interrupts & FATAL != 0).then_some(Err(Error::Controller(interrupts)))
        });
        read_barrier();
        let [status, error] = task_file.unwrap_or(Err(Error::Stuck("the end of a command", status::BUSY)))?;
        if status & (status::ERROR | status::FAULT) != 0 {
            return Err(Error::Device(status, error));
        }
        if status & (status::BUSY | status::DATA_REQUEST) != 0 {
            return Err(Error::Stuck("the end of its data", status));
        }
        // The entry of the command list is free when the controller says so.
        if !self.wait(SHORT, |port| port.read(port::ISSUE) & 1 == 0) {
            return Err(Error::Controller(self.read(port::INTERRUPTS)));
        }
        let moved = page.read_u32(LIST + 4) as usize;
        if moved > data.len() {
            return Err(Error::Controller(moved as u32));
        }
        self.memory.collect(data);
        Ok(moved)
    }
}

impl Link for Port {
    fn identify(&mut self, _device: u8) -> Result<Option<(Kind, Identity)>, Error> {
        if self.gone || !self.is_connected() {
            return Ok(None);
        }
        let Some(kind) = self.start()? else { return Ok(None) };
        let code = if kind == Kind::Ata { IDENTIFY_DEVICE } else { IDENTIFY_PACKET_DEVICE };
        let mut identity = [0; 512];
        self.run(0, &Command::new(code, SHORT), Data::In(&mut identity), Way::Dma)?;
        Ok(Some((kind, identity)))
    }

    fn reach(&mut self, data: &mut Data<'_>, block: usize) -> Result<usize, Error> {
        self.memory.reach(data, block)
    }

    fn way(&self) -> Way {
        Way::Dma
    }

    fn run(&mut self, _device: u8, command: &Command, data: Data<'_>, _way: Way) -> Result<(), Error> {
        let length = data.len();
        let moved = self.execute(&Order::Command(command), data)?;
        if moved == length { Ok(()) } else { Err(Error::Short) }
    }

    fn run_packet(&mut self, _device: u8, packet: &Packet, data: Data<'_>, _way: Way) -> Result<usize, Error> {
        self.execute(&Order::Packet(packet), data)
    }

    fn stop(&mut self) {
        if self.page.is_some() && !self.halt() {
            log::error!("AHCI: a port does not stop");
        }
        self.gone = true;
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // A port that does not stop keeps its page.
        if let Some(page) = self.page.take()
            && self.halt()
        {
            self.machine.domain.frames.free(page);
        }
    }
}
