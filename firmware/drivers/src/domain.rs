//! The domain the firmware runs in.

use core::fmt;

use hw::device::{Ports, Windows};
use hw::hypervisor::{EventPort, Hypervisor};
use hw::shared::FrameAllocator;

/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1000 * MILLISECOND;

/// Hypercalls and page frames: what every driver needs.
#[derive(Clone, Copy)]
pub struct Domain {
    /// The hypervisor.
    pub hypervisor: &'static dyn Hypervisor,
    /// Pages that can be shared.
    pub frames: &'static dyn FrameAllocator,
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Domain")
    }
}

/// The machine of an HVM guest: the domain, and what its emulated devices are reached through.
#[derive(Clone, Copy)]
pub struct EmulatedMachine {
    /// Clock, and pages for what devices read and write by themselves.
    pub domain: Domain,
    /// I/O ports.
    pub ports: &'static dyn Ports,
    /// Memory of devices.
    pub windows: &'static dyn Windows,
}

impl fmt::Debug for EmulatedMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmulatedMachine")
    }
}

impl EmulatedMachine {
    /// Looks at `check` again and again until it gives a value; `None` when `nanoseconds` have passed. For what devices do at
    /// once or nearly so: each look costs a visit to the device model, and lets it run.
    pub fn poll<T>(&self, nanoseconds: u64, mut check: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = self.domain.deadline(nanoseconds);
        loop {
            if let Some(value) = check() {
                return Some(value);
            }
            if self.domain.now() >= deadline {
                return None;
            }
            core::hint::spin_loop();
        }
    }
}

impl Domain {
    /// Xen's system time in nanoseconds.
    pub fn now(&self) -> u64 {
        self.hypervisor.system_time_ns()
    }

    /// The system time `nanoseconds` from now.
    pub fn deadline(&self, nanoseconds: u64) -> u64 {
        self.now().saturating_add(nanoseconds)
    }

    /// Waits until `check` gives a value, looking again after every event on `port`; `None` when the system time reaches
    /// `deadline` first.
    ///
    /// Works with interrupts off: the virtual CPU blocks in `SCHEDOP_poll`. An event that arrives between the check and
    /// the poll is not lost, as the pending bit is cleared before the check.
    pub fn wait_for<T>(&self, port: EventPort, deadline: u64, mut check: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            self.hypervisor.take_pending(port);
            if let Some(value) = check() {
                return Some(value);
            }
            if self.now() >= deadline {
                return None;
            }
            // A poll that fails returns at once; the loop then spins until the deadline.
            let _ = self.hypervisor.poll(port, deadline);
        }
    }
}
