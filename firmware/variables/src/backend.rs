//! Where a store's bytes live.
//!
//! The store works on a copy in memory and tells the backend what to make durable, in an order that survives a cut.
//! The firmware's copy is all there is to a plain slice; [`Durable`] is a volume whose bytes a [`Medium`] keeps.

use core::ops::Range;

use crate::journal::{self, Areas, Recovery};

/// The bytes could not be made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendError;

/// Memory of a store, and the durable medium behind it if there is one.
pub trait Backend {
    /// The memory; its length never changes.
    fn bytes(&self) -> &[u8];

    /// The memory, to write.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Makes `range` of the memory durable, after everything persisted before. A cut may leave any part of the range
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

/// What keeps bytes: a file, for example.
pub trait Medium {
    /// Makes `bytes` at `offset` durable before it returns. A cut may leave any part of them on the medium.
    ///
    /// # Errors
    /// They are not, or not all, durable.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), BackendError>;
}

/// Keeps nothing: for a volume that is only memory.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoMedium;

impl Medium for NoMedium {
    fn write(&mut self, _: usize, _: &[u8]) -> Result<(), BackendError> {
        Ok(())
    }
}

/// A whole volume (store, event log, journal, spare area) in memory and on a medium. The store is replaced by way of the
/// journal, so that a cut at any byte leaves the old store or the new.
#[derive(Clone, Debug)]
pub struct Durable<B, M> {
    volume: B,
    medium: M,
    store_end: usize,
    /// A write by way of the journal failed: what it left is put in order first.
    unfinished: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>, M: Medium> Durable<B, M> {
    /// The volume whose bytes were read from `medium` into `volume`; what a cut left undone is finished. Volumes that EDK2
    /// left in the middle of a write are finished as it would.
    ///
    /// # Errors
    /// The medium's; the volume is too small or of no whole blocks.
    pub fn open(mut volume: B, mut medium: M) -> Result<(Self, Recovery), BackendError> {
        let areas = Areas::of(volume.as_ref().len()).ok_or(BackendError)?;
        let recovery = journal::recover(volume.as_mut(), &mut medium)?;
        Ok((Self { volume, medium, store_end: areas.store.end, unfinished: false }, recovery))
    }

    /// The medium.
    pub const fn medium(&self) -> &M {
        &self.medium
    }

    /// The medium, to change how it is written. What it holds must stay as it is.
    pub const fn medium_mut(&mut self) -> &mut M {
        &mut self.medium
    }

    /// All of the volume.
    pub fn volume(&self) -> &[u8] {
        self.volume.as_ref()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>, M: Medium> Backend for Durable<B, M> {
    fn bytes(&self) -> &[u8] {
        self.volume.as_ref().get(..self.store_end).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.volume.as_mut().get_mut(..self.store_end).unwrap_or_default()
    }

    fn persist(&mut self, range: Range<usize>) -> Result<(), BackendError> {
        let offset = range.start;
        self.medium.write(offset, self.volume.as_ref().get(range).ok_or(BackendError)?)
    }

    fn persist_all(&mut self) -> Result<(), BackendError> {
        let volume = self.volume.as_mut();
        if self.unfinished {
            journal::start_anew(volume, &mut self.medium)?;
        }
        self.unfinished = true;
        journal::replace(volume, &mut self.medium)?;
        self.unfinished = false;
        Ok(())
    }
}
