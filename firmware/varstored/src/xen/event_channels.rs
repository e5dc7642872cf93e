//! Event channels of guests' virtual CPUs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};

use super::{DomainId, check, sys};

/// A port of this domain.
pub type Port = u32;

/// A handle of libxenevtchn.
#[derive(Debug)]
pub struct EventChannels(NonNull<sys::xenevtchn_handle>);

impl EventChannels {
    /// Opens the handle.
    ///
    /// # Errors
    /// The device's.
    pub fn open() -> io::Result<Self> {
        // SAFETY: no logger is allowed.
        let handle = unsafe { sys::xenevtchn_open(ptr::null_mut(), 0) };
        NonNull::new(handle).map(Self).ok_or_else(io::Error::last_os_error)
    }

    /// Binds a port of a domain; it is signalled once in any case.
    ///
    /// # Errors
    /// Xen's.
    pub fn bind(&self, domain: DomainId, remote: Port) -> io::Result<Port> {
        // SAFETY: an open handle.
        let port = check(unsafe { sys::xenevtchn_bind_interdomain(self.0.as_ptr(), domain.into(), remote) })?;
        Ok(port.unsigned_abs())
    }

    /// Gives a port back.
    pub fn unbind(&self, port: Port) {
        // SAFETY: an open handle. A port that is not bound is an error that changes nothing.
        unsafe { sys::xenevtchn_unbind(self.0.as_ptr(), port) };
    }

    /// Signals the other end.
    ///
    /// # Errors
    /// Xen's.
    pub fn notify(&self, port: Port) -> io::Result<()> {
        // SAFETY: an open handle.
        check(unsafe { sys::xenevtchn_notify(self.0.as_ptr(), port) }).map(drop)
    }

    /// A port that was signalled; it can be signalled again from now on. Waits for one if there is none.
    ///
    /// # Errors
    /// The device's.
    pub fn next(&self) -> io::Result<Port> {
        // SAFETY: an open handle.
        let port = check(unsafe { sys::xenevtchn_pending(self.0.as_ptr()) })?.unsigned_abs();
        // SAFETY: as above. The port may have been unbound meanwhile, which is no matter.
        unsafe { sys::xenevtchn_unmask(self.0.as_ptr(), port) };
        Ok(port)
    }
}

impl AsFd for EventChannels {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the handle's own descriptor, open as long as the handle is.
        unsafe { BorrowedFd::borrow_raw(sys::xenevtchn_fd(self.0.as_ptr())) }
    }
}

impl Drop for EventChannels {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, and used by nobody any more.
        unsafe { sys::xenevtchn_close(self.0.as_ptr()) };
    }
}
