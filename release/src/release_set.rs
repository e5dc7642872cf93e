//! A release: every file of it, made from a source tree and its images and from nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use image::layout::{ImageLayout, Layout};
use serde::Deserialize;
use serde_json::Value;

use crate::dependencies::{self, Dependencies};
use crate::digest::{Digests, sha256};
use crate::manifest::{self, Artifact, Kind, Manifest, Region, Source};
use crate::sums::Sums;
use crate::toolchain::Toolchain;
use crate::{in_toto, nixpkgs, notices, sbom, sources, toolchain};

/// Name of the list of sums in a release.
pub const SUMS: &str = "SHA256SUMS";

/// Files of a release that stand in the tree: name there, path here, kind.
const COPIES: [(&str, &str, Kind); 5] = [
    ("LICENSE-APACHE", "LICENSE-APACHE", Kind::Licence),
    ("LICENSE-MIT", "LICENSE-MIT", Kind::Licence),
    ("LICENSE-SPLEEN", "LICENSE-SPLEEN", Kind::Licence),
    ("hvm.cfg", "release/xl/hvm.cfg", Kind::Configuration),
    ("pvh.cfg", "release/xl/pvh.cfg", Kind::Configuration),
];

/// What the manifest says beside the artifacts: all that can be known of a tree without its images.
#[derive(Debug)]
pub struct Ingredients {
    /// Version of the tree.
    pub version: String,
    /// The layout of its images.
    pub layout: Layout,
    /// The files that can influence the images.
    pub sources: Sums,
    /// The toolchain.
    pub toolchain: Toolchain,
    /// The crates.
    pub dependencies: Dependencies,
    /// The pin of nixpkgs.
    pub nixpkgs: nixpkgs::Nixpkgs,
}

/// A complete release without signatures.
#[derive(Debug)]
pub struct ReleaseSet {
    /// Its manifest.
    pub manifest: Manifest,
    /// All its files by name, the manifest and the sums among them.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Ingredients {
    /// Of the tree at `root`.
    pub fn of_tree(root: &Path) -> Result<Self> {
        // First, as its message is the clearest when this is no tree of ours.
        let sources = sources::of_tree(root)?;
        let path = root.join("build-support/layout.toml");
        let layout = Layout::parse(&read_text(&path)?).with_context(|| path.display().to_string())?;
        Ok(Self {
            version: version(root)?,
            layout,
            sources,
            toolchain: toolchain::of_tree(root)?,
            dependencies: dependencies::of_tree(root)?,
            nixpkgs: nixpkgs::of_tree(root)?,
        })
    }

    /// The source digest, and the text it is the digest of.
    #[must_use]
    pub fn source(&self) -> (Source, String) {
        let list = self.sources.to_string();
        let sha256 = sha256(list.as_bytes());
        (Source { list: sources::LIST.to_owned(), files: self.sources.len(), sha256 }, list)
    }
}

impl ReleaseSet {
    /// The release of the tree at `root`, with the images that a build has left below `images`.
    pub fn make(root: &Path, images: &Path) -> Result<Self> {
        let ingredients = Ingredients::of_tree(root)?;
        let mut files = BTreeMap::new();
        let mut artifacts = Vec::new();
        for image in &ingredients.layout.images {
            let bytes = read_image(images, image)?;
            artifacts.push(image_artifact(image, &bytes));
            files.insert(image.file.clone(), bytes);
        }
        let made = artifacts.clone();
        let mut add = |name: &str, kind: Kind, bytes: Vec<u8>| {
            let digests = Digests::of(&bytes);
            artifacts.push(Artifact { name: name.to_owned(), kind, digests, layout: Vec::new() });
            files.insert(name.to_owned(), bytes);
        };
        for (name, path, kind) in COPIES {
            let path = root.join(path);
            add(name, kind, fs::read(&path).with_context(|| path.display().to_string())?);
        }
        let Ingredients { version, toolchain, dependencies, .. } = &ingredients;
        add(notices::FILE, Kind::Licence, notices::of_tree(root, &dependencies.crates)?.into_bytes());
        let (source, list) = ingredients.source();
        add(sources::LIST, Kind::Sources, list.into_bytes());
        add(sbom::FILE, Kind::Sbom, json(&sbom::make(version, &made, dependencies, toolchain))?);
        let provenance = in_toto::provenance(version, &made, &source, toolchain, &dependencies.crates);
        add(in_toto::PROVENANCE, Kind::Provenance, json(&provenance)?);
        artifacts.sort_by(|one, other| one.name.cmp(&other.name));
        let manifest = Manifest {
            schema: manifest::SCHEMA,
            name: "ovmf-xen".to_owned(),
            version: version.clone(),
            artifacts,
            source,
            toolchain: ingredients.toolchain,
            nixpkgs: ingredients.nixpkgs,
            dependencies: ingredients.dependencies.crates,
        };
        let text = manifest.to_text()?;
        Manifest::parse(text.as_bytes()).context("the manifest made here does not keep its own rules")?;
        files.insert(manifest::FILE.to_owned(), text.into_bytes());
        let mut sums = Sums::default();
        files.iter().for_each(|(name, bytes)| sums.add(name, bytes));
        files.insert(SUMS.to_owned(), sums.to_string().into_bytes());
        Ok(Self { manifest, files })
    }

    /// The files that the tree keeps of its release: those that describe it. Copies and images are in the tree or made.
    pub fn descriptions(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let described = [manifest::FILE, SUMS, sources::LIST, sbom::FILE, in_toto::PROVENANCE];
        self.files
            .iter()
            .filter(move |(name, _)| described.contains(&name.as_str()))
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
}

/// The version that the workspace at `root` declares.
pub fn version(root: &Path) -> Result<String> {
    #[derive(Deserialize)]
    struct Root {
        workspace: Workspace,
    }
    #[derive(Deserialize)]
    struct Workspace {
        package: Package,
    }
    #[derive(Deserialize)]
    struct Package {
        version: String,
    }
    let path = root.join("Cargo.toml");
    let root: Root = toml::from_str(&read_text(&path)?).with_context(|| path.display().to_string())?;
    Ok(root.workspace.package.version)
}

/// Where an image can be below the folder that was given: a build's `out`, a flavour's folder, or the files themselves.
fn image_places(folder: &Path, file: &str) -> Vec<PathBuf> {
    ["", "FV", "ovmf-xen-pvh/FV", "ovmf-xen-hvm/FV"]
        .iter()
        .map(|part| folder.join(part).join(file))
        .filter(|path| path.is_file())
        .collect()
}

fn read_image(folder: &Path, image: &ImageLayout) -> Result<Vec<u8>> {
    let places = image_places(folder, &image.file);
    let Some((first, others)) = places.split_first() else {
        bail!("{}: there is no {} in it; build-support/build makes it", folder.display(), image.file);
    };
    let bytes = fs::read(first).with_context(|| first.display().to_string())?;
    for other in others {
        let same = fs::read(other).with_context(|| other.display().to_string())? == bytes;
        ensure!(same, "{} and {} differ; build them anew", first.display(), other.display());
    }
    let size = bytes.len() as u64;
    ensure!(size == image.size, "{}: has {size} bytes, the layout says {}; build it anew", first.display(), image.size);
    Ok(bytes)
}

/// An image with the digest of each region. Bytes between regions are erased flash; the digest of the file covers them.
fn image_artifact(image: &ImageLayout, bytes: &[u8]) -> Artifact {
    let mut regions = image.regions.clone();
    regions.sort_by_key(|region| region.offset);
    let layout = regions.iter().map(|region| Region {
        region: region.kind.to_string(),
        offset: region.offset,
        size: region.size,
        // A layout that was checked has its regions inside, and the image has the layout's size.
        sha256: sha256(bytes.get(region.offset as usize..(region.offset + region.size) as usize).unwrap_or_default()),
    });
    let layout = layout.collect();
    Artifact { name: image.file.clone(), kind: Kind::Image, digests: Digests::of(bytes), layout }
}

fn json(value: &Value) -> Result<Vec<u8>> {
    Ok((serde_json::to_string_pretty(value)? + "\n").into_bytes())
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}
