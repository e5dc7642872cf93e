//! Tests the firmware's services from inside a guest, against the UEFI specification 2.10.
//!
//! Three phases: while there are boot services, the step out of them, and runtime services after it, in the end at
//! virtual addresses. Prints `SELFTEST ok NAME` or `SELFTEST FAIL NAME reason` for each test and
//! `SELFTEST DONE passed=N failed=N` at the end, to the console and to Xen's log, and powers off through ResetSystem.
//!
//! [`harness`] runs tests and prints; every other module holds the tests of one part of the specification in its `TESTS`.
//! The image services are tested with copies of this program, which [`child`] then is.
#![no_std]
#![no_main]

extern crate alloc;

#[macro_use]
mod harness;
mod support;

mod acpi;
mod block;
mod boot_manager;
mod child;
mod collation;
mod console;
mod device_path;
mod driver;
mod event;
mod exit;
mod file;
mod image;
mod memory;
mod page_tables;
mod pci;
mod protection;
mod protocol;
mod runtime;
mod tables;
mod time;
mod utility;
mod variable;
mod xen;

use uefi_raw::table::runtime::ResetType;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Handle, Status};

use harness::Tally;

#[unsafe(export_name = "efi_main")]
extern "efiapi" fn main(handle: Handle, system_table: *mut SystemTable) -> Status {
    guest::start(handle, system_table);
    if let Some(order) = child::order() {
        return child::obey(order);
    }
    let mut tally = Tally::default();
    for (group, tests) in BOOT_TIME {
        tally.run(group, tests);
    }
    xen::find_console();
    exit::prepare();
    let left = exit::leave_boot_services();
    tally.run("exit", exit::TESTS);
    if left {
        tally.run("runtime", runtime::PHYSICAL);
        if runtime::move_to_virtual_addresses() {
            tally.run("virtual", runtime::VIRTUAL);
        } else {
            tally.failed("virtual.the_map_is_accepted");
        }
    }
    tally.print();
    let runtime = runtime::services();
    efi!(((*runtime).reset_system)(ResetType::SHUTDOWN, Status::SUCCESS, 0, core::ptr::null()))
}

/// What is tested while there are boot services.
const BOOT_TIME: &[(&str, &[harness::Test])] = &[
    ("tables", tables::TESTS),
    ("acpi", acpi::TESTS),
    ("memory", memory::TESTS),
    ("event", event::TESTS),
    ("time", time::TESTS),
    ("protocol", protocol::TESTS),
    ("driver", driver::TESTS),
    ("image", image::TESTS),
    ("utility", utility::TESTS),
    ("device_path", device_path::TESTS),
    ("collation", collation::TESTS),
    ("console", console::TESTS),
    ("block", block::TESTS),
    ("file", file::TESTS),
    ("pci", pci::TESTS),
    ("protection", protection::TESTS),
    ("variable", variable::TESTS),
    ("boot_manager", boot_manager::TESTS),
];
