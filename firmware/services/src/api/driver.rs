//! The driver model for our own code.

use alloc::boxed::Box;

use uefi_raw::Handle;

use crate::Result;
use crate::abi::{CORE, driver};
use crate::handle::driver::Driver;

/// Lets the drivers have `controller`, and with `recursive` all below it. `NOT_FOUND` if none wants it.
pub fn connect(controller: Handle, recursive: bool) -> Result<()> {
    driver::connect(&CORE, controller, &[], None, recursive)
}

/// Connects everything that there is, and what comes of it.
pub fn connect_all() {
    for handle in super::all_handles() {
        // Most handles are no controllers, and some may be gone by now.
        let _ = connect(handle, true);
    }
}

/// Disconnects all drivers from `controller`.
pub fn disconnect(controller: Handle) -> Result<()> {
    driver::disconnect(&CORE, controller, None, None)
}

/// Whether a driver manages `controller`.
pub fn is_managed(controller: Handle) -> bool {
    CORE.handles.with(|handles| handles.drivers_managing(controller)).is_ok_and(|drivers| !drivers.is_empty())
}

/// Adds a driver to those that are asked; it stays for good. Returns its driver binding handle.
pub fn install_driver(driver: Box<dyn Driver>) -> Result<Handle> {
    driver::install_driver(&CORE, driver)
}
