//! Core, runtime driver, layout and perhaps a UEFI Shell in; image files out.

use crate::core_image::CoreImage;
use crate::elf_header::ElfHeader;
use crate::ffs::{FfsFile, FileKind, Section};
use crate::fv::{self, FvError, Volume};
use crate::image_info::{self, ImageInfo};
use crate::layout::{ImageLayout, Layout, PAGE, Region, RegionKind};
use crate::vars;
use thiserror::Error;
use uguid::{Guid, guid};

/// Shown by tools that list a volume. Its length keeps the core's contents on a page: see [`FfsFile::with_aligned_section`].
const CORE_NAME: &str = "OvmfXenCore";
const RUNTIME_NAME: &str = "RuntimeServices";
const SHELL_NAME: &str = "UEFI Shell";
/// The name that the UEFI Shell has in every firmware (EDK2, `ShellPkg`: `gUefiShellFileGuid`). Boot entries and the core find it
/// by that.
const SHELL: Guid = guid!("7c04a583-9e3e-4f1c-ad65-e05268d0b4d1");
const ERASED: u8 = 0xff;
/// A machine that loads an image as flash puts its end here.
const FLASH_END: u64 = 1 << 32;
/// Bytes at the reset vector's end that hold the address of the code it leads to.
const ENTRY_FIELD: usize = size_of::<u32>();

/// The programs that go into the images.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    /// The core.
    pub core: &'a CoreImage,
    /// The runtime driver's file, checked by [`crate::runtime_image::check`].
    pub runtime: &'a [u8],
    /// A UEFI Shell, checked by [`crate::shell_image::check`].
    pub shell: Option<&'a [u8]>,
}

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
    /// The code volume holds the firmware, and not the shell beside it.
    #[error(
        "image {image:?}: the UEFI Shell ({shell:#x} bytes) does not fit: the files would need {needed:#x} bytes and the code \
         region has {size:#x}; take a layout with a larger one, as build-support/layout-4m.toml"
    )]
    Shell {
        /// The image.
        image: String,
        /// Bytes of the shell.
        shell: usize,
        /// What all files need.
        needed: usize,
        /// What there is.
        size: usize,
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

/// Makes every image of the layout.
pub fn assemble(layout: &Layout, contents: &Contents<'_>) -> Result<Vec<Image>, AssembleError> {
    layout.images.iter().map(|image| assemble_image(layout, image, contents)).collect()
}

fn assemble_image(layout: &Layout, image: &ImageLayout, contents: &Contents<'_>) -> Result<Image, AssembleError> {
    let mut bytes = vec![ERASED; image.size as usize];
    if let Some(region) = image.region(RegionKind::Vars) {
        put(&mut bytes, region, &vars::empty(&layout.vars));
    }
    if let Some(region) = image.region(RegionKind::Spare) {
        put(&mut bytes, region, &fv::empty(region.size as usize));
    }
    let mut summary = None;
    if let Some(region) = image.region(RegionKind::Code) {
        let (volume, code) = code_volume(layout, image, region, contents)?;
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
    contents: &Contents<'_>,
) -> Result<(Vec<u8>, CodeSummary), AssembleError> {
    let core = contents.core;
    let mut files = vec![core_file(layout, &core.bytes), runtime_file(layout, contents.runtime)];
    files.extend(contents.shell.map(shell_file));
    let full = |problem| refusal(image, contents, problem);
    let mut volume = Volume {
        size: region.size as usize,
        name: layout.guids.code_volume,
        files,
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

fn shell_file(bytes: &[u8]) -> FfsFile {
    let sections = [Section::Pe32(bytes), Section::UserInterface(SHELL_NAME)];
    FfsFile::with_sections(SHELL, FileKind::Application, &sections)
}

/// Why the volume cannot be made; a shell that is too large is to blame before the firmware is.
fn refusal(image: &ImageLayout, contents: &Contents<'_>, problem: FvError) -> AssembleError {
    let image = image.name.clone();
    match (problem, contents.shell) {
        (FvError::Full { needed, size }, Some(shell)) if needed - shell.len() <= size => {
            AssembleError::Shell { image, shell: shell.len(), needed, size }
        }
        (problem, _) => AssembleError::Volume { image, problem },
    }
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
    use crate::testing::{Core, application, runtime_driver};

    const LAYOUT: &str = include_str!("../../layout.toml");

    fn made(layout: &str, core: &CoreImage, shell: Option<&[u8]>) -> Result<Vec<Image>, AssembleError> {
        let contents = Contents { core, runtime: &runtime_driver(), shell };
        assemble(&Layout::parse(layout).unwrap(), &contents)
    }

    fn images(core: &Core) -> Vec<Image> {
        let core = CoreImage::from_elf(&core.elf()).unwrap();
        made(LAYOUT, &core, None).unwrap()
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
        for shell in [None, Some(&application()[..])] {
            let error = made(LAYOUT, &core, shell).unwrap_err().to_string();
            assert!(error.contains("\"combined\"") && error.contains("smaller"), "{error}");
        }
    }

    #[test]
    fn a_shell_is_an_application_behind_the_files_that_are_always_there() {
        let core = CoreImage::from_elf(&Core::default().elf()).unwrap();
        let (shell, driver) = (application(), runtime_driver());
        let images = made(LAYOUT, &core, Some(&shell)).unwrap();
        for (with, without) in images[..2].iter().zip(made(LAYOUT, &core, None).unwrap()) {
            let find = |guid: [u8; 16]| with.bytes.windows(16).position(|window| window == guid).unwrap();
            let at = find(SHELL.to_bytes());
            assert_eq!((at % 8, with.bytes[at + 18], with.bytes[at + 27]), (0, 0x09, 0x10));
            assert_eq!(with.bytes[at + 28..at + 28 + shell.len()], shell);
            let runtime = find(Layout::parse(LAYOUT).unwrap().guids.runtime.to_bytes());
            assert_eq!(at, (runtime + 28 + driver.len() + 4 + 32).next_multiple_of(8), "right behind the driver");
            assert!(with.bytes[..at] == without.bytes[..at]);
            assert_eq!(with.bytes[with.bytes.len() - 64..], without.bytes[with.bytes.len() - 64..]);
        }
        assert_eq!(images[2], made(LAYOUT, &core, None).unwrap()[2]);
    }

    #[test]
    fn a_shell_that_does_not_fit_is_named_with_its_size_and_a_layout_that_has_room() {
        let core = CoreImage::from_elf(&Core::default().elf()).unwrap();
        let shell = vec![0; 0x18_0000];
        let error = made(LAYOUT, &core, Some(&shell)).unwrap_err();
        assert!(matches!(error, AssembleError::Shell { shell: 0x18_0000, size: 0x17_b000, .. }), "{error}");
        assert!(error.to_string().contains("layout-4m.toml"), "{error}");
        made(include_str!("../../layout-4m.toml"), &core, Some(&shell)).unwrap();
    }
}
