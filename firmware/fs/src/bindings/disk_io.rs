//! Disk I/O driver: EFI_DISK_IO_PROTOCOL on every handle with EFI_BLOCK_IO_PROTOCOL.

use alloc::boxed::Box;

use services::block::Bytes;
use services::device_path::DevicePath;
use services::handle::driver::Driver;
use services::{Handle, Result, Status, api};
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::disk::DiskIoProtocol;

use super::{BY_DRIVER, VERSION, close, has};

/// The driver.
#[derive(Debug)]
pub(super) struct DiskIoDriver;

impl Driver for DiskIoDriver {
    fn name(&self) -> &str {
        "Disk I/O driver"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn supported(&self, controller: Handle, _remaining: Option<&DevicePath>) -> Result<()> {
        if !has(controller, &BlockIoProtocol::GUID) {
            return Err(Status::UNSUPPORTED);
        }
        if has(controller, &DiskIoProtocol::GUID) { Err(Status::ALREADY_STARTED) } else { Ok(()) }
    }

    fn start(&self, binding: Handle, controller: Handle, _remaining: Option<&DevicePath>) -> Result<()> {
        let block_io = api::open_block_io(controller, binding, controller, BY_DRIVER)?;
        let media_id = block_io.media().media_id;
        api::install_disk_io(controller, media_id, Box::new(Bytes::new(block_io)))
            .inspect_err(|_| close(controller, &BlockIoProtocol::GUID, binding, controller))
    }

    fn stop(&self, binding: Handle, controller: Handle, _children: &[Handle]) -> Result<()> {
        api::uninstall_disk_io(controller)?;
        close(controller, &BlockIoProtocol::GUID, binding, controller);
        Ok(())
    }
}
