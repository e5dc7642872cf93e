//! Functions, their BARs and switches.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hw::device::Window;

use super::{Address, Configuration, command, register};
use crate::domain::EmulatedMachine;

const MULTI_FUNCTION: u8 = 0x80;
const HEADER_LAYOUT: u8 = 0x7F;
const BRIDGE: u8 = 1;
/// BARs by header layout.
const BARS: [u8; 2] = [6, 2];
/// The device that offers Xen's paravirtual devices to a guest, and the identity that XCP-ng gives it.
const XEN_PLATFORM: [(u16, u16); 2] = [(0x5853, 0x0001), (0x5853, 0x0002)];
/// Longest list of capabilities: 192 bytes of 4.
const CAPABILITIES_MAX: usize = 48;

/// What a function is (PCI 3.0 §6.2.1, appendix D).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Base class.
    pub base: u8,
    /// Sub-class.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

/// Where a function answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// I/O ports.
    Ports {
        /// First port.
        first: u16,
        /// Number of ports.
        count: u32,
    },
    /// Memory.
    Memory {
        /// First byte.
        address: u64,
        /// Number of bytes, a power of two.
        size: u64,
        /// Whether reading has no effect.
        prefetchable: bool,
        /// Whether it takes two registers.
        wide: bool,
    },
}

/// One function.
#[derive(Clone, Debug)]
pub struct Function {
    machine: EmulatedMachine,
    address: Address,
    /// Vendor and device.
    pub id: (u16, u16),
    /// Its class.
    pub class: Class,
    /// Layout of its header: 0 for an endpoint, 1 for a bridge.
    layout: u8,
    bars: [Option<Bar>; 6],
}

impl Function {
    /// Reads what is at `address`; `None` where there is no function.
    fn read(machine: EmulatedMachine, address: Address) -> Option<Self> {
        let configuration = Configuration::new(machine.ports);
        let id = configuration.read_u32(address, register::VENDOR);
        if id & 0xFFFF == 0xFFFF || id & 0xFFFF == 0 {
            return None;
        }
        let [_, interface, sub, base] = configuration.read_u32(address, register::REVISION).to_le_bytes();
        let layout = configuration.read_u8(address, register::HEADER_TYPE) & HEADER_LAYOUT;
        let mut function = Self {
            machine,
            address,
            id: (id as u16, (id >> 16) as u16),
            class: Class { base, sub, interface },
            layout,
            bars: [None; 6],
        };
        function.bars = function.measure();
        Some(function)
    }

    /// Where it is.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// The machine it is in.
    pub const fn machine(&self) -> EmulatedMachine {
        self.machine
    }

    /// Whether it is a bridge to another bus.
    pub const fn is_bridge(&self) -> bool {
        self.layout == BRIDGE
    }

    /// Whether it is Xen's platform device (`xen_platform_pci=1`): the guest may use paravirtual devices.
    pub fn is_xen_platform(&self) -> bool {
        XEN_PLATFORM.contains(&self.id)
    }

    /// BAR `index`; `None` where it is not used or nothing was assigned. A wide BAR uses the index of its first register.
    pub fn bar(&self, index: u8) -> Option<Bar> {
        *self.bars.get(usize::from(index))?
    }

    /// Reads 8 bits of its configuration space.
    pub fn read_u8(&self, offset: u16) -> u8 {
        self.configuration().read_u8(self.address, offset)
    }

    /// Reads 16 bits of its configuration space.
    pub fn read_u16(&self, offset: u16) -> u16 {
        self.configuration().read_u16(self.address, offset)
    }

    /// Reads 32 bits of its configuration space.
    pub fn read_u32(&self, offset: u16) -> u32 {
        self.configuration().read_u32(self.address, offset)
    }

    /// Writes 8 bits of its configuration space.
    pub fn write_u8(&self, offset: u16, value: u8) {
        self.configuration().write_u8(self.address, offset, value);
    }

    /// Writes 16 bits of its configuration space.
    pub fn write_u16(&self, offset: u16, value: u16) {
        self.configuration().write_u16(self.address, offset, value);
    }

    /// Writes 32 bits of its configuration space.
    pub fn write_u32(&self, offset: u16, value: u32) {
        self.configuration().write_u32(self.address, offset, value);
    }

    /// Sets bits of the command register ([`command`]).
    pub fn enable(&self, bits: u16) {
        self.write_u16(register::COMMAND, self.read_u16(register::COMMAND) | bits);
    }

    /// Clears bits of the command register. Allocates nothing.
    pub fn disable(&self, bits: u16) {
        self.write_u16(register::COMMAND, self.read_u16(register::COMMAND) & !bits);
    }

    /// The memory behind BAR `index`; `None` where that is no memory, or is not mapped.
    pub fn window(&self, index: u8) -> Option<Box<dyn Window>> {
        match self.bar(index)? {
            Bar::Memory { address, size, .. } => self.machine.windows.window(address, usize::try_from(size).ok()?),
            Bar::Ports { .. } => None,
        }
    }

    /// Offset of the first capability with this identifier (PCI 3.0 §6.7).
    pub fn capability(&self, id: u8) -> Option<u16> {
        const LIST: u16 = 1 << 4;
        if self.read_u16(register::STATUS) & LIST == 0 {
            return None;
        }
        let mut at = self.read_u8(register::CAPABILITIES) & !3;
        for _ in 0..CAPABILITIES_MAX {
            if at < 0x40 {
                return None;
            }
            let [found, next, ..] = self.read_u32(at.into()).to_le_bytes();
            if found == id {
                return Some(at.into());
            }
            at = next & !3;
        }
        None
    }

    fn configuration(&self) -> Configuration {
        Configuration::new(self.machine.ports)
    }

    /// Finds the sizes of the BARs: all ones written to one stay where the size leaves room (PCI 3.0 §6.2.5.1). The function
    /// answers nowhere meanwhile.
    fn measure(&self) -> [Option<Bar>; 6] {
        let mut bars = [None; 6];
        let Some(&count) = BARS.get(usize::from(self.layout)) else { return bars };
        let switches = self.read_u16(register::COMMAND);
        self.write_u16(register::COMMAND, switches & !(command::IO | command::MEMORY));
        let mut index = 0;
        while index < count {
            let bar = self.measure_bar(index, count);
            bars[usize::from(index)] = bar;
            index += if matches!(bar, Some(Bar::Memory { wide: true, .. })) { 2 } else { 1 };
        }
        self.write_u16(register::COMMAND, switches);
        bars
    }

    fn measure_bar(&self, index: u8, count: u8) -> Option<Bar> {
        let at = register::BAR + u16::from(index) * 4;
        let (value, mask) = self.probe(at);
        if mask == 0 {
            return None;
        }
        if value & 1 != 0 {
            let first = value & !3;
            // A device may decode 16 bits only; the rest of the mask is then zero.
            let count = (!(mask & !3 | 0xFFFF_0000)).wrapping_add(1);
            return (first != 0).then_some(Bar::Ports { first: u16::try_from(first).ok()?, count });
        }
        let wide = value & 0b110 == 0b100;
        let prefetchable = value & 0b1000 != 0;
        let (high, high_mask) = match wide {
            true if index + 1 < count => self.probe(at + 4),
            true => return None,
            false => (0, u32::MAX),
        };
        let address = u64::from(high) << 32 | u64::from(value & !0xF);
        let size = (!(u64::from(high_mask) << 32 | u64::from(mask & !0xF))).wrapping_add(1);
        // Nothing assigned: the device is not usable, but the next register is still this BAR's.
        (size.is_power_of_two()).then_some(Bar::Memory { address, size, prefetchable, wide })
    }

    /// A register's value, and what of all ones stays in it.
    fn probe(&self, at: u16) -> (u32, u32) {
        let value = self.read_u32(at);
        self.write_u32(at, u32::MAX);
        let mask = self.read_u32(at);
        self.write_u32(at, value);
        (value, mask)
    }
}

/// All functions, by address: bus 0 and what its bridges lead to.
pub fn scan(machine: EmulatedMachine) -> Vec<Function> {
    let mut functions = Vec::new();
    let mut buses = alloc::vec![0];
    let mut next = 0;
    while let Some(&bus) = buses.get(next) {
        next += 1;
        for device in 0..32 {
            for function in scan_device(machine, bus, device) {
                let secondary = function.read_u8(register::SECONDARY_BUS);
                // A bus is visited once, whatever bridges say.
                if function.is_bridge() && !buses.contains(&secondary) {
                    buses.push(secondary);
                }
                functions.push(function);
            }
        }
    }
    functions.sort_by_key(Function::address);
    functions
}

fn scan_device(machine: EmulatedMachine, bus: u8, device: u8) -> Vec<Function> {
    let at = |function| Address { bus, device, function };
    let Some(first) = Function::read(machine, at(0)) else { return Vec::new() };
    let more = first.read_u8(register::HEADER_TYPE) & MULTI_FUNCTION != 0;
    let mut functions = alloc::vec![first];
    if more {
        functions.extend((1..8).filter_map(|function| Function::read(machine, at(function))));
    }
    functions
}
