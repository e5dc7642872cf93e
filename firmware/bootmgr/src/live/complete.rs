//! Short-form device paths become whole (UEFI 2.10 §3.1.2).

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use services::api;
use services::device_path::{DevicePath, DevicePathBuf, Node, Signature};
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::protocol::media::LoadFileProtocol;

use super::with_paths;
use crate::policy;

/// The whole device paths that a boot entry's path stands for: itself, or for a path that starts with a partition or a file,
/// that on every volume it fits. A path to a device alone gets the removable media path on the volumes below it, or stays for
/// a device that chooses its program itself.
///
/// # Errors
/// For a short form that nothing here can complete.
pub(super) fn complete(path: &DevicePath) -> Result<Vec<DevicePathBuf>, String> {
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
