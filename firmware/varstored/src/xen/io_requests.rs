//! The page that Xen and a server share: a request for each virtual CPU (Xen's `public/hvm/ioreq.h`).

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use super::event_channels::Port;
use super::foreign_memory::Resource;
use super::sys;

/// So many requests fit.
pub const MOST_VCPUS: usize = 4096 / size_of::<sys::ioreq>();

/// Offset of the byte with state and flags, which C declares as bit fields, and its parts.
const STATE_OFFSET: usize = offset_of!(sys::ioreq, type_) - 1;
const STATE_MASK: u8 = 0x0F;
const IS_POINTER: u8 = 1 << 4;
const IS_READ: u8 = 1 << 5;

/// An access to a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Port.
    pub port: u64,
    /// Bytes, of one of `count` accesses.
    pub size: u32,
    /// How many; not one for string instructions.
    pub count: u32,
    /// What is written; the address of it where `is_pointer`.
    pub data: u64,
    /// `data` is an address.
    pub is_pointer: bool,
    /// A read.
    pub is_read: bool,
    /// Somebody had begun to serve it.
    pub is_begun: bool,
}

/// The page of a server.
#[derive(Debug)]
pub struct IoRequests {
    address: NonNull<sys::ioreq>,
    /// Keeps the page mapped.
    _resource: Resource,
}

impl IoRequests {
    /// # Safety
    /// `address` is that of a page of requests, mapped as long as `resource` lives.
    pub(super) unsafe fn new(address: NonNull<c_void>, resource: Resource) -> Self {
        Self { address: address.cast(), _resource: resource }
    }

    /// The port of the guest by which the request of `vcpu` is told.
    #[must_use]
    pub fn port(&self, vcpu: usize) -> Option<Port> {
        self.read(vcpu).map(|request| request.vp_eport)
    }

    /// The request of `vcpu` that waits to be served; it counts as begun from now on.
    pub fn begin(&self, vcpu: usize) -> Option<Access> {
        let state = self.state(vcpu)?;
        let before = state.load(Ordering::Acquire);
        let (ready, begun) = (sys::STATE_IOREQ_READY as u8, sys::STATE_IOREQ_INPROCESS as u8);
        if before & STATE_MASK != ready && before & STATE_MASK != begun {
            return None;
        }
        state.store(before & !STATE_MASK | begun, Ordering::Release);
        let request = self.read(vcpu)?;
        // What is no access to a port is completed like one that nobody knows.
        let is_port = u32::from(request.type_) == sys::IOREQ_TYPE_PIO;
        Some(Access {
            port: request.addr,
            size: if is_port { request.size } else { 0 },
            count: request.count,
            data: request.data,
            is_pointer: before & IS_POINTER != 0,
            is_read: before & IS_READ != 0,
            is_begun: before & STATE_MASK == begun,
        })
    }

    /// Completes the request of `vcpu`, with `data` for a read. Xen learns it from the event channel.
    pub fn complete(&self, vcpu: usize, data: Option<u64>) {
        let Some(state) = self.state(vcpu) else { return };
        if let Some(data) = data {
            // SAFETY: `state` says that the request is within the page.
            unsafe { (&raw mut (*self.address.as_ptr().add(vcpu)).data).write_volatile(data) };
        }
        let before = state.load(Ordering::Relaxed);
        state.store(before & !STATE_MASK | sys::STATE_IORESP_READY as u8, Ordering::Release);
    }

    fn state(&self, vcpu: usize) -> Option<&AtomicU8> {
        // SAFETY: within the page; Xen and this process change it by turns, as whole bytes.
        (vcpu < MOST_VCPUS)
            .then(|| unsafe { AtomicU8::from_ptr(self.address.as_ptr().add(vcpu).cast::<u8>().add(STATE_OFFSET)) })
    }

    fn read(&self, vcpu: usize) -> Option<sys::ioreq> {
        // SAFETY: a request within the page, of integers; volatile, as Xen writes it.
        (vcpu < MOST_VCPUS).then(|| unsafe { self.address.as_ptr().add(vcpu).read_volatile() })
    }
}
