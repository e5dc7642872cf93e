//! Finds a file in the code volume (PI 1.8 vol. 3 §3.2: firmware volume and FFS format).

use uefi_raw::Guid;

/// Offset of `HeaderLength` in EFI_FIRMWARE_VOLUME_HEADER.
const HEADER_LENGTH: usize = 48;
/// Offset of `ExtHeaderOffset`.
const EXTENDED_HEADER: usize = 52;
/// Size of EFI_FFS_FILE_HEADER and of its variant for large files.
const FILE_HEADER: usize = 24;
const FILE_HEADER_LARGE: usize = 32;
/// FFS_ATTRIB_LARGE_FILE.
const LARGE_FILE: u8 = 0x01;
/// EFI_SECTION_PE32.
const SECTION_PE32: u8 = 0x10;

/// The PE32 section of the file named `guid` in the firmware volume `volume`, or `None` if it is not there or damaged.
pub fn pe32<'v>(volume: &'v [u8], guid: &Guid) -> Option<&'v [u8]> {
    let mut offset = first_file(volume)?;
    loop {
        let file = volume.get(offset..)?;
        let (header, size) = file_size(file)?;
        if file.get(..16)? == guid.to_bytes() {
            return section(file.get(header..size)?, SECTION_PE32);
        }
        offset = offset.checked_add(size)?.checked_next_multiple_of(8)?;
    }
}

/// Files start behind the extended header, where there is one.
fn first_file(volume: &[u8]) -> Option<usize> {
    let header = usize::from(read_u16(volume, HEADER_LENGTH)?);
    let extended = usize::from(read_u16(volume, EXTENDED_HEADER)?);
    let end = if extended == 0 {
        header
    } else {
        extended.checked_add(read_u32(volume, extended.checked_add(16)?)? as usize)?
    };
    end.checked_next_multiple_of(8)
}

/// Header length and whole length of the file at the start of `file`.
fn file_size(file: &[u8]) -> Option<(usize, usize)> {
    let (header, size) = if file.get(19)? & LARGE_FILE != 0 {
        (FILE_HEADER_LARGE, read_u32(file, FILE_HEADER)? as usize)
    } else {
        (FILE_HEADER, read_u24(file, 20)?)
    };
    (size >= header && size <= file.len()).then_some((header, size))
}

/// Content of the first section of type `kind`.
fn section(mut sections: &[u8], kind: u8) -> Option<&[u8]> {
    loop {
        let short = read_u24(sections, 0)?;
        let (header, size) = if short == 0xFF_FFFF { (8, read_u32(sections, 4)? as usize) } else { (4, short) };
        let body = sections.get(header..size)?;
        if *sections.get(3)? == kind {
            return Some(body);
        }
        sections = sections.get(size.checked_next_multiple_of(4)?..)?;
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn read_u24(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(3)?)?;
    Some(usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
