//! What the menu asks the running firmware.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use services::api;
use services::device_path::{DevicePath, DevicePathBuf, Node};
use services::file::DirectoryEntry;
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::table::runtime::ResetType;

use super::{Live, complete, runtime, with_paths};
use crate::automatic;
use crate::devices::{Class, Volume};
use crate::load_option::LoadOption;
use crate::menu::System;
use crate::menu::start::IN_FIRMWARE;

impl System for Live<'_> {
    fn name(&self) -> String {
        concat!("ovmf-xen ", env!("CARGO_PKG_VERSION")).into()
    }

    fn volumes(&mut self) -> Vec<Volume> {
        let mut volumes: Vec<Volume> = self.disks.iter().flat_map(|disk| disk.volumes.clone()).collect();
        // Drivers of others may have file systems that are on no disk.
        for (handle, path) in with_paths(&SimpleFileSystemProtocol::GUID) {
            if volumes.iter().all(|volume| volume.handle != handle) {
                volumes.push(Volume { name: path.as_path().to_text(), handle });
            }
        }
        volumes
    }

    fn list(&mut self, volume: &Volume, path: &str) -> Result<Vec<DirectoryEntry>, String> {
        api::list_directory(volume.handle, path).map_err(|error| error.to_string())
    }

    fn read(&mut self, volume: &Volume, path: &str) -> Result<Vec<u8>, String> {
        api::read_file(volume.handle, path).map_err(|error| error.to_string())
    }

    fn has_shell(&self) -> bool {
        self.host.shell().is_some()
    }

    fn place(&mut self, option: &LoadOption) -> String {
        if option.is_automatic() {
            return match automatic::disk_of(option, &self.disks).map(|disk| disk.class) {
                Some(Class::HardDisk) => "disk".into(),
                Some(Class::Cd) => "CD".into(),
                Some(Class::Network) => "network".into(),
                None => "is not there".into(),
            };
        }
        let Ok(path) = option.path() else { return String::new() };
        match complete::complete(path) {
            Ok(candidates) => {
                let named = candidates.iter().find_map(|candidate| self.place_of(candidate));
                named.unwrap_or_else(|| path.to_text())
            }
            Err(reason) => reason,
        }
    }

    fn information(&self) -> Vec<(String, String)> {
        self.host.information()
    }

    fn log(&self) -> Vec<String> {
        self.host.log()
    }

    fn time(&self) -> [u8; 16] {
        runtime::time()
    }

    fn restart(&mut self) {
        runtime::reset(ResetType::COLD);
    }

    fn power_off(&mut self) {
        runtime::reset(ResetType::SHUTDOWN);
    }
}

impl Live<'_> {
    /// A file on a volume that has a name, or the firmware's shell; `None` for anything else.
    fn place_of(&self, whole: &DevicePathBuf) -> Option<String> {
        if self.host.shell().is_some_and(|shell| shell.path() == whole.as_path()) {
            return Some(IN_FIRMWARE.into());
        }
        let (handle, rest) = api::locate_device_path(&SimpleFileSystemProtocol::GUID, whole).ok()?;
        let mut volumes = self.disks.iter().flat_map(|disk| &disk.volumes);
        let volume = volumes.find(|volume| volume.handle == handle)?;
        Some(format!("{}:{}", volume.name, file_of(rest)))
    }
}

/// The file names of a path, as one.
fn file_of(path: &DevicePath) -> String {
    let names = path.nodes().filter_map(|node| match node {
        Node::FilePath(name) => Some(name),
        _ => None,
    });
    names.collect::<Vec<_>>().join("\\")
}
