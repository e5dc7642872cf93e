//! ResetSystem (UEFI 2.10 §8.5.1): Xen ends the domain, or starts it anew.

use core::arch::asm;

use handoff::HypercallInstruction;
use uefi_raw::Status;
use uefi_raw::table::runtime::ResetType;
use xen_abi::{
    __HYPERVISOR_sched_op, SCHEDOP_shutdown, SHUTDOWN_crash, SHUTDOWN_poweroff, SHUTDOWN_reboot, sched_shutdown,
};

use super::state;

/// ResetSystem. Types that UEFI does not define reset, as a platform-specific reset does.
pub unsafe extern "efiapi" fn reset_system(kind: ResetType, _: Status, _: usize, _: *const u8) -> ! {
    shut_down(if kind == ResetType::SHUTDOWN { SHUTDOWN_poweroff } else { SHUTDOWN_reboot })
}

/// Ends the domain as crashed.
pub fn crash() -> ! {
    shut_down(SHUTDOWN_crash)
}

fn shut_down(reason: u32) -> ! {
    let handoff = state::handoff();
    if !handoff.is_null() {
        // Linear addresses are what Xen takes, so the argument is good under any page tables.
        let argument = sched_shutdown { reason };
        // SAFETY: not null means valid; the instruction is the processor's, as the core found out.
        unsafe { hypercall((*handoff).hypercall, __HYPERVISOR_sched_op, SCHEDOP_shutdown, &raw const argument) };
    }
    loop {
        // SAFETY: waits for an interrupt; nothing else is left to do.
        unsafe { asm!("hlt", options(nomem, nostack)) }
    }
}

/// # Safety
/// `instruction` must be one that the processor has; `argument` must be what the operation takes.
unsafe fn hypercall(instruction: HypercallInstruction, number: u32, operation: u32, argument: *const sched_shutdown) {
    // SAFETY: 64-bit hypercall convention (`public/arch-x86/xen-x86_64.h`); the caller vouches for the rest.
    unsafe {
        match instruction {
            HypercallInstruction::None => {}
            HypercallInstruction::Vmcall => asm!(
                "vmcall",
                inout("rax") u64::from(number) => _, inout("rdi") u64::from(operation) => _, inout("rsi") argument => _,
                options(nostack)
            ),
            HypercallInstruction::Vmmcall => asm!(
                "vmmcall",
                inout("rax") u64::from(number) => _, inout("rdi") u64::from(operation) => _, inout("rsi") argument => _,
                options(nostack)
            ),
        }
    }
}
