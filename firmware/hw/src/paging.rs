//! The firmware's page tables: an identity map whose access rights can be changed page by page.
//!
//! Everything starts out writable and not executable, in the largest pages the CPU has; a change of rights splits what it
//! must. Tables come from a pool given at the start, so a change never needs the memory services.

use core::ptr::NonNull;

use x86_64::structures::paging::PageTableFlags as Flags;

/// From so many pages on everything is forgotten at once: dropping one page after the other would take longer, and an
/// emulator drops everything for each of them.
const FLUSH_SINGLY_MAX: u64 = 4;
/// Bytes of the smallest page.
pub const PAGE: u64 = 4096;
const MIB_2: u64 = 2 << 20;
const GIB_1: u64 = 1 << 30;
const GIB_512: u64 = 512 << 30;
/// Entries of a table.
const ENTRIES: usize = 512;
/// The physical address in an entry.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// The bit of an entry that selects [`WRITE_COMBINING_ENTRY`](crate::pat::WRITE_COMBINING) of the page attribute table
/// (Intel SDM vol. 3 §12.12): for a page of the smallest size, and for larger ones, whose address has no such bit.
const ATTRIBUTE_SMALL: u64 = 1 << 7;
const ATTRIBUTE_LARGE: u64 = 1 << 12;

/// Access rights of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Whether the page can be accessed at all.
    pub present: bool,
    /// Whether it can be written.
    pub writable: bool,
    /// Whether it can be executed.
    pub executable: bool,
}

impl Access {
    /// Data: read and write.
    pub const DATA: Self = Self { present: true, writable: true, executable: false };
    /// Code: read and execute.
    pub const CODE: Self = Self { present: true, writable: false, executable: true };
    /// Constants: read only.
    pub const CONSTANT: Self = Self { present: true, writable: false, executable: false };
    /// A guard: nothing.
    pub const NONE: Self = Self { present: false, writable: false, executable: false };

    fn flags(self) -> Flags {
        let mut flags = Flags::empty();
        flags.set(Flags::PRESENT, self.present);
        flags.set(Flags::WRITABLE, self.writable);
        flags.set(Flags::NO_EXECUTE, !self.executable);
        flags
    }

    fn of(entry: u64) -> Self {
        let flags = Flags::from_bits_truncate(entry);
        Self {
            present: flags.contains(Flags::PRESENT),
            writable: flags.contains(Flags::WRITABLE),
            executable: !flags.contains(Flags::NO_EXECUTE),
        }
    }
}

/// Why rights could not be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagingError {
    /// The range is not in the map.
    NotMapped,
    /// The pool of tables is used up.
    OutOfTables,
}

/// Page tables over a pool of pages, identity-mapped themselves.
#[derive(Debug)]
pub struct PageTables {
    root: u64,
    next: u64,
    end: u64,
    top: u64,
}

// SAFETY: the tables belong to this value alone; the CPU only reads them.
unsafe impl Send for PageTables {}

impl PageTables {
    /// How many pages of tables mapping `[0, top)` takes, without any split.
    pub const fn tables_for(top: u64, huge_pages: bool) -> u64 {
        let directories = if huge_pages { 0 } else { top.div_ceil(GIB_1) };
        1 + top.div_ceil(GIB_512) + directories
    }

    /// Maps `[0, top)` one to one, readable, writable, not executable. `huge_pages`: whether the CPU has pages of 1 GiB.
    ///
    /// # Safety
    /// `pool` must be page-aligned memory of `pages` pages, identity-mapped, and used by nothing else from now on.
    pub unsafe fn new(pool: NonNull<u8>, pages: u64, top: u64, huge_pages: bool) -> Result<Self, PagingError> {
        let start = pool.as_ptr() as u64;
        let mut tables = Self { root: 0, next: start, end: start + pages * PAGE, top };
        tables.root = tables.table()?;
        let leaf = if huge_pages { GIB_1 } else { MIB_2 };
        let mut address = 0;
        while address < top {
            let slot = tables.walk_to(address, leaf)?;
            tables.write(slot, address | (Access::DATA.flags() | Flags::HUGE_PAGE).bits());
            address += leaf;
        }
        Ok(tables)
    }

    /// Physical address of the root table, for CR3.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Tables still in the pool.
    pub fn free_tables(&self) -> u64 {
        (self.end - self.next) / PAGE
    }

    /// End of the mapped range.
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Gives `pages` pages from `address` on these rights. Part of the range may be done when it fails.
    pub fn protect(&mut self, address: u64, pages: u64, access: Access) -> Result<(), PagingError> {
        let end = pages.checked_mul(PAGE).and_then(|size| address.checked_add(size)).ok_or(PagingError::NotMapped)?;
        if end > self.top || !address.is_multiple_of(PAGE) {
            return Err(PagingError::NotMapped);
        }
        let result = self.write_rights(address, end, access);
        if result == Ok(false) {
            return Ok(());
        }
        if pages > FLUSH_SINGLY_MAX {
            flush_all();
        } else {
            (0..pages).for_each(|page| flush(address + page * PAGE));
        }
        result.map(drop)
    }

    /// Writes the entries; tells whether any was changed.
    fn write_rights(&mut self, address: u64, end: u64, access: Access) -> Result<bool, PagingError> {
        let mut changed = false;
        let mut at = address;
        while at < end {
            let (slot, size) = self.leaf(at);
            let entry = self.read(slot);
            if Access::of(entry) == access {
                at = (at & !(size - 1)) + size;
            } else if size == PAGE || (at.is_multiple_of(size) && end - at >= size) {
                let keep = entry & (ADDRESS | Flags::HUGE_PAGE.bits());
                self.write(slot, keep | access.flags().bits());
                changed = true;
                at += size;
            } else {
                self.split(slot, size)?;
            }
        }
        Ok(changed)
    }

    /// Marks `pages` pages from `address` on as write-combining, once
    /// [`pat::enable`](crate::pat::enable) has been called; until then nothing changes. For video
    /// memory. Part of the range may be done when it fails.
    pub fn combine_writes(&mut self, address: u64, pages: u64) -> Result<(), PagingError> {
        let end = pages.checked_mul(PAGE).and_then(|size| address.checked_add(size)).ok_or(PagingError::NotMapped)?;
        if end > self.top || !address.is_multiple_of(PAGE) {
            return Err(PagingError::NotMapped);
        }
        let mut at = address;
        while at < end {
            let (slot, size) = self.leaf(at);
            if at.is_multiple_of(size) && end - at >= size {
                let bit = if size == PAGE { ATTRIBUTE_SMALL } else { ATTRIBUTE_LARGE };
                self.write(slot, self.read(slot) | bit);
                at += size;
            } else {
                self.split(slot, size)?;
            }
        }
        flush_all();
        Ok(())
    }

    /// Rights of the page at `address`.
    pub fn access(&self, address: u64) -> Result<Access, PagingError> {
        if address >= self.top {
            return Err(PagingError::NotMapped);
        }
        Ok(Access::of(self.read(self.leaf(address).0)))
    }

    /// Lets everything be read, written and executed. Nothing is split or allocated.
    pub fn lift(&mut self) {
        let mut address = 0;
        while address < self.top {
            let (slot, size) = self.leaf(address);
            let entry = self.read(slot);
            self.write(slot, entry & !Flags::NO_EXECUTE.bits() | (Flags::PRESENT | Flags::WRITABLE).bits());
            address += size;
        }
        flush_all();
    }

    /// The entry that maps `address`, and how much it maps.
    fn leaf(&self, address: u64) -> (u64, u64) {
        let mut table = self.root;
        let mut size = GIB_512;
        loop {
            let slot = slot(table, address, size);
            let entry = self.read(slot);
            if size == PAGE || entry & Flags::HUGE_PAGE.bits() != 0 {
                return (slot, size);
            }
            table = entry & ADDRESS;
            size /= ENTRIES as u64;
        }
    }

    /// The slot for a leaf of `leaf` bytes at `address`, with tables made on the way.
    fn walk_to(&mut self, address: u64, leaf: u64) -> Result<u64, PagingError> {
        let mut table = self.root;
        let mut size = GIB_512;
        while size > leaf {
            let slot = slot(table, address, size);
            if self.read(slot) == 0 {
                let below = self.table()?;
                self.write(slot, below | table_flags());
            }
            table = self.read(slot) & ADDRESS;
            size /= ENTRIES as u64;
        }
        Ok(slot(table, address, size))
    }

    /// Replaces a large leaf by a table of smaller ones with the same rights.
    fn split(&mut self, slot: u64, size: u64) -> Result<(), PagingError> {
        let entry = self.read(slot);
        let below = self.table()?;
        let small = size / ENTRIES as u64;
        let huge = if small == PAGE { 0 } else { Flags::HUGE_PAGE.bits() };
        let attribute = match (entry & ATTRIBUTE_LARGE != 0, small) {
            (false, _) => 0,
            (true, PAGE) => ATTRIBUTE_SMALL,
            (true, _) => ATTRIBUTE_LARGE,
        };
        let rights = Access::of(entry).flags().bits() | huge | attribute;
        let start = entry & ADDRESS & !(size - 1);
        for index in 0..ENTRIES as u64 {
            self.write(below + index * 8, (start + index * small) | rights);
        }
        self.write(slot, below | table_flags());
        Ok(())
    }

    fn table(&mut self) -> Result<u64, PagingError> {
        if self.next >= self.end {
            return Err(PagingError::OutOfTables);
        }
        let table = self.next;
        self.next += PAGE;
        // SAFETY: a page of the pool that has not been handed out.
        unsafe { (table as *mut u8).write_bytes(0, PAGE as usize) };
        Ok(table)
    }

    fn read(&self, slot: u64) -> u64 {
        // SAFETY: slots lie in tables of the pool.
        unsafe { (slot as *const u64).read_volatile() }
    }

    fn write(&mut self, slot: u64, entry: u64) {
        // SAFETY: slots lie in tables of the pool.
        unsafe { (slot as *mut u64).write_volatile(entry) }
    }
}

/// Address of the entry for `address` in `table`, whose entries map `size` bytes each.
fn slot(table: u64, address: u64, size: u64) -> u64 {
    table + (address / size % ENTRIES as u64) * 8
}

/// Rights are those of the leaves; tables allow everything.
fn table_flags() -> u64 {
    (Flags::PRESENT | Flags::WRITABLE).bits()
}

/// Drops what the CPU remembers of a page. One instruction covers a large page too.
fn flush(address: u64) {
    #[cfg(target_os = "none")]
    x86_64::instructions::tlb::flush(x86_64::VirtAddr::new_truncate(address));
    #[cfg(not(target_os = "none"))]
    let _ = address;
}

/// Drops all that the CPU remembers of the tables.
fn flush_all() {
    #[cfg(target_os = "none")]
    x86_64::instructions::tlb::flush_all();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::{Layout, alloc_zeroed};

    fn tables(pages: u64, top: u64, huge: bool) -> PageTables {
        let layout = Layout::from_size_align((pages * PAGE) as usize, PAGE as usize).unwrap();
        // SAFETY: not empty; leaked, as a test's page tables may be.
        let pool = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        // SAFETY: fresh memory.
        unsafe { PageTables::new(pool, pages, top, huge) }.unwrap()
    }

    #[test]
    fn everything_starts_as_data() {
        let tables = tables(PageTables::tables_for(5 << 30, false), 5 << 30, false);
        assert_eq!(tables.free_tables(), 0);
        for address in [0, PAGE, GIB_1 - PAGE, (5 << 30) - PAGE] {
            assert_eq!(tables.access(address), Ok(Access::DATA));
        }
        assert_eq!(tables.access(5 << 30), Err(PagingError::NotMapped));
    }

    #[test]
    fn rights_change_only_inside_the_range() {
        for huge in [false, true] {
            let mut tables = tables(PageTables::tables_for(GIB_1 * 2, huge) + 4, GIB_1 * 2, huge);
            tables.protect(MIB_2 - PAGE, 2, Access::CODE).unwrap();
            assert_eq!(tables.access(MIB_2 - 2 * PAGE), Ok(Access::DATA));
            assert_eq!(tables.access(MIB_2 - PAGE), Ok(Access::CODE));
            assert_eq!(tables.access(MIB_2), Ok(Access::CODE));
            assert_eq!(tables.access(MIB_2 + PAGE), Ok(Access::DATA));
        }
    }

    #[test]
    fn a_whole_large_page_is_not_split() {
        let mut tables = tables(PageTables::tables_for(GIB_1, false), GIB_1, false);
        tables.protect(MIB_2, 512 * 3, Access::CONSTANT).unwrap();
        assert_eq!(tables.access(MIB_2 * 4 - PAGE), Ok(Access::CONSTANT));
        assert_eq!(tables.access(MIB_2 * 4), Ok(Access::DATA));
    }

    #[test]
    fn a_guard_can_be_lifted_again() {
        let mut tables = tables(PageTables::tables_for(GIB_1, false) + 1, GIB_1, false);
        tables.protect(0, 1, Access::NONE).unwrap();
        assert_eq!(tables.access(0), Ok(Access::NONE));
        tables.protect(0, 1, Access::DATA).unwrap();
        assert_eq!(tables.access(0), Ok(Access::DATA));
    }

    #[test]
    fn lifting_opens_every_page() {
        let mut tables = tables(PageTables::tables_for(GIB_1 * 2, false) + 2, GIB_1 * 2, false);
        tables.protect(0, 1, Access::NONE).unwrap();
        tables.protect(GIB_1, 3, Access::CONSTANT).unwrap();
        tables.lift();
        for address in [0, PAGE, GIB_1, GIB_1 + 3 * PAGE, GIB_1 * 2 - PAGE] {
            assert_eq!(tables.access(address), Ok(Access { present: true, writable: true, executable: true }));
        }
    }

    #[test]
    fn write_combining_keeps_addresses_and_rights() {
        for huge in [false, true] {
            let top = GIB_1 * 2;
            let mut tables = tables(PageTables::tables_for(top, huge) + 8, top, huge);
            let attribute = |tables: &PageTables, address| {
                let (slot, size) = tables.leaf(address);
                let entry = tables.read(slot);
                assert_eq!(entry & ADDRESS & !(size - 1), address & !(size - 1));
                entry & if size == PAGE { ATTRIBUTE_SMALL } else { ATTRIBUTE_LARGE } != 0
            };
            let start = GIB_1 + 4 * MIB_2;
            tables.combine_writes(start, 1024 + 1).unwrap();
            let inside = [start, start + MIB_2 - PAGE, start + 2 * MIB_2];
            for (addresses, combines) in [(&inside[..], true), (&[start - PAGE, start + 2 * MIB_2 + PAGE], false)] {
                addresses.iter().for_each(|address| assert_eq!(attribute(&tables, *address), combines, "{address:#x}"));
            }
            // A page in the middle loses rights, and the large one around it is split.
            tables.protect(start + PAGE, 1, Access::CONSTANT).unwrap();
            assert_eq!(tables.access(start + PAGE), Ok(Access::CONSTANT));
            assert_eq!(tables.access(start), Ok(Access::DATA));
            for address in [start, start + PAGE, start + 2 * PAGE] {
                assert!(attribute(&tables, address));
            }
        }
    }

    #[test]
    fn an_empty_pool_is_an_error() {
        let mut tables = tables(PageTables::tables_for(GIB_1, false), GIB_1, false);
        assert_eq!(tables.protect(0, 1, Access::NONE), Err(PagingError::OutOfTables));
        assert_eq!(tables.protect(0, u64::MAX, Access::NONE), Err(PagingError::NotMapped));
    }
}
