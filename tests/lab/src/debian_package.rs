//! The Debian package of the firmware under test: its release set, made by the command `ovmf-xen`, and the package of that.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::file::Sources;
use crate::guest_program::workspace;

/// The bytes of the package.
///
/// # Errors
/// The firmware is not where a build leaves it, or a tool fails.
pub fn bytes(sources: &Sources) -> Result<Vec<u8>> {
    let scratch = sources.scratch.join("debian-package");
    let images = sources.firmware.ancestors().nth(2).context("the firmware is not in DIR/ovmf-xen-pvh/FV")?;
    command::output(
        Command::new("cargo")
            .args(["run", "--quiet", "--locked", "--package", "ovmf-xen", "--", "pin", "--images"])
            .arg(images)
            .arg("--out")
            .arg(&scratch)
            .current_dir(workspace()),
    )
    .context("making the release set")?;
    let set = fs::read_dir(&scratch)?.next().context("no release set was made")??.path();
    let packages = scratch.join("packages");
    command::output(Command::new(workspace().join("release/debian/build")).arg(set).arg("--out").arg(&packages))?;
    let package = fs::read_dir(&packages)?.next().context("no package was made")??.path();
    let bytes = command::read(&package)?;
    fs::remove_dir_all(scratch)?;
    Ok(bytes)
}
