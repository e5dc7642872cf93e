//! What reaches the emulated devices of an HVM guest.

use alloc::boxed::Box;
use core::ops::Range;

use arrayvec::ArrayVec;
use hw::device::{MachinePorts, MachineWindow, Window, Windows};
use platform::Platform;
use platform::memory::{Kind, REGIONS_MAX};

use drivers::domain::{Domain, EmulatedMachine};

use crate::home;

/// The machine's ports and device memory.
pub fn machine(domain: Domain, platform: &Platform) -> EmulatedMachine {
    // SAFETY: handed to the drivers of `drivers` alone, each of which knows its device.
    let ports = Box::leak(Box::new(unsafe { MachinePorts::new() }));
    let windows = Box::leak(Box::new(IdentityWindows::new(platform)));
    EmulatedMachine { domain, ports, windows }
}

/// Device memory through the identity map: all that is mapped and no RAM.
#[derive(Debug)]
struct IdentityWindows {
    ram: ArrayVec<Range<u64>, REGIONS_MAX>,
    /// First address that is not mapped.
    top: u64,
}

impl IdentityWindows {
    fn new(platform: &Platform) -> Self {
        let regions = platform.memory.regions().iter();
        let ram = regions.filter(|region| region.kind != Kind::Reserved).map(|region| region.start..region.end);
        Self { ram: ram.collect(), top: home::mapped_top(platform) }
    }
}

impl Windows for IdentityWindows {
    fn window(&self, address: u64, length: usize) -> Option<Box<dyn Window>> {
        let end = address.checked_add(length as u64)?;
        let is_ram = self.ram.iter().any(|ram| ram.start < end && address < ram.end);
        if address == 0 || end > self.top || is_ram {
            log::warn!("device memory at {address:#x} cannot be reached");
            return None;
        }
        // SAFETY: mapped for good, and not RAM, so nothing of ours is in it.
        Some(Box::new(unsafe { MachineWindow::new(core::ptr::with_exposed_provenance_mut(address as usize), length) }))
    }
}
