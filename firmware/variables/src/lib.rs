//! The variable services of UEFI (UEFI 2.10 §8.2) as a pure library: no allocation, no hardware, no pointers.
//!
//! | module | what |
//! | --- | --- |
//! | [`service`] | [`Variables`]: GetVariable, GetNextVariableName, SetVariable, QueryVariableInfo with their rules |
//! | [`global`] | attributes and sizes of the globally defined variables |
//! | [`authenticator`] | [`TimeBased`]: whether an authenticated write may be made |
//! | [`signature_list`] | content of PK, KEK, db, dbx |
//! | [`store`] | [`Store`]: records in a region, written so that a cut leaves old or new |
//! | [`backend`] | where a store's bytes live: memory, or a volume on a medium that survives cuts |
//! | [`journal`] | EDK2's fault tolerant write: a store is replaced as a whole |
//! | [`volume`], [`format`] | bytes of the firmware volume, the store and its records, as EDK2 has them |
//! | [`name`], [`error`] | keys; errors and their status |
//! | [`remote`] | messages between a guest and a daemon that keeps its variables |
//!
//! The non-volatile store may come from a file that anyone can have written: it is never trusted to be well-formed.
//! Neighbours: `runtime` is the `efiapi` edge over this; host tools read and write volumes with it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod authenticator;
pub mod backend;
pub mod error;
pub mod format;
pub mod global;
pub mod journal;
pub mod name;
#[cfg(test)]
mod random;
pub mod remote;
pub mod service;
pub mod signature_list;
pub mod store;
pub mod volume;

pub use authenticator::{Authenticator, NoVerifier, TimeBased};
pub use backend::{Backend, Durable};
pub use error::Error;
pub use name::Key;
pub use service::{Info, Limits, NextVariable, Variable, Variables};
pub use store::Store;
