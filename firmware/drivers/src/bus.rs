//! The bus: xenstore, grants, ports and disks together, from the first look into xenstore to the hand-over to the operating
//! system.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Ref, RefCell};
use core::fmt;

use arrayvec::ArrayVec;

use crate::block::{self, Connecting, Disk, KEYS_WRITTEN, Means, Options, device_name};
use crate::diagnostics::{Failure, Reason, Step};
use crate::domain::{Domain, SECOND};
use crate::events::Ports;
use crate::grants::{GrantError, GrantTable};
use crate::xenbus::{self, Device};
use crate::xenstore::{self, Xenstore};

/// Kind of the disks in xenstore.
const DISKS: &str = "vbd";
/// Most disks that are handed over together.
const DISKS_MAX: usize = 32;
/// How long a disk may take to flush at the hand-over.
const FLUSH_TIMEOUT: u64 = 5 * SECOND;
/// How long all backends together may take to close.
const CLOSE_TIMEOUT: u64 = 5 * SECOND;
/// How long the xenstore daemon may take to start the connection afresh.
const RECONNECT_TIMEOUT: u64 = 2 * SECOND;

/// Why there is no bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartError {
    /// Xenstore cannot be used.
    Xenstore(xenstore::Error),
    /// The grant table cannot be used.
    Grants(GrantError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xenstore(error) => write!(f, "no paravirtual devices: {error}"),
            Self::Grants(error) => write!(f, "no paravirtual devices: {error}"),
        }
    }
}

impl core::error::Error for StartError {}

/// The bus. There is one; it is at work in one place at a time.
pub struct XenBus {
    means: Means,
    store: RefCell<Xenstore>,
    disks: RefCell<Vec<Disk>>,
    failures: RefCell<Vec<Failure>>,
    /// Disks whose backends have been told, and what went wrong before that.
    pending: RefCell<Option<(Connecting, Vec<Failure>)>>,
}

impl XenBus {
    /// Takes xenstore and the grant table into use. No device is touched yet.
    pub fn start(domain: Domain, options: Options) -> Result<Self, StartError> {
        let store = Xenstore::open(domain).map_err(StartError::Xenstore)?;
        let grants = GrantTable::open(domain).map_err(StartError::Grants)?;
        Ok(Self {
            means: Means { domain, grants: Rc::new(grants), ports: Rc::new(Ports::new(domain)), options },
            store: RefCell::new(store),
            disks: RefCell::default(),
            failures: RefCell::default(),
            pending: RefCell::default(),
        })
    }

    /// Finds the disks that are not connected yet and tells their backends, which then set themselves up while we do something
    /// else; [`connect_disks`](Self::connect_disks) waits for them.
    pub fn begin_connecting(&self) {
        let Ok(mut store) = self.store.try_borrow_mut() else {
            log::error!("xenbus: asked to connect disks while at work");
            return;
        };
        let mut pending = self.pending.borrow_mut();
        if pending.is_some() {
            return;
        }
        let (mut devices, failures) = match xenbus::devices(&mut store, DISKS, device_name) {
            Ok(found) => found,
            Err(failure) => (Vec::new(), alloc::vec![failure]),
        };
        devices.retain(|device| !self.is_connected(device));
        *pending = Some((block::begin(&mut store, &self.means, devices), failures));
    }

    /// Connects the disks that are not connected yet, all at the same time; returns them ordered by number.
    ///
    /// What cannot be connected is logged and kept for [`failures`](Self::failures).
    pub fn connect_disks(&self) -> Vec<Disk> {
        self.begin_connecting();
        let Ok(mut store) = self.store.try_borrow_mut() else { return Vec::new() };
        let Some((connecting, mut failures)) = self.pending.take() else { return Vec::new() };
        let (disks, failed) = block::finish(&mut store, &self.means, connecting);
        failures.extend(failed);
        for failure in &failures {
            // A drive without a medium is no fault.
            match failure.reason {
                Reason::NoMedium => log::info!("{failure}"),
                _ => log::error!("{failure}"),
            }
        }
        *self.failures.borrow_mut() = failures;
        self.disks.borrow_mut().extend_from_slice(&disks);
        disks
    }

    /// The connected disks.
    pub fn disks(&self) -> Vec<Disk> {
        self.disks.borrow().clone()
    }

    /// What could not be connected the last time.
    pub fn failures(&self) -> Vec<Failure> {
        self.failures.borrow().clone()
    }

    /// Closes disks and frees what they used. The handles to them answer with errors from then on.
    pub fn disconnect(&self, disks: &[Disk]) -> Result<(), Failure> {
        let Ok(mut store) = self.store.try_borrow_mut() else {
            let device = disks.first().map(|disk| alloc::format!("{}", *disk.device())).unwrap_or_default();
            return Err(Failure { device, step: Step::Closing, reason: Reason::Busy });
        };
        disks.iter().for_each(|disk| disk.quiesce(FLUSH_TIMEOUT));
        {
            let devices: Vec<Ref<'_, Device>> = disks.iter().map(Disk::device).collect();
            let devices: Vec<&Device> = devices.iter().map(|device| &**device).collect();
            let deadline = self.means.domain.deadline(CLOSE_TIMEOUT);
            xenbus::close(&mut store, &devices, &KEYS_WRITTEN, deadline);
        }
        for disk in disks {
            disk.device_mut().unwatch_backend(&mut store);
            disk.free(&self.means.ports);
        }
        self.disks.borrow_mut().retain(|disk| !disks.iter().any(|gone| gone.is(disk)));
        Ok(())
    }

    /// Leaves everything as the operating system expects to find it: disks closed and our keys gone, no watches, xenstore's
    /// ring idle or started afresh, no grants, no grant table mapped, no ports. Afterwards all devices answer with errors.
    ///
    /// For ExitBootServices: does not allocate or free, needs no timer and no interrupt, and is bounded in time.
    pub fn hand_over(&self) {
        let Ok(mut store) = self.store.try_borrow_mut() else {
            log::error!("xenbus: hand-over while at work; devices stay as they are");
            return;
        };
        let disks = self.disks.borrow();
        disks.iter().for_each(|disk| disk.quiesce(FLUSH_TIMEOUT));
        let deadline = self.means.domain.deadline(CLOSE_TIMEOUT);
        for disks in disks.chunks(DISKS_MAX) {
            let devices: ArrayVec<Ref<'_, Device>, DISKS_MAX> = disks.iter().map(Disk::device).collect();
            let devices: ArrayVec<&Device, DISKS_MAX> = devices.iter().map(|device| &**device).collect();
            xenbus::close(&mut store, &devices, &KEYS_WRITTEN, deadline);
        }
        // Backends that have been told of a ring and that nobody has waited for.
        let pending = self.pending.borrow();
        let told = pending.iter().flat_map(|(connecting, _)| connecting.told());
        let told: ArrayVec<&Device, DISKS_MAX> = told.take(DISKS_MAX).collect();
        xenbus::close(&mut store, &told, &KEYS_WRITTEN, deadline);
        store.shut_down(self.means.domain.deadline(RECONNECT_TIMEOUT));
        let in_use = self.means.grants.shut_down();
        if in_use > 0 {
            log::warn!("hand-over: backends still have {in_use} pages mapped");
        }
        self.means.ports.shut_down();
    }

    /// Grants that a backend did not let go of when its disk was closed.
    pub fn leaked_grants(&self) -> usize {
        self.means.grants.leaked()
    }

    fn is_connected(&self, device: &Device) -> bool {
        self.disks.borrow().iter().any(|disk| disk.device().number == device.number)
    }
}

#[cfg(test)]
mod tests;
