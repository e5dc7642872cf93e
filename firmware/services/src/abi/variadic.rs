//! The two boot services with a variable number of arguments.
//!
//! Rust cannot define such a function for the UEFI calling convention. But in that convention the first four arguments
//! have home slots on the stack right below the others, so storing the four registers there makes one array of all
//! arguments.

use core::arch::naked_asm;

use uefi_raw::{Handle, Status};

use super::handle::{install_multiple, uninstall_multiple};

/// Type of the services' fields in the boot services table. `uefi_raw` types them with the host's C convention, for want
/// of one it can name; nobody calls them through that type here.
pub(super) type Install = unsafe extern "C" fn(*mut Handle, ...) -> Status;
/// As [`Install`].
pub(super) type Uninstall = unsafe extern "C" fn(Handle, ...) -> Status;

/// InstallMultipleProtocolInterfaces.
pub(super) fn install_multiple_protocol_interfaces() -> Install {
    // SAFETY: only stored in the boot services table, for callers that use the UEFI convention.
    unsafe { core::mem::transmute::<unsafe extern "efiapi" fn(), Install>(install_shim) }
}

/// UninstallMultipleProtocolInterfaces.
pub(super) fn uninstall_multiple_protocol_interfaces() -> Uninstall {
    // SAFETY: as above.
    unsafe { core::mem::transmute::<unsafe extern "efiapi" fn(), Uninstall>(uninstall_shim) }
}

/// Bytes from the stack pointer at a function's entry to the first argument's home slot: the return address.
const HOME: usize = 8;
/// Home slots for the callee's four register arguments, and 8 bytes that align the stack to 16 again.
const FRAME: usize = 4 * 8 + 8;

macro_rules! variadic_shim {
    ($name:ident, $target:ident) => {
        #[unsafe(naked)]
        unsafe extern "efiapi" fn $name() {
            naked_asm!(
                "mov [rsp + {home}], rcx",
                "mov [rsp + {home} + 8], rdx",
                "mov [rsp + {home} + 16], r8",
                "mov [rsp + {home} + 24], r9",
                "lea rcx, [rsp + {home}]",
                "sub rsp, {frame}",
                "call {target}",
                "add rsp, {frame}",
                "ret",
                home = const HOME,
                frame = const FRAME,
                target = sym $target,
            )
        }
    };
}

variadic_shim!(install_shim, install_multiple);
variadic_shim!(uninstall_shim, uninstall_multiple);
