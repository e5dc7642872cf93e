//! Modules: the file that `ramdisk=` of a PVH guest names is the guest's own variables, or a program to boot.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use core::slice;

use bootmgr::live::{self, Kernel};
use hw::paging::PAGE;
use platform::module::Contents;
use platform::{Module, Platform};
use variables::journal::Recovery;
use variables::volume::{self, Unusable, VolumeError};

use crate::home;

/// What begins like this on the command line is for the firmware.
const OPTION: &str = "ovmf.";

/// The modules by what they are for.
#[derive(Debug, Default)]
pub struct Modules {
    variables: Option<&'static mut [u8]>,
    program: Option<&'static [u8]>,
}

impl Modules {
    /// Looks at all modules. What is of no use is said, and the boot goes on without it.
    pub fn sort(platform: &Platform) -> Self {
        let mut modules = Self::default();
        for module in &platform.modules {
            let Some(bytes) = memory(module, home::mapped_top(platform)) else {
                refuse(module, "outside the guest's memory");
                continue;
            };
            match Contents::of(bytes) {
                Contents::Other(what) => refuse(module, what),
                Contents::Program if modules.program.is_some() => refuse(module, "a second program"),
                Contents::Program => modules.program = Some(bytes),
                Contents::Variables if modules.variables.is_some() => refuse(module, "a second variable store"),
                Contents::Variables => match mend(bytes) {
                    Ok(()) => modules.variables = Some(bytes),
                    Err(what) => refuse(module, what),
                },
            }
        }
        modules
    }

    /// The guest's own variables. Their memory is to be given back with [`release`].
    pub fn take_variables(&mut self) -> Option<&'static mut [u8]> {
        self.variables.take()
    }

    /// The program, with what `cmdline=` says beside words for the firmware.
    pub fn kernel(&self, platform: &Platform) -> Option<Kernel> {
        let program = self.program?;
        let line = String::from_utf8_lossy(&platform.command_line);
        let words: Vec<&str> = line.split(' ').filter(|word| !word.starts_with(OPTION)).collect();
        let command_line = words.join(" ").trim().to_string();
        Some(Kernel { program: Ok(Cow::Borrowed(program)), initrd: None, command_line })
    }
}

/// Makes a volume of variables ready to be used: a write that was cut is finished.
///
/// # Errors
/// It cannot be used, in words.
pub fn mend(volume: &mut [u8]) -> Result<(), &'static str> {
    match volume::prepare(volume) {
        Ok(Recovery::Completed) => log::warn!("variables: a write that was cut has been completed"),
        Ok(Recovery::Abandoned) => log::warn!("variables: a write that was cut has been given up"),
        // The runtime driver makes a store where nothing was ever written.
        Ok(_) | Err(Unusable::Volume(VolumeError::Blank)) => {}
        Err(Unusable::Volume(_)) => return Err("a variable store whose volume header is damaged"),
        Err(Unusable::Store(_)) => return Err("a damaged variable store, or one of more than 256 KiB"),
    }
    Ok(())
}

/// Gives the whole pages of a range of modules back.
pub fn release(range: Range<u64>) {
    let first = range.start.next_multiple_of(PAGE);
    let pages = (range.end / PAGE).saturating_sub(first / PAGE);
    if pages != 0
        && let Err(status) = services::api::release_memory(first, pages)
    {
        log::warn!("the module at {first:#x} stays in memory: {status}");
    }
}

/// The memory of a module, which is reserved until it is released.
fn memory(module: &Module, top: u64) -> Option<&'static mut [u8]> {
    let end = module.address.checked_add(module.size)?;
    if module.address < PAGE || end > top {
        return None;
    }
    // SAFETY: mapped; the toolstack put the module there for the firmware, the range is reserved, and each is looked at once.
    Some(unsafe { slice::from_raw_parts_mut(module.address as *mut u8, module.size as usize) })
}

fn refuse(module: &Module, what: &str) {
    live::say(&format!("ramdisk= ({} bytes) is not used: it is {what}", module.size));
}
