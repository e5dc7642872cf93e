//! Where two images differ.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use image::layout::Layout;
use lab::command;

use crate::build::{IMAGES, Images};

/// Differences of one image that are listed.
const LISTED: usize = 8;

/// Says where the images of two builds differ; nothing, where they are the same.
///
/// # Errors
/// An image or the layout cannot be read.
pub fn between(root: &Path, reference: &Images, varied: &Images) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for name in IMAGES {
        let [old, new] = [reference, varied].map(|images| command::read(&images.folder.join(name)));
        let (old, new) = (old?, new?);
        if old != new {
            lines.extend(regions(root, name, &old, &new)?);
        }
    }
    Ok(lines)
}

fn regions(root: &Path, name: &str, old: &[u8], new: &[u8]) -> Result<Vec<String>> {
    if old.len() != new.len() {
        return Ok(vec![format!("{name}: {} bytes instead of {}", new.len(), old.len())]);
    }
    let text = command::read(&root.join("build-support/layout.toml"))?;
    let layout = Layout::parse(&String::from_utf8_lossy(&text))?;
    let image =
        layout.images.iter().find(|image| image.file == name).with_context(|| format!("the layout has no {name}"))?;
    let mut lines = Vec::new();
    for region in &image.regions {
        let range = usize::try_from(region.offset)?..usize::try_from(region.offset + region.size)?;
        let differing = old[range.clone()].iter().zip(&new[range]).enumerate().filter(|(_, (old, new))| old != new);
        let offsets: Vec<usize> = differing.map(|(offset, _)| offset).collect();
        if let Some(first) = offsets.first() {
            lines.push(format!(
                "{name}: region {}: {} bytes differ, the first at {first:#x}",
                region.kind,
                offsets.len()
            ));
        }
    }
    Ok(lines.into_iter().take(LISTED).collect())
}

/// Has diffoscope compare two folders, where it is installed; returns its report.
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
