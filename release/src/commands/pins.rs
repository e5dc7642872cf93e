//! `ovmf-xen pins`: a release's hashes the way each kind of packager writes them.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::Outcome;
use crate::files;
use crate::manifest::{Artifact, Kind, Manifest};

/// Print the hashes of a release in the form that a packager pastes.
///
/// nix: a function of fetchurl and the address; debian: Checksums-Sha256; gentoo: DIST lines of a Manifest; arch: source
/// and sums of a PKGBUILD; buildroot: a .hash file; json: everything.
#[derive(Args)]
#[command(after_help = "Exit status: 0 printed, 1 the manifest does not hold, 2 wrong usage")]
pub struct Arguments {
    /// Whose notation
    #[arg(long, value_enum)]
    format: Format,
    /// Manifest of the release
    #[arg(long, value_name = "FILE", default_value = "release/manifest.json")]
    manifest: PathBuf,
}

/// A notation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// A Nix expression.
    Nix,
    /// A field of Debian's control files.
    Debian,
    /// Lines of a Manifest.
    Gentoo,
    /// Arrays of a PKGBUILD.
    Arch,
    /// A hash file.
    Buildroot,
    /// Data.
    Json,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let path = &arguments.manifest;
    let text = files::read(path).with_context(|| format!("{}: --manifest names another", path.display()))?;
    let manifest = Manifest::parse(&text).with_context(|| path.display().to_string())?;
    files::print(pins(&manifest, arguments.format)?)?;
    Ok(Outcome::Success)
}

/// The text for one kind of packager.
pub fn pins(manifest: &Manifest, format: Format) -> Result<String> {
    let artifacts: Vec<_> = manifest
        .artifacts
        .iter()
        .filter(|one| matches!(one.kind, Kind::Image | Kind::Configuration | Kind::Licence))
        .collect();
    // Downloads of many packages lie in one folder, where OVMF.fd alone would be anybody's.
    let local = |one: &Artifact| format!("{}-{}", manifest.folder(), one.name);
    let mut text = String::new();
    match format {
        Format::Nix => {
            writeln!(
                text,
                "# {} {}; url is the address of the folder with the release.",
                manifest.name, manifest.version
            )?;
            writeln!(text, "{{ fetchurl, url }}:\n{{")?;
            for one in artifacts {
                let Artifact { name, digests, .. } = one;
                writeln!(
                    text,
                    "  \"{name}\" = fetchurl {{ url = \"${{url}}/{name}\"; hash = \"{}\"; }};",
                    digests.sri
                )?;
            }
            writeln!(text, "}}")?;
        }
        Format::Debian => {
            writeln!(text, "Checksums-Sha256:")?;
            for one in artifacts {
                writeln!(text, " {} {} {}", one.digests.sha256, one.digests.size, one.name)?;
            }
        }
        Format::Gentoo => {
            for one in artifacts {
                let digests = &one.digests;
                let (size, blake2b, sha512) = (digests.size, &digests.blake2b, &digests.sha512);
                writeln!(text, "DIST {} {size} BLAKE2B {blake2b} SHA512 {sha512}", local(one))?;
            }
        }
        Format::Arch => {
            let mut array = |name: &str, items: Vec<String>| writeln!(text, "{name}=({})", items.join("\n  "));
            let quoted = |text: &String| format!("'{text}'");
            array("source", artifacts.iter().map(|one| format!("\"{}::$url/{}\"", local(one), one.name)).collect())?;
            array("sha256sums", artifacts.iter().map(|one| quoted(&one.digests.sha256)).collect())?;
            array("b2sums", artifacts.iter().map(|one| quoted(&one.digests.blake2b)).collect())?;
        }
        Format::Buildroot => {
            writeln!(text, "# From manifest.json of {} {}", manifest.name, manifest.version)?;
            for one in artifacts {
                writeln!(text, "sha256  {}  {}", one.digests.sha256, one.name)?;
            }
        }
        Format::Json => {
            let data = json!({ "name": manifest.name, "version": manifest.version, "artifacts": artifacts });
            writeln!(text, "{}", serde_json::to_string_pretty(&data)?)?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn text(format: Format) -> (String, Artifact) {
        let (manifest, _) = testing::parts();
        (pins(&manifest, format).unwrap(), manifest.images().next().unwrap().clone())
    }

    #[test]
    fn each_notation_has_its_own_digest() {
        let (nix, image) = text(Format::Nix);
        assert!(nix.contains(&format!("url = \"${{url}}/OVMF.fd\"; hash = \"{}\";", image.digests.sri)), "{nix}");
        let debian = text(Format::Debian).0;
        assert!(debian.contains(&format!("\n {} 15 OVMF.fd\n", image.digests.sha256)), "{debian}");
        let gentoo = text(Format::Gentoo).0;
        let line =
            format!("DIST ovmf-xen-0.1.0-OVMF.fd 15 BLAKE2B {} SHA512 {}", image.digests.blake2b, image.digests.sha512);
        assert!(gentoo.contains(&line), "{gentoo}");
        let arch = text(Format::Arch).0;
        assert!(
            arch.contains(&image.digests.blake2b) && arch.contains("ovmf-xen-0.1.0-OVMF.fd::$url/OVMF.fd"),
            "{arch}"
        );
        let buildroot = text(Format::Buildroot).0;
        assert!(buildroot.contains(&format!("sha256  {}  OVMF.fd\n", image.digests.sha256)), "{buildroot}");
    }

    #[test]
    fn json_has_them_all() {
        let (json, image) = text(Format::Json);
        let data: serde_json::Value = serde_json::from_str(&json).unwrap();
        let found = data["artifacts"].as_array().unwrap().iter().find(|one| one["name"] == "OVMF.fd").unwrap();
        assert_eq!(found["sri"], json!(image.digests.sri));
    }

    #[test]
    fn what_only_describes_the_release_is_left_out() {
        assert!(!text(Format::Buildroot).0.contains("SOURCES.sha256"));
    }
}
