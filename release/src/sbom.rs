//! The bill of materials, in CycloneDX 1.5. It has no serial number and no time: the same release has the same text.

use serde_json::{Value, json};

use crate::dependencies::{Dependencies, Dependency, Role};
use crate::manifest::Artifact;
use crate::toolchain::Toolchain;

/// Name of the bill of materials in a release.
pub const FILE: &str = "sbom.cdx.json";

/// Name of the product as a component.
const ROOT: &str = "ovmf-xen";

/// What is inside the images of this version, and, marked as excluded, what only helps to build them.
#[must_use]
pub fn make(version: &str, images: &[Artifact], dependencies: &Dependencies, toolchain: &Toolchain) -> Value {
    let library = rust_library(toolchain);
    let mut components: Vec<_> = images.iter().map(image).collect();
    components.push(library.clone());
    components.extend(dependencies.crates.iter().map(component));
    let mut edges: Vec<_> = dependencies
        .edges
        .iter()
        .map(|(user, used)| {
            let mut used: Vec<_> = used.iter().map(|purl| json!(purl)).collect();
            if user.is_none() {
                used.push(library["bom-ref"].clone());
            }
            json!({ "ref": user.as_deref().unwrap_or(ROOT), "dependsOn": used })
        })
        .collect();
    edges.extend(images.iter().map(|image| json!({ "ref": image.name, "dependsOn": [ROOT] })));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "firmware",
                "bom-ref": ROOT,
                "name": ROOT,
                "version": version,
                "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": edges,
    })
}

fn image(image: &Artifact) -> Value {
    json!({
        "type": "file",
        "bom-ref": image.name,
        "name": image.name,
        "hashes": [
            { "alg": "SHA-256", "content": image.digests.sha256 },
            { "alg": "SHA-512", "content": image.digests.sha512 },
            { "alg": "BLAKE2b-512", "content": image.digests.blake2b },
        ],
    })
}

/// `core` and `alloc`, which come with the compiler.
fn rust_library(toolchain: &Toolchain) -> Value {
    let version = &toolchain.version;
    let purl = format!("pkg:generic/rust-std@{version}");
    json!({
        "type": "library",
        "bom-ref": purl,
        "name": "rust-std",
        "version": version,
        "description": "core and alloc as released with the compiler for x86_64-unknown-none and x86_64-unknown-uefi",
        "purl": purl,
        "scope": "required",
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    })
}

fn component(one: &Dependency) -> Value {
    json!({
        "type": "library",
        "bom-ref": one.purl(),
        "name": one.name,
        "version": one.version,
        "purl": one.purl(),
        "scope": if one.role == Role::Image { "required" } else { "excluded" },
        "hashes": [{ "alg": "SHA-256", "content": one.sha256 }],
        "licenses": [{ "expression": one.licence }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn only_what_is_in_the_images_is_required() {
        let (manifest, dependencies) = testing::parts();
        let images: Vec<_> = manifest.images().cloned().collect();
        let bom = make("0.1.0", &images, &dependencies, &manifest.toolchain);
        let scope = |name: &str| {
            let components = bom["components"].as_array().unwrap();
            components.iter().find(|one| one["name"] == name).map(|one| one["scope"].clone())
        };
        assert_eq!(scope("log"), Some(json!("required")));
        assert_eq!(scope("bindgen"), Some(json!("excluded")));
        assert_eq!(scope("rust-std"), Some(json!("required")));
        assert_eq!(
            bom["dependencies"][0],
            json!({"ref": ROOT, "dependsOn": ["pkg:cargo/log@0.4.1", "pkg:generic/rust-std@1.95.0"]})
        );
    }

    #[test]
    fn nothing_in_it_tells_when_or_where_it_was_made() {
        let (manifest, dependencies) = testing::parts();
        let images: Vec<_> = manifest.images().cloned().collect();
        let bom = make("0.1.0", &images, &dependencies, &manifest.toolchain);
        assert!(bom.get("serialNumber").is_none() && bom["metadata"].get("timestamp").is_none());
    }
}
