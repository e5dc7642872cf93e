//! The edge of the memory allocation services (UEFI 2.10 §7.2), and the firmware's heap.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use uefi_raw::table::boot::{AllocateType, MemoryDescriptor, MemoryType};
use uefi_raw::{PhysicalAddress, Status};

use crate::abi::CORE;
use crate::api;
use crate::memory::map::{DESCRIPTOR_SIZE, SPARE_DESCRIPTORS};
use crate::memory::{GRAIN, Memory, Placement, Release};

/// The firmware's heap: pools of boot services data. For `#[global_allocator]`.
///
/// Works as soon as the core's memory knows of some. It never changes access rights and signals nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Heap;

// SAFETY: blocks come from the memory database, which gives none out twice; sizes and alignments are those asked for.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let ty = MemoryType::BOOT_SERVICES_DATA;
        let block = CORE.memory.with(|memory| {
            let quickly = if layout.align() <= GRAIN { memory.allocate_pool_quickly(ty, layout.size()) } else { None };
            quickly.or_else(|| memory.allocate_pool_aligned(ty, layout.size(), layout.align()).ok().map(|got| got.at))
        });
        block.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        let address = block as u64;
        let freed = CORE.memory.with(|memory| {
            if memory.free_pool_quickly(address) { Ok(Release::Done) } else { memory.free_pool(address) }
        });
        if let Err(error) = freed {
            log::error!("heap: {error:x?}");
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if Memory::fits_in_place(layout.size(), new_size, layout.align()) {
            return block;
        }
        // SAFETY: the caller keeps the alignment and gives a size that is valid with it.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the layout is valid and, as the caller promises, not empty.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            // SAFETY: both blocks hold this many bytes, and they are two.
            unsafe { ptr::copy_nonoverlapping(block, new, layout.size().min(new_size)) };
            // SAFETY: the caller gives the block up.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}

/// `EFI_BOOT_SERVICES.AllocatePages` (UEFI 2.10 §7.2.1).
///
/// # Safety
/// `address` must be null or point to an address.
pub unsafe extern "efiapi" fn allocate_pages(
    kind: AllocateType,
    ty: MemoryType,
    pages: usize,
    address: *mut PhysicalAddress,
) -> Status {
    if address.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller gives an address.
    let wanted = unsafe { address.read_unaligned() };
    let placement = match kind {
        AllocateType::ANY_PAGES => Placement::Any,
        AllocateType::MAX_ADDRESS => Placement::Below(wanted),
        AllocateType::ADDRESS => Placement::At(wanted),
        _ => return Status::INVALID_PARAMETER,
    };
    match api::allocate_pages_in(&CORE, placement, ty, pages as u64) {
        Ok(at) => {
            // SAFETY: as above.
            unsafe { address.write_unaligned(at) };
            Status::SUCCESS
        }
        Err(status) => status,
    }
}

/// `EFI_BOOT_SERVICES.FreePages` (UEFI 2.10 §7.2.2).
pub extern "efiapi" fn free_pages(address: PhysicalAddress, pages: usize) -> Status {
    status(api::free_pages_in(&CORE, address, pages as u64))
}

/// `EFI_BOOT_SERVICES.GetMemoryMap` (UEFI 2.10 §7.2.3).
///
/// # Safety
/// `map` must be valid for `*size` bytes; the other pointers must be null or point to what their types say.
pub unsafe extern "efiapi" fn get_memory_map(
    size: *mut usize,
    map: *mut MemoryDescriptor,
    key: *mut usize,
    descriptor_size: *mut usize,
    descriptor_version: *mut u32,
) -> Status {
    if size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    if !descriptor_size.is_null() {
        // SAFETY: the caller gives null or a place for it.
        unsafe { descriptor_size.write_unaligned(DESCRIPTOR_SIZE) };
    }
    if !descriptor_version.is_null() {
        // SAFETY: as above.
        unsafe { descriptor_version.write_unaligned(MemoryDescriptor::VERSION) };
    }
    // SAFETY: not null; the caller gives a size.
    let room = unsafe { size.read_unaligned() };
    let (needed, result) = CORE.memory.with(|memory| {
        let count = memory.map().count();
        if room / DESCRIPTOR_SIZE < count {
            return ((count + SPARE_DESCRIPTORS) * DESCRIPTOR_SIZE, Status::BUFFER_TOO_SMALL);
        }
        if map.is_null() {
            return (count * DESCRIPTOR_SIZE, Status::INVALID_PARAMETER);
        }
        for (index, descriptor) in memory.map().enumerate() {
            // SAFETY: the caller's buffer holds `count` descriptors of this size. What lies between them is zeroed first.
            unsafe {
                let place = map.byte_add(index * DESCRIPTOR_SIZE);
                place.cast::<u8>().write_bytes(0, DESCRIPTOR_SIZE);
                place.write_unaligned(descriptor);
            }
        }
        if !key.is_null() {
            // SAFETY: the caller gives null or a place for it.
            unsafe { key.write_unaligned(memory.key()) };
        }
        (count * DESCRIPTOR_SIZE, Status::SUCCESS)
    });
    // SAFETY: as above.
    unsafe { size.write_unaligned(needed) };
    result
}

/// `EFI_BOOT_SERVICES.AllocatePool` (UEFI 2.10 §7.2.4).
///
/// # Safety
/// `buffer` must be null or point to a pointer.
pub unsafe extern "efiapi" fn allocate_pool(ty: MemoryType, size: usize, buffer: *mut *mut u8) -> Status {
    if buffer.is_null() {
        return Status::INVALID_PARAMETER;
    }
    match api::allocate_pool_in(&CORE, ty, size) {
        Ok(block) => {
            // SAFETY: not null; the caller gives a place for a pointer.
            unsafe { buffer.write_unaligned(block.as_ptr()) };
            Status::SUCCESS
        }
        Err(status) => status,
    }
}

/// `EFI_BOOT_SERVICES.FreePool` (UEFI 2.10 §7.2.5).
pub extern "efiapi" fn free_pool(buffer: *mut u8) -> Status {
    match NonNull::new(buffer) {
        Some(block) => status(api::free_pool_in(&CORE, block.as_ptr())),
        None => Status::INVALID_PARAMETER,
    }
}

#[inline]
fn status(result: crate::Result<()>) -> Status {
    match result {
        Ok(()) => Status::SUCCESS,
        Err(status) => status,
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use uefi_raw::table::boot::MemoryAttribute;

    use super::*;
    use crate::core_state::Core;
    use crate::fake::{self, FakeHardware};
    use crate::memory::map::RAM_CAPABILITIES;

    fn map_size() -> (Status, usize) {
        let mut size = 0;
        let null = ptr::null_mut();
        // SAFETY: a size, and nothing else.
        let status = unsafe { get_memory_map(&mut size, ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), null) };
        (status, size)
    }

    #[test]
    fn the_map_fits_the_size_it_was_announced_with() {
        fake::install();
        let (status, size) = map_size();
        assert_eq!(status, Status::BUFFER_TOO_SMALL);
        // The spare descriptors take what other tests do meanwhile, and then some.
        let mut buffer = vec![0xAA_u8; size + 64 * DESCRIPTOR_SIZE];
        let (mut size, mut key, mut descriptor_size, mut version) = (buffer.len(), 0, 0, 0);
        // SAFETY: the buffer has the size that is told.
        let status = unsafe {
            get_memory_map(&mut size, buffer.as_mut_ptr().cast(), &mut key, &mut descriptor_size, &mut version)
        };
        assert_eq!((status, descriptor_size, version), (Status::SUCCESS, DESCRIPTOR_SIZE, 1));
        assert!(key != 0 && size % DESCRIPTOR_SIZE == 0);
        let descriptors: Vec<MemoryDescriptor> = buffer[..size]
            .chunks_exact(DESCRIPTOR_SIZE)
            // SAFETY: each piece begins with a descriptor.
            .map(|piece| unsafe { piece.as_ptr().cast::<MemoryDescriptor>().read_unaligned() })
            .collect();
        assert!(descriptors.iter().all(|d| d.page_count != 0 && d.att.contains(MemoryAttribute::WRITE_BACK)));
        assert!(buffer[size..].iter().all(|&byte| byte == 0xAA));
    }

    #[test]
    fn null_pointers_are_refused() {
        fake::install();
        let null = ptr::null_mut();
        let ty = MemoryType::LOADER_DATA;
        // SAFETY: null is allowed everywhere.
        unsafe {
            assert_eq!(allocate_pool(ty, 1, ptr::null_mut()), Status::INVALID_PARAMETER);
            assert_eq!(allocate_pages(AllocateType::ANY_PAGES, ty, 1, ptr::null_mut()), Status::INVALID_PARAMETER);
            let mut size = usize::MAX;
            let none = ptr::null_mut();
            assert_eq!(get_memory_map(ptr::null_mut(), ptr::null_mut(), null, null, none), Status::INVALID_PARAMETER);
            assert_eq!(get_memory_map(&mut size, ptr::null_mut(), null, null, none), Status::INVALID_PARAMETER);
        }
        assert_eq!(free_pool(ptr::null_mut()), Status::INVALID_PARAMETER);
    }

    #[test]
    fn kinds_that_do_not_exist_are_refused() {
        fake::install();
        let mut address = 0;
        // SAFETY: an address.
        let status =
            unsafe { allocate_pages(AllocateType::MAX_ALLOCATE_TYPE, MemoryType::LOADER_DATA, 1, &mut address) };
        assert_eq!(status, Status::INVALID_PARAMETER);
    }

    #[test]
    fn the_heap_keeps_sizes_alignments_and_contents() {
        fake::install();
        let heap = Heap;
        for (size, align) in [(1, 1), (24, 8), (100, 64), (100, 128), (5000, 16), (64, 4096), (4096, 65536)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the layout is not empty; blocks are used within their sizes and freed once.
            unsafe {
                let block = heap.alloc(layout);
                assert!(!block.is_null() && block.addr().is_multiple_of(align));
                block.write_bytes(0x5A, size);
                let grown = heap.realloc(block, layout, size * 3);
                assert!(grown.addr().is_multiple_of(align));
                assert!(core::slice::from_raw_parts(grown, size).iter().all(|&byte| byte == 0x5A));
                heap.dealloc(grown, Layout::from_size_align(size * 3, align).unwrap());
            }
        }
        let huge = Layout::from_size_align(1 << 40, 16).unwrap();
        // SAFETY: the layout is not empty.
        assert!(unsafe { heap.alloc(huge) }.is_null());
    }

    #[test]
    fn an_allocation_whose_rights_cannot_be_set_leaves_nothing_behind() {
        let core = Core::new();
        let hardware: &'static FakeHardware = Box::leak(Box::default());
        core.hardware.with(|slot| *slot = Some(hardware));
        core.memory.with(|memory| {
            memory.add(0x10_0000..0x80_0000, MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
        });
        let before: Vec<_> = core.memory.with(|memory| memory.map().map(|d| (d.phys_start, d.ty)).collect());
        hardware.fail_protect(true);
        let failed = api::allocate_pages_in(&core, Placement::Any, MemoryType::LOADER_CODE, 4);
        assert_eq!(failed, Err(Status::OUT_OF_RESOURCES));
        let after: Vec<_> = core.memory.with(|memory| memory.map().map(|d| (d.phys_start, d.ty)).collect());
        assert_eq!(before, after);
        // Nor is a page given back whose rights cannot be reset.
        hardware.fail_protect(false);
        let at = api::allocate_pages_in(&core, Placement::Any, MemoryType::LOADER_CODE, 4).unwrap();
        hardware.fail_protect(true);
        assert_eq!(api::free_pages_in(&core, at, 4), Err(Status::OUT_OF_RESOURCES));
        hardware.fail_protect(false);
        assert_eq!(api::free_pages_in(&core, at, 4), Ok(()));
    }

    #[test]
    fn a_change_of_the_map_is_announced_to_those_who_asked() {
        use core::cell::Cell;
        use std::rc::Rc;

        use uefi_raw::table::boot::{EventType, Tpl};

        use crate::event::{Notify, group};

        let core = Core::new();
        core.memory.with(|memory| {
            memory.add(0x10_0000..0x80_0000, MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
        });
        let seen = Rc::new(Cell::new(0));
        let seen_inside = seen.clone();
        let notify = Notify::Closure(Box::new(move |_| seen_inside.set(seen_inside.get() + 1)));
        let group = Some(group::MEMORY_MAP_CHANGE);
        api::create_in(&core, EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, notify, group).unwrap();
        let at = api::allocate_pages_in(&core, Placement::Any, MemoryType::LOADER_DATA, 1).unwrap();
        assert_eq!(seen.get(), 1);
        assert!(api::allocate_pages_in(&core, Placement::At(at), MemoryType::LOADER_DATA, 1).is_err());
        assert_eq!(seen.get(), 1);
        api::free_pages_in(&core, at, 1).unwrap();
        assert_eq!(seen.get(), 2);
    }

    /// Pairs to time: `PAIRS=N`. The instructions of one pair are the difference of two runs under
    /// `valgrind --tool=callgrind`, divided by the difference of their numbers.
    fn pairs() -> usize {
        fake::install();
        // A map as long as it is when a loader runs.
        for index in 0..150 {
            let ty = if index % 2 == 0 { MemoryType::LOADER_DATA } else { MemoryType::BOOT_SERVICES_CODE };
            api::allocate_pages(ty, 1 + index % 5).unwrap();
            api::allocate_pool(ty, 40 * index as usize).unwrap();
        }
        std::env::var("PAIRS").map_or(1_000_000, |pairs| pairs.parse().unwrap())
    }

    fn time(what: &str, pairs: usize, mut pair: impl FnMut()) {
        let start = std::time::Instant::now();
        for _ in 0..pairs {
            pair();
        }
        std::println!("{what}: {} ns a pair", start.elapsed().as_nanos() / pairs as u128);
    }

    #[test]
    #[ignore = "a benchmark"]
    fn benchmark_pool_pairs() {
        let pairs = pairs();
        time("AllocatePool and FreePool", pairs, || {
            let mut block = ptr::null_mut();
            // SAFETY: a place for a pointer.
            assert_eq!(unsafe { allocate_pool(MemoryType::LOADER_DATA, 100, &mut block) }, Status::SUCCESS);
            assert_eq!(free_pool(block), Status::SUCCESS);
        });
    }

    #[test]
    #[ignore = "a benchmark"]
    fn benchmark_page_pairs() {
        // Addresses as in a guest; nobody touches these pages.
        let core = Core::new();
        core.memory.with(|memory| {
            memory.add(0..0xA_0000, MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
            memory.add(0x10_0000..0x800_0000, MemoryType::CONVENTIONAL, RAM_CAPABILITIES).unwrap();
            memory.add(0xFEFF_8000..0xFF00_0000, MemoryType::RESERVED, MemoryAttribute::empty()).unwrap();
        });
        let allocate = |ty, pages| api::allocate_pages_in(&core, Placement::Any, ty, pages).unwrap();
        for index in 0..100 {
            let ty = if index % 2 == 0 { MemoryType::LOADER_DATA } else { MemoryType::BOOT_SERVICES_DATA };
            let at = allocate(ty, 1 + index % 5);
            if index % 7 == 0 {
                api::free_pages_in(&core, at, 1).unwrap();
            }
        }
        let ranges = core.memory.with(|memory| memory.inventory().ranges);
        std::println!("{ranges} ranges in the table");
        for _ in 0..16 {
            allocate(MemoryType::LOADER_DATA, 1);
        }
        time("AllocatePages and FreePages", pairs(), || {
            let at = allocate(MemoryType::LOADER_DATA, 8);
            api::free_pages_in(&core, at, 8).unwrap();
        });
    }
}
