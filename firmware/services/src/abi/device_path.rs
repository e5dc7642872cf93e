//! EFI_DEVICE_PATH_UTILITIES_PROTOCOL, EFI_DEVICE_PATH_TO_TEXT_PROTOCOL and EFI_DEVICE_PATH_FROM_TEXT_PROTOCOL
//! (UEFI 2.10 §10.5, §10.6). What they return is in pool memory of the caller.

use alloc::vec;
use core::ffi::c_void;
use core::ptr;

use uefi_raw::protocol::device_path::{
    DevicePathFromTextProtocol, DevicePathProtocol, DevicePathToTextProtocol, DevicePathUtilitiesProtocol,
    DeviceSubType, DeviceType,
};
use uefi_raw::{Boolean, Char16, Handle};

use super::CORE;
use super::text::{string, string_to_pool, to_pool};
use crate::device_path::{DevicePath, DevicePathBuf, DevicePathError, HEADER_LENGTH, Node, RawNode, TextOptions};
use crate::{Result, api};

/// Installs the protocols on a handle of their own.
pub fn install() -> Result<Handle> {
    let interface = |of: *const c_void| of.cast_mut();
    api::install_protocols(
        None,
        &[
            (DevicePathUtilitiesProtocol::GUID, interface((&raw const UTILITIES).cast())),
            (DevicePathToTextProtocol::GUID, interface((&raw const TO_TEXT).cast())),
            (DevicePathFromTextProtocol::GUID, interface((&raw const FROM_TEXT).cast())),
        ],
    )
}

static UTILITIES: DevicePathUtilitiesProtocol = DevicePathUtilitiesProtocol {
    get_device_path_size,
    duplicate_device_path,
    append_device_path,
    append_device_node,
    append_device_path_instance,
    get_next_device_path_instance,
    is_device_path_multi_instance,
    create_device_node,
};

static TO_TEXT: DevicePathToTextProtocol =
    DevicePathToTextProtocol { convert_device_node_to_text, convert_device_path_to_text };

static FROM_TEXT: DevicePathFromTextProtocol =
    DevicePathFromTextProtocol { convert_text_to_device_node, convert_text_to_device_path };

unsafe extern "efiapi" fn get_device_path_size(path: *const DevicePathProtocol) -> usize {
    // SAFETY: null or a path, says the caller.
    unsafe { argument(path) }.map_or(0, |path| path.as_bytes().len())
}

unsafe extern "efiapi" fn duplicate_device_path(path: *const DevicePathProtocol) -> *mut DevicePathProtocol {
    // SAFETY: null or a path, says the caller.
    unsafe { argument(path) }.map_or(ptr::null_mut(), result)
}

unsafe extern "efiapi" fn append_device_path(
    first: *const DevicePathProtocol,
    second: *const DevicePathProtocol,
) -> *mut DevicePathProtocol {
    // SAFETY: each null or a path, says the caller.
    let (Some(first), Some(second)) = (unsafe { argument_or_empty(first) }, unsafe { argument_or_empty(second) })
    else {
        return ptr::null_mut();
    };
    changed(first, |joined| joined.append(second))
}

unsafe extern "efiapi" fn append_device_node(
    path: *const DevicePathProtocol,
    node: *const DevicePathProtocol,
) -> *mut DevicePathProtocol {
    // SAFETY: null or a path, says the caller.
    let Some(path) = (unsafe { argument_or_empty(path) }) else { return ptr::null_mut() };
    if node.is_null() {
        return result(path);
    }
    // SAFETY: a node, says the caller.
    changed(path, |joined| joined.push_raw(unsafe { RawNode::from_ptr(node) }?))
}

unsafe extern "efiapi" fn append_device_path_instance(
    path: *const DevicePathProtocol,
    instance: *const DevicePathProtocol,
) -> *mut DevicePathProtocol {
    // SAFETY: each null or a path, says the caller.
    let (Some(path), Some(instance)) = (unsafe { argument_or_empty(path) }, unsafe { argument(instance) }) else {
        return ptr::null_mut();
    };
    changed(path, |joined| joined.append_instance(instance))
}

unsafe extern "efiapi" fn get_next_device_path_instance(
    instance: *mut *const DevicePathProtocol,
    size: *mut usize,
) -> *mut DevicePathProtocol {
    // SAFETY: null or a variable of the caller.
    let path = unsafe { instance.as_ref() }.copied().unwrap_or(ptr::null());
    // SAFETY: null or a path, says the caller.
    let (first, rest) = match unsafe { argument(path) } {
        Some(path) => {
            let (first, rest) = path.next_instance();
            (Some(first), rest)
        }
        None => (None, None),
    };
    let length = first.as_ref().map_or(0, |first| first.as_bytes().len());
    // SAFETY: each null or a variable of the caller.
    unsafe {
        if let Some(instance) = instance.as_mut() {
            *instance = rest.map_or(ptr::null(), DevicePath::as_ptr);
        }
        if let Some(size) = size.as_mut() {
            *size = length;
        }
    }
    first.map_or(ptr::null_mut(), |first| result(&first))
}

unsafe extern "efiapi" fn is_device_path_multi_instance(path: *const DevicePathProtocol) -> Boolean {
    // SAFETY: null or a path, says the caller.
    unsafe { argument(path) }.is_some_and(DevicePath::is_multi_instance).into()
}

unsafe extern "efiapi" fn create_device_node(
    device_type: DeviceType,
    sub_type: DeviceSubType,
    length: u16,
) -> *mut DevicePathProtocol {
    if usize::from(length) < HEADER_LENGTH {
        return ptr::null_mut();
    }
    let mut bytes = vec![0; length.into()];
    bytes[..2].copy_from_slice(&[device_type.0, sub_type.0]);
    bytes[2..HEADER_LENGTH].copy_from_slice(&length.to_le_bytes());
    to_pool(&CORE, &bytes).cast()
}

unsafe extern "efiapi" fn convert_device_node_to_text(
    node: *const DevicePathProtocol,
    display_only: Boolean,
    allow_shortcuts: Boolean,
) -> *mut Char16 {
    if node.is_null() {
        return ptr::null_mut();
    }
    let options = TextOptions { display_only: display_only.into(), allow_shortcuts: allow_shortcuts.into() };
    // SAFETY: a node, says the caller.
    match unsafe { RawNode::from_ptr(node) } {
        Ok(node) => string_to_pool(&CORE, &node.decode().to_text(options)),
        Err(error) => {
            log::warn!("ConvertDeviceNodeToText: {error}");
            ptr::null_mut()
        }
    }
}

unsafe extern "efiapi" fn convert_device_path_to_text(
    path: *const DevicePathProtocol,
    display_only: Boolean,
    allow_shortcuts: Boolean,
) -> *mut Char16 {
    let options = TextOptions { display_only: display_only.into(), allow_shortcuts: allow_shortcuts.into() };
    // SAFETY: null or a path, says the caller.
    let path = unsafe { argument(path) };
    path.map_or(ptr::null_mut(), |path| string_to_pool(&CORE, &path.to_text_with(options)))
}

unsafe extern "efiapi" fn convert_text_to_device_node(text: *const Char16) -> *mut DevicePathProtocol {
    // SAFETY: null or a string, says the caller.
    let Some(text) = (unsafe { string(text) }) else { return ptr::null_mut() };
    match Node::parse_text(&text).and_then(|node| node.to_bytes()) {
        Ok(node) => to_pool(&CORE, &node).cast(),
        Err(error) => {
            log::warn!("ConvertTextToDeviceNode: {text}: {error}");
            ptr::null_mut()
        }
    }
}

unsafe extern "efiapi" fn convert_text_to_device_path(text: *const Char16) -> *mut DevicePathProtocol {
    // SAFETY: null or a string, says the caller.
    let Some(text) = (unsafe { string(text) }) else { return ptr::null_mut() };
    match DevicePathBuf::parse_text(&text) {
        Ok(path) => result(&path),
        Err(error) => {
            log::warn!("ConvertTextToDevicePath: {text}: {error}");
            ptr::null_mut()
        }
    }
}

/// `None` if it is null or malformed.
///
/// # Safety
/// As for [`DevicePath::from_ptr`], if it is not null.
unsafe fn argument<'a>(path: *const DevicePathProtocol) -> Option<&'a DevicePath> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller.
    unsafe { DevicePath::from_ptr(path) }.inspect_err(|error| log::warn!("device path argument: {error}")).ok()
}

/// The empty path for null; `None` if it is malformed.
///
/// # Safety
/// As for [`argument`].
unsafe fn argument_or_empty<'a>(path: *const DevicePathProtocol) -> Option<&'a DevicePath> {
    if path.is_null() {
        return Some(DevicePath::empty());
    }
    // SAFETY: the caller.
    unsafe { argument(path) }
}

fn result(path: &DevicePath) -> *mut DevicePathProtocol {
    to_pool(&CORE, path.as_bytes()).cast()
}

fn changed(
    path: &DevicePath,
    change: impl FnOnce(&mut DevicePathBuf) -> core::result::Result<(), DevicePathError>,
) -> *mut DevicePathProtocol {
    let mut path = DevicePathBuf::from(path);
    match change(&mut path) {
        Ok(()) => result(&path),
        Err(error) => {
            log::warn!("device path cannot be joined: {error}");
            ptr::null_mut()
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::fake;

    fn parse(text: &str) -> DevicePathBuf {
        DevicePathBuf::parse_text(text).unwrap()
    }

    /// The path in pool memory, which is given back.
    fn take(path: *mut DevicePathProtocol) -> Option<DevicePathBuf> {
        let block = ptr::NonNull::new(path)?;
        // SAFETY: a path that a function here made.
        let copy = DevicePathBuf::from(unsafe { DevicePath::from_ptr(path) }.unwrap());
        api::free_pool(block.cast()).unwrap();
        Some(copy)
    }

    #[test]
    fn paths_are_joined_as_specified() {
        fake::install();
        let (root, rest) = (parse("PciRoot(0x0)"), parse("Pci(0x1,0x2)/Sata(0x0,0xffff,0x0)"));
        let node = Node::Pci { device: 9, function: 0 }.to_bytes().unwrap();
        let (a, b, node, null) = (root.as_ptr(), rest.as_ptr(), node.as_ptr().cast(), ptr::null());
        let empty = || Some(DevicePathBuf::new());
        // SAFETY: paths, nodes and null.
        unsafe {
            assert_eq!(get_device_path_size(a), root.as_bytes().len());
            assert_eq!(get_device_path_size(null), 0);
            assert_eq!(take(duplicate_device_path(b)), Some(rest.clone()));
            assert_eq!(take(duplicate_device_path(null)), None);
            let joined = parse("PciRoot(0x0)/Pci(0x1,0x2)/Sata(0x0,0xffff,0x0)");
            assert_eq!(take(append_device_path(a, b)), Some(joined));
            assert_eq!(take(append_device_path(null, b)), Some(rest.clone()));
            assert_eq!(take(append_device_path(a, null)), Some(root.clone()));
            assert_eq!(take(append_device_path(null, null)), empty());
            assert_eq!(take(append_device_node(a, node)), Some(parse("PciRoot(0x0)/Pci(0x9,0x0)")));
            assert_eq!(take(append_device_node(null, node)), Some(parse("Pci(0x9,0x0)")));
            assert_eq!(take(append_device_node(a, null)), Some(root.clone()));
            assert_eq!(take(append_device_node(null, null)), empty());
            let instances = parse("PciRoot(0x0),Pci(0x1,0x2)/Sata(0x0,0xffff,0x0)");
            assert_eq!(take(append_device_path_instance(a, b)), Some(instances));
            assert_eq!(take(append_device_path_instance(null, b)), Some(rest.clone()));
            assert_eq!(take(append_device_path_instance(a, null)), None);
        }
    }

    #[test]
    fn instances_are_walked_to_the_end() {
        fake::install();
        let several = parse("PciRoot(0x0),PciRoot(0x1)");
        let mut next = several.as_ptr();
        let mut size = 0;
        // SAFETY: a path, and variables.
        unsafe {
            assert!(bool::from(is_device_path_multi_instance(next)));
            assert_eq!(take(get_next_device_path_instance(&raw mut next, &raw mut size)), Some(parse("PciRoot(0x0)")));
            assert_eq!(size, 16);
            assert!(!bool::from(is_device_path_multi_instance(next)));
            assert_eq!(take(get_next_device_path_instance(&raw mut next, &raw mut size)), Some(parse("PciRoot(0x1)")));
            assert!(next.is_null());
            assert_eq!(take(get_next_device_path_instance(&raw mut next, &raw mut size)), None);
            assert_eq!(size, 0);
        }
    }

    #[test]
    fn texts_go_there_and_back() {
        fake::install();
        let text: Vec<u16> = "PciRoot(0x0)/\\ä.efi".encode_utf16().chain([0]).collect();
        // SAFETY: strings and paths.
        unsafe {
            let path = convert_text_to_device_path(text.as_ptr());
            let back = convert_device_path_to_text(path, Boolean::FALSE, Boolean::FALSE);
            assert_eq!(crate::abi::text::units(back), text[..text.len() - 1]);
            api::free_pool(ptr::NonNull::new(back).unwrap().cast()).unwrap();
            assert_eq!(take(path), Some(parse("PciRoot(0x0)/\\ä.efi")));
            let bad: Vec<u16> = "Pci(".encode_utf16().chain([0]).collect();
            assert!(convert_text_to_device_path(bad.as_ptr()).is_null());
            assert!(convert_text_to_device_node(ptr::null()).is_null());
            assert!(convert_device_path_to_text(ptr::null(), Boolean::FALSE, Boolean::FALSE).is_null());
        }
    }

    #[test]
    fn malformed_paths_yield_null() {
        fake::install();
        let malformed = [1_u8, 1, 3, 0, 0x7F, 0xFF, 4, 0];
        let path = malformed.as_ptr().cast();
        // SAFETY: ends at a node that is too short.
        unsafe {
            assert_eq!(get_device_path_size(path), 0);
            assert!(duplicate_device_path(path).is_null());
            assert!(append_device_path(path, ptr::null()).is_null());
            assert!(append_device_node(ptr::null(), path).is_null());
            assert!(convert_device_path_to_text(path, Boolean::FALSE, Boolean::FALSE).is_null());
            assert!(create_device_node(DeviceType::MEDIA, DeviceSubType(1), 3).is_null());
        }
    }

    #[test]
    fn created_node_is_empty_and_of_its_length() {
        fake::install();
        // SAFETY: no pointers.
        let node = unsafe { create_device_node(DeviceType::HARDWARE, DeviceSubType::HARDWARE_PCI, 6) };
        // SAFETY: a node that was just made.
        assert_eq!(unsafe { RawNode::from_ptr(node) }.unwrap().as_bytes(), [1, 1, 6, 0, 0, 0]);
        api::free_pool(ptr::NonNull::new(node).unwrap().cast()).unwrap();
    }
}
