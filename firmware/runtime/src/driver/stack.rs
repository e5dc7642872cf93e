//! A stack of the driver's own.
//!
//! The operating system has to give a runtime service 4 KiB of stack (UEFI 2.10 §2.3.4), and verifying a signature takes
//! more. Interrupts that come meanwhile are taken on this stack, as they are on any.

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;

/// Bytes of the stack: SetVariable uses 23 KiB with the largest keys; as much again is for interrupts.
const SIZE: usize = 0xc000;

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; SIZE]>);

// SAFETY: used by one caller of `call` at a time, as it demands.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; SIZE]));

struct Job<F, R> {
    function: Option<F>,
    result: Option<R>,
}

/// Calls `function` on the driver's stack. `None` cannot happen.
///
/// # Safety
/// Not called while it is being called: [`super::state::with`] lets one caller in.
pub unsafe fn call<F: FnOnce() -> R, R>(function: F) -> Option<R> {
    let mut job = Job { function: Some(function), result: None };
    let top = STACK.0.get().cast::<u8>().wrapping_add(SIZE);
    // SAFETY: the stack is used by nobody else, as the caller vouches, and `run` gets what it needs.
    unsafe { call_on(top, run::<F, R>, ptr::from_mut(&mut job).cast()) };
    job.result
}

/// # Safety
/// `job` is a `Job<F, R>` that nobody else uses.
unsafe extern "efiapi" fn run<F: FnOnce() -> R, R>(job: *mut c_void) {
    // SAFETY: the caller vouches for the job.
    let job = unsafe { &mut *job.cast::<Job<F, R>>() };
    job.result = job.function.take().map(|function| function());
}

/// Calls `function(argument)` with the stack that ends at `top`, which is a multiple of 16.
///
/// # Safety
/// The stack is large enough and nobody else's.
#[unsafe(naked)]
unsafe extern "efiapi" fn call_on(
    top: *mut u8,
    function: unsafe extern "efiapi" fn(*mut c_void),
    argument: *mut c_void,
) {
    // Arguments are in rcx, rdx, r8; a caller leaves 32 bytes for the called function (UEFI 2.10 §2.3.4.2).
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rsp, rcx",
        "sub rsp, 32",
        "mov rcx, r8",
        "call rdx",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
    )
}
