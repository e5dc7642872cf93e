//! Where the images of two builds differ.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::command;
use ovmf_xen::compare::compare;
use ovmf_xen::symbols::Symbols;

use crate::build::{IMAGES, Images};

/// Differences of one image that are listed.
const LISTED: usize = 5;

/// Says where the images of two builds differ: region, file, symbol; nothing, where they are the same.
///
/// # Errors
/// An image or the core cannot be read.
pub fn between(reference: &Images, varied: &Images) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for name in IMAGES {
        let (old, new) = (command::read(&reference.folder.join(name))?, command::read(&varied.folder.join(name))?);
        if old == new {
            continue;
        }
        let core = Symbols::from_elf(&command::read(&reference.core)?).context(reference.core.display().to_string())?;
        let comparison = compare(&old, &new, Some(&core));
        lines.push(format!("{name}: {} bytes differ, in {} places:", comparison.differing_bytes, comparison.count));
        lines.extend(comparison.differences.iter().take(LISTED).map(|difference| format!("  {difference}")));
    }
    Ok(lines)
}

/// Has diffoscope compare the folders, where it is installed; returns its report.
#[must_use]
pub fn diffoscope(reference: &Images, varied: &Images, output: &Path) -> Option<PathBuf> {
    let report = output.join("diffoscope.txt");
    let mut compare = Command::new("diffoscope");
    compare
        .args(["--exclude-directory-metadata=yes", "--text"])
        .arg(&report)
        .arg(&reference.folder)
        .arg(&varied.folder);
    // It ends with 1 where it finds differences.
    compare.output().ok().filter(|_| report.exists()).map(|_| report)
}
