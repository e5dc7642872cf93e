//! I/O request servers: Xen hands a guest's accesses to ports to whoever has a server for them.

use std::io;
use std::ptr::{self, NonNull};

use super::{DomainId, check, sys};

/// Number of a server of a domain.
pub type ServerId = u16;

/// A handle of libxendevicemodel.
#[derive(Debug)]
pub struct DeviceModel(NonNull<sys::xendevicemodel_handle>);

impl DeviceModel {
    /// Opens the handle.
    ///
    /// # Errors
    /// The device's.
    pub fn open() -> io::Result<Self> {
        // SAFETY: no logger is allowed.
        let handle = unsafe { sys::xendevicemodel_open(ptr::null_mut(), 0) };
        NonNull::new(handle).map(Self).ok_or_else(io::Error::last_os_error)
    }

    /// Number of virtual CPUs of a domain.
    ///
    /// # Errors
    /// Xen's.
    pub fn vcpus(&self, domain: DomainId) -> io::Result<usize> {
        let mut count = 0;
        // SAFETY: an open handle and a valid pointer.
        check(unsafe { sys::xendevicemodel_nr_vcpus(self.0.as_ptr(), domain, &mut count) })?;
        Ok(count as usize)
    }

    /// Makes a server, not enabled yet.
    ///
    /// # Errors
    /// Xen's; `EINVAL` where the domain is neither HVM nor PVH.
    pub fn create_server(&self, domain: DomainId) -> io::Result<ServerId> {
        let mut server = 0;
        let buffered = sys::HVM_IOREQSRV_BUFIOREQ_OFF as i32;
        // SAFETY: an open handle and a valid pointer.
        check(unsafe { sys::xendevicemodel_create_ioreq_server(self.0.as_ptr(), domain, buffered, &mut server) })?;
        Ok(server)
    }

    /// Lets the server be given requests, or no more.
    ///
    /// # Errors
    /// Xen's.
    pub fn enable_server(&self, domain: DomainId, server: ServerId, enabled: bool) -> io::Result<()> {
        let handle = self.0.as_ptr();
        // SAFETY: an open handle.
        check(unsafe { sys::xendevicemodel_set_ioreq_server_state(handle, domain, server, enabled.into()) }).map(drop)
    }

    /// Gives the server the ports from `first` to `last`.
    ///
    /// # Errors
    /// Xen's; `EEXIST` where it has one of them already.
    pub fn give_ports(&self, domain: DomainId, server: ServerId, first: u16, last: u16) -> io::Result<()> {
        let (first, last) = (first.into(), last.into());
        // SAFETY: an open handle.
        let result = unsafe {
            sys::xendevicemodel_map_io_range_to_ioreq_server(self.0.as_ptr(), domain, server, 0, first, last)
        };
        check(result).map(drop)
    }

    /// Takes the server away. A virtual CPU that waits for it waits on: its request has to be completed before.
    ///
    /// # Errors
    /// Xen's.
    pub fn destroy_server(&self, domain: DomainId, server: ServerId) -> io::Result<()> {
        // SAFETY: an open handle.
        check(unsafe { sys::xendevicemodel_destroy_ioreq_server(self.0.as_ptr(), domain, server) }).map(drop)
    }
}

impl Drop for DeviceModel {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, and used by nobody any more.
        unsafe { sys::xendevicemodel_close(self.0.as_ptr()) };
    }
}
