//! Entering an image so that Exit, called at any depth, returns from the entering.
//!
//! Two small functions in place of setjmp and longjmp: [`enter`] calls and returns once, whichever way the image ends,
//! so the compiler has nothing to know about it.

use core::arch::naked_asm;
use core::ffi::c_void;
use core::mem::offset_of;

use uefi_raw::{Handle, Status};

/// What the UEFI calling convention has a function preserve (UEFI 2.10 §2.3.4.2), as [`enter`] found it.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub(super) struct Context {
    /// XMM6 to XMM15. The firmware does not use them, but the image that called StartImage may.
    xmm: [[u64; 2]; 10],
    rbx: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rsp: u64,
    mxcsr: u32,
    x87_control: u16,
}

/// Home slots of a callee's four arguments, and 8 bytes that align the stack to 16.
const FRAME: usize = 4 * 8 + 8;

/// Calls `entry(image, system_table)` and returns what it returns, or what [`leave`] is given with the same `context`.
///
/// # Safety
/// `entry` is the entry point of an image; `context` is writable, and stays where it is until this returns.
#[unsafe(naked)]
pub(super) unsafe extern "efiapi" fn enter(
    entry: *const c_void,
    image: Handle,
    system_table: *const c_void,
    context: *mut Context,
) -> Status {
    naked_asm!(
        "mov [r9 + {rbx}], rbx",
        "mov [r9 + {rbp}], rbp",
        "mov [r9 + {rdi}], rdi",
        "mov [r9 + {rsi}], rsi",
        "mov [r9 + {r12}], r12",
        "mov [r9 + {r13}], r13",
        "mov [r9 + {r14}], r14",
        "mov [r9 + {r15}], r15",
        "mov [r9 + {rsp}], rsp",
        "stmxcsr [r9 + {mxcsr}]",
        "fnstcw [r9 + {x87}]",
        "movups [r9 + {xmm} + 0x00], xmm6",
        "movups [r9 + {xmm} + 0x10], xmm7",
        "movups [r9 + {xmm} + 0x20], xmm8",
        "movups [r9 + {xmm} + 0x30], xmm9",
        "movups [r9 + {xmm} + 0x40], xmm10",
        "movups [r9 + {xmm} + 0x50], xmm11",
        "movups [r9 + {xmm} + 0x60], xmm12",
        "movups [r9 + {xmm} + 0x70], xmm13",
        "movups [r9 + {xmm} + 0x80], xmm14",
        "movups [r9 + {xmm} + 0x90], xmm15",
        "mov rax, rcx",
        "mov rcx, rdx",
        "mov rdx, r8",
        "sub rsp, {frame}",
        "call rax",
        "add rsp, {frame}",
        "ret",
        rbx = const offset_of!(Context, rbx),
        rbp = const offset_of!(Context, rbp),
        rdi = const offset_of!(Context, rdi),
        rsi = const offset_of!(Context, rsi),
        r12 = const offset_of!(Context, r12),
        r13 = const offset_of!(Context, r13),
        r14 = const offset_of!(Context, r14),
        r15 = const offset_of!(Context, r15),
        rsp = const offset_of!(Context, rsp),
        mxcsr = const offset_of!(Context, mxcsr),
        x87 = const offset_of!(Context, x87_control),
        xmm = const offset_of!(Context, xmm),
        frame = const FRAME,
    )
}

/// Makes the [`enter`] that filled `context` return `status`. All frames called from it are gone.
///
/// # Safety
/// That [`enter`] has not returned, and no frame between owns anything that has to be dropped or given back.
#[unsafe(naked)]
pub(super) unsafe extern "efiapi" fn leave(context: *const Context, status: Status) -> ! {
    naked_asm!(
        "mov rbx, [rcx + {rbx}]",
        "mov rbp, [rcx + {rbp}]",
        "mov rdi, [rcx + {rdi}]",
        "mov rsi, [rcx + {rsi}]",
        "mov r12, [rcx + {r12}]",
        "mov r13, [rcx + {r13}]",
        "mov r14, [rcx + {r14}]",
        "mov r15, [rcx + {r15}]",
        "mov rsp, [rcx + {rsp}]",
        "ldmxcsr [rcx + {mxcsr}]",
        // The image may leave with exceptions pending or values on the x87 stack.
        "fninit",
        "fldcw [rcx + {x87}]",
        "movups xmm6, [rcx + {xmm} + 0x00]",
        "movups xmm7, [rcx + {xmm} + 0x10]",
        "movups xmm8, [rcx + {xmm} + 0x20]",
        "movups xmm9, [rcx + {xmm} + 0x30]",
        "movups xmm10, [rcx + {xmm} + 0x40]",
        "movups xmm11, [rcx + {xmm} + 0x50]",
        "movups xmm12, [rcx + {xmm} + 0x60]",
        "movups xmm13, [rcx + {xmm} + 0x70]",
        "movups xmm14, [rcx + {xmm} + 0x80]",
        "movups xmm15, [rcx + {xmm} + 0x90]",
        "cld",
        "mov rax, rdx",
        // The return address is still where the call put it.
        "ret",
        rbx = const offset_of!(Context, rbx),
        rbp = const offset_of!(Context, rbp),
        rdi = const offset_of!(Context, rdi),
        rsi = const offset_of!(Context, rsi),
        r12 = const offset_of!(Context, r12),
        r13 = const offset_of!(Context, r13),
        r14 = const offset_of!(Context, r14),
        r15 = const offset_of!(Context, r15),
        rsp = const offset_of!(Context, rsp),
        mxcsr = const offset_of!(Context, mxcsr),
        x87 = const offset_of!(Context, x87_control),
        xmm = const offset_of!(Context, xmm),
    )
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use core::ptr;

    unsafe extern "efiapi" fn returns(image: Handle, table: *const c_void) -> Status {
        Status(image.addr() + table.addr())
    }

    unsafe extern "efiapi" fn exits(_: Handle, context: *const Context) -> Status {
        deep(context, 20);
        Status::SUCCESS
    }

    #[inline(never)]
    fn deep(context: *const Context, depth: usize) {
        if depth == 0 {
            // SAFETY: below the `enter` that filled it, with nothing to drop in between.
            unsafe { leave(context, Status::ABORTED) }
        }
        deep(context, depth - 1);
        core::hint::black_box(depth);
    }

    #[test]
    fn a_return_comes_through() {
        let mut context = Context::default();
        let (one, two) = (ptr::without_provenance_mut(1), ptr::without_provenance_mut(2));
        // SAFETY: `returns` is an entry point, the context outlives the call.
        let status = unsafe { enter(returns as *const c_void, one, two, &raw mut context) };
        assert_eq!(status, Status(3));
    }

    #[test]
    fn leaving_from_any_depth_returns_from_entering() {
        for _ in 0..3 {
            let mut context = Context::default();
            let kept = core::hint::black_box([1.5_f64, 2.5, 3.5]);
            let context = &raw mut context;
            // SAFETY: as above.
            let status = unsafe { enter(exits as *const c_void, ptr::null_mut(), context.cast(), context) };
            assert_eq!(status, Status::ABORTED);
            assert_eq!(core::hint::black_box(kept), [1.5, 2.5, 3.5]);
        }
    }
}
