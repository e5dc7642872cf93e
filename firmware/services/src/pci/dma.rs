//! Buffers that a device reads and writes by itself (UEFI 2.11 §14.2, §14.4: Map, Unmap).
//!
//! A device sees memory where the CPU sees it. Only what lies above 4 GiB is out of reach of a device that has 32 bits for an
//! address: its transfers go through a copy below.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use super::{PciError, Result};

/// First address that does not fit 32 bits.
const FOUR_GIB: u64 = 1 << 32;

/// Who writes a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The device reads.
    Read,
    /// The device writes.
    Write,
    /// Both read and write at any time.
    Common,
}

impl Direction {
    /// The direction that a number of EFI_PCI_IO_PROTOCOL_OPERATION stands for.
    pub const fn from_raw(raw: u32) -> Result<Self> {
        Ok(match raw {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Common,
            _ => return Err(PciError::InvalidParameter),
        })
    }
}

/// A buffer in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Who writes.
    pub direction: Direction,
    /// The caller's buffer.
    pub host: u64,
    /// Its length in bytes.
    pub size: usize,
    /// The copy, where there is one.
    pub copy: Option<u64>,
}

impl Mapping {
    /// Whether a device with addresses of 64 (`wide`) or 32 bits needs a copy of a buffer.
    ///
    /// # Errors
    /// `Unsupported` for a common buffer: a copy is not the same memory.
    pub fn needs_copy(direction: Direction, host: u64, size: usize, wide: bool) -> Result<bool> {
        let end = host.checked_add(size as u64).ok_or(PciError::InvalidParameter)?;
        match (wide || end <= FOUR_GIB, direction) {
            (true, _) => Ok(false),
            (false, Direction::Common) => Err(PciError::Unsupported),
            (false, _) => Ok(true),
        }
    }
}

/// The buffers that are in use. A mapping is known by a number, so that any value a caller makes up is recognized.
#[derive(Debug, Default)]
pub struct Mappings {
    made: usize,
    live: Vec<(usize, Mapping)>,
}

impl Mappings {
    /// None.
    pub const fn new() -> Self {
        Self { made: 0, live: Vec::new() }
    }

    /// Notes a mapping; returns what stands for it.
    pub fn add(&mut self, mapping: Mapping) -> *mut c_void {
        self.made += 1;
        self.live.push((self.made, mapping));
        ptr::without_provenance_mut(self.made)
    }

    /// Forgets a mapping.
    pub fn take(&mut self, token: *const c_void) -> Result<Mapping> {
        let index = self.live.iter().position(|(number, _)| *number == token.addr());
        let index = index.ok_or(PciError::InvalidParameter)?;
        Ok(self.live.swap_remove(index).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_device_cannot_reach_is_copied() {
        let needs = |direction, host, wide| Mapping::needs_copy(direction, host, 0x1000, wide);
        assert_eq!(needs(Direction::Read, FOUR_GIB - 0x1000, false), Ok(false));
        assert_eq!(needs(Direction::Write, FOUR_GIB - 0xFFF, false), Ok(true));
        assert_eq!(needs(Direction::Write, FOUR_GIB, true), Ok(false));
        assert_eq!(needs(Direction::Common, FOUR_GIB, false), Err(PciError::Unsupported));
        assert_eq!(needs(Direction::Common, FOUR_GIB, true), Ok(false));
        assert_eq!(needs(Direction::Read, u64::MAX, true), Err(PciError::InvalidParameter));
    }

    #[test]
    fn a_mapping_is_taken_once() {
        let mut mappings = Mappings::new();
        let mapping = Mapping { direction: Direction::Read, host: 1, size: 2, copy: None };
        let (first, second) = (mappings.add(mapping), mappings.add(Mapping { host: 3, ..mapping }));
        assert_eq!(mappings.take(first), Ok(mapping));
        assert_eq!(mappings.take(first), Err(PciError::InvalidParameter));
        assert_eq!(mappings.take(second).map(|mapping| mapping.host), Ok(3));
    }
}
