//! EFI programs that the lab starts through the firmware, and what they share: tables, printing, ending.
//!
//! They use nothing but the firmware's own services, as any loader would.
#![no_std]

pub mod measure;

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use uefi_raw::table::boot::BootServices;
use uefi_raw::table::runtime::ResetType;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Handle, Status};

static TABLE: AtomicPtr<SystemTable> = AtomicPtr::new(core::ptr::null_mut());
static IMAGE: AtomicPtr<core::ffi::c_void> = AtomicPtr::new(core::ptr::null_mut());
static BOOT_SERVICES_ENDED: AtomicBool = AtomicBool::new(false);

/// Remembers the entry point's arguments.
pub fn start(image: Handle, table: *mut SystemTable) {
    IMAGE.store(image, Ordering::Relaxed);
    TABLE.store(table, Ordering::Relaxed);
}

/// The program's own handle.
pub fn image() -> Handle {
    IMAGE.load(Ordering::Relaxed)
}

/// The system table.
pub fn table() -> &'static SystemTable {
    // SAFETY: set by the entry point to the firmware's table, which stays.
    unsafe { &*TABLE.load(Ordering::Relaxed) }
}

/// Boot services.
pub fn boot() -> &'static BootServices {
    // SAFETY: the firmware's table, valid until ExitBootServices.
    unsafe { &*table().boot_services }
}

/// Says that the firmware's console is gone: [`Console`] writes to [`Port`] from now on.
pub fn boot_services_ended() {
    BOOT_SERVICES_ENDED.store(true, Ordering::Relaxed);
}

/// The port whose bytes Xen puts into its own log, line by line, as a text sink.
#[derive(Debug)]
pub struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const LOG: u16 = 0xE9;
        for byte in text.bytes() {
            // SAFETY: the port takes any byte; where it does not exist, a write does nothing.
            unsafe { core::arch::asm!("out dx, al", in("dx") LOG, in("al") byte, options(nomem, nostack)) };
        }
        Ok(())
    }
}

/// The console as a text sink.
#[derive(Debug)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if BOOT_SERVICES_ENDED.load(Ordering::Relaxed) {
            return Port.write_str(text);
        }
        let output = table().stdout;
        let mut units = [0u16; 128];
        let mut length = 0;
        let mut put = |unit: u16, units: &mut [u16; 128], last: bool| {
            if !last {
                units[length] = unit;
                length += 1;
            }
            if last || length >= units.len() - 3 {
                units[length] = 0;
                // SAFETY: the firmware's protocol, and a zero-terminated string.
                let _ = unsafe { ((*output).output_string)(output, units.as_ptr()) };
                length = 0;
            }
        };
        for character in text.chars() {
            if character == '\n' {
                put(u16::from(b'\r'), &mut units, false);
            }
            let mut pair = [0; 2];
            for unit in character.encode_utf16(&mut pair) {
                put(*unit, &mut units, false);
            }
        }
        put(0, &mut units, true);
        Ok(())
    }
}

/// Prints a line on the firmware's console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        let _ = writeln!($crate::Console, $($argument)*);
    }};
}

/// Powers the domain off.
pub fn power_off() -> ! {
    // SAFETY: the firmware's table; does not come back.
    unsafe { ((*table().runtime_services).reset_system)(ResetType::SHUTDOWN, Status::SUCCESS, 0, core::ptr::null()) }
}

/// Reads the time stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: no side effects.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("GUEST-FAIL panic {info}");
    power_off()
}
