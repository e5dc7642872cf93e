use super::*;
use crate::testing::{self, Random};

fn damages(image: &[u8]) -> Vec<(u64, String)> {
    Dissection::of(image).damages.into_iter().map(|damage| (damage.offset, damage.problem)).collect()
}

fn kinds(image: &[u8]) -> Vec<(String, u64, u64)> {
    let regions = Dissection::of(image).regions;
    regions.into_iter().map(|region| (region.content.to_string(), region.offset, region.size)).collect()
}

fn named(list: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    list.iter().map(|(kind, offset, size)| ((*kind).to_owned(), *offset, *size)).collect()
}

#[test]
fn the_images_of_a_build_have_the_regions_of_the_layout_and_no_damage() {
    let [combined, code, vars] = testing::images();
    let (header, end) = (("elf-header", 0, 0x1000), ("code", 0x8_5000, 0x17_b000));
    assert_eq!(kinds(&combined), named(&[header, ("vars", 0x1000, 0x8_4000), end]));
    assert_eq!(kinds(&code), named(&[header, ("spare", 0x1000, 0x8_4000), end]));
    assert_eq!(kinds(&vars), named(&[("vars", 0, 0x8_4000)]));
    for image in [combined, code, vars] {
        assert_eq!(damages(&image), []);
    }
}

#[test]
fn the_files_of_the_code_volume_are_found() {
    let [combined, ..] = testing::images();
    let dissection = Dissection::of(&combined);
    let Content::Code(volume) = &dissection.regions[2].content else { panic!("no code") };
    let names: Vec<_> = volume.files.iter().map(|file| file.name.as_deref()).collect();
    assert_eq!(names, [Some("OvmfXenCore"), Some("RuntimeServices"), None]);
    let core = volume.files[0].payload.unwrap();
    assert_eq!(Some(core.offset), dissection.descriptor.map(|descriptor| descriptor.info.core_offset));
    assert!(volume.files[1].payload.unwrap().is_pe);
}

#[test]
fn a_shell_is_found_by_its_name_and_splits_and_joins_with_its_image() {
    let shell = testing::application();
    let [combined, code, vars] = testing::images_with(Some(&shell));
    assert_eq!(damages(&combined), []);
    let dissection = Dissection::of(&combined);
    let Content::Code(volume) = &dissection.regions[2].content else { panic!("no code") };
    let file = &volume.files[2];
    assert_eq!((file.name.as_deref(), file.kind), (Some("UEFI Shell"), 0x09));
    assert_eq!(file.guid.to_string(), "7c04a583-9e3e-4f1c-ad65-e05268d0b4d1");
    let program = file.payload.unwrap();
    assert_eq!(combined[program.offset as usize..][..program.size as usize], shell);
    assert_eq!(crate::join::split(&combined), Ok((code.clone(), vars.clone())));
    assert_eq!(crate::join::join(&code, &vars), Ok(combined));
}

#[test]
fn a_region_that_is_damaged_is_named_with_the_place() {
    let [combined, ..] = testing::images();
    for (at, place, words) in [
        (0x74, 0, "ELF header"),                                     // the note's size
        (0x18, 0x18, "ELF header"),                                  // the entry of the header
        (0x01, 0x01, "ELF header"),                                  // the magic
        (0x20, 0x20, "ELF header"),                                  // where section headers would be
        (0x200, 0x200, "ELF header"),                                // behind it
        (0x1000 + 16, 0x1000, "volume of variables"),                // file system
        (0x1000 + 33, 0x1000 + 32, "FvLength"),                      // length
        (0x1000 + 41, 0x1000 + 40, "_FVH"),                          // signature
        (0x1000 + 50, 0x1000, "checksum"),                           // checksum
        (0x1000 + 72, 0x1000 + 72, "store of authenticated"),        // store signature
        (0x1000 + 72 + 21, 0x1000 + 72, "healthy"),                  // store state
        (0x1000 + 500, 0x1000 + 100, "neither a record nor erased"), // in the free part
        (0x1000 + 0x4_1000, 0x1000 + 0x4_1000, "journal"),           // journal
        (0x8_5000 + 41, 0x8_5000 + 40, "_FVH"),
        (0x10_0000, 0x10_0000, "padding"),
        (0x8_5000 + 50, 0x8_5000, "checksum"),
    ] {
        let mut image = combined.clone();
        image[at] ^= 0x10;
        let found = damages(&image);
        assert!(found.iter().any(|(offset, text)| *offset == place && text.contains(words)), "{at:#x}: {found:x?}");
        assert_eq!(kinds(&image).len(), 3, "{at:#x}: the regions are still told apart");
    }
}

#[test]
fn any_changed_byte_of_a_file_is_noticed_and_the_file_is_named() {
    let [combined, ..] = testing::images();
    let dissection = Dissection::of(&combined);
    let Content::Code(volume) = &dissection.regions[2].content else { panic!("no code") };
    for file in &volume.files {
        let range = file.range();
        for at in range.clone().step_by((range.len() / 9).max(1)) {
            let mut image = combined.clone();
            image[at] ^= 0x40;
            let found = damages(&image);
            let guid = if at < range.start + 16 { String::new() } else { file.guid.to_string() };
            let named = |text: &str| text.contains(&format!("file {guid}"));
            let is_it = |(offset, text): &(u64, String)| range.contains(&(*offset as usize)) && named(text);
            assert!(found.iter().any(is_it), "{at:#x}: {found:x?}");
        }
    }
}

#[test]
fn a_wiped_region_is_named() {
    let [combined, ..] = testing::images();
    for fill in [0, 0xff, 0x5a] {
        let mut image = combined.clone();
        image[0x1000..0x8_5000].fill(fill);
        let found = damages(&image);
        assert!(found.iter().any(|(offset, text)| *offset == 0x1028 && text.contains("_FVH")), "{found:x?}");
        let mut image = combined.clone();
        image[0x8_5000..].fill(fill);
        assert!(damages(&image).iter().any(|(_, text)| text.contains("no volume with code")));
        image.fill(fill);
        assert_eq!(damages(&image).is_empty(), fill == 0xff);
    }
}

#[test]
fn a_volume_of_variables_with_records_is_listed() {
    let [_, _, mut vars] = testing::images();
    let record = testing::record("Boot0001", 7, &[1, 2, 3]);
    vars[100..100 + record.len()].copy_from_slice(&record);
    let dissection = Dissection::of(&vars);
    assert_eq!(dissection.damages, []);
    let Content::Vars(found) = &dissection.regions[0].content else { panic!("no variables") };
    let variable = &found.variables[0];
    assert_eq!((variable.name.as_str(), variable.attributes, &variable.data[..]), ("Boot0001", 7, &[1, 2, 3][..]));
    assert_eq!((variable.offset, found.used, found.journal), (100, 84, nv::Journal::Clean));
}

#[test]
fn no_damage_and_no_cut_panics() {
    let [combined, _, vars] = testing::images();
    let mut random = Random::new(11);
    for round in 0..80 {
        let mut image = if round % 2 == 0 { combined.clone() } else { vars.clone() };
        for _ in 0..=random.below(8) {
            let near = [0, 0x1000, 0x8_5000, 0x4_1000, image.len() - 0x200][random.below(5)];
            let at = (near + random.below(0x200)).min(image.len() - 1);
            image[at] = random.next() as u8;
        }
        if random.below(2) == 0 {
            image.truncate(random.below(image.len()));
        }
        let dissection = Dissection::of(&image);
        let covered: u64 = dissection.regions.iter().map(|region| region.size).sum();
        assert_eq!(covered, image.len() as u64);
    }
    for length in (0..0x400).chain([0x1000, 0x1040, 0x2000]) {
        _ = Dissection::of(&combined[..length]);
        _ = Dissection::of(&vars[..length]);
    }
}
