//! Where a store's bytes live.
//!
//! The store works on a copy in memory and tells the backend what to make durable, in an order that survives a cut.
//! The firmware's copy is all there is for now; a durable backend later implements the two `persist` functions.

use core::ops::Range;

/// The bytes could not be made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendError;

/// Memory of a store, and the durable medium behind it if there is one.
pub trait Backend {
    /// The memory; its length never changes.
    fn bytes(&self) -> &[u8];

    /// The memory, to write.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Makes `range` of the memory durable, after everything persisted before. A cut may leave any prefix of the range
    /// on the medium, never anything else.
    fn persist(&mut self, range: Range<usize>) -> Result<(), BackendError> {
        let _ = range;
        Ok(())
    }

    /// Makes all of the memory durable at once: a cut leaves all of the old content or all of the new (in EDK2's
    /// volume, by way of the fault tolerant write area).
    fn persist_all(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

impl Backend for &mut [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}
