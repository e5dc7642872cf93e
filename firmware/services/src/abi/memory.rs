//! The edge of the memory allocation services (UEFI 2.10 §7.2), and the firmware's heap.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use uefi_raw::table::boot::{AllocateType, MemoryDescriptor, MemoryType};
use uefi_raw::{PhysicalAddress, Status};

use crate::abi::CORE;
use crate::api;
use crate::memory::map::{DESCRIPTOR_SIZE, SPARE_DESCRIPTORS};
use crate::memory::{Memory, Placement};

/// The firmware's heap: pools of boot services data. For `#[global_allocator]`.
///
/// Works as soon as the core's memory knows of some. It never changes access rights and signals nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Heap;

// SAFETY: blocks come from the memory database, which gives none out twice; sizes and alignments are those asked for.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = CORE
            .memory
            .with(|memory| memory.allocate_pool_aligned(MemoryType::BOOT_SERVICES_DATA, layout.size(), layout.align()));
        match block {
            Ok(allocation) => allocation.at.as_ptr(),
            Err(_) => ptr::null_mut(),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        if let Err(error) = CORE.memory.with(|memory| memory.free_pool(block as u64)) {
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
