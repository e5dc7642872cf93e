//! Files of a firmware file system and the sections inside them (Platform Initialization Specification 1.8, volume 3,
//! §3.2.3 and §3.2.5).

use crate::bytes::{Record, checksum8};
use thiserror::Error;
use uguid::Guid;

/// Files begin at multiples of this, counted from the start of their volume, in bytes.
pub const FILE_ALIGNMENT: usize = 8;
/// `EFI_FFS_FILE_HEADER`, in bytes.
pub const HEADER_LENGTH: usize = 24;
/// `EFI_FFS_FILE_HEADER2`, in bytes.
pub const LARGE_HEADER_LENGTH: usize = 32;
/// Files and sections up to this size have a three-byte size field.
pub const SMALL_LIMIT: usize = 0xff_ffff;

const SECTION_ALIGNMENT: usize = 4;
/// Offset of the attributes in a file's header.
pub(crate) const ATTRIBUTES: usize = 19;
pub(crate) const ATTRIBUTE_LARGE_FILE: u8 = 0x01;
pub(crate) const ATTRIBUTE_CHECKSUM: u8 = 0x40;
/// `FFS_FIXED_CHECKSUM`: stands for the sum over the contents when none is kept.
pub(crate) const FIXED_CHECKSUM: u8 = 0xaa;
/// Construction, header and data valid, as it reads on flash whose erased bits are ones.
pub(crate) const STATE_VALID: u8 = !0x07;

/// What a file is (`EFI_FV_FILETYPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FileKind {
    /// Contents without sections.
    Raw = 0x01,
    /// The first code that runs.
    SecurityCore = 0x03,
    /// A driver.
    Driver = 0x07,
    /// A program that somebody chooses to start.
    Application = 0x09,
    /// Nothing but room.
    Padding = 0xf0,
}

/// A section of a file (`EFI_SECTION_*`).
#[derive(Debug, Clone, Copy)]
pub enum Section<'a> {
    /// A PE32+ image.
    Pe32(&'a [u8]),
    /// A name to show to people.
    UserInterface(&'a str),
    /// Plain bytes.
    Raw(&'a [u8]),
}

/// A file, ready to be placed in a volume.
#[derive(Debug, Clone)]
pub struct FfsFile {
    guid: Guid,
    kind: FileKind,
    body: Vec<u8>,
    alignment: Option<PayloadAlignment>,
}

/// Demands that byte `offset` of the body come to lie on a multiple of `to`.
#[derive(Debug, Clone, Copy)]
struct PayloadAlignment {
    offset: usize,
    to: usize,
}

/// Why a file cannot be placed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FfsError {
    /// Files start at multiples of 8, which this payload's distance from the file's start rules out.
    #[error("file {guid}: its payload begins {distance} bytes into the file and can never be on a multiple of {to}")]
    Unalignable {
        /// The file.
        guid: Guid,
        /// From the file's header to the payload.
        distance: usize,
        /// What was asked for.
        to: usize,
    },
}

impl Section<'_> {
    fn kind(&self) -> u8 {
        match self {
            Self::Pe32(_) => 0x10,
            Self::UserInterface(_) => 0x15,
            Self::Raw(_) => 0x19,
        }
    }

    fn contents(&self) -> Vec<u8> {
        match self {
            Self::Pe32(bytes) | Self::Raw(bytes) => bytes.to_vec(),
            Self::UserInterface(name) => name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect(),
        }
    }

    /// Appends the section and returns where its contents begin.
    fn append_to(&self, body: &mut Vec<u8>) -> usize {
        body.resize(body.len().next_multiple_of(SECTION_ALIGNMENT), 0);
        let contents = self.contents();
        let size = size_of::<u32>() + contents.len();
        body.extend(match size < SMALL_LIMIT {
            true => Record::default().bytes(&small_size(size)).u8(self.kind()).finish(),
            false => {
                let size = (size + size_of::<u32>()) as u32;
                Record::default().bytes(&small_size(SMALL_LIMIT)).u8(self.kind()).u32(size).finish()
            }
        });
        let start = body.len();
        body.extend(contents);
        start
    }
}

impl FfsFile {
    /// A file whose contents are bytes without sections.
    pub fn raw(guid: Guid, contents: Vec<u8>) -> Self {
        Self { guid, kind: FileKind::Raw, body: contents, alignment: None }
    }

    /// A file made of sections.
    pub fn with_sections(guid: Guid, kind: FileKind, sections: &[Section<'_>]) -> Self {
        let mut body = Vec::new();
        for section in sections {
            section.append_to(&mut body);
        }
        Self { guid, kind, body, alignment: None }
    }

    /// A file with a display name and one section whose contents will lie on a multiple of `to`, counted from the start of
    /// the volume.
    pub fn with_aligned_section(guid: Guid, kind: FileKind, name: &str, section: Section<'_>, to: usize) -> Self {
        let mut body = Vec::new();
        Section::UserInterface(name).append_to(&mut body);
        let offset = section.append_to(&mut body);
        Self { guid, kind, body, alignment: Some(PayloadAlignment { offset, to }) }
    }

    /// A file that only takes room: `length` bytes altogether, at least [`HEADER_LENGTH`].
    pub(crate) fn padding(length: usize) -> Self {
        // Its header may be the large one, which then takes some of the room.
        let header = if length > SMALL_LIMIT { LARGE_HEADER_LENGTH } else { HEADER_LENGTH };
        Self::padding_around(vec![0xff; length - header])
    }

    /// A padding file around bytes that a reader of the volume finds in another way.
    pub(crate) fn padding_around(body: Vec<u8>) -> Self {
        Self { guid: Guid::from_bytes([0xff; 16]), kind: FileKind::Padding, body, alignment: None }
    }

    /// The file's name.
    pub fn guid(&self) -> Guid {
        self.guid
    }

    /// Header and contents, in bytes.
    pub fn length(&self) -> usize {
        self.header_length() + self.body.len()
    }

    /// Whether the file needs the large header, and so a volume of the third format.
    pub fn is_large(&self) -> bool {
        HEADER_LENGTH + self.body.len() > SMALL_LIMIT
    }

    /// Where the aligned section's contents begin, counted from the file's header.
    pub(crate) fn payload_offset(&self) -> Option<usize> {
        self.alignment.map(|alignment| self.header_length() + alignment.offset)
    }

    /// The first place at or behind `offset` where the file can go, leaving either no gap or one that a padding file
    /// fills.
    pub(crate) fn place(&self, offset: usize) -> Result<usize, FfsError> {
        let start = offset.next_multiple_of(FILE_ALIGNMENT);
        let Some(PayloadAlignment { to, .. }) = self.alignment else { return Ok(start) };
        let distance = self.payload_offset().unwrap_or_default();
        let first = (start + distance).next_multiple_of(to) - distance;
        if !first.is_multiple_of(FILE_ALIGNMENT) {
            return Err(FfsError::Unalignable { guid: self.guid, distance, to });
        }
        let mut place = first;
        while place != start && place - start < HEADER_LENGTH {
            place += to;
        }
        Ok(place)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.extend_from_slice(&self.body);
        out
    }

    fn header_length(&self) -> usize {
        if self.is_large() { LARGE_HEADER_LENGTH } else { HEADER_LENGTH }
    }

    fn header(&self) -> Vec<u8> {
        // Of a padding file readers expect the plainest header.
        let keeps_sum = self.kind != FileKind::Padding;
        let attributes =
            if self.is_large() { ATTRIBUTE_LARGE_FILE } else { 0 } | if keeps_sum { ATTRIBUTE_CHECKSUM } else { 0 };
        let header = |header_sum: u8, file_sum: u8, state: u8| {
            let record = Record::default()
                .bytes(&self.guid.to_bytes())
                .u8(header_sum)
                .u8(file_sum)
                .u8(self.kind as u8)
                .u8(attributes);
            match self.is_large() {
                false => record.bytes(&small_size(self.length())).u8(state).finish(),
                true => record.bytes(&[0; 3]).u8(state).u64(self.length() as u64).finish(),
            }
        };
        // The header's sum takes both sums and the state as zero.
        let header_sum = checksum8(&header(0, 0, 0));
        let file_sum = if keeps_sum { checksum8(&self.body) } else { FIXED_CHECKSUM };
        header(header_sum, file_sum, STATE_VALID)
    }
}

fn small_size(size: usize) -> [u8; 3] {
    let bytes = (size as u32).to_le_bytes();
    [bytes[0], bytes[1], bytes[2]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: Guid = uguid::guid!("01234567-89ab-cdef-0123-456789abcdef");

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn header_and_contents_sum_to_zero() {
        let bytes = FfsFile::raw(GUID, vec![1, 2, 3]).to_bytes();
        assert_eq!(bytes.len(), 27);
        assert_eq!(&bytes[20..23], &[27, 0, 0]);
        assert_eq!(bytes[23], 0xf8);
        let mut header = bytes[..24].to_vec();
        (header[17], header[23]) = (0, 0);
        assert_eq!(sum(&header), 0);
        assert_eq!(sum(&bytes[24..]).wrapping_add(bytes[17]), 0);
    }

    #[test]
    fn a_large_file_has_the_large_header() {
        let file = FfsFile::raw(GUID, vec![7; SMALL_LIMIT]);
        let bytes = file.to_bytes();
        assert!(file.is_large());
        assert_eq!((bytes[19] & 1, &bytes[20..23]), (1, &[0, 0, 0][..]));
        assert_eq!(u64::from_le_bytes(bytes[24..32].try_into().unwrap()), bytes.len() as u64);
        let mut header = bytes[..32].to_vec();
        (header[17], header[23]) = (0, 0);
        assert_eq!(sum(&header), 0);
    }

    #[test]
    fn the_largest_small_file_has_the_small_header() {
        let file = FfsFile::raw(GUID, vec![7; SMALL_LIMIT - HEADER_LENGTH]);
        assert!(!file.is_large());
        assert_eq!(&file.to_bytes()[20..23], &[0xff, 0xff, 0xff]);
    }

    #[test]
    fn padding_has_the_length_asked_for() {
        for length in [24, 25, 4096, SMALL_LIMIT, SMALL_LIMIT + 100] {
            assert_eq!(FfsFile::padding(length).to_bytes().len(), length);
        }
    }

    #[test]
    fn sections_are_aligned_and_carry_their_size() {
        let file =
            FfsFile::with_sections(GUID, FileKind::Driver, &[Section::Pe32(&[9; 5]), Section::UserInterface("Ab")]);
        let body = &file.to_bytes()[24..];
        assert_eq!(body, [9, 0, 0, 0x10, 9, 9, 9, 9, 9, 0, 0, 0, 10, 0, 0, 0x15, b'A', 0, b'b', 0, 0, 0]);
    }

    #[test]
    fn a_large_section_has_the_extended_size() {
        let contents = vec![3; SMALL_LIMIT];
        let bytes = FfsFile::with_sections(GUID, FileKind::Driver, &[Section::Raw(&contents)]).to_bytes();
        let section = &bytes[LARGE_HEADER_LENGTH..];
        assert_eq!(section[..4], [0xff, 0xff, 0xff, 0x19]);
        assert_eq!(u32::from_le_bytes(section[4..8].try_into().unwrap()) as usize, section.len());
    }

    #[test]
    fn an_aligned_payload_lands_on_its_multiple_without_an_unfillable_gap() {
        // An odd-length name leaves the payload 4 bytes off; `Core` (4 letters) does not.
        let file = FfsFile::with_aligned_section(GUID, FileKind::SecurityCore, "Coreabc", Section::Raw(&[1]), 64);
        for offset in (0..512).step_by(8) {
            let place = file.place(offset).unwrap();
            assert_eq!((place + file.payload_offset().unwrap()) % 64, 0);
            assert!(place == offset || place >= offset + HEADER_LENGTH);
            assert!(place - offset < 64 + HEADER_LENGTH);
        }
    }

    #[test]
    fn a_payload_that_cannot_be_aligned_is_reported() {
        let file = FfsFile::with_aligned_section(GUID, FileKind::SecurityCore, "Core", Section::Raw(&[1]), 64);
        assert!(matches!(file.place(0), Err(FfsError::Unalignable { to: 64, .. })));
    }
}
