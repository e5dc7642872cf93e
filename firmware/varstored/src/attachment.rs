//! Serving one guest: its I/O request server, and the requests in it.
//!
//! What becomes of a guest whose daemon dies: a virtual CPU that asks waits in Xen for the reply. The server stays, and
//! its number is noted in xenstore, so that the next daemon takes the server over and answers what waits. A daemon that is
//! stopped answers, and takes its servers away: from then on nobody answers, which the guest's firmware notices.

use std::io;
use std::rc::Rc;

use variables::remote::PORT;

use crate::xen::device_model::ServerId;
use crate::xen::event_channels::Port;
use crate::xen::io_requests::{IoRequests, MOST_VCPUS};
use crate::xen::{DomainId, Xen};

/// The port is one word of four bytes.
const LAST_PORT: u16 = PORT + 3;
/// What nobody's port reads as.
const NOTHING: u64 = u64::MAX;

/// A guest's server.
#[derive(Debug)]
pub struct Attachment {
    xen: Rc<Xen>,
    domain: DomainId,
    server: ServerId,
    requests: IoRequests,
    /// By virtual CPU.
    ports: Vec<Port>,
}

/// A page frame number that the guest wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Of the first of 16 pages.
    pub frame: u32,
    /// Somebody had begun to answer it, and may have written part of a reply.
    pub is_begun: bool,
}

impl Attachment {
    /// Makes a server for a domain. `note` writes down its number before the domain can ask anything.
    ///
    /// # Errors
    /// Xen's; `EINVAL` where the domain is neither HVM nor PVH.
    pub fn new(xen: &Rc<Xen>, domain: DomainId, note: impl FnOnce(ServerId) -> io::Result<()>) -> io::Result<Self> {
        let server = xen.model.create_server(domain)?;
        let made = note(server).and_then(|()| Self::take_over(xen, domain, server));
        if made.is_err() {
            // What failed is told; the domain is left as it was found.
            let _ = xen.model.destroy_server(domain, server);
        }
        made
    }

    /// Takes over a server that another daemon made, at whatever point that one ended.
    ///
    /// # Errors
    /// Xen's; `ENOENT` where the domain has no such server.
    pub fn take_over(xen: &Rc<Xen>, domain: DomainId, server: ServerId) -> io::Result<Self> {
        let requests = xen.memory.map_requests(domain, server)?;
        // Xen writes the ports into the page when the server is enabled.
        xen.model.enable_server(domain, server, true)?;
        let mut attachment = Self { xen: xen.clone(), domain, server, requests, ports: Vec::new() };
        for vcpu in 0..xen.model.vcpus(domain)?.min(MOST_VCPUS) {
            let remote = attachment.requests.port(vcpu).ok_or(io::ErrorKind::InvalidData)?;
            attachment.ports.push(xen.channels.bind(domain, remote)?);
        }
        match xen.model.give_ports(domain, server, PORT, LAST_PORT) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(attachment),
        }
    }

    /// The domain.
    #[must_use]
    pub fn domain(&self) -> DomainId {
        self.domain
    }

    /// The server's number.
    #[must_use]
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// The virtual CPU whose requests `port` tells of.
    #[must_use]
    pub fn vcpu(&self, port: Port) -> Option<usize> {
        self.ports.iter().position(|&bound| bound == port)
    }

    /// Serves what a virtual CPU asks, if it does; `answer` is called for what is written to the port.
    pub fn serve(&self, vcpu: usize, answer: impl FnOnce(Call)) {
        let Some(access) = self.requests.begin(vcpu) else { return };
        let is_whole = access.port == u64::from(PORT) && access.size == 4 && access.count == 1 && !access.is_pointer;
        if is_whole && !access.is_read {
            answer(Call { frame: access.data as u32, is_begun: access.is_begun });
        }
        self.requests.complete(vcpu, access.is_read.then_some(NOTHING));
        if let Some(&port) = self.ports.get(vcpu)
            && let Err(error) = self.xen.channels.notify(port)
        {
            log::error!("domain {}: the reply is not noticed: {error}", self.domain);
        }
    }

    /// Stops serving: nobody waits any more, and nobody answers from now on.
    pub fn release(self) {
        // No request comes after this; those that are there are completed without a reply.
        let disabled = self.xen.model.enable_server(self.domain, self.server, false);
        for vcpu in 0..self.ports.len() {
            self.serve(vcpu, |_| {});
        }
        if let Err(error) = disabled.and_then(|()| self.xen.model.destroy_server(self.domain, self.server)) {
            log::warn!("domain {}: {error}", self.domain);
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        for &port in &self.ports {
            self.xen.channels.unbind(port);
        }
    }
}
