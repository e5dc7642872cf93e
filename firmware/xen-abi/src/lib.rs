//! Xen's public ABI: layouts and constants read from Xen's own headers by bindgen, with layout assertions. No code.
//!
//! Items carry the C names of `xen/include/public`, which is where their meaning is written down.
#![no_std]
#![allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc,
    reason = "generated from C headers"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
