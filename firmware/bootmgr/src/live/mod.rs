//! The running firmware behind [`crate::firmware::Firmware`] and [`crate::menu::System`].
//!
//! | module | what |
//! | --- | --- |
//! | [`complete`] | short-form device paths become whole |
//! | [`runtime`] | the runtime services: variables, time, reset |
//! | [`shell`] | the UEFI Shell that the image carries |
//! | [`system`] | what the menu asks |
//! | [`screen`] | the console as the menu's display and keyboard |

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use services::api;
use services::device_path::{DevicePath, DevicePathBuf, Node};
use services::event::{SECOND, group};
use services::file::{DirectoryEntry, FileSource};
use services::handle::OpenAttributes;
use services::image::LoadError;
use services::{Guid, Handle, Status};
use uefi_raw::guid;
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::protocol::media::LoadFileProtocol;

use crate::devices::{Class, DeviceOrder, Disk, Network, Volume};
use crate::firmware::{Firmware, Loaded};
use crate::load_option::LoadOption;
use crate::menu::{self, Choice};
use crate::policy::{self, Wishes};
use crate::status::status_text;

mod complete;
mod runtime;
mod screen;
pub mod shell;
mod system;

pub use shell::Shell;

/// Vendor media of the RAM disk that a Linux kernel's EFI stub takes: `LINUX_EFI_INITRD_MEDIA_GUID` (Linux,
/// `include/linux/efi.h`).
const LINUX_INITRD: Guid = guid!("5568e427-68fc-4f3d-ac74-ca555231cc68");
/// How long a boot program may run before it must have taken over or set the watchdog itself (UEFI 2.10 §3.1.2).
const WATCHDOG_SECONDS: u64 = 5 * 60;

/// What the boot manager asks of whoever put the firmware together.
pub trait Host {
    /// Name of the disk at `path`, as the guest's configuration has it.
    fn disk_name(&self, path: &DevicePath) -> Option<String>;
    /// Why no file system was found on `disk`.
    fn diagnosis(&self, disk: Handle) -> Option<String>;
    /// What is wrong with devices that could not be used at all.
    fn failures(&self) -> Vec<String>;
    /// What the guest's configuration gives to boot beside the disks.
    fn kernel(&self) -> Option<Kernel> {
        None
    }
    /// The UEFI Shell that the firmware's image carries.
    fn shell(&self) -> Option<&Shell> {
        None
    }
    /// In which order devices are tried.
    fn device_order(&self) -> DeviceOrder {
        DeviceOrder::default()
    }
    /// Starts drivers that network devices bring along.
    fn start_network_drivers(&self) {}
    /// Whether variables outlast the guest.
    fn variables_last(&self) -> bool;
    /// What is known of the machine, for a person: names and values.
    fn information(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// The last lines of the firmware's log.
    fn log(&self) -> Vec<String> {
        Vec::new()
    }
    /// A program is about to be loaded.
    fn loading(&self);
    /// A program is about to be started.
    fn starting(&self);
}

/// A kernel that the guest's configuration names.
pub struct Kernel {
    /// The program, or why it could not be read.
    pub program: Result<Cow<'static, [u8]>, String>,
    /// Its RAM disk.
    pub initrd: Option<Box<dyn FileSource>>,
    /// Its command line.
    pub command_line: String,
}

/// The running firmware.
pub struct Live<'a> {
    host: &'a dyn Host,
    /// Where the RAM disk of the kernel that is about to start is published.
    initrd: Option<Handle>,
    /// The disks when they were last asked for.
    disks: Vec<Disk>,
}

/// Boots what there is to boot. Comes back when nothing is left to try.
pub fn boot(host: &dyn Host, wishes: Wishes) {
    policy::boot(&mut Live { host, initrd: None, disks: Vec::new() }, wishes);
}

impl Live<'_> {
    fn load(&mut self, path: &DevicePath) -> Result<Handle, LoadError> {
        self.host.loading();
        let built_in = self.host.shell().filter(|shell| shell.path() == path).map(Shell::program);
        api::load_image(true, api::firmware_image(), Some(path), built_in)
    }

    /// Loads a kernel, and publishes its RAM disk where it looks for one.
    fn load_kernel(&mut self, kernel: Kernel) -> Loaded {
        self.host.loading();
        let program = kernel.program?;
        let loaded =
            api::load_image(true, api::firmware_image(), None, Some(&program)).map_err(|error| match error {
                LoadError::Pe(_) => format!(
                    "{error}. What is started here has to be an EFI program, as Linux kernels with EFI stub are"
                ),
                _ => error.to_string(),
            })?;
        let options: Vec<u8> = utf16(&kernel.command_line).into_iter().flat_map(u16::to_le_bytes).collect();
        let prepared = api::set_load_options(loaded, &options).and_then(|()| {
            let Some(initrd) = kernel.initrd else { return Ok(()) };
            let node = Node::VendorMedia { guid: LINUX_INITRD, data: Vec::new() };
            self.initrd = Some(api::install_load_file_2(&DevicePathBuf::new().with(&node)?, initrd)?);
            Ok(())
        });
        prepared.map(|()| loaded).map_err(|status| {
            let _ = api::unload_image(loaded);
            format!("cannot be started: {}", status_text(status))
        })
    }

    /// The disk at `path` with what is on it.
    fn disk(
        &self,
        handle: Handle,
        path: &DevicePath,
        partitions: &[(Handle, DevicePathBuf)],
        volumes: &[(Handle, DevicePathBuf)],
    ) -> Disk {
        let name = self.name(path);
        let own = |all: &[(Handle, DevicePathBuf)]| {
            let own = all.iter().filter(|(_, other)| other.as_path().starts_with(path));
            let mut own: Vec<(Part, Handle)> =
                own.map(|(handle, other)| (Part::of(other.as_path()), *handle)).collect();
            own.sort_unstable();
            own
        };
        let volumes: Vec<Volume> =
            own(volumes).into_iter().map(|(part, handle)| Volume { name: part.name(&name), handle }).collect();
        let mut problems: Vec<(String, String)> =
            self.host.diagnosis(handle).map(|reason| (name.clone(), reason)).into_iter().collect();
        // Beside a volume, a partition without one is an operating system's own and no news.
        let silent = if volumes.is_empty() { own(partitions) } else { Vec::new() };
        problems.extend(silent.into_iter().map(|(part, partition)| {
            let reason = self.host.diagnosis(partition).unwrap_or_else(|| "no file system found".to_string());
            (part.name(&name), reason)
        }));
        if volumes.is_empty() && problems.is_empty() {
            problems.push((name.clone(), "no file system found".to_string()));
        }
        let class = if is_cd(handle) { Class::Cd } else { Class::HardDisk };
        Disk { name, class, path: path.to_owned(), volumes, problems }
    }

    /// The disk's name, or its device path in words.
    fn name(&self, path: &DevicePath) -> String {
        self.host.disk_name(path).unwrap_or_else(|| path.to_text())
    }
}

impl Firmware for Live<'_> {
    fn load_kernel(&mut self) -> Option<Loaded> {
        let kernel = self.host.kernel()?;
        Some(self.load_kernel(kernel))
    }

    fn device_order(&mut self) -> DeviceOrder {
        self.host.device_order()
    }

    fn load_network(&mut self, network: &Network) -> Loaded {
        let path = api::device_path(network.handle).map_err(status_text)?;
        self.load(path.as_path()).map_err(|error| error.to_string())
    }

    fn networks(&mut self) -> Vec<Network> {
        self.host.start_network_drivers();
        let is_network = |path: &DevicePathBuf| path.as_path().nodes().any(|node| matches!(node, Node::Mac { .. }));
        let devices = with_paths(&LoadFileProtocol::GUID).into_iter().filter(|(_, path)| is_network(path));
        devices.map(|(handle, path)| Network { name: path.as_path().to_text(), handle }).collect()
    }

    fn load_option(&mut self, option: &LoadOption) -> Loaded {
        let path = option.path().map_err(|error| error.to_string())?;
        if path.nodes().any(|node| matches!(node, Node::Mac { .. })) {
            self.host.start_network_drivers();
        }
        let candidates = complete::complete(path)?;
        let mut reason = "its device is not there".to_string();
        for candidate in candidates {
            match self.load(candidate.as_path()) {
                Ok(program) => {
                    if let Err(status) = api::set_load_options(program, &option.optional_data) {
                        log::warn!("load options: {status}");
                    }
                    return Ok(program);
                }
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }

    fn load_file(&mut self, volume: &Volume, path: &str) -> Option<Loaded> {
        let whole = api::device_path(volume.handle).ok()?.with(&Node::FilePath(path.to_string())).ok()?;
        match self.load(whole.as_path()) {
            Err(LoadError::NotFound) => None,
            loaded => Some(loaded.map_err(|error| error.to_string())),
        }
    }

    fn load_shell(&mut self) -> Loaded {
        let path = self.host.shell().map(|shell| shell.path().to_owned()).ok_or("this image carries none")?;
        self.load(&path).map_err(|error| error.to_string())
    }

    fn start(&mut self, program: Handle) -> Status {
        api::signal_group(&group::READY_TO_BOOT);
        api::signal_group(&group::AFTER_READY_TO_BOOT);
        let _ = api::set_watchdog(WATCHDOG_SECONDS, 0);
        self.host.starting();
        let status = api::start_image(program).unwrap_or_else(|status| status);
        let _ = api::set_watchdog(0, 0);
        if let Some(initrd) = self.initrd.take() {
            // It is not for what is started next.
            let _ = api::uninstall_load_file_2(initrd);
        }
        status
    }

    fn start_before(&mut self, program: Handle) -> Status {
        api::start_image(program).unwrap_or_else(|status| status)
    }

    fn connect(&mut self, anew: bool) {
        if anew {
            // Most handles are no controllers, and a driver may refuse.
            for handle in api::all_handles() {
                let _ = api::disconnect(handle);
            }
        }
        api::connect_all();
    }

    fn list(&mut self, volume: &Volume, path: &str) -> Result<Vec<DirectoryEntry>, String> {
        api::list_directory(volume.handle, path).map_err(|error| error.to_string())
    }

    fn exists(&mut self, volume: &Volume, path: &str) -> bool {
        api::file_exists(volume.handle, path)
    }

    fn disks(&mut self) -> Vec<Disk> {
        let volumes = with_paths(&SimpleFileSystemProtocol::GUID);
        let (partitions, disks): (Vec<_>, Vec<_>) = with_paths(&BlockIoProtocol::GUID)
            .into_iter()
            .partition(|(_, path)| Part::of(path.as_path()) != Part::Whole);
        let mut disks: Vec<Disk> =
            disks.iter().map(|(handle, path)| self.disk(*handle, path.as_path(), &partitions, &volumes)).collect();
        // xvdz comes before xvdaa.
        disks.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        self.disks.clone_from(&disks);
        disks
    }

    fn variables_last(&self) -> bool {
        self.host.variables_last()
    }

    fn failures(&mut self) -> Vec<String> {
        self.host.failures()
    }

    fn say(&mut self, line: &str) {
        say(line);
    }

    fn is_menu_wanted(&mut self, seconds: u16) -> bool {
        screen::is_menu_wanted(seconds)
    }

    fn wait_for_key(&mut self, seconds: Option<u16>) -> bool {
        api::wait_for_key(seconds.map(|seconds| u64::from(seconds) * SECOND)).is_some()
    }

    fn menu(&mut self, message: Option<String>) -> Choice {
        let _ = self.disks();
        screen::with(|screen| menu::run(self, screen, message, screen::key))
    }
}

/// What of a disk a device path leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    /// All of it.
    Whole,
    /// The partition with this number.
    Partition(u32),
    /// The boot image with this number in the catalog of a CD.
    BootImage(u32),
}

impl Part {
    fn of(path: &DevicePath) -> Self {
        let parts = path.nodes().filter_map(|node| match node {
            Node::HardDrive { partition, .. } => Some(Self::Partition(partition)),
            Node::CdRom { boot_entry, .. } => Some(Self::BootImage(boot_entry)),
            _ => None,
        });
        parts.last().unwrap_or(Self::Whole)
    }

    /// What a person calls it on the disk of this name.
    fn name(self, disk: &str) -> String {
        match self {
            Self::Whole => disk.to_string(),
            Self::Partition(number) => format!("{disk}{number}"),
            Self::BootImage(number) => format!("{disk} (CD boot image {number})"),
        }
    }
}

/// Whether the medium of a disk can be taken out and is not written, as that of a CD-ROM drive.
fn is_cd(disk: Handle) -> bool {
    let agent = api::firmware_image();
    let disk = api::open_block_io(disk, agent, disk, OpenAttributes::GET_PROTOCOL);
    disk.is_ok_and(|disk| disk.media().removable_media.is_true() && disk.media().read_only.is_true())
}

fn with_paths(protocol: &Guid) -> Vec<(Handle, DevicePathBuf)> {
    let handles = api::handles_with(protocol).into_iter();
    handles.filter_map(|handle| Some((handle, api::device_path(handle).ok()?))).collect()
}

/// Prints a line on the console.
pub fn say(line: &str) {
    log::info!("{line}");
    api::print(&format!("{line}\r\n"));
}

/// Text with a null.
fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_disks_are_called_what_people_call_them() {
        let disk = DevicePathBuf::new().with(&Node::Controller { number: 1 }).unwrap();
        let cd = disk.clone().with(&Node::CdRom { boot_entry: 0, start: 20, size: 4 }).unwrap();
        let partition = disk.clone().with(&Node::HardDrive {
            partition: 2,
            start: 2048,
            size: 4,
            format: services::device_path::PartitionFormat::MBR,
            signature: services::device_path::Signature::Mbr(1),
        });
        let names = [disk, partition.unwrap(), cd].map(|path| Part::of(path.as_path()).name("xvdc"));
        assert_eq!(names, ["xvdc", "xvdc2", "xvdc (CD boot image 0)"]);
    }
}
