//! The Rust toolchain that makes the images, by the hash of its archives and of its files.
//!
//! The data is `build-support/toolchain.toml`; [`examine`] holds an installed toolchain against it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::digest::sha256;

/// Where the data is, from the root of the tree.
pub const PINS: &str = "build-support/toolchain.toml";

/// The platforms that a build compiles for.
pub const PLATFORMS: [&str; 3] = ["x86_64-unknown-linux-gnu", "x86_64-unknown-none", "x86_64-unknown-uefi"];

/// The official release of Rust that makes the images.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    /// Version of the release.
    pub version: String,
    /// Address of the folder that holds the archives.
    pub url: String,
    /// The archives: file below `url`, SHA-256.
    pub archives: BTreeMap<String, String>,
    /// Files below the toolchain's root that are the same however it was installed, SHA-256.
    pub files: BTreeMap<String, String>,
    /// Programs and shared libraries, likewise; Nix has to write its own paths into them, so there they differ.
    pub programs: BTreeMap<String, String>,
}

/// How an installed toolchain compares with the official one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Examination {
    /// Files that are the official ones.
    pub equal: usize,
    /// Programs that Nix has adapted and that cannot be compared, by name.
    pub adapted: Vec<String>,
    /// What is wrong: a line per file.
    pub problems: Vec<String>,
}

/// Reads the data of the tree at `root`, and that `rust-toolchain.toml` names the same version.
pub fn of_tree(root: &Path) -> Result<Toolchain> {
    let toolchain: Toolchain = read_toml(&root.join(PINS))?;
    let selected: Selected = read_toml(&root.join("rust-toolchain.toml"))?;
    let channel = selected.toolchain.channel;
    ensure!(
        channel == toolchain.version,
        "rust-toolchain.toml selects {channel} and {PINS} describes {}; bring them together",
        toolchain.version
    );
    Ok(toolchain)
}

#[derive(Deserialize)]
struct Selected {
    toolchain: Channel,
}

#[derive(Deserialize)]
struct Channel {
    channel: String,
}

fn read_toml<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// Settings that `build-support/build` does not let through, by name and by the beginning of the name.
const IGNORED: [&str; 4] = ["RUSTFLAGS", "RUSTC", "RUSTUP_TOOLCHAIN", "CARGO_INCREMENTAL"];
const IGNORED_FAMILIES: [&str; 6] =
    ["RUSTC_", "CARGO_ENCODED_", "CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"];

/// A command of the toolchain that the tree at `root` selects, in the environment that `build-support/build` gives it.
#[must_use]
pub fn command(program: &str, root: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root).env("LC_ALL", "C").env("PATH", search_path());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if IGNORED.contains(&text.as_ref()) || IGNORED_FAMILIES.iter().any(|family| text.starts_with(family)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Where rustup puts the toolchain's programs, before all else.
fn search_path() -> OsString {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    let mut path = cargo_home.map_or_else(OsString::new, |home| home.join("bin").into_os_string());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

/// What a command of the toolchain prints.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| {
        format!("{program} cannot be started; build-support/setup installs the toolchain, and it has to be in PATH")
    })?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed what is not UTF-8"))
}

/// The root of the toolchain that builds the tree at `root`.
pub fn sysroot(root: &Path) -> Result<PathBuf> {
    Ok(PathBuf::from(output(command("rustc", root).args(["--print", "sysroot"]))?.trim()))
}

/// Holds the toolchain installed at `sysroot` against the official one.
#[must_use]
pub fn examine(toolchain: &Toolchain, sysroot: &Path) -> Examination {
    let mut examination = Examination::default();
    // Nix's linker and library paths are in every program there, which the store's own hash vouches for instead.
    let in_nix = sysroot.starts_with("/nix/store");
    for (name, expected) in toolchain.files.iter().chain(&toolchain.programs) {
        match fs::read(sysroot.join(name)) {
            Err(error) => examination.problems.push(format!("{name}: {error}")),
            Ok(bytes) if sha256(&bytes) == *expected => examination.equal += 1,
            Ok(_) if in_nix && toolchain.programs.contains_key(name) => examination.adapted.push(name.clone()),
            Ok(_) => examination.problems.push(format!("{name}: is not the file of the official release")),
        }
    }
    examination.problems.extend(strangers(toolchain, sysroot));
    examination
}

/// Libraries beside the official ones, which the compiler might take instead.
fn strangers(toolchain: &Toolchain, sysroot: &Path) -> Vec<String> {
    let parents: BTreeSet<_> = toolchain.files.keys().filter_map(|name| Path::new(name).parent()).collect();
    let mut found = Vec::new();
    for parent in parents {
        let entries = fs::read_dir(sysroot.join(parent)).into_iter().flatten().flatten();
        for name in entries.map(|entry| parent.join(entry.file_name())) {
            let name = name.display().to_string();
            if name.ends_with(".rlib") && !toolchain.files.contains_key(&name) {
                found.push(format!("{name}: does not belong to the official release"));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed() -> (tempfile::TempDir, Toolchain) {
        let folder = tempfile::tempdir().unwrap();
        let mut toolchain = Toolchain {
            version: "1.0.0".into(),
            url: String::new(),
            archives: BTreeMap::new(),
            files: BTreeMap::new(),
            programs: BTreeMap::new(),
        };
        for (name, of) in [("lib/libcore.rlib", &mut toolchain.files), ("bin/rustc", &mut toolchain.programs)] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
            of.insert(name.to_owned(), sha256(name.as_bytes()));
        }
        (folder, toolchain)
    }

    #[test]
    fn the_official_files_are_equal() {
        let (folder, toolchain) = installed();
        assert_eq!(examine(&toolchain, folder.path()), Examination { equal: 2, ..Examination::default() });
    }

    #[test]
    fn another_file_a_missing_file_and_a_stranger_are_named() {
        let (folder, toolchain) = installed();
        fs::write(folder.path().join("bin/rustc"), "other").unwrap();
        fs::rename(folder.path().join("lib/libcore.rlib"), folder.path().join("lib/libcore-2.rlib")).unwrap();
        let problems = examine(&toolchain, folder.path()).problems.join("\n");
        assert!(problems.contains("bin/rustc: is not the file of the official release"), "{problems}");
        assert!(problems.contains("lib/libcore.rlib: No such file"), "{problems}");
        assert!(problems.contains("lib/libcore-2.rlib: does not belong"), "{problems}");
    }

    #[test]
    fn two_versions_in_one_tree_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("build-support")).unwrap();
        let pins = "version = \"1.2.3\"\nurl = \"\"\n[archives]\n[files]\n[programs]\n";
        fs::write(folder.path().join(PINS), pins).unwrap();
        fs::write(folder.path().join("rust-toolchain.toml"), "[toolchain]\nchannel = \"1.2.4\"\n").unwrap();
        assert!(of_tree(folder.path()).unwrap_err().to_string().contains("selects 1.2.4"));
    }
}
