//! A copy of this tree and the release made of it.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What a source tree has beside its source.
const NOT_SOURCE: [&str; 4] = [".git", "target", "out", "result"];

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path, leave_out: &[&str]) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if leave_out.iter().any(|other| *other == name) || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name), &[]);
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// The release that tests/run has made of this tree.
pub fn released() -> PathBuf {
    std::env::var_os("RELEASE").expect("RELEASE names the folder of a complete release").into()
}

/// A copy of this tree, in a place of its own.
pub fn tree() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap(), folder.path(), &NOT_SOURCE);
    folder
}
