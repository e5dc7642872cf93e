//! Disks of scenarios: partition tables written here, file systems by mkfs.vfat and mcopy, and damage on request.
//!
//! GPT as in UEFI 2.10 §5.3, MBR as in §5.2. Everything that a real tool would choose at random (identifiers) is
//! derived from the disk's description, so the same scenario gives the same bytes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command;
use crate::file::{Content, Sources, decode};
use crate::grub;

const MIB: u64 = 1 << 20;
/// The first partition starts here, as every partitioning tool of today does it.
const FIRST_PARTITION: u64 = MIB;
/// Entries of a GPT partition entry array, and bytes of each.
const GPT_ENTRIES: u64 = 128;
const GPT_ENTRY_SIZE: u64 = 128;
const GPT_HEADER_SIZE: u32 = 92;
const GPT_REVISION: u32 = 0x0001_0000;
/// Offset of the header's own CRC.
const GPT_HEADER_CRC: usize = 16;
/// C12A7328-F81F-11D2-BA4B-00A0C93EC93B as it stands on disk.
const EFI_SYSTEM_PARTITION: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
const MBR_SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Offset of the first of four partition records of an MBR.
const MBR_PARTITIONS: usize = 446;
const MBR_SIGNATURE_OFFSET: usize = 510;
const MBR_TYPE_ESP: u8 = 0xef;
const MBR_TYPE_GPT_PROTECTIVE: u8 = 0xee;

/// A disk by description.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Disk {
    /// What it is to the guest.
    pub kind: DiskKind,
    /// What it holds as a whole, instead of a table and a file system.
    pub content: Option<Content>,
    /// How it is partitioned.
    pub table: Table,
    /// Size in MiB.
    pub size: u64,
    /// Bytes of a sector: 512 or 4096.
    pub sector_size: u64,
    /// The FAT's width: 12, 16 or 32. 0 leaves the partition without a file system.
    pub fat: u8,
    /// Files by path.
    pub files: BTreeMap<String, Content>,
    /// Damage done when all is written.
    pub damage: Vec<Damage>,
    /// Whether GRUB for BIOS is in front of the partition of an MBR.
    pub bios_grub: bool,
    /// Whether the guest gets it read-only.
    pub read_only: bool,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            kind: DiskKind::Disk,
            content: None,
            table: Table::Gpt,
            size: 80,
            sector_size: 512,
            fat: 32,
            files: BTreeMap::new(),
            damage: Vec::new(),
            bios_grub: false,
            read_only: false,
        }
    }
}

/// What a disk is to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// A disk.
    Disk,
    /// A CD in a drive: read-only, sectors of 2048 bytes on the emulated drive.
    Cdrom,
}

/// How a disk is partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// A GPT with one EFI system partition.
    Gpt,
    /// An MBR with one partition of type EF.
    Mbr,
    /// None: the file system fills the disk.
    None,
}

/// Damage to a disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Damage {
    /// The primary GPT header's CRC is wrong; the backup is good.
    GptPrimaryHeaderCrc,
    /// The backup GPT header's CRC is wrong.
    GptBackupHeaderCrc,
    /// The primary partition entry array does not match its CRC.
    GptPrimaryEntries,
    /// The file system's first FAT is overwritten with zeros, its copy too.
    FatZeroed,
    /// The boot sector claims more sectors than the partition has, and the end of the partition is gone.
    FatTruncated,
    /// The disk is cut to this many MiB after everything was written.
    CutTo(u64),
    /// The whole disk is zeros.
    Zeros,
    /// Bytes (hexadecimal) at an offset of the disk.
    Bytes {
        /// Offset in bytes.
        at: u64,
        /// The bytes.
        hex: String,
    },
}

impl Disk {
    /// Writes the disk to `path`.
    ///
    /// # Errors
    /// The description is contradictory, a content cannot be had, or a tool fails.
    pub fn write(&self, path: &Path, sources: &Sources) -> Result<()> {
        if !matches!(self.sector_size, 512 | 4096) {
            bail!("a sector of {} bytes is not supported", self.sector_size);
        }
        fs::remove_file(path).ok();
        if let Some(content) = &self.content {
            if !self.files.is_empty() || !self.damage.is_empty() {
                bail!("a disk with content as a whole has neither files nor damage");
            }
            return command::write(path, sources.bytes(content)?);
        }
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
        file.set_len(self.size * MIB)?;
        let layout = Layout::of(self);
        match self.table {
            Table::Gpt => layout.write_gpt(&file)?,
            Table::Mbr => file.write_all_at(&layout.mbr(MBR_TYPE_ESP, layout.first, layout.last), 0)?,
            Table::None => {}
        }
        if self.fat != 0 {
            self.write_file_system(path, &layout, sources)?;
        }
        if self.bios_grub {
            if self.table != Table::Mbr {
                bail!("GRUB for BIOS is for disks with an MBR");
            }
            grub::install(&file, layout.first * layout.sector, &sources.scratch)?;
        }
        for damage in &self.damage {
            damage.apply(&file, &layout)?;
        }
        Ok(())
    }

    fn write_file_system(&self, path: &Path, layout: &Layout, sources: &Sources) -> Result<()> {
        let start = layout.first * layout.sector;
        let blocks = (layout.last + 1 - layout.first) * layout.sector / 1024;
        let mut format = Command::new("mkfs.vfat");
        format.args(["-F", &self.fat.to_string(), "-S", &self.sector_size.to_string(), "-n", "LAB", "-i", "1ab01ab0"]);
        if self.fat == 32 {
            // The smallest clusters: a FAT32 with fewer than 65525 of them would be no FAT32 (Microsoft's FAT
            // specification, "FAT type determination").
            format.args(["-s", "1"]);
        }
        format.args(["-h", &layout.first.to_string(), "--offset", &layout.first.to_string()]);
        command::output(format.arg(path).arg(blocks.to_string()))?;
        let image = format!("{}@@{start}", path.display());
        let mut folders = std::collections::BTreeSet::new();
        for (name, content) in &self.files {
            let name = name.trim_start_matches('/');
            let local = sources.scratch.join("file");
            command::write(&local, sources.bytes(content).with_context(|| format!("file {name}"))?)?;
            for (at, _) in name.match_indices('/') {
                if folders.insert(&name[..at]) {
                    command::output(mtools("mmd").args(["-D", "s", "-i", &image]).arg(format!("::{}", &name[..at])))?;
                }
            }
            command::output(mtools("mcopy").args(["-i", &image]).arg(&local).arg(format!("::{name}")))?;
        }
        Ok(())
    }
}

/// mtools without its checks of a floppy's geometry.
pub fn mtools(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("MTOOLS_SKIP_CHECK", "1");
    command
}

impl Damage {
    fn apply(&self, file: &File, layout: &Layout) -> Result<()> {
        let sector = layout.sector;
        let backup = layout.sectors - 1;
        match self {
            Self::GptPrimaryHeaderCrc => invert(file, sector + GPT_HEADER_CRC as u64),
            Self::GptBackupHeaderCrc => invert(file, backup * sector + GPT_HEADER_CRC as u64),
            Self::GptPrimaryEntries => invert(file, 2 * sector),
            Self::FatZeroed => {
                let (start, length) = layout.fats(file)?;
                Ok(file.write_all_at(&vec![0; length], start)?)
            }
            Self::FatTruncated => {
                let end = (layout.last + 1) * sector;
                let middle = layout.first * sector + (end - layout.first * sector) / 4;
                file.set_len(middle)?;
                Ok(file.set_len(layout.sectors * sector)?)
            }
            Self::CutTo(size) => Ok(file.set_len(size * MIB)?),
            Self::Zeros => {
                file.set_len(0)?;
                Ok(file.set_len(layout.sectors * sector)?)
            }
            Self::Bytes { at, hex } => Ok(file.write_all_at(&decode(hex)?, *at)?),
        }
    }
}

fn invert(file: &File, at: u64) -> Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    Ok(file.write_all_at(&[!byte[0]], at)?)
}

/// Where things lie on a disk, in sectors.
struct Layout {
    sector: u64,
    sectors: u64,
    first: u64,
    last: u64,
}

impl Layout {
    fn of(disk: &Disk) -> Self {
        let sector = disk.sector_size;
        let sectors = disk.size * MIB / sector;
        let (first, last) = match disk.table {
            Table::None => (0, sectors - 1),
            Table::Mbr => (FIRST_PARTITION / sector, sectors - 1),
            // The last MiB is left to the backup table, so that the partition's size is a multiple of a MiB.
            Table::Gpt => (FIRST_PARTITION / sector, sectors - MIB / sector - 1),
        };
        Self { sector, sectors, first, last }
    }

    fn write_gpt(&self, file: &File) -> Result<()> {
        let entries = self.gpt_entries();
        let entry_sectors = entries.len() as u64 / self.sector;
        let backup = self.sectors - 1;
        let protective = self.mbr(MBR_TYPE_GPT_PROTECTIVE, 1, backup);
        file.write_all_at(&protective, 0)?;
        file.write_all_at(&self.gpt_header(1, backup, 2, &entries), self.sector)?;
        file.write_all_at(&entries, 2 * self.sector)?;
        let backup_entries = backup - entry_sectors;
        file.write_all_at(&entries, backup_entries * self.sector)?;
        file.write_all_at(&self.gpt_header(backup, 1, backup_entries, &entries), backup * self.sector)?;
        Ok(())
    }

    fn gpt_entries(&self) -> Vec<u8> {
        let mut entry = Vec::new();
        entry.extend_from_slice(&EFI_SYSTEM_PARTITION);
        entry.extend_from_slice(&unique(2));
        entry.extend_from_slice(&self.first.to_le_bytes());
        entry.extend_from_slice(&self.last.to_le_bytes());
        entry.extend_from_slice(&0u64.to_le_bytes());
        entry.extend("ESP".encode_utf16().flat_map(u16::to_le_bytes));
        let size = (GPT_ENTRIES * GPT_ENTRY_SIZE).next_multiple_of(self.sector);
        entry.resize(usize::try_from(size).unwrap_or_default(), 0);
        entry
    }

    fn gpt_header(&self, own: u64, other: u64, entries_at: u64, entries: &[u8]) -> Vec<u8> {
        let entry_sectors = entries.len() as u64 / self.sector;
        let array = &entries[..usize::try_from(GPT_ENTRIES * GPT_ENTRY_SIZE).unwrap_or_default()];
        let mut header = b"EFI PART".to_vec();
        header.extend_from_slice(&GPT_REVISION.to_le_bytes());
        header.extend_from_slice(&GPT_HEADER_SIZE.to_le_bytes());
        header.extend_from_slice(&[0; 8]); // own CRC (filled below), reserved
        header.extend_from_slice(&own.to_le_bytes());
        header.extend_from_slice(&other.to_le_bytes());
        header.extend_from_slice(&(2 + entry_sectors).to_le_bytes());
        header.extend_from_slice(&(self.sectors - 2 - entry_sectors).to_le_bytes());
        header.extend_from_slice(&unique(1));
        header.extend_from_slice(&entries_at.to_le_bytes());
        header.extend_from_slice(&u32::try_from(GPT_ENTRIES).unwrap_or_default().to_le_bytes());
        header.extend_from_slice(&u32::try_from(GPT_ENTRY_SIZE).unwrap_or_default().to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(array).to_le_bytes());
        let crc = crc32fast::hash(&header);
        header[GPT_HEADER_CRC..GPT_HEADER_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        header.resize(usize::try_from(self.sector).unwrap_or_default(), 0);
        header
    }

    /// A master boot record with one partition.
    fn mbr(&self, kind: u8, first: u64, last: u64) -> Vec<u8> {
        let clamp = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut sector = vec![0; 512];
        let mut record = vec![0x00, 0x00, 0x02, 0x00, kind, 0xff, 0xff, 0xff];
        record.extend_from_slice(&clamp(first).to_le_bytes());
        record.extend_from_slice(&clamp(last + 1 - first).to_le_bytes());
        sector[MBR_PARTITIONS..MBR_PARTITIONS + record.len()].copy_from_slice(&record);
        sector[MBR_PARTITIONS - 6..MBR_PARTITIONS - 2].copy_from_slice(b"LAB1");
        sector[MBR_SIGNATURE_OFFSET..].copy_from_slice(&MBR_SIGNATURE);
        sector
    }

    /// Start and length in bytes of the file allocation tables, from the boot sector.
    fn fats(&self, file: &File) -> Result<(u64, usize)> {
        let start = self.first * self.sector;
        let mut boot = [0; 64];
        file.read_exact_at(&mut boot, start)?;
        let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| u64::from(u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]));
        let (reserved, copies, size16, size32) = (short(14), u64::from(boot[16]), short(22), long(36));
        let size = if size16 == 0 { size32 } else { size16 };
        Ok((start + reserved * self.sector, usize::try_from(copies * size * self.sector)?))
    }
}

/// An identifier that is unique within the disk.
fn unique(number: u8) -> [u8; 16] {
    let mut guid = *b"ovmf-xen lab \x40\x80\x00";
    guid.rotate_left(6);
    guid[15] = number;
    guid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(sector_size: u64) -> (Layout, File, std::path::PathBuf) {
        let disk = Disk { sector_size, size: 8, ..Disk::default() };
        let path = std::env::temp_dir().join(format!("lab-disk-{sector_size}-{}", std::process::id()));
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        file.set_len(disk.size * MIB).unwrap();
        (Layout::of(&disk), file, path)
    }

    fn header(file: &File, at: u64) -> Vec<u8> {
        let mut header = vec![0; 92];
        file.read_exact_at(&mut header, at).unwrap();
        header
    }

    fn crc_is_right(mut header: Vec<u8>) -> bool {
        let stored: [u8; 4] = header[16..20].try_into().unwrap();
        header[16..20].fill(0);
        crc32fast::hash(&header) == u32::from_le_bytes(stored)
    }

    #[test]
    fn both_gpt_headers_have_a_right_crc() {
        for sector in [512, 4096] {
            let (layout, file, path) = blank(sector);
            layout.write_gpt(&file).unwrap();
            assert!(crc_is_right(header(&file, sector)));
            assert!(crc_is_right(header(&file, (layout.sectors - 1) * sector)));
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn damage_to_the_primary_header_leaves_the_backup_good() {
        let (layout, file, path) = blank(512);
        layout.write_gpt(&file).unwrap();
        Damage::GptPrimaryHeaderCrc.apply(&file, &layout).unwrap();
        assert!(!crc_is_right(header(&file, 512)));
        assert!(crc_is_right(header(&file, (layout.sectors - 1) * 512)));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_protective_record_covers_the_disk() {
        let disk = Disk::default();
        let layout = Layout::of(&disk);
        let sector = layout.mbr(MBR_TYPE_GPT_PROTECTIVE, 1, layout.sectors - 1);
        assert_eq!(sector[450], 0xee);
        assert_eq!(sector[510..], [0x55, 0xaa]);
        assert_eq!(u32::from_le_bytes(sector[458..462].try_into().unwrap()) as u64, layout.sectors - 1);
    }
}
