//! The `efiapi` edge: one module per group of services, each function checking pointers, copying in, calling the logic
//! and copying out. [`state`] holds the one static and the guard around it.

mod address;
mod capsule;
mod daemon;
mod monotonic;
pub mod reset;
mod services;
mod stack;
mod state;
mod time;
mod variable;

use core::ptr;

use handoff::{Handoff, PROTOCOL_GUID};
use runtime::crc32::crc32;
use uefi_raw::table::Header;
use uefi_raw::table::boot::{BootServices, InterfaceType};
use uefi_raw::table::runtime::RuntimeServices;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Guid, Status, guid};

/// Architectural protocols of the PI specification (vol. 2 §12) that this driver stands for: variables, writing them,
/// clock, reset, monotonic counter. Their interfaces are null by definition.
const ARCHITECTURAL_PROTOCOLS: &[Guid] = &[
    guid!("1e5668e2-8481-11d4-bcf1-0080c73c8881"),
    guid!("6441f818-6362-4e44-b570-7dba31dd2453"),
    guid!("27cfac87-46cc-11d4-9a38-0090273fc14d"),
    guid!("27cfac88-46cc-11d4-9a38-0090273fc14d"),
    guid!("1da97072-bddc-4b30-99f1-72a0b56fff2a"),
];

/// Starts the driver.
///
/// # Safety
/// `system_table` is that of the firmware, in boot services; not called twice.
pub unsafe fn start(system_table: *mut SystemTable) -> Result<(), Status> {
    // SAFETY: the caller vouches for the table.
    let (boot_services, runtime_services) =
        unsafe { ((*system_table).boot_services, (*system_table).runtime_services) };
    if boot_services.is_null() || runtime_services.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    // SAFETY: the system table's boot services.
    let handoff = unsafe { find_handoff(boot_services)? };
    // SAFETY: found under our own protocol and checked.
    unsafe { state::open(system_table, handoff)? };
    monotonic::start();
    // SAFETY: the tables belong to the core, which runs nothing else meanwhile.
    unsafe {
        patch_runtime_services(runtime_services);
        (*boot_services).get_next_monotonic_count = monotonic::get_next_monotonic_count;
        update_checksum(&raw mut (*boot_services).header);
        install_architectural_protocols(boot_services)
    }
}

/// # Safety
/// Boot services must be available.
unsafe fn find_handoff(boot_services: *mut BootServices) -> Result<*mut Handoff, Status> {
    let mut interface = ptr::null_mut();
    // SAFETY: the caller vouches for the table; the pointers are valid.
    let status = unsafe { ((*boot_services).locate_protocol)(&PROTOCOL_GUID, ptr::null(), &mut interface) };
    if status.is_error() {
        return Err(status);
    }
    let handoff = interface.cast::<Handoff>();
    // SAFETY: the core installed it.
    if handoff.is_null() || !unsafe { (*handoff).is_valid() } {
        return Err(Status::INCOMPATIBLE_VERSION);
    }
    Ok(handoff)
}

/// # Safety
/// `table` is the firmware's, writable.
unsafe fn patch_runtime_services(table: *mut RuntimeServices) {
    // SAFETY: the caller vouches for the table.
    unsafe {
        (*table).get_time = time::get_time;
        (*table).set_time = time::set_time;
        (*table).get_wakeup_time = time::get_wakeup_time;
        (*table).set_wakeup_time = time::set_wakeup_time;
        (*table).set_virtual_address_map = address::set_virtual_address_map;
        (*table).convert_pointer = address::convert_pointer;
        (*table).get_variable = variable::get_variable;
        (*table).get_next_variable_name = variable::get_next_variable_name;
        (*table).set_variable = variable::set_variable;
        (*table).get_next_high_monotonic_count = monotonic::get_next_high_monotonic_count;
        (*table).reset_system = reset::reset_system;
        (*table).update_capsule = capsule::update_capsule;
        (*table).query_capsule_capabilities = capsule::query_capsule_capabilities;
        (*table).query_variable_info = variable::query_variable_info;
        update_checksum(&raw mut (*table).header);
    }
}

/// Computes the checksum of a table anew (UEFI 2.10 §4.2).
///
/// # Safety
/// `header` heads a table of the size it states, writable.
unsafe fn update_checksum(header: *mut Header) {
    // SAFETY: the caller vouches for the table.
    unsafe {
        (*header).crc = 0;
        let bytes = header.cast::<u8>();
        let size = (*header).size as usize;
        (*header).crc = crc32((0..size).map(|offset| bytes.add(offset).read()));
    }
}

/// # Safety
/// Boot services must be available.
unsafe fn install_architectural_protocols(boot_services: *mut BootServices) -> Result<(), Status> {
    let mut handle = ptr::null_mut();
    for protocol in ARCHITECTURAL_PROTOCOLS {
        // SAFETY: the caller vouches for the table; the pointers are valid.
        let status = unsafe {
            ((*boot_services).install_protocol_interface)(
                &mut handle,
                protocol,
                InterfaceType::NATIVE_INTERFACE,
                ptr::null(),
            )
        };
        if status.is_error() {
            return Err(status);
        }
    }
    Ok(())
}
