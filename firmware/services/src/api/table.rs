//! Tables for our own code.

use core::ffi::c_void;

use uefi_raw::Guid;
use uefi_raw::table::system::SystemTable;

use crate::Result;
use crate::abi::{CORE, table};
use crate::table::Teardown;

/// Adds or replaces the configuration table `guid`, or removes it if `table` is null. Memory for it is the caller's, of
/// a type that the operating system keeps as long as it needs the table.
pub fn install_configuration_table(guid: &Guid, table: *mut c_void) -> Result<()> {
    table::set_configuration(&CORE, guid, table)
}

/// Has `teardown` called in ExitBootServices: after its event group, in order of registration. It must not allocate,
/// free or wait for a timer; what it holds is never dropped.
pub fn at_exit_boot_services(teardown: Teardown) {
    table::at_exit_boot_services(&CORE, teardown);
}

/// Changes the system table (the console's fields are not this module's) and makes its checksum right again.
pub fn edit_system_table(edit: impl FnOnce(&mut SystemTable)) {
    table::edit_system_table(&CORE, edit);
}

/// The system table; null before [`crate::abi::start`].
pub fn system_table() -> *mut SystemTable {
    CORE.tables.with(|tables| tables.system())
}
