//! The answers of `ovmf-xen audit`, on a copy of this tree whose build takes its images from `$IMAGES` instead of compiling
//! for a minute. `tests/run audit` does it with the real build.
//!
//! `RELEASE` is the folder of a complete unsigned release of this tree, made by `ovmf-xen pin --out`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test reports by failing")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{copy, released, tree};
use tempfile::TempDir;

const BUILD: &str = r#"#!/bin/sh
[ -n "$IMAGES" ] || exit 1
mkdir -p "$2/ovmf-xen-pvh/FV" && cp "$IMAGES"/*.fd "$2/ovmf-xen-pvh/FV/"
"#;

/// A tree, and in other folders its release, the images that its build gives, and what an audit leaves.
struct Place {
    tree: TempDir,
    other: TempDir,
}

impl Place {
    fn new(change: impl FnOnce(&Path)) -> Self {
        let place = Self { tree: tree(), other: tempfile::tempdir().unwrap() };
        fs::write(place.tree.path().join("build-support/build"), BUILD).unwrap();
        change(place.tree.path());
        copy(&released(), &place.images(), &[]);
        place.run(&[
            "pin",
            "--images",
            place.images().to_str().unwrap(),
            "--out",
            place.path("published").to_str().unwrap(),
        ]);
        assert!(place.published().join("manifest.json").exists());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.other.path().join(name)
    }

    fn images(&self) -> PathBuf {
        self.path("images")
    }

    fn published(&self) -> PathBuf {
        self.path("published").join(released().file_name().unwrap())
    }

    /// Exit status, and all that was said.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ovmf-xen"));
        command.current_dir(self.tree.path()).args(arguments).env("IMAGES", self.images());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    fn audit(&self, more: &[&str]) -> (i32, String) {
        let manifest = self.published().join("manifest.json");
        self.run(&[&["audit", "--offline", "--manifest", manifest.to_str().unwrap()], more].concat())
    }

    fn ssh_key(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let mut command = Command::new("ssh-keygen");
        assert!(command.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&path).status().unwrap().success());
        path
    }
}

/// Whether OpenSSL finds an envelope signed by an SSH key, as docs/rebuilders.md has it.
fn openssl_accepts(envelope: &str, public: &Path, scratch: &Path) -> bool {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rebuilders.md")).unwrap();
    let (_, script) = document.split_once("```sh\n").expect("the page shows how a statement is verified");
    let (script, _) = script.split_once("```").unwrap();
    fs::create_dir_all(scratch).unwrap();
    fs::write(scratch.join("verdict.intoto.json"), envelope).unwrap();
    fs::copy(public, scratch.join("auditor.pub")).unwrap();
    let output = Command::new("bash").args(["-euc", script]).current_dir(scratch).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("Signature Verified Successfully") == output.status.success(), "{said}");
    output.status.success()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
#[ignore = "needs RELEASE: tests/run release"]
fn the_same_bytes_are_a_match_and_other_bytes_a_mismatch_that_is_explained() {
    let place = Place::new(|_| ());
    let (key, out) = (place.ssh_key("auditor"), place.path("verdict"));
    let (status, said) = place.audit(&["--out", out.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("unsigned") && said.contains("\nmatch: "), "{said}");
    let envelope = fs::read_to_string(out.join("verdict.intoto.json")).unwrap();
    assert!(openssl_accepts(&envelope, &key.with_added_extension("pub"), &place.path("signature")));
    let stranger = place.ssh_key("stranger");
    assert!(!openssl_accepts(&envelope, &stranger.with_added_extension("pub"), &place.path("signature")));
    let other = envelope.replacen("\"sig\": \"", "\"sig\": \"AAAA", 1);
    assert!(!openssl_accepts(&other, &key.with_added_extension("pub"), &place.path("signature")));
    assert!(fs::read_to_string(out.join("verdict.json")).unwrap().contains("\"verdict\": \"match\""));

    // Inside the last file of the code volume, and in the erased part of the variables.
    flip(&place.images().join("OVMF.fd"), 0x10_0000);
    flip(&place.images().join("OVMF_VARS.fd"), 0x1000);
    let (status, said) = place.audit(&["--out", out.to_str().unwrap()]);
    assert_eq!(status, 1, "{said}");
    for words in [
        "DIFFERS  OVMF.fd",
        "region code at 0x85000 differs",
        "0x00100000",
        "DIFFERS  OVMF_VARS.fd",
        "ok       OVMF_CODE.fd",
        "DIFFERS  provenance.intoto.json",
        ", claimed: \"sha256\": \"",
    ] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    let statement = fs::read_to_string(out.join("verdict.intoto.json")).unwrap();
    assert!(statement.contains("\"result\": \"FAILED\""), "{statement}");
}

#[test]
#[ignore = "needs RELEASE: tests/run release"]
fn signatures_are_checked_first() {
    let place = Place::new(|_| ());
    let (keeper, stranger) = (place.ssh_key("keeper"), place.ssh_key("stranger"));
    let published = place.published();
    let (status, said) = place.run(&["sign", "--ssh", keeper.to_str().unwrap(), published.to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    for (key, expected, words) in [(&keeper, 0, "signed by SSH key"), (&stranger, 1, "made by another key")] {
        let public = fs::read_to_string(key.with_added_extension("pub")).unwrap();
        let signers = place.path("signers");
        fs::write(&signers, format!("somebody {public}")).unwrap();
        let (status, said) = place.audit(&["--allowed-signers", signers.to_str().unwrap()]);
        assert_eq!(status, expected, "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
#[ignore = "needs RELEASE: tests/run release"]
fn what_cannot_be_told_is_said_with_its_reason() {
    let place = Place::new(|_| ());
    let source = place.tree.path().join("firmware/hw/src/lib.rs");
    fs::write(&source, fs::read_to_string(&source).unwrap() + "// more\n").unwrap();
    let (status, said) = place.audit(&[]);
    assert_eq!(status, 3, "{said}");
    assert!(
        said.contains("is not the source of this release") && said.contains("firmware/hw/src/lib.rs: changed"),
        "{said}"
    );
    assert!(!said.contains("rebuild"), "nothing is built of another source: {said}");

    let place = Place::new(|_| ());
    fs::remove_dir_all(place.images()).unwrap();
    let (status, said) = place.audit(&[]);
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("build-support/build failed"), "{said}");

    let place = Place::new(|tree| {
        let path = tree.join("build-support/toolchain.toml");
        let text = fs::read_to_string(&path).unwrap();
        let line = text.lines().find(|line| line.starts_with("\"bin/rustc\"")).expect("the compiler is pinned");
        fs::write(&path, text.replace(line, &format!("\"bin/rustc\" = \"{}\"", "0".repeat(64)))).unwrap();
    });
    let (status, said) = place.audit(&[]);
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("bin/rustc: is not the file of the official release"), "{said}");
}
