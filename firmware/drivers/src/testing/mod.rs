//! The other domains of the tests: a xenstore daemon and disk backends behind a [`FakeHypervisor`].

mod xenstored;

use hw::fake::{FakeFrames, FakeHypervisor};
use hw::hypervisor::Gfn;
use hw::shared::SharedPages;

use crate::domain::Domain;
pub use xenstored::Xenstored;

/// Makes a value of a test live for ever, as the firmware's own do.
pub fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A domain with nothing around it.
pub fn domain() -> (&'static FakeHypervisor, Domain) {
    let hypervisor = leak(FakeHypervisor::new());
    (hypervisor, Domain { hypervisor, frames: leak(FakeFrames::default()) })
}

/// The page and offset of a grant entry.
pub fn grant_entry(hypervisor: &FakeHypervisor, reference: u32) -> (SharedPages, usize) {
    let frame =
        hypervisor.mapped.borrow().iter().find(|(_, what)| **what == ("grant", reference / 512)).map(|(&g, _)| g);
    (FakeFrames::peer(Gfn(frame.expect("grant table frame is mapped"))), reference as usize % 512 * 8)
}
