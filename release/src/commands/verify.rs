//! `ovmf-xen verify`: is this release what its makers signed?

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use semver::Version;
use serde_json::json;

use super::Outcome;
use crate::files;
use crate::signature::Keys;
use crate::verification::{self, Report, Verdict};

/// Check a release: signatures, manifest, sums and every file.
///
/// Refuses a changed, missing or additional file, a damaged signature or one by another key, and an older version than
/// --at-least. Uses no network.
#[derive(Args)]
#[command(
    after_help = "Exit status: 0 complete, unchanged, signed by a trusted key; 1 refused, or an error; 2 wrong usage; \
    3 signed, but no key was given to check it with; 4 unsigned, and nothing else is wrong"
)]
pub struct Arguments {
    /// Folder of the release
    #[arg(value_name = "DIR")]
    release: PathBuf,
    #[command(flatten)]
    keys: KeyArguments,
    /// Refuse releases older than this
    #[arg(long, value_name = "VERSION")]
    at_least: Option<Version>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which keys are trusted.
#[derive(Args)]
pub struct KeyArguments {
    /// Folder with trusted keys: *.pub of minisign, and allowed_signers of ssh-keygen
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Trusted public key of minisign; may be repeated
    #[arg(long, value_name = "FILE")]
    minisign_key: Vec<PathBuf>,
    /// Trusted SSH keys, in the form of ssh-keygen's ALLOWED SIGNERS; may be repeated
    #[arg(long, value_name = "FILE")]
    allowed_signers: Vec<PathBuf>,
}

impl KeyArguments {
    /// Reads the keys.
    pub fn read(&self) -> Result<Keys> {
        let mut keys = self.keys.as_deref().map_or_else(|| Ok(Keys::default()), Keys::of_folder)?;
        self.minisign_key.iter().try_for_each(|path| keys.add_minisign(path))?;
        self.allowed_signers.iter().try_for_each(|path| keys.add_allowed_signers(path))?;
        Ok(keys)
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let report = verification::verify(&arguments.release, &arguments.keys.read()?, arguments.at_least.as_ref())?;
    files::print(match arguments.json {
        true => serde_json::to_string_pretty(&to_json(&report))? + "\n",
        false => text(&report),
    })?;
    Ok(match report.verdict() {
        Verdict::Good => Outcome::Success,
        Verdict::Bad => Outcome::Failure,
        Verdict::Unknown => Outcome::Unknown,
        Verdict::Unsigned => Outcome::Unsigned,
    })
}

/// The report as data.
fn to_json(report: &Report) -> serde_json::Value {
    json!({
        "verdict": report.verdict(),
        "version": report.version.as_ref().map(Version::to_string),
        "files": report.files,
        "problems": report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "signatures": report.signatures,
        "unchecked": report.unchecked,
    })
}

/// The report for people: what is wrong, what is signed, and the verdict.
fn text(report: &Report) -> String {
    let mut lines: Vec<_> = report.problems.iter().map(|problem| files::printable(&problem.to_string())).collect();
    lines.extend(report.signatures.iter().map(|signature| format!("{}: signed by {}", signature.file, signature.by)));
    lines.extend(report.unchecked.iter().map(|file| format!("{file}: not checked, no key for it was given")));
    let version = report.version.as_ref().map_or_else(|| "of unknown version".to_owned(), Version::to_string);
    let files = report.files;
    lines.push(match report.verdict() {
        Verdict::Good => format!("good: ovmf-xen {version}, {files} files"),
        Verdict::Bad => format!("refused: ovmf-xen {version}"),
        Verdict::Unsigned => {
            format!("unsigned: ovmf-xen {version}, {files} files agree with each other, and nobody vouches for them")
        }
        Verdict::Unknown => format!(
            "unknown: ovmf-xen {version} is signed; give the keys with --keys, --minisign-key or --allowed-signers"
        ),
    });
    lines.join("\n") + "\n"
}
