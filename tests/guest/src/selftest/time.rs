//! Stall, the watchdog, monotonic counts (UEFI 2.10 §7.5) and the clock (§8.3).

use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use guest::tsc;
use uefi_raw::table::runtime::TimeCapabilities;
use uefi_raw::time::Time;

use crate::harness::{Outcome, Test};

pub const TESTS: &[Test] = tests![
    the_clock_shows_a_time_of_our_days,
    the_clock_tells_its_capabilities,
    the_clock_runs_as_fast_as_stall,
    stall_takes_the_time_asked_for,
    stall_of_nothing_returns_at_once,
    wrong_arguments_of_the_time_services_are_refused,
    the_clock_can_be_set,
    monotonic_counts_rise,
    the_high_monotonic_count_rises,
    the_watchdog_can_be_set_and_cleared,
];

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Ticks of the time stamp counter in a millisecond, by Stall: the shortest of some, as others may use the processor meanwhile.
pub fn ticks_per_millisecond() -> u64 {
    static TICKS: AtomicU64 = AtomicU64::new(0);
    if TICKS.load(Ordering::Relaxed) == 0 {
        let stalls = (0..8).map(|_| {
            let start = tsc();
            let _ = bs!(stall(10_000));
            (tsc() - start) / 10
        });
        TICKS.store(stalls.min().unwrap_or(1), Ordering::Relaxed);
    }
    TICKS.load(Ordering::Relaxed)
}

/// The time now.
pub fn now() -> Result<Time, alloc::string::String> {
    let mut time = Time::invalid();
    let status = rs!(get_time(&mut time, null_mut()));
    if status.is_success() { Ok(time) } else { Err(alloc::format!("GetTime: {status:?}")) }
}

/// Seconds since some day of the distant past, good enough for differences.
pub fn seconds(time: &Time) -> u64 {
    let (year, month) = if time.month > 2 { (time.year, time.month - 3) } else { (time.year - 1, time.month + 9) };
    let (year, month, day) = (u64::from(year), u64::from(month), u64::from(time.day));
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    days * DAY + u64::from(time.hour) * HOUR + u64::from(time.minute) * 60 + u64::from(time.second)
}

pub fn the_clock_shows_a_time_of_our_days() -> Outcome {
    let time = now()?;
    check!(time.is_valid() && (2024..2100).contains(&time.year), "{time:?}");
    Ok(())
}

fn the_clock_tells_its_capabilities() -> Outcome {
    let (mut time, mut capabilities) = (Time::invalid(), TimeCapabilities::default());
    want!(SUCCESS, rs!(get_time(&mut time, &mut capabilities)));
    check!(capabilities.resolution >= 1, "{capabilities:?}");
    Ok(())
}

fn the_clock_runs_as_fast_as_stall() -> Outcome {
    let before = now()?;
    want!(SUCCESS, bs!(stall(2_100_000)));
    let took = seconds(&now()?) - seconds(&before);
    check!((2..=6).contains(&took), "{took} s by the clock while 2.1 s passed");
    Ok(())
}

fn stall_takes_the_time_asked_for() -> Outcome {
    let tick = ticks_per_millisecond();
    for milliseconds in [1, 10, 100] {
        let start = tsc();
        want!(SUCCESS, bs!(stall(milliseconds as usize * 1000)));
        let took = (tsc() - start) * 100 / tick;
        // Others may use the processor meanwhile.
        check!(
            (milliseconds * 98..milliseconds * 300 + 5000).contains(&took),
            "{milliseconds} ms took {took} / 100 ms"
        );
    }
    Ok(())
}

fn stall_of_nothing_returns_at_once() -> Outcome {
    let start = tsc();
    want!(SUCCESS, bs!(stall(0)));
    check!(tsc() - start < 50 * ticks_per_millisecond());
    Ok(())
}

fn wrong_arguments_of_the_time_services_are_refused() -> Outcome {
    want!(INVALID_PARAMETER, rs!(get_time(null_mut(), null_mut())));
    want!(INVALID_PARAMETER, rs!(set_time(null())));
    let good = now()?;
    for bad in [
        Time { year: 1, ..good },
        Time { month: 13, ..good },
        Time { month: 2, day: 30, ..good },
        Time { hour: 24, ..good },
        Time { second: 60, ..good },
        Time { nanosecond: 1_000_000_000, ..good },
        Time { time_zone: 1441, ..good },
    ] {
        want!(INVALID_PARAMETER, rs!(set_time(&bad)));
    }
    Ok(())
}

fn the_clock_can_be_set() -> Outcome {
    let before = now()?;
    let other = Time { year: 2031, month: 3, day: 4, hour: 5, minute: 6, second: 7, nanosecond: 0, ..before };
    let status = rs!(set_time(&other));
    if status == uefi_raw::Status::UNSUPPORTED {
        return Ok(());
    }
    let after = now()?;
    let back = rs!(set_time(&before));
    want!(SUCCESS, status);
    want!(SUCCESS, back);
    let late = seconds(&after).wrapping_sub(seconds(&other));
    check!(late < 5, "set to {other:?}, then {after:?}");
    Ok(())
}

fn monotonic_counts_rise() -> Outcome {
    let (mut first, mut second) = (0, 0);
    want!(SUCCESS, bs!(get_next_monotonic_count(&mut first)));
    want!(SUCCESS, bs!(get_next_monotonic_count(&mut second)));
    check!(second > first, "{first:#x}, then {second:#x}");
    want!(INVALID_PARAMETER, bs!(get_next_monotonic_count(null_mut())));
    Ok(())
}

fn the_high_monotonic_count_rises() -> Outcome {
    let (mut count, mut high, mut higher) = (0, 0, 0);
    want!(SUCCESS, bs!(get_next_monotonic_count(&mut count)));
    want!(SUCCESS, rs!(get_next_high_monotonic_count(&mut high)));
    want!(SUCCESS, rs!(get_next_high_monotonic_count(&mut higher)));
    same!((u64::from(high), higher), ((count >> 32) + 1, high + 1));
    want!(INVALID_PARAMETER, rs!(get_next_high_monotonic_count(null_mut())));
    Ok(())
}

fn the_watchdog_can_be_set_and_cleared() -> Outcome {
    const CODE: u64 = 0x1_0000;
    want!(SUCCESS, bs!(set_watchdog_timer(600, CODE, 0, null())));
    want!(SUCCESS, bs!(set_watchdog_timer(0, CODE, 0, null())));
    Ok(())
}
