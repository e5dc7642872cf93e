//! When which part of the start was done, in ticks of the TSC.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Most steps that are kept.
const STEPS: usize = 32;

static TICKS: [AtomicU64; STEPS] = [const { AtomicU64::new(0) }; STEPS];
static NAMES: services::lock::Lock<[&'static str; STEPS]> = services::lock::Lock::new("timeline", [""; STEPS]);
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Notes that a step is done now.
pub fn mark(name: &'static str) {
    mark_at(name, hw::tsc::read());
}

/// Notes that a step was done at `tsc`.
pub fn mark_at(name: &'static str, tsc: u64) {
    let index = COUNT.fetch_add(1, Ordering::Relaxed);
    if let Some(slot) = TICKS.get(index) {
        slot.store(tsc, Ordering::Relaxed);
        NAMES.with(|names| names[index] = name);
    }
}

/// The steps so far: name and ticks since the first.
pub fn steps() -> impl Iterator<Item = (&'static str, u64)> {
    let count = COUNT.load(Ordering::Relaxed).min(STEPS);
    let names = NAMES.with(|names| *names);
    let first = TICKS[0].load(Ordering::Relaxed);
    (0..count).map(move |index| (names[index], TICKS[index].load(Ordering::Relaxed).wrapping_sub(first)))
}
