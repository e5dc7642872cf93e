//! What the core needs of the machine, as one trait: `entry` provides the real one, tests a scripted one.

use uefi_raw::time::Time;

use crate::Result;

/// How a reset ends the run (UEFI 2.10 §8.5.1, `EFI_RESET_TYPE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// Start anew.
    Restart,
    /// Power off.
    PowerOff,
}

/// Access rights of a range of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protection {
    /// No access at all.
    pub read_protect: bool,
    /// No writes.
    pub read_only: bool,
    /// No instruction fetches.
    pub execute_protect: bool,
}

/// The machine under the core. Times are in units of 100 ns since an arbitrary start, as UEFI timers are.
pub trait Hardware: Sync {
    /// Monotonic time.
    fn now(&self) -> u64;
    /// Arms the timer interrupt for the time `deadline`, or disarms it. May fire early, never much later.
    fn arm_timer(&self, deadline: Option<u64>);
    /// Busy-waits; does not depend on interrupts.
    fn stall(&self, microseconds: usize);
    /// Waits for an interrupt with interrupts enabled, no longer than about 10 ms.
    fn idle(&self);
    /// Changes the access rights of `pages` pages from `address` on.
    fn protect(&self, address: u64, pages: u64, protection: Protection) -> Result<()>;
    /// Reads the access rights of a page.
    fn protection(&self, address: u64) -> Result<Protection>;
    /// Date and time (UTC).
    fn time(&self) -> Result<Time>;
    /// Ends the domain or starts it anew.
    fn reset(&self, how: Reset) -> !;
    /// Random bytes, or `UNSUPPORTED` if the CPU has no generator.
    fn random(&self, into: &mut [u8]) -> Result<()>;
}
