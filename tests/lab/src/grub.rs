//! GRUB for PCs with BIOS, in front of the first partition of a disk with an MBR.
//!
//! The layout is GRUB's own: `boot.img` in the boot sector loads sector 1, where the core image is, whose first sector loads
//! the rest from sector 2 on. Both find what they need with the addresses they are built with (GRUB's manual, "Images").

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// Debian's grub-pc-bin.
const MODULES: &str = "/usr/lib/grub/i386-pc";
/// What it takes to read a FAT file system behind an MBR and to start Linux from there.
const NEEDED: [&str; 7] = ["biosdisk", "part_msdos", "fat", "normal", "linux", "echo", "test"];
/// Where it looks for `grub.cfg`: where Debian's GRUB for UEFI does.
const PREFIX: &str = "(hd0,msdos1)/EFI/debian";
/// Bytes of the boot sector that are code.
const BOOT_CODE: usize = 440;
const SECTOR: u64 = 512;

/// Writes it to `disk`, whose first partition begins at byte `room`.
///
/// # Errors
/// A tool is missing, or there is not enough room.
pub fn install(disk: &std::fs::File, room: u64, scratch: &Path) -> Result<()> {
    let core = scratch.join("core.img");
    command::output(
        Command::new("grub-mkimage").args(["-O", "i386-pc", "-d", MODULES, "-p", PREFIX, "-o"]).arg(&core).args(NEEDED),
    )?;
    let core = command::read(&core)?;
    let boot = command::read(&Path::new(MODULES).join("boot.img"))?;
    if boot.len() < BOOT_CODE || core.len() as u64 > room - SECTOR {
        bail!("GRUB does not fit in front of the first partition");
    }
    disk.write_all_at(&boot[..BOOT_CODE], 0)?;
    Ok(disk.write_all_at(&core, SECTOR)?)
}
