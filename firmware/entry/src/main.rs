//! The core image: from the domain builder to the boot manager, read from top to bottom.
//!
//! 1. [`start`]: assembly brings the CPU into 64-bit mode where the file was loaded; [`start::in_place`] reads the start
//!    information (PVH) or what hvmloader left (HVM) and moves the image to the top of low memory.
//! 2. [`home`]: page tables, exceptions, Xen's shared page, memory map, timer: everything the services stand on.
//! 3. [`boot`]: services, console, runtime driver, devices, boot manager.
//!
//! This crate composes; what it composes lives in the crates below it.
#![no_std]
#![no_main]

extern crate alloc;

mod acpi;
mod boot;
mod console;
mod devices;
mod emulated;
mod frames;
mod home;
mod information;
mod logger;
mod machine;
mod modules;
mod panic;
mod runtime_driver;
mod shell;
mod smbios;
mod start;
mod timeline;
mod toolstack;
mod tpm;

/// The firmware's heap is the UEFI memory map: memory of type EfiBootServicesData.
#[global_allocator]
static HEAP: services::abi::memory::Heap = services::abi::memory::Heap;
