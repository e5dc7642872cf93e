//! File systems for our own code.

use alloc::boxed::Box;

use uefi_raw::Handle;

use crate::Result;
use crate::abi::file;
use crate::file::FileSystem;

/// Adds EFI_SIMPLE_FILE_SYSTEM_PROTOCOL to a handle.
///
/// # Errors
/// `INVALID_PARAMETER` if it has one.
pub fn install_file_system(handle: Handle, system: Box<dyn FileSystem>) -> Result<()> {
    file::install(handle, system)
}

/// Takes it away, and drops the file system. Files that are open stay valid for closing; all else they answer with
/// `MEDIA_CHANGED`.
///
/// # Errors
/// `ACCESS_DENIED` if a driver does not let go of it; `UNSUPPORTED` if it is not ours.
pub fn uninstall_file_system(handle: Handle) -> Result<()> {
    file::uninstall(handle)
}
