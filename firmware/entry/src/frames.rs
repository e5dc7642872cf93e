//! Pages for sharing with backends: allocated from boot services memory, or out of the hole that no RAM is in.

use core::cell::Cell;
use core::ptr::NonNull;

use hw::hypervisor::Gfn;
use hw::paging::PAGE;
use hw::shared::{FrameAllocator, SharedPages};
use uefi_raw::table::boot::MemoryType;

use crate::home::AttachedXen;

/// The page source of the Xen drivers.
#[derive(Debug)]
pub struct Frames {
    hole_next: Cell<u64>,
    hole_end: u64,
    /// First address that is not mapped.
    top: u64,
}

impl Frames {
    /// Pages from memory, and from what is left of the hole.
    pub fn new(xen: &AttachedXen, top: u64) -> Self {
        Self { hole_next: Cell::new(xen.hole.0), hole_end: xen.hole.0 + xen.hole_pages, top }
    }

    fn at(&self, first: u64, pages: usize) -> Option<SharedPages> {
        let end = first.checked_add(pages as u64)?;
        if first == 0 || end > self.top / PAGE {
            return None;
        }
        let base = NonNull::new((first * PAGE) as *mut u8)?;
        // SAFETY: identity-mapped, and the callers below see to it that nothing else uses the pages.
        Some(unsafe { SharedPages::new(base, pages, Gfn(first)) })
    }
}

impl FrameAllocator for Frames {
    fn allocate(&self, pages: usize) -> Option<SharedPages> {
        let address = services::api::allocate_pages(MemoryType::BOOT_SERVICES_DATA, pages as u64).ok()?;
        let shared = self.at(address / PAGE, pages)?;
        shared.fill(0);
        Some(shared)
    }

    fn free(&self, pages: SharedPages) {
        // A failure leaks the pages until the operating system starts.
        let _ = services::api::free_pages(pages.gfn(0).0 * PAGE, pages.pages() as u64);
    }

    fn map(&self, first: Gfn, pages: usize) -> Option<SharedPages> {
        self.at(first.0, pages)
    }

    fn hole(&self, pages: usize) -> Option<SharedPages> {
        let first = self.hole_next.get();
        if pages as u64 > self.hole_end - first {
            return None;
        }
        self.hole_next.set(first + pages as u64);
        self.at(first, pages)
    }

    fn frame_of(&self, address: *const u8) -> Gfn {
        Gfn(address as u64 / PAGE)
    }
}
