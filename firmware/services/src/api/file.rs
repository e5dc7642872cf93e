//! File systems, and single files, for our own code.

use alloc::boxed::Box;

use uefi_raw::Handle;

use crate::Result;
use crate::abi::{file, load_file_2};
use crate::device_path::DevicePath;
use crate::file::{FileSource, FileSystem};

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

/// Makes a handle with the device path and EFI_LOAD_FILE2_PROTOCOL for one file.
///
/// # Errors
/// `ALREADY_STARTED` if another handle has the path.
pub fn install_load_file_2(path: &DevicePath, file: Box<dyn FileSource>) -> Result<Handle> {
    load_file_2::install(path, file)
}

/// Takes the handle away, and drops the file.
///
/// # Errors
/// `ACCESS_DENIED` if a driver does not let go of it; `UNSUPPORTED` if it is not ours.
pub fn uninstall_load_file_2(handle: Handle) -> Result<()> {
    load_file_2::uninstall(handle)
}
