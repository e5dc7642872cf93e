//! Protocol handler services (UEFI 2.10 §7.3).

use core::ffi::c_void;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicUsize, Ordering};

use guest::{boot, image};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{EventType, InterfaceType, OpenProtocolInformationEntry, Tpl};
use uefi_raw::{Guid, Handle, Status};

use crate::harness::{Outcome, Test};
use crate::support::{
    ALL_HANDLES, BY_PROTOCOL, BY_REGISTER_NOTIFY, NOBODYS, OURS, OURS_TOO, counting_event, handle_with, handles_with,
    open, own_image, protocol_of,
};

pub const TESTS: &[Test] = tests![
    the_first_protocol_makes_a_handle,
    the_last_protocol_takes_the_handle_away,
    a_handle_has_a_protocol_once,
    wrong_arguments_of_install_are_refused,
    uninstall_wants_the_right_interface,
    reinstall_changes_the_interface,
    handle_protocol_tells_what_is_wrong,
    open_protocol_attributes_are_checked,
    test_protocol_needs_no_place_for_the_interface,
    opens_are_counted_in_the_information,
    exclusive_opens_exclude_each_other,
    a_protocol_opened_by_its_user_is_not_taken_away_by_driver_twice,
    close_protocol_tells_what_is_wrong,
    locate_handle_fills_the_buffer,
    locate_handle_buffer_finds_all_handles,
    wrong_arguments_of_locate_handle_are_refused,
    a_registration_finds_each_new_handle_once,
    a_reinstalled_protocol_is_announced,
    locate_protocol_tells_what_is_wrong,
    protocols_per_handle_lists_all,
    locate_device_path_finds_the_longest_match,
    locate_device_path_tells_what_is_wrong,
    several_protocols_come_and_go_at_once,
    several_protocols_come_all_or_none,
    several_protocols_go_all_or_none,
    a_device_path_is_on_one_handle_only,
];

static ONE: u64 = 1;
static TWO: u64 = 2;

fn one() -> *mut c_void {
    (&raw const ONE).cast_mut().cast()
}

fn two() -> *mut c_void {
    (&raw const TWO).cast_mut().cast()
}

fn install(handle: &mut Handle, guid: &Guid, interface: *const c_void) -> Status {
    bs!(install_protocol_interface(handle, guid, InterfaceType::NATIVE_INTERFACE, interface))
}

fn uninstall(handle: Handle, guid: &Guid, interface: *const c_void) -> Status {
    bs!(uninstall_protocol_interface(handle, guid, interface))
}

fn opened(handle: Handle, guid: &Guid, agent: Handle, controller: Handle, attributes: u32) -> Status {
    let mut interface = null_mut();
    bs!(open_protocol(handle, guid, &mut interface, agent, controller, attributes))
}

fn the_first_protocol_makes_a_handle() -> Outcome {
    let mut handle = null_mut();
    want!(SUCCESS, install(&mut handle, &OURS, one()));
    check!(!handle.is_null());
    same!(protocol_of(handle, &OURS), Some(one()));
    want!(SUCCESS, install(&mut handle, &OURS_TOO, null()));
    same!(protocol_of::<c_void>(handle, &OURS_TOO), Some(null_mut()));
    want!(SUCCESS, uninstall(handle, &OURS_TOO, null()));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

fn the_last_protocol_takes_the_handle_away() -> Outcome {
    let mut handle = handle_with(&OURS, one());
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    let mut interface = null_mut();
    want!(INVALID_PARAMETER, bs!(handle_protocol(handle, &OURS, &mut interface)));
    want!(INVALID_PARAMETER, install(&mut handle, &OURS, one()));
    Ok(())
}

fn a_handle_has_a_protocol_once() -> Outcome {
    let mut handle = handle_with(&OURS, one());
    want!(INVALID_PARAMETER, install(&mut handle, &OURS, two()));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

fn wrong_arguments_of_install_are_refused() -> Outcome {
    let mut handle = null_mut();
    let native = InterfaceType::NATIVE_INTERFACE;
    want!(INVALID_PARAMETER, bs!(install_protocol_interface(null_mut(), &OURS, native, one())));
    want!(INVALID_PARAMETER, bs!(install_protocol_interface(&mut handle, null(), native, one())));
    want!(INVALID_PARAMETER, bs!(install_protocol_interface(&mut handle, &OURS, InterfaceType(1), one())));
    check!(handle.is_null());
    let mut nobody = 0x1_2345_6789_u64 as Handle;
    want!(INVALID_PARAMETER, install(&mut nobody, &OURS, one()));
    Ok(())
}

fn uninstall_wants_the_right_interface() -> Outcome {
    let handle = handle_with(&OURS, one());
    want!(NOT_FOUND, uninstall(handle, &OURS, two()));
    want!(NOT_FOUND, uninstall(handle, &OURS_TOO, one()));
    want!(INVALID_PARAMETER, bs!(uninstall_protocol_interface(handle, null(), one())));
    want!(INVALID_PARAMETER, uninstall(null_mut(), &OURS, one()));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

fn reinstall_changes_the_interface() -> Outcome {
    let handle = handle_with(&OURS, one());
    want!(NOT_FOUND, bs!(reinstall_protocol_interface(handle, &OURS, two(), one())));
    want!(INVALID_PARAMETER, bs!(reinstall_protocol_interface(handle, null(), one(), two())));
    want!(SUCCESS, bs!(reinstall_protocol_interface(handle, &OURS, one(), two())));
    same!(protocol_of(handle, &OURS), Some(two()));
    want!(SUCCESS, bs!(reinstall_protocol_interface(handle, &OURS, two(), two())));
    want!(SUCCESS, uninstall(handle, &OURS, two()));
    Ok(())
}

fn handle_protocol_tells_what_is_wrong() -> Outcome {
    let mut interface = null_mut();
    want!(UNSUPPORTED, bs!(handle_protocol(image(), &NOBODYS, &mut interface)));
    want!(INVALID_PARAMETER, bs!(handle_protocol(null_mut(), &OURS, &mut interface)));
    want!(INVALID_PARAMETER, bs!(handle_protocol(image(), null(), &mut interface)));
    want!(INVALID_PARAMETER, bs!(handle_protocol(image(), &LoadedImageProtocol::GUID, null_mut())));
    Ok(())
}

fn open_protocol_attributes_are_checked() -> Outcome {
    let handle = handle_with(&OURS, one());
    let me = image();
    let nobody = null_mut();
    for (agent, controller, attributes, expected) in [
        (me, nobody, 0, Status::INVALID_PARAMETER),
        (me, nobody, 0x40, Status::INVALID_PARAMETER),
        (me, nobody, open::BY_CHILD_CONTROLLER, Status::INVALID_PARAMETER),
        (me, handle, open::BY_CHILD_CONTROLLER, Status::INVALID_PARAMETER),
        (nobody, handle, open::BY_DRIVER, Status::INVALID_PARAMETER),
        (me, nobody, open::BY_DRIVER, Status::INVALID_PARAMETER),
        (nobody, nobody, open::EXCLUSIVE, Status::INVALID_PARAMETER),
        (me, handle, open::BY_DRIVER | open::GET_PROTOCOL, Status::INVALID_PARAMETER),
        (nobody, nobody, open::GET_PROTOCOL, Status::SUCCESS),
        (me, nobody, open::BY_HANDLE_PROTOCOL, Status::SUCCESS),
        (me, nobody, open::TEST_PROTOCOL, Status::SUCCESS),
    ] {
        let status = opened(handle, &OURS, agent, controller, attributes);
        check!(status == expected, "{attributes:#x}: {status:?} instead of {expected:?}");
    }
    want!(UNSUPPORTED, opened(handle, &NOBODYS, me, nobody, open::GET_PROTOCOL));
    want!(INVALID_PARAMETER, opened(nobody, &OURS, me, nobody, open::GET_PROTOCOL));
    want!(INVALID_PARAMETER, bs!(open_protocol(handle, &OURS, null_mut(), me, nobody, open::GET_PROTOCOL)));
    want!(SUCCESS, bs!(close_protocol(handle, &OURS, me, nobody)));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

fn test_protocol_needs_no_place_for_the_interface() -> Outcome {
    let handle = handle_with(&OURS, one());
    want!(SUCCESS, bs!(open_protocol(handle, &OURS, null_mut(), image(), null_mut(), open::TEST_PROTOCOL)));
    want!(UNSUPPORTED, bs!(open_protocol(handle, &NOBODYS, null_mut(), image(), null_mut(), open::TEST_PROTOCOL)));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

fn information(handle: Handle, guid: &Guid) -> Result<alloc::vec::Vec<(Handle, Handle, u32, u32)>, Status> {
    let (mut entries, mut count): (*mut OpenProtocolInformationEntry, usize) = (null_mut(), 0);
    match bs!(open_protocol_information(handle, guid, &mut entries, &mut count)) {
        Status::SUCCESS => {}
        status => return Err(status),
    }
    let list = if count == 0 { &[] } else { efi!(core::slice::from_raw_parts(entries, count)) };
    let list = list.iter().map(|e| (e.agent_handle, e.controller_handle, e.attributes, e.open_count)).collect();
    if !entries.is_null() {
        let _ = bs!(free_pool(entries.cast()));
    }
    Ok(list)
}

fn opens_are_counted_in_the_information() -> Outcome {
    let handle = handle_with(&OURS, one());
    let me = image();
    same!(information(handle, &OURS), Ok(alloc::vec![]));
    want!(SUCCESS, opened(handle, &OURS, me, null_mut(), open::GET_PROTOCOL));
    want!(SUCCESS, opened(handle, &OURS, me, null_mut(), open::GET_PROTOCOL));
    want!(SUCCESS, opened(handle, &OURS, me, handle, open::BY_DRIVER));
    let mut list = information(handle, &OURS).unwrap_or_default();
    list.sort_unstable_by_key(|entry| entry.2);
    same!(list, [(me, null_mut(), open::GET_PROTOCOL, 2), (me, handle, open::BY_DRIVER, 1)]);
    same!(information(handle, &NOBODYS), Err(Status::NOT_FOUND));
    want!(SUCCESS, bs!(close_protocol(handle, &OURS, me, null_mut())));
    want!(SUCCESS, bs!(close_protocol(handle, &OURS, me, handle)));
    same!(information(handle, &OURS), Ok(alloc::vec![]));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

fn exclusive_opens_exclude_each_other() -> Outcome {
    let handle = handle_with(&OURS, one());
    let other = handle_with(&OURS_TOO, one());
    want!(SUCCESS, opened(handle, &OURS, image(), null_mut(), open::EXCLUSIVE));
    want!(ACCESS_DENIED, opened(handle, &OURS, other, null_mut(), open::EXCLUSIVE));
    want!(ACCESS_DENIED, opened(handle, &OURS, other, handle, open::BY_DRIVER));
    want!(SUCCESS, opened(handle, &OURS, other, null_mut(), open::GET_PROTOCOL));
    want!(SUCCESS, bs!(close_protocol(handle, &OURS, image(), null_mut())));
    want!(SUCCESS, opened(handle, &OURS, other, null_mut(), open::EXCLUSIVE));
    want!(SUCCESS, bs!(close_protocol(handle, &OURS, other, null_mut())));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    want!(SUCCESS, uninstall(other, &OURS_TOO, one()));
    Ok(())
}

fn a_protocol_opened_by_its_user_is_not_taken_away_by_driver_twice() -> Outcome {
    let handle = handle_with(&OURS, one());
    let other = handle_with(&OURS_TOO, one());
    want!(SUCCESS, opened(handle, &OURS, image(), handle, open::BY_DRIVER));
    want!(ALREADY_STARTED, opened(handle, &OURS, image(), handle, open::BY_DRIVER));
    want!(ACCESS_DENIED, opened(handle, &OURS, other, handle, open::BY_DRIVER));
    want!(SUCCESS, bs!(close_protocol(handle, &OURS, image(), handle)));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    want!(SUCCESS, uninstall(other, &OURS_TOO, one()));
    Ok(())
}

fn close_protocol_tells_what_is_wrong() -> Outcome {
    let handle = handle_with(&OURS, one());
    let nobody = null_mut();
    want!(NOT_FOUND, bs!(close_protocol(handle, &OURS, image(), nobody)));
    want!(NOT_FOUND, bs!(close_protocol(handle, &NOBODYS, image(), nobody)));
    want!(INVALID_PARAMETER, bs!(close_protocol(nobody, &OURS, image(), nobody)));
    want!(INVALID_PARAMETER, bs!(close_protocol(handle, &OURS, nobody, nobody)));
    want!(INVALID_PARAMETER, bs!(close_protocol(handle, null(), image(), nobody)));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

fn locate_handle_fills_the_buffer() -> Outcome {
    let handle = handle_with(&OURS, one());
    let mut size = 0;
    want!(BUFFER_TOO_SMALL, bs!(locate_handle(BY_PROTOCOL, &OURS, null(), &mut size, null_mut())));
    same!(size, 8);
    let mut buffer = [null_mut(); 3];
    let mut size = size_of_val(&buffer);
    want!(SUCCESS, bs!(locate_handle(BY_PROTOCOL, &OURS, null(), &mut size, buffer.as_mut_ptr())));
    same!((size, buffer[0]), (8, handle));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

fn locate_handle_buffer_finds_all_handles() -> Outcome {
    let handle = handle_with(&OURS, one());
    let (mut count, mut handles): (usize, *mut Handle) = (0, null_mut());
    want!(SUCCESS, bs!(locate_handle_buffer(ALL_HANDLES, null(), null(), &mut count, &mut handles)));
    let list = efi!(core::slice::from_raw_parts(handles, count)).to_vec();
    want!(SUCCESS, bs!(free_pool(handles.cast())));
    check!(list.contains(&handle) && list.contains(&image()));
    same!(handles_with(&OURS), [handle]);
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

fn wrong_arguments_of_locate_handle_are_refused() -> Outcome {
    let (mut size, mut buffer) = (8, null_mut());
    want!(INVALID_PARAMETER, bs!(locate_handle(BY_PROTOCOL, null(), null(), &mut size, &mut buffer)));
    want!(INVALID_PARAMETER, bs!(locate_handle(BY_PROTOCOL, &OURS, null(), null_mut(), &mut buffer)));
    want!(INVALID_PARAMETER, bs!(locate_handle(BY_REGISTER_NOTIFY, null(), null(), &mut size, &mut buffer)));
    want!(INVALID_PARAMETER, bs!(locate_handle(3, &OURS, null(), &mut size, &mut buffer)));
    want!(NOT_FOUND, bs!(locate_handle(BY_PROTOCOL, &NOBODYS, null(), &mut size, &mut buffer)));
    let mut list = null_mut();
    want!(INVALID_PARAMETER, bs!(locate_handle_buffer(BY_PROTOCOL, &OURS, null(), null_mut(), &mut list)));
    want!(INVALID_PARAMETER, bs!(locate_handle_buffer(BY_PROTOCOL, &OURS, null(), &mut size, null_mut())));
    want!(NOT_FOUND, bs!(locate_handle_buffer(BY_PROTOCOL, &NOBODYS, null(), &mut size, &mut list)));
    Ok(())
}

fn a_registration_finds_each_new_handle_once() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let event = counting_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    let mut key = null_mut();
    want!(INVALID_PARAMETER, bs!(register_protocol_notify(null(), event, &mut key)));
    want!(INVALID_PARAMETER, bs!(register_protocol_notify(&OURS, null_mut(), &mut key)));
    want!(INVALID_PARAMETER, bs!(register_protocol_notify(&OURS, event, null_mut())));
    want!(SUCCESS, bs!(register_protocol_notify(&OURS, event, &mut key)));
    let handles = [handle_with(&OURS, one()), handle_with(&OURS, two())];
    same!(COUNT.load(Ordering::SeqCst), 2);
    for expected in handles {
        let (mut size, mut found) = (8, null_mut());
        want!(SUCCESS, bs!(locate_handle(BY_REGISTER_NOTIFY, null(), key, &mut size, &mut found)));
        same!((size, found), (8, expected));
    }
    let (mut size, mut found) = (8, null_mut());
    want!(NOT_FOUND, bs!(locate_handle(BY_REGISTER_NOTIFY, null(), key, &mut size, &mut found)));
    want!(SUCCESS, uninstall(handles[0], &OURS, one()));
    want!(SUCCESS, uninstall(handles[1], &OURS, two()));
    want!(SUCCESS, bs!(close_event(event)));
    Ok(())
}

fn a_reinstalled_protocol_is_announced() -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let handle = handle_with(&OURS, one());
    let event = counting_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, &COUNT);
    let mut key = null_mut();
    want!(SUCCESS, bs!(register_protocol_notify(&OURS, event, &mut key)));
    want!(SUCCESS, bs!(reinstall_protocol_interface(handle, &OURS, one(), two())));
    same!(COUNT.load(Ordering::SeqCst), 1);
    let mut interface = null_mut();
    want!(SUCCESS, bs!(locate_protocol(&OURS, key, &mut interface)));
    same!(interface, two());
    want!(SUCCESS, bs!(close_event(event)));
    want!(SUCCESS, uninstall(handle, &OURS, two()));
    Ok(())
}

fn locate_protocol_tells_what_is_wrong() -> Outcome {
    let mut interface = one();
    want!(NOT_FOUND, bs!(locate_protocol(&NOBODYS, null(), &mut interface)));
    want!(INVALID_PARAMETER, bs!(locate_protocol(&OURS, null(), null_mut())));
    want!(INVALID_PARAMETER, bs!(locate_protocol(null(), null(), &mut interface)));
    Ok(())
}

fn protocols_per_handle_lists_all() -> Outcome {
    let mut handle = handle_with(&OURS, one());
    want!(SUCCESS, install(&mut handle, &OURS_TOO, two()));
    let (mut list, mut count): (*mut *const Guid, usize) = (null_mut(), 0);
    want!(SUCCESS, bs!(protocols_per_handle(handle, &mut list, &mut count)));
    let mut guids =
        efi!(core::slice::from_raw_parts(list, count)).iter().map(|guid| efi!(**guid)).collect::<alloc::vec::Vec<_>>();
    guids.sort_unstable();
    let mut expected = [OURS, OURS_TOO];
    expected.sort_unstable();
    same!(guids, expected);
    want!(SUCCESS, bs!(free_pool(list.cast())));
    want!(INVALID_PARAMETER, bs!(protocols_per_handle(null_mut(), &mut list, &mut count)));
    want!(INVALID_PARAMETER, bs!(protocols_per_handle(handle, null_mut(), &mut count)));
    want!(INVALID_PARAMETER, bs!(protocols_per_handle(handle, &mut list, null_mut())));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    want!(SUCCESS, uninstall(handle, &OURS_TOO, two()));
    Ok(())
}

/// Vendor nodes of our own and an end: 1/4 with a GUID, once or twice.
pub fn vendor_path(nodes: &[Guid]) -> alloc::vec::Vec<u8> {
    let mut path = alloc::vec::Vec::new();
    for guid in nodes {
        path.extend([1, 4, 20, 0]);
        path.extend(guid.to_bytes());
    }
    path.extend([0x7F, 0xFF, 4, 0]);
    path
}

fn locate_device_path_finds_the_longest_match() -> Outcome {
    let (short, long) = (vendor_path(&[OURS]), vendor_path(&[OURS, OURS_TOO]));
    let whole = vendor_path(&[OURS, OURS_TOO, NOBODYS]);
    let first = handle_with(&DevicePathProtocol::GUID, short.as_ptr().cast());
    let second = handle_with(&DevicePathProtocol::GUID, long.as_ptr().cast());
    let mut path: *const DevicePathProtocol = whole.as_ptr().cast();
    let mut found = null_mut();
    let status = bs!(locate_device_path(&DevicePathProtocol::GUID, &mut path, &mut found));
    want!(SUCCESS, uninstall(first, &DevicePathProtocol::GUID, short.as_ptr().cast()));
    want!(SUCCESS, uninstall(second, &DevicePathProtocol::GUID, long.as_ptr().cast()));
    want!(SUCCESS, status);
    same!((found, path.addr() - whole.as_ptr().addr()), (second, 40));
    Ok(())
}

fn locate_device_path_tells_what_is_wrong() -> Outcome {
    let bytes = vendor_path(&[NOBODYS]);
    let mut path: *const DevicePathProtocol = bytes.as_ptr().cast();
    let mut found = null_mut();
    want!(NOT_FOUND, bs!(locate_device_path(&DevicePathProtocol::GUID, &mut path, &mut found)));
    want!(INVALID_PARAMETER, bs!(locate_device_path(null(), &mut path, &mut found)));
    want!(INVALID_PARAMETER, bs!(locate_device_path(&DevicePathProtocol::GUID, null_mut(), &mut found)));
    let mut nothing = null();
    want!(INVALID_PARAMETER, bs!(locate_device_path(&DevicePathProtocol::GUID, &mut nothing, &mut found)));
    Ok(())
}

fn several_protocols_come_and_go_at_once() -> Outcome {
    let (mut handle, nothing): (Handle, *const c_void) = (null_mut(), null());
    let (first, second): (*const Guid, *const Guid) = (&OURS, &OURS_TOO);
    want!(
        SUCCESS,
        efi!((boot().install_multiple_protocol_interfaces)(&mut handle, first, one(), second, two(), nothing))
    );
    same!((protocol_of(handle, &OURS), protocol_of(handle, &OURS_TOO)), (Some(one()), Some(two())));
    want!(SUCCESS, efi!((boot().uninstall_multiple_protocol_interfaces)(handle, first, one(), second, two(), nothing)));
    check!(handles_with(&OURS).is_empty());
    Ok(())
}

fn several_protocols_come_all_or_none() -> Outcome {
    let (mut handle, nothing): (Handle, *const c_void) = (null_mut(), null());
    let (first, second): (*const Guid, *const Guid) = (&OURS, &OURS_TOO);
    let status = efi!((boot().install_multiple_protocol_interfaces)(
        &mut handle,
        first,
        one(),
        second,
        two(),
        first,
        two(),
        nothing
    ));
    check!(status.is_error(), "{status:?}");
    same!((handles_with(&OURS).len(), handles_with(&OURS_TOO).len()), (0, 0));
    let (path, mut handle) = (own_path(), null_mut());
    let guid: *const Guid = &DevicePathProtocol::GUID;
    let Some(path) = path else { return Ok(()) };
    let status = efi!((boot().install_multiple_protocol_interfaces)(&mut handle, first, one(), guid, path, nothing));
    same!((status, handles_with(&OURS).len()), (Status::ALREADY_STARTED, 0));
    Ok(())
}

fn several_protocols_go_all_or_none() -> Outcome {
    let handle = handle_with(&OURS, one());
    let nothing: *const c_void = null();
    let (first, second): (*const Guid, *const Guid) = (&OURS, &OURS_TOO);
    want!(
        INVALID_PARAMETER,
        efi!((boot().uninstall_multiple_protocol_interfaces)(handle, first, one(), second, two(), nothing))
    );
    same!(protocol_of(handle, &OURS), Some(one()));
    want!(SUCCESS, uninstall(handle, &OURS, one()));
    Ok(())
}

/// The device path of the device that this program was loaded from.
fn own_path() -> Option<*mut c_void> {
    protocol_of(own_image().device_handle, &DevicePathProtocol::GUID)
}

/// InstallMultipleProtocolInterfaces promises it; a second handle with the same path could never be located.
fn a_device_path_is_on_one_handle_only() -> Outcome {
    let path = vendor_path(&[OURS]);
    let copy = path.clone();
    let guid: *const Guid = &DevicePathProtocol::GUID;
    let nothing: *const c_void = null();
    let (mut first, mut second): (Handle, Handle) = (null_mut(), null_mut());
    want!(SUCCESS, efi!((boot().install_multiple_protocol_interfaces)(&mut first, guid, path.as_ptr(), nothing)));
    let status = efi!((boot().install_multiple_protocol_interfaces)(&mut second, guid, copy.as_ptr(), nothing));
    want!(SUCCESS, uninstall(first, &DevicePathProtocol::GUID, path.as_ptr().cast()));
    want!(ALREADY_STARTED, status);
    Ok(())
}
