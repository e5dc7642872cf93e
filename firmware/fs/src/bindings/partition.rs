//! Partition driver: a child handle for each partition of a disk or boot image of a CD, with EFI_BLOCK_IO_PROTOCOL straight to the disk.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use services::device_path::{DevicePath, Node, PartitionFormat, Signature as PathSignature};
use services::handle::OpenAttributes;
use services::handle::driver::Driver;
use services::{Handle, Result, Status, api};
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::disk::DiskIoProtocol;

use super::{BY_DRIVER, VERSION, close, has, name};
use crate::diagnosis::Diagnosis;
use crate::partition::{Partition, Record, ScanError, Signature, Slice, Table, scan};

/// The driver.
#[derive(Debug)]
pub(super) struct PartitionDriver {
    diagnosis: Diagnosis,
}

impl PartitionDriver {
    /// A driver that notes what it finds in `diagnosis`.
    pub fn new(diagnosis: Diagnosis) -> Self {
        Self { diagnosis }
    }

    /// The partitions of a disk; why there are none goes to the log and the diagnosis.
    fn table(&self, binding: Handle, controller: Handle) -> Result<Table> {
        let how = OpenAttributes::GET_PROTOCOL;
        let mut disk = api::open_block_io(controller, binding, controller, how)?;
        if disk.media().logical_partition.is_true() {
            return Err(Status::UNSUPPORTED);
        }
        let name = name(controller);
        let table = scan(&mut disk).map_err(|error| {
            // Drivers are connected more than once; what is wrong is said once.
            let new = self.diagnosis.note(controller, format!("{error}"));
            match error {
                _ if !new => {}
                ScanError::Absent(_) | ScanError::NoBootImage(_) => log::info!("{name}: {error}"),
                _ => log::warn!("{name}: {error}"),
            }
            if matches!(error, ScanError::Device(_)) { Status::DEVICE_ERROR } else { Status::UNSUPPORTED }
        })?;
        for note in &table.notes {
            log::warn!("{name}: {note}");
        }
        self.diagnosis.forget(controller);
        if !table.notes.is_empty() {
            self.diagnosis.note(controller, table.notes.join("; "));
        }
        Ok(table)
    }

    /// Makes the handle of a partition.
    fn add(&self, binding: Handle, controller: Handle, partition: &Partition) -> Result<()> {
        let disk = api::open_block_io(controller, binding, controller, OpenAttributes::GET_PROTOCOL)?;
        let slice = Slice::new(disk, partition.start, partition.blocks)?;
        let path = api::device_path(controller)?.with(&path_node(partition))?;
        let record = match partition.record {
            Record::Gpt(entry) => api::PartitionRecord::Gpt(bytemuck::cast(entry)),
            Record::Mbr(record, _) => api::PartitionRecord::Mbr(record.raw),
            Record::ElTorito(_) => api::PartitionRecord::Other,
        };
        let info = api::PartitionInfo { record, system: partition.is_esp() };
        let child = api::install_partition(&path, Box::new(slice), &info)?;
        let how = OpenAttributes::BY_CHILD_CONTROLLER;
        if let Err(error) = api::open_protocol(controller, &DiskIoProtocol::GUID, binding, child, how) {
            api::uninstall_block_device(child)?;
            return Err(error);
        }
        Ok(())
    }
}

/// The device path node of a partition (UEFI 2.11 §10.3.5.1, §10.3.5.2).
fn path_node(partition: &Partition) -> Node {
    let (format, signature) = match partition.signature() {
        Some(Signature::Mbr(signature)) => (PartitionFormat::MBR, PathSignature::Mbr(u32::from_le_bytes(signature))),
        Some(Signature::Guid(guid)) => (PartitionFormat::GPT, PathSignature::Guid(guid)),
        None => {
            return Node::CdRom { boot_entry: partition.number, start: partition.start, size: partition.blocks };
        }
    };
    Node::HardDrive { partition: partition.number, start: partition.start, size: partition.blocks, format, signature }
}

impl Driver for PartitionDriver {
    fn name(&self) -> &str {
        "Partition driver (GPT, MBR, El Torito)"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn supported(&self, controller: Handle, _remaining: Option<&DevicePath>) -> Result<()> {
        let needed = [&DiskIoProtocol::GUID, &BlockIoProtocol::GUID, &DevicePathProtocol::GUID];
        if needed.iter().all(|protocol| has(controller, protocol)) { Ok(()) } else { Err(Status::UNSUPPORTED) }
    }

    fn start(&self, binding: Handle, controller: Handle, _remaining: Option<&DevicePath>) -> Result<()> {
        api::open_protocol(controller, &DiskIoProtocol::GUID, binding, controller, BY_DRIVER)?;
        let added = self.table(binding, controller).and_then(|table| {
            let mut added = 0;
            for partition in table.partitions.iter().filter(|partition| !partition.no_block_io()) {
                match self.add(binding, controller, partition) {
                    Ok(()) => added += 1,
                    Err(error) => log::warn!("{}: partition {}: {error}", name(controller), partition.number),
                }
            }
            if added > 0 {
                return Ok(());
            }
            if self.diagnosis.note(controller, String::from("the partition table has no usable partition")) {
                log::warn!("{}: the partition table has no usable partition", name(controller));
            }
            Err(Status::UNSUPPORTED)
        });
        added.inspect_err(|_| close(controller, &DiskIoProtocol::GUID, binding, controller))
    }

    fn stop(&self, binding: Handle, controller: Handle, children: &[Handle]) -> Result<()> {
        if children.is_empty() {
            close(controller, &DiskIoProtocol::GUID, binding, controller);
            return Ok(());
        }
        let mut result = Ok(());
        for &child in children {
            close(controller, &DiskIoProtocol::GUID, binding, child);
            if let Err(error) = api::uninstall_block_device(child) {
                log::warn!("{}: stays in use: {error}", name(child));
                let how = OpenAttributes::BY_CHILD_CONTROLLER;
                // It was open until a moment ago.
                let _ = api::open_protocol(controller, &DiskIoProtocol::GUID, binding, child, how);
                result = Err(Status::DEVICE_ERROR);
            } else {
                self.diagnosis.forget(child);
            }
        }
        result
    }

    fn controller_name(&self, controller: Handle, child: Option<Handle>) -> Option<String> {
        let path = api::device_path(child?).ok()?;
        if !has(controller, &DiskIoProtocol::GUID) {
            return None;
        }
        match path.last()?.decode() {
            Node::HardDrive { partition, .. } => Some(format!("Partition {partition}")),
            Node::CdRom { boot_entry, .. } => Some(format!("CD boot image {boot_entry}")),
            _ => None,
        }
    }
}
