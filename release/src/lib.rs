//! What the command `ovmf-xen` does: images and variable stores taken apart, releases made, checked and rebuilt.
//!
//! | module | what |
//! | --- | --- |
//! | [`commands`] | one file per command: its arguments, its output, its exit status |
//!
//! Neighbours: `image` knows the layout of the images, `variables` the variable store.

pub mod commands;
