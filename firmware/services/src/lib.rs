//! The UEFI core: boot services, the protocols every loader expects, and the tables that lead to them.
//!
//! Split in two everywhere: a *database* module holds the logic, knows no ABI and is tested on the host; the [`abi`]
//! module of the same name is the `extern "efiapi"` edge, which checks pointers, copies in, calls, converts and copies
//! out. [`api`] is the same set of services for the firmware's own drivers, as safe functions.
//!
//! | module | what |
//! | --- | --- |
//! | [`core`](mod@core_state) | the state of the core: one static, a value of its own in each test |
//! | [`lock`] | the cell that keeps timer interrupts out while a database is used |
//! | [`memory`] | memory map, page and pool allocation, page protection |
//! | [`event`] | task priority levels, events, timers, event groups |
//! | [`handle`] | handles, protocols, open bookkeeping, driver model |
//! | [`image`] | PE loading, starting, unloading |
//! | [`device_path`] | device path nodes, text forms, utilities |
//! | [`console`] | text terminal in and out |
//! | [`serial`] | serial ports as protocols |
//! | [`hii`] | package lists and strings |
//! | [`block`] | block devices and partitions as protocols |
//! | [`file`] | file systems as protocols |
//! | [`pci`] | PCI functions and root bridges as protocols |
//! | [`unicode`] | comparison and case of UCS-2 strings |
//! | [`table`] | system table, configuration tables, checksums |
//! | [`tcg2`] | measured boot: TPM commands, event log |
#![cfg_attr(not(test), no_std)]

extern crate alloc;
#[cfg(any(test, feature = "fake"))]
extern crate std;

pub mod abi;
pub mod api;
pub mod block;
pub mod console;
pub mod core_state;
pub mod device_path;
pub mod event;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod file;
pub mod graphics;
pub mod handle;
pub mod hardware;
pub mod hii;
pub mod image;
pub mod lock;
pub mod memory;
pub mod pci;
pub mod serial;
pub mod table;
pub mod tcg2;
pub mod unicode;

pub use uefi_raw::{Guid, Handle, Status};

/// Result of a service: the error is the status a caller of the ABI sees.
pub type Result<T> = ::core::result::Result<T, Status>;
