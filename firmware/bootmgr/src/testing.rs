//! What the tests of several modules need.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use services::device_path::{DevicePathBuf, Node};
use services::{Handle, Status};
use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;

use crate::devices::{Class, Disk, Volume};
use crate::variables::{GLOBAL, Variables};

/// Variables in a table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Store {
    pub variables: BTreeMap<([u8; 16], String), Vec<u8>>,
    /// Every write is refused.
    pub full: bool,
    /// How many writes there were.
    pub writes: usize,
}

impl Store {
    /// Puts a global variable there.
    pub fn put(&mut self, name: &str, data: &[u8]) {
        self.variables.insert((GLOBAL.to_bytes(), name.to_string()), data.to_vec());
    }
}

impl Variables for Store {
    fn get(&self, vendor: &Guid, name: &str) -> Option<Vec<u8>> {
        self.variables.get(&(vendor.to_bytes(), name.to_string())).cloned()
    }

    fn set(&mut self, vendor: &Guid, name: &str, _attributes: VariableAttributes, data: &[u8]) -> Result<(), Status> {
        if self.full {
            return Err(Status::OUT_OF_RESOURCES);
        }
        self.writes += 1;
        let key = (vendor.to_bytes(), name.to_string());
        if data.is_empty() {
            self.variables.remove(&key).map(drop).ok_or(Status::NOT_FOUND)
        } else {
            self.variables.insert(key, data.to_vec());
            Ok(())
        }
    }
}

/// A handle to tell from others.
pub fn handle(number: usize) -> Handle {
    core::ptr::without_provenance_mut(number)
}

/// A disk with one volume, whose handle is made of the last letter of the name.
pub fn disk(name: &str, class: Class) -> Disk {
    let number = usize::from(name.as_bytes()[name.len() - 1]);
    let volume = Volume { name: format!("{name}1"), handle: handle(number) };
    let path = DevicePathBuf::new().with(&Node::Controller { number: number as u32 }).unwrap();
    Disk { name: name.to_string(), class, path, volumes: alloc::vec![volume], problems: Vec::new() }
}

/// A load option without a path.
pub fn entry(attributes: u32, description: &str) -> Vec<u8> {
    let mut bytes = attributes.to_le_bytes().to_vec();
    bytes.extend([4, 0]);
    bytes.extend(description.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    bytes.extend([0x7F, 0xFF, 4, 0]);
    bytes
}
