use super::*;
use alloc::string::ToString;
use alloc::vec;

use uefi_raw::Guid;

fn pci(device: u8) -> Node {
    Node::Pci { device, function: 0 }
}

fn path(nodes: &[Node]) -> DevicePathBuf {
    DevicePathBuf::from_nodes(nodes).unwrap()
}

#[test]
fn empty_path_is_one_end_node() {
    assert_eq!(DevicePath::empty().as_bytes(), [0x7F, 0xFF, 4, 0]);
    assert_eq!(DevicePathBuf::new(), *DevicePath::empty());
    assert!(DevicePath::empty().is_empty());
}

#[test]
fn pushed_nodes_come_out_in_order() {
    let nodes = [Node::Acpi { hid: 0x0A03_41D0, uid: 0 }, pci(3), Node::FilePath("\\EFI".to_string())];
    assert_eq!(path(&nodes).nodes().collect::<Vec<_>>(), nodes);
}

#[test]
fn pci_node_has_the_bytes_of_the_specification() {
    assert_eq!(path(&[Node::Pci { device: 0x1F, function: 2 }]).as_bytes(), [1, 1, 6, 0, 2, 0x1F, 0x7F, 0xFF, 4, 0]);
}

#[test]
fn bytes_behind_the_end_are_returned() {
    let (first, rest) = DevicePath::split_first(&[1, 5, 8, 0, 7, 0, 0, 0, 0x7F, 0xFF, 4, 0, 0xAA, 0xBB]).unwrap();
    assert_eq!(first.nodes().collect::<Vec<_>>(), [Node::Controller { number: 7 }]);
    assert_eq!(rest, [0xAA, 0xBB]);
}

#[test]
fn malformed_paths_are_refused() {
    for (bytes, error) in [
        (&[][..], DevicePathError::Truncated),
        (&[0x7F, 0xFF, 4], DevicePathError::Truncated),
        (&[1, 1, 6, 0, 0, 0], DevicePathError::Truncated),
        (&[1, 1, 7, 0, 0, 0], DevicePathError::Truncated),
        (&[1, 1, 3, 0, 0x7F, 0xFF, 4, 0], DevicePathError::NodeTooShort),
        (&[1, 1, 0, 0, 0x7F, 0xFF, 4, 0], DevicePathError::NodeTooShort),
        (&[0x7F, 0xFF, 5, 0, 0], DevicePathError::EndLength),
    ] {
        assert_eq!(DevicePath::from_bytes(bytes).err(), Some(error), "{bytes:?}");
        if error != DevicePathError::Truncated {
            // SAFETY: the bytes end in an End node or in an invalid one.
            assert_eq!(unsafe { DevicePath::from_ptr(bytes.as_ptr().cast()) }.err(), Some(error), "{bytes:?}");
        }
    }
}

#[test]
fn path_longer_than_the_limit_is_refused() {
    let mut long = Vec::new();
    for _ in 0..2 {
        long.extend_from_slice(&[4, 3, 0, 0x90]);
        long.resize(long.len() + 0x9000 - 4, 0);
    }
    long.extend_from_slice(&[0x7F, 0xFF, 4, 0]);
    assert_eq!(DevicePath::from_bytes(&long).err(), Some(DevicePathError::TooLong));
    // SAFETY: a whole path.
    assert_eq!(unsafe { DevicePath::from_ptr(long.as_ptr().cast()) }.err(), Some(DevicePathError::TooLong));
}

#[test]
fn push_beyond_the_limit_leaves_the_path() {
    let node = Node::Unknown { device_type: DeviceType::MEDIA, sub_type: DeviceSubType(99), data: vec![0; 0xFFF0] };
    let mut long = path(core::slice::from_ref(&node));
    let before = long.clone();
    assert_eq!(long.push(&node), Err(DevicePathError::TooLong));
    assert_eq!(long, before);
    let node = Node::VendorMedia { guid: Guid::ZERO, data: vec![0; 0x10000] };
    assert_eq!(long.push(&node), Err(DevicePathError::TooLong));
}

#[test]
fn path_at_a_pointer_is_the_same_path() {
    let nodes = path(&[pci(1), pci(2)]);
    // SAFETY: a whole path that outlives the borrow.
    assert_eq!(unsafe { DevicePath::from_ptr(nodes.as_ptr()) }, Ok(nodes.as_path()));
}

#[test]
fn prefix_is_of_whole_nodes() {
    let long = path(&[pci(1), pci(2)]);
    assert!(long.starts_with(&path(&[pci(1)])));
    assert!(long.starts_with(DevicePath::empty()));
    assert!(long.starts_with(&long));
    assert!(!long.starts_with(&path(&[pci(2)])));
    assert!(!path(&[pci(1)]).starts_with(&long));
    assert_eq!(long.strip_prefix(&path(&[pci(1)])), Some(path(&[pci(2)]).as_path()));
}

#[test]
fn append_joins() {
    let mut joined = path(&[pci(1)]);
    joined.append(&path(&[pci(2), pci(3)])).unwrap();
    assert_eq!(joined, path(&[pci(1), pci(2), pci(3)]));
}

#[test]
fn instances_are_paths_of_their_own() {
    let mut several = DevicePathBuf::new();
    several.append_instance(&path(&[pci(1), pci(2)])).unwrap();
    assert!(!several.is_multi_instance());
    several.append_instance(&path(&[pci(3)])).unwrap();
    assert!(several.is_multi_instance());
    assert_eq!(several.instances().collect::<Vec<_>>(), [path(&[pci(1), pci(2)]), path(&[pci(3)])]);
    assert_eq!(DevicePath::empty().instances().count(), 1);
}

#[test]
fn node_with_data_of_another_form_is_unknown() {
    let bytes = [1, 1, 7, 0, 2, 0x1F, 0, 0x7F, 0xFF, 4, 0];
    let odd = DevicePath::from_bytes(&bytes).unwrap();
    let Some(Node::Unknown { data, .. }) = odd.nodes().next() else { panic!("decoded") };
    assert_eq!(data, [2, 0x1F, 0]);
}

#[test]
fn file_path_without_terminator_is_read() {
    let bytes = [4, 4, 8, 0, b'\\', 0, b'a', 0, 0x7F, 0xFF, 4, 0];
    let odd = DevicePath::from_bytes(&bytes).unwrap();
    assert_eq!(odd.nodes().next(), Some(Node::FilePath("\\a".to_string())));
}
