//! The cell that the core's databases live in.

use core::cell::{Cell, UnsafeCell};

use hw::interrupts;

/// Exclusive access to a `T` with interrupts disabled.
///
/// The firmware has one CPU; the only concurrency is the timer interrupt, which runs event notifications. While a
/// database is borrowed interrupts are off, so a borrow never meets another, unless code under the lock calls back into
/// the same database, which is a bug and panics by name. Nothing may call out (a notification, a driver, a loaded image)
/// while it holds a lock. The global allocator is the [`memory`](crate::memory) database, so code under any other lock may
/// allocate.
///
/// On the host, where tests run on threads, the lock also excludes other threads by spinning.
#[derive(Debug)]
pub struct Lock<T> {
    name: &'static str,
    held: Cell<bool>,
    #[cfg(not(target_os = "none"))]
    thread: core::sync::atomic::AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: access goes through `with`, which admits one holder at a time.
unsafe impl<T> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A lock around `value`; `name` is for the panic message.
    pub const fn new(name: &'static str, value: T) -> Self {
        Self {
            name,
            held: Cell::new(false),
            #[cfg(not(target_os = "none"))]
            thread: core::sync::atomic::AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Runs `f` with exclusive access.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let state = interrupts::disable();
        #[cfg(not(target_os = "none"))]
        while self.thread.swap(true, core::sync::atomic::Ordering::Acquire) {
            core::hint::spin_loop();
        }
        assert!(!self.held.replace(true), "{} used while in use", self.name);
        // SAFETY: `held` was clear, interrupts are off, and other threads are kept out.
        let result = f(unsafe { &mut *self.value.get() });
        self.held.set(false);
        #[cfg(not(target_os = "none"))]
        self.thread.store(false, core::sync::atomic::Ordering::Release);
        interrupts::restore(state);
        result
    }
}
