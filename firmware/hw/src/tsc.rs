//! The time stamp counter. Plain RDTSC: RDTSCP is not available to all guests.

/// Reads the time stamp counter.
#[inline(always)]
pub fn read() -> u64 {
    // SAFETY: RDTSC has no side effects, and CR4.TSD is clear in firmware.
    unsafe { core::arch::x86_64::_rdtsc() }
}
