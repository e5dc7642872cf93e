//! The list of memory ranges, ordered by address.
//!
//! One array, searched by bisection. Allocation goes top-down, so that most changes touch entries near the end of the
//! array or only move the border between two neighbours. The array starts inside the [`Table`] and moves to pages of its
//! own when it grows ([`Table::adopt`]); it must not use the heap, because it is what the heap rests on.

use core::ptr;

use uefi_raw::table::boot::{MemoryAttribute, MemoryType, PAGE_SIZE};

use super::protect::Class;

/// Who may give a range back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Owner {
    /// Nobody: the range is free.
    Free,
    /// The platform or the firmware itself; not to be freed by `FreePages`.
    Platform,
    /// A caller of `AllocatePages`.
    Pages,
    /// The pools, for small allocations.
    Pool,
    /// One large pool allocation; never merged with a neighbour, so that the entry tells its size.
    LargePool,
    /// This table.
    Table,
}

/// Everything about a range but its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// What the memory can do (UEFI 2.10 §7.2.3); goes with the place, not with the use.
    pub capabilities: MemoryAttribute,
    /// What it is used for.
    pub ty: MemoryType,
    /// Who holds it.
    pub owner: Owner,
    /// How its pages are mapped.
    pub class: Class,
}

impl State {
    /// Two touching ranges of this state are one range.
    fn merges(&self) -> bool {
        !matches!(self.owner, Owner::LargePool | Owner::Table)
    }
}

/// A range of pages, `start` to `end` (exclusive), both page-aligned, not empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// Use and nature.
    pub state: State,
}

impl Entry {
    const EMPTY: Self = Self {
        start: 0,
        end: 0,
        state: State {
            capabilities: MemoryAttribute::empty(),
            ty: MemoryType::RESERVED,
            owner: Owner::Platform,
            class: Class::Data,
        },
    };

    /// Whether it can be allocated.
    #[inline]
    pub fn is_free(&self) -> bool {
        self.state.owner == Owner::Free
    }
}

/// Entries before the table has pages of its own.
const INLINE: usize = 128;
/// The most entries that one [`Table::assign`] adds.
pub const SPLIT: usize = 2;

/// The ranges, ordered by address, none overlapping.
#[derive(Debug)]
pub struct Table {
    inline: [Entry; INLINE],
    /// Null while the entries are inline.
    pages: *mut Entry,
    capacity: usize,
    length: usize,
}

// SAFETY: the pages behind the pointer belong to this table alone.
unsafe impl Send for Table {}

impl Table {
    pub const fn new() -> Self {
        Self { inline: [Entry::EMPTY; INLINE], pages: ptr::null_mut(), capacity: INLINE, length: 0 }
    }

    /// The ranges.
    #[inline]
    pub fn entries(&self) -> &[Entry] {
        if self.pages.is_null() {
            &self.inline[..self.length]
        } else {
            // SAFETY: `adopt` got memory for `capacity` entries for this table alone; the first `length` are written.
            unsafe { core::slice::from_raw_parts(self.pages, self.length) }
        }
    }

    #[inline]
    fn entries_mut(&mut self) -> &mut [Entry] {
        if self.pages.is_null() {
            &mut self.inline[..self.length]
        } else {
            // SAFETY: as in `entries`, and `self` is borrowed exclusively.
            unsafe { core::slice::from_raw_parts_mut(self.pages, self.length) }
        }
    }

    /// How many more entries fit.
    #[inline]
    pub fn room(&self) -> usize {
        self.capacity - self.length
    }

    /// Pages that a table of twice the capacity takes.
    pub fn pages_when_doubled(&self) -> u64 {
        ((self.capacity * 2 * size_of::<Entry>()).div_ceil(PAGE_SIZE)) as u64
    }

    /// Moves the entries to other memory, and returns where they were: nothing if they were inline.
    ///
    /// # Safety
    /// `pages` pages at `address` must be writable memory that nobody else uses until the table moves on.
    pub unsafe fn adopt(&mut self, address: u64, pages: u64) -> Option<u64> {
        let new = ptr::with_exposed_provenance_mut::<Entry>(address as usize);
        let old = self.entries();
        // SAFETY: the caller gives memory for twice the capacity, which is more than `length`; it is not the old memory.
        unsafe { ptr::copy_nonoverlapping(old.as_ptr(), new, old.len()) };
        let before = (!self.pages.is_null()).then_some(self.pages.addr() as u64);
        self.pages = new;
        self.capacity = pages as usize * PAGE_SIZE / size_of::<Entry>();
        before
    }

    /// How many entries start below `address`.
    #[inline]
    pub fn starting_below(&self, address: u64) -> usize {
        self.entries().partition_point(|entry| entry.start < address)
    }

    /// The entry that holds the byte at `address`.
    #[inline]
    pub fn containing(&self, address: u64) -> Option<usize> {
        let index = self.entries().partition_point(|entry| entry.start <= address).checked_sub(1)?;
        (address < self.entries()[index].end).then_some(index)
    }

    /// Adds a range where there was none. There must be room, and no overlap.
    pub fn add(&mut self, new: Entry) {
        let at = self.starting_below(new.start);
        self.insert(at, new);
        // Give it its own state again: that merges it with its neighbours.
        self.assign(at, new.start, new.end, new.state);
    }

    /// Gives the part `start` to `end` of entry `index` the state `state`, splitting and merging as needed. The part must
    /// lie inside the entry, and there must be room for [`SPLIT`] more. Returns the entry that holds the part now.
    #[inline]
    pub fn assign(&mut self, index: usize, start: u64, end: u64, state: State) -> usize {
        let entries = self.entries_mut();
        let old = entries[index];
        debug_assert!(old.start <= start && start < end && end <= old.end);
        let keeps_left = old.start < start;
        let keeps_right = end < old.end;
        let joins_left = !keeps_left
            && state.merges()
            && index.checked_sub(1).is_some_and(|i| entries[i].end == start && entries[i].state == state);
        let joins_right = !keeps_right
            && state.merges()
            && entries.get(index + 1).is_some_and(|next| next.start == end && next.state == state);
        match (joins_left, joins_right) {
            (true, true) => {
                entries[index - 1].end = entries[index + 1].end;
                self.remove(index, 2);
                index - 1
            }
            (true, false) => {
                entries[index - 1].end = end;
                if keeps_right {
                    entries[index].start = end;
                } else {
                    self.remove(index, 1);
                }
                index - 1
            }
            (false, true) => {
                entries[index + 1].start = start;
                if keeps_left {
                    entries[index].end = start;
                    index + 1
                } else {
                    self.remove(index, 1);
                    index
                }
            }
            (false, false) => {
                let new = Entry { start, end, state };
                if state == old.state && state.merges() {
                    return index;
                }
                match (keeps_left, keeps_right) {
                    (false, false) => entries[index] = new,
                    (true, false) => {
                        entries[index].end = start;
                        self.insert(index + 1, new);
                    }
                    (false, true) => {
                        entries[index].start = end;
                        self.insert(index, new);
                    }
                    (true, true) => {
                        entries[index].end = start;
                        self.insert(index + 1, Entry { start: end, ..old });
                        self.insert(index + 1, new);
                    }
                }
                index + usize::from(keeps_left)
            }
        }
    }

    fn insert(&mut self, at: usize, entry: Entry) {
        assert!(self.length < self.capacity, "memory table without room");
        self.length += 1;
        let entries = self.entries_mut();
        let last = entries.len() - 1;
        entries.copy_within(at..last, at + 1);
        entries[at] = entry;
    }

    fn remove(&mut self, at: usize, count: usize) {
        let entries = self.entries_mut();
        entries.copy_within(at + count.., at);
        self.length -= count;
    }
}
