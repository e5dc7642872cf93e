//! Runtime services after ExitBootServices, first at the addresses they have, then at virtual ones (UEFI 2.10 §8).

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use guest::table;
use uefi_raw::table::Header;
use uefi_raw::table::boot::{EventType, MemoryAttribute, MemoryDescriptor, Tpl};
use uefi_raw::table::runtime::RuntimeServices;
use uefi_raw::table::system::SystemTable;
use uefi_raw::time::Time;
use uefi_raw::{Boolean, Event, Status};

use crate::harness::{Outcome, Test};
use crate::support::{header_is_right, narrow};
use crate::variable::{BS, NV, NVRT, RT, delete, get, limits, names, set};
use crate::{exit, page_tables, time};

/// Before SetVirtualAddressMap.
pub const PHYSICAL: &[Test] = tests![
    runtime_variables_are_visible,
    boot_variables_are_invisible,
    only_runtime_variables_are_listed,
    a_runtime_variable_is_changed_and_deleted,
    a_volatile_variable_is_read_only,
    a_boot_variable_is_not_made,
    the_store_tells_its_limits,
    the_clock_runs_on,
    the_high_monotonic_count_rises,
    services_that_need_boot_services_say_so,
    pointers_are_converted_in_the_notification_only,
    a_wrong_virtual_map_is_refused,
];

/// After it.
pub const VIRTUAL: &[Test] = tests![
    the_change_is_notified_once,
    pointers_were_converted,
    pointers_that_are_not_mapped_were_not_found,
    null_was_converted_if_optional,
    the_tables_have_moved_and_have_their_checksums,
    runtime_variables_are_visible,
    boot_variables_are_invisible,
    only_runtime_variables_are_listed,
    a_runtime_variable_is_changed_and_deleted,
    a_volatile_variable_is_read_only,
    the_store_tells_its_limits,
    the_clock_runs_on,
    the_high_monotonic_count_rises,
    pointers_are_converted_in_the_notification_only,
    the_map_is_set_once,
    a_hundred_variables_fit,
    a_flood_is_stopped_and_leaves_what_is_there,
];

static SERVICES: AtomicPtr<RuntimeServices> = AtomicPtr::new(null_mut());
static NOTIFIED: AtomicUsize = AtomicUsize::new(0);
/// What the notification of the change got: converted services table, and statuses.
static CONVERTED: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static STATUSES: [AtomicUsize; 4] = [const { AtomicUsize::new(usize::MAX) }; 4];
/// EFI_OPTIONAL_PTR.
const OPTIONAL: usize = 1;

/// The runtime services table at the address it has now.
pub fn services() -> *mut RuntimeServices {
    match SERVICES.load(Ordering::Relaxed) {
        services if services.is_null() => table().runtime_services,
        services => services,
    }
}

/// Asks for the notification of the change.
pub fn prepare() {
    let (mut event, kind) = (null_mut(), EventType::SIGNAL_VIRTUAL_ADDRESS_CHANGE);
    let _ = bs!(create_event(kind, Tpl::NOTIFY, Some(address_change), null_mut(), &mut event));
}

unsafe extern "efiapi" fn address_change(_: Event, _: *mut c_void) {
    NOTIFIED.fetch_add(1, Ordering::SeqCst);
    let mut pointers = [services().cast(), core::ptr::dangling_mut(), null_mut(), null_mut()];
    for ((pointer, status), flags) in pointers.iter_mut().zip(&STATUSES).zip([0, 0, 0, OPTIONAL]) {
        status.store(rs!(convert_pointer(flags, pointer)).0, Ordering::SeqCst);
    }
    CONVERTED.store(pointers[0], Ordering::SeqCst);
}

fn status(index: usize) -> Status {
    Status(STATUSES[index].load(Ordering::SeqCst))
}

/// Calls SetVirtualAddressMap, and moves over to page tables where runtime memory is at its virtual addresses only.
pub fn move_to_virtual_addresses() -> bool {
    let map = exit::map();
    page_tables::assign_virtual_addresses(map);
    let runtime: Vec<MemoryDescriptor> = map.iter().filter(|d| d.att.contains(MemoryAttribute::RUNTIME)).collect();
    let (old_table, old_services) = (core::ptr::from_ref(table()).addr() as u64, services().addr() as u64);
    let size = runtime.len() * size_of::<MemoryDescriptor>();
    // The last user of the old addresses.
    let status = rs!(set_virtual_address_map(size, size_of::<MemoryDescriptor>(), map.version, runtime.as_ptr()));
    if status != Status::SUCCESS {
        return false;
    }
    let moved = |old: u64| {
        let region = runtime.iter().find(|d| (d.phys_start..d.phys_start + d.page_count * 4096).contains(&old));
        region.map_or(0, |region| old - region.phys_start + region.virt_start)
    };
    page_tables::enter(map);
    SERVICES.store(moved(old_services) as *mut RuntimeServices, Ordering::Relaxed);
    guest::start(guest::image(), moved(old_table) as *mut SystemTable);
    true
}

fn runtime_variables_are_visible() -> Outcome {
    same!(get("runtime"), Ok((b"runtime".to_vec(), NVRT)));
    same!(get("runtime volatile"), Ok((b"runtime volatile".to_vec(), RT)));
    Ok(())
}

fn boot_variables_are_invisible() -> Outcome {
    same!(get("boot"), Err(Status::NOT_FOUND));
    same!(get("boot volatile"), Err(Status::NOT_FOUND));
    Ok(())
}

fn only_runtime_variables_are_listed() -> Outcome {
    let mut names = names()?;
    names.sort_unstable();
    same!(names, ["runtime", "runtime volatile"]);
    Ok(())
}

fn a_runtime_variable_is_changed_and_deleted() -> Outcome {
    want!(SUCCESS, set("changed", NVRT, b"first"));
    want!(SUCCESS, set("changed", NVRT, b"second"));
    same!(get("changed"), Ok((b"second".to_vec(), NVRT)));
    want!(SUCCESS, delete("changed"));
    same!(get("changed"), Err(Status::NOT_FOUND));
    Ok(())
}

fn a_volatile_variable_is_read_only() -> Outcome {
    let changed = set("runtime volatile", RT, b"other");
    let made = set("new volatile", RT, b"1");
    check!(changed.is_error() && made.is_error(), "{changed:?} {made:?}");
    same!(get("runtime volatile"), Ok((b"runtime volatile".to_vec(), RT)));
    Ok(())
}

fn a_boot_variable_is_not_made() -> Outcome {
    for attributes in [BS, NV | BS] {
        let made = set("new boot", attributes, b"1");
        check!(made.is_error(), "{made:?}");
    }
    let changed = set("boot", NV | BS, b"1");
    check!(changed.is_error(), "{changed:?}");
    Ok(())
}

fn the_store_tells_its_limits() -> Outcome {
    let (all, free, largest) = limits(NVRT).map_err(|status| alloc::format!("{status:?}"))?;
    check!(free <= all && largest <= all && free > 0, "{all} {free} {largest}");
    Ok(())
}

fn the_clock_runs_on() -> Outcome {
    time::the_clock_shows_a_time_of_our_days()?;
    let before = time::now()?;
    exit::busy(2100);
    let took = time::seconds(&time::now()?) - time::seconds(&before);
    check!((1..=6).contains(&took), "{took} s by the clock while 2.1 s passed");
    Ok(())
}

fn the_high_monotonic_count_rises() -> Outcome {
    let (mut first, mut second) = (0, 0);
    want!(SUCCESS, rs!(get_next_high_monotonic_count(&mut first)));
    want!(SUCCESS, rs!(get_next_high_monotonic_count(&mut second)));
    same!(second, first + 1);
    Ok(())
}

fn services_that_need_boot_services_say_so() -> Outcome {
    let (mut enabled, mut pending, mut time) = (Boolean::FALSE, Boolean::FALSE, Time::invalid());
    let status = rs!(get_wakeup_time(&mut enabled, &mut pending, &mut time));
    check!(matches!(status, Status::UNSUPPORTED | Status::SUCCESS), "{status:?}");
    want!(UNSUPPORTED, rs!(set_wakeup_time(Boolean::FALSE, core::ptr::null())));
    Ok(())
}

fn pointers_are_converted_in_the_notification_only() -> Outcome {
    let mut pointer = services().cast();
    want!(UNSUPPORTED, rs!(convert_pointer(0, &mut pointer)));
    same!(pointer, services().cast());
    Ok(())
}

fn a_wrong_virtual_map_is_refused() -> Outcome {
    let (map, size) = exit::map().raw();
    let (step, version) = (exit::map().step, exit::map().version);
    want!(INVALID_PARAMETER, rs!(set_virtual_address_map(size, step, version + 1, map)));
    want!(INVALID_PARAMETER, rs!(set_virtual_address_map(size, 24, version, map)));
    same!(NOTIFIED.load(Ordering::SeqCst), 0);
    Ok(())
}

fn the_change_is_notified_once() -> Outcome {
    same!(NOTIFIED.load(Ordering::SeqCst), 1);
    Ok(())
}

fn pointers_were_converted() -> Outcome {
    same!((status(0), CONVERTED.load(Ordering::SeqCst)), (Status::SUCCESS, services().cast()));
    Ok(())
}

fn pointers_that_are_not_mapped_were_not_found() -> Outcome {
    same!(status(1), Status::NOT_FOUND);
    Ok(())
}

fn null_was_converted_if_optional() -> Outcome {
    same!((status(2), status(3)), (Status::INVALID_PARAMETER, Status::SUCCESS));
    Ok(())
}

fn the_tables_have_moved_and_have_their_checksums() -> Outcome {
    let is_virtual = |address: usize| address as u64 >= page_tables::VIRTUAL_BASE;
    let table = table();
    same!(table.runtime_services, services());
    check!(is_virtual(table.firmware_vendor.addr()), "the vendor's name is at {:p}", table.firmware_vendor);
    check!(!narrow(table.firmware_vendor).is_empty());
    header_is_right(&raw const table.header, size_of::<SystemTable>())?;
    header_is_right(services().cast(), size_of::<RuntimeServices>())?;
    let fields = size_of::<Header>()..size_of::<RuntimeServices>();
    let low = fields.step_by(8).find(|offset| !is_virtual(efi!(*services().byte_add(*offset).cast::<usize>())));
    same!(low, None);
    Ok(())
}

fn the_map_is_set_once() -> Outcome {
    let (map, size) = exit::map().raw();
    want!(UNSUPPORTED, rs!(set_virtual_address_map(size, exit::map().step, exit::map().version, map)));
    Ok(())
}

fn a_hundred_variables_fit() -> Outcome {
    let name = |index: usize| alloc::format!("v{index}");
    for index in 0..100 {
        want!(SUCCESS, set(&name(index), NVRT, &[index as u8; 50]));
    }
    same!(names()?.len(), 102);
    for index in 0..100 {
        want!(SUCCESS, delete(&name(index)));
    }
    Ok(())
}

fn a_flood_is_stopped_and_leaves_what_is_there() -> Outcome {
    let before = names()?;
    let (all, free, _) = limits(NVRT).map_err(|status| alloc::format!("{status:?}"))?;
    let data = alloc::vec![0x55u8; 16 * 1024];
    let name = |index: u64| alloc::format!("f{index}");
    let mut count = 0;
    let status = loop {
        match set(&name(count), NVRT, &data) {
            Status::SUCCESS if count < all / data.len() as u64 => count += 1,
            status => break status,
        }
    };
    want!(OUT_OF_RESOURCES, status);
    check!(count >= free / (data.len() as u64 + 100), "{count} of {free} bytes");
    for index in 0..count {
        want!(SUCCESS, delete(&name(index)));
    }
    same!(names()?, before);
    same!(limits(NVRT).map(|(_, free, _)| free), Ok(free));
    Ok(())
}
