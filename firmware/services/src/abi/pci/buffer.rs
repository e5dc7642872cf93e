//! Buffers for devices: Map, Unmap, AllocateBuffer and FreeBuffer of both protocols.

use core::ffi::c_void;

use uefi_raw::table::boot::{MemoryType, PAGE_SIZE};
use uefi_raw::{PhysicalAddress, Status};

use crate::abi::CORE;
use crate::api;
use crate::api::memory::allocate_pages_in;
use crate::lock::Lock;
use crate::memory::Placement;
use crate::pci::Attributes;
use crate::pci::dma::{Direction, Mapping, Mappings};
use crate::{Result, pci};

/// Last address that fits 32 bits.
const BELOW_4_GIB: u64 = u32::MAX as u64;

/// The buffers of one protocol instance.
pub(super) struct Buffers(Lock<Mappings>);

impl Buffers {
    pub(super) const fn new() -> Self {
        Self(Lock::new("PCI mappings", Mappings::new()))
    }

    /// Map.
    ///
    /// # Safety
    /// The pointers are null or the caller's; `host` leads to `size` bytes, which stay where they are until Unmap.
    pub(super) unsafe fn map(
        &self,
        direction: pci::Result<Direction>,
        wide: bool,
        host: *mut c_void,
        size: *mut usize,
        device: *mut PhysicalAddress,
        mapping: *mut *mut c_void,
    ) -> Result<()> {
        let direction = direction?;
        if host.is_null() || size.is_null() || device.is_null() || mapping.is_null() {
            return Err(Status::INVALID_PARAMETER);
        }
        // SAFETY: not null; the caller answers for the rest.
        let length = unsafe { size.read() };
        if length == 0 || isize::try_from(length).is_err() {
            return Err(Status::INVALID_PARAMETER);
        }
        let at = host.expose_provenance() as u64;
        let copy = if Mapping::needs_copy(direction, at, length, wide)? {
            let pages = length.div_ceil(PAGE_SIZE) as u64;
            let copy = allocate(MemoryType::BOOT_SERVICES_DATA, pages, false)?;
            if direction == Direction::Read {
                // SAFETY: the copy was allocated with room for all of the caller's buffer.
                unsafe { pointer(copy).copy_from_nonoverlapping(host.cast_const().cast(), length) };
            }
            Some(copy)
        } else {
            None
        };
        let token = self.0.with(|live| live.add(Mapping { direction, host: at, size: length, copy }));
        // SAFETY: not null; the caller answers for the rest.
        unsafe {
            device.write(copy.unwrap_or(at));
            mapping.write(token);
        }
        Ok(())
    }

    /// Unmap.
    ///
    /// # Safety
    /// The buffer that was mapped is still there.
    pub(super) unsafe fn unmap(&self, mapping: *const c_void) -> Result<()> {
        let Mapping { direction, host, size, copy } = self.0.with(|live| live.take(mapping))?;
        let Some(copy) = copy else { return Ok(()) };
        if direction == Direction::Write {
            // SAFETY: the caller's buffer has room for as much as it said, and the copy was allocated with it.
            unsafe { pointer(host).copy_from_nonoverlapping(pointer(copy), size) };
        }
        api::free_pages(copy, size.div_ceil(PAGE_SIZE) as u64)
    }
}

/// AllocateBuffer.
///
/// # Safety
/// `host` is null or can be written.
pub(super) unsafe fn allocate_buffer(
    memory_type: MemoryType,
    pages: usize,
    host: *mut *mut c_void,
    attributes: u64,
    wide: bool,
) -> Result<()> {
    // Memory is cached, and a device sees what is in the cache: all of these are as good as none.
    let harmless = Attributes::MEMORY_WRITE_COMBINE | Attributes::MEMORY_CACHED | Attributes::DUAL_ADDRESS_CYCLE;
    if attributes & !harmless.bits() != 0 {
        return Err(Status::UNSUPPORTED);
    }
    let known = [MemoryType::BOOT_SERVICES_DATA, MemoryType::RUNTIME_SERVICES_DATA];
    if host.is_null() || !known.contains(&memory_type) {
        return Err(Status::INVALID_PARAMETER);
    }
    let buffer = allocate(memory_type, pages as u64, wide)?;
    // SAFETY: not null; the caller answers for the rest.
    unsafe { host.write(pointer(buffer).cast()) };
    Ok(())
}

/// FreeBuffer.
pub(super) fn free_buffer(pages: usize, host: *const c_void) -> Result<()> {
    api::free_pages(host.addr() as u64, pages as u64).map_err(|_| Status::INVALID_PARAMETER)
}

fn allocate(memory_type: MemoryType, pages: u64, wide: bool) -> Result<u64> {
    let placement = if wide { Placement::Any } else { Placement::Below(BELOW_4_GIB) };
    allocate_pages_in(&CORE, placement, memory_type, pages)
}

fn pointer(address: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(address as usize)
}
