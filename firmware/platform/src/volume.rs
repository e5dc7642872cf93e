//! Finds a file in the code volume (PI 1.8 vol. 3 §3.2: firmware volume and FFS format).

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

/// The PE32 section of the file named `guid` (in the byte order of the format) in the firmware volume `volume`, or `None` if it
/// is not there or damaged.
pub fn pe32<'v>(volume: &'v [u8], guid: &[u8; 16]) -> Option<&'v [u8]> {
    let mut offset = first_file(volume)?;
    loop {
        let file = volume.get(offset..)?;
        let (header, size) = file_size(file)?;
        if file.get(..16)? == guid {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const WANTED: [u8; 16] = [7; 16];

    fn file(guid: [u8; 16], sections: &[u8]) -> Vec<u8> {
        let size = (FILE_HEADER + sections.len()) as u32;
        let mut file = guid.to_vec();
        file.extend([0; 4]);
        file.extend(&size.to_le_bytes()[..3]);
        file.push(0xF8);
        file.extend(sections);
        file.resize(file.len().next_multiple_of(8), 0xFF);
        file
    }

    fn section_of(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut section = ((4 + body.len()) as u32).to_le_bytes()[..3].to_vec();
        section.push(kind);
        section.extend(body);
        section.resize(section.len().next_multiple_of(4), 0);
        section
    }

    /// A volume with an extended header of 20 bytes behind its header of 72, a file in between, and the wanted one.
    fn volume() -> Vec<u8> {
        let mut volume = std::vec![0; 72];
        volume[HEADER_LENGTH..HEADER_LENGTH + 2].copy_from_slice(&72u16.to_le_bytes());
        volume[EXTENDED_HEADER..EXTENDED_HEADER + 2].copy_from_slice(&72u16.to_le_bytes());
        volume.extend([0; 16]);
        volume.extend(20u32.to_le_bytes());
        volume.resize(volume.len().next_multiple_of(8), 0xFF);
        volume.extend(file([1; 16], b"other"));
        let sections = [section_of(0x15, b"name"), section_of(SECTION_PE32, b"MZ image")].concat();
        volume.extend(file(WANTED, &sections));
        volume
    }

    #[test]
    fn the_wanted_file_s_image_is_found_behind_others() {
        assert_eq!(pe32(&volume(), &WANTED), Some(&b"MZ image"[..]));
        assert_eq!(pe32(&volume(), &[9; 16]), None);
    }

    #[test]
    fn a_volume_cut_anywhere_has_no_file() {
        let whole = volume();
        // What follows the image is padding of at most 7 bytes.
        for length in 0..whole.len() - 7 {
            assert_eq!(pe32(&whole[..length], &WANTED), None, "{length}");
        }
    }

    #[test]
    fn damaged_bytes_never_panic_or_loop() {
        let whole = volume();
        for at in 0..whole.len() {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = pe32(&damaged, &WANTED);
            }
        }
    }
}
