//! A disk backend: follows the state machine in xenstore and serves the ring out of a vector.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::LazyLock;

use hw::fake::{FakeFrames, FakeHypervisor};
use hw::hypervisor::{EventPort, Gfn};
use hw::shared::{PAGE_SIZE, SharedPages};

use super::grant_entry;
use super::xenstored::Store;

/// The largest disk.
const SECTORS_MAX: usize = 8192;
/// What is on a disk: different in each sector. Made once, as that takes long in a debug build.
static CONTENT: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..SECTORS_MAX * 512).map(|byte| (byte / 512 * 31 + byte) as u8).collect());

/// What a backend does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    #[default]
    None,
    /// Never answers requests.
    Silent,
    /// Answers with an id that was never used.
    UnknownId,
    /// Answers the first request of each batch twice.
    DuplicateId,
    /// Names another operation.
    WrongOperation,
    /// Its response index runs ahead.
    BadIndex,
    /// All requests fail.
    Error,
    /// Flush is not supported after all.
    NoFlush,
    /// Keeps the caller's pages mapped though it was not agreed.
    KeepsMapping,
    /// Does nothing in xenstore.
    Stuck,
    /// Goes away instead of connecting.
    Leaves,
}

struct Connection {
    ring: Vec<SharedPages>,
    ring_refs: Vec<u32>,
    entries: u32,
    consumer: u32,
    port: EventPort,
    persistent: bool,
}

/// A request as the backend understood it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub operation: u8,
    pub sector: u64,
    pub segments: usize,
    pub indirect: bool,
}

pub struct Vbd {
    store: Rc<Store>,
    pub front: String,
    pub back: String,
    pub disk: RefCell<Vec<u8>>,
    pub fault: Cell<Fault>,
    /// Turns that pass before it does anything.
    pub delay: Cell<usize>,
    /// Answers requests in reverse order.
    pub reverse: Cell<bool>,
    /// At most this many requests are answered in a turn.
    pub at_once: Cell<usize>,
    pub seen: RefCell<Vec<Seen>>,
    /// Most requests that were in flight together.
    pub most_in_flight: Cell<usize>,
    pub flushes: Cell<usize>,
    /// What it offers once connected.
    pub offers: RefCell<BTreeMap<&'static str, String>>,
    connection: RefCell<Option<Connection>>,
    /// Grants that stay mapped.
    mapped: RefCell<BTreeMap<u32, SharedPages>>,
    /// Requests, copied out of the ring.
    waiting: RefCell<VecDeque<Vec<u8>>>,
    /// States that the frontend went through.
    pub history: RefCell<String>,
}

impl Vbd {
    /// A disk of `sectors` sectors, whose content is a function of the position, not yet connected.
    pub fn new(store: &Rc<Store>, number: u32, sectors: usize) -> Rc<Self> {
        let front = format!("/local/domain/1/device/vbd/{number}");
        let back = format!("/local/domain/0/backend/vbd/1/{number}");
        store.set(&format!("{front}/backend"), &back);
        store.set(&format!("{front}/backend-id"), 0);
        store.set(&format!("{front}/device-type"), "disk");
        store.set(&format!("{front}/state"), 1);
        store.set(&format!("{back}/max-ring-page-order"), 4);
        store.set(&format!("{back}/params"), "/dev/loop0");
        store.set(&format!("{back}/mode"), "w");
        store.set(&format!("{back}/state"), 2);
        let offers = [
            ("sectors", sectors.to_string()),
            ("sector-size", "512".into()),
            ("physical-sector-size", "4096".into()),
            ("info", "0".into()),
            ("feature-flush-cache", "1".into()),
            ("feature-barrier", "1".into()),
            ("feature-persistent", "1".into()),
            ("feature-max-indirect-segments", "256".into()),
        ];
        Rc::new(Self {
            store: store.clone(),
            front,
            back,
            disk: RefCell::new(CONTENT[..sectors * 512].to_vec()),
            fault: Cell::default(),
            delay: Cell::new(0),
            reverse: Cell::new(false),
            at_once: Cell::new(usize::MAX),
            seen: RefCell::default(),
            most_in_flight: Cell::new(0),
            flushes: Cell::new(0),
            offers: RefCell::new(offers.into()),
            connection: RefCell::default(),
            mapped: RefCell::default(),
            waiting: RefCell::default(),
            history: RefCell::default(),
        })
    }

    pub fn offer(&self, key: &'static str, value: &str) {
        self.offers.borrow_mut().insert(key, value.into());
    }

    pub fn withhold(&self, key: &'static str) {
        self.offers.borrow_mut().remove(key);
    }

    /// The first page of the ring, once connected.
    pub fn ring_head(&self) -> SharedPages {
        let connection = self.connection.borrow();
        FakeFrames::peer(connection.as_ref().expect("connected").ring[0].gfn(0))
    }

    fn state_of(&self, directory: &str) -> u32 {
        self.store.get(&format!("{directory}/state")).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn front_value(&self, key: &str) -> Option<u32> {
        self.store.get(&format!("{}/{key}", self.front)).map(|text| text.parse().expect("a number"))
    }

    fn go(&self, state: u32) {
        self.store.set(&format!("{}/state", self.back), state);
    }

    /// One turn of the backend.
    pub fn step(&self, hypervisor: &FakeHypervisor) {
        let front = self.state_of(&self.front);
        let digit = char::from_digit(front, 10).expect("a state");
        if !self.history.borrow().ends_with(digit) {
            self.history.borrow_mut().push(digit);
        }
        if self.delay.get() > 0 {
            self.delay.set(self.delay.get() - 1);
            return;
        }
        if self.fault.get() != Fault::Stuck {
            match (front, self.state_of(&self.back)) {
                (3, 2) if self.fault.get() == Fault::Leaves => self.go(5),
                (3, 2) => self.connect(hypervisor),
                (5, 2..=4) => self.go(5),
                (6, 2..=5) => {
                    self.disconnect(hypervisor);
                    self.go(6);
                }
                (1, 6) => self.go(2),
                _ => {}
            }
        }
        self.serve(hypervisor);
    }

    fn connect(&self, hypervisor: &FakeHypervisor) {
        let ring_refs: Vec<u32> = match self.front_value("ring-page-order") {
            None => vec![self.front_value("ring-ref").expect("ring-ref")],
            Some(order) => {
                assert!(self.front_value("ring-ref").is_none());
                (0..1 << order).map(|page| self.front_value(&format!("ring-ref{page}")).expect("ring-ref")).collect()
            }
        };
        assert_eq!(self.store.get(&format!("{}/protocol", self.front)).as_deref(), Some("x86_64-abi"));
        let ring: Vec<SharedPages> = ring_refs.iter().map(|&grant| map(hypervisor, grant, true)).collect();
        let fits = (ring.len() * PAGE_SIZE - 64) / 112;
        *self.connection.borrow_mut() = Some(Connection {
            entries: 1 << fits.ilog2(),
            consumer: 0,
            ring,
            ring_refs,
            port: EventPort(self.front_value("event-channel").expect("port")),
            persistent: self.front_value("feature-persistent") == Some(1)
                && self.offers.borrow().get("feature-persistent").is_some_and(|offer| offer == "1"),
        });
        for (key, value) in &*self.offers.borrow() {
            self.store.set(&format!("{}/{key}", self.back), value);
        }
        self.go(4);
    }

    fn disconnect(&self, hypervisor: &FakeHypervisor) {
        if let Some(connection) = self.connection.take() {
            for grant in connection.ring_refs {
                unmap(hypervisor, grant);
            }
        }
        for (grant, _) in self.mapped.take() {
            unmap(hypervisor, grant);
        }
    }

    fn serve(&self, hypervisor: &FakeHypervisor) {
        let mut connection = self.connection.borrow_mut();
        let Some(connection) = connection.as_mut() else { return };
        if self.fault.get() == Fault::Silent {
            return;
        }
        let head = &connection.ring[0];
        let produced = head.read_u32(0);
        assert!(produced.wrapping_sub(connection.consumer) <= connection.entries, "ring overrun by the frontend");
        while connection.consumer != produced {
            let request = (0..112).map(|offset| bytes_at(connection, connection.consumer, offset)).collect();
            self.waiting.borrow_mut().push_back(request);
            connection.consumer = connection.consumer.wrapping_add(1);
        }
        head.write_u32(4, connection.consumer.wrapping_add(1));
        let in_flight = self.waiting.borrow().len();
        self.most_in_flight.set(self.most_in_flight.get().max(in_flight));
        let mut answers = Vec::new();
        for _ in 0..self.at_once.get().min(in_flight) {
            let mut waiting = self.waiting.borrow_mut();
            let request = if self.reverse.get() { waiting.pop_back() } else { waiting.pop_front() };
            drop(waiting);
            answers.push(self.request(hypervisor, connection, &request.expect("counted")));
        }
        if answers.is_empty() {
            return;
        }
        match self.fault.get() {
            Fault::UnknownId => answers[0].0 ^= 1 << 40,
            Fault::DuplicateId if answers.len() > 1 => answers[1] = answers[0],
            Fault::WrongOperation => answers[0].1 = 5,
            _ => {}
        }
        let old = head.read_u32(8);
        let mut produced = old;
        for (id, operation, status) in answers {
            let (page, offset) = entry(connection, produced);
            page.write_u64(offset, id);
            page.write_u8(offset + 8, operation);
            page.write_u16(offset + 10, status as u16);
            produced = produced.wrapping_add(1);
        }
        if self.fault.get() == Fault::BadIndex {
            produced = produced.wrapping_add(1000);
        }
        head.write_u32(8, produced);
        let event = head.read_u32(12);
        if produced.wrapping_sub(event) < produced.wrapping_sub(old) {
            hypervisor.raise(connection.port);
        }
    }

    /// Serves one request; returns the response.
    fn request(&self, hypervisor: &FakeHypervisor, connection: &Connection, request: &[u8]) -> (u64, u8, i16) {
        let field = |offset: usize| request[offset];
        let number =
            |offset, size| (0..size).rev().fold(0u64, |number, byte| number << 8 | u64::from(field(offset + byte)));
        let (operation, id, sector) = (field(0), number(8, 8), number(16, 8));
        let indirect = operation == 6;
        let (operation, count) = if indirect { (field(1), number(2, 2)) } else { (operation, number(1, 1)) };
        let count = count as usize;
        assert!(count <= if indirect { 256 } else { 11 }, "{count} segments");
        self.seen.borrow_mut().push(Seen { operation, sector, segments: count, indirect });
        match operation {
            2 | 3 => {
                assert_eq!(count, 0);
                self.flushes.set(self.flushes.get() + 1);
                let status = if self.fault.get() == Fault::NoFlush { -2 } else { 0 };
                return (id, operation, status);
            }
            0 | 1 => {}
            other => panic!("operation {other}"),
        }
        let segments: Vec<(u32, u8, u8)> = if indirect {
            let page = self.use_grant(hypervisor, connection, number(28, 4) as u32, false);
            let segments =
                (0..count).map(|n| (page.read_u32(n * 8), page.read_u8(n * 8 + 4), page.read_u8(n * 8 + 5))).collect();
            self.done_with(hypervisor, connection, number(28, 4) as u32);
            segments
        } else {
            (0..count).map(|n| (number(24 + n * 8, 4) as u32, field(24 + n * 8 + 4), field(24 + n * 8 + 5))).collect()
        };
        assert!(count > 0);
        let mut position = sector as usize * 512;
        for (grant, first, last) in segments {
            assert!(first <= last && last < 8, "segment {first}..={last}");
            let page = self.use_grant(hypervisor, connection, grant, operation == 0);
            let length = usize::from(last - first + 1) * 512;
            let mut disk = self.disk.borrow_mut();
            let part = &mut disk[position..position + length];
            if operation == 0 {
                page.copy_in(usize::from(first) * 512, part);
            } else {
                page.copy_out(usize::from(first) * 512, part);
            }
            position += length;
            if self.fault.get() != Fault::KeepsMapping {
                self.done_with(hypervisor, connection, grant);
            }
        }
        (id, operation, if self.fault.get() == Fault::Error { -1 } else { 0 })
    }

    fn use_grant(&self, hypervisor: &FakeHypervisor, connection: &Connection, grant: u32, write: bool) -> SharedPages {
        let mut mapped = self.mapped.borrow_mut();
        let page = mapped.entry(grant).or_insert_with(|| map(hypervisor, grant, write || connection.persistent));
        FakeFrames::peer(page.gfn(0))
    }

    fn done_with(&self, hypervisor: &FakeHypervisor, connection: &Connection, grant: u32) {
        if !connection.persistent && self.mapped.borrow_mut().remove(&grant).is_some() {
            unmap(hypervisor, grant);
        }
    }
}

/// Maps a granted page as Xen does, marking the entry.
fn map(hypervisor: &FakeHypervisor, grant: u32, write: bool) -> SharedPages {
    let (page, offset) = grant_entry(hypervisor, grant);
    let flags = page.read_u16(offset);
    assert_eq!(flags & 3, 1, "grant {grant} permits nothing");
    assert!(!write || flags & 4 == 0, "grant {grant} is read-only");
    page.write_u16(offset, flags | 8 | if write { 16 } else { 0 });
    FakeFrames::peer(Gfn(page.read_u32(offset + 4).into()))
}

fn unmap(hypervisor: &FakeHypervisor, grant: u32) {
    let (page, offset) = grant_entry(hypervisor, grant);
    let flags = page.read_u16(offset);
    assert_ne!(flags & 1, 0, "grant {grant} was taken back while mapped");
    page.write_u16(offset, flags & !24);
}

/// An entry of the ring; entries may lie across two pages, which only single bytes show, so tests keep to bytes.
fn entry(connection: &Connection, index: u32) -> (Ring<'_>, usize) {
    (Ring(&connection.ring), 64 + (index % connection.entries) as usize * 112)
}

fn bytes_at(connection: &Connection, index: u32, offset: usize) -> u8 {
    let (ring, start) = entry(connection, index);
    ring.read_u8(start + offset)
}

/// Ring pages as one range of bytes.
struct Ring<'a>(&'a [SharedPages]);

impl Ring<'_> {
    fn read_u8(&self, offset: usize) -> u8 {
        self.0[offset / PAGE_SIZE].read_u8(offset % PAGE_SIZE)
    }

    fn write_u8(&self, offset: usize, value: u8) {
        self.0[offset / PAGE_SIZE].write_u8(offset % PAGE_SIZE, value);
    }

    fn write_u16(&self, offset: usize, value: u16) {
        value.to_le_bytes().into_iter().enumerate().for_each(|(byte, value)| self.write_u8(offset + byte, value));
    }

    fn write_u64(&self, offset: usize, value: u64) {
        value.to_le_bytes().into_iter().enumerate().for_each(|(byte, value)| self.write_u8(offset + byte, value));
    }
}
