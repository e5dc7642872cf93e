//! EFI_SIMPLE_FILE_SYSTEM_PROTOCOL (UEFI 2.10 §13.4) and EFI_FILE_PROTOCOL revision 2 (§13.5) made of a [`FileSystem`].
//!
//! Paths and positions live here, everything else in the file system. A file stays valid until it is closed, also when its
//! volume goes away; whatever is done to it then is `MEDIA_CHANGED`. The asynchronous functions are complete when they return.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

use uefi_raw::protocol::file_system as raw;
use uefi_raw::protocol::file_system::{
    FileAttribute, FileIoToken, FileMode, FileProtocolRevision, FileProtocolV1, FileProtocolV2,
    SimpleFileSystemProtocol,
};
use uefi_raw::time::{Daylight, Time};
use uefi_raw::{Char16, Guid, Handle, Status};

use super::gate::Gate;
use super::misc::{is_ours, status};
use crate::file::{Attributes, FileError, FileId, FileInfo, FileSystem, OpenMode, VolumeInfo};
use crate::{Result, api};

/// Revision of EFI_SIMPLE_FILE_SYSTEM_PROTOCOL.
const REVISION: u64 = 0x0001_0000;
/// What separates the names of a path.
const SEPARATOR: char = '\\';
/// Position that means the end of the file.
const END_OF_FILE: u64 = u64::MAX;
/// Longest path read from a caller, in characters.
const MAX_PATH: usize = 32 << 10;

/// A volume: the interface on its handle, shared with the files that are open.
#[repr(C)]
struct Volume {
    protocol: SimpleFileSystemProtocol,
    /// `None` once it was taken away.
    system: Gate<Option<Box<dyn FileSystem>>>,
}

/// An open file: what a caller gets to see as EFI_FILE_PROTOCOL.
#[repr(C)]
struct File {
    protocol: FileProtocolV2,
    /// Counted atomically: a notification that uses files may come while one is opened or closed.
    volume: Arc<Volume>,
    id: FileId,
    writable: bool,
    directory: bool,
    /// Byte in a file, entry in a directory.
    position: Cell<u64>,
}

impl Volume {
    /// Runs `f` on the file system.
    fn with<R>(&self, f: impl FnOnce(&mut dyn FileSystem) -> Result<R>) -> Result<R> {
        self.system.with(|system| match system {
            Some(system) => f(system.as_mut()),
            None => Err(Status::MEDIA_CHANGED),
        })?
    }
}

/// Adds EFI_SIMPLE_FILE_SYSTEM_PROTOCOL to a handle.
#[expect(clippy::arc_with_non_send_sync, reason = "there is one CPU; the count is what interrupts must not tear")]
pub(crate) fn install(handle: Handle, system: Box<dyn FileSystem>) -> Result<()> {
    let volume = Arc::into_raw(Arc::new(Volume {
        protocol: SimpleFileSystemProtocol { revision: REVISION, open_volume },
        system: Gate::new(Some(system)),
    }));
    let interface = volume.cast_mut().cast();
    api::install_protocol(Some(handle), &SimpleFileSystemProtocol::GUID, interface).map(drop).inspect_err(|_| {
        // SAFETY: made above, and not installed.
        drop(unsafe { Arc::from_raw(volume) });
    })
}

/// Takes the protocol away. The file system is dropped at once; files that are open stay as empty shells.
pub(crate) fn uninstall(handle: Handle) -> Result<()> {
    let interface = api::protocol(handle, &SimpleFileSystemProtocol::GUID)?.cast::<SimpleFileSystemProtocol>();
    // SAFETY: what is installed under this GUID is this protocol.
    if interface.is_null() || !is_ours(unsafe { (*interface).open_volume } as *const (), open_volume as *const ()) {
        return Err(Status::UNSUPPORTED);
    }
    api::uninstall_protocol(handle, &SimpleFileSystemProtocol::GUID, interface.cast())?;
    // SAFETY: made by `install`, and no longer installed.
    let volume = unsafe { Arc::from_raw(interface.cast_const().cast::<Volume>()) };
    let system = volume.system.with(Option::take)?;
    drop(system);
    Ok(())
}

unsafe extern "efiapi" fn open_volume(this: *mut SimpleFileSystemProtocol, root: *mut *mut FileProtocolV1) -> Status {
    if this.is_null() || root.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let volume = this.cast_const().cast::<Volume>();
    // SAFETY: `this` was made by `Arc::into_raw`, and the handle holds on to that count.
    let volume = unsafe {
        Arc::increment_strong_count(volume);
        Arc::from_raw(volume)
    };
    let opened = volume.with(|system| Ok(system.open_root()?));
    status(opened.map(|id| {
        // What may be written the file system decides; asking it for facts about the volume may take long.
        let file = File::hand_out(volume, id, true, true);
        // SAFETY: not null.
        unsafe { root.write(file) };
    }))
}

impl File {
    /// Makes a file for a caller to close.
    fn hand_out(volume: Arc<Volume>, id: FileId, writable: bool, directory: bool) -> *mut FileProtocolV1 {
        let protocol = FileProtocolV2 {
            v1: FileProtocolV1 {
                revision: FileProtocolRevision::REVISION_2,
                open,
                close,
                delete,
                read,
                write,
                get_position,
                set_position,
                get_info,
                set_info,
                flush,
            },
            open_ex,
            read_ex,
            write_ex,
            flush_ex,
        };
        let file = Self { protocol, volume, id, writable, directory, position: Cell::new(0) };
        Box::into_raw(Box::new(file)).cast()
    }

    /// # Safety
    /// `this` is null or a file that is open.
    unsafe fn of<'a>(this: *const FileProtocolV1) -> Result<&'a Self> {
        // SAFETY: the protocol is the first field.
        unsafe { this.cast::<Self>().as_ref() }.ok_or(Status::INVALID_PARAMETER)
    }

    /// # Safety
    /// As [`Self::of`].
    unsafe fn of_v2<'a>(this: *const FileProtocolV2) -> Result<&'a Self> {
        // SAFETY: by contract.
        unsafe { Self::of(this.cast()) }
    }

    fn open(&self, path: &str, mode: FileMode, attributes: FileAttribute) -> Result<*mut FileProtocolV1> {
        let read_write = FileMode::READ | FileMode::WRITE;
        let mode = if mode == FileMode::READ {
            OpenMode::Read
        } else if mode == read_write {
            OpenMode::ReadWrite
        } else if mode == read_write | FileMode::CREATE {
            let valid = FileAttribute::VALID_ATTR;
            if !valid.contains(attributes) {
                return Err(Status::INVALID_PARAMETER);
            }
            OpenMode::Create(Attributes::from_bits_truncate(attributes.bits()))
        } else {
            return Err(Status::INVALID_PARAMETER);
        };
        let (id, directory) = self.volume.with(|system| {
            let id = walk(system, self.id, path, mode)?;
            let info = system.info(id).inspect_err(|_| close_quietly(system, id))?;
            Ok((id, info.attributes.contains(Attributes::DIRECTORY)))
        })?;
        Ok(Self::hand_out(Arc::clone(&self.volume), id, mode != OpenMode::Read, directory))
    }

    /// Reads at the position and moves it on; returns what is to be written to `BufferSize`.
    ///
    /// # Safety
    /// `buffer` has room for `size` bytes.
    unsafe fn read(&self, size: usize, buffer: *mut c_void) -> core::result::Result<usize, (Status, usize)> {
        if buffer.is_null() && size != 0 {
            return Err((Status::INVALID_PARAMETER, size));
        }
        let position = self.position.get();
        if self.directory {
            let entry =
                self.volume.with(|system| Ok(system.entry(self.id, position)?)).map_err(|error| (error, size))?;
            let Some(entry) = entry else { return Ok(0) };
            // SAFETY: by contract.
            let length = unsafe { copy_out(&file_info(&entry), size, buffer) }?;
            self.position.set(position + 1);
            return Ok(length);
        }
        let read = self.volume.with(|system| {
            let end = system.size(self.id)?;
            // §13.5.5: a position behind the end is a device error, one at the end is not.
            let left = end.checked_sub(position).ok_or(Status::DEVICE_ERROR)?;
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(size);
            if length == 0 {
                return Ok(0);
            }
            // SAFETY: not null, since there is something to read into it; room by contract.
            let into = unsafe { core::slice::from_raw_parts_mut(buffer.cast(), length) };
            Ok(system.read(self.id, position, into)?)
        });
        let read = read.map_err(|error| (error, size))?;
        self.position.set(position + read as u64);
        Ok(read)
    }

    /// # Safety
    /// `buffer` holds `size` bytes.
    unsafe fn write(&self, size: usize, buffer: *const c_void) -> Result<()> {
        if self.directory {
            return Err(Status::UNSUPPORTED);
        }
        if !self.writable {
            return Err(Status::ACCESS_DENIED);
        }
        if size == 0 {
            return Ok(());
        }
        if buffer.is_null() || isize::try_from(size).is_err() {
            return Err(Status::INVALID_PARAMETER);
        }
        // SAFETY: not null; length by contract.
        let from = unsafe { core::slice::from_raw_parts(buffer.cast(), size) };
        let position = self.position.get();
        self.volume.with(|system| Ok(system.write(self.id, position, from)?))?;
        self.position.set(position + size as u64);
        Ok(())
    }

    fn set_position(&self, position: u64) -> Result<()> {
        let position = match (self.directory, position) {
            (true, 0) => 0,
            (true, _) => return Err(Status::UNSUPPORTED),
            (false, END_OF_FILE) => self.volume.with(|system| Ok(system.size(self.id)?))?,
            (false, position) => position,
        };
        // A file that is gone says so here too.
        self.volume.with(|system| Ok(system.size(self.id)?))?;
        self.position.set(position);
        Ok(())
    }

    fn info(&self, kind: &Guid) -> Result<Vec<u8>> {
        self.volume.with(|system| match *kind {
            raw::FileInfo::ID => Ok(file_info(&system.info(self.id)?)),
            raw::FileSystemInfo::ID => Ok(volume_info(&system.volume()?)),
            raw::FileSystemVolumeLabel::ID => {
                let mut label = Vec::new();
                put_text(&mut label, &system.volume()?.label);
                Ok(label)
            }
            _ => Err(Status::UNSUPPORTED),
        })
    }

    fn set_info(&self, kind: &Guid, info: &[u8]) -> Result<()> {
        let label_at = match *kind {
            raw::FileInfo::ID => return self.set_file_info(info),
            raw::FileSystemInfo::ID => {
                let size = field::<8>(info, offset_of!(raw::FileSystemInfo, size)).map(u64::from_le_bytes);
                if size.is_none_or(|size| size > info.len() as u64) {
                    return Err(Status::BAD_BUFFER_SIZE);
                }
                offset_of!(raw::FileSystemInfo, volume_label)
            }
            raw::FileSystemVolumeLabel::ID => 0,
            _ => return Err(Status::UNSUPPORTED),
        };
        let label = text(info.get(label_at..).unwrap_or(&[])).ok_or(Status::BAD_BUFFER_SIZE)?;
        self.volume.with(|system| Ok(system.set_label(&label)?))
    }

    fn set_file_info(&self, info: &[u8]) -> Result<()> {
        let number = |at: usize| field::<8>(info, at).map(u64::from_le_bytes).ok_or(Status::BAD_BUFFER_SIZE);
        let stamp = |at: usize| field::<16>(info, at).map(|bytes| time(&bytes)).ok_or(Status::BAD_BUFFER_SIZE);
        let size = number(offset_of!(raw::FileInfo, size))?;
        let name = info.get(offset_of!(raw::FileInfo, file_name)..).and_then(text).ok_or(Status::BAD_BUFFER_SIZE)?;
        if size > info.len() as u64 {
            return Err(Status::BAD_BUFFER_SIZE);
        }
        let attributes = number(offset_of!(raw::FileInfo, attribute))?;
        let attributes = Attributes::from_bits(attributes).ok_or(Status::INVALID_PARAMETER)?;
        let size = number(offset_of!(raw::FileInfo, file_size))?;
        let created = stamp(offset_of!(raw::FileInfo, create_time))?;
        let accessed = stamp(offset_of!(raw::FileInfo, last_access_time))?;
        let modified = stamp(offset_of!(raw::FileInfo, modification_time))?;
        if [created, accessed, modified].iter().any(|time| time.year != 0 && !time.is_valid()) {
            return Err(Status::INVALID_PARAMETER);
        }
        self.volume.with(|system| {
            let old = system.info(self.id)?;
            if attributes.contains(Attributes::DIRECTORY) != self.directory {
                return Err(Status::ACCESS_DENIED);
            }
            // The size of a directory is what the file system says it is.
            let size = if self.directory { old.size } else { size };
            if name != old.name {
                rename(system, self.id, &name)?;
            }
            let name = system.info(self.id)?.name;
            let allocated = old.allocated;
            Ok(system
                .set_info(self.id, &FileInfo { name, size, allocated, created, accessed, modified, attributes })?)
        })
    }

    fn flush(&self) -> Result<()> {
        if !self.writable {
            return Err(Status::ACCESS_DENIED);
        }
        self.volume.with(|system| Ok(system.flush(self.id)?))
    }
}

/// Follows a path from `start`; returns a new open file.
fn walk(system: &mut dyn FileSystem, start: FileId, path: &str, mode: OpenMode) -> Result<FileId> {
    // The open file that we are at, if it is ours to close.
    let mut own = if path.starts_with(SEPARATOR) { Some(system.open_root()?) } else { None };
    let mut names = path.split(SEPARATOR).filter(|name| !matches!(*name, "" | ".")).peekable();
    let mut as_wanted = false;
    while let Some(name) = names.next() {
        let at = own.unwrap_or(start);
        as_wanted = name != ".." && names.peek().is_none();
        let next = if name == ".." {
            system.open_parent(at).map_err(Status::from)
        } else {
            let mode = if as_wanted { mode } else { OpenMode::Read };
            open_in(system, at, name, mode)
        };
        if let Some(own) = own {
            close_quietly(system, own);
        }
        own = Some(next?);
    }
    match own {
        Some(own) if as_wanted => Ok(own),
        _ => {
            let at = own.unwrap_or(start);
            let again = reopen(system, at, mode);
            if let Some(own) = own {
                close_quietly(system, own);
            }
            again
        }
    }
}

/// Opens a name in what has to be a directory.
fn open_in(system: &mut dyn FileSystem, at: FileId, name: &str, mode: OpenMode) -> Result<FileId> {
    if !system.info(at)?.attributes.contains(Attributes::DIRECTORY) {
        return Err(Status::NOT_FOUND);
    }
    Ok(system.open(at, name, mode)?)
}

/// Opens an open file once more.
fn reopen(system: &mut dyn FileSystem, file: FileId, mode: OpenMode) -> Result<FileId> {
    // It exists, so there is nothing to create.
    let mode = if mode == OpenMode::Read { mode } else { OpenMode::ReadWrite };
    match system.open_parent(file) {
        Err(FileError::NotFound) => Ok(system.open_root()?),
        Err(error) => Err(error.into()),
        Ok(parent) => {
            let name = system.info(file).map(|info| info.name);
            let again = name.and_then(|name| system.open(parent, &name, mode));
            close_quietly(system, parent);
            Ok(again?)
        }
    }
}

/// Moves a file to a path: absolute, or from the directory it is in.
fn rename(system: &mut dyn FileSystem, file: FileId, path: &str) -> Result<()> {
    let (directory, name) = path
        .rsplit_once(SEPARATOR)
        .map_or(("", path), |(directory, name)| (if directory.is_empty() { "\\" } else { directory }, name));
    // The root has no directory and keeps its name.
    let parent = system.open_parent(file).map_err(|_| Status::ACCESS_DENIED)?;
    let target = walk(system, parent, directory, OpenMode::Read);
    close_quietly(system, parent);
    let target = target?;
    let result = system.rename(file, target, name);
    close_quietly(system, target);
    Ok(result?)
}

/// Closes what was opened for reading on the way; there is nothing to write that could fail.
fn close_quietly(system: &mut dyn FileSystem, file: FileId) {
    if let Err(error) = system.close(file) {
        log::debug!("closing a file: {error}");
    }
}

unsafe extern "efiapi" fn open(
    this: *mut FileProtocolV1,
    new_handle: *mut *mut FileProtocolV1,
    name: *const Char16,
    mode: FileMode,
    attributes: FileAttribute,
) -> Status {
    if new_handle.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for its pointers.
    let opened = unsafe { File::of(this).and_then(|file| file.open(&path(name)?, mode, attributes)) };
    // SAFETY: not null.
    status(opened.map(|file| unsafe { new_handle.write(file) }))
}

unsafe extern "efiapi" fn close(this: *mut FileProtocolV1) -> Status {
    if this.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller says that this is a file and that it is done with it.
    let file = unsafe { Box::from_raw(this.cast::<File>()) };
    let closed = file.volume.with(|system| Ok(system.close(file.id)?));
    if let Err(error) = closed
        && error != Status::MEDIA_CHANGED
    {
        log::warn!("closing a file: {error}");
    }
    // §13.5.3 knows no other.
    Status::SUCCESS
}

unsafe extern "efiapi" fn delete(this: *mut FileProtocolV1) -> Status {
    if this.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller says that this is a file and that it is done with it.
    let file = unsafe { Box::from_raw(this.cast::<File>()) };
    match file.volume.with(|system| Ok(system.delete(file.id)?)) {
        Ok(()) => Status::SUCCESS,
        Err(error) => {
            log::debug!("a file cannot be deleted: {error}");
            Status::WARN_DELETE_FAILURE
        }
    }
}

unsafe extern "efiapi" fn read(this: *mut FileProtocolV1, size: *mut usize, buffer: *mut c_void) -> Status {
    if size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for its pointers.
    unsafe {
        match File::of(this) {
            Ok(file) => size_result(file.read(*size, buffer), size),
            Err(error) => error,
        }
    }
}

unsafe extern "efiapi" fn write(this: *mut FileProtocolV1, size: *mut usize, buffer: *const c_void) -> Status {
    if size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for its pointers.
    unsafe {
        let result = File::of(this).and_then(|file| file.write(*size, buffer));
        if result.is_err() {
            // Nothing that could be relied on was written.
            size.write(0);
        }
        status(result)
    }
}

unsafe extern "efiapi" fn get_position(this: *const FileProtocolV1, position: *mut u64) -> Status {
    if position.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for `this`.
    status(unsafe { File::of(this) }.and_then(|file| {
        if file.directory {
            return Err(Status::UNSUPPORTED);
        }
        file.volume.with(|system| Ok(system.size(file.id)?))?;
        // SAFETY: not null.
        unsafe { position.write(file.position.get()) };
        Ok(())
    }))
}

unsafe extern "efiapi" fn set_position(this: *mut FileProtocolV1, position: u64) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { File::of(this) }.and_then(|file| file.set_position(position)))
}

unsafe extern "efiapi" fn get_info(
    this: *mut FileProtocolV1,
    kind: *const Guid,
    size: *mut usize,
    buffer: *mut c_void,
) -> Status {
    if kind.is_null() || size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for its pointers.
    unsafe {
        match File::of(this).and_then(|file| file.info(&kind.read_unaligned())) {
            Ok(info) => size_result(copy_out(&info, *size, buffer), size),
            Err(error) => error,
        }
    }
}

unsafe extern "efiapi" fn set_info(
    this: *mut FileProtocolV1,
    kind: *const Guid,
    size: usize,
    buffer: *const c_void,
) -> Status {
    if kind.is_null() || buffer.is_null() || isize::try_from(size).is_err() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let (kind, info) = unsafe { (kind.read_unaligned(), core::slice::from_raw_parts(buffer.cast(), size)) };
    // SAFETY: the caller answers for `this`.
    status(unsafe { File::of(this) }.and_then(|file| file.set_info(&kind, info)))
}

unsafe extern "efiapi" fn flush(this: *mut FileProtocolV1) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { File::of(this) }.and_then(File::flush))
}

unsafe extern "efiapi" fn open_ex(
    this: *mut FileProtocolV2,
    new_handle: *mut *mut FileProtocolV2,
    name: *const Char16,
    mode: FileMode,
    attributes: FileAttribute,
    token: *mut FileIoToken,
) -> Status {
    if token.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: a file of ours is both; the caller answers for its pointers.
    unsafe { complete(token, open(this.cast(), new_handle.cast(), name, mode, attributes)) }
}

unsafe extern "efiapi" fn read_ex(this: *mut FileProtocolV2, token: *mut FileIoToken) -> Status {
    if token.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for its pointers.
    unsafe {
        let result = match File::of_v2(this) {
            Ok(file) => size_result(file.read((*token).buffer_size, (*token).buffer), &raw mut (*token).buffer_size),
            Err(error) => error,
        };
        complete(token, result)
    }
}

unsafe extern "efiapi" fn write_ex(this: *mut FileProtocolV2, token: *mut FileIoToken) -> Status {
    if token.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for its pointers.
    unsafe { complete(token, write(this.cast(), &raw mut (*token).buffer_size, (*token).buffer)) }
}

unsafe extern "efiapi" fn flush_ex(this: *mut FileProtocolV2, token: *mut FileIoToken) -> Status {
    if token.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for its pointers.
    unsafe { complete(token, flush(this.cast())) }
}

/// Ends an operation with a token: one with an event was queued, and its result is in the token.
///
/// # Safety
/// `token` points to a token.
unsafe fn complete(token: *mut FileIoToken, result: Status) -> Status {
    // SAFETY: by contract.
    let event = unsafe {
        (*token).status = result;
        (*token).event
    };
    if event.is_null() { result } else { status(api::signal_event(event)) }
}

/// Writes the size that goes with a result to where the caller gave its own.
///
/// # Safety
/// `size` can be written.
unsafe fn size_result(result: core::result::Result<usize, (Status, usize)>, size: *mut usize) -> Status {
    let (result, length) = match result {
        Ok(length) => (Status::SUCCESS, length),
        Err((error, length)) => (error, length),
    };
    // SAFETY: by contract.
    unsafe { size.write(length) };
    result
}

/// Copies to a caller's buffer, or says how large it has to be.
///
/// # Safety
/// `buffer` has room for `size` bytes.
unsafe fn copy_out(bytes: &[u8], size: usize, buffer: *mut c_void) -> core::result::Result<usize, (Status, usize)> {
    if size < bytes.len() {
        return Err((Status::BUFFER_TOO_SMALL, bytes.len()));
    }
    if buffer.is_null() {
        return Err((Status::INVALID_PARAMETER, size));
    }
    // SAFETY: not null, and large enough.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast(), bytes.len()) };
    Ok(bytes.len())
}

/// Reads a path.
///
/// # Safety
/// `name` is null or a string that ends with null.
unsafe fn path(name: *const Char16) -> Result<String> {
    if name.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    // SAFETY: up to the null the string is readable.
    let units = (0..MAX_PATH).map(|at| unsafe { name.add(at).read_unaligned() }).take_while(|unit| *unit != 0);
    let units: Vec<u16> = units.collect();
    if units.len() == MAX_PATH {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(decode(units))
}

fn decode(units: impl IntoIterator<Item = u16>) -> String {
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// The text at the start of `bytes` up to its null.
fn text(bytes: &[u8]) -> Option<String> {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let end = units.iter().position(|unit| *unit == 0)?;
    Some(decode(units.into_iter().take(end)))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// EFI_FILE_INFO (§13.5.16).
fn file_info(info: &FileInfo) -> Vec<u8> {
    let mut out = Vec::with_capacity(offset_of!(raw::FileInfo, file_name) + 2 * info.name.len() + 2);
    for number in [0, info.size, info.allocated] {
        out.extend(number.to_le_bytes());
    }
    for time in [&info.created, &info.accessed, &info.modified] {
        put_time(&mut out, time);
    }
    out.extend(info.attributes.bits().to_le_bytes());
    put_text(&mut out, &info.name);
    with_size(out)
}

/// EFI_FILE_SYSTEM_INFO (§13.5.17).
fn volume_info(info: &VolumeInfo) -> Vec<u8> {
    let mut out = alloc::vec![0; offset_of!(raw::FileSystemInfo, volume_size)];
    out[offset_of!(raw::FileSystemInfo, read_only)] = u8::from(info.read_only);
    out.extend(info.size.to_le_bytes());
    out.extend(info.free.to_le_bytes());
    out.extend(info.block_size.to_le_bytes());
    put_text(&mut out, &info.label);
    with_size(out)
}

/// Both structures start with their own size.
fn with_size(mut bytes: Vec<u8>) -> Vec<u8> {
    let size = bytes.len() as u64;
    if let Some(first) = bytes.first_chunk_mut::<8>() {
        *first = size.to_le_bytes();
    }
    bytes
}

/// EFI_TIME (§8.3).
fn put_time(out: &mut Vec<u8>, time: &Time) {
    out.extend(time.year.to_le_bytes());
    out.extend([time.month, time.day, time.hour, time.minute, time.second, 0]);
    out.extend(time.nanosecond.to_le_bytes());
    out.extend(time.time_zone.to_le_bytes());
    out.extend([time.daylight.bits(), 0]);
}

fn time(bytes: &[u8; 16]) -> Time {
    let [y0, y1, month, day, hour, minute, second, _, n0, n1, n2, n3, z0, z1, daylight, _] = *bytes;
    Time {
        year: u16::from_le_bytes([y0, y1]),
        month,
        day,
        hour,
        minute,
        second,
        pad1: 0,
        nanosecond: u32::from_le_bytes([n0, n1, n2, n3]),
        time_zone: i16::from_le_bytes([z0, z1]),
        daylight: Daylight::from_bits_retain(daylight),
        pad2: 0,
    }
}

impl From<FileError> for Status {
    fn from(error: FileError) -> Self {
        match error {
            FileError::NotFound => Self::NOT_FOUND,
            FileError::Device => Self::DEVICE_ERROR,
            FileError::Corrupted => Self::VOLUME_CORRUPTED,
            FileError::Full => Self::VOLUME_FULL,
            FileError::WriteProtected => Self::WRITE_PROTECTED,
            FileError::AccessDenied => Self::ACCESS_DENIED,
            FileError::InvalidParameter => Self::INVALID_PARAMETER,
            FileError::Unsupported => Self::UNSUPPORTED,
        }
    }
}
