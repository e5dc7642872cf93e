//! ExitBootServices (UEFI 2.10 §7.4.6): what happens before, in and after it.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use guest::{image, table, tsc};
use uefi_raw::table::boot::{BootServices, EventType, MemoryAttribute, MemoryDescriptor, MemoryType, TimerDelay, Tpl};
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Event, Guid, Status, guid};

use crate::harness::{self, Outcome, Test};
use crate::support::{Map, counting_event, header_is_right};
use crate::tables::configuration;
use crate::variable::{BS, NV, NVRT, RT, set};
use crate::{page_tables, runtime, time};

pub const TESTS: &[Test] = tests![
    a_wrong_map_key_is_refused,
    the_right_map_key_is_accepted,
    events_before_and_of_the_exit_are_notified_once_and_in_order,
    timers_have_stopped,
    the_system_table_has_nothing_of_boot_services,
    the_system_table_has_its_checksum,
    the_memory_attributes_cover_the_runtime_memory,
    interrupts_do_not_hurt,
];

const BEFORE_EXIT_BOOT_SERVICES: Guid = guid!("8be0e274-3970-4b44-80c5-1ab9502f3bfc");
const EXIT_BOOT_SERVICES: Guid = guid!("27abf055-b1b8-4c26-8048-748f37baa2df");
const MEMORY_ATTRIBUTES: Guid = guid!("dcfa911d-26eb-469f-a220-38b7dc461220");

/// Digits that the notifications append: 1 before the exit, 2 at it by type, 3 at it by group.
static ORDER: AtomicUsize = AtomicUsize::new(0);
static TICKS: AtomicUsize = AtomicUsize::new(0);
static WRONG_KEY: AtomicUsize = AtomicUsize::new(usize::MAX);
static RIGHT_KEY: AtomicUsize = AtomicUsize::new(usize::MAX);
static BOOT_SERVICES: AtomicPtr<BootServices> = AtomicPtr::new(null_mut());
static TICK: AtomicU64 = AtomicU64::new(0);
static MAP: AtomicPtr<Map> = AtomicPtr::new(null_mut());

/// The last map with boot services.
pub fn map() -> &'static mut Map {
    efi!(&mut *MAP.load(Ordering::Relaxed))
}

unsafe extern "efiapi" fn note(_: Event, context: *mut core::ffi::c_void) {
    let _ = ORDER.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |order| Some(order << 4 | context.addr()));
}

/// Sets up what the tests after the exit look at.
pub fn prepare() {
    let mut event = null_mut();
    let number = core::ptr::without_provenance_mut;
    let (signal, exit) = (EventType::NOTIFY_SIGNAL, EventType::SIGNAL_EXIT_BOOT_SERVICES);
    let _ = bs!(create_event_ex(signal, Tpl::CALLBACK, Some(note), number(3), &EXIT_BOOT_SERVICES, &mut event));
    let _ = bs!(create_event(exit, Tpl::NOTIFY, Some(note), number(2), &mut event));
    let _ = bs!(create_event_ex(signal, Tpl::CALLBACK, Some(note), number(1), &BEFORE_EXIT_BOOT_SERVICES, &mut event));
    let timer = counting_event(EventType::TIMER | EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &TICKS);
    let _ = bs!(set_timer(timer, TimerDelay::PERIODIC, 10_000));
    for (name, attributes) in [("boot volatile", BS), ("boot", NV | BS), ("runtime volatile", RT), ("runtime", NVRT)] {
        let _ = set(name, attributes, name.as_bytes());
    }
    TICK.store(time::ticks_per_millisecond(), Ordering::Relaxed);
    BOOT_SERVICES.store(table().boot_services, Ordering::Relaxed);
    runtime::prepare();
    page_tables::prepare();
    MAP.store(alloc::boxed::Box::into_raw(alloc::boxed::Box::new(Map::new())), Ordering::Relaxed);
}

/// Leaves boot services, after one try with a wrong key; whether they are left.
pub fn leave_boot_services() -> bool {
    let _ = map().read();
    let wrong = bs!(exit_boot_services(image(), map().key.wrapping_add(1)));
    WRONG_KEY.store(wrong.0, Ordering::Relaxed);
    for _ in 0..4 {
        let _ = map().read();
        let status = bs!(exit_boot_services(image(), map().key));
        RIGHT_KEY.store(status.0, Ordering::Relaxed);
        if status == Status::SUCCESS {
            harness::boot_services_ended();
            return true;
        }
    }
    false
}

/// Computes for a while.
pub fn busy(milliseconds: u64) {
    let end = tsc() + milliseconds * TICK.load(Ordering::Relaxed);
    while tsc() < end {
        core::hint::spin_loop();
    }
}

fn a_wrong_map_key_is_refused() -> Outcome {
    same!(Status(WRONG_KEY.load(Ordering::Relaxed)), Status::INVALID_PARAMETER);
    Ok(())
}

fn the_right_map_key_is_accepted() -> Outcome {
    same!(Status(RIGHT_KEY.load(Ordering::Relaxed)), Status::SUCCESS);
    Ok(())
}

fn events_before_and_of_the_exit_are_notified_once_and_in_order() -> Outcome {
    same!(ORDER.load(Ordering::SeqCst), 0x123);
    Ok(())
}

fn timers_have_stopped() -> Outcome {
    let before = TICKS.load(Ordering::SeqCst);
    busy(30);
    same!(TICKS.load(Ordering::SeqCst), before);
    Ok(())
}

fn the_system_table_has_nothing_of_boot_services() -> Outcome {
    let table = table();
    check!(table.boot_services.is_null());
    check!(table.stdin.is_null() && table.stdout.is_null() && table.stderr.is_null());
    check!(table.stdin_handle.is_null() && table.stdout_handle.is_null() && table.stderr_handle.is_null());
    Ok(())
}

fn the_system_table_has_its_checksum() -> Outcome {
    header_is_right(&raw const table().header, size_of::<SystemTable>())
}

fn the_memory_attributes_cover_the_runtime_memory() -> Outcome {
    let table = configuration(&MEMORY_ATTRIBUTES).ok_or("no memory attributes table")?;
    let header = efi!(core::slice::from_raw_parts(table.cast::<u32>(), 4));
    let (version, count, step) = (header[0], header[1] as usize, header[2] as usize);
    check!((1..=2).contains(&version) && step >= size_of::<MemoryDescriptor>() && count > 0, "{header:?}");
    let entries =
        || (0..count).map(|index| efi!(table.byte_add(16 + index * step).cast::<MemoryDescriptor>().read_unaligned()));
    let mut end = 0;
    for entry in entries() {
        let runtime = matches!(entry.ty, MemoryType::RUNTIME_SERVICES_CODE | MemoryType::RUNTIME_SERVICES_DATA);
        check!(runtime && entry.phys_start >= end && entry.page_count > 0, "{entry:x?}");
        check!(entry.att.contains(MemoryAttribute::RUNTIME), "{entry:x?}");
        check!(entry.att.intersects(MemoryAttribute::READ_ONLY | MemoryAttribute::EXECUTE_PROTECT), "{entry:x?}");
        end = entry.phys_start + entry.page_count * 4096;
    }
    for region in map().iter().filter(|d| d.att.contains(MemoryAttribute::RUNTIME)) {
        if !matches!(region.ty, MemoryType::RUNTIME_SERVICES_CODE | MemoryType::RUNTIME_SERVICES_DATA) {
            continue;
        }
        for page in (0..region.page_count).map(|page| region.phys_start + page * 4096) {
            let entry = entries().find(|e| (e.phys_start..e.phys_start + e.page_count * 4096).contains(&page));
            check!(entry.is_some_and(|entry| entry.ty == region.ty), "{page:#x} of {region:x?}: {entry:x?}");
        }
    }
    check!(entries().any(|e| e.att.contains(MemoryAttribute::READ_ONLY)), "no code");
    Ok(())
}

/// The processor may still take the firmware's interrupts; none may come that the firmware cannot take any more.
fn interrupts_do_not_hurt() -> Outcome {
    busy(20);
    // SAFETY: the exception table is the firmware's and in memory that this program has not touched; whoever would not
    // like that an operating system is interrupted right after ExitBootServices has to mask its sources.
    unsafe { core::arch::asm!("sti", "nop", "cli", options(nostack)) };
    Ok(())
}
