//! The licences of the crates whose code is in the images, as the crates bring them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::dependencies::{Dependency, Role};
use crate::toolchain;

/// Name of the text in a release.
pub const FILE: &str = "LICENSE-THIRD-PARTY";

/// How the names of licence files begin, in upper case.
const PREFIXES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
    source: Option<String>,
}

/// The text for the tree at `root`: the crates, then every licence text once with the crates that bring it.
pub fn of_tree(root: &Path, crates: &[Dependency]) -> Result<String> {
    let folders = folders(root)?;
    let mut text = "The images of ovmf-xen contain code of these crates and of Rust's core and alloc (MIT OR Apache-2.0,\n\
        The Rust Project Contributors). Their source is at https://crates.io/crates/NAME/VERSION; it is used unchanged.\n\n"
        .to_owned();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in crates.iter().filter(|one| one.role == Role::Image) {
        let Dependency { name, version, licence, .. } = one;
        writeln!(text, "{name} {version}: {licence}")?;
        let folder = folders
            .get(&(name.clone(), version.clone()))
            .with_context(|| format!("cargo does not say where {name} {version} is"))?;
        for (file, content) in licence_files(folder).with_context(|| folder.display().to_string())? {
            texts.entry(content).or_default().push(format!("{name} {version}: {file}"));
        }
    }
    let mut sections: Vec<_> = texts.into_iter().map(|(content, users)| (users, content)).collect();
    sections.sort();
    let rule = "-".repeat(80);
    for (users, content) in sections {
        write!(text, "\n{rule}\n{}\n{rule}\n\n{}\n", users.join("\n"), content.trim_matches('\n'))?;
    }
    Ok(text)
}

/// Where the crates of a build are unpacked.
fn folders(root: &Path) -> Result<BTreeMap<(String, String), PathBuf>> {
    let mut command = toolchain::command("cargo", root);
    command.args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    command.args(toolchain::PLATFORMS.map(|platform| format!("--filter-platform={platform}")));
    let metadata: Metadata = serde_json::from_str(&toolchain::output(&mut command)?).context("cargo metadata")?;
    let registry = metadata.packages.into_iter().filter(|package| package.source.is_some());
    Ok(registry
        .filter_map(|package| {
            let folder = package.manifest_path.parent()?.to_path_buf();
            Some(((package.name, package.version), folder))
        })
        .collect())
}

/// The licence files of a crate by name, with their text.
fn licence_files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if PREFIXES.iter().any(|prefix| name.to_uppercase().starts_with(prefix)) && path.is_file() {
            files.insert(name, String::from_utf8_lossy(&fs::read(&path)?).replace("\r\n", "\n"));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependencies;

    #[test]
    fn every_crate_of_the_images_is_named_and_texts_are_there_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let crates = dependencies::of_tree(root).unwrap().crates;
        let text = of_tree(root, &crates).unwrap();
        for one in crates.iter().filter(|one| one.role == Role::Image) {
            assert!(text.contains(&format!("\n{} {}: {}\n", one.name, one.version, one.licence)), "{}", one.name);
        }
        assert!(!text.contains("bindgen"), "it is not in the images");
        let mozilla = "Mozilla Public License Version 2.0";
        assert!(text.matches(mozilla).count() <= 1, "a text is there twice");
        assert!(text.contains("Permission is hereby granted"));
    }
}
