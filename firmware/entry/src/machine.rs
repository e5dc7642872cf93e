//! The machine under the services: Xen's clock, the local APIC's timer, page tables, reset.

use alloc::boxed::Box;
use core::cell::Cell;

use hw::apic::LocalApic;
use hw::cpu::{self, SPURIOUS_VECTOR, TIMER_VECTOR};
use hw::hypervisor::{Hypervisor, ShutdownReason};
use hw::interrupts;
use hw::paging::{Access, PAGE, PageTables, PagingError};
use hw::pat;
use hw::xen::Xen;
use runtime::clock::Clock;
use services::hardware::{Hardware, Protection, Reset};
use services::lock::Lock;
use services::{Result, Status};
use uefi_raw::time::Time;

/// UEFI's unit of time in nanoseconds.
const UNIT_NS: u64 = 100;
/// How long the CPU sleeps at most when nothing is due, in units of 100 ns: input is polled, not signalled.
const IDLE: u64 = 10_000 * 10;
/// How long the timer is watched to find its frequency, in nanoseconds.
const CALIBRATION_NS: u64 = 500_000;

/// The machine. One of it, for the life of the firmware.
#[derive(Debug)]
pub struct Machine {
    xen: &'static Xen,
    apic: LocalApic,
    /// Timer ticks in 2^16 units of 100 ns.
    ticks_per_unit: u64,
    /// What the services want: the interrupt at this time.
    deadline: Cell<Option<u64>>,
    /// Whether the page attribute table has been changed.
    combines_writes: Cell<bool>,
    page_tables: Lock<PageTables>,
}

// SAFETY: one CPU; `deadline` is only used with interrupts disabled or by the interrupt itself.
unsafe impl Sync for Machine {}

/// For the interrupt handler, which has no argument.
static MACHINE: Lock<Option<&'static Machine>> = Lock::new("machine", None);

impl Machine {
    /// Starts the timer and enables interrupts.
    pub fn start(xen: &'static Xen, page_tables: PageTables) -> &'static Self {
        // SAFETY: exceptions and vectors are served, the APIC's window is mapped.
        let apic = unsafe { LocalApic::enable(SPURIOUS_VECTOR) };
        let machine = Box::leak(Box::new(Self {
            xen,
            apic,
            ticks_per_unit: calibrate(xen, &apic),
            deadline: Cell::new(None),
            combines_writes: Cell::new(false),
            page_tables: Lock::new("page tables", page_tables),
        }));
        MACHINE.with(|slot| *slot = Some(machine));
        apic.arm_with(TIMER_VECTOR);
        interrupts::enable();
        machine
    }

    /// Lets writes to `size` bytes of video memory be combined: hvmloader leaves device memory uncached, where each would go out
    /// by itself.
    pub fn combine_writes(&self, address: u64, size: u64) {
        pat::enable();
        self.combines_writes.set(true);
        if let Err(error) = self.page_tables.with(|tables| tables.combine_writes(address, size / PAGE)) {
            log::warn!("video memory at {address:#x} stays uncached: {error:?}");
        }
    }

    /// Leaves the CPU to the operating system: no timer, no protection. Loaders put their last pieces of code anywhere in free
    /// memory and run them on the firmware's page tables.
    pub fn quiesce(&self) {
        self.deadline.set(None);
        self.apic.quiesce();
        if self.combines_writes.get() {
            pat::disable();
        }
        self.page_tables.with(PageTables::lift);
    }

    /// Lets the timer fire at `time`, or as late as its counter reaches.
    fn program(&self, time: u64) {
        let distance = time.saturating_sub(self.now()).max(1);
        let ticks = (u128::from(distance) * u128::from(self.ticks_per_unit)) >> 16;
        self.apic.start_timer(u32::try_from(ticks).unwrap_or(u32::MAX).max(1));
    }
}

/// Timer ticks in 2^16 units of 100 ns, measured against Xen's clock.
fn calibrate(xen: &Xen, apic: &LocalApic) -> u64 {
    apic.start_timer(u32::MAX);
    let start = xen.system_time_ns();
    let first = apic.remaining();
    let mut now = start;
    while now - start < CALIBRATION_NS {
        now = xen.system_time_ns();
    }
    let ticks = u64::from(first - apic.remaining());
    let elapsed = xen.system_time_ns() - start;
    apic.start_timer(0);
    ((ticks * UNIT_NS) << 16).checked_div(elapsed).unwrap_or(0).max(1)
}

/// The timer interrupt.
pub fn on_timer() {
    let Some(machine) = MACHINE.with(|slot| *slot) else { return };
    machine.apic.end_of_interrupt();
    match machine.deadline.get() {
        Some(deadline) if deadline > machine.now() => machine.program(deadline),
        Some(_) => {
            machine.deadline.set(None);
            services::abi::event::timer_tick();
        }
        None => {}
    }
}

impl Hardware for Machine {
    fn now(&self) -> u64 {
        self.xen.system_time_ns() / UNIT_NS
    }

    fn arm_timer(&self, deadline: Option<u64>) {
        let state = interrupts::disable();
        self.deadline.set(deadline);
        match deadline {
            Some(time) => self.program(time),
            None => self.apic.start_timer(0),
        }
        interrupts::restore(state);
    }

    fn stall(&self, microseconds: usize) {
        let end = self.xen.system_time_ns().saturating_add((microseconds as u64).saturating_mul(1000));
        while self.xen.system_time_ns() < end {
            core::hint::spin_loop();
        }
    }

    fn idle(&self) {
        let state = interrupts::disable();
        let limit = self.now() + IDLE;
        if self.deadline.get().is_none_or(|deadline| deadline > limit) {
            // An interrupt before the deadline programs it again.
            self.program(limit);
        }
        interrupts::wait();
        if !state.0 {
            let _ = interrupts::disable();
        }
    }

    fn protect(&self, address: u64, pages: u64, protection: Protection) -> Result<()> {
        let access = Access {
            present: !protection.read_protect,
            writable: !protection.read_only,
            executable: !protection.execute_protect,
        };
        self.page_tables.with(|tables| tables.protect(address, pages, access)).map_err(status)
    }

    fn protection(&self, address: u64) -> Result<Protection> {
        let access = self.page_tables.with(|tables| tables.access(address)).map_err(status)?;
        Ok(Protection {
            read_protect: !access.present,
            read_only: !access.writable,
            execute_protect: !access.executable,
        })
    }

    fn time(&self) -> Result<Time> {
        Clock::new().time(self.xen.wall_clock_ns()).map_err(|_| Status::DEVICE_ERROR)
    }

    fn reset(&self, how: Reset) -> ! {
        self.xen.shutdown(match how {
            Reset::Restart => ShutdownReason::Reboot,
            Reset::PowerOff => ShutdownReason::PowerOff,
        });
        cpu::stop()
    }

    fn random(&self, into: &mut [u8]) -> Result<()> {
        for chunk in into.chunks_mut(8) {
            let value = cpu::random().ok_or(Status::UNSUPPORTED)?.to_le_bytes();
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
        Ok(())
    }
}

fn status(error: PagingError) -> Status {
    match error {
        PagingError::NotMapped => Status::INVALID_PARAMETER,
        PagingError::OutOfTables => Status::OUT_OF_RESOURCES,
    }
}
