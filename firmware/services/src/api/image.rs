//! Images for our own code.

use uefi_raw::{Handle, Status};

use crate::Result;
use crate::abi::{CORE, image};
use crate::device_path::DevicePath;
use crate::image::LoadError;

/// The firmware itself as an image: parent of the first images, agent of its own drivers.
pub fn firmware_image() -> Handle {
    CORE.images.with(|images| images.firmware())
}

/// Loads an image from `source`, or from the file at `path`. With `boot_policy` a boot manager asks, and a device may
/// choose the file itself.
///
/// # Errors
/// What a person should read, to be printed; it becomes a [`Status`] where one is wanted.
pub fn load_image(
    boot_policy: bool,
    parent: Handle,
    path: Option<&DevicePath>,
    source: Option<&[u8]>,
) -> core::result::Result<Handle, LoadError> {
    image::load(&CORE, boot_policy, parent, path, source)
}

/// Gives an image its load options: UTF-16 with a null, for most programs.
pub fn set_load_options(of: Handle, options: &[u8]) -> Result<()> {
    image::set_load_options(&CORE, of, options)
}

/// Runs an image; returns what it returned. An error is this service's own: the image did not run.
pub fn start_image(loaded: Handle) -> Result<Status> {
    image::start(&CORE, loaded).map(|exit| exit.status)
}

/// Unloads an image.
pub fn unload_image(loaded: Handle) -> Result<()> {
    image::unload(&CORE, loaded)
}
