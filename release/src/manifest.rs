//! `manifest.json`: what a release is, in numbers. Its schema is `release/manifest.schema.json`.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dependencies::Dependency;
use crate::digest::{self, Digests, is_hex};
use crate::nixpkgs::Nixpkgs;
use crate::toolchain::Toolchain;

/// Name of the manifest in a release.
pub const FILE: &str = "manifest.json";

/// Value of [`Manifest::schema`].
pub const SCHEMA: u32 = 1;

/// A release.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest's form.
    pub schema: u32,
    /// Name of the product.
    pub name: String,
    /// Version of the release.
    pub version: String,
    /// The files of the release but this one, `SHA256SUMS` and signatures, sorted by name.
    pub artifacts: Vec<Artifact>,
    /// What they were made from.
    pub source: Source,
    /// What they were made with.
    pub toolchain: Toolchain,
    /// Where the flake takes its other tools from.
    pub nixpkgs: Nixpkgs,
    /// Crates of the build, sorted by name and version.
    pub dependencies: Vec<Dependency>,
}

/// A file of the release.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// File name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Size and digests.
    #[serde(flatten)]
    pub digests: Digests,
    /// Of an image: what is where, from its first to its last byte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layout: Vec<Region>,
}

/// What a file of the release is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A firmware image.
    Image,
    /// A configuration of a guest.
    Configuration,
    /// The text of a licence.
    Licence,
    /// The list of source files.
    Sources,
    /// The bill of materials.
    Sbom,
    /// How the images were made.
    Provenance,
}

/// A part of an image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// What it holds, as in `layout.toml`.
    pub region: String,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

/// The source digest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// File of the release that lists the source files with their SHA-256.
    pub list: String,
    /// How many files.
    pub files: usize,
    /// SHA-256 of the list.
    pub sha256: String,
}

/// Why a manifest cannot be relied on.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Not JSON, or fields missing, unknown or of other types.
    #[error("not a manifest: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Made by a newer tool.
    #[error("schema {0} is not known here, only {SCHEMA}; take a newer ovmf-xen")]
    Schema(u32),
    /// The same content written differently, or with more fields.
    #[error("not written the way `ovmf-xen pin` writes it; a release's manifest must not be edited")]
    Form,
    /// A field does not hold what it must.
    #[error("{field}: {problem}")]
    Field {
        /// Which.
        field: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Manifest {
    /// Reads a manifest and checks all that it says about itself.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(text)?;
        manifest.check()?;
        if manifest.to_text()?.as_bytes() != text {
            return Err(ManifestError::Form);
        }
        Ok(manifest)
    }

    /// The manifest's text.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// The artifact of this name.
    #[must_use]
    pub fn artifact(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.name == name)
    }

    /// The firmware images.
    pub fn images(&self) -> impl Iterator<Item = &Artifact> {
        self.artifacts.iter().filter(|artifact| artifact.kind == Kind::Image)
    }

    /// Name of the folder that holds the release.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    fn check(&self) -> Result<(), ManifestError> {
        if self.schema != SCHEMA {
            return Err(ManifestError::Schema(self.schema));
        }
        require(self.name == "ovmf-xen", "name", "is not ovmf-xen")?;
        require(semver::Version::parse(&self.version).is_ok(), "version", "is no version such as 0.1.0")?;
        let names: BTreeSet<_> = self.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        require(names.len() == self.artifacts.len(), "artifacts", "a name is there twice")?;
        require(self.images().next().is_some(), "artifacts", "no image is among them")?;
        self.artifacts.iter().try_for_each(Artifact::check)?;
        let list = self.artifact(&self.source.list);
        let agrees = list.is_some_and(|list| list.kind == Kind::Sources && list.digests.sha256 == self.source.sha256);
        require(agrees, "source", "is not the digest of the list among the artifacts")?;
        require(is_hex(&self.nixpkgs.rev, 20), "nixpkgs.rev", "is no commit")?;
        let Toolchain { archives, files, programs, .. } = &self.toolchain;
        for (name, hash) in archives.iter().chain(files).chain(programs) {
            let below = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            require(below, &format!("toolchain, {name}"), "is no file below a folder")?;
            require(is_hex(hash, 32), &format!("toolchain, {name}"), "is no SHA-256")?;
        }
        for one in &self.dependencies {
            require(is_hex(&one.sha256, 32), &format!("dependencies, {}", one.name), "is no SHA-256")?;
        }
        Ok(())
    }
}

impl Artifact {
    fn check(&self) -> Result<(), ManifestError> {
        let named = |field: &str| format!("artifacts, {}: {field}", self.name);
        // Names go into messages, file systems and what packagers paste.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        let plain = self.name.starts_with(|c: char| c.is_ascii_alphanumeric()) && self.name.chars().all(plain);
        require(plain, &named("name"), "is no plain file name of letters, digits and ._+-")?;
        let Digests { size, sha256, sri, sha512, blake2b } = &self.digests;
        require(is_hex(sha256, 32), &named("sha256"), "is no SHA-256 in lower-case hex")?;
        require(is_hex(sha512, 64), &named("sha512"), "is no SHA-512 in lower-case hex")?;
        require(is_hex(blake2b, 64), &named("blake2b"), "is no BLAKE2b of 512 bits in lower-case hex")?;
        require(
            digest::sri_of_hex(sha256).as_ref() == Some(sri),
            &named("sri"),
            "is not the SHA-256 in its other form",
        )?;
        let mut end = 0;
        for region in &self.layout {
            require(region.offset >= end && region.size > 0, &named(&region.region), "overlaps the region before")?;
            end = region.offset.saturating_add(region.size);
            require(end <= *size, &named(&region.region), "ends behind the image")?;
            require(is_hex(&region.sha256, 32), &named(&region.region), "has no SHA-256 in lower-case hex")?;
        }
        require(
            (self.kind == Kind::Image) != self.layout.is_empty(),
            &named("layout"),
            "only images have one, and all do",
        )
    }
}

fn require(holds: bool, field: &str, problem: &'static str) -> Result<(), ManifestError> {
    if holds { Ok(()) } else { Err(ManifestError::Field { field: field.to_owned(), problem }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// What is said about the manifest of the tests after a change.
    fn refusal(change: impl FnOnce(&mut Manifest)) -> String {
        let (mut manifest, _) = testing::parts();
        change(&mut manifest);
        Manifest::parse(manifest.to_text().unwrap().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_manifest_reads_what_it_writes() {
        let (manifest, _) = testing::parts();
        assert_eq!(Manifest::parse(manifest.to_text().unwrap().as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_field() {
        let image = 1;
        for (field, said) in [
            ("version", refusal(|manifest| manifest.version = "one".into())),
            ("OVMF.fd: sri", refusal(|manifest| manifest.artifacts[image].digests.sri = "sha256-AAAA".into())),
            ("OVMF.fd: sha512", refusal(|manifest| manifest.artifacts[image].digests.sha512 = "00".into())),
            ("OVMF.fd: code", refusal(|manifest| manifest.artifacts[image].layout[1].offset = 3)),
            ("OVMF.fd: code", refusal(|manifest| manifest.artifacts[image].layout[1].size = u64::MAX)),
            ("OVMF.fd: layout", refusal(|manifest| manifest.artifacts[image].layout.clear())),
            ("../x: name", refusal(|manifest| manifest.artifacts[0].name = "../x".into())),
            ("$(x): name", refusal(|manifest| manifest.artifacts[0].name = "$(x)".into())),
            ("twice", refusal(|manifest| manifest.artifacts[0].name = "OVMF.fd".into())),
            ("source", refusal(|manifest| manifest.source.sha256 = "00".repeat(32))),
            ("schema 2", refusal(|manifest| manifest.schema = 2)),
            ("/dev/zero", refusal(|manifest| _ = manifest.toolchain.files.insert("/dev/zero".into(), "00".repeat(32)))),
            ("../x", refusal(|manifest| _ = manifest.toolchain.programs.insert("../x".into(), "00".repeat(32)))),
            ("nixpkgs.rev", refusal(|manifest| manifest.nixpkgs.rev = "main".into())),
        ] {
            assert!(said.contains(field), "{field:?} is not in {said:?}");
        }
    }

    #[test]
    fn unknown_fields_and_what_is_no_manifest_are_refused() {
        let text = testing::parts().0.to_text().unwrap();
        let more = text.replacen("\"kind\"", "\"more\": 1, \"kind\"", 1);
        assert!(Manifest::parse(more.as_bytes()).unwrap_err().to_string().contains("must not be edited"));
        assert!(Manifest::parse(b"{}").unwrap_err().to_string().contains("not a manifest"));
    }
}
