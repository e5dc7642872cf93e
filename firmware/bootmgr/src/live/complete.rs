//! Short-form device paths become whole (UEFI 2.10 §3.1.2).

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use services::Guid;
use services::api;
use services::device_path::{DevicePath, DevicePathBuf, Node, RawNode, Signature};
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::protocol::media::{LoadFile2Protocol, LoadFileProtocol};

use super::with_paths;
use crate::policy;

/// The whole device paths that a boot entry's path stands for: itself, or for a path that starts with a partition or a file,
/// that on every volume it fits. A path to a device alone gets the removable media path on the volumes below it, or stays for
/// a device that chooses its program itself. A file of a firmware volume is the one of that name here, whatever volume it was
/// in: the firmware that made the entry may have been another.
///
/// # Errors
/// For a short form that nothing here can complete.
pub(super) fn complete(path: &DevicePath) -> Result<Vec<DevicePathBuf>, String> {
    if let Some(guid) = path.last().as_ref().and_then(firmware_file) {
        let own = with_paths(&LoadFile2Protocol::GUID).into_iter().map(|(_, own)| own);
        let mut same = own.filter(|own| own.last().as_ref().and_then(firmware_file) == Some(guid));
        let none = "a program inside of a firmware, which this one's image does not carry";
        return same.next().map(|own| Vec::from([own])).ok_or_else(|| none.into());
    }
    let has_file = path.nodes().any(|node| matches!(node, Node::FilePath(_)));
    let default = Node::FilePath(policy::REMOVABLE_PATH.to_string());
    let prefixes: Vec<DevicePathBuf> = match path.nodes().next() {
        Some(Node::UsbClass { .. } | Node::UsbWwid { .. }) => {
            return Err("a USB device by its class or serial number: USB disks are not supported".into());
        }
        Some(Node::Uri { .. }) => return Err("an address on the network: booting by HTTP is not supported".into()),
        Some(Node::HardDrive { start, signature, .. }) => with_paths(&SimpleFileSystemProtocol::GUID)
            .into_iter()
            .map(|(_, volume)| volume)
            .filter(|volume| volume.as_path().nodes().any(|node| is_partition(&node, start, &signature)))
            .map(|volume| join(&volume, path, 1))
            .collect(),
        Some(Node::FilePath(_)) => {
            with_paths(&SimpleFileSystemProtocol::GUID).iter().map(|(_, volume)| join(volume, path, 0)).collect()
        }
        _ if !has_file => with_paths(&SimpleFileSystemProtocol::GUID)
            .into_iter()
            .map(|(_, volume)| volume)
            .filter(|volume| volume.as_path().starts_with(path))
            .collect(),
        _ => alloc::vec![path.to_owned()],
    };
    if has_file {
        return Ok(prefixes);
    }
    if prefixes.is_empty() && has_load_file(path) {
        return Ok(Vec::from([path.to_owned()]));
    }
    Ok(prefixes.into_iter().filter_map(|prefix| prefix.with(&default).ok()).collect())
}

/// Whether the path is that of a device that chooses its program itself, such as a network card.
fn has_load_file(path: &DevicePath) -> bool {
    let found = api::locate_device_path(&LoadFileProtocol::GUID, path);
    found.is_ok_and(|(_, remaining)| remaining.is_empty())
}

/// The name of the file, if the node is one of a firmware volume.
pub(super) fn firmware_file(node: &RawNode<'_>) -> Option<Guid> {
    match node.decode() {
        Node::FirmwareFile { guid } => Some(guid),
        _ => None,
    }
}

fn is_partition(node: &Node, wanted_start: u64, wanted: &Signature) -> bool {
    matches!(node, Node::HardDrive { start, signature, .. } if *start == wanted_start && signature == wanted)
}

/// `volume` followed by the nodes of `path` from number `skip` on.
fn join(volume: &DevicePathBuf, path: &DevicePath, skip: usize) -> DevicePathBuf {
    let mut joined = volume.clone();
    for node in path.nodes().skip(skip) {
        if joined.push(&node).is_err() {
            break;
        }
    }
    joined
}

// It uses the one core, which Miri leaves out in `services` too.
#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::live::shell::{self, Shell};
    use core::ptr::null_mut;
    use services::device_path::PartitionFormat;
    use uefi_raw::protocol::device_path::DevicePathProtocol;

    fn path(nodes: &[Node]) -> DevicePathBuf {
        DevicePathBuf::from_nodes(nodes).unwrap()
    }

    fn partition(number: u32, signature: u8) -> Node {
        let signature = Signature::Guid(uefi_raw::Guid::from_bytes([signature; 16]));
        let (start, format) = (u64::from(number) * 2048, PartitionFormat::GPT);
        Node::HardDrive { partition: number, start, size: 2048, format, signature }
    }

    fn file(name: &str) -> Node {
        Node::FilePath(name.into())
    }

    fn handle(path: &DevicePathBuf, protocol: uefi_raw::Guid) {
        let bytes: &'static mut [u8] = path.as_bytes().to_vec().leak();
        let interfaces = [(DevicePathProtocol::GUID, bytes.as_mut_ptr().cast()), (protocol, null_mut())];
        api::install_protocols(None, &interfaces).unwrap();
    }

    // One test, as all use the one core.
    #[test]
    fn short_forms_become_the_paths_that_they_fit() {
        let disk = |number: u32| Node::Controller { number: 7000 + number };
        let volumes = [[disk(1), partition(1, 1)], [disk(1), partition(2, 2)], [disk(2), partition(1, 3)]];
        let volumes = volumes.map(|nodes| path(&nodes));
        volumes.iter().for_each(|volume| handle(volume, SimpleFileSystemProtocol::GUID));
        let card = path(&[Node::Mac { address: [2; 32], if_type: 1 }]);
        handle(&card, LoadFileProtocol::GUID);

        let grub = file("\\EFI\\debian\\grubx64.efi");
        let whole = |volume: &DevicePathBuf, node: &Node| volume.clone().with(node).unwrap();
        // A partition, by signature and start; one that is not there.
        assert_eq!(complete(&path(&[partition(2, 2), grub.clone()])), Ok(Vec::from([whole(&volumes[1], &grub)])));
        assert_eq!(complete(&path(&[partition(2, 3), grub.clone()])), Ok(Vec::new()));
        // A file, on every volume.
        assert_eq!(
            complete(&path(core::slice::from_ref(&grub))),
            Ok(volumes.iter().map(|volume| whole(volume, &grub)).collect())
        );
        // A disk or a partition without a file: the removable media path.
        let removable = file(policy::REMOVABLE_PATH);
        let both = Vec::from([whole(&volumes[0], &removable), whole(&volumes[1], &removable)]);
        assert_eq!(complete(&path(&[disk(1)])), Ok(both));
        assert_eq!(complete(&path(&[partition(1, 3)])), Ok(Vec::from([whole(&volumes[2], &removable)])));
        // A device that chooses by itself, and one that is not there.
        assert_eq!(complete(&card), Ok(Vec::from([card.clone()])));
        assert_eq!(complete(&path(&[disk(3)])), Ok(Vec::new()));
        // A whole path stays; what cannot be completed says why.
        let long = whole(&volumes[0], &grub);
        assert_eq!(complete(&long), Ok(Vec::from([long.clone()])));
        // The shell of another firmware, by the name of its volume or by its place in memory; another program.
        let (volume, program) = (Guid::from_bytes([1; 16]), b"MZ");
        let shell = Shell::publish(volume, program).unwrap();
        let in_firmware = |node: Node, guid: Guid| path(&[node, Node::FirmwareFile { guid }]);
        let others = Guid::from_bytes([2; 16]);
        let mapped = Node::MemoryMapped { memory_type: 11, start: 0x80_0000, end: 0xFF_FFFF };
        for node in [Node::FirmwareVolume { guid: others }, Node::FirmwareVolume { guid: volume }, mapped] {
            let own = complete(&in_firmware(node, shell::FILE)).unwrap();
            assert_eq!(own.iter().map(DevicePathBuf::as_path).collect::<Vec<_>>(), [shell.path()]);
        }
        let other = in_firmware(Node::FirmwareVolume { guid: volume }, others);
        assert!(complete(&other).unwrap_err().contains("does not carry"));
        let usb = Node::UsbClass { vendor: 0xFFFF, product: 0xFFFF, class: 8, sub_class: 6, protocol: 0x50 };
        assert!(complete(&path(&[usb, grub])).unwrap_err().contains("USB"));
        assert!(complete(&path(&[Node::Uri { uri: "http://x/".into() }])).unwrap_err().contains("HTTP"));
    }
}
