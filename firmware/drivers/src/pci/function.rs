//! Functions, their BARs and switches.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use hw::device::{Ports, Window};
use services::pci::{Address, Bar, PciDevice, PciSpaces};

use super::{Configuration, class, command, register};
use crate::domain::EmulatedMachine;

const MULTI_FUNCTION: u8 = 0x80;
const HEADER_LAYOUT: u8 = 0x7F;
const BRIDGE: u8 = 1;
/// BARs by header layout.
const BARS: [u8; 2] = [6, 2];
/// The device that offers Xen's paravirtual devices to a guest, and the identity that XCP-ng gives it.
const XEN_PLATFORM: [(u16, u16); 2] = [(0x5853, 0x0001), (0x5853, 0x0002)];
/// Most memory that a display is taken to have.
const DISPLAY_MEMORY_MAX: u64 = 256 << 20;
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
    /// The bridge its bus is behind; none for the root bus.
    bridge: Option<Address>,
    /// Whether somebody has made it bus master since the scan; one for all that stand for this function.
    mastered: Rc<Cell<bool>>,
    /// Whether its option ROM has been asked for.
    rom_taken: Rc<Cell<bool>>,
}

impl Function {
    /// Reads what is at `address`, behind `bridge`; `None` where there is no function. Tells too whether the device has more.
    pub(super) fn read(machine: EmulatedMachine, bridge: Option<Address>, address: Address) -> Option<(Self, bool)> {
        let configuration = Configuration::new(machine.ports);
        let id = configuration.read_u32(address, register::VENDOR);
        if id & 0xFFFF == 0xFFFF || id & 0xFFFF == 0 {
            return None;
        }
        let [_, interface, sub, base] = configuration.read_u32(address, register::REVISION).to_le_bytes();
        let header = configuration.read_u8(address, register::HEADER_TYPE);
        let layout = header & HEADER_LAYOUT;
        let mut function = Self {
            machine,
            address,
            id: (id as u16, (id >> 16) as u16),
            class: Class { base, sub, interface },
            layout,
            bars: [None; 6],
            bridge,
            mastered: Rc::default(),
            rom_taken: Rc::default(),
        };
        function.bars = function.measure();
        Some((function, header & MULTI_FUNCTION != 0))
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

    /// The bridge its bus is behind; `None` for the root bus.
    pub const fn bridge(&self) -> Option<Address> {
        self.bridge
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
        self.note_write(offset, value.into());
        self.configuration().write_u8(self.address, offset, value);
    }

    /// Writes 16 bits of its configuration space.
    pub fn write_u16(&self, offset: u16, value: u16) {
        self.note_write(offset, value.into());
        self.configuration().write_u16(self.address, offset, value);
    }

    /// Writes 32 bits of its configuration space.
    pub fn write_u32(&self, offset: u16, value: u32) {
        self.note_write(offset, value);
        self.configuration().write_u32(self.address, offset, value);
    }

    /// Sets bits of the command register ([`command`]).
    pub fn enable(&self, bits: u16) {
        self.note_write(register::COMMAND, bits.into());
        let value = self.read_u16(register::COMMAND);
        self.configuration().write_u16(self.address, register::COMMAND, value | bits);
    }

    /// Clears bits of the command register. Allocates nothing.
    pub fn disable(&self, bits: u16) {
        let value = self.read_u16(register::COMMAND);
        self.configuration().write_u16(self.address, register::COMMAND, value & !bits);
    }

    /// What of `ones` stays in a register, which gets `value` back.
    pub(super) fn probe_u32(&self, offset: u16, value: u32, ones: u32) -> u32 {
        self.configuration().probe_u32(self.address, offset, value, ones)
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

    /// Ceases to be bus master, where somebody has made it that since the scan. Allocates nothing.
    pub fn stop_mastering(&self) {
        if self.mastered.replace(false) {
            self.disable(command::BUS_MASTER);
        }
    }

    /// Notes that its option ROM is asked for; `false` if it has been before.
    pub(super) fn take_rom(&self) -> bool {
        !self.rom_taken.replace(true)
    }

    /// Notes that it becomes bus master.
    pub(super) fn note_write(&self, offset: u16, value: u32) {
        if offset == register::COMMAND && value & u32::from(command::BUS_MASTER) != 0 {
            self.mastered.set(true);
        }
    }

    fn configuration(&self) -> Configuration {
        Configuration::new(self.machine.ports)
    }

    /// Finds the sizes of the BARs: all ones written to one stay where the size leaves room (PCI 3.0 §6.2.5.1). The function
    /// answers nowhere meanwhile, but for a display.
    fn measure(&self) -> [Option<Bar>; 6] {
        let mut bars = [None; 6];
        let Some(&count) = BARS.get(usize::from(self.layout)) else { return bars };
        let switches = self.read_u16(register::COMMAND);
        // Not through `write_u16`: a bus master that hvmloader left on was not started by anybody here.
        let write = |value| self.configuration().write_u16(self.address, register::COMMAND, value);
        if !self.is_display() {
            write(switches & !(command::IO | command::MEMORY));
        }
        let mut index = 0;
        while index < count {
            let (bar, registers) = self.measure_bar(index, count);
            bars[usize::from(index)] = bar;
            index += registers;
        }
        if !self.is_display() {
            write(switches);
        }
        bars
    }

    const fn is_display(&self) -> bool {
        self.class.base == class::DISPLAY
    }

    /// Whether a BAR with this value is a display's memory. The device model moves that out of the guest and back, page by page,
    /// when it ceases to answer where it is for the shortest time: with 16 MiB of it, this takes thousands of hypercalls. So it is
    /// left alone, and [`limit_display_memory`] says how large it can be.
    const fn is_display_memory(&self, low: u32) -> bool {
        self.is_display() && low & 0b1001 == 0b1000
    }

    /// The BAR at `index`, and how many registers it takes.
    fn measure_bar(&self, index: u8, count: u8) -> (Option<Bar>, u8) {
        let at = register::BAR + u16::from(index) * 4;
        let low = self.read_u32(at);
        // Nothing there, or nothing assigned; most are so, and probing costs.
        if low == 0 {
            return (None, 1);
        }
        if self.is_display_memory(low) {
            return self.assume_display_memory(index, count, low);
        }
        let mask = self.probe_u32(at, low, u32::MAX);
        if low & 1 != 0 {
            return (ports(low, mask), 1);
        }
        if low & 0b110 != 0b100 {
            return (memory(low, 0, mask, u32::MAX), 1);
        }
        // There is no register for the upper half.
        if index + 1 >= count {
            return (None, 1);
        }
        let high = self.read_u32(at + 4);
        let high_mask = self.probe_u32(at + 4, high, u32::MAX);
        (memory(low, high, mask, high_mask), 2)
    }

    /// The BAR at `index`, which is as large as its address allows.
    fn assume_display_memory(&self, index: u8, count: u8, low: u32) -> (Option<Bar>, u8) {
        let wide = low & 0b110 == 0b100;
        if wide && index + 1 >= count {
            return (None, 1);
        }
        let high = if wide { self.read_u32(register::BAR + u16::from(index) * 4 + 4) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(low & !0xF);
        let size = (1 << address.trailing_zeros().min(63)).min(DISPLAY_MEMORY_MAX);
        let bar = Bar::Memory { address, size, prefetchable: true, wide };
        ((address != 0).then_some(bar), if wide { 2 } else { 1 })
    }
}

/// Makes the memory of displays end where the next BAR begins.
pub(super) fn limit_display_memory(functions: &mut [Function]) {
    let bars = functions.iter().flat_map(|function| function.bars.into_iter().flatten());
    let starts: Vec<u64> = bars
        .filter_map(|bar| match bar {
            Bar::Memory { address, .. } => Some(address),
            Bar::Ports { .. } => None,
        })
        .collect();
    for function in functions.iter_mut().filter(|function| function.is_display()) {
        for bar in function.bars.iter_mut().flatten() {
            if let Bar::Memory { address, size, prefetchable: true, .. } = bar {
                let room = starts.iter().filter(|start| **start > *address).map(|start| start - *address).min();
                let room = room.unwrap_or(u64::MAX).max(1);
                *size = (*size).min(1 << room.ilog2());
            }
        }
    }
}

/// What a register of I/O space and the mask of its size say; `None` if nothing was assigned, or it makes no sense.
fn ports(value: u32, mask: u32) -> Option<Bar> {
    let first = u16::try_from(value & !3).ok().filter(|first| *first != 0)?;
    // A device may decode 16 bits only; the rest of the mask is then zero.
    let count = (!(mask & !3 | 0xFFFF_0000)).wrapping_add(1);
    let fits = count.is_power_of_two() && u32::from(first).is_multiple_of(count);
    fits.then_some(Bar::Ports { first, count })
}

/// The same for memory.
fn memory(low: u32, high: u32, low_mask: u32, high_mask: u32) -> Option<Bar> {
    let address = u64::from(high) << 32 | u64::from(low & !0xF);
    let size = (!(u64::from(high_mask) << 32 | u64::from(low_mask & !0xF))).wrapping_add(1);
    let fits = address != 0 && size.is_power_of_two() && address.is_multiple_of(size);
    let (prefetchable, wide) = (low & 0b1000 != 0, low & 0b110 == 0b100);
    fits.then_some(Bar::Memory { address, size, prefetchable, wide })
}

impl PciSpaces for Function {
    fn window(&self, address: u64, length: usize) -> Option<Box<dyn Window>> {
        self.machine.windows.window(address, length)
    }

    fn ports(&self) -> &dyn Ports {
        self.machine.ports
    }
}

impl PciDevice for Function {
    fn address(&self) -> Address {
        self.address
    }

    fn bar(&self, index: u8) -> Option<Bar> {
        self.bar(index)
    }

    fn class(&self) -> [u8; 3] {
        [self.class.base, self.class.sub, self.class.interface]
    }

    fn is_bridge(&self) -> bool {
        self.is_bridge()
    }

    fn read_configuration(&self, offset: u16, unit: u8) -> u32 {
        match unit {
            1 => self.read_u8(offset).into(),
            2 => self.read_u16(offset).into(),
            _ => self.read_u32(offset),
        }
    }

    fn write_configuration(&self, offset: u16, unit: u8, value: u32) {
        match unit {
            1 => self.write_u8(offset, value as u8),
            2 => self.write_u16(offset, value as u16),
            _ => self.write_u32(offset, value),
        }
    }
}
