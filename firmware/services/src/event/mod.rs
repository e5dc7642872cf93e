//! Task priority levels, events, timers, event groups.

/// The database.
#[derive(Debug, Default)]
pub struct Events {}

impl Events {
    /// An empty database.
    pub const fn new() -> Self {
        Self {}
    }
}
