//! A store: records in a region, found by key, written so that a cut at any byte leaves the old value or the new.
//!
//! Records are appended. Writing a variable goes through these durable steps; after each of them, and after any prefix
//! of each, a reader finds either the old record or the new one:
//!
//! | step | old record | new record |
//! | --- | --- | --- |
//! | superfluous copies (from damage) become deleted | added | |
//! | old gets in-deleted-transition | added in transition: still valid | |
//! | header written | | erased: its sizes do not count yet |
//! | state | | header valid only |
//! | name and data written | | header valid only |
//! | state | superseded | added |
//! | old becomes deleted | deleted | added |
//!
//! When the free end of the region is used up, live records move together in memory and the region is made durable as
//! a whole. Whatever bytes the region holds, nothing here panics: see [`Store::report`] for what is left out.

use core::ops::Range;

use uefi_raw::Guid;

use crate::backend::{Backend, BackendError};
use crate::format::{ERASED, RecordHeader, StoreHeader, StoreHeaderError, align, state};
use crate::name::{Key, StoredName};

use filter::Filter;
pub use walk::Slot;

/// Why a variable could not be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// Not enough room, even after reclaiming.
    Full,
    /// The backend failed. The old value stays, unless the store was so full that old and new had no room beside each
    /// other.
    Backend,
}

impl From<BackendError> for StoreError {
    fn from(BackendError: BackendError) -> Self {
        Self::Backend
    }
}

/// Attributes and time stamp of a new record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Attributes to store.
    pub attributes: u32,
    /// Bytes of an EFI_TIME; zeros unless the write was authenticated.
    pub time_stamp: [u8; 16],
}

/// What a walk over a store found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Variables that can be read.
    pub variables: usize,
    /// Records that claim to be valid and are not: bad name, no data, or a second copy of another. Never shown.
    pub damaged: usize,
    /// Whether the walk ended at a record that does not fit the store, or at bytes that are neither a record nor
    /// erased. What follows is lost.
    pub broken_off: bool,
    /// Bytes that live variables take up, padding included.
    pub used: usize,
    /// Bytes that records can take up at most.
    pub capacity: usize,
}

/// A record whose sizes fit the store and whose name is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    position: usize,
    header: RecordHeader,
    name_end: usize,
    data_end: usize,
    next: usize,
}

impl Record {
    /// State as stored: see [`state`].
    pub const fn state(&self) -> u8 {
        self.header.state
    }

    /// Attributes as stored.
    pub const fn attributes(&self) -> u32 {
        self.header.attributes
    }

    /// Vendor.
    pub const fn vendor(&self) -> Guid {
        self.header.vendor
    }

    /// Bytes of an EFI_TIME: when the variable was last written with authentication.
    pub const fn time_stamp(&self) -> [u8; 16] {
        self.header.time_stamp
    }

    /// Bytes of the data.
    pub const fn data_size(&self) -> usize {
        self.data_end - self.name_end
    }

    const fn name(&self) -> Range<usize> {
        self.position + RecordHeader::SIZE..self.name_end
    }

    const fn data(&self) -> Range<usize> {
        self.name_end..self.data_end
    }

    const fn size(&self) -> usize {
        self.next - self.position
    }
}

/// What is found at a position.
enum Entry {
    /// A record that claims to be valid, and is.
    Live(Record),
    /// A record that claims to be valid, and is not.
    Damaged { next: usize },
    /// A deleted or unfinished record.
    Dead { next: usize },
    /// A record that does not fit into the store.
    Broken,
    /// No record: the free end.
    End,
}

/// A variable store in memory.
#[derive(Debug)]
pub struct Store<B> {
    backend: B,
    /// Offset of the store header in the backend.
    start: usize,
    /// Offset of the store's end.
    limit: usize,
    /// Offset where the next record goes.
    free: usize,
    /// The free end holds something, so records cannot be appended before it is cleaned.
    soiled: bool,
    /// The backend failed, so memory and medium differ.
    out_of_date: bool,
    /// The keys that there may be.
    filter: Filter,
    /// Some variable has more than one live record, as damage or a cut leaves it. Where none has, each of them counts, and
    /// nobody need look for others.
    repeats: bool,
}

impl<B: Backend> Store<B> {
    /// Opens the store whose header is at `start`. The backend comes back with the error.
    pub fn open(backend: B, start: usize) -> Result<Self, (B, StoreHeaderError)> {
        let bytes = backend.bytes();
        let header = StoreHeader::decode(bytes.get(start..).unwrap_or_default());
        let limit = header.and_then(|header| {
            let end = start.checked_add(header.size as usize).filter(|&end| end <= bytes.len());
            end.ok_or(StoreHeaderError::Size)
        });
        match limit {
            Ok(limit) => Ok(Self::with_limit(backend, start, limit)),
            Err(error) => Err((backend, error)),
        }
    }

    /// Makes an empty store of all the backend's bytes from `start` on.
    pub fn format(mut backend: B, start: usize) -> Result<Self, StoreError> {
        let limit = backend.bytes().len();
        let region = backend.bytes_mut().get_mut(start..).ok_or(StoreError::Full)?;
        let size = u32::try_from(region.len()).map_err(|_| StoreError::Full)?;
        region.fill(ERASED);
        *region.first_chunk_mut().ok_or(StoreError::Full)? = StoreHeader { size }.encode();
        backend.persist_all()?;
        Ok(Self::with_limit(backend, start, limit))
    }

    fn with_limit(backend: B, start: usize, limit: usize) -> Self {
        let mut store = Self {
            backend,
            start,
            limit,
            free: 0,
            soiled: false,
            out_of_date: false,
            filter: Filter::new(),
            repeats: true,
        };
        let mut position = store.first();
        store.free = loop {
            match store.entry(position) {
                Entry::Live(Record { next, .. }) | Entry::Damaged { next } | Entry::Dead { next } => position = next,
                Entry::Broken | Entry::End => break position,
            }
        };
        store.soiled = store.bytes(position..limit).iter().any(|&byte| byte != ERASED);
        store.index();
        store
    }

    /// The variable of that key.
    pub fn find(&self, key: Key<'_>) -> Option<Record> {
        if !self.filter.contains(key_hash(key)) {
            return None;
        }
        let mut in_transition = None;
        for record in self.copies(key) {
            if record.header.state == state::ADDED {
                return Some(record);
            }
            in_transition.get_or_insert(record);
        }
        in_transition
    }

    /// The same by the stored form of the name, with its NUL.
    pub fn find_stored(&self, vendor: Guid, name: &[u8]) -> Option<Record> {
        if !self.filter.contains(stored_hash(vendor, name)) {
            return None;
        }
        self.live(self.first()).find(|record| record.header.vendor == vendor && self.name(record) == name)
    }

    /// Variables in the order in which they are stored, each once.
    pub fn variables(&self) -> impl Iterator<Item = Record> + '_ {
        self.live(self.first()).filter(|record| self.is_chosen(record))
    }

    /// The first variable after `record` in the order of [`Self::variables`].
    pub fn after(&self, record: &Record) -> impl Iterator<Item = Record> + '_ {
        self.live(record.next).filter(|record| self.is_chosen(record))
    }

    /// Data of a record of this store. Empty if the store was changed since.
    pub fn data(&self, record: &Record) -> &[u8] {
        self.bytes(record.data())
    }

    /// Name of a record of this store, with its NUL. Empty if the store was changed since.
    pub fn name(&self, record: &Record) -> &[u8] {
        self.bytes(record.name())
    }

    /// Counts what there is.
    pub fn report(&self) -> Report {
        let mut report = Report { capacity: self.capacity(), broken_off: self.soiled, ..Report::default() };
        let mut position = self.first();
        loop {
            position = match self.entry(position) {
                Entry::Live(record) if self.is_chosen(&record) => {
                    report.variables += 1;
                    report.used += record.size();
                    record.next
                }
                // The older of two copies of which the newer is complete: a write was cut, nothing is damaged.
                Entry::Live(record) if record.header.state == state::ADDED_IN_TRANSITION => record.next,
                Entry::Live(Record { next, .. }) | Entry::Damaged { next } => {
                    report.damaged += 1;
                    next
                }
                Entry::Dead { next } => next,
                Entry::Broken | Entry::End => return report,
            };
        }
    }

    /// Bytes that records can take up at most.
    pub fn capacity(&self) -> usize {
        self.limit.saturating_sub(self.first())
    }

    /// Bytes that new records can take up, once deleted ones are reclaimed.
    pub fn available(&self) -> usize {
        self.capacity().saturating_sub(self.variables().map(|record| record.size()).sum())
    }

    /// Deletes the variable; nothing happens if there is none.
    pub fn delete(&mut self, key: Key<'_>) -> Result<(), StoreError> {
        let Some(record) = self.find(key) else { return Ok(()) };
        self.refresh()?;
        self.delete_other_copies(key, &record)?;
        Ok(self.set_state(record.position, record.header.state & state::DELETED)?)
    }

    /// Replaces or makes the variable.
    pub fn write(&mut self, key: Key<'_>, meta: Meta, data: &[u8]) -> Result<(), StoreError> {
        self.put(key, meta, data, false)
    }

    /// Adds `data` to the end of the variable's data; makes the variable if there is none.
    pub fn append(&mut self, key: Key<'_>, meta: Meta, data: &[u8]) -> Result<(), StoreError> {
        self.put(key, meta, data, true)
    }

    /// Moves the live records together and cleans the rest.
    pub fn reclaim(&mut self) -> Result<(), StoreError> {
        self.compact();
        Ok(self.persist_all()?)
    }

    /// The backend.
    pub const fn backend(&self) -> &B {
        &self.backend
    }

    /// The backend, for moving its memory. Its bytes must stay as they are.
    pub const fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    fn put(&mut self, key: Key<'_>, meta: Meta, data: &[u8], append: bool) -> Result<(), StoreError> {
        self.refresh()?;
        let old = self.find(key);
        let kept = if append { old.map_or(0, |record| record.data_size()) } else { 0 };
        let header = new_header(key, meta, kept.checked_add(data.len()).ok_or(StoreError::Full)?)?;
        let need = header.record_size().and_then(align).ok_or(StoreError::Full)?;
        if need > self.room() {
            self.reclaim()?;
        }
        let old = self.find(key);
        if need <= self.room() {
            return self.add(key, header, old, kept, data);
        }
        match old {
            Some(old) if need <= self.room().saturating_add(old.size()) => self.replace(key, header, kept, data),
            _ => Err(StoreError::Full),
        }
    }

    /// Appends the record to the free end, which has room for it, keeping `kept` bytes of data of `old`.
    fn add(
        &mut self,
        key: Key<'_>,
        header: RecordHeader,
        old: Option<Record>,
        kept: usize,
        data: &[u8],
    ) -> Result<(), StoreError> {
        if let Some(old) = &old {
            self.delete_other_copies(key, old)?;
        }
        let position = self.free;
        let written = self.add_steps(key, header, old, kept, data);
        if let Err(error) = written {
            // Memory goes back to the old value; the medium follows before the next change.
            self.out_of_date = true;
            self.bytes_mut(position..self.limit).fill(ERASED);
            self.free = position;
            if let Some(old) = &old {
                self.put_bytes(old.position + RecordHeader::STATE_OFFSET, &[old.header.state]);
            }
            return Err(error.into());
        }
        if let Some(old) = &old {
            // The new value is durable: a failure from here on is none for the caller.
            let deleted = old.header.state & state::IN_DELETED_TRANSITION & state::DELETED;
            self.out_of_date = self.set_state(old.position, deleted).is_err();
            self.repeats |= self.out_of_date;
        }
        Ok(())
    }

    fn add_steps(
        &mut self,
        key: Key<'_>,
        header: RecordHeader,
        old: Option<Record>,
        kept: usize,
        data: &[u8],
    ) -> Result<(), BackendError> {
        if let Some(old) = &old {
            self.set_state(old.position, old.header.state & state::IN_DELETED_TRANSITION)?;
        }
        let position = self.free;
        let name = position + RecordHeader::SIZE;
        let end = self.write_record(position, key, RecordHeader { state: state::ERASED, ..header }, old, kept, data);
        self.free = align(end).unwrap_or(end).min(self.limit);
        self.backend.persist(position..name)?;
        self.set_state(position, state::HEADER_VALID_ONLY)?;
        self.backend.persist(name..end)?;
        self.set_state(position, state::ADDED)
    }

    /// Writes the record over the old one where both have no room beside each other: in memory, then all at once.
    fn replace(&mut self, key: Key<'_>, header: RecordHeader, kept: usize, data: &[u8]) -> Result<(), StoreError> {
        let Some(old) = self.move_to_end(key) else { return Err(StoreError::Full) };
        let end = self.write_record(old.position, key, header, Some(old), kept, data);
        self.free = align(end).unwrap_or(end).min(self.limit);
        self.bytes_mut(end..self.limit).fill(ERASED);
        Ok(self.persist_all()?)
    }

    /// Writes header, name and data to memory; returns the end. The first `kept` bytes of the data are those of `old`.
    fn write_record(
        &mut self,
        position: usize,
        key: Key<'_>,
        header: RecordHeader,
        old: Option<Record>,
        kept: usize,
        data: &[u8],
    ) -> usize {
        self.filter.insert(key_hash(key));
        self.put_bytes(position, &header.encode());
        let mut end = position + RecordHeader::SIZE;
        for unit in key.name.iter().chain(&[0]) {
            self.put_bytes(end, &unit.to_le_bytes());
            end += size_of::<u16>();
        }
        if let Some(old) = old {
            let from = old.data().start..old.data().start + kept;
            if from.end <= self.limit && end + kept <= self.limit {
                self.backend.bytes_mut().copy_within(from, end);
            }
        }
        end += kept;
        self.put_bytes(end, data);
        end + data.len()
    }

    /// Makes the chosen record of `key` the last one; the store is compact.
    fn move_to_end(&mut self, key: Key<'_>) -> Option<Record> {
        let record = self.find(key)?;
        let free = self.free;
        self.bytes_mut(record.position..free).rotate_left(record.size());
        self.find(key)
    }

    fn compact(&mut self) {
        self.settle();
        let mut to = self.first();
        let mut position = to;
        loop {
            position = match self.entry(position) {
                Entry::Live(record) => {
                    self.backend.bytes_mut().copy_within(record.position..record.data_end, to);
                    let end = to + (record.data_end - record.position);
                    to += record.size();
                    self.bytes_mut(end..to).fill(ERASED);
                    record.next
                }
                Entry::Damaged { next } | Entry::Dead { next } => next,
                Entry::Broken | Entry::End => break,
            };
        }
        let limit = self.limit;
        self.bytes_mut(to..limit).fill(ERASED);
        self.free = to;
        self.soiled = false;
        self.index();
    }

    /// In memory: makes each variable's chosen copy the only live one, and plainly added.
    fn settle(&mut self) {
        let mut position = self.first();
        loop {
            position = match self.entry(position) {
                Entry::Live(record) => {
                    let chosen = self.is_chosen(&record);
                    let settled = if chosen { state::ADDED } else { record.header.state & state::DELETED };
                    self.put_bytes(record.position + RecordHeader::STATE_OFFSET, &[settled]);
                    record.next
                }
                Entry::Damaged { next } | Entry::Dead { next } => next,
                Entry::Broken | Entry::End => return,
            };
        }
    }

    /// Deletes all live copies but `chosen`, so that none of them comes up when `chosen` is gone.
    fn delete_other_copies(&mut self, key: Key<'_>, chosen: &Record) -> Result<(), BackendError> {
        loop {
            let copy = self.copies(key).find(|copy| copy.position != chosen.position);
            let Some(copy) = copy else { return Ok(()) };
            self.set_state(copy.position, copy.header.state & state::DELETED)?;
        }
    }

    /// Brings the medium up to date if it failed before.
    fn refresh(&mut self) -> Result<(), BackendError> {
        if self.out_of_date { self.persist_all() } else { Ok(()) }
    }

    fn persist_all(&mut self) -> Result<(), BackendError> {
        self.out_of_date = true;
        self.backend.persist_all()?;
        self.out_of_date = false;
        Ok(())
    }

    /// Changes a record's state durably, or not at all.
    fn set_state(&mut self, position: usize, state: u8) -> Result<(), BackendError> {
        let at = position + RecordHeader::STATE_OFFSET;
        let before = self.bytes(at..at + 1).first().copied();
        self.put_bytes(at, &[state]);
        let persisted = self.backend.persist(at..at + 1);
        if let (Err(_), Some(before)) = (persisted, before) {
            self.put_bytes(at, &[before]);
            self.out_of_date = true;
        }
        persisted
    }

    /// Room at the free end.
    fn room(&self) -> usize {
        if self.soiled { 0 } else { self.limit.saturating_sub(self.free) }
    }

    fn copies<'a>(&'a self, key: Key<'a>) -> impl Iterator<Item = Record> + 'a {
        self.live(self.first()).filter(move |record| self.has_key(record, key))
    }

    fn has_key(&self, record: &Record, key: Key<'_>) -> bool {
        let size = record.name_end - record.name().start;
        record.header.vendor == key.vendor
            && size == key.stored_size()
            && StoredName::new(self.name(record)).is_some_and(|name| name.equals(key.name))
    }

    /// Whether `record` is the one that counts among the copies of its key: the first complete one, else the first.
    fn is_chosen(&self, record: &Record) -> bool {
        !self.repeats || self.is_chosen_of_copies(record)
    }

    fn is_chosen_of_copies(&self, record: &Record) -> bool {
        let added = record.header.state == state::ADDED;
        let mut others = self.live(self.first()).filter(|other| other.position != record.position);
        !others.any(|other| {
            let other_added = other.header.state == state::ADDED;
            let wins = if added == other_added { other.position < record.position } else { other_added };
            wins && self.same_key(&other, record)
        })
    }

    /// Notes which keys there are, and whether one of them has more than one live record. Only a record whose key's hash is
    /// there already is compared with the others, so that this takes little longer than a walk.
    fn index(&mut self) {
        let mut filter = Filter::new();
        let mut repeats = false;
        for record in self.live(self.first()) {
            let is_before = |other: &Record| other.position < record.position;
            if filter.insert(self.hash(&record)) && !repeats {
                repeats = self.live(self.first()).take_while(is_before).any(|other| self.same_key(&other, &record));
            }
        }
        (self.filter, self.repeats) = (filter, repeats);
    }

    fn hash(&self, record: &Record) -> u64 {
        stored_hash(record.header.vendor, self.name(record))
    }

    fn same_key(&self, one: &Record, other: &Record) -> bool {
        one.header.vendor == other.header.vendor
            && one.header.name_size == other.header.name_size
            && self.name(one) == self.name(other)
    }

    fn live(&self, from: usize) -> impl Iterator<Item = Record> + '_ {
        let mut position = from;
        core::iter::from_fn(move || {
            loop {
                match self.entry(position) {
                    Entry::Live(record) => {
                        position = record.next;
                        return Some(record);
                    }
                    Entry::Damaged { next } | Entry::Dead { next } => position = next,
                    Entry::Broken | Entry::End => return None,
                }
            }
        })
    }

    fn entry(&self, position: usize) -> Entry {
        let Some(header) = RecordHeader::decode(self.bytes(position..self.limit)) else { return Entry::End };
        if header.is_unfinished() {
            return Entry::Dead { next: position + RecordHeader::SIZE };
        }
        let end = header.record_size().and_then(|size| position.checked_add(size));
        let Some(data_end) = end.filter(|&end| end <= self.limit) else { return Entry::Broken };
        let next = align(data_end).unwrap_or(data_end).min(self.limit);
        if !header.is_live() {
            return Entry::Dead { next };
        }
        let name_end = data_end - header.data_size as usize;
        let record = Record { position, header, name_end, data_end, next };
        if header.data_size == 0 || StoredName::new(self.bytes(record.name())).is_none() {
            return Entry::Damaged { next };
        }
        Entry::Live(record)
    }

    /// Offset of the first record.
    fn first(&self) -> usize {
        align(self.start + StoreHeader::SIZE).unwrap_or(self.limit)
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.backend.bytes().get(range).unwrap_or_default()
    }

    fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        self.backend.bytes_mut().get_mut(range).unwrap_or_default()
    }

    fn put_bytes(&mut self, offset: usize, bytes: &[u8]) {
        let Some(place) = self.backend.bytes_mut().get_mut(offset..) else { return };
        if let Some(place) = place.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

fn key_hash(key: Key<'_>) -> u64 {
    filter::hash(key.vendor, key.name.iter().copied())
}

/// The same of a name as it is stored, with its NUL.
fn stored_hash(vendor: Guid, name: &[u8]) -> u64 {
    let units = name.as_chunks().0;
    let count = units.len().saturating_sub(1);
    filter::hash(vendor, units.iter().take(count).map(|&unit| u16::from_le_bytes(unit)))
}

fn new_header(key: Key<'_>, meta: Meta, data_size: usize) -> Result<RecordHeader, StoreError> {
    Ok(RecordHeader {
        state: state::ADDED,
        attributes: meta.attributes,
        monotonic_count: 0,
        time_stamp: meta.time_stamp,
        public_key_index: 0,
        name_size: u32::try_from(key.stored_size()).map_err(|_| StoreError::Full)?,
        data_size: u32::try_from(data_size).map_err(|_| StoreError::Full)?,
        vendor: key.vendor,
    })
}

mod filter;
mod walk;

#[cfg(test)]
mod tests;
