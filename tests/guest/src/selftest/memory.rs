//! Memory allocation services (UEFI 2.10 §7.2).

use alloc::vec::Vec;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

use guest::boot;
use uefi_raw::table::boot::{AllocateType, EventType, MemoryAttribute, MemoryDescriptor, MemoryType, Tpl};
use uefi_raw::{Guid, Status, guid};

use crate::harness::{Outcome, Test};
use crate::support::{self, Map, own_image};

pub const TESTS: &[Test] = tests![
    any_pages_are_whole_pages_of_the_type_asked_for,
    pages_below_a_limit_are_below_it,
    pages_at_an_address_are_there,
    pages_at_an_address_in_use_are_not_found,
    page_zero_is_never_given_out,
    more_pages_than_there_are_is_out_of_resources,
    memory_types_that_cannot_be_allocated_are_refused,
    types_of_vendors_and_loaders_can_be_allocated,
    wrong_arguments_of_allocate_pages_are_refused,
    pages_can_be_freed_in_parts,
    free_pages_refuses_what_was_not_allocated,
    pool_blocks_are_aligned_and_do_not_overlap,
    pool_of_several_pages_works,
    wrong_arguments_of_the_pool_services_are_refused,
    the_pool_gives_everything_back,
    the_map_says_how_much_room_it_needs,
    the_map_is_sorted_and_without_overlap,
    the_map_has_no_empty_and_no_mergeable_free_ranges,
    the_legacy_area_is_never_free_memory,
    the_place_where_the_firmware_was_loaded_is_free,
    there_is_memory_enough_for_an_operating_system,
    runtime_memory_is_marked,
    all_ram_may_be_cached,
    this_program_is_in_loader_memory,
    the_map_key_changes_with_the_map_only,
    a_change_of_the_map_is_announced,
];

const MIB: u64 = 1 << 20;
const MEMORY_MAP_CHANGE: Guid = guid!("78bee926-692f-48fd-9edb-01422ef0d7ab");

fn allocate(kind: AllocateType, ty: MemoryType, pages: usize, at: u64) -> Result<u64, Status> {
    let mut address = at;
    match bs!(allocate_pages(kind, ty, pages, &mut address)) {
        Status::SUCCESS => Ok(address),
        status => Err(status),
    }
}

fn any(ty: MemoryType, pages: usize) -> Result<u64, alloc::string::String> {
    allocate(AllocateType::ANY_PAGES, ty, pages, 0).map_err(|status| alloc::format!("AllocatePages: {status:?}"))
}

fn any_pages_are_whole_pages_of_the_type_asked_for() -> Outcome {
    let address = any(MemoryType::BOOT_SERVICES_DATA, 3)?;
    same!(address % 4096, 0);
    let map = Map::now();
    for page in 0..3 {
        same!(map.of(address + page * 4096).map(|d| d.ty), Some(MemoryType::BOOT_SERVICES_DATA));
    }
    efi!((address as *mut u8).write_bytes(0xA5, 3 * 4096));
    want!(SUCCESS, bs!(free_pages(address, 3)));
    same!(Map::now().of(address).map(|d| d.ty), Some(MemoryType::CONVENTIONAL));
    Ok(())
}

fn pages_below_a_limit_are_below_it() -> Outcome {
    for limit in [64 * MIB - 1, 16 * MIB - 1, 16 * MIB + 0x1234] {
        let found = allocate(AllocateType::MAX_ADDRESS, MemoryType::LOADER_DATA, 5, limit);
        let Ok(address) = found else { return Err(alloc::format!("below {limit:#x}: {found:?}")) };
        check!(address + 5 * 4096 - 1 <= limit, "{address:#x} is not below {limit:#x}");
        want!(SUCCESS, bs!(free_pages(address, 5)));
    }
    Ok(())
}

fn pages_at_an_address_are_there() -> Outcome {
    let free = Map::now().iter().find(|d| d.ty == MemoryType::CONVENTIONAL && d.page_count > 16 && d.phys_start >= MIB);
    let Some(free) = free else { return Err("no free memory".into()) };
    let wanted = free.phys_start + 5 * 4096;
    same!(allocate(AllocateType::ADDRESS, MemoryType::LOADER_DATA, 2, wanted), Ok(wanted));
    want!(SUCCESS, bs!(free_pages(wanted, 2)));
    Ok(())
}

fn pages_at_an_address_in_use_are_not_found() -> Outcome {
    let own = own_image().image_base.addr() as u64;
    same!(allocate(AllocateType::ADDRESS, MemoryType::LOADER_DATA, 1, own), Err(Status::NOT_FOUND));
    let beyond = 1 << 46;
    same!(allocate(AllocateType::ADDRESS, MemoryType::LOADER_DATA, 1, beyond), Err(Status::NOT_FOUND));
    Ok(())
}

fn page_zero_is_never_given_out() -> Outcome {
    let result = allocate(AllocateType::ADDRESS, MemoryType::LOADER_DATA, 1, 0);
    check!(result.is_err(), "{result:?}");
    let result = allocate(AllocateType::MAX_ADDRESS, MemoryType::LOADER_DATA, 1, 4095);
    check!(result.is_err(), "{result:?}");
    Ok(())
}

fn more_pages_than_there_are_is_out_of_resources() -> Outcome {
    for pages in [1 << 36, usize::MAX / 4096, usize::MAX] {
        same!(allocate(AllocateType::ANY_PAGES, MemoryType::LOADER_DATA, pages, 0), Err(Status::OUT_OF_RESOURCES));
    }
    Ok(())
}

fn memory_types_that_cannot_be_allocated_are_refused() -> Outcome {
    let types = [MemoryType::CONVENTIONAL, MemoryType::PERSISTENT_MEMORY, MemoryType::UNACCEPTED, MemoryType::MAX];
    for ty in types.into_iter().chain([MemoryType(0x6FFF_FFFF)]) {
        same!((ty, allocate(AllocateType::ANY_PAGES, ty, 1, 0)), (ty, Err(Status::INVALID_PARAMETER)));
        let mut block = null_mut();
        same!((ty, bs!(allocate_pool(ty, 8, &mut block))), (ty, Status::INVALID_PARAMETER));
    }
    Ok(())
}

fn types_of_vendors_and_loaders_can_be_allocated() -> Outcome {
    for ty in [MemoryType(0x7000_0001), MemoryType::custom(0x8000_0001)] {
        let address = any(ty, 1)?;
        same!(Map::now().of(address).map(|d| d.ty), Some(ty));
        want!(SUCCESS, bs!(free_pages(address, 1)));
    }
    Ok(())
}

fn wrong_arguments_of_allocate_pages_are_refused() -> Outcome {
    let ty = MemoryType::LOADER_DATA;
    want!(INVALID_PARAMETER, bs!(allocate_pages(AllocateType::ANY_PAGES, ty, 1, null_mut())));
    same!(allocate(AllocateType::MAX_ALLOCATE_TYPE, ty, 1, 0), Err(Status::INVALID_PARAMETER));
    Ok(())
}

fn pages_can_be_freed_in_parts() -> Outcome {
    let address = any(MemoryType::LOADER_DATA, 5)?;
    want!(SUCCESS, bs!(free_pages(address + 2 * 4096, 1)));
    let map = Map::now();
    same!(map.of(address + 2 * 4096).map(|d| d.ty), Some(MemoryType::CONVENTIONAL));
    same!(map.of(address + 3 * 4096).map(|d| d.ty), Some(MemoryType::LOADER_DATA));
    want!(NOT_FOUND, bs!(free_pages(address + 2 * 4096, 1)));
    want!(SUCCESS, bs!(free_pages(address, 2)));
    want!(SUCCESS, bs!(free_pages(address + 3 * 4096, 2)));
    Ok(())
}

fn free_pages_refuses_what_was_not_allocated() -> Outcome {
    let address = any(MemoryType::LOADER_DATA, 1)?;
    want!(INVALID_PARAMETER, bs!(free_pages(address + 8, 1)));
    want!(SUCCESS, bs!(free_pages(address, 1)));
    want!(NOT_FOUND, bs!(free_pages(address, 1)));
    let outside = bs!(free_pages(1 << 46, 1));
    check!(outside.is_error(), "{outside:?}");
    Ok(())
}

fn pool_blocks_are_aligned_and_do_not_overlap() -> Outcome {
    let mut blocks = Vec::new();
    for size in [1, 7, 8, 24, 100, 500, 1000, 2000, 4000, 4096, 5000].into_iter().cycle().take(200) {
        let mut block = null_mut();
        want!(SUCCESS, bs!(allocate_pool(MemoryType::BOOT_SERVICES_DATA, size, &mut block)));
        same!(block.addr() % 8, 0);
        efi!(block.write_bytes(blocks.len() as u8, size));
        blocks.push((block, size));
    }
    for (index, (block, size)) in blocks.iter().enumerate() {
        let bytes = efi!(core::slice::from_raw_parts(*block, *size));
        check!(bytes.iter().all(|byte| *byte == index as u8), "block {index} was overwritten");
    }
    for (block, _) in blocks {
        want!(SUCCESS, bs!(free_pool(block)));
    }
    Ok(())
}

fn pool_of_several_pages_works() -> Outcome {
    let mut block = null_mut();
    want!(SUCCESS, bs!(allocate_pool(MemoryType::RUNTIME_SERVICES_DATA, 70_000, &mut block)));
    same!(Map::now().of(block.addr() as u64 + 69_999).map(|d| d.ty), Some(MemoryType::RUNTIME_SERVICES_DATA));
    want!(SUCCESS, bs!(free_pool(block)));
    Ok(())
}

fn wrong_arguments_of_the_pool_services_are_refused() -> Outcome {
    want!(INVALID_PARAMETER, bs!(allocate_pool(MemoryType::LOADER_DATA, 8, null_mut())));
    want!(INVALID_PARAMETER, bs!(free_pool(null_mut())));
    let page = any(MemoryType::LOADER_DATA, 1)?;
    want!(INVALID_PARAMETER, bs!(free_pool((page + 64) as *mut u8)));
    want!(SUCCESS, bs!(free_pages(page, 1)));
    let mut block = null_mut();
    want!(OUT_OF_RESOURCES, bs!(allocate_pool(MemoryType::LOADER_DATA, usize::MAX - 10, &mut block)));
    Ok(())
}

fn free_bytes(map: &Map) -> u64 {
    map.iter().filter(|d| d.ty == MemoryType::CONVENTIONAL).map(|d| d.page_count * 4096).sum()
}

fn the_pool_gives_everything_back() -> Outcome {
    let (mut before, mut after) = (Map::new(), Map::new());
    let mut blocks = Vec::with_capacity(3000);
    for round in 0..3 {
        if round == 1 {
            want!(SUCCESS, before.read());
        }
        for size in 0..3000 {
            let mut block = null_mut();
            want!(SUCCESS, bs!(allocate_pool(MemoryType::BOOT_SERVICES_DATA, size % 700 + 1, &mut block)));
            blocks.push(block);
        }
        for block in blocks.drain(..) {
            want!(SUCCESS, bs!(free_pool(block)));
        }
    }
    want!(SUCCESS, after.read());
    same!(free_bytes(&after), free_bytes(&before));
    Ok(())
}

fn the_map_says_how_much_room_it_needs() -> Outcome {
    let (mut size, mut key, mut step, mut version) = (0, 0, 0, 0);
    want!(BUFFER_TOO_SMALL, bs!(get_memory_map(&mut size, null_mut(), &mut key, &mut step, &mut version)));
    check!(size > 0 && step >= size_of::<MemoryDescriptor>() && version == MemoryDescriptor::VERSION);
    want!(INVALID_PARAMETER, bs!(get_memory_map(null_mut(), null_mut(), &mut key, &mut step, &mut version)));
    let mut buffer = alloc::vec![0u64; size / 8 + 8 * step];
    let mut size = buffer.len() * 8;
    let map = buffer.as_mut_ptr().cast();
    want!(SUCCESS, efi!((boot().get_memory_map)(&mut size, map, &mut key, &mut step, &mut version)));
    same!(size % step, 0);
    Ok(())
}

fn the_map_is_sorted_and_without_overlap() -> Outcome {
    let mut end = 0;
    for descriptor in Map::now().iter() {
        same!(descriptor.phys_start % 4096, 0);
        check!(descriptor.phys_start >= end, "{descriptor:x?} begins below {end:#x}");
        end = descriptor.phys_start + descriptor.page_count * 4096;
    }
    Ok(())
}

fn the_map_has_no_empty_and_no_mergeable_free_ranges() -> Outcome {
    let mut last: Option<MemoryDescriptor> = None;
    for descriptor in Map::now().iter() {
        check!(descriptor.page_count > 0, "{descriptor:x?}");
        if let Some(last) = last.filter(|last| last.ty == MemoryType::CONVENTIONAL && last.ty == descriptor.ty) {
            let touch = last.phys_start + last.page_count * 4096 == descriptor.phys_start && last.att == descriptor.att;
            check!(!touch, "{last:x?} and {descriptor:x?}");
        }
        last = Some(descriptor);
    }
    Ok(())
}

fn the_legacy_area_is_never_free_memory() -> Outcome {
    let map = Map::now();
    for page in (0xA_0000..0x10_0000).step_by(4096) {
        let ty = map.of(page).map(|d| d.ty);
        let ram = [
            MemoryType::CONVENTIONAL,
            MemoryType::LOADER_CODE,
            MemoryType::LOADER_DATA,
            MemoryType::BOOT_SERVICES_CODE,
            MemoryType::BOOT_SERVICES_DATA,
        ];
        check!(ty.is_none_or(|ty| !ram.contains(&ty)), "{page:#x} is {ty:?}");
    }
    Ok(())
}

fn the_place_where_the_firmware_was_loaded_is_free() -> Outcome {
    let map = Map::now();
    for address in (MIB..3 * MIB).step_by(4096) {
        let ty = map.of(address).map(|d| d.ty);
        check!(ty == Some(MemoryType::CONVENTIONAL), "{address:#x} is {ty:?}");
    }
    Ok(())
}

fn there_is_memory_enough_for_an_operating_system() -> Outcome {
    let free = free_bytes(&Map::now());
    check!(free > 96 * MIB, "{} KiB free", free / 1024);
    Ok(())
}

fn runtime_memory_is_marked() -> Outcome {
    for d in Map::now().iter() {
        let runtime = matches!(d.ty, MemoryType::RUNTIME_SERVICES_CODE | MemoryType::RUNTIME_SERVICES_DATA);
        let may_be_runtime = runtime || matches!(d.ty, MemoryType::MMIO | MemoryType::MMIO_PORT_SPACE);
        let marked = d.att.contains(MemoryAttribute::RUNTIME);
        check!(marked || !runtime, "{d:x?} is not marked");
        check!(!marked || may_be_runtime, "{d:x?} is marked");
    }
    Ok(())
}

fn all_ram_may_be_cached() -> Outcome {
    for d in Map::now().iter().filter(|d| d.ty == MemoryType::CONVENTIONAL) {
        check!(d.att.contains(MemoryAttribute::WRITE_BACK), "{d:x?}");
    }
    Ok(())
}

fn this_program_is_in_loader_memory() -> Outcome {
    let map = Map::now();
    let base = own_image().image_base.addr() as u64;
    for page in (base..base + own_image().image_size).step_by(4096) {
        let ty = map.of(page).map(|d| d.ty);
        check!(matches!(ty, Some(MemoryType::LOADER_CODE | MemoryType::LOADER_DATA)), "{page:#x} is {ty:?}");
    }
    Ok(())
}

fn the_map_key_changes_with_the_map_only() -> Outcome {
    let mut map = Map::new();
    want!(SUCCESS, map.read());
    let first = map.key;
    want!(SUCCESS, map.read());
    same!(map.key, first);
    let address = any(MemoryType::LOADER_DATA, 1)?;
    want!(SUCCESS, map.read());
    check!(map.key != first, "the key stayed {first:#x} after AllocatePages");
    let second = map.key;
    want!(SUCCESS, bs!(free_pages(address, 1)));
    want!(SUCCESS, map.read());
    check!(map.key != second, "the key stayed {second:#x} after FreePages");
    Ok(())
}

fn a_change_of_the_map_is_announced() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (mut event, context) = (null_mut(), (&raw const COUNT).cast());
    let (kind, group) = (EventType::NOTIFY_SIGNAL, &MEMORY_MAP_CHANGE);
    want!(SUCCESS, bs!(create_event_ex(kind, Tpl::CALLBACK, Some(support::count), context, group, &mut event)));
    let before = COUNT.load(Ordering::SeqCst);
    let address = any(MemoryType::LOADER_DATA, 1)?;
    let after = COUNT.load(Ordering::SeqCst);
    want!(SUCCESS, bs!(close_event(event)));
    want!(SUCCESS, bs!(free_pages(address, 1)));
    check!(after > before, "{before} announcements before, {after} after");
    Ok(())
}
