//! The variables of an image or store: read, changed in a copy of its bytes.
//!
//! What is changed here is the file's owner's to change: signatures are not asked for, and a variable that only
//! authenticated writes can change in a guest keeps its time stamp.

use std::ops::Range;

use anyhow::{Context as _, Result, anyhow, bail};
use image::dissect::nv::Variable;
use image::dissect::{Content, Dissection};
use serde::Serialize;
use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;
use variables::backend::NoMedium;
use variables::store::{Meta, StoreError};
use variables::{Key, Store, journal, volume};

use crate::guids;

/// Attributes by the letters people use for them.
const ATTRIBUTES: [(&str, VariableAttributes); 8] = [
    ("NV", VariableAttributes::NON_VOLATILE),
    ("BS", VariableAttributes::BOOTSERVICE_ACCESS),
    ("RT", VariableAttributes::RUNTIME_ACCESS),
    ("HR", VariableAttributes::HARDWARE_ERROR_RECORD),
    ("AW", VariableAttributes::AUTHENTICATED_WRITE_ACCESS),
    ("AT", VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS),
    ("AP", VariableAttributes::APPEND_WRITE),
    ("EA", VariableAttributes::ENHANCED_AUTHENTICATED_ACCESS),
];

/// An image or store whose variables are worked on.
#[derive(Debug, Clone)]
pub struct VarStore {
    bytes: Vec<u8>,
    /// Where the volume of variables is.
    range: Range<usize>,
}

/// The variables in the form that `virt-fw-vars --output-json` writes and `--set-json` reads.
#[derive(Debug, Serialize)]
pub struct List {
    version: u32,
    variables: Vec<Item>,
}

#[derive(Debug, Serialize)]
struct Item {
    name: String,
    guid: Guid,
    attr: u32,
    data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
}

impl VarStore {
    /// Finds the variables of an image or store. A write that was cut is finished in the copy.
    ///
    /// # Errors
    /// There are none, or they cannot be read.
    pub fn open(bytes: Vec<u8>) -> Result<Self> {
        let dissection = Dissection::of(&bytes);
        let region = dissection.variables().context("there is no variable store in it; `inspect` shows what is")?;
        let range = region.range();
        let mut store = Self { bytes, range: range.clone() };
        journal::recover(&mut store.bytes[range], &mut NoMedium).map_err(|_| anyhow!("its journal cannot be read"))?;
        store.store()?;
        Ok(store)
    }

    /// The variables in their order.
    #[must_use]
    pub fn variables(&self) -> Vec<Variable> {
        let dissection = Dissection::of(&self.bytes[self.range.clone()]);
        let contents = dissection.regions.into_iter().map(|region| region.content);
        let stores = contents.filter_map(|content| match content {
            Content::Vars(variables) => Some(variables.variables),
            _ => None,
        });
        stores.flatten().collect()
    }

    /// The variables for `--json`.
    #[must_use]
    pub fn list(&self) -> List {
        let item = |variable: Variable| Item {
            time: has_time(&variable.time_stamp).then(|| hex::encode(variable.time_stamp)),
            name: variable.name,
            guid: variable.guid,
            attr: variable.attributes,
            data: hex::encode(variable.data),
        };
        List { version: 2, variables: self.variables().into_iter().map(item).collect() }
    }

    /// The variable of that name. Without a vendor there must be only one.
    ///
    /// # Errors
    /// There is none, or more than one; the message says which.
    pub fn find(&self, name: &str, vendor: Option<Guid>) -> Result<Variable> {
        let mut found = self.variables();
        found.retain(|variable| variable.name == name && vendor.is_none_or(|vendor| vendor == variable.guid));
        if let [_, _, ..] = found[..] {
            let vendors: Vec<_> = found.iter().map(|variable| variable.guid.to_string()).collect();
            bail!("there are {} variables {name}; name one with --guid: {}", found.len(), vendors.join(", "));
        }
        found.pop().with_context(|| format!("there is no variable {name}; `vars list` shows what there is"))
    }

    /// Makes or replaces a variable. An existing one keeps what is not given.
    ///
    /// # Errors
    /// The name or data cannot be stored, it is not clear which variable is meant, or the store is full.
    pub fn set(&mut self, name: &str, vendor: Option<Guid>, attributes: Option<u32>, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            bail!("a variable without data cannot be; `vars delete` deletes one");
        }
        let known = |variable: &Variable| variable.name == name && vendor.is_none_or(|guid| guid == variable.guid);
        let old = match self.variables().iter().any(known) {
            true => Some(self.find(name, vendor)?),
            false => None,
        };
        let vendor = old.as_ref().map(|old| old.guid).or(vendor).unwrap_or(guids::GLOBAL);
        let usual = ATTRIBUTES[..3].iter().fold(0, |all, (_, one)| all | one.bits());
        let meta = Meta {
            attributes: attributes.or(old.as_ref().map(|old| old.attributes)).unwrap_or(usual),
            time_stamp: old.map_or([0; 16], |old| old.time_stamp),
        };
        let units: Vec<u16> = name.encode_utf16().collect();
        let key = Key::new(vendor, &units);
        if !key.is_valid() {
            bail!("a name cannot be empty or contain NUL");
        }
        let mut store = self.store()?;
        store.write(key, meta, data).map_err(|error| match error {
            StoreError::Full => anyhow!("the store is full: {} bytes are free", store.available()),
            StoreError::Backend => anyhow!("the store cannot be written"),
        })
    }

    /// Deletes a variable.
    ///
    /// # Errors
    /// As those of [`Self::find`].
    pub fn delete(&mut self, name: &str, vendor: Option<Guid>) -> Result<()> {
        let found = self.find(name, vendor)?;
        let units: Vec<u16> = name.encode_utf16().collect();
        self.store()?.delete(Key::new(found.guid, &units)).map_err(|_| anyhow!("the store cannot be written"))
    }

    /// The image with what was changed.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn store(&mut self) -> Result<Store<&mut [u8]>> {
        let volume = &mut self.bytes[self.range.clone()];
        let problem = || "the variable store is damaged; `inspect` says where";
        let offset = volume::store_offset(volume).map_err(|_| anyhow!(problem()))?;
        Store::open(volume, offset).map_err(|_| anyhow!(problem()))
    }
}

/// Attributes in letters: `NV+BS+RT`.
#[must_use]
pub fn attributes_text(attributes: u32) -> String {
    let mut rest = attributes;
    let mut names: Vec<String> = Vec::new();
    for (name, bit) in ATTRIBUTES {
        if attributes & bit.bits() != 0 {
            names.push(name.to_owned());
            rest &= !bit.bits();
        }
    }
    if rest != 0 || names.is_empty() {
        names.push(format!("{rest:#x}"));
    }
    names.join("+")
}

/// Attributes from letters or a number.
///
/// # Errors
/// A word is not known; the message lists those that are.
pub fn parse_attributes(text: &str) -> Result<u32, String> {
    if let Some(number) = text.strip_prefix("0x") {
        return u32::from_str_radix(number, 16).map_err(|error| error.to_string());
    }
    text.split(['+', ',']).try_fold(0, |all, word| {
        let found = ATTRIBUTES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        let names = ATTRIBUTES.map(|(name, _)| name).join(", ");
        found.map(|(_, bit)| all | bit.bits()).ok_or_else(|| format!("{word:?} is none of {names}"))
    })
}

/// An EFI_TIME for people; `None` where there is none.
#[must_use]
pub fn time_text(time: &[u8; 16]) -> Option<String> {
    let [year, century, month, day, hour, minute, second, ..] = *time;
    let year = u16::from_le_bytes([year, century]);
    has_time(time).then(|| format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"))
}

fn has_time(time: &[u8; 16]) -> bool {
    time[..2] != [0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::layout::VarsLayout;

    fn empty() -> VarStore {
        let layout = VarsLayout { store: 0x2000, event_log: 0x1000, ftw_working: 0x1000, ftw_spare: 0x4000 };
        VarStore::open(image::vars::empty(&layout)).unwrap()
    }

    #[test]
    fn a_variable_is_set_found_and_deleted() {
        let mut store = empty();
        store.set("Timeout", None, None, &[5, 0]).unwrap();
        let found = store.find("Timeout", None).unwrap();
        assert_eq!((found.guid, found.attributes, found.data), (guids::GLOBAL, 7, vec![5, 0]));
        let vendor = guids::parse("Shim").unwrap();
        store.set("Timeout", Some(vendor), Some(3), &[1]).unwrap();
        assert!(store.find("Timeout", None).unwrap_err().to_string().contains("--guid"));
        assert!(store.set("Timeout", None, None, &[1]).is_err());
        store.set("Timeout", Some(vendor), None, &[2]).unwrap();
        assert_eq!(store.find("Timeout", Some(vendor)).unwrap().attributes, 3);
        store.delete("Timeout", Some(guids::GLOBAL)).unwrap();
        let mut again = VarStore::open(store.into_bytes()).unwrap();
        assert_eq!(again.variables().len(), 1);
        assert!(again.delete("BootNext", None).unwrap_err().to_string().contains("no variable BootNext"));
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let mut store = empty();
        assert!(store.set("", None, None, &[1]).is_err());
        assert!(store.set("A", None, None, &[]).unwrap_err().to_string().contains("vars delete"));
        assert!(store.set("A", None, None, &[0; 0x2000]).unwrap_err().to_string().contains("full"));
        assert!(VarStore::open(vec![0; 0x8000]).unwrap_err().to_string().contains("no variable store"));
    }

    #[test]
    fn no_damage_and_no_cut_panics() {
        let mut store = empty();
        for name in ["Boot0001", "Timeout", "BootOrder"] {
            store.set(name, None, None, &[1; 40]).unwrap();
            store.set(name, None, None, &[2; 50]).unwrap();
        }
        let clean = store.into_bytes();
        // A multiplicative sequence: the same damage in each run.
        let mut seed = 1u64;
        let mut below = |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % limit
        };
        for _ in 0..300 {
            let mut bytes = clean.clone();
            for _ in 0..=below(5) {
                let at = [below(0x400), 0x3000 + below(0x80)][below(2)];
                bytes[at] = below(256) as u8;
            }
            if below(3) == 0 {
                bytes.truncate(below(0x1000));
            }
            let Ok(mut store) = VarStore::open(bytes) else { continue };
            _ = store.variables();
            _ = store.set("Timeout", None, None, &[3; 60]);
            _ = store.delete("Boot0001", None);
            _ = store.list();
        }
    }

    #[test]
    fn attributes_are_read_as_they_are_shown() {
        for attributes in [7, 0x27, 0x1, 0x67] {
            assert_eq!(parse_attributes(&attributes_text(attributes)), Ok(attributes));
        }
        assert_eq!(parse_attributes("nv,bs"), Ok(3));
        assert_eq!(parse_attributes("0x7"), Ok(7));
        assert!(parse_attributes("NV+XX").unwrap_err().contains("BS"));
        assert_eq!((attributes_text(0), attributes_text(0x101)), ("0x0".to_owned(), "NV+0x100".to_owned()));
    }

    #[test]
    fn time_stamps_are_shown_where_there_are_some() {
        let mut time = [0; 16];
        assert_eq!(time_text(&time), None);
        time[..7].copy_from_slice(&[0xea, 7, 11, 28, 7, 5, 9]);
        assert_eq!(time_text(&time).unwrap(), "2026-11-28 07:05:09");
    }
}
