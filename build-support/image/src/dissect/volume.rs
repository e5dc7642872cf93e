//! A firmware volume read back (Platform Initialization Specification 1.8, volume 3, §3.2): header, files, sections.

use std::ops::Range;

use serde::Serialize;
use uguid::Guid;

use super::{Damages, array_at, guid_at};
use crate::bytes::{checksum8, checksum16};
use crate::ffs::{self, FILE_ALIGNMENT};
use crate::fv;

/// Fewer bytes are no volume: the fixed part of the header and the end of a block map.
pub const HEADER_MINIMUM: usize = 64;
/// Offset of the signature.
const SIGNATURE_OFFSET: usize = 40;
const SIGNATURE: &[u8] = b"_FVH";

/// Section types with a body that is worth a name (`EFI_SECTION_*`).
mod section {
    pub const PE32: u8 = 0x10;
    pub const USER_INTERFACE: u8 = 0x15;
    pub const RAW: u8 = 0x19;
}

/// The fields of a volume header that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What file system the volume has.
    pub file_system: Guid,
    /// Length of the volume.
    pub length: u64,
    /// Length of the header with its block map.
    pub header_length: usize,
    /// Offset of the extended header, or 0.
    pub extended: usize,
}

/// A volume with files.
#[derive(Debug, Clone, Serialize)]
pub struct Volume {
    /// Its file system.
    pub file_system: Guid,
    /// Its name, from the extended header.
    pub name: Option<Guid>,
    /// Its files in their order, without those that only take room.
    pub files: Vec<File>,
    /// Bytes that nothing is in.
    pub free: u64,
    /// Where files can begin, from the start of the volume.
    #[serde(skip)]
    pub end_of_headers: usize,
    /// Where the header ends.
    #[serde(skip)]
    pub end_of_header: usize,
}

/// A file in a volume.
#[derive(Debug, Clone, Serialize)]
pub struct File {
    /// Place of its header, from the start of the image.
    pub offset: u64,
    /// Length with its header.
    pub size: u64,
    /// Its name.
    pub guid: Guid,
    /// What people call it, from its section of that kind.
    pub name: Option<String>,
    /// Its type (`EFI_FV_FILETYPE_*`).
    #[serde(rename = "type")]
    pub kind: u8,
    /// Place and length of its program: the PE32 or raw section.
    pub payload: Option<Payload>,
    /// Bytes of the header.
    #[serde(skip)]
    pub header_length: usize,
}

/// A program in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Payload {
    /// First byte, from the start of the image.
    pub offset: u64,
    /// Length.
    pub size: u64,
    /// Whether it is a PE file.
    pub is_pe: bool,
}

impl File {
    /// The bytes it covers.
    pub fn range(&self) -> Range<usize> {
        self.offset as usize..(self.offset + self.size) as usize
    }
}

impl Header {
    /// The header at the start of `bytes`; `None` where there is no volume.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let signature = bytes.get(SIGNATURE_OFFSET..HEADER_MINIMUM)?;
        signature.starts_with(SIGNATURE).then(|| Self {
            file_system: guid_at(bytes, 16),
            length: u64::from_le_bytes(array_at(bytes, 32)),
            header_length: u16::from_le_bytes(array_at(bytes, 48)).into(),
            extended: u16::from_le_bytes(array_at(bytes, 52)).into(),
        })
    }
}

/// Whether the GUID is that of a file system that [`read`] knows.
pub fn is_file_system(guid: Guid) -> bool {
    guid == fv::FILE_SYSTEM2 || guid == fv::FILE_SYSTEM3
}

/// Says what is wrong with a volume's header.
pub(crate) fn check_header(volume: &[u8], start: usize, damages: &mut Damages) {
    let Some(header) = Header::read(volume) else { return };
    match volume.get(..header.header_length) {
        Some(bytes) if header.header_length >= HEADER_MINIMUM => {
            if checksum16(bytes) != 0 {
                damages.add(start, "volume header: the checksum does not match");
            }
        }
        _ => damages.add(start + 48, format!("volume header: HeaderLength is {:#x}", header.header_length)),
    }
}

/// Reads the files of the volume at `start` of the image.
pub(crate) fn read(volume: &[u8], start: usize, damages: &mut Damages) -> Volume {
    let header = Header::read(volume);
    let end_of_header =
        header.map_or(fv::HEADER_LENGTH, |header| header.header_length).clamp(HEADER_MINIMUM, volume.len());
    let extended = header.map(|header| header.extended).filter(|&extended| extended != 0);
    let name = extended.filter(|&at| volume.len() >= at + 20).map(|at| guid_at(volume, at));
    let mut read = Volume {
        file_system: header.map_or(fv::FILE_SYSTEM2, |header| header.file_system),
        name,
        files: Vec::new(),
        free: 0,
        end_of_headers: end_of_header,
        end_of_header,
    };
    let mut at = end_of_header.next_multiple_of(FILE_ALIGNMENT);
    while at < volume.len() {
        let rest = &volume[at..];
        if rest.iter().take(ffs::HEADER_LENGTH).all(|&byte| byte == 0xff) {
            read.free += rest.len() as u64;
            if let Some(used) = rest.iter().position(|&byte| byte != 0xff) {
                damages.add(start + at + used, "bytes behind the last file that are not erased");
            }
            break;
        }
        let Some(file) = file(rest, start + at, damages) else { break };
        let size = file.size as usize;
        if file.kind == ffs::FileKind::Padding as u8 {
            read.free += file.size;
            // The extended header is inside one; the others are empty.
            let used = rest[file.header_length..size].iter().position(|&byte| byte != 0xff);
            let has_header = extended.is_some_and(|extended| (at..at + size).contains(&extended)) || header.is_none();
            if let Some(used) = used.filter(|_| !has_header) {
                damages.add(start + at + file.header_length + used, "padding that is not erased");
            }
        } else {
            read.files.push(file);
        }
        at = (at + size).next_multiple_of(FILE_ALIGNMENT);
    }
    read
}

/// The file at the start of `rest`; `None` where the walk cannot go on behind it.
fn file(rest: &[u8], offset: usize, damages: &mut Damages) -> Option<File> {
    let attributes = rest.get(19).copied().unwrap_or_default();
    let large = attributes & ffs::ATTRIBUTE_LARGE_FILE != 0;
    let header_length = if large { ffs::LARGE_HEADER_LENGTH } else { ffs::HEADER_LENGTH };
    let size = match large {
        true => usize::try_from(u64::from_le_bytes(array_at(rest, 24))).unwrap_or(usize::MAX),
        false => size24(rest, 20),
    };
    let guid = guid_at(rest, 0);
    let (Some(header), true) = (rest.get(..header_length), size >= header_length && size <= rest.len()) else {
        damages.add(offset, format!("file {guid}: its size {size:#x} cannot be; the files behind it are lost"));
        return None;
    };
    let mut header = header.to_vec();
    let (body_sum, state) = (header[17], header[23]);
    (header[17], header[23]) = (0, 0);
    if checksum8(&header) != 0 {
        damages.add(offset, format!("file {guid}: the checksum of its header does not match"));
    }
    if state != ffs::STATE_VALID {
        damages.add(offset + 23, format!("file {guid}: its state {state:#04x} is not that of a complete file"));
    }
    let body = &rest[header_length..size];
    let expected = if attributes & ffs::ATTRIBUTE_CHECKSUM != 0 { checksum8(body) } else { ffs::FIXED_CHECKSUM };
    if body_sum != expected {
        damages.add(offset + header_length, format!("file {guid}: its contents do not match their checksum"));
    }
    let kind = rest[18];
    let mut file =
        File { offset: offset as u64, size: size as u64, guid, name: None, kind, payload: None, header_length };
    if kind != ffs::FileKind::Raw as u8 && kind != ffs::FileKind::Padding as u8 {
        read_sections(&mut file, body, offset + header_length);
    }
    Some(file)
}

/// Finds name and program among the sections, as far as these make sense: what is compressed is not looked into.
fn read_sections(file: &mut File, body: &[u8], start: usize) {
    let mut at = 0;
    while let Some(section) = body.get(at..).filter(|section| section.len() >= 4) {
        let (header, size) = match size24(section, 0) {
            ffs::SMALL_LIMIT => (8, u32::from_le_bytes(array_at(section, 4)) as usize),
            size => (4, size),
        };
        let Some(content) = section.get(header..size) else { return };
        match section[3] {
            section::USER_INTERFACE => {
                let units: Vec<u16> = content.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
                file.name = Some(String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned());
            }
            kind @ (section::PE32 | section::RAW) if file.payload.is_none() => {
                let (offset, size) = ((start + at + header) as u64, content.len() as u64);
                file.payload = Some(Payload { offset, size, is_pe: kind == section::PE32 });
            }
            _ => {}
        }
        at = (at + size).next_multiple_of(4);
    }
}

fn size24(bytes: &[u8], at: usize) -> usize {
    let [low, middle, high] = array_at(bytes, at);
    u32::from_le_bytes([low, middle, high, 0]) as usize
}
