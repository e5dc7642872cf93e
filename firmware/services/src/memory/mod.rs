//! Memory map, page and pool allocation, page protection (UEFI 2.10 §7.2).
//!
//! [`Memory`] is the database: a [`table`] of ranges ordered by address, [`pool`]s of small blocks on top of it, and the
//! [`protect`] policy, which says where the edge has to change access rights. [`map`] shows the table to the outside. It
//! is also the firmware's heap ([`Heap`](crate::abi::memory::Heap)), so nothing in here allocates.
//!
//! Where allocations go: `AllocateAnyPages` takes the highest free range below 4 GiB, because much that loaders load does
//! not like to be above; then what is above 4 GiB; then what is below 1 MiB. Types that the OS never gets back have bins
//! of their own ([`BINS`]), so that they end up side by side and the map stays short; a bin's unused part is ordinary free
//! memory, used by others when there is no other. Page 0 is never given out.

pub mod map;
mod pool;
pub mod protect;
mod table;

#[cfg(test)]
mod tests;

use core::ops::Range;
use core::ptr::{self, NonNull};

use uefi_raw::Status;
use uefi_raw::table::boot::{MemoryAttribute, MemoryType, PAGE_SIZE};

use pool::{Freed, Pools, Supply};
pub use pool::{GRAIN, LARGEST};
use protect::{Change, Class};
use table::{Entry, Owner, SPLIT, State, Table};

/// Bytes of a page.
pub const PAGE: u64 = PAGE_SIZE as u64;
const MIB: u64 = 1 << 20;
const FOUR_GIB: u64 = 1 << 32;

/// Pages per type that the OS never gets back, or gets back late, from the top of the bins downwards.
const BINS: [(MemoryType, u64); 5] = [
    (MemoryType::RUNTIME_SERVICES_CODE, 64),
    (MemoryType::RUNTIME_SERVICES_DATA, 128),
    (MemoryType::RESERVED, 64),
    (MemoryType::ACPI_NON_VOLATILE, 16),
    (MemoryType::ACPI_RECLAIM, 32),
];

/// Powers of two of pages that [`Memory`] remembers the highest place of; the last one stands for all above, too.
const SIZES: usize = 12;

const fn bin_pages() -> u64 {
    let (mut sum, mut bin) = (0, 0);
    while bin < BINS.len() {
        sum += BINS[bin].1;
        bin += 1;
    }
    sum
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The memory type is none that can be allocated.
    Type(MemoryType),
    /// No pages, a misaligned address, or a range beyond the address space.
    Range,
    /// The range overlaps one that is known.
    Overlap,
    /// There is no free memory for it.
    OutOfMemory,
    /// The pages asked for are not free.
    NotFree(u64),
    /// The pages are not the caller's to free.
    NotAllocated(u64),
    /// The pages belong to the pools or to the firmware: their access rights are not to be changed.
    NotYours(u64),
    /// The address is not in any pool.
    NotInPool(u64),
    /// The address is in a pool, but not the start of a block.
    NotABlock(u64),
    /// The block is free already.
    DoubleFree(u64),
    /// The pool page at this address was overwritten.
    Corrupt(u64),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Type(_) | Error::Range | Error::Overlap => Self::INVALID_PARAMETER,
            Error::OutOfMemory => Self::OUT_OF_RESOURCES,
            Error::NotFree(_) | Error::NotAllocated(_) => Self::NOT_FOUND,
            Error::NotYours(_) => Self::ACCESS_DENIED,
            Error::NotInPool(_) | Error::NotABlock(_) | Error::DoubleFree(_) | Error::Corrupt(_) => {
                Self::INVALID_PARAMETER
            }
        }
    }
}

/// Where pages may be (UEFI 2.10 §7.2.1, `EFI_ALLOCATE_TYPE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Anywhere.
    Any,
    /// The last byte is at this address or below.
    Below(u64),
    /// Exactly here.
    At(u64),
}

/// What an allocation gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Allocation<T> {
    /// Where it is.
    pub at: T,
    /// The access rights that its pages need before the caller gets it.
    pub change: Option<Change>,
}

/// What a request to free came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Release {
    /// It is free.
    Done,
    /// It is still allocated: its pages must be made ordinary first ([`Memory::mark_ordinary`]), then it can be freed.
    First(Change),
}

/// The database.
#[derive(Debug)]
pub struct Memory {
    table: Table,
    pools: Pools,
    /// Where the bins are; empty before the first allocation, and for good if there was no place.
    bins: Range<u64>,
    bins_placed: bool,
    /// Counts changes of the map.
    key: usize,
    announced_key: usize,
    watched: bool,
    /// The entry of the last pool page a block was freed in.
    last_pool: usize,
    /// By the power of two of a number of pages: no free range below 4 GiB of that many pages or more ends above this
    /// address, the bins aside. The values fall from one to the next.
    tops: [u64; SIZES],
}

impl Memory {
    /// An empty database.
    pub const fn new() -> Self {
        Self {
            table: Table::new(),
            pools: Pools::new(),
            bins: 0..0,
            bins_placed: false,
            key: 1,
            announced_key: 1,
            watched: false,
            last_pool: 0,
            tops: [FOUR_GIB; SIZES],
        }
    }

    /// Makes memory known. `CONVENTIONAL` memory is free from now on; anything else belongs to the platform. `capabilities`
    /// is what the memory map shows (cacheability; `RUNTIME` for what the OS must map for the runtime services).
    ///
    /// Free ranges shrink to whole pages, others grow to whole pages. All memory should be known before the first
    /// allocation, because the first allocation places the bins.
    ///
    /// # Errors
    /// [`Error::Overlap`] with a range that is known; [`Error::OutOfMemory`] if the table cannot grow.
    pub fn add(&mut self, range: Range<u64>, ty: MemoryType, capabilities: MemoryAttribute) -> Result<(), Error> {
        let free = ty == MemoryType::CONVENTIONAL;
        let (start, end) = if free {
            (range.start.checked_next_multiple_of(PAGE).ok_or(Error::Range)?, align_down(range.end, PAGE))
        } else {
            let end = range.end.checked_next_multiple_of(PAGE).unwrap_or(align_down(u64::MAX, PAGE));
            (align_down(range.start, PAGE), end)
        };
        if start >= end {
            return if free { Ok(()) } else { Err(Error::Range) };
        }
        if self.overlaps(start, end) {
            return Err(Error::Overlap);
        }
        self.make_room()?;
        let state = if free {
            State { capabilities, ty, owner: Owner::Free, class: Class::Data }
        } else {
            State { capabilities, ty, owner: Owner::Platform, class: platform_class(ty) }
        };
        self.table.add(Entry { start, end, state });
        self.tops = [FOUR_GIB; SIZES];
        self.key += 1;
        if free && start == 0 {
            // Page 0 stays unmapped while the firmware runs, so that null pointers fault; the OS may have it.
            self.assign_all(0, PAGE, |state| State {
                ty: MemoryType::BOOT_SERVICES_DATA,
                owner: Owner::Platform,
                class: Class::Custom,
                ..state
            });
        }
        Ok(())
    }

    /// Takes free memory at a fixed place for the platform or the firmware's own image, for good or until
    /// [`Self::release`].
    ///
    /// # Errors
    /// [`Error::NotFree`] if any of it is not free memory.
    pub fn reserve(&mut self, address: u64, pages: u64, ty: MemoryType) -> Result<(), Error> {
        let end = page_range(address, pages)?;
        self.make_room()?;
        self.require(address, end, Error::NotFree, Entry::is_free)?;
        self.assign_all(address, end, |state| State { ty, owner: Owner::Platform, class: platform_class(ty), ..state });
        Ok(())
    }

    /// Makes memory of the platform free: the blob the firmware was loaded as, modules no longer needed.
    ///
    /// # Errors
    /// [`Error::NotAllocated`] if any of it is not the platform's.
    pub fn release(&mut self, address: u64, pages: u64) -> Result<Release, Error> {
        let end = page_range(address, pages)?;
        if address == 0 {
            return Err(Error::NotAllocated(address));
        }
        self.make_room()?;
        self.free_owned(address, end, Owner::Platform)
    }

    /// Allocates pages.
    ///
    /// # Errors
    /// [`Error::Type`], [`Error::Range`] for no pages, [`Error::OutOfMemory`], [`Error::NotFree`] for a fixed place that is
    /// not free.
    #[inline]
    pub fn allocate_pages(
        &mut self,
        placement: Placement,
        ty: MemoryType,
        pages: u64,
    ) -> Result<Allocation<u64>, Error> {
        check_type(ty)?;
        if pages == 0 {
            return Err(Error::Range);
        }
        let limit = match placement {
            Placement::Any => u64::MAX,
            Placement::Below(last) => last.saturating_add(1),
            Placement::At(address) => return self.allocate_at(address, ty, pages),
        };
        self.allocate_range(ty, pages, PAGE, limit, Owner::Pages)
    }

    /// Frees pages that [`Self::allocate_pages`] gave; a part of an allocation, too, or several that touch.
    ///
    /// # Errors
    /// [`Error::Range`], [`Error::NotAllocated`] if any of them is not an allocated page of one and the same type.
    #[inline]
    pub fn free_pages(&mut self, address: u64, pages: u64) -> Result<Release, Error> {
        let end = page_range(address, pages)?;
        self.make_room()?;
        self.free_owned(address, end, Owner::Pages)
    }

    /// Allocates a block, aligned to 16 bytes. A size of 0 gives a block of no use that must be freed all the same.
    ///
    /// # Errors
    /// [`Error::Type`], [`Error::OutOfMemory`].
    #[inline]
    pub fn allocate_pool(&mut self, ty: MemoryType, size: usize) -> Result<Allocation<NonNull<u8>>, Error> {
        self.allocate_pool_aligned(ty, size, GRAIN)
    }

    /// Allocates a block if that takes no more than a look at a slab; nothing means that [`Self::allocate_pool`] has to be
    /// asked. The map does not change.
    #[inline]
    pub fn allocate_pool_quickly(&mut self, ty: MemoryType, size: usize) -> Option<NonNull<u8>> {
        // Types that cannot be allocated have no slabs.
        let class = pool::class_for(size, GRAIN)?;
        if ty < MemoryType::MAX { self.pools.allocate(ty.0 as usize, class) } else { None }
    }

    /// Allocates a block of any alignment (a power of two).
    ///
    /// # Errors
    /// As [`Self::allocate_pool`].
    #[inline]
    pub fn allocate_pool_aligned(
        &mut self,
        ty: MemoryType,
        size: usize,
        align: usize,
    ) -> Result<Allocation<NonNull<u8>>, Error> {
        check_type(ty)?;
        if let Some(class) = pool::class_for(size, align)
            && let Some(pool) = self.pools.index(ty)
        {
            match self.pools.allocate(pool, class) {
                Some(at) => Ok(Allocation { at, change: None }),
                None => self.allocate_from_new_slab(ty, pool, class),
            }
        } else {
            self.allocate_large(ty, size, align)
        }
    }

    /// Frees a block if that takes no more than a look at its slab; false means that nothing was done and
    /// [`Self::free_pool`] has to be asked. The map does not change.
    #[inline]
    pub fn free_pool_quickly(&mut self, address: u64) -> bool {
        let entry = self.table.entries().get(self.last_pool);
        entry.is_some_and(|e| e.start <= address && address < e.end && e.state.owner == Owner::Pool)
            && self.pools.free_quickly(address)
    }

    /// Frees a block of either kind.
    ///
    /// # Errors
    /// [`Error::NotInPool`], [`Error::NotABlock`], [`Error::DoubleFree`], [`Error::Corrupt`].
    pub fn free_pool(&mut self, address: u64) -> Result<Release, Error> {
        let index = self.table.containing(address).ok_or(Error::NotInPool(address))?;
        let entry = self.table.entries()[index];
        match entry.state.owner {
            Owner::Pool => self.last_pool = index,
            Owner::LargePool if entry.start == address => return self.free_large(entry),
            Owner::LargePool => return Err(Error::NotABlock(address)),
            _ => return Err(Error::NotInPool(address)),
        }
        match self.pools.free(address)? {
            Freed::Kept => Ok(Release::Done),
            Freed::Page(page) => {
                // Without room in the table the page stays with the pools, of no use but no harm.
                if self.make_room().is_ok()
                    && let Some(index) = self.table.containing(page)
                {
                    let state = free_state(self.table.entries()[index].state);
                    let free = self.table.assign(index, page, page + PAGE, state);
                    self.raise_tops(free);
                    self.key += 1;
                }
                Ok(Release::Done)
            }
        }
    }

    /// The largest size to which the block of `size` bytes can grow or shrink in place, given how it was allocated.
    #[inline]
    pub fn fits_in_place(size: usize, new_size: usize, align: usize) -> bool {
        match (pool::class_for(size, align), pool::class_for(new_size, align)) {
            (Some(old), Some(new)) => old == new,
            (None, None) => size.div_ceil(PAGE_SIZE) == new_size.div_ceil(PAGE_SIZE),
            _ => false,
        }
    }

    /// Notes that the pages of a range are mapped as ordinary data again, as [`Release::First`] asked for. Capabilities,
    /// type and owner stay.
    pub fn mark_ordinary(&mut self, change: &Change) {
        self.mark(change, Class::Data);
    }

    /// Notes that the pages of a range have access rights of their own, so that they are reset before anyone else gets
    /// them. To be called before the rights are changed.
    ///
    /// # Errors
    /// [`Error::NotYours`] if any of it is free or belongs to the platform or to the pools; [`Error::Range`],
    /// [`Error::OutOfMemory`].
    pub fn mark_custom(&mut self, address: u64, pages: u64) -> Result<(), Error> {
        let end = page_range(address, pages)?;
        self.make_room()?;
        self.require(address, end, Error::NotYours, |e| matches!(e.state.owner, Owner::Pages | Owner::LargePool))?;
        // A large pool block must stay one entry: mark all of it.
        let mut at = address;
        while let Some(index) = self.table.containing(at)
            && at < end
        {
            let entry = self.table.entries()[index];
            let (start, stop) =
                if entry.state.owner == Owner::LargePool { (entry.start, entry.end) } else { (at, entry.end.min(end)) };
            self.table.assign(index, start, stop, State { class: Class::Custom, ..entry.state });
            at = stop;
        }
        Ok(())
    }

    /// Whether every byte of a range is memory the database knows, and of whom: `Err` if not.
    ///
    /// # Errors
    /// [`Error::Range`], [`Error::NotAllocated`].
    pub fn require_known(&self, address: u64, pages: u64) -> Result<(), Error> {
        let end = page_range(address, pages)?;
        self.require(address, end, Error::NotAllocated, |_| true)
    }

    /// From now on [`Self::take_announcement`] tells of changes.
    pub fn watch(&mut self) {
        self.watched = true;
        self.announced_key = self.key;
    }

    /// Whether the map has changed since this was last asked, if anybody cares ([`Self::watch`]).
    #[inline]
    pub fn take_announcement(&mut self) -> bool {
        self.watched && core::mem::replace(&mut self.announced_key, self.key) != self.key
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        let below = self.table.starting_below(end);
        below.checked_sub(1).is_some_and(|last| self.table.entries()[last].end > start)
    }

    fn allocate_at(&mut self, address: u64, ty: MemoryType, pages: u64) -> Result<Allocation<u64>, Error> {
        let end = page_range(address, pages).map_err(|_| Error::NotFree(address))?;
        self.make_room()?;
        self.require(address, end, Error::NotFree, Entry::is_free)?;
        let class = Class::of(ty);
        self.assign_all(address, end, |state| State { ty, owner: Owner::Pages, class, ..state });
        Ok(Allocation { at: address, change: change_on_allocation(class, address, pages) })
    }

    #[inline]
    fn allocate_range(
        &mut self,
        ty: MemoryType,
        pages: u64,
        align: u64,
        limit: u64,
        owner: Owner,
    ) -> Result<Allocation<u64>, Error> {
        let bytes = pages.checked_mul(PAGE).ok_or(Error::OutOfMemory)?;
        self.place_bins();
        self.make_room()?;
        let (index, at) = self.find(ty, bytes, align, align_down(limit, PAGE)).ok_or(Error::OutOfMemory)?;
        let class = Class::of(ty);
        let state = State { ty, owner, class, ..self.table.entries()[index].state };
        self.table.assign(index, at, at + bytes, state);
        self.key += 1;
        Ok(Allocation { at, change: change_on_allocation(class, at, pages) })
    }

    /// The place for a new range: the entry and the address.
    #[inline]
    fn find(&mut self, ty: MemoryType, bytes: u64, align: u64, limit: u64) -> Option<(usize, u64)> {
        let bins = self.bins.clone();
        if !bins.is_empty()
            && let Some(bin) = self.bin_of(ty)
            && let Some(found) = self.find_in(bin, bytes, align, limit)
        {
            return Some(found);
        }
        let size = size_of_run(bytes);
        let top = self.tops[size];
        // Only a search that leaves nothing out learns something, of ranges that are no smaller than what it looks for.
        let exact = if bytes == PAGE << size { size } else { size + 1 };
        let learns = limit >= top && align == PAGE && exact < SIZES;
        for window in [bins.end.max(MIB)..top, MIB..bins.start.max(MIB).min(top)] {
            if let Some((index, at)) = self.find_in(window, bytes, align, limit) {
                if learns {
                    self.lower_tops(exact, at + bytes);
                }
                return Some((index, at));
            }
        }
        if learns {
            self.lower_tops(exact, MIB);
        }
        // The last one has the bins' unused parts, and ranges across the borders of the others.
        [FOUR_GIB..u64::MAX, PAGE..MIB, PAGE..u64::MAX]
            .into_iter()
            .find_map(|window| self.find_in(window, bytes, align, limit))
    }

    /// No free range of this size ends above `address`, and so none of a larger size.
    #[inline]
    fn lower_tops(&mut self, size: usize, address: u64) {
        for top in &mut self.tops[size..] {
            if *top <= address {
                break;
            }
            *top = address;
        }
    }

    /// Entry `index` is free, and larger than it was.
    #[inline]
    fn raise_tops(&mut self, index: usize) {
        let entry = self.table.entries()[index];
        let end = entry.end.min(FOUR_GIB);
        for top in self.tops[..=size_of_run(entry.end - entry.start)].iter_mut().rev() {
            if *top >= end {
                break;
            }
            *top = end;
        }
    }

    /// The highest free place in a window.
    #[inline]
    fn find_in(&self, window: Range<u64>, bytes: u64, align: u64, limit: u64) -> Option<(usize, u64)> {
        let (low, high) = (window.start, window.end.min(limit));
        if low >= high || high - low < bytes {
            return None;
        }
        let below = self.table.starting_below(high);
        for (index, entry) in self.table.entries()[..below].iter().enumerate().rev() {
            if entry.end <= low {
                break;
            }
            if entry.is_free() {
                let (start, end) = (entry.start.max(low), entry.end.min(high));
                if end - start >= bytes {
                    let at = align_down(end - bytes, align);
                    if at >= start {
                        return Some((index, at));
                    }
                }
            }
        }
        None
    }

    fn bin_of(&self, ty: MemoryType) -> Option<Range<u64>> {
        let mut end = self.bins.end;
        for (bin, pages) in BINS {
            let start = end - pages * PAGE;
            if bin == ty {
                return Some(start..end);
            }
            end = start;
        }
        None
    }

    #[inline]
    fn place_bins(&mut self) {
        if !self.bins_placed {
            self.bins_placed = true;
            let bytes = bin_pages() * PAGE;
            if let Some((_, at)) = self.find_in(MIB..FOUR_GIB, bytes, PAGE, u64::MAX) {
                self.bins = at..at + bytes;
            }
        }
    }

    fn allocate_from_new_slab(
        &mut self,
        ty: MemoryType,
        pool: usize,
        class: usize,
    ) -> Result<Allocation<NonNull<u8>>, Error> {
        let (page, change) = match self.pools.take_stocked(pool) {
            Some(page) => (page, None),
            None => {
                let batch = Supply::of(ty).batch;
                let mut taken = self.allocate_range(ty, batch, PAGE, u64::MAX, Owner::Pool).map(|got| (got, batch));
                if taken.is_err() && batch > 1 {
                    taken = self.allocate_range(ty, 1, PAGE, u64::MAX, Owner::Pool).map(|got| (got, 1));
                }
                let (got, count) = taken?;
                for page in 1..count {
                    self.pools.stock(pool, got.at + page * PAGE);
                }
                (got.at, got.change)
            }
        };
        self.pools.add_slab(pool, class, page);
        let at = self.pools.allocate(pool, class).ok_or(Error::Corrupt(page))?;
        Ok(Allocation { at, change })
    }

    fn allocate_large(&mut self, ty: MemoryType, size: usize, align: usize) -> Result<Allocation<NonNull<u8>>, Error> {
        let pages = (size as u64).div_ceil(PAGE).max(1);
        let got = self.allocate_range(ty, pages, (align as u64).max(PAGE), u64::MAX, Owner::LargePool)?;
        let at = NonNull::new(ptr::with_exposed_provenance_mut(got.at as usize)).ok_or(Error::OutOfMemory)?;
        Ok(Allocation { at, change: got.change })
    }

    fn free_large(&mut self, entry: Entry) -> Result<Release, Error> {
        self.make_room()?;
        self.free_owned(entry.start, entry.end, Owner::LargePool)
    }

    /// Frees a range that belongs to one owner and has one type.
    #[inline]
    fn free_owned(&mut self, start: u64, end: u64, owner: Owner) -> Result<Release, Error> {
        let index = self.table.containing(start).ok_or(Error::NotAllocated(start))?;
        let entry = self.table.entries()[index];
        let ty = entry.state.ty;
        if end <= entry.end && entry.state.owner == owner && entry.state.class == Class::Data {
            let free = self.table.assign(index, start, end, free_state(entry.state));
            self.raise_tops(free);
            self.key += 1;
            return Ok(Release::Done);
        }
        let mut ordinary = true;
        self.require(start, end, Error::NotAllocated, |e| {
            ordinary &= e.state.class == Class::Data;
            e.state.owner == owner && (e.state.ty == ty || owner == Owner::Platform)
        })?;
        if !ordinary {
            let protection = Class::Data.protection();
            return Ok(Release::First(Change { address: start, pages: (end - start) / PAGE, protection }));
        }
        self.assign_all(start, end, free_state);
        self.tops = [FOUR_GIB; SIZES];
        Ok(Release::Done)
    }

    fn mark(&mut self, change: &Change, class: Class) {
        // Callers name a range they were told of, so it is known; without room for a split the mark is dropped, which
        // costs a second change of the rights and no more.
        if self.make_room().is_ok() {
            self.assign_all(change.address, change.address + change.pages * PAGE, |state| State { class, ..state });
        }
    }

    /// Checks that known ranges cover `start` to `end` and all satisfy `accept`.
    fn require(
        &self,
        start: u64,
        end: u64,
        error: fn(u64) -> Error,
        mut accept: impl FnMut(&Entry) -> bool,
    ) -> Result<(), Error> {
        let first = self.table.containing(start).ok_or(error(start))?;
        let mut covered = start;
        for entry in &self.table.entries()[first..] {
            if (covered != start && entry.start != covered) || !accept(entry) {
                break;
            }
            covered = entry.end;
            if covered >= end {
                return Ok(());
            }
        }
        Err(error(covered))
    }

    /// Changes the state of all entries between `start` and `end`, which lie in known ranges.
    fn assign_all(&mut self, start: u64, end: u64, mut new: impl FnMut(State) -> State) {
        let mut at = start;
        while at < end
            && let Some(index) = self.table.containing(at)
        {
            let entry = self.table.entries()[index];
            let stop = entry.end.min(end);
            self.table.assign(index, at, stop, new(entry.state));
            at = stop;
        }
        self.key += 1;
    }

    /// Makes sure that a change of one range finds room in the table.
    #[inline]
    fn make_room(&mut self) -> Result<(), Error> {
        // Growing is itself a change, hence twice.
        if self.table.room() >= 2 * SPLIT { Ok(()) } else { self.grow() }
    }

    #[cold]
    fn grow(&mut self) -> Result<(), Error> {
        let pages = self.table.pages_when_doubled();
        let found = self.find(MemoryType::BOOT_SERVICES_DATA, pages * PAGE, PAGE, u64::MAX);
        let Some((index, at)) = found else {
            return if self.table.room() >= SPLIT { Ok(()) } else { Err(Error::OutOfMemory) };
        };
        let state = State {
            ty: MemoryType::BOOT_SERVICES_DATA,
            owner: Owner::Table,
            class: Class::Data,
            ..self.table.entries()[index].state
        };
        // SAFETY: the pages are free memory, and become the table's own before anything else can take them.
        let before = unsafe { self.table.adopt(at, pages) };
        self.table.assign(index, at, at + pages * PAGE, state);
        self.key += 1;
        if let Some(old) = before.and_then(|address| self.table.containing(address)) {
            let entry = self.table.entries()[old];
            let free = self.table.assign(old, entry.start, entry.end, free_state(entry.state));
            self.raise_tops(free);
        }
        Ok(())
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Which types can be allocated: all but the free one, those that are found rather than made, and the numbers that the
/// specification keeps for itself (UEFI 2.10 §7.2.1).
#[inline]
fn check_type(ty: MemoryType) -> Result<(), Error> {
    match ty {
        MemoryType::CONVENTIONAL | MemoryType::PERSISTENT_MEMORY | MemoryType::UNACCEPTED => Err(Error::Type(ty)),
        _ if ty < MemoryType::MAX || ty.0 >= *MemoryType::RESERVED_FOR_OEM.start() => Ok(()),
        _ => Err(Error::Type(ty)),
    }
}

/// The end of a range of whole pages.
#[inline]
fn page_range(address: u64, pages: u64) -> Result<u64, Error> {
    let bytes = pages.checked_mul(PAGE).filter(|&bytes| bytes != 0).ok_or(Error::Range)?;
    let end = address.checked_add(bytes).ok_or(Error::Range)?;
    if address.is_multiple_of(PAGE) { Ok(end) } else { Err(Error::Range) }
}

/// The index into [`Memory`]'s highest places for a range of this many bytes, at least a page.
#[inline]
fn size_of_run(bytes: u64) -> usize {
    ((bytes / PAGE).ilog2() as usize).min(SIZES - 1)
}

#[inline]
fn align_down(value: u64, align: u64) -> u64 {
    value & !(align - 1)
}

#[inline]
fn free_state(state: State) -> State {
    State { ty: MemoryType::CONVENTIONAL, owner: Owner::Free, class: Class::Data, ..state }
}

/// Free memory is mapped as data, so only other classes need a change.
#[inline]
fn change_on_allocation(class: Class, address: u64, pages: u64) -> Option<Change> {
    (class != Class::Data).then(|| Change { address, pages, protection: class.protection() })
}

/// The firmware's own code has access rights by section.
fn platform_class(ty: MemoryType) -> Class {
    if Class::of(ty) == Class::Code { Class::Custom } else { Class::Data }
}
