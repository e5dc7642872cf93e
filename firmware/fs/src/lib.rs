//! Partitions and file systems. Pure logic over block devices: parsers take bytes from the disk as hostile, never panic,
//! and say in words what is wrong.
//!
//! | module | what |
//! | --- | --- |
//! | [`partition`] | GPT and MBR: what lies where on a disk |
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod partition;

#[cfg(test)]
mod test_disk;
