//! The ELF header in front of an image: what makes libxl (and QEMU's `-kernel`) start it as a PVH guest.
//!
//! One loadable segment covers the whole file; one Xen note, `XEN_ELFNOTE_PHYS32_ENTRY` (`public/elfnote.h`), says where
//! to enter in 32-bit protected mode. The loader of HVM guests never looks at it.

use crate::bytes::Record;
use object::elf;

const HEADER_SIZE: u16 = 52;
const PROGRAM_HEADER_SIZE: u16 = 32;
const PROGRAM_HEADERS: u16 = 2;
const NOTE_OFFSET: u32 = HEADER_SIZE as u32 + PROGRAM_HEADERS as u32 * PROGRAM_HEADER_SIZE as u32;
const NOTE_SIZE: u32 = 20;
const NOTE_OWNER: [u8; 4] = *b"Xen\0";

/// `XEN_ELFNOTE_PHYS32_ENTRY` (`public/elfnote.h`).
pub(crate) const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// Bytes that a header takes.
pub const LENGTH: u64 = (NOTE_OFFSET + NOTE_SIZE) as u64;

/// What a header says. All in guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElfHeader {
    /// Where the image's first byte goes.
    pub load_address: u32,
    /// Size of the image in bytes.
    pub image_size: u32,
    /// Where a PVH guest starts.
    pub entry: u32,
}

impl ElfHeader {
    /// The header's bytes, [`LENGTH`] of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.file_header();
        out.extend(program_header(
            elf::PT_LOAD,
            0,
            self.load_address,
            self.image_size,
            elf::PF_R | elf::PF_W | elf::PF_X,
        ));
        // The note lies inside the segment, so its address follows from the segment's.
        out.extend(program_header(elf::PT_NOTE, NOTE_OFFSET, self.load_address + NOTE_OFFSET, NOTE_SIZE, elf::PF_R));
        out.extend(self.note());
        out
    }

    fn file_header(&self) -> Vec<u8> {
        Record::default()
            .bytes(&elf::ELFMAG)
            .bytes(&[elf::ELFCLASS32, elf::ELFDATA2LSB, elf::EV_CURRENT, elf::ELFOSABI_NONE])
            .bytes(&[0; 8])
            .u16(elf::ET_EXEC)
            .u16(elf::EM_386)
            .u32(u32::from(elf::EV_CURRENT))
            .u32(self.entry)
            .u32(u32::from(HEADER_SIZE)) // the program headers follow
            .u32(0) // no section headers
            .u32(0)
            .u16(HEADER_SIZE)
            .u16(PROGRAM_HEADER_SIZE)
            .u16(PROGRAM_HEADERS)
            .u16(0)
            .u16(0)
            .u16(elf::SHN_UNDEF)
            .finish()
    }

    fn note(&self) -> Vec<u8> {
        Record::default()
            .u32(NOTE_OWNER.len() as u32)
            .u32(size_of_val(&self.entry) as u32)
            .u32(XEN_ELFNOTE_PHYS32_ENTRY)
            .bytes(&NOTE_OWNER)
            .u32(self.entry)
            .finish()
    }
}

fn program_header(kind: u32, offset: u32, address: u32, size: u32, flags: u32) -> Vec<u8> {
    // A segment's offset and address must agree modulo its alignment; 4 does for the note, and for the image as well.
    const ALIGNMENT: u32 = 4;
    Record::default()
        .u32(kind)
        .u32(offset)
        .u32(address)
        .u32(address)
        .u32(size)
        .u32(size)
        .u32(flags)
        .u32(ALIGNMENT)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::Endianness;
    use object::read::elf::{ElfFile32, FileHeader as _, ProgramHeader as _};

    const HEADER: ElfHeader = ElfHeader { load_address: 0x10_0000, image_size: 0x2000, entry: 0x10_1234 };

    fn file() -> Vec<u8> {
        let mut file = HEADER.to_bytes();
        file.resize(HEADER.image_size as usize, 0xff);
        file
    }

    #[test]
    fn the_header_is_as_long_as_it_says() {
        assert_eq!(HEADER.to_bytes().len() as u64, LENGTH);
    }

    #[test]
    fn an_elf_reader_finds_one_segment_over_the_whole_image() {
        let file = file();
        let parsed = ElfFile32::<Endianness>::parse(&*file).unwrap();
        let (header, endian) = (parsed.elf_header(), parsed.endian());
        assert_eq!((header.e_machine(endian), header.e_type(endian)), (elf::EM_386, elf::ET_EXEC));
        assert_eq!(header.e_entry(endian), HEADER.entry);
        let load = &parsed.elf_program_headers()[0];
        assert_eq!(load.p_type(endian), elf::PT_LOAD);
        assert_eq!((load.p_offset(endian), load.p_paddr(endian)), (0, HEADER.load_address));
        assert_eq!((load.p_filesz(endian), load.p_memsz(endian)), (HEADER.image_size, HEADER.image_size));
    }

    #[test]
    fn an_elf_reader_finds_the_pvh_note() {
        let file = file();
        let parsed = ElfFile32::<Endianness>::parse(&*file).unwrap();
        let endian = parsed.endian();
        let segment = &parsed.elf_program_headers()[1];
        assert_eq!(segment.p_paddr(endian), HEADER.load_address + segment.p_offset(endian));
        let mut notes = segment.notes(endian, &*file).unwrap().unwrap();
        let note = notes.next().unwrap().unwrap();
        assert_eq!((note.name(), note.n_type(endian)), (&b"Xen"[..], XEN_ELFNOTE_PHYS32_ENTRY));
        assert_eq!(note.desc(), HEADER.entry.to_le_bytes());
        assert!(notes.next().unwrap().is_none());
    }
}
