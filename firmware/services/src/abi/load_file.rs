//! Reading the file that a device path names, for LoadImage (UEFI 2.10 §7.4.1): through SimpleFileSystem, LoadFile2 or
//! LoadFile.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use uefi_raw::protocol::device_path::media::FilePath;
use uefi_raw::protocol::device_path::{DeviceSubType, DeviceType};
use uefi_raw::protocol::file_system::{FileAttribute, FileInfo, FileMode, FileProtocolV1, SimpleFileSystemProtocol};
use uefi_raw::protocol::media::{LoadFile2Protocol, LoadFileProtocol};
use uefi_raw::{Boolean, Handle, Status};

use super::handle::locate_path;
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

/// An open file or directory.
struct File(*mut FileProtocolV1);

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: opened and not closed before. There is nothing to do about a failure.
        let _ = unsafe { ((*self.0).close)(self.0) };
    }
}

fn read_from_volume(core: &Core, device: Handle, path: &DevicePath) -> Result<Vec<u8>> {
    let volume = interface::<SimpleFileSystemProtocol>(core, device, &SimpleFileSystemProtocol::GUID)?;
    let mut root = ptr::null_mut();
    // SAFETY: who installed the protocol answers for it.
    check(unsafe { ((*volume).open_volume)(volume, &raw mut root) })?;
    let mut file = File(root);
    for node in path.raw_nodes() {
        file = open(&file, &file_name(node)?)?;
    }
    let size = file_size(&file)?;
    let mut data = reserve(size)?;
    while data.len() < size {
        let mut count = size - data.len();
        // SAFETY: the file is open, and the vector has room for the rest.
        check(unsafe { ((*file.0).read)(file.0, &raw mut count, data.as_mut_ptr().add(data.len()).cast()) })?;
        if count == 0 || count > size - data.len() {
            return Err(LoadError::Read(Status::DEVICE_ERROR));
        }
        // SAFETY: the file system has written this many bytes, and there was room for them.
        unsafe { data.set_len(data.len() + count) };
    }
    Ok(data)
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

fn open(directory: &File, name: &[u16]) -> Result<File> {
    let mut file = ptr::null_mut();
    // SAFETY: the directory is open, the name ends with null.
    let opened = unsafe {
        ((*directory.0).open)(directory.0, &raw mut file, name.as_ptr(), FileMode::READ, FileAttribute::empty())
    };
    check(opened)?;
    Ok(File(file))
}

fn file_size(file: &File) -> Result<usize> {
    /// Room for the structure and a name of ordinary length, in units of 8 bytes, which it is aligned to.
    const USUAL: usize = 64;
    /// No file name is longer.
    const MOST: usize = 1 << 16;
    let mut buffer = alloc::vec![0_u64; USUAL];
    let mut size = size_of_val(buffer.as_slice());
    let get = |buffer: &mut [u64], size: &mut usize| {
        // SAFETY: the file is open, and the buffer has room for `size` bytes.
        unsafe { ((*file.0).get_info)(file.0, &FileInfo::ID, size, buffer.as_mut_ptr().cast()) }
    };
    let mut status = get(&mut buffer, &mut size);
    if status == Status::BUFFER_TOO_SMALL && size <= MOST {
        buffer.resize(size.div_ceil(size_of::<u64>()), 0);
        status = get(&mut buffer, &mut size);
    }
    check(status)?;
    // SAFETY: the buffer is larger than the structure and aligned for it, and any bytes are a valid one.
    let info = unsafe { &*buffer.as_ptr().cast::<FileInfo>() };
    if info.attribute.contains(FileAttribute::DIRECTORY) {
        return Err(LoadError::Directory);
    }
    usize::try_from(info.file_size).map_err(|_| LoadError::Memory(info.file_size))
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

fn reserve(size: usize) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    data.try_reserve_exact(size).map_err(|_| LoadError::Memory(size as u64))?;
    Ok(data)
}

fn interface<T>(core: &Core, device: Handle, guid: &uefi_raw::Guid) -> Result<*mut T> {
    let interface = core.handles.with(|handles| handles.interface(device, guid)).unwrap_or(ptr::null_mut());
    if interface.is_null() { Err(LoadError::NotFound) } else { Ok(interface.cast()) }
}

fn check(status: Status) -> Result<()> {
    match status {
        Status::NOT_FOUND => Err(LoadError::NotFound),
        // A warning is no answer either: LoadFile has one for a file system in place of a file.
        Status::SUCCESS => Ok(()),
        other if other.is_warning() => Err(LoadError::Read(Status::UNSUPPORTED)),
        other => Err(LoadError::Read(other)),
    }
}
