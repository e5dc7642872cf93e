//! At the top of low memory: page tables, exceptions, Xen's shared page, memory map, machine. Then [`crate::boot`].

use alloc::boxed::Box;
use core::ops::Range;
use core::ptr::NonNull;

use hw::cpu::{self, Handlers};
use hw::hypervisor::Gfn;
use hw::paging::{Access, PAGE, PageTables};
use hw::pic;
use hw::shared::SharedPages;
use hw::xen::Xen;
use platform::memory::Kind;
use platform::{GuestKind, Platform};
use services::abi::CORE;
use services::memory::map::RAM_CAPABILITIES;
use uefi_raw::table::boot::MemoryType;

use crate::machine::Machine;
use crate::start::{Image, Start};
use crate::{boot, logger, machine, panic, timeline};

/// The stack that the firmware and the programs it starts run on. UEFI promises 128 KiB (UEFI 2.10 §2.3.4).
const STACK: u64 = 256 << 10;
/// The stack of exception handlers.
const EXCEPTION_STACK: u64 = 32 << 10;
/// Page tables for later changes of access rights: each splits at most 2 MiB or 1 GiB.
const SPARE_TABLES: u64 = 256;
/// Pages of the hole for the shared info page and the grant table.
const HOLE_PAGES: u64 = 64;

/// Bytes needed for stacks and page tables: tables, guard, exception stack, guard, stack.
pub fn reserve_size(platform: &Platform) -> u64 {
    (tables(platform) + 2) * PAGE + EXCEPTION_STACK + STACK
}

/// End of the stack in the reserve.
pub fn stack_end(reserve: &Range<u64>) -> u64 {
    reserve.end
}

/// The identity map goes to the end of memory, and at least to 4 GiB.
pub fn mapped_top(platform: &Platform) -> u64 {
    platform.memory.top().max(4 << 30).next_multiple_of(1 << 30).min(1 << cpu::physical_address_bits())
}

fn tables(platform: &Platform) -> u64 {
    PageTables::tables_for(mapped_top(platform), cpu::has_huge_pages()) + SPARE_TABLES
}

/// Called on the new stack, at the final address.
pub extern "C" fn at_home(start: *const Start) -> ! {
    // SAFETY: the first steps have built it; it lies in the loaded file, which is not touched before this copy is made.
    let start = unsafe { start.read() };
    logger::start(start.platform.options.log);
    timeline::mark_at("first instruction", start.tsc);
    timeline::mark_at("start information", start.read);
    timeline::mark_at("moved", start.moved);

    let page_tables = build_page_tables(&start);
    // SAFETY: the tables map everything below 4 GiB, so code and stack; the exception stack is free memory.
    unsafe {
        cpu::set_up(page_tables.root());
        cpu::load(
            Handlers { exception: panic::exception, timer: machine::on_timer },
            exception_stack_end(&start.reserve),
        );
    }
    timeline::mark("page tables");
    fill_memory_map(&start);
    timeline::mark("memory");

    let xen = attach_xen(&start);
    timeline::use_clock(xen.xen);
    timeline::mark("shared info");
    if start.platform.kind == GuestKind::Hvm {
        pic::mask();
    }
    let machine = Machine::start(xen.xen, page_tables);
    CORE.hardware.with(|hardware| *hardware = Some(machine));
    timeline::mark("timer");
    boot::run(start, xen, machine)
}

/// Everything is data, not executable, except this image's code; constants are read-only; page 0 and the pages below the stacks
/// are not there.
fn build_page_tables(start: &Start) -> PageTables {
    let top = mapped_top(&start.platform);
    let count = tables(&start.platform);
    let Some(pool) = NonNull::new(start.reserve.start as *mut u8) else { panic!("page tables at 0") };
    // SAFETY: the reserve is free memory of this size.
    let built = unsafe { PageTables::new(pool, count, top, cpu::has_huge_pages()) };
    let mut tables = match built {
        Ok(tables) => tables,
        Err(error) => panic!("page tables: {error:?}"),
    };
    let Image { start: code, text_end, constant_end, .. } = start.image;
    let guard_below_exceptions = exception_stack_end(&start.reserve) - EXCEPTION_STACK - PAGE;
    let guard_below_stack = start.reserve.end - STACK - PAGE;
    for (address, end, access) in [
        (code, text_end, Access::CODE),
        (text_end, constant_end, Access::CONSTANT),
        (guard_below_exceptions, guard_below_exceptions + PAGE, Access::NONE),
        (guard_below_stack, guard_below_stack + PAGE, Access::NONE),
        (0, PAGE, Access::NONE),
    ] {
        if let Err(error) = tables.protect(address, (end - address) / PAGE, access) {
            panic!("protecting {address:#x}: {error:?}");
        }
    }
    tables
}

fn exception_stack_end(reserve: &Range<u64>) -> u64 {
    reserve.end - STACK - PAGE
}

/// Hands the memory map to the services, with what is in use now already taken out.
fn fill_memory_map(start: &Start) {
    for region in start.platform.memory.regions() {
        let kind = match region.kind {
            Kind::Ram => MemoryType::CONVENTIONAL,
            Kind::AcpiTables => MemoryType::ACPI_RECLAIM,
            Kind::AcpiNvs => MemoryType::ACPI_NON_VOLATILE,
            Kind::Persistent => MemoryType::PERSISTENT_MEMORY,
            Kind::Reserved => MemoryType::RESERVED,
            Kind::Unusable => MemoryType::UNUSABLE,
        };
        if let Err(error) = services::api::add_memory(region.start..region.end, kind, RAM_CAPABILITIES) {
            log::error!("memory at {:#x} left out: {error}", region.start);
        }
    }
    reserve(start.image.start..start.image.text_end, MemoryType::BOOT_SERVICES_CODE);
    reserve(start.image.text_end..start.image.end, MemoryType::BOOT_SERVICES_DATA);
    reserve(start.reserve.clone(), MemoryType::BOOT_SERVICES_DATA);
    reserve(start.file.clone(), MemoryType::BOOT_SERVICES_DATA);
    for range in &start.taken {
        reserve(range.clone(), MemoryType::BOOT_SERVICES_DATA);
    }
}

/// Takes the pages of a range out of free memory. Pages that are taken already stay so: small structures share pages.
fn reserve(range: Range<u64>, kind: MemoryType) {
    let mut page = range.start & !(PAGE - 1);
    let end = range.end.next_multiple_of(PAGE);
    if services::api::reserve_memory(page, (end - page) / PAGE, kind).is_ok() {
        return;
    }
    while page < end {
        let _ = services::api::reserve_memory(page, 1, kind);
        page += PAGE;
    }
}

/// Xen with its shared page mapped, and the rest of the hole for the grant table.
#[derive(Debug)]
pub struct AttachedXen {
    /// Hypercalls, clock and events.
    pub xen: &'static Xen,
    /// First free frame of the hole.
    pub hole: Gfn,
    /// Its length in pages.
    pub hole_pages: u64,
}

fn attach_xen(start: &Start) -> AttachedXen {
    let Some(hole) = start.platform.hole(HOLE_PAGES) else { panic!("no hole for the shared info page below 4 GiB") };
    let Some(base) = NonNull::new(hole as *mut u8) else { panic!("hole at 0") };
    // SAFETY: the hole is mapped by the page tables, and nothing else uses it.
    let page = unsafe { SharedPages::new(base, 1, Gfn(hole / PAGE)) };
    let mut xen = Xen::new(start.xen.instruction);
    if let Err(error) = xen.attach_shared_info(page) {
        panic!("mapping the shared info page: {error}");
    }
    AttachedXen { xen: Box::leak(Box::new(xen)), hole: Gfn(hole / PAGE + 1), hole_pages: HOLE_PAGES - 1 }
}
