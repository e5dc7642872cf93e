//! Small allocations: slabs of one page, each for one memory type and one block size.
//!
//! A slab begins with a [`Slab`] header that holds a bitmap of its free blocks; a block carries nothing of its own. So
//! `FreePool` can tell a pointer that was never given out, or was freed before, from a good one, and a write past the end
//! of a page shows in the next header's guard. Blocks are multiples of 16 bytes and so aligned. Slabs with a free block
//! are chained per type and size; a page that becomes empty goes to a short stock of its type, then back to the map.

use core::ptr::{self, NonNull};

use uefi_raw::table::boot::{MemoryType, PAGE_SIZE};

use super::Error;
use super::protect::Class;

const PAGE: u64 = PAGE_SIZE as u64;

/// Block sizes: as many as possible fit a page behind its header, and the waste stays under a third.
const SIZES: [u16; 15] = [16, 32, 48, 64, 96, 128, 192, 256, 336, 448, 576, 800, 1008, 1344, 2016];
const CLASSES: usize = SIZES.len();
/// Blocks are multiples of this, in size and alignment.
pub const GRAIN: usize = 16;
/// The largest allocation from a slab; anything larger takes pages.
pub const LARGEST: usize = SIZES[CLASSES - 1] as usize;
/// Types beyond those of the specification (OEM and OS loader types) that get slabs; further ones take pages.
const CUSTOM_TYPES: usize = 8;
const TYPES: usize = MemoryType::MAX.0 as usize + CUSTOM_TYPES;
/// Stands in a page of the stock where a slab has its class.
const IN_STOCK: u8 = u8::MAX;
const GUARD: u64 = u64::from_le_bytes(*b"PoolSlab");
const WORDS: usize = 4;

const _: () = {
    assert!(size_of::<Slab>() == 64);
    assert!(capacity(0) <= WORDS * u64::BITS as usize);
    let mut class = 0;
    while class < CLASSES {
        assert!((SIZES[class] as usize).is_multiple_of(GRAIN) && capacity(class) >= 2);
        class += 1;
    }
};

const fn capacity(class: usize) -> usize {
    (PAGE_SIZE - size_of::<Slab>()) / SIZES[class] as usize
}

/// Reciprocals of the block sizes, scaled so that [`index_of`] is exact within a page.
static RECIPROCALS: [u32; CLASSES] = {
    let mut table = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        table[class] = (1_u32 << RECIPROCAL_BITS).div_ceil(SIZES[class] as u32);
        class += 1;
    }
    table
};
const RECIPROCAL_BITS: u32 = 24;

/// Which block of its slab a byte is in, given its distance from the first block.
#[inline]
fn index_of(offset: u32, class: usize) -> u32 {
    ((u64::from(offset) * u64::from(RECIPROCALS[class])) >> RECIPROCAL_BITS) as u32
}

/// Class by size in grains, rounded up.
static CLASS_OF: [u8; LARGEST / GRAIN + 1] = {
    let mut table = [0; LARGEST / GRAIN + 1];
    let mut grains = 0;
    let mut class = 0;
    while grains < table.len() {
        if grains * GRAIN > SIZES[class] as usize {
            class += 1;
        }
        table[grains] = class as u8;
        grains += 1;
    }
    table
};

/// The block size class for an allocation, or nothing if it takes pages.
#[inline]
pub fn class_for(size: usize, align: usize) -> Option<usize> {
    if size > LARGEST {
        return None;
    }
    let class = CLASS_OF[size.div_ceil(GRAIN)] as usize;
    if align <= GRAIN {
        return Some(class);
    }
    // Blocks start right behind the header, so a block size that is a multiple of the alignment keeps it.
    if align > size_of::<Slab>() {
        return None;
    }
    (class..CLASSES).find(|&class| (SIZES[class] as usize).is_multiple_of(align))
}

/// The header of a page.
#[repr(C)]
struct Slab {
    /// [`GUARD`] xor the page's address.
    guard: u64,
    next: u64,
    previous: u64,
    /// One bit per block, set while it is free.
    free: [u64; WORDS],
    free_count: u16,
    capacity: u16,
    /// Block size.
    size: u16,
    class: u8,
    /// Index of the pool, not the memory type itself.
    pool: u8,
}

/// The slabs of one memory type.
#[derive(Debug, Clone, Copy)]
struct Pool {
    /// Slabs with a free block, by class: the address of the first, or 0.
    partial: [u64; CLASSES],
    /// Empty pages: the address of the first, or 0.
    stock: u64,
    stocked: u16,
}

/// How the pages of a pool come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Supply {
    /// Pages to take at once.
    pub batch: u64,
    /// Empty pages to keep.
    pub keep: u16,
}

impl Supply {
    /// Types that the OS gets back are taken in larger pieces, which keeps the map short; what it never gets back is
    /// taken page by page. Executable pages are kept for good, so that freeing a block never touches the page tables.
    pub fn of(ty: MemoryType) -> Self {
        match ty {
            _ if Class::of(ty) == Class::Code => Self { batch: 1, keep: u16::MAX },
            MemoryType::LOADER_DATA | MemoryType::BOOT_SERVICES_DATA => Self { batch: 16, keep: 32 },
            _ => Self { batch: 1, keep: 1 },
        }
    }
}

/// What to do with the page of a block that was freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freed {
    /// Nothing.
    Kept,
    /// Give the page at this address back to the map.
    Page(u64),
}

/// The slabs of all types.
#[derive(Debug)]
pub struct Pools {
    pools: [Pool; TYPES],
    custom: [Option<MemoryType>; CUSTOM_TYPES],
}

impl Pools {
    pub const fn new() -> Self {
        Self { pools: [Pool { partial: [0; CLASSES], stock: 0, stocked: 0 }; TYPES], custom: [None; CUSTOM_TYPES] }
    }

    /// The pool of a type, or nothing if there is no place for one more type.
    #[inline]
    pub fn index(&mut self, ty: MemoryType) -> Option<usize> {
        if ty < MemoryType::MAX { Some(ty.0 as usize) } else { self.custom_index(ty) }
    }

    fn custom_index(&mut self, ty: MemoryType) -> Option<usize> {
        let slot = self.custom.iter().position(|slot| slot.is_none_or(|used| used == ty))?;
        self.custom[slot] = Some(ty);
        Some(MemoryType::MAX.0 as usize + slot)
    }

    /// Takes a block, or nothing if every slab of the class is full.
    #[inline]
    pub fn allocate(&mut self, pool: usize, class: usize) -> Option<NonNull<u8>> {
        let head = &mut self.pools[pool].partial[class];
        let page = *head;
        if page == 0 {
            return None;
        }
        // SAFETY: chained pages belong to the pools and begin with a header; nothing else refers to it now.
        let slab = unsafe { &mut *slab_at(page) };
        if slab.guard != GUARD ^ page {
            // Something wrote over the header: forget the chain, the memory is lost, the rest lives.
            *head = 0;
            return None;
        }
        let word = slab.free.iter().position(|&bits| bits != 0)?;
        let bit = slab.free[word].trailing_zeros() as usize;
        slab.free[word] &= slab.free[word] - 1;
        slab.free_count -= 1;
        if slab.free_count == 0 {
            *head = slab.next;
            if slab.next != 0 {
                // SAFETY: as above; it is another page.
                unsafe { (*slab_at(slab.next)).previous = 0 };
            }
        }
        let offset = size_of::<Slab>() + (word * u64::BITS as usize + bit) * slab.size as usize;
        NonNull::new(ptr::with_exposed_provenance_mut(page as usize + offset))
    }

    /// Gives a block back if that takes no more than a bit in its slab; the caller has found that its page belongs to the
    /// pools. False means that nothing was done and [`Self::free`] has to be asked.
    #[inline]
    pub fn free_quickly(&mut self, address: u64) -> bool {
        let page = address & !(PAGE - 1);
        // SAFETY: the page belongs to the pools, so it is memory and nothing else refers to its header now.
        let slab = unsafe { &mut *slab_at(page) };
        let class = slab.class as usize;
        if slab.guard != GUARD ^ page || class >= CLASSES {
            return false;
        }
        let offset = ((address - page) as u32).wrapping_sub(size_of::<Slab>() as u32);
        let index = index_of(offset, class);
        if index.wrapping_mul(u32::from(slab.size)) != offset || index >= u32::from(slab.capacity) {
            return false;
        }
        let bit = 1 << (index % u64::BITS);
        let alone = slab.next | slab.previous == 0;
        let free_count = slab.free_count + 1;
        match slab.free.get_mut((index / u64::BITS) as usize) {
            Some(word) if *word & bit == 0 && free_count > 1 && (free_count < slab.capacity || alone) => {
                *word |= bit;
                slab.free_count = free_count;
                true
            }
            _ => false,
        }
    }

    /// Gives a block back. The caller has found that its page belongs to the pools.
    pub fn free(&mut self, address: u64) -> Result<Freed, Error> {
        let page = address & !(PAGE - 1);
        // SAFETY: the page belongs to the pools, so it is memory and nothing else refers to its header now.
        let slab = unsafe { &mut *slab_at(page) };
        let class = slab.class as usize;
        if slab.guard != GUARD ^ page || class >= CLASSES || slab.pool as usize >= TYPES {
            return Err(if class == IN_STOCK as usize && slab.guard == GUARD ^ page {
                Error::DoubleFree(address)
            } else {
                Error::Corrupt(page)
            });
        }
        let offset =
            ((address - page) as u32).checked_sub(size_of::<Slab>() as u32).ok_or(Error::NotABlock(address))?;
        let index = index_of(offset, class);
        if index * u32::from(slab.size) != offset || index >= u32::from(slab.capacity) {
            return Err(Error::NotABlock(address));
        }
        let bit = 1 << (index % u64::BITS);
        let word = slab.free.get_mut((index / u64::BITS) as usize).ok_or(Error::NotABlock(address))?;
        if *word & bit != 0 {
            return Err(Error::DoubleFree(address));
        }
        *word |= bit;
        slab.free_count += 1;
        let alone = slab.next == 0 && slab.previous == 0;
        let (pool, full_before, empty) = (slab.pool as usize, slab.free_count == 1, slab.free_count == slab.capacity);
        if full_before {
            self.chain(pool, class, page);
        } else if empty && !alone {
            return Ok(self.retire(pool, class, page));
        }
        Ok(Freed::Kept)
    }

    /// Makes a page, fresh or of the stock, a slab with all blocks free.
    pub fn add_slab(&mut self, pool: usize, class: usize, page: u64) {
        let mut free = [0; WORDS];
        for block in 0..capacity(class) {
            free[block / u64::BITS as usize] |= 1 << (block % u64::BITS as usize);
        }
        let slab = Slab {
            guard: GUARD ^ page,
            next: 0,
            previous: 0,
            free,
            free_count: capacity(class) as u16,
            capacity: capacity(class) as u16,
            size: SIZES[class],
            class: class as u8,
            pool: pool as u8,
        };
        // SAFETY: the page belongs to the pools and nothing is in it.
        unsafe { slab_at(page).write(slab) };
        self.chain(pool, class, page);
    }

    /// Puts an empty page into a pool's stock.
    pub fn stock(&mut self, pool: usize, page: u64) {
        let next = core::mem::replace(&mut self.pools[pool].stock, page);
        let slab = Slab {
            guard: GUARD ^ page,
            next,
            previous: 0,
            free: [0; WORDS],
            free_count: 0,
            capacity: 0,
            size: 0,
            class: IN_STOCK,
            pool: pool as u8,
        };
        // SAFETY: the page belongs to the pools and nothing is in it.
        unsafe { slab_at(page).write(slab) };
        self.pools[pool].stocked += 1;
    }

    /// Takes an empty page out of a pool's stock.
    pub fn take_stocked(&mut self, pool: usize) -> Option<u64> {
        let pool = &mut self.pools[pool];
        let page = pool.stock;
        if page == 0 {
            return None;
        }
        // SAFETY: pages of the stock belong to the pools and begin with a header.
        let slab = unsafe { &*slab_at(page) };
        if slab.guard != GUARD ^ page || slab.class != IN_STOCK {
            (pool.stock, pool.stocked) = (0, 0);
            return None;
        }
        pool.stock = slab.next;
        pool.stocked -= 1;
        Some(page)
    }

    /// A slab that is not the only one of its class became empty: put it into the stock or let it go.
    fn retire(&mut self, pool: usize, class: usize, page: u64) -> Freed {
        // SAFETY: the page belongs to the pools and begins with a header.
        let (next, previous) = unsafe { ((*slab_at(page)).next, (*slab_at(page)).previous) };
        if previous == 0 {
            self.pools[pool].partial[class] = next;
        } else {
            // SAFETY: chained pages begin with a header.
            unsafe { (*slab_at(previous)).next = next };
        }
        if next != 0 {
            // SAFETY: as above.
            unsafe { (*slab_at(next)).previous = previous };
        }
        if self.pools[pool].stocked < self.supply(pool).keep {
            self.stock(pool, page);
            Freed::Kept
        } else {
            Freed::Page(page)
        }
    }

    fn supply(&self, pool: usize) -> Supply {
        Supply::of(MemoryType(pool as u32))
    }

    fn chain(&mut self, pool: usize, class: usize, page: u64) {
        let next = core::mem::replace(&mut self.pools[pool].partial[class], page);
        // SAFETY: the page and the one that was first belong to the pools and begin with headers.
        unsafe {
            (*slab_at(page)).next = next;
            (*slab_at(page)).previous = 0;
            if next != 0 {
                (*slab_at(next)).previous = page;
            }
        }
    }
}

#[inline]
fn slab_at(page: u64) -> *mut Slab {
    ptr::with_exposed_provenance_mut(page as usize)
}
