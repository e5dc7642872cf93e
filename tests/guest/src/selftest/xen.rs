//! The guest's console without the firmware: the ring that libxl made, written as an operating system writes it
//! (`public/io/console.h`), so that the lab sees the tests after ExitBootServices.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

const EVENT_CHANNEL_OP: u64 = 32;
const HVM_OP: u64 = 34;
const EVTCHNOP_SEND: u64 = 4;
const HVMOP_GET_PARAM: u64 = 1;
const HVM_PARAM_CONSOLE_PFN: u32 = 17;
const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
const DOMID_SELF: u16 = 0x7FF0;

/// `struct xencons_interface`: where its parts are.
const OUT: usize = 1024;
const OUT_SIZE: u32 = 2048;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;

/// How often to look whether there is room before giving up.
const PATIENCE: u32 = 50_000_000;

static RING: AtomicU64 = AtomicU64::new(0);
static PORT: AtomicU32 = AtomicU32::new(0);

/// Asks Xen where the console is.
pub fn find_console() {
    let (Some(page), Some(port)) = (parameter(HVM_PARAM_CONSOLE_PFN), parameter(HVM_PARAM_CONSOLE_EVTCHN)) else {
        return;
    };
    RING.store(page * 4096, Ordering::Relaxed);
    PORT.store(port as u32, Ordering::Relaxed);
}

/// The console's ring as a text sink. What finds no room is lost.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let ring = RING.load(Ordering::Relaxed) as *mut u8;
        if ring.is_null() {
            return Ok(());
        }
        let index = |offset: usize| efi!(&*ring.add(offset).cast::<AtomicU32>());
        for byte in text.bytes() {
            let produced = index(OUT_PROD).load(Ordering::Relaxed);
            let full = || produced.wrapping_sub(index(OUT_CONS).load(Ordering::Acquire)) >= OUT_SIZE;
            if (0..PATIENCE).take_while(|_| full()).count() == PATIENCE as usize {
                return Err(fmt::Error);
            }
            efi!(ring.add(OUT + (produced % OUT_SIZE) as usize).write_volatile(byte));
            index(OUT_PROD).store(produced.wrapping_add(1), Ordering::Release);
        }
        fence(Ordering::SeqCst);
        let port = PORT.load(Ordering::Relaxed);
        hypercall(EVENT_CHANNEL_OP, EVTCHNOP_SEND, (&raw const port).addr() as u64);
        Ok(())
    }
}

/// `struct xen_hvm_param`.
#[repr(C)]
struct Parameter {
    domain: u16,
    index: u32,
    value: u64,
}

fn parameter(index: u32) -> Option<u64> {
    let mut parameter = Parameter { domain: DOMID_SELF, index, value: 0 };
    let result = hypercall(HVM_OP, HVMOP_GET_PARAM, (&raw mut parameter).addr() as u64);
    let parameter = core::hint::black_box(parameter);
    (result == 0 && parameter.value != 0).then_some(parameter.value)
}

fn hypercall(number: u64, first: u64, second: u64) -> i64 {
    let result: i64;
    // SAFETY: these hypercalls read and write what the second argument points to; both instructions do the same on their
    // vendor's processors, and Xen is what this program runs on.
    unsafe {
        if amd() {
            asm!("vmmcall", inlateout("rax") number => result, inlateout("rdi") first => _, inlateout("rsi") second => _);
        } else {
            asm!("vmcall", inlateout("rax") number => result, inlateout("rdi") first => _, inlateout("rsi") second => _);
        }
    }
    result
}

fn amd() -> bool {
    let vendor = core::arch::x86_64::__cpuid(0);
    matches!(&vendor.ebx.to_le_bytes(), b"Auth" | b"Hygo")
}
