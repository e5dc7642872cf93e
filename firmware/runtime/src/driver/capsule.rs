//! Capsule services (UEFI 2.10 §8.5.3): the image is the host's, a guest cannot update it.

use uefi_raw::capsule::CapsuleHeader;
use uefi_raw::table::runtime::ResetType;
use uefi_raw::{PhysicalAddress, Status};

/// UpdateCapsule: no capsule is supported.
pub unsafe extern "efiapi" fn update_capsule(
    capsules: *const *const CapsuleHeader,
    count: usize,
    _scatter_gather_list: PhysicalAddress,
) -> Status {
    refuse(capsules, count)
}

/// QueryCapsuleCapabilities: no capsule is supported.
pub unsafe extern "efiapi" fn query_capsule_capabilities(
    capsules: *const *const CapsuleHeader,
    count: usize,
    maximum_size: *mut u64,
    reset_type: *mut ResetType,
) -> Status {
    if maximum_size.is_null() || reset_type.is_null() {
        return Status::INVALID_PARAMETER;
    }
    refuse(capsules, count)
}

fn refuse(capsules: *const *const CapsuleHeader, count: usize) -> Status {
    if capsules.is_null() || count == 0 { Status::INVALID_PARAMETER } else { Status::UNSUPPORTED }
}
