//! Page and pool allocation for our own code.
//!
//! The functions without a core work on the one core; those with one are what both they and the ABI edge call. Changes of
//! access rights happen here, outside the lock: after memory was taken, before it is given back.

use core::ptr::NonNull;

use uefi_raw::table::boot::{MemoryAttribute, MemoryType};

use crate::abi::CORE;
use crate::core_state::Core;
use crate::event::group;
use crate::hardware::Protection;
use crate::memory::protect::Change;
use crate::memory::{Error, Memory, PAGE, Placement, Release};
use crate::{Result, Status};

/// Makes memory known to the firmware; see [`Memory::add`]. `capabilities` of RAM are
/// [`RAM_CAPABILITIES`](crate::memory::map::RAM_CAPABILITIES).
///
/// # Errors
/// `INVALID_PARAMETER` for an overlap with memory that is known.
pub fn add_memory(range: core::ops::Range<u64>, ty: MemoryType, capabilities: MemoryAttribute) -> Result<()> {
    CORE.memory.with(|memory| memory.add(range, ty, capabilities)).map_err(Status::from)
}

/// Takes free memory at a fixed place for the platform; see [`Memory::reserve`].
///
/// # Errors
/// `NOT_FOUND` if any of it is not free.
pub fn reserve_memory(address: u64, pages: u64, ty: MemoryType) -> Result<()> {
    CORE.memory.with(|memory| memory.reserve(address, pages, ty)).map_err(Status::from)
}

/// Makes memory of the platform free; see [`Memory::release`].
///
/// # Errors
/// `NOT_FOUND` if any of it is not the platform's.
pub fn release_memory(address: u64, pages: u64) -> Result<()> {
    free_with(&CORE, |memory| memory.release(address, pages))
}

/// Allocates pages anywhere, below 4 GiB if there is room; returns the address.
///
/// # Errors
/// `OUT_OF_RESOURCES`, `INVALID_PARAMETER`.
pub fn allocate_pages(ty: MemoryType, pages: u64) -> Result<u64> {
    allocate_pages_in(&CORE, Placement::Any, ty, pages)
}

/// Frees pages.
///
/// # Errors
/// `NOT_FOUND` if they are not allocated, `INVALID_PARAMETER`.
pub fn free_pages(address: u64, pages: u64) -> Result<()> {
    free_pages_in(&CORE, address, pages)
}

/// Allocates a block, aligned to 16 bytes.
///
/// # Errors
/// `OUT_OF_RESOURCES`, `INVALID_PARAMETER`.
pub fn allocate_pool(ty: MemoryType, size: usize) -> Result<NonNull<u8>> {
    allocate_pool_in(&CORE, ty, size)
}

/// Frees a block.
///
/// # Errors
/// `INVALID_PARAMETER` if it is none.
pub fn free_pool(block: NonNull<u8>) -> Result<()> {
    free_pool_in(&CORE, block.as_ptr())
}

/// Sets the access rights of pages that were allocated; they are ordinary again once freed.
///
/// # Errors
/// `ACCESS_DENIED` if the pages are free, a small pool's, or the firmware's own; `UNSUPPORTED` if they are no memory that
/// is known; `INVALID_PARAMETER`; what the hardware says.
pub fn protect_pages(address: u64, pages: u64, protection: Protection) -> Result<()> {
    change_protection_in(&CORE, address, pages, |_| protection)
}

/// The access rights that all pages of a range have.
///
/// # Errors
/// `NO_MAPPING` if they differ; `UNSUPPORTED` if the database does not know all of the range; `INVALID_PARAMETER`.
pub(crate) fn protection_in(core: &Core, address: u64, pages: u64) -> Result<Protection> {
    require_known(core, address, pages)?;
    let hardware = core.hardware();
    let first = hardware.protection(address)?;
    for page in 1..pages {
        if hardware.protection(address + page * PAGE)? != first {
            return Err(Status::NO_MAPPING);
        }
    }
    Ok(first)
}

/// Changes the access rights of each page of a range that was allocated.
///
/// # Errors
/// As [`protect_pages`]; `UNSUPPORTED` if the database does not know all of the range.
pub(crate) fn change_protection_in(
    core: &Core,
    address: u64,
    pages: u64,
    change: impl Fn(Protection) -> Protection,
) -> Result<()> {
    require_known(core, address, pages)?;
    core.memory.with(|memory| memory.mark_custom(address, pages)).map_err(|error| refused("access rights", error))?;
    let hardware = core.hardware();
    // Stretches of pages that come out alike are changed in one go.
    let (mut start, mut wanted) = (0, change(hardware.protection(address)?));
    for page in 1..pages {
        let next = change(hardware.protection(address + page * PAGE)?);
        if next != wanted {
            hardware.protect(address + start * PAGE, page - start, wanted)?;
            (start, wanted) = (page, next);
        }
    }
    hardware.protect(address + start * PAGE, pages - start, wanted)
}

fn require_known(core: &Core, address: u64, pages: u64) -> Result<()> {
    core.memory.with(|memory| memory.require_known(address, pages)).map_err(|error| match error {
        Error::NotAllocated(_) => Status::UNSUPPORTED,
        error => refused("access rights", error),
    })
}

pub(crate) fn allocate_pages_in(core: &Core, placement: Placement, ty: MemoryType, pages: u64) -> Result<u64> {
    let (result, announce) = core.memory.with(|memory| {
        let result = memory.allocate_pages(placement, ty, pages);
        (result, memory.take_announcement())
    });
    let allocation = result.map_err(|error| refused("AllocatePages", error))?;
    if let Some(change) = allocation.change {
        apply(core, &change).inspect_err(|_| {
            core.memory.with(|memory| {
                memory.mark_ordinary(&change);
                let _ = memory.free_pages(allocation.at, pages);
            });
        })?;
    }
    if announce {
        announce_change(core);
    }
    Ok(allocation.at)
}

pub(crate) fn free_pages_in(core: &Core, address: u64, pages: u64) -> Result<()> {
    free_with(core, |memory| memory.free_pages(address, pages))
}

#[inline]
pub(crate) fn allocate_pool_in(core: &Core, ty: MemoryType, size: usize) -> Result<NonNull<u8>> {
    if let Some(block) = core.memory.with(|memory| memory.allocate_pool_quickly(ty, size)) {
        return Ok(block);
    }
    allocate_pool_slowly(core, ty, size)
}

#[cold]
#[inline(never)]
fn allocate_pool_slowly(core: &Core, ty: MemoryType, size: usize) -> Result<NonNull<u8>> {
    let (result, announce) = core.memory.with(|memory| {
        let result = memory.allocate_pool(ty, size);
        (result, memory.take_announcement())
    });
    let allocation = result.map_err(|error| refused("AllocatePool", error))?;
    if let Some(change) = allocation.change
        && let Err(error) = apply(core, &change)
    {
        let _ = core.memory.with(|memory| memory.free_pool(allocation.at.as_ptr() as u64));
        return Err(error);
    }
    if announce {
        announce_change(core);
    }
    Ok(allocation.at)
}

#[inline]
pub(crate) fn free_pool_in(core: &Core, block: *mut u8) -> Result<()> {
    if core.memory.with(|memory| memory.free_pool_quickly(block as u64)) {
        return Ok(());
    }
    free_with(core, |memory| memory.free_pool(block as u64))
}

/// Frees with `free`, making the pages ordinary in between if they are not.
fn free_with(core: &Core, free: impl Fn(&mut Memory) -> core::result::Result<Release, Error>) -> Result<()> {
    let (mut result, mut announce) = core.memory.with(|memory| (free(memory), memory.take_announcement()));
    if let Ok(Release::First(change)) = result {
        // Still allocated, so nobody else can get the pages before they are ordinary.
        apply(core, &change)?;
        (result, announce) = core.memory.with(|memory| {
            memory.mark_ordinary(&change);
            (free(memory), memory.take_announcement())
        });
    }
    let release = result.map_err(|error| refused("freeing memory", error))?;
    if let Release::First(change) = release {
        log::warn!("memory at {:#x} cannot be made ordinary and stays allocated", change.address);
        return Err(Status::OUT_OF_RESOURCES);
    }
    if announce {
        announce_change(core);
    }
    Ok(())
}

#[cold]
fn apply(core: &Core, change: &Change) -> Result<()> {
    core.hardware().protect(change.address, change.pages, change.protection).inspect_err(|error| {
        let end = change.address + change.pages * PAGE;
        log::warn!("access rights of {:#x}..{end:#x}: {error:?}", change.address);
    })
}

#[cold]
fn announce_change(core: &Core) {
    super::event::signal_group_in(core, &group::MEMORY_MAP_CHANGE);
}

/// Logs why, and converts. Running out and not finding are answers that callers try for; the rest is a caller's mistake
/// or damage.
#[cold]
fn refused(what: &str, error: Error) -> Status {
    match error {
        Error::OutOfMemory | Error::NotFree(_) => log::debug!("{what}: {error:x?}"),
        Error::Corrupt(page) => log::error!("{what}: the pool page at {page:#x} was overwritten"),
        _ => log::warn!("{what}: {error:x?}"),
    }
    error.into()
}
