//! `EFI_LOAD_OPTION`: the content of a `Boot####` variable (UEFI 2.10 §3.1.3). Written by anyone, so checked throughout.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use services::device_path::DevicePath;
use uefi_raw::{Guid, guid};

/// `LOAD_OPTION_ACTIVE`: the boot manager tries it on its own.
pub const ACTIVE: u32 = 1;
/// `LOAD_OPTION_FORCE_RECONNECT`: after a driver, devices get their drivers anew.
pub const FORCE_RECONNECT: u32 = 2;
/// `LOAD_OPTION_HIDDEN`: a menu does not show it.
pub const HIDDEN: u32 = 8;
/// `LOAD_OPTION_CATEGORY`: what kind of program; only boot programs (0) are tried, others when somebody chooses them.
const CATEGORY: u32 = 0x1F00;
/// Optional data that marks an entry which the boot manager made by itself and may remove again. It is EDK2's mark, so that
/// either firmware keeps the other's entries tidy when a variable store changes hands, and efibootmgr knows it.
const AUTOMATIC: Guid = guid!("8108ac4e-9f11-4d59-850e-e21a522c59b2");

/// Why a variable is no load option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadOptionError {
    /// It ends before the fixed part or within the description.
    Truncated,
    /// The device path is damaged or longer than the variable.
    DevicePath,
}

impl fmt::Display for LoadOptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "is cut short",
            Self::DevicePath => "has a damaged device path",
        })
    }
}

/// A load option, read from a variable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadOption {
    /// `LOAD_OPTION_*` bits.
    pub attributes: u32,
    /// What a menu shows.
    pub description: String,
    /// Device path of the program (the first of the list), whole or short-form.
    pub path: Vec<u8>,
    /// Passed to the program.
    pub optional_data: Vec<u8>,
}

impl LoadOption {
    /// An active option for a device that the boot manager found by itself.
    pub fn automatic(description: &str, path: &DevicePath) -> Self {
        Self {
            attributes: ACTIVE,
            description: description.to_string(),
            path: path.as_bytes().to_vec(),
            optional_data: AUTOMATIC.to_bytes().to_vec(),
        }
    }

    /// Whether the boot manager made it by itself.
    pub fn is_automatic(&self) -> bool {
        self.optional_data == AUTOMATIC.to_bytes()
    }

    /// Its path, typed.
    ///
    /// # Errors
    /// Never for an option that was read.
    pub fn path(&self) -> Result<&DevicePath, LoadOptionError> {
        DevicePath::from_bytes(&self.path).map_err(|_| LoadOptionError::DevicePath)
    }

    /// A variable's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A path that was read or made is no longer than this.
        let path_length = u16::try_from(self.path.len()).unwrap_or(u16::MAX);
        let mut bytes = self.attributes.to_le_bytes().to_vec();
        bytes.extend(path_length.to_le_bytes());
        bytes.extend(self.description.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        bytes.extend(&self.path);
        bytes.extend(&self.optional_data);
        bytes
    }

    /// Reads a variable's content.
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadOptionError> {
        let (attributes, rest) = bytes.split_first_chunk::<4>().ok_or(LoadOptionError::Truncated)?;
        let (path_length, rest) = rest.split_first_chunk::<2>().ok_or(LoadOptionError::Truncated)?;
        let units: Vec<u16> = rest.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        let length = units.iter().position(|unit| *unit == 0).ok_or(LoadOptionError::Truncated)?;
        let description = String::from_utf16_lossy(&units[..length]);
        let rest = rest.get((length + 1) * 2..).ok_or(LoadOptionError::Truncated)?;
        let path_length = usize::from(u16::from_le_bytes(*path_length));
        let (list, optional_data) = rest.split_at_checked(path_length).ok_or(LoadOptionError::DevicePath)?;
        // The list may hold several paths; the first one is the program.
        let path = DevicePath::from_bytes(list).map_err(|_| LoadOptionError::DevicePath)?;
        Ok(Self {
            attributes: u32::from_le_bytes(*attributes),
            description,
            path: path.as_bytes().to_vec(),
            optional_data: optional_data.to_vec(),
        })
    }

    /// Whether the boot manager tries it without being asked for it.
    pub fn is_active(&self) -> bool {
        self.attributes & ACTIVE != 0 && self.attributes & CATEGORY == 0
    }

    /// Whether a menu shows it.
    pub fn is_shown(&self) -> bool {
        self.attributes & HIDDEN == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file path node for `\a`, then the end node.
    const PATH: &[u8] = &[4, 4, 10, 0, b'\\', 0, b'a', 0, 0, 0, 0x7F, 0xFF, 4, 0];

    fn option(attributes: u32, description: &str, path: &[u8], data: &[u8]) -> Vec<u8> {
        let mut bytes = attributes.to_le_bytes().to_vec();
        bytes.extend((path.len() as u16).to_le_bytes());
        bytes.extend(description.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        bytes.extend(path);
        bytes.extend(data);
        bytes
    }

    #[test]
    fn a_whole_option_is_read() {
        let read = LoadOption::parse(&option(ACTIVE, "debian", PATH, b"quiet")).unwrap();
        assert_eq!(read.description, "debian");
        assert_eq!(read.path, PATH);
        assert_eq!(read.optional_data, b"quiet");
        assert!(read.is_active());
    }

    #[test]
    fn an_option_is_written_as_it_was_read() {
        let whole = option(ACTIVE | HIDDEN, "openSUSE \u{e4}", PATH, b"quiet");
        let read = LoadOption::parse(&whole).unwrap();
        assert_eq!(read.to_bytes(), whole);
        assert!(!read.is_automatic() && !read.is_shown());
    }

    #[test]
    fn what_the_boot_manager_makes_is_marked() {
        let made = LoadOption::automatic("xvda", DevicePath::from_bytes(PATH).unwrap());
        let read = LoadOption::parse(&made.to_bytes()).unwrap();
        assert_eq!(read, made);
        assert!(read.is_automatic() && read.is_active());
    }

    #[test]
    fn an_option_cut_anywhere_is_refused() {
        let whole = option(ACTIVE, "debian", PATH, b"");
        for length in 0..whole.len() {
            assert!(LoadOption::parse(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn hidden_and_application_options_are_not_tried() {
        assert!(!LoadOption::parse(&option(0, "x", PATH, b"")).unwrap().is_active());
        assert!(!LoadOption::parse(&option(ACTIVE | 0x100, "x", PATH, b"")).unwrap().is_active());
    }
}
