//! Stand-ins for tests on the host: a scripted machine, and memory for the one core.
#![expect(clippy::expect_used, reason = "a fake is part of a test")]

use std::alloc::{Layout, alloc};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::vec::Vec;

use uefi_raw::table::boot::MemoryType;
use uefi_raw::time::{Daylight, Time};

use crate::abi::CORE;
use crate::hardware::{Hardware, Protection, Reset};
use crate::memory::PAGE;
use crate::memory::map::RAM_CAPABILITIES;
use crate::{Result, Status};

/// Memory that [`install`] gives the one core.
const RAM: usize = 64 << 20;
/// What an idle CPU waits for at the most, in units of 100 ns.
const LONGEST_IDLE: u64 = 100_000;

/// A machine whose clock moves only when somebody waits.
#[derive(Default)]
pub struct FakeHardware {
    state: Mutex<State>,
    /// The timer interrupt's handler; runs when a wait passes the armed deadline.
    tick: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct State {
    now: u64,
    armed: Option<u64>,
    arm_calls: Vec<Option<u64>>,
    protection: BTreeMap<u64, Protection>,
    protect_fails: bool,
    reset: Option<Reset>,
}

impl FakeHardware {
    /// A machine with a timer interrupt.
    pub fn new(tick: impl Fn() + Send + Sync + 'static) -> Self {
        Self { tick: Some(Box::new(tick)), ..Self::default() }
    }

    /// Lets time pass (units of 100 ns), with a timer interrupt at each deadline on the way.
    pub fn pass(&self, time: u64) {
        let end = self.state().now + time;
        loop {
            let mut state = self.state();
            match state.armed {
                Some(deadline) if deadline <= end => {
                    state.now = state.now.max(deadline);
                    state.armed = None;
                    drop(state);
                    if let Some(tick) = &self.tick {
                        tick();
                    }
                }
                _ => {
                    state.now = state.now.max(end);
                    return;
                }
            }
        }
    }

    /// The deadline the timer is armed for.
    pub fn armed(&self) -> Option<u64> {
        self.state().armed
    }

    /// Every call of `arm_timer` since this was last asked.
    pub fn take_arm_calls(&self) -> Vec<Option<u64>> {
        core::mem::take(&mut self.state().arm_calls)
    }

    /// Lets the next changes of access rights fail.
    pub fn fail_protect(&self, fail: bool) {
        self.state().protect_fails = fail;
    }

    /// How the machine was reset, if it was.
    pub fn was_reset(&self) -> Option<Reset> {
        self.state().reset
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hardware for FakeHardware {
    fn now(&self) -> u64 {
        self.state().now
    }

    fn arm_timer(&self, deadline: Option<u64>) {
        let mut state = self.state();
        state.armed = deadline;
        state.arm_calls.push(deadline);
    }

    fn stall(&self, microseconds: usize) {
        self.pass(microseconds as u64 * 10);
    }

    fn idle(&self) {
        let state = self.state();
        let wait = state.armed.map_or(LONGEST_IDLE, |deadline| deadline.saturating_sub(state.now).min(LONGEST_IDLE));
        drop(state);
        self.pass(wait);
    }

    fn protect(&self, address: u64, pages: u64, protection: Protection) -> Result<()> {
        let mut state = self.state();
        if state.protect_fails {
            return Err(Status::OUT_OF_RESOURCES);
        }
        for page in 0..pages {
            state.protection.insert(address + page * PAGE, protection);
        }
        Ok(())
    }

    fn protection(&self, address: u64) -> Result<Protection> {
        let ordinary = Protection { execute_protect: true, ..Protection::default() };
        Ok(self.state().protection.get(&(address & !(PAGE - 1))).copied().unwrap_or(ordinary))
    }

    fn time(&self) -> Result<Time> {
        Ok(Time {
            year: 2024,
            month: 2,
            day: 29,
            hour: 12,
            minute: 0,
            second: 0,
            pad1: 0,
            nanosecond: 0,
            time_zone: Time::UNSPECIFIED_TIMEZONE,
            daylight: Daylight::empty(),
            pad2: 0,
        })
    }

    fn reset(&self, how: Reset) -> ! {
        self.state().reset = Some(how);
        panic!("reset: {how:?}");
    }

    fn random(&self, into: &mut [u8]) -> Result<()> {
        for (index, byte) in into.iter_mut().enumerate() {
            *byte = index as u8 ^ 0x5A;
        }
        Ok(())
    }
}

/// As [`install`]; keeps other tests that ask for this away from the one core until it is dropped. For tests that change
/// its task priority level or look at what others may change.
pub fn install_exclusive() -> (&'static FakeHardware, MutexGuard<'static, ()>) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    (install(), guard)
}

/// Gives the one core a machine and memory, once per process; every test that uses the [`api`](crate::api) may call it.
pub fn install() -> &'static FakeHardware {
    static HARDWARE: OnceLock<FakeHardware> = OnceLock::new();
    static SET: Once = Once::new();
    let hardware = HARDWARE.get_or_init(|| {
        let layout = Layout::from_size_align(RAM, 1 << 16).expect("a valid layout");
        // SAFETY: not empty. Never freed.
        let base = unsafe { alloc(layout) };
        assert!(!base.is_null(), "no memory for the test");
        let start = base.expose_provenance() as u64;
        CORE.memory
            .with(|memory| memory.add(start..start + RAM as u64, MemoryType::CONVENTIONAL, RAM_CAPABILITIES))
            .expect("memory of a new core");
        FakeHardware::new(crate::abi::event::timer_tick)
    });
    SET.call_once(|| CORE.hardware.with(|slot| *slot = Some(hardware)));
    hardware
}
