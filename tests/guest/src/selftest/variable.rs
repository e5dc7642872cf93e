//! Variable services while there are boot services (UEFI 2.10 §8.2).

use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::{null, null_mut};

use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};
use uefi_raw::{Guid, Status};

use crate::harness::{Outcome, Test};
use crate::support::{NOBODYS, OURS, OURS_TOO, narrow, wide};

pub const TESTS: &[Test] = tests![
    a_variable_that_was_never_set_is_not_found,
    a_variable_keeps_data_and_attributes,
    a_variable_belongs_to_its_vendor,
    a_small_buffer_is_told_the_size,
    data_is_replaced,
    data_is_appended,
    a_variable_is_deleted,
    wrong_arguments_of_get_variable_are_refused,
    wrong_arguments_of_set_variable_are_refused,
    writes_without_the_signature_they_claim_are_refused,
    the_state_of_secure_boot_cannot_be_written,
    attributes_of_a_variable_do_not_change,
    each_variable_is_listed_once,
    wrong_arguments_of_get_next_variable_name_are_refused,
    the_store_tells_its_limits,
    wrong_arguments_of_query_variable_info_are_refused,
    more_than_the_limit_is_refused,
    a_hundred_variables_fit,
    deleting_gives_the_space_back,
];

pub const NV: VariableAttributes = VariableAttributes::NON_VOLATILE;
pub const BS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS;
pub const RT: VariableAttributes = BS.union(VariableAttributes::RUNTIME_ACCESS);
pub const NVRT: VariableAttributes = NV.union(RT);
const APPEND: VariableAttributes = VariableAttributes::APPEND_WRITE;

/// A variable's data and attributes.
pub fn get_of(vendor: &Guid, name: &str) -> Result<(Vec<u8>, VariableAttributes), Status> {
    let (name, mut data) = (wide(name), alloc::vec![0u8; 2048]);
    let (mut size, mut attributes) = (data.len(), VariableAttributes::empty());
    match rs!(get_variable(name.as_ptr(), vendor, &mut attributes, &mut size, data.as_mut_ptr())) {
        Status::SUCCESS => {
            data.truncate(size);
            Ok((data, attributes))
        }
        status => Err(status),
    }
}

/// One of our variables.
pub fn get(name: &str) -> Result<(Vec<u8>, VariableAttributes), Status> {
    get_of(&OURS, name)
}

/// Sets one of our variables.
pub fn set(name: &str, attributes: VariableAttributes, data: &[u8]) -> Status {
    rs!(set_variable(wide(name).as_ptr(), &OURS, attributes, data.len(), data.as_ptr()))
}

/// Deletes one of our variables.
pub fn delete(name: &str) -> Status {
    rs!(set_variable(wide(name).as_ptr(), &OURS, VariableAttributes::empty(), 0, null()))
}

/// The names of our variables.
pub fn names() -> Result<Vec<String>, String> {
    let (mut name, mut vendor, mut ours) = (alloc::vec![0u16; 512], Guid::ZERO, Vec::new());
    for _ in 0..10_000 {
        let mut size = name.len() * 2;
        match rs!(get_next_variable_name(&mut size, name.as_mut_ptr(), &mut vendor)) {
            Status::SUCCESS if vendor == OURS => ours.push(narrow(name.as_ptr())),
            Status::SUCCESS => {}
            Status::NOT_FOUND => return Ok(ours),
            status => return Err(alloc::format!("GetNextVariableName: {status:?}")),
        }
    }
    Err("GetNextVariableName does not end".into())
}

fn a_variable_that_was_never_set_is_not_found() -> Outcome {
    same!(get("never set"), Err(Status::NOT_FOUND));
    want!(NOT_FOUND, delete("never set"));
    want!(NOT_FOUND, set("never set", BS, b""));
    Ok(())
}

fn a_variable_keeps_data_and_attributes() -> Outcome {
    for (index, attributes) in [BS, RT, NV | BS, NVRT].into_iter().enumerate() {
        let data = alloc::vec![index as u8; 10 + 300 * index];
        want!(SUCCESS, set("kept", attributes, &data));
        same!(get("kept"), Ok((data, attributes)));
        want!(SUCCESS, delete("kept"));
    }
    Ok(())
}

fn a_variable_belongs_to_its_vendor() -> Outcome {
    want!(SUCCESS, set("vendor", BS, b"1"));
    same!(get_of(&OURS_TOO, "vendor"), Err(Status::NOT_FOUND));
    same!(get("Vendor"), Err(Status::NOT_FOUND));
    want!(SUCCESS, delete("vendor"));
    Ok(())
}

fn a_small_buffer_is_told_the_size() -> Outcome {
    want!(SUCCESS, set("size", BS, b"12345"));
    let (name, mut data) = (wide("size"), [0u8; 4]);
    for (room, buffer) in [(0, null_mut()), (4, data.as_mut_ptr())] {
        let (mut size, mut attributes) = (room, VariableAttributes::empty());
        want!(BUFFER_TOO_SMALL, rs!(get_variable(name.as_ptr(), &OURS, &mut attributes, &mut size, buffer)));
        same!((size, attributes), (5, BS));
    }
    want!(SUCCESS, delete("size"));
    Ok(())
}

fn data_is_replaced() -> Outcome {
    for data in [&b"first"[..], b"second, which is longer", b"3rd"] {
        want!(SUCCESS, set("replaced", NVRT, data));
        same!(get("replaced"), Ok((data.to_vec(), NVRT)));
    }
    want!(SUCCESS, set("replaced", NVRT, b""));
    same!(get("replaced"), Err(Status::NOT_FOUND));
    Ok(())
}

fn data_is_appended() -> Outcome {
    for attributes in [BS, NVRT] {
        want!(SUCCESS, set("appended", attributes | APPEND, b"new"));
        want!(SUCCESS, set("appended", attributes | APPEND, b" and more"));
        want!(SUCCESS, set("appended", attributes | APPEND, b""));
        same!(get("appended"), Ok((b"new and more".to_vec(), attributes)));
        want!(SUCCESS, delete("appended"));
    }
    Ok(())
}

fn a_variable_is_deleted() -> Outcome {
    want!(SUCCESS, set("deleted", NVRT, b"1"));
    want!(SUCCESS, delete("deleted"));
    same!(get("deleted"), Err(Status::NOT_FOUND));
    want!(SUCCESS, set("deleted", BS, b"2"));
    same!(get("deleted"), Ok((b"2".to_vec(), BS)));
    want!(SUCCESS, set("deleted", BS, b""));
    same!(get("deleted"), Err(Status::NOT_FOUND));
    Ok(())
}

fn wrong_arguments_of_get_variable_are_refused() -> Outcome {
    want!(SUCCESS, set("arguments", BS, b"1"));
    let (name, mut size, mut data) = (wide("arguments"), 1, 0u8);
    want!(INVALID_PARAMETER, rs!(get_variable(null(), &OURS, null_mut(), &mut size, &mut data)));
    want!(INVALID_PARAMETER, rs!(get_variable(name.as_ptr(), null(), null_mut(), &mut size, &mut data)));
    want!(INVALID_PARAMETER, rs!(get_variable(name.as_ptr(), &OURS, null_mut(), null_mut(), &mut data)));
    want!(INVALID_PARAMETER, rs!(get_variable(name.as_ptr(), &OURS, null_mut(), &mut size, null_mut())));
    want!(SUCCESS, rs!(get_variable(name.as_ptr(), &OURS, null_mut(), &mut size, &mut data)));
    want!(SUCCESS, delete("arguments"));
    Ok(())
}

fn wrong_arguments_of_set_variable_are_refused() -> Outcome {
    let (name, empty) = (wide("wrong"), wide(""));
    want!(INVALID_PARAMETER, rs!(set_variable(null(), &OURS, BS, 1, b"1".as_ptr())));
    want!(INVALID_PARAMETER, rs!(set_variable(empty.as_ptr(), &OURS, BS, 1, b"1".as_ptr())));
    want!(INVALID_PARAMETER, rs!(set_variable(name.as_ptr(), null(), BS, 1, b"1".as_ptr())));
    want!(INVALID_PARAMETER, rs!(set_variable(name.as_ptr(), &OURS, BS, 1, null())));
    want!(INVALID_PARAMETER, set("wrong", VariableAttributes::RUNTIME_ACCESS, b"1"));
    want!(INVALID_PARAMETER, set("wrong", NV | VariableAttributes::RUNTIME_ACCESS, b"1"));
    want!(UNSUPPORTED, set("wrong", NVRT | VariableAttributes::AUTHENTICATED_WRITE_ACCESS, b"1"));
    let unknown = set("wrong", VariableAttributes::from_bits_retain(0x8000_0000) | NVRT, b"1");
    check!(unknown.is_error(), "{unknown:?}");
    same!(get("wrong"), Err(Status::NOT_FOUND));
    Ok(())
}

fn writes_without_the_signature_they_claim_are_refused() -> Outcome {
    let timed = NVRT | VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS;
    for data in [&b""[..], b"1", &[0; 40], &[0xff; 400]] {
        want!(SECURITY_VIOLATION, set("unsigned", timed, data));
        want!(SECURITY_VIOLATION, set("unsigned", timed | APPEND, data));
    }
    want!(UNSUPPORTED, set("unsigned", NVRT | VariableAttributes::ENHANCED_AUTHENTICATED_ACCESS, b"1"));
    same!(get("unsigned"), Err(Status::NOT_FOUND));
    Ok(())
}

/// Nobody has enrolled a platform key in the guest of these tests.
fn the_state_of_secure_boot_cannot_be_written() -> Outcome {
    let global = &VariableVendor::GLOBAL_VARIABLE.0;
    for (name, value) in [("SetupMode", 1), ("SecureBoot", 0), ("AuditMode", 0), ("DeployedMode", 0), ("VendorKeys", 0)]
    {
        same!((name, get_of(global, name)), (name, Ok((alloc::vec![value], RT))));
        want!(WRITE_PROTECTED, rs!(set_variable(wide(name).as_ptr(), global, RT, 1, b"\x01".as_ptr())));
        want!(WRITE_PROTECTED, rs!(set_variable(wide(name).as_ptr(), global, VariableAttributes::empty(), 0, null())));
    }
    Ok(())
}

fn attributes_of_a_variable_do_not_change() -> Outcome {
    want!(SUCCESS, set("attributes", NV | BS, b"1"));
    want!(INVALID_PARAMETER, set("attributes", BS, b"2"));
    want!(INVALID_PARAMETER, set("attributes", NVRT, b"2"));
    same!(get("attributes"), Ok((b"1".to_vec(), NV | BS)));
    want!(SUCCESS, delete("attributes"));
    Ok(())
}

fn each_variable_is_listed_once() -> Outcome {
    same!(names()?, Vec::<String>::new());
    want!(SUCCESS, set("listed 1", BS, b"1"));
    want!(SUCCESS, set("listed 2", NVRT, b"2"));
    want!(SUCCESS, set("listed 3", NVRT, b"3"));
    want!(SUCCESS, delete("listed 3"));
    let mut listed = names()?;
    listed.sort_unstable();
    same!(listed, ["listed 1", "listed 2"]);
    want!(SUCCESS, delete("listed 1"));
    want!(SUCCESS, delete("listed 2"));
    Ok(())
}

fn wrong_arguments_of_get_next_variable_name_are_refused() -> Outcome {
    want!(SUCCESS, set("something", BS, b"1"));
    let (mut name, mut vendor, mut size) = ([0u16; 64], Guid::ZERO, 128);
    want!(INVALID_PARAMETER, rs!(get_next_variable_name(null_mut(), name.as_mut_ptr(), &mut vendor)));
    want!(INVALID_PARAMETER, rs!(get_next_variable_name(&mut size, null_mut(), &mut vendor)));
    want!(INVALID_PARAMETER, rs!(get_next_variable_name(&mut size, name.as_mut_ptr(), null_mut())));
    let mut small = 2;
    want!(BUFFER_TOO_SMALL, rs!(get_next_variable_name(&mut small, name.as_mut_ptr(), &mut vendor)));
    check!(small > 2 && small % 2 == 0, "{small} bytes");
    let (mut stranger, mut vendor) = (wide("nobody has set this variable"), NOBODYS);
    let mut size = stranger.len() * 2;
    want!(INVALID_PARAMETER, rs!(get_next_variable_name(&mut size, stranger.as_mut_ptr(), &mut vendor)));
    let mut endless = [b'x' as u16; 8];
    let mut size = 16;
    want!(INVALID_PARAMETER, rs!(get_next_variable_name(&mut size, endless.as_mut_ptr(), &mut vendor)));
    want!(SUCCESS, delete("something"));
    Ok(())
}

/// Size of the store, what is free of it, and the largest variable.
pub fn limits(attributes: VariableAttributes) -> Result<(u64, u64, u64), Status> {
    let (mut all, mut free, mut largest) = (0, 0, 0);
    match rs!(query_variable_info(attributes, &mut all, &mut free, &mut largest)) {
        Status::SUCCESS => Ok((all, free, largest)),
        status => Err(status),
    }
}

fn the_store_tells_its_limits() -> Outcome {
    for attributes in [BS, RT, NV | BS, NVRT] {
        let (all, free, largest) = limits(attributes).map_err(|status| alloc::format!("{attributes:?}: {status:?}"))?;
        check!(free <= all && largest <= all && largest >= 1024 && free > 0, "{attributes:?}: {all} {free} {largest}");
    }
    Ok(())
}

fn wrong_arguments_of_query_variable_info_are_refused() -> Outcome {
    for attributes in
        [VariableAttributes::empty(), VariableAttributes::RUNTIME_ACCESS, NV | VariableAttributes::RUNTIME_ACCESS]
    {
        same!((attributes, limits(attributes)), (attributes, Err(Status::INVALID_PARAMETER)));
    }
    let (mut size, mut free) = (0, 0);
    want!(INVALID_PARAMETER, rs!(query_variable_info(BS, null_mut(), &mut free, &mut size)));
    want!(INVALID_PARAMETER, rs!(query_variable_info(BS, &mut size, null_mut(), &mut free)));
    want!(INVALID_PARAMETER, rs!(query_variable_info(BS, &mut size, &mut free, null_mut())));
    Ok(())
}

fn more_than_the_limit_is_refused() -> Outcome {
    for attributes in [BS, NVRT] {
        let (_, _, largest) = limits(attributes).map_err(|status| alloc::format!("{status:?}"))?;
        let status = set("largest", attributes, &alloc::vec![1u8; largest as usize + 1]);
        check!(matches!(status, Status::INVALID_PARAMETER | Status::OUT_OF_RESOURCES), "{status:?}");
        same!(get("largest"), Err(Status::NOT_FOUND));
        want!(SUCCESS, set("largest", attributes, &alloc::vec![1u8; 1024]));
        want!(SUCCESS, delete("largest"));
    }
    Ok(())
}

fn a_hundred_variables_fit() -> Outcome {
    let name = |index: usize| alloc::format!("variable number {index}");
    for index in 0..100 {
        want!(SUCCESS, set(&name(index), NVRT, &alloc::vec![index as u8; 200]));
    }
    same!(names()?.len(), 100);
    for index in 0..100 {
        same!(get(&name(index)), Ok((alloc::vec![index as u8; 200], NVRT)));
        want!(SUCCESS, delete(&name(index)));
    }
    same!(names()?.len(), 0);
    Ok(())
}

/// Deleted variables make room at the latest when it is needed: more is written than the store holds.
fn deleting_gives_the_space_back() -> Outcome {
    let (all, _, _) = limits(NVRT).map_err(|status| alloc::format!("{status:?}"))?;
    for round in 0..all / 1000 + 10 {
        let data = alloc::vec![round as u8; 1000];
        want!(SUCCESS, set("again and again", NVRT, &data));
    }
    want!(SUCCESS, delete("again and again"));
    Ok(())
}
