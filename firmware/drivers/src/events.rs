//! Event channel ports of our own (`public/event_channel.h`).
//!
//! Ports given to the domain by the toolstack (xenstore, console) are waited on in the same way
//! ([`Domain::wait_for`]) but are never in this list, so never closed: the operating system goes on using them.

use alloc::vec::Vec;

use hw::hypervisor::{DomainId, EventPort, Result};
use services::lock::Lock;

use crate::domain::Domain;

/// The ports we allocated and have not yet closed.
#[derive(Debug)]
pub struct Ports {
    domain: Domain,
    open: Lock<Vec<EventPort>>,
}

impl Ports {
    /// No ports yet.
    pub const fn new(domain: Domain) -> Self {
        Self { domain, open: Lock::new("event channel ports", Vec::new()) }
    }

    /// A new port that `remote` may bind to.
    pub fn allocate(&self, remote: DomainId) -> Result<EventPort> {
        let port = self.domain.hypervisor.allocate_port(remote)?;
        self.open.with(|open| open.push(port));
        Ok(port)
    }

    /// Closes a port of ours. Does nothing if it is closed already.
    pub fn close(&self, port: EventPort) {
        let was_open = self.open.with(|open| {
            let found = open.iter().position(|&other| other == port);
            found.map(|index| open.swap_remove(index)).is_some()
        });
        if was_open {
            self.close_now(port);
        }
    }

    /// Closes all ports that are still open. Does not allocate.
    pub fn shut_down(&self) {
        while let Some(port) = self.open.with(Vec::pop) {
            self.close_now(port);
        }
    }

    /// How many ports are open.
    pub fn open(&self) -> usize {
        self.open.with(|open| open.len())
    }

    fn close_now(&self, port: EventPort) {
        // A pending bit left behind would be taken for an event of whoever gets this port next.
        self.domain.hypervisor.take_pending(port);
        if let Err(error) = self.domain.hypervisor.close_port(port) {
            log::warn!("event channel port {}: closing failed: {error}", port.0);
        }
        self.domain.hypervisor.take_pending(port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SECOND;
    use crate::testing::{domain, leak};

    #[test]
    fn teardown_closes_our_ports_and_no_others() {
        let (hypervisor, domain) = domain();
        hypervisor.open_ports.borrow_mut().insert(2);
        let ports = Ports::new(domain);
        let first = ports.allocate(DomainId(0)).unwrap();
        ports.allocate(DomainId(0)).unwrap();
        ports.close(first);
        ports.close(first);
        ports.shut_down();
        assert_eq!(ports.open(), 0);
        assert_eq!(*hypervisor.open_ports.borrow(), [2].into());
    }

    #[test]
    fn a_wait_ends_with_the_event() {
        let (hypervisor, domain) = domain();
        let calls = leak(core::cell::Cell::new(0));
        *hypervisor.on_notify.borrow_mut() = Some(Box::new(move |hypervisor, port| {
            calls.set(calls.get() + 1);
            hypervisor.raise(port);
        }));
        let woken = domain.wait_for(EventPort(3), domain.deadline(SECOND), || (calls.get() == 2).then_some(()));
        assert!(woken.is_some());
        assert!(domain.now() < SECOND);
    }

    #[test]
    fn a_wait_ends_with_the_deadline() {
        let (_, domain) = domain();
        let deadline = domain.deadline(SECOND);
        assert!(domain.wait_for(EventPort(3), deadline, || None::<()>).is_none());
        assert!((deadline..deadline + SECOND).contains(&domain.now()));
    }
}
