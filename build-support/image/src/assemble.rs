//! Core, runtime driver and layout in; image files out.

use crate::core_image::CoreImage;
use crate::elf_header::ElfHeader;
use crate::ffs::{FfsFile, FileKind, Section};
use crate::fv::{self, FvError, Volume};
use crate::image_info::{self, ImageInfo};
use crate::layout::{ImageLayout, Layout, PAGE, Region, RegionKind};
use crate::vars;
use thiserror::Error;

/// Shown by tools that list a volume. Its length keeps the core's contents on a page: see [`FfsFile::with_aligned_section`].
const CORE_NAME: &str = "OvmfXenCore";
const RUNTIME_NAME: &str = "RuntimeServices";
const ERASED: u8 = 0xff;
/// A machine that loads an image as flash puts its end here.
const FLASH_END: u64 = 1 << 32;
/// Bytes at the reset vector's end that hold the address of the code it leads to.
const ENTRY_FIELD: usize = size_of::<u32>();

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Name in the layout.
    pub name: String,
    /// File name.
    pub file: String,
    /// Contents.
    pub bytes: Vec<u8>,
    /// What its code region came to, if it has one.
    pub code: Option<CodeSummary>,
}

/// Figures about the code in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeSummary {
    /// Guest-physical address at which a PVH guest starts.
    pub entry: u32,
    /// Where the flattened core is, from the start of the image.
    pub core_offset: u64,
    /// Bytes of the code volume that are in use.
    pub used: u64,
    /// Size of the code volume in bytes.
    pub size: u64,
}

/// Why an image cannot be made.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AssembleError {
    /// The code volume cannot hold the files.
    #[error("image {image:?}: {problem}")]
    Volume {
        /// The image.
        image: String,
        /// What is wrong.
        problem: FvError,
    },
    /// The entry point lies outside the code region, or behind 4 GiB.
    #[error("image {image:?}: pvh_entry at image offset {offset:#x} is outside the code region")]
    Entry {
        /// The image.
        image: String,
        /// Where the entry would be.
        offset: u64,
    },
}

/// Makes every image of the layout. `runtime` is the runtime driver's file, checked by [`crate::runtime_image::check`].
pub fn assemble(layout: &Layout, core: &CoreImage, runtime: &[u8]) -> Result<Vec<Image>, AssembleError> {
    layout.images.iter().map(|image| assemble_image(layout, image, core, runtime)).collect()
}

fn assemble_image(
    layout: &Layout,
    image: &ImageLayout,
    core: &CoreImage,
    runtime: &[u8],
) -> Result<Image, AssembleError> {
    let mut bytes = vec![ERASED; image.size as usize];
    if let Some(region) = image.region(RegionKind::Vars) {
        put(&mut bytes, region, &vars::empty(&layout.vars));
    }
    if let Some(region) = image.region(RegionKind::Spare) {
        put(&mut bytes, region, &fv::empty(region.size as usize));
    }
    let mut summary = None;
    if let Some(region) = image.region(RegionKind::Code) {
        let (volume, code) = code_volume(layout, image, region, core, runtime)?;
        put(&mut bytes, region, &volume);
        summary = Some(code);
        if let Some(header) = image.region(RegionKind::ElfHeader) {
            let image_size = image.size as u32; // the layout ends below 4 GiB
            put(
                &mut bytes,
                header,
                &ElfHeader { load_address: layout.load_address, image_size, entry: code.entry }.to_bytes(),
            );
        }
    }
    Ok(Image { name: image.name.clone(), file: image.file.clone(), bytes, code: summary })
}

fn code_volume(
    layout: &Layout,
    image: &ImageLayout,
    region: Region,
    core: &CoreImage,
    runtime: &[u8],
) -> Result<(Vec<u8>, CodeSummary), AssembleError> {
    let full = |problem| AssembleError::Volume { image: image.name.clone(), problem };
    let mut volume = Volume {
        size: region.size as usize,
        name: layout.guids.code_volume,
        files: vec![core_file(layout, &core.bytes), runtime_file(layout, runtime)],
        reset_code: core.reset_vector.clone(),
    };
    // The descriptor does not change the core's size, so the places found without it stay true with it.
    let plan = volume.plan().map_err(full)?;
    let core_offset = region.offset + plan.payloads.first().copied().flatten().unwrap_or_default() as u64;
    let described = described_core(core, &image_info(image, region, core_offset));
    if let Some(file) = volume.files.first_mut() {
        *file = core_file(layout, &described);
    }
    set_hvm_entry(&mut volume.reset_code, FLASH_END - image.size + core_offset + core.hvm_entry);
    let entry = entry(layout, image, region, core_offset + core.pvh_entry)?;
    let used = plan.end_of_files as u64;
    let bytes = volume.to_bytes().map_err(full)?;
    Ok((bytes, CodeSummary { entry, core_offset, used, size: region.size }))
}

fn core_file(layout: &Layout, bytes: &[u8]) -> FfsFile {
    let section = Section::Raw(bytes);
    FfsFile::with_aligned_section(layout.guids.core, FileKind::SecurityCore, CORE_NAME, section, PAGE as usize)
}

fn runtime_file(layout: &Layout, bytes: &[u8]) -> FfsFile {
    let sections = [Section::Pe32(bytes), Section::UserInterface(RUNTIME_NAME)];
    FfsFile::with_sections(layout.guids.runtime, FileKind::Driver, &sections)
}

fn image_info(image: &ImageLayout, code: Region, core_offset: u64) -> ImageInfo {
    let vars = image.region(RegionKind::Vars);
    ImageInfo {
        flags: 0,
        fd_size: image.size,
        core_offset,
        vars_offset: vars.map_or(0, |region| region.offset),
        vars_size: vars.map_or(0, |region| region.size),
        code_offset: code.offset,
        code_size: code.size,
    }
}

fn described_core(core: &CoreImage, info: &ImageInfo) -> Vec<u8> {
    let mut bytes = core.bytes.clone();
    // `CoreImage` has found the descriptor to be inside.
    bytes[core.image_info..core.image_info + image_info::LENGTH].copy_from_slice(&info.to_bytes());
    bytes
}

/// Tells the reset vector where it leads to.
fn set_hvm_entry(reset_code: &mut [u8], address: u64) {
    // `CoreImage` has found the code to be long enough, and the image lies below 4 GiB.
    if let Some(field) = reset_code.last_chunk_mut::<ENTRY_FIELD>() {
        *field = (address as u32).to_le_bytes();
    }
}

/// The entry's guest-physical address, if `offset` in the image is a place for it.
fn entry(layout: &Layout, image: &ImageLayout, code: Region, offset: u64) -> Result<u32, AssembleError> {
    let inside = (code.offset..code.offset + code.size).contains(&offset);
    let address = u32::try_from(u64::from(layout.load_address) + offset).ok();
    address.filter(|_| inside).ok_or_else(|| AssembleError::Entry { image: image.name.clone(), offset })
}

fn put(image: &mut [u8], region: Region, bytes: &[u8]) {
    let start = region.offset as usize;
    // The layout has been checked: regions are inside, and their contents are made to their size.
    image[start..start + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Core, runtime_driver};

    const LAYOUT: &str = include_str!("../../layout.toml");

    fn images(core: &Core) -> Vec<Image> {
        let core = CoreImage::from_elf(&core.elf()).unwrap();
        assemble(&Layout::parse(LAYOUT).unwrap(), &core, &runtime_driver()).unwrap()
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn files_have_the_sizes_of_the_layout() {
        let sizes: Vec<_> =
            images(&Core::default()).iter().map(|image| (image.file.clone(), image.bytes.len())).collect();
        let expected = [("OVMF.fd", 0x20_0000), ("OVMF_CODE.fd", 0x20_0000), ("OVMF_VARS.fd", 0x8_4000)];
        assert_eq!(sizes, expected.map(|(file, size)| (file.to_owned(), size)));
    }

    #[test]
    fn the_entry_note_leads_to_the_entry_code() {
        let core = Core::default();
        for image in &images(&core)[..2] {
            let entry = u32_at(&image.bytes, 0x74 + 16);
            assert_eq!(entry, u32_at(&image.bytes, 24), "e_entry and the note agree");
            let offset = (entry - 0x10_0000) as usize;
            let code = &core.text[Core::PVH_ENTRY as usize..];
            assert_eq!(&image.bytes[offset..offset + code.len()], code);
        }
    }

    #[test]
    fn the_core_learns_where_everything_is() {
        for image in &images(&Core::default())[..2] {
            let core_offset = image.code.unwrap().core_offset;
            assert_eq!(core_offset % 0x1000, 0);
            let info = &image.bytes[core_offset as usize + Core::DATA as usize + Core::INFO_IN_DATA..][..64];
            assert_eq!(&info[..8], b"OVMFXEN\0");
            assert_eq!((u64_at(info, 16), u64_at(info, 24)), (image.bytes.len() as u64, core_offset));
            let (vars, vars_size) = (u64_at(info, 32) as usize, u64_at(info, 40));
            assert_eq!(vars_size, if image.file == "OVMF.fd" { 0x8_4000 } else { 0 });
            if vars_size != 0 {
                assert_eq!(&image.bytes[vars + 40..vars + 44], b"_FVH");
            }
            let (code, code_size) = (u64_at(info, 48) as usize, u64_at(info, 56) as usize);
            assert_eq!(&image.bytes[code + 40..code + 44], b"_FVH");
            assert_eq!(code + code_size, image.bytes.len());
        }
    }

    #[test]
    fn volumes_follow_each_other_to_the_end_of_the_image() {
        for image in images(&Core::default()) {
            let mut at = if image.code.is_some() { 0x1000 } else { 0 };
            while at < image.bytes.len() {
                assert_eq!(&image.bytes[at + 40..at + 44], b"_FVH", "{} at {at:#x}", image.file);
                at += u64_at(&image.bytes, at + 32) as usize;
            }
            assert_eq!(at, image.bytes.len());
        }
    }

    #[test]
    fn the_combined_image_holds_the_separate_variables() {
        let images = images(&Core::default());
        assert_eq!(images[0].bytes[0x1000..0x8_5000], images[2].bytes);
    }

    #[test]
    fn the_reset_code_ends_the_image_and_leads_to_the_core() {
        let core = Core::default().with_reset_vector(0x40, 0x80);
        for image in &images(&core)[..2] {
            let (code, entry) = image.bytes.split_at(image.bytes.len() - 4);
            assert!(code.ends_with(&core.text[0x40..0x7c]));
            let offset = u64::from(u32_at(entry, 0)) - ((1 << 32) - image.bytes.len() as u64);
            let start = &core.text[Core::HVM_ENTRY as usize..];
            assert_eq!(&image.bytes[offset as usize..][..start.len()], start);
        }
    }

    #[test]
    fn the_runtime_driver_is_found_by_its_guid() {
        let guid = Layout::parse(LAYOUT).unwrap().guids.runtime.to_bytes();
        let image = &images(&Core::default())[0].bytes;
        let at = image.windows(16).position(|window| window == guid).unwrap();
        assert_eq!((at % 8, image[at + 18]), (0, 0x07));
        assert_eq!(image[at + 24 + 3], 0x10, "its first section is PE32");
        let driver = runtime_driver();
        assert_eq!(&image[at + 28..at + 28 + driver.len()], driver);
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes() {
        assert_eq!(images(&Core::default()), images(&Core::default()));
    }

    #[test]
    fn a_core_that_does_not_fit_is_reported_with_its_image() {
        let core = Core { bss: 0, text: vec![0x90; 0xf00], ..Core::default() };
        let mut core = CoreImage::from_elf(&core.elf()).unwrap();
        core.bytes.resize(0x17b000, 0);
        let error = assemble(&Layout::parse(LAYOUT).unwrap(), &core, &runtime_driver()).err().unwrap().to_string();
        assert!(error.contains("\"combined\"") && error.contains("smaller"), "{error}");
    }
}
