//! File systems, and single files, for our own code.

use alloc::boxed::Box;
use alloc::vec::Vec;

use uefi_raw::Handle;

use crate::Result;
use crate::abi::{CORE, file, load_file_2, volume};
use crate::device_path::DevicePath;
use crate::file::{DirectoryEntry, FileSource, FileSystem};
use crate::image::LoadError;

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

/// Reads the file at `path`, from the root of anybody's volume, as a whole.
///
/// # Errors
/// What a person should read.
pub fn read_file(volume: Handle, path: &str) -> core::result::Result<Vec<u8>, LoadError> {
    volume::open(&CORE, volume, path)?.content()
}

/// Whether there is something at `path` of a volume.
pub fn file_exists(volume: Handle, path: &str) -> bool {
    volume::open(&CORE, volume, path).is_ok()
}

/// Lists the directory at `path` of a volume; an empty path is the root.
///
/// # Errors
/// What a person should read.
pub fn list_directory(volume: Handle, path: &str) -> core::result::Result<Vec<DirectoryEntry>, LoadError> {
    volume::open(&CORE, volume, path)?.entries()
}
