//! The UEFI Shell in the loaded file: it stays where it is, in memory of the boot services, when the rest of the file is freed.

use alloc::format;
use core::slice;

use bootmgr::live::{self, Shell, shell};
use platform::volume;
use services::Guid;

use crate::boot::should;
use crate::file;
use crate::start::{ImageInfo, Start};

/// Finds the shell and makes it known; `None` where the file carries none.
pub fn find(start: &Start) -> Option<Shell> {
    let ImageInfo { code_offset, code_size, .. } = start.layout;
    let volume = file::part(start, code_offset, code_size)?;
    let program = match volume::application(volume, &shell::FILE.to_bytes())? {
        Ok(program) => program,
        Err(what) => {
            live::say(&format!("The firmware's UEFI Shell is not used: {what}"));
            return None;
        }
    };
    // SAFETY: the file's memory is the firmware's own, and this part of it is not freed (`file::release_all_but`).
    let program = unsafe { slice::from_raw_parts(program.as_ptr(), program.len()) };
    should("UEFI Shell", Shell::publish(Guid::from_bytes(volume::name(volume)?), program))
}
