//! Text terminal in and out.
//!
//! A terminal is a [`ByteConsole`]: whatever carries bytes to a screen that understands VT-UTF8 and from its keyboard.

/// A pair of byte streams to a terminal. Neither direction waits for the other side longer than a bounded time.
pub trait ByteConsole {
    /// Writes all of `bytes`, in order. What the other side does not take within a bounded time is dropped.
    fn write(&mut self, bytes: &[u8]);
    /// Reads what has arrived, up to the length of `into`, and returns how much that is; 0 without waiting if nothing is there.
    fn read(&mut self, into: &mut [u8]) -> usize;
}

/// The database.
#[derive(Debug, Default)]
pub struct Consoles {}

impl Consoles {
    /// An empty database.
    pub const fn new() -> Self {
        Self {}
    }
}
