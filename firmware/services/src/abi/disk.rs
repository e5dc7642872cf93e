//! EFI_DISK_IO_PROTOCOL and EFI_DISK_IO2_PROTOCOL (UEFI 2.10 §13.7, §13.8) made of a [`ByteDevice`], and a [`ByteDevice`]
//! made of somebody's EFI_DISK_IO_PROTOCOL.

use alloc::boxed::Box;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::NonNull;

use uefi_raw::protocol::block::BlockIoMedia;
use uefi_raw::protocol::disk::{DiskIo2Protocol, DiskIo2Token, DiskIoProtocol};
use uefi_raw::{Guid, Handle, Status};

use super::block::{self, block_result};
use super::gate::Gate;
use super::misc::{is_ours, status};
use crate::block::{BlockDevice, BlockError, ByteDevice};
use crate::handle::OpenAttributes;
use crate::{Result, api};

#[repr(C)]
struct Object {
    disk_io: DiskIoProtocol,
    disk_io2: DiskIo2Protocol,
    media_id: u32,
    device: Gate<Box<dyn ByteDevice>>,
}

impl Object {
    fn interfaces(object: *mut Self) -> [(Guid, *mut c_void); 2] {
        let disk_io2 = object.wrapping_byte_add(offset_of!(Self, disk_io2));
        [(DiskIoProtocol::GUID, object.cast()), (DiskIo2Protocol::GUID, disk_io2.cast())]
    }
}

/// Adds the protocols to the handle of a block device with the medium `media_id`.
pub(crate) fn install(handle: Handle, media_id: u32, device: Box<dyn ByteDevice>) -> Result<()> {
    let object = Box::into_raw(Box::new(Object {
        disk_io: DiskIoProtocol { revision: DiskIoProtocol::REVISION, read_disk, write_disk },
        disk_io2: DiskIo2Protocol {
            revision: DiskIo2Protocol::REVISION,
            cancel,
            read_disk_ex,
            write_disk_ex,
            flush_disk_ex,
        },
        media_id,
        device: Gate::new(device),
    }));
    api::install_protocols(Some(handle), &Object::interfaces(object)).map(drop).inspect_err(|_| {
        // SAFETY: it was not installed, so nobody else knows it.
        drop(unsafe { Box::from_raw(object) });
    })
}

/// Takes back what [`install`] did; the device is dropped. `ACCESS_DENIED` if it stays in use.
pub(crate) fn uninstall(handle: Handle) -> Result<()> {
    let interface = api::protocol(handle, &DiskIoProtocol::GUID)?.cast::<DiskIoProtocol>();
    // SAFETY: what is installed under this GUID is this protocol.
    if interface.is_null() || !is_ours(unsafe { (*interface).read_disk } as *const (), read_disk as *const ()) {
        return Err(Status::UNSUPPORTED);
    }
    let object = interface.cast::<Object>();
    api::uninstall_protocols(handle, &Object::interfaces(object))?;
    // SAFETY: made by `install`, and no longer installed.
    drop(unsafe { Box::from_raw(object) });
    Ok(())
}

/// Checks a transfer; `false` for one of no length.
fn check(object: &Object, media_id: u32, size: usize, buffer: *const c_void) -> Result<bool> {
    if media_id != object.media_id {
        return Err(Status::MEDIA_CHANGED);
    }
    if (buffer.is_null() && size != 0) || isize::try_from(size).is_err() {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(size != 0)
}

fn read(object: &Object, media_id: u32, offset: u64, size: usize, buffer: *mut c_void) -> Result<()> {
    if !check(object, media_id, size, buffer)? {
        return Ok(());
    }
    // SAFETY: not null, and the caller says how long it is.
    let into = unsafe { core::slice::from_raw_parts_mut(buffer.cast(), size) };
    object.device.with(|device| device.read_at(offset, into))?.map_err(Status::from)
}

fn write(object: &Object, media_id: u32, offset: u64, size: usize, buffer: *const c_void) -> Result<()> {
    if !check(object, media_id, size, buffer)? {
        return Ok(());
    }
    // SAFETY: not null, and the caller says how long it is.
    let from = unsafe { core::slice::from_raw_parts(buffer.cast(), size) };
    object.device.with(|device| device.write_at(offset, from))?.map_err(Status::from)
}

/// # Safety
/// `this` is null or the EFI_DISK_IO_PROTOCOL of an [`Object`], which outlives the call.
unsafe fn object<'a>(this: *const DiskIoProtocol) -> Result<&'a Object> {
    // SAFETY: by contract it is null or the first field of an object.
    unsafe { this.cast::<Object>().as_ref() }.ok_or(Status::INVALID_PARAMETER)
}

/// # Safety
/// `this` is null or the EFI_DISK_IO2_PROTOCOL of an [`Object`], which outlives the call.
unsafe fn object2<'a>(this: *const DiskIo2Protocol) -> Result<&'a Object> {
    if this.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    // SAFETY: by contract it is this field of an object.
    Ok(unsafe { &*this.byte_sub(offset_of!(Object, disk_io2)).cast::<Object>() })
}

unsafe extern "efiapi" fn read_disk(
    this: *const DiskIoProtocol,
    media_id: u32,
    offset: u64,
    size: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|object| read(object, media_id, offset, size, buffer)))
}

unsafe extern "efiapi" fn write_disk(
    this: *mut DiskIoProtocol,
    media_id: u32,
    offset: u64,
    size: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|object| write(object, media_id, offset, size, buffer)))
}

/// Nothing is ever pending.
unsafe extern "efiapi" fn cancel(this: *mut DiskIo2Protocol) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object2(this) }.map(drop))
}

unsafe extern "efiapi" fn read_disk_ex(
    this: *const DiskIo2Protocol,
    media_id: u32,
    offset: u64,
    token: *mut DiskIo2Token,
    size: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this`.
    let result = unsafe { object2(this) }.and_then(|object| read(object, media_id, offset, size, buffer));
    // SAFETY: the caller answers for its token.
    unsafe { complete(token, result) }
}

unsafe extern "efiapi" fn write_disk_ex(
    this: *mut DiskIo2Protocol,
    media_id: u32,
    offset: u64,
    token: *mut DiskIo2Token,
    size: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this`.
    let result = unsafe { object2(this) }.and_then(|object| write(object, media_id, offset, size, buffer));
    // SAFETY: the caller answers for its token.
    unsafe { complete(token, result) }
}

unsafe extern "efiapi" fn flush_disk_ex(this: *mut DiskIo2Protocol, token: *mut DiskIo2Token) -> Status {
    // SAFETY: the caller answers for `this`.
    let object = unsafe { object2(this) };
    let result = object.and_then(|object| object.device.with(|device| device.flush())?.map_err(Status::from));
    // SAFETY: the caller answers for its token.
    unsafe { complete(token, result) }
}

/// # Safety
/// `token` is null or points to a token.
unsafe fn complete(token: *mut DiskIo2Token, result: Result<()>) -> Status {
    // SAFETY: by contract.
    unsafe {
        if token.is_null() {
            return status(result);
        }
        block::finish((*token).event, &raw mut (*token).transaction_status, result)
    }
}

/// A byte-addressed device behind somebody's EFI_DISK_IO_PROTOCOL.
#[derive(Debug)]
pub struct DiskIo {
    protocol: NonNull<DiskIoProtocol>,
    /// The block device of the same handle, for its medium and for flushing.
    block_io: block::BlockIo,
}

/// Opens the EFI_DISK_IO_PROTOCOL of `handle`, and looks at its EFI_BLOCK_IO_PROTOCOL.
pub(crate) fn open(handle: Handle, agent: Handle, controller: Handle, how: OpenAttributes) -> Result<DiskIo> {
    let block_io = block::open(handle, agent, controller, OpenAttributes::GET_PROTOCOL)?;
    let interface = api::open_protocol(handle, &DiskIoProtocol::GUID, agent, controller, how)?;
    let protocol = NonNull::new(interface.cast::<DiskIoProtocol>()).ok_or(Status::UNSUPPORTED)?;
    Ok(DiskIo { protocol, block_io })
}

impl DiskIo {
    /// The medium as it was when this was opened.
    pub fn media(&self) -> &BlockIoMedia {
        self.block_io.media()
    }
}

impl ByteDevice for DiskIo {
    fn size(&self) -> u64 {
        let geometry = self.block_io.geometry();
        geometry.blocks.saturating_mul(u64::from(geometry.block_size))
    }

    fn block_size(&self) -> u32 {
        self.block_io.media().block_size
    }

    fn read_only(&self) -> bool {
        self.block_io.media().read_only.is_true()
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> core::result::Result<(), BlockError> {
        let (this, media_id) = (self.protocol.as_ptr(), self.block_io.media().media_id);
        // SAFETY: whoever opened the protocol is told before it goes away, and drops this.
        block_result(unsafe { ((*this).read_disk)(this, media_id, offset, into.len(), into.as_mut_ptr().cast()) })
    }

    fn write_at(&mut self, offset: u64, from: &[u8]) -> core::result::Result<(), BlockError> {
        let (this, media_id) = (self.protocol.as_ptr(), self.block_io.media().media_id);
        // SAFETY: as in `read_at`.
        block_result(unsafe { ((*this).write_disk)(this, media_id, offset, from.len(), from.as_ptr().cast()) })
    }

    fn flush(&mut self) -> core::result::Result<(), BlockError> {
        self.block_io.flush()
    }
}
