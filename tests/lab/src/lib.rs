//! The boot test lab: the real Xen hypervisor with a real Linux dom0 inside QEMU, and guest after guest in it.
//!
//! One run starts QEMU once ([`machine`]), talks to dom0 through a small agent and a shared folder ([`dom0`]), makes
//! the disks a scenario asks for ([`disk`], [`mod@file`]), creates the guest with the stock `xl create` ([`guest`]) and
//! follows its console ([`console`]). Scenarios are data ([`scenario`]), one boot claim each; [`runner`] plays them,
//! [`fleet`] on several machines at once, and [`report`] says how it went. [`bench`] measures. What comes from Debian (hypervisor, dom0, kernel, EFI programs) is fetched by
//! [`packages`], made ready by [`dom0_image`], [`initrd`] and [`programs`], and kept in a [`cache`].
//! Where a dom0 is there already, [`here`] plays scenarios in it.

pub mod bench;
pub mod cache;
pub mod command;
pub mod console;
pub mod debian_package;
pub mod disk;
pub mod dom0;
pub mod dom0_image;
pub mod file;
pub mod firmware;
pub mod fleet;
pub mod grub;
pub mod guest;
pub mod guest_program;
pub mod here;
pub mod host_program;
pub mod initrd;
pub mod installer;
pub mod iso;
pub mod machine;
pub mod packages;
pub mod plain;
pub mod programs;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod screen;
pub mod session;
pub mod step;
pub mod uki;
pub mod update;
pub mod variable_daemon;
