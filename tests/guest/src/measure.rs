//! Measuring in ticks of the time stamp counter, told as lines `BENCH name value unit`.

use core::ptr::null_mut;

use uefi_raw::table::runtime::{RuntimeServices, VariableAttributes};
use uefi_raw::{Guid, Status, guid};

use crate::{boot, println, table, tsc};

/// Runs of which the fastest and the median are told where nothing else is said.
const RUNS: usize = 15;
const ACCESS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);
const STORED: VariableAttributes = ACCESS.union(VariableAttributes::NON_VOLATILE);
const VARIABLE: [u16; 6] = [66, 69, 78, 67, 72, 0];
const VENDOR: Guid = guid!("5f0f2b3a-6a0d-4a57-9d0e-6b6a3ed0b1c7");
/// Bytes of a variable that is measured.
const CONTENT: usize = 64;
/// Units of the longest name that [`count_variables`] takes.
const NAME: usize = 512;

/// Ticks in a second, by the firmware's Stall.
pub fn frequency() -> u64 {
    let start = tsc();
    // SAFETY: a boot service.
    let _ = unsafe { (boot().stall)(100_000) };
    (tsc() - start) * 10
}

/// Ticks of the fastest and the median of several runs of `f`.
pub fn best_and_median<T>(f: impl FnMut() -> T) -> (u64, u64) {
    best_and_median_of::<RUNS, T>(f)
}

/// The same of so many runs.
pub fn best_and_median_of<const RUNS: usize, T>(mut f: impl FnMut() -> T) -> (u64, u64) {
    let mut ticks = [0u64; RUNS];
    for slot in &mut ticks {
        let start = tsc();
        let _ = f();
        *slot = tsc() - start;
    }
    ticks.sort_unstable();
    (ticks[0], ticks[RUNS / 2])
}

/// Tells what [`best_and_median`] found.
pub fn report(name: &str, (best, median): (u64, u64)) {
    println!("BENCH {name} {median} ticks");
    println!("BENCH {name}_best {best} ticks");
}

/// The firmware's runtime services.
pub fn runtime() -> &'static RuntimeServices {
    // SAFETY: the firmware's table.
    unsafe { &*table().runtime_services }
}

/// SetVariable and GetVariable. A service that fails, as where the store is full, is named and not measured.
pub fn variables() {
    let mut content = [0x5au8; CONTENT];
    // Another content each time: writing what is there already need not write.
    let mut set = |attributes| {
        content[0] = content[0].wrapping_add(1);
        set_variable(attributes, &content)
    };
    report_if_well("set_variable_volatile", || set(ACCESS));
    report_if_well("get_variable", get_variable);
    let _ = set_variable(ACCESS, &[]);
    report_if_well("set_variable_stored", || set(STORED));
    let _ = set_variable(STORED, &[]);
}

fn report_if_well(name: &str, mut service: impl FnMut() -> Status) {
    let mut failure = None;
    let ticks = best_and_median(|| {
        let status = service();
        if status != Status::SUCCESS {
            failure = Some(status);
        }
    });
    match failure {
        None => report(name, ticks),
        Some(status) => println!("GUEST-NOTE {name}: {status:?}"),
    }
}

fn set_variable(attributes: VariableAttributes, content: &[u8]) -> Status {
    // SAFETY: a runtime service with valid arguments.
    unsafe { (runtime().set_variable)(VARIABLE.as_ptr(), &VENDOR, attributes, content.len(), content.as_ptr()) }
}

fn get_variable() -> Status {
    let (mut attributes, mut content) = (VariableAttributes::empty(), [0u8; CONTENT]);
    let mut size = content.len();
    // SAFETY: a runtime service with valid arguments.
    unsafe { (runtime().get_variable)(VARIABLE.as_ptr(), &VENDOR, &mut attributes, &mut size, content.as_mut_ptr()) }
}

/// How full the store is: variables that GetNextVariableName tells of, the ticks it takes for one, and the room that
/// QueryVariableInfo tells of.
pub fn count_variables() {
    let (mut name, mut vendor, mut count) = ([0u16; NAME], Guid::ZERO, 0u64);
    let start = tsc();
    loop {
        let mut size = size_of_val(&name);
        // SAFETY: a runtime service with valid arguments.
        let status = unsafe { (runtime().get_next_variable_name)(&mut size, name.as_mut_ptr(), &mut vendor) };
        match status {
            Status::SUCCESS => count += 1,
            Status::NOT_FOUND => break,
            _ => return println!("GUEST-FAIL variables: GetNextVariableName: {status:?}"),
        }
    }
    println!("BENCH next_variable_name {} ticks", (tsc() - start) / (count + 1));
    println!("BENCH variables {count} -");
    let (mut maximum, mut remaining, mut largest) = (0, 0, 0);
    // SAFETY: a runtime service with valid arguments.
    let status = unsafe { (runtime().query_variable_info)(STORED, &mut maximum, &mut remaining, &mut largest) };
    if status != Status::SUCCESS {
        return println!("GUEST-FAIL variables: QueryVariableInfo: {status:?}");
    }
    println!("BENCH variables_room {remaining} bytes");
}

/// GetTime.
pub fn get_time() -> Status {
    let mut time = uefi_raw::time::Time::invalid();
    // SAFETY: a runtime service with valid arguments.
    unsafe { (runtime().get_time)(&mut time, null_mut()) }
}
