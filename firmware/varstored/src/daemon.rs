//! The daemon: finds guests when the toolstack introduces them, serves them, and lets go of them when they end.
//!
//! The toolstack introduces a domain before it starts it, and disks, device model and the firmware's own start lie between:
//! a guest is attached to long before it asks. A guest that must not miss its daemon waits for it: `ovmf.variables=daemon`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::config::Config;
use crate::guest::{Buffers, Guest, Identity, Note, Surroundings};
use crate::stores::Stores;
use crate::xen::store::Store;
use crate::xen::{DomainId, Xen};
use crate::{journal, privileges};

/// How often is looked for stores that nobody uses any more.
const CLEAN_UP: u16 = 5_000;
/// Only one daemon can serve guests: who holds the lock on it.
const LOCK: &str = "/run/ovmf-xen/varstored.lock";

/// A daemon.
#[derive(Debug)]
pub struct Daemon {
    xen: Rc<Xen>,
    store: Store,
    config: Config,
    guests: BTreeMap<DomainId, Guest>,
    /// Domains that are not served, so that they are looked at once.
    others: Vec<DomainId>,
    stores: Stores,
    buffers: Buffers,
    signals: SignalFd,
    _lock: Flock<File>,
}

impl Daemon {
    /// Opens everything as root, and becomes the user of the configuration.
    ///
    /// # Errors
    /// Says what is missing; another daemon runs.
    pub fn start(config: Config) -> Result<Self> {
        let lock = lock()?;
        let mut wanted = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            wanted.add(signal);
        }
        wanted.thread_block().context("signals")?;
        let signals =
            SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signals")?;
        let xen = Rc::new(Xen::open()?);
        let store = connect()?;
        privileges::prepare_folder(&config.folder, &config.user)?;
        let stores = Stores::new(&config.folder, config.template.as_deref())?;
        privileges::become_user(&config.user)?;
        store.watch_domains().context("watching xenstore")?;
        Ok(Self {
            xen,
            store,
            config,
            guests: BTreeMap::new(),
            others: Vec::new(),
            stores,
            buffers: Buffers::default(),
            signals,
            _lock: lock,
        })
    }

    /// Serves until it is told to end; then lets go of all guests.
    ///
    /// # Errors
    /// The devices'.
    pub fn run(mut self) -> Result<()> {
        // Guests that are there already are served before anybody is told.
        self.store.take_events();
        self.look_for_guests();
        journal::ready();
        log::info!("serving guests, stores in {}", self.config.folder.display());
        let mut timeout = PollTimeout::NONE;
        loop {
            let events = self.wait(timeout)?;
            if events.signal && self.signals.read_signal().context("signals")?.is_some() {
                break;
            }
            if events.request {
                self.serve()?;
            }
            if events.domain {
                let changes = self.store.take_events();
                if changes.released {
                    self.let_go_of_ended();
                }
                if changes.introduced {
                    self.look_for_guests();
                }
            }
            timeout = if self.stores.close_idle() { CLEAN_UP.into() } else { PollTimeout::NONE };
        }
        log::info!("letting go of {} guests", self.guests.len());
        for (_, guest) in std::mem::take(&mut self.guests) {
            guest.release(&self.store);
        }
        Ok(())
    }

    fn wait(&self, timeout: PollTimeout) -> Result<Events> {
        let mut sources = [self.xen.channels.as_fd(), self.store.as_fd(), self.signals.as_fd()]
            .map(|source| PollFd::new(source, PollFlags::POLLIN));
        match poll(&mut sources, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting"),
        }
        let [request, domain, signal] = sources.map(|source| source.any().unwrap_or(false));
        Ok(Events { request, domain, signal })
    }

    /// Serves one request. Guests take turns, as each of their ports is signalled once a request.
    fn serve(&mut self) -> Result<()> {
        let port = self.xen.channels.next().context("event channels")?;
        let Self { xen, store, guests, stores, buffers, .. } = self;
        let found = guests.values_mut().find_map(|guest| guest.attachment().vcpu(port).map(|vcpu| (guest, vcpu)));
        if let Some((guest, vcpu)) = found {
            guest.serve(vcpu, &mut Surroundings { xen, store, stores, buffers });
        }
        Ok(())
    }

    /// Attaches to guests that are new. Of those that are known nothing is asked: a guest that has just been introduced asks
    /// soon, and xenstore takes its time for each question.
    fn look_for_guests(&mut self) {
        let is_new = |domain: &DomainId| !self.guests.contains_key(domain) && !self.others.contains(domain);
        let new: Vec<DomainId> = self.store.domains().into_iter().filter(is_new).collect();
        for domain in new {
            if self.store.is_introduced(domain) {
                self.look_at(domain);
            }
        }
    }

    fn let_go_of_ended(&mut self) {
        let Self { store, others, guests, .. } = self;
        others.retain(|&domain| store.is_introduced(domain));
        let ended: Vec<DomainId> = guests.keys().filter(|&&domain| !store.is_introduced(domain)).copied().collect();
        for domain in ended {
            let Some(guest) = self.guests.remove(&domain) else { continue };
            log::debug!("domain {domain}: has ended");
            let Some(name) = guest.store() else { continue };
            // A guest that was saved may be back already, under another number.
            if !self.guests.values().any(|other| other.store() == Some(name)) {
                self.stores.close(name);
            }
        }
    }

    fn look_at(&mut self, domain: DomainId) {
        let wanted = Identity::read(&self.store, domain)
            .filter(|Identity { name, uuid }| domain != 0 && self.config.guests.contains(name, uuid));
        let attached = wanted.map(|identity| (Guest::attach(&self.xen, &self.store, domain), identity));
        match attached {
            Some((Ok(guest), identity)) => {
                log::debug!("domain {domain}: {} is served", identity.name);
                self.guests.insert(domain, guest);
                return;
            }
            // What Xen says where the domain is neither HVM nor PVH.
            Some((Err(error), _)) if error.kind() == io::ErrorKind::InvalidInput => {}
            Some((Err(error), identity)) => log::error!("domain {domain}: {} is not served: {error}", identity.name),
            None => {}
        }
        self.others.push(domain);
    }
}

/// What there is to do.
struct Events {
    request: bool,
    domain: bool,
    signal: bool,
}

/// Takes away the servers of a daemon that died, so that no guest waits for it any more: their firmware goes on with
/// errors for variables. Returns how many there were.
///
/// # Errors
/// A daemon runs; Xen's.
pub fn release() -> Result<usize> {
    let _lock = lock()?;
    let xen = Rc::new(Xen::open()?);
    let store = connect()?;
    let left: Vec<DomainId> =
        store.domains().into_iter().filter(|&domain| Note::read(&store, domain).is_some()).collect();
    for &domain in &left {
        match Guest::attach(&xen, &store, domain) {
            Ok(guest) => guest.release(&store),
            Err(error) => log::warn!("domain {domain}: {error}"),
        }
    }
    Ok(left.len())
}

fn lock() -> Result<Flock<File>> {
    let path = Path::new(LOCK);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    match Flock::lock(file.context(LOCK)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => {
            bail!("another ovmf-xen-varstored runs (it holds the lock {LOCK}): stop it first")
        }
        Err((_, error)) => Err(error).context(LOCK),
    }
}

fn connect() -> Result<Store> {
    Store::open().context("no xenstore answers: is this dom0, does xenstored run, and is this root?")
}
