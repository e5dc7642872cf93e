//! What stands between a protocol's functions and the one object they all work on.

use core::cell::{Cell, UnsafeCell};

use uefi_raw::Status;
use uefi_raw::table::boot::Tpl;

use crate::{Result, api};

/// A value used by one caller at a time, at TPL_CALLBACK, so that no notification comes in between. The protocols that use it
/// may not be called above that level (UEFI 2.10 table 7-2).
#[derive(Debug)]
pub(super) struct Gate<T> {
    busy: Cell<bool>,
    value: UnsafeCell<T>,
}

impl<T> Gate<T> {
    pub(super) fn new(value: T) -> Self {
        Self { busy: Cell::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `f` on the value. `DEVICE_ERROR` if it is in use: somebody called from too high a level, or a producer called
    /// itself.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Result<R> {
        api::at_tpl(Tpl::CALLBACK, || {
            if self.busy.replace(true) {
                log::error!("a device was called while it was at work");
                return Err(Status::DEVICE_ERROR);
            }
            // SAFETY: `busy` was clear, so nobody else has a reference.
            let result = f(unsafe { &mut *self.value.get() });
            self.busy.set(false);
            Ok(result)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_use_is_not_given_out_again() {
        let gate = Gate::new(1);
        let inner = gate.with(|value| {
            *value = 2;
            gate.with(|_| ())
        });
        assert_eq!(inner, Ok(Err(Status::DEVICE_ERROR)));
        assert_eq!(gate.with(|value| *value), Ok(2));
    }
}
