//! The memory attributes table (UEFI 2.10 §4.6.4): what the operating system may protect of the runtime memory.
//!
//! It is computed in ExitBootServices, when nothing may be allocated, so it goes into memory set aside before.

use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType, PAGE_SIZE};
use uefi_raw::{Guid, guid};

use crate::hardware::Protection;

/// GUID of the table.
pub const GUID: Guid = guid!("dcfa911d-26eb-469f-a220-38b7dc461220");

/// EFI_MEMORY_ATTRIBUTES_TABLE, without its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// Number of entries that follow.
    pub number_of_entries: u32,
    /// Bytes from one entry to the next.
    pub descriptor_size: u32,
    /// Zero.
    pub flags: u32,
}

/// Version 2 differs only by flags that are not set here, and older systems refuse it.
pub const VERSION: u32 = 1;

/// Part of a runtime image with rights of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First byte; page-aligned.
    pub start: u64,
    /// Number of pages.
    pub pages: u64,
    /// What it holds.
    pub kind: Kind,
}

/// What pages hold, as far as the system may rely on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Executed and never written.
    Code,
    /// Written and never executed.
    Data,
}

impl Kind {
    /// The kind of pages with this protection; none if they are both written and executed.
    pub fn of(protection: Protection) -> Option<Self> {
        match protection {
            Protection { execute_protect: true, .. } => Some(Self::Data),
            Protection { read_only: true, .. } => Some(Self::Code),
            _ => None,
        }
    }

    fn attribute(self) -> MemoryAttribute {
        match self {
            Self::Code => MemoryAttribute::READ_ONLY,
            Self::Data => MemoryAttribute::EXECUTE_PROTECT,
        }
    }
}

/// Computes the entries for `map`, split where `segments` (ordered by address) say so, and hands each to `emit`. Runtime
/// memory that no image's segment covers is data, except for code without known segments, which stays unprotected and
/// is left out, for an entry has to protect from something.
///
/// The type of an entry is the type in the memory map: Linux refuses a table in which they differ.
pub fn entries(
    map: impl Iterator<Item = MemoryDescriptor>,
    segments: &[Segment],
    mut emit: impl FnMut(MemoryDescriptor),
) {
    for region in map.filter(|region| region.att.contains(MemoryAttribute::RUNTIME)) {
        let rest = match region.ty {
            MemoryType::RUNTIME_SERVICES_DATA => MemoryAttribute::EXECUTE_PROTECT,
            MemoryType::RUNTIME_SERVICES_CODE => MemoryAttribute::empty(),
            _ => continue,
        };
        let mut piece = |start: u64, end: u64, protection: MemoryAttribute| {
            let pages = end.saturating_sub(start) / PAGE_SIZE as u64;
            if pages > 0 && !protection.is_empty() {
                let att = MemoryAttribute::RUNTIME | protection;
                emit(MemoryDescriptor { phys_start: start, page_count: pages, att, ..region });
            }
        };
        let region_end = end(region.phys_start, region.page_count);
        let mut done = region.phys_start;
        for segment in segments {
            let start = segment.start.max(done);
            let end = end(segment.start, segment.pages).min(region_end);
            if start >= end {
                continue;
            }
            piece(done, start, rest);
            piece(start, end, segment.kind.attribute());
            done = end;
        }
        piece(done, region_end, rest);
    }
}

fn end(start: u64, pages: u64) -> u64 {
    start.saturating_add(pages.saturating_mul(PAGE_SIZE as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(ty: MemoryType, page: u64, pages: u64) -> MemoryDescriptor {
        let runtime = [MemoryType::RUNTIME_SERVICES_CODE, MemoryType::RUNTIME_SERVICES_DATA].contains(&ty);
        let att = if runtime { MemoryAttribute::RUNTIME } else { MemoryAttribute::empty() };
        MemoryDescriptor { ty, phys_start: page << 12, page_count: pages, att, ..MemoryDescriptor::default() }
    }

    fn computed(map: &[MemoryDescriptor], segments: &[Segment]) -> Vec<(MemoryType, u64, u64, MemoryAttribute)> {
        let mut out = Vec::new();
        entries(map.iter().copied(), segments, |e| {
            assert!(e.att.contains(MemoryAttribute::RUNTIME));
            out.push((e.ty, e.phys_start >> 12, e.page_count, e.att - MemoryAttribute::RUNTIME));
        });
        out
    }

    #[test]
    fn an_image_is_split_by_its_segments_and_keeps_its_type() {
        let code = MemoryType::RUNTIME_SERVICES_CODE;
        let segment = |page: u64, pages, kind| Segment { start: page << 12, pages, kind };
        let segments = [segment(16, 1, Kind::Data), segment(17, 3, Kind::Code), segment(20, 4, Kind::Data)];
        assert_eq!(
            computed(&[region(code, 16, 8)], &segments),
            [
                (code, 16, 1, MemoryAttribute::EXECUTE_PROTECT),
                (code, 17, 3, MemoryAttribute::READ_ONLY),
                (code, 20, 4, MemoryAttribute::EXECUTE_PROTECT),
            ]
        );
    }

    #[test]
    fn runtime_data_is_not_executable_and_boot_memory_is_left_out() {
        let data = MemoryType::RUNTIME_SERVICES_DATA;
        let map = [region(MemoryType::BOOT_SERVICES_DATA, 0, 9), region(data, 9, 2)];
        assert_eq!(computed(&map, &[]), [(data, 9, 2, MemoryAttribute::EXECUTE_PROTECT)]);
    }

    #[test]
    fn code_without_known_segments_has_no_entry() {
        let code = MemoryType::RUNTIME_SERVICES_CODE;
        let segments = [Segment { start: 3 << 12, pages: 1, kind: Kind::Code }];
        assert_eq!(computed(&[region(code, 2, 3)], &segments), [(code, 3, 1, MemoryAttribute::READ_ONLY)]);
    }

    #[test]
    fn segments_outside_a_region_do_not_count() {
        let data = MemoryType::RUNTIME_SERVICES_DATA;
        let segments =
            [Segment { start: 0, pages: 4, kind: Kind::Code }, Segment { start: 8 << 12, pages: 4, kind: Kind::Code }];
        assert_eq!(computed(&[region(data, 4, 4)], &segments), [(data, 4, 4, MemoryAttribute::EXECUTE_PROTECT)]);
    }
}
