//! A small release for the unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tempfile::TempDir;

use crate::dependencies::{Dependencies, Dependency, Role, purl};
use crate::digest::Digests;
use crate::manifest::{self, Artifact, Kind, Manifest, Region, Source};
use crate::nixpkgs::Nixpkgs;
use crate::release_set::SUMS;
use crate::sums::Sums;
use crate::toolchain::Toolchain;

const IMAGE: &[u8] = b"header and code";
const LIST: &[u8] = b"";
const LICENCE: &[u8] = b"do as you please\n";

/// A manifest with one image, a licence and a list of sources; and its crates.
pub fn parts() -> (Manifest, Dependencies) {
    let artifact = |name: &str, kind, bytes: &[u8], layout| {
        let digests = Digests::of(bytes);
        Artifact { name: name.to_owned(), kind, digests, layout }
    };
    let region = |region: &str, offset: usize, size: usize| Region {
        region: region.to_owned(),
        offset: offset as u64,
        size: size as u64,
        sha256: crate::digest::sha256(&IMAGE[offset..offset + size]),
    };
    let artifacts = vec![
        artifact("LICENSE-MIT", Kind::Licence, LICENCE, Vec::new()),
        artifact("OVMF.fd", Kind::Image, IMAGE, vec![region("elf-header", 0, 6), region("code", 11, 4)]),
        artifact("SOURCES.sha256", Kind::Sources, LIST, Vec::new()),
    ];
    let hash = crate::digest::sha256(b"");
    let one = |name: &str, role| Dependency {
        name: name.to_owned(),
        version: "0.4.1".to_owned(),
        sha256: hash.clone(),
        licence: "MIT".to_owned(),
        role,
    };
    let crates = vec![one("bindgen", Role::Build), one("log", Role::Image)];
    let manifest = Manifest {
        schema: manifest::SCHEMA,
        name: "ovmf-xen".to_owned(),
        version: "0.1.0".to_owned(),
        artifacts,
        source: Source { list: "SOURCES.sha256".to_owned(), files: 0, sha256: hash.clone() },
        toolchain: Toolchain {
            version: "1.95.0".to_owned(),
            url: "https://example.org".to_owned(),
            archives: BTreeMap::from([("rustc.tar.xz".to_owned(), hash.clone())]),
            files: BTreeMap::new(),
            programs: BTreeMap::new(),
        },
        nixpkgs: Nixpkgs {
            owner: "NixOS".to_owned(),
            repo: "nixpkgs".to_owned(),
            rev: "0".repeat(40),
            nar_hash: "sha256-".to_owned(),
        },
        dependencies: crates.clone(),
    };
    let edges = BTreeMap::from([(None, BTreeSet::from([purl("log", "0.4.1")]))]);
    (manifest, Dependencies { crates, edges })
}

/// The same release as a folder.
pub fn release() -> TempDir {
    release_of(&parts().0)
}

/// A folder with the files of [`parts`] and this manifest.
pub fn release_of(manifest: &Manifest) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = manifest.to_text().unwrap();
    let mut sums = Sums::default();
    let files =
        [("LICENSE-MIT", LICENCE), ("OVMF.fd", IMAGE), ("SOURCES.sha256", LIST), (manifest::FILE, text.as_bytes())];
    for (name, bytes) in files {
        sums.add(name, bytes);
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    fs::write(folder.path().join(SUMS), sums.to_string()).unwrap();
    folder
}
