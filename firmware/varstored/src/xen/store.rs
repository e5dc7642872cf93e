//! Xenstore: what the toolstack knows of guests, and watches that tell of new and of ended ones.

use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use super::{DomainId, sys};

/// No transaction.
const NONE: u32 = 0;
/// What is told of when the toolstack has introduced a domain, and when one has ended.
const INTRODUCED: &CStr = c"@introduceDomain";
const RELEASED: &CStr = c"@releaseDomain";

/// What has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Domains were introduced.
    pub introduced: bool,
    /// Domains have ended.
    pub released: bool,
}

unsafe extern "C" {
    /// What libxenstore's results are given back with.
    fn free(memory: *mut c_void);
}

/// A connection.
#[derive(Debug)]
pub struct Store(NonNull<sys::xs_handle>);

impl Store {
    /// Connects.
    ///
    /// # Errors
    /// There is no xenstore here, or this is not root.
    pub fn open() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        NonNull::new(unsafe { sys::xs_open(0) }).map(Self).ok_or_else(io::Error::last_os_error)
    }

    /// The value of a node, if there is one and it is text.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<String> {
        let path = CString::new(path).ok()?;
        let mut length = 0;
        // SAFETY: a connection, a terminated path and a valid pointer.
        let value = unsafe { sys::xs_read(self.0.as_ptr(), NONE, path.as_ptr(), &mut length) };
        // SAFETY: the library's own, terminated.
        let text = (!value.is_null()).then(|| unsafe { CStr::from_ptr(value.cast()) }.to_str().ok().map(str::to_owned));
        // SAFETY: given by the library to be freed; null is nothing.
        unsafe { free(value) };
        text.flatten()
    }

    /// Writes a node.
    ///
    /// # Errors
    /// Xenstore's.
    pub fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let path = CString::new(path)?;
        let length = u32::try_from(value.len()).map_err(io::Error::other)?;
        // SAFETY: a connection, a terminated path, and `length` bytes.
        let done = unsafe { sys::xs_write(self.0.as_ptr(), NONE, path.as_ptr(), value.as_ptr().cast(), length) };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Removes a node; there may be none.
    pub fn remove(&self, path: &str) {
        let Ok(path) = CString::new(path) else { return };
        // SAFETY: a connection and a terminated path.
        unsafe { sys::xs_rm(self.0.as_ptr(), NONE, path.as_ptr()) };
    }

    /// The domains that have nodes.
    #[must_use]
    pub fn domains(&self) -> Vec<DomainId> {
        let mut count: u32 = 0;
        // SAFETY: a connection, a terminated path and a valid pointer.
        let names = unsafe { sys::xs_directory(self.0.as_ptr(), NONE, c"/local/domain".as_ptr(), &mut count) };
        if names.is_null() {
            return Vec::new();
        }
        let name = |index: u32| {
            // SAFETY: the library gives that many terminated names.
            let name = unsafe { CStr::from_ptr(names.add(index as usize).read()) };
            name.to_str().ok()?.parse().ok()
        };
        let domains = (0..count).filter_map(name).collect();
        // SAFETY: given by the library to be freed, with the names in it.
        unsafe { free(names.cast()) };
        domains
    }

    /// Whether the domain has been introduced and has not been released.
    #[must_use]
    pub fn is_introduced(&self, domain: DomainId) -> bool {
        // SAFETY: a connection.
        unsafe { sys::xs_is_domain_introduced(self.0.as_ptr(), domain.into()) }
    }

    /// Tells of domains that come and go from now on, and once now.
    ///
    /// # Errors
    /// Xenstore's.
    pub fn watch_domains(&self) -> io::Result<()> {
        [INTRODUCED, RELEASED].into_iter().try_for_each(|path| {
            // SAFETY: a connection and terminated strings.
            let done = unsafe { sys::xs_watch(self.0.as_ptr(), path.as_ptr(), path.as_ptr()) };
            if done { Ok(()) } else { Err(io::Error::last_os_error()) }
        })
    }

    /// Takes what watches have told.
    pub fn take_events(&self) -> Changes {
        let mut changes = Changes::default();
        loop {
            // SAFETY: a connection.
            let event: *mut *mut c_char = unsafe { sys::xs_check_watch(self.0.as_ptr()) };
            if event.is_null() {
                return changes;
            }
            // SAFETY: an event is an array of terminated strings, of which the first is the path.
            let path = unsafe { CStr::from_ptr(event.read()) };
            changes.introduced |= path == INTRODUCED;
            changes.released |= path == RELEASED;
            // SAFETY: given by the library to be freed.
            unsafe { free(event.cast()) };
        }
    }
}

impl AsFd for Store {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the connection's own descriptor, open as long as the connection is.
        unsafe { BorrowedFd::borrow_raw(sys::xs_fileno(self.0.as_ptr())) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, and used by nobody any more.
        unsafe { sys::xs_close(self.0.as_ptr()) };
    }
}
