//! What hvmloader leaves for a UEFI firmware: a block at a fixed address that leads to the memory map
//! (`tools/firmware/hvmloader/ovmf.c` and `e820.c` in Xen's tree).

use core::fmt;
use core::ops::Range;

use arrayvec::ArrayVec;
use hw::hypervisor::{E820Entry, Errno, Hypervisor};

use crate::memory::{MemoryMap, REGIONS_MAX};
use crate::options::{self, Options};
use crate::{GuestKind, PhysicalMemory, Platform, acpi, smbios};

/// Where the block is.
const BLOCK: u64 = 0x1000;
const SIGNATURE: &[u8] = b"XenHVMOVMF";
/// Its size, and where things are in it: packed.
const SIZE: usize = 40;
const LENGTH: usize = 14;
const MAP: usize = 28;
const MAP_ENTRIES: usize = 36;
/// An entry of the map: address, size, type; packed.
const ENTRY: usize = 20;
/// Frames that hvmloader and Xen leave alone: above what hvmloader allocates for itself, below the IOAPIC, and in the range that
/// the map says is reserved (`tools/firmware/hvmloader/config.h`).
const HOLE: Range<u64> = 0xFE00_0000..0xFEC0_0000;
const PAGE: u64 = 4096;

/// There is no memory map: neither hvmloader nor Xen has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemoryMap(pub Errno);

impl fmt::Display for NoMemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hvmloader left no memory map, and Xen has none: {}", self.0)
    }
}

/// Reads what hvmloader left into a [`Platform`]. Without a valid block Xen is asked for the memory map.
pub fn read(memory: &dyn PhysicalMemory, xen: &dyn Hypervisor) -> Result<Platform, NoMemoryMap> {
    let mut entries = [E820Entry::default(); REGIONS_MAX];
    let count = match memory_map(memory, &mut entries) {
        Some(count) => count,
        None => xen.memory_map(&mut entries).map_err(NoMemoryMap)?,
    };
    let smbios = smbios::find(memory);
    let command_line = smbios.table().map(|table| smbios::options(memory, table)).unwrap_or_default();
    Ok(Platform {
        kind: GuestKind::Hvm,
        memory: MemoryMap::new(entries.get(..count).unwrap_or_default()),
        rsdp: acpi::find_rsdp(memory).unwrap_or(0),
        options: Options::parse(&command_line, options::unknown),
        smbios,
        command_line,
        modules: ArrayVec::new(),
    })
}

/// Address of `pages` pages for what Xen maps on request.
pub fn hole(pages: u64) -> Option<u64> {
    let size = pages.checked_mul(PAGE)?;
    (size <= HOLE.end - HOLE.start).then_some(HOLE.start)
}

/// The memory map that the block leads to; `None` where there is no valid block.
fn memory_map(memory: &dyn PhysicalMemory, entries: &mut [E820Entry]) -> Option<usize> {
    let mut block = [0; SIZE];
    if !memory.read(BLOCK, &mut block) || !block.starts_with(SIGNATURE) {
        return None;
    }
    if usize::from(block[LENGTH]) != SIZE || acpi::sum(&block) != 0 {
        return None;
    }
    let map = u64::from_le_bytes(acpi::array(&block, MAP));
    let count = u32::from_le_bytes(acpi::array(&block, MAP_ENTRIES)) as usize;
    if count == 0 || count > entries.len() {
        return None;
    }
    for (index, entry) in entries.iter_mut().take(count).enumerate() {
        let mut bytes = [0; ENTRY];
        if !memory.read(map.checked_add((index * ENTRY) as u64)?, &mut bytes) {
            return None;
        }
        *entry = E820Entry {
            address: u64::from_le_bytes(acpi::array(&bytes, 0)),
            size: u64::from_le_bytes(acpi::array(&bytes, 8)),
            kind: u32::from_le_bytes(acpi::array(&bytes, 16)),
        };
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Kind;
    use hw::fake::FakeHypervisor;

    /// Memory as hvmloader leaves it, with one range of RAM.
    struct Memory(std::vec::Vec<u8>);

    impl Memory {
        fn new() -> Self {
            let mut bytes = std::vec![0; 0x3000];
            let block = &mut bytes[BLOCK as usize..][..SIZE];
            block[..10].copy_from_slice(SIGNATURE);
            block[LENGTH] = SIZE as u8;
            block[MAP..MAP + 8].copy_from_slice(&0x2000_u64.to_le_bytes());
            block[MAP_ENTRIES..].copy_from_slice(&1_u32.to_le_bytes());
            let entry = &mut bytes[0x2000..];
            entry[..8].copy_from_slice(&0x10_0000_u64.to_le_bytes());
            entry[8..16].copy_from_slice(&0x100_0000_u64.to_le_bytes());
            entry[16] = 1;
            Self(bytes).sealed()
        }

        fn sealed(mut self) -> Self {
            let block = &mut self.0[BLOCK as usize..][..SIZE];
            block[15] = 0;
            block[15] = acpi::sum(block).wrapping_neg();
            self
        }

        fn with(mut self, at: usize, value: u32) -> Self {
            self.0[BLOCK as usize + at..][..4].copy_from_slice(&value.to_le_bytes());
            self.sealed()
        }
    }

    impl PhysicalMemory for Memory {
        fn read(&self, address: u64, into: &mut [u8]) -> bool {
            let Some(from) = usize::try_from(address).ok().and_then(|start| self.0.get(start..)?.get(..into.len()))
            else {
                return false;
            };
            into.copy_from_slice(from);
            true
        }
        fn write(&mut self, _address: u64, _from: &[u8]) -> bool {
            false
        }
    }

    fn error(memory: &Memory) -> NoMemoryMap {
        read(memory, &FakeHypervisor::new()).unwrap_err()
    }

    #[test]
    fn the_map_is_read() {
        let platform = read(&Memory::new(), &FakeHypervisor::new()).unwrap();
        let last = platform.memory.regions().last().unwrap();
        assert_eq!((last.start, last.end, last.kind), (0x10_0000, 0x110_0000, Kind::Ram));
        assert_eq!(platform.kind, GuestKind::Hvm);
    }

    #[test]
    fn a_wrong_checksum_means_no_block() {
        let mut memory = Memory::new();
        memory.0[BLOCK as usize + 15] ^= 1;
        assert_eq!(error(&memory), NoMemoryMap(Errno(38)));
    }

    #[test]
    fn a_map_outside_memory_or_of_absurd_length_is_none() {
        error(&Memory::new().with(MAP, 0xFFFF_FFF0));
        error(&Memory::new().with(MAP + 4, u32::MAX));
        error(&Memory::new().with(MAP_ENTRIES, 0));
        error(&Memory::new().with(MAP_ENTRIES, u32::MAX));
    }

    #[test]
    fn the_hole_has_an_end() {
        assert!(hole(64).is_some());
        assert_eq!(hole(u64::MAX), None);
        assert_eq!(hole(0x1000_0000), None);
    }
}
