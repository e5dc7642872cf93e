//! Task priority levels, events and timers for our own code.
//!
//! The functions without a core work on the one core; those with one are what both they and the ABI edge call.
//! Notifications run here, outside the lock.

use alloc::boxed::Box;

use hw::interrupts;
use uefi_raw::table::boot::{EventType, Tpl};
use uefi_raw::{Event, Guid};

use crate::abi::CORE;
use crate::core_state::Core;
use crate::event::{Check, Error, Events, Notification, Notify, SECOND, Timer, group};
use crate::hardware::{Hardware, Reset};
use crate::{Result, Status};

/// Raises the task priority level; returns what it was, for [`restore_tpl`].
pub fn raise_tpl(level: Tpl) -> Tpl {
    raise_in(&CORE, level)
}

/// Lowers the task priority level to what it was, and runs the notifications that waited for that.
pub fn restore_tpl(level: Tpl) {
    restore_in(&CORE, level);
}

/// Runs `f` at a level, or at the current one if that is higher.
pub fn at_tpl<R>(level: Tpl, f: impl FnOnce() -> R) -> R {
    let before = raise_tpl(level);
    let result = f();
    restore_tpl(before);
    result
}

/// Makes an event. The callback runs at `level`, where events of this kind have one.
///
/// # Errors
/// `INVALID_PARAMETER` for a combination that does not exist, `OUT_OF_RESOURCES`.
pub fn create_event(kind: EventType, level: Tpl, callback: Option<Box<dyn FnMut(Event)>>) -> Result<Event> {
    create_in(&CORE, kind, level, callback.map_or(Notify::None, Notify::Closure), None)
}

/// Makes an event of a group ([`crate::event::group`] or one's own), with a callback that runs at `level`.
///
/// # Errors
/// As [`create_event`].
pub fn create_group_event(group: &Guid, level: Tpl, callback: Box<dyn FnMut(Event)>) -> Result<Event> {
    create_in(&CORE, EventType::NOTIFY_SIGNAL, level, Notify::Closure(callback), Some(*group))
}

/// Ends an event.
///
/// # Errors
/// `INVALID_PARAMETER` if there is no such event.
pub fn close_event(event: Event) -> Result<()> {
    close_in(&CORE, event)
}

/// Signals an event, and its group.
///
/// # Errors
/// `INVALID_PARAMETER` if there is no such event.
pub fn signal_event(event: Event) -> Result<()> {
    signal_in(&CORE, event)
}

/// Signals all events of a group.
pub fn signal_group(group: &Guid) {
    signal_group_in(&CORE, group);
}

/// Whether an event is signaled; takes the signal away.
///
/// # Errors
/// `NOT_READY` if it is not; `INVALID_PARAMETER` if there is no such event or its signal is its notification.
pub fn check_event(event: Event) -> Result<()> {
    check_in(&CORE, event)
}

/// Waits until one of the events is signaled, takes its signal away and returns its index.
///
/// # Errors
/// `UNSUPPORTED` above `APPLICATION` level; `INVALID_PARAMETER` for no events or one that cannot be waited for.
pub fn wait_for_event(events: &[Event]) -> Result<usize> {
    wait_in(&CORE, events).map_err(|(status, _)| status)
}

/// Sets or cancels an event's timer.
///
/// # Errors
/// `INVALID_PARAMETER` if there is no such event, or it has no timer.
pub fn set_timer(event: Event, timer: Timer) -> Result<()> {
    set_timer_in(&CORE, event, timer)
}

/// Waits without doing anything.
pub fn stall(microseconds: usize) {
    CORE.hardware().stall(microseconds);
}

/// Resets the machine in `seconds` unless this is called again before; 0 stops the watchdog. `code` is for the log.
///
/// # Errors
/// `NOT_READY` before the hardware is known.
pub fn set_watchdog(seconds: u64, code: u64) -> Result<()> {
    set_watchdog_in(&CORE, seconds, code)
}

/// Stops all timers and the watchdog for good, as ExitBootServices does before its event group is signaled. Nothing is
/// armed in the hardware afterwards; setting a timer succeeds and does nothing.
pub fn stop_timers() {
    stop_timers_in(&CORE);
}

pub(crate) fn raise_in(core: &Core, level: Tpl) -> Tpl {
    let state = interrupts::disable();
    let before = core.events.with(|events| events.raise(level, state.0));
    if level < before {
        log::debug!("RaiseTPL from {before:?} down to {level:?}");
    }
    // At the highest level they stay disabled.
    if level < Tpl::HIGH_LEVEL {
        interrupts::restore(state);
    }
    before
}

pub(crate) fn restore_in(core: &Core, level: Tpl) {
    let state = interrupts::disable();
    let (from, (target, enabled)) = core.events.with(|events| (events.level(), events.plan_restore(level, state.0)));
    if target != level.0 {
        log::debug!("RestoreTPL from {from:?} to {level:?} goes to {:?}", Tpl(target));
    }
    let enabled = interrupts::Enabled(enabled);
    dispatch_above(core, target, &mut || interrupts::restore(enabled), &mut || {});
    // What a notification left behind does not matter; this is how it is at the level we return to.
    interrupts::restore(enabled);
}

pub(crate) fn create_in(
    core: &Core,
    kind: EventType,
    level: Tpl,
    mut notify: Notify,
    group: Option<Guid>,
) -> Result<Event> {
    if group == Some(group::MEMORY_MAP_CHANGE) {
        core.memory.with(|memory| memory.watch());
    }
    core.events
        .with(|events| events.create(kind, level, &mut notify, group))
        .map_err(|error| refused("CreateEvent", error))
}

pub(crate) fn close_in(core: &Core, event: Event) -> Result<()> {
    let closed = core.events.with(|events| {
        let closed = events.close(event);
        rearm(core, events);
        closed
    });
    // What it registered for with RegisterProtocolNotify goes with it.
    core.handles.with(|handles| handles.forget_event(event));
    closed.map(drop).map_err(|error| refused("CloseEvent", error))
}

pub(crate) fn signal_in(core: &Core, event: Event) -> Result<()> {
    let signaled = core.events.with(|events| events.signal(event).map(|()| events.must_dispatch()));
    settle(core, signaled.map_err(|error| refused("SignalEvent", error))?);
    Ok(())
}

pub(crate) fn signal_group_in(core: &Core, group: &Guid) {
    let must_dispatch = core.events.with(|events| {
        events.signal_group(group);
        events.must_dispatch()
    });
    settle(core, must_dispatch);
}

pub(crate) fn check_in(core: &Core, event: Event) -> Result<()> {
    let checked = core.events.with(|events| events.check(event).map(|check| (check, events.must_dispatch())));
    let (check, must_dispatch) = checked.map_err(|error| refused("CheckEvent", error))?;
    settle(core, must_dispatch);
    match check {
        Check::Signaled => Ok(()),
        Check::Queued if core.events.with(|events| events.take_signal(event)) => Ok(()),
        Check::Queued | Check::NotReady => Err(Status::NOT_READY),
    }
}

/// The error comes with the index of the event that cannot be waited for.
pub(crate) fn wait_in(core: &Core, events: &[Event]) -> core::result::Result<usize, (Status, usize)> {
    if events.is_empty() {
        return Err((Status::INVALID_PARAMETER, 0));
    }
    if core.events.with(|events| events.level()) != Tpl::APPLICATION {
        return Err((Status::UNSUPPORTED, 0));
    }
    loop {
        for (index, &event) in events.iter().enumerate() {
            match check_in(core, event) {
                Ok(()) => return Ok(index),
                Err(Status::NOT_READY) => {}
                Err(status) => return Err((status, index)),
            }
        }
        core.hardware().idle();
    }
}

pub(crate) fn set_timer_in(core: &Core, event: Event, timer: Timer) -> Result<()> {
    let hardware = hardware(core)?;
    let set = core.events.with(|events| {
        let set = events.set_timer(event, timer, hardware.now());
        rearm(core, events);
        set
    });
    set.map_err(|error| refused("SetTimer", error))
}

pub(crate) fn set_watchdog_in(core: &Core, seconds: u64, code: u64) -> Result<()> {
    let hardware = hardware(core)?;
    core.events.with(|events| {
        let deadline = hardware.now().saturating_add(seconds.saturating_mul(SECOND));
        events.set_watchdog((seconds != 0).then_some((deadline, code)));
        rearm(core, events);
    });
    Ok(())
}

pub(crate) fn stop_timers_in(core: &Core) {
    core.events.with(|events| {
        events.stop_timers();
        if let Ok(hardware) = hardware(core) {
            events.disarmed();
            hardware.arm_timer(None);
        }
    });
}

/// See [`timer_tick`](crate::abi::event::timer_tick). `enable` and `disable` switch interrupts.
pub(crate) fn tick_in(core: &Core, enable: &mut dyn FnMut(), disable: &mut dyn FnMut()) {
    let Ok(hardware) = hardware(core) else { return };
    let (interrupted, watchdog) = core.events.with(|events| {
        let interrupted = events.interrupt();
        events.disarmed();
        let watchdog = events.expire(hardware.now());
        rearm(core, events);
        (interrupted, watchdog)
    });
    if let Some(code) = watchdog {
        log::error!("watchdog timer expired (code {code:#x}): resetting");
        hardware.reset(Reset::Restart);
    }
    dispatch_above(core, interrupted, enable, disable);
}

/// Runs what waits above the current level.
#[inline]
fn settle(core: &Core, must_dispatch: bool) {
    if must_dispatch {
        let level = core.events.with(|events| events.level());
        restore_in(core, level);
    }
}

/// Runs all notifications above `target`, the highest first, each at its own level; the level is `target` when none is
/// left. Called with interrupts disabled; `enable` is called before each notification, `disable` after it.
fn dispatch_above(core: &Core, target: usize, enable: &mut dyn FnMut(), disable: &mut dyn FnMut()) {
    while let Some(mut notification) = core.events.with(|events| events.next_above(target)) {
        enable();
        run(&mut notification);
        disable();
        drop(core.events.with(|events| events.finished(notification)));
    }
}

fn run(notification: &mut Notification) {
    match &mut notification.notify {
        // SAFETY: the image that made the event vouches for its function and context until it closes the event.
        Notify::Function(function, context) => unsafe { function(notification.event, *context) },
        Notify::Closure(closure) => closure(notification.event),
        Notify::None | Notify::Running => {}
    }
}

/// Programs the hardware if the earliest deadline is another than before.
fn rearm(core: &Core, events: &mut Events) {
    if let Ok(hardware) = hardware(core)
        && let Some(deadline) = events.take_deadline()
    {
        hardware.arm_timer(deadline);
    }
}

fn hardware(core: &Core) -> Result<&'static dyn Hardware> {
    core.hardware.with(|hardware| *hardware).ok_or(Status::NOT_READY)
}

#[cold]
fn refused(what: &str, error: Error) -> Status {
    log::warn!("{what}: {error:x?}");
    error.into()
}
