//! A release is a function of tree and images, and its description in the tree is caught when it no longer holds.
//!
//! `RELEASE` is the folder of a complete unsigned release of this tree, made by `ovmf-xen pin --out`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test reports by failing")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{copy, released, tree};

/// Exit status and messages of `pin` on a tree with these images.
fn pin(tree: &Path, images: &Path, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ovmf-xen"));
    command.arg("pin").arg("--source").arg(tree).arg("--images").arg(images).args(more);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
#[ignore = "needs RELEASE: tests/run release"]
fn another_path_gives_the_same_release() {
    let (tree, out) = (tree(), tempfile::tempdir().unwrap());
    let (status, said) = pin(tree.path(), &released(), &["--out", out.path().to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    let made = out.path().join(released().file_name().unwrap());
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&made), names(&released()));
    for name in names(&made) {
        assert!(
            fs::read(made.join(&name)).unwrap() == fs::read(released().join(&name)).unwrap(),
            "{} differs",
            name.display()
        );
    }
}

#[test]
#[ignore = "needs RELEASE: tests/run release"]
fn a_description_that_no_longer_holds_is_caught() {
    let (tree, images) = (tree(), tempfile::tempdir().unwrap());
    copy(&released(), images.path(), &[]);
    let check = || pin(tree.path(), images.path(), &["--check"]);
    let change = |folder: &Path, name: &str| {
        let path = folder.join(name);
        let old = fs::read(&path).unwrap();
        let mut new = old.clone();
        *new.last_mut().unwrap() ^= 1;
        fs::write(&path, new).unwrap();
        move || fs::write(&path, &old).unwrap()
    };
    assert_eq!(pin(tree.path(), images.path(), &[]).0, 0);
    assert_eq!(check().0, 0);

    let source = "firmware/hw/src/lib.rs";
    let restore = change(tree.path(), source);
    let (status, said) = check();
    assert_eq!(status, 1, "{said}");
    assert!(said.contains(&format!("{source}: changed")) && said.contains("the manifest claims"), "{said}");
    restore();

    let restore = change(images.path(), "OVMF.fd");
    let (status, said) = check();
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("OVMF.fd: the images here have other bytes than the manifest says"), "{said}");
    restore();

    let restore = change(&tree.path().join("release"), &format!("{}/sbom.cdx.json", env!("CARGO_PKG_VERSION")));
    let (status, said) = check();
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("sbom.cdx.json: is not what this tree and these images give"), "{said}");
    restore();

    // What no image can come from.
    let restore = change(tree.path(), "firmware/hw/src/fake.rs");
    let (status, said) = check();
    assert_eq!(status, 0, "{said}");
    restore();
}
