//! EFI_BLOCK_IO_PROTOCOL, EFI_BLOCK_IO2_PROTOCOL (UEFI 2.10 §13.9, §13.10) and EFI_PARTITION_INFO_PROTOCOL (§13.18) made of
//! a [`BlockDevice`], and a [`BlockDevice`] made of somebody's EFI_BLOCK_IO_PROTOCOL.
//!
//! Transfers are complete when the functions return; EFI_BLOCK_IO2_PROTOCOL signals its event then.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::{self, NonNull};

use uefi_raw::protocol::block::{BlockIo2Protocol, BlockIo2Token, BlockIoMedia, BlockIoProtocol, Lba};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::{Boolean, Event, Guid, Handle, Status, guid};

use super::gate::Gate;
use super::misc::{is_ours, status};
use crate::block::{BlockDevice, BlockError, Geometry};
use crate::device_path::{DevicePath, DevicePathBuf};
use crate::handle::OpenAttributes;
use crate::{Result, api};

/// Our media do not change, so neither does their number.
const MEDIA_ID: u32 = 0;

/// What EFI_PARTITION_INFO_PROTOCOL says of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionInfo {
    /// The record that describes it.
    pub record: PartitionRecord,
    /// Whether it is an EFI system partition.
    pub system: bool,
}

/// The record of a partition as it stands on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartitionRecord {
    /// A record of an MBR.
    Mbr([u8; 16]),
    /// An entry of a GPT. Its type GUID also becomes a protocol of the handle (UEFI 2.10 §13.3.2).
    Gpt([u8; 128]),
    /// None of that kind: a boot image of a CD.
    Other,
}

/// EFI_PARTITION_INFO_PROTOCOL, which uefi-raw does not have.
#[derive(Debug)]
#[repr(C, packed)]
pub struct PartitionInfoProtocol {
    /// Revision of the protocol.
    pub revision: u32,
    /// 1 for an MBR, 2 for a GPT, else 0.
    pub partition_type: u32,
    /// 1 for an EFI system partition.
    pub system: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// The record; that of an MBR takes the first 16 bytes.
    pub info: [u8; 128],
}

impl PartitionInfoProtocol {
    /// GUID of the protocol.
    pub const GUID: Guid = guid!("8cf2f62c-bc9b-4821-808d-ec9ec421a1a0");
    /// Revision 1.0.
    pub const REVISION: u32 = 0x1000;
    /// Neither.
    pub const OTHER: u32 = 0;
    /// Partition of an MBR.
    pub const MBR: u32 = 1;
    /// Partition of a GPT.
    pub const GPT: u32 = 2;

    fn new(info: &PartitionInfo) -> Self {
        let mut raw = [0; 128];
        let partition_type = match info.record {
            PartitionRecord::Mbr(record) => {
                raw[..record.len()].copy_from_slice(&record);
                Self::MBR
            }
            PartitionRecord::Gpt(entry) => {
                raw = entry;
                Self::GPT
            }
            PartitionRecord::Other => Self::OTHER,
        };
        let system = u8::from(info.system);
        Self { revision: Self::REVISION, partition_type, system, reserved: [0; 7], info: raw }
    }
}

/// What a handle of ours has its interfaces in.
#[repr(C)]
struct Object {
    block_io: BlockIoProtocol,
    block_io2: BlockIo2Protocol,
    media: BlockIoMedia,
    partition: Option<PartitionInfoProtocol>,
    /// Type of a GPT partition.
    kind: Option<Guid>,
    path: DevicePathBuf,
    device: Gate<Box<dyn BlockDevice>>,
}

impl Object {
    /// The interfaces of an object. The pointers are made from `object`, so that they may be used for all of it.
    fn interfaces(object: *mut Self) -> Vec<(Guid, *mut c_void)> {
        // SAFETY: the object is alive; only addresses are taken, and values that do not change are read.
        let (path, partition, kind) = unsafe {
            let path = (*object).path.as_bytes().as_ptr().cast_mut();
            let partition = (*object).partition.as_ref().map(ptr::from_ref);
            (path, partition, (*object).kind)
        };
        let block_io2 = object.wrapping_byte_add(offset_of!(Self, block_io2));
        let mut interfaces = alloc::vec![
            (DevicePathProtocol::GUID, path.cast()),
            (BlockIoProtocol::GUID, object.cast()),
            (BlockIo2Protocol::GUID, block_io2.cast()),
        ];
        interfaces.extend(partition.map(|info| (PartitionInfoProtocol::GUID, info.cast_mut().cast())));
        interfaces.extend(kind.map(|kind| (kind, ptr::null_mut())));
        interfaces
    }
}

/// Makes a handle with the block device's protocols.
pub(crate) fn install(
    path: &DevicePath,
    device: Box<dyn BlockDevice>,
    partition: Option<&PartitionInfo>,
) -> Result<Handle> {
    let geometry = device.geometry();
    if !geometry.block_size.is_power_of_two() || geometry.blocks == 0 {
        log::warn!("{path}: {} blocks of {} bytes are no device", geometry.blocks, geometry.block_size);
        return Err(Status::INVALID_PARAMETER);
    }
    let logical = partition.is_some();
    let media = BlockIoMedia {
        media_id: MEDIA_ID,
        removable_media: geometry.removable.into(),
        media_present: Boolean::TRUE,
        logical_partition: logical.into(),
        read_only: geometry.read_only.into(),
        write_caching: Boolean::FALSE,
        block_size: geometry.block_size,
        io_align: geometry.io_align,
        last_block: geometry.blocks - 1,
        lowest_aligned_lba: 0,
        // §13.9: zero for a logical partition.
        logical_blocks_per_physical_block: if logical { 0 } else { geometry.blocks_per_physical },
        optimal_transfer_length_granularity: 0,
    };
    let kind = partition.and_then(|info| match info.record {
        PartitionRecord::Gpt(entry) => entry.first_chunk().map(|bytes| Guid::from_bytes(*bytes)),
        PartitionRecord::Mbr(_) | PartitionRecord::Other => None,
    });
    let object = Box::into_raw(Box::new(Object {
        block_io: BlockIoProtocol {
            revision: BlockIoProtocol::REVISION_3,
            media: ptr::null(),
            reset,
            read_blocks,
            write_blocks,
            flush_blocks,
        },
        block_io2: BlockIo2Protocol {
            media: ptr::null(),
            reset: reset_ex,
            read_blocks_ex,
            write_blocks_ex,
            flush_blocks_ex,
        },
        media,
        partition: partition.map(PartitionInfoProtocol::new),
        kind,
        path: DevicePathBuf::from(path),
        device: Gate::new(device),
    }));
    // SAFETY: just made, and nobody else knows it yet.
    unsafe {
        let media = &raw const (*object).media;
        (*object).block_io.media = media;
        (*object).block_io2.media = media;
    }
    api::install_protocols(None, &Object::interfaces(object)).inspect_err(|_| {
        // SAFETY: it was not installed, so nobody else knows it.
        drop(unsafe { Box::from_raw(object) });
    })
}

/// Takes back what [`install`] did; the device is dropped. `ACCESS_DENIED` if it stays in use.
pub(crate) fn uninstall(handle: Handle) -> Result<()> {
    let interface = api::protocol(handle, &BlockIoProtocol::GUID)?.cast::<BlockIoProtocol>();
    // SAFETY: what is installed under this GUID is this protocol.
    if interface.is_null() || !is_ours(unsafe { (*interface).read_blocks } as *const (), read_blocks as *const ()) {
        return Err(Status::UNSUPPORTED);
    }
    let object = interface.cast::<Object>();
    api::uninstall_protocols(handle, &Object::interfaces(object))?;
    // SAFETY: made by `install`, and no longer installed.
    drop(unsafe { Box::from_raw(object) });
    Ok(())
}

/// Checks a transfer as ReadBlocks and WriteBlocks demand; `None` for one of no length.
fn check(media: &BlockIoMedia, media_id: u32, lba: Lba, size: usize, buffer: *const c_void) -> Result<Option<usize>> {
    if media_id != media.media_id {
        return Err(Status::MEDIA_CHANGED);
    }
    if buffer.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    if size == 0 {
        return Ok(None);
    }
    let block = media.block_size as usize;
    if !size.is_multiple_of(block) {
        return Err(Status::BAD_BUFFER_SIZE);
    }
    let last = lba.checked_add((size / block) as u64 - 1);
    let aligned = buffer.addr().is_multiple_of((media.io_align as usize).max(1));
    if last.is_none_or(|last| last > media.last_block) || !aligned || isize::try_from(size).is_err() {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(Some(size))
}

fn read(object: &Object, media_id: u32, lba: Lba, size: usize, buffer: *mut c_void) -> Result<()> {
    let Some(size) = check(&object.media, media_id, lba, size, buffer)? else { return Ok(()) };
    // SAFETY: not null, and the caller says how long it is.
    let into = unsafe { core::slice::from_raw_parts_mut(buffer.cast(), size) };
    object.device.with(|device| device.read(lba, into))?.map_err(Status::from)
}

fn write(object: &Object, media_id: u32, lba: Lba, size: usize, buffer: *const c_void) -> Result<()> {
    let checked = check(&object.media, media_id, lba, size, buffer)?;
    if object.media.read_only.is_true() {
        return Err(Status::WRITE_PROTECTED);
    }
    let Some(size) = checked else { return Ok(()) };
    // SAFETY: not null, and the caller says how long it is.
    let from = unsafe { core::slice::from_raw_parts(buffer.cast(), size) };
    object.device.with(|device| device.write(lba, from))?.map_err(Status::from)
}

fn flush(object: &Object) -> Result<()> {
    object.device.with(|device| device.flush())?.map_err(Status::from)
}

/// # Safety
/// `this` is the EFI_BLOCK_IO_PROTOCOL of an [`Object`], which outlives the call.
unsafe fn object<'a>(this: *const BlockIoProtocol) -> Result<&'a Object> {
    // SAFETY: by contract it is null or the first field of an object.
    unsafe { this.cast::<Object>().as_ref() }.ok_or(Status::INVALID_PARAMETER)
}

/// # Safety
/// `this` is the EFI_BLOCK_IO2_PROTOCOL of an [`Object`], which outlives the call.
unsafe fn object2<'a>(this: *const BlockIo2Protocol) -> Result<&'a Object> {
    if this.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    // SAFETY: by contract it is this field of an object.
    Ok(unsafe { &*this.byte_sub(offset_of!(Object, block_io2)).cast::<Object>() })
}

unsafe extern "efiapi" fn reset(this: *mut BlockIoProtocol, _extended_verification: Boolean) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.map(drop))
}

unsafe extern "efiapi" fn read_blocks(
    this: *const BlockIoProtocol,
    media_id: u32,
    lba: Lba,
    size: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|object| read(object, media_id, lba, size, buffer)))
}

unsafe extern "efiapi" fn write_blocks(
    this: *mut BlockIoProtocol,
    media_id: u32,
    lba: Lba,
    size: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|object| write(object, media_id, lba, size, buffer)))
}

unsafe extern "efiapi" fn flush_blocks(this: *mut BlockIoProtocol) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(flush))
}

unsafe extern "efiapi" fn reset_ex(this: *mut BlockIo2Protocol, _extended_verification: Boolean) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object2(this) }.map(drop))
}

unsafe extern "efiapi" fn read_blocks_ex(
    this: *const BlockIo2Protocol,
    media_id: u32,
    lba: Lba,
    token: *mut BlockIo2Token,
    size: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this`.
    let result = unsafe { object2(this) }.and_then(|object| read(object, media_id, lba, size, buffer));
    // SAFETY: the caller answers for its token.
    unsafe { complete(token, result) }
}

unsafe extern "efiapi" fn write_blocks_ex(
    this: *mut BlockIo2Protocol,
    media_id: u32,
    lba: Lba,
    token: *mut BlockIo2Token,
    size: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this`.
    let result = unsafe { object2(this) }.and_then(|object| write(object, media_id, lba, size, buffer));
    // SAFETY: the caller answers for its token.
    unsafe { complete(token, result) }
}

unsafe extern "efiapi" fn flush_blocks_ex(this: *mut BlockIo2Protocol, token: *mut BlockIo2Token) -> Status {
    // SAFETY: the caller answers for `this`.
    let result = unsafe { object2(this) }.and_then(flush);
    // SAFETY: the caller answers for its token.
    unsafe { complete(token, result) }
}

/// Ends a transfer: with an event in the token it was queued, and its result is in the token. What is wrong with the call
/// itself is returned at once, as the specification has it.
///
/// # Safety
/// `token` is null or points to a token.
unsafe fn complete(token: *mut BlockIo2Token, result: Result<()>) -> Status {
    // SAFETY: by contract.
    unsafe {
        if token.is_null() {
            return status(result);
        }
        finish((*token).event, &raw mut (*token).transaction_status, result)
    }
}

/// Ends a transfer with an event of its own.
///
/// # Safety
/// `transaction_status` can be written.
pub(super) unsafe fn finish(event: Event, transaction_status: *mut Status, result: Result<()>) -> Status {
    let result = status(result);
    let wrong_call = [
        Status::INVALID_PARAMETER,
        Status::BAD_BUFFER_SIZE,
        Status::MEDIA_CHANGED,
        Status::NO_MEDIA,
        Status::WRITE_PROTECTED,
    ];
    if event.is_null() || wrong_call.contains(&result) {
        return result;
    }
    // SAFETY: by contract.
    unsafe { transaction_status.write(result) };
    status(api::signal_event(event))
}

/// A block device behind somebody's EFI_BLOCK_IO_PROTOCOL.
#[derive(Debug)]
pub struct BlockIo {
    protocol: NonNull<BlockIoProtocol>,
    media: BlockIoMedia,
}

/// Opens the EFI_BLOCK_IO_PROTOCOL of `handle`.
pub(crate) fn open(handle: Handle, agent: Handle, controller: Handle, how: OpenAttributes) -> Result<BlockIo> {
    let interface = api::open_protocol(handle, &BlockIoProtocol::GUID, agent, controller, how)?;
    let opened = NonNull::new(interface.cast::<BlockIoProtocol>()).ok_or(Status::UNSUPPORTED).and_then(|protocol| {
        // SAFETY: what is installed under this GUID is this protocol; its media stays where it is.
        let media = unsafe { protocol.as_ref().media.as_ref() };
        let media = *media.ok_or(Status::UNSUPPORTED)?;
        if media.media_present.is_false() {
            return Err(Status::NO_MEDIA);
        }
        if !media.block_size.is_power_of_two() {
            return Err(Status::UNSUPPORTED);
        }
        Ok(BlockIo { protocol, media })
    });
    opened.inspect_err(|_| {
        // Not all ways of opening leave something to close.
        let _ = api::close_protocol(handle, &BlockIoProtocol::GUID, agent, controller);
    })
}

impl BlockIo {
    /// The medium as it was when this was opened.
    pub fn media(&self) -> &BlockIoMedia {
        &self.media
    }
}

impl BlockDevice for BlockIo {
    fn geometry(&self) -> Geometry {
        Geometry {
            block_size: self.media.block_size,
            blocks: self.media.last_block.saturating_add(1),
            read_only: self.media.read_only.is_true(),
            removable: self.media.removable_media.is_true(),
            io_align: self.media.io_align.max(1),
            blocks_per_physical: self.media.logical_blocks_per_physical_block.max(1),
        }
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> core::result::Result<(), BlockError> {
        let (this, media_id) = (self.protocol.as_ptr(), self.media.media_id);
        // SAFETY: whoever opened the protocol is told before it goes away, and drops this.
        block_result(unsafe { ((*this).read_blocks)(this, media_id, lba, into.len(), into.as_mut_ptr().cast()) })
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> core::result::Result<(), BlockError> {
        let (this, media_id) = (self.protocol.as_ptr(), self.media.media_id);
        // SAFETY: as in `read`.
        block_result(unsafe { ((*this).write_blocks)(this, media_id, lba, from.len(), from.as_ptr().cast()) })
    }

    fn flush(&mut self) -> core::result::Result<(), BlockError> {
        let this = self.protocol.as_ptr();
        // SAFETY: as in `read`.
        block_result(unsafe { ((*this).flush_blocks)(this) })
    }
}

/// What a status of EFI_BLOCK_IO_PROTOCOL or EFI_DISK_IO_PROTOCOL means.
pub(super) fn block_result(status: Status) -> core::result::Result<(), BlockError> {
    match status {
        status if !status.is_error() => Ok(()),
        Status::INVALID_PARAMETER | Status::BAD_BUFFER_SIZE => Err(BlockError::InvalidParameter),
        Status::WRITE_PROTECTED => Err(BlockError::WriteProtected),
        Status::NO_MEDIA | Status::MEDIA_CHANGED => Err(BlockError::NoMedia),
        _ => Err(BlockError::Device),
    }
}

impl From<BlockError> for Status {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Device => Self::DEVICE_ERROR,
            BlockError::InvalidParameter => Self::INVALID_PARAMETER,
            BlockError::WriteProtected => Self::WRITE_PROTECTED,
            BlockError::NoMedia => Self::NO_MEDIA,
        }
    }
}
