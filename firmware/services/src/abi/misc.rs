//! Miscellaneous services (UEFI 2.10 §7.5), and what several edges share.

use core::ffi::c_void;

use uefi_raw::Status;

use crate::table::crc32;

/// The status of a result.
pub(crate) fn status<E: Into<Status>>(result: Result<(), E>) -> Status {
    match result {
        Ok(()) => Status::SUCCESS,
        Err(error) => error.into(),
    }
}

/// Whether a function found in an interface is the one that our interfaces have, and the interface thus ours.
pub(super) fn is_ours(found: *const (), ours: *const ()) -> bool {
    // Miri gives a function another address each time; its tests have no interfaces but ours.
    cfg!(miri) || found == ours
}

/// CalculateCrc32.
pub(super) unsafe extern "efiapi" fn calculate_crc32(data: *const c_void, size: usize, crc: *mut u32) -> Status {
    if data.is_null() || size == 0 || crc.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null, and the caller says how long it is.
    unsafe { crc.write(crc32(core::slice::from_raw_parts(data.cast(), size))) };
    Status::SUCCESS
}

/// CopyMem. The ranges may overlap.
pub(super) unsafe extern "efiapi" fn copy_mem(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: the caller answers for both ranges.
    unsafe { core::ptr::copy(from, to, length) };
}

/// SetMem.
pub(super) unsafe extern "efiapi" fn set_mem(buffer: *mut u8, length: usize, value: u8) {
    // SAFETY: the caller answers for the range.
    unsafe { buffer.write_bytes(value, length) };
}
