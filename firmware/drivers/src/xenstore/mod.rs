//! Client of the xenstore daemon (`public/io/xs_wire.h`, `docs/misc/xenstore.txt`, `docs/misc/xenstore-ring.txt`).
//!
//! | type | what |
//! | --- | --- |
//! | [`Xenstore`] | the connection |
//! | [`Operation`], [`Key`] | one request, what it is about |
//! | [`WatchId`] | a watch; events of a watch that nobody has asked about yet merge into one |
//! | [`Transaction`] | operations that take effect together or not at all |
//!
//! Every round trip costs two switches to the daemon's domain, so [`Xenstore::perform`] sends many requests at once and
//! takes the answers as they come. It does not allocate, so the hand-over to the operating system can use it.
//!
//! A daemon that is silent, or writes what the protocol does not allow, breaks the connection: all later operations
//! fail at once with the reason.

mod ring;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use arrayvec::ArrayVec;
use hw::hypervisor::{Errno, EventPort, Gfn};
use xen_abi::{
    HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN, XENSTORE_PAYLOAD_MAX, xsd_sockmsg, xsd_sockmsg_type,
    xsd_sockmsg_type_XS_DIRECTORY as XS_DIRECTORY, xsd_sockmsg_type_XS_ERROR as XS_ERROR,
    xsd_sockmsg_type_XS_READ as XS_READ, xsd_sockmsg_type_XS_RM as XS_RM,
    xsd_sockmsg_type_XS_TRANSACTION_END as XS_TRANSACTION_END,
    xsd_sockmsg_type_XS_TRANSACTION_START as XS_TRANSACTION_START, xsd_sockmsg_type_XS_UNWATCH as XS_UNWATCH,
    xsd_sockmsg_type_XS_WATCH as XS_WATCH, xsd_sockmsg_type_XS_WATCH_EVENT as XS_WATCH_EVENT,
    xsd_sockmsg_type_XS_WRITE as XS_WRITE,
};

use crate::domain::{Domain, MILLISECOND, SECOND};
use ring::Ring;

/// How long the daemon may be silent before it is given up.
pub const TIMEOUT: u64 = 10 * SECOND;
/// How often a transaction is tried that others keep getting in the way of.
const TRANSACTION_ATTEMPTS: usize = 16;
/// Most requests under way at once; one bit of a word each. Few enough not to meet the daemon's own limit.
const BATCH: usize = 16;
/// Most watches at once.
const WATCHES: usize = 64;
const HEADER: usize = size_of::<xsd_sockmsg>();
const PAYLOAD_MAX: usize = XENSTORE_PAYLOAD_MAX as usize;

/// Why an operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// There is no such key (`ENOENT`).
    NotFound,
    /// We may not (`EACCES`, `EPERM`).
    Denied,
    /// It is there already (`EEXIST`).
    Exists,
    /// Somebody else changed what a transaction used (`EAGAIN`).
    Again,
    /// The daemon does not like the request (`EINVAL`).
    Invalid,
    /// A quota of this domain is used up (`ENOSPC`, `E2BIG`).
    Quota,
    /// Any other error the daemon names; the first bytes of the name.
    Daemon([u8; 12]),
    /// Larger than a message can be.
    TooLong,
    /// An answer to the request that makes no sense.
    Nonsense,
    /// There is no connection to make: the toolstack gave no ring.
    NoRing,
    /// A hypercall failed.
    Hypervisor(Errno),
    /// All watches are taken.
    TooManyWatches,
    /// The connection is broken.
    Broken(Break),
}

/// What broke the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Break {
    /// No answer within this many milliseconds.
    Silent(u64),
    /// Ring indices that cannot be.
    Indices,
    /// A message longer than the protocol allows.
    MessageLength(u32),
    /// An answer to a question that was not asked.
    Unasked(u32),
    /// The ring has been handed over to the operating system.
    HandedOver,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such key in xenstore"),
            Self::Denied => f.write_str("xenstore denies access"),
            Self::Exists => f.write_str("the key exists"),
            Self::Again => f.write_str("a xenstore transaction kept being disturbed"),
            Self::Invalid => f.write_str("xenstore calls the request invalid"),
            Self::Quota => f.write_str("this domain's xenstore quota is used up"),
            Self::Daemon(name) => {
                let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
                write!(f, "xenstore error {}", name[..end].escape_ascii())
            }
            Self::TooLong => f.write_str("longer than a xenstore message can be"),
            Self::Nonsense => f.write_str("a value in xenstore that makes no sense"),
            Self::NoRing => f.write_str("the toolstack gave no xenstore ring"),
            Self::Hypervisor(error) => write!(f, "{error}"),
            Self::TooManyWatches => f.write_str("too many xenstore watches"),
            Self::Broken(reason) => write!(f, "{reason}"),
        }
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(milliseconds) => {
                write!(f, "xenstored did not answer within {milliseconds} ms; is it running in dom0?")
            }
            Self::Indices => f.write_str("xenstored broke the protocol: impossible ring indices"),
            Self::MessageLength(length) => write!(f, "xenstored broke the protocol: message of {length} bytes"),
            Self::Unasked(id) => write!(f, "xenstored broke the protocol: answer to request {id} that is not open"),
            Self::HandedOver => f.write_str("xenstore belongs to the operating system now"),
        }
    }
}

impl core::error::Error for Error {}

/// Result of an operation.
pub type Result<T> = core::result::Result<T, Error>;

/// A key: a directory and a name in it; an empty name means the directory itself. Paths that do not begin with a slash are
/// relative to this domain's own part of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key<'a> {
    directory: &'a str,
    name: &'a str,
}

impl<'a> Key<'a> {
    /// The key `name` in `directory`.
    pub const fn new(directory: &'a str, name: &'a str) -> Self {
        Self { directory, name }
    }

    /// A path as it is.
    pub const fn path(path: &'a str) -> Self {
        Self { directory: path, name: "" }
    }

    fn separator(&self) -> &'static [u8] {
        if self.name.is_empty() { b"" } else { b"/" }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.directory)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, "/{}", self.name) }
    }
}

/// A transaction; [`NONE`] for operations that stand alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transaction(u32);

/// No transaction.
pub const NONE: Transaction = Transaction(0);

/// A watch of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchId(u8);

impl WatchId {
    /// The token the daemon sends back with events: the number in two hexadecimal digits.
    fn token(self) -> [u8; 2] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        [DIGITS[usize::from(self.0 >> 4)], DIGITS[usize::from(self.0 & 15)]]
    }

    fn from_token(token: &[u8]) -> Option<Self> {
        let token = core::str::from_utf8(token).ok().filter(|token| token.len() == 2)?;
        u8::from_str_radix(token, 16).ok().filter(|&number| usize::from(number) < WATCHES).map(Self)
    }
}

/// A request to the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation<'a> {
    /// Reads a value.
    Read(Key<'a>),
    /// Lists the names in a directory, each followed by a zero byte.
    Directory(Key<'a>),
    /// Writes a value, making the key where needed.
    Write(Key<'a>, &'a [u8]),
    /// Removes a key and all below it.
    Remove(Key<'a>),
    /// Watches a key and all below it. There is always a first event at once.
    Watch(Key<'a>, WatchId),
    /// Ends a watch.
    Unwatch(Key<'a>, WatchId),
    /// Begins a transaction; the answer is its number.
    TransactionStart,
    /// Ends a transaction, keeping (`true`) or forgetting what it did.
    TransactionEnd(bool),
}

/// A request as it goes over the ring: kind, and payload in pieces.
struct Message<'a> {
    kind: xsd_sockmsg_type,
    payload: [&'a [u8]; 6],
}

impl<'a> Operation<'a> {
    fn message(&self, token: &'a [u8]) -> Message<'a> {
        const NUL: &[u8] = b"\0";
        let of_key = |kind, key: &Key<'a>, rest: [&'a [u8]; 3]| Message {
            kind,
            payload: [key.directory.as_bytes(), key.separator(), key.name.as_bytes(), rest[0], rest[1], rest[2]],
        };
        let bare = |kind, text: &'a [u8]| Message { kind, payload: [text, b"", b"", b"", b"", b""] };
        match self {
            Self::Read(key) => of_key(XS_READ, key, [NUL, b"", b""]),
            Self::Directory(key) => of_key(XS_DIRECTORY, key, [NUL, b"", b""]),
            Self::Write(key, value) => of_key(XS_WRITE, key, [NUL, value, b""]),
            Self::Remove(key) => of_key(XS_RM, key, [NUL, b"", b""]),
            Self::Watch(key, _) => of_key(XS_WATCH, key, [NUL, token, NUL]),
            Self::Unwatch(key, _) => of_key(XS_UNWATCH, key, [NUL, token, NUL]),
            Self::TransactionStart => bare(XS_TRANSACTION_START, NUL),
            Self::TransactionEnd(keep) => bare(XS_TRANSACTION_END, if *keep { b"T\0" } else { b"F\0" }),
        }
    }

    fn token(&self) -> [u8; 2] {
        match self {
            Self::Watch(_, id) | Self::Unwatch(_, id) => id.token(),
            _ => [0; 2],
        }
    }
}

/// A watch that is set: its path, and whether something happened under it.
#[derive(Debug)]
struct Watch {
    id: WatchId,
    path: String,
    fired: bool,
}

/// The connection to the daemon.
#[derive(Debug)]
pub struct Xenstore {
    domain: Domain,
    port: EventPort,
    ring: Ring,
    next_id: u32,
    broken: Option<Break>,
    /// The message that is arriving: header, then payload.
    incoming: Vec<u8>,
    watches: Vec<Watch>,
}

impl Xenstore {
    /// Takes the ring that the toolstack set up into use.
    pub fn open(domain: Domain) -> Result<Self> {
        let parameter = |index| domain.hypervisor.hvm_param(index).map_err(Error::Hypervisor);
        let gfn = parameter(HVM_PARAM_STORE_PFN)?;
        let port = parameter(HVM_PARAM_STORE_EVTCHN)?;
        let port = EventPort(u32::try_from(port).ok().filter(|&port| port != 0).ok_or(Error::NoRing)?);
        if gfn == 0 {
            return Err(Error::NoRing);
        }
        let page = domain.frames.map(Gfn(gfn), 1).ok_or(Error::NoRing)?;
        let ring = Ring::attach(page).map_err(Error::Broken)?;
        Ok(Self {
            domain,
            port,
            ring,
            next_id: 1,
            broken: None,
            incoming: Vec::with_capacity(HEADER + PAYLOAD_MAX),
            watches: Vec::with_capacity(WATCHES),
        })
    }

    /// Performs operations in order, sending them together; `on_reply` gets each one's number and answer, in order.
    ///
    /// The result is an error only if the connection broke, and then some operations had no answer. Does not allocate.
    pub fn perform(
        &mut self,
        transaction: Transaction,
        operations: &[Operation<'_>],
        mut on_reply: impl FnMut(usize, Result<&[u8]>),
    ) -> Result<()> {
        for (batch, operations) in operations.chunks(BATCH).enumerate() {
            self.batch(transaction, operations, |index, reply| on_reply(batch * BATCH + index, reply))?;
        }
        Ok(())
    }

    /// Performs operations whose answers are of no interest; the first error, if any.
    pub fn perform_all(&mut self, transaction: Transaction, operations: &[Operation<'_>]) -> Result<()> {
        let mut result = Ok(());
        self.perform(transaction, operations, |_, reply| {
            if let (Ok(()), Err(error)) = (result, reply) {
                result = Err(error);
            }
        })?;
        result
    }

    /// Reads a value.
    pub fn read(&mut self, transaction: Transaction, key: Key<'_>) -> Result<Vec<u8>> {
        self.one(transaction, Operation::Read(key), |value| Ok(value.to_vec()))
    }

    /// Lists the names in a directory. Names that are not text are left out.
    pub fn directory(&mut self, transaction: Transaction, key: Key<'_>) -> Result<Vec<String>> {
        self.one(transaction, Operation::Directory(key), |names| {
            let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
            Ok(names.filter_map(|name| core::str::from_utf8(name).ok()).map(ToString::to_string).collect())
        })
    }

    /// Writes a value.
    pub fn write(&mut self, transaction: Transaction, key: Key<'_>, value: &[u8]) -> Result<()> {
        self.perform_all(transaction, &[Operation::Write(key, value)])
    }

    /// Removes a key and all below it.
    pub fn remove(&mut self, transaction: Transaction, key: Key<'_>) -> Result<()> {
        self.perform_all(transaction, &[Operation::Remove(key)])
    }

    /// Runs `f` in a transaction, again if others got in the way. An error of `f` undoes what it did.
    pub fn transaction<T>(&mut self, mut f: impl FnMut(&mut Self, Transaction) -> Result<T>) -> Result<T> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let number = self.one(NONE, Operation::TransactionStart, |number| {
                let number = number.strip_suffix(b"\0").unwrap_or(number);
                parse_decimal(number).and_then(|number| u32::try_from(number).ok()).ok_or(Error::Nonsense)
            })?;
            let transaction = Transaction(number);
            let result = f(self, transaction);
            let end = self.perform_all(transaction, &[Operation::TransactionEnd(result.is_ok())]);
            match (result, end) {
                (Ok(_), Err(Error::Again)) | (Err(Error::Again), _) => {}
                (Ok(_), Err(error)) => return Err(error),
                (result, _) => return result,
            }
        }
        Err(Error::Again)
    }

    /// A number for a watch, to be set with [`Operation::Watch`] on the same `key`.
    pub fn new_watch(&mut self, key: Key<'_>) -> Result<WatchId> {
        let free = |id: &WatchId| self.watches.iter().all(|watch| watch.id != *id);
        let id = (0..WATCHES as u8).map(WatchId).find(free).ok_or(Error::TooManyWatches)?;
        self.watches.push(Watch { id, path: key.to_string(), fired: false });
        Ok(id)
    }

    /// Watches a key and all below it.
    pub fn watch(&mut self, key: Key<'_>) -> Result<WatchId> {
        let id = self.new_watch(key)?;
        let result = self.perform_all(NONE, &[Operation::Watch(key, id)]);
        if result.is_err() {
            self.watches.retain(|watch| watch.id != id);
        }
        result.map(|()| id)
    }

    /// Watches a key and then performs reads, in one round trip; `on_reply` gets each one's number and answer. What the first
    /// event of the watch would tell is in the answers, so it is taken; the key whose changes count must be read last, as a
    /// change after that is another event.
    pub fn watch_and_read(
        &mut self,
        key: Key<'_>,
        reads: &[Key<'_>],
        mut on_reply: impl FnMut(usize, Result<&[u8]>),
    ) -> Result<WatchId> {
        let id = self.new_watch(key)?;
        let mut operations: ArrayVec<Operation<'_>, BATCH> = ArrayVec::new();
        operations.push(Operation::Watch(key, id));
        operations.extend(reads.iter().take(BATCH - 1).map(|key| Operation::Read(*key)));
        let mut watched = Ok(());
        let result = self.perform(NONE, &operations, |index, reply| match index.checked_sub(1) {
            None => watched = reply.map(drop),
            Some(read) => on_reply(read, reply),
        });
        if let Err(error) = result.and(watched) {
            self.watches.retain(|watch| watch.id != id);
            return Err(error);
        }
        self.take_event(id);
        Ok(id)
    }

    /// Ends a watch. Events that are under way are dropped when they arrive.
    pub fn unwatch(&mut self, id: WatchId) -> Result<()> {
        let Some(index) = self.watches.iter().position(|watch| watch.id == id) else { return Ok(()) };
        let watch = self.watches.swap_remove(index);
        self.perform_all(NONE, &[Operation::Unwatch(Key::path(&watch.path), id)])
    }

    /// Whether something happened under the watch since the last call.
    pub fn take_event(&mut self, id: WatchId) -> bool {
        let watch = self.watches.iter_mut().find(|watch| watch.id == id);
        watch.is_some_and(|watch| core::mem::take(&mut watch.fired))
    }

    /// Waits until one of `watches` has fired or the deadline has passed. `Ok(false)` means the deadline. Which watch it was
    /// says [`take_event`](Self::take_event).
    pub fn wait_for_event(&mut self, watches: &[WatchId], deadline: u64) -> Result<bool> {
        loop {
            if let Some(reason) = self.broken {
                return Err(Error::Broken(reason));
            }
            if self.watches.iter().any(|watch| watch.fired && watches.contains(&watch.id)) {
                return Ok(true);
            }
            if let Some(header) = self.receive()? {
                // Between requests the daemon has nothing but events to say.
                if header.kind != XS_WATCH_EVENT {
                    return Err(self.break_off(Break::Unasked(header.req_id)));
                }
                self.note_event();
                // Events nobody waits for must not keep us here.
                if self.domain.now() < deadline {
                    continue;
                }
            }
            if !self.wait_for_ring(deadline, Ring::has_responses) {
                return Ok(false);
            }
        }
    }

    /// Hands the ring over to the operating system: ends all watches, drops what is under way, and where the daemon knows
    /// how, has it start the connection afresh. Bounded by `deadline`; does not allocate.
    pub fn shut_down(&mut self, deadline: u64) {
        if self.broken == Some(Break::HandedOver) {
            return;
        }
        while let Some(watch) = self.watches.pop() {
            if self.broken.is_none() {
                // An error is the daemon's to know: the watch is gone, or the connection is.
                let _ = self.perform_all(NONE, &[Operation::Unwatch(Key::path(&watch.path), watch.id)]);
            }
            // Freeing memory would change the memory map under ExitBootServices.
            core::mem::forget(watch);
        }
        while matches!(self.receive(), Ok(Some(_))) && self.domain.now() < deadline {}
        if self.ring.can_reconnect() {
            self.ring.ask_to_reconnect();
            self.notify();
            if !self.wait_for_ring(deadline, Ring::is_connected) {
                log::warn!("xenstore: no reconnection before the hand-over");
            }
        }
        self.broken = Some(Break::HandedOver);
    }

    fn one<T>(
        &mut self,
        transaction: Transaction,
        operation: Operation<'_>,
        convert: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        let mut convert = Some(convert);
        let mut result = Err(Error::Nonsense);
        self.perform(transaction, &[operation], |_, reply| {
            if let Some(convert) = convert.take() {
                result = reply.and_then(convert);
            }
        })?;
        result
    }

    /// Sends up to [`BATCH`] requests and takes their answers.
    fn batch(
        &mut self,
        transaction: Transaction,
        operations: &[Operation<'_>],
        mut on_reply: impl FnMut(usize, Result<&[u8]>),
    ) -> Result<()> {
        if let Some(reason) = self.broken {
            return Err(Error::Broken(reason));
        }
        let first_id = self.next_id;
        self.next_id = self.next_id.wrapping_add(operations.len() as u32);
        let mut deadline = self.domain.deadline(TIMEOUT);
        let (mut sending, mut sent_of_message, mut answered) = (0, 0, 0);
        while answered < operations.len() {
            let mut progress = false;
            // Requests, as far as there is room.
            while let Some(operation) = operations.get(sending) {
                let token = operation.token();
                let message = operation.message(&token);
                let length: usize = message.payload.iter().map(|part| part.len()).sum();
                let header = xsd_sockmsg {
                    type_: message.kind,
                    req_id: first_id.wrapping_add(sending as u32),
                    tx_id: if matches!(operation, Operation::Watch(..) | Operation::Unwatch(..)) {
                        NONE.0
                    } else {
                        transaction.0
                    },
                    len: length as u32,
                };
                if length > PAYLOAD_MAX {
                    // It is the caller's error and concerns no other request, but the answers must stay in order.
                    if answered == sending {
                        on_reply(answered, Err(Error::TooLong));
                        answered += 1;
                        sending += 1;
                        progress = true;
                        continue;
                    }
                    break;
                }
                let written = self.send(&header, &message, sent_of_message)?;
                sent_of_message += written;
                progress |= written > 0;
                if sent_of_message < HEADER + length {
                    break;
                }
                sending += 1;
                sent_of_message = 0;
            }
            if progress {
                self.notify();
            }
            // Answers, as far as there are any.
            while let Some(header) = self.receive()? {
                if header.kind == XS_WATCH_EVENT {
                    self.note_event();
                    // Events without end are no answer.
                    if self.domain.now() >= deadline {
                        return Err(self.break_off(Break::Silent(TIMEOUT / MILLISECOND)));
                    }
                    continue;
                }
                progress = true;
                // The daemon answers one connection's requests in order.
                let expected = first_id.wrapping_add(answered as u32);
                let Some(operation) = operations.get(answered).filter(|_| answered < sending) else {
                    return Err(self.break_off(Break::Unasked(header.req_id)));
                };
                if header.req_id != expected || (header.kind != XS_ERROR && header.kind != operation.message(b"").kind)
                {
                    return Err(self.break_off(Break::Unasked(header.req_id)));
                }
                let payload = &self.incoming[HEADER..];
                on_reply(answered, if header.kind == XS_ERROR { Err(named_error(payload)) } else { Ok(payload) });
                answered += 1;
            }
            if progress {
                deadline = self.domain.deadline(TIMEOUT);
            } else {
                let room = sending < operations.len();
                let ready = |ring: &Ring| ring.has_responses() || (room && ring.has_room());
                if !self.wait_for_ring(deadline, ready) {
                    return Err(self.break_off(Break::Silent(TIMEOUT / MILLISECOND)));
                }
            }
        }
        Ok(())
    }

    /// Puts as much of a message on the ring as fits, from byte `skip` on; returns how much that was.
    fn send(&mut self, header: &xsd_sockmsg, message: &Message<'_>, skip: usize) -> Result<usize> {
        let mut bytes = [0; HEADER];
        for (field, value) in [header.type_, header.req_id, header.tx_id, header.len].into_iter().enumerate() {
            bytes[field * 4..field * 4 + 4].copy_from_slice(&value.to_le_bytes());
        }
        let parts = core::iter::once(&bytes[..]).chain(message.payload);
        self.ring.write(parts, skip).map_err(|reason| self.break_off(reason))
    }

    /// Takes what has arrived off the ring; a header when `incoming` holds a whole message.
    fn receive(&mut self) -> Result<Option<Header>> {
        loop {
            // A message that has been taken makes room for the next.
            let header = match Header::parse(&self.incoming) {
                Some(header) if self.incoming.len() == HEADER + header.length as usize => {
                    self.incoming.clear();
                    None
                }
                header => header,
            };
            let wanted = HEADER + header.map_or(0, |header| header.length as usize);
            let missing = wanted - self.incoming.len();
            let taken = self.ring.read(&mut self.incoming, missing).map_err(|reason| self.break_off(reason))?;
            if taken.was_full {
                self.notify();
            }
            let Some(header) = Header::parse(&self.incoming) else { return Ok(None) };
            if header.length > XENSTORE_PAYLOAD_MAX {
                return Err(self.break_off(Break::MessageLength(header.length)));
            }
            if self.incoming.len() == HEADER + header.length as usize {
                return Ok(Some(header));
            }
            if taken.bytes == 0 {
                return Ok(None);
            }
        }
    }

    /// Notes the event in `incoming`. One for a watch that is gone is dropped.
    fn note_event(&mut self) {
        let payload = self.incoming.get(HEADER..).unwrap_or_default();
        let token = payload.split(|&byte| byte == 0).nth(1).and_then(WatchId::from_token);
        if let Some(watch) = self.watches.iter_mut().find(|watch| Some(watch.id) == token) {
            watch.fired = true;
        }
    }

    fn wait_for_ring(&self, deadline: u64, ready: impl Fn(&Ring) -> bool) -> bool {
        self.domain.wait_for(self.port, deadline, || ready(&self.ring).then_some(())).is_some()
    }

    fn notify(&self) {
        if let Err(error) = self.domain.hypervisor.notify(self.port) {
            log::warn!("xenstore: notifying the daemon failed: {error}");
        }
    }

    fn break_off(&mut self, reason: Break) -> Error {
        log::error!("xenstore: {reason}");
        self.broken = Some(reason);
        Error::Broken(reason)
    }
}

/// The header of an arriving message.
#[derive(Clone, Copy)]
struct Header {
    kind: u32,
    req_id: u32,
    length: u32,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| {
            bytes.get(index * 4..index * 4 + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        };
        let header = Self { kind: word(0)?, req_id: word(1)?, length: word(3)? };
        Some(header)
    }
}

/// The daemon's errors are names.
fn named_error(payload: &[u8]) -> Error {
    match payload.strip_suffix(b"\0").unwrap_or(payload) {
        b"ENOENT" => Error::NotFound,
        b"EACCES" | b"EPERM" => Error::Denied,
        b"EEXIST" => Error::Exists,
        b"EAGAIN" => Error::Again,
        b"EINVAL" => Error::Invalid,
        b"ENOSPC" | b"E2BIG" => Error::Quota,
        other => {
            let mut name = [0; 12];
            name.iter_mut().zip(other).for_each(|(to, from)| *to = *from);
            Error::Daemon(name)
        }
    }
}

/// A decimal number of at most 20 digits and nothing else.
pub fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.iter().try_fold(0u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests;
