//! Time services (UEFI 2.10 §8.3).

use core::arch::asm;

use handoff::TimeSource;
use runtime::rtc::{Cmos, RtcError};
use uefi_raw::table::runtime::TimeCapabilities;
use uefi_raw::time::Time;
use uefi_raw::{Boolean, Status};

use super::state::{self, State};

/// Xen's clock shows nanoseconds, the CMOS clock seconds.
const RESOLUTION: u32 = 1_000_000_000;
const CMOS_RESOLUTION: u32 = 1;
/// 50 parts per million, in units of 1e-6 of one: what host clocks are specified to.
const ACCURACY: u32 = 50_000_000;

/// GetTime.
pub unsafe extern "efiapi" fn get_time(time: *mut Time, capabilities: *mut TimeCapabilities) -> Status {
    if time.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let read = |state: &mut State| match source() {
        TimeSource::Xen => state.clock.time(reference()).map_err(|_| Status::DEVICE_ERROR),
        TimeSource::Cmos => state.rtc.time(&mut Ports).map_err(status),
    };
    let now = match state::with(read).and_then(|time| time) {
        Ok(now) => now,
        Err(status) => return status,
    };
    let resolution = match source() {
        TimeSource::Xen => RESOLUTION,
        TimeSource::Cmos => CMOS_RESOLUTION,
    };
    // SAFETY: the caller's pointers, checked for null.
    unsafe {
        time.write_unaligned(now);
        if !capabilities.is_null() {
            let sets_to_zero = Boolean::FALSE;
            capabilities.write_unaligned(TimeCapabilities { resolution, accuracy: ACCURACY, sets_to_zero });
        }
    }
    Status::SUCCESS
}

/// SetTime: sets the guest's clock. On PVH, where there is none, it changes what GetTime shows until the next reset; the host's
/// clock is not the guest's to set.
pub unsafe extern "efiapi" fn set_time(time: *const Time) -> Status {
    if time.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller's pointer, checked for null.
    let time = unsafe { time.read_unaligned() };
    let set = |state: &mut State| match source() {
        TimeSource::Xen => state.clock.set(&time, reference()).map_err(|_| Status::INVALID_PARAMETER),
        TimeSource::Cmos => state.rtc.set(&time, &mut Ports).map_err(status),
    };
    match state::with(set).and_then(|set| set) {
        Ok(()) => Status::SUCCESS,
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

fn source() -> TimeSource {
    // SAFETY: the handoff is valid, as the services have been started.
    unsafe { (*state::handoff()).time_source }
}

const fn status(error: RtcError) -> Status {
    match error {
        RtcError::Device => Status::DEVICE_ERROR,
        RtcError::InvalidTime => Status::INVALID_PARAMETER,
    }
}

/// The CMOS clock's ports: index and data. Whoever else uses them must not do so meanwhile (UEFI 2.10 §8.1: the operating
/// system's calls exclude its own use of the device).
struct Ports;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

impl Cmos for Ports {
    fn read(&mut self, index: u8) -> u8 {
        let value;
        // SAFETY: only used where the core says that there is such a clock; its registers are no memory.
        unsafe {
            asm!("out dx, al", in("dx") INDEX, in("al") index, options(nomem, nostack, preserves_flags));
            asm!("in al, dx", in("dx") DATA, out("al") value, options(nomem, nostack, preserves_flags));
        }
        value
    }

    fn write(&mut self, index: u8, value: u8) {
        // SAFETY: as above.
        unsafe {
            asm!("out dx, al", in("dx") INDEX, in("al") index, options(nomem, nostack, preserves_flags));
            asm!("out dx, al", in("dx") DATA, in("al") value, options(nomem, nostack, preserves_flags));
        }
    }
}
