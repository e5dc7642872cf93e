//! The variable services (UEFI 2.10 §8.2) over a volatile and a non-volatile store.

mod secure_boot;
mod stores;

use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;

use crate::authenticator::{AuthenticatedWrite, Authenticator, owners};
use crate::backend::Backend;
use crate::error::Error;
use crate::format::RecordHeader;
use crate::global;
use crate::name::Key;
use crate::signature_list::SignatureLists;
use crate::store::{Meta, Store};

use stores::{Found, Stores};

/// How large a variable can be: header, name with its NUL, and data, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// In the volatile store.
    pub volatile: usize,
    /// In the non-volatile store.
    pub non_volatile: usize,
    /// How much of the non-volatile store the operating system cannot use, so that the next start has room for what the
    /// firmware and its menu write.
    pub reserved: usize,
}

impl Limits {
    /// What EDK2 builds with the 4M layout allow (`PcdMaxAuthVariableSize`): room for a large dbx. A sixteenth of that
    /// layout's store is reserved.
    pub const DEFAULT: Self = Self { volatile: 0x8400, non_volatile: 0x8400, reserved: 0x4000 };
}

/// A variable as GetVariable shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variable<'a> {
    /// Attributes.
    pub attributes: VariableAttributes,
    /// Content.
    pub data: &'a [u8],
}

/// A variable as GetNextVariableName shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextVariable<'a> {
    /// Vendor.
    pub vendor: Guid,
    /// Name: UCS-2, little-endian, with its NUL.
    pub name: &'a [u8],
}

/// Answer of QueryVariableInfo, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info {
    /// Size of the storage.
    pub maximum_storage: u64,
    /// How much of it is free.
    pub remaining_storage: u64,
    /// Largest variable, name and data.
    pub maximum_variable: u64,
}

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writer {
    Anyone,
    Firmware,
}

/// The variable services. `V` and `N` are the memory of the volatile and the non-volatile store.
#[derive(Debug)]
pub struct Variables<V, N, A> {
    stores: Stores<V, N>,
    authenticator: A,
}

impl<V: Backend, N: Backend, A: Authenticator> Variables<V, N, A> {
    /// Services over two opened stores.
    pub const fn new(volatile: Store<V>, non_volatile: Store<N>, authenticator: A, limits: Limits) -> Self {
        Self { stores: Stores { volatile, non_volatile, limits, at_runtime: false }, authenticator }
    }

    /// From here on only what the operating system may see and do is possible (after ExitBootServices).
    pub const fn set_at_runtime(&mut self) {
        self.stores.at_runtime = true;
    }

    /// The same for a daemon, which each request tells whether it is the operating system's.
    pub const fn set_asker(&mut self, at_runtime: bool) {
        self.stores.at_runtime = at_runtime;
    }

    /// The volatile store.
    pub const fn volatile(&self) -> &Store<V> {
        &self.stores.volatile
    }

    /// The volatile store, for moving its memory.
    pub const fn volatile_mut(&mut self) -> &mut Store<V> {
        &mut self.stores.volatile
    }

    /// The non-volatile store.
    pub const fn non_volatile(&self) -> &Store<N> {
        &self.stores.non_volatile
    }

    /// The non-volatile store, for moving its memory.
    pub const fn non_volatile_mut(&mut self) -> &mut Store<N> {
        &mut self.stores.non_volatile
    }

    /// GetVariable. An empty name is simply not found.
    pub fn get(&self, key: Key<'_>) -> Result<Variable<'_>, Error> {
        let found = self.stores.visible(key).ok_or(Error::NotFound)?;
        Ok(Variable { attributes: found.attributes(), data: self.stores.data(&found) })
    }

    /// GetNextVariableName: the variable after `key`, or the first one if `key` has an empty name.
    ///
    /// # Errors
    /// [`Error::InvalidName`] if there is no variable `key`, [`Error::NotFound`] if it is the last one.
    pub fn next(&self, key: Key<'_>) -> Result<NextVariable<'_>, Error> {
        let next = if key.name.is_empty() {
            self.stores.first()
        } else {
            self.stores.after(&self.stores.visible(key).ok_or(Error::InvalidName)?)
        };
        next.ok_or(Error::NotFound)
    }

    /// SetVariable.
    pub fn set(&mut self, key: Key<'_>, attributes: VariableAttributes, data: &[u8]) -> Result<(), Error> {
        self.set_by(Writer::Anyone, key, attributes, data)
    }

    /// SetVariable for the firmware itself, which also writes what is read-only to others. Never to be given a caller's
    /// name. A variable of that name with other attributes is replaced.
    pub fn set_by_firmware(&mut self, key: Key<'_>, attributes: VariableAttributes, data: &[u8]) -> Result<(), Error> {
        if self.stores.find(key).is_some_and(|found| found.attributes() != attributes) {
            self.stores.volatile.delete(key)?;
            self.stores.non_volatile.delete(key)?;
        }
        self.set_by(Writer::Firmware, key, attributes, data)
    }

    /// QueryVariableInfo (§8.2.4) for the storage that variables with `attributes` go to. The operating system is not
    /// shown what it cannot use.
    pub fn query(&self, attributes: VariableAttributes) -> Result<Info, Error> {
        check_attributes(attributes)?;
        if !attributes.intersects(ACCESS) {
            return Err(Error::InvalidAttributes);
        }
        if self.stores.at_runtime && !attributes.contains(VariableAttributes::RUNTIME_ACCESS) {
            return Err(Error::InvalidAttributes);
        }
        let Stores { volatile, non_volatile, limits, .. } = &self.stores;
        let (capacity, available, limit) = if attributes.contains(VariableAttributes::NON_VOLATILE) {
            let reserved = self.stores.reserved();
            let usable = |size: usize| size.saturating_sub(reserved);
            (usable(non_volatile.capacity()), usable(non_volatile.available()), limits.non_volatile)
        } else {
            (volatile.capacity(), volatile.available(), limits.volatile)
        };
        Ok(Info {
            maximum_storage: capacity as u64,
            remaining_storage: available as u64,
            maximum_variable: limit.min(capacity).saturating_sub(RecordHeader::SIZE) as u64,
        })
    }

    fn set_by(
        &mut self,
        writer: Writer,
        key: Key<'_>,
        attributes: VariableAttributes,
        data: &[u8],
    ) -> Result<(), Error> {
        if !key.is_valid() {
            return Err(Error::InvalidName);
        }
        check_attributes(attributes)?;
        if writer == Writer::Anyone && global::is_derived(key) {
            return Err(Error::ReadOnly);
        }
        let append = attributes.contains(VariableAttributes::APPEND_WRITE);
        let stored = attributes.difference(VariableAttributes::APPEND_WRITE);
        let existing = self.stores.find(key);
        let authenticated = attributes.contains(AUTHENTICATED);
        let erases = !attributes.intersects(ACCESS) || (data.is_empty() && !append && !authenticated);
        if writer == Writer::Anyone {
            self.stores.check_runtime(existing, stored, erases)?;
        }
        if existing.is_some_and(|found| found.attributes().contains(AUTHENTICATED) || global::has_signature_lists(key))
            && !authenticated
        {
            // Without this, deleting would get around the signature.
            return Err(Error::ReadOnly);
        }
        if let Some(found) = existing
            && attributes.intersects(ACCESS)
            && found.attributes() != stored
        {
            return Err(Error::AttributesDiffer);
        }
        if erases {
            return self.stores.delete(key, existing);
        }
        if authenticated {
            return self.set_authenticated(key, attributes, existing, data);
        }
        let meta = Meta { attributes: stored.bits(), time_stamp: [0; 16] };
        self.stores.set(key, existing, append, meta, data)
    }

    fn set_authenticated(
        &mut self,
        key: Key<'_>,
        attributes: VariableAttributes,
        existing: Option<Found>,
        payload: &[u8],
    ) -> Result<(), Error> {
        let last_time_stamp = existing.map(|found| found.record().time_stamp());
        let write = AuthenticatedWrite { key, attributes, payload, last_time_stamp };
        let verified = self.authenticator.verify(&write, &self.stores)?;
        let append = attributes.contains(VariableAttributes::APPEND_WRITE);
        let stored = attributes.difference(VariableAttributes::APPEND_WRITE);
        let meta = Meta { attributes: stored.bits(), time_stamp: verified.time_stamp };
        let mut content = verified.content;
        // In this order, a start that is cut short leaves an owner without a variable, which the next one drops, and
        // never a variable without its owner.
        if let (Some(owner), None, false) = (&verified.owner, existing, content.is_empty()) {
            self.set_owner(key, stored, Some(owner))?;
        }
        if let Some(found) = existing
            && append
            && global::has_signature_lists(key)
            && let Some(here) = SignatureLists::new(self.stores.data(&found))
            && let Some(added) = SignatureLists::new(content)
        {
            let scratch = self.authenticator.scratch();
            let size = here.missing(added, scratch)?;
            content = scratch.get(..size).unwrap_or_default();
        }
        let done = self.stores.set(key, existing, append, meta, content);
        if verified.owner.is_some() && self.stores.find(key).is_none() {
            self.set_owner(key, stored, None)?;
        }
        done?;
        if key == crate::authenticator::time_based::PLATFORM_KEY { self.tell_setup_mode() } else { Ok(()) }
    }

    /// Notes who owns a private authenticated variable with such attributes.
    fn set_owner(
        &mut self,
        key: Key<'_>,
        attributes: VariableAttributes,
        owner: Option<&owners::Owner>,
    ) -> Result<(), Error> {
        let (database, meta) = owners::database(attributes);
        let existing = self.stores.find(database);
        let before = existing.map_or(&[][..], |found| self.stores.data(&found));
        if owner.is_none() && owners::find(before, key).is_none() {
            return Ok(());
        }
        let new = self.authenticator.scratch();
        let size = owners::replace(before, key, owner, new)?;
        let set = self.stores.set(database, existing, false, meta, new.get(..size).unwrap_or_default());
        // A full database is no fault of the variable.
        set.map_err(|error| if error == Error::TooLarge { Error::Full } else { error })
    }
}

const ACCESS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);
const AUTHENTICATED: VariableAttributes = VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS;

/// Rules that hold for the attributes alone (§8.2.3).
fn check_attributes(attributes: VariableAttributes) -> Result<(), Error> {
    if VariableAttributes::from_bits(attributes.bits()).is_none() {
        return Err(Error::InvalidAttributes);
    }
    if attributes.contains(VariableAttributes::AUTHENTICATED_WRITE_ACCESS) {
        return Err(Error::Unsupported);
    }
    let enhanced = VariableAttributes::ENHANCED_AUTHENTICATED_ACCESS;
    if attributes.contains(enhanced | AUTHENTICATED) {
        return Err(Error::InvalidAttributes);
    }
    if attributes.contains(VariableAttributes::RUNTIME_ACCESS)
        && !attributes.contains(VariableAttributes::BOOTSERVICE_ACCESS)
    {
        return Err(Error::InvalidAttributes);
    }
    // Hardware error records need a quota of storage and HwErrRecSupport (§8.2.4.2); neither is offered.
    if attributes.intersects(enhanced | VariableAttributes::HARDWARE_ERROR_RECORD) {
        return Err(Error::Unsupported);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
