//! Reading the file that a device path names, for LoadImage (UEFI 2.10 §7.4.1): through SimpleFileSystem, LoadFile2 or
//! LoadFile.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use uefi_raw::protocol::device_path::media::FilePath;
use uefi_raw::protocol::device_path::{DeviceSubType, DeviceType};
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::protocol::media::{LoadFile2Protocol, LoadFileProtocol};
use uefi_raw::{Boolean, Handle, Status};

use super::handle::locate_path;
use super::volume::{self, check, interface, reserve};
use crate::core_state::Core;
use crate::device_path::{DevicePath, RawNode};
use crate::image::LoadError;

type Result<T> = core::result::Result<T, LoadError>;

/// A file, the device it is on, and the rest of its path.
pub(super) struct Found<'a> {
    pub data: Vec<u8>,
    pub device: Handle,
    pub file_path: &'a DevicePath,
}

/// Reads the file at `path`. With `boot_policy` a boot manager asks, and a device may choose the file itself.
pub(super) fn read<'a>(core: &Core, boot_policy: bool, path: &'a DevicePath) -> Result<Found<'a>> {
    let mut first_error = LoadError::NotFound;
    let mut note = |error| {
        if first_error == LoadError::NotFound {
            first_error = error;
        }
    };
    if let Ok((device, file_path)) = locate_path(core, &SimpleFileSystemProtocol::GUID, path)
        && !file_path.is_empty()
    {
        match read_from_volume(core, device, file_path) {
            Ok(data) => return Ok(Found { data, device, file_path }),
            Err(error) => note(error),
        }
    }
    // A boot selection is LoadFile's only.
    let by_load_file_2 = if boot_policy { None } else { locate_path(core, &LoadFile2Protocol::GUID, path).ok() };
    if let Some((device, file_path)) = by_load_file_2 {
        match load_file_2(core, device, file_path) {
            Ok(data) => return Ok(Found { data, device, file_path }),
            Err(error) => note(error),
        }
    }
    if let Ok((device, file_path)) = locate_path(core, &LoadFileProtocol::GUID, path) {
        match load_file(core, device, file_path, boot_policy) {
            Ok(data) => return Ok(Found { data, device, file_path }),
            Err(error) => note(error),
        }
    }
    Err(first_error)
}

fn read_from_volume(core: &Core, device: Handle, path: &DevicePath) -> Result<Vec<u8>> {
    let mut file = volume::root(core, device)?;
    for node in path.raw_nodes() {
        file = file.open(&file_name(node)?)?;
    }
    file.content()
}

/// The name of a file path node, aligned and terminated as Open wants it.
fn file_name(node: RawNode<'_>) -> Result<Vec<u16>> {
    let bytes = node.as_bytes();
    let header = core::mem::offset_of!(FilePath, path_name);
    if bytes.get(..2) != Some(&[DeviceType::MEDIA.0, DeviceSubType::MEDIA_FILE_PATH.0]) {
        return Err(LoadError::NotFound);
    }
    let units = bytes.get(header..).unwrap_or_default().chunks_exact(2);
    Ok(units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).take_while(|unit| *unit != 0).chain([0]).collect())
}

fn load_file_2(core: &Core, device: Handle, path: &DevicePath) -> Result<Vec<u8>> {
    let loader = interface::<LoadFile2Protocol>(core, device, &LoadFile2Protocol::GUID)?;
    // SAFETY: who installed the protocol answers for it; a buffer is as long as the size says.
    in_two_calls(|size, buffer| unsafe { ((*loader).load_file)(loader, path.as_ptr(), Boolean::FALSE, size, buffer) })
}

fn load_file(core: &Core, device: Handle, path: &DevicePath, boot_policy: bool) -> Result<Vec<u8>> {
    let loader = interface::<LoadFileProtocol>(core, device, &LoadFileProtocol::GUID)?;
    // SAFETY: as above.
    in_two_calls(|size, buffer| unsafe {
        ((*loader).load_file)(loader, path.as_ptr(), boot_policy.into(), size, buffer)
    })
}

/// Asks for the size, then for the data.
fn in_two_calls(load: impl Fn(*mut usize, *mut c_void) -> Status) -> Result<Vec<u8>> {
    let mut size = 0;
    match load(&raw mut size, ptr::null_mut()) {
        Status::BUFFER_TOO_SMALL => {}
        Status::SUCCESS => return Err(LoadError::Read(Status::LOAD_ERROR)),
        other => return check(other).map(|()| Vec::new()),
    }
    let mut data: Vec<u8> = reserve(size)?;
    let room = size;
    check(load(&raw mut size, data.as_mut_ptr().cast()))?;
    // SAFETY: the loader has written `size` bytes, and there was room for `room`.
    unsafe { data.set_len(size.min(room)) };
    Ok(data)
}
