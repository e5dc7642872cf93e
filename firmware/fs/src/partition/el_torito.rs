//! Boot images of a CD (El Torito 1.0; UEFI 2.11 §13.3.2.1): in an ISO 9660 medium a boot record volume descriptor points to
//! the boot catalog, and each bootable entry of the catalog to an image. EFI takes an image without emulation for a
//! system partition.
//!
//! All addresses count in sectors of 2048 bytes from the start of the medium, whatever the block size of the device: a
//! paravirtual CD has blocks of 512. What the catalog says of sizes is believed as far as it does no harm: see [`length`].

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use services::block::{BlockDevice, ByteDevice, Bytes};

use super::{Partition, Record, ScanError, Scheme, Table};

/// Bytes in a sector of a CD.
const SECTOR: u64 = 2048;
/// First sector of the volume descriptors (ECMA-119 §6.7.1).
const DESCRIPTORS: u64 = 16;
/// Most volume descriptors looked at, and how many of them are read at a time.
const MAX_DESCRIPTORS: u64 = 32;
const AT_A_TIME: u64 = 4;
/// Type of a boot record, and of the descriptor that ends the set (ECMA-119 §8.1.1).
const BOOT_RECORD: u8 = 0;
const TERMINATOR: u8 = 255;
/// What stands behind the type of every volume descriptor.
const STANDARD: &[u8] = b"CD001";
/// Where a boot record names its system, and that of El Torito; 32 bytes, the rest of them zero.
const SYSTEM: usize = 7;
const EL_TORITO: &[u8] = b"EL TORITO SPECIFICATION";
/// Where such a boot record has the sector of the catalog.
const CATALOG: usize = 0x47;

/// Length of each record of the catalog. One sector of it is read, 64 records; nobody makes larger ones.
const RECORD: usize = 32;
/// First byte of the records.
const VALIDATION: u8 = 0x01;
const BOOTABLE: u8 = 0x88;
const SECTION: u8 = 0x90;
const LAST_SECTION: u8 = 0x91;
/// Platform identifier of a section for EFI (UEFI 2.11 §13.3.2.1).
const EFI: u8 = 0xef;
/// Media types: the low four bits of the second byte of an entry.
const NO_EMULATION: u8 = 0;
const FLOPPIES: [(u8, u64); 3] = [(1, 1200 << 10), (2, 1440 << 10), (3, 2880 << 10)];
/// Bytes in the sectors that an emulated disk is counted in.
const VIRTUAL_SECTOR: u64 = 512;

/// An entry of the boot catalog.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootEntry {
    /// For whom it is: 0xEF for EFI, 0 for a PC's BIOS.
    pub platform: u8,
    /// What it wants to be taken for: 0 for no emulation, 1 to 3 for a floppy disk, 4 for a hard disk.
    pub media: u8,
    /// Size in the catalog's own counting.
    pub count: u16,
    /// First sector, of 2048 bytes.
    pub sector: u32,
}

impl BootEntry {
    fn parse(record: &[u8; RECORD], platform: u8) -> Self {
        Self {
            platform,
            media: record[1] & 0xf,
            count: u16::from_le_bytes([record[6], record[7]]),
            sector: u32::from_le_bytes([record[8], record[9], record[10], record[11]]),
        }
    }

    /// Whether it is for EFI.
    pub fn is_efi(&self) -> bool {
        self.platform == EFI
    }
}

/// The boot images of a CD; `None` if there is no ISO 9660 file system, so that it is none.
pub(super) fn scan(device: &mut dyn BlockDevice) -> Result<Option<Table>, ScanError> {
    let block_size = u64::from(device.geometry().block_size);
    let mut bytes = Bytes::new(device);
    let sectors = bytes.size() / SECTOR;
    let catalog = match find_catalog(&mut bytes, sectors)? {
        Found::Catalog(sector) => u64::from(sector),
        Found::NoCatalog => {
            return Err(no_image("the medium is not made to be booted from (no El Torito boot catalog)"));
        }
        Found::NoFileSystem => return Ok(None),
    };
    if catalog >= sectors {
        return Err(no_image(&format!(
            "its boot catalog at sector {catalog} is not on the medium ({sectors} sectors)"
        )));
    }
    let mut content = vec![0; SECTOR as usize];
    bytes.read_at(catalog * SECTOR, &mut content)?;
    let mut notes = Vec::new();
    let mut partitions: Vec<Partition> = Vec::new();
    for (number, entry) in entries(&content)? {
        let what = format!("CD boot image {number} at sector {}", entry.sector);
        let start = u64::from(entry.sector) * SECTOR;
        let Some(length) = length(&entry, sectors * SECTOR) else {
            notes.push(format!("{what} is not on the medium ({sectors} sectors) and is ignored"));
            continue;
        };
        if !start.is_multiple_of(block_size) {
            notes.push(format!("{what} starts within a block of {block_size} bytes and is ignored"));
            continue;
        }
        let (start, blocks) = (start / block_size, length / block_size);
        if blocks == 0 {
            notes.push(format!("{what} is smaller than a block and is ignored"));
            continue;
        }
        let this = Partition { number, start, blocks, record: Record::ElTorito(entry) };
        // The same image may be listed for BIOS and for EFI: it is one volume.
        match partitions.iter_mut().find(|other| other.start == start) {
            Some(other) if entry.is_efi() && !other.is_esp() => *other = this,
            Some(_) => {}
            None => partitions.push(this),
        }
    }
    if partitions.is_empty() {
        return Err(no_image(notes.first().map_or("its boot catalog has no bootable entry", String::as_str)));
    }
    Ok(Some(Table { scheme: Scheme::ElTorito, partitions, notes }))
}

fn no_image(reason: &str) -> ScanError {
    ScanError::NoBootImage(String::from(reason))
}

/// What the volume descriptors tell.
enum Found {
    /// The sector of the boot catalog.
    Catalog(u32),
    /// An ISO 9660 file system that is not made to be booted from.
    NoCatalog,
    /// No ISO 9660 file system.
    NoFileSystem,
}

/// Looks through the volume descriptors for the boot catalog.
fn find_catalog(bytes: &mut dyn ByteDevice, sectors: u64) -> Result<Found, ScanError> {
    let end = sectors.min(DESCRIPTORS + MAX_DESCRIPTORS);
    let mut none = Found::NoFileSystem;
    let mut at = DESCRIPTORS;
    while at < end {
        let now = AT_A_TIME.min(end - at);
        let mut content = vec![0; (now * SECTOR) as usize];
        bytes.read_at(at * SECTOR, &mut content)?;
        for descriptor in content.chunks_exact(SECTOR as usize) {
            if descriptor.get(1..1 + STANDARD.len()) != Some(STANDARD) || descriptor[0] == TERMINATOR {
                return Ok(none);
            }
            none = Found::NoCatalog;
            let is_ours = descriptor.get(SYSTEM..SYSTEM + EL_TORITO.len()) == Some(EL_TORITO);
            if descriptor[0] == BOOT_RECORD
                && is_ours
                && let Some(&sector) = descriptor.get(CATALOG..).and_then(<[u8]>::first_chunk)
            {
                return Ok(Found::Catalog(u32::from_le_bytes(sector)));
            }
        }
        at += now;
    }
    Ok(none)
}

/// The bootable entries of the catalog with their numbers: 0 is the default entry, those of sections count from 1.
fn entries(catalog: &[u8]) -> Result<Vec<(u32, BootEntry)>, ScanError> {
    let (records, _) = catalog.as_chunks::<RECORD>();
    let Some((validation, records)) = records.split_first() else {
        return Err(no_image("its boot catalog is empty"));
    };
    if validation[0] != VALIDATION || validation[30..] != [0x55, 0xaa] {
        return Err(no_image("its boot catalog does not begin with a validation entry"));
    }
    let words = validation.as_chunks().0.iter().map(|&word| u16::from_le_bytes(word));
    if words.fold(0, u16::wrapping_add) != 0 {
        return Err(no_image("the checksum of its boot catalog is wrong"));
    }
    // The default entry is for the validation entry's platform, those of a section for that of its header.
    let mut platform = validation[1];
    let mut found = Vec::new();
    for (index, record) in records.iter().enumerate() {
        match record[0] {
            BOOTABLE => {
                let number = if index == 0 { 0 } else { found.last().map_or(1, |(last, _)| last + 1) };
                found.push((number, BootEntry::parse(record, platform)));
            }
            SECTION | LAST_SECTION => platform = record[1],
            // Not bootable, the extension of an entry, or unused.
            _ => {}
        }
    }
    // Sector 0 is the system area, which no image can be in.
    found.retain(|(_, entry)| entry.sector != 0);
    Ok(found)
}

/// Length in bytes of the image of an entry on a medium of `medium` bytes; `None` if it begins behind the end.
///
/// Without emulation, 0 and 1 sectors mean "up to the end of the medium" (UEFI 2.11 §13.3.2.1), and so does here the largest
/// number there is, which makers write for larger images. What a sector is, is not agreed on: El Torito's are of 512 bytes,
/// EDK2 counts those of the CD. Counting those of the CD cuts nothing off. The file system within has its own size.
fn length(entry: &BootEntry, medium: u64) -> Option<u64> {
    let rest = medium.checked_sub(u64::from(entry.sector) * SECTOR).filter(|rest| *rest > 0)?;
    let floppy = FLOPPIES.iter().find(|(media, _)| *media == entry.media);
    let wanted = match (entry.media, entry.count) {
        (NO_EMULATION, 0 | 1 | u16::MAX) => rest,
        (NO_EMULATION, count) => u64::from(count) * SECTOR,
        (_, count) => floppy.map_or(u64::from(count) * VIRTUAL_SECTOR, |(_, size)| *size),
    };
    let whole = wanted.max(SECTOR).next_multiple_of(SECTOR);
    Some(whole.min(rest))
}

#[cfg(test)]
mod tests {
    use super::super::{scan, tests as tables};
    use super::*;
    use crate::test_disk::{MemoryDisk, small_iso};

    const IMAGE: u64 = 24;

    /// A CD of 64 sectors with an entry for a BIOS at sector 20 and one for EFI at sector 24, read in blocks of `block` bytes.
    fn cd(block: usize) -> MemoryDisk {
        MemoryDisk { read_only: true, removable: true, ..MemoryDisk::of(small_iso(&[0; 8 << 10]), block) }
    }

    /// Where record `index` of the catalog stands.
    fn record(index: usize) -> usize {
        19 * SECTOR as usize + index * RECORD
    }

    /// The same CD with some bytes of the catalog's record `index` changed.
    fn changed(index: usize, at: usize, bytes: &[u8]) -> MemoryDisk {
        let mut disk = cd(2048);
        disk.bytes[record(index) + at..][..bytes.len()].copy_from_slice(bytes);
        disk
    }

    fn images(disk: &mut MemoryDisk) -> Vec<(u32, u64, u64, bool)> {
        let table = scan(disk).unwrap();
        assert_eq!(table.scheme, Scheme::ElTorito);
        table.partitions.iter().map(|p| (p.number, p.start, p.blocks, p.is_esp())).collect()
    }

    fn reason(disk: &mut MemoryDisk) -> String {
        alloc::string::ToString::to_string(&scan(disk).unwrap_err())
    }

    #[test]
    fn images_are_found_whatever_the_block_size() {
        for (block, per_sector) in [(2048, 1), (512, 4), (1024, 2)] {
            let expected =
                [(0, 20 * per_sector, 4 * per_sector, false), (1, IMAGE * per_sector, 16 * per_sector, true)];
            assert_eq!(images(&mut cd(block)), expected, "{block}");
        }
        // Sectors 20 and 24 lie on blocks of 4096 bytes as well.
        assert_eq!(images(&mut cd(4096)), [(0, 10, 2, false), (1, 12, 8, true)]);
    }

    #[test]
    fn an_image_within_a_block_is_left_out() {
        let mut disk = MemoryDisk { block: 4096, ..changed(3, 8, &[25]) };
        let table = scan(&mut disk).unwrap();
        assert_eq!(table.partitions.len(), 1);
        assert!(table.notes[0].contains("within a block of 4096 bytes"), "{:?}", table.notes);
    }

    #[test]
    fn an_image_without_a_size_reaches_to_the_end_of_the_medium() {
        for count in [[0, 0], [1, 0], [0xff, 0xff], [0xfe, 0xff]] {
            assert_eq!(images(&mut changed(3, 6, &count))[1], (1, IMAGE, 64 - IMAGE, true));
        }
    }

    #[test]
    fn a_floppy_image_has_the_size_of_its_kind() {
        let mut disk = changed(1, 1, &[2]);
        disk.bytes.resize(2048 * 1000, 0);
        assert_eq!(images(&mut disk)[0], (0, 20, 720, false));
    }

    #[test]
    fn entries_that_are_not_bootable_or_nowhere_are_left_out() {
        assert_eq!(images(&mut changed(1, 0, &[0])), [(1, IMAGE, 16, true)]);
        assert_eq!(images(&mut changed(1, 8, &[0; 4])), [(1, IMAGE, 16, true)]);
        let table = scan(&mut changed(3, 8, &[64])).unwrap();
        assert_eq!(table.partitions.len(), 1);
        assert!(table.notes[0].contains("image 1 at sector 64 is not on the medium (64 sectors)"), "{:?}", table.notes);
    }

    #[test]
    fn an_image_listed_for_bios_and_efi_is_one_volume_for_efi() {
        assert_eq!(images(&mut changed(1, 8, &[IMAGE as u8])), [(1, IMAGE, 16, true)]);
        // The only entry of a catalog may be an image for EFI that calls itself one for a BIOS.
        assert_eq!(images(&mut changed(3, 0, &[0])), [(0, 20, 4, false)]);
    }

    #[test]
    fn what_is_wrong_with_a_catalog_is_said() {
        assert!(reason(&mut changed(0, 5, &[1])).contains("checksum"));
        assert!(reason(&mut changed(0, 30, &[0])).contains("validation entry"));
        assert!(reason(&mut MemoryDisk { bytes: cd(2048).bytes[..19 * 2048].to_vec(), ..cd(2048) }).contains("not on"));
        let mut none = changed(1, 0, &[0]);
        none.bytes[record(3)] = 0;
        assert!(reason(&mut none).contains("no bootable entry"));
        let mut data = cd(2048);
        data.bytes[17 * 2048 + 10] ^= 1;
        assert!(reason(&mut data).contains("not made to be booted from"));
        assert_eq!(reason(&mut MemoryDisk::new(64, 2048)), "no partition table: the first sector is blank");
        assert_eq!(reason(&mut MemoryDisk::new(16, 2048)), "no partition table: the first sector is blank");
    }

    #[test]
    fn a_hybrid_medium_is_read_as_what_it_is() {
        let mut hybrid = cd(512);
        tables::mbr_record(&mut hybrid.bytes, 0, 0xef, 96, 64);
        assert_eq!(images(&mut hybrid).len(), 2);
        hybrid.read_only = false;
        let table = scan(&mut hybrid).unwrap();
        assert_eq!((table.scheme, table.partitions.len()), (Scheme::Mbr, 1));
        // A GPT that is not there, or does not fit this block size, disturbs neither.
        tables::mbr_record(&mut hybrid.bytes, 0, super::super::PROTECTIVE, 1, u32::MAX);
        assert_eq!(images(&mut hybrid).len(), 2);
        assert_eq!(images(&mut MemoryDisk { block: 2048, ..hybrid.clone() }).len(), 2);
        // Nothing for EFI in the catalog, but in the table: the table.
        tables::mbr_record(&mut hybrid.bytes, 0, 0xef, 96, 64);
        (hybrid.read_only, hybrid.bytes[record(3)]) = (true, 0);
        assert_eq!(scan(&mut hybrid).unwrap().scheme, Scheme::Mbr);
    }

    #[test]
    fn a_plain_cd_image_given_as_a_disk_has_its_images_too() {
        let mut disk = MemoryDisk { read_only: false, removable: false, ..cd(512) };
        assert_eq!(images(&mut disk).len(), 2);
    }

    #[test]
    fn truncated_and_changed_media_never_panic_and_images_stay_on_the_medium() {
        let check = |disk: &mut MemoryDisk| {
            let blocks = (disk.bytes.len() / disk.block) as u64;
            for partition in scan(disk).map_or(Vec::new(), |table| table.partitions) {
                assert!(partition.blocks > 0 && partition.start + partition.blocks <= blocks);
            }
        };
        for block in [512, 2048, 4096] {
            let whole = cd(block);
            for length in (block..=whole.bytes.len()).step_by(block) {
                check(&mut MemoryDisk { bytes: whole.bytes[..length].to_vec(), ..whole.clone() });
            }
        }
        let mut disk = cd(2048);
        // The descriptors as far as they are read, and the used part of the catalog, which a checksum guards but in part.
        let descriptors = (16..19_usize).flat_map(|sector| sector * 2048..sector * 2048 + 80);
        for at in descriptors.chain(record(0)..record(6)) {
            for value in [0, 1, 0x7f, 0x88, 0x90, 0xff] {
                let before = std::mem::replace(&mut disk.bytes[at], value);
                check(&mut disk);
                disk.bytes[at] = before;
            }
        }
    }

    #[test]
    fn a_catalog_full_of_entries_ends() {
        let mut disk = cd(2048);
        for index in 1..64 {
            disk.bytes[record(index)..][..2].copy_from_slice(&[BOOTABLE, 0]);
            disk.bytes[record(index) + 8] = index as u8;
        }
        assert_eq!(images(&mut disk).len(), 63);
        for sector in 16..64 {
            disk.bytes[sector * 2048 + 1..][..5].copy_from_slice(STANDARD);
            disk.bytes[sector * 2048] = 1;
        }
        assert!(reason(&mut disk).contains("not made to be booted from"));
    }

    #[test]
    fn an_ordinary_disk_costs_no_read_more() {
        let mut disk = MemoryDisk::new(4096, 512);
        tables::mbr_record(&mut disk.bytes, 0, 0xef, 8, 92);
        scan(&mut disk).unwrap();
        assert_eq!(disk.reads, [512]);
    }
}
