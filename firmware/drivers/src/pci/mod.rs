//! PCI of an HVM guest, as hvmloader has set it up: one segment, configuration mechanism 1, BARs assigned.
//!
//! | item | what |
//! | --- | --- |
//! | [`Configuration`] | configuration space of all functions |
//! | [`Function`] | one function: identity, BARs, switches |
//! | [`Bus`] | all functions, and those published as handles |
//! | [`publish`] | the bus in the UEFI driver model |
//! | [`scan`] | all functions there are |
//! | [`rom`], [`decompress`] | what is in an option ROM |
//! | [`option_rom`] | starts the drivers in option ROMs |
//!
//! Sources: PCI Local Bus Specification 3.0, chapter 6; PCI-to-PCI Bridge Architecture 1.2.

mod binding;
mod bus;
mod configuration;
pub mod decompress;
mod function;
pub mod option_rom;
pub mod rom;
mod scan;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub(crate) use binding::ROOT;
pub use binding::publish;
pub use bus::Bus;
pub use configuration::Configuration;
pub use function::{Class, Function};
pub use scan::scan;
pub use services::pci::{Address, Bar};

/// Base classes (PCI 3.0 appendix D).
pub mod class {
    /// Disks.
    pub const STORAGE: u8 = 0x01;
    /// Network cards.
    pub const NETWORK: u8 = 0x02;
    /// Graphics cards.
    pub const DISPLAY: u8 = 0x03;
    /// Bridges, to ISA and to the host among them.
    pub const BRIDGE: u8 = 0x06;
}

/// Configuration space registers (PCI 3.0 §6.1), by their offsets in bytes.
pub mod register {
    /// Vendor, 16 bits; all ones where there is no function.
    pub const VENDOR: u16 = 0x00;
    /// Device, 16 bits.
    pub const DEVICE: u16 = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u16 = 0x06;
    /// Revision, 8 bits; interface, sub-class and class follow.
    pub const REVISION: u16 = 0x08;
    /// Header type, 8 bits.
    pub const HEADER_TYPE: u16 = 0x0E;
    /// First base address register, 32 bits.
    pub const BAR: u16 = 0x10;
    /// Secondary bus number of a bridge, 8 bits.
    pub const SECONDARY_BUS: u16 = 0x19;
    /// Subsystem vendor, 16 bits; the subsystem follows.
    pub const SUBSYSTEM_VENDOR: u16 = 0x2C;
    /// Expansion ROM base address of an endpoint, 32 bits.
    pub const ROM: u16 = 0x30;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;
}

/// Bits of the command register (PCI 3.0 §6.2.2).
pub mod command {
    /// Answers in I/O space.
    pub const IO: u16 = 1 << 0;
    /// Answers in memory space.
    pub const MEMORY: u16 = 1 << 1;
    /// May act as bus master.
    pub const BUS_MASTER: u16 = 1 << 2;
}
