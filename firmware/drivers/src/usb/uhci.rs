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

/// A transfer of one packet.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    packet: Packet,
    /// Parity.
    toggle: bool,
    /// Where its bytes are.
    data: usize,
    length: usize,
}

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
    registers: u16,
    memory: SharedPages,
    endpoints: [Option<Endpoint>; ENDPOINTS],
    running: bool,
}

impl Uhci {
    /// Sets up the controller whose registers begin at port `registers`; it must be allowed to act as bus master. `None` where that
    /// cannot be.
    pub fn start(machine: EmulatedMachine, registers: u16) -> Option<Self> {
        let memory = machine.domain.frames.allocate(2)?;
        let end = (memory.gfn(0).0 + 2).saturating_mul(PAGE_SIZE as u64);
        if end > 1 << 32 {
            machine.domain.frames.free(memory);
            return None;
        }
        let mut new = Self { machine, registers, memory, endpoints: [None; ENDPOINTS], running: false };
        if new.run() { Some(new) } else { None }
    }

    fn run(&mut self) -> bool {
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

    /// Writes a transfer, followed by `next`.
    fn put(&self, at: usize, next: u32, pipe: Pipe, Transfer { packet, toggle, data, length }: Transfer) {
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
        let begin = Transfer { packet: Packet::Setup, toggle: false, data: SETUP_PACKET, length: 8 };
        self.put(at(0), next(0), pipe, begin);
        let part = |index: usize| size.min(length - index * size);
        for index in 0..count {
            let transfer = Transfer { packet, toggle: index % 2 == 0, data: DATA + index * size, length: part(index) };
            self.put(at(index + 1), next(index + 1), pipe, transfer);
        }
        // The last packet goes the other way; without data it comes from the device.
        let reply = if length == 0 { Packet::In } else { reply };
        self.put(status_stage, link::END, pipe, Transfer { packet: reply, toggle: true, data: DATA, length: 0 });
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
    }
}

impl Drop for Uhci {
    fn drop(&mut self) {
        // The pages stay allocated: a controller that does not stop writes them.
        self.stop();
    }
}

impl Uhci {
    fn ask(&self, number: usize, Endpoint { pipe, toggle }: Endpoint) {
        let at = ENDPOINT_TRANSFERS + number * TRANSFER;
        let (data, length) = (REPORTS + number * REPORT, REPORT.min(pipe.max_packet.into()));
        self.put(at, link::END, pipe, Transfer { packet: Packet::In, toggle, data, length });
        self.begin(number, at);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    use hw::fake::{CountingAllocator, FakeDevice, FakeHypervisor, FakePorts, FakeWindows, LowFrames};
    use hw::hypervisor::{DomainId, E820Entry, EventPort, Gfn, Hypervisor, Result as XenResult, ShutdownReason};

    use super::super::enumerate::keyboards;
    use super::super::testing::KEYBOARD;
    use super::*;
    use crate::domain::Domain;
    use crate::testing::leak;

    const BASE: u16 = 0xC100;

    /// A controller with a keyboard at its second port, as a test plays it.
    struct Fake {
        registers: [u16; 10],
        frame_list: u32,
        fault: Fault,
        address: u8,
        setup: [u8; 8],
        answer: Vec<u8>,
        reports: VecDeque<[u8; 8]>,
        /// Parity that the next packet of the control and the other endpoint must have.
        toggles: [bool; 2],
        wrong_toggles: usize,
        frames: usize,
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Fault {
        None,
        /// Does nothing at all.
        Dead,
        /// Never comes out of reset.
        InReset,
        /// The port is never enabled.
        Disabled,
        /// The device does not answer.
        Silent,
        Stalling,
        /// More bytes than asked for.
        TooLong,
        /// Short answers.
        Short,
    }

    enum Reply {
        Bytes(Vec<u8>),
        Busy,
        Error(u32),
    }

    fn word(address: u32) -> u32 {
        LowFrames::peer(Gfn(u64::from(address >> 12))).read_u32(address as usize & 0xFFF)
    }

    fn set_word(address: u32, value: u32) {
        LowFrames::peer(Gfn(u64::from(address >> 12))).write_u32(address as usize & 0xFFF, value);
    }

    impl Fake {
        fn frame(&mut self) {
            if self.registers[0] & switch::RUN == 0 || self.fault == Fault::Dead {
                return;
            }
            let mut next = word(self.frame_list + (self.frames % FRAMES * 4) as u32);
            self.frames += 1;
            for _ in 0..20 {
                if next & link::END != 0 {
                    return;
                }
                assert!(next & link::QUEUE != 0, "only queues follow each other");
                let queue = next & !0xF;
                self.queue(queue);
                next = word(queue);
            }
            panic!("the queues have no end");
        }

        fn queue(&mut self, queue: u32) {
            for _ in 0..64 {
                let at = word(queue + 4);
                if at & link::END != 0 || word((at & !0xF) + 4) & status::ACTIVE == 0 {
                    return;
                }
                let at = at & !0xF;
                let (now, token, buffer) = (word(at + 4), word(at + 8), word(at + 12));
                let most = (token >> 21).wrapping_add(1) & status::LENGTH;
                let page = LowFrames::peer(Gfn(u64::from(buffer >> 12)));
                let mut bytes = vec![0; most as usize];
                page.copy_out(buffer as usize & 0xFFF, &mut bytes);
                let reply = self.packet(token, &bytes);
                let (moved, errors) = match reply {
                    Reply::Busy => return,
                    Reply::Error(errors) => (0, errors),
                    Reply::Bytes(bytes) if token as u8 == Packet::In as u8 => {
                        let moved = bytes.len().min(most as usize);
                        page.copy_in(buffer as usize & 0xFFF, &bytes[..moved]);
                        (bytes.len() as u32, 0)
                    }
                    Reply::Bytes(_) => (most, 0),
                };
                let length = moved.wrapping_sub(1) & status::LENGTH;
                set_word(at + 4, now & !(status::ACTIVE | status::LENGTH) | errors | length);
                if errors != 0 || moved < most && now & status::SHORT_STOPS != 0 {
                    return;
                }
                set_word(queue + 4, word(at));
            }
        }

        fn packet(&mut self, token: u32, bytes: &[u8]) -> Reply {
            let (address, endpoint, toggle) = (token as u16 >> 8 & 0x7F, token >> 15 & 0xF, token & 1 << 19 != 0);
            match self.fault {
                Fault::Silent => return Reply::Error(1 << 18),
                Fault::Stalling => return Reply::Error(status::STALLED),
                _ if address != self.address.into() => return Reply::Error(1 << 18),
                _ => {}
            }
            let which = usize::from(endpoint != 0);
            let setup = token as u8 == Packet::Setup as u8;
            let answers = self.setup[0] & Setup::IN != 0;
            if setup {
                self.toggles[0] = false;
            } else if endpoint == 0 && answers != (token as u8 == Packet::In as u8) {
                // The last stage has the same parity whatever came before.
                self.toggles[0] = true;
            }
            if endpoint == 1 && self.reports.is_empty() {
                return Reply::Busy;
            }
            self.wrong_toggles += usize::from(toggle != self.toggles[which]);
            self.toggles[which] = !toggle;
            match (token as u8, endpoint) {
                (_, 1) => Reply::Bytes(self.reports.pop_front().unwrap().to_vec()),
                (0x2D, _) => {
                    self.setup.copy_from_slice(bytes);
                    self.answer = match self.setup[..4] {
                        [0x80, 6, 0, 1] => vec![18, 1, 0, 2, 0, 0, 0, 8],
                        [0x80, 6, 0, 2] => KEYBOARD.configuration.to_vec(),
                        _ => vec![],
                    };
                    let asked = usize::from(u16::from_le_bytes([self.setup[6], self.setup[7]]));
                    self.answer.truncate(asked);
                    Reply::Bytes(vec![])
                }
                (0x69, _) => {
                    if self.setup[0] & 0x80 == 0 {
                        if self.setup[1] == 5 {
                            self.address = self.setup[2];
                        }
                        return Reply::Bytes(vec![]);
                    }
                    let length = self.answer.len().min(if self.fault == Fault::Short { 3 } else { 8 });
                    let mut part: Vec<u8> = self.answer.drain(..length).collect();
                    if self.fault == Fault::TooLong {
                        part.resize(300, 0);
                    }
                    Reply::Bytes(part)
                }
                _ => Reply::Bytes(vec![]),
            }
        }
    }

    #[derive(Clone)]
    struct Shared(Rc<RefCell<Fake>>);

    impl FakeDevice for Shared {
        fn read(&mut self, port: u16, _: u8) -> Option<u32> {
            let fake = self.0.borrow();
            let index = usize::from(port.checked_sub(BASE).filter(|offset| *offset < 0x14)? / 2);
            Some(u32::from(match index {
                1 => {
                    if fake.registers[0] & switch::RUN == 0 {
                        HALTED
                    } else {
                        0
                    }
                }
                8 => port::PRESENT,
                9 if fake.fault == Fault::Disabled => port::PRESENT | port::CONNECTED,
                9 => fake.registers[9] | port::PRESENT | port::CONNECTED,
                index => fake.registers[index],
            }))
        }

        fn write(&mut self, port: u16, width: u8, value: u32) -> bool {
            let mut fake = self.0.borrow_mut();
            let Some(offset @ 0..0x14) = port.checked_sub(BASE) else { return false };
            match (offset, value as u16) {
                (8, _) if width == 4 => fake.frame_list = value,
                (0, command) if command & switch::RESET != 0 && fake.fault != Fault::InReset => fake.registers[0] = 0,
                (offset, value) => fake.registers[usize::from(offset / 2)] = value,
            }
            true
        }
    }

    /// A clock: when somebody looks at it, the controller does the work of a frame.
    struct Clock {
        time: FakeHypervisor,
        fake: Rc<RefCell<Fake>>,
    }

    impl Clock {
        fn pass(&self) {
            let _ = self.system_time_ns();
        }
    }

    impl Hypervisor for Clock {
        fn system_time_ns(&self) -> u64 {
            CountingAllocator::uncounted(|| self.fake.borrow_mut().frame());
            self.time.time_ns.set(self.time.time_ns.get() + 100_000);
            self.time.time_ns.get()
        }
        fn hvm_param(&self, index: u32) -> XenResult<u64> {
            self.time.hvm_param(index)
        }
        fn set_hvm_param(&self, index: u32, value: u64) -> XenResult<()> {
            self.time.set_hvm_param(index, value)
        }
        fn map_grant_frame(&self, index: u32, gfn: Gfn) -> XenResult<()> {
            self.time.map_grant_frame(index, gfn)
        }
        fn map_shared_info(&self, gfn: Gfn) -> XenResult<()> {
            self.time.map_shared_info(gfn)
        }
        fn unmap(&self, gfn: Gfn) -> XenResult<()> {
            self.time.unmap(gfn)
        }
        fn grant_frames_max(&self) -> XenResult<u32> {
            self.time.grant_frames_max()
        }
        fn allocate_port(&self, remote: DomainId) -> XenResult<EventPort> {
            self.time.allocate_port(remote)
        }
        fn notify(&self, port: EventPort) -> XenResult<()> {
            self.time.notify(port)
        }
        fn close_port(&self, port: EventPort) -> XenResult<()> {
            self.time.close_port(port)
        }
        fn poll(&self, port: EventPort, deadline_ns: u64) -> XenResult<()> {
            self.time.poll(port, deadline_ns)
        }
        fn memory_map(&self, entries: &mut [E820Entry]) -> XenResult<usize> {
            self.time.memory_map(entries)
        }
        fn shutdown(&self, reason: ShutdownReason) {
            self.time.shutdown(reason);
        }
        fn take_pending(&self, port: EventPort) -> bool {
            self.time.take_pending(port)
        }
        fn wall_clock_ns(&self) -> u64 {
            self.time.wall_clock_ns()
        }
    }

    fn world(fault: Fault) -> (Rc<RefCell<Fake>>, &'static Clock, EmulatedMachine) {
        let fake = Rc::new(RefCell::new(Fake {
            registers: [0; 10],
            frame_list: 0,
            fault,
            address: 0,
            setup: [0; 8],
            answer: vec![],
            reports: VecDeque::new(),
            toggles: [false; 2],
            wrong_toggles: 0,
            frames: 0,
        }));
        let clock = leak(Clock { time: FakeHypervisor::new(), fake: fake.clone() });
        let domain = Domain { hypervisor: clock, frames: leak(LowFrames::default()) };
        let ports = leak(FakePorts::with(Shared(fake.clone())));
        (fake, clock, EmulatedMachine { domain, ports, windows: leak(FakeWindows::default()) })
    }

    #[test]
    fn a_keyboard_is_found_and_its_reports_arrive_in_order() {
        let (fake, clock, machine) = world(Fault::None);
        let mut host = Uhci::start(machine, BASE).unwrap();
        let found = keyboards(&mut host);
        let [keyboard] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&keyboard.ports[..], keyboard.control.address), (&[1][..], 1));
        let mut report = [0; 8];
        assert_eq!(host.report(keyboard.reports, &mut report), None);
        fake.borrow_mut().reports.extend((1..=5).map(|key| [0, 0, key, 0, 0, 0, 0, 0]));
        let mut keys = vec![];
        for _ in 0..100 {
            clock.pass();
            if let Some(length) = host.report(keyboard.reports, &mut report) {
                assert_eq!(length, 8);
                keys.push(report[2]);
            }
        }
        assert_eq!(keys, [1, 2, 3, 4, 5]);
        assert_eq!(fake.borrow().wrong_toggles, 0);
    }

    #[test]
    fn controllers_and_devices_that_fail_are_given_up_in_bounded_time() {
        for fault in
            [Fault::Dead, Fault::InReset, Fault::Disabled, Fault::Silent, Fault::Stalling, Fault::TooLong, Fault::Short]
        {
            let (_, clock, machine) = world(fault);
            if let Some(mut host) = Uhci::start(machine, BASE) {
                assert!(keyboards(&mut host).is_empty(), "{fault:?}");
            }
            assert!(clock.time.time_ns.get() < 1_000 * MILLISECOND, "{fault:?}");
        }
    }

    #[test]
    fn where_nothing_answers_there_is_no_controller() {
        let (_, _, machine) = world(Fault::None);
        assert!(Uhci::start(machine, 0xE000).is_none());
    }

    #[test]
    fn an_endpoint_that_fails_is_not_asked_again() {
        let (fake, clock, machine) = world(Fault::None);
        let mut host = Uhci::start(machine, BASE).unwrap();
        let reports = keyboards(&mut host)[0].reports;
        fake.borrow_mut().fault = Fault::Stalling;
        (0..20).for_each(|_| clock.pass());
        assert_eq!(host.report(reports, &mut [0; 8]), None);
        fake.borrow_mut().fault = Fault::None;
        fake.borrow_mut().reports.push_back([1; 8]);
        (0..20).for_each(|_| clock.pass());
        assert_eq!(host.report(reports, &mut [0; 8]), None);
    }

    #[test]
    fn a_stopped_controller_does_nothing_and_stopping_allocates_nothing() {
        let (fake, clock, machine) = world(Fault::None);
        let mut host = Uhci::start(machine, BASE).unwrap();
        let keyboard = keyboards(&mut host).remove(0);
        let before = CountingAllocator::count();
        host.stop();
        assert_eq!(CountingAllocator::count(), before);
        let frames = fake.borrow().frames;
        clock.pass();
        assert_eq!((fake.borrow().registers[0], fake.borrow().frames), (0, frames));
        let setup = Setup { kind: 0, request: 0, value: 0, index: 0 };
        assert_eq!(host.control(keyboard.control, setup, &mut []), Err(UsbError::Failed));
    }
}
