//! Boot services for the firmware's own drivers: safe functions over the one core.

pub mod event;
pub mod memory;

pub use event::*;
pub use memory::*;
