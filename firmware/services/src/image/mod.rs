//! PE loading, starting, unloading.

use uefi_raw::Handle;

/// The database.
#[derive(Debug)]
pub struct Images {
    firmware: Handle,
}

impl Images {
    /// An empty database.
    pub const fn new() -> Self {
        Self { firmware: core::ptr::null_mut() }
    }

    /// The handle of the firmware itself as an image: the agent of its own drivers, the parent of the first images. Null
    /// until it is set.
    pub fn firmware(&self) -> Handle {
        self.firmware
    }

    /// Sets [`Self::firmware`].
    pub fn set_firmware(&mut self, handle: Handle) {
        self.firmware = handle;
    }
}

impl Default for Images {
    fn default() -> Self {
        Self::new()
    }
}
