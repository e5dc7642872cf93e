//! The memory map as the outside sees it (UEFI 2.10 §7.2.3), and sums for diagnostics.

use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType};

use super::table::{Entry, Owner};
use super::{Memory, PAGE};

/// Distance between descriptors: larger than the structure, so that callers who ignore it are found out early.
pub const DESCRIPTOR_SIZE: usize = 48;

/// Descriptors to spare in the size that a caller with too small a buffer is told: allocating that buffer may itself
/// split a range, and not every caller adds some.
pub const SPARE_DESCRIPTORS: usize = 4;

/// Access rights are not shown as capabilities: operating systems have taken them for settings and mapped memory
/// accordingly. The memory attributes table is the place for the rights of runtime memory.
const SHOWN: MemoryAttribute = MemoryAttribute::READ_PROTECT
    .union(MemoryAttribute::READ_ONLY)
    .union(MemoryAttribute::EXECUTE_PROTECT)
    .complement();

/// What ordinary RAM can do.
pub const RAM_CAPABILITIES: MemoryAttribute = MemoryAttribute::UNCACHEABLE
    .union(MemoryAttribute::WRITE_COMBINE)
    .union(MemoryAttribute::WRITE_THROUGH)
    .union(MemoryAttribute::WRITE_BACK)
    .union(MemoryAttribute::READ_PROTECT)
    .union(MemoryAttribute::READ_ONLY)
    .union(MemoryAttribute::EXECUTE_PROTECT);

/// Bytes in use, for the benchmark and for diagnostics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    /// Bytes by memory type.
    pub by_type: [u64; MemoryType::MAX.0 as usize],
    /// Bytes of OEM and OS loader types.
    pub custom: u64,
    /// Bytes among these that small pool allocations rest on.
    pub pools: u64,
    /// Bytes among these that large pool allocations take.
    pub large_pools: u64,
    /// Ranges in the table, and descriptors in the map.
    pub ranges: usize,
    /// Descriptors in the map.
    pub descriptors: usize,
}

impl Memory {
    /// The memory map: ordered by address, touching ranges of one type and nature merged.
    pub fn map(&self) -> impl Iterator<Item = MemoryDescriptor> {
        let mut entries = self.table.entries().iter().peekable();
        core::iter::from_fn(move || {
            let first = entries.next()?;
            let (ty, att) = shown(first);
            let mut end = first.end;
            while let Some(next) = entries.next_if(|next| next.start == end && shown(next) == (ty, att)) {
                end = next.end;
            }
            let page_count = (end - first.start) / PAGE;
            Some(MemoryDescriptor { ty, padding: 0, phys_start: first.start, virt_start: 0, page_count, att })
        })
    }

    /// Identifies the state of the map; changes whenever the map does.
    #[inline]
    pub fn key(&self) -> usize {
        self.key
    }

    /// Sums over the table.
    pub fn inventory(&self) -> Inventory {
        let mut sums = Inventory { ranges: self.table.entries().len(), ..Inventory::default() };
        for entry in self.table.entries() {
            let bytes = entry.end - entry.start;
            *sums.by_type.get_mut(entry.state.ty.0 as usize).unwrap_or(&mut sums.custom) += bytes;
            match entry.state.owner {
                Owner::Pool => sums.pools += bytes,
                Owner::LargePool => sums.large_pools += bytes,
                _ => {}
            }
        }
        sums.descriptors = self.map().count();
        sums
    }
}

fn shown(entry: &Entry) -> (MemoryType, MemoryAttribute) {
    let ty = entry.state.ty;
    let runtime = match ty {
        MemoryType::RUNTIME_SERVICES_CODE | MemoryType::RUNTIME_SERVICES_DATA => MemoryAttribute::RUNTIME,
        _ => MemoryAttribute::empty(),
    };
    (ty, entry.state.capabilities & SHOWN | runtime)
}
