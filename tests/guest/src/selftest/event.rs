//! Task priorities, events, timers (UEFI 2.10 §7.1).

use core::ffi::c_void;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicUsize, Ordering};

use guest::tsc;
use uefi_raw::table::boot::{EventType, TimerDelay, Tpl};
use uefi_raw::{Event, Guid, Status, guid};

use crate::harness::{Outcome, Test};
use crate::support::{OURS, OURS_TOO, count, counting_event, level, plain_event};
use crate::time::ticks_per_millisecond;

pub const TESTS: &[Test] = tests![
    programs_run_at_application_level,
    raise_tpl_returns_the_level_before,
    wrong_arguments_of_create_event_are_refused,
    an_event_group_is_not_for_the_two_special_types,
    a_signal_notifies_at_once,
    a_signal_waits_for_its_level,
    an_event_signaled_twice_is_notified_once,
    notifications_run_from_high_to_low_and_in_order,
    a_notification_runs_at_its_level,
    check_event_takes_the_signal,
    check_event_asks_the_notify_wait_function,
    check_event_refuses_notify_signal_events,
    wait_for_event_returns_the_first_signaled,
    wait_for_event_asks_the_notify_wait_function,
    wrong_arguments_of_wait_for_event_are_refused,
    a_closed_event_is_not_notified,
    a_closed_event_is_unknown,
    every_event_of_a_group_is_signaled,
    wrong_arguments_of_set_timer_are_refused,
    a_relative_timer_fires_once_and_in_time,
    a_timer_without_delay_fires_soon,
    a_periodic_timer_fires_again_and_again,
    a_cancelled_timer_does_not_fire,
    timers_fire_while_the_program_computes,
    timers_wait_while_the_level_is_high,
    nested_timers_do_not_grow_the_stack,
    a_hundred_timers_fire,
];

const MILLISECOND: u64 = 10_000;
const READY_TO_BOOT: Guid = guid!("7ce88fb3-4bd7-4679-87a8-a8d8dee50d2b");

fn close(event: Event) -> Status {
    bs!(close_event(event))
}

fn busy(milliseconds: u64) {
    let end = tsc() + milliseconds * ticks_per_millisecond();
    while tsc() < end {
        core::hint::spin_loop();
    }
}

fn programs_run_at_application_level() -> Outcome {
    same!(level(), Tpl::APPLICATION);
    Ok(())
}

fn raise_tpl_returns_the_level_before() -> Outcome {
    let first = bs!(raise_tpl(Tpl::CALLBACK));
    let second = bs!(raise_tpl(Tpl::NOTIFY));
    let third = bs!(raise_tpl(Tpl::HIGH_LEVEL));
    bs!(restore_tpl(third));
    let back = level();
    bs!(restore_tpl(first));
    same!((first, second, third, back), (Tpl::APPLICATION, Tpl::CALLBACK, Tpl::NOTIFY, Tpl::NOTIFY));
    same!(level(), Tpl::APPLICATION);
    Ok(())
}

fn wrong_arguments_of_create_event_are_refused() -> Outcome {
    let none = EventType::empty();
    let signal = EventType::NOTIFY_SIGNAL;
    let both = EventType::NOTIFY_SIGNAL | EventType::NOTIFY_WAIT;
    let mut event = null_mut();
    want!(INVALID_PARAMETER, bs!(create_event(none, Tpl::CALLBACK, None, null_mut(), null_mut())));
    want!(INVALID_PARAMETER, bs!(create_event(both, Tpl::CALLBACK, Some(count), null_mut(), &mut event)));
    want!(INVALID_PARAMETER, bs!(create_event(signal, Tpl::CALLBACK, None, null_mut(), &mut event)));
    for tpl in [Tpl(0), Tpl::APPLICATION, Tpl::HIGH_LEVEL, Tpl(32)] {
        let status = bs!(create_event(signal, tpl, Some(count), null_mut(), &mut event));
        same!((tpl, status), (tpl, Status::INVALID_PARAMETER));
    }
    let unknown = EventType::from_bits_retain(0x0000_0001);
    want!(INVALID_PARAMETER, bs!(create_event(unknown, Tpl::CALLBACK, None, null_mut(), &mut event)));
    Ok(())
}

fn an_event_group_is_not_for_the_two_special_types() -> Outcome {
    let mut event = null_mut();
    for kind in [EventType::SIGNAL_EXIT_BOOT_SERVICES, EventType::SIGNAL_VIRTUAL_ADDRESS_CHANGE] {
        let status = bs!(create_event_ex(kind, Tpl::CALLBACK, Some(count), null(), &OURS, &mut event));
        same!(status, Status::INVALID_PARAMETER);
    }
    Ok(())
}

fn a_signal_notifies_at_once() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let event = counting_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    want!(SUCCESS, bs!(signal_event(event)));
    same!(COUNT.load(Ordering::SeqCst), 1);
    want!(SUCCESS, bs!(signal_event(event)));
    same!(COUNT.load(Ordering::SeqCst), 2);
    want!(SUCCESS, close(event));
    Ok(())
}

fn a_signal_waits_for_its_level() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let event = counting_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    let tpl = bs!(raise_tpl(Tpl::NOTIFY));
    let status = bs!(signal_event(event));
    let early = COUNT.load(Ordering::SeqCst);
    bs!(restore_tpl(Tpl::CALLBACK));
    let still_early = COUNT.load(Ordering::SeqCst);
    bs!(restore_tpl(tpl));
    want!(SUCCESS, status);
    same!((early, still_early, COUNT.load(Ordering::SeqCst)), (0, 0, 1));
    want!(SUCCESS, close(event));
    Ok(())
}

fn an_event_signaled_twice_is_notified_once() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let event = counting_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    let tpl = bs!(raise_tpl(Tpl::NOTIFY));
    for _ in 0..3 {
        let _ = bs!(signal_event(event));
    }
    bs!(restore_tpl(tpl));
    same!(COUNT.load(Ordering::SeqCst), 1);
    want!(SUCCESS, close(event));
    Ok(())
}

static ORDER: AtomicUsize = AtomicUsize::new(0);

/// Appends the context, a small number, to [`ORDER`] as a hexadecimal digit.
unsafe extern "efiapi" fn note(_event: Event, context: *mut c_void) {
    let _ = ORDER.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |order| Some(order << 4 | context.addr()));
}

fn noting_event(tpl: Tpl, number: usize) -> Event {
    let mut event = null_mut();
    let context = core::ptr::without_provenance_mut(number);
    let _ = bs!(create_event(EventType::NOTIFY_SIGNAL, tpl, Some(note), context, &mut event));
    event
}

fn notifications_run_from_high_to_low_and_in_order() -> Outcome {
    ORDER.store(0, Ordering::SeqCst);
    let events = [(Tpl::CALLBACK, 3), (Tpl::NOTIFY, 1), (Tpl::CALLBACK, 4), (Tpl::NOTIFY, 2)]
        .map(|(tpl, number)| noting_event(tpl, number));
    let tpl = bs!(raise_tpl(Tpl::HIGH_LEVEL));
    for event in events {
        let _ = bs!(signal_event(event));
    }
    bs!(restore_tpl(tpl));
    for event in events {
        want!(SUCCESS, close(event));
    }
    same!(ORDER.load(Ordering::SeqCst), 0x1234);
    Ok(())
}

unsafe extern "efiapi" fn note_level(_event: Event, context: *mut c_void) {
    efi!((*context.cast::<AtomicUsize>()).store(level().0, Ordering::SeqCst));
}

fn a_notification_runs_at_its_level() -> Outcome {
    static LEVEL: AtomicUsize = AtomicUsize::new(0);
    for tpl in [Tpl::CALLBACK, Tpl::NOTIFY] {
        let (mut event, context) = (null_mut(), (&raw const LEVEL).cast_mut().cast());
        want!(SUCCESS, bs!(create_event(EventType::NOTIFY_SIGNAL, tpl, Some(note_level), context, &mut event)));
        want!(SUCCESS, bs!(signal_event(event)));
        want!(SUCCESS, close(event));
        same!(LEVEL.load(Ordering::SeqCst), tpl.0);
        same!(level(), Tpl::APPLICATION);
    }
    Ok(())
}

fn check_event_takes_the_signal() -> Outcome {
    let event = plain_event(EventType::empty());
    want!(NOT_READY, bs!(check_event(event)));
    want!(SUCCESS, bs!(signal_event(event)));
    want!(SUCCESS, bs!(signal_event(event)));
    want!(SUCCESS, bs!(check_event(event)));
    want!(NOT_READY, bs!(check_event(event)));
    want!(SUCCESS, close(event));
    Ok(())
}

unsafe extern "efiapi" fn signal_third_time(event: Event, context: *mut c_void) {
    let times = efi!((*context.cast::<AtomicUsize>()).fetch_add(1, Ordering::SeqCst));
    if times == 2 {
        let _ = bs!(signal_event(event));
    }
}

fn waiting_event(counter: &'static AtomicUsize) -> Event {
    counter.store(0, Ordering::SeqCst);
    let (mut event, context) = (null_mut(), core::ptr::from_ref(counter).cast_mut().cast());
    let _ = bs!(create_event(EventType::NOTIFY_WAIT, Tpl::CALLBACK, Some(signal_third_time), context, &mut event));
    event
}

fn check_event_asks_the_notify_wait_function() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let event = waiting_event(&COUNT);
    want!(NOT_READY, bs!(check_event(event)));
    want!(NOT_READY, bs!(check_event(event)));
    same!(COUNT.load(Ordering::SeqCst), 2);
    want!(SUCCESS, bs!(check_event(event)));
    want!(SUCCESS, close(event));
    Ok(())
}

fn check_event_refuses_notify_signal_events() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let event = counting_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    want!(INVALID_PARAMETER, bs!(check_event(event)));
    want!(SUCCESS, close(event));
    Ok(())
}

fn wait_for_event_returns_the_first_signaled() -> Outcome {
    let events = [plain_event(EventType::empty()), plain_event(EventType::empty()), plain_event(EventType::empty())];
    want!(SUCCESS, bs!(signal_event(events[2])));
    want!(SUCCESS, bs!(signal_event(events[1])));
    let mut index = 9;
    want!(SUCCESS, bs!(wait_for_event(3, events.as_ptr(), &mut index)));
    same!(index, 1);
    want!(SUCCESS, bs!(wait_for_event(3, events.as_ptr(), &mut index)));
    same!(index, 2);
    for event in events {
        want!(NOT_READY, bs!(check_event(event)));
        want!(SUCCESS, close(event));
    }
    Ok(())
}

fn wait_for_event_asks_the_notify_wait_function() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let event = waiting_event(&COUNT);
    let mut index = 9;
    want!(SUCCESS, bs!(wait_for_event(1, &event, &mut index)));
    same!((index, COUNT.load(Ordering::SeqCst)), (0, 3));
    want!(SUCCESS, close(event));
    Ok(())
}

fn wrong_arguments_of_wait_for_event_are_refused() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let plain = plain_event(EventType::empty());
    let signal = counting_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    let mut index = 9;
    want!(INVALID_PARAMETER, bs!(wait_for_event(0, &plain, &mut index)));
    want!(INVALID_PARAMETER, bs!(wait_for_event(1, &plain, null_mut())));
    want!(INVALID_PARAMETER, bs!(wait_for_event(1, null(), &mut index)));
    let events = [plain, signal];
    want!(INVALID_PARAMETER, bs!(wait_for_event(2, events.as_ptr(), &mut index)));
    same!(index, 1);
    let tpl = bs!(raise_tpl(Tpl::CALLBACK));
    let status = bs!(wait_for_event(1, &plain, &mut index));
    bs!(restore_tpl(tpl));
    want!(UNSUPPORTED, status);
    want!(SUCCESS, close(plain));
    want!(SUCCESS, close(signal));
    Ok(())
}

fn a_closed_event_is_not_notified() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let event = counting_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    let tpl = bs!(raise_tpl(Tpl::NOTIFY));
    let _ = bs!(signal_event(event));
    let status = close(event);
    bs!(restore_tpl(tpl));
    want!(SUCCESS, status);
    same!(COUNT.load(Ordering::SeqCst), 0);
    Ok(())
}

fn a_closed_event_is_unknown() -> Outcome {
    let event = plain_event(EventType::TIMER);
    want!(SUCCESS, close(event));
    want!(INVALID_PARAMETER, close(event));
    want!(INVALID_PARAMETER, bs!(check_event(event)));
    want!(INVALID_PARAMETER, bs!(set_timer(event, TimerDelay::CANCEL, 0)));
    want!(INVALID_PARAMETER, close(null_mut()));
    Ok(())
}

fn every_event_of_a_group_is_signaled() -> Outcome {
    static COUNTS: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    let mut events = [null_mut(); 3];
    for ((event, counter), group) in events.iter_mut().zip(&COUNTS).zip([&OURS, &OURS, &OURS_TOO]) {
        let context = core::ptr::from_ref(counter).cast();
        let kind = EventType::NOTIFY_SIGNAL;
        want!(SUCCESS, bs!(create_event_ex(kind, Tpl::CALLBACK, Some(count), context, group, event)));
    }
    want!(SUCCESS, bs!(signal_event(events[0])));
    let counts = COUNTS.each_ref().map(|count| count.load(Ordering::SeqCst));
    for event in events {
        want!(SUCCESS, close(event));
    }
    same!(counts, [1, 1, 0]);
    let mut event = null_mut();
    let kind = EventType::NOTIFY_SIGNAL;
    want!(
        SUCCESS,
        bs!(create_event_ex(kind, Tpl::CALLBACK, Some(count), (&raw const COUNTS).cast(), &READY_TO_BOOT, &mut event))
    );
    want!(SUCCESS, close(event));
    Ok(())
}

fn wrong_arguments_of_set_timer_are_refused() -> Outcome {
    let plain = plain_event(EventType::empty());
    let timer = plain_event(EventType::TIMER);
    want!(INVALID_PARAMETER, bs!(set_timer(plain, TimerDelay::RELATIVE, MILLISECOND)));
    want!(INVALID_PARAMETER, bs!(set_timer(null_mut(), TimerDelay::RELATIVE, MILLISECOND)));
    want!(INVALID_PARAMETER, bs!(set_timer(timer, TimerDelay(3), MILLISECOND)));
    want!(SUCCESS, close(plain));
    want!(SUCCESS, close(timer));
    Ok(())
}

fn a_relative_timer_fires_once_and_in_time() -> Outcome {
    let timer = plain_event(EventType::TIMER);
    let (mut index, start) = (0, tsc());
    want!(SUCCESS, bs!(set_timer(timer, TimerDelay::RELATIVE, 20 * MILLISECOND)));
    want!(SUCCESS, bs!(wait_for_event(1, &timer, &mut index)));
    let took = (tsc() - start) * 10 / ticks_per_millisecond();
    busy(50);
    want!(NOT_READY, bs!(check_event(timer)));
    want!(SUCCESS, close(timer));
    check!((195..2000).contains(&took), "20 ms took {}.{} ms", took / 10, took % 10);
    Ok(())
}

fn a_timer_without_delay_fires_soon() -> Outcome {
    let timer = plain_event(EventType::TIMER);
    let mut index = 0;
    let start = tsc();
    want!(SUCCESS, bs!(set_timer(timer, TimerDelay::RELATIVE, 0)));
    want!(SUCCESS, bs!(wait_for_event(1, &timer, &mut index)));
    let took = (tsc() - start) / ticks_per_millisecond();
    want!(SUCCESS, close(timer));
    check!(took < 100, "{took} ms");
    Ok(())
}

fn a_periodic_timer_fires_again_and_again() -> Outcome {
    let timer = plain_event(EventType::TIMER);
    let mut index = 0;
    let start = tsc();
    want!(SUCCESS, bs!(set_timer(timer, TimerDelay::PERIODIC, 5 * MILLISECOND)));
    for _ in 0..10 {
        want!(SUCCESS, bs!(wait_for_event(1, &timer, &mut index)));
    }
    let took = (tsc() - start) / ticks_per_millisecond();
    want!(SUCCESS, bs!(set_timer(timer, TimerDelay::CANCEL, 0)));
    want!(SUCCESS, close(timer));
    check!((45..1000).contains(&took), "10 times 5 ms took {took} ms");
    Ok(())
}

fn a_cancelled_timer_does_not_fire() -> Outcome {
    let timer = plain_event(EventType::TIMER);
    want!(SUCCESS, bs!(set_timer(timer, TimerDelay::RELATIVE, 20 * MILLISECOND)));
    want!(SUCCESS, bs!(set_timer(timer, TimerDelay::CANCEL, 0)));
    busy(50);
    want!(NOT_READY, bs!(check_event(timer)));
    want!(SUCCESS, close(timer));
    Ok(())
}

fn timers_fire_while_the_program_computes() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let timer = counting_event(EventType::TIMER | EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    want!(SUCCESS, bs!(set_timer(timer, TimerDelay::PERIODIC, 2 * MILLISECOND)));
    busy(100);
    want!(SUCCESS, close(timer));
    let count = COUNT.load(Ordering::SeqCst);
    check!((5..=60).contains(&count), "{count} times in 100 ms");
    busy(10);
    same!(COUNT.load(Ordering::SeqCst), count);
    Ok(())
}

fn timers_wait_while_the_level_is_high() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let timer = counting_event(EventType::TIMER | EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    for tpl in [Tpl::CALLBACK, Tpl::NOTIFY, Tpl::HIGH_LEVEL] {
        COUNT.store(0, Ordering::SeqCst);
        let before = bs!(raise_tpl(tpl));
        let _ = bs!(set_timer(timer, TimerDelay::RELATIVE, MILLISECOND));
        busy(20);
        let early = COUNT.load(Ordering::SeqCst);
        bs!(restore_tpl(before));
        busy(20);
        same!((tpl, early, COUNT.load(Ordering::SeqCst)), (tpl, 0, 1));
    }
    want!(SUCCESS, close(timer));
    Ok(())
}

static DEEPEST: AtomicUsize = AtomicUsize::new(usize::MAX);
/// How often each slow notification runs.
const ROUNDS: usize = 40;

/// Takes 3 ms, so that a timer of 1 ms is always due again, and notes how deep the stack is. Stops its timer in the end.
unsafe extern "efiapi" fn slow(event: Event, context: *mut c_void) {
    let here = 0u8;
    DEEPEST.fetch_min((&raw const here).addr(), Ordering::SeqCst);
    busy(3);
    if efi!((*context.cast::<AtomicUsize>()).fetch_add(1, Ordering::SeqCst)) + 1 == ROUNDS {
        let _ = bs!(set_timer(event, TimerDelay::CANCEL, 0));
    }
}

fn nested_timers_do_not_grow_the_stack() -> Outcome {
    static COUNTS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
    let here = 0u8;
    let counts = || COUNTS.each_ref().map(|count| count.load(Ordering::SeqCst));
    let finished = || counts().iter().all(|count| (ROUNDS..=ROUNDS + 1).contains(count));
    let mut events = [null_mut(); 4];
    for ((event, counter), tpl) in
        events.iter_mut().zip(&COUNTS).zip([Tpl::CALLBACK, Tpl::CALLBACK, Tpl::NOTIFY, Tpl::NOTIFY])
    {
        let kind = EventType::TIMER | EventType::NOTIFY_SIGNAL;
        let context = core::ptr::from_ref(counter).cast_mut().cast();
        want!(SUCCESS, bs!(create_event(kind, tpl, Some(slow), context, event)));
    }
    let tpl = bs!(raise_tpl(Tpl::NOTIFY));
    for event in events {
        let _ = bs!(set_timer(event, TimerDelay::PERIODIC, MILLISECOND));
    }
    bs!(restore_tpl(tpl));
    for _ in 0..100 {
        if finished() {
            break;
        }
        busy(10);
    }
    for event in events {
        want!(SUCCESS, close(event));
    }
    // A timer may be due once more before its notification stops it.
    check!(finished(), "{:?} notifications", counts());
    let depth = (&raw const here).addr() - DEEPEST.load(Ordering::SeqCst);
    check!(depth < 16 * 1024, "{depth} bytes of stack");
    Ok(())
}

fn a_hundred_timers_fire() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let kind = EventType::TIMER | EventType::NOTIFY_SIGNAL;
    let mut timers = alloc::vec::Vec::new();
    for number in 0..100 {
        let timer = counting_event(kind, Tpl::CALLBACK, &COUNT);
        want!(SUCCESS, bs!(set_timer(timer, TimerDelay::RELATIVE, (5 + number % 7) * MILLISECOND)));
        timers.push(timer);
    }
    busy(100);
    for timer in timers {
        want!(SUCCESS, close(timer));
    }
    same!(COUNT.load(Ordering::SeqCst), 100);
    Ok(())
}
