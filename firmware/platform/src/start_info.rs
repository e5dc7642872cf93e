//! PVH start information, versions 0 and 1 (`public/arch-x86/hvm/start_info.h`, `docs/misc/pvh.pandoc`).

use core::fmt;
use core::mem::{offset_of, size_of};
use core::ops::Range;

use arrayvec::ArrayVec;
use hw::hypervisor::{E820Entry, Errno, Hypervisor};
use xen_abi as abi;

use crate::memory::{MemoryMap, REGIONS_MAX};
use crate::options::{self, Options};
use crate::smbios::Found;
use crate::{COMMAND_LINE_MAX, GuestKind, MODULES_MAX, Module, PhysicalMemory, Platform};

/// Why the start information cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartInfoError {
    /// It is not where the register said, or starts with other bytes.
    NoMagic(u32),
    /// The memory map is missing and Xen does not give one either.
    NoMemoryMap(Errno),
}

impl fmt::Display for StartInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMagic(address) => write!(f, "no PVH start information at {address:#x}"),
            Self::NoMemoryMap(error) => write!(f, "no memory map: {error}"),
        }
    }
}

/// Ranges the start information takes, which must survive until it has been copied.
pub type Taken = ArrayVec<Range<u64>, { MODULES_MAX + 4 }>;

/// Reads the start information at `address` into a [`Platform`], and tells which memory it lies in.
pub fn read(
    address: u32,
    memory: &dyn PhysicalMemory,
    xen: &dyn Hypervisor,
) -> Result<(Platform, Taken), StartInfoError> {
    let base = u64::from(address);
    let word = |offset: usize| read_u32(memory, base, offset);
    let long = |offset: usize| read_u64(memory, base, offset);
    if word(offset_of!(abi::hvm_start_info, magic)) != abi::XEN_HVM_START_MAGIC_VALUE {
        return Err(StartInfoError::NoMagic(address));
    }
    let version = word(offset_of!(abi::hvm_start_info, version));
    let mut taken = Taken::new();
    taken.push(base..base + size_of::<abi::hvm_start_info>() as u64);

    let command_line = command_line(memory, long(offset_of!(abi::hvm_start_info, cmdline_paddr)), &mut taken);
    let modules = modules(
        memory,
        long(offset_of!(abi::hvm_start_info, modlist_paddr)),
        word(offset_of!(abi::hvm_start_info, nr_modules)),
        &mut taken,
    );
    let mut entries = [E820Entry::default(); REGIONS_MAX];
    let table = long(offset_of!(abi::hvm_start_info, memmap_paddr));
    let count = if version >= 1 && table != 0 {
        memory_map(memory, table, word(offset_of!(abi::hvm_start_info, memmap_entries)), &mut entries)
    } else {
        xen.memory_map(&mut entries).map_err(StartInfoError::NoMemoryMap)?
    };
    let options = Options::parse(&command_line, options::unknown);
    let platform = Platform {
        kind: GuestKind::Pvh,
        memory: MemoryMap::new(entries.get(..count).unwrap_or_default()),
        rsdp: long(offset_of!(abi::hvm_start_info, rsdp_paddr)),
        smbios: Found::default(),
        command_line,
        modules,
        options,
    };
    Ok((platform, taken))
}

/// The zero-terminated command line; cut where it is longer than what is kept.
fn command_line(memory: &dyn PhysicalMemory, address: u64, taken: &mut Taken) -> ArrayVec<u8, COMMAND_LINE_MAX> {
    let mut line = ArrayVec::new();
    if address == 0 {
        return line;
    }
    let mut byte = [0];
    let end = address.saturating_add(COMMAND_LINE_MAX as u64);
    for at in address..end {
        if !memory.read(at, &mut byte) || byte[0] == 0 {
            break;
        }
        line.push(byte[0]);
    }
    taken.push(address..end.min(address.saturating_add(line.len() as u64 + 1)));
    line
}

fn modules(memory: &dyn PhysicalMemory, list: u64, count: u32, taken: &mut Taken) -> ArrayVec<Module, MODULES_MAX> {
    let mut modules = ArrayVec::new();
    if list == 0 || count == 0 {
        return modules;
    }
    let entry_size = size_of::<abi::hvm_modlist_entry>() as u64;
    taken.push(list..list.saturating_add(u64::from(count).saturating_mul(entry_size)));
    for index in 0..u64::from(count).min(MODULES_MAX as u64) {
        let entry = list.saturating_add(index * entry_size);
        let address = read_u64(memory, entry, offset_of!(abi::hvm_modlist_entry, paddr));
        let size = read_u64(memory, entry, offset_of!(abi::hvm_modlist_entry, size));
        if size == 0 || address.checked_add(size).is_none() {
            continue;
        }
        modules.push(Module { address, size });
        taken.push(address..address + size);
    }
    modules
}

fn memory_map(memory: &dyn PhysicalMemory, table: u64, count: u32, entries: &mut [E820Entry]) -> usize {
    let entry_size = size_of::<abi::hvm_memmap_table_entry>() as u64;
    let count = (count as usize).min(entries.len());
    for (index, entry) in entries.iter_mut().take(count).enumerate() {
        let at = table.saturating_add(index as u64 * entry_size);
        *entry = E820Entry {
            address: read_u64(memory, at, offset_of!(abi::hvm_memmap_table_entry, addr)),
            size: read_u64(memory, at, offset_of!(abi::hvm_memmap_table_entry, size)),
            kind: read_u32(memory, at, offset_of!(abi::hvm_memmap_table_entry, type_)),
        };
    }
    count
}

/// The value `offset` bytes behind `base`; zero where the memory cannot be read.
fn read_u32(memory: &dyn PhysicalMemory, base: u64, offset: usize) -> u32 {
    u32::from_le_bytes(read_bytes(memory, base, offset))
}

/// The value `offset` bytes behind `base`; zero where the memory cannot be read.
fn read_u64(memory: &dyn PhysicalMemory, base: u64, offset: usize) -> u64 {
    u64::from_le_bytes(read_bytes(memory, base, offset))
}

fn read_bytes<const N: usize>(memory: &dyn PhysicalMemory, base: u64, offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    match base.checked_add(offset as u64) {
        Some(address) if memory.read(address, &mut bytes) => bytes,
        _ => [0; N],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Kind;
    use hw::fake::FakeHypervisor;
    use std::vec::Vec;

    struct Bytes(Vec<u8>);

    impl PhysicalMemory for Bytes {
        fn read(&self, address: u64, into: &mut [u8]) -> bool {
            let Some(from) = usize::try_from(address).ok().and_then(|start| self.0.get(start..)?.get(..into.len()))
            else {
                return false;
            };
            into.copy_from_slice(from);
            true
        }
        fn write(&mut self, address: u64, from: &[u8]) -> bool {
            let Some(to) =
                usize::try_from(address).ok().and_then(|start| self.0.get_mut(start..)?.get_mut(..from.len()))
            else {
                return false;
            };
            to.copy_from_slice(from);
            true
        }
    }

    impl Bytes {
        fn put(&mut self, at: usize, value: u64) {
            self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
    }

    fn start_info(version: u32) -> Bytes {
        let mut bytes = Bytes(std::vec![0; 0x1000]);
        bytes.put(0x100, u64::from(abi::XEN_HVM_START_MAGIC_VALUE) | u64::from(version) << 32);
        bytes.put(0x108, 1 << 32);
        bytes.put(0x110, 0x200);
        bytes.put(0x118, 0x300);
        bytes.put(0x120, 0xFC00_1000);
        bytes.put(0x128, 0x400);
        bytes.put(0x130, 1);
        bytes.put(0x200, 0x80_0000);
        bytes.put(0x208, 0x1234);
        bytes.0[0x300..0x30E].copy_from_slice(b"ovmf.timeline\0");
        bytes.put(0x400, 0x10_0000);
        bytes.put(0x408, 0x100_0000);
        bytes.put(0x410, 1);
        bytes
    }

    #[test]
    fn version_1_is_read_whole() {
        let (platform, taken) = read(0x100, &start_info(1), &FakeHypervisor::new()).unwrap();
        assert_eq!(platform.rsdp, 0xFC00_1000);
        assert!(platform.options.timeline);
        assert_eq!(platform.modules[..], [Module { address: 0x80_0000, size: 0x1234 }]);
        assert_eq!(
            platform.memory.regions().last().map(|region| (region.start, region.kind)),
            Some((0x10_0000, Kind::Ram))
        );
        assert!(taken.contains(&(0x80_0000..0x80_1234)));
    }

    #[test]
    fn version_0_asks_xen_for_the_memory_map() {
        let error = read(0x100, &start_info(0), &FakeHypervisor::new()).unwrap_err();
        assert_eq!(error, StartInfoError::NoMemoryMap(Errno(38)));
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(read(0x200, &start_info(1), &FakeHypervisor::new()).unwrap_err(), StartInfoError::NoMagic(0x200));
        assert!(read(u32::MAX, &start_info(1), &FakeHypervisor::new()).is_err());
    }

    #[test]
    fn pointers_outside_memory_and_absurd_counts_do_no_harm() {
        let mut bytes = start_info(1);
        bytes.put(0x108, u64::from(u32::MAX) << 32);
        bytes.put(0x110, u64::MAX - 3);
        bytes.put(0x118, u64::MAX - 3);
        bytes.put(0x128, u64::MAX - 3);
        bytes.put(0x130, u64::from(u32::MAX));
        let (platform, _) = read(0x100, &bytes, &FakeHypervisor::new()).unwrap();
        assert!(platform.modules.is_empty());
        assert_eq!(platform.memory.ram(), 0);
    }
}
