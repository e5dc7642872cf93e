use uefi_raw::guid;

use super::package::header;
use super::*;

const LIST_GUID: Guid = guid!("7c04a583-9e3e-4f1c-ad65-e05268d0b4d1");
const OTHER_GUID: Guid = guid!("11111111-2222-3333-4444-555555555555");

const fn function(number: usize) -> *const () {
    core::ptr::without_provenance(number)
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn text(strings: Result<(Vec<u16>, Option<&Font>), HiiError>) -> Result<String, HiiError> {
    strings.map(|(units, _)| String::from_utf16(&units).unwrap())
}

/// A string package with these blocks.
fn strings(language: &str, blocks: &[&[u8]]) -> Vec<u8> {
    let windows: [u16; 16] = [
        0, 0x80, 0x100, 0x300, 0x2000, 0x2080, 0x2100, 0x3000, 0x80, 0xC0, 0x400, 0x600, 0x900, 0x3040, 0x30A0, 0xFF00,
    ];
    let offset = 46 + language.len() as u32 + 1;
    let mut body = Vec::new();
    body.extend(offset.to_le_bytes());
    body.extend(offset.to_le_bytes());
    body.extend(windows.iter().flat_map(|window| window.to_le_bytes()));
    body.extend(1_u16.to_le_bytes());
    body.extend(language.as_bytes());
    body.push(0);
    body.extend(blocks.concat());
    package(PackageType::STRINGS, &body)
}

fn package(kind: PackageType, body: &[u8]) -> Vec<u8> {
    [&header(kind, 4 + body.len()).unwrap()[..], body].concat()
}

fn list(packages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = LIST_GUID.to_bytes().to_vec();
    let length: usize = packages.iter().map(Vec::len).sum();
    bytes.extend((length as u32 + 24).to_le_bytes());
    bytes.extend(packages.concat());
    bytes.extend([4, 0, 0, 0xDF]);
    bytes
}

fn ucs2(text: &str) -> Vec<u8> {
    [&[0x14][..], &utf16(text)].concat()
}

fn english() -> Vec<u8> {
    strings("en-US", &[&ucs2("English"), &ucs2("first"), &ucs2("second"), &[0]])
}

fn with(packages: &[Vec<u8>]) -> (Hii, ListId) {
    let mut hii = Hii::new();
    let (id, _) = hii.add(&list(packages), 7, None).unwrap();
    (hii, id)
}

#[test]
fn all_kinds_of_blocks_are_read() {
    let blocks: &[&[u8]] = &[
        &[0x10, b'a', 0],
        &[0x31, 0x40, 17, 0, 5, 19, 0, 1, 0, 0, 0, b'F', 0, b'n', 0, 0, 0],
        &[0x11, 5, b'b', 0],
        &[0x12, 2, 0, b'c', 0, b'd', b'e', 0],
        &[0x13, 5, 1, 0, b'f', 0],
        &ucs2("g"),
        &[0x15, 5, b'h', 0, 0, 0],
        &[&[0x16, 2, 0][..], &utf16("i"), &utf16("")].concat(),
        &[0x17, 5, 1, 0, b'k', 0, 0, 0],
        &[0x20, 6, 0],
        &[0x21, 2, 0],
        &[0x22, 1],
        &[0x30, 0x77, 4, 0xAA],
        &[0x32, 0x77, 7, 0, 0, 0, 0xAA],
        &ucs2("last"),
        &[0],
    ];
    let (hii, id) = with(&[strings("en", blocks)]);
    let expected = ["a", "b", "c", "de", "f", "g", "h", "i", "", "k", "g"];
    for (index, expected) in expected.iter().enumerate() {
        assert_eq!(text(hii.string(id, b"en", index as u16 + 1)).as_deref(), Ok(*expected), "{index}");
    }
    for missing in [0, 12, 13, 14, 16, 0xFFFF] {
        assert_eq!(text(hii.string(id, b"en", missing)), Err(HiiError::NotFound), "{missing}");
    }
    assert_eq!(text(hii.string(id, b"en", 15)).as_deref(), Ok("last"));
    let (_, font) = hii.string(id, b"en", 2).unwrap();
    assert_eq!(font, Some(&Font { style: 1, size: 19, name: vec![b'F'.into(), b'n'.into()] }));
    assert_eq!(hii.string(id, b"en", 1).unwrap().1, None);
}

#[test]
fn compressed_text_uses_the_windows() {
    let (hii, id) = with(&[strings("en", &[&[0x10, b'a', 0xE4, 0x12, 0xB0, 0x02, 0x41, 0x0C, 0], &[0]])]);
    assert_eq!(text(hii.string(id, b"en", 1)).as_deref(), Ok("aäа\u{C1}\u{FFFD}"));
}

#[test]
fn circle_of_duplicates_is_no_string() {
    let (hii, id) = with(&[strings("en", &[&[0x20, 2, 0], &[0x20, 1, 0], &[0]])]);
    assert_eq!(text(hii.string(id, b"en", 1)), Err(HiiError::NotFound));
}

#[test]
fn language_is_told_from_string() {
    let (hii, id) = with(&[english(), strings("fr", &[&ucs2("nom"), &[0]])]);
    assert_eq!(text(hii.string(id, b"EN-us", 2)).as_deref(), Ok("first"));
    assert_eq!(text(hii.string(id, b"fr", 1)).as_deref(), Ok("nom"));
    assert_eq!(text(hii.string(id, b"fr", 2)), Err(HiiError::Language));
    assert_eq!(text(hii.string(id, b"de", 1)), Err(HiiError::Language));
    assert_eq!(text(hii.string(id, b"fr", 9)), Err(HiiError::NotFound));
    assert_eq!(text(hii.string(ListId(99), b"fr", 1)), Err(HiiError::NotFound));
    assert_eq!(hii.languages(id).unwrap(), b"en-US;fr");
}

#[test]
fn secondary_languages_follow_the_first() {
    let (hii, id) = with(&[strings("en;en-US;en-GB", &[&ucs2("x"), &[0]])]);
    assert_eq!(hii.languages(id).unwrap(), b"en");
    assert_eq!(hii.secondary_languages(id, b"en").unwrap(), b"en-US;en-GB");
    assert_eq!(hii.secondary_languages(id, b"de"), Err(HiiError::Language));
}

#[test]
fn new_string_has_a_number_of_its_own_in_all_languages() {
    let (mut hii, id) = with(&[english()]);
    let units: Vec<u16> = "neu".encode_utf16().collect();
    let name: Vec<u16> = "Deutsch".encode_utf16().collect();
    assert_eq!(hii.add_string(id, b"de", Some(&name), &units, None), Ok(4));
    assert_eq!(text(hii.string(id, b"de", 4)).as_deref(), Ok("neu"));
    assert_eq!(text(hii.string(id, b"de", 5)).as_deref(), Ok("Deutsch"));
    assert_eq!(hii.add_string(id, b"en-US", None, &units, None), Ok(6));
    assert_eq!(hii.add_string(id, b"de", Some(&name), &units, None), Ok(7));
}

#[test]
fn changed_strings_are_exported_and_read_back() {
    let (mut hii, id) = with(&[english(), package(PackageType::GUID, &OTHER_GUID.to_bytes())]);
    let font = Font { style: 2, size: 16, name: vec![0x41] };
    let units: Vec<u16> = "changed".encode_utf16().collect();
    hii.set_string(id, b"en-US", 2, &units, Some(font.clone())).unwrap();
    assert_eq!(hii.set_string(id, b"en-US", 9, &units, None), Err(HiiError::NotFound));
    hii.add_string(id, b"de", None, &units, None).unwrap();
    let (bytes, _) = hii.export(Some(id)).unwrap();
    let mut other = Hii::new();
    let (id, _) = other.add(&bytes, 0, None).unwrap();
    assert_eq!(text(other.string(id, b"en-US", 1)).as_deref(), Ok("English"));
    assert_eq!(other.string(id, b"en-US", 2).unwrap(), (units.clone(), Some(&font)));
    assert_eq!(text(other.string(id, b"de", 4)).as_deref(), Ok("changed"));
    assert_eq!(other.find(PackageType::GUID, Some(&OTHER_GUID)), [id]);
}

#[test]
fn unchanged_list_is_exported_as_it_came() {
    let bytes = list(&[english(), package(PackageType(0x06), &[1, 2, 3])]);
    let mut hii = Hii::new();
    let (id, _) = hii.add(&bytes, 0, None).unwrap();
    assert_eq!(hii.export(Some(id)).unwrap().0, bytes);
    hii.add(&bytes, 0, None).unwrap();
    assert_eq!(hii.export(None).unwrap().0, [bytes.clone(), bytes].concat());
}

#[test]
fn device_path_of_the_driver_is_added_once() {
    let path = [0x7F, 0xFF, 4, 0];
    let mut hii = Hii::new();
    let (id, _) = hii.add(&list(&[english()]), 0, Some(&path)).unwrap();
    assert_eq!(hii.find(PackageType::DEVICE_PATH, None), [id]);
    let (bytes, _) = hii.export(Some(id)).unwrap();
    assert_eq!(bytes, list(&[english(), package(PackageType::DEVICE_PATH, &path)]));
}

#[test]
fn update_replaces_packages_of_the_same_type() {
    let (mut hii, id) = with(&[english(), package(PackageType(0x06), &[1])]);
    hii.update(id, &list(&[strings("en-US", &[&ucs2("new"), &[0]])])).unwrap();
    assert_eq!(text(hii.string(id, b"en-US", 1)).as_deref(), Ok("new"));
    assert_eq!(text(hii.string(id, b"en-US", 2)), Err(HiiError::NotFound));
    assert_eq!(hii.find(PackageType(0x06), None), [id]);
}

#[test]
fn lists_are_found_and_removed() {
    let (mut hii, id) = with(&[english()]);
    assert_eq!(hii.driver(id), Ok(7));
    assert_eq!(hii.find(PackageType::ALL, None), [id]);
    assert_eq!(hii.find(PackageType::KEYBOARD_LAYOUT, None), []);
    hii.remove(id).unwrap();
    assert_eq!(hii.remove(id), Err(HiiError::NotFound));
    assert_eq!(hii.find(PackageType::ALL, None), []);
    assert_eq!(hii.export(None), Err(HiiError::NotFound));
}

#[test]
fn changes_are_told_to_who_asked() {
    let mut hii = Hii::new();
    let number = hii.register(PackageType::STRINGS, None, function(1), Change::NewPack as usize);
    hii.register(PackageType::GUID, Some(OTHER_GUID), function(2), Change::RemovePack as usize);
    hii.register(PackageType::GUID, Some(LIST_GUID), function(3), ALL_CHANGES);
    let bytes = list(&[english(), package(PackageType::GUID, &OTHER_GUID.to_bytes())]);
    let (id, due) = hii.add(&bytes, 0, None).unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].function, due[0].package.clone(), due[0].list), (function(1), english(), id));
    let due = hii.remove(id).unwrap();
    assert_eq!(due.iter().map(|due| due.function).collect::<Vec<_>>(), [function(2)]);
    hii.unregister(number).unwrap();
    assert_eq!(hii.unregister(number), Err(HiiError::NotFound));
    assert!(hii.add(&bytes, 0, None).unwrap().1.is_empty());
}

#[test]
fn keyboard_layouts_are_found_by_guid() {
    let layout = |guid: Guid| {
        let mut layout = 23_u16.to_le_bytes().to_vec();
        layout.extend(guid.to_bytes());
        layout.extend([0; 5]);
        layout
    };
    let body = [&[2, 0][..], &layout(LIST_GUID), &layout(OTHER_GUID)].concat();
    let (mut hii, _) = with(&[package(PackageType::KEYBOARD_LAYOUT, &body)]);
    assert_eq!(hii.keyboard_layouts(), [LIST_GUID, OTHER_GUID]);
    assert_eq!(hii.keyboard_layout(Some(&OTHER_GUID)), Ok(&layout(OTHER_GUID)[..]));
    assert_eq!(hii.keyboard_layout(None), Err(HiiError::NotFound));
    hii.set_keyboard_layout(&OTHER_GUID).unwrap();
    assert_eq!(hii.keyboard_layout(None), Ok(&layout(OTHER_GUID)[..]));
    assert_eq!(hii.set_keyboard_layout(&Guid::ZERO), Err(HiiError::NotFound));
}

#[test]
fn contradicting_blocks_are_refused() {
    for blocks in [
        &[][..],
        &[0x14, b'a', 0],
        &[0x10, b'a'],
        &[0x12, 2, 0, b'a', 0],
        &[0x21, 1],
        &[0x21, 0xFF, 0xFF, 0x21, 1, 0, 0],
        &[0x33, 0],
        &[0x30, 0x40, 2, 0],
        &[0x30, 0x40, 200, 0],
        &[0x31, 0x40, 6, 0, 5, 19, 0, 1, 0, 0, 0, 0, 0, 0],
        &[0x32, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0],
    ] {
        let bytes = list(&[strings("en", &[blocks])]);
        assert_eq!(Hii::new().add(&bytes, 0, None).err(), Some(HiiError::Malformed), "{blocks:x?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn every_truncation_and_every_changed_byte_is_survived() {
    let blocks: &[&[u8]] = &[
        &[0x31, 0x40, 17, 0, 5, 19, 0, 1, 0, 0, 0, b'F', 0, b'n', 0, 0, 0],
        &[0x13, 5, 1, 0, b'f', 0],
        &ucs2("g"),
        &[0x20, 1, 0],
        &[0],
    ];
    let layout = [&[1, 0, 23, 0][..], &LIST_GUID.to_bytes(), &[0; 5]].concat();
    let bytes = list(&[strings("en", blocks), package(PackageType::KEYBOARD_LAYOUT, &layout)]);
    let exercise = |bytes: &[u8]| {
        let mut hii = Hii::new();
        if let Ok((id, _)) = hii.add(bytes, 0, None) {
            (0..5).for_each(|string| drop(text_of(&hii, id, string)));
            hii.keyboard_layouts();
            hii.export(None).unwrap();
            let _ = hii.add_string(id, b"en", None, &[1], None);
            let _ = hii.export(None);
        }
    };
    fn text_of(hii: &Hii, id: ListId, string: u16) -> Option<Vec<u16>> {
        hii.string(id, b"en", string).ok().map(|(text, _)| text)
    }
    for length in 0..bytes.len() {
        exercise(&bytes[..length]);
    }
    for at in 0..bytes.len() {
        for value in [0, 1, 0x22, 0x7F, 0xFF] {
            let mut changed = bytes.clone();
            changed[at] = value;
            exercise(&changed);
        }
    }
}
