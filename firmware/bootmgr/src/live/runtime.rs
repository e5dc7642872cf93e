//! The runtime services table: variables, time, reset.

use alloc::vec::Vec;
use core::ptr::{null, null_mut};

use services::{Guid, Status, api};
use uefi_raw::table::runtime::{ResetType, RuntimeServices, VariableAttributes};
use uefi_raw::time::Time;

use super::{Live, utf16};
use crate::variables::Variables;

fn services() -> &'static RuntimeServices {
    // SAFETY: made at the start of the services and never freed; read between calls only.
    unsafe { &*(*api::system_table()).runtime_services }
}

impl Variables for Live<'_> {
    fn get(&self, vendor: &Guid, name: &str) -> Option<Vec<u8>> {
        let name = utf16(name);
        let get = |size: &mut usize, data: *mut u8| {
            // SAFETY: the runtime services table is the firmware's own, the arguments are valid for the call.
            unsafe { (services().get_variable)(name.as_ptr(), vendor, null_mut(), size, data) }
        };
        let mut size = 0;
        if get(&mut size, null_mut()) != Status::BUFFER_TOO_SMALL {
            return None;
        }
        let mut data = alloc::vec![0; size];
        (get(&mut size, data.as_mut_ptr()) == Status::SUCCESS).then_some(data)
    }

    fn set(&mut self, vendor: &Guid, name: &str, attributes: VariableAttributes, data: &[u8]) -> Result<(), Status> {
        let name = utf16(name);
        // SAFETY: the runtime services table is the firmware's own, the arguments are valid for the call.
        let status = unsafe { (services().set_variable)(name.as_ptr(), vendor, attributes, data.len(), data.as_ptr()) };
        if status == Status::SUCCESS { Ok(()) } else { Err(status) }
    }
}

/// Date and time as `EFI_TIME`, to the second; zeros where there is no clock.
pub(super) fn time() -> [u8; 16] {
    let mut time = Time::invalid();
    // SAFETY: the runtime services table is the firmware's own, the argument is valid for the call.
    if unsafe { (services().get_time)(&raw mut time, null_mut()) } != Status::SUCCESS {
        time = Time::invalid();
    }
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&time.year.to_le_bytes());
    bytes[2..7].copy_from_slice(&[time.month, time.day, time.hour, time.minute, time.second]);
    bytes
}

/// Starts the guest anew, or ends it.
pub(super) fn reset(kind: ResetType) {
    // SAFETY: the runtime services table is the firmware's own.
    unsafe { (services().reset_system)(kind, Status::SUCCESS, 0, null()) }
}
