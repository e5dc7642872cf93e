//! A firmware volume with files (Platform Initialization Specification 1.8, volume 3, §3.2.1 and §3.2.2).
//!
//! From front to back: the header, a padding file around the extended header (which holds the volume's name), the files in
//! the order given, padding, and the volume top file, whose last bytes end the volume: the reset vector.

use crate::bytes::{Record, checksum16};
use crate::ffs::{self, FfsError, FfsFile};
use crate::layout::PAGE;
use thiserror::Error;
use uefi_raw::firmware_storage::{FirmwareVolumeAttributes, FirmwareVolumeHeader};
use uguid::{Guid, guid};

/// The reset vector proper: where a processor starts, this many bytes before the end.
pub const RESET_VECTOR_LENGTH: usize = 16;

/// `EFI_FIRMWARE_FILE_SYSTEM2_GUID`.
pub(crate) const FILE_SYSTEM2: Guid = guid!("8c8ce578-8a3d-4f1c-9935-896185c32dd3");
/// `EFI_FIRMWARE_FILE_SYSTEM3_GUID`: the same with large files.
pub(crate) const FILE_SYSTEM3: Guid = guid!("5473c07a-3dcb-4dca-bd6f-1e9689e7349a");
/// `EFI_FFS_VOLUME_TOP_FILE_GUID`.
const VOLUME_TOP_FILE: Guid = guid!("1ba0062e-c779-4582-8566-336ae8f78f09");

/// `EFI_FIRMWARE_VOLUME_HEADER` with a block map of one entry and its terminator, in bytes.
pub const HEADER_LENGTH: usize = 72;
/// `EFI_FVH_REVISION`.
const REVISION: u8 = 2;
/// Tools look for a table of this reach in front of the reset vector, so the top file is never shorter, in bytes.
const TOP_FILE_MINIMUM: usize = 64;

/// What every volume here can do: all operations, not locked, erased bits are ones.
pub(crate) const ATTRIBUTES: FirmwareVolumeAttributes = FirmwareVolumeAttributes::READ_DISABLED_CAP
    .union(FirmwareVolumeAttributes::READ_ENABLED_CAP)
    .union(FirmwareVolumeAttributes::READ_STATUS)
    .union(FirmwareVolumeAttributes::WRITE_DISABLED_CAP)
    .union(FirmwareVolumeAttributes::WRITE_ENABLED_CAP)
    .union(FirmwareVolumeAttributes::WRITE_STATUS)
    .union(FirmwareVolumeAttributes::LOCK_CAP)
    .union(FirmwareVolumeAttributes::LOCK_STATUS)
    .union(FirmwareVolumeAttributes::STICKY_WRITE)
    .union(FirmwareVolumeAttributes::MEMORY_MAPPED)
    .union(FirmwareVolumeAttributes::ERASE_POLARITY)
    .union(FirmwareVolumeAttributes::READ_LOCK_CAP)
    .union(FirmwareVolumeAttributes::READ_LOCK_STATUS)
    .union(FirmwareVolumeAttributes::WRITE_LOCK_CAP)
    .union(FirmwareVolumeAttributes::WRITE_LOCK_STATUS);

/// A volume to be made.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Size in bytes, a multiple of [`PAGE`].
    pub size: usize,
    /// Name in the extended header.
    pub name: Guid,
    /// Files in their order.
    pub files: Vec<FfsFile>,
    /// Code that ends the volume, its last 16 bytes the reset vector.
    pub reset_code: Vec<u8>,
}

/// Where things come to lie in a volume, in bytes from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Header of each file, in the order of [`Volume::files`].
    pub files: Vec<usize>,
    /// Contents of each file's aligned section, if it has one.
    pub payloads: Vec<Option<usize>>,
    /// Header of the volume top file.
    pub top: usize,
    /// First byte behind the files.
    pub end_of_files: usize,
}

/// Why a volume cannot be made.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FvError {
    /// The files are larger than the volume.
    #[error(
        "code volume: its files need {needed:#x} bytes and the region has {size:#x}; \
         make the firmware smaller or the code region in layout.toml larger"
    )]
    Full {
        /// What it takes.
        needed: usize,
        /// What there is.
        size: usize,
    },
    /// A file that fits nowhere.
    #[error(transparent)]
    File(#[from] FfsError),
}

impl Volume {
    /// Finds a place for every file.
    pub fn plan(&self) -> Result<Plan, FvError> {
        let mut end = HEADER_LENGTH + self.name_file().length();
        let (mut files, mut payloads) = (Vec::new(), Vec::new());
        for file in &self.files {
            let place = file.place(end)?;
            files.push(place);
            payloads.push(file.payload_offset().map(|offset| place + offset));
            end = place + file.length();
        }
        let end = end.next_multiple_of(ffs::FILE_ALIGNMENT);
        let top_length = self.top_file(0).length();
        let full = FvError::Full { needed: end + top_length, size: self.size };
        let top = self.size.checked_sub(top_length).filter(|top| *top >= end).ok_or(full)?;
        // What is left before the top file must hold a padding file or nothing.
        let top = if top - end < ffs::HEADER_LENGTH { end } else { top };
        Ok(Plan { files, payloads, top, end_of_files: end })
    }

    /// The volume's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FvError> {
        let plan = self.plan()?;
        let mut out = self.header();
        out.extend(self.name_file().to_bytes());
        for (file, place) in self.files.iter().zip(&plan.files) {
            pad(&mut out, *place);
            out.extend(file.to_bytes());
        }
        pad(&mut out, plan.top);
        out.extend(self.top_file(self.size - plan.top).to_bytes());
        Ok(out)
    }

    fn header(&self) -> Vec<u8> {
        let file_system = if self.files.iter().any(FfsFile::is_large) { FILE_SYSTEM3 } else { FILE_SYSTEM2 };
        let attributes = ATTRIBUTES | FirmwareVolumeAttributes::ALIGNMENT_4K;
        let extended = (HEADER_LENGTH + ffs::HEADER_LENGTH) as u16;
        volume_header(file_system, self.size as u64, attributes, extended)
    }

    /// The extended header inside a padding file: readers that do not know the one see the other.
    fn name_file(&self) -> FfsFile {
        // `EFI_FIRMWARE_VOLUME_EXT_HEADER`: name and size, no entries.
        let length = (size_of::<Guid>() + size_of::<u32>()) as u32;
        FfsFile::padding_around(Record::default().bytes(&self.name.to_bytes()).u32(length).finish())
    }

    /// The volume top file, of at least `length` bytes.
    fn top_file(&self, length: usize) -> FfsFile {
        let body = self.reset_code.len().max(TOP_FILE_MINIMUM).next_multiple_of(ffs::FILE_ALIGNMENT);
        let body = body.max(length.saturating_sub(ffs::HEADER_LENGTH));
        let mut contents = vec![0xff; body - self.reset_code.len()];
        contents.extend_from_slice(&self.reset_code);
        FfsFile::raw(VOLUME_TOP_FILE, contents)
    }
}

/// A volume without files, `size` bytes of it.
pub fn empty(size: usize) -> Vec<u8> {
    let mut out = volume_header(FILE_SYSTEM2, size as u64, ATTRIBUTES | FirmwareVolumeAttributes::ALIGNMENT_16, 0);
    out.resize(size, 0xff);
    out
}

/// A volume header with a block map of pages and a correct checksum. `extended` is the offset of the extended header, or 0.
pub(crate) fn volume_header(
    file_system: Guid,
    size: u64,
    attributes: FirmwareVolumeAttributes,
    extended: u16,
) -> Vec<u8> {
    let header = |checksum: u16| {
        Record::default()
            .bytes(&[0; 16])
            .bytes(&file_system.to_bytes())
            .u64(size)
            .bytes(&FirmwareVolumeHeader::SIGNATURE)
            .u32(attributes.bits())
            .u16(HEADER_LENGTH as u16)
            .u16(checksum)
            .u16(extended)
            .u8(0)
            .u8(REVISION)
            .u32((size / PAGE) as u32)
            .u32(PAGE as u32)
            .u64(0) // ends the block map
            .finish()
    };
    header(checksum16(&header(0)))
}

/// Brings `out` to length `to`: erased bytes up to the next file boundary, then a padding file.
fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(ffs::FILE_ALIGNMENT), 0xff);
    if out.len() < to {
        out.extend(FfsFile::padding(to - out.len()).to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffs::{FileKind, Section};

    const NAME: Guid = guid!("11111111-2222-3333-4444-555555555555");
    const CORE: Guid = guid!("22222222-2222-3333-4444-555555555555");
    const DRIVER: Guid = guid!("33333333-2222-3333-4444-555555555555");

    fn volume(size: usize) -> Volume {
        let files = vec![
            FfsFile::with_aligned_section(CORE, FileKind::SecurityCore, "Coreabc", Section::Raw(&[0xc0; 5000]), 4096),
            FfsFile::with_sections(
                DRIVER,
                FileKind::Driver,
                &[Section::Pe32(&[0xd0; 77]), Section::UserInterface("D")],
            ),
        ];
        Volume { size, name: NAME, files, reset_code: (0..40).collect() }
    }

    /// Reads a volume back the plain way: from the end of its header, file after file. (name, kind, offset, contents)
    fn walk(bytes: &[u8]) -> Vec<(Guid, u8, usize, &[u8])> {
        let guid_at = |at: usize| Guid::from_bytes(bytes[at..at + 16].try_into().unwrap());
        let mut at = usize::from(u16::from_le_bytes(bytes[48..50].try_into().unwrap()));
        let mut files = Vec::new();
        while at < bytes.len() {
            let header = &bytes[at..at + 24];
            let large = header[19] & 1 != 0;
            let (length, size) = match large {
                false => (24, u32::from_le_bytes([header[20], header[21], header[22], 0]) as usize),
                true => (32, u64::from_le_bytes(bytes[at + 24..at + 32].try_into().unwrap()) as usize),
            };
            files.push((guid_at(at), header[18], at, &bytes[at + length..at + size]));
            at = (at + size).next_multiple_of(8);
        }
        files
    }

    #[test]
    fn the_header_is_what_the_specification_asks() {
        let bytes = volume(0x8000).to_bytes().unwrap();
        assert_eq!(bytes.len(), 0x8000);
        assert_eq!(bytes[32..40], 0x8000u64.to_le_bytes());
        assert_eq!(&bytes[40..44], b"_FVH");
        let sum = bytes[..72].chunks(2).fold(0u16, |sum, w| sum.wrapping_add(u16::from_le_bytes([w[0], w[1]])));
        assert_eq!(sum, 0);
        assert_eq!(bytes[56..64], [8, 0, 0, 0, 0, 0x10, 0, 0]);
    }

    #[test]
    fn the_name_is_in_the_extended_header() {
        let bytes = volume(0x8000).to_bytes().unwrap();
        let at = usize::from(u16::from_le_bytes(bytes[52..54].try_into().unwrap()));
        assert_eq!(bytes[at..at + 16], NAME.to_bytes());
        assert_eq!(bytes[at + 16..at + 20], 20u32.to_le_bytes());
    }

    #[test]
    fn a_walk_finds_every_file_and_ends_exactly_at_the_end() {
        let volume = volume(0x8000);
        let bytes = volume.to_bytes().unwrap();
        let files = walk(&bytes);
        let named: Vec<_> = files.iter().filter(|file| file.1 != 0xf0).map(|file| (file.0, file.2)).collect();
        let plan = volume.plan().unwrap();
        assert_eq!(named, [(CORE, plan.files[0]), (DRIVER, plan.files[1]), (VOLUME_TOP_FILE, plan.top)]);
    }

    #[test]
    fn the_aligned_payload_is_where_the_plan_says() {
        let volume = volume(0x8000);
        let payload = volume.plan().unwrap().payloads[0].unwrap();
        assert_eq!(payload % 4096, 0);
        assert_eq!(volume.to_bytes().unwrap()[payload..payload + 5000], [0xc0; 5000]);
    }

    #[test]
    fn the_reset_code_ends_the_volume() {
        let bytes = volume(0x8000).to_bytes().unwrap();
        assert!(bytes.ends_with(&(0..40).collect::<Vec<u8>>()));
    }

    #[test]
    fn a_gap_too_small_for_a_padding_file_goes_to_the_top_file() {
        // Grow the driver step by step through every size of gap up to a full volume.
        for length in 0..4000 {
            let mut volume = volume(0x3000);
            volume.files[1] = FfsFile::raw(DRIVER, vec![0; length]);
            let Ok(bytes) = volume.to_bytes() else {
                assert!(length > 2500);
                return;
            };
            assert_eq!(bytes.len(), 0x3000);
            assert_eq!(walk(&bytes).last().unwrap().0, VOLUME_TOP_FILE);
        }
        panic!("the volume was never full");
    }

    #[test]
    fn a_full_volume_says_how_much_is_missing() {
        let error = volume(0x2000).to_bytes().unwrap_err();
        assert!(matches!(error, FvError::Full { needed, size: 0x2000 } if needed > 0x2000), "{error}");
    }

    #[test]
    fn a_large_file_makes_the_volume_one_of_the_third_format() {
        let mut large = volume(0x200_0000);
        large.files[1] = FfsFile::raw(DRIVER, vec![5; 0x100_0000]);
        let bytes = large.to_bytes().unwrap();
        assert_eq!(bytes[16..32], FILE_SYSTEM3.to_bytes());
        assert_eq!(walk(&bytes).iter().find(|file| file.0 == DRIVER).unwrap().3, vec![5; 0x100_0000]);
        assert_eq!(volume(0x8000).to_bytes().unwrap()[16..32], FILE_SYSTEM2.to_bytes());
    }
}
