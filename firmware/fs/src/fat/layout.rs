//! The boot sector: where the parts of a FAT volume lie (Microsoft FAT specification 1.03 §3).

use alloc::format;
use alloc::string::String;
use core::fmt;

use services::block::BlockError;

/// Bytes of the boot sector that are looked at.
pub(super) const BOOT_SECTOR: usize = 512;
/// Length of a directory entry.
pub(super) const SLOT: usize = 32;

/// Cluster counts from which on a volume is FAT16 and FAT32.
const FAT16_FROM: u32 = 4085;
const FAT32_FROM: u32 = 65525;
/// Highest cluster count that 28-bit entries can name.
const MAX_CLUSTERS: u32 = 0x0fff_fff5;
/// Most copies of the FAT taken as sensible.
const MAX_COPIES: u8 = 4;
/// Bit of the FAT32 flags: only one copy is in use, the number of which is in the low bits.
const NOT_MIRRORED: u16 = 0x80;
const ACTIVE_COPY: u16 = 0x0f;
/// Bit of the state byte: the volume was not unmounted (Linux and Windows keep it beside the bit in the FAT).
const STATE_DIRTY: u8 = 0x01;
/// Where the boot signature stands, and its value.
const BOOT_SIGNATURE: (usize, [u8; 2]) = (510, [0x55, 0xaa]);
/// The extended boot signature that announces serial number and label.
const EXTENDED_SIGNATURE: u8 = 0x29;

/// Width of a FAT entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Width {
    /// 12 bits.
    Fat12,
    /// 16 bits.
    Fat16,
    /// 32 bits, of which 28 count.
    Fat32,
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        })
    }
}

/// Why a device holds no FAT volume that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MountError {
    /// The device failed.
    Device(BlockError),
    /// No FAT volume here; the reason in words.
    NotFat(&'static str),
    /// There is one, but it is damaged; the reason in words.
    Damaged(String),
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => write!(f, "the boot sector cannot be read: {error}"),
            Self::NotFat(reason) => write!(f, "no FAT file system: {reason}"),
            Self::Damaged(reason) => write!(f, "damaged FAT file system: {reason}"),
        }
    }
}

impl core::error::Error for MountError {}

/// Where the parts of a volume lie. Offsets and sizes in bytes, all of them checked to be on the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub width: Width,
    pub sector: u32,
    pub cluster: u32,
    pub fat_offset: u64,
    /// Size of one copy.
    pub fat_size: u64,
    pub fat_copies: u8,
    /// The one copy in use, where copies are not kept in step.
    pub active_copy: Option<u8>,
    /// The root directory of FAT12 and FAT16: offset and size.
    pub root: (u64, u32),
    /// The root directory of FAT32; 0 otherwise.
    pub root_cluster: u32,
    pub data_offset: u64,
    /// Number of clusters; the valid ones are 2 to this plus 1.
    pub clusters: u32,
    pub fs_info: Option<u64>,
    pub backup_boot: Option<u64>,
    /// Where the label stands in the boot sector, if it has one.
    pub label_offset: Option<u64>,
    pub label: [u8; 11],
    pub state_dirty: bool,
    /// Oddities in words.
    pub note: Option<String>,
}

impl Layout {
    /// Whether `cluster` can hold data.
    pub fn is_data(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster - 2 < self.clusters
    }

    /// Where a cluster lies. The caller has checked [`Self::is_data`].
    pub fn cluster_offset(&self, cluster: u32) -> u64 {
        self.data_offset + u64::from(cluster.saturating_sub(2)) * u64::from(self.cluster)
    }

    /// Reads the boot sector of a device of `device_size` bytes.
    pub fn parse(boot: &[u8; BOOT_SECTOR], device_size: u64) -> Result<Self, MountError> {
        let byte = |at: usize| boot[at];
        let word = |at: usize| u16::from_le_bytes([boot[at], boot[at + 1]]);
        let long = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);

        // First what tells a FAT volume from anything else.
        let (at, expected) = BOOT_SIGNATURE;
        if boot[at..at + 2] != expected {
            let blank = boot.iter().all(|&byte| byte == 0);
            return Err(MountError::NotFat(if blank { "the first sector is blank" } else { "no boot signature" }));
        }
        if !matches!((byte(0), byte(2)), (0xeb, 0x90) | (0xe9, _)) {
            return Err(MountError::NotFat("the first sector does not start with a jump"));
        }
        if byte(21) != 0xf0 && byte(21) < 0xf8 {
            return Err(MountError::NotFat("no media type"));
        }
        let sector = u32::from(word(11));
        let per_cluster = u32::from(byte(13));
        if !matches!(sector, 512 | 1024 | 2048 | 4096) || !per_cluster.is_power_of_two() {
            return Err(MountError::NotFat("sector or cluster size makes no sense"));
        }

        // From here on it claims to be one.
        let damaged = |reason: &str| MountError::Damaged(String::from(reason));
        let reserved = u64::from(word(14));
        let copies = byte(16);
        let root_entries = u32::from(word(17));
        let fat16_sectors = u32::from(word(22));
        let is_fat32 = fat16_sectors == 0;
        let total = if word(19) != 0 { u64::from(word(19)) } else { u64::from(long(32)) };
        let fat_sectors = u64::from(if is_fat32 { long(36) } else { fat16_sectors });
        if reserved == 0 {
            return Err(damaged("no reserved sectors"));
        }
        if copies == 0 || copies > MAX_COPIES {
            return Err(MountError::Damaged(format!("{copies} copies of the FAT")));
        }
        if fat_sectors == 0 || total == 0 {
            return Err(damaged("a FAT or a volume of no size"));
        }
        if is_fat32 != (root_entries == 0) {
            return Err(MountError::Damaged(format!("{root_entries} root directory entries do not fit its kind")));
        }
        if is_fat32 && word(42) != 0 {
            return Err(MountError::Damaged(format!("unknown FAT32 version {:#06x}", word(42))));
        }
        let device_sectors = device_size / u64::from(sector);
        if total > device_sectors {
            return Err(MountError::Damaged(format!(
                "the file system has {total} sectors of {sector} bytes, the device only {device_sectors}"
            )));
        }
        let root_size = (root_entries * SLOT as u32).next_multiple_of(sector);
        let root_sectors = u64::from(root_size / sector);
        let root_start = reserved + u64::from(copies) * fat_sectors;
        let data_start = root_start + root_sectors;
        let data_sectors = total.saturating_sub(data_start);
        let counted = data_sectors / u64::from(per_cluster);
        if counted == 0 {
            return Err(damaged("no room for a single cluster"));
        }
        let mut clusters = u32::try_from(counted).unwrap_or(u32::MAX).min(MAX_CLUSTERS);
        let width = match clusters {
            _ if is_fat32 => Width::Fat32,
            0..FAT16_FROM => Width::Fat12,
            FAT16_FROM..FAT32_FROM => Width::Fat16,
            _ => return Err(MountError::Damaged(format!("{clusters} clusters are too many for 16-bit FAT entries"))),
        };
        let fat_size = fat_sectors * u64::from(sector);
        let entries = match width {
            Width::Fat12 => fat_size * 2 / 3,
            Width::Fat16 => fat_size / 2,
            Width::Fat32 => fat_size / 4,
        };
        let mut note = None;
        if entries < u64::from(clusters) + 2 {
            note = Some(format!("the FAT has {entries} entries for {clusters} clusters; the rest is out of reach"));
            clusters = u32::try_from(entries).unwrap_or(0).saturating_sub(2);
            if clusters == 0 {
                return Err(damaged("a FAT without entries"));
            }
        }

        let flags = word(40);
        let active_copy = (is_fat32 && flags & NOT_MIRRORED != 0).then_some((flags & ACTIVE_COPY) as u8);
        if active_copy.is_some_and(|copy| copy >= copies) {
            return Err(damaged("the FAT in use does not exist"));
        }
        let root_cluster = if is_fat32 { long(44) & 0x0fff_ffff } else { 0 };
        if is_fat32 && (root_cluster < 2 || root_cluster - 2 >= clusters) {
            return Err(MountError::Damaged(format!(
                "the root directory is at cluster {root_cluster}, which does not exist"
            )));
        }
        let info = u64::from(word(48));
        let fs_info = (is_fat32 && info != 0 && info < reserved).then_some(info * u64::from(sector));
        let backup = u64::from(word(50));
        let backup_boot = (is_fat32 && backup != 0 && backup < reserved).then_some(backup * u64::from(sector));
        let extended = if is_fat32 { 66 } else { 38 };
        let label_offset = (byte(extended) == EXTENDED_SIGNATURE).then_some(extended as u64 + 5);
        let mut label = [b' '; 11];
        if let Some(stored) = label_offset.and_then(|at| boot.get(at as usize..at as usize + 11)) {
            label.copy_from_slice(stored);
        }
        Ok(Self {
            width,
            sector,
            cluster: sector * per_cluster,
            fat_offset: reserved * u64::from(sector),
            fat_size,
            fat_copies: copies,
            active_copy,
            root: (root_start * u64::from(sector), root_size),
            root_cluster,
            data_offset: data_start * u64::from(sector),
            clusters,
            fs_info,
            backup_boot,
            label_offset,
            label,
            state_dirty: byte(extended - 1) & STATE_DIRTY != 0,
            note,
        })
    }
}
