//! The memory map, and where in it the firmware puts itself.

use core::ops::Range;

use arrayvec::ArrayVec;
use hw::hypervisor::E820Entry;
use xen_abi as abi;

/// Most entries a toolstack hands over, and room for what cutting them up adds.
pub const REGIONS_MAX: usize = 160;
const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB_4: u64 = 4 << 30;
/// VGA memory and the BIOS area. PVH guests have RAM there, but operating systems started through UEFI take it for what it is on
/// a PC, so it is never given out.
const LEGACY: Range<u64> = 0xA_0000..MIB;
/// Where a hole for shared pages is looked for: above all RAM below 4 GiB, below the IOAPIC, the APIC and Xen's special pages.
const HOLE_WINDOW: Range<u64> = 0xF000_0000..0xFEC0_0000;

/// What a region is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Memory.
    Ram,
    /// Memory that holds ACPI tables and can be used once they have been read.
    AcpiTables,
    /// Memory that ACPI firmware uses.
    AcpiNvs,
    /// Persistent memory.
    Persistent,
    /// Not to be used.
    Reserved,
    /// Broken.
    Unusable,
}

impl Kind {
    fn of(e820: u32) -> Self {
        match e820 {
            abi::XEN_HVM_MEMMAP_TYPE_RAM => Self::Ram,
            abi::XEN_HVM_MEMMAP_TYPE_ACPI => Self::AcpiTables,
            abi::XEN_HVM_MEMMAP_TYPE_NVS => Self::AcpiNvs,
            abi::XEN_HVM_MEMMAP_TYPE_PMEM => Self::Persistent,
            abi::XEN_HVM_MEMMAP_TYPE_UNUSABLE => Self::Unusable,
            _ => Self::Reserved,
        }
    }
}

/// A range of memory of one kind, page-aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// First byte behind it.
    pub end: u64,
    /// What it is.
    pub kind: Kind,
}

/// The memory map: sorted, without overlaps, neighbours of one kind joined.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    regions: ArrayVec<Region, REGIONS_MAX>,
}

impl MemoryMap {
    /// Brings entries in any order, possibly overlapping, into shape. Where entries disagree, the one that gives out less
    /// wins. Entries beyond what can be kept are left out, highest addresses first.
    pub fn new(entries: &[E820Entry]) -> Self {
        let mut input: ArrayVec<Region, { REGIONS_MAX / 2 }> =
            entries.iter().filter_map(whole_pages).take(REGIONS_MAX / 2 - 1).collect();
        input.push(Region { start: LEGACY.start, end: LEGACY.end, kind: Kind::Reserved });
        let mut edges: ArrayVec<u64, REGIONS_MAX> =
            input.iter().flat_map(|region| [region.start, region.end]).collect();
        edges.sort_unstable();
        let mut map = Self::default();
        for edge in edges.windows(2).filter(|edge| edge[0] < edge[1]) {
            let covering = input.iter().filter(|region| region.start <= edge[0] && edge[1] <= region.end);
            if let Some(kind) = covering.map(|region| region.kind).max() {
                map.push(Region { start: edge[0], end: edge[1], kind });
            }
        }
        map
    }

    fn push(&mut self, region: Region) {
        match self.regions.last_mut() {
            Some(last) if last.end == region.start && last.kind == region.kind => last.end = region.end,
            _ => {
                let _ = self.regions.try_push(region);
            }
        }
    }

    /// The regions, by address.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Bytes of RAM.
    pub fn ram(&self) -> u64 {
        self.regions.iter().filter(|region| region.kind == Kind::Ram).map(|region| region.end - region.start).sum()
    }

    /// First address above all regions.
    pub fn top(&self) -> u64 {
        self.regions.last().map_or(0, |region| region.end)
    }

    /// The highest page-aligned address below 4 GiB where `size` bytes of RAM are free of everything in `taken`.
    pub fn place_high(&self, size: u64, taken: &[Range<u64>]) -> Option<u64> {
        let ram = self.regions.iter().rev().filter(|region| region.kind == Kind::Ram);
        ram.filter(|region| region.start < GIB_4).find_map(|region| {
            let mut end = region.end.min(GIB_4);
            loop {
                let start = end.checked_sub(size)? & !(PAGE - 1);
                if start < region.start.max(MIB) {
                    return None;
                }
                let clash = taken.iter().filter(|range| range.start < start + size && start < range.end);
                match clash.map(|range| range.start).min() {
                    None => return Some(start),
                    Some(below) => end = below & !(PAGE - 1),
                }
            }
        })
    }

    /// Address of `pages` pages below 4 GiB that are in no region: neither memory nor anything the toolstack reserved.
    pub fn hole(&self, pages: u64) -> Option<u64> {
        let size = pages.checked_mul(PAGE)?;
        let mut end = HOLE_WINDOW.end;
        for region in self.regions.iter().rev().filter(|region| region.start < HOLE_WINDOW.end) {
            if region.end <= end && end - region.end >= size {
                break;
            }
            end = end.min(region.start);
        }
        end.checked_sub(size).filter(|start| *start >= HOLE_WINDOW.start)
    }
}

/// An entry on page boundaries: RAM loses what is no whole page, everything else keeps it.
fn whole_pages(entry: &E820Entry) -> Option<Region> {
    let end = entry.address.checked_add(entry.size)?;
    let kind = Kind::of(entry.kind);
    let (start, end) = if kind == Kind::Ram {
        (entry.address.checked_next_multiple_of(PAGE)?, end & !(PAGE - 1))
    } else {
        (entry.address & !(PAGE - 1), end.checked_next_multiple_of(PAGE)?)
    };
    (start < end).then_some(Region { start, end, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: u64, size: u64, kind: u32) -> E820Entry {
        E820Entry { address, size, kind }
    }

    /// A 5 GiB PVH guest as libxl describes it: unsorted, legacy area inside RAM.
    fn pvh() -> MemoryMap {
        MemoryMap::new(&[
            entry(0, 0xFC00_0000, 1),
            entry(0xFEFF_8000, 0x8000, 2),
            entry(0xFC00_0000, 0x3000, 4),
            entry(GIB_4, 0x4400_0000, 1),
        ])
    }

    #[test]
    fn a_pvh_map_is_sorted_and_keeps_the_legacy_area_out() {
        let map = pvh();
        let expected = [
            (0, 0xA_0000, Kind::Ram),
            (0xA_0000, MIB, Kind::Reserved),
            (MIB, 0xFC00_0000, Kind::Ram),
            (0xFC00_0000, 0xFC00_3000, Kind::AcpiNvs),
            (0xFEFF_8000, 0xFF00_0000, Kind::Reserved),
            (GIB_4, GIB_4 + 0x4400_0000, Kind::Ram),
        ];
        let found: std::vec::Vec<_> =
            map.regions().iter().map(|region| (region.start, region.end, region.kind)).collect();
        assert_eq!(found, expected);
        assert_eq!(map.top(), GIB_4 + 0x4400_0000);
    }

    #[test]
    fn the_stricter_of_two_overlapping_entries_wins() {
        let map = MemoryMap::new(&[entry(MIB, 16 * MIB, 1), entry(2 * MIB + 5, 10, 2), entry(4 * MIB, MIB, 3)]);
        assert_eq!(map.ram(), 15 * MIB - PAGE);
    }

    #[test]
    fn absurd_entries_are_dropped() {
        let map = MemoryMap::new(&[
            entry(u64::MAX, 5, 1),
            entry(u64::MAX - 10, 5, 2),
            entry(MIB + 1, 100, 1),
            entry(0, 0, 1),
        ]);
        assert_eq!(map.ram(), 0);
    }

    #[test]
    fn more_entries_than_fit_do_no_harm() {
        let many: std::vec::Vec<_> = (0..500).map(|index| entry((index * 2 + 512) * PAGE, PAGE, 1)).collect();
        assert!(MemoryMap::new(&many).ram() > 0);
    }

    #[test]
    fn the_core_goes_to_the_top_of_low_memory_around_what_is_taken() {
        let map = pvh();
        assert_eq!(map.place_high(2 * MIB, &[]), Some(0xFC00_0000 - 2 * MIB));
        let taken = 0xFBF0_0000..0xFBF0_1000;
        assert_eq!(map.place_high(2 * MIB, &[taken]), Some(0xFBF0_0000 - 2 * MIB));
        assert_eq!(map.place_high(8 << 30, &[]), None);
    }

    #[test]
    fn a_hole_is_in_no_region() {
        let hole = pvh().hole(64).unwrap();
        assert!(hole >= 0xFC00_3000 && hole + 64 * PAGE <= 0xFEC0_0000);
        let full = MemoryMap::new(&[entry(0xF000_0000, 0x1000_0000, 2)]);
        assert_eq!(full.hole(1), None);
    }
}
