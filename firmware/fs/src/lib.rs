//! Partitions and file systems. Pure logic over block devices: parsers take bytes from the disk as hostile, never panic,
//! and say in words what is wrong.
//!
//! | module | what |
//! | --- | --- |
//! | [`bindings`] | the drivers made of the rest |
//! | [`diagnosis`] | why a device has no file system |
//! | [`fat`] | FAT12, FAT16 and FAT32, read and write |
//! | [`partition`] | GPT, MBR and El Torito: what lies where on a disk or CD |
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), forbid(unsafe_code))]

extern crate alloc;

pub mod bindings;
pub mod diagnosis;
pub mod fat;
pub mod partition;

#[cfg(test)]
mod test_disk;
