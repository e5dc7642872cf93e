//! Debian's installer on a CD.
//!
//! Debian packages carry the installer as it is booted from the network, and no CD image. The CD made here is that tree,
//! unchanged, with its own boot programs in an El Torito image for EFI: as on Debian's CDs, shim starts GRUB, and GRUB goes
//! on from the medium that it was started from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command;
use crate::disk::mtools;
use crate::file::Sources;

/// The package; its text flavour.
const PACKAGE: &str = "debian-installer-13-netboot-amd64/trixie";
const TREE: &str = "usr/lib/debian-installer/images/13/amd64/text";
/// Where in that tree GRUB and the kernel are: the prefix that is compiled into its `grubx64.efi`.
const FILES: &str = "debian-installer/amd64";
/// Name and size (in KiB) of the El Torito image.
const BOOT_IMAGE: (&str, &str) = ("efi.img", "8192");
/// Names of shim and GRUB in the package, and those that the removable media path and shim look for.
const PROGRAMS: [(&str, &str); 2] = [("bootnetx64.efi", "BOOTX64.EFI"), ("grubx64.efi", "grubx64.efi")];
/// Seconds since 1970 that the image claims to be made at: the same package gives the same bytes.
const MADE_AT: &str = "1700000000";

/// The bytes of the CD.
///
/// # Errors
/// The package cannot be had, or a tool is missing.
pub fn bytes(sources: &Sources) -> Result<Vec<u8>> {
    let tree = sources.scratch.join("installer");
    let target = sources.scratch.join("installer.iso");
    fs::remove_dir_all(&tree).ok();
    fs::create_dir_all(&tree)?;
    let package = sources.programs.package(PACKAGE)?.join(TREE);
    command::output(
        Command::new("cp").args(["-rL", "--reflink=auto"]).arg(package.join("debian-installer")).arg(&tree),
    )?;
    let files = tree.join(FILES);
    // The package's grub/x86_64-efi/grub.cfg, which GRUB reads first, goes on to this one on any medium.
    command::write(&tree.join("boot/grub/grub.cfg"), command::read(&files.join("grub/grub.cfg"))?)?;
    write_boot_image(&tree.join(BOOT_IMAGE.0), &PROGRAMS.map(|(from, name)| (files.join(from), name)))?;
    let mut make = Command::new("xorriso");
    make.env("SOURCE_DATE_EPOCH", MADE_AT).args(["-as", "mkisofs", "-quiet", "-R", "-V", "OVMF_XEN_LAB", "-o"]);
    command::output(make.arg(&target).args(["-e", BOOT_IMAGE.0, "-no-emul-boot"]).arg(&tree))?;
    fs::remove_dir_all(&tree)?;
    let bytes = command::read(&target)?;
    fs::remove_file(&target)?;
    Ok(bytes)
}

/// Makes a FAT file system with `programs` in `EFI/BOOT`.
fn write_boot_image(image: &Path, programs: &[(PathBuf, &str)]) -> Result<()> {
    let mut format = Command::new("mkfs.vfat");
    command::output(format.args(["-C", "-n", "EFI", "-i", "1ab01ab1"]).arg(image).arg(BOOT_IMAGE.1))?;
    command::output(mtools("mmd").arg("-i").arg(image).args(["::/EFI", "::/EFI/BOOT"]))?;
    for (program, name) in programs {
        command::output(mtools("mcopy").arg("-i").arg(image).arg(program).arg(format!("::/EFI/BOOT/{name}")))?;
    }
    Ok(())
}
