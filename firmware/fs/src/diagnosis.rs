//! Why a handle has no file system: what the drivers found, for whoever has to tell a person.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use services::Handle;

/// Reasons by handle. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis(Rc<RefCell<BTreeMap<Handle, Vec<String>>>>);

impl Diagnosis {
    /// What is wrong with the medium of a handle, in words; `None` if nothing is known to be.
    pub fn reason(&self, handle: Handle) -> Option<String> {
        self.0.borrow().get(&handle).map(|reasons| reasons.join("; "))
    }

    /// All that is known.
    pub fn all(&self) -> Vec<(Handle, String)> {
        self.0.borrow().iter().map(|(handle, reasons)| (*handle, reasons.join("; "))).collect()
    }

    /// Adds a reason; says whether it is new.
    pub(crate) fn note(&self, handle: Handle, reason: String) -> bool {
        let mut all = self.0.borrow_mut();
        let reasons = all.entry(handle).or_default();
        let new = !reasons.contains(&reason);
        if new {
            reasons.push(reason);
        }
        new
    }

    /// Forgets what is known of a handle.
    pub(crate) fn forget(&self, handle: Handle) {
        self.0.borrow_mut().remove(&handle);
    }
}
