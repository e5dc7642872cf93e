//! The source digest: which files of the tree can influence the images, and the SHA-256 of each.
//!
//! The set is data, `release/sources.toml`; a test compares it with what a build has read.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use glob::{MatchOptions, Pattern};
use serde::Deserialize;

use crate::sums::Sums;

/// Where the set is written down, from the root of the tree.
pub const SETS: &str = "release/sources.toml";

/// Name of the list in a release.
pub const LIST: &str = "SOURCES.sha256";

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sets {
    set: Vec<Set>,
}

/// Files that belong together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    /// For who reads the data.
    #[serde(rename = "why")]
    _why: String,
    /// Patterns from the root of the tree.
    files: Vec<String>,
    /// Patterns of what is left out again.
    #[serde(default)]
    except: Vec<String>,
}

/// The files of the tree at `root` that can influence the images, with their SHA-256.
pub fn of_tree(root: &Path) -> Result<Sums> {
    let path = root.join(SETS);
    let text = fs::read_to_string(&path).with_context(|| {
        format!("{}: cannot be read; --source has to be the root of a tree of ovmf-xen", path.display())
    })?;
    let sets: Sets = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut sums = Sums::default();
    for set in &sets.set {
        add(&mut sums, root, set).with_context(|| path.display().to_string())?;
    }
    Ok(sums)
}

fn add(sums: &mut Sums, root: &Path, set: &Set) -> Result<()> {
    let except = set
        .except
        .iter()
        .map(|pattern| Pattern::new(pattern).with_context(|| format!("pattern {pattern:?}")))
        .collect::<Result<Vec<_>>>()?;
    let Some(root_text) = root.to_str() else { bail!("the path {} is not UTF-8; use another", root.display()) };
    for pattern in &set.files {
        let absolute = format!("{}/{pattern}", Pattern::escape(root_text.trim_end_matches('/')));
        let mut found = false;
        for path in glob::glob_with(&absolute, OPTIONS).with_context(|| format!("pattern {pattern:?}"))? {
            let path = path?;
            let name = path.strip_prefix(root)?.to_str().with_context(|| format!("{}: not UTF-8", path.display()))?;
            if except.iter().any(|pattern| pattern.matches_with(name, OPTIONS)) || !path.is_file() {
                continue;
            }
            sums.add(name, &fs::read(&path).with_context(|| path.display().to_string())?);
            found = true;
        }
        ensure!(found, "pattern {pattern:?} names no file; correct it or take it out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with these files, and `sets` as its data.
    fn tree(sets: &str, files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files.iter().chain(&[SETS]) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, if *name == SETS { sets } else { name }).unwrap();
        }
        folder
    }

    #[test]
    fn patterns_choose_and_leave_out() {
        let sets = r#"
            [[set]]
            why = "code"
            files = ["*/src/**/*.rs"]
            except = ["**/tests.rs", "**/testing/**"]
            [[set]]
            why = "data"
            files = ["data"]
        "#;
        let files = ["a/src/lib.rs", "a/src/x/y.rs", "a/src/tests.rs", "a/src/testing/b/c.rs", "a/src/n.txt", "data"];
        let folder = tree(sets, &files);
        let sums = of_tree(folder.path()).unwrap();
        assert_eq!(sums.names().collect::<Vec<_>>(), ["a/src/lib.rs", "a/src/x/y.rs", "data"]);
        assert_eq!(sums.get("data"), Some(crate::digest::sha256(b"data").as_str()));
    }

    #[test]
    fn a_pattern_without_a_file_is_an_error() {
        let folder = tree("[[set]]\nwhy = \"\"\nfiles = [\"*.s\"]", &["a.rs"]);
        assert!(format!("{:#}", of_tree(folder.path()).unwrap_err()).contains("\"*.s\" names no file"));
    }

    #[test]
    fn a_changed_file_changes_the_digest() {
        let folder = tree("[[set]]\nwhy = \"\"\nfiles = [\"*.rs\"]", &["a.rs"]);
        let before = of_tree(folder.path()).unwrap();
        fs::write(folder.path().join("a.rs"), "other").unwrap();
        let after = of_tree(folder.path()).unwrap();
        assert_ne!(before.digest(), after.digest());
        assert_eq!(before.changes(&after), ["a.rs: changed"]);
    }

    #[test]
    fn another_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(format!("{:#}", of_tree(folder.path()).unwrap_err()).contains("root of a tree of ovmf-xen"));
    }
}
