//! The boot manager (UEFI 2.10 §3): which program is started, in which order, and what a person reads about it.
//!
//! | module | what |
//! | --- | --- |
//! | [`policy`] | the order, from the guest's configuration to what every device has |
//! | [`firmware`] | what it needs of the firmware |
//! | [`load_option`] | `Boot####` variables: their format |
//! | [`variables`] | numbered options, and the variables beside them |
//! | [`devices`] | disks, volumes, network devices, and the order of their kinds |
//! | [`automatic`] | entries for the disks that are there |
//! | [`vendors`] | boot programs of installed systems |
//! | [`indications`] | what the operating system asks for |
//! | [`menu`] | the boot menu |
//! | [`enrolment`] | files with keys for Secure Boot |
//! | [`status`] | status codes in words |
//! | [`live`] | the view of the running firmware that policy and menu have |
//!
//! Policy and menu decide through the traits [`firmware::Firmware`] and [`menu::System`], so a test runs them against a scripted
//! machine.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod automatic;
pub mod devices;
pub mod enrolment;
pub mod firmware;
pub mod indications;
pub mod live;
pub mod load_option;
pub mod menu;
pub mod policy;
pub mod status;
#[cfg(test)]
mod testing;
pub mod variables;
pub mod vendors;
