//! PE loading, starting, unloading.

/// The database.
#[derive(Debug, Default)]
pub struct Images {}

impl Images {
    /// An empty database.
    pub const fn new() -> Self {
        Self {}
    }
}
