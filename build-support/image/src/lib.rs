//! The firmware image: what a toolstack loads, made from the core, the runtime driver and `layout.toml`.
//!
//! [`assemble::assemble`] is the whole story in one function; the other modules are the formats it writes:
//! [`layout`] (the plan, parsed and checked), [`core_image`] (the core's ELF, flattened), [`image_info`] (the descriptor
//! patched into the core), [`runtime_image`] and [`shell_image`] (the runtime driver and the UEFI Shell, checked), [`ffs`] and [`fv`] (the Platform
//! Initialization Specification's files and volumes), [`vars`] (the empty variable store) and [`elf_header`] (what makes
//! an image bootable as a PVH guest). The other direction: [`dissect`] (any image taken apart, with what is wrong where) and
//! [`join`] (images split into code and variables, and joined again).
//!
//! Everything here is a function of its inputs: no clock, no environment, no order of a hash table enters an image.

pub mod assemble;
pub mod core_image;
pub mod dissect;
pub mod elf_header;
pub mod ffs;
pub mod fv;
pub mod image_info;
pub mod join;
pub mod layout;
pub mod runtime_image;
pub mod shell_image;
pub mod vars;

mod bytes;

#[cfg(test)]
mod testing;
