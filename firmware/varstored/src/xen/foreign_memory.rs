//! Pages of guests. A guest can write them at any time, so they are only copied, never referred to.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::device_model::ServerId;
use super::io_requests::IoRequests;
use super::{DomainId, sys};

/// `PROT_READ | PROT_WRITE`.
const READ_WRITE: i32 = 3;
/// `XENMEM_resource_ioreq_server_frame_ioreq(0)`, a macro with an argument.
const FIRST_REQUEST_FRAME: u64 = 1;

/// A handle of libxenforeignmemory.
#[derive(Debug)]
pub struct ForeignMemory(NonNull<sys::xenforeignmemory_handle>);

impl ForeignMemory {
    /// Opens the handle.
    ///
    /// # Errors
    /// The device's.
    pub fn open() -> io::Result<Self> {
        // SAFETY: no logger is allowed.
        let handle = unsafe { sys::xenforeignmemory_open(ptr::null_mut(), 0) };
        NonNull::new(handle).map(Self).ok_or_else(io::Error::last_os_error)
    }

    /// Maps `N` pages of a guest from the page frame number `first` on.
    ///
    /// # Errors
    /// Xen's: one of them is no memory of the guest.
    pub fn map<const N: usize>(&self, domain: DomainId, first: u64) -> io::Result<Pages<'_, N>> {
        let mut frames = [0; N];
        for (frame, number) in frames.iter_mut().zip(first..) {
            *frame = number;
        }
        // SAFETY: an open handle and an array of `N` frames; without an array of errors all of them are mapped or none.
        let address = unsafe {
            let (handle, errors) = (self.0.as_ptr(), ptr::null_mut());
            sys::xenforeignmemory_map(handle, domain.into(), READ_WRITE, N, frames.as_ptr(), errors)
        };
        let address = NonNull::new(address.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Pages { memory: self, address })
    }

    /// Maps the page in which a server's requests are.
    ///
    /// # Errors
    /// Xen's; `ENOENT` where the domain has no such server.
    pub fn map_requests(self: &Rc<Self>, domain: DomainId, server: ServerId) -> io::Result<IoRequests> {
        let mut address = ptr::null_mut();
        // SAFETY: an open handle and a valid pointer, which says that any address will do.
        let resource = unsafe {
            sys::xenforeignmemory_map_resource(
                self.0.as_ptr(),
                domain,
                sys::XENMEM_resource_ioreq_server,
                server.into(),
                FIRST_REQUEST_FRAME,
                1,
                &mut address,
                READ_WRITE,
                0,
            )
        };
        let resource = NonNull::new(resource).ok_or_else(io::Error::last_os_error)?;
        let address = NonNull::new(address).ok_or_else(|| io::Error::other("a resource without an address"))?;
        // SAFETY: a page of requests, mapped until the resource is dropped.
        Ok(unsafe { IoRequests::new(address, Resource { memory: self.clone(), resource }) })
    }
}

impl Drop for ForeignMemory {
    fn drop(&mut self) {
        // SAFETY: opened by `open`; what was mapped with it borrows it or counts as an owner.
        unsafe { sys::xenforeignmemory_close(self.0.as_ptr()) };
    }
}

/// Something of Xen's that is mapped; unmapped when dropped.
#[derive(Debug)]
pub struct Resource {
    memory: Rc<ForeignMemory>,
    resource: NonNull<sys::xenforeignmemory_resource_handle>,
}

impl Drop for Resource {
    fn drop(&mut self) {
        // SAFETY: mapped with this handle, and unmapped only here.
        unsafe { sys::xenforeignmemory_unmap_resource(self.memory.0.as_ptr(), self.resource.as_ptr()) };
    }
}

/// `N` pages of a guest.
#[derive(Debug)]
pub struct Pages<'a, const N: usize> {
    memory: &'a ForeignMemory,
    address: NonNull<u64>,
}

impl<const N: usize> Pages<'_, N> {
    const WORDS: usize = N * 4096 / size_of::<u64>();

    /// Copies all bytes out, as far as `bytes` is long.
    pub fn copy_out(&self, bytes: &mut [u8]) {
        for (index, chunk) in bytes.chunks_mut(size_of::<u64>()).take(Self::WORDS).enumerate() {
            // SAFETY: within the pages, which are aligned; volatile, as the guest may write them meanwhile.
            let word = unsafe { self.address.add(index).read_volatile() }.to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Copies bytes in, the first eight last: what they stand in front of is there when they are seen.
    pub fn copy_in(&self, bytes: &[u8]) {
        let words = bytes.chunks(size_of::<u64>()).take(Self::WORDS).enumerate();
        for (index, chunk) in words.collect::<Vec<_>>().into_iter().rev() {
            let mut word = [0; size_of::<u64>()];
            word[..chunk.len()].copy_from_slice(chunk);
            // SAFETY: within the pages, which are aligned; volatile, as the guest may read them meanwhile.
            unsafe { self.address.add(index).write_volatile(u64::from_ne_bytes(word)) };
        }
    }
}

impl<const N: usize> Drop for Pages<'_, N> {
    fn drop(&mut self) {
        // SAFETY: mapped with this handle, and unmapped only here.
        unsafe { sys::xenforeignmemory_unmap(self.memory.0.as_ptr(), self.address.as_ptr().cast::<c_void>(), N) };
    }
}
