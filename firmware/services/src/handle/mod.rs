//! Handles, protocols, open bookkeeping, driver model.

/// The database.
#[derive(Debug, Default)]
pub struct Handles {}

impl Handles {
    /// An empty database.
    pub const fn new() -> Self {
        Self {}
    }
}
