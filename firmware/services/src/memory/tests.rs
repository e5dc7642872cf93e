//! Against naive models, with memory of the test's own heap.

use std::alloc::{Layout, alloc, dealloc};
use std::vec::Vec;

use super::map::RAM_CAPABILITIES;
use super::*;

/// Memory of this process for pools and tables to live in.
struct Arena {
    base: *mut u8,
    layout: Layout,
}

impl Arena {
    fn new(pages: u64) -> Self {
        let layout = Layout::from_size_align((pages * PAGE) as usize, 1 << 16).unwrap();
        // SAFETY: not empty.
        let base = unsafe { alloc(layout) };
        assert!(!base.is_null());
        Self { base, layout }
    }

    fn range(&self) -> Range<u64> {
        let start = self.base.expose_provenance() as u64;
        start..start + self.layout.size() as u64
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.base, self.layout) };
    }
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

const STEPS: usize = if cfg!(miri) { 60 } else { 5_000 };
const TYPES: [MemoryType; 8] = [
    MemoryType::LOADER_DATA,
    MemoryType::LOADER_CODE,
    MemoryType::BOOT_SERVICES_DATA,
    MemoryType::RUNTIME_SERVICES_DATA,
    MemoryType::RUNTIME_SERVICES_CODE,
    MemoryType::ACPI_RECLAIM,
    MemoryType(0x7000_0001),
    MemoryType(0x8000_0002),
];

fn with_ram(ranges: &[Range<u64>]) -> Memory {
    let mut memory = Memory::new();
    for range in ranges {
        memory.add(range.clone(), MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
    }
    memory
}

/// A map that needs no backing memory as long as the table does not grow.
fn guest(low: u64, high: u64) -> Memory {
    let mut memory = with_ram(&[0..0xA_0000, MIB..low]);
    if high != 0 {
        memory.add(FOUR_GIB..FOUR_GIB + high, MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
    }
    memory
}

fn free_now(memory: &mut Memory, address: u64, pages: u64) -> Result<(), Error> {
    match memory.free_pages(address, pages)? {
        Release::Done => Ok(()),
        Release::First(change) => {
            memory.mark_ordinary(&change);
            assert_eq!(memory.free_pages(address, pages), Ok(Release::Done));
            Ok(())
        }
    }
}

#[test]
fn pages_come_from_the_top_below_4_gib() {
    let mut memory = guest(128 * MIB, 1 << 30);
    let at = memory.allocate_pages(Placement::Any, MemoryType::LOADER_DATA, 8).unwrap().at;
    assert_eq!(at + (8 + bin_pages()) * PAGE, 128 * MIB);
}

#[test]
fn pages_come_from_above_4_gib_when_there_are_none_below() {
    let mut memory = guest(8 * MIB, 1 << 30);
    let at = memory.allocate_pages(Placement::Any, MemoryType::LOADER_DATA, (64 * MIB) / PAGE).unwrap().at;
    assert!(at >= FOUR_GIB);
}

#[test]
fn page_0_is_never_given() {
    let mut memory = guest(2 * MIB, 0);
    assert_eq!(memory.allocate_pages(Placement::At(0), MemoryType::LOADER_DATA, 1), Err(Error::NotFree(0)));
    while memory.allocate_pages(Placement::Any, MemoryType::LOADER_DATA, 1).is_ok_and(|got| got.at != 0) {}
    let first = memory.map().next().unwrap();
    assert_eq!((first.ty, first.phys_start, first.page_count), (MemoryType::BOOT_SERVICES_DATA, 0, 1));
    assert!(memory.release(0, 1).is_err());
}

#[test]
fn below_means_the_last_byte() {
    let mut memory = guest(128 * MIB, 0);
    let limit = 16 * MIB + 3 * PAGE;
    let last = |last, memory: &mut Memory| {
        memory.allocate_pages(Placement::Below(last), MemoryType::LOADER_DATA, 1).unwrap().at
    };
    assert_eq!(last(limit - 1, &mut memory), limit - PAGE);
    assert_eq!(last(limit - 2, &mut memory), limit - 2 * PAGE);
    assert_eq!(memory.allocate_pages(Placement::Below(PAGE), MemoryType::LOADER_DATA, 1), Err(Error::OutOfMemory));
}

#[test]
fn runtime_types_share_a_few_descriptors() {
    let mut memory = guest(128 * MIB, 0);
    for _ in 0..8 {
        for ty in [MemoryType::LOADER_DATA, MemoryType::RUNTIME_SERVICES_CODE, MemoryType::RUNTIME_SERVICES_DATA] {
            let _ = memory.allocate_pages(Placement::Any, ty, 3).unwrap();
        }
    }
    for ty in [MemoryType::RUNTIME_SERVICES_CODE, MemoryType::RUNTIME_SERVICES_DATA] {
        let found: Vec<_> = memory.map().filter(|d| d.ty == ty).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].page_count, 24);
        assert!(found[0].att.contains(MemoryAttribute::RUNTIME));
    }
}

#[test]
fn a_full_bin_overflows_into_ordinary_memory() {
    let mut memory = guest(128 * MIB, 0);
    let _ = memory.allocate_pages(Placement::Any, MemoryType::RUNTIME_SERVICES_CODE, 64).unwrap();
    let at = memory.allocate_pages(Placement::Any, MemoryType::RUNTIME_SERVICES_CODE, 1).unwrap().at;
    assert!(at < 128 * MIB - bin_pages() * PAGE);
}

#[test]
fn the_bins_are_used_when_nothing_else_is_left() {
    let mut memory = guest(4 * MIB, 0);
    let mut pages = 0;
    while memory.allocate_pages(Placement::Any, MemoryType::LOADER_DATA, 1).is_ok() {
        pages += 1;
    }
    assert_eq!(pages, 3 * MIB / PAGE + 0xA0 - 1);
}

#[test]
fn types_that_cannot_be_allocated_are_refused() {
    let mut memory = guest(4 * MIB, 0);
    for ty in [7, 14, 15, 16, 0x6FFF_FFFF] {
        let ty = MemoryType(ty);
        assert_eq!(memory.allocate_pages(Placement::Any, ty, 1), Err(Error::Type(ty)));
        assert_eq!(memory.allocate_pool(ty, 1), Err(Error::Type(ty)));
    }
    for ty in [0, 8, 13, 0x7000_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] {
        assert!(memory.allocate_pages(Placement::Any, MemoryType(ty), 1).is_ok());
    }
}

#[test]
fn sizes_beyond_the_address_space_are_refused() {
    let mut memory = guest(4 * MIB, 0);
    let ty = MemoryType::LOADER_DATA;
    for pages in [u64::MAX, 1 << 52, (1 << 52) - 1] {
        assert_eq!(memory.allocate_pages(Placement::Any, ty, pages), Err(Error::OutOfMemory));
        assert_eq!(memory.allocate_pages(Placement::At(MIB), ty, pages), Err(Error::NotFree(MIB)));
        assert_eq!(memory.free_pages(MIB, pages), memory.free_pages(MIB, pages));
        assert!(memory.free_pages(MIB, pages).is_err());
    }
    assert_eq!(memory.allocate_pages(Placement::Any, ty, 0), Err(Error::Range));
    assert_eq!(memory.free_pages(MIB, 0), Err(Error::Range));
    assert_eq!(memory.free_pages(MIB + 1, 1), Err(Error::Range));
    assert_eq!(memory.allocate_pool(ty, usize::MAX), Err(Error::OutOfMemory));
}

#[test]
fn only_what_was_allocated_can_be_freed() {
    let mut memory = guest(4 * MIB, 0);
    memory.add(0xFEE0_0000..0xFEE0_1000, MemoryType::MMIO, MemoryAttribute::UNCACHEABLE).unwrap();
    memory.reserve(2 * MIB, 4, MemoryType::BOOT_SERVICES_DATA).unwrap();
    let a = memory.allocate_pages(Placement::At(MIB), MemoryType::LOADER_DATA, 4).unwrap().at;
    let b = memory.allocate_pages(Placement::At(MIB + 4 * PAGE), MemoryType::LOADER_CODE, 4).unwrap().at;
    let key = memory.key();
    for (address, pages) in [(0xFEE0_0000, 1), (2 * MIB, 1), (3 * MIB, 1), (a, 5), (a - PAGE, 2), (b, 5), (8 * MIB, 1)]
    {
        assert!(matches!(memory.free_pages(address, pages), Err(Error::NotAllocated(_))), "{address:#x}");
    }
    assert_eq!(memory.key(), key);
    free_now(&mut memory, a + PAGE, 2).unwrap();
    assert!(free_now(&mut memory, a, 4).is_err());
    free_now(&mut memory, a, 1).unwrap();
    free_now(&mut memory, a + 3 * PAGE, 1).unwrap();
    free_now(&mut memory, b, 4).unwrap();
    assert_eq!(memory.release(2 * MIB, 4), Ok(Release::Done));
    assert_eq!(memory.map().filter(|d| d.phys_start == MIB).map(|d| d.page_count).sum::<u64>(), 3 * MIB / PAGE);
}

#[test]
fn overlapping_memory_is_refused() {
    let mut memory = guest(4 * MIB, 0);
    for range in [MIB..2 * MIB, 0..PAGE, 3 * MIB..5 * MIB, 0xA_0000 - PAGE..0xA_0000 + PAGE] {
        assert_eq!(memory.add(range, MemoryType::RESERVED, MemoryAttribute::empty()), Err(Error::Overlap));
    }
    memory.add(0xA_0000..MIB, MemoryType::RESERVED, MemoryAttribute::empty()).unwrap();
}

#[test]
fn ranges_that_are_no_whole_pages_shrink_if_free_and_grow_if_not() {
    let mut memory = Memory::new();
    memory.add(MIB + 1..MIB + 3 * PAGE - 1, MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
    memory.add(2 * MIB + 1..2 * MIB + 2, MemoryType::ACPI_NON_VOLATILE, RAM_CAPABILITIES).unwrap();
    let map: Vec<_> = memory.map().map(|d| (d.phys_start, d.page_count)).collect();
    assert_eq!(map, [(MIB + PAGE, 1), (2 * MIB, 1)]);
}

#[test]
fn only_code_changes_access_rights() {
    let mut memory = guest(4 * MIB, 0);
    for ty in TYPES {
        let got = memory.allocate_pages(Placement::Any, ty, 2).unwrap();
        assert_eq!(got.change.is_some(), Class::of(ty) == Class::Code);
        let release = memory.free_pages(got.at, 2).unwrap();
        assert_eq!(matches!(release, Release::First(c) if c.protection.execute_protect), Class::of(ty) == Class::Code);
    }
}

#[test]
fn pages_with_rights_of_their_own_are_reset_before_they_are_free() {
    let mut memory = guest(4 * MIB, 0);
    let at = memory.allocate_pages(Placement::Any, MemoryType::LOADER_DATA, 8).unwrap().at;
    memory.mark_custom(at + 2 * PAGE, 2).unwrap();
    assert_eq!(memory.free_pages(at, 2), Ok(Release::Done));
    let Ok(Release::First(change)) = memory.free_pages(at + 2 * PAGE, 6) else { panic!("not reset") };
    memory.mark_ordinary(&change);
    assert_eq!(memory.free_pages(at + 2 * PAGE, 6), Ok(Release::Done));
    assert_eq!(memory.mark_custom(at, 1), Err(Error::NotYours(at)));
}

#[test]
fn the_key_changes_with_the_map_only() {
    let arena = Arena::new(64);
    let mut memory = with_ram(&[arena.range()]);
    let first = memory.allocate_pool(MemoryType::LOADER_DATA, 100).unwrap().at;
    let key = memory.key();
    let block = memory.allocate_pool(MemoryType::LOADER_DATA, 100).unwrap().at;
    assert_eq!(memory.free_pool(block.as_ptr() as u64), Ok(Release::Done));
    assert_eq!(memory.key(), key);
    let _ = memory.allocate_pages(Placement::Any, MemoryType::LOADER_DATA, 1).unwrap();
    assert_ne!(memory.key(), key);
    assert_eq!(memory.free_pool(first.as_ptr() as u64), Ok(Release::Done));
}

/// The map is ordered, merged, and covers exactly `total` pages.
fn check_map(memory: &Memory, total: u64) {
    let map: Vec<_> = memory.map().collect();
    for pair in map.windows(2) {
        let end = pair[0].phys_start + pair[0].page_count * PAGE;
        assert!(end <= pair[1].phys_start);
        assert!(end < pair[1].phys_start || pair[0].ty != pair[1].ty || pair[0].att != pair[1].att);
    }
    assert_eq!(map.iter().map(|d| d.page_count).sum::<u64>(), total);
    for pair in memory.table.entries().windows(2) {
        let merges = pair[0].state.owner != Owner::LargePool && pair[0].state.owner != Owner::Table;
        assert!(pair[0].end < pair[1].start || pair[0].state != pair[1].state || !merges);
    }
}

/// Whether a naive look at the map finds room.
fn has_room(memory: &Memory, pages: u64, last: u64) -> bool {
    memory.map().filter(|d| d.ty == MemoryType::CONVENTIONAL).any(|d| {
        let end = (d.phys_start + d.page_count * PAGE).min(align_down(last.saturating_add(1), PAGE));
        end >= d.phys_start + pages * PAGE
    })
}

#[test]
fn random_page_requests_agree_with_a_model() {
    const PAGES: u64 = 512;
    let arena = Arena::new(PAGES);
    let start = arena.range().start;
    for seed in 1..=4 {
        let mut memory = with_ram(&[arena.range()]);
        let mut random = Random(seed);
        let mut model: Vec<Option<MemoryType>> = vec![None; PAGES as usize];
        for step in 0..STEPS {
            let page = random.below(PAGES);
            let most = 1 + random.below(24);
            let pages = 1 + random.below(most);
            let address = start + page * PAGE;
            let ty = TYPES[random.below(8) as usize];
            let (placement, last) = match random.below(6) {
                0 | 1 => (Placement::Any, u64::MAX),
                2 => (Placement::At(address), u64::MAX),
                3 => (Placement::Below(address), address),
                _ => {
                    // Free a random stretch: it works exactly if all of it has one type.
                    let stretch = model.get(page as usize..(page + pages) as usize);
                    let of_one_type = stretch.is_some_and(|s| s[0].is_some() && s.iter().all(|&ty| ty == s[0]));
                    let freed = free_now(&mut memory, address, pages);
                    let table_full = memory.table.room() < 2 * SPLIT && freed == Err(Error::OutOfMemory);
                    assert!(freed.is_ok() == of_one_type || table_full, "step {step}: {freed:?}");
                    if freed.is_ok() {
                        model[page as usize..(page + pages) as usize].fill(None);
                    }
                    continue;
                }
            };
            match memory.allocate_pages(placement, ty, pages) {
                Ok(got) => {
                    let first = (got.at - start) / PAGE;
                    let stretch = &mut model[first as usize..(first + pages) as usize];
                    assert!(stretch.iter().all(Option::is_none), "given twice");
                    stretch.fill(Some(ty));
                    assert!(got.at + pages * PAGE - 1 <= last);
                    assert!(placement != Placement::At(address) || got.at == address);
                }
                Err(Error::OutOfMemory) => {
                    assert!(!has_room(&memory, pages, last) || memory.table.room() < 2 * SPLIT);
                }
                Err(Error::NotFree(at)) => {
                    let page = (at - start) / PAGE;
                    let known = model.get(page as usize).copied().flatten();
                    let tables = memory.table.containing(at).map(|i| memory.table.entries()[i].state.owner);
                    assert!(known.is_some() || tables.is_none_or(|owner| owner == Owner::Table));
                }
                Err(error) => panic!("{error:?}"),
            }
            if step % 64 == 0 {
                check_map(&memory, PAGES);
            }
        }
        for entry in memory.table.entries() {
            for at in (entry.start..entry.end).step_by(PAGE_SIZE) {
                let expected = model[((at - start) / PAGE) as usize];
                match entry.state.owner {
                    Owner::Pages => assert_eq!(expected, Some(entry.state.ty)),
                    _ => assert_eq!(expected, None),
                }
            }
        }
    }
}

#[test]
fn a_range_across_the_border_of_the_bins_is_found() {
    let mut memory = guest(4 * MIB, 0);
    let mut random = Random(5);
    let mut live = Vec::new();
    for _ in 0..STEPS {
        let pages = 1 + random.below(400);
        if memory.table.room() > 16 && random.below(2) == 0 {
            match memory.allocate_pages(Placement::Any, TYPES[random.below(8) as usize], pages) {
                Ok(got) => live.push((got.at, pages)),
                Err(error) => assert!(error == Error::OutOfMemory && !has_room(&memory, pages, u64::MAX)),
            }
        } else if !live.is_empty() {
            let (at, pages) = live.swap_remove(random.below(live.len() as u64) as usize);
            free_now(&mut memory, at, pages).unwrap();
        }
    }
}

/// A block and what it should hold.
struct Block {
    at: NonNull<u8>,
    size: usize,
    fill: u8,
}

impl Block {
    fn fill(&self) {
        // SAFETY: the block holds `size` bytes.
        unsafe { self.at.as_ptr().write_bytes(self.fill, self.size) };
    }

    fn check(&self) {
        // SAFETY: the block holds `size` bytes, written by `fill`.
        let bytes = unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.size) };
        assert!(bytes.iter().all(|&byte| byte == self.fill));
    }
}

fn free_block(memory: &mut Memory, address: u64) -> Result<(), Error> {
    if memory.free_pool_quickly(address) {
        return Ok(());
    }
    if let Release::First(change) = memory.free_pool(address)? {
        memory.mark_ordinary(&change);
        assert_eq!(memory.free_pool(address), Ok(Release::Done));
    }
    Ok(())
}

#[test]
fn random_pool_requests_keep_every_block_whole() {
    const PAGES: u64 = 300;
    let arena = Arena::new(PAGES);
    for seed in 1..=4 {
        let mut memory = with_ram(&[arena.range()]);
        let mut random = Random(seed * 7);
        let mut blocks: Vec<Block> = Vec::new();
        for step in 0..STEPS {
            if random.below(5) < 3 {
                let bound = 1 << random.below(15);
                let size = random.below(bound) as usize;
                let align = 1 << random.below(13);
                let ty = TYPES[random.below(8) as usize];
                match memory.allocate_pool_aligned(ty, size, align) {
                    Ok(got) => {
                        assert!(got.at.addr().get().is_multiple_of(align.max(GRAIN)));
                        let block = Block { at: got.at, size, fill: random.next() as u8 };
                        block.fill();
                        blocks.push(block);
                    }
                    Err(Error::OutOfMemory) => {
                        for block in blocks.drain(..blocks.len() / 2) {
                            block.check();
                            free_block(&mut memory, block.at.as_ptr() as u64).unwrap();
                        }
                    }
                    Err(error) => panic!("{error:?}"),
                }
            } else if !blocks.is_empty() {
                let block = blocks.swap_remove(random.below(blocks.len() as u64) as usize);
                block.check();
                let address = block.at.as_ptr() as u64;
                free_block(&mut memory, address).unwrap();
                assert!(!memory.free_pool_quickly(address) && !memory.free_pool_quickly(address + 8));
                assert!(memory.free_pool(address).is_err(), "freed twice");
                assert!(memory.free_pool(address + 8).is_err(), "freed in the middle");
            }
            if step % 64 == 0 {
                check_map(&memory, PAGES);
            }
        }
        for block in blocks {
            block.check();
            free_block(&mut memory, block.at.as_ptr() as u64).unwrap();
        }
        // What is left: a slab per type and size at the most, and the stocks.
        let kept = PAGES * PAGE - memory.inventory().by_type[MemoryType::CONVENTIONAL.0 as usize];
        assert!(kept <= PAGES * PAGE);
        assert_eq!(memory.inventory().large_pools, 0);
    }
}

#[test]
fn pool_pages_go_back_to_the_map() {
    let arena = Arena::new(1024);
    let mut memory = with_ram(&[arena.range()]);
    for ty in [MemoryType::BOOT_SERVICES_DATA, MemoryType::RUNTIME_SERVICES_DATA] {
        let blocks: Vec<_> = (0..2000).map(|_| memory.allocate_pool(ty, 1000).unwrap().at).collect();
        assert!(memory.inventory().pools >= 2000 * 1000);
        for block in blocks {
            free_block(&mut memory, block.as_ptr() as u64).unwrap();
        }
    }
    assert!(memory.inventory().pools < 64 * PAGE);
}

#[test]
fn a_pointer_into_something_else_is_no_block() {
    let arena = Arena::new(64);
    let mut memory = with_ram(&[arena.range()]);
    let ty = MemoryType::LOADER_DATA;
    let small = memory.allocate_pool(ty, 40).unwrap().at.as_ptr() as u64;
    let large = memory.allocate_pool(ty, 3 * PAGE_SIZE).unwrap().at.as_ptr() as u64;
    let pages = memory.allocate_pages(Placement::Any, ty, 1).unwrap().at;
    for address in [small & !(PAGE - 1), small + 1, small + 16, small | (PAGE - 1)] {
        assert!(matches!(memory.free_pool(address), Err(Error::NotABlock(_) | Error::DoubleFree(_))));
    }
    assert_eq!(memory.free_pool(large + PAGE), Err(Error::NotABlock(large + PAGE)));
    assert_eq!(memory.free_pool(pages), Err(Error::NotInPool(pages)));
    assert_eq!(memory.free_pool(0), Err(Error::NotInPool(0)));
    assert_eq!(memory.free_pool(u64::MAX), Err(Error::NotInPool(u64::MAX)));
    assert!(memory.free_pages(small & !(PAGE - 1), 1).is_err());
    assert!(memory.free_pages(large, 3).is_err());
    assert_eq!(memory.free_pool(large), Ok(Release::Done));
    assert_eq!(memory.free_pool(small), Ok(Release::Done));
}

#[test]
fn an_overwritten_slab_is_reported_and_left_alone() {
    let arena = Arena::new(64);
    let mut memory = with_ram(&[arena.range()]);
    let block = memory.allocate_pool(MemoryType::LOADER_DATA, 40).unwrap().at;
    let page = block.as_ptr() as u64 & !(PAGE - 1);
    // SAFETY: within the arena.
    unsafe { ptr::with_exposed_provenance_mut::<u64>(page as usize).write(0) };
    assert_eq!(memory.free_pool(block.as_ptr() as u64), Err(Error::Corrupt(page)));
    let other = memory.allocate_pool(MemoryType::LOADER_DATA, 40).unwrap().at;
    assert_ne!(other.as_ptr() as u64 & !(PAGE - 1), page);
}

#[test]
fn the_table_grows_into_the_memory_it_manages() {
    const PAGES: u64 = 4096;
    let arena = Arena::new(PAGES);
    let mut memory = with_ram(&[arena.range()]);
    let mut every_second = Vec::new();
    for index in 0..3000 {
        let at = memory.allocate_pages(Placement::Any, MemoryType::LOADER_DATA, 1).unwrap().at;
        if index % 2 == 0 {
            every_second.push(at);
        }
    }
    for &at in &every_second {
        free_now(&mut memory, at, 1).unwrap();
    }
    assert!(memory.inventory().ranges > 2900);
    check_map(&memory, PAGES);
    let tables = memory.table.entries().iter().filter(|e| e.state.owner == Owner::Table).count();
    assert_eq!(tables, 1);
}

#[test]
fn a_full_table_in_full_memory_refuses_and_stays_whole() {
    // Every second page in use, and no run of free pages for a larger table.
    const PAGES: u64 = 400;
    let arena = Arena::new(PAGES);
    let start = arena.range().start;
    let mut memory = with_ram(&[arena.range()]);
    for page in 0..PAGES {
        let _ = memory.allocate_pages(Placement::At(start + page * PAGE), MemoryType::LOADER_DATA, 1).unwrap();
    }
    let mut refused = 0;
    for page in (0..PAGES).step_by(2) {
        refused += u64::from(memory.free_pages(start + page * PAGE, 1).is_err());
        check_map(&memory, PAGES);
    }
    assert!(refused > 0 || memory.inventory().ranges > 128);
}

#[test]
fn a_guest_of_5_gib_with_the_map_xen_gives() {
    let mut memory = Memory::new();
    memory.add(0..0xA_0000, MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
    memory.add(0xA_0000..MIB, MemoryType::RESERVED, MemoryAttribute::empty()).unwrap();
    memory.add(FOUR_GIB..FOUR_GIB + (1 << 30), MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
    memory.add(0xFEFF_8000..0xFF00_0000, MemoryType::RESERVED, MemoryAttribute::empty()).unwrap();
    memory.add(0xFC00_0000..0xFC00_9000, MemoryType::ACPI_NON_VOLATILE, RAM_CAPABILITIES).unwrap();
    memory.add(MIB..0xFC00_0000, MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
    let types: Vec<_> = memory.map().map(|d| d.ty.0).collect();
    assert_eq!(types, [4, 7, 0, 7, 10, 0, 7]);
    let at = memory.allocate_pages(Placement::Any, MemoryType::LOADER_DATA, 0x1000).unwrap().at;
    assert!(at < FOUR_GIB);
}

#[test]
fn realloc_in_place_only_where_the_block_is_the_same() {
    assert!(Memory::fits_in_place(33, 48, 8));
    assert!(!Memory::fits_in_place(48, 49, 8));
    assert!(Memory::fits_in_place(4097, 8192, 8));
    assert!(!Memory::fits_in_place(2016, 2017, 8));
    assert!(!Memory::fits_in_place(128, 129, 64));
}
