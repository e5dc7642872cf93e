//! What an Authenticode digest covers (Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image
//! Hash"): the file without its checksum, without the place of its signatures, without the signatures. Measured boot hashes
//! the same bytes (TCG PC Client Platform Firmware Profile 1.05 §10.2.3).

use alloc::vec::Vec;
use core::mem::offset_of;

use object::LittleEndian as LE;
use object::pe::{self, ImageDataDirectory, ImageNtHeaders64, ImageOptionalHeader64};

use super::{Pe, nt_headers, tables};

/// Length of the checksum.
const CHECKSUM: usize = 4;

impl<'a> Pe<'a> {
    /// The pieces of the file that an Authenticode digest covers, in the digest's order. `None` if sections contradict the
    /// file, so that it has none.
    pub fn authenticode(&self) -> Option<Vec<&'a [u8]>> {
        let (nt, nt_offset) = nt_headers(self.file).ok()?;
        let (directories, sections) = tables(self.file, nt, nt_offset).ok()?;
        let nt_offset = usize::try_from(nt_offset).ok()?;
        let checksum =
            nt_offset + offset_of!(ImageNtHeaders64, optional_header) + offset_of!(ImageOptionalHeader64, check_sum);
        let after_checksum = checksum + CHECKSUM;
        let headers = nt.optional_header.size_of_headers.get(LE) as usize;

        let mut pieces = alloc::vec![self.file.get(..checksum)?];
        let signatures = directories.get(pe::IMAGE_DIRECTORY_ENTRY_SECURITY);
        if signatures.is_some() {
            let entry = nt_offset
                + size_of::<ImageNtHeaders64>()
                + pe::IMAGE_DIRECTORY_ENTRY_SECURITY * size_of::<ImageDataDirectory>();
            pieces.push(self.file.get(after_checksum..entry)?);
            pieces.push(self.file.get(entry + size_of::<ImageDataDirectory>()..headers)?);
        } else {
            pieces.push(self.file.get(after_checksum..headers)?);
        }

        let place = |section: &pe::ImageSectionHeader| {
            (section.pointer_to_raw_data.get(LE) as usize, section.size_of_raw_data.get(LE) as usize)
        };
        let mut sections: Vec<(usize, usize)> = sections.iter().map(place).filter(|(_, size)| *size != 0).collect();
        sections.sort_unstable();
        let mut hashed = headers;
        for (start, size) in sections {
            pieces.push(self.file.get(start..start.checked_add(size)?)?);
            hashed = hashed.checked_add(size)?;
        }

        // Behind the sections, whatever is not the signatures.
        let signatures = signatures.map_or(0, |directory| directory.size.get(LE) as usize);
        let end = self.file.len().checked_sub(signatures)?;
        pieces.extend(self.file.get(hashed..end).filter(|rest| !rest.is_empty()));
        Some(pieces)
    }
}
