//! What the command `ovmf-xen` does: images and variable stores taken apart, releases made, checked and rebuilt.
//!
//! | module | what |
//! | --- | --- |
//! | [`commands`] | one file per command: its arguments, its output, its exit status |
//! | [`release_set`] | a release, made from a tree and its images |
//! | [`manifest`] | what a release says about itself; [`sources`], [`toolchain`], [`dependencies`], [`nixpkgs`] fill it; [`notices`] are the licences |
//! | [`sbom`], [`in_toto`] | the bill of materials; statements and their envelopes |
//! | [`digest`], [`sums`] | digests of a file and of many |
//! | [`signature`], [`verification`] | signatures, and what is checked of a release |
//! | [`audit`], [`verdict`] | a rebuild from source, and what is said about it |
//! | [`compare`] | what differs between two images: region, file, symbol |
//! | [`drawing`] | an image's regions and what is in them, as text |
//! | [`files`] | reading and replacing files |
//! | [`guids`] | well-known GUIDs by name |
//! | [`symbols`] | addresses in the core and in PE files by name |
//! | [`var_store`] | the variables of an image or store, read and changed |
//!
//! Neighbours: `image` knows the layout of the images, `variables` the variable store.

pub mod audit;
pub mod commands;
pub mod compare;
pub mod dependencies;
pub mod digest;
pub mod drawing;
pub mod files;
pub mod guids;
pub mod in_toto;
pub mod manifest;
pub mod nixpkgs;
pub mod notices;
pub mod release_set;
pub mod sbom;
pub mod signature;
pub mod sources;
pub mod sums;
pub mod symbols;
pub mod toolchain;
pub mod var_store;
pub mod verdict;
pub mod verification;

#[cfg(test)]
mod testing;
