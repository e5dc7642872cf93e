//! Image services (UEFI 2.10 §7.4), with copies of this program and damaged ones.

use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use guest::{boot, image};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::protocol::media::{LoadFile2Protocol, LoadFileProtocol};
use uefi_raw::table::boot::{MemoryType, Tpl};
use uefi_raw::{Boolean, Handle, Status};

use crate::child::{FAREWELL, LoadOptions, Order, REFUSAL};
use crate::harness::{Outcome, Test};
use crate::support::{Map, NOBODYS, OURS, OURS_TOO, handle_with, handles_with, level, own_image, protocol_of};
use crate::{file, protocol};

pub const TESTS: &[Test] = tests![
    the_own_image_is_described,
    a_copy_is_described_and_unloaded,
    a_copy_runs_and_its_status_comes_back,
    an_application_is_unloaded_after_its_end,
    exit_data_comes_back,
    exit_data_need_not_be_taken,
    an_image_does_not_leave_the_level_raised,
    a_driver_stays_until_it_is_unloaded,
    a_driver_that_refuses_stays_loaded,
    a_driver_without_unload_function_cannot_be_unloaded,
    a_driver_that_fails_is_unloaded,
    a_runtime_driver_is_in_runtime_memory,
    a_started_driver_cannot_be_started_again,
    exit_unloads_an_image_that_was_not_started,
    wrong_arguments_of_load_image_are_refused,
    wrong_handles_are_refused,
    what_is_no_program_is_unsupported,
    damaged_programs_are_load_errors,
    a_copy_at_every_alignment_runs,
    a_file_is_loaded_by_its_device_path,
    a_missing_file_is_not_found,
    load_file_2_gives_an_image,
    load_file_is_for_boot_policy,
];

const APPLICATION: u8 = 10;
const BOOT_DRIVER: u8 = 11;
const RUNTIME_DRIVER: u8 = 12;

/// Offsets in a PE file, from the start of the PE header.
const PE_POINTER: usize = 0x3C;
const MACHINE: usize = 4;
const ENTRY: usize = 24 + 16;
const SIZE_OF_IMAGE: usize = 24 + 56;
const SUBSYSTEM: usize = 24 + 68;
const RELOCATIONS: usize = 24 + 112 + 5 * 8;

/// The text of the file path node that ends this program's own device path.
fn own_name() -> Result<String, String> {
    let path: *const u8 = own_image().file_path.cast();
    let header = efi!([*path, *path.add(1)]);
    if header != [4, 4] {
        return Err(alloc::format!("the own file path begins with a node {header:?}"));
    }
    let length = usize::from(efi!(path.add(2).cast::<u16>().read_unaligned())) - 4;
    let units = (0..length / 2).map(|index| efi!(path.add(4).cast::<u16>().add(index).read_unaligned()));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Ok(String::from_utf16_lossy(&units))
}

/// This program's file, as a program of the given kind.
fn program(subsystem: u8) -> Result<Vec<u8>, String> {
    let mut program = file::contents(&own_name()?)?;
    let at = pe(&program) + SUBSYSTEM;
    program[at] = subsystem;
    Ok(program)
}

fn pe(program: &[u8]) -> usize {
    usize::from(program[PE_POINTER]) | usize::from(program[PE_POINTER + 1]) << 8
}

fn load(program: &[u8]) -> Result<Handle, Status> {
    let mut handle = null_mut();
    match bs!(load_image(Boolean::FALSE, image(), null(), program.as_ptr(), program.len(), &mut handle)) {
        Status::SUCCESS => Ok(handle),
        status => Err(status),
    }
}

/// Loads a copy that is to do as it is told; the options stay where they are.
fn loaded(subsystem: u8, options: &LoadOptions) -> Result<Handle, String> {
    let handle = load(&program(subsystem)?).map_err(|status| alloc::format!("LoadImage: {status:?}"))?;
    give(handle, options);
    Ok(handle)
}

fn give(handle: Handle, options: &LoadOptions) {
    if let Some(image) = description(handle) {
        efi!((*image).load_options = core::ptr::from_ref(options).cast());
        efi!((*image).load_options_size = size_of::<LoadOptions>() as u32);
    }
}

fn start(handle: Handle) -> Status {
    bs!(start_image(handle, null_mut(), null_mut()))
}

fn description(handle: Handle) -> Option<*mut LoadedImageProtocol> {
    protocol_of(handle, &LoadedImageProtocol::GUID)
}

fn the_own_image_is_described() -> Outcome {
    const REVISION: u32 = 0x1000;
    let own = own_image();
    same!(own.revision, REVISION);
    same!(own.system_table, core::ptr::from_ref(guest::table()));
    check!(!own.parent_handle.is_null() && !own.device_handle.is_null() && !own.file_path.is_null());
    same!((own.image_code_type, own.image_data_type), (MemoryType::LOADER_CODE, MemoryType::LOADER_DATA));
    let here = the_own_image_is_described as *const () as u64;
    let base = own.image_base.addr() as u64;
    check!((base..base + own.image_size).contains(&here), "{here:#x} is not in {base:#x} + {:#x}", own.image_size);
    Ok(())
}

fn a_copy_is_described_and_unloaded() -> Outcome {
    let handle = load(&program(APPLICATION)?).map_err(|status| alloc::format!("{status:?}"))?;
    let copy = description(handle).map(|copy| efi!(*copy)).ok_or("no LoadedImage protocol")?;
    same!((copy.parent_handle, copy.image_size), (image(), own_image().image_size));
    let ty = Map::now().of(copy.image_base.addr() as u64).map(|d| d.ty);
    same!(ty, Some(MemoryType::LOADER_CODE));
    want!(SUCCESS, bs!(unload_image(handle)));
    check!(description(handle).is_none());
    Ok(())
}

fn a_copy_runs_and_its_status_comes_back() -> Outcome {
    for (order, expected) in [(Order::Return, Status::SUCCESS), (Order::Fail, REFUSAL)] {
        same!(start(loaded(APPLICATION, &order.into())?), expected);
    }
    Ok(())
}

fn an_application_is_unloaded_after_its_end() -> Outcome {
    let handle = loaded(APPLICATION, &Order::Return.into())?;
    want!(SUCCESS, start(handle));
    check!(description(handle).is_none());
    want!(INVALID_PARAMETER, start(handle));
    Ok(())
}

fn exit_data_comes_back() -> Outcome {
    let handle = loaded(APPLICATION, &Order::Exit.into())?;
    let (mut size, mut data) = (0, null_mut());
    same!(bs!(start_image(handle, &mut size, &mut data)), REFUSAL);
    same!(size, size_of_val(&FAREWELL));
    same!(efi!(core::slice::from_raw_parts(data, FAREWELL.len())), FAREWELL);
    want!(SUCCESS, bs!(free_pool(data.cast())));
    Ok(())
}

fn exit_data_need_not_be_taken() -> Outcome {
    same!(start(loaded(APPLICATION, &Order::Exit.into())?), REFUSAL);
    Ok(())
}

fn an_image_does_not_leave_the_level_raised() -> Outcome {
    want!(SUCCESS, start(loaded(APPLICATION, &Order::ReturnRaised.into())?));
    let level = level();
    bs!(restore_tpl(Tpl::APPLICATION));
    same!(level, Tpl::APPLICATION);
    Ok(())
}

fn a_driver_stays_until_it_is_unloaded() -> Outcome {
    let handle = loaded(BOOT_DRIVER, &Order::Stay.into())?;
    want!(SUCCESS, start(handle));
    let copy = description(handle).map(|copy| efi!(*copy)).ok_or("not loaded any more")?;
    let types = (copy.image_code_type, copy.image_data_type);
    same!(types, (MemoryType::BOOT_SERVICES_CODE, MemoryType::BOOT_SERVICES_DATA));
    same!(handles_with(&OURS_TOO), [handle]);
    want!(SUCCESS, bs!(unload_image(handle)));
    check!(description(handle).is_none() && handles_with(&OURS_TOO).is_empty());
    Ok(())
}

fn a_driver_that_refuses_stays_loaded() -> Outcome {
    let handle = loaded(BOOT_DRIVER, &Order::StayForever.into())?;
    want!(SUCCESS, start(handle));
    want!(NOT_READY, bs!(unload_image(handle)));
    check!(description(handle).is_some());
    want!(SUCCESS, bs!(uninstall_protocol_interface(handle, &OURS_TOO, null())));
    Ok(())
}

fn a_driver_without_unload_function_cannot_be_unloaded() -> Outcome {
    let handle = loaded(BOOT_DRIVER, &Order::Return.into())?;
    want!(SUCCESS, start(handle));
    want!(UNSUPPORTED, bs!(unload_image(handle)));
    Ok(())
}

fn a_driver_that_fails_is_unloaded() -> Outcome {
    let handle = loaded(BOOT_DRIVER, &Order::Fail.into())?;
    same!(start(handle), REFUSAL);
    check!(description(handle).is_none());
    Ok(())
}

fn a_runtime_driver_is_in_runtime_memory() -> Outcome {
    let handle = loaded(RUNTIME_DRIVER, &Order::Return.into())?;
    let copy = description(handle).map(|copy| efi!(*copy)).ok_or("no LoadedImage protocol")?;
    let types = (copy.image_code_type, copy.image_data_type);
    same!(types, (MemoryType::RUNTIME_SERVICES_CODE, MemoryType::RUNTIME_SERVICES_DATA));
    let map = Map::now();
    for page in (0..copy.image_size).step_by(4096) {
        let ty = map.of(copy.image_base.addr() as u64 + page).map(|d| d.ty);
        check!(matches!(ty, Some(MemoryType::RUNTIME_SERVICES_CODE | MemoryType::RUNTIME_SERVICES_DATA)), "{ty:?}");
    }
    want!(SUCCESS, bs!(unload_image(handle)));
    Ok(())
}

fn a_started_driver_cannot_be_started_again() -> Outcome {
    let handle = loaded(BOOT_DRIVER, &Order::Stay.into())?;
    want!(SUCCESS, start(handle));
    want!(INVALID_PARAMETER, start(handle));
    want!(SUCCESS, bs!(unload_image(handle)));
    Ok(())
}

fn exit_unloads_an_image_that_was_not_started() -> Outcome {
    let handle = loaded(APPLICATION, &Order::Return.into())?;
    want!(SUCCESS, efi!((boot().exit)(handle, Status::SUCCESS, 0, null_mut())));
    check!(description(handle).is_none());
    Ok(())
}

fn wrong_arguments_of_load_image_are_refused() -> Outcome {
    let program = program(APPLICATION)?;
    let (source, size) = (program.as_ptr(), program.len());
    let no_image = handle_with(&OURS, null());
    let mut handle = null_mut();
    want!(INVALID_PARAMETER, bs!(load_image(Boolean::FALSE, image(), null(), source, size, null_mut())));
    want!(INVALID_PARAMETER, bs!(load_image(Boolean::FALSE, null_mut(), null(), source, size, &mut handle)));
    want!(INVALID_PARAMETER, bs!(load_image(Boolean::FALSE, no_image, null(), source, size, &mut handle)));
    let nothing = bs!(load_image(Boolean::FALSE, image(), null(), null(), 0, &mut handle));
    want!(SUCCESS, bs!(uninstall_protocol_interface(no_image, &OURS, null())));
    check!(matches!(nothing, Status::INVALID_PARAMETER | Status::NOT_FOUND), "{nothing:?}");
    Ok(())
}

fn wrong_handles_are_refused() -> Outcome {
    let no_image = handle_with(&OURS, null());
    for handle in [null_mut(), no_image, 0x1_2345_6789_u64 as Handle] {
        want!(INVALID_PARAMETER, start(handle));
        want!(INVALID_PARAMETER, bs!(unload_image(handle)));
        want!(INVALID_PARAMETER, efi!((boot().exit)(handle, Status::SUCCESS, 0, null_mut())));
    }
    want!(SUCCESS, bs!(uninstall_protocol_interface(no_image, &OURS, null())));
    Ok(())
}

fn what_is_no_program_is_unsupported() -> Outcome {
    let good = program(APPLICATION)?;
    let pe = pe(&good);
    for (what, at, value) in [
        ("no MZ", 0, 0),
        ("no PE", pe, 0),
        ("other machine", pe + MACHINE, 0xAA),
        ("no EFI subsystem", pe + SUBSYSTEM, 3),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        same!((what, load(&bad)), (what, Err(Status::UNSUPPORTED)));
    }
    same!(load(b"#!/bin/sh\n"), Err(Status::UNSUPPORTED));
    Ok(())
}

fn damaged_programs_are_load_errors() -> Outcome {
    let good = program(APPLICATION)?;
    let pe = pe(&good);
    for (what, at) in
        [("entry point", pe + ENTRY + 3), ("size", pe + SIZE_OF_IMAGE + 3), ("relocations", pe + RELOCATIONS + 3)]
    {
        let mut bad = good.clone();
        bad[at] = 0x7F;
        let result = load(&bad);
        check!(matches!(result, Err(Status::LOAD_ERROR | Status::OUT_OF_RESOURCES)), "{what}: {result:?}");
    }
    for length in [pe + 8, pe + 100, good.len() / 2, good.len() - 512] {
        same!((length, load(&good[..length])), (length, Err(Status::LOAD_ERROR)));
    }
    Ok(())
}

fn a_copy_at_every_alignment_runs() -> Outcome {
    let good = program(APPLICATION)?;
    for shift in [1, 2, 7] {
        let mut moved = alloc::vec![0; shift];
        moved.extend(&good);
        let handle = load(&moved[shift..]).map_err(|status| alloc::format!("{shift}: {status:?}"))?;
        let options = Order::Fail.into();
        give(handle, &options);
        same!(start(handle), REFUSAL);
    }
    Ok(())
}

/// A device path's bytes without its end.
fn without_end(path: *const DevicePathProtocol) -> Vec<u8> {
    let (bytes, mut size): (*const u8, usize) = (path.cast(), 0);
    while efi!(*bytes.add(size)) != 0x7F {
        size += usize::from(efi!(bytes.add(size + 2).cast::<u16>().read_unaligned()));
    }
    efi!(core::slice::from_raw_parts(bytes, size)).to_vec()
}

/// The device path of a file on the device that this program comes from.
fn path_of(name: &str) -> Vec<u8> {
    let device = protocol_of::<DevicePathProtocol>(own_image().device_handle, &DevicePathProtocol::GUID);
    let mut path = device.map(|path| without_end(path)).unwrap_or_default();
    let units = crate::support::wide(name);
    path.extend([4, 4]);
    path.extend((4 + units.len() as u16 * 2).to_le_bytes());
    path.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    path.extend([0x7F, 0xFF, 4, 0]);
    path
}

fn load_path(path: &[u8], boot_policy: bool) -> Result<Handle, Status> {
    let mut handle = null_mut();
    match bs!(load_image(boot_policy.into(), image(), path.as_ptr().cast(), null(), 0, &mut handle)) {
        Status::SUCCESS => Ok(handle),
        status => Err(status),
    }
}

fn a_file_is_loaded_by_its_device_path() -> Outcome {
    let handle = load_path(&path_of(&own_name()?), false).map_err(|status| alloc::format!("{status:?}"))?;
    let copy = description(handle).map(|copy| efi!(*copy)).ok_or("no LoadedImage protocol")?;
    same!(copy.device_handle, own_image().device_handle);
    same!(without_end(copy.file_path), without_end(own_image().file_path));
    let options = Order::Fail.into();
    give(handle, &options);
    same!(start(handle), REFUSAL);
    Ok(())
}

fn a_missing_file_is_not_found() -> Outcome {
    same!(load_path(&path_of("\\no\\such\\file.efi"), false), Err(Status::NOT_FOUND));
    same!(load_path(&protocol::vendor_path(&[NOBODYS]), false), Err(Status::NOT_FOUND));
    Ok(())
}

static SERVED: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static SERVED_SIZE: AtomicUsize = AtomicUsize::new(0);

fn serve(size: *mut usize, buffer: *mut c_void) -> Status {
    let length = SERVED_SIZE.load(Ordering::SeqCst);
    let room = core::mem::replace(efi!(&mut *size), length);
    if buffer.is_null() || room < length {
        return Status::BUFFER_TOO_SMALL;
    }
    efi!(buffer.cast::<u8>().copy_from_nonoverlapping(SERVED.load(Ordering::SeqCst), length));
    Status::SUCCESS
}

unsafe extern "efiapi" fn load_file(
    _: *mut LoadFileProtocol,
    _: *const DevicePathProtocol,
    _: Boolean,
    size: *mut usize,
    buffer: *mut c_void,
) -> Status {
    serve(size, buffer)
}

unsafe extern "efiapi" fn load_file_2(
    _: *mut LoadFile2Protocol,
    _: *const DevicePathProtocol,
    boot_policy: Boolean,
    size: *mut usize,
    buffer: *mut c_void,
) -> Status {
    if boot_policy.is_true() { Status::UNSUPPORTED } else { serve(size, buffer) }
}

/// Runs `f` with the path of a handle that has this protocol and serves a copy of this program.
fn with_server<R>(guid: &uefi_raw::Guid, interface: *const c_void, f: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
    let mut program = program(APPLICATION)?;
    SERVED.store(program.as_mut_ptr(), Ordering::SeqCst);
    SERVED_SIZE.store(program.len(), Ordering::SeqCst);
    let path = protocol::vendor_path(&[OURS, OURS_TOO]);
    let mut handle = handle_with(&DevicePathProtocol::GUID, path.as_ptr().cast());
    let native = uefi_raw::table::boot::InterfaceType::NATIVE_INTERFACE;
    let _ = bs!(install_protocol_interface(&mut handle, guid, native, interface));
    let result = f(&path);
    let _ = bs!(uninstall_protocol_interface(handle, guid, interface));
    let _ = bs!(uninstall_protocol_interface(handle, &DevicePathProtocol::GUID, path.as_ptr().cast()));
    Ok(result)
}

fn load_file_2_gives_an_image() -> Outcome {
    let server = LoadFile2Protocol { load_file: load_file_2 };
    let (by_policy, result) = with_server(&LoadFile2Protocol::GUID, (&raw const server).cast(), |path| {
        (load_path(path, true), load_path(path, false))
    })?;
    let handle = result.map_err(|status| alloc::format!("{status:?}"))?;
    let options = Order::Fail.into();
    give(handle, &options);
    same!(start(handle), REFUSAL);
    check!(by_policy.is_err(), "LoadFile2 was used with boot policy");
    Ok(())
}

fn load_file_is_for_boot_policy() -> Outcome {
    let server = LoadFileProtocol { load_file };
    let result = with_server(&LoadFileProtocol::GUID, (&raw const server).cast(), |path| load_path(path, true))?;
    let handle = result.map_err(|status| alloc::format!("{status:?}"))?;
    let options = Order::Fail.into();
    give(handle, &options);
    same!(start(handle), REFUSAL);
    Ok(())
}
