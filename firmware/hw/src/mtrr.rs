//! Memory type range registers (Intel SDM vol. 3 §12.11), as far as the first steps need them.
//!
//! hvmloader sets them up on all virtual CPUs: write-back by default, uncached from the first PCI window to 4 GiB. The firmware
//! leaves them as they are, so that all CPUs stay equal; it lifts them only for the moment in which it copies itself out of the
//! uncached space.

use core::arch::x86_64::__cpuid;

use x86_64::registers::model_specific::Msr;

const CAPABILITIES: u32 = 0xFE;
const COUNT: u64 = 0xFF;
/// First range; base and mask of each follow each other.
const FIRST_BASE: u32 = 0x200;
const VALID: u64 = 1 << 11;
const TYPE: u64 = 0xFF;
const UNCACHED: u64 = 0;
/// More ranges than any CPU has.
const RANGES_MAX: usize = 16;

/// While this lives, no range is uncached; dropping it brings back what was.
#[derive(Debug)]
pub struct AllCached {
    masks: [Option<u64>; RANGES_MAX],
}

impl AllCached {
    /// Switches the uncached ranges off. No device may be used until the value is dropped.
    pub fn begin() -> Self {
        let mut masks = [None; RANGES_MAX];
        if !has_mtrrs() {
            return Self { masks };
        }
        // SAFETY: the CPU has these registers.
        let count = unsafe { Msr::new(CAPABILITIES).read() } & COUNT;
        for (index, saved) in masks.iter_mut().enumerate().take(count as usize) {
            // SAFETY: the CPU has a range of this number.
            let (base, mask) = unsafe { (base(index).read(), mask(index).read()) };
            if mask & VALID != 0 && base & TYPE == UNCACHED {
                *saved = Some(mask);
                // SAFETY: only switches the range off: its memory is cached as by default.
                unsafe { self::mask(index).write(mask & !VALID) };
            }
        }
        Self { masks }
    }
}

impl Drop for AllCached {
    fn drop(&mut self) {
        for (index, saved) in self.masks.iter().enumerate() {
            if let Some(saved) = saved {
                // SAFETY: the value the register had.
                unsafe { mask(index).write(*saved) };
            }
        }
    }
}

fn has_mtrrs() -> bool {
    __cpuid(1).edx & (1 << 12) != 0
}

const fn base(range: usize) -> Msr {
    Msr::new(FIRST_BASE + range as u32 * 2)
}

const fn mask(range: usize) -> Msr {
    Msr::new(FIRST_BASE + range as u32 * 2 + 1)
}
