//! The plan of the images: `layout.toml`, parsed and checked before anything is made from it.
//!
//! A [`Layout`] that exists is consistent: regions inside their image, apart and page-aligned; an image with code has its
//! ELF header in front, its code at the end and a size that hvmloader accepts. What depends on the core (the entry point
//! inside the code region) is checked by [`crate::assemble`].

use crate::elf_header;
use serde::Deserialize;
use thiserror::Error;
use uguid::Guid;

/// Granule of offsets, sizes and flash blocks, in bytes.
pub const PAGE: u64 = 0x1000;

/// Loadable images are whole multiples of this: hvmloader puts an image at the bottom of a window of whole MiB that ends
/// at 4 GiB (`tools/firmware/hvmloader/ovmf.c`).
pub const IMAGE_GRANULE: u64 = 0x10_0000;

/// The largest loadable image: below 4 GiB, more would meet the special pages and the local APIC.
pub const IMAGE_LIMIT: u64 = 0x100_0000;

/// All images of the firmware.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Guest-physical address at which libxl loads an image's first byte.
    pub load_address: u32,
    /// Fixed names inside the images.
    pub guids: Guids,
    /// Inner division of every `vars` region.
    pub vars: VarsLayout,
    /// The images, in the order they are made.
    #[serde(rename = "image")]
    pub images: Vec<ImageLayout>,
}

/// GUIDs by which tools and the core find what is inside.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guids {
    /// Name of the code volume, in its extended header.
    pub code_volume: Guid,
    /// File that holds the flattened core.
    pub core: Guid,
    /// File that holds the runtime services driver.
    pub runtime: Guid,
}

/// Sizes inside the variable volume, in bytes and in their order there.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VarsLayout {
    /// Volume header and variable store.
    pub store: u64,
    /// Reserved event log.
    pub event_log: u64,
    /// Fault-tolerant write: working blocks.
    pub ftw_working: u64,
    /// Fault-tolerant write: spare blocks.
    pub ftw_spare: u64,
}

/// One image file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLayout {
    /// How messages call it.
    pub name: String,
    /// File name in the output directory.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// What is where; everything else is erased flash.
    pub regions: Vec<Region>,
}

/// A part of an image.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// What it holds.
    pub kind: RegionKind,
    /// First byte, from the start of the image.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
}

/// What a region holds.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum RegionKind {
    /// ELF header, program headers, PVH note.
    ElfHeader,
    /// The variable volume.
    Vars,
    /// The code volume.
    Code,
    /// An empty volume. It fills a gap, so that tools which step from volume to volume find the next one.
    Spare,
}

/// Why a layout cannot be used. Each message names the field and says what would be right.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// Not TOML, or a field is missing, unknown or of the wrong type.
    #[error("not a valid layout: {0}")]
    Syntax(toml::de::Error),
    /// No image at all.
    #[error("image: there is none; add at least one [[image]]")]
    NoImages,
    /// `load_address` cannot be loaded to.
    #[error("load_address = {0:#x}: must be a multiple of 0x1000 and at least 0x100000 (1 MiB)")]
    LoadAddress(u32),
    /// Two images with the same file or name.
    #[error("image {0:?}: another image has the same name or file; give each its own")]
    Duplicate(String),
    /// A file name that leaves the output directory.
    #[error("image {image:?}: file = {file:?} must be a plain file name without a directory")]
    FileName {
        /// The image.
        image: String,
        /// What was given.
        file: String,
    },
    /// Something about one image.
    #[error("image {image:?}: {problem}")]
    Image {
        /// The image.
        image: String,
        /// What is wrong in it.
        problem: ImageProblem,
    },
    /// A size inside `[vars]`.
    #[error("vars.{field} = {value:#x}: must be a multiple of 0x1000, not zero, and below 4 GiB")]
    VarsSize {
        /// Key in `[vars]`.
        field: &'static str,
        /// What was given.
        value: u64,
    },
    /// The spare area cannot hold what it must.
    #[error("vars.ftw_spare = {spare:#x}: must be at least store + event_log + ftw_working = {needed:#x}")]
    SpareTooSmall {
        /// What was given.
        spare: u64,
        /// What it takes.
        needed: u64,
    },
}

/// What can be wrong with one image's plan.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ImageProblem {
    /// No size, or more than can be loaded.
    #[error("size = {0:#x}: must be between 0x1000 and 0x1000000 (16 MiB)")]
    Size(u64),
    /// Not whole MiB.
    #[error("size = {0:#x}: an image with code must be a multiple of 0x100000 (1 MiB), or hvmloader misplaces it")]
    SizeGranule(u64),
    /// The image would not fit below 4 GiB where it is loaded.
    #[error("size = {0:#x}: does not fit below 4 GiB at load_address")]
    TooHigh(u64),
    /// An offset or size that is not page-aligned, or an empty region.
    #[error("{0}: offset and size must be multiples of 0x1000, and size not zero")]
    Alignment(Place),
    /// A region that ends behind the image.
    #[error("{0}: ends behind the image; shrink it or raise the image's size")]
    Outside(Place),
    /// Two regions share bytes.
    #[error("{0} overlaps {1}; move one of them")]
    Overlap(Place, Place),
    /// The same kind twice.
    #[error("region {0}: may occur only once in an image")]
    Twice(RegionKind),
    /// Code without a header.
    #[error("an image with a code region needs an elf-header region at offset 0, or no PVH guest can start it")]
    NoHeader,
    /// A header that is not in front, or too small.
    #[error("{0}: must start at offset 0 and have room for 0x88 bytes")]
    HeaderPlace(Place),
    /// A header that nothing stands behind.
    #[error("{0}: is of use only with a code region; remove it or add one")]
    HeaderWithoutCode(Place),
    /// Code that does not end the image.
    #[error("{0}: must end where the image ends, for its last 16 bytes are the reset vector")]
    CodeNotLast(Place),
    /// The region and `[vars]` disagree.
    #[error("{place}: the sizes in [vars] add up to {sum:#x}; make them equal")]
    VarsSum {
        /// The region.
        place: Place,
        /// Sum of the sizes in `[vars]`.
        sum: u64,
    },
}

/// A region in a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Place(Region);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Region { kind, offset, size } = self.0;
        write!(f, "region {kind} (offset = {offset:#x}, size = {size:#x})")
    }
}

impl std::fmt::Display for RegionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ElfHeader => "elf-header",
            Self::Vars => "vars",
            Self::Code => "code",
            Self::Spare => "spare",
        })
    }
}

impl Layout {
    /// Reads and checks the text of a `layout.toml`.
    pub fn parse(text: &str) -> Result<Self, LayoutError> {
        let layout: Self = toml::from_str(text).map_err(LayoutError::Syntax)?;
        layout.check()?;
        Ok(layout)
    }

    fn check(&self) -> Result<(), LayoutError> {
        if u64::from(self.load_address) % PAGE != 0 || u64::from(self.load_address) < IMAGE_GRANULE {
            return Err(LayoutError::LoadAddress(self.load_address));
        }
        self.vars.check()?;
        if self.images.is_empty() {
            return Err(LayoutError::NoImages);
        }
        for (index, image) in self.images.iter().enumerate() {
            let earlier = self.images.get(..index).unwrap_or_default();
            if earlier.iter().any(|other| other.name == image.name || other.file == image.file) {
                return Err(LayoutError::Duplicate(image.name.clone()));
            }
            if !is_plain_file_name(&image.file) {
                return Err(LayoutError::FileName { image: image.name.clone(), file: image.file.clone() });
            }
            image.check(self).map_err(|problem| LayoutError::Image { image: image.name.clone(), problem })?;
        }
        Ok(())
    }
}

impl VarsLayout {
    /// Size of the whole variable volume in bytes.
    pub fn total(&self) -> u64 {
        self.spare_offset() + self.ftw_spare
    }

    /// Where the working blocks begin, from the start of the volume.
    pub fn working_offset(&self) -> u64 {
        self.store + self.event_log
    }

    /// Where the spare blocks begin, from the start of the volume.
    pub fn spare_offset(&self) -> u64 {
        self.working_offset() + self.ftw_working
    }

    fn check(&self) -> Result<(), LayoutError> {
        let fields = [
            ("store", self.store),
            ("event_log", self.event_log),
            ("ftw_working", self.ftw_working),
            ("ftw_spare", self.ftw_spare),
        ];
        for (field, value) in fields {
            if value == 0 || value % PAGE != 0 || value > u64::from(u32::MAX) {
                return Err(LayoutError::VarsSize { field, value });
            }
        }
        if self.ftw_spare < self.spare_offset() {
            return Err(LayoutError::SpareTooSmall { spare: self.ftw_spare, needed: self.spare_offset() });
        }
        Ok(())
    }
}

impl ImageLayout {
    /// The region of this kind, if the image has one.
    pub fn region(&self, kind: RegionKind) -> Option<Region> {
        self.regions.iter().copied().find(|region| region.kind == kind)
    }

    fn check(&self, layout: &Layout) -> Result<(), ImageProblem> {
        if self.size < PAGE || self.size > IMAGE_LIMIT {
            return Err(ImageProblem::Size(self.size));
        }
        self.check_regions()?;
        self.check_loadable(layout.load_address)?;
        match self.region(RegionKind::Vars) {
            Some(vars) if vars.size != layout.vars.total() => {
                Err(ImageProblem::VarsSum { place: Place(vars), sum: layout.vars.total() })
            }
            _ => Ok(()),
        }
    }

    fn check_regions(&self) -> Result<(), ImageProblem> {
        for (index, region) in self.regions.iter().enumerate() {
            let earlier = self.regions.get(..index).unwrap_or_default();
            if region.offset % PAGE != 0 || region.size % PAGE != 0 || region.size == 0 {
                return Err(ImageProblem::Alignment(Place(*region)));
            }
            if region.end().is_none_or(|end| end > self.size) {
                return Err(ImageProblem::Outside(Place(*region)));
            }
            if earlier.iter().any(|other| other.kind == region.kind) {
                return Err(ImageProblem::Twice(region.kind));
            }
            if let Some(other) = earlier.iter().find(|other| other.overlaps(region)) {
                return Err(ImageProblem::Overlap(Place(*region), Place(*other)));
            }
        }
        Ok(())
    }

    /// What libxl and hvmloader ask of an image that they start.
    fn check_loadable(&self, load_address: u32) -> Result<(), ImageProblem> {
        let header = self.region(RegionKind::ElfHeader);
        let Some(code) = self.region(RegionKind::Code) else {
            return header.map_or(Ok(()), |header| Err(ImageProblem::HeaderWithoutCode(Place(header))));
        };
        let header = header.ok_or(ImageProblem::NoHeader)?;
        if header.offset != 0 || header.size < elf_header::LENGTH {
            return Err(ImageProblem::HeaderPlace(Place(header)));
        }
        if !self.size.is_multiple_of(IMAGE_GRANULE) {
            return Err(ImageProblem::SizeGranule(self.size));
        }
        if u64::from(load_address) + self.size > u64::from(u32::MAX) {
            return Err(ImageProblem::TooHigh(self.size));
        }
        if code.end() != Some(self.size) {
            return Err(ImageProblem::CodeNotLast(Place(code)));
        }
        Ok(())
    }
}

impl Region {
    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.size)
    }

    fn overlaps(&self, other: &Self) -> bool {
        // Both have been found to end inside the image.
        self.offset < other.offset.saturating_add(other.size) && other.offset < self.offset.saturating_add(self.size)
    }
}

fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = include_str!("../../layout.toml");

    /// Our layout with one piece of text replaced, and the message that makes.
    fn complaint(from: &str, to: &str) -> String {
        assert!(OURS.contains(from), "the layout no longer contains {from:?}");
        Layout::parse(&OURS.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn our_layout_is_accepted() {
        let layout = Layout::parse(OURS).unwrap();
        assert_eq!(
            layout.images.iter().map(|i| i.file.as_str()).collect::<Vec<_>>(),
            ["OVMF.fd", "OVMF_CODE.fd", "OVMF_VARS.fd"]
        );
        assert_eq!(layout.vars.total(), 528 * 1024);
    }

    #[test]
    fn overlapping_regions_are_refused_by_name() {
        let text = complaint("kind = \"vars\", offset = 0x1000", "kind = \"vars\", offset = 0x3000");
        assert!(text.contains("\"combined\"") && text.contains("region vars") && text.contains("overlaps"), "{text}");
    }

    #[test]
    fn a_region_behind_the_image_is_refused() {
        assert!(
            complaint("offset = 0x85000, size = 0x17b", "offset = 0x86000, size = 0x17b")
                .contains("ends behind the image")
        );
    }

    #[test]
    fn an_offset_that_overflows_is_refused() {
        let text = complaint("offset = 0x85000, size = 0x17b", "offset = 0x7ffffffffffff000, size = 0x17b");
        assert!(text.contains("ends behind the image"), "{text}");
    }

    #[test]
    fn an_unaligned_region_is_refused() {
        assert!(
            complaint("offset = 0x85000, size = 0x17b", "offset = 0x85010, size = 0x17b")
                .contains("multiples of 0x1000")
        );
    }

    #[test]
    fn an_image_of_broken_mib_is_refused() {
        let text = complaint("size = 0x200000", "size = 0x208000").replace("0x208000", "");
        assert!(text.contains("multiple of 0x100000"), "{text}");
    }

    #[test]
    fn an_image_that_would_meet_the_apic_is_refused() {
        assert!(complaint("size = 0x200000", "size = 0x2000000").contains("16 MiB"));
    }

    #[test]
    fn code_that_is_not_last_is_refused() {
        assert!(complaint("0x85000, size = 0x17b000", "0x85000, size = 0x17a000").contains("reset vector"));
    }

    #[test]
    fn code_without_a_header_is_refused() {
        let text = complaint("    { kind = \"elf-header\", offset = 0x0, size = 0x1000 },\n", "");
        assert!(text.contains("needs an elf-header"), "{text}");
    }

    #[test]
    fn a_header_without_code_is_refused() {
        let text = complaint("    { kind = \"code\", offset = 0x85000, size = 0x17b000 },\n", "");
        assert!(text.contains("only with a code region"), "{text}");
    }

    #[test]
    fn a_variable_region_of_another_size_is_refused() {
        let text = complaint("offset = 0x1000, size = 0x84000", "offset = 0x1000, size = 0x80000");
        assert!(text.contains("0x84000"), "{text}");
    }

    #[test]
    fn a_spare_area_that_is_too_small_is_refused() {
        assert!(complaint("ftw_spare = 0x42000", "ftw_spare = 0x41000").contains("0x42000"));
    }

    #[test]
    fn a_variable_area_of_odd_size_is_refused() {
        assert!(complaint("event_log = 0x1000", "event_log = 0x800").starts_with("vars.event_log"));
    }

    #[test]
    fn a_file_name_with_a_directory_is_refused() {
        assert!(complaint("\"OVMF.fd\"", "\"../OVMF.fd\"").contains("plain file name"));
    }

    #[test]
    fn two_images_of_one_file_are_refused() {
        assert!(complaint("\"OVMF_CODE.fd\"", "\"OVMF.fd\"").contains("same name or file"));
    }

    #[test]
    fn a_load_address_below_1_mib_is_refused() {
        assert!(complaint("load_address = 0x100000", "load_address = 0x8000").starts_with("load_address = 0x8000"));
    }

    #[test]
    fn a_load_address_that_leaves_no_room_is_refused() {
        assert!(complaint("load_address = 0x100000", "load_address = 0xfff00000").contains("below 4 GiB"));
    }

    #[test]
    fn a_misspelt_key_is_refused_with_its_line() {
        let text = complaint("event_log =", "eventlog =");
        assert!(text.contains("eventlog") && text.contains("line"), "{text}");
    }

    #[test]
    fn a_malformed_guid_is_refused() {
        assert!(complaint("\"d0f9b6a3-", "\"d0f9b6a-").starts_with("not a valid layout"));
    }
}
