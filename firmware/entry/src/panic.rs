//! Exceptions and panics: say what happened, then let the toolstack act on a crashed domain.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use hw::cpu::{self, Frame};
use hw::hypervisor::{Hypervisor, ShutdownReason};
use hw::xen::{self, Xen};

use crate::logger::DebugPort;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(DebugPort, "ovmf-xen: PANIC: {info}");
    crash()
}

/// Reports an exception and ends the domain. An exception while one is reported ends it at once: both have the same stack.
pub fn exception(frame: &Frame) -> ! {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    if REPORTING.swap(true, Ordering::Relaxed) {
        crash()
    }
    let mut out = DebugPort;
    let _ = writeln!(
        out,
        "ovmf-xen: FAULT: {} ({}) at {:#x}, error {:#x}",
        frame.exception(),
        frame.vector,
        frame.rip,
        frame.error
    );
    if let Some(address) = frame.fault_address() {
        let _ = writeln!(out, "ovmf-xen: fault address {address:#x}");
    }
    let _ = writeln!(out, "ovmf-xen: rsp={:#x} rflags={:#x} cs={:#x}", frame.rsp, frame.rflags, frame.cs);
    for (names, values) in Frame::NAMES.chunks(5).zip(frame.registers.chunks(5)) {
        for (name, value) in names.iter().zip(values) {
            let _ = write!(out, " {name}={value:#x}");
        }
        let _ = writeln!(out);
    }
    crash()
}

fn crash() -> ! {
    if let Some(found) = xen::detect() {
        Xen::new(found.instruction).shutdown(ShutdownReason::Crash);
    }
    cpu::stop()
}
