//! `ovmf-xen pin`: makes a release from a tree and its images, or checks that the tree's own still holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::Outcome;
use crate::files;
use crate::manifest::{self, Manifest};
use crate::release_set::{Ingredients, ReleaseSet};
use crate::sources;
use crate::sums::Sums;

/// Make the unsigned release of a tree and its images, or check the one the tree describes.
///
/// A release is a function of the source tree and the images: the same on every machine. Without --out the files that
/// describe it (manifest.json, SHA256SUMS, SOURCES.sha256, sbom.cdx.json, provenance.intoto.json) are written into the
/// tree, release/VERSION. Needs cargo and the crates that a build has fetched, and no network.
#[derive(Args)]
#[command(
    after_help = "Exit status: 0 done, or the description holds; 1 it does not hold, or an error; 2 wrong usage; \
    3 --check without images: the source holds, the images were not looked at"
)]
pub struct Arguments {
    /// Root of the source tree
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
    /// Where build-support/build has left the images [default: out in the source tree]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Make the complete release in DIR/ovmf-xen-VERSION
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    out: Option<PathBuf>,
    /// Write nothing; say whether release/VERSION still describes this tree and these images
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let source = fs::canonicalize(&arguments.source).with_context(|| arguments.source.display().to_string())?;
    let images = arguments.images.clone().unwrap_or_else(|| source.join("out"));
    if arguments.check {
        return check(&source, &images, arguments.images.is_some());
    }
    let release = ReleaseSet::make(&source, &images)?;
    let folder = match &arguments.out {
        Some(out) => {
            let folder = out.join(release.manifest.folder());
            write(&folder, &release.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect())?;
            folder
        }
        None => {
            let folder = described_in(&source, &release.manifest.version);
            write(&folder, &release.descriptions().collect())?;
            folder
        }
    };
    let Manifest { version, source, artifacts, .. } = &release.manifest;
    files::print(format!(
        "{}: ovmf-xen {version}, {} artifacts, unsigned\nsource digest {} over {} files\n",
        folder.display(),
        artifacts.len(),
        source.sha256,
        source.files
    ))?;
    Ok(Outcome::Success)
}

/// The folder of the tree that describes its release.
#[must_use]
pub fn described_in(source: &Path, version: &str) -> PathBuf {
    source.join("release").join(version)
}

fn write(folder: &Path, files: &BTreeMap<&str, &[u8]>) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name();
        if name.to_str().is_none_or(|name| !files.contains_key(name)) {
            bail!(
                "{}: there is already {} in it, which is not of this release; choose another folder or take it away",
                folder.display(),
                name.display()
            );
        }
    }
    for (name, bytes) in files {
        files::replace(&folder.join(name), bytes)?;
    }
    Ok(())
}

/// Compares the description in the tree with one made anew.
fn check(source: &Path, images: &Path, images_asked_for: bool) -> Result<Outcome> {
    let ingredients = Ingredients::of_tree(source)?;
    let folder = described_in(source, &ingredients.version);
    let path = folder.join(manifest::FILE);
    let text = fs::read(&path).with_context(|| format!("{}: `ovmf-xen pin` makes it", path.display()))?;
    let manifest = Manifest::parse(&text).with_context(|| path.display().to_string())?;
    let mut problems = source_problems(&manifest, &ingredients, &folder)?;
    let look_at_images = images_asked_for || images.exists();
    if look_at_images {
        let release = ReleaseSet::make(source, images)?;
        for image in manifest.images() {
            let made = release.manifest.artifact(&image.name);
            if made.is_none_or(|made| made.digests != image.digests) {
                problems.push(format!("{}: the images here have other bytes than the manifest says", image.name));
            }
        }
        for (name, bytes) in release.descriptions() {
            let path = folder.join(name);
            if fs::read(&path).ok().as_deref() != Some(bytes) {
                problems.push(format!("{}: is not what this tree and these images give", path.display()));
            }
        }
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        eprintln!("{} does not describe this tree; when the change is meant, run: ovmf-xen pin", folder.display());
        return Ok(Outcome::Failure);
    }
    if !look_at_images {
        eprintln!("The source holds; there are no images in {} to compare: build-support/build", images.display());
        return Ok(Outcome::Unknown);
    }
    files::print(format!("{} describes this tree and its images\n", folder.display()))?;
    Ok(Outcome::Success)
}

/// What of the tree is not as the manifest says.
fn source_problems(manifest: &Manifest, ingredients: &Ingredients, folder: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let (source, _) = ingredients.source();
    if manifest.source != source {
        let path = folder.join(sources::LIST);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let listed = Sums::parse(&text).with_context(|| path.display().to_string())?;
        problems.extend(listed.changes(&ingredients.sources));
        problems
            .push(format!("the source digest is {}, the manifest claims {}", source.sha256, manifest.source.sha256));
    }
    if manifest.toolchain != ingredients.toolchain {
        problems.push(format!("{}: differs from the manifest's toolchain", crate::toolchain::PINS));
    }
    if manifest.nixpkgs != ingredients.nixpkgs {
        problems.push("flake.lock: has another nixpkgs than the manifest".to_owned());
    }
    if manifest.dependencies != ingredients.dependencies.crates {
        problems.push("Cargo.lock: the build uses other crates than the manifest lists".to_owned());
    }
    Ok(problems)
}
