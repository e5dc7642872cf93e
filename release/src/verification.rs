//! What `ovmf-xen verify` checks of a release: its files, its manifest, its signatures, its version.
//!
//! Everything in the folder is untrusted. Nothing is believed for being signed alone: each file is held against the sums,
//! the sums and the manifest against each other, and all of it against the keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use semver::Version;
use serde::Serialize;
use thiserror::Error;

use crate::digest::{Digests, sha256};
use crate::manifest::{self, Manifest};
use crate::release_set::SUMS;
use crate::signature::{Keys, SIGNED, Scheme, SignatureError};
use crate::sums::Sums;

/// More than any file of a release has, in bytes; larger ones are not read.
const LARGEST: u64 = 64 << 20;

/// Something that is wrong with a release.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// A file is not there.
    #[error("{0}: is missing")]
    Missing(String),
    /// A file is there that belongs to nothing.
    #[error("{0}: does not belong to the release; take it out of the folder")]
    Extra(String),
    /// A folder, a link, a device, or very large.
    #[error("{0}: is no plain file of less than 64 MiB")]
    NoFile(String),
    /// A file has another SHA-256 than the sums say.
    #[error("{0}: was changed: its SHA-256 is not the one in {SUMS}")]
    Sum(String),
    /// A file is in the release and not in the sums.
    #[error("{0}: is not listed in {SUMS}")]
    NoSum(String),
    /// A file is not what the manifest says.
    #[error("{file}: was changed: its {field} is not the one in {MANIFEST}", MANIFEST = manifest::FILE)]
    Artifact {
        /// The file.
        file: String,
        /// What differs.
        field: String,
    },
    /// The manifest cannot be used.
    #[error("{MANIFEST}: {0}", MANIFEST = manifest::FILE)]
    Manifest(String),
    /// The sums cannot be used.
    #[error("{SUMS}: {0}")]
    Sums(String),
    /// A signature does not hold.
    #[error("{file}: {error}")]
    Signature {
        /// The signature's file.
        file: String,
        /// Why.
        error: SignatureError,
    },
    /// One of the files is signed, another is not.
    #[error("{0}: is missing, though the other file has its signature")]
    HalfSigned(String),
    /// Older than the caller accepts.
    #[error("version {found} is older than {at_least}, which was asked for: a downgrade is refused")]
    Downgrade {
        /// Version of the release.
        found: Version,
        /// What the caller has pinned.
        at_least: Version,
    },
}

/// A signature that holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Signature {
    /// The file that is signed.
    pub file: String,
    /// Who signed it.
    pub by: String,
}

/// What the checks give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Complete, unchanged, and signed by a trusted key.
    Good,
    /// Refused.
    Bad,
    /// Complete and unchanged as far as it says itself; nobody vouches for it.
    Unsigned,
    /// Signed, and no key is known to check it with.
    Unknown,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Version of the release.
    pub version: Option<Version>,
    /// How many files were checked.
    pub files: usize,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is signed by whom.
    pub signatures: Vec<Signature>,
    /// Signature files for which there is no key.
    pub unchecked: Vec<String>,
}

impl Report {
    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if !self.problems.is_empty() {
            Verdict::Bad
        } else if !self.signatures.is_empty() {
            Verdict::Good
        } else if !self.unchecked.is_empty() {
            Verdict::Unknown
        } else {
            Verdict::Unsigned
        }
    }
}

/// Checks the release in `folder`. An error means that the folder cannot be read; what is wrong in it is in the report.
pub fn verify(folder: &Path, keys: &Keys, at_least: Option<&Version>) -> Result<Report> {
    let mut report = Report::default();
    let files = read(folder, &mut report.problems)?;
    report.files = files.len();
    let sums = parse_sums(&files, &mut report.problems);
    let manifest = parse_manifest(&files, &mut report.problems);
    if let Some(sums) = &sums {
        check_sums(&files, sums, &mut report.problems);
    }
    if let Some(manifest) = &manifest {
        check_artifacts(&files, manifest, &mut report.problems);
    }
    check_names(&files, sums.as_ref(), manifest.as_ref(), &mut report.problems);
    check_signatures(&files, keys, &mut report);
    report.version = manifest.and_then(|manifest| Version::parse(&manifest.version).ok());
    if let (Some(found), Some(at_least)) = (&report.version, at_least)
        && found < at_least
    {
        report.problems.push(Problem::Downgrade { found: found.clone(), at_least: at_least.clone() });
    }
    Ok(report)
}

type Files = BTreeMap<String, Vec<u8>>;

fn read(folder: &Path, problems: &mut Vec<Problem>) -> Result<Files> {
    let named = || format!("{}: cannot be read as the folder of a release", folder.display());
    let mut files = Files::new();
    for entry in fs::read_dir(folder).with_context(named)? {
        let entry = entry.with_context(named)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let metadata = entry.metadata().with_context(named)?;
        if metadata.is_file() && metadata.len() < LARGEST {
            files.insert(name, fs::read(entry.path()).with_context(|| entry.path().display().to_string())?);
        } else {
            problems.push(Problem::NoFile(name));
        }
    }
    Ok(files)
}

fn parse_sums(files: &Files, problems: &mut Vec<Problem>) -> Option<Sums> {
    let parsed = std::str::from_utf8(files.get(SUMS)?).map_err(|_| "is not text".to_owned());
    match parsed.and_then(|text| Sums::parse(text).map_err(|error| error.to_string())) {
        Ok(sums) => Some(sums),
        Err(error) => {
            problems.push(Problem::Sums(error));
            None
        }
    }
}

fn parse_manifest(files: &Files, problems: &mut Vec<Problem>) -> Option<Manifest> {
    Manifest::parse(files.get(manifest::FILE)?)
        .map_err(|error| problems.push(Problem::Manifest(error.to_string())))
        .ok()
}

fn check_sums(files: &Files, sums: &Sums, problems: &mut Vec<Problem>) {
    for (name, bytes) in files {
        if sums.get(name).is_some_and(|expected| sha256(bytes) != expected) {
            problems.push(Problem::Sum(name.clone()));
        }
    }
}

fn check_artifacts(files: &Files, manifest: &Manifest, problems: &mut Vec<Problem>) {
    for artifact in &manifest.artifacts {
        let Some(bytes) = files.get(&artifact.name) else { continue };
        let mut differs = |field: String| problems.push(Problem::Artifact { file: artifact.name.clone(), field });
        if let Some(field) = Digests::of(bytes).difference(&artifact.digests) {
            differs(field.to_owned());
        }
        for region in &artifact.layout {
            // The manifest's own check has found the regions inside the image.
            let part = bytes.get(region.offset as usize..(region.offset + region.size) as usize).unwrap_or_default();
            if sha256(part) != region.sha256 {
                differs(format!("region {} at {:#x}", region.region, region.offset));
            }
        }
    }
}

/// Whether what is there is what should be.
fn check_names(files: &Files, sums: Option<&Sums>, manifest: Option<&Manifest>, problems: &mut Vec<Problem>) {
    let mut expected: BTreeSet<String> = SIGNED.iter().map(|&name| name.to_owned()).collect();
    expected.extend(sums.iter().flat_map(|sums| sums.names().map(str::to_owned)));
    if let Some(manifest) = manifest {
        expected.extend(manifest.artifacts.iter().map(|artifact| artifact.name.clone()));
    }
    for name in expected.iter().filter(|&name| !files.contains_key(name)) {
        problems.push(Problem::Missing(name.clone()));
    }
    let signatures: BTreeSet<_> = signature_files().map(|(_, _, file)| file).collect();
    for name in files.keys().filter(|&name| !signatures.contains(name)) {
        if let Some(manifest) = manifest
            && manifest.artifact(name).is_none()
            && !SIGNED.contains(&name.as_str())
        {
            problems.push(Problem::Extra(name.clone()));
        } else if let Some(sums) = sums
            && sums.get(name).is_none()
            && name != SUMS
        {
            problems.push(if expected.contains(name) { Problem::NoSum } else { Problem::Extra }(name.clone()));
        }
    }
}

/// Every signature that there can be: scheme, signed file, file of the signature.
fn signature_files() -> impl Iterator<Item = (Scheme, &'static str, String)> {
    Scheme::ALL.into_iter().flat_map(|scheme| SIGNED.map(|file| (scheme, file, scheme.file(file))))
}

fn check_signatures(files: &Files, keys: &Keys, report: &mut Report) {
    let schemes: BTreeSet<_> =
        signature_files().filter(|(_, _, name)| files.contains_key(name)).map(|(scheme, ..)| scheme).collect();
    for (scheme, file, name) in signature_files().filter(|(scheme, ..)| schemes.contains(scheme)) {
        let Some(signature) = files.get(&name) else {
            report.problems.push(Problem::HalfSigned(name));
            continue;
        };
        if !keys.has(scheme) {
            report.unchecked.push(name);
            continue;
        }
        // A missing file is reported already.
        let Some(content) = files.get(file) else { continue };
        match keys.verify(scheme, content, signature) {
            Ok(by) => report.signatures.push(Signature { file: file.to_owned(), by }),
            Err(error) => report.problems.push(Problem::Signature { file: name, error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn check(folder: &Path) -> Report {
        verify(folder, &Keys::default(), None).unwrap()
    }

    #[test]
    fn a_complete_release_without_signatures_is_unsigned() {
        let folder = testing::release();
        let report = check(folder.path());
        assert_eq!((report.problems, report.files), (vec![], 5));
        assert_eq!(check(folder.path()).verdict(), Verdict::Unsigned);
    }

    #[test]
    fn every_changed_byte_of_every_file_is_seen() {
        let folder = testing::release();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                fs::write(&path, &changed).unwrap();
                assert_eq!(check(folder.path()).verdict(), Verdict::Bad, "{} at {at}", path.display());
            }
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(check(folder.path()).verdict(), Verdict::Unsigned);
    }

    #[test]
    fn a_changed_image_is_named_with_the_region() {
        let folder = testing::release();
        fs::write(folder.path().join("OVMF.fd"), b"header and Code").unwrap();
        let problems: Vec<_> = check(folder.path()).problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems[0], "OVMF.fd: was changed: its SHA-256 is not the one in SHA256SUMS");
        assert!(
            problems.contains(&"OVMF.fd: was changed: its region code at 0xb is not the one in manifest.json".into())
        );
    }

    #[test]
    fn missing_and_additional_files_have_their_own_messages() {
        let folder = testing::release();
        fs::remove_file(folder.path().join("LICENSE-MIT")).unwrap();
        fs::write(folder.path().join("OVMF.fd.bak"), "").unwrap();
        fs::create_dir(folder.path().join("more")).unwrap();
        let problems = check(folder.path()).problems;
        assert_eq!(
            problems,
            [
                Problem::NoFile("more".into()),
                Problem::Missing("LICENSE-MIT".into()),
                Problem::Extra("OVMF.fd.bak".into())
            ]
        );
    }

    #[test]
    fn sums_that_agree_do_not_save_what_the_manifest_does_not_know() {
        let folder = testing::release();
        let mut sums = Sums::parse(&fs::read_to_string(folder.path().join(SUMS)).unwrap()).unwrap();
        sums.add("extra", b"x");
        fs::write(folder.path().join("extra"), "x").unwrap();
        fs::write(folder.path().join(SUMS), sums.to_string()).unwrap();
        assert_eq!(check(folder.path()).problems, [Problem::Extra("extra".into())]);
    }

    #[test]
    fn an_older_version_is_refused_where_a_newer_one_was_pinned() {
        let folder = testing::release();
        let ask = |version: &str| {
            verify(folder.path(), &Keys::default(), Some(&Version::parse(version).unwrap())).unwrap().problems
        };
        assert_eq!(ask("0.1.0"), []);
        assert!(ask("0.1.1")[0].to_string().contains("0.1.0 is older than 0.1.1"));
    }

    #[test]
    fn a_manifest_written_differently_is_refused() {
        let folder = testing::release();
        let path = folder.path().join(manifest::FILE);
        let text = fs::read_to_string(&path).unwrap().replacen("\"schema\": 1", "\"schema\":  1", 1);
        assert!(Manifest::parse(text.as_bytes()).unwrap_err().to_string().contains("must not be edited"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(verify(Path::new("/nonexistent"), &Keys::default(), None).is_err());
    }
}
