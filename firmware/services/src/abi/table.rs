//! The tables that lead to everything else (UEFI 2.10 §4), configuration tables, and ExitBootServices.

use core::ffi::c_void;
use core::ptr;

use handoff::{Handoff, RuntimeEvent};
use uefi_raw::table::boot::{BootServices, MemoryDescriptor, MemoryType, PAGE_SIZE};
use uefi_raw::table::configuration::ConfigurationTable;
use uefi_raw::table::runtime::RuntimeServices;
use uefi_raw::table::system::SystemTable;
use uefi_raw::table::{Header, Revision};
use uefi_raw::{Guid, Handle, Status, guid};

use super::misc::status;
use super::{CORE, driver, event, handle, image, memory, misc, runtime, variadic};
use crate::Result;
use crate::api::event::{signal_group_in, stop_timers_in};
use crate::api::memory::{allocate_pool_in, free_pool_in};
use crate::core_state::Core;
use crate::event::group;
use crate::memory::map::DESCRIPTOR_SIZE;
use crate::table::{Teardown, attributes, crc32};

/// Who made the firmware: what Linux shows as `/sys/firmware/efi/fw_vendor`.
const VENDOR: &str = "ovmf-xen";

/// Version of the firmware, 16 bits each for major and minor.
const FIRMWARE_REVISION: u32 = 0x0001_0000;

/// The version of the specification that the tables follow.
const REVISION: Revision = Revision::EFI_2_100;

/// Signature of the boot services table, "BOOTSERV" (UEFI 2.10 §4.4).
const BOOT_SERVICES_SIGNATURE: u64 = u64::from_le_bytes(*b"BOOTSERV");

/// Signature of the runtime services table, "RUNTSERV" (UEFI 2.10 §4.5).
const RUNTIME_SERVICES_SIGNATURE: u64 = u64::from_le_bytes(*b"RUNTSERV");

/// EFI_RT_PROPERTIES_TABLE (UEFI 2.10 §4.6.2).
#[repr(C)]
struct RtProperties {
    version: u16,
    length: u16,
    /// `EFI_RT_SUPPORTED_*`; see [`handoff::supported`].
    supported: u32,
}

impl RtProperties {
    const GUID: Guid = guid!("eb66918a-7eef-402a-842e-931d21c38ae9");
    const VERSION: u16 = 1;
}

/// The memory attributes table takes a page: entries for some 80 pieces of runtime memory, of which there are a dozen.
const ATTRIBUTES_SIZE: usize = PAGE_SIZE;

/// Configuration tables that fit without growing.
const FIRST_CONFIGURATION_CAPACITY: usize = 16;

/// InstallConfigurationTable.
pub(super) unsafe extern "efiapi" fn install_configuration_table(guid: *const Guid, table: *const c_void) -> Status {
    if guid.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let guid = unsafe { guid.read_unaligned() };
    status(set_configuration(&CORE, &guid, table.cast_mut()))
}

/// ExitBootServices. Allocates nothing once the key is right.
pub(super) unsafe extern "efiapi" fn exit_boot_services(_image: Handle, key: usize) -> Status {
    exit_in(&CORE, key)
}

/// Ends the boot services if `key` is the memory map's; see [`exit_boot_services`].
pub(super) fn exit_in(core: &Core, key: usize) -> Status {
    // Those who listen may still allocate, so a first call may fail because of them; the second then does not.
    if core.tables.with(|tables| tables.announce_exit()) {
        signal_group_in(core, &group::BEFORE_EXIT_BOOT_SERVICES);
    }
    let current = core.memory.with(|memory| memory.key());
    if key != current {
        log::debug!("ExitBootServices: key {key:#x} is out of date, the map is at {current:#x}");
        signal_group_in(core, &group::EXIT_BOOT_SERVICES_FAILED);
        return Status::INVALID_PARAMETER;
    }
    stop_timers_in(core);
    signal_group_in(core, &group::EXIT_BOOT_SERVICES);
    let mut teardowns = core.tables.with(|tables| tables.take_teardowns());
    for teardown in &mut teardowns {
        teardown();
    }
    // Freeing memory would change the map that the operating system has just read.
    core::mem::forget(teardowns);
    hw::interrupts::disable();
    finish(core);
    Status::SUCCESS
}

/// Makes the tables, the firmware's own image handle and the protocols that the core provides. Memory and hardware have
/// to be there already.
pub(super) fn build(core: &Core) -> Result<*mut SystemTable> {
    let vendor: alloc::vec::Vec<u16> = VENDOR.encode_utf16().chain([0]).collect();
    let vendor_copy: *mut u16 = allocate(core, MemoryType::RUNTIME_SERVICES_DATA, size_of_val(vendor.as_slice()))?;
    let boot: *mut BootServices = allocate(core, MemoryType::BOOT_SERVICES_DATA, size_of::<BootServices>())?;
    let runtime: *mut RuntimeServices =
        allocate(core, MemoryType::RUNTIME_SERVICES_DATA, size_of::<RuntimeServices>())?;
    let system: *mut SystemTable = allocate(core, MemoryType::RUNTIME_SERVICES_DATA, size_of::<SystemTable>())?;
    // SAFETY: each was just allocated for what is put there.
    unsafe {
        vendor_copy.copy_from_nonoverlapping(vendor.as_ptr(), vendor.len());
        boot.write(boot_services_table());
        runtime.write(runtime::table(header::<RuntimeServices>(RUNTIME_SERVICES_SIGNATURE)));
        system.write(SystemTable {
            header: header::<SystemTable>(SystemTable::SIGNATURE),
            firmware_vendor: vendor_copy,
            firmware_revision: FIRMWARE_REVISION,
            runtime_services: runtime,
            boot_services: boot,
            ..SystemTable::default()
        });
    }
    core.tables.with(|tables| tables.set_system(system));
    image::register_firmware(core)?;

    let attributes: *mut attributes::Header = allocate(core, MemoryType::BOOT_SERVICES_DATA, ATTRIBUTES_SIZE)?;
    // SAFETY: just allocated, and larger than the header.
    unsafe { attributes.write(attributes_header(0)) };
    set_configuration(core, &attributes::GUID, attributes.cast())?;
    // Read again by a kernel that kexec starts, so not in memory that the first one reuses.
    let properties: *mut RtProperties = allocate(core, MemoryType::RUNTIME_SERVICES_DATA, size_of::<RtProperties>())?;
    let (version, length) = (RtProperties::VERSION, size_of::<RtProperties>() as u16);
    // SAFETY: just allocated for it.
    unsafe { properties.write(RtProperties { version, length, supported: 0 }) };
    set_configuration(core, &RtProperties::GUID, properties.cast())?;
    refresh(core);
    Ok(system)
}

/// Changes the system table and makes its checksum right again.
pub(crate) fn edit_system_table(core: &Core, edit: impl FnOnce(&mut SystemTable)) {
    let system = core.tables.with(|tables| tables.system());
    if !system.is_null() {
        // SAFETY: made by `build` and never freed; the one CPU is here.
        unsafe {
            edit(&mut *system);
            seal(&raw mut (*system).header);
        }
    }
}

/// Makes all checksums right, and the table of runtime services that will work says what is there now: after an image
/// ran that may have filled in the runtime services.
pub(super) fn refresh(core: &Core) {
    let system = core.tables.with(|tables| tables.system());
    if system.is_null() {
        return;
    }
    // SAFETY: made by `build` and never freed.
    let (boot, runtime) = unsafe { ((*system).boot_services, (*system).runtime_services) };
    // SAFETY: as above; a null table is gone since ExitBootServices.
    unsafe {
        for header in [boot.cast::<Header>(), runtime.cast(), system.cast()] {
            if !header.is_null() {
                seal(header);
            }
        }
    }
    let properties = core.tables.with(|tables| tables.find_configuration(&RtProperties::GUID));
    if let Some(properties) = properties.map(<*mut c_void>::cast::<RtProperties>) {
        // SAFETY: both were made by `build` and never freed.
        unsafe {
            let provided = !runtime.is_null() && !runtime::is_placeholder(&*runtime);
            (*properties).supported = if provided { handoff::RUNTIME_SERVICES_SUPPORTED } else { 0 };
        }
    }
}

/// Adds, replaces or removes a configuration table and tells those who listen for its GUID.
pub(crate) fn set_configuration(core: &Core, guid: &Guid, table: *mut c_void) -> Result<()> {
    // Room first, so that nothing has to be taken back.
    reserve_configuration(core)?;
    core.tables.with(|tables| tables.set_configuration(guid, table))?;
    let (array, count) = core.tables.with(|tables| {
        let (array, _) = tables.array();
        for (index, entry) in tables.configuration().enumerate() {
            // SAFETY: the array has room for one more than there were.
            unsafe { array.add(index).write(entry) };
        }
        (array, tables.configuration().len())
    });
    edit_system_table(core, |system| {
        system.configuration_table = array;
        system.number_of_configuration_table_entries = count;
    });
    signal_group_in(core, guid);
    Ok(())
}

/// Adds something to be done in ExitBootServices. See [`crate::api::at_exit_boot_services`].
pub(crate) fn at_exit_boot_services(core: &Core, teardown: Teardown) {
    core.tables.with(|tables| tables.add_teardown(teardown));
}

/// Makes the array of configuration tables large enough for one more.
fn reserve_configuration(core: &Core) -> Result<()> {
    let (old, capacity, count) = core.tables.with(|tables| {
        let (array, capacity) = tables.array();
        (array, capacity, tables.configuration().len())
    });
    if count < capacity {
        return Ok(());
    }
    let capacity = (capacity * 2).max(FIRST_CONFIGURATION_CAPACITY);
    let size = capacity * size_of::<ConfigurationTable>();
    let array: *mut ConfigurationTable = allocate(core, MemoryType::RUNTIME_SERVICES_DATA, size)?;
    core.tables.with(|tables| {
        for (index, entry) in tables.configuration().enumerate() {
            // SAFETY: the new array is larger than the old one.
            unsafe { array.add(index).write(entry) };
        }
        tables.set_array(array, capacity);
    });
    edit_system_table(core, |system| system.configuration_table = array);
    if old.is_null() { Ok(()) } else { free_pool_in(core, old.cast()) }
}

/// The last of ExitBootServices: what the operating system reads after it.
fn finish(core: &Core) {
    fill_attributes(core);
    image::unprotect_runtime_images(core);
    if let Some(handoff) = image::handoff(core) {
        register_events(core, handoff);
        handoff.set_at_runtime();
    }
    edit_system_table(core, |system| {
        system.stdin_handle = ptr::null_mut();
        system.stdin = ptr::null_mut();
        system.stdout_handle = ptr::null_mut();
        system.stdout = ptr::null_mut();
        system.stderr_handle = ptr::null_mut();
        system.stderr = ptr::null_mut();
        system.boot_services = ptr::null_mut();
    });
    refresh(core);
}

/// Hands the runtime driver the events that it notifies in SetVirtualAddressMap.
fn register_events(core: &Core, handoff: &mut Handoff) {
    core.events.with(|events| {
        events.virtual_address_change(|event, notify, context| {
            if handoff.register_event(RuntimeEvent { event, notify: Some(notify), context }).is_err() {
                log::error!("too many events for SetVirtualAddressMap: {event:p} will not be notified");
            }
        });
    });
}

/// Computes the memory attributes table into the page set aside for it.
fn fill_attributes(core: &Core) {
    let Some(table) = core.tables.with(|tables| tables.find_configuration(&attributes::GUID)) else { return };
    let room = (ATTRIBUTES_SIZE - size_of::<attributes::Header>()) / DESCRIPTOR_SIZE;
    let mut count = 0;
    core.images.with(|images| {
        core.memory.with(|memory| {
            attributes::entries(memory.map(), images.runtime_segments(), |entry| {
                if count < room {
                    let offset = size_of::<attributes::Header>() + count * DESCRIPTOR_SIZE;
                    // SAFETY: within the page that `build` set aside.
                    unsafe { table.byte_add(offset).cast::<MemoryDescriptor>().write_unaligned(entry) };
                }
                count += 1;
            });
        });
    });
    // Half a table would say that the other half needs no rights.
    let count = if count <= room { count } else { 0 };
    // SAFETY: as above.
    unsafe { table.cast::<attributes::Header>().write(attributes_header(count as u32)) };
}

fn attributes_header(number_of_entries: u32) -> attributes::Header {
    let descriptor_size = DESCRIPTOR_SIZE as u32;
    attributes::Header { version: attributes::VERSION, number_of_entries, descriptor_size, flags: 0 }
}

fn header<T>(signature: u64) -> Header {
    Header { signature, revision: REVISION, size: size_of::<T>() as u32, crc: 0, reserved: 0 }
}

/// Computes a table's checksum.
///
/// # Safety
/// `header` begins a table as long as it says, which may be written.
unsafe fn seal(header: *mut Header) {
    // SAFETY: the caller's promise. The checksum counts as zero in itself.
    unsafe {
        (*header).crc = 0;
        (*header).crc = crc32(core::slice::from_raw_parts(header.cast(), (*header).size as usize));
    }
}

fn allocate<T>(core: &Core, ty: MemoryType, size: usize) -> Result<*mut T> {
    let memory = allocate_pool_in(core, ty, size)?;
    // SAFETY: just allocated, of this length.
    unsafe { memory.write_bytes(0, size) };
    Ok(memory.as_ptr().cast())
}

fn boot_services_table() -> BootServices {
    BootServices {
        header: header::<BootServices>(BOOT_SERVICES_SIGNATURE),
        raise_tpl: event::raise_tpl,
        restore_tpl: event::restore_tpl,
        allocate_pages: memory::allocate_pages,
        free_pages: memory::free_pages,
        get_memory_map: memory::get_memory_map,
        allocate_pool: memory::allocate_pool,
        free_pool: memory::free_pool,
        create_event: event::create_event,
        set_timer: event::set_timer,
        wait_for_event: event::wait_for_event,
        signal_event: event::signal_event,
        close_event: event::close_event,
        check_event: event::check_event,
        install_protocol_interface: handle::install_protocol_interface,
        reinstall_protocol_interface: handle::reinstall_protocol_interface,
        uninstall_protocol_interface: handle::uninstall_protocol_interface,
        handle_protocol: handle::handle_protocol,
        reserved: ptr::null_mut(),
        register_protocol_notify: handle::register_protocol_notify,
        locate_handle: handle::locate_handle,
        locate_device_path: handle::locate_device_path,
        install_configuration_table,
        load_image: image::load_image,
        start_image: image::start_image,
        exit: image::exit,
        unload_image: image::unload_image,
        exit_boot_services,
        get_next_monotonic_count: event::get_next_monotonic_count,
        stall: event::stall,
        set_watchdog_timer: event::set_watchdog_timer,
        connect_controller: driver::connect_controller,
        disconnect_controller: driver::disconnect_controller,
        open_protocol: handle::open_protocol,
        close_protocol: handle::close_protocol,
        open_protocol_information: handle::open_protocol_information,
        protocols_per_handle: handle::protocols_per_handle,
        locate_handle_buffer: handle::locate_handle_buffer,
        locate_protocol: handle::locate_protocol,
        install_multiple_protocol_interfaces: variadic::install_multiple_protocol_interfaces(),
        uninstall_multiple_protocol_interfaces: variadic::uninstall_multiple_protocol_interfaces(),
        calculate_crc32: misc::calculate_crc32,
        copy_mem: misc::copy_mem,
        set_mem: misc::set_mem,
        create_event_ex: event::create_event_ex,
    }
}
