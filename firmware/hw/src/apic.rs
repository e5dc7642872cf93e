//! The local APIC as a one-shot timer: x2APIC registers where the CPU has them, the memory window otherwise.

use x86_64::registers::model_specific::Msr;

/// IA32_APIC_BASE.
const BASE: u32 = 0x1B;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// First x2APIC register; register at window offset `o` is `0x800 + o / 16`.
const X2APIC_FIRST: u32 = 0x800;

const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xB0;
const SPURIOUS: u32 = 0xF0;
const SPURIOUS_ENABLE: u32 = 1 << 8;
const IN_SERVICE: u32 = 0x100;
const TIMER: u32 = 0x320;
const LINT0: u32 = 0x350;
const LINT1: u32 = 0x360;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3E0;
const MASKED: u32 = 1 << 16;
/// Divide by 16: a 100 MHz clock then runs 687 s to the end of the counter.
const DIVIDE_BY_16: u32 = 0b0011;

/// Access to the local APIC of this CPU.
#[derive(Clone, Copy, Debug)]
pub struct LocalApic {
    window: Option<u64>,
    /// What the interrupt inputs were set to: of an HVM guest, the PIC's interrupts.
    inputs: [u32; 2],
}

impl LocalApic {
    /// Enables the APIC with everything masked; `spurious` is the vector for spurious interrupts.
    ///
    /// # Safety
    /// The IDT must serve `spurious`, and the APIC's window must be mapped.
    pub unsafe fn enable(spurious: u8) -> Self {
        let mut base = Msr::new(BASE);
        // SAFETY: the APIC base register exists on every 64-bit CPU.
        let value = unsafe { base.read() };
        let mut apic = if value & BASE_X2APIC != 0 {
            Self { window: None, inputs: [MASKED; 2] }
        } else {
            // SAFETY: only sets the enable bit.
            unsafe { base.write(value | BASE_ENABLE) };
            Self { window: Some(value & BASE_ADDRESS), inputs: [MASKED; 2] }
        };
        apic.inputs = [apic.read(LINT0), apic.read(LINT1)];
        apic.write(TASK_PRIORITY, 0);
        apic.write(TIMER, MASKED);
        apic.write(LINT0, MASKED);
        apic.write(LINT1, MASKED);
        apic.write(DIVIDE, DIVIDE_BY_16);
        apic.write(SPURIOUS, SPURIOUS_ENABLE | u32::from(spurious));
        apic
    }

    /// Lets the timer interrupt with `vector` when it reaches zero, once.
    pub fn arm_with(&self, vector: u8) {
        self.write(TIMER, vector.into());
    }

    /// Starts the timer; it interrupts after `count` ticks. 0 stops it.
    pub fn start_timer(&self, count: u32) {
        self.write(INITIAL_COUNT, count);
    }

    /// Ticks until the timer's interrupt.
    pub fn remaining(&self) -> u32 {
        self.read(CURRENT_COUNT)
    }

    /// Tells the APIC that the interrupt in service is done.
    pub fn end_of_interrupt(&self) {
        self.write(END_OF_INTERRUPT, 0);
    }

    /// Stops and masks the timer, completes what is in service and gives the interrupt inputs back, for the hand-over to the
    /// operating system.
    pub fn quiesce(&self) {
        self.write(LINT0, self.inputs[0]);
        self.write(LINT1, self.inputs[1]);
        self.write(TIMER, MASKED);
        self.write(INITIAL_COUNT, 0);
        for register in 0..8 {
            let mut in_service = self.read(IN_SERVICE + register * 0x10);
            while in_service != 0 {
                self.end_of_interrupt();
                in_service &= in_service - 1;
            }
        }
    }

    fn read(&self, register: u32) -> u32 {
        match self.window {
            // SAFETY: the window is mapped, the register exists and reading it has no effect.
            Some(window) => unsafe { ((window + u64::from(register)) as *const u32).read_volatile() },
            // SAFETY: the register exists in x2APIC mode.
            None => unsafe { Msr::new(X2APIC_FIRST + register / 16).read() as u32 },
        }
    }

    fn write(&self, register: u32, value: u32) {
        match self.window {
            // SAFETY: the window is mapped; values are those the register takes.
            Some(window) => unsafe { ((window + u64::from(register)) as *mut u32).write_volatile(value) },
            // SAFETY: the register exists in x2APIC mode; values are those it takes.
            None => unsafe { Msr::new(X2APIC_FIRST + register / 16).write(value.into()) },
        }
    }
}
