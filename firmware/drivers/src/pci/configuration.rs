//! Configuration mechanism 1 (PCI 3.0 §3.2.2.3.2).

use core::fmt;

use hw::device::Ports;
use hw::interrupts;
use services::pci::Address;

const ADDRESS: u16 = 0xCF8;
const DATA: u16 = 0xCFC;
const ENABLE: u32 = 1 << 31;
/// Bytes of a function's configuration space.
const SIZE: u16 = 256;

/// The configuration space. Offsets are in bytes; an access that is not aligned to its size, or outside the 256 bytes, reads as
/// all ones and writes nothing, as where there is no function.
#[derive(Clone, Copy)]
pub struct Configuration {
    ports: &'static dyn Ports,
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Configuration")
    }
}

impl Configuration {
    /// The configuration space behind `ports`.
    pub const fn new(ports: &'static dyn Ports) -> Self {
        Self { ports }
    }

    /// Runs `f` on the data port of an access, once the address register leads there; `None` for an access that cannot be.
    /// Interrupts are off: a notification that has to do with PCI would change the address register.
    fn at<R>(self, address: Address, offset: u16, width: u16, f: impl FnOnce(u16) -> R) -> Option<R> {
        if !offset.is_multiple_of(width) || offset >= SIZE || address.device > 31 || address.function > 7 {
            return None;
        }
        let device = u32::from(address.device) << 11 | u32::from(address.function) << 8;
        let dword = u32::from(offset & !3);
        let enabled = interrupts::disable();
        self.ports.write_u32(ADDRESS, ENABLE | u32::from(address.bus) << 16 | device | dword);
        let result = f(DATA + offset % 4);
        interrupts::restore(enabled);
        Some(result)
    }

    /// Reads 8 bits.
    pub fn read_u8(self, address: Address, offset: u16) -> u8 {
        self.at(address, offset, 1, |port| self.ports.read_u8(port)).unwrap_or(u8::MAX)
    }

    /// Reads 16 bits.
    pub fn read_u16(self, address: Address, offset: u16) -> u16 {
        self.at(address, offset, 2, |port| self.ports.read_u16(port)).unwrap_or(u16::MAX)
    }

    /// Reads 32 bits.
    pub fn read_u32(self, address: Address, offset: u16) -> u32 {
        self.at(address, offset, 4, |port| self.ports.read_u32(port)).unwrap_or(u32::MAX)
    }

    /// Writes 8 bits.
    pub fn write_u8(self, address: Address, offset: u16, value: u8) {
        self.at(address, offset, 1, |port| self.ports.write_u8(port, value));
    }

    /// Writes 16 bits.
    pub fn write_u16(self, address: Address, offset: u16, value: u16) {
        self.at(address, offset, 2, |port| self.ports.write_u16(port, value));
    }

    /// Writes 32 bits.
    pub fn write_u32(self, address: Address, offset: u16, value: u32) {
        self.at(address, offset, 4, |port| self.ports.write_u32(port, value));
    }

    /// What of all ones stays in a register of 32 bits, which gets `value` back. The address register is written once only:
    /// each access costs.
    pub fn probe_u32(self, address: Address, offset: u16, value: u32, ones: u32) -> u32 {
        let probe = |port| {
            self.ports.write_u32(port, ones);
            let mask = self.ports.read_u32(port);
            self.ports.write_u32(port, value);
            mask
        };
        self.at(address, offset, 4, probe).unwrap_or(0)
    }
}
