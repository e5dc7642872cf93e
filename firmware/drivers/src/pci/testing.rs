//! Functions with a configuration space, as a test builds them, behind the two registers of configuration mechanism 1.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use hw::fake::{FakeDevice, FakePorts, FakeWindows};

use super::Address;
use crate::domain::EmulatedMachine;
use crate::testing::{domain, leak};

/// A function's configuration space.
#[derive(Clone)]
pub struct FakeFunction {
    pub space: [u8; 256],
    /// Which bits of which 32-bit register can be written, beside the command register.
    pub writable: BTreeMap<u16, u32>,
}

impl FakeFunction {
    pub fn new(vendor: u16, device: u16, class: [u8; 3]) -> Self {
        let mut new = Self { space: [0; 256], writable: BTreeMap::new() };
        new.put(0, u32::from(vendor) | u32::from(device) << 16);
        new.put(8, u32::from_be_bytes([class[0], class[1], class[2], 0]));
        new.writable.insert(4, 0x0000_FFFF);
        new
    }

    /// A register with a value that cannot be changed, but for `writable`.
    pub fn with(mut self, offset: u16, value: u32, writable: u32) -> Self {
        self.put(offset, value);
        self.writable.insert(offset, writable);
        self
    }

    /// A BAR of 32 bits.
    pub fn bar(self, index: u16, value: u32, size: u32) -> Self {
        let fixed = if value & 1 != 0 { 3 } else { 0xF };
        self.with(0x10 + 4 * index, value, !(size - 1) & !fixed)
    }

    /// A BAR of 64 bits.
    pub fn wide_bar(self, index: u16, value: u64, size: u64) -> Self {
        let writable = !(size - 1) & !0xF;
        self.with(0x10 + 4 * index, value as u32, writable as u32).with(
            0x14 + 4 * index,
            (value >> 32) as u32,
            (writable >> 32) as u32,
        )
    }

    pub fn bridge_to(self, secondary: u8) -> Self {
        self.with(0x0C, 1 << 16, 0).with(0x18, u32::from(secondary) << 8, 0)
    }

    pub fn multi_function(mut self) -> Self {
        self.space[0x0E] |= 0x80;
        self
    }

    pub fn get(&self, offset: u16) -> u32 {
        let at = usize::from(offset);
        u32::from_le_bytes(self.space[at..at + 4].try_into().unwrap())
    }

    pub fn put(&mut self, offset: u16, value: u32) {
        self.space[usize::from(offset)..][..4].copy_from_slice(&value.to_le_bytes());
    }
}

/// All functions there are, shared between a test and its machine.
pub type Functions = Rc<RefCell<BTreeMap<Address, FakeFunction>>>;

/// The two registers.
pub struct Mechanism {
    address: u32,
    functions: Functions,
}

impl FakeDevice for Mechanism {
    fn read(&mut self, port: u16, width: u8) -> Option<u32> {
        let at = port.checked_sub(0xCFC).filter(|at| *at < 4)?;
        let functions = self.functions.borrow();
        let (function, register) = (functions.get(&selected(self.address))?, (self.address & 0xFC) as u16);
        Some(function.get(register) >> (8 * at) & (u32::MAX >> (32 - 8 * u32::from(width))))
    }

    fn write(&mut self, port: u16, width: u8, value: u32) -> bool {
        if port == 0xCF8 && width == 4 {
            self.address = value;
            return true;
        }
        let Some(at) = port.checked_sub(0xCFC).filter(|at| *at < 4) else { return false };
        let register = (self.address & 0xFC) as u16;
        if let Some(function) = self.functions.borrow_mut().get_mut(&selected(self.address)) {
            let lanes = (u32::MAX >> (32 - 8 * u32::from(width))) << (8 * at);
            let mask = function.writable.get(&register).copied().unwrap_or(0) & lanes;
            let value = function.get(register) & !mask | value << (8 * at) & mask;
            function.put(register, value);
        }
        true
    }
}

fn selected(address: u32) -> Address {
    assert!(address & 1 << 31 != 0, "the data register used without an address");
    Address { bus: (address >> 16) as u8, device: (address >> 11 & 31) as u8, function: (address >> 8 & 7) as u8 }
}

pub fn at(bus: u8, device: u8, function: u8) -> Address {
    Address { bus, device, function }
}

/// A machine with these functions; and its windows, to put memory in.
pub fn machine(
    functions: impl IntoIterator<Item = (Address, FakeFunction)>,
) -> (EmulatedMachine, Functions, &'static FakeWindows) {
    let functions: Functions = Rc::new(RefCell::new(functions.into_iter().collect()));
    let windows = leak(FakeWindows::default());
    let ports = leak(FakePorts::with(Mechanism { address: 0, functions: functions.clone() }));
    let (_, domain) = domain();
    (EmulatedMachine { domain, ports, windows }, functions, windows)
}
