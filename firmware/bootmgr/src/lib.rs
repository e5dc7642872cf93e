//! The boot manager (UEFI 2.10 §3): which program is started, in which order, and what a person reads about it.
//!
//! | module | what |
//! | --- | --- |
//! | [`load_option`] | `Boot####` variables: their format |
//! | [`policy`] | the order: BootNext, BootOrder, then the removable media path of every volume |
//! | [`live`] | the policy's view of the running firmware |
//!
//! Policy only: it decides through the trait [`policy::Firmware`], so a test runs it against a scripted machine.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod live;
pub mod load_option;
pub mod policy;
