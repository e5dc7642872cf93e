//! Services that this tree lacks yet.

use core::ptr::NonNull;

use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Event, Status};

use crate::Result;

/// SignalEvent.
pub fn signal_event(_event: Event) -> Result<()> {
    Err(Status::UNSUPPORTED)
}

/// AllocatePool.
pub fn allocate_pool(_memory_type: MemoryType, _size: usize) -> Result<NonNull<u8>> {
    Err(Status::UNSUPPORTED)
}
