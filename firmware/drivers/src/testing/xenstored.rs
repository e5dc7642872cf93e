//! A xenstore daemon: serves the ring of one domain out of a tree in memory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use hw::fake::{FakeFrames, FakeHypervisor};
use hw::hypervisor::{EventPort, Gfn};
use hw::shared::{FrameAllocator, SharedPages};
use xen_abi::{HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN};

const HOME: &str = "/local/domain/1";
/// The port of the ring.
pub const PORT: EventPort = EventPort(1);

const REQUEST: usize = 0;
const RESPONSE: usize = 1024;
const REQ_CONS: usize = 2048;
const REQ_PROD: usize = 2052;
const RSP_CONS: usize = 2056;
const RSP_PROD: usize = 2060;
const FEATURES: usize = 2064;
const CONNECTION: usize = 2068;

/// The tree, shared between the daemon and the backends of a test. Paths are absolute.
#[derive(Default)]
pub struct Store {
    values: RefCell<BTreeMap<String, Vec<u8>>>,
    /// Changes the daemon has not yet told the domain about.
    changed: RefCell<Vec<String>>,
}

impl Store {
    pub fn set(&self, path: &str, value: impl ToString) {
        self.values.borrow_mut().insert(absolute(path), value.to_string().into_bytes());
        self.changed.borrow_mut().push(absolute(path));
    }

    pub fn get(&self, path: &str) -> Option<String> {
        self.values.borrow().get(&absolute(path)).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    pub fn remove(&self, path: &str) -> bool {
        let path = absolute(path);
        let below = format!("{path}/");
        let before = self.values.borrow().len();
        self.values.borrow_mut().retain(|key, _| *key != path && !key.starts_with(&below));
        self.changed.borrow_mut().push(path);
        self.values.borrow().len() < before
    }

    /// The keys directly in a directory.
    pub fn names(&self, path: &str) -> Vec<String> {
        let below = format!("{}/", absolute(path));
        let values = self.values.borrow();
        let mut names: Vec<String> = values
            .keys()
            .filter_map(|key| key.strip_prefix(&below))
            .map(|rest| rest.split('/').next().unwrap_or_default().to_string())
            .collect();
        names.dedup();
        names
    }

    fn exists(&self, path: &str) -> bool {
        self.values.borrow().contains_key(&absolute(path)) || !self.names(path).is_empty()
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_string() } else { format!("{HOME}/{path}") }
}

/// The daemon. Public fields are what a test scripts.
pub struct Xenstored {
    pub store: Rc<Store>,
    page: SharedPages,
    /// Bytes moved in one go in either direction.
    pub chunk: Cell<usize>,
    /// Does not look at the ring at all.
    pub dead: Cell<bool>,
    /// Takes requests that make no sense for no requests.
    pub lenient: Cell<bool>,
    /// How many transaction ends to answer with EAGAIN.
    pub again: Cell<usize>,
    /// Requests seen: kind and path.
    pub seen: RefCell<Vec<(u32, String)>>,
    /// Watches: path as given, token.
    pub watches: RefCell<Vec<(String, String)>>,
    /// Transactions begun and not ended.
    pub transactions: RefCell<Vec<u32>>,
    /// Times the connection was started afresh.
    pub reconnects: Cell<usize>,
    /// Times the domain notified the daemon, that is, round trips at most.
    pub notified: Cell<usize>,
    input: RefCell<Vec<u8>>,
    output: RefCell<VecDeque<u8>>,
    next_transaction: Cell<u32>,
}

impl Xenstored {
    /// A daemon serving a new ring whose indices stand at `index`, put into the domain's parameters.
    pub fn new(hypervisor: &FakeHypervisor, index: u32) -> Rc<Self> {
        let page = FakeFrames::default().allocate(1).expect("memory");
        for field in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD] {
            page.write_u32(field, index);
        }
        page.write_u32(FEATURES, 1);
        hypervisor.params.borrow_mut().insert(HVM_PARAM_STORE_PFN, page.gfn(0).0);
        hypervisor.params.borrow_mut().insert(HVM_PARAM_STORE_EVTCHN, PORT.0.into());
        Rc::new(Self {
            store: Rc::default(),
            page,
            chunk: Cell::new(usize::MAX),
            dead: Cell::new(false),
            lenient: Cell::new(false),
            again: Cell::new(0),
            seen: RefCell::default(),
            watches: RefCell::default(),
            transactions: RefCell::default(),
            reconnects: Cell::new(0),
            notified: Cell::new(0),
            input: RefCell::default(),
            output: RefCell::default(),
            next_transaction: Cell::new(1),
        })
    }

    /// The ring as the daemon sees it.
    pub fn page(&self) -> SharedPages {
        FakeFrames::peer(Gfn(self.page.gfn(0).0))
    }

    /// Whether both directions are empty and the connection is steady.
    pub fn is_idle(&self) -> bool {
        let index = |field| self.page.read_u32(field);
        index(REQ_CONS) == index(REQ_PROD)
            && index(RSP_CONS) == index(RSP_PROD)
            && index(CONNECTION) == 0
            && self.input.borrow().is_empty()
            && self.output.borrow().is_empty()
    }

    /// Puts bytes where the domain expects a message.
    pub fn say(&self, bytes: &[u8]) {
        self.output.borrow_mut().extend(bytes);
    }

    /// One turn of the daemon.
    pub fn step(&self, hypervisor: &FakeHypervisor, port: EventPort) {
        if self.dead.get() {
            return;
        }
        if port == PORT {
            self.notified.set(self.notified.get() + 1);
        }
        if self.page.read_u32(CONNECTION) == 1 {
            self.reconnect(hypervisor);
        }
        let mut moved = self.take_input();
        while self.serve_one() {}
        self.tell_changes();
        moved |= self.put_output();
        if moved {
            hypervisor.raise(PORT);
        }
    }

    fn reconnect(&self, hypervisor: &FakeHypervisor) {
        for field in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, CONNECTION] {
            self.page.write_u32(field, 0);
        }
        self.watches.borrow_mut().clear();
        self.transactions.borrow_mut().clear();
        self.reconnects.set(self.reconnects.get() + 1);
        hypervisor.raise(PORT);
    }

    fn take_input(&self) -> bool {
        let (mut consumer, producer) = (self.page.read_u32(REQ_CONS), self.page.read_u32(REQ_PROD));
        let mut left = self.chunk.get();
        let moved = consumer != producer;
        while consumer != producer && left > 0 {
            self.input.borrow_mut().push(self.page.read_u8(REQUEST + consumer as usize % 1024));
            consumer = consumer.wrapping_add(1);
            left -= 1;
        }
        self.page.write_u32(REQ_CONS, consumer);
        moved
    }

    fn put_output(&self) -> bool {
        let (consumer, mut producer) = (self.page.read_u32(RSP_CONS), self.page.read_u32(RSP_PROD));
        let mut left = self.chunk.get();
        let mut output = self.output.borrow_mut();
        let moved = !output.is_empty();
        while producer.wrapping_sub(consumer) < 1024 && left > 0 {
            let Some(byte) = output.pop_front() else { break };
            self.page.write_u8(RESPONSE + producer as usize % 1024, byte);
            producer = producer.wrapping_add(1);
            left -= 1;
        }
        self.page.write_u32(RSP_PROD, producer);
        moved
    }

    fn serve_one(&self) -> bool {
        let mut input = self.input.borrow_mut();
        let word =
            |index: usize| input.get(index * 4..index * 4 + 4).map(|b| u32::from_le_bytes(b.try_into().expect("four")));
        let (Some(kind), Some(id), Some(transaction), Some(length)) = (word(0), word(1), word(2), word(3)) else {
            return false;
        };
        if length > 4096 && self.lenient.get() {
            input.clear();
            return false;
        }
        assert!(length <= 4096, "request of {length} bytes");
        let end = 16 + length as usize;
        if input.len() < end {
            return false;
        }
        let payload = input[16..end].to_vec();
        input.drain(..end);
        drop(input);
        let (kind, answer) = match self.serve(kind, transaction, &payload) {
            Ok(answer) => (kind, answer),
            Err(name) => (16, format!("{name}\0").into_bytes()),
        };
        self.send(kind, id, &answer);
        true
    }

    fn send(&self, kind: u32, id: u32, payload: &[u8]) {
        for word in [kind, id, 0, payload.len() as u32] {
            self.say(&word.to_le_bytes());
        }
        self.say(payload);
    }

    fn serve(&self, kind: u32, transaction: u32, payload: &[u8]) -> Result<Vec<u8>, &'static str> {
        let split = payload.iter().position(|&byte| byte == 0).ok_or("EINVAL")?;
        let path = String::from_utf8(payload[..split].to_vec()).map_err(|_| "EINVAL")?;
        let rest = &payload[split + 1..];
        self.seen.borrow_mut().push((kind, path.clone()));
        let known = transaction == 0 || self.transactions.borrow().contains(&transaction);
        if !known {
            return Err("ENOENT");
        }
        const OK: &[u8] = b"OK\0";
        match kind {
            1 if self.store.exists(&path) => {
                Ok(self.store.names(&path).into_iter().flat_map(|name| (name + "\0").into_bytes()).collect())
            }
            2 => self.store.values.borrow().get(&absolute(&path)).cloned().ok_or("ENOENT"),
            1 => Err("ENOENT"),
            4 => {
                let token = String::from_utf8_lossy(rest.strip_suffix(b"\0").ok_or("EINVAL")?).into_owned();
                self.store.changed.borrow_mut().push(absolute(&path));
                self.watches.borrow_mut().push((path, token));
                Ok(OK.to_vec())
            }
            5 => {
                let token = String::from_utf8_lossy(rest.strip_suffix(b"\0").ok_or("EINVAL")?).into_owned();
                let mut watches = self.watches.borrow_mut();
                let found = watches.iter().position(|watch| *watch == (path.clone(), token.clone())).ok_or("ENOENT")?;
                watches.remove(found);
                Ok(OK.to_vec())
            }
            6 => {
                let number = self.next_transaction.get();
                self.next_transaction.set(number + 1);
                self.transactions.borrow_mut().push(number);
                Ok(format!("{number}\0").into_bytes())
            }
            7 => {
                self.transactions.borrow_mut().retain(|&other| other != transaction);
                if path == "T" && self.again.get() > 0 {
                    self.again.set(self.again.get() - 1);
                    return Err("EAGAIN");
                }
                Ok(OK.to_vec())
            }
            11 => {
                self.store.set(&path, String::from_utf8_lossy(rest));
                Ok(OK.to_vec())
            }
            12 => {
                if !self.store.exists(&path) {
                    self.store.set(&path, "");
                }
                Ok(OK.to_vec())
            }
            13 => self.store.remove(&path).then(|| OK.to_vec()).ok_or("ENOENT"),
            _ => Err("ENOSYS"),
        }
    }

    fn event(&self, path: &str, token: &str) {
        self.send(15, 0, format!("{path}\0{token}\0").as_bytes());
    }

    fn tell_changes(&self) {
        for changed in self.store.changed.take() {
            for (path, token) in &*self.watches.borrow() {
                let watched = absolute(path);
                if changed == watched || changed.starts_with(&format!("{watched}/")) {
                    self.event(path, token);
                }
            }
        }
    }
}
