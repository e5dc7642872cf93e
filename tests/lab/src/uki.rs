//! Unified kernel images: systemd's EFI stub with kernel, initial RAM disk and command line as sections.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use object::read::pe::PeFile64;
use object::{Object, ObjectSection};

use crate::command;

/// The parts of a unified kernel image.
#[derive(Debug)]
pub struct Parts<'a> {
    /// systemd's `linuxx64.efi.stub`.
    pub stub: &'a Path,
    /// A kernel with an EFI stub of its own.
    pub kernel: &'a Path,
    /// The initial RAM disk's bytes.
    pub initrd: &'a [u8],
    /// The kernel's command line.
    pub command_line: &'a str,
}

/// Writes the unified kernel image made of `parts` to `target`.
///
/// # Errors
/// The stub is no PE image, or objcopy fails.
pub fn write(parts: &Parts<'_>, target: &Path) -> Result<()> {
    let stub = command::read(parts.stub)?;
    let pe = PeFile64::parse(stub.as_slice()).context("the stub is no PE image")?;
    let alignment = u64::from(pe.nt_headers().optional_header.section_alignment.get(object::LittleEndian));
    let end = pe.sections().map(|section| section.address() + section.size()).max().unwrap_or_default();
    let folder = target.parent().context("no folder for the image")?;
    let release = "ID=lab\nNAME=Lab\nPRETTY_NAME=\"Lab\"\nVERSION_ID=1\n";
    let kernel = command::read(parts.kernel)?;
    let sections: [(&str, &[u8]); 4] = [
        (".osrel", release.as_bytes()),
        (".cmdline", parts.command_line.as_bytes()),
        (".initrd", parts.initrd),
        (".linux", &kernel),
    ];
    let mut objcopy = Command::new("objcopy");
    let mut address = end;
    for (name, content) in sections {
        let file = folder.join(format!("uki{name}"));
        command::write(&file, content)?;
        address = address.next_multiple_of(alignment.max(1));
        objcopy.arg("--add-section").arg(format!("{name}={}", file.display()));
        objcopy.arg("--change-section-vma").arg(format!("{name}={address:#x}"));
        address += content.len() as u64;
    }
    command::output(objcopy.arg(parts.stub).arg(target))?;
    for (name, _) in sections {
        std::fs::remove_file(folder.join(format!("uki{name}")))?;
    }
    Ok(())
}
