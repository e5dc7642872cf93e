//! The machine as the domain builder made it: start information in, one immutable [`Platform`] out.
//!
//! | module | what |
//! | --- | --- |
//! | [`start_info`] | PVH start information (`public/arch-x86/hvm/start_info.h`) |
//! | [`hvm_info`] | what hvmloader leaves for a UEFI firmware |
//! | [`memory`] | memory map: sorted, without overlaps, holes and placement |
//! | [`module`] | what a file is that the toolstack loaded beside the firmware |
//! | [`options`] | what the guest's command line asks of the firmware |
//! | [`performance`] | the boot timeline as ACPI tables |
//! | [`boot_graphics`] | the logo as an ACPI table |
//! | [`volume`] | files of the firmware volume the firmware itself came in |
//! | [`tpm`] | ACPI tables for a TPM that the toolstack's do not mention |
//! | [`acpi`] | the toolstack's ACPI tables, and one of ours beside them |
//! | [`smbios`] | the toolstack's SMBIOS tables, or ours where it makes none |
//! | [`legacy_area`] | where hvmloader leaves both |
//!
//! Nothing here allocates: it runs before there is a heap. Everything read is checked, as a toolstack may be old, new or wrong.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod acpi;
pub mod boot_graphics;
pub mod hvm_info;
pub mod legacy_area;
pub mod memory;
pub mod module;
pub mod options;
pub mod performance;
pub mod smbios;
pub mod start_info;
#[cfg(test)]
mod testing;
pub mod tpm;
pub mod volume;

use arrayvec::ArrayVec;

use memory::MemoryMap;
use options::Options;

/// Guest-physical memory, as far as it can be read.
pub trait PhysicalMemory {
    /// Copies bytes from `address` on; `false` if the range cannot be read.
    fn read(&self, address: u64, into: &mut [u8]) -> bool;

    /// Copies bytes to `address`; `false` if the range cannot be written.
    fn write(&mut self, address: u64, from: &[u8]) -> bool;
}

/// Longest command line that is kept, in bytes.
pub const COMMAND_LINE_MAX: usize = 2048;
/// Most modules that are kept.
pub const MODULES_MAX: usize = 4;

/// A file the toolstack loaded beside the firmware (`ramdisk=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Module {
    /// Where it is.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// How the guest came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestKind {
    /// Started by the domain builder at the PVH entry: no emulated devices.
    Pvh,
    /// Started by hvmloader: emulated devices, of which any may be missing.
    Hvm,
}

/// What the firmware knows of the machine it runs on.
#[derive(Clone, Debug)]
pub struct Platform {
    /// How the guest came to be.
    pub kind: GuestKind,
    /// Memory map.
    pub memory: MemoryMap,
    /// ACPI root pointer, 0 if there is none.
    pub rsdp: u64,
    /// SMBIOS tables; none on PVH.
    pub smbios: smbios::Found,
    /// The guest's command line, without the final zero; on HVM, words for the firmware from SMBIOS.
    pub command_line: ArrayVec<u8, COMMAND_LINE_MAX>,
    /// Modules.
    pub modules: ArrayVec<Module, MODULES_MAX>,
    /// Options found on the command line.
    pub options: Options,
}

impl Platform {
    /// Address of `pages` pages below 4 GiB behind which there is neither memory nor a device.
    pub fn hole(&self, pages: u64) -> Option<u64> {
        match self.kind {
            GuestKind::Pvh => self.memory.hole(pages),
            GuestKind::Hvm => hvm_info::hole(pages),
        }
    }
}
