//! Disks built here byte by byte, so that each fault stands alone.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::bytes_of;
use gpt_disk_types::{Crc32, GptHeader, GptPartitionEntry, GptPartitionName, GptPartitionType, LbaLe, U32Le, guid};
use services::block::Geometry;

use super::*;
use crate::test_disk::MemoryDisk;

const BLOCKS: u64 = 4096;
const ARRAY_BYTES: usize = 128 * 128;

/// A good GPT disk with two partitions.
fn gpt_disk(block: usize) -> MemoryDisk {
    let mut disk = MemoryDisk::new(BLOCKS as usize, block);
    let bytes = &mut disk.bytes;
    mbr_record(bytes, 0, PROTECTIVE, 1, BLOCKS as u32 - 1);
    let entry = |start, end, unique, name: &str| GptPartitionEntry {
        partition_type_guid: GptPartitionType::EFI_SYSTEM,
        unique_partition_guid: unique,
        starting_lba: LbaLe::from_u64(start),
        ending_lba: LbaLe::from_u64(end),
        name: name.parse::<GptPartitionName>().unwrap(),
        ..Default::default()
    };
    let mut array = vec![0; ARRAY_BYTES];
    array[..128].copy_from_slice(bytes_of(&entry(64, 1063, guid!("11111111-2222-3333-4444-555555555555"), "ESP")));
    array[256..384].copy_from_slice(bytes_of(&entry(
        2000,
        2000,
        guid!("61111111-2222-3333-4444-555555555555"),
        "tiny",
    )));
    write_gpt(bytes, block, &array);
    disk
}

/// Writes both headers and arrays for `array`.
fn write_gpt(bytes: &mut [u8], block: usize, array: &[u8]) {
    let array_blocks = array.len().div_ceil(block) as u64;
    for (my, other, at) in [(1, BLOCKS - 1, 2), (BLOCKS - 1, 1, BLOCKS - 1 - array_blocks)] {
        bytes[at as usize * block..][..array.len()].copy_from_slice(array);
        let mut header = GptHeader {
            my_lba: LbaLe::from_u64(my),
            alternate_lba: LbaLe::from_u64(other),
            first_usable_lba: LbaLe::from_u64(40),
            last_usable_lba: LbaLe::from_u64(BLOCKS - 40),
            partition_entry_lba: LbaLe::from_u64(at),
            number_of_partition_entries: U32Le::from_u32((array.len() / 128) as u32),
            partition_entry_array_crc32: Crc32(U32Le::from_u32(services::table::crc32(array))),
            ..Default::default()
        };
        header.update_header_crc32();
        bytes[my as usize * block..][..92].copy_from_slice(bytes_of(&header));
    }
}

/// Changes the header at `lba` and makes its CRC right again.
fn change_header(disk: &mut MemoryDisk, lba: u64, change: impl FnOnce(&mut GptHeader)) {
    let at = lba as usize * disk.block;
    let mut header: GptHeader = bytemuck::pod_read_unaligned(&disk.bytes[at..at + 92]);
    change(&mut header);
    header.update_header_crc32();
    disk.bytes[at..at + 92].copy_from_slice(bytes_of(&header));
}

pub(super) fn mbr_record(sector: &mut [u8], index: usize, kind: u8, start: u32, blocks: u32) {
    let record = &mut sector[446 + index * 16..][..16];
    record[4] = kind;
    record[8..12].copy_from_slice(&start.to_le_bytes());
    record[12..16].copy_from_slice(&blocks.to_le_bytes());
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
}

fn ranges(table: &Table) -> Vec<(u32, u64, u64)> {
    table.partitions.iter().map(|p| (p.number, p.start, p.blocks)).collect()
}

const GOOD: [(u32, u64, u64); 2] = [(1, 64, 1000), (3, 2000, 1)];

#[test]
fn primary_gpt_is_read() {
    for block in [512, 4096] {
        let table = scan(&mut gpt_disk(block)).unwrap();
        assert_eq!(table.scheme, Scheme::Gpt { from_backup: false });
        assert_eq!(ranges(&table), GOOD);
        assert!(table.notes.is_empty());
        assert!(table.partitions[0].is_esp());
        assert_eq!(
            table.partitions[0].signature(),
            Some(Signature::Guid(guid!("11111111-2222-3333-4444-555555555555")))
        );
    }
}

#[test]
fn backup_gpt_is_used_when_the_primary_header_is_damaged() {
    for block in [512, 4096] {
        let mut disk = gpt_disk(block);
        disk.bytes[block + 40] ^= 1;
        let table = scan(&mut disk).unwrap();
        assert_eq!(table.scheme, Scheme::Gpt { from_backup: true });
        assert_eq!(ranges(&table), GOOD);
        assert!(table.notes[0].contains("bad header CRC"), "{:?}", table.notes);
        assert!(table.notes[0].contains("backup at block 4095"), "{:?}", table.notes);
    }
}

#[test]
fn backup_gpt_is_used_when_the_primary_array_is_damaged() {
    let mut disk = gpt_disk(512);
    disk.bytes[1024 + 33] ^= 1;
    let table = scan(&mut disk).unwrap();
    assert_eq!(table.scheme, Scheme::Gpt { from_backup: true });
    assert_eq!(ranges(&table), GOOD);
    assert!(table.notes[0].contains("bad entry array CRC"), "{:?}", table.notes);
}

#[test]
fn both_gpts_damaged_names_both_faults() {
    let mut disk = gpt_disk(512);
    disk.bytes[512] ^= 1;
    disk.bytes[4095 * 512 + 60] ^= 1;
    let ScanError::Damaged(reason) = scan(&mut disk).unwrap_err() else { panic!() };
    assert_eq!(reason.matches("GPT").count(), 2);
    assert!(reason.contains("no signature") && reason.contains("bad header CRC"), "{reason}");
}

#[test]
fn hostile_header_values_are_refused() {
    type Change = fn(&mut GptHeader);
    let changes: [(Change, &str); 9] = [
        (|h| h.number_of_partition_entries = U32Le::from_u32(u32::MAX), "entry array of"),
        (|h| h.number_of_partition_entries = U32Le::from_u32(0), "entry array of 0"),
        (|h| h.size_of_partition_entry = U32Le::from_u32(0), "entry size 0"),
        (|h| h.size_of_partition_entry = U32Le::from_u32(129), "entry size 129"),
        (|h| h.partition_entry_lba = LbaLe::from_u64(u64::MAX), "not on the device"),
        (|h| h.partition_entry_lba = LbaLe::from_u64(BLOCKS - 1), "not on the device"),
        (|h| h.partition_entry_lba = LbaLe::from_u64(0), "not on the device"),
        (|h| h.my_lba = LbaLe::from_u64(7), "belongs at block 7"),
        (|h| h.last_usable_lba = LbaLe::from_u64(u64::MAX), "usable blocks"),
    ];
    for (change, expected) in changes {
        let mut disk = gpt_disk(512);
        disk.bytes[4095 * 512] = 0;
        change_header(&mut disk, 1, change);
        let ScanError::Damaged(reason) = scan(&mut disk).unwrap_err() else { panic!() };
        assert!(reason.contains(expected), "{reason} has no {expected}");
    }
    let mut disk = gpt_disk(512);
    disk.bytes[4095 * 512] = 0;
    disk.bytes[512 + 12..512 + 16].copy_from_slice(&513_u32.to_le_bytes());
    assert!(scan(&mut disk).unwrap_err().to_string().contains("header size 513"));
}

#[test]
fn entries_outside_the_usable_range_are_left_out() {
    let mut disk = gpt_disk(512);
    let mut array = disk.bytes[1024..1024 + ARRAY_BYTES].to_vec();
    array[256 + 40..256 + 48].copy_from_slice(&u64::MAX.to_le_bytes());
    write_gpt(&mut disk.bytes, 512, &array);
    let table = scan(&mut disk).unwrap();
    assert_eq!(ranges(&table), GOOD[..1]);
    assert!(table.notes[0].starts_with("partition 3 (\"tiny\""), "{:?}", table.notes);
}

#[test]
fn overlapping_entries_keep_the_first() {
    let mut disk = gpt_disk(512);
    let mut array = disk.bytes[1024..1024 + ARRAY_BYTES].to_vec();
    array[256 + 32..256 + 40].copy_from_slice(&1063_u64.to_le_bytes());
    write_gpt(&mut disk.bytes, 512, &array);
    let table = scan(&mut disk).unwrap();
    assert_eq!(ranges(&table), GOOD[..1]);
    assert!(table.notes[0].contains("partition 3 overlaps partition 1"), "{:?}", table.notes);
}

#[test]
fn gpt_without_a_protective_record_is_no_gpt() {
    let mut disk = gpt_disk(512);
    disk.bytes[446..462].fill(0);
    assert_eq!(scan(&mut disk), Err(ScanError::Absent("the master boot record is empty")));
}

#[test]
fn blank_disk_has_no_table() {
    let mut disk = MemoryDisk::new(64, 512);
    assert_eq!(scan(&mut disk), Err(ScanError::Absent("the first sector is blank")));
}

#[test]
fn primary_and_logical_partitions_of_an_mbr() {
    let mut disk = MemoryDisk::new(4096, 512);
    disk.bytes[440..444].copy_from_slice(&[1, 2, 3, 4]);
    mbr_record(&mut disk.bytes, 0, 0xef, 8, 92);
    mbr_record(&mut disk.bytes, 2, 0x0f, 100, 900);
    mbr_record(&mut disk.bytes[100 * 512..], 0, 0x83, 8, 92);
    mbr_record(&mut disk.bytes[100 * 512..], 1, 0x05, 100, 100);
    mbr_record(&mut disk.bytes[200 * 512..], 0, 0x0c, 8, 50);
    let table = scan(&mut disk).unwrap();
    assert_eq!(table.scheme, Scheme::Mbr);
    assert_eq!(ranges(&table), [(1, 8, 92), (5, 108, 92), (6, 208, 50)]);
    assert!(table.partitions[0].is_esp());
    assert_eq!(table.partitions[2].signature(), Some(Signature::Mbr([1, 2, 3, 4])));
}

#[test]
fn a_looping_chain_of_logical_partitions_ends() {
    let mut disk = MemoryDisk::new(4096, 512);
    mbr_record(&mut disk.bytes, 0, 0x05, 100, 900);
    mbr_record(&mut disk.bytes[100 * 512..], 0, 0x83, 8, 92);
    mbr_record(&mut disk.bytes[100 * 512..], 1, 0x05, 0, 900);
    let table = scan(&mut disk).unwrap();
    assert_eq!(table.partitions.len(), 1);
    assert!(table.notes.iter().any(|note| note.contains("more than 128")));
}

#[test]
fn mbr_records_past_the_end_are_left_out() {
    let mut disk = MemoryDisk::new(4096, 512);
    mbr_record(&mut disk.bytes, 0, 0x0c, 8, 92);
    mbr_record(&mut disk.bytes, 1, 0x0c, 4000, u32::MAX);
    let table = scan(&mut disk).unwrap();
    assert_eq!(ranges(&table), [(1, 8, 92)]);
    assert!(table.notes[0].contains("reaches past the end"));
}

#[test]
fn flipped_bytes_never_panic() {
    for block in [512, 4096] {
        let mut disk = gpt_disk(block);
        for at in (0..block * 3).step_by(3) {
            disk.bytes[at] ^= 0xff;
            let _ = scan(&mut disk);
            disk.bytes[at] ^= 0xff;
        }
    }
}

#[test]
fn a_slice_stays_within_its_bounds() {
    let mut disk = MemoryDisk::new(64, 512);
    disk.bytes[10 * 512] = 7;
    assert!(Slice::new(&mut disk, 60, 5).is_err());
    assert!(Slice::new(&mut disk, u64::MAX, 5).is_err());
    let mut slice = Slice::new(&mut disk, 10, 5).unwrap();
    let mut block = [0; 512];
    slice.read(0, &mut block).unwrap();
    assert_eq!(block[0], 7);
    assert_eq!(slice.read(5, &mut block), Err(BlockError::InvalidParameter));
    assert_eq!(slice.write(u64::MAX, &block), Err(BlockError::InvalidParameter));
    assert_eq!(slice.geometry().blocks, 5);
}

#[test]
fn tables_made_by_the_usual_tools_are_read() {
    for (tool, script, expected) in [
        ("sfdisk", "label: gpt\nstart=2048,size=4096,type=U\nsize=2048\n", vec![(1, 2048, 4096), (2, 6144, 2048)]),
        (
            "sfdisk",
            "label: dos\nstart=2048,size=2048,type=ef\nstart=4096,size=12000,type=5\nstart=6144,size=1000\nstart=10240,size=1000\n",
            vec![(1, 2048, 2048), (5, 6144, 1000), (6, 10240, 1000)],
        ),
    ] {
        let image = crate::test_disk::TemporaryFile::new(16 << 20);
        image.pipe(tool, &["--quiet"], script.as_bytes());
        let table = scan(&mut MemoryDisk::of(image.read(), 512)).unwrap();
        assert_eq!(ranges(&table), expected);
        assert!(table.notes.is_empty(), "{:?}", table.notes);
    }
}

#[test]
fn a_block_size_out_of_bounds_is_refused() {
    struct Odd(AtomicUsize);
    impl BlockDevice for Odd {
        fn geometry(&self) -> Geometry {
            Geometry {
                block_size: self.0.load(Ordering::Relaxed) as u32,
                blocks: u64::MAX,
                read_only: true,
                removable: false,
                io_align: 1,
                blocks_per_physical: 1,
            }
        }
        fn read(&mut self, _: u64, _: &mut [u8]) -> Result<(), BlockError> {
            Err(BlockError::Device)
        }
        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), BlockError> {
            Err(BlockError::Device)
        }
        fn flush(&mut self) -> Result<(), BlockError> {
            Ok(())
        }
    }
    for size in [0, 1, 256, 513, 1 << 31] {
        assert!(matches!(scan(&mut Odd(AtomicUsize::new(size))), Err(ScanError::Absent(_))));
    }
    assert_eq!(scan(&mut Odd(AtomicUsize::new(512))), Err(ScanError::Device(BlockError::Device)));
}
