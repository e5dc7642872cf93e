//! Block devices for our own code: as producers, and as users of anybody's.

use alloc::boxed::Box;

use uefi_raw::Handle;

use crate::Result;
use crate::abi::{block, disk};
use crate::block::{BlockDevice, ByteDevice};
use crate::device_path::DevicePath;
use crate::handle::OpenAttributes;

pub use block::{BlockIo, PartitionInfo, PartitionInfoProtocol, PartitionRecord};
pub use disk::DiskIo;

/// Makes a handle with the device path, EFI_BLOCK_IO_PROTOCOL and EFI_BLOCK_IO2_PROTOCOL of a disk.
///
/// # Errors
/// `ALREADY_STARTED` if another handle has the path, `INVALID_PARAMETER` if the geometry makes no sense.
pub fn install_block_device(path: &DevicePath, device: Box<dyn BlockDevice>) -> Result<Handle> {
    block::install(path, device, None)
}

/// The same for a partition, with EFI_PARTITION_INFO_PROTOCOL and, for one of a GPT, its type as a protocol without
/// interface.
///
/// # Errors
/// As [`install_block_device`].
pub fn install_partition(path: &DevicePath, device: Box<dyn BlockDevice>, info: &PartitionInfo) -> Result<Handle> {
    block::install(path, device, Some(info))
}

/// Takes a block device or partition of ours away with its handle's protocols, and drops the device.
///
/// # Errors
/// `ACCESS_DENIED` if a driver does not let go of it; `UNSUPPORTED` if it is not ours.
pub fn uninstall_block_device(handle: Handle) -> Result<()> {
    block::uninstall(handle)
}

/// Opens the EFI_BLOCK_IO_PROTOCOL of a handle. Close it with [`close_protocol`](super::close_protocol) where `how` asks for
/// that, after the value is dropped.
///
/// # Errors
/// Those of OpenProtocol; `NO_MEDIA`; `UNSUPPORTED` for a block size that makes no sense.
pub fn open_block_io(handle: Handle, agent: Handle, controller: Handle, how: OpenAttributes) -> Result<BlockIo> {
    block::open(handle, agent, controller, how)
}

/// Adds EFI_DISK_IO_PROTOCOL and EFI_DISK_IO2_PROTOCOL to a handle with EFI_BLOCK_IO_PROTOCOL.
///
/// # Errors
/// Those of InstallMultipleProtocolInterfaces.
pub fn install_disk_io(handle: Handle, media_id: u32, device: Box<dyn ByteDevice>) -> Result<()> {
    disk::install(handle, media_id, device)
}

/// Takes them away, and drops the device.
///
/// # Errors
/// `ACCESS_DENIED` if a driver does not let go of them; `UNSUPPORTED` if they are not ours.
pub fn uninstall_disk_io(handle: Handle) -> Result<()> {
    disk::uninstall(handle)
}

/// Opens the EFI_DISK_IO_PROTOCOL of a handle; as [`open_block_io`].
///
/// # Errors
/// Those of OpenProtocol; `NO_MEDIA`.
pub fn open_disk_io(handle: Handle, agent: Handle, controller: Handle, how: OpenAttributes) -> Result<DiskIo> {
    disk::open(handle, agent, controller, how)
}
