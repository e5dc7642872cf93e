//! The verdict of an audit in its three forms: text, JSON, and an in-toto statement in an envelope that the auditor signs.

use std::fmt::Write as _;

use ::signature::Signer as _;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use ssh_key::{HashAlg, PrivateKey};

use crate::audit::{Answer, Findings, Verdict};
use crate::{files, in_toto, manifest};

/// Type of the statement's predicate: in-toto's result of tests.
pub const PREDICATE: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// For people.
#[must_use]
pub fn text(findings: &Findings) -> String {
    let mut text = String::new();
    for check in &findings.checks {
        let answer = match check.answer {
            Answer::Yes => "ok",
            Answer::No => "DIFFERS",
            Answer::Unknown => "UNKNOWN",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{answer:8} {}", check.name);
        for detail in &check.details {
            let _ = writeln!(text, "         {}", files::printable(detail));
        }
    }
    let verdict = match findings.verdict {
        Verdict::Match => "match: this source gives the bytes that the manifest claims",
        Verdict::Mismatch => "mismatch: see above what differs",
        Verdict::CouldNotTell => "could not tell: see above what is missing",
    };
    let _ = writeln!(text, "ovmf-xen {}, manifest {}\n{verdict}", findings.version, findings.manifest_sha256);
    text
}

/// The statement about the images; none where nothing could be told.
#[must_use]
pub fn statement(findings: &Findings) -> Option<Value> {
    let result = match findings.verdict {
        Verdict::Match => "PASSED",
        Verdict::Mismatch => "FAILED",
        Verdict::CouldNotTell => return None,
    };
    let names = |answer| -> Vec<_> {
        findings.checks.iter().filter(|check| check.answer == answer).map(|check| check.name.as_str()).collect()
    };
    let manifest = &findings.manifest;
    let configuration = [
        json!({ "name": manifest::FILE, "digest": { "sha256": findings.manifest_sha256 } }),
        json!({ "name": manifest.source.list, "digest": { "sha256": manifest.source.sha256 } }),
    ];
    let predicate = json!({
        "result": result,
        "configuration": configuration,
        "passedTests": names(Answer::Yes),
        "failedTests": names(Answer::No),
    });
    let subject = manifest.images().map(|image| (image.name.as_str(), image.digests.sha256.as_str()));
    Some(in_toto::statement(subject, PREDICATE, predicate))
}

/// The statement's text, in an envelope signed with the auditor's key.
pub fn envelope(statement: &Value, key: &PrivateKey) -> Result<Value> {
    let payload = serde_json::to_vec(statement)?;
    let signature: ssh_key::Signature =
        key.try_sign(&in_toto::pre_authentication(&payload)).context("the auditor's key cannot sign")?;
    let fingerprint = key.public_key().fingerprint(HashAlg::Sha256).to_string();
    Ok(in_toto::envelope(&payload, &fingerprint, signature.as_bytes()))
}

#[cfg(test)]
mod tests {
    use ::signature::Verifier as _;
    use base64ct::{Base64, Encoding as _};
    use ssh_key::private::Ed25519Keypair;

    use super::*;
    use crate::audit::Check;
    use crate::testing;

    fn findings(verdict: Verdict) -> Findings {
        let check = |name: &str, answer| Check { name: name.into(), answer, details: vec!["more".into()] };
        let (manifest, _) = testing::parts();
        let checks = vec![check("source", Answer::Yes), check("OVMF.fd", Answer::No)];
        Findings { verdict, version: "0.1.0".into(), manifest_sha256: "00".into(), checks, manifest }
    }

    #[test]
    fn a_mismatch_is_stated_with_what_failed() {
        let findings = findings(Verdict::Mismatch);
        let statement = statement(&findings).unwrap();
        assert_eq!(statement["predicate"]["result"], "FAILED");
        assert_eq!(statement["predicate"]["failedTests"], json!(["OVMF.fd"]));
        assert_eq!(statement["subject"][0]["name"], "OVMF.fd");
        assert!(text(&findings).contains("DIFFERS  OVMF.fd\n         more\n"));
    }

    #[test]
    fn where_nothing_could_be_told_nothing_is_stated() {
        assert!(statement(&findings(Verdict::CouldNotTell)).is_none());
    }

    #[test]
    fn the_envelope_is_signed_over_what_it_carries() {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        let envelope = envelope(&statement(&findings(Verdict::Match)).unwrap(), &key).unwrap();
        let part = |text: &Value| Base64::decode_vec(text.as_str().unwrap()).unwrap();
        let payload = part(&envelope["payload"]);
        let bytes = part(&envelope["signatures"][0]["sig"]);
        let signature = ssh_key::Signature::new(ssh_key::Algorithm::Ed25519, bytes).unwrap();
        let verify =
            |payload: &[u8]| key.public_key().key_data().verify(&in_toto::pre_authentication(payload), &signature);
        assert!(verify(&payload).is_ok());
        assert!(verify(b"{}").is_err());
    }
}
