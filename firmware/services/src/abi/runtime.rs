//! The runtime services table before the runtime driver has filled it in: what there is to offer without it.

use alloc::vec::Vec;
use core::ffi::c_void;

use uefi_raw::capsule::CapsuleHeader;
use uefi_raw::table::Header;
use uefi_raw::table::boot::MemoryDescriptor;
use uefi_raw::table::runtime::{ResetType, RuntimeServices, TimeCapabilities, VariableAttributes};
use uefi_raw::time::Time;
use uefi_raw::{Boolean, Char16, Guid, PhysicalAddress, Status};

use super::CORE;
use crate::core_state::Core;
use crate::hardware::Reset;

/// A table of services that answer `UNSUPPORTED`, GetTime and ResetSystem aside.
pub(super) fn table(header: Header) -> RuntimeServices {
    RuntimeServices {
        header,
        get_time,
        set_time,
        get_wakeup_time,
        set_wakeup_time,
        set_virtual_address_map,
        convert_pointer,
        get_variable,
        get_next_variable_name,
        set_variable,
        get_next_high_monotonic_count,
        reset_system,
        update_capsule,
        query_capsule_capabilities,
        query_variable_info,
    }
}

/// Whether no runtime driver has filled in the table: its functions are still those that end with the boot services.
pub(super) fn is_placeholder(table: &RuntimeServices) -> bool {
    table.set_virtual_address_map as usize == set_virtual_address_map as *const () as usize
}

/// The content of a variable, as the runtime services table gives it.
pub(super) fn variable(core: &Core, name: &str, vendor: &Guid) -> Option<Vec<u8>> {
    let system = core.tables.with(|tables| tables.system());
    if system.is_null() {
        return None;
    }
    let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
    let get = |size: &mut usize, data: *mut u8| {
        // SAFETY: the tables are the firmware's own and never freed, the arguments are valid for the call.
        unsafe {
            ((*(*system).runtime_services).get_variable)(name.as_ptr(), vendor, core::ptr::null_mut(), size, data)
        }
    };
    let mut size = 0;
    if get(&mut size, core::ptr::null_mut()) != Status::BUFFER_TOO_SMALL {
        return None;
    }
    let mut data = alloc::vec![0; size];
    (get(&mut size, data.as_mut_ptr()) == Status::SUCCESS).then(|| {
        data.truncate(size);
        data
    })
}

/// Sets a variable that boot programs see and that ends with the boot services.
pub(super) fn set_boot_variable(core: &Core, name: &str, vendor: &Guid, data: &[u8]) -> Status {
    let system = core.tables.with(|tables| tables.system());
    if system.is_null() {
        return Status::NOT_READY;
    }
    let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
    let attributes = VariableAttributes::BOOTSERVICE_ACCESS;
    // SAFETY: the tables are the firmware's own and never freed, the arguments are valid for the call.
    unsafe {
        ((*(*system).runtime_services).set_variable)(name.as_ptr(), vendor, attributes, data.len(), data.as_ptr())
    }
}

unsafe extern "efiapi" fn get_time(time: *mut Time, capabilities: *mut TimeCapabilities) -> Status {
    if time.is_null() {
        return Status::INVALID_PARAMETER;
    }
    match CORE.hardware().time() {
        Ok(now) => {
            // SAFETY: neither is null where it is written; the caller answers for the rest.
            unsafe {
                time.write(now);
                if !capabilities.is_null() {
                    capabilities.write(TimeCapabilities { resolution: 1, accuracy: 0, sets_to_zero: Boolean::FALSE });
                }
            }
            Status::SUCCESS
        }
        Err(error) => error,
    }
}

unsafe extern "efiapi" fn reset_system(kind: ResetType, _status: Status, _size: usize, _data: *const u8) -> ! {
    CORE.hardware().reset(if kind == ResetType::SHUTDOWN { Reset::PowerOff } else { Reset::Restart })
}

macro_rules! unsupported {
    ($($name:ident($($type:ty),*);)*) => {
        $(unsafe extern "efiapi" fn $name($(_: $type),*) -> Status {
            Status::UNSUPPORTED
        })*
    };
}

unsupported! {
    set_time(*const Time);
    get_wakeup_time(*mut Boolean, *mut Boolean, *mut Time);
    set_wakeup_time(Boolean, *const Time);
    set_virtual_address_map(usize, usize, u32, *const MemoryDescriptor);
    convert_pointer(usize, *mut *mut c_void);
    get_variable(*const Char16, *const Guid, *mut VariableAttributes, *mut usize, *mut u8);
    get_next_variable_name(*mut usize, *mut u16, *mut Guid);
    set_variable(*const Char16, *const Guid, VariableAttributes, usize, *const u8);
    get_next_high_monotonic_count(*mut u32);
    update_capsule(*const *const CapsuleHeader, usize, PhysicalAddress);
    query_capsule_capabilities(*const *const CapsuleHeader, usize, *mut u64, *mut ResetType);
    query_variable_info(VariableAttributes, *mut u64, *mut u64, *mut u64);
}
