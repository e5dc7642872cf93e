//! What lies where on a disk: GPT (UEFI 2.10 §5.3), else MBR (UEFI 2.10 §5.2).
//!
//! [`scan`] reads a [`BlockDevice`] and returns a [`Table`] of [`Partition`]s; a [`Slice`] is the block device that a
//! partition is. Whatever was odd but not fatal is in [`Table::notes`], in words, for the caller to log with the name of the
//! device.

mod gpt;
mod mbr;
mod slice;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use gpt_disk_types::{GptPartitionEntry, GptPartitionType};
use services::Guid;
use services::block::{BlockDevice, BlockError};

pub use mbr::{MbrRecord, PROTECTIVE};
pub use slice::Slice;

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
}

/// One partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Number from 1 on: place in the table; logical partitions of an MBR count from 5.
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
    /// What identifies it in a device path.
    pub fn signature(&self) -> Signature {
        match self.record {
            Record::Gpt(entry) => Signature::Guid(entry.unique_partition_guid),
            Record::Mbr(_, signature) => Signature::Mbr(signature),
        }
    }

    /// Whether it is an EFI system partition.
    pub fn is_esp(&self) -> bool {
        match self.record {
            Record::Gpt(entry) => GptPartitionType::EFI_SYSTEM == { entry.partition_type_guid },
            Record::Mbr(record, _) => record.kind == mbr::ESP,
        }
    }

    /// Whether the table asks that no EFI_BLOCK_IO_PROTOCOL be made for it (attribute bit 1).
    pub fn no_block_io(&self) -> bool {
        match self.record {
            Record::Gpt(entry) => { entry.attributes }.no_block_io_protocol(),
            Record::Mbr(..) => false,
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
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => write!(f, "the partition table cannot be read: {error}"),
            Self::Absent(reason) => write!(f, "no partition table: {reason}"),
            Self::Damaged(reason) => write!(f, "damaged partition table: {reason}"),
        }
    }
}

impl core::error::Error for ScanError {}

impl From<BlockError> for ScanError {
    fn from(error: BlockError) -> Self {
        Self::Device(error)
    }
}

/// Reads the partition table of a disk.
pub fn scan(device: &mut dyn BlockDevice) -> Result<Table, ScanError> {
    let geometry = device.geometry();
    if !(512..=MAX_BLOCK_SIZE).contains(&geometry.block_size) || !geometry.block_size.is_power_of_two() {
        return Err(ScanError::Absent("the block size makes no sense"));
    }
    if geometry.blocks == 0 {
        return Err(ScanError::Absent("the device is empty"));
    }
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
