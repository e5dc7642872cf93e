//! The core: a static-pie ELF64, checked and flattened into the bytes that the image carries.
//!
//! The flattened core is its memory image from address 0 to the end of the last segment's file contents, so that an
//! address in the ELF is an offset in it. The zeroed memory behind that (`.bss`) is the core's own to find. The core
//! moves and relocates itself; therefore only the simplest relocation is admitted.

use crate::image_info;
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _, Rela as _};
use object::{Endianness, Object as _, ObjectSymbol as _, elf};
use std::ops::Range;
use thiserror::Error;

/// Segments are mapped with different permissions, so they begin on pages of their own, in bytes.
const SEGMENT_ALIGNMENT: u64 = 0x1000;
/// More than any image can carry; stops an absurd address before it becomes an allocation.
const SIZE_LIMIT: u64 = crate::layout::IMAGE_LIMIT;
/// The segment that a processor starts in (`F000:FFF0`): hvmloader copies no more of the image's end there, in bytes.
const RESET_VECTOR_REACH: usize = 0x1_0000;
/// Length of what a relocation changes, in bytes.
const RELOCATED_WORD: u64 = 8;

/// The flattened core and the places in it that matter to the image.
#[derive(Debug, Clone)]
pub struct CoreImage {
    /// Contents, from the core's address 0.
    pub bytes: Vec<u8>,
    /// Size in memory, zeroed part included, in whole pages.
    pub memory_size: u64,
    /// Offset of the 32-bit PVH entry.
    pub pvh_entry: u64,
    /// Offset of the descriptor ([`crate::image_info`]).
    pub image_info: usize,
    /// Offset of the 32-bit entry that the reset vector leads to.
    pub hvm_entry: u64,
    /// 16-bit code that has to end the image. Its last four bytes are for the address of `hvm_entry`.
    pub reset_vector: Vec<u8>,
}

/// Why an ELF cannot serve as the core.
#[derive(Debug, Error)]
pub enum CoreError {
    /// Not an ELF64, or a damaged one.
    #[error("not a readable 64-bit ELF file ({0}); build package `entry` for x86_64-unknown-none")]
    Elf(object::read::Error),
    /// For something else than little-endian x86-64.
    #[error("e_machine or byte order is not x86-64's; build for target x86_64-unknown-none")]
    Machine,
    /// Linked at a fixed address.
    #[error("e_type = {0}: must be ET_DYN (3), a static-pie; is relocation-model=static set?")]
    NotPie(u16),
    /// No segment to load, or the first is not at address 0.
    #[error("PT_LOAD: the first segment must be at address 0; see the linker script")]
    Base,
    /// A segment that does not begin on a page.
    #[error("PT_LOAD at {0:#x}: must begin on a page (0x1000); see the linker script")]
    SegmentAlignment(u64),
    /// Segments that overlap or come out of order.
    #[error("PT_LOAD at {0:#x}: overlaps the one before, or addresses do not ascend")]
    SegmentOrder(u64),
    /// A segment with more contents than memory, or behind any possible image.
    #[error("PT_LOAD at {0:#x}: p_filesz and p_memsz make no sense, or the core is larger than 16 MiB")]
    SegmentSize(u64),
    /// A page that is writable and executable.
    #[error("PT_LOAD at {0:#x}: is writable and executable; the linker script must keep code and data apart")]
    WritableCode(u64),
    /// A program interpreter or shared library.
    #[error("{0}: the core must not depend on a dynamic linker; link it with -static-pie")]
    DynamicLinking(&'static str),
    /// Dynamic entries that the core's relocation code does not read.
    #[error("{0}: relocations of this form are not applied by the core; only DT_RELA is")]
    RelocationForm(&'static str),
    /// The relocation table lies outside the contents.
    #[error("DT_RELA: the table ({0:#x} bytes at {1:#x}) is not inside the core, or not whole entries")]
    RelocationTable(u64, u64),
    /// A relocation that is not `R_X86_64_RELATIVE`.
    #[error(
        "relocation at {offset:#x} has type {kind}: only R_X86_64_RELATIVE (8) can be applied; is a symbol undefined?"
    )]
    RelocationType {
        /// What it would change.
        offset: u64,
        /// Its type.
        kind: u32,
    },
    /// A relocation of, or to, something outside the core.
    #[error("relocation at {offset:#x} to {addend:#x}: lies outside the core's memory")]
    RelocationTarget {
        /// What it would change.
        offset: u64,
        /// Where it would point.
        addend: i64,
    },
    /// A relocation in code that is copied elsewhere.
    #[error("relocation at {0:#x}: is inside the reset vector's code, which is copied and cannot be relocated")]
    RelocatedResetVector(u64),
    /// A symbol that must be there.
    #[error("symbol `{0}` is missing; package `entry` defines it (is the ELF stripped?)")]
    NoSymbol(&'static str),
    /// A symbol that points outside the contents.
    #[error("symbol `{name}` = {address:#x}: {wanted}")]
    SymbolPlace {
        /// The symbol.
        name: &'static str,
        /// Its value.
        address: u64,
        /// What would be right.
        wanted: &'static str,
    },
    /// The descriptor's magic is not there.
    #[error("symbol `image_info`: the 64 bytes there do not begin with the magic \"OVMFXEN\\0\"")]
    NoMagic,
}

type Elf<'data> = ElfFile64<'data, Endianness>;

impl CoreImage {
    /// Checks and flattens an ELF file.
    pub fn from_elf(data: &[u8]) -> Result<Self, CoreError> {
        let elf = Elf::parse(data).map_err(CoreError::Elf)?;
        check_header(&elf)?;
        let segments = segments(&elf)?;
        let bytes = flatten(&segments);
        let memory_size = segments.last().map_or(0, |last| last.memory.end).next_multiple_of(SEGMENT_ALIGNMENT);
        let reset_vector = reset_vector(&elf, &bytes)?;
        check_relocations(&elf, data, &bytes, memory_size, &reset_vector)?;
        Ok(Self {
            pvh_entry: entry(&elf, &segments, "pvh_entry")?,
            hvm_entry: entry(&elf, &segments, "hvm_entry")?,
            image_info: image_info(&elf, &bytes)?,
            reset_vector: bytes.get(reset_vector).unwrap_or_default().to_vec(),
            memory_size,
            bytes,
        })
    }
}

struct Segment<'data> {
    memory: Range<u64>,
    contents: &'data [u8],
    flags: u32,
}

fn check_header(elf: &Elf<'_>) -> Result<(), CoreError> {
    let header = elf.elf_header();
    let endian = elf.endian();
    if endian != Endianness::Little || header.e_machine(endian) != elf::EM_X86_64 {
        return Err(CoreError::Machine);
    }
    match header.e_type(endian) {
        elf::ET_DYN => Ok(()),
        other => Err(CoreError::NotPie(other)),
    }
}

fn segments<'data>(elf: &Elf<'data>) -> Result<Vec<Segment<'data>>, CoreError> {
    let endian = elf.endian();
    let mut segments: Vec<Segment<'data>> = Vec::new();
    for header in elf.elf_program_headers() {
        match header.p_type(endian) {
            elf::PT_LOAD => {}
            elf::PT_INTERP => return Err(CoreError::DynamicLinking("PT_INTERP")),
            _ => continue,
        }
        let start = header.p_vaddr(endian);
        if start % SEGMENT_ALIGNMENT != 0 {
            return Err(CoreError::SegmentAlignment(start));
        }
        if start < segments.last().map_or(0, |last| last.memory.end) {
            return Err(CoreError::SegmentOrder(start));
        }
        let contents = header.data(endian, elf.data()).map_err(|()| CoreError::SegmentSize(start))?;
        let end = start.checked_add(header.p_memsz(endian)).ok_or(CoreError::SegmentSize(start))?;
        if end > SIZE_LIMIT || contents.len() as u64 > header.p_memsz(endian) {
            return Err(CoreError::SegmentSize(start));
        }
        let flags = header.p_flags(endian);
        if flags & elf::PF_W != 0 && flags & elf::PF_X != 0 {
            return Err(CoreError::WritableCode(start));
        }
        segments.push(Segment { memory: start..end, contents, flags });
    }
    match segments.first() {
        Some(first) if first.memory.start == 0 => Ok(segments),
        _ => Err(CoreError::Base),
    }
}

/// The memory image, up to the last byte that has contents. Gaps are zero, as in memory.
fn flatten(segments: &[Segment<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in segments.iter().filter(|segment| !segment.contents.is_empty()) {
        // Segments ascend and end below `SIZE_LIMIT`.
        bytes.resize(segment.memory.start as usize, 0);
        bytes.extend_from_slice(segment.contents);
    }
    bytes
}

fn check_relocations(
    elf: &Elf<'_>,
    data: &[u8],
    bytes: &[u8],
    memory_size: u64,
    reset_vector: &Range<usize>,
) -> Result<(), CoreError> {
    let inside = |address: u64, length: u64| address.checked_add(length).is_some_and(|end| end <= memory_size);
    for (offset, kind, addend) in relocations(elf, data, bytes)? {
        if kind != elf::R_X86_64_RELATIVE {
            return Err(CoreError::RelocationType { offset, kind });
        }
        // A pointer may name the end of something, so the end of the core is a fair target.
        if !inside(offset, RELOCATED_WORD) || !u64::try_from(addend).is_ok_and(|target| inside(target, 0)) {
            return Err(CoreError::RelocationTarget { offset, addend });
        }
        if offset < reset_vector.end as u64 && offset + RELOCATED_WORD > reset_vector.start as u64 {
            return Err(CoreError::RelocatedResetVector(offset));
        }
    }
    Ok(())
}

/// The dynamic relocations as (place, type, addend), found the way the core will find them: through the dynamic segment.
fn relocations(elf: &Elf<'_>, data: &[u8], bytes: &[u8]) -> Result<Vec<(u64, u32, i64)>, CoreError> {
    let endian = elf.endian();
    let (mut table, mut size) = (0, 0);
    for header in elf.elf_program_headers() {
        for entry in header.dynamic(endian, data).map_err(CoreError::Elf)?.unwrap_or_default() {
            match entry.d_tag(endian) {
                elf::DT_NULL => break,
                elf::DT_RELA => table = entry.d_val(endian),
                elf::DT_RELASZ => size = entry.d_val(endian),
                elf::DT_NEEDED => return Err(CoreError::DynamicLinking("DT_NEEDED")),
                elf::DT_REL => return Err(CoreError::RelocationForm("DT_REL")),
                elf::DT_RELR => return Err(CoreError::RelocationForm("DT_RELR")),
                elf::DT_JMPREL => return Err(CoreError::RelocationForm("DT_JMPREL")),
                elf::DT_TEXTREL => return Err(CoreError::RelocationForm("DT_TEXTREL")),
                _ => {}
            }
        }
    }
    let misplaced = || CoreError::RelocationTable(size, table);
    let entry_size = size_of::<elf::Rela64<Endianness>>() as u64;
    let end = table.checked_add(size).filter(|_| size % entry_size == 0).ok_or_else(misplaced)?;
    let range = usize::try_from(table).ok().zip(usize::try_from(end).ok()).map(|(table, end)| table..end);
    let entries = range.and_then(|range| bytes.get(range)).ok_or_else(misplaced)?;
    let (entries, _) = object::slice_from_bytes::<elf::Rela64<Endianness>>(entries, (size / entry_size) as usize)
        .map_err(|()| misplaced())?;
    Ok(entries.iter().map(|rela| (rela.r_offset(endian), rela.r_type(endian, false), rela.r_addend(endian))).collect())
}

fn entry(elf: &Elf<'_>, segments: &[Segment<'_>], name: &'static str) -> Result<u64, CoreError> {
    let address = required(elf, name)?;
    let executable = segments.iter().any(|segment| {
        segment.flags & elf::PF_X != 0
            && (segment.memory.start..segment.memory.start + segment.contents.len() as u64).contains(&address)
    });
    match executable {
        true => Ok(address),
        false => {
            Err(CoreError::SymbolPlace { name, address, wanted: "must be inside an executable segment's contents" })
        }
    }
}

fn image_info(elf: &Elf<'_>, bytes: &[u8]) -> Result<usize, CoreError> {
    let name = "image_info";
    let address = required(elf, name)?;
    let start = usize::try_from(address).ok().filter(|start| start % align_of::<u64>() == 0);
    let found = start.and_then(|start| Some((start, bytes.get(start..start.checked_add(image_info::LENGTH)?)?)));
    let wanted = "must be a multiple of 8 and inside the core's initialised data";
    let (start, descriptor) = found.ok_or(CoreError::SymbolPlace { name, address, wanted })?;
    match descriptor.starts_with(&image_info::MAGIC) {
        true => Ok(start),
        false => Err(CoreError::NoMagic),
    }
}

/// Where the 16-bit code is.
fn reset_vector(elf: &Elf<'_>, bytes: &[u8]) -> Result<Range<usize>, CoreError> {
    let (start, end) = (required(elf, "reset_vector_start")?, required(elf, "reset_vector_end")?);
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok()).map(|(start, end)| start..end);
    range
        .filter(|range| {
            let length = range.end.saturating_sub(range.start);
            (crate::fv::RESET_VECTOR_LENGTH..=RESET_VECTOR_REACH).contains(&length) && range.end <= bytes.len()
        })
        .ok_or(CoreError::SymbolPlace {
            name: "reset_vector_end",
            address: end,
            wanted: "must be 16 bytes to 64 KiB behind reset_vector_start and inside the core's contents",
        })
}

fn required(elf: &Elf<'_>, name: &'static str) -> Result<u64, CoreError> {
    symbol(elf, name).ok_or(CoreError::NoSymbol(name))
}

fn symbol(elf: &Elf<'_>, name: &str) -> Option<u64> {
    elf.symbols()
        .find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
        .or_else(|| elf.symbol_by_name(name).filter(|symbol| !symbol.is_undefined()))
        .map(|symbol| symbol.address())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Core, Relocation};

    fn message(core: &Core) -> String {
        CoreImage::from_elf(&core.elf()).unwrap_err().to_string()
    }

    #[test]
    fn addresses_are_offsets_in_the_flattened_core() {
        let core = Core::default();
        let (image, data) = (CoreImage::from_elf(&core.elf()).unwrap(), core.data_contents());
        assert_eq!(image.bytes.len(), Core::DATA as usize + data.len());
        assert_eq!(image.bytes[..core.text.len()], core.text);
        assert_eq!(image.bytes[Core::DATA as usize..], data);
        assert!(image.bytes[core.text.len()..Core::DATA as usize].iter().all(|byte| *byte == 0));
        assert_eq!(image.pvh_entry, Core::PVH_ENTRY);
        assert_eq!(image.memory_size, (Core::DATA + data.len() as u64 + core.bss).next_multiple_of(0x1000));
    }

    #[test]
    fn the_reset_vector_is_taken_out() {
        let image = CoreImage::from_elf(&Core::default().with_reset_vector(0x40, 0x60).elf()).unwrap();
        assert_eq!(image.reset_vector, image.bytes[0x40..0x60]);
    }

    #[test]
    fn a_missing_reset_vector_is_named() {
        for name in ["reset_vector_start", "reset_vector_end"] {
            let text = message(&Core::default().without(name));
            assert!(text.contains(&format!("`{name}` is missing")), "{text}");
        }
    }

    #[test]
    fn a_reset_vector_that_ends_before_it_starts_is_refused() {
        assert!(message(&Core::default().with_reset_vector(0x60, 0x40)).contains("reset_vector_end"));
    }

    #[test]
    fn a_missing_entry_is_named() {
        for name in ["pvh_entry", "hvm_entry"] {
            assert!(message(&Core::default().without(name)).contains(&format!("`{name}` is missing")));
        }
    }

    #[test]
    fn an_entry_in_data_is_refused() {
        for name in ["pvh_entry", "hvm_entry"] {
            assert!(message(&Core::default().with_symbol(name, Core::DATA)).contains("executable"));
        }
    }

    #[test]
    fn a_descriptor_without_magic_is_refused() {
        let mut core = Core::default();
        core.data[Core::INFO_IN_DATA] ^= 1;
        assert!(message(&core).contains("magic"));
    }

    #[test]
    fn a_descriptor_behind_the_contents_is_refused() {
        let end = Core::DATA + Core::default().data_contents().len() as u64;
        assert!(message(&Core::default().with_symbol("image_info", end - 8)).contains("initialised data"));
        assert!(message(&Core::default().with_symbol("image_info", u64::MAX - 7)).contains("initialised data"));
    }

    #[test]
    fn a_relocation_of_another_type_is_refused() {
        let text = message(&Core::default().with_relocation(Relocation { offset: Core::DATA, kind: 6, addend: 0 }));
        assert!(text.contains("type 6"), "{text}");
    }

    #[test]
    fn relocations_that_leave_the_core_are_refused() {
        for (offset, addend) in [(u64::MAX - 3, 0), (0x10_0000, 0), (Core::DATA, 0x10_0000), (Core::DATA, -1)] {
            let text = message(&Core::default().with_relocation(Relocation { offset, kind: 8, addend }));
            assert!(text.contains("outside the core"), "{text}");
        }
    }

    #[test]
    fn a_pointer_to_the_end_of_the_last_page_is_accepted() {
        let end = CoreImage::from_elf(&Core::default().elf()).unwrap().memory_size as i64;
        let pointer = |addend| Relocation { offset: Core::DATA, kind: 8, addend };
        assert!(CoreImage::from_elf(&Core::default().with_relocation(pointer(end)).elf()).is_ok());
        assert!(CoreImage::from_elf(&Core::default().with_relocation(pointer(end + 1)).elf()).is_err());
    }

    #[test]
    fn a_relocation_inside_the_reset_vector_is_refused() {
        let core = Core::default().with_reset_vector(0x40, 0x60);
        let text = message(&core.with_relocation(Relocation { offset: 0x5c, kind: 8, addend: 0 }));
        assert!(text.contains("reset vector"), "{text}");
    }

    #[test]
    fn a_relocation_table_outside_the_core_is_refused() {
        for (table, size) in [(0x10_0000, 24), (u64::MAX - 8, 24), (0, u64::MAX - 15), (0, 25)] {
            let text = message(&Core { rela: Some((table, size)), ..Core::default() });
            assert!(text.contains("DT_RELA"), "{text}");
        }
    }

    #[test]
    fn other_relocation_tables_are_refused() {
        let text = message(&Core { extra_dynamic: Some((elf::DT_RELR as u64, 0)), ..Core::default() });
        assert!(text.contains("DT_RELR"), "{text}");
    }

    #[test]
    fn writable_code_is_refused() {
        let core = Core { text_flags: elf::PF_R | elf::PF_W | elf::PF_X, ..Core::default() };
        assert!(message(&core).contains("writable and executable"));
    }

    #[test]
    fn a_segment_off_its_page_is_refused() {
        assert!(message(&Core { data_address: Core::DATA + 8, ..Core::default() }).contains("must begin on a page"));
    }

    #[test]
    fn segments_that_overlap_are_refused() {
        assert!(message(&Core { data_address: 0, ..Core::default() }).contains("overlaps"));
    }

    #[test]
    fn an_absurd_address_is_refused_before_memory_is_taken() {
        assert!(message(&Core { data_address: 1 << 40, ..Core::default() }).contains("16 MiB"));
        assert!(message(&Core { data_address: !0xfff, ..Core::default() }).contains("p_memsz"));
    }

    #[test]
    fn a_fixed_address_executable_is_refused() {
        assert!(message(&Core { kind: elf::ET_EXEC, ..Core::default() }).contains("static-pie"));
    }

    #[test]
    fn another_machine_is_refused() {
        assert!(message(&Core { machine: elf::EM_AARCH64, ..Core::default() }).contains("x86-64"));
    }

    #[test]
    fn no_truncation_panics() {
        let whole = Core::default().with_reset_vector(0x40, 0x60).elf();
        for length in 0..whole.len() {
            _ = CoreImage::from_elf(&whole[..length]);
        }
    }

    #[test]
    fn no_changed_byte_panics() {
        let mut elf = Core::default().with_reset_vector(0x40, 0x60).elf();
        for index in 0..elf.len() {
            let byte = elf[index];
            for value in [0, 0x7f, 0x80, 0xff] {
                elf[index] = value;
                _ = CoreImage::from_elf(&elf);
            }
            elf[index] = byte;
        }
    }
}
