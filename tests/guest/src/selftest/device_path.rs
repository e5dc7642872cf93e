//! Device path protocols (UEFI 2.10 §10.5, §10.6).

use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::{null, null_mut};

use uefi_raw::Boolean;
use uefi_raw::protocol::device_path::{
    DevicePathFromTextProtocol, DevicePathProtocol, DevicePathToTextProtocol, DevicePathUtilitiesProtocol,
    DeviceSubType, DeviceType,
};

use crate::harness::{Outcome, Test};
use crate::protocol::vendor_path;
use crate::support::{OURS, OURS_TOO, handles_with, located, narrow, protocol_of, wide};

pub const TESTS: &[Test] = tests![
    the_size_includes_the_end,
    a_duplicate_is_equal,
    paths_are_appended,
    nodes_are_appended,
    instances_are_appended_and_taken_apart,
    a_node_is_created,
    nothing_is_handled_as_the_specification_says,
    every_device_path_survives_the_way_through_text,
    well_known_nodes_have_their_texts,
    nonsense_becomes_a_file_path,
];

const END: [u8; 4] = [0x7F, 0xFF, 4, 0];

type Path = *const DevicePathProtocol;

fn utilities() -> Result<*mut DevicePathUtilitiesProtocol, String> {
    located(&DevicePathUtilitiesProtocol::GUID)
}

fn size(path: Path) -> Result<usize, String> {
    let utilities = utilities()?;
    Ok(efi!(((*utilities).get_device_path_size)(path)))
}

/// The bytes of a path that the firmware allocated, which is freed.
fn taken(path: *mut DevicePathProtocol) -> Result<Vec<u8>, String> {
    if path.is_null() {
        return Err("null".into());
    }
    let bytes = efi!(core::slice::from_raw_parts(path.cast::<u8>(), size(path)?)).to_vec();
    let status = bs!(free_pool(path.cast()));
    if status.is_success() { Ok(bytes) } else { Err(alloc::format!("FreePool: {status:?}")) }
}

fn the_size_includes_the_end() -> Outcome {
    same!(size(vendor_path(&[OURS, OURS_TOO]).as_ptr().cast())?, 44);
    same!(size(END.as_ptr().cast())?, 4);
    same!(size(null())?, 0);
    Ok(())
}

fn a_duplicate_is_equal() -> Outcome {
    let utilities = utilities()?;
    let path = vendor_path(&[OURS, OURS_TOO]);
    same!(taken(efi!(((*utilities).duplicate_device_path)(path.as_ptr().cast())))?, path);
    check!(efi!(((*utilities).duplicate_device_path)(null())).is_null());
    Ok(())
}

fn paths_are_appended() -> Outcome {
    let utilities = utilities()?;
    let (first, second) = (vendor_path(&[OURS]), vendor_path(&[OURS_TOO]));
    let append = |first: Path, second: Path| taken(efi!(((*utilities).append_device_path)(first, second)));
    same!(append(first.as_ptr().cast(), second.as_ptr().cast())?, vendor_path(&[OURS, OURS_TOO]));
    same!(append(first.as_ptr().cast(), null())?, first);
    same!(append(null(), second.as_ptr().cast())?, second);
    same!(append(null(), null())?, END);
    Ok(())
}

fn nodes_are_appended() -> Outcome {
    let utilities = utilities()?;
    let (first, second) = (vendor_path(&[OURS]), vendor_path(&[OURS_TOO]));
    let append = |path: Path, node: Path| taken(efi!(((*utilities).append_device_node)(path, node)));
    same!(append(first.as_ptr().cast(), second.as_ptr().cast())?, vendor_path(&[OURS, OURS_TOO]));
    same!(append(null(), second.as_ptr().cast())?, second);
    same!(append(first.as_ptr().cast(), null())?, first);
    same!(append(null(), null())?, END);
    Ok(())
}

fn instances_are_appended_and_taken_apart() -> Outcome {
    let utilities = utilities()?;
    let (first, second) = (vendor_path(&[OURS]), vendor_path(&[OURS_TOO]));
    let append = |a: Path, b: Path| efi!(((*utilities).append_device_path_instance)(a, b));
    let both = append(first.as_ptr().cast(), second.as_ptr().cast());
    same!(size(both)?, 48);
    check!(efi!(((*utilities).is_device_path_multi_instance)(both)).is_true());
    check!(efi!(((*utilities).is_device_path_multi_instance)(first.as_ptr().cast())).is_false());
    let (mut rest, mut length): (Path, usize) = (both, 0);
    for expected in [&first, &second] {
        let instance = efi!(((*utilities).get_next_device_path_instance)(&mut rest, &mut length));
        same!(length, expected.len());
        same!(&taken(instance)?, expected);
    }
    check!(rest.is_null());
    check!(efi!(((*utilities).get_next_device_path_instance)(&mut rest, &mut length)).is_null());
    same!(taken(append(null(), second.as_ptr().cast()))?, second);
    check!(append(first.as_ptr().cast(), null()).is_null());
    want!(SUCCESS, bs!(free_pool(both.cast())));
    Ok(())
}

fn a_node_is_created() -> Outcome {
    let utilities = utilities()?;
    let create = |length: u16| efi!(((*utilities).create_device_node)(DeviceType(1), DeviceSubType(4), length));
    let node = create(20);
    check!(!node.is_null());
    same!(efi!(core::slice::from_raw_parts(node.cast::<u8>(), 4)), [1, 4, 20, 0]);
    want!(SUCCESS, bs!(free_pool(node.cast())));
    check!(create(3).is_null());
    Ok(())
}

fn nothing_is_handled_as_the_specification_says() -> Outcome {
    let (utilities, mut size) = (utilities()?, 0);
    check!(efi!(((*utilities).is_device_path_multi_instance)(null())).is_false());
    check!(efi!(((*utilities).get_next_device_path_instance)(null_mut(), &mut size)).is_null());
    let to_text = located::<DevicePathToTextProtocol>(&DevicePathToTextProtocol::GUID)?;
    check!(efi!(((*to_text).convert_device_path_to_text)(null(), Boolean::FALSE, Boolean::FALSE)).is_null());
    check!(efi!(((*to_text).convert_device_node_to_text)(null(), Boolean::FALSE, Boolean::FALSE)).is_null());
    let from_text = located::<DevicePathFromTextProtocol>(&DevicePathFromTextProtocol::GUID)?;
    check!(efi!(((*from_text).convert_text_to_device_path)(null())).is_null());
    check!(efi!(((*from_text).convert_text_to_device_node)(null())).is_null());
    Ok(())
}

fn text_of(path: Path, shortcuts: bool) -> Result<String, String> {
    let to_text = located::<DevicePathToTextProtocol>(&DevicePathToTextProtocol::GUID)?;
    let text = efi!(((*to_text).convert_device_path_to_text)(path, Boolean::FALSE, shortcuts.into()));
    if text.is_null() {
        return Err("no text".into());
    }
    let result = narrow(text);
    let _ = bs!(free_pool(text.cast()));
    Ok(result)
}

fn path_of(text: &str) -> Result<Vec<u8>, String> {
    let from_text = located::<DevicePathFromTextProtocol>(&DevicePathFromTextProtocol::GUID)?;
    taken(efi!(((*from_text).convert_text_to_device_path)(wide(text).as_ptr())))
}

fn every_device_path_survives_the_way_through_text() -> Outcome {
    let handles = handles_with(&DevicePathProtocol::GUID);
    check!(!handles.is_empty());
    for handle in handles {
        let path = protocol_of::<DevicePathProtocol>(handle, &DevicePathProtocol::GUID).ok_or("gone")?;
        let bytes = efi!(core::slice::from_raw_parts(path.cast::<u8>(), size(path)?));
        for shortcuts in [false, true] {
            let text = text_of(path, shortcuts)?;
            let back = path_of(&text)?;
            check!(back == bytes, "{text}: {bytes:x?} became {back:x?}");
        }
    }
    Ok(())
}

fn well_known_nodes_have_their_texts() -> Outcome {
    for (text, bytes) in [
        ("PciRoot(0x0)", &[2, 1, 12, 0, 0xD0, 0x41, 3, 0x0A, 0, 0, 0, 0][..]),
        ("Pci(0x1F,0x2)", &[1, 1, 6, 0, 2, 0x1F]),
        ("\\a", &[4, 4, 10, 0, b'\\', 0, b'a', 0, 0, 0]),
        ("Sata(0x1,0xFFFF,0x0)", &[3, 18, 10, 0, 1, 0, 0xFF, 0xFF, 0, 0]),
    ] {
        let mut path = bytes.to_vec();
        path.extend(END);
        let back = text_of(path.as_ptr().cast(), false)?;
        check!(back.eq_ignore_ascii_case(text), "{back} instead of {text}");
        same!(path_of(text)?, path);
    }
    Ok(())
}

fn nonsense_becomes_a_file_path() -> Outcome {
    let path = path_of("what is this")?;
    same!(&path[..2], [4, 4]);
    same!(text_of(path.as_ptr().cast(), false)?, "what is this");
    Ok(())
}
