//! Reading anybody's file systems: EFI_SIMPLE_FILE_SYSTEM_PROTOCOL and EFI_FILE_PROTOCOL (UEFI 2.10 §13.4, §13.5) from the
//! caller's side.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::ptr;

use uefi_raw::protocol::file_system::{FileAttribute, FileInfo, FileMode, FileProtocolV1, SimpleFileSystemProtocol};
use uefi_raw::{Guid, Handle, Status};

use crate::core_state::Core;
use crate::file::DirectoryEntry;
use crate::image::LoadError;

type Result<T> = core::result::Result<T, LoadError>;

/// Room for file information and a name of ordinary length, in units of 8 bytes, which it is aligned to.
const USUAL: usize = 64;
/// No file information is longer, in bytes.
const MOST: usize = 1 << 16;

/// An open file or directory.
pub(crate) struct File(*mut FileProtocolV1);

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: opened and not closed before. There is nothing to do about a failure.
        let _ = unsafe { ((*self.0).close)(self.0) };
    }
}

/// The root directory of a volume.
pub(super) fn root(core: &Core, volume: Handle) -> Result<File> {
    let volume = interface::<SimpleFileSystemProtocol>(core, volume, &SimpleFileSystemProtocol::GUID)?;
    let mut root = ptr::null_mut();
    // SAFETY: who installed the protocol answers for it.
    check(unsafe { ((*volume).open_volume)(volume, &raw mut root) })?;
    Ok(File(root))
}

/// What is at `path` on a volume; the root directory for an empty one.
pub(crate) fn open(core: &Core, volume: Handle, path: &str) -> Result<File> {
    let root = root(core, volume)?;
    if path.is_empty() {
        return Ok(root);
    }
    let name: Vec<u16> = path.encode_utf16().chain([0]).collect();
    root.open(&name)
}

impl File {
    /// Opens what is below a directory; the name ends with null.
    pub(super) fn open(&self, name: &[u16]) -> Result<Self> {
        let mut file = ptr::null_mut();
        // SAFETY: the directory is open, the name ends with null.
        let opened =
            unsafe { ((*self.0).open)(self.0, &raw mut file, name.as_ptr(), FileMode::READ, FileAttribute::empty()) };
        check(opened)?;
        Ok(Self(file))
    }

    fn size(&self) -> Result<usize> {
        let information = information(|buffer, size| {
            // SAFETY: the file is open, and the buffer has room for `size` bytes.
            unsafe { ((*self.0).get_info)(self.0, &FileInfo::ID, size, buffer.cast()) }
        })?;
        let information = information.ok_or(LoadError::Read(Status::DEVICE_ERROR))?;
        if information.is_directory {
            return Err(LoadError::Directory);
        }
        usize::try_from(information.size).map_err(|_| LoadError::Memory(information.size))
    }

    /// All of a file.
    pub(crate) fn content(&self) -> Result<Vec<u8>> {
        let size = self.size()?;
        let mut data = reserve(size)?;
        while data.len() < size {
            let mut count = size - data.len();
            // SAFETY: the file is open, and the vector has room for the rest.
            check(unsafe { ((*self.0).read)(self.0, &raw mut count, data.as_mut_ptr().add(data.len()).cast()) })?;
            if count == 0 || count > size - data.len() {
                return Err(LoadError::Read(Status::DEVICE_ERROR));
            }
            // SAFETY: the file system has written this many bytes, and there was room for them.
            unsafe { data.set_len(data.len() + count) };
        }
        Ok(data)
    }

    /// What is in a directory.
    pub(crate) fn entries(&self) -> Result<Vec<DirectoryEntry>> {
        let mut entries = Vec::new();
        // A file system that never ends is not to be followed for ever.
        while entries.len() < MOST {
            let next = information(|buffer, size| {
                // SAFETY: the directory is open, and the buffer has room for `size` bytes.
                unsafe { ((*self.0).read)(self.0, size, buffer.cast()) }
            })?;
            match next {
                Some(entry) if entry.name == "." || entry.name == ".." => {}
                Some(entry) => entries.push(entry),
                None => break,
            }
        }
        Ok(entries)
    }
}

/// Gets an EFI_FILE_INFO, in a larger buffer if need be; `None` where nothing comes back.
fn information(get: impl Fn(*mut u64, *mut usize) -> Status) -> Result<Option<DirectoryEntry>> {
    let mut buffer = alloc::vec![0_u64; USUAL];
    let mut size = size_of_val(buffer.as_slice());
    let mut status = get(buffer.as_mut_ptr(), &raw mut size);
    if status == Status::BUFFER_TOO_SMALL && size <= MOST {
        buffer.resize(size.div_ceil(size_of::<u64>()), 0);
        status = get(buffer.as_mut_ptr(), &raw mut size);
    }
    check(status)?;
    let room = size_of_val(buffer.as_slice());
    if size == 0 {
        return Ok(None);
    }
    // SAFETY: the buffer is larger than the structure and aligned for it, and any bytes are a valid one.
    let info = unsafe { &*buffer.as_ptr().cast::<FileInfo>() };
    let (length, attributes) = (info.file_size, info.attribute);
    let name =
        buffer.iter().flat_map(|word| word.to_le_bytes()).take(size.min(room)).skip(offset_of!(FileInfo, file_name));
    let name: Vec<u8> = name.collect();
    let name: Vec<u16> =
        name.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).take_while(|unit| *unit != 0).collect();
    Ok(Some(DirectoryEntry {
        name: String::from_utf16_lossy(&name),
        size: length,
        is_directory: attributes.contains(FileAttribute::DIRECTORY),
    }))
}

/// Room for `size` bytes.
pub(super) fn reserve(size: usize) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    data.try_reserve_exact(size).map_err(|_| LoadError::Memory(size as u64))?;
    Ok(data)
}

/// A protocol of a handle.
pub(super) fn interface<T>(core: &Core, device: Handle, guid: &Guid) -> Result<*mut T> {
    let interface = core.handles.with(|handles| handles.interface(device, guid)).unwrap_or(ptr::null_mut());
    if interface.is_null() { Err(LoadError::NotFound) } else { Ok(interface.cast()) }
}

/// A status as a result.
pub(super) fn check(status: Status) -> Result<()> {
    match status {
        Status::NOT_FOUND => Err(LoadError::NotFound),
        // A warning is no answer either: LoadFile has one for a file system in place of a file.
        Status::SUCCESS => Ok(()),
        other if other.is_warning() => Err(LoadError::Read(Status::UNSUPPORTED)),
        other => Err(LoadError::Read(other)),
    }
}
