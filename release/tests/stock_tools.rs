//! Signatures and the tools that others made: minisign and ssh-keygen accept ours, and we accept theirs; what was tampered
//! with is refused with its own message. Every key is made on the spot.
//!
//! `RELEASE` is the folder of a complete unsigned release, made by `ovmf-xen pin --out`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test reports by failing")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const IDENTITY: &str = "release@example.org";
const SIGNED: [&str; 2] = ["SHA256SUMS", "manifest.json"];

/// A release with keys beside it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let from = std::env::var_os("RELEASE").expect("RELEASE names the folder of a complete release");
        fs::create_dir(place.release()).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), place.release().join(entry.file_name())).unwrap();
        }
        fs::create_dir(place.path("keys")).unwrap();
        place.minisign_key("minisign");
        place.ssh_key("ssh");
        fs::rename(place.path("minisign.pub"), place.path("keys/release.pub")).unwrap();
        let public = fs::read_to_string(place.path("ssh.pub")).unwrap();
        let line = format!("{IDENTITY} namespaces=\"ovmf-xen-release\" {public}");
        fs::write(place.path("keys/allowed_signers"), line).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn release(&self) -> PathBuf {
        self.path("release")
    }

    fn minisign_key(&self, name: &str) {
        let (public, secret) = (format!("{name}.pub"), format!("{name}.key"));
        run(self.command("minisign").args(["-G", "-W", "-p", &public, "-s", &secret]));
    }

    fn ssh_key(&self, name: &str) {
        run(self.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", name]));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn ours(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_ovmf-xen")).args(arguments).output().unwrap()
    }

    fn sign(&self) {
        let output = self.ours(&["sign", "--minisign", "minisign.key", "--ssh", "ssh", "release"]);
        assert!(output.status.success(), "{output:?}");
    }

    /// Exit status, and all that was said.
    fn verify(&self, more: &[&str]) -> (i32, String) {
        let output = self.ours(&[&["verify", "release", "--keys", "keys"], more].concat());
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    /// That `verify` refuses, with these words.
    fn refuses(&self, what: &str, words: &[&str]) {
        let (status, said) = self.verify(&[]);
        assert_eq!(status, 1, "{what}: {said}");
        for word in words {
            assert!(said.contains(word), "{what}: {word:?} is not in:\n{said}");
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/setup installs it"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Flips a bit in the middle of a file for as long as `during` runs.
fn tampered(path: &Path, during: impl FnOnce()) {
    let bytes = fs::read(path).unwrap();
    let mut changed = bytes.clone();
    changed[bytes.len() / 2] ^= 1;
    fs::write(path, &changed).unwrap();
    during();
    fs::write(path, &bytes).unwrap();
}

#[test]
#[ignore = "needs RELEASE, minisign and ssh-keygen: tests/run release"]
fn stock_tools_accept_our_signatures() {
    let place = Place::new();
    place.sign();
    for file in SIGNED {
        let file = format!("release/{file}");
        run(place.command("minisign").args(["-V", "-q", "-p", "keys/release.pub", "-m", &file]));
        let signature = format!("{file}.sig");
        let content = fs::File::open(place.path(&file)).unwrap();
        let arguments =
            ["-Y", "verify", "-f", "keys/allowed_signers", "-I", IDENTITY, "-n", "ovmf-xen-release", "-s", &signature];
        run(place.command("ssh-keygen").args(arguments).stdin(content));
    }
    assert_eq!(place.verify(&[]).0, 0);
}

#[test]
#[ignore = "needs RELEASE, minisign and ssh-keygen: tests/run release"]
fn we_accept_signatures_of_the_stock_tools() {
    let place = Place::new();
    for file in SIGNED {
        let file = format!("release/{file}");
        run(place.command("minisign").args(["-S", "-s", "minisign.key", "-m", &file]));
        run(place.command("ssh-keygen").args(["-q", "-Y", "sign", "-f", "ssh", "-n", "ovmf-xen-release", &file]));
    }
    let (status, said) = place.verify(&[]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(said.matches("signed by").count(), 4, "{said}");
}

#[test]
#[ignore = "needs RELEASE, minisign and ssh-keygen: tests/run release"]
fn keys_with_a_password_are_opened() {
    let place = Place::new();
    run(place.command("ssh-keygen").args(["-q", "-p", "-P", "", "-N", "a secret", "-f", "ssh"]));
    fs::write(place.path("password"), "a secret\n").unwrap();
    let output = place.ours(&["sign", "--ssh", "ssh", "--password-file", "password", "release"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(place.verify(&[]).0, 0);
    fs::write(place.path("password"), "another\n").unwrap();
    let output = place.ours(&["sign", "--ssh", "ssh", "--password-file", "password", "release"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is the password right?"), "{output:?}");
}

#[test]
#[ignore = "needs RELEASE, minisign and ssh-keygen: tests/run release"]
fn whatever_was_tampered_with_is_named() {
    let place = Place::new();
    place.sign();
    let names: Vec<_> = fs::read_dir(place.release()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(names.len() >= 13 + 4, "{names:?}");
    for path in &names {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        tampered(path, || place.refuses(&name, &[&name]));
    }
    assert_eq!(place.verify(&[]).0, 0, "what was put back is good again");

    let manifest = place.release().join("manifest.json");
    tampered(&manifest, || {
        place.refuses("manifest", &["manifest.json.minisig: does not match", "manifest.json.sig: does not match"])
    });

    fs::write(place.release().join("more"), "").unwrap();
    place.refuses("an additional file", &["more: does not belong to the release"]);
    fs::remove_file(place.release().join("more")).unwrap();

    let missing = place.release().join("pvh.cfg");
    let content = fs::read(&missing).unwrap();
    fs::remove_file(&missing).unwrap();
    place.refuses("a missing file", &["pvh.cfg: is missing"]);
    fs::write(&missing, content).unwrap();

    fs::remove_file(place.release().join("manifest.json.sig")).unwrap();
    place.refuses("half of the signatures", &["manifest.json.sig: is missing"]);
}

#[test]
#[ignore = "needs RELEASE, minisign and ssh-keygen: tests/run release"]
fn another_key_an_older_version_and_no_signature_have_their_own_answers() {
    let place = Place::new();
    let (status, said) = place.verify(&[]);
    assert_eq!(status, 4, "{said}");
    assert!(said.starts_with("unsigned: "), "{said}");

    place.sign();
    let output = place.ours(&["verify", "release"]);
    assert_eq!(output.status.code(), Some(3), "no key was given: {output:?}");
    let (status, said) = place.verify(&["--at-least", "99.0.0"]);
    assert_eq!(status, 1);
    assert!(said.contains("is older than 99.0.0"), "{said}");

    place.minisign_key("stranger");
    place.ssh_key("stranger-ssh");
    let output = place.ours(&["sign", "--minisign", "stranger.key", "--ssh", "stranger-ssh", "release"]);
    assert!(output.status.success(), "{output:?}");
    place
        .refuses("another key", &["SHA256SUMS.minisig: made by another key", "manifest.json.sig: made by another key"]);
}

#[test]
#[ignore = "needs RELEASE, minisign and ssh-keygen: tests/run release"]
fn what_does_not_hold_is_not_signed() {
    let place = Place::new();
    tampered(&place.release().join("OVMF.fd"), || {
        let output = place.ours(&["sign", "--ssh", "ssh", "release"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("not signed"), "{output:?}");
    });
    assert!(!place.release().join("SHA256SUMS.sig").exists());
}
