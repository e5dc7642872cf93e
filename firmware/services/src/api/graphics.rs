//! Displays for our own drivers.

use alloc::boxed::Box;

use uefi_raw::Handle;

use crate::Result;
use crate::abi::{console, graphics};
use crate::console::graphics::GraphicsConsole;
use crate::device_path::DevicePath;
use crate::graphics::{Adapter, SharedDisplay};

/// Puts the adapter into its preferred mode and makes a handle with the device path, EFI_GRAPHICS_OUTPUT_PROTOCOL and, where
/// there is an EDID, EFI_EDID_DISCOVERED_PROTOCOL and EFI_EDID_ACTIVE_PROTOCOL. The handle stays for good.
///
/// # Errors
/// `ALREADY_STARTED` if another handle has the path, `DEVICE_ERROR` if the adapter does not do as it should.
pub fn install_display(path: &DevicePath, adapter: Box<dyn Adapter>) -> Result<(Handle, SharedDisplay)> {
    graphics::install(path, adapter)
}

/// Makes the display behind [`install_display`]'s handle a console: EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL on the same handle, and a
/// part in the system's console output.
///
/// # Errors
/// `UNSUPPORTED` if it is too small for text.
pub fn install_graphics_console(handle: Handle, display: SharedDisplay) -> Result<()> {
    let console = GraphicsConsole::new(display).ok_or(crate::Status::UNSUPPORTED)?;
    console::install_on(handle, Box::new(console))
}
