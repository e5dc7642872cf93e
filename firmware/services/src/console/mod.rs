//! Text terminal in and out.

/// The database.
#[derive(Debug, Default)]
pub struct Consoles {}

impl Consoles {
    /// An empty database.
    pub const fn new() -> Self {
        Self {}
    }
}
