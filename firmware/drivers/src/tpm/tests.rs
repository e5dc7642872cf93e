//! Register models of the device model's two TPMs in front of a TPM in software.

use std::cell::RefCell;
use std::rc::Rc;

use hw::device::{Window, Windows};
use hw::fake::FakePorts;
use services::tcg2::command::{Tpm, TpmError};
use services::tcg2::digest::{Algorithm, Hasher};
use services::tcg2::fake::FakeTpm;

use super::*;
use crate::testing::{domain, leak};

/// The registers as the guest sees them.
trait Model {
    fn read(&mut self, offset: usize, width: usize) -> u64;
    fn write(&mut self, offset: usize, width: usize, value: u64);
    fn read_bytes(&mut self, offset: usize, into: &mut [u8]);
    fn write_bytes(&mut self, offset: usize, from: &[u8]);
}

type Shared<M> = Rc<RefCell<M>>;

struct ModelWindow<M>(Shared<M>);

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, offset: usize) -> $type {
            self.0.borrow_mut().read(offset, size_of::<$type>()) as $type
        }
        fn $write(&self, offset: usize, value: $type) {
            self.0.borrow_mut().write(offset, size_of::<$type>(), value.into());
        }
    };
}

impl<M: Model> Window for ModelWindow<M> {
    fn address(&self) -> u64 {
        ADDRESS
    }
    fn len(&self) -> usize {
        LENGTH
    }
    access!(read_u8, write_u8, u8);
    access!(read_u16, write_u16, u16);
    access!(read_u32, write_u32, u32);
    access!(read_u64, write_u64, u64);
    fn write_bytes(&self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= LENGTH, "outside the window");
        self.0.borrow_mut().write_bytes(offset, from);
    }
    fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= LENGTH, "outside the window");
        self.0.borrow_mut().read_bytes(offset, into);
    }
    fn fill_u32(&self, _: usize, _: usize, _: u32) {
        panic!("not for registers");
    }
}

struct ModelWindows<M>(Shared<M>);

impl<M: Model + 'static> Windows for ModelWindows<M> {
    fn window(&self, address: u64, length: usize) -> Option<Box<dyn Window>> {
        (address == ADDRESS && length == LENGTH).then(|| Box::new(ModelWindow(self.0.clone())) as _)
    }
}

fn machine<M: Model + 'static>(model: M) -> (Shared<M>, EmulatedMachine) {
    let model = Rc::new(RefCell::new(model));
    let windows = leak(ModelWindows(model.clone()));
    (model, EmulatedMachine { domain: domain().1, ports: leak(FakePorts::default()), windows })
}

/// A command response buffer.
struct CrbModel {
    tpm: FakeTpm,
    memory: Vec<u8>,
    /// Reads of START until a command has ended; `None`: it never does.
    slowness: Option<usize>,
    remaining: usize,
    cancelled: bool,
}

impl CrbModel {
    fn new() -> Self {
        let mut new = Self {
            tpm: FakeTpm::new(&[Algorithm::Sha256]),
            memory: vec![0; LENGTH],
            slowness: Some(3),
            remaining: 0,
            cancelled: false,
        };
        new.set(INTERFACE_ID, 0x0000_4011);
        for (size, low) in [(0x58, 0x5C), (0x64, 0x68)] {
            new.set(size, 0xF80);
            new.set(low, 0xFED4_0080);
        }
        new
    }

    fn set(&mut self, offset: usize, value: u32) {
        self.memory[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
}

impl Model for CrbModel {
    fn read(&mut self, offset: usize, width: usize) -> u64 {
        assert_eq!(width, 4, "registers have 32 bits");
        match offset {
            0x4C if self.slowness.is_none() => 1,
            0x4C if self.remaining > 0 => {
                self.remaining -= 1;
                1
            }
            0x4C => 0,
            _ => u32::from_le_bytes(*self.memory[offset..].first_chunk().unwrap()).into(),
        }
    }

    fn write(&mut self, offset: usize, _: usize, value: u64) {
        match (offset, value) {
            (0x08, 1) => self.set(0x0C, 1),
            (0x08, 2) => self.set(0x0C, 0),
            (0x48, 1) => self.cancelled = true,
            (0x4C, 1) => {
                let size = u32::from_be_bytes(*self.memory[0x82..].first_chunk().unwrap()) as usize;
                let response = self.tpm.execute(&self.memory[0x80..0x80 + size]);
                self.memory[0x80..0x80 + response.len()].copy_from_slice(&response);
                self.remaining = self.slowness.unwrap_or(0);
            }
            _ => {}
        }
    }

    fn read_bytes(&mut self, offset: usize, into: &mut [u8]) {
        assert!(offset >= 0x80, "registers are no memory");
        into.copy_from_slice(&self.memory[offset..offset + into.len()]);
    }

    fn write_bytes(&mut self, offset: usize, from: &[u8]) {
        assert!(offset >= 0x80, "registers are no memory");
        self.memory[offset..offset + from.len()].copy_from_slice(from);
    }
}

/// A FIFO.
struct FifoModel {
    tpm: FakeTpm,
    id: u32,
    granted: bool,
    ready: bool,
    command: Vec<u8>,
    response: Vec<u8>,
    /// What burstCount says at the most.
    burst: usize,
    words: bool,
    transfers: usize,
}

impl FifoModel {
    fn new(burst: usize, words: bool) -> Self {
        let tpm = FakeTpm::new(&[Algorithm::Sha256]);
        let (command, response) = (Vec::new(), Vec::new());
        Self { tpm, id: 0x2100, granted: false, ready: false, command, response, burst, words, transfers: 0 }
    }

    fn expects(&self) -> bool {
        let size = self.command.get(2..6).map(|size| u32::from_be_bytes(*size.first_chunk().unwrap()) as usize);
        size.is_none_or(|size| self.command.len() < size)
    }
}

impl Model for FifoModel {
    fn read(&mut self, offset: usize, width: usize) -> u64 {
        match offset {
            0x00 => 0x80 | if self.granted { 0x20 } else { 0 },
            0x14 if self.words => 3 << 9,
            0x14 => 0,
            0x18 => {
                let available = if self.response.is_empty() { self.burst } else { self.response.len().min(self.burst) };
                let bits = [(self.expects(), 8), (!self.response.is_empty(), 0x10), (self.ready, 0x40), (true, 0x80)];
                let bits: usize = bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
                (bits | available << 8) as u64
            }
            0x24 => {
                self.transfers += 1;
                assert!(width == 1 || self.words, "single bytes only");
                let bytes: Vec<u8> = self.response.drain(..width).chain([0; 8]).take(8).collect();
                u64::from_le_bytes(*bytes.first_chunk().unwrap())
            }
            0x30 => self.id.into(),
            _ => u64::MAX,
        }
    }

    fn write(&mut self, offset: usize, width: usize, value: u64) {
        match (offset, value) {
            (0x00, 2) => self.granted = true,
            (0x00, 0x20) => self.granted = false,
            (0x18, 0x40) => {
                self.ready = true;
                self.command.clear();
                self.response.clear();
            }
            (0x18, 0x20) => {
                self.ready = false;
                self.response = self.tpm.execute(&self.command);
            }
            (0x24, value) => {
                self.transfers += 1;
                assert!(width == 1 || self.words, "single bytes only");
                self.command.extend(&value.to_le_bytes()[..width]);
            }
            _ => panic!("write of {value:#x} at {offset:#x}"),
        }
    }

    fn read_bytes(&mut self, _: usize, _: &mut [u8]) {
        panic!("no memory here");
    }

    fn write_bytes(&mut self, _: usize, _: &[u8]) {
        panic!("no memory here");
    }
}

fn measure(device: Device) -> Result<(), TpmError> {
    let mut tpm = Tpm::new(device.transport);
    assert_eq!(tpm.start()?.banks[..], [Algorithm::Sha256]);
    tpm.extend(3, &Hasher::new(&[Algorithm::Sha256]).finish())?;
    tpm.release();
    Ok(())
}

fn expected() -> Vec<u8> {
    let mut pcr = vec![0; 32];
    services::tcg2::fake::extend(Algorithm::Sha256, &mut pcr, Hasher::new(&[Algorithm::Sha256]).finish()[0].bytes());
    pcr
}

#[test]
fn a_command_response_buffer_is_found_and_measured_into() {
    let (model, machine) = machine(CrbModel::new());
    let device = find(machine).unwrap();
    assert_eq!(device.interface, Interface::Crb);
    measure(device).unwrap();
    assert_eq!(model.borrow().tpm.pcr(Algorithm::Sha256, 3), expected());
    assert_eq!(model.borrow().memory[0x0C], 0, "locality given back");
}

#[test]
fn a_fifo_is_found_and_measured_into_whatever_it_can_transfer_at_once() {
    for (burst, words) in [(4096, true), (4096, false), (7, true), (1, false)] {
        let (model, machine) = machine(FifoModel::new(burst, words));
        let device = find(machine).unwrap();
        assert_eq!(device.interface, Interface::Fifo);
        measure(device).unwrap();
        assert_eq!(model.borrow().tpm.pcr(Algorithm::Sha256, 3), expected());
        assert!(!model.borrow().granted, "locality given back");
    }
}

#[test]
fn words_take_a_quarter_of_the_transfers() {
    let transfers = |words| {
        let (model, machine) = machine(FifoModel::new(4096, words));
        measure(find(machine).unwrap()).unwrap();
        model.borrow().transfers
    };
    assert!(transfers(true) * 3 < transfers(false));
}

#[test]
fn nothing_is_found_where_there_is_nothing_after_one_read() {
    struct Nothing(usize);
    impl Model for Nothing {
        fn read(&mut self, _: usize, _: usize) -> u64 {
            self.0 += 1;
            u64::MAX
        }
        fn write(&mut self, _: usize, _: usize, _: u64) {
            panic!("nobody there");
        }
        fn read_bytes(&mut self, _: usize, _: &mut [u8]) {}
        fn write_bytes(&mut self, _: usize, _: &[u8]) {}
    }
    let (nothing, machine) = machine(Nothing(0));
    assert!(find(machine).is_none());
    assert_eq!(nothing.borrow().0, 1);
}

#[test]
fn buffers_outside_the_window_are_not_believed_in() {
    for (register, value) in [(0x5C, 0x10_0000), (0x60, 1), (0x68, 0xFED4_0040), (0x6C, 5), (0x58, 0), (0x64, 9)] {
        let mut model = CrbModel::new();
        model.set(register, value);
        assert!(find(machine(model).1).is_none(), "{register:#x} {value:#x}");
    }
    // One that is too long is cut to the window.
    let mut model = CrbModel::new();
    model.set(0x58, u32::MAX);
    measure(find(machine(model).1).unwrap()).unwrap();
}

#[test]
fn a_command_that_does_not_end_is_cancelled() {
    let (model, machine) = machine(CrbModel::new());
    let mut device = find(machine).unwrap();
    model.borrow_mut().slowness = None;
    let command = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
    let limit = core::time::Duration::from_millis(10);
    assert_eq!(device.transport.submit(&command, &mut [0; 10], limit), Err(TransportError::TimedOut));
    assert!(model.borrow().cancelled);
}

#[test]
fn a_response_longer_than_the_room_is_refused_by_both() {
    let command = [0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7A, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1];
    let devices = [find(machine(CrbModel::new()).1).unwrap(), find(machine(FifoModel::new(64, true)).1).unwrap()];
    for mut device in devices {
        let limit = core::time::Duration::from_secs(1);
        let mut room = [0; 64];
        let length = device.transport.submit(&command, &mut room, limit).unwrap();
        for shorter in [0, 9, length - 1] {
            let refused = device.transport.submit(&command, &mut room[..shorter], limit);
            assert_eq!(refused, Err(TransportError::ResponseLength), "{shorter}");
        }
        assert_eq!(device.transport.submit(&command, &mut room[..length], limit), Ok(length));
    }
}
