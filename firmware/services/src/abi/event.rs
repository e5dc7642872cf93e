//! The edge of the event, timer and task priority services (UEFI 2.10 §7.1), and the timer interrupt.

use core::ffi::c_void;
use core::slice;

use hw::interrupts;
use uefi_raw::table::boot::{EventNotifyFn, EventType, TimerDelay, Tpl};
use uefi_raw::{Char16, Event, Guid, Status};

use crate::Result;
use crate::abi::CORE;
use crate::api;
use crate::event::{Notify, Timer};

/// The timer interrupt: to be called by its handler, on the stack that was interrupted, with interrupts disabled and the
/// interrupt acknowledged (EOI), after all registers a function may change have been saved, the SSE state (`FXSAVE`)
/// included, since notifications of loaded images use it. The handler must return with `IRET` and enable interrupts
/// nowhere else.
///
/// It raises the level to the highest, signals the timers that are due, arms the hardware for the next one, runs the
/// notifications above the level that was interrupted, and returns at that level with interrupts disabled.
///
/// Why the stack is bounded: interrupts are enabled only while a notification runs, and are disabled again before the
/// level goes back down. So whenever an interrupt arrives, each earlier one that is still on the stack is running a
/// notification, and the level is that notification's or higher. The new one runs only notifications above that. Levels
/// on the stack thus rise strictly, and since nothing lowers the level below that of the innermost notification (not even
/// a notification that calls RestoreTPL too often), there are never more handlers on the stack than levels above
/// `APPLICATION` that have events, plus one.
pub fn timer_tick() {
    api::tick_in(&CORE, &mut interrupts::enable, &mut || {
        interrupts::disable();
    });
}

/// `EFI_BOOT_SERVICES.RaiseTPL` (UEFI 2.10 §7.1.8).
pub extern "efiapi" fn raise_tpl(level: Tpl) -> Tpl {
    api::raise_in(&CORE, level)
}

/// `EFI_BOOT_SERVICES.RestoreTPL` (UEFI 2.10 §7.1.9).
pub extern "efiapi" fn restore_tpl(level: Tpl) {
    api::restore_in(&CORE, level);
}

/// `EFI_BOOT_SERVICES.CreateEvent` (UEFI 2.10 §7.1.1).
///
/// # Safety
/// `out` must be null or point to an event; the function and its context must stay good until the event is closed.
pub unsafe extern "efiapi" fn create_event(
    kind: EventType,
    level: Tpl,
    function: Option<EventNotifyFn>,
    context: *mut c_void,
    out: *mut Event,
) -> Status {
    // SAFETY: the caller's promise, and no group.
    unsafe { create_event_ex(kind, level, function, context, core::ptr::null(), out) }
}

/// `EFI_BOOT_SERVICES.CreateEventEx` (UEFI 2.10 §7.1.2).
///
/// # Safety
/// As [`create_event`]; `group` must be null or point to a GUID.
pub unsafe extern "efiapi" fn create_event_ex(
    kind: EventType,
    level: Tpl,
    function: Option<EventNotifyFn>,
    context: *const c_void,
    group: *const Guid,
    out: *mut Event,
) -> Status {
    if out.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let notify = function.map_or(Notify::None, |function| Notify::Function(function, context.cast_mut()));
    // SAFETY: the caller gives null or a GUID.
    let group = (!group.is_null()).then(|| unsafe { group.read_unaligned() });
    match api::create_in(&CORE, kind, level, notify, group) {
        Ok(event) => {
            // SAFETY: not null; the caller gives a place for an event.
            unsafe { out.write_unaligned(event) };
            Status::SUCCESS
        }
        Err(status) => status,
    }
}

/// `EFI_BOOT_SERVICES.CloseEvent` (UEFI 2.10 §7.1.3).
pub extern "efiapi" fn close_event(event: Event) -> Status {
    status(api::close_in(&CORE, event))
}

/// `EFI_BOOT_SERVICES.SignalEvent` (UEFI 2.10 §7.1.4).
pub extern "efiapi" fn signal_event(event: Event) -> Status {
    status(api::signal_in(&CORE, event))
}

/// `EFI_BOOT_SERVICES.WaitForEvent` (UEFI 2.10 §7.1.5).
///
/// # Safety
/// `events` must point to `count` events, `index` to a number, or be null.
pub unsafe extern "efiapi" fn wait_for_event(count: usize, events: *const Event, index: *mut usize) -> Status {
    if count == 0 || events.is_null() || index.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller gives an array of this length.
    let events = unsafe { slice::from_raw_parts(events, count) };
    let (result, which) = match api::wait_in(&CORE, events) {
        Ok(which) => (Status::SUCCESS, which),
        Err((status, which)) => (status, which),
    };
    if result != Status::UNSUPPORTED {
        // SAFETY: not null; the caller gives a place for a number.
        unsafe { index.write_unaligned(which) };
    }
    result
}

/// `EFI_BOOT_SERVICES.CheckEvent` (UEFI 2.10 §7.1.6).
pub extern "efiapi" fn check_event(event: Event) -> Status {
    status(api::check_in(&CORE, event))
}

/// `EFI_BOOT_SERVICES.SetTimer` (UEFI 2.10 §7.1.7).
pub extern "efiapi" fn set_timer(event: Event, kind: TimerDelay, time: u64) -> Status {
    let timer = match kind {
        TimerDelay::CANCEL => Timer::Cancel,
        TimerDelay::PERIODIC => Timer::Periodic(time),
        TimerDelay::RELATIVE => Timer::Relative(time),
        _ => return Status::INVALID_PARAMETER,
    };
    status(api::set_timer_in(&CORE, event, timer))
}

/// `EFI_BOOT_SERVICES.Stall` (UEFI 2.10 §7.5.2).
pub extern "efiapi" fn stall(microseconds: usize) -> Status {
    api::stall(microseconds);
    Status::SUCCESS
}

/// `EFI_BOOT_SERVICES.SetWatchdogTimer` (UEFI 2.10 §7.5.1). The text that a caller may give is not kept.
pub extern "efiapi" fn set_watchdog_timer(
    seconds: usize,
    code: u64,
    _data_size: usize,
    _data: *const Char16,
) -> Status {
    status(api::set_watchdog_in(&CORE, seconds as u64, code))
}

/// `EFI_BOOT_SERVICES.GetNextMonotonicCount` (UEFI 2.10 §7.5.4).
///
/// # Safety
/// `count` must be null or point to a number.
pub unsafe extern "efiapi" fn get_next_monotonic_count(count: *mut u64) -> Status {
    if count.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let next = CORE.events.with(|events| events.next_monotonic_count());
    // SAFETY: not null; the caller gives a place for a number.
    unsafe { count.write_unaligned(next) };
    Status::SUCCESS
}

fn status(result: Result<()>) -> Status {
    match result {
        Ok(()) => Status::SUCCESS,
        Err(status) => status,
    }
}
