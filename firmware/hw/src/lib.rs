//! The unsafe floor: everything that touches the processor, the hypervisor or memory another domain can write.
//!
//! Upper layers see safe traits and types; each trait has a scripted fake in [`fake`] (feature `fake`, or this crate's
//! own tests) so that they run under `cargo test` on the host.
#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "fake"))]
extern crate std;

pub mod apic;
pub mod cpu;
pub mod device;
pub mod hypervisor;
pub mod interrupts;
pub mod mtrr;
pub mod paging;
pub mod pat;
pub mod pic;
pub mod port;
pub mod shared;
pub mod tsc;
pub mod xen;

#[cfg(any(test, feature = "fake"))]
pub mod fake;
