//! A core of the test's own, on a machine whose clock the test moves.

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::rc::Rc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::vec::Vec;

use uefi_raw::guid;

use super::*;
use crate::api::{
    check_in, close_in, create_in, raise_in, restore_in, set_timer_in, set_watchdog_in, signal_group_in, signal_in,
    stop_timers_in, tick_in, wait_in,
};
use crate::core_state::Core;
use crate::fake::FakeHardware;
use crate::hardware::Hardware;

const GROUP: Guid = guid!("00000000-1111-2222-3333-444444444444");

type Log = Rc<RefCell<Vec<u32>>>;

fn machine() -> (&'static Core, &'static FakeHardware) {
    let core: &'static Core = Box::leak(Box::new(Core::new()));
    let hardware: &'static FakeHardware =
        Box::leak(Box::new(FakeHardware::new(move || tick_in(core, &mut || {}, &mut || {}))));
    core.hardware.with(|slot| *slot = Some(hardware));
    (core, hardware)
}

fn log() -> Log {
    Rc::default()
}

fn note(log: &Log, what: u32) -> Notify {
    let log = log.clone();
    Notify::Closure(Box::new(move |_| log.borrow_mut().push(what)))
}

fn signal_event(core: &Core, level: Tpl, notify: Notify) -> Event {
    create_in(core, EventType::NOTIFY_SIGNAL, level, notify, None).unwrap()
}

fn plain_event(core: &Core) -> Event {
    create_in(core, EventType::empty(), Tpl::APPLICATION, Notify::None, None).unwrap()
}

fn timer_event(core: &Core) -> Event {
    create_in(core, EventType::TIMER, Tpl::APPLICATION, Notify::None, None).unwrap()
}

fn level(core: &Core) -> Tpl {
    core.events.with(|events| events.level())
}

#[test]
fn a_signal_runs_its_notification_at_once_when_the_level_allows() {
    let (core, _) = machine();
    let log = log();
    let event = signal_event(core, Tpl::CALLBACK, note(&log, 1));
    signal_in(core, event).unwrap();
    signal_in(core, event).unwrap();
    assert_eq!(*log.borrow(), [1, 1]);
    assert_eq!(level(core), Tpl::APPLICATION);
}

#[test]
fn notifications_wait_for_their_level_and_run_highest_first_in_order() {
    let (core, _) = machine();
    let log = log();
    let before = raise_in(core, Tpl::HIGH_LEVEL);
    for (what, at) in [(1, Tpl::CALLBACK), (2, Tpl::NOTIFY), (3, Tpl::CALLBACK), (4, Tpl::NOTIFY)] {
        let event = signal_event(core, at, note(&log, what));
        signal_in(core, event).unwrap();
        signal_in(core, event).unwrap();
    }
    assert!(log.borrow().is_empty());
    restore_in(core, Tpl::CALLBACK);
    assert_eq!(*log.borrow(), [2, 4]);
    restore_in(core, before);
    assert_eq!(*log.borrow(), [2, 4, 1, 3]);
}

#[test]
fn a_notification_runs_at_its_own_level() {
    let (core, _) = machine();
    let seen = Rc::new(Cell::new(Tpl(0)));
    let seen_inside = seen.clone();
    let notify = Notify::Closure(Box::new(move |_| seen_inside.set(level(core))));
    let event = signal_event(core, Tpl::NOTIFY, notify);
    signal_in(core, event).unwrap();
    assert_eq!(seen.get(), Tpl::NOTIFY);
}

#[test]
fn a_level_that_a_notification_leaves_raised_or_lowers_is_put_right() {
    let (core, _) = machine();
    let log = log();
    let low = signal_event(core, Tpl::CALLBACK, note(&log, 2));
    let seen = Rc::new(Cell::new(Tpl(0)));
    let seen_inside = seen.clone();
    let rude = Notify::Closure(Box::new(move |_| {
        signal_in(core, low).unwrap();
        restore_in(core, Tpl::APPLICATION);
        seen_inside.set(level(core));
        raise_in(core, Tpl::HIGH_LEVEL);
    }));
    let event = signal_event(core, Tpl::NOTIFY, rude);
    signal_in(core, event).unwrap();
    assert_eq!(seen.get(), Tpl::NOTIFY, "lowered below the notification that runs");
    assert_eq!(level(core), Tpl::APPLICATION);
    assert_eq!(*log.borrow(), [2]);
}

#[test]
fn a_notification_that_is_left_for_good_does_not_hold_the_level() {
    let mut events = Events::new();
    let mut notify = Notify::Closure(Box::new(|_| {}));
    let event = events.create(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &mut notify, None).unwrap();
    let floor = events.floor();
    events.signal(event).unwrap();
    let _left = events.next_above(Tpl::APPLICATION.0);
    assert_eq!(events.plan_restore(Tpl::APPLICATION, true).0, Tpl::CALLBACK.0);
    events.unwind(floor);
    assert_eq!(events.plan_restore(Tpl::APPLICATION, true).0, Tpl::APPLICATION.0);
}

#[test]
fn a_notification_may_close_its_own_event() {
    let (core, _) = machine();
    let runs = Rc::new(Cell::new(0));
    let runs_inside = runs.clone();
    let notify = Notify::Closure(Box::new(move |event| {
        runs_inside.set(runs_inside.get() + 1);
        close_in(core, event).unwrap();
        assert_eq!(signal_in(core, event), Err(Status::INVALID_PARAMETER));
        // Takes the slot over.
        plain_event(core);
    }));
    let event = signal_event(core, Tpl::CALLBACK, notify);
    signal_in(core, event).unwrap();
    assert_eq!(runs.get(), 1);
    assert_eq!(Rc::strong_count(&runs), 1, "the closure is dropped");
    assert_eq!(signal_in(core, event), Err(Status::INVALID_PARAMETER));
}

#[test]
fn a_notification_that_signals_itself_runs_again_and_not_inside_itself() {
    let (core, _) = machine();
    let depth = Rc::new(Cell::new((0, 0, 0)));
    let depth_inside = depth.clone();
    let notify = Notify::Closure(Box::new(move |event| {
        let (inside, deepest, runs) = depth_inside.get();
        depth_inside.set((inside + 1, deepest.max(inside + 1), runs + 1));
        if runs < 9 {
            signal_in(core, event).unwrap();
        }
        let (inside, deepest, runs) = depth_inside.get();
        depth_inside.set((inside - 1, deepest, runs));
    }));
    let event = signal_event(core, Tpl::CALLBACK, notify);
    signal_in(core, event).unwrap();
    assert_eq!(depth.get(), (0, 1, 10));
}

#[test]
fn a_closed_event_is_taken_out_of_the_queue() {
    let (core, _) = machine();
    let log = log();
    let before = raise_in(core, Tpl::HIGH_LEVEL);
    let events: Vec<_> = (0..5).map(|what| signal_event(core, Tpl::CALLBACK, note(&log, what))).collect();
    for &event in &events {
        signal_in(core, event).unwrap();
    }
    for closed in [0, 2, 4] {
        close_in(core, events[closed]).unwrap();
    }
    restore_in(core, before);
    assert_eq!(*log.borrow(), [1, 3]);
    assert_eq!(core.events.with(|events| events.pending), 0);
}

#[test]
fn an_id_that_was_closed_is_not_taken_for_a_newer_event() {
    let (core, _) = machine();
    let old = plain_event(core);
    close_in(core, old).unwrap();
    let new = plain_event(core);
    assert_ne!(old, new);
    assert_eq!(close_in(core, old), Err(Status::INVALID_PARAMETER));
    for wrong in [0, 1 << 20, usize::MAX, 2] {
        assert_eq!(signal_in(core, ptr::without_provenance_mut(wrong)), Err(Status::INVALID_PARAMETER));
    }
    signal_in(core, new).unwrap();
}

#[test]
fn impossible_kinds_are_refused() {
    let (core, _) = machine();
    let log = log();
    let create = |kind, level, notify, group| create_in(core, kind, level, notify, group).map(|_| ());
    let both = EventType::NOTIFY_SIGNAL | EventType::NOTIFY_WAIT;
    let invalid = Err(Status::INVALID_PARAMETER);
    assert_eq!(create(both, Tpl::CALLBACK, note(&log, 0), None), invalid);
    assert_eq!(create(EventType::from_bits_retain(0x1), Tpl::CALLBACK, note(&log, 0), None), invalid);
    assert_eq!(create(EventType::from_bits_retain(0x202), Tpl::CALLBACK, note(&log, 0), None), invalid);
    assert_eq!(create(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, Notify::None, None), invalid);
    assert_eq!(create(EventType::NOTIFY_WAIT, Tpl::APPLICATION, note(&log, 0), None), invalid);
    assert_eq!(create(EventType::NOTIFY_SIGNAL, Tpl::HIGH_LEVEL, note(&log, 0), None), invalid);
    let old = EventType::SIGNAL_EXIT_BOOT_SERVICES;
    assert_eq!(create(old, Tpl::CALLBACK, note(&log, 0), Some(GROUP)), invalid);
    assert_eq!(create(old, Tpl::CALLBACK, note(&log, 0), None), Ok(()));
    assert_eq!(create(EventType::SIGNAL_VIRTUAL_ADDRESS_CHANGE, Tpl::NOTIFY, note(&log, 0), None), Ok(()));
    assert_eq!(create(EventType::TIMER | EventType::NOTIFY_WAIT, Tpl::NOTIFY, note(&log, 0), None), Ok(()));
    assert_eq!(create(EventType::empty(), Tpl(0), Notify::None, Some(GROUP)), Ok(()));
}

#[test]
fn check_takes_the_signal_away() {
    let (core, _) = machine();
    let event = plain_event(core);
    assert_eq!(check_in(core, event), Err(Status::NOT_READY));
    signal_in(core, event).unwrap();
    assert_eq!(check_in(core, event), Ok(()));
    assert_eq!(check_in(core, event), Err(Status::NOT_READY));
    let log = log();
    let notified = signal_event(core, Tpl::CALLBACK, note(&log, 1));
    assert_eq!(check_in(core, notified), Err(Status::INVALID_PARAMETER));
}

#[test]
fn check_runs_the_notification_of_a_wait_event_which_may_signal_it() {
    let (core, _) = machine();
    let asked = Rc::new(Cell::new(0));
    let asked_inside = asked.clone();
    let notify = Notify::Closure(Box::new(move |event| {
        asked_inside.set(asked_inside.get() + 1);
        if asked_inside.get() == 2 {
            signal_in(core, event).unwrap();
        }
    }));
    let event = create_in(core, EventType::NOTIFY_WAIT, Tpl::NOTIFY, notify, None).unwrap();
    assert_eq!(check_in(core, event), Err(Status::NOT_READY));
    assert_eq!(check_in(core, event), Ok(()));
    assert_eq!(asked.get(), 2);
    // At its level it has to wait.
    let before = raise_in(core, Tpl::NOTIFY);
    assert_eq!(check_in(core, event), Err(Status::NOT_READY));
    assert_eq!(asked.get(), 2);
    restore_in(core, before);
    assert_eq!(asked.get(), 3);
}

#[test]
fn a_group_is_signaled_as_one() {
    let (core, _) = machine();
    let log = log();
    let member =
        |what| create_in(core, EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, note(&log, what), Some(GROUP)).unwrap();
    let events = [member(1), member(2), member(3)];
    let silent = create_in(core, EventType::empty(), Tpl(0), Notify::None, Some(GROUP)).unwrap();
    signal_in(core, events[1]).unwrap();
    assert_eq!(*log.borrow(), [1, 2, 3]);
    assert_eq!(check_in(core, silent), Ok(()));
    close_in(core, events[0]).unwrap();
    signal_group_in(core, &GROUP);
    assert_eq!(*log.borrow(), [1, 2, 3, 2, 3]);
    signal_group_in(core, &group::READY_TO_BOOT);
}

#[test]
fn old_kinds_belong_to_their_groups() {
    unsafe extern "efiapi" fn function(_: Event, _: *mut c_void) {}
    let (core, _) = machine();
    let log = log();
    let exit = EventType::SIGNAL_EXIT_BOOT_SERVICES;
    create_in(core, exit, Tpl::CALLBACK, note(&log, 1), None).unwrap();
    signal_group_in(core, &group::EXIT_BOOT_SERVICES);
    assert_eq!(*log.borrow(), [1]);
    let notify = Notify::Function(function, ptr::without_provenance_mut(5));
    let event = create_in(core, EventType::SIGNAL_VIRTUAL_ADDRESS_CHANGE, Tpl::NOTIFY, notify, None).unwrap();
    let mut told = Vec::new();
    core.events.with(|events| events.virtual_address_change(|event, _, context| told.push((event, context.addr()))));
    assert_eq!(told, [(event, 5)]);
}

#[test]
fn timers_are_due_in_time_and_only_then() {
    let (core, hardware) = machine();
    let event = timer_event(core);
    set_timer_in(core, event, Timer::Relative(1000)).unwrap();
    hardware.pass(999);
    assert_eq!(check_in(core, event), Err(Status::NOT_READY));
    hardware.pass(1);
    assert_eq!(check_in(core, event), Ok(()));
    hardware.pass(SECOND);
    assert_eq!(check_in(core, event), Err(Status::NOT_READY));
    assert_eq!(hardware.armed(), None);
}

#[test]
fn a_periodic_timer_keeps_its_beat_and_never_catches_up_in_a_burst() {
    let (core, hardware) = machine();
    let ticks = Rc::new(Cell::new(0));
    let ticks_inside = ticks.clone();
    let notify = Notify::Closure(Box::new(move |_| ticks_inside.set(ticks_inside.get() + 1)));
    let event = create_in(core, EventType::TIMER | EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, notify, None).unwrap();
    set_timer_in(core, event, Timer::Periodic(SECOND / 100)).unwrap();
    hardware.pass(SECOND);
    assert_eq!(ticks.get(), 100);
    let before = raise_in(core, Tpl::HIGH_LEVEL);
    hardware.pass(SECOND);
    restore_in(core, before);
    assert_eq!(ticks.get(), 101);
    set_timer_in(core, event, Timer::Cancel).unwrap();
    hardware.pass(SECOND);
    assert_eq!(ticks.get(), 101);
}

#[test]
fn zero_means_the_next_tick() {
    let (core, hardware) = machine();
    let event = timer_event(core);
    set_timer_in(core, event, Timer::Relative(0)).unwrap();
    assert_eq!(check_in(core, event), Err(Status::NOT_READY));
    hardware.pass(0);
    assert_eq!(check_in(core, event), Ok(()));
    set_timer_in(core, event, Timer::Periodic(0)).unwrap();
    hardware.pass(SECOND / 100);
    assert_eq!(check_in(core, event), Ok(()));
    set_timer_in(core, event, Timer::Periodic(1)).unwrap();
    assert_eq!(hardware.armed(), Some(hardware.now() + SECOND / 1000));
}

#[test]
fn the_hardware_is_armed_only_when_the_earliest_deadline_changes() {
    let (core, hardware) = machine();
    let events = [timer_event(core), timer_event(core), timer_event(core)];
    set_timer_in(core, events[0], Timer::Relative(500)).unwrap();
    set_timer_in(core, events[1], Timer::Relative(900)).unwrap();
    set_timer_in(core, events[2], Timer::Relative(700)).unwrap();
    set_timer_in(core, events[2], Timer::Relative(100)).unwrap();
    close_in(core, events[2]).unwrap();
    assert_eq!(hardware.take_arm_calls(), [Some(500), Some(100), Some(500)]);
    hardware.pass(500);
    hardware.pass(400);
    assert_eq!(hardware.take_arm_calls(), [Some(900)]);
}

#[test]
fn only_timer_events_have_timers() {
    let (core, _) = machine();
    assert_eq!(set_timer_in(core, plain_event(core), Timer::Relative(1)), Err(Status::INVALID_PARAMETER));
    assert_eq!(set_timer_in(core, ptr::null_mut(), Timer::Cancel), Err(Status::INVALID_PARAMETER));
}

#[test]
fn thousands_of_timers_are_due_in_order() {
    let (core, hardware) = machine();
    let count = if cfg!(miri) { 100 } else { 5000 };
    let log = log();
    let mut seed = 1_u32;
    let mut events = Vec::new();
    for _ in 0..count {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let delay = seed >> 12;
        let kind = EventType::TIMER | EventType::NOTIFY_SIGNAL;
        let event = create_in(core, kind, Tpl::CALLBACK, note(&log, delay), None).unwrap();
        set_timer_in(core, event, Timer::Relative(u64::from(delay))).unwrap();
        events.push((delay, event));
    }
    for (index, &(_, event)) in events.iter().enumerate() {
        if index % 3 == 0 {
            close_in(core, event).unwrap();
        }
    }
    hardware.pass(1 << 20);
    let mut expected: Vec<_> =
        events.iter().enumerate().filter(|(index, _)| index % 3 != 0).map(|(_, (delay, _))| *delay).collect();
    expected.sort_unstable();
    assert_eq!(*log.borrow(), expected);
}

#[test]
fn waiting_idles_until_a_timer_is_due() {
    let (core, hardware) = machine();
    let (late, early) = (timer_event(core), timer_event(core));
    set_timer_in(core, late, Timer::Relative(2 * SECOND)).unwrap();
    set_timer_in(core, early, Timer::Relative(SECOND)).unwrap();
    assert_eq!(wait_in(core, &[late, early]), Ok(1));
    assert_eq!(hardware.now(), SECOND);
    assert_eq!(wait_in(core, &[late, early]), Ok(0));
}

#[test]
fn waiting_is_refused_above_application_level_and_for_what_cannot_be_waited_for() {
    let (core, _) = machine();
    let event = plain_event(core);
    let log = log();
    let notified = signal_event(core, Tpl::CALLBACK, note(&log, 1));
    assert_eq!(wait_in(core, &[]), Err((Status::INVALID_PARAMETER, 0)));
    assert_eq!(wait_in(core, &[event, notified]), Err((Status::INVALID_PARAMETER, 1)));
    let before = raise_in(core, Tpl::CALLBACK);
    assert_eq!(wait_in(core, &[event]), Err((Status::UNSUPPORTED, 0)));
    restore_in(core, before);
}

#[test]
fn the_first_signaled_event_ends_the_wait() {
    let (core, _) = machine();
    let events = [plain_event(core), plain_event(core)];
    signal_in(core, events[1]).unwrap();
    signal_in(core, events[0]).unwrap();
    assert_eq!(wait_in(core, &events), Ok(0));
    assert_eq!(wait_in(core, &events), Ok(1));
}

#[test]
fn stopped_timers_stay_stopped() {
    let (core, hardware) = machine();
    let event = timer_event(core);
    set_timer_in(core, event, Timer::Periodic(SECOND)).unwrap();
    set_watchdog_in(core, 1, 0).unwrap();
    stop_timers_in(core);
    assert_eq!(hardware.armed(), None);
    set_timer_in(core, event, Timer::Relative(0)).unwrap();
    assert_eq!(hardware.armed(), None);
    hardware.pass(10 * SECOND);
    assert_eq!(check_in(core, event), Err(Status::NOT_READY));
    assert_eq!(hardware.was_reset(), None);
}

#[test]
fn the_watchdog_resets_unless_it_is_stopped_or_set_again() {
    let (core, hardware) = machine();
    set_watchdog_in(core, 300, 0x1_0000).unwrap();
    hardware.pass(299 * SECOND);
    set_watchdog_in(core, 300, 0x1_0000).unwrap();
    hardware.pass(299 * SECOND);
    set_watchdog_in(core, 0, 0).unwrap();
    hardware.pass(300 * SECOND);
    assert_eq!(hardware.was_reset(), None);
    set_watchdog_in(core, 1, 0x1_0000).unwrap();
    let expired = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hardware.pass(SECOND)));
    assert!(expired.is_err() && hardware.was_reset().is_some());
}

#[test]
fn interrupts_are_disabled_after_the_last_notification_of_an_interrupt() {
    let (core, hardware) = machine();
    let log = log();
    for what in 0..3 {
        let kind = EventType::TIMER | EventType::NOTIFY_SIGNAL;
        let event = create_in(core, kind, Tpl::CALLBACK, note(&log, what), None).unwrap();
        set_timer_in(core, event, Timer::Relative(0)).unwrap();
    }
    // Handled here, not by the machine.
    assert_eq!(hardware.now(), 0);
    let flag = Cell::new(false);
    let switches = RefCell::new(Vec::new());
    let mut switch = |on: bool| {
        assert_ne!(flag.replace(on), on);
        switches.borrow_mut().push((on, level(core)));
    };
    let switch = RefCell::new(&mut switch);
    tick_in(core, &mut || switch.borrow_mut()(true), &mut || switch.borrow_mut()(false));
    assert!(!flag.get());
    assert_eq!(log.borrow().len(), 3);
    assert!(switches.borrow().iter().all(|&(_, level)| level == Tpl::CALLBACK), "never at the interrupted level");
    assert_eq!(level(core), Tpl::APPLICATION);
}

#[test]
fn an_interrupt_at_the_highest_level_only_notes_what_is_due() {
    let (core, hardware) = machine();
    let log = log();
    let kind = EventType::TIMER | EventType::NOTIFY_SIGNAL;
    let event = create_in(core, kind, Tpl::NOTIFY, note(&log, 1), None).unwrap();
    set_timer_in(core, event, Timer::Relative(10)).unwrap();
    // A program that raises the level and enables interrupts all the same.
    let before = raise_in(core, Tpl::HIGH_LEVEL);
    hardware.pass(10);
    assert!(log.borrow().is_empty());
    assert_eq!(level(core), Tpl::HIGH_LEVEL);
    restore_in(core, before);
    assert_eq!(*log.borrow(), [1]);
}

/// Interrupts that arrive whenever they are enabled, with notifications at two levels that are always due again: the
/// number of handlers on the stack stays below the number of levels.
#[test]
fn nested_interrupts_are_bounded_by_the_levels() {
    static DEPTH: AtomicIsize = AtomicIsize::new(0);
    static DEEPEST: AtomicIsize = AtomicIsize::new(0);
    static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);
    fn interrupt(core: &'static Core) {
        if INTERRUPTS.fetch_add(1, Ordering::Relaxed) > 2000 {
            return;
        }
        let depth = DEPTH.fetch_add(1, Ordering::Relaxed) + 1;
        DEEPEST.fetch_max(depth, Ordering::Relaxed);
        // The moment they are enabled, the next one is there.
        tick_in(core, &mut || interrupt(core), &mut || {});
        DEPTH.fetch_sub(1, Ordering::Relaxed);
    }
    let (core, _) = machine();
    for at in [Tpl::CALLBACK, Tpl::NOTIFY] {
        let notify = Notify::Closure(Box::new(move |event| {
            set_timer_in(core, event, Timer::Relative(0)).unwrap();
            // The worst a notification can do.
            restore_in(core, Tpl::APPLICATION);
            interrupt(core);
        }));
        let event = create_in(core, EventType::TIMER | EventType::NOTIFY_SIGNAL, at, notify, None).unwrap();
        set_timer_in(core, event, Timer::Relative(0)).unwrap();
    }
    interrupt(core);
    assert!(INTERRUPTS.load(Ordering::Relaxed) > 2000, "the storm took place");
    assert!(DEEPEST.load(Ordering::Relaxed) <= 3, "{}", DEEPEST.load(Ordering::Relaxed));
    assert_eq!(level(core), Tpl::APPLICATION);
}

#[test]
fn monotonic_counts_never_repeat_and_have_an_upper_half() {
    let mut events = Events::new();
    assert!(events.next_monotonic_count() < events.next_monotonic_count());
    events.set_high_count(7);
    assert_eq!(events.next_monotonic_count(), 7 << 32 | 1);
}
