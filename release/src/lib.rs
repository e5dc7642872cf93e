//! What the command `ovmf-xen` does: images and variable stores taken apart, releases made, checked and rebuilt.
//!
//! | module | what |
//! | --- | --- |
//! | [`commands`] | one file per command: its arguments, its output, its exit status |
//! | [`compare`] | what differs between two images: region, file, symbol |
//! | [`drawing`] | an image's regions and what is in them, as text |
//! | [`files`] | reading and replacing files |
//! | [`guids`] | well-known GUIDs by name |
//! | [`symbols`] | addresses in the core and in PE files by name |
//! | [`var_store`] | the variables of an image or store, read and changed |
//!
//! Neighbours: `image` knows the layout of the images, `variables` the variable store.

pub mod commands;
pub mod compare;
pub mod drawing;
pub mod files;
pub mod guids;
pub mod symbols;
pub mod var_store;
