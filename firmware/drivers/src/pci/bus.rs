//! The functions that have been published as handles.

use alloc::vec::Vec;
use core::cell::RefCell;

use services::Handle;

use super::Function;

/// The bus. Device drivers hold it to find the function behind a controller.
#[derive(Debug, Default)]
pub struct Bus {
    published: RefCell<Vec<(Handle, Function)>>,
}

impl Bus {
    /// The function that `controller` stands for; `None` if it is no PCI function of ours.
    pub fn function(&self, controller: Handle) -> Option<Function> {
        let published = self.published.borrow();
        published.iter().find(|(handle, _)| *handle == controller).map(|(_, function)| function.clone())
    }

    /// Notes that `handle` stands for `function`.
    pub fn add(&self, handle: Handle, function: Function) {
        self.published.borrow_mut().push((handle, function));
    }
}
