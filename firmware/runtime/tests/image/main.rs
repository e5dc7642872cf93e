//! The built driver itself, loaded into this process and called as a core and an operating system would call it.
//!
//! `RUNTIME_IMAGE` names the image:
//! `RUNTIME_IMAGE=target/x86_64-unknown-uefi/release/runtime.efi cargo test -p runtime --test image -- --ignored`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::expect_used, clippy::panic, reason = "these are tests, helper functions included")]

mod machine;
mod memory;
mod signed;
#[path = "../../../variables/tests/signed/tools.rs"]
#[expect(dead_code, reason = "shared with the tests of the variables")]
mod tools;

use std::ffi::c_void;
use std::ptr;

use handoff::{RuntimeEvent, StoreState};
use machine::Machine;
use runtime::crc32::crc32;
use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType};
use uefi_raw::table::runtime::{RuntimeServices, VariableAttributes, VariableVendor};
use uefi_raw::time::Time;
use uefi_raw::{Event, Guid, Status, guid};

const VENDOR: Guid = guid!("11111111-2222-3333-4444-555555555555");
const BS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS;
const RT: VariableAttributes = VariableAttributes::RUNTIME_ACCESS;
const NV: VariableAttributes = VariableAttributes::NON_VOLATILE;
/// What the firmware tells about Secure Boot.
const TOLD: [&str; 6] = ["SetupMode", "SecureBoot", "AuditMode", "DeployedMode", "VendorKeys", "SignatureSupport"];
/// Larger than the structure, as real ones are.
const DESCRIPTOR_SIZE: usize = 48;

fn terminated(name: &str) -> Vec<u16> {
    name.encode_utf16().chain([0]).collect()
}

fn set(services: &RuntimeServices, name: &str, attributes: VariableAttributes, data: &[u8]) -> Status {
    let name = terminated(name);
    // SAFETY: valid pointers to a running driver's service.
    unsafe { (services.set_variable)(name.as_ptr(), &VENDOR, attributes, data.len(), data.as_ptr()) }
}

fn get_of(services: &RuntimeServices, vendor: Guid, name: &str) -> Result<(VariableAttributes, Vec<u8>), Status> {
    let name = terminated(name);
    let (mut attributes, mut size, mut data) = (VariableAttributes::empty(), 64, vec![0; 64]);
    // SAFETY: valid pointers to a running driver's service.
    let status =
        unsafe { (services.get_variable)(name.as_ptr(), &vendor, &mut attributes, &mut size, data.as_mut_ptr()) };
    data.truncate(size);
    if status.is_success() { Ok((attributes, data)) } else { Err(status) }
}

fn get(services: &RuntimeServices, name: &str) -> Result<(VariableAttributes, Vec<u8>), Status> {
    get_of(services, VENDOR, name)
}

fn names(services: &RuntimeServices) -> Vec<String> {
    let (mut name, mut vendor, mut found) = (vec![0u16; 64], Guid::ZERO, vec![]);
    loop {
        let mut size = name.len() * 2;
        // SAFETY: valid pointers to a running driver's service.
        let status = unsafe { (services.get_next_variable_name)(&mut size, name.as_mut_ptr(), &mut vendor) };
        if status == Status::NOT_FOUND {
            return found;
        }
        assert_eq!(status, Status::SUCCESS);
        found.push(String::from_utf16_lossy(&name[..size / 2 - 1]));
    }
}

fn time(services: &RuntimeServices) -> Time {
    let mut time = Time::invalid();
    // SAFETY: valid pointers to a running driver's service.
    assert_eq!(unsafe { (services.get_time)(&mut time, ptr::null_mut()) }, Status::SUCCESS);
    time
}

fn set_virtual_address_map(services: &RuntimeServices, map: &[u8], descriptor_size: usize, version: u32) -> Status {
    // SAFETY: valid pointers to a running driver's service.
    unsafe { (services.set_virtual_address_map)(map.len(), descriptor_size, version, map.as_ptr().cast()) }
}

/// A descriptor per range of physical address, virtual address and size.
fn virtual_map(ranges: &[(usize, usize, usize)]) -> Vec<u8> {
    let mut bytes = vec![];
    for &(physical, virtual_start, size) in ranges {
        let pages = size.div_ceil(4096) as u64;
        bytes.extend(u64::from(MemoryType::RUNTIME_SERVICES_DATA.0).to_le_bytes());
        for field in [physical as u64, virtual_start as u64, pages, MemoryAttribute::RUNTIME.bits()] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend([0; DESCRIPTOR_SIZE - size_of::<MemoryDescriptor>()]);
    }
    bytes
}

fn checksum_is_right<T>(table: &T, stored: u32) -> bool {
    // SAFETY: the bytes of a value.
    let bytes = unsafe { std::slice::from_raw_parts(ptr::from_ref(table).cast::<u8>(), size_of::<T>()) };
    let without = bytes.iter().enumerate().map(|(offset, &byte)| if (16..20).contains(&offset) { 0 } else { byte });
    crc32(without) == stored
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn a_blank_store_is_made_and_reported() {
    let machine = Machine::start();
    let report = machine.handoff().store_report;
    assert_eq!((report.state, report.variables, report.damaged), (StoreState::Blank, 0, 0));
    assert_eq!(report.capacity, 0x4_0000 - 0x64);
    assert!(checksum_is_right(machine.services(), machine.services().header.crc));
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn setup_mode_is_told_and_cannot_be_written() {
    let machine = Machine::start();
    let global = VariableVendor::GLOBAL_VARIABLE.0;
    for (name, value) in [("SetupMode", 1), ("SecureBoot", 0), ("AuditMode", 0), ("DeployedMode", 0)] {
        assert_eq!(get_of(machine.services(), global, name), Ok((BS | RT, vec![value])));
        let name = terminated(name);
        // SAFETY: valid pointers to a running driver's service.
        let status = unsafe { (machine.services().set_variable)(name.as_ptr(), &global, BS | RT, 1, [9].as_ptr()) };
        assert_eq!(status, Status::WRITE_PROTECTED);
    }
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn variables_are_written_and_read_with_events_held_off() {
    let machine = Machine::start();
    let services = machine.services();
    assert_eq!(set(services, "A", BS | NV, &[1, 2, 3]), Status::SUCCESS);
    assert_eq!(get(services, "A"), Ok((BS | NV, vec![1, 2, 3])));
    assert_eq!(names(services), TOLD.into_iter().chain(["MTC", "A"]).collect::<Vec<_>>());
    assert_eq!(set(services, "A", BS | NV, &[]), Status::SUCCESS);
    assert_eq!(get(services, "A"), Err(Status::NOT_FOUND));
    let (raised, restored) = machine::tpl_calls();
    assert!(raised > 5 && raised == restored, "{raised} {restored}");
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn small_buffers_are_told_the_size() {
    let machine = Machine::start();
    let services = machine.services();
    assert_eq!(set(services, "Abc", BS | RT, &[7; 10]), Status::SUCCESS);
    let name = terminated("Abc");
    let (mut attributes, mut size) = (VariableAttributes::empty(), 9);
    // SAFETY: valid pointers to a running driver's service.
    let mut read = |size: &mut usize, data: *mut u8| unsafe {
        (services.get_variable)(name.as_ptr(), &VENDOR, &mut attributes, size, data)
    };
    assert_eq!(read(&mut size, ptr::null_mut()), Status::BUFFER_TOO_SMALL);
    assert_eq!(size, 10);
    assert_eq!(read(&mut size, ptr::null_mut()), Status::INVALID_PARAMETER);
    assert_eq!(attributes, BS | RT);
    let (mut name, mut vendor, mut size) = ([0u16; 4], Guid::ZERO, 2);
    // SAFETY: as above.
    let status = unsafe { (services.get_next_variable_name)(&mut size, name.as_mut_ptr(), &mut vendor) };
    assert_eq!((status, size, name[0]), (Status::BUFFER_TOO_SMALL, 20, 0));
    name = [0x41; 4];
    // SAFETY: as above.
    let status = unsafe { (services.get_next_variable_name)(&mut 8, name.as_mut_ptr(), &mut vendor) };
    assert_eq!(status, Status::INVALID_PARAMETER);
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn the_clock_shows_the_hosts_time_and_can_be_set() {
    let machine = Machine::start();
    let services = machine.services();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let shown = time(services);
    let days = runtime::calendar::Date { year: shown.year.into(), month: shown.month, day: shown.day }.to_days() as u64;
    let shown = days * 86_400 + u64::from(shown.hour) * 3_600 + u64::from(shown.minute) * 60 + u64::from(shown.second);
    assert!(now.abs_diff(shown) < 60, "{now} {shown}");
    let wanted = Time { year: 1999, month: 12, day: 31, hour: 23, time_zone: -60, ..Time::invalid() };
    // SAFETY: valid pointers to a running driver's service.
    assert_eq!(unsafe { (services.set_time)(&wanted) }, Status::SUCCESS);
    let shown = time(services);
    assert_eq!((shown.year, shown.day, shown.hour, shown.minute, shown.time_zone), (1999, 31, 23, 0, -60));
    // SAFETY: as above.
    assert_eq!(unsafe { (services.set_time)(&Time { day: 32, ..wanted }) }, Status::INVALID_PARAMETER);
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn the_high_half_of_the_counter_is_kept() {
    let machine = Machine::start();
    let (mut high, mut count) = (0, 0);
    // SAFETY: valid pointers to a running driver's service.
    unsafe {
        assert_eq!(((*machine.boot_services()).get_next_monotonic_count)(&mut count), Status::SUCCESS);
        assert_eq!(count, (1 << 32) + 1);
        assert_eq!((machine.services().get_next_high_monotonic_count)(&mut high), Status::SUCCESS);
        assert_eq!(((*machine.boot_services()).get_next_monotonic_count)(&mut count), Status::SUCCESS);
    }
    assert_eq!((high, count), (2, (2 << 32) + 1));
    let vendor = guid!("eb704011-1402-11d3-8e77-00a0c969723b");
    assert_eq!(get_of(machine.services(), vendor, "MTC"), Ok((NV | BS | RT, vec![2, 0, 0, 0])));
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn addresses_are_not_converted_outside_the_move() {
    let machine = Machine::start();
    let mut pointer = ptr::null_mut();
    let map = virtual_map(&[]);
    // SAFETY: valid pointers to a running driver's service.
    assert_eq!(unsafe { (machine.services().convert_pointer)(1, &mut pointer) }, Status::UNSUPPORTED);
    assert_eq!(set_virtual_address_map(machine.services(), &map, DESCRIPTOR_SIZE, 1), Status::UNSUPPORTED);
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn a_map_that_does_not_serve_changes_nothing() {
    let machine = Machine::start();
    machine.exit_boot_services();
    let services = machine.services();
    let (image, data) = (machine.image(), machine.data());
    let good = virtual_map(&[image, data]);
    assert_eq!(set_virtual_address_map(services, &good, 39, 1), Status::INVALID_PARAMETER);
    assert_eq!(set_virtual_address_map(services, &good, DESCRIPTOR_SIZE, 2), Status::INVALID_PARAMETER);
    for incomplete in [&[image][..], &[data], &[(image.0, image.1, image.2 - 4096), data]] {
        let map = virtual_map(incomplete);
        assert_eq!(set_virtual_address_map(services, &map, DESCRIPTOR_SIZE, 1), Status::NO_MAPPING);
    }
    assert_eq!(set(services, "A", BS | RT | NV, &[1]), Status::SUCCESS);
    assert_eq!(get(services, "A"), Ok((BS | RT | NV, vec![1])));
}

/// What a notification of another runtime driver does, and what it saw.
struct Notified {
    services: *const RuntimeServices,
    pointer: *mut c_void,
    statuses: Vec<Status>,
}

unsafe extern "efiapi" fn notify(_: Event, context: *mut c_void) {
    // SAFETY: registered below with this context.
    let notified = unsafe { &mut *context.cast::<Notified>() };
    let (mut null, mut outside) = (ptr::null_mut(), ptr::without_provenance_mut(0x10));
    // SAFETY: the driver's service, in physical mode.
    unsafe {
        let convert = (*notified.services).convert_pointer;
        notified.statuses = vec![
            convert(0, &mut notified.pointer),
            convert(1, &mut null),
            convert(0, &mut null),
            convert(0, &mut outside),
            convert(0, ptr::null_mut()),
        ];
    }
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn services_work_at_virtual_addresses_once_the_physical_ones_are_gone() {
    let mut machine = Machine::start();
    let services = ptr::from_ref(machine.services());
    assert_eq!(set(machine.services(), "Before", BS | RT | NV, &[1]), Status::SUCCESS);
    assert_eq!(set(machine.services(), "Volatile", BS | RT, &[2]), Status::SUCCESS);
    assert_eq!(set(machine.services(), "Boot", BS | NV, &[3]), Status::SUCCESS);
    let (image, data) = (machine.image(), machine.data());
    let mut notified = Notified { services, pointer: machine.services_address(), statuses: vec![] };
    let event = ptr::without_provenance_mut(1);
    let context = (&raw mut notified).cast();
    machine.handoff_mut().register_event(RuntimeEvent { event, notify: Some(notify), context }).expect("room");
    machine.exit_boot_services();

    let map = virtual_map(&[data, image]);
    assert_eq!(set_virtual_address_map(machine.services(), &map, DESCRIPTOR_SIZE, 1), Status::SUCCESS);
    let (invalid, not_found) = (Status::INVALID_PARAMETER, Status::NOT_FOUND);
    assert_eq!(notified.statuses, [Status::SUCCESS, Status::SUCCESS, invalid, not_found, invalid]);

    machine.forget_physical();
    let (system_table, services) = (machine.virtual_system_table(), machine.virtual_services());
    assert_eq!(notified.pointer.addr(), ptr::from_ref(services).addr());
    assert_eq!(system_table.runtime_services.addr(), ptr::from_ref(services).addr());
    assert!(checksum_is_right(services, services.header.crc));
    assert!(checksum_is_right(system_table, system_table.header.crc));
    // SAFETY: moved with the system table.
    assert_eq!(unsafe { *system_table.firmware_vendor }, u16::from(b'X'));
    // SAFETY: as above.
    assert_eq!(unsafe { (*system_table.configuration_table).vendor_guid }, VENDOR);

    assert_eq!(get(services, "Before"), Ok((BS | RT | NV, vec![1])));
    assert_eq!(get(services, "Volatile"), Ok((BS | RT, vec![2])));
    assert_eq!(get(services, "Boot"), Err(Status::NOT_FOUND));
    assert_eq!(set(services, "Volatile", BS | RT, &[4]), Status::WRITE_PROTECTED);
    assert_eq!(set(services, "After", BS | RT | NV, &[5]), Status::SUCCESS);
    for round in 0..3000u32 {
        let data = round.to_le_bytes().repeat(12);
        assert_eq!(set(services, "Before", BS | RT | NV, &data), Status::SUCCESS);
    }
    assert_eq!(get(services, "Before"), Ok((BS | RT | NV, 2999u32.to_le_bytes().repeat(12))));
    assert_eq!(get(services, "After"), Ok((BS | RT | NV, vec![5])));
    assert!(time(services).year > 2000);
    let (mut maximum, mut remaining, mut largest) = (0, 0, 0);
    // SAFETY: valid pointers to a running driver's service.
    let status = unsafe { (services.query_variable_info)(BS | RT | NV, &mut maximum, &mut remaining, &mut largest) };
    assert_eq!((status, maximum), (Status::SUCCESS, 0x4_0000 - 0x64 - 0x4000));
    assert!(remaining > maximum - 1024);
    assert_eq!(set_virtual_address_map(services, &map, DESCRIPTOR_SIZE, 1), Status::UNSUPPORTED);
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn what_is_not_offered_says_so() {
    let machine = Machine::start();
    let services = machine.services();
    let (mut size, mut kind) = (0, uefi_raw::table::runtime::ResetType::COLD);
    // SAFETY: valid pointers to a running driver's service.
    unsafe {
        assert_eq!((services.set_wakeup_time)(false.into(), ptr::null()), Status::UNSUPPORTED);
        assert_eq!((services.update_capsule)(ptr::null(), 0, 0), Status::INVALID_PARAMETER);
        assert_eq!((services.update_capsule)([ptr::null()].as_ptr(), 1, 0), Status::UNSUPPORTED);
        let status = (services.query_capsule_capabilities)([ptr::null()].as_ptr(), 1, &mut size, &mut kind);
        assert_eq!(status, Status::UNSUPPORTED);
    }
}
