//! Ranges as ACPI QWORD address space descriptors (ACPI 6.5 §6.4.3.5.1), in the way UEFI 2.11 §14.2 and §14.4 use them.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::Bar;

/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: usize = 46;
const TAG: u8 = 0x8A;
/// End tag with a checksum of zero, which says that there is none.
const END: [u8; 2] = [0x79, 0];
/// Type-specific flags of memory that may be cached and prefetched.
const PREFETCHABLE: u8 = 0b11 << 1;

/// A range of something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resource {
    /// Memory.
    Memory {
        /// Addresses.
        range: RangeInclusive<u64>,
        /// Whether reading has no effect.
        prefetchable: bool,
        /// Bits of an address: 32 or 64.
        bits: u64,
    },
    /// Ports.
    Ports(RangeInclusive<u16>),
    /// Bus numbers.
    Buses(RangeInclusive<u8>),
}

impl Resource {
    /// What a BAR takes.
    pub fn of(bar: Bar) -> Self {
        match bar {
            Bar::Ports { first, count } => {
                let last = u32::from(first).saturating_add(count.saturating_sub(1));
                Self::Ports(first..=u16::try_from(last).unwrap_or(u16::MAX))
            }
            Bar::Memory { address, size, prefetchable, wide } => {
                let range = address..=address.saturating_add(size.saturating_sub(1));
                Self::Memory { range, prefetchable, bits: if wide { 64 } else { 32 } }
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (kind, flags, granularity, first, last) = match self {
            Self::Memory { range, prefetchable, bits } => {
                (0, if *prefetchable { PREFETCHABLE } else { 0 }, *bits, *range.start(), *range.end())
            }
            Self::Ports(range) => (1, 0, 0, u64::from(*range.start()), u64::from(*range.end())),
            Self::Buses(range) => (2, 0, 0, u64::from(*range.start()), u64::from(*range.end())),
        };
        out.push(TAG);
        out.extend((DESCRIPTOR_SIZE as u16 - 3).to_le_bytes());
        out.extend([kind, 0, flags]);
        // Addresses of the device are those of the CPU: nothing to translate.
        let length = (last - first).wrapping_add(1);
        for value in [granularity, first, last, 0, length] {
            out.extend(value.to_le_bytes());
        }
    }
}

/// A list with its end tag.
pub fn list(resources: &[Resource]) -> Vec<u8> {
    let mut out = Vec::with_capacity(resources.len() * DESCRIPTOR_SIZE + END.len());
    resources.iter().for_each(|resource| resource.write(&mut out));
    out.extend(END);
    out
}
