//! What lies where on a disk: GPT (UEFI 2.10 §5.3), else MBR (UEFI 2.10 §5.2), on a CD El Torito (UEFI 2.11 §13.3.2.1).
//!
//! [`scan`] reads a [`BlockDevice`] and returns a [`Table`] of [`Partition`]s; a [`Slice`] is the block device that a
//! partition is. Whatever was odd but not fatal is in [`Table::notes`], in words, for the caller to log with the name of the
//! device.

mod el_torito;
mod gpt;
mod mbr;
mod slice;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use gpt_disk_types::{GptPartitionEntry, GptPartitionType};
use services::Guid;
use services::block::{BlockDevice, BlockError, Geometry};

pub use el_torito::BootEntry;
pub use mbr::{MbrRecord, PROTECTIVE};
pub use slice::Slice;

/// Bytes in a block of a CD-ROM drive.
const CD_BLOCK_SIZE: u32 = 2048;
/// Largest block size taken from a device; anything more is nonsense.
const MAX_BLOCK_SIZE: u32 = 64 << 10;

/// The partitions of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Kind of table.
    pub scheme: Scheme,
    /// Partitions in the order of their numbers.
    pub partitions: Vec<Partition>,
    /// What was wrong and could be got around, in words.
    pub notes: Vec<String>,
}

/// Kind of partition table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// GUID partition table.
    Gpt {
        /// The primary table is damaged and the backup was used.
        from_backup: bool,
    },
    /// Master boot record.
    Mbr,
    /// Boot catalog of a CD.
    ElTorito,
}

/// One partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Number from 1 on: place in the table; logical partitions of an MBR count from 5; the default
    /// entry of a boot catalog is 0.
    pub number: u32,
    /// First block.
    pub start: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// The record that describes it.
    pub record: Record,
}

/// The record of a partition, as `EFI_PARTITION_INFO_PROTOCOL` hands it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// Entry of a GPT.
    Gpt(GptPartitionEntry),
    /// Record of an MBR or of an extended boot record, and the signature of the disk.
    Mbr(MbrRecord, [u8; 4]),
    /// Entry of a boot catalog, which has no record there.
    ElTorito(BootEntry),
}

/// What identifies a partition in a hard drive device path node (UEFI 2.10 §10.3.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signature {
    /// Signature of the MBR.
    Mbr([u8; 4]),
    /// Unique GUID of the partition.
    Guid(Guid),
}

impl Partition {
    /// What identifies it in a hard drive device path node; a boot image of a CD has none.
    pub fn signature(&self) -> Option<Signature> {
        match self.record {
            Record::Gpt(entry) => Some(Signature::Guid(entry.unique_partition_guid)),
            Record::Mbr(_, signature) => Some(Signature::Mbr(signature)),
            Record::ElTorito(_) => None,
        }
    }

    /// Whether it is an EFI system partition.
    pub fn is_esp(&self) -> bool {
        match self.record {
            Record::Gpt(entry) => GptPartitionType::EFI_SYSTEM == { entry.partition_type_guid },
            Record::Mbr(record, _) => record.kind == mbr::ESP,
            Record::ElTorito(entry) => entry.is_efi(),
        }
    }

    /// Whether the table asks that no EFI_BLOCK_IO_PROTOCOL be made for it (attribute bit 1).
    pub fn no_block_io(&self) -> bool {
        match self.record {
            Record::Gpt(entry) => { entry.attributes }.no_block_io_protocol(),
            Record::Mbr(..) | Record::ElTorito(_) => false,
        }
    }
}

/// Why a disk has no usable partition table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScanError {
    /// The device failed.
    Device(BlockError),
    /// No partition table at all; the reason in words.
    Absent(&'static str),
    /// There is one, but nothing of it can be used; the reason in words.
    Damaged(String),
    /// An ISO 9660 medium without a boot image that can be used; the reason in words.
    NoBootImage(String),
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => write!(f, "the partition table cannot be read: {error}"),
            Self::Absent(reason) => write!(f, "no partition table: {reason}"),
            Self::Damaged(reason) => write!(f, "damaged partition table: {reason}"),
            Self::NoBootImage(reason) => write!(f, "no boot image on this CD: {reason}"),
        }
    }
}

impl core::error::Error for ScanError {}

impl From<BlockError> for ScanError {
    fn from(error: BlockError) -> Self {
        Self::Device(error)
    }
}

/// Reads the partition table of a disk, or the boot catalog of a CD.
///
/// Images that are to be booted from CD and from disk alike have both, for the same volume. As a CD the boot catalog counts,
/// if it has anything for EFI: the tables within were made for blocks of another size. As a disk the tables count, and the
/// catalog only where there are none that can be used.
pub fn scan(device: &mut dyn BlockDevice) -> Result<Table, ScanError> {
    let geometry = device.geometry();
    if !(512..=MAX_BLOCK_SIZE).contains(&geometry.block_size) || !geometry.block_size.is_power_of_two() {
        return Err(ScanError::Absent("the block size makes no sense"));
    }
    if geometry.blocks == 0 {
        return Err(ScanError::Absent("the device is empty"));
    }
    if !is_cd(&geometry) {
        return match scan_tables(device) {
            Ok(table) => Ok(table),
            Err(ScanError::Device(error)) => Err(error.into()),
            Err(error) => el_torito::scan(device)?.ok_or(error),
        };
    }
    match el_torito::scan(device) {
        Ok(Some(table)) if table.partitions.iter().any(Partition::is_esp) => Ok(table),
        Ok(Some(images)) => match scan_tables(device) {
            Ok(table) if table.partitions.iter().any(Partition::is_esp) => Ok(table),
            _ => Ok(images),
        },
        Ok(None) => scan_tables(device),
        Err(ScanError::Device(error)) => Err(error.into()),
        Err(error) => scan_tables(device).map_err(|_| error),
    }
}

/// Whether a device is a CD-ROM drive, or a paravirtual CD, the blocks of which are smaller.
fn is_cd(geometry: &Geometry) -> bool {
    geometry.block_size == CD_BLOCK_SIZE || geometry.removable && geometry.read_only
}

/// Reads the GPT or MBR of a disk.
fn scan_tables(device: &mut dyn BlockDevice) -> Result<Table, ScanError> {
    let geometry = device.geometry();
    let mut sector = vec![0; geometry.block_size as usize];
    device.read(0, &mut sector)?;
    let boot_record = mbr::parse(&sector)?;
    if boot_record.is_protective() { gpt::scan(device) } else { mbr::scan(device, boot_record) }
}

/// Drops partitions that overlap one with a lower number.
fn without_overlaps(candidates: Vec<Partition>, notes: &mut Vec<String>) -> Vec<Partition> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&i| (candidates[i].start, candidates[i].number));
    let mut dropped = vec![false; candidates.len()];
    let mut last: Option<usize> = None;
    for i in order {
        let this = &candidates[i];
        let Some(l) = last else {
            last = Some(i);
            continue;
        };
        let before = &candidates[l];
        // Both ends were checked against the device, so the sums do not overflow.
        if this.start < before.start.saturating_add(before.blocks) {
            let (loser, winner) = if this.number > before.number { (i, l) } else { (l, i) };
            dropped[loser] = true;
            notes.push(alloc::format!(
                "partition {} overlaps partition {} and is ignored",
                candidates[loser].number,
                candidates[winner].number
            ));
            last = Some(winner);
        } else {
            last = Some(i);
        }
    }
    let mut dropped = dropped.into_iter();
    candidates.into_iter().filter(|_| !dropped.next().unwrap_or(false)).collect()
}

#[cfg(test)]
mod tests;
