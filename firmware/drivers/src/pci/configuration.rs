//! Configuration mechanism 1 (PCI 3.0 §3.2.2.3.2).

use core::fmt;

use hw::device::Ports;

const ADDRESS: u16 = 0xCF8;
const DATA: u16 = 0xCFC;
const ENABLE: u32 = 1 << 31;
/// Bytes of a function's configuration space.
const SIZE: u16 = 256;

/// Where a function is: bus, device, function. All functions are in segment 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address {
    /// Bus, from 0.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

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

    /// Writes the address register; the data port of the access, or `None` for one that cannot be.
    fn select(self, address: Address, offset: u16, width: u16) -> Option<u16> {
        if !offset.is_multiple_of(width) || offset >= SIZE || address.device > 31 || address.function > 7 {
            return None;
        }
        let device = u32::from(address.device) << 11 | u32::from(address.function) << 8;
        let dword = u32::from(offset & !3);
        self.ports.write_u32(ADDRESS, ENABLE | u32::from(address.bus) << 16 | device | dword);
        Some(DATA + offset % 4)
    }

    /// Reads 8 bits.
    pub fn read_u8(self, address: Address, offset: u16) -> u8 {
        self.select(address, offset, 1).map_or(u8::MAX, |port| self.ports.read_u8(port))
    }

    /// Reads 16 bits.
    pub fn read_u16(self, address: Address, offset: u16) -> u16 {
        self.select(address, offset, 2).map_or(u16::MAX, |port| self.ports.read_u16(port))
    }

    /// Reads 32 bits.
    pub fn read_u32(self, address: Address, offset: u16) -> u32 {
        self.select(address, offset, 4).map_or(u32::MAX, |port| self.ports.read_u32(port))
    }

    /// Writes 8 bits.
    pub fn write_u8(self, address: Address, offset: u16, value: u8) {
        if let Some(port) = self.select(address, offset, 1) {
            self.ports.write_u8(port, value);
        }
    }

    /// Writes 16 bits.
    pub fn write_u16(self, address: Address, offset: u16, value: u16) {
        if let Some(port) = self.select(address, offset, 2) {
            self.ports.write_u16(port, value);
        }
    }

    /// Writes 32 bits.
    pub fn write_u32(self, address: Address, offset: u16, value: u32) {
        if let Some(port) = self.select(address, offset, 4) {
            self.ports.write_u32(port, value);
        }
    }
}
