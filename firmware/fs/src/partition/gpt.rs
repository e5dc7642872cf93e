//! GUID partition table (UEFI 2.10 §5.3): the primary one, or the backup where the primary is damaged.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use bytemuck::pod_read_unaligned;
use gpt_disk_types::{GptHeader, GptPartitionEntry};
use services::block::{BlockDevice, BlockError};
use services::table::crc32;

use super::{Partition, Record, ScanError, Scheme, Table, without_overlaps};

/// Block of the primary header.
const PRIMARY: u64 = 1;
/// Major revision understood; the only one there is.
const MAJOR_REVISION: u16 = 1;
/// Largest entry array read: 4096 entries of 128 bytes are 32 times the usual.
const MAX_ARRAY: u64 = 512 << 10;
/// Where the header's own CRC stands, which counts as zero.
const HEADER_CRC: core::ops::Range<usize> = 16..20;

/// What is wrong with one of the two tables.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Fault {
    Device(BlockError),
    NoSignature,
    Revision(u16),
    HeaderSize(u32),
    HeaderCrc { stored: u32, computed: u32 },
    WrongPlace(u64),
    EntrySize(u32),
    ArraySize(u64),
    ArrayPlace(u64),
    UsableRange { first: u64, last: u64 },
    ArrayCrc { stored: u32, computed: u32 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => write!(f, "cannot be read: {error}"),
            Self::NoSignature => f.write_str("no signature"),
            Self::Revision(major) => write!(f, "unknown revision {major}"),
            Self::HeaderSize(size) => write!(f, "header size {size}"),
            Self::HeaderCrc { stored, computed } => {
                write!(f, "bad header CRC (stored {stored:08x}, computed {computed:08x})")
            }
            Self::WrongPlace(lba) => write!(f, "the header says it belongs at block {lba}"),
            Self::EntrySize(size) => write!(f, "entry size {size}"),
            Self::ArraySize(bytes) => write!(f, "entry array of {bytes} bytes"),
            Self::ArrayPlace(lba) => write!(f, "the entry array at block {lba} is not on the device"),
            Self::UsableRange { first, last } => write!(f, "usable blocks {first} to {last}"),
            Self::ArrayCrc { stored, computed } => {
                write!(f, "bad entry array CRC (stored {stored:08x}, computed {computed:08x})")
            }
        }
    }
}

/// The partitions of a GPT disk.
pub(super) fn scan(device: &mut dyn BlockDevice) -> Result<Table, ScanError> {
    let mut notes = Vec::new();
    let mut read = Reader { device, alternate: None };
    let (header, array, from_backup) = match read.table(PRIMARY) {
        Ok((header, array)) => (header, array, false),
        Err(primary) => {
            let (header, array, lba) = read
                .backup()
                .map_err(|backup| ScanError::Damaged(format!("primary GPT: {primary}; backup GPT: {backup}")))?;
            notes.push(format!("primary GPT: {primary}; the backup at block {lba} is used"));
            (header, array, true)
        }
    };
    let partitions = without_overlaps(entries(&header, &array, &mut notes), &mut notes);
    Ok(Table { scheme: Scheme::Gpt { from_backup }, partitions, notes })
}

struct Reader<'a> {
    device: &'a mut dyn BlockDevice,
    /// Where a good header said that the other one is.
    alternate: Option<u64>,
}

impl Reader<'_> {
    /// The backup table: where the primary header says, if that much is good, else in the last block.
    fn backup(&mut self) -> Result<(GptHeader, Vec<u8>, u64), Fault> {
        let last = self.device.geometry().blocks.saturating_sub(1);
        let mut fault = Fault::NoSignature;
        let mut tried = Vec::new();
        for lba in self.alternate.into_iter().chain([last]) {
            if lba <= PRIMARY || lba > last || tried.contains(&lba) {
                continue;
            }
            tried.push(lba);
            match self.table(lba) {
                Ok((header, array)) => return Ok((header, array, lba)),
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    /// The header at `lba` and its entry array, both checked.
    fn table(&mut self, lba: u64) -> Result<(GptHeader, Vec<u8>), Fault> {
        let geometry = self.device.geometry();
        let mut block = vec![0; geometry.block_size as usize];
        self.device.read(lba, &mut block).map_err(Fault::Device)?;
        let header = check_header(&block, lba, geometry.blocks)?;
        if lba == PRIMARY {
            self.alternate = Some(header.alternate_lba.to_u64());
        }
        let array_lba = header.partition_entry_lba.to_u64();
        let length = array_length(&header)?;
        let padded = length.next_multiple_of(geometry.block_size as usize);
        let array_blocks = (padded / geometry.block_size as usize) as u64;
        let on_device = array_lba.checked_add(array_blocks).is_some_and(|end| end <= geometry.blocks);
        if array_lba <= PRIMARY || !on_device {
            return Err(Fault::ArrayPlace(array_lba));
        }
        let mut array = vec![0; padded];
        self.device.read(array_lba, &mut array).map_err(Fault::Device)?;
        array.truncate(length);
        let (stored, computed) = (header.partition_entry_array_crc32.0.to_u32(), crc32(&array));
        if stored != computed {
            return Err(Fault::ArrayCrc { stored, computed });
        }
        Ok((header, array))
    }
}

/// Checks a header (UEFI 2.10 §5.3.2).
fn check_header(block: &[u8], lba: u64, blocks: u64) -> Result<GptHeader, Fault> {
    let bytes = block.get(..size_of::<GptHeader>()).ok_or(Fault::NoSignature)?;
    let header: GptHeader = pod_read_unaligned(bytes);
    if !header.is_signature_valid() {
        return Err(Fault::NoSignature);
    }
    let revision = (header.revision.0.to_u32() >> 16) as u16;
    if revision != MAJOR_REVISION {
        return Err(Fault::Revision(revision));
    }
    let size = header.header_size.to_u32();
    let covered = block.get(..size as usize).ok_or(Fault::HeaderSize(size))?;
    if covered.len() < size_of::<GptHeader>() {
        return Err(Fault::HeaderSize(size));
    }
    let mut covered = covered.to_vec();
    covered[HEADER_CRC].fill(0);
    let (stored, computed) = (header.header_crc32.0.to_u32(), crc32(&covered));
    if stored != computed {
        return Err(Fault::HeaderCrc { stored, computed });
    }
    if header.my_lba.to_u64() != lba {
        return Err(Fault::WrongPlace(header.my_lba.to_u64()));
    }
    let (first, last) = (header.first_usable_lba.to_u64(), header.last_usable_lba.to_u64());
    if first > last || last >= blocks {
        return Err(Fault::UsableRange { first, last });
    }
    Ok(header)
}

/// Length of the entry array in bytes.
fn array_length(header: &GptHeader) -> Result<usize, Fault> {
    let size = header.size_of_partition_entry.to_u32();
    let entry = size_of::<GptPartitionEntry>() as u32;
    // The specification's sizes: 128 times a power of two.
    if size < entry || !size.is_multiple_of(entry) || !(size / entry).is_power_of_two() {
        return Err(Fault::EntrySize(size));
    }
    let length = u64::from(size) * u64::from(header.number_of_partition_entries.to_u32());
    if length == 0 || length > MAX_ARRAY { Err(Fault::ArraySize(length)) } else { Ok(length as usize) }
}

/// The used entries of an array that lie where partitions may lie.
fn entries(header: &GptHeader, array: &[u8], notes: &mut Vec<String>) -> Vec<Partition> {
    let usable = header.first_usable_lba.to_u64()..=header.last_usable_lba.to_u64();
    let mut partitions = Vec::new();
    for (bytes, number) in array.chunks_exact(header.size_of_partition_entry.to_u32() as usize).zip(1..) {
        let Some(bytes) = bytes.get(..size_of::<GptPartitionEntry>()) else { continue };
        let entry: GptPartitionEntry = pod_read_unaligned(bytes);
        if !entry.is_used() {
            continue;
        }
        let (start, end) = (entry.starting_lba.to_u64(), entry.ending_lba.to_u64());
        if start > end || !usable.contains(&start) || !usable.contains(&end) {
            let name: String = { entry.name }.chars().collect::<String>().escape_debug().to_string();
            notes.push(format!(
                "partition {number} (\"{name}\", blocks {start} to {end}) lies outside the usable blocks {} to {} and is \
                 ignored",
                usable.start(),
                usable.end()
            ));
            continue;
        }
        partitions.push(Partition { number, start, blocks: end - start + 1, record: Record::Gpt(entry) });
    }
    partitions
}
