//! The edge of `EFI_MEMORY_ATTRIBUTE_PROTOCOL` (UEFI 2.10 §37.7): access rights of memory, for loaders that load code
//! themselves.

use core::ffi::c_void;
use core::ptr;

use uefi_raw::protocol::memory_protection::MemoryAttributeProtocol;
use uefi_raw::table::boot::MemoryAttribute;
use uefi_raw::{Handle, PhysicalAddress, Status};

use crate::Result;
use crate::abi::CORE;
use crate::api;
use crate::hardware::Protection;
use crate::memory::PAGE;

/// What can be set and cleared.
const RIGHTS: MemoryAttribute =
    MemoryAttribute::READ_PROTECT.union(MemoryAttribute::READ_ONLY).union(MemoryAttribute::EXECUTE_PROTECT);

static PROTOCOL: MemoryAttributeProtocol =
    MemoryAttributeProtocol { get_memory_attributes: get, set_memory_attributes: set, clear_memory_attributes: clear };

/// Installs the protocol on a handle of its own.
///
/// # Errors
/// `OUT_OF_RESOURCES`.
pub fn install() -> Result<Handle> {
    let interface = ptr::from_ref(&PROTOCOL).cast_mut().cast::<c_void>();
    api::install_protocol(None, &MemoryAttributeProtocol::GUID, interface)
}

unsafe extern "efiapi" fn get(
    _this: *const MemoryAttributeProtocol,
    address: PhysicalAddress,
    length: u64,
    attributes: *mut MemoryAttribute,
) -> Status {
    if attributes.is_null() {
        return Status::INVALID_PARAMETER;
    }
    match pages(length).and_then(|pages| api::protection_in(&CORE, address, pages)) {
        Ok(protection) => {
            // SAFETY: not null; the caller gives a place for attributes.
            unsafe { attributes.write_unaligned(to_attributes(protection)) };
            Status::SUCCESS
        }
        Err(status) => status,
    }
}

unsafe extern "efiapi" fn set(
    _this: *const MemoryAttributeProtocol,
    address: PhysicalAddress,
    length: u64,
    attributes: MemoryAttribute,
) -> Status {
    change(address, length, attributes, MemoryAttribute::union)
}

unsafe extern "efiapi" fn clear(
    _this: *const MemoryAttributeProtocol,
    address: PhysicalAddress,
    length: u64,
    attributes: MemoryAttribute,
) -> Status {
    change(address, length, attributes, MemoryAttribute::difference)
}

fn change(
    address: u64,
    length: u64,
    attributes: MemoryAttribute,
    combine: fn(MemoryAttribute, MemoryAttribute) -> MemoryAttribute,
) -> Status {
    if attributes.is_empty() || attributes.bits() & !RIGHTS.bits() != 0 {
        return Status::INVALID_PARAMETER;
    }
    let changed = pages(length).and_then(|pages| {
        api::change_protection_in(&CORE, address, pages, |now| to_protection(combine(to_attributes(now), attributes)))
    });
    match changed {
        Ok(()) => Status::SUCCESS,
        Err(status) => status,
    }
}

/// Whole pages only: rounding would change the rights of what lies beside.
fn pages(length: u64) -> Result<u64> {
    if length.is_multiple_of(PAGE) { Ok(length / PAGE) } else { Err(Status::INVALID_PARAMETER) }
}

fn to_attributes(protection: Protection) -> MemoryAttribute {
    let mut attributes = MemoryAttribute::empty();
    attributes.set(MemoryAttribute::READ_PROTECT, protection.read_protect);
    attributes.set(MemoryAttribute::READ_ONLY, protection.read_only);
    attributes.set(MemoryAttribute::EXECUTE_PROTECT, protection.execute_protect);
    attributes
}

fn to_protection(attributes: MemoryAttribute) -> Protection {
    Protection {
        read_protect: attributes.contains(MemoryAttribute::READ_PROTECT),
        read_only: attributes.contains(MemoryAttribute::READ_ONLY),
        execute_protect: attributes.contains(MemoryAttribute::EXECUTE_PROTECT),
    }
}

#[cfg(test)]
mod tests {
    use uefi_raw::table::boot::MemoryType;

    use super::*;

    fn rights(address: u64, length: u64) -> core::result::Result<MemoryAttribute, Status> {
        let mut attributes = MemoryAttribute::empty();
        // SAFETY: a place for attributes.
        match unsafe { get(ptr::null(), address, length, &mut attributes) } {
            Status::SUCCESS => Ok(attributes),
            status => Err(status),
        }
    }

    fn with(
        call: unsafe extern "efiapi" fn(*const MemoryAttributeProtocol, u64, u64, MemoryAttribute) -> Status,
        address: u64,
        length: u64,
        attributes: MemoryAttribute,
    ) -> Status {
        // SAFETY: no pointers but `this`, which is not used.
        unsafe { call(ptr::null(), address, length, attributes) }
    }

    #[test]
    fn rights_are_set_and_cleared_page_by_page_and_gone_when_freed() {
        crate::fake::install();
        let xp = MemoryAttribute::EXECUTE_PROTECT;
        let ro = MemoryAttribute::READ_ONLY;
        let at = api::allocate_pages(MemoryType::LOADER_CODE, 4).unwrap();
        assert_eq!(rights(at, 4 * PAGE), Ok(MemoryAttribute::empty()));
        assert_eq!(with(set, at + PAGE, PAGE, xp), Status::SUCCESS);
        assert_eq!(with(set, at, 4 * PAGE, ro), Status::SUCCESS);
        assert_eq!(rights(at, 4 * PAGE), Err(Status::NO_MAPPING));
        assert_eq!(rights(at + PAGE, PAGE), Ok(ro | xp));
        assert_eq!(with(clear, at, 4 * PAGE, ro | xp), Status::SUCCESS);
        assert_eq!(rights(at, 4 * PAGE), Ok(MemoryAttribute::empty()));
        assert_eq!(with(set, at, 2 * PAGE, ro), Status::SUCCESS);
        api::free_pages(at, 4).unwrap();
        assert_eq!(rights(at, 4 * PAGE), Ok(xp));
    }

    #[test]
    fn what_is_not_the_callers_is_left_alone() {
        crate::fake::install();
        let xp = MemoryAttribute::EXECUTE_PROTECT;
        let block = api::allocate_pool(MemoryType::LOADER_DATA, 100).unwrap();
        let pool_page = block.as_ptr() as u64 & !(PAGE - 1);
        assert_eq!(with(set, pool_page, PAGE, MemoryAttribute::READ_ONLY), Status::ACCESS_DENIED);
        assert_eq!(with(set, 0x10_0000, PAGE, xp), Status::UNSUPPORTED);
        assert_eq!(with(set, pool_page, 0, xp), Status::INVALID_PARAMETER);
        assert_eq!(with(set, pool_page, 1, xp), Status::INVALID_PARAMETER);
        assert_eq!(with(set, pool_page + 1, PAGE, xp), Status::INVALID_PARAMETER);
        assert_eq!(with(set, pool_page, PAGE, MemoryAttribute::WRITE_BACK), Status::INVALID_PARAMETER);
        assert_eq!(rights(u64::MAX - PAGE + 1, 2 * PAGE), Err(Status::INVALID_PARAMETER));
        api::free_pool(block).unwrap();
    }
}
