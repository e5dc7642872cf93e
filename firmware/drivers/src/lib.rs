//! Drivers for Xen's paravirtual devices, and for the emulated devices of HVM guests.
//!
//! | module | what |
//! | --- | --- |
//! | [`domain`] | the domain the firmware runs in: hypercalls and page frames, handed to every driver; HVM: ports and device memory |
//! | [`grants`] | the grant table: which of our pages another domain may use |
//! | [`events`] | event channel ports of our own, and waiting on a port without interrupts |
//! | [`xenstore`] | client of the xenstore daemon |
//! | [`xenbus`] | devices and their backends in xenstore, the state machine between the two halves |
//! | [`console`] | the paravirtual console as a [`ByteConsole`](services::console::ByteConsole) |
//! | [`block`] | paravirtual disks as [`BlockDevice`](services::block::BlockDevice)s |
//! | [`bus`] | all of it together: finds and connects the disks, hands everything back to the operating system |
//! | [`binding`] | the bus in the UEFI driver model |
//! | [`graphics`] | HVM: display adapters |
//! | [`pci`] | HVM: PCI functions as hvmloader set them up |
//! | [`ata`] | HVM: emulated disks and CDs |
//! | [`keyboard`] | HVM: the PS/2 keyboard as a console device |
//! | [`serial`] | HVM: the first serial port as a [`ByteConsole`](services::console::ByteConsole) |
//! | [`cmos`] | HVM: the clock's memory, and the boot order in it |
//! | [`fw_cfg`] | HVM: QEMU's configuration interface |
//! | [`direct_boot`] | HVM: the kernel that the guest's configuration names |
//! | [`tpm`] | HVM: the TPM, as a [`Transport`](services::tcg2::Transport) |
//! | [`usb`] | HVM: USB keyboards as console devices |
//! | [`diagnostics`] | which device failed at what, and why |
//!
//! The other side of a ring, and xenstore, are not trusted: what they write is copied out once, checked, and used.
//! Nothing here waits without a deadline, needs interrupts, or sleeps a fixed time.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod ata;
pub mod binding;
pub mod block;
pub mod bus;
pub mod cmos;
pub mod console;
pub mod diagnostics;
pub mod direct_boot;
pub mod domain;
pub mod events;
pub mod fw_cfg;
pub mod grants;
pub mod graphics;
pub mod keyboard;
pub mod pci;
pub mod serial;
pub mod tpm;
pub mod usb;
pub mod xenbus;
pub mod xenstore;

#[cfg(test)]
mod testing;
