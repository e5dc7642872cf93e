//! Xen's libraries behind safe types. The only unsafe code of the daemon.
//!
//! | module | what |
//! | --- | --- |
//! | [`device_model`] | I/O request servers of guests (libxendevicemodel) |
//! | [`io_requests`] | the page in which a server's requests are |
//! | [`foreign_memory`] | pages of guests (libxenforeignmemory) |
//! | [`event_channels`] | what tells of a request and of its completion (libxenevtchn) |
//! | [`store`] | what the toolstack knows of guests (libxenstore) |

pub mod device_model;
pub mod event_channels;
pub mod foreign_memory;
pub mod io_requests;
pub mod store;

/// Declarations of the C libraries.
#[expect(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from C headers"
)]
mod sys {
    include!(concat!(env!("OUT_DIR"), "/libraries.rs"));
}

use std::io;
use std::rc::Rc;

use device_model::DeviceModel;
use event_channels::EventChannels;
use foreign_memory::ForeignMemory;

/// Number of a domain.
pub type DomainId = u16;

/// The handles that serving guests takes. They stay usable when privileges are dropped.
#[derive(Debug)]
pub struct Xen {
    /// I/O request servers.
    pub model: DeviceModel,
    /// Guests' pages.
    pub memory: Rc<ForeignMemory>,
    /// Event channels.
    pub channels: EventChannels,
}

impl Xen {
    /// Opens the handles, for which one has to be root in dom0.
    ///
    /// # Errors
    /// Names the device that cannot be opened.
    pub fn open() -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let help = "is this dom0, are the modules xen-privcmd and xen-evtchn loaded, and is this root?";
        Ok(Self {
            model: DeviceModel::open().with_context(|| format!("/dev/xen/privcmd: {help}"))?,
            memory: Rc::new(ForeignMemory::open().with_context(|| format!("/dev/xen/privcmd: {help}"))?),
            channels: EventChannels::open().with_context(|| format!("/dev/xen/evtchn: {help}"))?,
        })
    }
}

/// The result of a C function that returns -1 and sets errno.
fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
