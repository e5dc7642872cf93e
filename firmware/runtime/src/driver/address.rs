//! SetVirtualAddressMap and ConvertPointer (UEFI 2.10 §8.4).
//!
//! Order: everything is checked; notifications of VIRTUAL_ADDRESS_CHANGE run, still with physical pointers everywhere;
//! then tables, other images, this image, and last the pointers of this driver are moved.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};

use handoff::{Handoff, RuntimeImage, relocation};
use runtime::virtual_map::VirtualMap;
use uefi_raw::Status;
use uefi_raw::table::Header;
use uefi_raw::table::boot::MemoryDescriptor;
use uefi_raw::table::configuration::ConfigurationTable;
use uefi_raw::table::runtime::RuntimeServices;
use uefi_raw::table::system::SystemTable;

use super::{state, update_checksum};

/// `EFI_OPTIONAL_PTR`: a null pointer stays one.
const OPTIONAL_POINTER: usize = 1;

/// The map while SetVirtualAddressMap runs, for ConvertPointer.
struct CurrentMap(UnsafeCell<Option<RawMap>>);

#[derive(Clone, Copy)]
struct RawMap {
    base: *const u8,
    size: usize,
    descriptor_size: usize,
    version: u32,
}

// SAFETY: only SetVirtualAddressMap, which runs once, and what it calls use the map.
unsafe impl Sync for CurrentMap {}

static MAP: CurrentMap = CurrentMap(UnsafeCell::new(None));
static IS_VIRTUAL: AtomicBool = AtomicBool::new(false);

/// By how much things move.
struct Distances {
    handoff: u64,
    runtime_services: u64,
    variable_region: u64,
    own_image: u64,
}

/// SetVirtualAddressMap.
///
/// Beyond what UEFI asks for, nothing is changed if a range that this driver needs is not in the map: `NO_MAPPING`.
pub unsafe extern "efiapi" fn set_virtual_address_map(
    map_size: usize,
    descriptor_size: usize,
    version: u32,
    map: *const MemoryDescriptor,
) -> Status {
    if !state::is_at_runtime() || IS_VIRTUAL.load(Ordering::Relaxed) {
        return Status::UNSUPPORTED;
    }
    if map.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let raw = RawMap { base: map.cast(), size: map_size, descriptor_size, version };
    // SAFETY: the caller has `map_size` bytes there for the time of the call.
    let Some(map) = (unsafe { open(raw) }) else { return Status::INVALID_PARAMETER };
    let handoff = state::handoff();
    // SAFETY: valid since the driver started.
    let Some(distances) = (unsafe { measure(&map, handoff) }) else { return Status::NO_MAPPING };
    IS_VIRTUAL.store(true, Ordering::Relaxed);
    // SAFETY: the core registered what is valid; the map and the ranges were checked.
    unsafe {
        *MAP.0.get() = Some(raw);
        notify(handoff);
        *MAP.0.get() = None;
        let system_table = state::system_table();
        let runtime_services = (*system_table).runtime_services;
        move_runtime_services(&map, runtime_services);
        move_system_table(&map, system_table, distances.runtime_services);
        let system_table_by = map.distance(address(system_table), size_of::<SystemTable>() as u64).unwrap_or(0);
        relocate_images(&map, handoff);
        move_driver(&distances, system_table_by);
    }
    Status::SUCCESS
}

/// ConvertPointer. Only within SetVirtualAddressMap.
pub unsafe extern "efiapi" fn convert_pointer(disposition: usize, pointer: *mut *mut c_void) -> Status {
    // SAFETY: set only while SetVirtualAddressMap runs, together with its caller's map.
    let Some(map) = (unsafe { (*MAP.0.get()).and_then(|raw| open(raw)) }) else { return Status::UNSUPPORTED };
    if pointer.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller's pointer, checked for null.
    let value = unsafe { pointer.read_unaligned() };
    if value.is_null() {
        return if disposition & OPTIONAL_POINTER != 0 { Status::SUCCESS } else { Status::INVALID_PARAMETER };
    }
    let Some(converted) = map.convert(address(value)) else { return Status::NOT_FOUND };
    // SAFETY: as above.
    unsafe { pointer.write_unaligned(value.with_addr(converted as usize)) };
    Status::SUCCESS
}

/// # Safety
/// The bytes of the map are readable for as long as the result is used.
unsafe fn open<'a>(raw: RawMap) -> Option<VirtualMap<'a>> {
    // A map that long cannot be in memory.
    if raw.size > isize::MAX as usize {
        return None;
    }
    // SAFETY: the caller vouches for the bytes.
    let bytes = unsafe { slice::from_raw_parts(raw.base, raw.size) };
    VirtualMap::new(bytes, raw.descriptor_size, raw.version).ok()
}

/// Looks everything up that has to move; `None` if something is not in the map.
///
/// # Safety
/// `handoff` and what it names are valid.
unsafe fn measure(map: &VirtualMap<'_>, handoff: *const Handoff) -> Option<Distances> {
    // SAFETY: the caller vouches for the handoff.
    let images = unsafe { (*handoff).images() };
    for image in images {
        map.distance(address(image.base), image.size as u64)?;
    }
    let own = images.iter().find(|image| contains(image, state::address_in_image()))?;
    // SAFETY: valid since the driver started.
    let runtime_services = unsafe { (*state::system_table()).runtime_services };
    let (region, size) = state::with(|state| {
        let region = state.variables.region();
        (region.address(), region.size())
    })
    .ok()?;
    Some(Distances {
        handoff: map.distance(address(handoff), size_of::<Handoff>() as u64)?,
        runtime_services: map.distance(address(runtime_services), size_of::<RuntimeServices>() as u64)?,
        variable_region: map.distance(region, size as u64)?,
        own_image: map.distance(address(own.base), own.size as u64)?,
    })
}

/// # Safety
/// `handoff` and the functions in it are valid.
unsafe fn notify(handoff: *const Handoff) {
    let mut index = 0;
    // The list is looked at anew each time, as a notification might change it.
    // SAFETY: the caller vouches for the handoff.
    while let Some(event) = unsafe { (*handoff).events().get(index).copied() } {
        if let Some(function) = event.notify {
            // SAFETY: registered by the core for this.
            unsafe { function(event.event, event.context) };
        }
        index += 1;
    }
}

/// # Safety
/// `table` is valid and writable.
unsafe fn move_runtime_services(map: &VirtualMap<'_>, table: *mut RuntimeServices) {
    // After the header the table is nothing but function pointers.
    let functions = table.wrapping_byte_add(size_of::<Header>()).cast::<*mut c_void>();
    let count = (size_of::<RuntimeServices>() - size_of::<Header>()) / size_of::<*mut c_void>();
    for index in 0..count {
        // SAFETY: within the table, for which the caller vouches.
        unsafe { move_pointer(map, functions.add(index)) };
    }
    // SAFETY: as above.
    unsafe { update_checksum(table.cast()) };
}

/// The operating system may not have the system table, vendor name and configuration tables mapped; then they stay.
///
/// # Safety
/// `table` is valid and writable.
unsafe fn move_system_table(map: &VirtualMap<'_>, table: *mut SystemTable, runtime_services_by: u64) {
    // SAFETY: the caller vouches for the table.
    unsafe {
        move_pointer(map, (&raw mut (*table).firmware_vendor).cast());
        let configuration = &raw mut (*table).configuration_table;
        let size = (*table).number_of_configuration_table_entries.saturating_mul(size_of::<ConfigurationTable>());
        if map.distance(address(*configuration), size as u64).is_some() {
            move_pointer(map, configuration.cast());
        }
        let runtime_services = &raw mut (*table).runtime_services;
        *runtime_services = (*runtime_services).wrapping_byte_add(runtime_services_by as usize);
        update_checksum(&raw mut (*table).header);
    }
}

/// Moves a pointer if it points into the map.
///
/// # Safety
/// `pointer` is valid and writable.
unsafe fn move_pointer(map: &VirtualMap<'_>, pointer: *mut *mut c_void) {
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        let value = pointer.read();
        if let Some(converted) = map.convert(address(value)) {
            pointer.write(value.with_addr(converted as usize));
        }
    }
}

/// Relocates all images, this one last: from then on its absolute addresses are virtual, and nothing that follows uses
/// one.
///
/// # Safety
/// The registered images and their fix-ups are valid, and in the map.
unsafe fn relocate_images(map: &VirtualMap<'_>, handoff: *const Handoff) {
    // SAFETY: the caller vouches for the handoff.
    let images = unsafe { (*handoff).images() };
    let own = state::address_in_image();
    for image in images.iter().filter(|image| !contains(image, own)) {
        // SAFETY: the caller vouches for the image.
        unsafe { relocate(map, image) };
    }
    for image in images.iter().filter(|image| contains(image, own)) {
        // SAFETY: as above.
        unsafe { relocate(map, image) };
    }
}

/// # Safety
/// The image and its fix-ups are valid.
unsafe fn relocate(map: &VirtualMap<'_>, image: &RuntimeImage) {
    let Some(distance) = map.distance(address(image.base), image.size as u64) else { return };
    if image.fixups.is_null() {
        return;
    }
    // SAFETY: the caller vouches for image and fix-ups.
    unsafe {
        let fixups = slice::from_raw_parts(image.fixups, image.fixup_count);
        relocation::apply(image.base, image.size, fixups, distance);
    }
}

fn move_driver(distances: &Distances, system_table_by: u64) {
    // The services were asked for nothing else meanwhile, so the state is free.
    let _ = state::with(|state| state.move_memory(distances.variable_region, distances.own_image));
    state::move_pointers(distances.handoff, system_table_by);
}

fn contains(image: &RuntimeImage, address: u64) -> bool {
    address.checked_sub(image.base.addr() as u64).is_some_and(|offset| offset < image.size as u64)
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}
