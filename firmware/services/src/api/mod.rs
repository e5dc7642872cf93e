//! Boot services for the firmware's own drivers: safe functions over the one core.

pub mod block;
pub mod console;
pub mod driver;
pub mod event;
pub mod file;
pub mod graphics;
pub mod handle;
pub mod image;
pub mod memory;
pub mod pci;
pub mod table;
pub mod tcg2;

pub use block::*;
pub use console::*;
pub use driver::*;
pub use event::*;
pub use file::*;
pub use graphics::*;
pub use handle::*;
pub use image::*;
pub use memory::*;
pub use pci::*;
pub use table::*;
pub use tcg2::*;
