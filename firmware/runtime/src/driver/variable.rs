//! Variable services (UEFI 2.10 §8.2).

use core::ptr;
use core::slice;

use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Char16, Guid, Status};
use variables::remote::DATA_LIMIT;
use variables::{Key, Limits};

use super::{stack, state};

/// Longest name that is looked at, in units: no variable has a longer one.
const LONGEST_NAME: usize = Limits::DEFAULT.non_volatile / size_of::<Char16>();
/// More data than this cannot be stored, with any name and the largest signature in front, by this driver or a daemon.
const LARGEST_DATA: usize = DATA_LIMIT;
const ACCESS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);

/// GetVariable.
pub unsafe extern "efiapi" fn get_variable(
    name: *const Char16,
    vendor: *const Guid,
    attributes: *mut VariableAttributes,
    data_size: *mut usize,
    data: *mut u8,
) -> Status {
    if vendor.is_null() || data_size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller passes a terminated name and valid pointers.
    let (name, vendor, room) =
        unsafe { (read_name(name, LONGEST_NAME), vendor.read_unaligned(), data_size.read_unaligned()) };
    let Some(name) = name else { return Status::INVALID_PARAMETER };
    let read = state::with(|state| {
        let variable = match state.variables.get(Key::new(vendor, name)) {
            Ok(variable) => variable,
            Err(status) => return status,
        };
        // SAFETY: the caller's pointers, checked for null where they must not be; `room` bytes are at `data`.
        unsafe {
            if !attributes.is_null() {
                attributes.write_unaligned(variable.attributes);
            }
            data_size.write_unaligned(variable.data.len());
            if variable.data.len() > room {
                return Status::BUFFER_TOO_SMALL;
            }
            if data.is_null() {
                return Status::INVALID_PARAMETER;
            }
            ptr::copy(variable.data.as_ptr(), data, variable.data.len());
        }
        Status::SUCCESS
    });
    read.unwrap_or_else(|status| status)
}

/// GetNextVariableName.
pub unsafe extern "efiapi" fn get_next_variable_name(
    name_size: *mut usize,
    name: *mut u16,
    vendor: *mut Guid,
) -> Status {
    if name_size.is_null() || vendor.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller passes valid pointers, and `name_size` bytes at `name`.
    let (before, after, room) = unsafe {
        let room = name_size.read_unaligned();
        (read_name(name, LONGEST_NAME.min(room / size_of::<Char16>())), vendor.read_unaligned(), room)
    };
    let Some(before) = before else { return Status::INVALID_PARAMETER };
    let read = state::with(|state| {
        let next = match state.variables.next(Key::new(after, before)) {
            Ok(next) => next,
            Err(status) => return status,
        };
        // SAFETY: as above; `before` is not used any more.
        unsafe {
            name_size.write_unaligned(next.name.len());
            if next.name.len() > room {
                return Status::BUFFER_TOO_SMALL;
            }
            ptr::copy(next.name.as_ptr(), name.cast(), next.name.len());
            vendor.write_unaligned(next.vendor);
        }
        Status::SUCCESS
    });
    read.unwrap_or_else(|status| status)
}

/// SetVariable.
pub unsafe extern "efiapi" fn set_variable(
    name: *const Char16,
    vendor: *const Guid,
    attributes: VariableAttributes,
    data_size: usize,
    data: *const u8,
) -> Status {
    if vendor.is_null() || (data.is_null() && data_size != 0) {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller passes a terminated name and a valid pointer.
    let (name, vendor) = unsafe { (read_name(name, LONGEST_NAME), vendor.read_unaligned()) };
    let Some(name) = name else { return Status::INVALID_PARAMETER };
    // Without access attributes the variable is deleted, whatever the size.
    let data_size = if attributes.intersects(ACCESS) { data_size } else { 0 };
    if data_size > LARGEST_DATA {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null unless empty, and the caller has `data_size` bytes there.
    let data = if data_size == 0 { &[] } else { unsafe { slice::from_raw_parts(data, data_size) } };
    let set = state::with(|state| {
        // SAFETY: `with` lets one caller in.
        unsafe { stack::call(|| state.variables.set(Key::new(vendor, name), attributes, data)) }
    });
    match set {
        Ok(Some(Ok(()))) => Status::SUCCESS,
        Ok(Some(Err(status))) | Err(status) => status,
        Ok(None) => Status::DEVICE_ERROR,
    }
}

/// QueryVariableInfo.
pub unsafe extern "efiapi" fn query_variable_info(
    attributes: VariableAttributes,
    maximum_storage: *mut u64,
    remaining_storage: *mut u64,
    maximum_variable: *mut u64,
) -> Status {
    if maximum_storage.is_null() || remaining_storage.is_null() || maximum_variable.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let info = match state::with(|state| state.variables.query(attributes)) {
        Ok(Ok(info)) => info,
        Ok(Err(status)) | Err(status) => return status,
    };
    // SAFETY: the caller's pointers, checked for null.
    unsafe {
        maximum_storage.write_unaligned(info.maximum_storage);
        remaining_storage.write_unaligned(info.remaining_storage);
        maximum_variable.write_unaligned(info.maximum_variable);
    }
    Status::SUCCESS
}

/// The name up to its NUL, which has to be among the first `limit` units; `None` without one, or without alignment.
///
/// # Safety
/// Readable up to the NUL or the limit, and unchanged for as long as the slice is used.
unsafe fn read_name<'a>(name: *const Char16, limit: usize) -> Option<&'a [u16]> {
    if name.is_null() || !name.is_aligned() {
        return None;
    }
    // SAFETY: the caller vouches for the units up to the NUL, and none is read after it.
    let length = (0..limit).find(|&index| unsafe { name.add(index).read() } == 0)?;
    // SAFETY: these units have just been read.
    Some(unsafe { slice::from_raw_parts(name, length) })
}
