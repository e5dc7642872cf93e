//! Measures what variables cost: GetVariable, SetVariable, and how full the store is. The firmware's timeline says what a
//! start took.
//!
//! Prints lines `BENCH name value unit`, then powers off.
#![no_std]
#![no_main]

use guest::{measure, println};
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Handle, Status};

#[unsafe(export_name = "efi_main")]
extern "efiapi" fn main(handle: Handle, system_table: *mut SystemTable) -> Status {
    guest::start(handle, system_table);
    println!("BENCH tsc_frequency {} hz", measure::frequency());
    measure::count_variables();
    measure::variables();
    println!("BENCH end 0 -");
    guest::power_off()
}
