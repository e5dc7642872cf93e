//! An independent rebuild: does this source give the bytes that the manifest claims?
//!
//! [`Audit::run`] is the whole story. What has to hold before a comparison means anything (the source is the release's,
//! the compiler is the official one, the build works) is a prerequisite: where it does not hold, the answer is "could not
//! tell". What is compared after that is a match or a mismatch.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::compare::compare;
use crate::digest::sha256;
use crate::manifest::{self, Artifact, Kind, Manifest};
use crate::release_set::{Ingredients, ReleaseSet, SUMS};
use crate::signature::{Keys, Scheme};
use crate::symbols::Symbols;
use crate::{files, sources, toolchain};

/// What is to be audited, and how.
pub struct Audit<'a> {
    /// The manifest's file; signatures and images are looked for beside it.
    pub manifest: &'a Path,
    /// Root of the source tree.
    pub source: &'a Path,
    /// Trusted keys.
    pub keys: &'a Keys,
    /// Where to build.
    pub scratch: &'a Path,
    /// Build without a network.
    pub offline: bool,
}

/// What one step found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It holds.
    Yes,
    /// It does not hold.
    No,
    /// It could not be found out.
    Unknown,
}

/// A step of the audit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What was asked.
    pub name: String,
    /// What was found.
    pub answer: Answer,
    /// More about it, a line each.
    pub details: Vec<String>,
}

/// What an audit comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The source gives the bytes that the manifest claims.
    Match,
    /// It gives others, or a signature does not hold.
    Mismatch,
    /// A prerequisite is missing.
    CouldNotTell,
}

/// All that was found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// What it comes to.
    pub verdict: Verdict,
    /// Version that the manifest names.
    pub version: String,
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// The steps.
    pub checks: Vec<Check>,
    /// The manifest itself.
    #[serde(skip)]
    pub manifest: Manifest,
}

/// Differences that the verdict lists; `ovmf-xen compare` shows all.
const SHOWN: usize = 20;

impl Findings {
    fn new(manifest: Manifest, text: &[u8], checks: Vec<Check>) -> Self {
        let any = |answer| checks.iter().any(|check| check.answer == answer);
        let verdict = match (any(Answer::Unknown), any(Answer::No)) {
            (true, _) => Verdict::CouldNotTell,
            (false, true) => Verdict::Mismatch,
            (false, false) => Verdict::Match,
        };
        Self { verdict, version: manifest.version.clone(), manifest_sha256: sha256(text), checks, manifest }
    }
}

impl Audit<'_> {
    /// Goes through the steps and says so. An error means that there is no manifest to speak of.
    pub fn run(&self) -> Result<Findings> {
        let text = files::read(self.manifest)
            .with_context(|| format!("{}: --manifest names another", self.manifest.display()))?;
        let manifest = Manifest::parse(&text).with_context(|| self.manifest.display().to_string())?;
        let mut checks = Vec::new();
        type Step<'a> = (&'a str, &'a dyn Fn() -> Result<Vec<Check>>);
        let steps: [Step; 5] = [
            ("signatures", &|| Ok(vec![self.signatures(&text)])),
            ("source", &|| Ok(vec![self.source_is_the_releases(&manifest)?])),
            ("toolchain", &|| Ok(vec![self.toolchain_is_official(&manifest)?])),
            ("rebuild", &|| Ok(vec![self.rebuild()?])),
            ("comparison", &|| self.compare(&manifest)),
        ];
        for (index, (name, step)) in steps.iter().enumerate() {
            eprintln!("[{}/{}] {name} ...", index + 1, steps.len());
            checks.extend(step().unwrap_or_else(|error| vec![unknown(name, format!("{error:#}"))]));
            // Nothing after a missing prerequisite would mean anything.
            if checks.iter().any(|check| check.answer == Answer::Unknown) {
                break;
            }
        }
        Ok(Findings::new(manifest.clone(), &text, checks))
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.manifest.with_file_name(name)
    }

    /// A manifest without signatures can be audited as well as another; a signature that does not hold is a mismatch.
    fn signatures(&self, text: &[u8]) -> Check {
        let mut check = Check { name: "signatures".into(), answer: Answer::Yes, details: Vec::new() };
        for (file, content) in [(manifest::FILE, Some(text.to_vec())), (SUMS, files::read(&self.beside(SUMS)).ok())] {
            for scheme in Scheme::ALL {
                let name = scheme.file(file);
                let (Ok(signature), Some(content)) = (files::read(&self.beside(&name)), &content) else { continue };
                if !self.keys.has(scheme) {
                    check.details.push(format!("{name}: not checked, no {} key was given", scheme.key_kind()));
                    continue;
                }
                match self.keys.verify(scheme, content, &signature) {
                    Ok(by) => check.details.push(format!("{file}: signed by {by}")),
                    Err(error) => {
                        check.answer = Answer::No;
                        check.details.push(format!("{name}: {error}"));
                    }
                }
            }
        }
        if check.details.is_empty() {
            check.details.push("unsigned".to_owned());
        }
        check
    }

    fn source_is_the_releases(&self, manifest: &Manifest) -> Result<Check> {
        let sources = sources::of_tree(self.source)?;
        let digest = sources.digest();
        if digest == manifest.source.sha256 {
            return Ok(yes("source", format!("{digest} over {} files", sources.len())));
        }
        let mut details = vec![format!(
            "{} is not the source of this release: its digest is {digest}, the manifest names {}",
            self.source.display(),
            manifest.source.sha256
        )];
        // Which files, where the release's list is at hand.
        let list = fs::read_to_string(self.beside(sources::LIST)).ok();
        if let Some(list) = list.and_then(|text| crate::sums::Sums::parse(&text).ok()) {
            details.extend(list.changes(&sources));
        }
        Ok(Check { name: "source".into(), answer: Answer::Unknown, details })
    }

    fn toolchain_is_official(&self, manifest: &Manifest) -> Result<Check> {
        let sysroot = toolchain::sysroot(self.source).context("build-support/setup installs the toolchain")?;
        let examination = toolchain::examine(&manifest.toolchain, &sysroot);
        let mut details = vec![format!("{}: {} files are the official ones", sysroot.display(), examination.equal)];
        details.extend(examination.adapted.iter().map(|name| format!("{name}: adapted by Nix, not comparable")));
        let answer = if examination.problems.is_empty() { Answer::Yes } else { Answer::Unknown };
        details.extend(examination.problems);
        Ok(Check { name: "toolchain".into(), answer, details })
    }

    /// Runs the release's own build in folders of its own.
    fn rebuild(&self) -> Result<Check> {
        let mut build = Command::new(self.source.join("build-support/build"));
        build.arg("--out").arg(self.scratch.join("out")).env("CARGO_TARGET_DIR", self.scratch.join("target"));
        build.args(self.offline.then_some("--offline")).stdin(Stdio::null()).stdout(Stdio::from(io::stderr()));
        let status = build.status().context("build-support/build cannot be started")?;
        if !status.success() {
            bail!("build-support/build failed ({status}); its messages are above");
        }
        Ok(yes("rebuild", "build-support/build, from nothing".to_owned()))
    }

    /// Holds what was made here against the manifest, artifact by artifact.
    fn compare(&self, manifest: &Manifest) -> Result<Vec<Check>> {
        let made = ReleaseSet::make(self.source, &self.scratch.join("out"))?;
        let mut checks: Vec<_> =
            manifest.artifacts.iter().map(|artifact| self.compare_artifact(artifact, &made)).collect();
        let ingredients = Ingredients::of_tree(self.source)?;
        for (name, same) in [
            ("toolchain pins", manifest.toolchain == ingredients.toolchain),
            ("nixpkgs", manifest.nixpkgs == ingredients.nixpkgs),
            ("dependencies", manifest.dependencies == ingredients.dependencies.crates),
        ] {
            checks.push(if same {
                yes(name, "as in the manifest".to_owned())
            } else {
                no(name, "not as in the manifest".to_owned())
            });
        }
        Ok(checks)
    }

    fn compare_artifact(&self, claimed: &Artifact, made: &ReleaseSet) -> Check {
        let name = &claimed.name;
        let (Some(artifact), Some(bytes)) = (made.manifest.artifact(name), made.files.get(name)) else {
            return no(name, "this source makes no such file".to_owned());
        };
        let Some(field) = artifact.digests.difference(&claimed.digests) else {
            return yes(name, format!("sha256 {}", claimed.digests.sha256));
        };
        let mut check =
            no(name, format!("other {field}: here {}, claimed {}", artifact.digests.sha256, claimed.digests.sha256));
        for (here, there) in artifact.layout.iter().zip(&claimed.layout) {
            if here != there {
                check.details.push(format!("region {} at {:#x} differs", there.region, there.offset));
            }
        }
        // The published file says more than its hash, if it is at hand and is what the manifest names.
        let published = files::read(&self.beside(name)).ok().filter(|bytes| sha256(bytes) == claimed.digests.sha256);
        if let Some(published) = published {
            check.details.extend(match claimed.kind {
                Kind::Image => self.explain(bytes, &published),
                _ => first_other_line(bytes, &published),
            });
        }
        check
    }

    /// Region, file and nearest symbol of each difference, by the symbols of the core that was built here.
    fn explain(&self, made: &[u8], published: &[u8]) -> Vec<String> {
        let core = fs::read(self.scratch.join("target/x86_64-unknown-none/release/ovmf-xen-core")).ok();
        let symbols = core.and_then(|elf| Symbols::from_elf(&elf).ok());
        let comparison = compare(made, published, symbols.as_ref());
        let mut lines: Vec<_> = comparison.differences.iter().take(SHOWN).map(ToString::to_string).collect();
        lines.push(format!("{} bytes differ, in {} places", comparison.differing_bytes, comparison.count));
        lines
    }
}

/// The line at which two texts part.
fn first_other_line(made: &[u8], published: &[u8]) -> Vec<String> {
    let texts = [made, published].map(String::from_utf8_lossy);
    let [made, published] = [&texts[0], &texts[1]].map(|text| text.lines().collect::<Vec<_>>());
    let at = made.iter().zip(&published).take_while(|(made, published)| made == published).count();
    let shown = |whose, lines: &[&str]| {
        format!("line {}, {whose}: {}", at + 1, lines.get(at).map_or("(its end)", |line| line.trim()))
    };
    vec![shown("here", &made), shown("claimed", &published)]
}

fn yes(name: &str, detail: String) -> Check {
    Check { name: name.to_owned(), answer: Answer::Yes, details: vec![detail] }
}

fn no(name: &str, detail: String) -> Check {
    Check { answer: Answer::No, ..yes(name, detail) }
}

fn unknown(name: &str, detail: String) -> Check {
    Check { answer: Answer::Unknown, ..yes(name, detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_part_at_a_line() {
        assert_eq!(first_other_line(b"a\n  b\nc\n", b"a\n  x\n"), ["line 2, here: b", "line 2, claimed: x"]);
        assert_eq!(first_other_line(b"a\nb\n", b"a\n"), ["line 2, here: b", "line 2, claimed: (its end)"]);
    }
}
