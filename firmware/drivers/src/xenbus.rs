//! Devices in xenstore and the state machine between their two halves (`public/io/xenbus.h`).
//!
//! A device is two directories: the frontend's (`device/<kind>/<number>`, ours) and the backend's, in another domain's
//! part of the store. Each half writes its `state` and watches the other's.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use arrayvec::{ArrayString, ArrayVec};
use hw::hypervisor::DomainId;
use xen_abi::{
    xenbus_state_XenbusStateClosed as CLOSED, xenbus_state_XenbusStateClosing as CLOSING,
    xenbus_state_XenbusStateConnected as CONNECTED, xenbus_state_XenbusStateInitWait as INIT_WAIT,
    xenbus_state_XenbusStateInitialised as INITIALISED, xenbus_state_XenbusStateInitialising as INITIALISING,
    xenbus_state_XenbusStateReconfigured as RECONFIGURED, xenbus_state_XenbusStateReconfiguring as RECONFIGURING,
};

use crate::diagnostics::{Failure, Reason, Step, excerpt};
use crate::xenstore::{self, Key, NONE, Operation, WatchId, Xenstore, parse_decimal};

/// Name of the key that holds a half's state.
pub const STATE: &str = "state";
/// Most devices of a kind that are used.
const DEVICES_MAX: usize = 32;
/// First domain number that is no domain but has a meaning of its own (`DOMID_FIRST_RESERVED`).
const DOMID_FIRST_RESERVED: u64 = 0x7FF0;
/// Most devices handled in one round trip.
const ROUND: usize = 16;

/// State of one half of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// No state, or a number without a meaning.
    Unknown,
    /// New.
    Initialising,
    /// Has said what it can do and waits for the other half.
    InitWait,
    /// Has said how it wants to be connected.
    Initialised,
    /// In operation.
    Connected,
    /// Going out of operation.
    Closing,
    /// Out of operation.
    Closed,
    /// Being changed.
    Reconfiguring,
    /// Changed.
    Reconfigured,
}

impl State {
    /// The state that a value in xenstore stands for.
    pub fn parse(value: &[u8]) -> Self {
        match parse_decimal(value).and_then(|number| u32::try_from(number).ok()) {
            Some(INITIALISING) => Self::Initialising,
            Some(INIT_WAIT) => Self::InitWait,
            Some(INITIALISED) => Self::Initialised,
            Some(CONNECTED) => Self::Connected,
            Some(CLOSING) => Self::Closing,
            Some(CLOSED) => Self::Closed,
            Some(RECONFIGURING) => Self::Reconfiguring,
            Some(RECONFIGURED) => Self::Reconfigured,
            _ => Self::Unknown,
        }
    }

    /// The value in xenstore: the number of `enum xenbus_state` in decimal.
    pub fn value(self) -> &'static [u8] {
        match self {
            Self::Unknown => b"0",
            Self::Initialising => b"1",
            Self::InitWait => b"2",
            Self::Initialised => b"3",
            Self::Connected => b"4",
            Self::Closing => b"5",
            Self::Closed => b"6",
            Self::Reconfiguring => b"7",
            Self::Reconfigured => b"8",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A device, seen from the frontend.
#[derive(Debug)]
pub struct Device {
    /// Its number, which is the name of its directory.
    pub number: u32,
    /// The name people know it by.
    pub name: ArrayString<16>,
    /// The frontend's directory.
    pub frontend: String,
    /// The backend's directory.
    pub backend: String,
    /// The backend's domain.
    pub peer: DomainId,
    /// What the frontend's directory says about its type (`disk`, `cdrom`).
    pub device_type: ArrayString<16>,
    /// The frontend's state when it was found.
    pub found_in: State,
    /// A watch on the backend's state, while there is one.
    pub watch: Option<WatchId>,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.frontend, self.name)
    }
}

impl Device {
    /// The failure of a step with this device.
    pub fn failure(&self, step: Step, reason: impl Into<Reason>) -> Failure {
        Failure { device: self.to_string(), step, reason: reason.into() }
    }

    /// A key in the frontend's directory.
    pub fn front<'a>(&'a self, name: &'a str) -> Key<'a> {
        Key::new(&self.frontend, name)
    }

    /// A key in the backend's directory.
    pub fn back<'a>(&'a self, name: &'a str) -> Key<'a> {
        Key::new(&self.backend, name)
    }

    /// Sets a watch on the backend's state, if there is none yet.
    pub fn watch_backend(&mut self, store: &mut Xenstore) -> xenstore::Result<()> {
        if self.watch.is_none() {
            self.watch = Some(store.watch(self.back(STATE))?);
        }
        Ok(())
    }

    /// Ends the watch on the backend's state.
    pub fn unwatch_backend(&mut self, store: &mut Xenstore) {
        if let Some(watch) = self.watch.take()
            && let Err(error) = store.unwatch(watch)
        {
            log::warn!("{self}: ending the watch on its backend: {error}");
        }
    }
}

/// Finds the devices of a kind, ordered by number, in two round trips. `name` makes a name of a number.
///
/// Those that make no sense are left out and reported.
pub fn devices(
    store: &mut Xenstore,
    kind: &str,
    name: fn(u32) -> ArrayString<16>,
) -> Result<(Vec<Device>, Vec<Failure>), Failure> {
    let directory = alloc::format!("device/{kind}");
    let fail = |reason: Reason| Failure { device: directory.clone(), step: Step::Enumerating, reason };
    let names = match store.directory(NONE, Key::path(&directory)) {
        Ok(names) => names,
        Err(xenstore::Error::NotFound) => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(fail(error.into())),
    };
    let mut numbers: Vec<u32> = names
        .iter()
        .filter_map(|name| parse_decimal(name.as_bytes()).and_then(|number| u32::try_from(number).ok()))
        .collect();
    numbers.sort_unstable();
    if numbers.len() > DEVICES_MAX {
        log::warn!("{directory}: {} devices, of which the first {DEVICES_MAX} are used", numbers.len());
        numbers.truncate(DEVICES_MAX);
    }
    const KEYS: [&str; 4] = ["backend", "backend-id", "device-type", STATE];
    let paths: Vec<String> = numbers.iter().map(|number| alloc::format!("{directory}/{number}")).collect();
    let reads: Vec<Operation<'_>> =
        paths.iter().flat_map(|path| KEYS.map(|key| Operation::Read(Key::new(path, key)))).collect();
    let mut values: Vec<Option<Vec<u8>>> = Vec::new();
    store
        .perform(NONE, &reads, |_, reply| values.push(reply.ok().map(<[u8]>::to_vec)))
        .map_err(|error| fail(error.into()))?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for ((number, path), values) in numbers.into_iter().zip(paths).zip(values.chunks(KEYS.len())) {
        match device(number, name(number), path.clone(), values) {
            Ok(device) => found.push(device),
            Err(reason) => failures.push(Failure {
                device: alloc::format!("{path} ({})", name(number)),
                step: Step::ReadingDescription,
                reason,
            }),
        }
    }
    Ok((found, failures))
}

fn device(number: u32, name: ArrayString<16>, frontend: String, values: &[Option<Vec<u8>>]) -> Result<Device, Reason> {
    let value = |index: usize| values.get(index).and_then(Option::as_deref);
    let backend = value(0).ok_or(Reason::Missing("backend"))?;
    let path = core::str::from_utf8(backend).ok().filter(|path| is_backend_path(path));
    let path = path.ok_or_else(|| Reason::Value("backend", excerpt(backend)))?;
    let peer = value(1).ok_or(Reason::Missing("backend-id"))?;
    let id = parse_decimal(peer).filter(|&id| id < DOMID_FIRST_RESERVED);
    let id = id.ok_or_else(|| Reason::Value("backend-id", excerpt(peer)))?;
    let device_type = value(2).and_then(|text| core::str::from_utf8(text).ok());
    Ok(Device {
        number,
        name,
        frontend,
        backend: path.to_string(),
        peer: DomainId(id as u16),
        device_type: device_type.and_then(|text| ArrayString::from(text).ok()).unwrap_or_default(),
        found_in: value(3).map_or(State::Unknown, State::parse),
        watch: None,
    })
}

/// An absolute path with room left for the name of a key.
fn is_backend_path(path: &str) -> bool {
    const LONGEST: usize = 256;
    path.starts_with('/')
        && path.len() <= LONGEST
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte))
}

/// Closes connections, all at the same time: Closing, Closed, then our keys are removed and Initialising is set again, each
/// step as soon as the backend has followed. What the backends have not done by `deadline` is reported and left to the next
/// user of the device. Does not allocate unless it has to report.
///
/// `keys` are the names we wrote beside `state`. Returns whether each of the first [`usize::BITS`] devices was closed by its
/// backend, so that what it had mapped is free.
pub fn close(store: &mut Xenstore, devices: &[&Device], keys: &[&str], deadline: u64) -> usize {
    let mut closed = 0;
    for (round, devices) in devices.chunks(ROUND).enumerate() {
        let bits = close_round(store, devices, keys, deadline);
        closed |= bits.checked_shl((round * ROUND) as u32).unwrap_or(0);
    }
    closed
}

fn close_round(store: &mut Xenstore, devices: &[&Device], keys: &[&str], deadline: u64) -> usize {
    let all = (1usize << devices.len()) - 1;
    set_state(store, devices, all, State::Closing);
    wait_for(store, devices, all, deadline, |state| !matches!(state, State::Connected | State::Initialised));
    set_state(store, devices, all, State::Closed);
    // A backend that is told to stay around may have gone on to InitWait already.
    let closed = wait_for(store, devices, all, deadline, |state| {
        matches!(state, State::Closed | State::InitWait | State::Initialising | State::Unknown)
    });
    for (index, device) in devices.iter().enumerate() {
        let mut operations: ArrayVec<Operation<'_>, 32> =
            keys.iter().take(31).map(|key| Operation::Remove(device.front(key))).collect();
        if closed & (1 << index) != 0 {
            operations.push(Operation::Write(device.front(STATE), State::Initialising.value()));
        }
        // Keys that are not there need not be removed; a broken connection has been reported.
        let _ = store.perform(NONE, &operations, |_, _| {});
    }
    let ready = wait_for(store, devices, closed, deadline, |state| matches!(state, State::InitWait | State::Unknown));
    for (index, device) in devices.iter().enumerate() {
        if ready & (1 << index) == 0 {
            log::warn!("{device}: closing: the backend did not follow in time");
        }
    }
    closed
}

fn set_state(store: &mut Xenstore, devices: &[&Device], which: usize, state: State) {
    let operations: ArrayVec<Operation<'_>, ROUND> = devices
        .iter()
        .enumerate()
        .filter(|(index, _)| which & (1 << index) != 0)
        .map(|(_, device)| Operation::Write(device.front(STATE), state.value()))
        .collect();
    if let Err(error) = store.perform_all(NONE, &operations) {
        log::warn!("xenbus: setting state {state}: {error}");
    }
}

/// Waits for the backends of the devices in `which`; returns those whose state satisfied `done`.
fn wait_for(
    store: &mut Xenstore,
    devices: &[&Device],
    which: usize,
    deadline: u64,
    done: impl Fn(State) -> bool,
) -> usize {
    let mut waiting = which;
    loop {
        let indices: ArrayVec<usize, ROUND> = (0..devices.len()).filter(|index| waiting & (1 << index) != 0).collect();
        for &index in &indices {
            // The event is forgotten before the state is read, so a later change is not missed.
            devices[index].watch.map(|watch| store.take_event(watch));
        }
        let reads: ArrayVec<Operation<'_>, ROUND> =
            indices.iter().map(|&index| Operation::Read(devices[index].back(STATE))).collect();
        let result = store.perform(NONE, &reads, |number, reply| {
            let state = match reply {
                Ok(value) => State::parse(value),
                Err(_) => State::Unknown,
            };
            if done(state) {
                waiting &= !(1 << indices[number]);
            }
        });
        let watches: ArrayVec<WatchId, ROUND> =
            indices.iter().filter(|&&index| waiting & (1 << index) != 0).filter_map(|&i| devices[i].watch).collect();
        if waiting == 0 || result.is_err() || !matches!(store.wait_for_event(&watches, deadline), Ok(true)) {
            return which & !waiting;
        }
    }
}
