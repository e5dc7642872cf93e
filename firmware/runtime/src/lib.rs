//! The runtime services driver: an image of its own, which stays when boot services end.
//!
//! The binary (`main.rs`, `driver/`) is the `efiapi` edge: it patches the runtime services table that the core made.
//! This library is its logic, tested on the host.
//!
//! | module | what |
//! | --- | --- |
//! | [`calendar`] | seconds since 1970 to EFI_TIME and back |
//! | [`clock`] | the clock of PVH guests: Xen's, and what SetTime changed about it |
//! | [`rtc`] | the CMOS real-time clock of HVM guests |
//! | [`remote`] | variable services through a daemon outside the guest |
//! | [`virtual_map`] | the memory map given to SetVirtualAddressMap |
//! | [`crc32`] | checksum of UEFI's tables |
//!
//! Neighbours: `handoff` is the contract with the core, `variables` the variable services.
#![cfg_attr(not(test), no_std)]

pub mod calendar;
pub mod clock;
pub mod crc32;
pub mod remote;
pub mod rtc;
pub mod virtual_map;
