//! The universal host controller: a list of frames that all lead to the same queues.
//!
//! ```text
//! frame 0, 8, ...   -> queue of endpoint 0 -> queue of endpoint 1 -> ... -> control queue
//! all other frames  -> control queue
//! ```
//!
//! A transfer is looked for in memory, not in registers, so looking for keys costs no visit to the device model.

use hw::shared::{PAGE_SIZE, SharedPages, memory_barrier};

use super::{Host, Pipe, Setup, UsbError};
use crate::domain::{EmulatedMachine, MILLISECOND};
use crate::pci::{Bar, Function, command};

/// Registers, from the first port on (UHCI 1.1 §2.1).
mod register {
    pub const COMMAND: u16 = 0x00;
    pub const STATUS: u16 = 0x02;
    pub const INTERRUPTS: u16 = 0x04;
    pub const FRAME: u16 = 0x06;
    pub const FRAME_LIST: u16 = 0x08;
    pub const PORT: u16 = 0x10;
}

/// Bits of the command register.
mod switch {
    pub const RUN: u16 = 1 << 0;
    pub const RESET: u16 = 1 << 1;
    /// Software has set it up.
    pub const CONFIGURED: u16 = 1 << 6;
    /// Packets of 64 bytes at the end of a frame.
    pub const LONG_PACKETS: u16 = 1 << 7;
}

/// Bit of the status register.
const HALTED: u16 = 1 << 5;
/// All events of the status register; writing clears.
const EVENTS: u16 = 0x1F;

/// Bits of a port's register.
mod port {
    pub const CONNECTED: u16 = 1 << 0;
    /// Connection and switch have changed; writing clears.
    pub const CHANGES: u16 = 1 << 1 | 1 << 3;
    pub const ENABLED: u16 = 1 << 2;
    /// Reads as one in each port that there is.
    pub const PRESENT: u16 = 1 << 7;
    pub const LOW_SPEED: u16 = 1 << 8;
    pub const RESET: u16 = 1 << 9;
}

/// Ports of the controller in all chip sets that are emulated.
const PORTS: u8 = 2;
/// Ports it takes.
const REGISTERS: u32 = 0x14;
/// Its registers' BAR.
const BAR: u8 = 4;
/// Configuration register by which firmware takes keyboard and mouse over for old systems; the value ends that.
const LEGACY: (u16, u16) = (0xC0, 0x8F00);

/// Links between structures.
mod link {
    /// Nothing follows.
    pub const END: u32 = 1 << 0;
    /// A queue follows, not a transfer.
    pub const QUEUE: u32 = 1 << 1;
    /// Go on with what follows in the same frame.
    pub const DEPTH: u32 = 1 << 2;
}

/// Bits of a transfer's second word.
mod status {
    pub const LENGTH: u32 = 0x7FF;
    pub const ERRORS: u32 = 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21 | STALLED;
    pub const STALLED: u32 = 1 << 22;
    pub const ACTIVE: u32 = 1 << 23;
    pub const LOW_SPEED: u32 = 1 << 26;
    /// Give up after three errors.
    pub const THREE_ERRORS: u32 = 3 << 27;
    /// A short packet stops the queue.
    pub const SHORT_STOPS: u32 = 1 << 29;
}

/// Packet identifiers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Packet {
    Setup = 0x2D,
    In = 0x69,
    Out = 0xE1,
}

/// Frames in the list, and between two questions for a report.
const FRAMES: usize = 1024;
const INTERVAL: usize = 8;
/// Endpoints that are asked for reports at most.
const ENDPOINTS: usize = 4;
/// Most data of a control transfer.
const DATA_MAX: usize = 256;
/// Bytes kept for a report.
const REPORT: usize = 64;
const TRANSFER: usize = 16;
const QUEUE: usize = 16;

/// Where things are: a page for the list, a page for the rest.
const QUEUES: usize = PAGE_SIZE;
const ENDPOINT_TRANSFERS: usize = QUEUES + 0x100;
const SETUP_PACKET: usize = QUEUES + 0x200;
const REPORTS: usize = QUEUES + 0x300;
const DATA: usize = QUEUES + 0x500;
const TRANSFERS: usize = QUEUES + 0x700;
const TRANSFERS_MAX: usize = (2 * PAGE_SIZE - TRANSFERS) / TRANSFER;

/// Longest wait for a control transfer.
const CONTROL_TIMEOUT: u64 = 200 * MILLISECOND;
/// Longest wait for the controller to do what its registers tell it.
const CONTROLLER_TIMEOUT: u64 = 20 * MILLISECOND;
/// How long a device is reset. Real ports take 50 ms (USB 1.1 §7.1.7.3); these are hubs and keyboards of a device model.
pub const RESET_TIME: u64 = 10 * MILLISECOND;
/// What a device may take to be itself again (USB 1.1 §7.1.7.3, §9.2.6.3).
pub const RECOVERY: u64 = 2 * MILLISECOND;

/// An endpoint that is asked for reports.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    pipe: Pipe,
    /// Parity of the next packet.
    toggle: bool,
}

/// A controller at work.
pub struct Uhci {
    machine: EmulatedMachine,
    function: Function,
    registers: u16,
    memory: SharedPages,
    endpoints: [Option<Endpoint>; ENDPOINTS],
    running: bool,
}

impl Uhci {
    /// Sets the controller up; `None` where that cannot be.
    pub fn start(function: Function) -> Option<Self> {
        let registers = match function.bar(BAR)? {
            Bar::Ports { first, count } if count >= REGISTERS => first,
            _ => return None,
        };
        let machine = function.machine();
        let memory = machine.domain.frames.allocate(2)?;
        let end = (memory.gfn(0).0 + 2).saturating_mul(PAGE_SIZE as u64);
        if end > 1 << 32 {
            machine.domain.frames.free(memory);
            return None;
        }
        let mut new = Self { machine, function, registers, memory, endpoints: [None; ENDPOINTS], running: false };
        if !new.run() {
            new.stop();
            return None;
        }
        Some(new)
    }

    fn run(&mut self) -> bool {
        self.function.enable(command::IO | command::BUS_MASTER);
        self.function.write_u16(LEGACY.0, LEGACY.1);
        self.write(register::COMMAND, switch::RESET);
        let reset = || (self.read(register::COMMAND) & switch::RESET == 0).then_some(());
        if self.machine.poll(CONTROLLER_TIMEOUT, reset).is_none() {
            return false;
        }
        for frame in 0..FRAMES {
            let first = if frame % INTERVAL == 0 { 0 } else { ENDPOINTS };
            self.memory.write_u32(frame * 4, self.address(QUEUES + first * QUEUE) | link::QUEUE);
        }
        for queue in 0..=ENDPOINTS {
            let at = QUEUES + queue * QUEUE;
            let next = if queue == ENDPOINTS { link::END } else { self.address(at + QUEUE) | link::QUEUE };
            self.memory.write_u32(at, next);
            self.memory.write_u32(at + 4, link::END);
        }
        memory_barrier();
        self.write(register::INTERRUPTS, 0);
        self.write(register::FRAME, 0);
        self.machine.ports.write_u32(self.registers + register::FRAME_LIST, self.address(0));
        self.write(register::STATUS, EVENTS);
        self.write(register::COMMAND, switch::RUN | switch::CONFIGURED | switch::LONG_PACKETS);
        self.running = true;
        true
    }

    /// The address of an offset, as the controller sees it; the memory is below 4 GiB.
    fn address(&self, offset: usize) -> u32 {
        (self.memory.gfn(0).0 * PAGE_SIZE as u64) as u32 + offset as u32
    }

    fn read(&self, register: u16) -> u16 {
        self.machine.ports.read_u16(self.registers + register)
    }

    fn write(&self, register: u16, value: u16) {
        self.machine.ports.write_u16(self.registers + register, value);
    }

    /// Writes a transfer of `length` bytes at offset `data`, followed by `next`.
    fn put(&self, at: usize, next: u32, pipe: Pipe, packet: Packet, toggle: bool, data: usize, length: usize) {
        let speed = if pipe.low_speed { status::LOW_SPEED } else { 0 };
        // No bytes are the length -1.
        let length = (length as u32).wrapping_sub(1) & status::LENGTH;
        let token = packet as u32
            | u32::from(pipe.address) << 8
            | u32::from(pipe.endpoint) << 15
            | u32::from(toggle) << 19
            | length << 21;
        let stops = if packet == Packet::In { status::SHORT_STOPS } else { 0 };
        self.memory.write_u32(at, next);
        self.memory.write_u32(at + 4, status::ACTIVE | status::THREE_ERRORS | stops | speed);
        self.memory.write_u32(at + 8, token);
        self.memory.write_u32(at + 12, self.address(data));
    }

    /// Begins what is at `at` in a queue.
    fn begin(&self, queue: usize, at: usize) {
        memory_barrier();
        self.memory.write_u32(QUEUES + queue * QUEUE + 4, self.address(at));
        memory_barrier();
    }

    /// Ends what a queue does. A controller may be at work on it for one more frame.
    fn end(&self, queue: usize) {
        self.memory.write_u32(QUEUES + queue * QUEUE + 4, link::END);
        memory_barrier();
    }

    /// Waits for the transfers at `offsets`, in this order; how much was transferred with all of them. Ends early with one that
    /// transferred less than it could.
    fn finish(&self, offsets: impl Iterator<Item = (usize, usize)>) -> Result<usize, UsbError> {
        let deadline = self.machine.domain.deadline(CONTROL_TIMEOUT);
        let mut done = 0;
        for (at, length) in offsets {
            let left = deadline.saturating_sub(self.machine.domain.now());
            let ended = || Some(self.memory.read_u32(at + 4)).filter(|now| now & status::ACTIVE == 0);
            let now = self.machine.poll(left, ended).ok_or(UsbError::Failed)?;
            let moved = outcome(now, length)?;
            done += moved;
            if moved < length {
                break;
            }
        }
        Ok(done)
    }

    fn transfer(&self, pipe: Pipe, setup: Setup, length: usize) -> Result<usize, UsbError> {
        let control = ENDPOINTS;
        let (packet, reply) =
            if setup.kind & Setup::IN != 0 { (Packet::In, Packet::Out) } else { (Packet::Out, Packet::In) };
        let size = usize::from(pipe.max_packet.max(8));
        let count = length.div_ceil(size);
        if length > DATA_MAX || count + 2 > TRANSFERS_MAX {
            return Err(UsbError::Failed);
        }
        let at = |index: usize| TRANSFERS + index * TRANSFER;
        let next = |index: usize| self.address(at(index + 1)) | link::DEPTH;
        let status_stage = at(count + 1);
        self.put(at(0), next(0), pipe, Packet::Setup, false, SETUP_PACKET, 8);
        let part = |index: usize| size.min(length - index * size);
        for index in 0..count {
            let data = DATA + index * size;
            self.put(at(index + 1), next(index + 1), pipe, packet, index % 2 == 0, data, part(index));
        }
        // The last packet goes the other way; without data it comes from the device.
        let reply = if length == 0 { Packet::In } else { reply };
        self.put(status_stage, link::END, pipe, reply, true, DATA, 0);
        self.begin(control, at(0));
        let result = self.finish(core::iter::once((at(0), 8))).and_then(|_| {
            let done = self.finish((0..count).map(|index| (at(index + 1), part(index))))?;
            if done < length {
                // What was short has stopped the queue.
                self.begin(control, status_stage);
            }
            self.finish(core::iter::once((status_stage, 0))).map(|_| done)
        });
        self.end(control);
        if result.is_err() {
            self.wait(RECOVERY);
        }
        result
    }
}

/// What a transfer of `length` bytes that has ended came to.
const fn outcome(now: u32, length: usize) -> Result<usize, UsbError> {
    if now & status::STALLED != 0 {
        return Err(UsbError::Stalled);
    }
    if now & status::ERRORS != 0 {
        return Err(UsbError::Failed);
    }
    let moved = (now & status::LENGTH).wrapping_add(1) & status::LENGTH;
    // No more than was asked for, whatever the controller says.
    if moved as usize > length { Err(UsbError::Failed) } else { Ok(moved as usize) }
}

impl Host for Uhci {
    fn ports(&self) -> u8 {
        PORTS
    }

    fn reset_port(&mut self, number: u8) -> Option<bool> {
        let register = register::PORT + u16::from(number) * 2;
        let now = self.read(register);
        if now & port::PRESENT == 0 || now & port::CONNECTED == 0 || now == u16::MAX {
            return None;
        }
        self.write(register, port::RESET);
        self.wait(RESET_TIME);
        self.write(register, 0);
        self.wait(MILLISECOND);
        self.write(register, port::ENABLED | port::CHANGES);
        let enabled = || Some(self.read(register)).filter(|now| now & port::ENABLED != 0);
        let now = self.machine.poll(CONTROLLER_TIMEOUT, enabled)?;
        self.wait(RECOVERY);
        Some(now & port::LOW_SPEED != 0)
    }

    fn control(&mut self, pipe: Pipe, setup: Setup, data: &mut [u8]) -> Result<usize, UsbError> {
        if data.len() > DATA_MAX || !self.running {
            return Err(UsbError::Failed);
        }
        let [value, index, length] = [setup.value, setup.index, data.len() as u16].map(u16::to_le_bytes);
        self.memory.copy_in(SETUP_PACKET, &[setup.kind, setup.request]);
        self.memory.copy_in(SETUP_PACKET + 2, &[value, index, length].concat());
        let into = setup.kind & Setup::IN != 0;
        if !into {
            self.memory.copy_in(DATA, data);
        }
        let done = self.transfer(pipe, setup, data.len())?;
        if into {
            self.memory.copy_out(DATA, &mut data[..done]);
        }
        Ok(done)
    }

    fn open(&mut self, pipe: Pipe) -> Option<usize> {
        let number = self.endpoints.iter().position(Option::is_none)?;
        let endpoint = Endpoint { pipe, toggle: false };
        self.endpoints[number] = Some(endpoint);
        self.ask(number, endpoint);
        Some(number)
    }

    fn report(&mut self, number: usize, into: &mut [u8]) -> Option<usize> {
        let mut endpoint = (*self.endpoints.get(number)?)?;
        let now = self.memory.read_u32(ENDPOINT_TRANSFERS + number * TRANSFER + 4);
        if now & status::ACTIVE != 0 || !self.running {
            return None;
        }
        memory_barrier();
        let length = match outcome(now, REPORT.min(endpoint.pipe.max_packet.into())) {
            Ok(length) => length.min(into.len()),
            Err(error) => {
                log::debug!("USB: a keyboard does not report any more: {error:?}");
                self.endpoints[number] = None;
                return None;
            }
        };
        self.memory.copy_out(REPORTS + number * REPORT, &mut into[..length]);
        endpoint.toggle = !endpoint.toggle;
        self.endpoints[number] = Some(endpoint);
        self.ask(number, endpoint);
        Some(length)
    }

    fn wait(&self, nanoseconds: u64) {
        self.machine.poll(nanoseconds, || None::<()>);
    }

    fn stop(&mut self) {
        if !self.running {
            return;
        }
        self.running = false;
        self.write(register::COMMAND, 0);
        self.machine.poll(CONTROLLER_TIMEOUT, || (self.read(register::STATUS) & HALTED != 0).then_some(()));
        self.function.disable(command::BUS_MASTER);
    }
}

impl Uhci {
    fn ask(&self, number: usize, Endpoint { pipe, toggle }: Endpoint) {
        let at = ENDPOINT_TRANSFERS + number * TRANSFER;
        let length = REPORT.min(pipe.max_packet.into());
        self.put(at, link::END, pipe, Packet::In, toggle, REPORTS + number * REPORT, length);
        self.begin(number, at);
    }
}
