//! Master boot record with its chain of extended boot records (UEFI 2.10 §5.2).

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use services::block::{BlockDevice, BlockError};

use super::{Partition, Record, ScanError, Scheme, Table, without_overlaps};

/// Type of the record that protects a GPT (UEFI 2.10 table 5-4).
pub const PROTECTIVE: u8 = 0xee;
/// Type of an EFI system partition on an MBR disk (UEFI 2.10 §5.2.2).
pub(super) const ESP: u8 = 0xef;
/// Types of containers of logical partitions.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// Where the disk signature stands.
const DISK_SIGNATURE: usize = 440;
/// Where the four records stand.
const RECORDS: usize = 446;
/// Length of a record.
const RECORD_LENGTH: usize = 16;
/// Where the boot signature stands, and its value.
const BOOT_SIGNATURE: (usize, [u8; 2]) = (510, [0x55, 0xaa]);
/// Boot indicator of a record: inactive, active.
const BOOT_INDICATORS: [u8; 2] = [0x00, 0x80];
/// Number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// Longest chain of extended boot records followed.
const MAX_LOGICAL: u32 = 128;

/// One record of an MBR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MbrRecord {
    /// The record as it stands on the disk.
    pub raw: [u8; RECORD_LENGTH],
    /// Boot indicator.
    pub boot_indicator: u8,
    /// Type.
    pub kind: u8,
    /// First block, relative to what the record's place says.
    pub start: u32,
    /// Number of blocks.
    pub blocks: u32,
}

impl MbrRecord {
    fn parse(raw: [u8; RECORD_LENGTH]) -> Self {
        Self {
            raw,
            boot_indicator: raw[0],
            kind: raw[4],
            start: u32::from_le_bytes([raw[8], raw[9], raw[10], raw[11]]),
            blocks: u32::from_le_bytes([raw[12], raw[13], raw[14], raw[15]]),
        }
    }

    fn is_used(&self) -> bool {
        self.kind != 0 && self.blocks != 0
    }

    fn is_extended(&self) -> bool {
        EXTENDED.contains(&self.kind)
    }
}

/// A boot record: signature of the disk and four records.
#[derive(Clone, Copy, Debug)]
pub(super) struct BootRecord {
    signature: [u8; 4],
    records: [MbrRecord; 4],
}

impl BootRecord {
    /// Whether it announces a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.records.iter().any(|record| record.kind == PROTECTIVE)
    }
}

/// Parses the first sector of a disk (or an extended boot record).
pub(super) fn parse(sector: &[u8]) -> Result<BootRecord, ScanError> {
    let (at, expected) = BOOT_SIGNATURE;
    if sector.get(at..at + expected.len()) != Some(&expected) {
        let blank = sector.iter().all(|&byte| byte == 0);
        return Err(ScanError::Absent(if blank { "the first sector is blank" } else { "no boot signature" }));
    }
    let record = |index: usize| {
        let at = RECORDS + index * RECORD_LENGTH;
        let raw = sector.get(at..at + RECORD_LENGTH).and_then(|bytes| bytes.try_into().ok());
        MbrRecord::parse(raw.unwrap_or_default())
    };
    let signature = sector.get(DISK_SIGNATURE..DISK_SIGNATURE + 4).and_then(|bytes| bytes.try_into().ok());
    let records = [record(0), record(1), record(2), record(3)];
    if records.iter().any(|record| !BOOT_INDICATORS.contains(&record.boot_indicator)) {
        // A boot sector of a file system: code or text stands where an MBR has its records.
        return Err(ScanError::Absent("the first sector is no master boot record"));
    }
    Ok(BootRecord { signature: signature.unwrap_or_default(), records })
}

/// The partitions of an MBR disk.
pub(super) fn scan(device: &mut dyn BlockDevice, boot_record: BootRecord) -> Result<Table, ScanError> {
    if boot_record.records.iter().all(|record| !record.is_used()) {
        return Err(ScanError::Absent("the master boot record is empty"));
    }
    let mut notes = Vec::new();
    let mut partitions = Vec::new();
    let mut logical = Vec::new();
    for (record, number) in boot_record.records.into_iter().zip(1..) {
        if !record.is_used() {
            continue;
        }
        let start = u64::from(record.start);
        match check(device, number, start, u64::from(record.blocks)) {
            Err(note) => notes.push(note),
            Ok(()) if record.is_extended() => {
                follow(device, &boot_record, record, &mut logical, &mut notes)?;
            }
            Ok(()) => partitions.push(Partition {
                number,
                start,
                blocks: u64::from(record.blocks),
                record: Record::Mbr(record, boot_record.signature),
            }),
        }
    }
    partitions.append(&mut logical);
    let partitions = without_overlaps(partitions, &mut notes);
    if partitions.is_empty() {
        return Err(match notes.into_iter().next() {
            Some(note) => ScanError::Damaged(note),
            None => ScanError::Absent("the master boot record is empty"),
        });
    }
    Ok(Table { scheme: Scheme::Mbr, partitions, notes })
}

/// Follows the chain of extended boot records in `container`.
fn follow(
    device: &mut dyn BlockDevice,
    boot_record: &BootRecord,
    container: MbrRecord,
    logical: &mut Vec<Partition>,
    notes: &mut Vec<String>,
) -> Result<(), BlockError> {
    let first = u64::from(container.start);
    let container_end = first + u64::from(container.blocks);
    let mut sector = vec![0; device.geometry().block_size as usize];
    let mut at = first;
    for _ in 0..MAX_LOGICAL {
        if at < first || at >= container_end {
            notes.push(format!("the chain of logical partitions leads outside its container, to block {at}"));
            return Ok(());
        }
        device.read(at, &mut sector)?;
        let Ok(extended) = parse(&sector) else {
            notes.push(format!("no extended boot record at block {at}; logical partitions from there on are lost"));
            return Ok(());
        };
        let number = FIRST_LOGICAL + logical.len() as u32;
        let [data, next, ..] = extended.records;
        if data.is_used() && !data.is_extended() {
            let start = at + u64::from(data.start);
            match check(device, number, start, u64::from(data.blocks)) {
                Err(note) => notes.push(note),
                Ok(()) => logical.push(Partition {
                    number,
                    start,
                    blocks: u64::from(data.blocks),
                    record: Record::Mbr(data, boot_record.signature),
                }),
            }
        }
        if !next.is_used() || !next.is_extended() {
            return Ok(());
        }
        at = first + u64::from(next.start);
    }
    notes.push(format!("more than {MAX_LOGICAL} logical partitions; the rest is ignored"));
    Ok(())
}

/// Whether a partition lies on the device and behind its first block.
fn check(device: &dyn BlockDevice, number: u32, start: u64, blocks: u64) -> Result<(), String> {
    let device_blocks = device.geometry().blocks;
    if start == 0 {
        return Err(format!("partition {number} starts at block 0 and is ignored"));
    }
    match start.checked_add(blocks) {
        Some(end) if end <= device_blocks => Ok(()),
        _ => Err(format!(
            "partition {number} (block {start}, {blocks} blocks) reaches past the end of the device ({device_blocks} \
             blocks) and is ignored"
        )),
    }
}
