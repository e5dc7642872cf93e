//! The first serial port of an HVM guest: a 16550 UART, as a console and as EFI_SERIAL_IO_PROTOCOL.
//!
//! Each access is a visit to the device model, so output goes in strokes of a whole FIFO: one look whether it is empty, one
//! instruction that fills it. Source: National Semiconductor PC16550D data sheet.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;

use hw::interrupts;
use services::console::ByteConsole;
use services::device_path::{DevicePathBuf, Node};
use services::serial::{Attributes, SerialPort, Unsupported};
use services::{Guid, Handle, Result};
use uefi_raw::guid;
use uefi_raw::protocol::console::serial::{ControlBits, Parity, StopBits};

use crate::domain::{EmulatedMachine, MILLISECOND};
use crate::keyboard::ISA_BRIDGE;
use crate::pci::ROOT;

/// Where the first serial port is.
pub const COM1: u16 = 0x3F8;

/// Registers, from the port's address on.
mod register {
    /// Received when read, transmitted when written; low byte of the divisor with [`super::DIVISOR`].
    pub const DATA: u16 = 0;
    /// Interrupts; high byte of the divisor with [`super::DIVISOR`].
    pub const INTERRUPTS: u16 = 1;
    /// FIFO control when written, interrupt identification when read.
    pub const FIFO: u16 = 2;
    pub const LINE_CONTROL: u16 = 3;
    pub const MODEM_CONTROL: u16 = 4;
    pub const LINE_STATUS: u16 = 5;
    pub const MODEM_STATUS: u16 = 6;
    pub const SCRATCH: u16 = 7;
}

/// FIFO control: on, both emptied, receiver tells at 14 characters.
const FIFO_ON: u8 = 0b1100_0111;
/// Interrupt identification: the FIFOs are on, and work.
const FIFO_WORKS: u8 = 0b1100_0000;
/// Line control: divisor in the place of data and interrupts.
const DIVISOR: u8 = 1 << 7;
/// Modem control and status, and what UEFI calls them.
const LINES: [(u8, ControlBits); 3] = [
    (1 << 0, ControlBits::DATA_TERMINAL_READY),
    (1 << 1, ControlBits::REQUEST_TO_SEND),
    (1 << 4, ControlBits::HARDWARE_LOOPBACK_ENABLE),
];
const SIGNALS: [(u8, ControlBits); 4] = [
    (1 << 4, ControlBits::CLEAR_TO_SEND),
    (1 << 5, ControlBits::DATA_SET_READY),
    (1 << 6, ControlBits::RING_INDICATE),
    (1 << 7, ControlBits::CARRIER_DETECT),
];

/// Line status.
mod status {
    /// A character waits.
    pub const RECEIVED: u8 = 1 << 0;
    /// The transmitter's FIFO is empty.
    pub const EMPTY: u8 = 1 << 5;
    /// No port.
    pub const ABSENT: u8 = 0xFF;
}

/// Characters that the FIFO of a 16550 takes.
const FIFO: usize = 16;
/// Bits per second with a divisor of 1.
const FASTEST: u64 = 115_200;
/// Longest wait of a console write for the FIFO to be empty. A line at 9600 baud takes 17 ms for a full one.
const WRITE_TIMEOUT: u64 = 200 * MILLISECOND;
/// `EFI_VT_UTF8_GUID` (UEFI 2.10 §10.3.4.10): the terminal's type in its device path.
const VT_UTF8: Guid = guid!("ad15a0d6-8bec-4acf-a073-d01de77e2d88");
/// Node of the first serial port: PNP0501.
const SERIAL: Node = Node::Acpi { hid: 0x0501_41D0, uid: 0 };

/// A port that is there. Usable through a shared reference, also from a notification that interrupts a write.
#[derive(Debug)]
pub struct Uart {
    machine: EmulatedMachine,
    base: u16,
    /// Characters to write at once.
    fifo: usize,
    attributes: Cell<Attributes>,
    /// Nothing was taken for [`WRITE_TIMEOUT`]: do not wait until something is again.
    stalled: Cell<bool>,
}

/// Makes the first serial port a console, with the device paths that other firmware gives it. `None` where there is none.
pub fn install(machine: EmulatedMachine) -> Result<Option<Handle>> {
    let Some(uart) = Uart::open(machine, COM1) else { return Ok(None) };
    let uart: &'static Uart = Box::leak(Box::new(uart));
    let line = Node::Uart { baud_rate: Attributes::DEFAULT.baud_rate, data_bits: 8, parity: 1, stop_bits: 1 };
    let path = DevicePathBuf::new().with(&ROOT)?.with(&ISA_BRIDGE)?.with(&SERIAL)?.with(&line)?;
    services::abi::serial::install(path.as_path(), Box::new(uart))?;
    let path = path.with(&Node::VendorMessaging { guid: VT_UTF8, data: Vec::new() })?;
    services::abi::console::install_terminal(path.as_path(), Box::new(uart)).map(Some)
}

impl Uart {
    /// Looks for a port at `base` and sets it up: 115200 baud, 8 data bits, no parity, 1 stop bit. Costs one access where there
    /// is none.
    pub fn open(machine: EmulatedMachine, base: u16) -> Option<Self> {
        const PATTERN: u8 = 0x5A;
        let mut new =
            Self { machine, base, fifo: 1, attributes: Cell::new(Attributes::DEFAULT), stalled: Cell::new(false) };
        if new.read_register(register::LINE_STATUS) == status::ABSENT {
            return None;
        }
        new.write_register(register::SCRATCH, PATTERN);
        if new.read_register(register::SCRATCH) != PATTERN {
            return None;
        }
        new.set_up();
        if new.read_register(register::FIFO) & FIFO_WORKS == FIFO_WORKS {
            new.fifo = FIFO;
        }
        Some(new)
    }

    /// Writes bytes. When the FIFO does not become empty within [`WRITE_TIMEOUT`], what is left is dropped.
    pub fn write_bytes(&self, bytes: &[u8]) {
        for stroke in bytes.chunks(self.fifo) {
            if self.put(stroke) {
                self.stalled.set(false);
                continue;
            }
            if self.stalled.get() {
                return;
            }
            if self.machine.poll(WRITE_TIMEOUT, || self.put(stroke).then_some(())).is_none() {
                self.stalled.set(true);
                return;
            }
        }
    }

    /// Reads what has arrived; 0 if nothing has.
    pub fn read_bytes(&self, into: &mut [u8]) -> usize {
        let mut length = 0;
        for byte in into {
            let Some(received) = self.take() else { break };
            *byte = received;
            length += 1;
        }
        length
    }

    fn set_up(&self) {
        self.stalled.set(false);
        self.set_line(Attributes::DEFAULT);
        self.write_register(register::FIFO, FIFO_ON);
        self.write_register(register::INTERRUPTS, 0);
        let [(terminal_ready, _), (request_to_send, _), _] = LINES;
        self.write_register(register::MODEM_CONTROL, terminal_ready | request_to_send);
    }

    /// Sets the line; `false` for what it cannot be set to.
    fn set_line(&self, attributes: Attributes) -> bool {
        let Some((divisor, control)) = line_control(&attributes) else { return false };
        // A notification that writes must not find the divisor where data should be.
        let state = interrupts::disable();
        let [low, high] = divisor.to_le_bytes();
        self.write_register(register::LINE_CONTROL, control | DIVISOR);
        self.write_register(register::DATA, low);
        self.write_register(register::INTERRUPTS, high);
        self.write_register(register::LINE_CONTROL, control);
        interrupts::restore(state);
        self.attributes.set(Attributes { baud_rate: FASTEST / u64::from(divisor), ..attributes });
        true
    }

    /// Fills the FIFO if it is empty.
    fn put(&self, stroke: &[u8]) -> bool {
        // A notification that writes must not come between the look and the write.
        let state = interrupts::disable();
        let now = self.read_register(register::LINE_STATUS);
        let empty = now & status::EMPTY != 0 && now != status::ABSENT;
        if empty {
            self.machine.ports.write_bytes(self.base + register::DATA, stroke);
        }
        interrupts::restore(state);
        empty
    }

    fn take(&self) -> Option<u8> {
        let now = self.read_register(register::LINE_STATUS);
        (now & status::RECEIVED != 0 && now != status::ABSENT).then(|| self.read_register(register::DATA))
    }

    fn read_register(&self, register: u16) -> u8 {
        self.machine.ports.read_u8(self.base + register)
    }

    fn write_register(&self, register: u16, value: u8) {
        self.machine.ports.write_u8(self.base + register, value);
    }

    /// The time one character may take, in nanoseconds.
    fn timeout(&self) -> u64 {
        u64::from(self.attributes.get().timeout) * 1_000
    }
}

/// Divisor and line control register; `None` for what a UART does not do.
fn line_control(attributes: &Attributes) -> Option<(u16, u8)> {
    let Attributes { baud_rate, receive_fifo_depth, parity, data_bits, stop_bits, .. } = *attributes;
    if !(1..=FASTEST).contains(&baud_rate) || receive_fifo_depth as usize > FIFO {
        return None;
    }
    let divisor = u16::try_from(FASTEST.div_ceil(baud_rate)).ok()?;
    let parity = match parity {
        Parity::NONE => 0b000,
        Parity::ODD => 0b001,
        Parity::EVEN => 0b011,
        Parity::MARK => 0b101,
        Parity::SPACE => 0b111,
        _ => return None,
    };
    let stop = match (stop_bits, data_bits) {
        (StopBits::ONE, 5..=8) => 0,
        (StopBits::ONE_FIVE, 5) | (StopBits::TWO, 6..=8) => 1,
        _ => return None,
    };
    Some((divisor, parity << 3 | stop << 2 | (data_bits - 5)))
}

/// The names of the bits that are set.
fn names(bits: u8, of: &[(u8, ControlBits)]) -> ControlBits {
    of.iter().filter(|(bit, _)| bits & bit != 0).fold(ControlBits::empty(), |all, (_, name)| all | *name)
}

impl ByteConsole for &'static Uart {
    fn write(&mut self, bytes: &[u8]) {
        self.write_bytes(bytes);
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        self.read_bytes(into)
    }
}

impl SerialPort for &'static Uart {
    fn attributes(&self) -> Attributes {
        self.attributes.get()
    }

    fn set_attributes(&mut self, attributes: Attributes) -> core::result::Result<(), Unsupported> {
        if self.set_line(attributes) { Ok(()) } else { Err(Unsupported) }
    }

    fn control(&self) -> ControlBits {
        let line = self.read_register(register::LINE_STATUS);
        let mut control = names(self.read_register(register::MODEM_STATUS), &SIGNALS)
            | names(self.read_register(register::MODEM_CONTROL), &LINES);
        control.set(ControlBits::INPUT_BUFFER_EMPTY, line & status::RECEIVED == 0);
        control.set(ControlBits::OUTPUT_BUFFER_EMPTY, line & status::EMPTY != 0);
        control
    }

    fn set_control(&mut self, control: ControlBits) -> core::result::Result<(), Unsupported> {
        let possible = names(u8::MAX, &LINES);
        if !possible.contains(control) {
            return Err(Unsupported);
        }
        let bits = LINES.iter().filter(|(_, name)| control.contains(*name)).fold(0, |bits, (bit, _)| bits | bit);
        self.write_register(register::MODEM_CONTROL, bits);
        Ok(())
    }

    fn control_mask(&self) -> ControlBits {
        names(u8::MAX, &LINES)
            | names(u8::MAX, &SIGNALS)
            | ControlBits::INPUT_BUFFER_EMPTY
            | ControlBits::OUTPUT_BUFFER_EMPTY
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        for stroke in bytes.chunks(self.fifo) {
            let timeout = self.timeout().saturating_mul(stroke.len() as u64);
            if self.machine.poll(timeout, || self.put(stroke).then_some(())).is_none() {
                break;
            }
            written += stroke.len();
        }
        written
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        let mut length = 0;
        for byte in into {
            let Some(received) = self.machine.poll(self.timeout(), || self.take()) else { break };
            *byte = received;
            length += 1;
        }
        length
    }

    fn reset(&mut self) {
        self.set_up();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    use hw::fake::{FakeDevice, FakeHypervisor, FakePorts, FakeWindows};

    use super::*;
    use crate::testing::{domain, leak};

    /// A port, as a test plays it.
    struct Fake {
        registers: [u8; 8],
        divisor: [u8; 2],
        received: VecDeque<u8>,
        sent: Vec<u8>,
        accesses: usize,
        /// Looks at the status that show a FIFO that is not empty, after each stroke.
        busy_for: usize,
        busy: usize,
        works: bool,
        /// All status registers read so.
        stuck: Option<u8>,
    }

    #[derive(Clone)]
    struct Shared(Rc<RefCell<Fake>>);

    impl FakeDevice for Shared {
        fn read(&mut self, port: u16, _width: u8) -> Option<u32> {
            let mut fake = self.0.borrow_mut();
            let register = port.checked_sub(COM1).filter(|register| *register < 8)?;
            fake.accesses += 1;
            Some(u32::from(match register {
                register::DATA => fake.received.pop_front().unwrap_or(0),
                register::FIFO if fake.works => 0xC1,
                register::FIFO => 0x01,
                register::LINE_STATUS => fake.stuck.unwrap_or_else(|| {
                    fake.busy = fake.busy.saturating_sub(1);
                    let empty = if fake.busy == 0 { 0x60 } else { 0 };
                    empty | u8::from(!fake.received.is_empty())
                }),
                register::MODEM_STATUS => 0xB0,
                register => fake.registers[usize::from(register)],
            }))
        }

        fn write(&mut self, port: u16, _width: u8, value: u32) -> bool {
            let mut fake = self.0.borrow_mut();
            let Some(register @ 0..8) = port.checked_sub(COM1) else { return false };
            let value = value as u8;
            let divisor = fake.registers[3] & DIVISOR != 0;
            match register {
                0 | 1 if divisor => fake.divisor[usize::from(register)] = value,
                register::DATA => {
                    fake.sent.push(value);
                    fake.busy = fake.busy_for;
                    // A stroke is one access, whatever its length.
                    return true;
                }
                register => fake.registers[usize::from(register)] = value,
            }
            fake.accesses += 1;
            true
        }
    }

    fn machine(works: bool) -> (&'static FakeHypervisor, Rc<RefCell<Fake>>, EmulatedMachine) {
        let fake = Rc::new(RefCell::new(Fake {
            registers: [0; 8],
            divisor: [0; 2],
            received: VecDeque::new(),
            sent: Vec::new(),
            accesses: 0,
            busy_for: 0,
            busy: 0,
            works,
            stuck: None,
        }));
        let (hypervisor, domain) = domain();
        let ports = leak(FakePorts::with(Shared(fake.clone())));
        (hypervisor, fake, EmulatedMachine { domain, ports, windows: leak(FakeWindows::default()) })
    }

    fn open() -> (&'static FakeHypervisor, Rc<RefCell<Fake>>, &'static Uart) {
        let (hypervisor, fake, machine) = machine(true);
        (hypervisor, fake, leak(Uart::open(machine, COM1).unwrap()))
    }

    #[test]
    fn without_a_port_one_access_says_so() {
        let (_, fake, machine) = machine(true);
        fake.borrow_mut().stuck = Some(0xFF);
        assert!(Uart::open(machine, COM1).is_none());
        assert_eq!(fake.borrow().accesses, 1);
    }

    #[test]
    fn something_else_at_these_ports_is_no_port() {
        struct Constant;
        impl FakeDevice for Constant {
            fn read(&mut self, _: u16, _: u8) -> Option<u32> {
                Some(0)
            }
            fn write(&mut self, _: u16, _: u8, _: u32) -> bool {
                true
            }
        }
        let (_, domain) = domain();
        let ports = leak(FakePorts::with(Constant));
        assert!(Uart::open(EmulatedMachine { domain, ports, windows: leak(FakeWindows::default()) }, COM1).is_none());
    }

    #[test]
    fn the_line_is_115200_8n1_without_interrupts() {
        let (_, fake, uart) = open();
        let fake = fake.borrow();
        assert_eq!((fake.divisor, fake.registers[3], fake.registers[1], fake.registers[4]), ([1, 0], 0x03, 0, 0x03));
        assert_eq!((fake.registers[2], uart.fifo), (FIFO_ON, 16));
        assert!(fake.accesses <= 12);
    }

    #[test]
    fn output_arrives_in_order_with_one_look_for_a_full_fifo() {
        let (_, fake, uart) = open();
        let text: Vec<u8> = (0..100).collect();
        let before = fake.borrow().accesses;
        uart.write_bytes(&text);
        assert_eq!(fake.borrow().sent, text);
        assert_eq!(fake.borrow().accesses - before, 100usize.div_ceil(16));
    }

    #[test]
    fn a_busy_line_is_waited_for() {
        let (_, fake, uart) = open();
        fake.borrow_mut().busy_for = 50;
        uart.write_bytes(&[b'x'; 100]);
        assert_eq!(fake.borrow().sent.len(), 100);
    }

    #[test]
    fn without_fifo_characters_go_one_by_one() {
        let (_, fake, machine) = machine(false);
        let uart = Uart::open(machine, COM1).unwrap();
        assert_eq!(uart.fifo, 1);
        uart.write_bytes(b"abc");
        assert_eq!(fake.borrow().sent, b"abc");
    }

    #[test]
    fn a_line_that_takes_nothing_is_waited_for_once() {
        let (hypervisor, fake, uart) = open();
        fake.borrow_mut().stuck = Some(0);
        uart.write_bytes(&[b'a'; 1000]);
        let waited = hypervisor.time_ns.get();
        assert!((WRITE_TIMEOUT..2 * WRITE_TIMEOUT).contains(&waited));
        uart.write_bytes(&[b'b'; 1000]);
        assert!(hypervisor.time_ns.get() < waited + MILLISECOND);
        fake.borrow_mut().stuck = None;
        uart.write_bytes(b"back");
        assert_eq!(fake.borrow().sent, b"back");
    }

    #[test]
    fn a_port_that_goes_away_ends_nothing() {
        let (_, fake, uart) = open();
        fake.borrow_mut().stuck = Some(0xFF);
        uart.write_bytes(&[b'a'; 1000]);
        assert_eq!(uart.read_bytes(&mut [0; 10]), 0);
        assert!(fake.borrow().sent.is_empty());
    }

    #[test]
    fn input_is_read_without_waiting() {
        let (_, fake, uart) = open();
        let mut into = [0; 4];
        assert_eq!(uart.read_bytes(&mut into), 0);
        fake.borrow_mut().received.extend(b"typed");
        assert_eq!(uart.read_bytes(&mut into), 4);
        assert_eq!(&into, b"type");
        assert_eq!(uart.read_bytes(&mut into), 1);
    }

    #[test]
    fn a_port_that_receives_without_end_fills_the_buffer_and_no_more() {
        let (_, fake, uart) = open();
        fake.borrow_mut().stuck = Some(0x61);
        assert_eq!(uart.read_bytes(&mut [0; 64]), 64);
    }

    #[test]
    fn the_protocol_waits_for_input_as_long_as_it_was_told() {
        let (hypervisor, fake, mut uart) = open();
        uart.set_attributes(Attributes { timeout: 3_000, ..Attributes::DEFAULT }).unwrap();
        fake.borrow_mut().received.push_back(b'x');
        let mut into = [0; 2];
        assert_eq!(SerialPort::read(&mut uart, &mut into), 1);
        assert!((3_000_000..6_000_000).contains(&hypervisor.time_ns.get()));
        fake.borrow_mut().stuck = Some(0);
        assert_eq!(SerialPort::write(&mut uart, b"abc"), 0);
    }

    #[test]
    fn attributes_that_a_uart_has_are_set_and_others_refused() {
        let (_, fake, mut uart) = open();
        let set = |attributes: Attributes, uart: &mut &'static Uart| {
            let before = (fake.borrow().divisor, fake.borrow().registers[3]);
            let result = uart.set_attributes(attributes);
            let after = (fake.borrow().divisor, fake.borrow().registers[3]);
            assert!(result.is_ok() || before == after);
            result.map(|()| after)
        };
        let default = Attributes::DEFAULT;
        let slow =
            Attributes { baud_rate: 9_600, parity: Parity::EVEN, data_bits: 7, stop_bits: StopBits::TWO, ..default };
        assert_eq!(set(slow, &mut uart), Ok(([12, 0], 0b0001_1110)));
        assert_eq!(set(Attributes { baud_rate: 50_000, ..default }, &mut uart), Ok(([3, 0], 3)));
        assert_eq!(uart.attributes().baud_rate, 38_400);
        let now = uart.attributes();
        for bad in [
            Attributes { baud_rate: 115_201, ..default },
            Attributes { baud_rate: 1, ..default },
            Attributes { data_bits: 4, ..default },
            Attributes { data_bits: 9, ..default },
            Attributes { stop_bits: StopBits::ONE_FIVE, ..default },
            Attributes { parity: Parity(6), ..default },
            Attributes { receive_fifo_depth: 17, ..default },
        ] {
            assert_eq!(set(bad, &mut uart), Err(Unsupported), "{bad:?}");
        }
        assert_eq!(uart.attributes(), now);
    }

    #[test]
    fn control_lines_are_set_and_read() {
        let (_, fake, mut uart) = open();
        assert_eq!(uart.set_control(ControlBits::REQUEST_TO_SEND), Ok(()));
        assert_eq!(fake.borrow().registers[4], 0b10);
        assert_eq!(uart.set_control(ControlBits::HARDWARE_FLOW_CONTROL_ENABLE), Err(Unsupported));
        let control = uart.control();
        assert!(
            control
                .contains(ControlBits::CLEAR_TO_SEND | ControlBits::REQUEST_TO_SEND | ControlBits::INPUT_BUFFER_EMPTY)
        );
        assert!(!control.intersects(ControlBits::RING_INDICATE | ControlBits::DATA_TERMINAL_READY));
        assert!(uart.control_mask().contains(control));
    }
}
