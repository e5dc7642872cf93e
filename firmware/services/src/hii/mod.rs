//! Package lists and strings (UEFI 2.10 §33, §34).
//!
//! [`Hii`] keeps the lists that images hand in: what of them the firmware reads itself, strings and keyboard layouts, is
//! checked block by block when it comes in; all else is kept as bytes. The protocols are
//! [`abi::hii`](crate::abi::hii)'s.

use alloc::vec::Vec;
use core::fmt;

use uefi_raw::{Guid, Status};

pub mod package;
pub mod strings;

use package::{Package, PackageType, list_to_bytes, parse_list};
use strings::{Font, StringId, Strings};

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HiiError {
    /// A package list contradicts itself.
    Malformed,
    /// No such list, string, layout or registration.
    NotFound,
    /// The string is there, but not in this language.
    Language,
    /// Numbers have run out.
    OutOfResources,
}

impl fmt::Display for HiiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "package list contradicts itself",
            Self::NotFound => "not found",
            Self::Language => "not in this language",
            Self::OutOfResources => "too many",
        })
    }
}

impl core::error::Error for HiiError {}

impl From<HiiError> for Status {
    fn from(error: HiiError) -> Self {
        match error {
            HiiError::Malformed => Self::INVALID_PARAMETER,
            HiiError::NotFound => Self::NOT_FOUND,
            HiiError::Language => Self::INVALID_LANGUAGE,
            HiiError::OutOfResources => Self::OUT_OF_RESOURCES,
        }
    }
}

/// Number of a package list; never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListId(pub usize);

/// What happens to a package (`EFI_HII_DATABASE_NOTIFY_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "names of the specification")]
pub enum Change {
    NewPack = 1 << 0,
    RemovePack = 1 << 1,
    ExportPack = 1 << 2,
    AddPack = 1 << 3,
}

/// All changes that can be asked for.
pub const ALL_CHANGES: usize = 0xF;

/// A notification that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// What was given to [`Hii::register`].
    pub function: *const (),
    /// Type of the package.
    pub kind: PackageType,
    /// Its GUID, if its type is that.
    pub guid: Option<Guid>,
    /// The package with its header.
    pub package: Vec<u8>,
    /// Its list.
    pub list: ListId,
    /// What happens.
    pub change: Change,
}

#[derive(Debug)]
struct List {
    id: ListId,
    guid: Guid,
    /// The handle of the driver that handed it in.
    driver: usize,
    packages: Vec<Package>,
}

#[derive(Debug)]
struct Registration {
    number: usize,
    kind: PackageType,
    guid: Option<Guid>,
    function: *const (),
    changes: usize,
}

/// The database.
#[derive(Debug, Default)]
pub struct Hii {
    lists: Vec<List>,
    registrations: Vec<Registration>,
    /// The last number given out.
    last: usize,
    keyboard_layout: Option<Guid>,
}

impl Hii {
    /// An empty database.
    pub const fn new() -> Self {
        Self { lists: Vec::new(), registrations: Vec::new(), last: 0, keyboard_layout: None }
    }

    /// Adds a package list of the driver `driver`, with its device path if it has one and the list has none.
    pub fn add(
        &mut self,
        list: &[u8],
        driver: usize,
        device_path: Option<&[u8]>,
    ) -> Result<(ListId, Vec<Due>), HiiError> {
        let (guid, mut packages) = parse_list(list)?;
        let has_path = packages.iter().any(|package| package.kind() == PackageType::DEVICE_PATH);
        if let Some(path) = device_path.filter(|_| !has_path) {
            packages.push(Package::new(PackageType::DEVICE_PATH, path)?);
        }
        let id = ListId(self.next_number());
        let due = self.due(id, &packages, Change::NewPack);
        self.lists.push(List { id, guid, driver, packages });
        Ok((id, due))
    }

    /// Removes a list.
    pub fn remove(&mut self, id: ListId) -> Result<Vec<Due>, HiiError> {
        let index = self.lists.iter().position(|list| list.id == id).ok_or(HiiError::NotFound)?;
        let list = self.lists.remove(index);
        Ok(self.due(id, &list.packages, Change::RemovePack))
    }

    /// Replaces the packages of the types that `update` has by those of `update`.
    pub fn update(&mut self, id: ListId, update: &[u8]) -> Result<Vec<Due>, HiiError> {
        let (_, added) = parse_list(update)?;
        let list = self.list_mut(id)?;
        let replaced = |package: &mut Package| added.iter().any(|new| new.kind() == package.kind());
        let removed: Vec<Package> = list.packages.extract_if(.., replaced).collect();
        list.packages.extend(added.iter().cloned());
        let mut due = self.due(id, &removed, Change::RemovePack);
        due.extend(self.due(id, &added, Change::AddPack));
        Ok(due)
    }

    /// The lists that have a package of this type (all for [`PackageType::ALL`]) and, if given, this GUID.
    pub fn find(&self, kind: PackageType, guid: Option<&Guid>) -> Vec<ListId> {
        let matches =
            |package: &Package| package.kind() == kind && guid.is_none_or(|guid| package.guid().as_ref() == Some(guid));
        let lists = self.lists.iter();
        lists.filter(|list| kind == PackageType::ALL || list.packages.iter().any(matches)).map(|list| list.id).collect()
    }

    /// A list as bytes, or all lists one behind the other.
    pub fn export(&self, id: Option<ListId>) -> Result<(Vec<u8>, Vec<Due>), HiiError> {
        let (mut bytes, mut due) = (Vec::new(), Vec::new());
        for list in self.lists.iter().filter(|list| id.is_none_or(|id| id == list.id)) {
            bytes.extend_from_slice(&list_to_bytes(list.guid, &list.packages)?);
            due.extend(self.due(list.id, &list.packages, Change::ExportPack));
        }
        if bytes.is_empty() { Err(HiiError::NotFound) } else { Ok((bytes, due)) }
    }

    /// The handle of the driver that handed a list in.
    pub fn driver(&self, id: ListId) -> Result<usize, HiiError> {
        self.list(id).map(|list| list.driver)
    }

    /// Registers `function` for changes of packages of this type (any for [`PackageType::ALL`]) and GUID.
    pub fn register(&mut self, kind: PackageType, guid: Option<Guid>, function: *const (), changes: usize) -> usize {
        let number = self.next_number();
        self.registrations.push(Registration { number, kind, guid, function, changes });
        number
    }

    /// Removes a registration.
    pub fn unregister(&mut self, number: usize) -> Result<(), HiiError> {
        let index = self.registrations.iter().position(|registration| registration.number == number);
        self.registrations.remove(index.ok_or(HiiError::NotFound)?);
        Ok(())
    }

    /// The GUIDs of all keyboard layouts.
    pub fn keyboard_layouts(&self) -> Vec<Guid> {
        self.layouts().map(|(guid, _)| guid).collect()
    }

    /// A keyboard layout, or the current one.
    pub fn keyboard_layout(&self, guid: Option<&Guid>) -> Result<&[u8], HiiError> {
        let wanted = guid.or(self.keyboard_layout.as_ref()).ok_or(HiiError::NotFound)?;
        self.layouts().find(|(guid, _)| guid == wanted).map(|(_, layout)| layout).ok_or(HiiError::NotFound)
    }

    /// Makes a layout the current one.
    pub fn set_keyboard_layout(&mut self, guid: &Guid) -> Result<(), HiiError> {
        self.keyboard_layout(Some(guid))?;
        self.keyboard_layout = Some(*guid);
        Ok(())
    }

    /// A string and its font.
    pub fn string(&self, id: ListId, language: &[u8], string: StringId) -> Result<(Vec<u16>, Option<&Font>), HiiError> {
        let list = self.list(id)?;
        let found = list.strings().filter(|strings| same_language(strings.language(), language));
        match found.filter_map(|strings| strings.get(string)).next() {
            Some(found) => Ok(found),
            None if list.strings().any(|strings| strings.get(string).is_some()) => Err(HiiError::Language),
            None => Err(HiiError::NotFound),
        }
    }

    /// Adds a string; returns its number, which is new in all languages of the list. If the language is new too,
    /// `language_name` is what it is called.
    pub fn add_string(
        &mut self,
        id: ListId,
        language: &[u8],
        language_name: Option<&[u16]>,
        text: &[u16],
        font: Option<Font>,
    ) -> Result<StringId, HiiError> {
        let list = self.list_mut(id)?;
        let last = list.strings().map(Strings::last_id).max().unwrap_or(0);
        let string = StringId::try_from(last + 1).map_err(|_| HiiError::OutOfResources)?;
        if list.strings_mut(language).is_none() {
            list.packages.push(Package::of_strings(Strings::new(language)));
        }
        let strings = list.strings_mut(language).ok_or(HiiError::NotFound)?;
        strings.insert(string, text, font)?;
        if let Some(name) = language_name.filter(|_| !strings.has_language_name()) {
            let name_id = string.checked_add(1).ok_or(HiiError::OutOfResources)?;
            strings.insert(name_id, name, None)?;
            strings.set_language_name(name_id);
        }
        Ok(string)
    }

    /// Changes a string.
    pub fn set_string(
        &mut self,
        id: ListId,
        language: &[u8],
        string: StringId,
        text: &[u16],
        font: Option<Font>,
    ) -> Result<(), HiiError> {
        self.list_mut(id)?.strings_mut(language).ok_or(HiiError::NotFound)?.set(string, text, font)
    }

    /// The languages of a list, separated by `;`.
    pub fn languages(&self, id: ListId) -> Result<Vec<u8>, HiiError> {
        let mut languages: Vec<&[u8]> = Vec::new();
        for strings in self.list(id)?.strings() {
            if !languages.contains(&strings.language()) {
                languages.push(strings.language());
            }
        }
        Ok(languages.join(&b';'))
    }

    /// The secondary languages of a language, separated by `;`.
    pub fn secondary_languages(&self, id: ListId, language: &[u8]) -> Result<Vec<u8>, HiiError> {
        let mut strings = self.list(id)?.strings();
        let found = strings.find(|strings| same_language(strings.language(), language));
        found.map(|strings| strings.secondary_languages().to_vec()).ok_or(HiiError::Language)
    }

    fn list(&self, id: ListId) -> Result<&List, HiiError> {
        self.lists.iter().find(|list| list.id == id).ok_or(HiiError::NotFound)
    }

    fn list_mut(&mut self, id: ListId) -> Result<&mut List, HiiError> {
        self.lists.iter_mut().find(|list| list.id == id).ok_or(HiiError::NotFound)
    }

    fn layouts(&self) -> impl Iterator<Item = (Guid, &[u8])> {
        self.lists.iter().flat_map(|list| &list.packages).flat_map(Package::keyboard_layouts)
    }

    fn due(&self, list: ListId, packages: &[Package], change: Change) -> Vec<Due> {
        let mut due = Vec::new();
        for package in packages {
            let (kind, guid) = (package.kind(), package.guid());
            let wanted = self.registrations.iter().filter(|registration| {
                registration.changes & change as usize != 0
                    && (registration.kind == PackageType::ALL || registration.kind == kind)
                    && registration.guid.is_none_or(|wanted| Some(wanted) == guid)
            });
            for registration in wanted {
                let package = package.to_bytes().unwrap_or_default();
                due.push(Due { function: registration.function, kind, guid, package, list, change });
            }
        }
        due
    }

    const fn next_number(&mut self) -> usize {
        self.last += 1;
        self.last
    }
}

impl List {
    fn strings(&self) -> impl Iterator<Item = &Strings> {
        self.packages.iter().filter_map(Package::strings)
    }

    fn strings_mut(&mut self, language: &[u8]) -> Option<&mut Strings> {
        let mut strings = self.packages.iter_mut().filter_map(Package::strings_mut);
        strings.find(|strings| same_language(strings.language(), language))
    }
}

/// Language codes are compared without regard to case (RFC 4646 §2.1).
fn same_language(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b)
}

#[cfg(test)]
mod tests;
