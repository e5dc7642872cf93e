//! The Debian packages: of the firmware under test, through its release set, made by the command `ovmf-xen`; and of the daemon that
//! keeps guests' variables.

use std::fs;
use std::path::Path;
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
    let bytes = made_by(Command::new(workspace().join("release/debian/build")).arg(set), &scratch.join("packages"))?;
    fs::remove_dir_all(scratch)?;
    Ok(bytes)
}

/// The bytes of the package of the daemon.
///
/// # Errors
/// The daemon does not compile, or a tool fails.
pub fn daemon_bytes(sources: &Sources) -> Result<Vec<u8>> {
    let packages = sources.scratch.join("debian-varstored");
    let bytes = made_by(&mut Command::new(workspace().join("release/debian/varstored/build")), &packages)?;
    fs::remove_dir_all(packages)?;
    Ok(bytes)
}

/// The one package that a command puts into a folder.
fn made_by(command: &mut Command, packages: &Path) -> Result<Vec<u8>> {
    command::output(command.arg("--out").arg(packages))?;
    let package = fs::read_dir(packages)?.next().context("no package was made")??.path();
    command::read(&package)
}
