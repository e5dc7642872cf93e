//! From devices in xenstore to connected disks.
//!
//! All disks are connected at the same time: each is as far as its backend is, and one wait serves them all. Of the backend
//! only those keys are read that are used, together in one round trip.

use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt::Write;

use arrayvec::{ArrayString, ArrayVec};
use hw::hypervisor::EventPort;
use xen_abi::XEN_IO_PROTO_ABI_X86_64;

use super::facts::{self, Facts, is_empty_medium};
use super::front::{Front, Parts};
use super::ring::FrontRing;
use super::{DataPath, Disk, Inner, Means};
use crate::diagnostics::{Failure, Reason, Step};
use crate::domain::{MILLISECOND, SECOND};
use crate::grants::{Access, GrantRef};
use crate::xenbus::{self, Device, STATE, State};
use crate::xenstore::{self, NONE, Operation, WatchId, Xenstore, parse_decimal};

/// How long backends may take to connect.
const TIMEOUT: u64 = 20 * SECOND;
/// How long [`begin`] waits for the first look at the backends.
const FIRST_LOOK: u64 = 100 * MILLISECOND;
/// How long the backends of failed attempts may take to let go.
const UNDO_TIMEOUT: u64 = 2 * SECOND;
/// How long the backend of a device that somebody left connected may take to let go.
const LEFTOVER_TIMEOUT: u64 = 5 * SECOND;
/// After so long the wait is mentioned.
const PATIENCE: u64 = 3 * SECOND;
/// Most pages of a ring, as a power of two (`XENBUS_MAX_RING_GRANT_ORDER` of Linux).
const RING_ORDER_MAX: u32 = 4;
const RING_PAGES_MAX: usize = 1 << RING_ORDER_MAX;
const RING_REFS: [&str; RING_PAGES_MAX] = [
    "ring-ref0",
    "ring-ref1",
    "ring-ref2",
    "ring-ref3",
    "ring-ref4",
    "ring-ref5",
    "ring-ref6",
    "ring-ref7",
    "ring-ref8",
    "ring-ref9",
    "ring-ref10",
    "ring-ref11",
    "ring-ref12",
    "ring-ref13",
    "ring-ref14",
    "ring-ref15",
];
const RING_REF: &str = "ring-ref";
const RING_PAGE_ORDER: &str = "ring-page-order";
const EVENT_CHANNEL: &str = "event-channel";
const PROTOCOL: &str = "protocol";
const FEATURE_PERSISTENT: &str = "feature-persistent";

/// The keys that we may have written beside `state`, to be removed at the end.
pub const KEYS_WRITTEN: [&str; 5 + RING_PAGES_MAX] = {
    let mut keys = [""; 5 + RING_PAGES_MAX];
    let own = [RING_REF, RING_PAGE_ORDER, EVENT_CHANNEL, PROTOCOL, FEATURE_PERSISTENT];
    let mut index = 0;
    while index < keys.len() {
        keys[index] = if index < own.len() { own[index] } else { RING_REFS[index - own.len()] };
        index += 1;
    }
    keys
};

/// What is read of a backend that does not know of our ring yet. The state is last: its changes are watched.
const NEW_KEYS: [&str; 3] = ["max-ring-page-order", "params", STATE];

/// A disk on its way.
struct Attempt {
    device: Device,
    backend_state: State,
    /// While the backend is told of it and not yet connected.
    ring: Option<Ring>,
    outcome: Option<Result<Connected, Failure>>,
}

/// A disk that is connected, the grants of its ring and its port.
type Connected = (Front, ArrayVec<GrantRef, RING_PAGES_MAX>, EventPort);

/// A ring the backend is told of.
struct Ring {
    ring: FrontRing,
    grants: ArrayVec<GrantRef, RING_PAGES_MAX>,
    port: EventPort,
}

/// Devices on their way to be disks.
pub struct Connecting {
    attempts: Vec<Attempt>,
    start: u64,
}

/// Begins to connect devices: as far as can be done without waiting for backends to set themselves up, which takes them long and
/// is theirs to do while we do something else.
pub fn begin(store: &mut Xenstore, means: &Means, mut devices: Vec<Device>) -> Connecting {
    close_leftovers(store, means, &mut devices);
    let mut attempts: Vec<Attempt> = devices.into_iter().map(Attempt::new).collect();
    for attempt in &mut attempts {
        let result = attempt.begin(store, means);
        attempt.settle(result);
    }
    let start = means.domain.now();
    let mut connecting = Connecting { attempts, start };
    let deadline = start.saturating_add(FIRST_LOOK);
    while connecting.attempts.iter().any(|attempt| attempt.outcome.is_none() && attempt.ring.is_none()) {
        connecting.advance(store, means);
        let watches = connecting.watches(|attempt| attempt.ring.is_none());
        if watches.is_empty() || !store.wait_for_event(&watches, deadline).unwrap_or(false) {
            break;
        }
    }
    connecting
}

/// Waits until the devices are connected or have failed; returns the disks in the order of the devices, and what failed.
pub fn finish(store: &mut Xenstore, means: &Means, mut connecting: Connecting) -> (Vec<Disk>, Vec<Failure>) {
    let deadline = connecting.start.saturating_add(TIMEOUT);
    let mut patience = Some(connecting.start.saturating_add(PATIENCE));
    loop {
        connecting.advance(store, means);
        let watches = connecting.watches(|_| true);
        if watches.is_empty() {
            break;
        }
        let attempts = &mut connecting.attempts;
        match store.wait_for_event(&watches, patience.unwrap_or(deadline)) {
            Ok(true) => {}
            Ok(false) if patience.take().is_some() => {
                for attempt in attempts.iter().filter(|attempt| attempt.outcome.is_none()) {
                    log::warn!("{}: still waiting for its backend (state {})", attempt.device, attempt.backend_state);
                }
            }
            Ok(false) => give_up(attempts, |state| Reason::Stuck(state, TIMEOUT / SECOND)),
            Err(error) => give_up(attempts, |_| error.into()),
        }
    }
    settle(store, means, connecting.attempts)
}

impl Connecting {
    /// Does what the backends' states allow.
    fn advance(&mut self, store: &mut Xenstore, means: &Means) {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.outcome.is_none()) {
            let result = attempt.advance(store, means);
            attempt.settle(result);
        }
    }

    /// The devices whose backends have been told of a ring.
    pub fn told(&self) -> impl Iterator<Item = &Device> {
        self.attempts.iter().filter(|attempt| attempt.ring.is_some()).map(|attempt| &attempt.device)
    }

    /// Watches of the open attempts that are `wanted`.
    fn watches(&self, wanted: impl Fn(&Attempt) -> bool) -> Vec<WatchId> {
        let open = self.attempts.iter().filter(|attempt| attempt.outcome.is_none() && wanted(attempt));
        open.filter_map(|attempt| attempt.device.watch).collect()
    }
}

/// Devices that somebody left connected are closed first.
fn close_leftovers(store: &mut Xenstore, means: &Means, devices: &mut [Device]) {
    let left = |device: &&mut Device| !matches!(device.found_in, State::Initialising | State::Unknown);
    for device in devices.iter_mut().filter(left) {
        log::info!("{device}: found in state {}, closing it first", device.found_in);
        if let Err(error) = device.watch_backend(store) {
            log::warn!("{device}: {error}");
            continue;
        }
        let deadline = means.domain.deadline(LEFTOVER_TIMEOUT);
        xenbus::close(store, &[&*device], &KEYS_WRITTEN, deadline);
        // Connecting sets a new one, whose first event starts it off.
        device.unwatch_backend(store);
    }
}

fn give_up(attempts: &mut [Attempt], reason: impl Fn(State) -> Reason) {
    for attempt in attempts.iter_mut().filter(|attempt| attempt.outcome.is_none()) {
        let reason = reason(attempt.backend_state);
        attempt.outcome = Some(Err(attempt.device.failure(Step::WaitingForBackend, reason)));
    }
}

/// Sorts the disks from the failures, and undoes what the failed ones had got to.
fn settle(store: &mut Xenstore, means: &Means, attempts: Vec<Attempt>) -> (Vec<Disk>, Vec<Failure>) {
    let (mut disks, mut failures, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for Attempt { device, ring, outcome, .. } in attempts {
        match outcome {
            Some(Ok((front, grants, port))) => disks.push(Disk {
                inner: Rc::new(Inner {
                    device: RefCell::new(device),
                    ring_grants: grants.to_vec(),
                    port,
                    front: RefCell::new(Some(front)),
                }),
            }),
            Some(Err(failure)) => {
                failures.push(failure);
                failed.push((device, ring));
            }
            // The loop above ends when all attempts have an outcome.
            None => failed.push((device, ring)),
        }
    }
    let told: Vec<&Device> = failed.iter().filter(|(_, ring)| ring.is_some()).map(|(device, _)| device).collect();
    if !told.is_empty() {
        xenbus::close(store, &told, &KEYS_WRITTEN, means.domain.deadline(UNDO_TIMEOUT));
    }
    for (mut device, ring) in failed {
        device.unwatch_backend(store);
        if let Some(ring) = ring {
            ring.free(means);
        }
    }
    (disks, failures)
}

impl Attempt {
    fn new(device: Device) -> Self {
        Self { device, backend_state: State::Unknown, ring: None, outcome: None }
    }

    fn settle(&mut self, result: Result<Option<Connected>, Failure>) {
        match result {
            Ok(None) => {}
            Ok(Some(connected)) => self.outcome = Some(Ok(connected)),
            Err(failure) => self.outcome = Some(Err(failure)),
        }
    }

    /// Does what the backend's state allows, if something happened there.
    fn advance(&mut self, store: &mut Xenstore, means: &Means) -> Result<Option<Connected>, Failure> {
        match self.device.watch {
            Some(watch) if !store.take_event(watch) => Ok(None),
            _ if self.ring.is_some() => self.advance_told(store, means),
            _ => {
                let values = self.read_backend(store, &NEW_KEYS)?;
                self.advance_new(store, means, &values)
            }
        }
    }

    /// The first look at the backend, with a watch for what it does from then on.
    fn begin(&mut self, store: &mut Xenstore, means: &Means) -> Result<Option<Connected>, Failure> {
        let mut values = Vec::with_capacity(NEW_KEYS.len());
        let reads = NEW_KEYS.map(|key| self.device.back(key));
        let watch = store.watch_and_read(self.device.back(STATE), &reads, |_, reply| {
            values.push(reply.ok().map(<[u8]>::to_vec));
        });
        self.device.watch = Some(watch.map_err(|error| self.device.failure(Step::ReadingDescription, error))?);
        self.advance_new(store, means, &values)
    }

    /// The backend does not know of our ring yet: tells it when it is ready to hear.
    /// `values` are those of [`NEW_KEYS`].
    fn advance_new(
        &mut self,
        store: &mut Xenstore,
        means: &Means,
        values: &[Option<Vec<u8>>],
    ) -> Result<Option<Connected>, Failure> {
        let [order, params, state] = [0, 1, 2].map(|index| values.get(index).and_then(Option::as_deref));
        self.backend_state = state.map_or(State::Unknown, State::parse);
        if &*self.device.device_type == "cdrom" && params.is_some_and(is_empty_medium) {
            return Err(self.device.failure(Step::ReadingDescription, Reason::NoMedium));
        }
        match self.backend_state {
            State::InitWait | State::Initialised => {
                let order = order.and_then(parse_decimal).unwrap_or(0).min(RING_ORDER_MAX.into()) as u32;
                let order = order.min(means.options.ring_order);
                let ring = Ring::make(&self.device, means, order);
                let ring = ring.map_err(|reason| self.device.failure(Step::MakingRing, reason))?;
                let ring = self.ring.insert(ring);
                let persistent = means.options.path != Some(DataPath::Direct);
                let result = ring.publish(store, &self.device, persistent);
                result.map(|()| None).map_err(|error| self.device.failure(Step::Publishing, error))
            }
            State::Closing | State::Closed => Err(self.leaving()),
            _ => Ok(None),
        }
    }

    /// The backend knows of our ring: takes what it says of the disk once it is connected.
    fn advance_told(&mut self, store: &mut Xenstore, means: &Means) -> Result<Option<Connected>, Failure> {
        let mut keys = [STATE; 1 + facts::KEYS.len()];
        keys[1..].copy_from_slice(&facts::KEYS);
        // One round trip: the backend writes the state last, so if that is Connected, the rest is there.
        let values = self.read_backend(store, &keys)?;
        self.backend_state = values[0].as_deref().map_or(State::Unknown, State::parse);
        match self.backend_state {
            State::Connected => {}
            State::Closing | State::Closed => return Err(self.leaving()),
            _ => return Ok(None),
        }
        let device = &self.device;
        let facts = Facts::parse(&values[1..], &device.device_type)
            .map_err(|reason| device.failure(Step::ReadingDescription, reason))?;
        store
            .write(NONE, device.front(STATE), State::Connected.value())
            .map_err(|error| device.failure(Step::Publishing, error))?;
        Ok(self.ring.take().map(|Ring { ring, grants, port }| {
            let parts = Parts {
                domain: means.domain,
                grants: means.grants.clone(),
                peer: self.device.peer,
                number: self.device.number,
                title: self.device.to_string(),
                ring,
                port,
                facts,
            };
            (Front::new(parts, &means.options), grants, port)
        }))
    }

    fn read_backend(&self, store: &mut Xenstore, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let reads: Vec<Operation<'_>> = keys.iter().map(|key| Operation::Read(self.device.back(key))).collect();
        let mut values = Vec::with_capacity(keys.len());
        store
            .perform(NONE, &reads, |_, reply| values.push(reply.ok().map(<[u8]>::to_vec)))
            .map_err(|error| self.device.failure(Step::ReadingDescription, error))?;
        values.resize(keys.len(), None);
        Ok(values)
    }

    fn leaving(&self) -> Failure {
        self.device.failure(Step::WaitingForBackend, Reason::Leaving(self.backend_state))
    }
}

impl Ring {
    fn make(device: &Device, means: &Means, order: u32) -> Result<Self, Reason> {
        let pages = means.domain.frames.allocate(1 << order).ok_or(Reason::OutOfMemory)?;
        let port = match means.ports.allocate(device.peer) {
            Ok(port) => port,
            Err(error) => {
                means.domain.frames.free(pages);
                return Err(error.into());
            }
        };
        let mut made = Self { ring: FrontRing::new(pages), grants: ArrayVec::new(), port };
        for page in 0..1 << order {
            let gfn = made.ring.pages().gfn(page);
            match means.grants.grant(device.peer, gfn, Access::ReadWrite) {
                Ok(grant) => made.grants.push(grant),
                Err(error) => {
                    made.free(means);
                    return Err(error.into());
                }
            }
        }
        Ok(made)
    }

    /// Writes the keys that describe the ring, then the state that has the backend read them; one round trip for usual rings.
    fn publish(&self, store: &mut Xenstore, device: &Device, persistent: bool) -> xenstore::Result<()> {
        let order = self.grants.len().ilog2();
        let port = decimal(self.port.0);
        let order_text = decimal(order);
        let references: ArrayVec<ArrayString<10>, RING_PAGES_MAX> =
            self.grants.iter().map(|grant| decimal(grant.0)).collect();
        let write = |name, value| Operation::Write(device.front(name), value);
        let mut operations: ArrayVec<Operation<'_>, { KEYS_WRITTEN.len() + 1 }> = ArrayVec::new();
        operations.push(write(PROTOCOL, XEN_IO_PROTO_ABI_X86_64.strip_suffix(b"\0").unwrap_or_default()));
        operations.push(write(EVENT_CHANNEL, port.as_bytes()));
        if persistent {
            operations.push(write(FEATURE_PERSISTENT, b"1"));
        }
        if order == 0 {
            operations.push(write(RING_REF, references[0].as_bytes()));
        } else {
            operations.push(write(RING_PAGE_ORDER, order_text.as_bytes()));
            let named = RING_REFS.iter().zip(&references);
            operations.extend(named.map(|(name, value)| write(name, value.as_bytes())));
        }
        operations.push(write(STATE, State::Initialised.value()));
        store.perform_all(NONE, &operations)
    }

    /// Takes everything back that the backend does not have mapped.
    fn free(self, means: &Means) {
        means.ports.close(self.port);
        let in_use = self.grants.iter().filter(|&&grant| means.grants.end(grant).is_err()).count();
        if in_use == 0 {
            means.domain.frames.free(self.ring.into_pages());
        }
    }
}

fn decimal(number: u32) -> ArrayString<10> {
    let mut text = ArrayString::new();
    // Ten digits hold any 32-bit number.
    let _ = write!(text, "{number}");
    text
}
