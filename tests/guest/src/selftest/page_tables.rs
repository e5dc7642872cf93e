//! Page tables of our own for the time after SetVirtualAddressMap: all memory at its own address, but runtime memory at
//! its virtual address only, so that a call that still uses an old address faults.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use uefi_raw::table::boot::{AllocateType, MemoryAttribute, MemoryType};

use crate::support::Map;

/// Lowest virtual address of runtime memory.
pub const VIRTUAL_BASE: u64 = 0xFFFF_8000_1000_0000;
/// Unmapped addresses between two ranges.
const GAP: u64 = 0x1_0000;

const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;
/// Pages for tables: enough for 32 GiB of memory and runtime memory in 64 places.
const TABLES: u64 = 256;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const LARGE: u64 = 0x80;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

static NEXT: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);

/// Sets memory for the tables aside.
pub fn prepare() {
    let mut address = 0;
    let _ = bs!(allocate_pages(AllocateType::ANY_PAGES, MemoryType::LOADER_DATA, TABLES as usize, &mut address));
    NEXT.store(address, Ordering::Relaxed);
    END.store(address + TABLES * PAGE, Ordering::Relaxed);
}

/// Gives every range of runtime memory a virtual address.
pub fn assign_virtual_addresses(map: &mut Map) {
    let mut next = VIRTUAL_BASE;
    map.for_each_mut(|descriptor| {
        if descriptor.att.contains(MemoryAttribute::RUNTIME) {
            descriptor.virt_start = next;
            next += descriptor.page_count * PAGE + GAP;
        }
    });
}

/// Builds the tables and uses them from now on, without interrupts.
pub fn enter(map: &Map) {
    const FOUR_GIB: u64 = 4 << 30;
    let root = new_table();
    let end = map.iter().map(|d| d.phys_start + d.page_count * PAGE).filter(|end| *end < 64 << 30).max();
    for address in (0..end.unwrap_or(0).max(FOUR_GIB)).step_by(LARGE_PAGE as usize) {
        map_page(root, address, address, true);
    }
    for region in map.iter().filter(|d| d.att.contains(MemoryAttribute::RUNTIME)) {
        for offset in (0..region.page_count).map(|page| page * PAGE) {
            map_page(root, region.virt_start + offset, region.phys_start + offset, false);
            unmap_page(root, region.phys_start + offset);
        }
    }
    // SAFETY: code, stack and all data of this program are mapped at the same addresses as before.
    unsafe { asm!("cli", "mov cr3, {}", in(reg) root, options(nostack)) };
}

fn new_table() -> u64 {
    let table = NEXT.fetch_add(PAGE, Ordering::Relaxed);
    assert!(table < END.load(Ordering::Relaxed), "too few page tables");
    efi!((table as *mut u8).write_bytes(0, PAGE as usize));
    table
}

/// The entry for an address in a table of this level: 4 is the root, 1 has entries of 4 KiB pages.
fn entry(table: u64, level: u32, address: u64) -> &'static mut u64 {
    let index = (address >> (12 + 9 * (level - 1))) & 0x1FF;
    efi!(&mut *((table + index * 8) as *mut u64))
}

/// The entry for an address at `last`, the tables in between made or split where needed.
fn walk(root: u64, address: u64, last: u32) -> &'static mut u64 {
    let mut table = root;
    for level in (last + 1..=4).rev() {
        let entry = entry(table, level, address);
        if *entry & PRESENT == 0 {
            *entry = new_table() | PRESENT | WRITABLE;
        } else if *entry & LARGE != 0 {
            let (first, pieces) = (*entry & ADDRESS, new_table());
            for index in 0..512 {
                efi!(*((pieces + index * 8) as *mut u64) = (first + index * PAGE) | PRESENT | WRITABLE);
            }
            *entry = pieces | PRESENT | WRITABLE;
        }
        table = *entry & ADDRESS;
    }
    entry(table, last, address)
}

fn map_page(root: u64, at: u64, page: u64, large: bool) {
    let (level, flags) = if large { (2, LARGE) } else { (1, 0) };
    *walk(root, at, level) = page | PRESENT | WRITABLE | flags;
}

fn unmap_page(root: u64, at: u64) {
    *walk(root, at, 1) = 0;
}
