//! Signatures made here and verified here; `tests/signatures.rs` does the same with the tools of others.

use ::minisign::KeyPair;
use ssh_key::private::{Ed25519Keypair, PrivateKey};

use super::*;

const CONTENT: &[u8] = b"what is signed";

struct Pair {
    keys: Keys,
    signature: String,
}

fn by_minisign() -> Pair {
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    let mut keys = Keys::default();
    keys.minisign.push(minisign::Key::parse(&pair.pk.to_box().unwrap().to_string()).unwrap());
    Pair { keys, signature: minisign::sign(&pair.sk, CONTENT, "a test").unwrap() }
}

fn ssh_key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn by_ssh() -> Pair {
    let key = ssh_key(1);
    let line =
        format!("keeper@example.org namespaces=\"file,{}\" {}", ssh::NAMESPACE, key.public_key().to_openssh().unwrap());
    let keys = Keys { ssh: ssh::allowed_signers(&line).unwrap(), ..Keys::default() };
    Pair { keys, signature: ssh::sign(&key, CONTENT).unwrap() }
}

#[test]
fn signatures_hold_and_name_their_key() {
    for (scheme, pair) in [(Scheme::Minisign, by_minisign()), (Scheme::Ssh, by_ssh())] {
        let by = pair.keys.verify(scheme, CONTENT, pair.signature.as_bytes()).unwrap();
        assert!(by.starts_with(scheme.key_kind()), "{by}");
    }
}

#[test]
fn no_byte_of_a_signature_or_of_its_content_can_change() {
    for (scheme, pair) in [(Scheme::Minisign, by_minisign()), (Scheme::Ssh, by_ssh())] {
        for at in 0..pair.signature.len() {
            let mut changed = pair.signature.clone().into_bytes();
            changed[at] ^= if at % 2 == 0 { 1 } else { 0x20 };
            assert!(pair.keys.verify(scheme, CONTENT, &changed).is_err(), "{scheme:?} at {at}");
        }
        for cut in 0..pair.signature.len() {
            let cut = &pair.signature.as_bytes()[..cut];
            assert!(pair.keys.verify(scheme, CONTENT, cut).is_err(), "{scheme:?} cut at {}", cut.len());
        }
        let longer = format!("{}\n", pair.signature);
        assert!(pair.keys.verify(scheme, CONTENT, longer.as_bytes()).is_err());
        let other = pair.keys.verify(scheme, b"what is Signed", pair.signature.as_bytes());
        assert!(matches!(other, Err(SignatureError::Mismatch(_))), "{other:?}");
    }
}

#[test]
fn another_key_is_named() {
    for (scheme, ours, theirs) in [
        (Scheme::Minisign, by_minisign().keys, by_minisign().signature),
        (Scheme::Ssh, by_ssh().keys, ssh::sign(&ssh_key(2), CONTENT).unwrap()),
    ] {
        let refused = ours.verify(scheme, CONTENT, theirs.as_bytes()).unwrap_err();
        assert!(refused.to_string().contains("another key"), "{refused}");
    }
}

#[test]
fn an_ssh_signature_for_another_purpose_is_refused() {
    let pair = by_ssh();
    let signature = ssh_key(1).sign("file", ssh_key::HashAlg::Sha512, CONTENT).unwrap();
    let text = signature.to_pem(ssh_key::LineEnding::LF).unwrap();
    let refused = pair.keys.verify(Scheme::Ssh, CONTENT, text.as_bytes()).unwrap_err();
    assert_eq!(refused, SignatureError::Purpose("file".into()));
}

#[test]
fn allowed_signers_are_read_as_ssh_keygen_reads_them() {
    let key = ssh_key(3).public_key().to_openssh().unwrap();
    let signers = |line: String| ssh::allowed_signers(&line).map(|signers| signers.len());
    assert_eq!(signers(format!("# comment\n\na@b {key}\n")).unwrap(), 1);
    assert_eq!(signers(format!("a@b,c@d\tnamespaces=\"{}\" {key} comment", ssh::NAMESPACE)).unwrap(), 1);
    assert_eq!(signers(format!("a@b namespaces=\"git\" {key}")).unwrap(), 0, "a key for something else");
    let error = |line: String| format!("{:#}", ssh::allowed_signers(&line).unwrap_err());
    assert!(error(format!("a@b valid-before=\"20300101\" {key}")).contains("valid-before"));
    assert!(error(format!("a@b cert-authority {key}")).contains("cert-authority"));
    assert!(error("a@b ssh-ed25519 rubbish".into()).contains("line 1"));
    assert!(error("a@b".into()).contains("a key is missing"));
}

#[test]
fn a_folder_of_keys_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    fs::write(folder.path().join("2026.pub"), pair.pk.to_box().unwrap().to_string()).unwrap();
    fs::write(folder.path().join("README.md"), "no key").unwrap();
    let line = format!("a@b {}\n", ssh_key(4).public_key().to_openssh().unwrap());
    fs::write(folder.path().join("allowed_signers"), line).unwrap();
    let keys = Keys::of_folder(folder.path()).unwrap();
    assert!(keys.has(Scheme::Minisign) && keys.has(Scheme::Ssh));
    fs::write(folder.path().join("bad.pub"), "rubbish").unwrap();
    let error = format!("{:#}", Keys::of_folder(folder.path()).err().unwrap());
    assert!(error.contains("bad.pub") && error.contains("not a public key"), "{error}");
}
