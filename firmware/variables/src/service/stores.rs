//! The two stores as one: what is where, what is seen, and whether there is room.

use uefi_raw::table::runtime::VariableAttributes;

use super::{Limits, NextVariable};
use crate::authenticator::Lookup;
use crate::backend::Backend;
use crate::error::Error;
use crate::format::{RecordHeader, align};
use crate::global;
use crate::name::Key;
use crate::store::{Meta, Record, Store};

const WRITABLE_AT_RUNTIME: VariableAttributes =
    VariableAttributes::NON_VOLATILE.union(VariableAttributes::RUNTIME_ACCESS);

/// A volatile and a non-volatile store.
#[derive(Debug)]
pub struct Stores<V, N> {
    pub volatile: Store<V>,
    pub non_volatile: Store<N>,
    pub limits: Limits,
    pub at_runtime: bool,
}

/// A record and the store it is in.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    Volatile(Record),
    NonVolatile(Record),
}

impl Found {
    pub const fn record(&self) -> &Record {
        match self {
            Self::Volatile(record) | Self::NonVolatile(record) => record,
        }
    }

    pub const fn attributes(&self) -> VariableAttributes {
        VariableAttributes::from_bits_retain(self.record().attributes())
    }
}

impl<V: Backend, N: Backend> Stores<V, N> {
    /// The variable of that key; the volatile store covers the other, so that what the firmware derives cannot be
    /// forged by the content of a file.
    pub fn find(&self, key: Key<'_>) -> Option<Found> {
        let volatile = self.volatile.find(key).map(Found::Volatile);
        volatile.or_else(|| self.non_volatile.find(key).map(Found::NonVolatile))
    }

    /// The same, if it can be seen now.
    pub fn visible(&self, key: Key<'_>) -> Option<Found> {
        self.find(key).filter(|found| self.is_visible(found.record()))
    }

    pub fn data(&self, found: &Found) -> &[u8] {
        match found {
            Found::Volatile(record) => self.volatile.data(record),
            Found::NonVolatile(record) => self.non_volatile.data(record),
        }
    }

    /// The first variable that can be seen.
    pub fn first(&self) -> Option<NextVariable<'_>> {
        let volatile = self.volatile.variables().find(|record| self.is_visible(record));
        volatile.map(|record| self.show_volatile(&record)).or_else(|| self.first_non_volatile())
    }

    /// The one after `found`.
    pub fn after(&self, found: &Found) -> Option<NextVariable<'_>> {
        match found {
            Found::Volatile(record) => {
                let next = self.volatile.after(record).find(|record| self.is_visible(record));
                next.map(|record| self.show_volatile(&record)).or_else(|| self.first_non_volatile())
            }
            Found::NonVolatile(record) => {
                let next = self.non_volatile.after(record).find(|record| self.is_shown(record))?;
                Some(self.show_non_volatile(&next))
            }
        }
    }

    /// What the operating system may write (§8.2.3): variables it can see, and of these only non-volatile ones.
    pub fn check_runtime(
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

    pub fn delete(&mut self, key: Key<'_>, existing: Option<Found>) -> Result<(), Error> {
        match existing {
            Some(Found::Volatile(_)) => Ok(self.volatile.delete(key)?),
            Some(Found::NonVolatile(_)) => Ok(self.non_volatile.delete(key)?),
            None => Err(Error::NotFound),
        }
    }

    /// Writes or appends. Empty content deletes, unless it is appended.
    pub fn set(
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
        let volatile = meta.attributes & VariableAttributes::NON_VOLATILE.bits() == 0;
        let need = self.check_size(key, volatile, size)?;
        global::check(key, VariableAttributes::from_bits_retain(meta.attributes), size)?;
        let same = |found: &Found| !append && self.data(found) == content;
        if !time_changes && existing.as_ref().is_some_and(same) {
            return Ok(());
        }
        if !volatile {
            self.check_reserve(key, existing, need)?;
        }
        match (volatile, append) {
            (true, false) => self.volatile.write(key, meta, content)?,
            (true, true) => self.volatile.append(key, meta, content)?,
            (false, false) => self.non_volatile.write(key, meta, content)?,
            (false, true) => self.non_volatile.append(key, meta, content)?,
        }
        Ok(())
    }

    /// Bytes of the non-volatile store that cannot be used now.
    pub const fn reserved(&self) -> usize {
        if self.at_runtime { self.limits.reserved } else { 0 }
    }

    /// Size of the record that is needed.
    fn check_size(&self, key: Key<'_>, volatile: bool, data_size: usize) -> Result<usize, Error> {
        let limit = if volatile { self.limits.volatile } else { self.limits.non_volatile };
        let size = record_size(key, data_size).filter(|&size| size <= limit);
        size.ok_or(Error::TooLarge)
    }

    /// Keeps the reserve free; a variable that does not grow can always be written.
    fn check_reserve(&self, key: Key<'_>, existing: Option<Found>, need: usize) -> Result<(), Error> {
        let old = existing.and_then(|found| record_size(key, found.record().data_size())).and_then(align).unwrap_or(0);
        let need = align(need).ok_or(Error::TooLarge)?;
        let room = self.non_volatile.available() + old;
        if need <= old || room.checked_sub(self.reserved()).is_some_and(|room| need <= room) {
            Ok(())
        } else {
            Err(Error::Full)
        }
    }

    fn is_visible(&self, record: &Record) -> bool {
        !self.at_runtime || record.attributes() & VariableAttributes::RUNTIME_ACCESS.bits() != 0
    }

    fn first_non_volatile(&self) -> Option<NextVariable<'_>> {
        let record = self.non_volatile.variables().find(|record| self.is_shown(record))?;
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

impl<V: Backend, N: Backend> Lookup for Stores<V, N> {
    fn lookup(&self, key: Key<'_>) -> Option<&[u8]> {
        self.find(key).map(|found| self.data(&found))
    }
}

/// Bytes of header, name and data.
fn record_size(key: Key<'_>, data_size: usize) -> Option<usize> {
    (RecordHeader::SIZE + key.stored_size()).checked_add(data_size)
}
