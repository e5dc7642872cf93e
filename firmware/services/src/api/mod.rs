//! Boot services for the firmware's own drivers: safe functions over the one core.

pub mod driver;
pub mod event;
pub mod handle;
pub mod memory;

pub use driver::*;
pub use event::*;
pub use handle::*;
pub use memory::*;
