//! What a person reads about the machine in the menu.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use handoff::StoreState;
use hw::xen::XenCpuid;
use platform::{GuestKind, Platform};
use services::api;
use services::device_path::Node;
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::console::GraphicsOutputProtocol;
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;

use crate::devices::disk_name;
use crate::runtime_driver;

/// Names and values.
pub fn about(platform: &Platform, xen: XenCpuid) -> Vec<(String, String)> {
    let kind = match platform.kind {
        GuestKind::Pvh => "PVH guest",
        GuestKind::Hvm => "HVM guest",
    };
    let (major, minor) = xen.version;
    let facts = [
        ("Firmware", concat!("ovmf-xen ", env!("CARGO_PKG_VERSION"), ", UEFI 2.10").to_string()),
        ("Machine", format!("{kind} on Xen {major}.{minor}")),
        ("Memory", format!("{} MiB", platform.memory.ram() >> 20)),
        ("Disks", disks()),
        ("File systems", api::handles_with(&SimpleFileSystemProtocol::GUID).len().to_string()),
        ("Displays", api::handles_with(&GraphicsOutputProtocol::GUID).len().to_string()),
        ("Variables", variables()),
        ("Its words", words(platform)),
    ];
    facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn disks() -> String {
    let disks =
        api::handles_with(&BlockIoProtocol::GUID).into_iter().filter_map(|handle| api::device_path(handle).ok());
    let is_part = |node: Node| matches!(node, Node::HardDrive { .. } | Node::CdRom { .. });
    let whole = disks.filter(|path| !path.nodes().any(is_part));
    let names: Vec<String> = whole.map(|path| disk_name(&path).unwrap_or_else(|| path.to_text())).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn variables() -> String {
    let Some(report) = runtime_driver::store_report() else { return "none".into() };
    match report.state {
        StoreState::Opened | StoreState::Blank => {
            format!("{} at the start, {} of {} bytes", report.variables, report.used, report.capacity)
        }
        StoreState::Daemon => format!("{} of {} bytes, kept by the host", report.used, report.capacity),
        StoreState::Replaced => "the store was damaged; a new one was made".into(),
        StoreState::Unknown => "the store was not opened".into(),
    }
}

fn words(platform: &Platform) -> String {
    let line = String::from_utf8_lossy(&platform.command_line);
    let words: Vec<&str> = line.split_ascii_whitespace().filter(|word| word.starts_with("ovmf.")).collect();
    if words.is_empty() { "none".into() } else { words.join(" ") }
}
