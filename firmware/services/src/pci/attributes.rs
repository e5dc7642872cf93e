//! The attributes of a function (UEFI 2.11 §14.4, `EFI_PCI_IO_PROTOCOL.Attributes`).

use super::{BARS, Bar, PciDevice, PciError, Result};

bitflags::bitflags! {
    /// `EFI_PCI_IO_ATTRIBUTE_*`; those of root bridges have the same values.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Attributes: u64 {
        /// Ports of the mainboard.
        const ISA_MOTHERBOARD_IO = 0x0001;
        /// Ports of ISA cards, decoded with 10 bits.
        const ISA_IO = 0x0002;
        /// Ports of the palette.
        const VGA_PALETTE_IO = 0x0004;
        /// Memory of a VGA card.
        const VGA_MEMORY = 0x0008;
        /// Ports of a VGA card.
        const VGA_IO = 0x0010;
        /// Ports of the first IDE channel.
        const IDE_PRIMARY_IO = 0x0020;
        /// Ports of the second IDE channel.
        const IDE_SECONDARY_IO = 0x0040;
        /// Memory is written in bursts.
        const MEMORY_WRITE_COMBINE = 0x0080;
        /// The function answers in I/O space.
        const IO = 0x0100;
        /// The function answers in memory space.
        const MEMORY = 0x0200;
        /// The function may be bus master.
        const BUS_MASTER = 0x0400;
        /// Memory is cached.
        const MEMORY_CACHED = 0x0800;
        /// Memory is not accessed.
        const MEMORY_DISABLE = 0x1000;
        /// Part of the mainboard.
        const EMBEDDED_DEVICE = 0x2000;
        /// Its option ROM is part of the firmware.
        const EMBEDDED_ROM = 0x4000;
        /// The device reaches memory above 4 GiB.
        const DUAL_ADDRESS_CYCLE = 0x8000;
        /// As `ISA_IO`, decoded with 16 bits.
        const ISA_IO_16 = 0x10000;
        /// As `VGA_PALETTE_IO`, decoded with 16 bits.
        const VGA_PALETTE_IO_16 = 0x20000;
        /// As `VGA_IO`, decoded with 16 bits.
        const VGA_IO_16 = 0x40000;
    }
}

impl Attributes {
    /// Those that are bits of the command register, 8 bits higher.
    const SWITCHES: Self = Self::IO.union(Self::MEMORY).union(Self::BUS_MASTER);
    const VGA: Self = Self::VGA_IO
        .union(Self::VGA_MEMORY)
        .union(Self::VGA_PALETTE_IO)
        .union(Self::VGA_IO_16)
        .union(Self::VGA_PALETTE_IO_16);
    const IDE: Self = Self::IDE_PRIMARY_IO.union(Self::IDE_SECONDARY_IO);
}

/// Offset of the command register.
const COMMAND: u16 = 4;
const SWITCH_SHIFT: u32 = 8;

/// What to do with attributes (`EFI_PCI_IO_PROTOCOL_ATTRIBUTE_OPERATION`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Tell which are set.
    Get,
    /// Set these, clear all others.
    Set,
    /// Set these.
    Enable,
    /// Clear these.
    Disable,
    /// Tell which there are.
    Supported,
}

impl Operation {
    /// The operation that a number of the protocol stands for.
    pub const fn from_raw(raw: u32) -> Result<Self> {
        Ok(match raw {
            0 => Self::Get,
            1 => Self::Set,
            2 => Self::Enable,
            3 => Self::Disable,
            4 => Self::Supported,
            _ => return Err(PciError::InvalidParameter),
        })
    }
}

/// The attributes that a function can have. Legacy ranges are decoded without further ado on the root bus only.
pub fn supported(device: &dyn PciDevice) -> Attributes {
    let [base, sub, interface] = device.class();
    let bars = || (0..BARS).filter_map(|index| device.bar(index));
    let mut all = Attributes::BUS_MASTER | Attributes::DUAL_ADDRESS_CYCLE;
    if bars().any(|bar| matches!(bar, Bar::Ports { .. })) {
        all |= Attributes::IO;
    }
    if bars().any(|bar| matches!(bar, Bar::Memory { .. })) {
        all |= Attributes::MEMORY;
    }
    if device.is_bridge() {
        all |= Attributes::SWITCHES;
    }
    if device.address().bus != 0 {
        return all;
    }
    match (base, sub) {
        (0x00, 0x01) | (0x03, 0x00) => all | Attributes::VGA | Attributes::IO | Attributes::MEMORY,
        // A channel in compatibility mode has the ports of old.
        (0x01, 0x01) if interface & 0b0101 != 0b0101 => all | Attributes::IDE | Attributes::IO,
        (0x06, 0x01) => all | Attributes::ISA_IO | Attributes::ISA_IO_16 | Attributes::ISA_MOTHERBOARD_IO,
        _ => all,
    }
}

/// The attributes that are set: switches as the function has them, the others as they were `noted`.
pub fn get(device: &dyn PciDevice, noted: Attributes) -> Attributes {
    let command = u64::from(device.read_configuration(COMMAND, 2));
    let switches = Attributes::from_bits_retain(command << SWITCH_SHIFT) & Attributes::SWITCHES;
    (switches & supported(device)) | (noted - Attributes::SWITCHES)
}

/// Changes attributes; returns those to note.
pub fn change(
    device: &dyn PciDevice,
    noted: Attributes,
    operation: Operation,
    attributes: Attributes,
) -> Result<Attributes> {
    let supported = supported(device);
    if !supported.contains(attributes) {
        return Err(PciError::Unsupported);
    }
    let (set, clear) = match operation {
        Operation::Set => (attributes, supported - attributes),
        Operation::Enable => (attributes, Attributes::empty()),
        Operation::Disable => (Attributes::empty(), attributes),
        Operation::Get | Operation::Supported => return Err(PciError::InvalidParameter),
    };
    let bits = |attributes: Attributes| ((attributes & Attributes::SWITCHES).bits() >> SWITCH_SHIFT) as u32;
    if bits(set | clear) != 0 {
        let command = device.read_configuration(COMMAND, 2);
        device.write_configuration(COMMAND, 2, command & !bits(clear) | bits(set));
    }
    Ok((noted | set) - clear - Attributes::SWITCHES)
}
