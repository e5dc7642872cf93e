//! The UEFI Shell in the loaded file: it is copied, as the file's memory is freed.

use alloc::format;
use alloc::vec::Vec;

use bootmgr::live::{self, Shell, shell};
use platform::volume;
use services::{Guid, Result, Status};

use crate::boot::should;
use crate::runtime_driver;
use crate::start::Start;

/// Finds the shell and makes it known; `None` where the file carries none.
pub fn find(start: &Start) -> Option<Shell> {
    let volume = runtime_driver::code_volume(start)?;
    match volume::application(volume, &shell::FILE.to_bytes())? {
        Ok(program) => should("UEFI Shell", publish(Guid::from_bytes(volume::name(volume)?), program)),
        Err(what) => {
            live::say(&format!("The firmware's UEFI Shell is not used: {what}"));
            None
        }
    }
}

fn publish(volume: Guid, program: &[u8]) -> Result<Shell> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(program.len()).map_err(|_| Status::OUT_OF_RESOURCES)?;
    copy.extend_from_slice(program);
    Shell::publish(volume, copy.leak())
}
