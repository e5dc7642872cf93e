//! Devices and controllers as tests play them: a disk and a CD drive, behind an IDE channel or an AHCI port.

pub mod ahci;
pub mod disk;
pub mod ide;
pub mod pci;

use hw::hypervisor::Gfn;

use hw::fake::{FakeHypervisor, FakePorts, FakeWindows, LowFrames};
use hw::shared::PAGE_SIZE;

use crate::domain::{Domain, EmulatedMachine};
use crate::testing::leak;

/// A machine without devices.
pub struct World {
    pub hypervisor: &'static FakeHypervisor,
    pub frames: &'static LowFrames,
    pub ports: &'static FakePorts,
    pub machine: EmulatedMachine,
}

impl World {
    pub fn new() -> Self {
        let hypervisor = leak(FakeHypervisor::new());
        let frames = leak(LowFrames::default());
        let ports = leak(FakePorts::default());
        let windows = leak(FakeWindows::default());
        let machine = EmulatedMachine { domain: Domain { hypervisor, frames }, ports, windows };
        Self { hypervisor, frames, ports, machine }
    }

    /// Nanoseconds since the test began.
    pub fn now(&self) -> u64 {
        self.hypervisor.time_ns.get()
    }
}

/// A device reads memory.
pub fn dma_read(address: u64, into: &mut [u8]) {
    for_pages(address, into.len(), |gfn, offset, at, length| {
        LowFrames::peer(gfn).copy_out(offset, &mut into[at..at + length]);
    });
}

/// A device writes memory.
pub fn dma_write(address: u64, from: &[u8]) {
    for_pages(address, from.len(), |gfn, offset, at, length| {
        LowFrames::peer(gfn).copy_in(offset, &from[at..at + length]);
    });
}

fn for_pages(address: u64, length: usize, mut f: impl FnMut(Gfn, usize, usize, usize)) {
    let mut at = 0;
    while at < length {
        let here = address + at as u64;
        let offset = here as usize % PAGE_SIZE;
        let part = (PAGE_SIZE - offset).min(length - at);
        f(Gfn(here / PAGE_SIZE as u64), offset, at, part);
        at += part;
    }
}
