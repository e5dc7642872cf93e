//! The `extern "efiapi"` edge. A function here checks pointers, copies in, calls a database or the [`api`](crate::api),
//! converts the result and copies out. Nothing else.

pub mod device_path;
pub mod driver;
pub mod event;
pub mod handle;
pub mod memory;
pub mod misc;
mod text;
pub mod unicode;
mod variadic;

use crate::core_state::Core;

/// The one core of the firmware.
pub static CORE: Core = Core::new();
