//! Finds files in the code volume (PI 1.8 vol. 3 §3.2: firmware volume and FFS format).

use crate::acpi::sum;

/// Offset of `HeaderLength` in EFI_FIRMWARE_VOLUME_HEADER.
const HEADER_LENGTH: usize = 48;
/// Offset of `ExtHeaderOffset`.
const EXTENDED_HEADER: usize = 52;
/// Offsets in EFI_FFS_FILE_HEADER: sum over the contents, type, attributes, state.
const FILE_SUM: usize = 17;
const FILE_TYPE: usize = 18;
const ATTRIBUTES: usize = 19;
const STATE: usize = 23;
/// Size of EFI_FFS_FILE_HEADER and of its variant for large files.
const FILE_HEADER: usize = 24;
const FILE_HEADER_LARGE: usize = 32;
/// FFS_ATTRIB_LARGE_FILE.
const LARGE_FILE: u8 = 0x01;
/// FFS_ATTRIB_CHECKSUM, and what stands in the sum's place without it.
const CHECKSUM: u8 = 0x40;
const FIXED_CHECKSUM: u8 = 0xaa;
/// The state of a whole file in a volume whose erased bits are ones.
const STATE_VALID: u8 = 0xf8;
/// EFI_FV_FILETYPE_APPLICATION.
const APPLICATION: u8 = 0x09;
/// EFI_SECTION_PE32.
const SECTION_PE32: u8 = 0x10;

/// The PE32 section of the file named `guid` (in the byte order of the format) in the firmware volume `volume`, or `None` if it
/// is not there or damaged.
pub fn pe32<'v>(volume: &'v [u8], guid: &[u8; 16]) -> Option<&'v [u8]> {
    let (_, contents) = file(volume, guid)?;
    section(contents, SECTION_PE32)
}

/// The program of the application named `guid`, or `None` if there is none. Unlike what the firmware is made of, it comes from
/// elsewhere: all of the file is checked.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn application<'v>(volume: &'v [u8], guid: &[u8; 16]) -> Option<Result<&'v [u8], &'static str>> {
    let (header, contents) = file(volume, guid)?;
    Some(check(header, contents).and_then(|()| section(contents, SECTION_PE32).ok_or("it has no program")))
}

/// The volume's name, if it has one.
pub fn name(volume: &[u8]) -> Option<[u8; 16]> {
    let extended = usize::from(read_u16(volume, EXTENDED_HEADER)?);
    let name = volume.get(extended..)?.first_chunk()?;
    (extended != 0).then_some(*name)
}

/// Header and contents of the file named `guid`.
fn file<'v>(volume: &'v [u8], guid: &[u8; 16]) -> Option<(&'v [u8], &'v [u8])> {
    let mut offset = first_file(volume)?;
    loop {
        let file = volume.get(offset..)?;
        let (header, size) = file_size(file)?;
        if file.get(..16)? == guid {
            return file.get(..size)?.split_at_checked(header);
        }
        offset = offset.checked_add(size)?.checked_next_multiple_of(8)?;
    }
}

/// Whether a file is a whole application, by type, state and sums.
fn check(header: &[u8], contents: &[u8]) -> Result<(), &'static str> {
    let field = |at: usize| header.get(at).copied().unwrap_or_default();
    // Both sums and the state count as zero.
    if sum(header).wrapping_sub(field(FILE_SUM)).wrapping_sub(field(STATE)) != 0 {
        return Err("the checksum of its header does not match");
    }
    if field(FILE_TYPE) != APPLICATION {
        return Err("it is no application");
    }
    if field(STATE) != STATE_VALID {
        return Err("it is not complete");
    }
    let sums = if field(ATTRIBUTES) & CHECKSUM != 0 { sum(contents) } else { FIXED_CHECKSUM.wrapping_neg() };
    if field(FILE_SUM).wrapping_add(sums) != 0 {
        return Err("its contents do not match their checksum");
    }
    Ok(())
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
    let (header, size) = if file.get(ATTRIBUTES)? & LARGE_FILE != 0 {
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

    /// The same with the wanted file as an application, whose sums are right.
    fn with_application(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut volume = volume();
        let at = volume.windows(16).position(|window| window == WANTED).unwrap();
        let file = &mut volume[at..];
        (file[FILE_TYPE], file[ATTRIBUTES]) = (APPLICATION, CHECKSUM);
        let size = file_size(file).unwrap().1;
        file[16] = sum(&file[..FILE_HEADER]).wrapping_sub(STATE_VALID).wrapping_neg();
        file[FILE_SUM] = sum(&file[FILE_HEADER..size]).wrapping_neg();
        change(&mut file[..size]);
        volume
    }

    #[test]
    fn an_application_is_found_when_all_of_it_is_right() {
        let whole = with_application(|_| {});
        assert_eq!(application(&whole, &WANTED), Some(Ok(&b"MZ image"[..])));
        assert_eq!(application(&whole, &[9; 16]), None);
        // Without a sum over the contents.
        let plain = with_application(|file| {
            (file[ATTRIBUTES], file[FILE_SUM]) = (0, FIXED_CHECKSUM);
            file[16] = file[16].wrapping_add(CHECKSUM);
        });
        assert_eq!(application(&plain, &WANTED), Some(Ok(&b"MZ image"[..])));
        let driver = with_application(|file| {
            file[FILE_TYPE] = 7;
            file[16] = file[16].wrapping_add(2);
        });
        assert_eq!(application(&driver, &WANTED), Some(Err("it is no application")));
        let raw = with_application(|file| {
            file[FILE_HEADER + 11] = 0x19;
            file[FILE_SUM] = sum(&file[FILE_HEADER..]).wrapping_neg();
        });
        assert_eq!(application(&raw, &WANTED), Some(Err("it has no program")));
    }

    #[test]
    fn any_changed_byte_of_an_application_is_noticed() {
        let length = volume().len();
        for at in 0..length {
            for flip in [1, 0x10, 0x80] {
                let mut range = 0..0;
                let mut changed = with_application(|file| range = 0..file.len());
                let start = length - range.len().next_multiple_of(8);
                changed[at] ^= flip;
                let inside = (start + 16..start + range.len()).contains(&at);
                let found = application(&changed, &WANTED);
                assert!(!inside || !matches!(found, Some(Ok(_))), "{at} {flip:#x}");
            }
        }
        assert_eq!(application(&with_application(|file| file[STATE] = 0xfc), &WANTED), Some(Err("it is not complete")));
    }

    #[test]
    fn the_volume_s_name_is_in_its_extended_header() {
        let mut volume = volume();
        volume[72..88].fill(3);
        assert_eq!(name(&volume), Some([3; 16]));
        assert_eq!(name(&volume[..80]), None);
        volume[EXTENDED_HEADER..EXTENDED_HEADER + 2].fill(0);
        assert_eq!(name(&volume), None);
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
                let _ = (pe32(&damaged, &WANTED), application(&damaged, &WANTED), name(&damaged));
            }
        }
    }
}
