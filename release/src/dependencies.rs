//! The crates that a build of the images uses, and what for.
//!
//! `cargo tree` tells: it resolves features and platforms as the build does, needs no network when the crates are there,
//! and sees registry, mirror and vendored folder alike. Their hashes are those of `Cargo.lock`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::toolchain;

/// What a crate is used for. The first that applies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Its code is in the images.
    Image,
    /// A build script or a macro of the firmware uses it.
    Build,
    /// The tool that puts the images together uses it.
    Tool,
}

/// A crate from the registry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// Name of the crate.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the crate file, from `Cargo.lock`.
    pub sha256: String,
    /// What the crate says about its licence, as an SPDX expression.
    pub licence: String,
    /// What it is used for.
    pub role: Role,
}

impl Dependency {
    /// Name and version in the notation of package URLs.
    #[must_use]
    pub fn purl(&self) -> String {
        purl(&self.name, &self.version)
    }
}

/// A crate in the notation of package URLs.
#[must_use]
pub fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{version}")
}

/// All crates of a build.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dependencies {
    /// The crates from the registry, by name and version.
    pub crates: Vec<Dependency>,
    /// Which crate of the images uses which, as package URLs; those that the firmware itself uses stand under `None`.
    pub edges: BTreeMap<Option<String>, BTreeSet<String>>,
}

/// Name and version.
type Key = (String, String);

/// What cargo is asked: a package, the target it is built for, which edges to follow, and what is at their ends.
const QUESTIONS: [(&str, &str, &str, Role); 5] = [
    ("entry", "x86_64-unknown-none", "normal,no-proc-macro", Role::Image),
    ("runtime", "x86_64-unknown-uefi", "normal,no-proc-macro", Role::Image),
    ("entry", "x86_64-unknown-none", "normal,build", Role::Build),
    ("runtime", "x86_64-unknown-uefi", "normal,build", Role::Build),
    ("image", "x86_64-unknown-linux-gnu", "normal,build", Role::Tool),
];

/// The crates that build the tree at `root`.
pub fn of_tree(root: &Path) -> Result<Dependencies> {
    let checksums = checksums(root)?;
    let mut found: BTreeMap<Key, (String, Role)> = BTreeMap::new();
    let mut dependencies = Dependencies::default();
    for (package, target, edges, role) in QUESTIONS {
        let arguments = ["tree", "--locked", "--offline", "--prefix", "depth", "--format", "{p}\t{l}"];
        let selection = ["--package", package, "--target", target, "--edges", edges];
        let text = toolchain::output(toolchain::command("cargo", root).args(arguments).args(selection)).context(
            "cargo cannot say which crates the build uses; build-support/build fetches them, then run this again",
        )?;
        let mut path: Vec<Option<String>> = Vec::new();
        for line in text.lines() {
            let Line { depth, key, licence } = Line::parse(line).with_context(|| format!("cargo tree: {line:?}"))?;
            let own = !checksums.contains_key(&key);
            let node = (!own).then(|| purl(&key.0, &key.1));
            path.truncate(depth);
            if let (Role::Image, Some(node)) = (role, &node) {
                let user = path.last().cloned().flatten();
                dependencies.edges.entry(user).or_default().insert(node.clone());
            }
            path.push(node);
            if !own {
                found.entry(key).or_insert((licence, role));
            }
        }
    }
    for (key, (licence, role)) in found {
        let sha256 = checksums.get(&key).cloned().unwrap_or_default();
        let (name, version) = key;
        dependencies.crates.push(Dependency { name, version, sha256, licence, role });
    }
    Ok(dependencies)
}

/// A line of `cargo tree`.
struct Line {
    depth: usize,
    key: Key,
    licence: String,
}

impl Line {
    /// Reads "DEPTHname vVERSION (where it is)\tLICENCE".
    fn parse(line: &str) -> Option<Self> {
        let (package, licence) = line.split_once('\t')?;
        let digits = package.find(|c: char| !c.is_ascii_digit())?;
        let (depth, package) = package.split_at(digits);
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        // "(*)" says that the crates below were listed before.
        let licence = licence.trim_end().trim_end_matches("(*)").trim_end();
        Some(Self {
            depth: depth.parse().ok()?,
            key: (name.to_owned(), version.to_owned()),
            // An older notation for a choice.
            licence: licence.replace('/', " OR "),
        })
    }
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

/// SHA-256 of every crate that is not the workspace's own.
fn checksums(root: &Path) -> Result<BTreeMap<Key, String>> {
    let path = root.join("Cargo.lock");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lock: Lock = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut checksums = BTreeMap::new();
    for package in lock.package.into_iter().filter(|package| package.source.is_some()) {
        let Package { name, version, checksum, .. } = package;
        ensure!(checksum.is_some(), "Cargo.lock: {name} {version} has no checksum; only registries give one");
        checksums.insert((name, version), checksum.unwrap_or_default());
    }
    Ok(checksums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_tree_are_read() {
        let line = Line::parse("12bitflags v2.13.2\tMIT/Apache-2.0 (*)").unwrap();
        assert_eq!((line.depth, line.licence.as_str()), (12, "MIT OR Apache-2.0"));
        assert_eq!(line.key, ("bitflags".into(), "2.13.2".into()));
        let own = Line::parse("0entry v0.1.0 (/some where/entry)\tMIT OR Apache-2.0").unwrap();
        assert_eq!((own.depth, own.key.1.as_str()), (0, "0.1.0"));
        assert!(Line::parse("nothing of the kind").is_none());
    }

    #[test]
    fn this_tree_uses_what_it_names() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let dependencies = of_tree(root).unwrap();
        let role = |name| dependencies.crates.iter().find(|one| one.name == name).map(|one| one.role);
        assert_eq!(role("uefi-raw"), Some(Role::Image));
        assert_eq!(role("bindgen"), Some(Role::Build));
        assert_eq!(role("clap"), Some(Role::Tool));
        assert_eq!(role("indicatif"), None, "only the lab uses it");
        assert!(dependencies.crates.iter().all(|one| crate::digest::is_hex(&one.sha256, 32)));
        assert!(dependencies.edges[&None].contains(&purl("log", &dependencies_version(&dependencies, "log"))));
    }

    fn dependencies_version(dependencies: &Dependencies, name: &str) -> String {
        dependencies.crates.iter().find(|one| one.name == name).unwrap().version.clone()
    }
}
