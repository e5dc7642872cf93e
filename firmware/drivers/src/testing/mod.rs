//! The other domains of the tests: a xenstore daemon and disk backends behind a [`FakeHypervisor`].

mod vbd;
mod xenstored;

use std::rc::Rc;
use std::sync::Mutex;

use hw::fake::{CountingAllocator, FakeFrames, FakeHypervisor};
use hw::hypervisor::{EventPort, Gfn};
use hw::shared::SharedPages;

use crate::domain::Domain;
pub use vbd::{Fault, Vbd};
pub use xenstored::Xenstored;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Held by tests that connect controllers: the core is one for the process, and asks the drivers of all tests.
pub static DRIVER_MODEL: Mutex<()> = Mutex::new(());

/// Numbers without an order, the same in each run (xorshift).
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Makes a value of a test live for ever, as the firmware's own do.
pub fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A domain with nothing around it.
pub fn domain() -> (&'static FakeHypervisor, Domain) {
    let hypervisor = leak(FakeHypervisor::new());
    (hypervisor, Domain { hypervisor, frames: leak(FakeFrames::default()) })
}

/// A domain with a xenstore daemon and disks.
pub struct World {
    pub hypervisor: &'static FakeHypervisor,
    pub frames: &'static FakeFrames,
    pub domain: Domain,
    pub daemon: Rc<Xenstored>,
    pub disks: Vec<Rc<Vbd>>,
}

impl World {
    /// Disks of the given numbers with 4 MiB each; `prepare` sees each before anything runs.
    pub fn new(numbers: &[u32], prepare: impl Fn(&Vbd)) -> Self {
        let hypervisor = leak(FakeHypervisor::new());
        let frames = leak(FakeFrames::default());
        let daemon = Xenstored::new(hypervisor, 0);
        let disks: Vec<Rc<Vbd>> = numbers.iter().map(|&number| Vbd::new(&daemon.store, number, 8192)).collect();
        disks.iter().for_each(|disk| prepare(disk));
        let (serving, backends) = (daemon.clone(), disks.clone());
        *hypervisor.on_notify.borrow_mut() = Some(Box::new(move |hypervisor, port| {
            serving.step(hypervisor, port);
            backends.iter().for_each(|backend| backend.step(hypervisor));
            serving.step(hypervisor, EventPort(0));
        }));
        Self { hypervisor, frames, domain: Domain { hypervisor, frames }, daemon, disks }
    }

    /// Keys of a disk's frontend directory.
    pub fn front_keys(&self, disk: usize) -> Vec<String> {
        self.daemon.store.names(&self.disks[disk].front)
    }
}

/// The page and offset of a grant entry.
pub fn grant_entry(hypervisor: &FakeHypervisor, reference: u32) -> (SharedPages, usize) {
    let mapped = hypervisor.mapped.borrow();
    let frame = mapped.iter().find(|(_, what)| **what == ("grant", reference / 512)).map(|(&frame, _)| frame);
    (FakeFrames::peer(Gfn(frame.expect("grant table frame is mapped"))), reference as usize % 512 * 8)
}
