//! Package lists and strings.

/// The database.
#[derive(Debug, Default)]
pub struct Hii {}

impl Hii {
    /// An empty database.
    pub const fn new() -> Self {
        Self {}
    }
}
