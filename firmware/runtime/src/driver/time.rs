//! Time services (UEFI 2.10 §8.3).

use uefi_raw::table::runtime::TimeCapabilities;
use uefi_raw::time::Time;
use uefi_raw::{Boolean, Status};

use super::state;

/// Nanoseconds are shown.
const RESOLUTION: u32 = 1_000_000_000;
/// 50 parts per million, in units of 1e-6 of one: what host clocks are specified to.
const ACCURACY: u32 = 50_000_000;

/// GetTime.
pub unsafe extern "efiapi" fn get_time(time: *mut Time, capabilities: *mut TimeCapabilities) -> Status {
    if time.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let now = match state::with(|state| state.clock.time(reference())) {
        Ok(Ok(now)) => now,
        Ok(Err(_)) => return Status::DEVICE_ERROR,
        Err(status) => return status,
    };
    // SAFETY: the caller's pointers, checked for null.
    unsafe {
        time.write_unaligned(now);
        if !capabilities.is_null() {
            let sets_to_zero = Boolean::FALSE;
            capabilities.write_unaligned(TimeCapabilities { resolution: RESOLUTION, accuracy: ACCURACY, sets_to_zero });
        }
    }
    Status::SUCCESS
}

/// SetTime: changes what GetTime shows until the next reset; the host's clock is not the guest's to set.
pub unsafe extern "efiapi" fn set_time(time: *const Time) -> Status {
    if time.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller's pointer, checked for null.
    let time = unsafe { time.read_unaligned() };
    match state::with(|state| state.clock.set(&time, reference())) {
        Ok(Ok(())) => Status::SUCCESS,
        Ok(Err(_)) => Status::INVALID_PARAMETER,
        Err(status) => status,
    }
}

/// GetWakeupTime: there is no alarm.
pub unsafe extern "efiapi" fn get_wakeup_time(enabled: *mut Boolean, pending: *mut Boolean, time: *mut Time) -> Status {
    if enabled.is_null() || pending.is_null() || time.is_null() {
        return Status::INVALID_PARAMETER;
    }
    Status::UNSUPPORTED
}

/// SetWakeupTime: there is no alarm.
pub unsafe extern "efiapi" fn set_wakeup_time(_enable: Boolean, _time: *const Time) -> Status {
    Status::UNSUPPORTED
}

/// Nanoseconds since 1970 of the reference clock. Neither Xen's shared page nor any other device may be touched once
/// the operating system runs, so this is the time stamp counter since the core's last look at the wall clock.
fn reference() -> u64 {
    // SAFETY: RDTSC has no side effects; the handoff is valid, as the state exists.
    unsafe { (*state::handoff()).clock.nanoseconds_at(core::arch::x86_64::_rdtsc()) }
}
