//! What the image loader tells whoever measures.

use uefi_raw::protocol::tcg::EventType;

use crate::device_path::DevicePath;
use crate::image::pe::Subsystem;

/// An image as it was read, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct LoadedFile<'a> {
    /// The file.
    pub file: &'a [u8],
    /// What kind of program it is.
    pub subsystem: Subsystem,
    /// Where it was laid out.
    pub base: u64,
    /// Its length there.
    pub size: u64,
    /// The address that it was linked for.
    pub linked_for: u64,
    /// The device path that it was loaded from.
    pub path: Option<&'a DevicePath>,
    /// Whether the boot manager asks, for a boot option.
    pub boot_option: bool,
}

/// PCR and event type for an image of a kind.
pub fn event_of(subsystem: Subsystem) -> (u32, EventType) {
    match subsystem {
        Subsystem::Application => (4, EventType::EFI_BOOT_SERVICES_APPLICATION),
        Subsystem::BootDriver => (2, EventType::EFI_BOOT_SERVICES_DRIVER),
        Subsystem::RuntimeDriver => (2, EventType::EFI_RUNTIME_SERVICES_DRIVER),
    }
}
