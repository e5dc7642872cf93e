//! Displays for our own drivers.

use alloc::boxed::Box;

use uefi_raw::Handle;

use crate::Result;
use crate::abi::{console, graphics};
use crate::console::graphics::GraphicsConsole;
use crate::device_path::DevicePath;
use crate::graphics::{Adapter, SharedDisplay, logo};

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

/// The logo on the screen, as an ACPI table tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShownLogo {
    /// Address of its bitmap file, in boot services data.
    pub bitmap: u64,
    /// Its upper left corner.
    pub place: (u32, u32),
}

/// Draws the logo above the text; `None` if there is no room for it.
pub fn show_logo(display: &SharedDisplay) -> Option<ShownLogo> {
    let mut display = display.try_borrow_mut().ok()?;
    let mode = display.mode();
    let place = logo::place(mode.width, mode.height)?;
    let pixels = logo::pixels();
    logo::draw(&mut display, &pixels, place);
    // The firmware's heap is boot services data, and this stays in it.
    let bitmap: &'static [u8] = logo::bitmap(&pixels).leak();
    Some(ShownLogo { bitmap: bitmap.as_ptr().expose_provenance() as u64, place: (place.0 as u32, place.1 as u32) })
}
