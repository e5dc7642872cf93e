//! Statements about files: in-toto's statement, SLSA's provenance as its predicate, and the DSSE envelope for signatures.

use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

use crate::dependencies::Dependency;
use crate::manifest::{Artifact, Source};
use crate::toolchain::Toolchain;

/// Name of the provenance in a release.
pub const PROVENANCE: &str = "provenance.intoto.json";

/// Type of a statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// Type of the payload of an envelope.
pub const PAYLOAD: &str = "application/vnd.in-toto+json";

/// What a build takes from its machine in whatever release: where it comes from, what it is, why its bytes are not pinned.
const UNPINNED: [[&str; 3]; 2] = [
    [
        "https://xenbits.xenproject.org/git-http/xen.git",
        "xen/include/public",
        "declarations of Xen's stable interface, the same in every release; tests/run repro builds with two",
    ],
    [
        "https://github.com/llvm/llvm-project",
        "libclang",
        "reads those declarations and compiles nothing; tests/run repro builds with two releases",
    ],
];

/// A statement of this type about files given by name and SHA-256.
#[must_use]
pub fn statement<'a>(
    subject: impl IntoIterator<Item = (&'a str, &'a str)>,
    predicate_type: &str,
    predicate: Value,
) -> Value {
    let subject: Vec<_> =
        subject.into_iter().map(|(name, sha256)| json!({ "name": name, "digest": { "sha256": sha256 } })).collect();
    json!({ "_type": STATEMENT, "subject": subject, "predicateType": predicate_type, "predicate": predicate })
}

/// How the images of a version are made. Whoever repeats it gets the same images, so it names no machine and no time.
#[must_use]
pub fn provenance(
    version: &str,
    images: &[Artifact],
    source: &Source,
    toolchain: &Toolchain,
    dependencies: &[Dependency],
) -> Value {
    let mut materials = vec![json!({
        "name": source.list,
        "digest": { "sha256": source.sha256 },
        "annotations": { "files": source.files, "version": version },
    })];
    materials.extend(toolchain.archives.iter().map(|(archive, sha256)| {
        json!({ "uri": format!("{}/{archive}", toolchain.url), "name": archive, "digest": { "sha256": sha256 } })
    }));
    materials.extend(dependencies.iter().map(|one| json!({ "uri": one.purl(), "digest": { "sha256": one.sha256 } })));
    materials.extend(
        UNPINNED.map(|[uri, name, why]| json!({ "uri": uri, "name": name, "annotations": { "not-pinned": why } })),
    );
    let predicate = json!({
        "buildDefinition": {
            "buildType": "urn:ovmf-xen:build:1",
            "externalParameters": { "command": ["build-support/build"], "version": version },
            "internalParameters": {
                "toolchain": toolchain.version,
                "targets": ["x86_64-unknown-none", "x86_64-unknown-uefi"],
            },
            "resolvedDependencies": materials,
        },
        "runDetails": { "builder": { "id": "urn:ovmf-xen:builder:any" } },
    });
    let subject = images.iter().map(|image| (image.name.as_str(), image.digests.sha256.as_str()));
    statement(subject, "https://slsa.dev/provenance/v1", predicate)
}

/// What is signed of a payload: DSSE's pre-authentication encoding, protocol version 1.
#[must_use]
pub fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {PAYLOAD} {} ", PAYLOAD.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The envelope around a payload and a signature over its [`pre_authentication`].
#[must_use]
pub fn envelope(payload: &[u8], key: &str, signature: &[u8]) -> Value {
    json!({
        "payloadType": PAYLOAD,
        "payload": Base64::encode_string(payload),
        "signatures": [{ "keyid": key, "sig": Base64::encode_string(signature) }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_provenance_names_what_was_made_and_of_what() {
        let (manifest, dependencies) = testing::parts();
        let images: Vec<_> = manifest.images().cloned().collect();
        let made = provenance("0.1.0", &images, &manifest.source, &manifest.toolchain, &dependencies.crates);
        assert_eq!(made["subject"][0]["digest"]["sha256"], json!(images[0].digests.sha256));
        let materials = &made["predicate"]["buildDefinition"]["resolvedDependencies"];
        assert_eq!(materials[0]["digest"]["sha256"], json!(manifest.source.sha256));
        assert_eq!(materials[1]["uri"], json!("https://example.org/rustc.tar.xz"));
        assert!(made["predicate"]["runDetails"].get("metadata").is_none(), "clock times");
    }

    #[test]
    fn the_encoding_is_that_of_the_envelopes_specification() {
        assert_eq!(pre_authentication(b"{}"), b"DSSEv1 28 application/vnd.in-toto+json 2 {}");
    }
}
