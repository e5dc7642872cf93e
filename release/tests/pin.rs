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

/// What `command` runs as on another machine: with another host name, another clock, user, home directory and time zone.
fn elsewhere(command: &mut Command, scratch: &Path) {
    let clock = scratch.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/repro/src/clock.c");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-DAHEAD=432000000", source, "-o"]).arg(&clock);
    assert!(compile.status().unwrap().success());
    // Where these are, HOME usually says.
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if std::env::var_os(name).is_none() {
            command.env(name, Path::new(&std::env::var_os("HOME").unwrap()).join(folder));
        }
    }
    command.env("LD_PRELOAD", clock).env("HOME", scratch).env("TZ", "Pacific/Kiritimati");
    for name in ["USER", "LOGNAME", "HOSTNAME", "EMAIL"] {
        command.env(name, "somebody-elsewhere");
    }
}

#[test]
#[ignore = "needs RELEASE: tests/run release"]
fn another_machine_gives_the_same_release() {
    let (tree, out, scratch) = (tree(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A container may not let us have a host name of our own; HOSTNAME is set in any case.
    let own_name = ["--map-root-user", "--uts", "sh", "-euc", "hostname elsewhere"];
    let mut command = match Command::new("unshare").args(own_name).status() {
        Ok(status) if status.success() => {
            let mut unshare = Command::new("unshare");
            unshare.args(&own_name[..4]).args(["hostname elsewhere; umask 077; exec \"$@\"", "sh"]);
            unshare
        }
        _ => {
            let mut plain = Command::new("sh");
            plain.args(["-euc", "umask 077; exec \"$@\"", "sh"]);
            plain
        }
    };
    command.arg(env!("CARGO_BIN_EXE_ovmf-xen")).arg("pin").arg("--source").arg(tree.path());
    command.arg("--images").arg(released()).arg("--out").arg(out.path());
    elsewhere(&mut command, scratch.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
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
