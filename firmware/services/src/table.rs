//! System table, configuration tables, checksums.

/// The tables' bookkeeping.
#[derive(Debug, Default)]
pub struct Tables {}

impl Tables {
    /// Nothing installed.
    pub const fn new() -> Self {
        Self {}
    }
}
