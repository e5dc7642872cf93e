//! When which part of the start was done, in ticks of the TSC.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hw::xen::Xen;
use services::lock::Lock;

/// Most steps that are kept.
const STEPS: usize = 32;

static TICKS: [AtomicU64; STEPS] = [const { AtomicU64::new(0) }; STEPS];
static NAMES: Lock<[&'static str; STEPS]> = Lock::new("timeline", [""; STEPS]);
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// What a tick is worth.
static XEN: Lock<Option<&'static Xen>> = Lock::new("timeline's clock", None);

/// Lets [`nanoseconds`] tell the time by Xen's clock.
pub fn use_clock(xen: &'static Xen) {
    XEN.with(|slot| *slot = Some(xen));
}

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

/// Nanoseconds since the first step.
pub fn nanoseconds() -> u64 {
    let ticks = hw::tsc::read().wrapping_sub(TICKS[0].load(Ordering::Relaxed));
    XEN.with(|xen| xen.and_then(Xen::time_info)).map_or(0, |clock| clock.ticks_to_ns(ticks))
}

/// Prints the steps on the console.
pub fn print() {
    for (name, ticks) in steps() {
        bootmgr::live::say(&alloc::format!("timeline: {ticks:>12} {name}"));
    }
}
