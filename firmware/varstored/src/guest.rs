//! A guest that is served: what is known of it in xenstore, and its calls.

use std::io;
use std::rc::Rc;

use anyhow::{Context, Result};
use uefi_raw::Status;
use variables::remote::{Command, NAME_UNITS, Refusal, Reply, Request, WINDOW_PAGES, WINDOW_SIZE};

use crate::attachment::{Attachment, Call};
use crate::service;
use crate::stores::Stores;
use crate::xen::device_model::ServerId;
use crate::xen::foreign_memory::Pages;
use crate::xen::store::Store;
use crate::xen::{DomainId, Xen};

/// What the toolstack calls a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name; unique among the guests of a host.
    pub name: String,
    /// UUID.
    pub uuid: String,
}

impl Identity {
    /// Reads it.
    #[must_use]
    pub fn read(store: &Store, domain: DomainId) -> Option<Self> {
        let name = store.read(&format!("/local/domain/{domain}/name"))?;
        let vm = store.read(&format!("/local/domain/{domain}/vm"))?;
        Some(Self { name, uuid: vm.rsplit('/').next().unwrap_or_default().to_owned() })
    }
}

/// What a daemon notes of a guest for the next one, where the guest can read and not write: it goes away with the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// The guest's server.
    pub server: ServerId,
    /// The guest has not said yet whether it starts or goes on.
    pub is_new: bool,
}

impl Note {
    /// Reads it, if there is one.
    #[must_use]
    pub fn read(store: &Store, domain: DomainId) -> Option<Self> {
        Self::parse(&store.read(&Self::path(domain))?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (server, state) = text.split_once(' ')?;
        Some(Self { server: server.parse().ok()?, is_new: state == "new" })
    }

    /// Writes it.
    ///
    /// # Errors
    /// Xenstore's.
    pub fn write(self, store: &Store, domain: DomainId) -> io::Result<()> {
        store.write(&Self::path(domain), &format!("{} {}", self.server, if self.is_new { "new" } else { "served" }))
    }

    /// Removes it.
    pub fn remove(store: &Store, domain: DomainId) {
        store.remove(&Self::path(domain));
    }

    fn path(domain: DomainId) -> String {
        format!("/local/domain/{domain}/ovmf-xen-varstored")
    }
}

/// A guest that is served.
#[derive(Debug)]
pub struct Guest {
    attachment: Attachment,
    is_new: bool,
    /// The name of its store; known when it first asks, as until then the toolstack may rename it.
    store: Option<String>,
    /// What went wrong is told once, and again after something went right.
    is_failing: bool,
    /// It told of an image that Secure Boot refused.
    has_notified: bool,
}

/// What a call works on.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// Xen.
    pub xen: &'a Rc<Xen>,
    /// What the toolstack knows.
    pub store: &'a Store,
    /// The guests' stores.
    pub stores: &'a mut Stores,
    /// Memory for a request and for a reply.
    pub buffers: &'a mut Buffers,
}

/// Memory for a request and for a reply.
#[derive(Debug)]
pub struct Buffers {
    request: Vec<u8>,
    reply: Vec<u8>,
    name: Box<[u16; NAME_UNITS]>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { request: vec![0; WINDOW_SIZE], reply: vec![0; WINDOW_SIZE], name: Box::new([0; NAME_UNITS]) }
    }
}

impl Guest {
    /// Begins to serve a domain: takes over what another daemon left, or makes what is needed.
    ///
    /// # Errors
    /// Xen's or xenstore's.
    pub fn attach(xen: &Rc<Xen>, store: &Store, domain: DomainId) -> io::Result<Self> {
        if let Some(note) = Note::read(store, domain) {
            match Attachment::take_over(xen, domain, note.server) {
                Ok(attachment) => return Ok(Self::new(attachment, note.is_new)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let note = |server| Note { server, is_new: true }.write(store, domain);
        Attachment::new(xen, domain, note).map(|attachment| Self::new(attachment, true))
    }

    fn new(attachment: Attachment, is_new: bool) -> Self {
        Self { attachment, is_new, store: None, is_failing: false, has_notified: false }
    }

    /// How it is served.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// The name of its store, if it has asked for something.
    #[must_use]
    pub fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// Stops serving it, and leaves nothing.
    pub fn release(self, store: &Store) {
        let domain = self.attachment.domain();
        self.attachment.release();
        Note::remove(store, domain);
    }

    /// Serves what a virtual CPU asks, if it does.
    pub fn serve(&mut self, vcpu: usize, around: &mut Surroundings<'_>) {
        let mut asked = None;
        let Self { attachment, is_new, store, is_failing, has_notified } = self;
        let mut state = State { domain: attachment.domain(), server: attachment.server(), is_new, store, has_notified };
        attachment.serve(vcpu, |call| asked = Some(state.answer(call, around)));
        match asked {
            Some(Err(error)) if !*is_failing => {
                log::error!("domain {}: {error:#}", attachment.domain());
                *is_failing = true;
            }
            Some(Ok(())) => *is_failing = false,
            _ => {}
        }
    }
}

/// The part of a guest that a call changes.
struct State<'a> {
    domain: DomainId,
    server: ServerId,
    is_new: &'a mut bool,
    store: &'a mut Option<String>,
    has_notified: &'a mut bool,
}

impl State<'_> {
    fn answer(&mut self, call: Call, around: &mut Surroundings<'_>) -> Result<()> {
        let memory = around.xen.memory.clone();
        let window: Pages<'_, WINDOW_PAGES> = memory
            .map(self.domain, call.frame.into())
            .with_context(|| format!("the pages from frame {:#x} on are no memory of the guest", call.frame))?;
        let Surroundings { store, stores, buffers: Buffers { request, reply, name }, .. } = around;
        window.copy_out(request);
        let mut failure = None;
        let length = match Request::decode(request, name) {
            Err(Refusal::Unknown) => return Ok(()),
            Err(Refusal::Status(status)) => Reply::Status(status).encode(reply),
            // A daemon that died here may have written part of a reply over the request; SetVariable's has only one part.
            Ok(request) if call.is_begun && request.command() != Command::Set => {
                Reply::Status(Status::DEVICE_ERROR).encode(reply)
            }
            Ok(Request::Notify) => Reply::Status(self.notify()).encode(reply),
            Ok(request) => match self.carry_out(&request, store, stores, reply) {
                Ok(length) => Some(length),
                Err(error) => {
                    failure = Some(error);
                    Reply::Status(Status::DEVICE_ERROR).encode(reply)
                }
            },
        };
        window.copy_in(reply.get(..length.unwrap_or(0)).unwrap_or_default());
        failure.map_or(Ok(()), Err)
    }

    fn carry_out(
        &mut self,
        request: &Request<'_>,
        store: &Store,
        stores: &mut Stores,
        reply: &mut [u8],
    ) -> Result<usize> {
        let name = match self.store {
            Some(name) => name,
            None => {
                let identity = Identity::read(store, self.domain).context("the toolstack does not know it")?;
                let name = stores.name(&identity.name, &identity.uuid);
                self.store.insert(name.with_context(|| format!("no file can be called {:?}", identity.name))?)
            }
        };
        // What was saved goes on at run time; what asks before is a start, for which nothing volatile is left.
        let starts = *self.is_new && request.at_runtime() == Some(false);
        let variables = stores.open(name, starts)?;
        if *self.is_new && request.at_runtime().is_some() {
            log::info!("domain {}: {} {name}.fd", self.domain, if starts { "starts with" } else { "goes on with" });
            *self.is_new = false;
            Note { server: self.server, is_new: false }.write(store, self.domain)?;
        }
        Ok(service::answer(variables, request, reply))
    }

    /// Once is enough to know; more would only fill the log.
    fn notify(&mut self) -> Status {
        if *self.has_notified {
            return Status::ACCESS_DENIED;
        }
        *self.has_notified = true;
        log::warn!("domain {}: Secure Boot refused an image", self.domain);
        Status::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_is_none_is_not_believed() {
        assert_eq!(Note::parse("3 new"), Some(Note { server: 3, is_new: true }));
        assert_eq!(Note::parse("3 served"), Some(Note { server: 3, is_new: false }));
        for bad in ["", "3", "x new", "-1 new", "99999 new"] {
            assert_eq!(Note::parse(bad), None, "{bad}");
        }
    }
}
