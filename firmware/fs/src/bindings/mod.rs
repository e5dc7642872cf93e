//! The drivers that turn a block device into file systems (UEFI 2.10 §13): disk I/O, partitions, FAT. They take part in the
//! driver model; [`install`] adds them.
//!
//! Each binds to the protocol of the one before: EFI_BLOCK_IO_PROTOCOL, then EFI_DISK_IO_PROTOCOL on the same handle, which
//! either the partition driver or the FAT driver takes. The handles of partitions go through the same again.

mod disk_io;
mod fat;
mod partition;

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use services::handle::OpenAttributes;
use services::{Guid, Handle, Result, api};
use uefi_raw::time::Time;

use crate::diagnosis::Diagnosis;

/// Version of these drivers: the lowest of those for firmware (UEFI 2.10 §11.1).
const VERSION: u32 = 0x10;

/// Adds the drivers. `clock` is where time stamps of files come from. The diagnosis says why there is no file system where
/// there is none.
pub fn install(clock: fn() -> Time) -> Result<Diagnosis> {
    let diagnosis = Diagnosis::default();
    api::install_driver(Box::new(disk_io::DiskIoDriver))?;
    api::install_driver(Box::new(partition::PartitionDriver::new(diagnosis.clone())))?;
    api::install_driver(Box::new(fat::FatDriver::new(diagnosis.clone(), clock)))?;
    Ok(diagnosis)
}

/// Whether a handle has a protocol.
fn has(handle: Handle, protocol: &Guid) -> bool {
    api::protocol(handle, protocol).is_ok()
}

/// What messages call a handle: its device path.
fn name(handle: Handle) -> String {
    api::device_path(handle).map_or_else(|_| String::from("a device without path"), |path| path.to_string())
}

/// Closes what a driver has open on the handle it manages.
fn close(handle: Handle, protocol: &Guid, agent: Handle, controller: Handle) {
    if let Err(error) = api::close_protocol(handle, protocol, agent, controller) {
        log::debug!("{}: closing {protocol}: {error}", name(handle));
    }
}

/// As the driver that manages the handle.
const BY_DRIVER: OpenAttributes = OpenAttributes::BY_DRIVER;

#[cfg(test)]
mod tests;
