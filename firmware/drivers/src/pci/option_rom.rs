//! Drivers that devices bring along in their option ROMs.
//!
//! Only on demand: a ROM is slow to read, and its driver may wait for a network. The boot manager asks for them when nothing
//! else boots, or when the network is to be booted from.

use services::api;
use services::device_path::Node;
use services::{Handle, Status};

use super::rom::{self, Program, RomError};
use super::{Bus, Function, class};

impl Bus {
    /// Loads and starts the EFI drivers in the option ROMs of the functions that are `wanted` and that no driver manages, and
    /// connects them. Returns how many started. A ROM is read once, whatever comes of it.
    ///
    /// Displays are left out: theirs would have to be there before the console.
    pub fn load_option_roms(&self, wanted: impl Fn(&Function) -> bool) -> usize {
        let mut started = 0;
        for (handle, function) in self.published() {
            let left_out = [class::BRIDGE, class::DISPLAY].contains(&function.class.base);
            if left_out || !wanted(&function) || api::is_managed(handle) || !function.take_rom() {
                continue;
            }
            let drivers = load(handle, &function);
            if drivers > 0 {
                let _ = api::connect(handle, true);
            }
            started += drivers;
        }
        started
    }
}

/// Reads the ROM of a function and starts what is in it.
fn load(handle: Handle, function: &Function) -> usize {
    let Some(rom) = rom::read(function) else { return 0 };
    let (images, error) = rom::images(&rom);
    if let Some(error) = error {
        log::warn!("PCI {}: option ROM: {error}", function.address());
    }
    if let Err(status) = api::set_pci_rom(handle, rom.clone()) {
        log::warn!("PCI {}: option ROM: {status}", function.address());
    }
    let programs =
        images.iter().filter_map(|image| Some((image.place.start, image.place.end, image.program.as_ref()?)));
    let mut started = 0;
    for (start, end, program) in programs {
        match run(handle, &rom, start as u64..end as u64, program) {
            Ok(()) => started += 1,
            Err(Failure::Rom(error)) => log::warn!("PCI {}: option ROM: {error}", function.address()),
            Err(Failure::Status(status)) => {
                log::warn!("PCI {}: the driver in the option ROM: {status}", function.address());
            }
        }
    }
    started
}

enum Failure {
    Rom(RomError),
    Status(Status),
}

impl From<RomError> for Failure {
    fn from(error: RomError) -> Self {
        Self::Rom(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

fn run(handle: Handle, rom: &[u8], place: core::ops::Range<u64>, program: &Program) -> Result<(), Failure> {
    let bytes = program.bytes(rom)?;
    // UEFI 2.11 §10.3.5.7: where in the ROM it is; the end is its last byte.
    let node = Node::RelativeOffsetRange { start: place.start, end: place.end - 1 };
    let path = api::device_path(handle)?.with(&node).map_err(Status::from)?;
    let image = api::load_image(false, api::firmware_image(), Some(&path), Some(&bytes)).map_err(Status::from)?;
    let status = api::start_image(image)?;
    if status.is_error() { Err(status.into()) } else { Ok(()) }
}
