//! Programs of ours for dom0, built when a scenario asks for one.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::guest_program::{executable, workspace};

/// How a program is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// With all checks, for tests.
    Debug,
    /// As it is installed, for measuring.
    Release,
}

/// The program `name` of a package, built from this checkout. dom0 has a newer C library than any machine that the lab
/// runs on, and the libraries of Xen.
///
/// # Errors
/// It does not compile.
pub fn path(package: &str, name: &str, profile: Profile) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--locked", "--package", package, "--bin", name, "--message-format", "json"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    let output = command::output(cargo.current_dir(workspace())).with_context(|| format!("building {name}"))?;
    output.lines().filter_map(executable).next_back().with_context(|| format!("cargo made no program {name}"))
}
