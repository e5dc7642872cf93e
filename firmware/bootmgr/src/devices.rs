//! What there is to boot from, and in which order kinds of it are tried.

use alloc::string::String;
use alloc::vec::Vec;

use services::Handle;
use services::device_path::DevicePathBuf;

/// A kind of device to boot from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A hard disk.
    HardDisk,
    /// A CD.
    Cd,
    /// A network device.
    Network,
}

impl Class {
    /// The letter that `boot=` of a guest's configuration has for it.
    pub const fn code(self) -> u8 {
        match self {
            Self::HardDisk => b'c',
            Self::Cd => b'd',
            Self::Network => b'n',
        }
    }
}

/// The order in which kinds of devices are tried.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceOrder {
    /// What the toolstack says, which may be nothing. Kinds that it does not name follow in the order of
    /// [`DeviceOrder::OTHERS`]: a guest that is installed from a CD is not to be lost because of its configuration.
    pub classes: Vec<Class>,
    /// Whether devices come before `BootOrder`.
    pub first: bool,
}

impl DeviceOrder {
    const OTHERS: [Class; 3] = [Class::HardDisk, Class::Cd, Class::Network];

    /// All kinds, each once.
    pub fn all(&self) -> Vec<Class> {
        let mut all = Vec::new();
        for class in self.classes.iter().chain(&Self::OTHERS) {
            if !all.contains(class) {
                all.push(*class);
            }
        }
        all
    }

    /// When a kind has its turn.
    pub fn rank(&self, class: Class) -> usize {
        self.all().iter().position(|other| *other == class).unwrap_or(usize::MAX)
    }
}

/// A disk, and the volumes found on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// What a person calls it: `xvda`.
    pub name: String,
    /// What kind it is of.
    pub class: Class,
    /// Its device path.
    pub path: DevicePathBuf,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// What is wrong with it, or why there is nothing on it: what a person calls the disk or partition, and the reason.
    pub problems: Vec<(String, String)>,
}

/// A device that has programs from elsewhere (`EFI_LOAD_FILE_PROTOCOL`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// What a person calls it.
    pub name: String,
    /// Its handle.
    pub handle: Handle,
}

/// A file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// What a person calls it: `xvda1`.
    pub name: String,
    /// Its handle.
    pub handle: Handle,
}
