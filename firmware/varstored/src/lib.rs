//! The daemon that keeps guests' UEFI variables where Xen's toolstack is `xl`: it speaks varstored's protocol
//! ([`variables::remote`]), and stores into a file per guest that other tools read.
//!
//! | module | what |
//! | --- | --- |
//! | [`daemon`] | finds guests, serves them, lets go of them |
//! | [`guest`] | one guest: its identity, its calls |
//! | [`attachment`] | one guest's I/O request server |
//! | [`service`] | a request and its reply |
//! | [`stores`], [`file`] | the guests' files, and how they are written |
//! | [`config`], [`privileges`], [`journal`] | what the administrator wants; root's rights given up; messages |
//! | [`xen`] | Xen's libraries behind safe types |
//!
//! Whatever comes from a guest is hostile: requests are copied out of its pages once, sizes are checked, a store has a
//! fixed size. Neighbours: `variables` has the rules and the format, `runtime` is the other end.
#![deny(unsafe_code)]

pub mod attachment;
pub mod config;
pub mod daemon;
pub mod file;
pub mod guest;
pub mod journal;
pub mod privileges;
pub mod service;
pub mod stores;
#[expect(unsafe_code, reason = "the edge to C libraries")]
pub mod xen;
