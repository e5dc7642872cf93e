//! Entry of the runtime services driver: finds the [`Handoff`](handoff::Handoff), opens the variables, and puts its
//! services into the tables that the core made. See the library for the logic, [`driver`] for the services.
#![cfg_attr(target_os = "uefi", no_std, no_main)]
#![cfg_attr(
    not(target_os = "uefi"),
    expect(unused, reason = "an image for UEFI; the host only checks that it compiles")
)]

mod driver;

use uefi_raw::table::system::SystemTable;
use uefi_raw::{Handle, Status};

/// Called once by the core's StartImage. Stays loaded after success.
///
/// # Safety
/// As UEFI 2.10 §4.1 has it: the firmware's own system table, in boot services.
#[cfg_attr(target_os = "uefi", unsafe(no_mangle))]
unsafe extern "efiapi" fn efi_main(_image: Handle, system_table: *mut SystemTable) -> Status {
    // SAFETY: the caller vouches for the table.
    match unsafe { driver::start(system_table) } {
        Ok(()) => Status::SUCCESS,
        Err(status) => status,
    }
}

/// Nothing that comes from outside leads here; if a bug does, the domain ends as crashed, so that the toolstack's
/// `on_crash` applies and keeps a core dump if asked to.
#[cfg(target_os = "uefi")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    driver::reset::crash()
}

#[cfg(not(target_os = "uefi"))]
fn main() {}
