//! Emulated disks and CDs of HVM guests: IDE controllers, AHCI controllers, ATA disks, ATAPI drives.
//!
//! | module | what |
//! | --- | --- |
//! | `unit` | which disk of the guest's configuration a place at a controller is |
//! | `command` | commands, what comes of them, and `Link`: the way to a device |
//! | `memory` | what the device reads and writes by itself: the caller's own memory where that can be, else a buffer of ours |
//! | `ide` | the link through a PCI IDE controller with bus mastering |
//! | `ahci` | the link through a port of an AHCI controller |
//! | `identify` | what a device says about itself, checked |
//! | `packet` | SCSI commands for CD drives |
//! | `device` | disks and CDs as [`BlockDevice`](services::block::BlockDevice)s |
//! | [`binding`] | the controllers in the UEFI driver model, and their hand-over to the operating system |
//!
//! Every access to a register is a visit to the device model and costs about as much as reading 10 KiB, so transfers are as
//! large as a command can be, data moves by DMA, and registers are read and written no more often than necessary. Interrupts
//! stay off. Whatever a device answers is checked, and every wait has a deadline.
//!
//! Sources: ACS-3 (ATA/ATAPI Command Set), ATA8-APT, MMC-6, "Programming Interface for Bus Master IDE Controller" 1.0,
//! "Serial ATA AHCI" 1.3.1.

mod ahci;
pub mod binding;
mod command;
mod device;
mod ide;
mod identify;
mod memory;
mod packet;
mod unit;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use binding::{Controllers, disk_name, install};
pub use unit::{Unit, disk_index};

use crate::domain::{EmulatedMachine, MILLISECOND};

/// Shortest and longest pause between two looks at a device, in nanoseconds.
const PAUSES: (u64, u64) = (20_000, 20 * MILLISECOND);
/// The part of what has been waited so far that is waited until the next look.
const GROWTH: u64 = 8;

/// Looks at `check` until it gives a value; `None` when `nanoseconds` have passed. Between looks there are pauses that grow with
/// the time that has passed: a look keeps the device model from the very work that is waited for.
fn wait<T>(machine: &EmulatedMachine, nanoseconds: u64, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let start = machine.domain.now();
    loop {
        if let Some(value) = check() {
            return Some(value);
        }
        let elapsed = machine.domain.now().saturating_sub(start);
        if elapsed >= nanoseconds {
            return None;
        }
        let (shortest, longest) = PAUSES;
        rest(machine, (elapsed / GROWTH).clamp(shortest, longest).min(nanoseconds - elapsed));
    }
}

/// Lets `nanoseconds` pass.
fn rest(machine: &EmulatedMachine, nanoseconds: u64) {
    let until = machine.domain.deadline(nanoseconds);
    while machine.domain.now() < until {
        core::hint::spin_loop();
    }
}
