//! An image taken apart: which regions a file has, what is in them, and what is wrong where.
//!
//! | module | what |
//! | --- | --- |
//! | [`volume`] | a firmware volume and the files in it |
//! | [`nv`] | a volume of variables: the store, its records, the journal |
//! | [`elf`] | the ELF header in front |
//!
//! Any file is taken: images of this build and of others (EDK2's), whole or in part, damaged or hostile. Regions are found
//! where volumes begin and, in images of ours, where the descriptor inside the core says. Everything here is read-only and
//! bounded by the file's size.

pub mod elf;
pub mod nv;
pub mod volume;

use std::ops::Range;

use serde::Serialize;
use uguid::Guid;

use crate::image_info::{self, ImageInfo};
use crate::layout::PAGE;

/// An image and its regions, which cover it from front to end.
#[derive(Debug, Clone, Serialize)]
pub struct Dissection {
    /// Bytes of the file.
    pub size: u64,
    /// What the core of an image of ours is told about it.
    pub descriptor: Option<Descriptor>,
    /// The regions in their order.
    pub regions: Vec<Region>,
    /// What is wrong, in the order of its place.
    pub damages: Vec<Damage>,
}

/// A part of an image.
#[derive(Debug, Clone, Serialize)]
pub struct Region {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
    /// What is in it.
    #[serde(flatten)]
    pub content: Content,
}

/// What a region holds.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Content {
    /// What makes an image bootable as a PVH guest.
    ElfHeader(elf::Header),
    /// A volume of variables.
    Vars(nv::Variables),
    /// A volume with files.
    Code(volume::Volume),
    /// A volume without files: the place of the variables in an image that has none.
    Spare,
    /// Nothing: all bytes erased.
    Erased,
    /// Nothing that is known.
    Unknown,
}

/// The descriptor inside the core ([`image_info`]) and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// Its place in the image.
    pub offset: u64,
    /// What it says.
    #[serde(flatten)]
    pub info: ImageInfo,
}

/// Something wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// Where, from the start of the image.
    pub offset: u64,
    /// What.
    pub problem: String,
}

/// Collects damages.
#[derive(Debug, Default)]
pub(crate) struct Damages(Vec<Damage>);

impl Damages {
    pub(crate) fn add(&mut self, offset: usize, problem: impl Into<String>) {
        self.0.push(Damage { offset: offset as u64, problem: problem.into() });
    }
}

/// How messages and drawings call the contents.
impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ElfHeader(_) => "elf-header",
            Self::Vars(_) => "vars",
            Self::Code(_) => "code",
            Self::Spare => "spare",
            Self::Erased => "erased",
            Self::Unknown => "unknown",
        })
    }
}

impl Region {
    /// The bytes it covers.
    pub fn range(&self) -> Range<usize> {
        self.offset as usize..(self.offset + self.size) as usize
    }
}

impl Dissection {
    /// Takes `image` apart.
    pub fn of(image: &[u8]) -> Self {
        let mut damages = Damages::default();
        let descriptor = find_descriptor(image);
        let mut regions = find_regions(image, descriptor.as_ref(), &mut damages);
        for region in &mut regions {
            region.content = read(image, region, descriptor.as_ref(), &mut damages);
        }
        check_whole(image, &regions, descriptor.as_ref(), &mut damages);
        let mut damages = damages.0;
        damages.sort();
        damages.dedup();
        Self { size: image.len() as u64, descriptor, regions, damages }
    }

    /// The region that holds variables.
    pub fn variables(&self) -> Option<&Region> {
        self.regions.iter().find(|region| matches!(region.content, Content::Vars(_)))
    }

    /// The region at `offset`.
    pub fn region_at(&self, offset: usize) -> Option<&Region> {
        self.regions.iter().find(|region| region.range().contains(&offset))
    }
}

/// The descriptor, if the image has one that can be true.
fn find_descriptor(image: &[u8]) -> Option<Descriptor> {
    let positions = (0..image.len()).step_by(align_of::<u64>());
    let mut found = positions.filter(|&at| image[at..].starts_with(&image_info::MAGIC));
    found.find_map(|at| {
        let info = ImageInfo::from_bytes(image.get(at..at + image_info::LENGTH)?)?;
        info.is_plausible(image.len() as u64).then_some(Descriptor { offset: at as u64, info })
    })
}

/// Where regions begin and end. Their content is only roughly known yet.
fn find_regions(image: &[u8], descriptor: Option<&Descriptor>, damages: &mut Damages) -> Vec<Region> {
    let mut regions = Vec::new();
    let (mut at, mut gap) = (0, 0);
    while at < image.len() {
        let Some(size) = volume_at(image, at, descriptor, damages) else {
            at += PAGE as usize;
            continue;
        };
        push_gap(&mut regions, gap..at);
        regions.push(region(at..at + size, Content::Unknown));
        at += size;
        gap = at;
    }
    push_gap(&mut regions, gap..image.len());
    regions
}

fn push_gap(regions: &mut Vec<Region>, gap: Range<usize>) {
    if !gap.is_empty() {
        regions.push(region(gap, Content::Erased));
    }
}

fn region(range: Range<usize>, content: Content) -> Region {
    Region { offset: range.start as u64, size: range.len() as u64, content }
}

/// The size of the volume at `at`: what its header says if that can be, else what the descriptor says.
fn volume_at(image: &[u8], at: usize, descriptor: Option<&Descriptor>, damages: &mut Damages) -> Option<usize> {
    let header = volume::Header::read(&image[at..]);
    let described = descriptor.and_then(|descriptor| descriptor.info.volume_at(at as u64)).map(|size| size as usize);
    let stated = header.as_ref().map(|header| header.length).filter(|&length| {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        length > volume::HEADER_MINIMUM && length <= image.len() - at
    });
    let stated = stated.map(|length| length as usize);
    match (stated, described) {
        (Some(stated), Some(described)) if stated != described => {
            damages
                .add(at + 32, format!("volume header: FvLength is {stated:#x}, and the core expects {described:#x}"));
            Some(described)
        }
        (Some(size), _) => Some(size),
        (None, described) => {
            match (&header, described) {
                (Some(header), _) => damages.add(
                    at + 32,
                    format!("volume header: FvLength is {:#x}, which the file has no room for", header.length),
                ),
                (None, Some(_)) => damages.add(at + 40, "volume header: there is no signature `_FVH`"),
                (None, None) => {}
            }
            described.or_else(|| header.map(|_| image.len() - at))
        }
    }
}

/// What is in a region.
fn read(image: &[u8], region: &Region, descriptor: Option<&Descriptor>, damages: &mut Damages) -> Content {
    let (start, bytes) = (region.range().start, &image[region.range()]);
    if matches!(region.content, Content::Erased) {
        return gap(image, start, bytes, descriptor, damages);
    }
    let info = descriptor.map(|descriptor| descriptor.info);
    let file_system = volume::Header::read(bytes).map(|header| header.file_system);
    let is_vars = info.is_some_and(|info| info.vars_size != 0 && info.vars_offset == region.offset);
    let is_code = info.is_some_and(|info| info.code_offset == region.offset);
    if is_vars || file_system == Some(variables::volume::NV_DATA_GUID) {
        return Content::Vars(nv::read(bytes, start, damages));
    }
    volume::check_header(bytes, start, damages);
    if is_code || file_system.is_some_and(volume::is_file_system) {
        let volume = volume::read(bytes, start, damages);
        let empty = volume.files.is_empty() && bytes[volume.end_of_header..].iter().all(|&byte| byte == 0xff);
        return if empty && !is_code { Content::Spare } else { Content::Code(volume) };
    }
    damages.add(start + 16, "volume header: a file system that is not known");
    Content::Unknown
}

/// What lies between volumes.
fn gap(image: &[u8], start: usize, bytes: &[u8], descriptor: Option<&Descriptor>, damages: &mut Damages) -> Content {
    let blank = bytes.iter().all(|byte| *byte == bytes[0]);
    if start == 0 && !blank && (descriptor.is_some() || bytes.starts_with(&object::elf::ELFMAG)) {
        return match elf::read(image, bytes.len(), descriptor.is_some(), damages) {
            Some(header) => Content::ElfHeader(header),
            None => Content::Unknown,
        };
    }
    match bytes.iter().position(|&byte| byte != 0xff) {
        None => Content::Erased,
        Some(_) if bytes.iter().all(|&byte| byte == 0) => {
            damages.add(start, format!("{:#x} zeros where a firmware image has a volume or erased bytes", bytes.len()));
            Content::Unknown
        }
        Some(first) => {
            damages.add(start + first, "bytes that are neither a volume nor erased");
            Content::Unknown
        }
    }
}

/// What the regions of an image have to have in common.
fn check_whole(image: &[u8], regions: &[Region], descriptor: Option<&Descriptor>, damages: &mut Damages) {
    let has = |wanted: fn(&Content) -> bool| regions.iter().any(|region| wanted(&region.content));
    if has(|content| matches!(content, Content::ElfHeader(_))) && !has(|content| matches!(content, Content::Code(_))) {
        damages.add(0, "an ELF header, and no volume with code behind it: no guest can be started with this");
    }
    if descriptor.is_some() && !has(|content| matches!(content, Content::ElfHeader(_))) {
        damages.add(0, "there is no ELF header: libxl cannot load this for a PVH guest");
    }
    let Some(Descriptor { info, .. }) = descriptor else { return };
    let entry = image.last_chunk().map(|bytes| u64::from(u32::from_le_bytes(*bytes)));
    let base = (1u64 << 32) - info.fd_size;
    if !entry.is_some_and(|entry| (base + info.core_offset..base + info.fd_size).contains(&entry)) {
        damages.add(image.len() - 4, "the reset vector leads out of the core: no HVM guest can start");
    }
}

/// Reads a GUID; zeros where there is none.
pub(crate) fn guid_at(bytes: &[u8], at: usize) -> Guid {
    Guid::from_bytes(array_at(bytes, at))
}

/// Reads `N` bytes; zeros where there are none.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests;
