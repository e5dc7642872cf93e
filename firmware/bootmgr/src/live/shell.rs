//! The UEFI Shell that the firmware's image carries, where it carries one.

use alloc::boxed::Box;

use services::api;
use services::device_path::{DevicePath, DevicePathBuf, Node};
use services::{Guid, Result};
use uefi_raw::guid;

/// The name of the UEFI Shell's file in every firmware (EDK2, `ShellPkg`: `gUefiShellFileGuid`).
pub const FILE: Guid = guid!("7c04a583-9e3e-4f1c-ad65-e05268d0b4d1");

/// A file of a firmware volume, as the PI specification has its device path (UEFI 2.10 §10.3.5.6).
pub struct Shell {
    path: DevicePathBuf,
    program: &'static [u8],
}

impl Shell {
    /// Makes the shell in the firmware volume of this name known. Programs can load it by its path, as it does itself to run a
    /// command for another program.
    ///
    /// # Errors
    /// `ALREADY_STARTED` if it is known.
    pub fn publish(volume: Guid, program: &'static [u8]) -> Result<Self> {
        let nodes = [Node::FirmwareVolume { guid: volume }, Node::FirmwareFile { guid: FILE }];
        let path = DevicePathBuf::from_nodes(&nodes)?;
        api::install_load_file_2(&path, Box::new(program))?;
        Ok(Self { path, program })
    }

    /// Its device path.
    pub fn path(&self) -> &DevicePath {
        &self.path
    }

    /// The program's file.
    pub fn program(&self) -> &'static [u8] {
        self.program
    }
}
