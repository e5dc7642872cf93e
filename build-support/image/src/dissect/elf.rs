//! The ELF header in front of an image, read back.

use object::Endianness;
use object::elf as constants;
use object::read::elf::{ElfFile32, ProgramHeader as _};
use serde::Serialize;

use super::{Damages, array_at};
use crate::elf_header::{self, ElfHeader, XEN_ELFNOTE_PHYS32_ENTRY};

/// What an ELF header says, in guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Where the image's first byte goes.
    pub load_address: u64,
    /// How many bytes of the file are loaded.
    pub loaded: u64,
    /// Where a PVH guest starts, from the note.
    pub entry: u64,
}

/// Where our header has load address, size and entry.
const FIELDS: [usize; 3] = [0x40, 0x44, 0x84];

/// Reads the header, which has `room` bytes. Of an image of ours every byte is known.
pub(crate) fn read(image: &[u8], room: usize, ours: bool, damages: &mut Damages) -> Option<Header> {
    let parsed = parse(image);
    if parsed.is_none() {
        damages.add(0, "ELF header: not that of a PVH kernel with XEN_ELFNOTE_PHYS32_ENTRY; libxl will refuse it");
    }
    let ours_anyway = ours.then(|| FIELDS.map(|at| u64::from(u32::from_le_bytes(array_at(image, at)))));
    let ours_anyway = ours_anyway.map(|[load_address, loaded, entry]| Header { load_address, loaded, entry });
    let header = parsed.or(ours_anyway)?;
    if header.loaded != image.len() as u64 {
        let (loaded, size) = (header.loaded, image.len());
        damages.add(0x44, format!("ELF header: {loaded:#x} bytes are to be loaded, and the file has {size:#x}"));
    }
    if !(header.load_address..header.load_address + header.loaded).contains(&header.entry) {
        damages.add(0x84, format!("ELF header: the entry {:#x} is not in the image", header.entry));
    }
    if ours {
        check_bytes(image, room, &header, damages);
    }
    Some(header)
}

fn parse(image: &[u8]) -> Option<Header> {
    let elf = ElfFile32::<Endianness>::parse(image).ok()?;
    let endian = elf.endian();
    let load = elf.elf_program_headers().iter().find(|header| header.p_type(endian) == constants::PT_LOAD)?;
    let mut entry = None;
    for header in elf.elf_program_headers() {
        let Ok(Some(mut notes)) = header.notes(endian, image) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == b"Xen" && note.n_type(endian) == XEN_ELFNOTE_PHYS32_ENTRY {
                entry = note.desc().first_chunk().map(|bytes| u64::from(u32::from_le_bytes(*bytes)));
            }
        }
    }
    Some(Header { load_address: load.p_paddr(endian).into(), loaded: load.p_filesz(endian).into(), entry: entry? })
}

/// Compares the header with the one that this crate writes for the same figures.
fn check_bytes(image: &[u8], room: usize, header: &Header, damages: &mut Damages) {
    let expected = ElfHeader {
        load_address: header.load_address as u32,
        image_size: header.loaded as u32,
        entry: header.entry as u32,
    };
    let expected = expected.to_bytes();
    if let Some(at) = expected.iter().zip(image).position(|(expected, found)| expected != found) {
        damages.add(at, "ELF header: not as the image tool writes it");
    }
    let behind = image.get(elf_header::LENGTH as usize..room).unwrap_or_default();
    if let Some(at) = behind.iter().position(|&byte| byte != 0xff) {
        damages.add(elf_header::LENGTH as usize + at, "ELF header: bytes behind it that are not erased");
    }
}
