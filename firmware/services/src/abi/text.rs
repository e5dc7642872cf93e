//! Strings and pool memory as they cross the edge.

use alloc::string::String;
use alloc::vec::Vec;

use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Char8, Char16};

use crate::api::allocate_pool_in;
use crate::core_state::Core;

/// A copy of a string without its NUL.
///
/// # Safety
/// `text` points to a string that ends with NUL. It need not be aligned.
pub(crate) unsafe fn units(text: *const Char16) -> Vec<u16> {
    // SAFETY: no element behind the NUL is read.
    let units = (0..).map(|index| unsafe { text.add(index).read_unaligned() });
    units.take_while(|unit| *unit != 0).collect()
}

/// A copy of a string; `None` if it is null or no UTF-16.
///
/// # Safety
/// `text` is null or as for [`units`].
pub(crate) unsafe fn string(text: *const Char16) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller.
    String::from_utf16(&unsafe { units(text) }).ok()
}

/// A copy of a string of bytes without its NUL.
///
/// # Safety
/// `text` points to a string that ends with NUL.
pub(crate) unsafe fn bytes(text: *const Char8) -> Vec<u8> {
    // SAFETY: no element behind the NUL is read.
    (0..).map(|index| unsafe { text.add(index).read() }).take_while(|byte| *byte != 0).collect()
}

/// The bytes in memory that the caller of a service frees with FreePool; null if there is none.
pub(crate) fn to_pool(core: &Core, bytes: &[u8]) -> *mut u8 {
    let Ok(block) = allocate_pool_in(core, MemoryType::BOOT_SERVICES_DATA, bytes.len()) else {
        return core::ptr::null_mut();
    };
    // SAFETY: a new block of that length.
    unsafe { block.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    block.as_ptr()
}

/// A string with a NUL, as [`to_pool`].
pub(crate) fn string_to_pool(core: &Core, text: &str) -> *mut Char16 {
    let bytes: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    to_pool(core, &bytes).cast()
}
