//! The daemon that keeps guests' variables, `ovmf-xen-varstored`, in dom0.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::dom0::Dom0;
use crate::host_program::{self, Profile};

const NAME: &str = "ovmf-xen-varstored";
const TIMEOUT: Duration = Duration::from_secs(30);

/// The folder in dom0 with the guests' stores, `NAME.fd` each.
pub const STORES: &str = "/var/lab/vars";

/// Builds the daemon and copies it to where [`start`] finds it.
///
/// # Errors
/// It does not compile.
pub fn send(dom0: &Dom0, profile: Profile) -> Result<()> {
    let program = host_program::path("varstored", NAME, profile)?;
    fs::copy(&program, dom0.share("tools").join(NAME)).context("the daemon for variables").map(drop)
}

/// Starts it, in place of one that may run; it serves when this returns.
///
/// # Errors
/// It says why it cannot.
pub fn start(dom0: &Dom0) -> Result<()> {
    dom0.run_well("bash /lab/tools/lab-varstored start", TIMEOUT).map(drop)
}

/// Stops it.
///
/// # Errors
/// The machine died.
pub fn stop(dom0: &Dom0) -> Result<()> {
    dom0.run_well("bash /lab/tools/lab-varstored stop", TIMEOUT).map(drop)
}
