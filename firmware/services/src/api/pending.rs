//! Services that this tree lacks yet.

use uefi_raw::{Event, Status};

use crate::Result;

/// SignalEvent.
pub fn signal_event(_event: Event) -> Result<()> {
    Err(Status::UNSUPPORTED)
}
