//! FAT driver: EFI_SIMPLE_FILE_SYSTEM_PROTOCOL on a handle with EFI_DISK_IO_PROTOCOL and a FAT volume behind it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use services::block::ByteDevice;
use services::device_path::DevicePath;
use services::handle::driver::Driver;
use services::{Handle, Result, Status, api};
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::disk::DiskIoProtocol;
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::time::Time;

use super::{BY_DRIVER, VERSION, close, has, name};
use crate::diagnosis::Diagnosis;
use crate::fat::{MountError, Volume};

/// The driver.
#[derive(Debug)]
pub(super) struct FatDriver {
    diagnosis: Diagnosis,
    clock: fn() -> Time,
}

impl FatDriver {
    /// A driver that notes what it finds in `diagnosis`.
    pub fn new(diagnosis: Diagnosis, clock: fn() -> Time) -> Self {
        Self { diagnosis, clock }
    }

    fn mount(&self, binding: Handle, controller: Handle) -> Result<Volume<impl ByteDevice + use<>>> {
        let disk = api::open_disk_io(controller, binding, controller, BY_DRIVER)?;
        let name = name(controller);
        let clock = self.clock;
        Volume::mount(disk, &name, Box::new(clock)).map_err(|error| {
            close(controller, &DiskIoProtocol::GUID, binding, controller);
            let (status, worth_a_word) = match error {
                MountError::Device(_) => (Status::DEVICE_ERROR, true),
                MountError::NotFat(_) => (Status::UNSUPPORTED, false),
                MountError::Damaged(_) => (Status::VOLUME_CORRUPTED, true),
            };
            let new = self.diagnosis.note(controller, format!("{error}"));
            if worth_a_word && new {
                log::warn!("{name}: {error}");
            }
            status
        })
    }
}

impl Driver for FatDriver {
    fn name(&self) -> &str {
        "FAT file system driver"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn supported(&self, controller: Handle, _remaining: Option<&DevicePath>) -> Result<()> {
        if !has(controller, &DiskIoProtocol::GUID) || !has(controller, &BlockIoProtocol::GUID) {
            return Err(Status::UNSUPPORTED);
        }
        if has(controller, &SimpleFileSystemProtocol::GUID) { Err(Status::ALREADY_STARTED) } else { Ok(()) }
    }

    fn start(&self, binding: Handle, controller: Handle, _remaining: Option<&DevicePath>) -> Result<()> {
        let volume = self.mount(binding, controller)?;
        let width = volume.width();
        api::install_file_system(controller, Box::new(volume))
            .inspect_err(|_| close(controller, &DiskIoProtocol::GUID, binding, controller))?;
        log::debug!("{}: {width} file system", name(controller));
        self.diagnosis.forget(controller);
        Ok(())
    }

    fn stop(&self, binding: Handle, controller: Handle, _children: &[Handle]) -> Result<()> {
        api::uninstall_file_system(controller)?;
        close(controller, &DiskIoProtocol::GUID, binding, controller);
        Ok(())
    }

    fn controller_name(&self, controller: Handle, child: Option<Handle>) -> Option<String> {
        let ours = child.is_none() && has(controller, &SimpleFileSystemProtocol::GUID);
        ours.then(|| String::from("FAT file system"))
    }
}
