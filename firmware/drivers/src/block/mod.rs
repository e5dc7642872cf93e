//! Paravirtual disks (`public/io/blkif.h`) as [`BlockDevice`]s.
//!
//! | module | what |
//! | --- | --- |
//! | `facts` | what the backend says about a disk, checked |
//! | `connect` | from devices in xenstore to connected disks, all at the same time |
//! | `ring` | the ring of requests and responses |
//! | `pool` | pages that stay granted |
//! | `front` | the data path: transfers cut into requests, several in flight |
//!
//! Data goes one of two ways ([`DataPath`]). A backend that keeps grants mapped gets the same few pages again and again, and
//! data is copied through them: no mapping, no unmapping, no TLB flush in its domain. For any other backend the caller's own
//! pages are granted, where they are whole pages; the rest of an unaligned buffer is copied.

mod connect;
mod facts;
mod front;
mod pool;
mod ring;

use alloc::rc::Rc;
use core::cell::RefCell;

use services::block::{BlockDevice, BlockError, Geometry};

pub use connect::{Connecting, KEYS_WRITTEN, begin, finish};
pub use facts::{Facts, Flush, SECTOR, device_name};
pub use front::Death;

use crate::domain::Domain;
use crate::events::Ports;
use crate::grants::{GrantRef, GrantTable};
use crate::xenbus::Device;
use front::{Buffer, Front};

/// How data gets between the caller and the backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataPath {
    /// Copied through pages that stay granted.
    Copy,
    /// The caller's own pages are granted for each request.
    Direct,
}

/// How disks are used. The default suits a backend like Linux's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The data path; by default [`Copy`](DataPath::Copy) if the backend keeps grants mapped, else
    /// [`Direct`](DataPath::Direct).
    pub path: Option<DataPath>,
    /// Most pages of the ring, as a power of two; the backend may allow fewer. One page holds 32 requests, which with indirect
    /// segments is 8 MiB in flight. Linux's backend makes room for 256 segments of every request that fits in the ring while
    /// it connects, so a larger ring costs start-up time.
    pub ring_order: u32,
    /// Most segments (pages) of a request, where the backend takes indirect requests.
    pub segments: usize,
    /// Most pages that data of one disk is copied through; they are made as large transfers need them. With 128 the backend runs
    /// dry while data is copied: 16 MiB took 1.7 times as long as with 256 in Xen under emulation. With 512 the time depends
    /// half as much on how soon the backend's domain is scheduled. Sizes of requests from 11 to 256 segments made no difference.
    pub pool_pages: usize,
    /// How long a response is looked for before the CPU is given up, in nanoseconds. Falling asleep and being woken costs more
    /// than a short request: 4 KiB took at best 320,000 ticks where the answer was waited for, 410,000 to 540,000 with a sleep.
    pub spin_ns: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { path: None, ring_order: 0, segments: 64, pool_pages: 512, spin_ns: 200_000 }
    }
}

/// A connected disk; clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    inner: Rc<Inner>,
}

struct Inner {
    device: RefCell<Device>,
    ring_grants: alloc::vec::Vec<GrantRef>,
    port: hw::hypervisor::EventPort,
    /// `None` once it is freed.
    front: RefCell<Option<Front>>,
}

impl Disk {
    /// What the backend says about it.
    pub fn facts(&self) -> Option<Facts> {
        self.inner.front.try_borrow().ok()?.as_ref().map(Front::facts)
    }

    /// How its data goes.
    pub fn path(&self) -> Option<DataPath> {
        self.inner.front.try_borrow().ok()?.as_ref().map(Front::path)
    }

    /// Whether both are the same disk.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// The device in xenstore. Nobody else borrows it while the bus is not at work.
    pub fn device(&self) -> core::cell::Ref<'_, Device> {
        self.inner.device.borrow()
    }

    /// The device, to change its watch.
    pub(crate) fn device_mut(&self) -> core::cell::RefMut<'_, Device> {
        self.inner.device.borrow_mut()
    }

    /// Flushes in at most `timeout_ns`, then refuses everything. Does not allocate.
    pub(crate) fn quiesce(&self, timeout_ns: u64) {
        match self.inner.front.try_borrow_mut() {
            Ok(mut front) => {
                if let Some(front) = front.as_mut() {
                    front.quiesce(timeout_ns);
                }
            }
            Err(_) => log::warn!("{}: closed during a transfer", self.inner.device.borrow()),
        }
    }

    /// Gives back grants, pages and port. Only after the backend has closed its half.
    pub(crate) fn free(&self, ports: &Ports) {
        ports.close(self.inner.port);
        if let Ok(mut front) = self.inner.front.try_borrow_mut()
            && let Some(front) = front.take()
        {
            front.free(&self.inner.ring_grants);
        }
    }

    fn with_front<T>(&self, f: impl FnOnce(&mut Front) -> Result<T, BlockError>) -> Result<T, BlockError> {
        match self.inner.front.try_borrow_mut() {
            Ok(mut front) => front.as_mut().map_or(Err(BlockError::Device), f),
            Err(_) => {
                // A notification that interrupted a transfer; the caller must raise the task priority level to prevent it.
                log::error!("{}: used while a transfer is under way", self.inner.device.borrow());
                Err(BlockError::Device)
            }
        }
    }
}

impl BlockDevice for Disk {
    fn geometry(&self) -> Geometry {
        const GONE: Geometry = Geometry {
            block_size: SECTOR as u32,
            blocks: 0,
            read_only: true,
            removable: false,
            io_align: 1,
            blocks_per_physical: 1,
        };
        self.facts().map_or(GONE, |facts| facts.geometry)
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        self.with_front(|front| front.transfer(lba, Buffer::Read(into)))
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        self.with_front(|front| front.transfer(lba, Buffer::Write(from)))
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        self.with_front(Front::flush)
    }
}

/// What connecting a disk needs beside xenstore.
#[derive(Clone, Debug)]
pub struct Means {
    /// The domain.
    pub domain: Domain,
    /// The grant table.
    pub grants: Rc<GrantTable>,
    /// Event channel ports.
    pub ports: Rc<Ports>,
    /// How disks are used.
    pub options: Options,
}

#[cfg(test)]
mod tests;
