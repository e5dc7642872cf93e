//! Memory that another domain can write. Never a Rust reference: bytes are copied out and in with volatile accesses.

use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use crate::hypervisor::Gfn;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// One or more contiguous pages shared with another domain (a ring, a grant frame, a data buffer).
///
/// Offsets are in bytes and are checked: an access outside panics, as it is a bug of the caller and never the other
/// domain's doing. Values read are only as trustworthy as the domain that wrote them.
#[derive(Debug)]
pub struct SharedPages {
    base: NonNull<u8>,
    length: usize,
    first: Gfn,
}

// SAFETY: the memory is owned by this value for its whole life and all accesses are volatile.
unsafe impl Send for SharedPages {}

impl SharedPages {
    /// Takes `pages` pages at `base`, guest frame `first`, into use.
    ///
    /// # Safety
    /// The range must be mapped, page-aligned, writable, and used by nothing else on this side while the value lives.
    pub const unsafe fn new(base: NonNull<u8>, pages: usize, first: Gfn) -> Self {
        Self { base, length: pages * PAGE_SIZE, first }
    }

    /// Guest frame of page `index`.
    pub fn gfn(&self, index: usize) -> Gfn {
        assert!(index < self.pages());
        Gfn(self.first.0 + index as u64)
    }

    /// Gives a test's memory other frame numbers.
    #[cfg(any(test, feature = "fake"))]
    pub(crate) fn renumber(&mut self, first: Gfn) {
        self.first = first;
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.length / PAGE_SIZE
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no pages.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn at(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(offset.checked_add(size).is_some_and(|end| end <= self.length), "access outside a shared page");
        // SAFETY: checked to lie within the range.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Reads a byte.
    pub fn read_u8(&self, offset: usize) -> u8 {
        // SAFETY: in bounds; volatile because the other domain may write at any time.
        unsafe { self.at(offset, 1).read_volatile() }
    }

    /// Writes a byte.
    pub fn write_u8(&self, offset: usize, value: u8) {
        // SAFETY: in bounds.
        unsafe { self.at(offset, 1).write_volatile(value) }
    }

    /// Reads a 16-bit value at an aligned offset.
    pub fn read_u16(&self, offset: usize) -> u16 {
        assert!(offset.is_multiple_of(2));
        // SAFETY: in bounds and aligned.
        unsafe { self.at(offset, 2).cast::<u16>().read_volatile() }
    }

    /// Writes a 16-bit value at an aligned offset.
    pub fn write_u16(&self, offset: usize, value: u16) {
        assert!(offset.is_multiple_of(2));
        // SAFETY: in bounds and aligned.
        unsafe { self.at(offset, 2).cast::<u16>().write_volatile(value) }
    }

    /// Reads a 32-bit value at an aligned offset.
    pub fn read_u32(&self, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4));
        // SAFETY: in bounds and aligned.
        unsafe { self.at(offset, 4).cast::<u32>().read_volatile() }
    }

    /// Writes a 32-bit value at an aligned offset.
    pub fn write_u32(&self, offset: usize, value: u32) {
        assert!(offset.is_multiple_of(4));
        // SAFETY: in bounds and aligned.
        unsafe { self.at(offset, 4).cast::<u32>().write_volatile(value) }
    }

    /// Reads a 64-bit value at an aligned offset.
    pub fn read_u64(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: in bounds and aligned.
        unsafe { self.at(offset, 8).cast::<u64>().read_volatile() }
    }

    /// Writes a 64-bit value at an aligned offset.
    pub fn write_u64(&self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8));
        // SAFETY: in bounds and aligned.
        unsafe { self.at(offset, 8).cast::<u64>().write_volatile(value) }
    }

    /// Copies bytes out. The result is a snapshot: check it, then use it, and do not read again.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: in bounds; `into` is this side's memory and cannot overlap. The copy is followed by a compiler fence
        // so that the snapshot is taken once.
        unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// Copies bytes in.
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        let into = self.at(offset, from.len());
        // SAFETY: in bounds; `from` is this side's memory and cannot overlap.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) };
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// Fills everything with `value`.
    pub fn fill(&self, value: u8) {
        // SAFETY: the whole range is ours.
        unsafe { self.base.as_ptr().write_bytes(value, self.length) }
    }

    /// Clears bit `bit` of the 64-bit word at an aligned offset and tells whether it was set; atomic against the other domain.
    pub fn test_and_clear_bit(&self, offset: usize, bit: u32) -> bool {
        assert!(offset.is_multiple_of(8));
        let mask = 1u64 << bit;
        if self.read_u64(offset) & mask == 0 {
            return false;
        }
        // SAFETY: in bounds and aligned; atomic accesses may race with the other domain's atomics.
        let atomic = unsafe { core::sync::atomic::AtomicU64::from_ptr(self.at(offset, 8).cast()) };
        atomic.fetch_and(!mask, Ordering::SeqCst) & mask != 0
    }

    /// Compares and swaps a 16-bit value at an aligned offset (grant entry flags); `Err` holds what was found.
    pub fn compare_exchange_u16(&self, offset: usize, current: u16, new: u16) -> Result<u16, u16> {
        assert!(offset.is_multiple_of(2));
        // SAFETY: in bounds and aligned; atomic accesses may race with the other domain's atomics.
        let atomic = unsafe { core::sync::atomic::AtomicU16::from_ptr(self.at(offset, 2).cast()) };
        atomic.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }
}

/// Full memory barrier between this virtual CPU and the other domain's (`xen_mb`): an `mfence`, not only a compiler fence.
pub fn memory_barrier() {
    fence(Ordering::SeqCst);
}

/// Orders earlier reads before later ones (`xen_rmb`).
pub fn read_barrier() {
    fence(Ordering::Acquire);
}

/// Orders earlier writes before later ones (`xen_wmb`).
pub fn write_barrier() {
    fence(Ordering::Release);
}

/// Source of pages that can be shared: the firmware allocates them from BootServicesData, a test from its heap.
pub trait FrameAllocator {
    /// `pages` contiguous zeroed pages, or `None` when memory is exhausted.
    fn allocate(&self, pages: usize) -> Option<SharedPages>;
    /// Gives pages back. Only after the other domain can no longer write them.
    fn free(&self, pages: SharedPages);
    /// Maps frames that were not allocated by us (console and xenstore rings, by their HVM parameters).
    ///
    /// Returns `None` if the frame is not within the guest's address space.
    fn map(&self, first: Gfn, pages: usize) -> Option<SharedPages>;
    /// A guest frame that is neither RAM nor a device, for mapping a grant table or shared info frame; `pages` of them
    /// in a row. Never memory that the operating system will be given.
    fn hole(&self, pages: usize) -> Option<SharedPages>;
    /// Guest frame of an address in this side's memory, for granting a caller's own buffer to a backend.
    fn frame_of(&self, address: *const u8) -> Gfn;
}
