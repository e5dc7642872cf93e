//! The variable services (UEFI 2.10 §8.2) over a volatile and a non-volatile store.

use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;

use crate::authenticator::{AuthenticatedWrite, Authenticator, Verified};
use crate::backend::Backend;
use crate::error::Error;
use crate::format::RecordHeader;
use crate::global;
use crate::name::Key;
use crate::store::{Meta, Record, Store};

/// How large a variable can be: header, name with its NUL, and data, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// In the volatile store.
    pub volatile: usize,
    /// In the non-volatile store.
    pub non_volatile: usize,
}

impl Limits {
    /// What EDK2 builds with the 4M layout allow (`PcdMaxAuthVariableSize`): room for a large dbx.
    pub const DEFAULT: Self = Self { volatile: 0x8400, non_volatile: 0x8400 };
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
    volatile: Store<V>,
    non_volatile: Store<N>,
    authenticator: A,
    limits: Limits,
    at_runtime: bool,
}

impl<V: Backend, N: Backend, A: Authenticator> Variables<V, N, A> {
    /// Services over two opened stores.
    pub const fn new(volatile: Store<V>, non_volatile: Store<N>, authenticator: A, limits: Limits) -> Self {
        Self { volatile, non_volatile, authenticator, limits, at_runtime: false }
    }

    /// From here on only what the operating system may see and do is possible (after ExitBootServices).
    pub const fn set_at_runtime(&mut self) {
        self.at_runtime = true;
    }

    /// The same for a daemon, which each request tells whether it is the operating system's.
    pub const fn set_asker(&mut self, at_runtime: bool) {
        self.at_runtime = at_runtime;
    }

    /// The volatile store.
    pub const fn volatile(&self) -> &Store<V> {
        &self.volatile
    }

    /// The volatile store, for moving its memory.
    pub const fn volatile_mut(&mut self) -> &mut Store<V> {
        &mut self.volatile
    }

    /// The non-volatile store.
    pub const fn non_volatile(&self) -> &Store<N> {
        &self.non_volatile
    }

    /// The non-volatile store, for moving its memory.
    pub const fn non_volatile_mut(&mut self) -> &mut Store<N> {
        &mut self.non_volatile
    }

    /// GetVariable. An empty name is simply not found.
    pub fn get(&self, key: Key<'_>) -> Result<Variable<'_>, Error> {
        let found = self.visible(key).ok_or(Error::NotFound)?;
        Ok(Variable { attributes: found.attributes(), data: self.data(&found) })
    }

    /// GetNextVariableName: the variable after `key`, or the first one if `key` has an empty name.
    ///
    /// # Errors
    /// [`Error::InvalidName`] if there is no variable `key`, [`Error::NotFound`] if it is the last one.
    pub fn next(&self, key: Key<'_>) -> Result<NextVariable<'_>, Error> {
        let next = if key.name.is_empty() {
            self.first()
        } else {
            match self.visible(key).ok_or(Error::InvalidName)? {
                Found::Volatile(record) => self.next_volatile(&record),
                Found::NonVolatile(record) => self.next_non_volatile(&record),
            }
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
        if self.find(key).is_some_and(|found| found.attributes() != attributes) {
            self.volatile.delete(key)?;
            self.non_volatile.delete(key)?;
        }
        self.set_by(Writer::Firmware, key, attributes, data)
    }

    /// QueryVariableInfo (§8.2.4) for the storage that variables with `attributes` go to.
    pub fn query(&self, attributes: VariableAttributes) -> Result<Info, Error> {
        check_attributes(attributes)?;
        if !attributes.intersects(ACCESS) {
            return Err(Error::InvalidAttributes);
        }
        if self.at_runtime && !attributes.contains(VariableAttributes::RUNTIME_ACCESS) {
            return Err(Error::InvalidAttributes);
        }
        let (capacity, available, limit) = if attributes.contains(VariableAttributes::NON_VOLATILE) {
            (self.non_volatile.capacity(), self.non_volatile.available(), self.limits.non_volatile)
        } else {
            (self.volatile.capacity(), self.volatile.available(), self.limits.volatile)
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
        if writer == Writer::Anyone && self.authenticator.is_read_only(key) {
            return Err(Error::ReadOnly);
        }
        let append = attributes.contains(VariableAttributes::APPEND_WRITE);
        let stored = attributes.difference(VariableAttributes::APPEND_WRITE);
        let existing = self.find(key);
        let authenticated = attributes.contains(AUTHENTICATED);
        let erases = !attributes.intersects(ACCESS) || (data.is_empty() && !append && !authenticated);
        self.check_runtime(existing, stored, erases)?;
        if existing.is_some_and(|found| found.attributes().contains(AUTHENTICATED)) && !authenticated {
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
            return self.delete(key, existing);
        }
        let verified = if authenticated {
            let last_time_stamp = existing.map(|found| found.record().time_stamp());
            self.authenticator.verify(&AuthenticatedWrite { key, attributes, payload: data, last_time_stamp })?
        } else {
            Verified { time_stamp: [0; 16], content: data }
        };
        let meta = Meta { attributes: stored.bits(), time_stamp: verified.time_stamp };
        self.store(key, existing, append, meta, verified.content)
    }

    /// What the operating system may write (§8.2.3): variables it can see, and of these only non-volatile ones.
    fn check_runtime(
        &self,
        existing: Option<Found>,
        attributes: VariableAttributes,
        erases: bool,
    ) -> Result<(), Error> {
        if !self.at_runtime {
            return Ok(());
        }
        match existing {
            Some(found) if !found.attributes().contains(VariableAttributes::RUNTIME_ACCESS) => {
                Err(if erases { Error::NotFound } else { Error::AttributesDiffer })
            }
            Some(Found::Volatile(_)) => Err(Error::ReadOnly),
            Some(Found::NonVolatile(_)) => Ok(()),
            None if erases || attributes.contains(WRITABLE_AT_RUNTIME) => Ok(()),
            None => Err(Error::InvalidAttributes),
        }
    }

    fn delete(&mut self, key: Key<'_>, existing: Option<Found>) -> Result<(), Error> {
        match existing {
            Some(Found::Volatile(_)) => Ok(self.volatile.delete(key)?),
            Some(Found::NonVolatile(_)) => Ok(self.non_volatile.delete(key)?),
            None => Err(Error::NotFound),
        }
    }

    fn store(
        &mut self,
        key: Key<'_>,
        existing: Option<Found>,
        append: bool,
        meta: Meta,
        content: &[u8],
    ) -> Result<(), Error> {
        let time_changes = existing.is_some_and(|found| found.record().time_stamp() != meta.time_stamp);
        if content.is_empty() && !append {
            return self.delete(key, existing);
        }
        if content.is_empty() && !(time_changes && append) {
            return Ok(());
        }
        let kept = existing.filter(|_| append).map_or(0, |found| found.record().data_size());
        let size = kept.checked_add(content.len()).ok_or(Error::TooLarge)?;
        self.check_size(key, meta, size)?;
        global::check(key, VariableAttributes::from_bits_retain(meta.attributes), size)?;
        let same = |found: &Found| !append && self.data(found) == content;
        if !time_changes && existing.as_ref().is_some_and(same) {
            return Ok(());
        }
        let volatile = meta.attributes & VariableAttributes::NON_VOLATILE.bits() == 0;
        match (volatile, append) {
            (true, false) => self.volatile.write(key, meta, content)?,
            (true, true) => self.volatile.append(key, meta, content)?,
            (false, false) => self.non_volatile.write(key, meta, content)?,
            (false, true) => self.non_volatile.append(key, meta, content)?,
        }
        Ok(())
    }

    fn check_size(&self, key: Key<'_>, meta: Meta, data_size: usize) -> Result<(), Error> {
        let volatile = meta.attributes & VariableAttributes::NON_VOLATILE.bits() == 0;
        let limit = if volatile { self.limits.volatile } else { self.limits.non_volatile };
        let overhead = RecordHeader::SIZE + key.stored_size();
        if overhead.checked_add(data_size).is_some_and(|size| size <= limit) { Ok(()) } else { Err(Error::TooLarge) }
    }

    /// The variable of that key; the volatile store covers the other, so that what the firmware derives cannot be
    /// forged by the content of a file.
    fn find(&self, key: Key<'_>) -> Option<Found> {
        let volatile = self.volatile.find(key).map(Found::Volatile);
        volatile.or_else(|| self.non_volatile.find(key).map(Found::NonVolatile))
    }

    fn visible(&self, key: Key<'_>) -> Option<Found> {
        self.find(key).filter(|found| self.is_visible(found.record()))
    }

    fn is_visible(&self, record: &Record) -> bool {
        !self.at_runtime || record.attributes() & VariableAttributes::RUNTIME_ACCESS.bits() != 0
    }

    fn data(&self, found: &Found) -> &[u8] {
        match found {
            Found::Volatile(record) => self.volatile.data(record),
            Found::NonVolatile(record) => self.non_volatile.data(record),
        }
    }

    fn first(&self) -> Option<NextVariable<'_>> {
        let volatile = self.volatile.variables().find(|record| self.is_visible(record));
        volatile.map(|record| self.show_volatile(&record)).or_else(|| self.first_non_volatile())
    }

    fn next_volatile(&self, after: &Record) -> Option<NextVariable<'_>> {
        let volatile = self.volatile.after(after).find(|record| self.is_visible(record));
        volatile.map(|record| self.show_volatile(&record)).or_else(|| self.first_non_volatile())
    }

    fn first_non_volatile(&self) -> Option<NextVariable<'_>> {
        let record = self.non_volatile.variables().find(|record| self.is_shown(record))?;
        Some(self.show_non_volatile(&record))
    }

    fn next_non_volatile(&self, after: &Record) -> Option<NextVariable<'_>> {
        let record = self.non_volatile.after(after).find(|record| self.is_shown(record))?;
        Some(self.show_non_volatile(&record))
    }

    /// Whether a record of the non-volatile store is visible and not covered by the volatile one.
    fn is_shown(&self, record: &Record) -> bool {
        let name = self.non_volatile.name(record);
        self.is_visible(record) && self.volatile.find_stored(record.vendor(), name).is_none()
    }

    fn show_volatile(&self, record: &Record) -> NextVariable<'_> {
        NextVariable { vendor: record.vendor(), name: self.volatile.name(record) }
    }

    fn show_non_volatile(&self, record: &Record) -> NextVariable<'_> {
        NextVariable { vendor: record.vendor(), name: self.non_volatile.name(record) }
    }
}

/// A record and the store it is in.
#[derive(Clone, Copy, Debug)]
enum Found {
    Volatile(Record),
    NonVolatile(Record),
}

impl Found {
    const fn record(&self) -> &Record {
        match self {
            Self::Volatile(record) | Self::NonVolatile(record) => record,
        }
    }

    const fn attributes(&self) -> VariableAttributes {
        VariableAttributes::from_bits_retain(self.record().attributes())
    }
}

const ACCESS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);
const AUTHENTICATED: VariableAttributes = VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS;
const WRITABLE_AT_RUNTIME: VariableAttributes =
    VariableAttributes::NON_VOLATILE.union(VariableAttributes::RUNTIME_ACCESS);

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
