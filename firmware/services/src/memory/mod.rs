//! Memory map, page and pool allocation, page protection.

/// The database.
#[derive(Debug, Default)]
pub struct Memory {}

impl Memory {
    /// An empty database.
    pub const fn new() -> Self {
        Self {}
    }
}
