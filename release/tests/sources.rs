//! The source digest covers what a build reads from the tree, and nothing else.
//!
//! Cargo writes down which files it compiled (dep-info, `.d`). Beside them a build reads what cargo itself needs of each
//! package, and what `build-support/build` names.
#![expect(clippy::unwrap_used, reason = "a test reports by failing")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The programs of a build, below the target directory.
const PROGRAMS: [&str; 3] =
    ["x86_64-unknown-none/release/ovmf-xen-core.d", "x86_64-unknown-uefi/release/runtime.d", "debug/mkfd.d"];

/// What cargo reads of a workspace, whatever is built.
const WORKSPACE: [&str; 3] = ["Cargo.lock", "Cargo.toml", "rust-toolchain.toml"];

#[test]
#[ignore = "needs a build: tests/run release"]
fn what_a_build_reads_is_what_the_digest_covers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = std::env::var_os("TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut read = BTreeSet::new();
    for program in PROGRAMS {
        let path = target.join(program);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for file in inputs(&text) {
            add(&mut read, root, Path::new(&file), &target);
        }
    }
    assert!(read.len() > 100, "the dep-info names hardly any files of this tree: {read:?}");
    let manifests: Vec<_> =
        read.iter().filter_map(|file| package(file)).map(|folder| format!("{folder}/Cargo.toml")).collect();
    read.extend(manifests);
    read.extend(WORKSPACE.map(str::to_owned));
    read.extend(named_by_the_build(root));
    let sources = ovmf_xen::sources::of_tree(root).unwrap();
    let covered: BTreeSet<_> = sources.names().map(str::to_owned).collect();
    let unseen: Vec<_> = read.difference(&covered).collect();
    let unread: Vec<_> = covered.difference(&read).collect();
    assert!(
        unseen.is_empty() && unread.is_empty(),
        "{}: correct it.\nread by the build, not in the set: {unseen:#?}\nin the set, not read by the build: {unread:#?}",
        ovmf_xen::sources::SETS
    );
}

/// The files behind the colon of a makefile rule; blanks in names are escaped.
fn inputs(rule: &str) -> Vec<String> {
    let inputs = rule.split_once(": ").map_or("", |(_, inputs)| inputs);
    let marked = inputs.trim_end().replace("\\ ", "\0");
    marked.split(' ').map(|name| name.replace('\0', " ")).collect()
}

/// A file of the tree, or every file of a folder of it, which a build script has asked cargo to watch.
fn add(read: &mut BTreeSet<String>, root: &Path, path: &Path, target: &Path) {
    if path.starts_with(target) {
        return;
    }
    let Ok(name) = path.strip_prefix(root) else { return };
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            add(read, root, &entry.unwrap().path(), target);
        }
    } else {
        read.insert(name.display().to_string());
    }
}

/// The folder of the package that a source file belongs to.
fn package(file: &str) -> Option<&str> {
    file.find("/src/").map(|at| &file[..at])
}

/// The script, and the files that it names outside its help.
fn named_by_the_build(root: &Path) -> Vec<String> {
    let script = "build-support/build";
    let text = fs::read_to_string(root.join(script)).unwrap();
    let (before, rest) = text.split_once("<<'TEXT'").unwrap();
    let (_help, after) = rest.split_once("\nTEXT\n").unwrap();
    let words = [before, after]
        .into_iter()
        .flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && !"-_./".contains(c)));
    let files = words.filter_map(|word| word.find("build-support/").map(|at| &word[at..]));
    files.filter(|file| root.join(file).is_file()).chain([script]).map(str::to_owned).collect()
}
