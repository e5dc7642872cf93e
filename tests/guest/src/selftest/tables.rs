//! System table, service tables, configuration tables (UEFI 2.10 §4, §7.5.6).

use alloc::vec::Vec;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicUsize, Ordering};

use guest::{boot, table};
use uefi_raw::protocol::console::{SimpleTextInputProtocol, SimpleTextOutputProtocol};
use uefi_raw::table::Header;
use uefi_raw::table::boot::{BootServices, EventType, Tpl};
use uefi_raw::table::configuration::ConfigurationTable;
use uefi_raw::table::runtime::RuntimeServices;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Guid, guid};

use crate::harness::{Outcome, Test};
use crate::support::{self, NOBODYS, OURS, header_is_right};

pub const TESTS: &[Test] = tests![
    the_system_table_says_what_it_is,
    the_system_table_has_its_checksum,
    the_boot_services_table_has_its_checksum,
    the_runtime_services_table_has_its_checksum,
    every_boot_service_is_there,
    every_runtime_service_is_there,
    the_vendor_has_a_name,
    the_consoles_are_those_of_their_handles,
    no_configuration_table_is_there_twice,
    the_runtime_properties_tell_which_services_work,
    the_memory_attributes_table_is_there,
    the_list_of_conformance_profiles_is_absent_or_names_the_full_one,
    a_configuration_table_comes_changes_and_goes,
    a_change_of_a_configuration_table_signals_its_group,
    wrong_arguments_of_install_configuration_table_are_refused,
    the_system_table_keeps_its_checksum,
];

const BOOT_SIGNATURE: u64 = 0x5652_4553_544f_4f42;
const RUNTIME_SIGNATURE: u64 = 0x5652_4553_544e_5552;
const RT_PROPERTIES: Guid = guid!("eb66918a-7eef-402a-842e-931d21c38ae9");
const MEMORY_ATTRIBUTES: Guid = guid!("dcfa911d-26eb-469f-a220-38b7dc461220");
const CONFORMANCE_PROFILES: Guid = guid!("36122546-f7e7-4c8f-bd9b-eb8525b50c0b");
const UEFI_SPEC_PROFILE: Guid = guid!("523c91af-a195-4382-818d-295fe4006465");

/// A configuration table.
pub fn configuration(wanted: &Guid) -> Option<*mut c_void> {
    all().into_iter().find(|(guid, _)| guid == wanted).map(|(_, table)| table)
}

fn all() -> Vec<(Guid, *mut c_void)> {
    let table = table();
    let list: &[ConfigurationTable] =
        efi!(core::slice::from_raw_parts(table.configuration_table, table.number_of_configuration_table_entries));
    list.iter().map(|entry| (entry.vendor_guid, entry.vendor_table)).collect()
}

fn the_system_table_says_what_it_is() -> Outcome {
    same!(table().header.signature, SystemTable::SIGNATURE);
    same!(boot().header.signature, BOOT_SIGNATURE);
    same!(efi!((*table().runtime_services).header.signature), RUNTIME_SIGNATURE);
    let revision = table().header.revision;
    check!(revision.0 >= 2 << 16 | 70, "revision {revision:?}");
    same!(boot().header.revision, revision);
    Ok(())
}

fn the_system_table_has_its_checksum() -> Outcome {
    header_is_right(&raw const table().header, size_of::<SystemTable>())
}

fn the_boot_services_table_has_its_checksum() -> Outcome {
    header_is_right(&raw const boot().header, size_of::<BootServices>())
}

fn the_runtime_services_table_has_its_checksum() -> Outcome {
    header_is_right(table().runtime_services.cast(), size_of::<RuntimeServices>())
}

fn null_fields(table: *const c_void, size: usize, may_be_null: &[usize]) -> Vec<usize> {
    (size_of::<Header>()..size)
        .step_by(8)
        .filter(|offset| !may_be_null.contains(offset))
        .filter(|offset| efi!(*table.byte_add(*offset).cast::<usize>()) == 0)
        .collect()
}

fn every_boot_service_is_there() -> Outcome {
    let table: *const BootServices = boot();
    let reserved = offset_of!(BootServices, reserved);
    same!(null_fields(table.cast(), size_of::<BootServices>(), &[reserved]), []);
    Ok(())
}

fn every_runtime_service_is_there() -> Outcome {
    same!(null_fields(table().runtime_services.cast(), size_of::<RuntimeServices>(), &[]), []);
    Ok(())
}

fn the_vendor_has_a_name() -> Outcome {
    check!(!support::narrow(table().firmware_vendor).is_empty());
    Ok(())
}

fn the_consoles_are_those_of_their_handles() -> Outcome {
    let table = table();
    same!(support::protocol_of(table.stdin_handle, &SimpleTextInputProtocol::GUID), Some(table.stdin));
    same!(support::protocol_of(table.stdout_handle, &SimpleTextOutputProtocol::GUID), Some(table.stdout));
    same!(support::protocol_of(table.stderr_handle, &SimpleTextOutputProtocol::GUID), Some(table.stderr));
    Ok(())
}

fn no_configuration_table_is_there_twice() -> Outcome {
    let all = all();
    for (index, (guid, address)) in all.iter().enumerate() {
        check!(!address.is_null(), "{guid} is null");
        check!(!all[..index].iter().any(|(earlier, _)| earlier == guid), "{guid} twice");
    }
    Ok(())
}

fn the_runtime_properties_tell_which_services_work() -> Outcome {
    const VERSION: u16 = 1;
    const LENGTH: u16 = 8;
    const SET_VIRTUAL_ADDRESS_MAP_AND_CONVERT_POINTER: u32 = 0x180;
    let Some(table) = configuration(&RT_PROPERTIES) else { return Err("not installed".into()) };
    let table = table.cast::<u16>();
    same!(efi!((*table, *table.add(1))), (VERSION, LENGTH));
    let supported = efi!(*table.add(2).cast::<u32>());
    same!(supported & SET_VIRTUAL_ADDRESS_MAP_AND_CONVERT_POINTER, SET_VIRTUAL_ADDRESS_MAP_AND_CONVERT_POINTER);
    Ok(())
}

fn the_memory_attributes_table_is_there() -> Outcome {
    check!(configuration(&MEMORY_ATTRIBUTES).is_some());
    Ok(())
}

fn the_list_of_conformance_profiles_is_absent_or_names_the_full_one() -> Outcome {
    let Some(table) = configuration(&CONFORMANCE_PROFILES) else { return Ok(()) };
    let count = efi!(*table.cast::<u16>().add(1));
    let profiles = efi!(core::slice::from_raw_parts(table.byte_add(4).cast::<Guid>(), count.into()));
    check!(profiles.contains(&UEFI_SPEC_PROFILE));
    Ok(())
}

fn a_configuration_table_comes_changes_and_goes() -> Outcome {
    static FIRST: u64 = 1;
    static SECOND: u64 = 2;
    let (first, second): (*const c_void, *const c_void) = ((&raw const FIRST).cast(), (&raw const SECOND).cast());
    let before = all().len();
    want!(SUCCESS, bs!(install_configuration_table(&OURS, first)));
    same!(configuration(&OURS), Some(first.cast_mut()));
    same!(all().len(), before + 1);
    the_system_table_has_its_checksum()?;
    want!(SUCCESS, bs!(install_configuration_table(&OURS, second)));
    same!(configuration(&OURS), Some(second.cast_mut()));
    same!(all().len(), before + 1);
    want!(SUCCESS, bs!(install_configuration_table(&OURS, null())));
    same!(configuration(&OURS), None);
    same!(all().len(), before);
    Ok(())
}

fn a_change_of_a_configuration_table_signals_its_group() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (mut event, context) = (null_mut(), (&raw const COUNT).cast());
    let kind = EventType::NOTIFY_SIGNAL;
    want!(SUCCESS, bs!(create_event_ex(kind, Tpl::CALLBACK, Some(support::count), context, &OURS, &mut event)));
    want!(SUCCESS, bs!(install_configuration_table(&OURS, (&raw const COUNT).cast())));
    let after_install = COUNT.load(Ordering::SeqCst);
    want!(SUCCESS, bs!(install_configuration_table(&OURS, null())));
    let after_removal = COUNT.load(Ordering::SeqCst);
    want!(SUCCESS, bs!(close_event(event)));
    same!((after_install, after_removal), (1, 2));
    Ok(())
}

fn wrong_arguments_of_install_configuration_table_are_refused() -> Outcome {
    want!(INVALID_PARAMETER, bs!(install_configuration_table(null(), null())));
    want!(NOT_FOUND, bs!(install_configuration_table(&NOBODYS, null())));
    Ok(())
}

/// After all that [`TESTS`] did.
fn the_system_table_keeps_its_checksum() -> Outcome {
    the_system_table_has_its_checksum()
}
