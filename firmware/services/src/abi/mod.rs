//! The `extern "efiapi"` edge. A function here checks pointers, copies in, calls a database or the [`api`](crate::api),
//! converts the result and copies out. Nothing else.

pub mod block;
pub mod console;
mod control;
pub mod device_path;
pub mod disk;
pub mod driver;
pub mod event;
pub mod file;
mod gate;
pub mod graphics;
pub mod handle;
pub mod hii;
pub mod image;
mod load_file;
pub(crate) mod load_file_2;
pub mod measure;
pub mod memory;
pub mod memory_attribute;
pub mod misc;
pub mod pci;
mod rng;
mod runtime;
pub mod serial;
pub mod table;
pub mod tcg2;
#[cfg(test)]
#[cfg(not(miri))]
mod tests;
mod text;
pub mod unicode;
mod variadic;
pub(crate) mod volume;

use uefi_raw::table::system::SystemTable;

use crate::Result;
use crate::core_state::Core;

/// The one core of the firmware.
pub static CORE: Core = Core::new();

/// Makes the system table and all that hangs on it: boot services, the runtime services table without a runtime driver,
/// the firmware's own image handle, and the protocols that need nothing but the core. [`CORE`] must have memory and
/// hardware by now. Called once; everything in [`crate::api`] works after it.
pub fn start() -> Result<*mut SystemTable> {
    let system = table::build(&CORE)?;
    rng::start(&CORE)?;
    device_path::install()?;
    unicode::install()?;
    hii::install()?;
    memory_attribute::install()?;
    Ok(system)
}
