//! PE32+ images for UEFI (PE/COFF as Microsoft publishes it; UEFI 2.10 §2.1.1).
//!
//! A file comes from a disk or from another program and is not trusted: [`Pe::parse`] checks every offset and size once,
//! and what it returns can be laid out without a further check. The layouts of the headers are the `object` crate's.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use handoff::relocation;
use object::LittleEndian as LE;
use object::pe::{self, ImageDataDirectory, ImageDosHeader, ImageNtHeaders64, ImageSectionHeader};
use object::pod::Pod;
use object::read::ReadRef;
use object::read::pe::{ResourceDirectory, ResourceDirectoryEntryData, ResourceNameOrId};
use uefi_raw::Status;
use uefi_raw::protocol::hii::HiiPackageListHeader;
use uefi_raw::table::boot::{MemoryType, PAGE_SIZE};

use crate::hardware::Protection;

mod authenticode;

/// Why a file cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeError {
    /// Does not begin with "MZ".
    NoMzHeader,
    /// Begins with "MZ", but has no PE header where that says.
    NoPeHeader,
    /// For another machine; `IMAGE_FILE_MACHINE_*`.
    OtherMachine(u16),
    /// Not the 64-bit form; the optional header's magic.
    NotPe32Plus(u16),
    /// No EFI program; `IMAGE_SUBSYSTEM_*`.
    NotEfi(u16),
    /// The headers are longer than the file or contradict themselves.
    Headers,
    /// SectionAlignment is no power of two.
    SectionAlignment(u32),
    /// A section's data ends beyond the file.
    Truncated {
        /// Which section.
        section: SectionName,
        /// Where its data ends.
        end: u64,
        /// Length of the file.
        file: u64,
    },
    /// A section ends beyond SizeOfImage.
    SectionOutside {
        /// Which section.
        section: SectionName,
        /// Where it ends in memory.
        end: u64,
        /// SizeOfImage.
        image: u64,
    },
    /// The entry point lies outside the image.
    EntryPoint(u32),
    /// The relocation directory is damaged.
    Relocations,
    /// A relocation of a place outside the image.
    RelocationOutside,
    /// A relocation that does not exist on x86-64.
    RelocationType(u16),
    /// A 32-bit address that would not fit after relocation.
    RelocationOverflow,
    /// The image has no relocations and its own address is taken.
    NotRelocatable {
        /// The address it needs.
        base: u64,
    },
}

impl fmt::Display for PeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoMzHeader => f.write_str("not a PE file: no MZ header"),
            Self::NoPeHeader => f.write_str("not a PE file: no PE header behind the MZ header"),
            Self::OtherMachine(machine) => {
                let x86_64 = pe::IMAGE_FILE_MACHINE_AMD64;
                match machine_name(machine) {
                    Some(name) => write!(f, "built for {name} ({machine:#x}), this is x86-64 ({x86_64:#x})"),
                    None => write!(f, "built for another machine ({machine:#x}), this is x86-64 ({x86_64:#x})"),
                }
            }
            Self::NotPe32Plus(magic) => write!(f, "not a PE32+ file (magic {magic:#x})"),
            Self::NotEfi(subsystem) => write!(f, "a PE file, but not an EFI program (subsystem {subsystem})"),
            Self::Headers => f.write_str("damaged: the headers are cut off or contradict themselves"),
            Self::SectionAlignment(alignment) => write!(f, "damaged: section alignment {alignment:#x}"),
            Self::Truncated { section, end, file } => {
                write!(f, "truncated: section {section} ends at {end:#x} of {file:#x}")
            }
            Self::SectionOutside { section, end, image } => {
                write!(f, "damaged: section {section} ends at {end:#x}, the image at {image:#x}")
            }
            Self::EntryPoint(entry) => write!(f, "damaged: entry point {entry:#x} outside the image"),
            Self::Relocations => f.write_str("damaged: relocations are cut off or outside the image"),
            Self::RelocationOutside => f.write_str("damaged: a relocation lies outside the image"),
            Self::RelocationType(kind) => write!(f, "relocation of type {kind}, unknown on x86-64"),
            Self::RelocationOverflow => f.write_str("a 32-bit relocation does not reach the load address"),
            Self::NotRelocatable { base } => write!(f, "has no relocations, and memory at {base:#x} is not free"),
        }
    }
}

impl core::error::Error for PeError {}

impl From<PeError> for Status {
    fn from(error: PeError) -> Self {
        match error {
            PeError::NoMzHeader
            | PeError::NoPeHeader
            | PeError::OtherMachine(_)
            | PeError::NotPe32Plus(_)
            | PeError::NotEfi(_)
            | PeError::RelocationType(_) => Self::UNSUPPORTED,
            _ => Self::LOAD_ERROR,
        }
    }
}

impl From<relocation::Error> for PeError {
    fn from(error: relocation::Error) -> Self {
        match error {
            relocation::Error::Block => Self::Relocations,
            relocation::Error::OutsideImage => Self::RelocationOutside,
            relocation::Error::Type(kind) => Self::RelocationType(kind),
        }
    }
}

/// Name of a section, as far as it can be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SectionName([u8; pe::IMAGE_SIZEOF_SHORT_NAME]);

impl fmt::Display for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        write!(f, "{}", name.escape_ascii())
    }
}

impl fmt::Debug for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What kind of EFI program it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subsystem {
    /// Unloaded when it returns.
    Application,
    /// Stays until the operating system starts.
    BootDriver,
    /// Stays after that.
    RuntimeDriver,
}

impl Subsystem {
    /// Type of the memory for its code.
    pub fn code_type(self) -> MemoryType {
        match self {
            Self::Application => MemoryType::LOADER_CODE,
            Self::BootDriver => MemoryType::BOOT_SERVICES_CODE,
            Self::RuntimeDriver => MemoryType::RUNTIME_SERVICES_CODE,
        }
    }

    /// Type of the memory it allocates for its data.
    pub fn data_type(self) -> MemoryType {
        match self {
            Self::Application => MemoryType::LOADER_DATA,
            Self::BootDriver => MemoryType::BOOT_SERVICES_DATA,
            Self::RuntimeDriver => MemoryType::RUNTIME_SERVICES_DATA,
        }
    }
}

/// A checked file.
#[derive(Clone, Debug)]
pub struct Pe<'a> {
    file: &'a [u8],
    nt: &'a ImageNtHeaders64,
    directories: &'a [ImageDataDirectory],
    subsystem: Subsystem,
    /// Ordered by address in memory.
    sections: Vec<Section<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Section<'a> {
    address: usize,
    /// Bytes from the file; what follows up to `size` is zero.
    data: &'a [u8],
    size: usize,
    characteristics: u32,
}

/// A range of whole pages of an image and the access it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Offset from the image's base.
    pub offset: u64,
    /// Number of pages.
    pub pages: u64,
    /// Access.
    pub protection: Protection,
}

impl<'a> Pe<'a> {
    /// Checks a file.
    pub fn parse(file: &'a [u8]) -> Result<Self, PeError> {
        let (nt, nt_offset) = nt_headers(file)?;
        let optional = &nt.optional_header;
        let subsystem = match optional.subsystem.get(LE) {
            pe::IMAGE_SUBSYSTEM_EFI_APPLICATION => Subsystem::Application,
            pe::IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER => Subsystem::BootDriver,
            pe::IMAGE_SUBSYSTEM_EFI_RUNTIME_DRIVER => Subsystem::RuntimeDriver,
            other => return Err(PeError::NotEfi(other)),
        };
        let alignment = optional.section_alignment.get(LE);
        if !alignment.is_power_of_two() {
            return Err(PeError::SectionAlignment(alignment));
        }
        let (directories, headers) = tables(file, nt, nt_offset)?;
        let image = u64::from(optional.size_of_image.get(LE));
        let mut sections = headers.iter().map(|h| section(file, h, image)).collect::<Result<Vec<_>, _>>()?;
        sections.sort_by_key(|section| section.address);
        let entry = optional.address_of_entry_point.get(LE);
        if entry == 0 || u64::from(entry) >= image {
            return Err(PeError::EntryPoint(entry));
        }
        let pe = Self { file, nt, directories, subsystem, sections };
        // Without it the image would run with addresses that point elsewhere.
        match pe.directory(pe::IMAGE_DIRECTORY_ENTRY_BASERELOC) {
            Some((address, _)) if address >= pe.size() => Err(PeError::Relocations),
            _ => Ok(pe),
        }
    }

    /// What kind of program it is.
    pub fn subsystem(&self) -> Subsystem {
        self.subsystem
    }

    /// Bytes it takes in memory (SizeOfImage).
    pub fn size(&self) -> usize {
        self.nt.optional_header.size_of_image.get(LE) as usize
    }

    /// What its address in memory has to be a multiple of: a page or more.
    pub fn alignment(&self) -> u64 {
        u64::from(self.section_alignment()).max(PAGE_SIZE as u64)
    }

    /// The address it was linked for.
    pub fn preferred_base(&self) -> u64 {
        self.nt.optional_header.image_base.get(LE)
    }

    /// Whether it can be loaded anywhere. An image that says it is relocatable may do without relocations.
    pub fn is_relocatable(&self) -> bool {
        self.nt.file_header.characteristics.get(LE) & pe::IMAGE_FILE_RELOCS_STRIPPED == 0
    }

    /// Whether it has 32-bit addresses and so belongs below 4 GiB.
    pub fn needs_low_memory(&self) -> bool {
        relocation::relocations(self.relocations()).flatten().any(|relocation| relocation.kind == relocation::HIGHLOW)
    }

    /// Offset of the entry point from the image's base.
    pub fn entry(&self) -> usize {
        self.nt.optional_header.address_of_entry_point.get(LE) as usize
    }

    /// Lays the image out in `memory`, [`Self::size`] bytes at address `base`, and relocates it.
    pub fn load(&self, memory: &mut [u8], base: u64) -> Result<(), PeError> {
        self.lay_out(memory)?;
        let delta = base.wrapping_sub(self.preferred_base());
        if delta == 0 {
            return Ok(());
        }
        if !self.is_relocatable() {
            return Err(PeError::NotRelocatable { base: self.preferred_base() });
        }
        for relocation in relocation::relocations(self.relocations()) {
            let relocation = relocation?;
            let place = usize::try_from(relocation.rva).ok().and_then(|rva| memory.get_mut(rva..));
            relocate(place.unwrap_or_default(), relocation.kind, delta)?;
        }
        Ok(())
    }

    /// The relocation directory, as far as the file has it; zeros follow. The file's, and not the loaded image's, for
    /// that changes while it is relocated.
    pub fn relocations(&self) -> &'a [u8] {
        let Some((address, size)) = self.directory(pe::IMAGE_DIRECTORY_ENTRY_BASERELOC) else { return &[] };
        let within = |section: &Section<'a>| {
            let data = section.data.get(address.checked_sub(section.address)?..)?;
            data.get(..size.min(data.len())).filter(|data| !data.is_empty())
        };
        self.sections.iter().find_map(within).unwrap_or_default()
    }

    /// How the loaded image is to be protected. Nothing if its sections do not begin on pages.
    ///
    /// Sections that are not executable get execute protection. That code cannot be written is only asked of images that
    /// declare themselves fit for it (NX_COMPAT): memtest86+ for one keeps its variables in its code section.
    pub fn segments(&self) -> Vec<Segment> {
        let page = PAGE_SIZE as u64;
        if u64::from(self.section_alignment()) < page {
            return Vec::new();
        }
        let strict = self.nt.optional_header.dll_characteristics.get(LE) & pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT != 0;
        let first = self.sections.first().map_or(self.size(), |section| section.address);
        let headers = Section {
            address: 0,
            data: &[],
            size: first,
            characteristics: if strict { pe::IMAGE_SCN_MEM_READ } else { pe::IMAGE_SCN_MEM_WRITE },
        };
        let mut segments: Vec<Segment> = Vec::with_capacity(self.sections.len() + 1);
        for section in core::iter::once(&headers).chain(&self.sections) {
            let start = section.address as u64;
            let pages = (section.size as u64).div_ceil(page);
            let free_from = segments.last().map_or(0, |last| last.offset + last.pages * page);
            if !start.is_multiple_of(page) || start < free_from {
                // They contradict their own alignment: leave all as it is.
                return Vec::new();
            }
            if pages > 0 {
                segments.push(Segment {
                    offset: start,
                    pages,
                    protection: protection(section.characteristics, strict),
                });
            }
        }
        segments
    }

    /// Where the loaded image has a HII package list: a resource of type "HII" (UEFI 2.10 §7.4.1).
    pub fn hii_package_list(&self, memory: &[u8]) -> Option<Range<usize>> {
        let (address, size) = self.directory(pe::IMAGE_DIRECTORY_ENTRY_RESOURCE)?;
        let resources = ResourceDirectory::new(memory.get(address..address.checked_add(size)?)?);
        let is_hii = |name: ResourceNameOrId| {
            let name = name.name().and_then(|name| name.data(resources).ok());
            name.is_some_and(|name| name.iter().map(|unit| unit.get(LE)).eq("HII".encode_utf16()))
        };
        let data = resource(resources, is_hii)?;
        let start = data.offset_to_data.get(LE) as usize;
        let range = start..start.checked_add(data.size.get(LE) as usize)?;
        let list = memory.get(range.clone())?;
        let length: &[u8; 4] =
            list.get(core::mem::offset_of!(HiiPackageListHeader, package_length)..)?.first_chunk()?;
        (u32::from_le_bytes(*length) as usize <= list.len()).then_some(range)
    }

    fn lay_out(&self, memory: &mut [u8]) -> Result<(), PeError> {
        let memory = memory.get_mut(..self.size()).ok_or(PeError::Headers)?;
        let headers = self.nt.optional_header.size_of_headers.get(LE) as usize;
        let headers = self.file.get(..headers.min(memory.len())).ok_or(PeError::Headers)?;
        let mut filled = put(memory, 0, headers, headers.len()).ok_or(PeError::Headers)?;
        for section in &self.sections {
            if let Some(gap) = memory.get_mut(filled..section.address) {
                gap.fill(0);
            }
            let end = put(memory, section.address, section.data, section.size).ok_or(PeError::Headers)?;
            filled = filled.max(end);
        }
        if let Some(rest) = memory.get_mut(filled..) {
            rest.fill(0);
        }
        Ok(())
    }

    fn section_alignment(&self) -> u32 {
        self.nt.optional_header.section_alignment.get(LE)
    }

    /// Address and size of a data directory that is there.
    fn directory(&self, index: usize) -> Option<(usize, usize)> {
        let directory = self.directories.get(index)?;
        let (address, size) = (directory.virtual_address.get(LE) as usize, directory.size.get(LE) as usize);
        (address != 0 && size != 0).then_some((address, size))
    }
}

fn nt_headers(file: &[u8]) -> Result<(&ImageNtHeaders64, u64), PeError> {
    if file.get(..2) != Some(&pe::IMAGE_DOS_SIGNATURE.to_le_bytes()) {
        return Err(PeError::NoMzHeader);
    }
    let dos: &ImageDosHeader = read(file, 0).ok_or(PeError::NoPeHeader)?;
    let offset = u64::from(dos.nt_headers_offset());
    let signature: &object::U32<LE> = read(file, offset).ok_or(PeError::NoPeHeader)?;
    if signature.get(LE) != pe::IMAGE_NT_SIGNATURE {
        return Err(PeError::NoPeHeader);
    }
    // The machine comes first: a file for another one may have headers of another length.
    let machine_offset = offset + core::mem::offset_of!(ImageNtHeaders64, file_header) as u64;
    let machine: &object::U16<LE> = read(file, machine_offset).ok_or(PeError::Headers)?;
    if machine.get(LE) != pe::IMAGE_FILE_MACHINE_AMD64 {
        return Err(PeError::OtherMachine(machine.get(LE)));
    }
    let magic_offset = offset + core::mem::offset_of!(ImageNtHeaders64, optional_header) as u64;
    let magic: &object::U16<LE> = read(file, magic_offset).ok_or(PeError::Headers)?;
    if magic.get(LE) != pe::IMAGE_NT_OPTIONAL_HDR64_MAGIC {
        return Err(PeError::NotPe32Plus(magic.get(LE)));
    }
    Ok((read(file, offset).ok_or(PeError::Headers)?, offset))
}

/// The data directories and section headers behind the NT headers.
fn tables<'a>(
    file: &'a [u8],
    nt: &ImageNtHeaders64,
    nt_offset: u64,
) -> Result<(&'a [ImageDataDirectory], &'a [ImageSectionHeader]), PeError> {
    let optional = &nt.optional_header;
    let optional_size = usize::from(nt.file_header.size_of_optional_header.get(LE));
    let directories_size = optional_size.checked_sub(size_of_val(optional)).ok_or(PeError::Headers)?;
    let room = directories_size / size_of::<ImageDataDirectory>();
    let count = room.min(optional.number_of_rva_and_sizes.get(LE) as usize);
    let mut offset = nt_offset + size_of_val(nt) as u64;
    let section_offset = offset + directories_size as u64;
    let directories = file.read_slice(&mut offset, count).map_err(|()| PeError::Headers)?;

    let mut offset = section_offset;
    let count = usize::from(nt.file_header.number_of_sections.get(LE));
    let headers: &[ImageSectionHeader] = file.read_slice(&mut offset, count).map_err(|()| PeError::Headers)?;
    let headers_size = optional.size_of_headers.get(LE);
    let fits = offset <= u64::from(headers_size)
        && headers_size <= optional.size_of_image.get(LE)
        && usize::try_from(headers_size).is_ok_and(|size| size <= file.len());
    if fits { Ok((directories, headers)) } else { Err(PeError::Headers) }
}

fn section<'a>(file: &'a [u8], header: &ImageSectionHeader, image: u64) -> Result<Section<'a>, PeError> {
    let name = SectionName(header.name);
    let (address, virtual_size) = (header.virtual_address.get(LE), header.virtual_size.get(LE));
    let (offset, raw_size) = (header.pointer_to_raw_data.get(LE), header.size_of_raw_data.get(LE));
    // Old linkers leave VirtualSize out.
    let size = if virtual_size == 0 { raw_size } else { virtual_size };
    let end = u64::from(address) + u64::from(size);
    if end > image {
        return Err(PeError::SectionOutside { section: name, end, image });
    }
    let raw_end = u64::from(offset) + u64::from(raw_size);
    let data = match raw_size {
        0 => &[],
        _ => file.get(offset as usize..raw_end as usize).ok_or(PeError::Truncated {
            section: name,
            end: raw_end,
            file: file.len() as u64,
        })?,
    };
    let data = data.get(..size as usize).unwrap_or(data);
    Ok(Section {
        address: address as usize,
        data,
        size: size as usize,
        characteristics: header.characteristics.get(LE),
    })
}

/// Applies one relocation to the place that `memory` begins with.
fn relocate(memory: &mut [u8], kind: u16, delta: u64) -> Result<(), PeError> {
    match kind {
        relocation::DIR64 => {
            let place: &mut [u8; 8] = memory.first_chunk_mut().ok_or(PeError::RelocationOutside)?;
            *place = u64::from_le_bytes(*place).wrapping_add(delta).to_le_bytes();
        }
        relocation::HIGHLOW => {
            let place: &mut [u8; 4] = memory.first_chunk_mut().ok_or(PeError::RelocationOutside)?;
            let value = u64::from(u32::from_le_bytes(*place)).wrapping_add(delta);
            *place = u32::try_from(value).map_err(|_| PeError::RelocationOverflow)?.to_le_bytes();
        }
        other => return Err(PeError::RelocationType(other)),
    }
    Ok(())
}

fn protection(characteristics: u32, strict: bool) -> Protection {
    let executable = characteristics & pe::IMAGE_SCN_MEM_EXECUTE != 0;
    let writable = characteristics & pe::IMAGE_SCN_MEM_WRITE != 0;
    Protection { read_protect: false, read_only: strict && !writable, execute_protect: !executable }
}

/// Puts `data` at `address` and zeros behind it, `size` bytes in all. Returns where they end.
fn put(memory: &mut [u8], address: usize, data: &[u8], size: usize) -> Option<usize> {
    let end = address.checked_add(size)?;
    let (filled, zero) = memory.get_mut(address..end)?.split_at_mut_checked(data.len())?;
    filled.copy_from_slice(data);
    zero.fill(0);
    Some(end)
}

fn read<T: Pod>(file: &[u8], offset: u64) -> Option<&T> {
    file.read_at(offset).ok()
}

/// The first resource of a type.
fn resource<'a>(
    resources: ResourceDirectory<'a>,
    is_type: impl Fn(ResourceNameOrId) -> bool,
) -> Option<&'a pe::ImageResourceDataEntry> {
    /// Tables are nested by type, name and language.
    const LEVELS: usize = 3;
    let mut entry = resources.root().ok()?.entries.iter().find(|entry| is_type(entry.name_or_id()))?;
    for _ in 0..LEVELS {
        entry = match entry.data(resources).ok()? {
            ResourceDirectoryEntryData::Data(data) => return Some(data),
            ResourceDirectoryEntryData::Table(table) => table.entries.first()?,
        };
    }
    None
}

fn machine_name(machine: u16) -> Option<&'static str> {
    /// Not in the `object` crate.
    const LOONGARCH64: u16 = 0x6264;
    Some(match machine {
        pe::IMAGE_FILE_MACHINE_I386 => "32-bit x86",
        pe::IMAGE_FILE_MACHINE_ARM | pe::IMAGE_FILE_MACHINE_THUMB | pe::IMAGE_FILE_MACHINE_ARMNT => "32-bit ARM",
        pe::IMAGE_FILE_MACHINE_ARM64 => "AArch64",
        pe::IMAGE_FILE_MACHINE_RISCV32 => "32-bit RISC-V",
        pe::IMAGE_FILE_MACHINE_RISCV64 => "64-bit RISC-V",
        pe::IMAGE_FILE_MACHINE_IA64 => "Itanium",
        pe::IMAGE_FILE_MACHINE_EBC => "EFI byte code",
        LOONGARCH64 => "LoongArch64",
        _ => return None,
    })
}

#[cfg(test)]
#[path = "pe_tests.rs"]
pub(crate) mod tests;
