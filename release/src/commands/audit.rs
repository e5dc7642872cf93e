//! `ovmf-xen audit`: what an auditor runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use super::Outcome;
use super::sign::password;
use super::verify::KeyArguments;
use crate::audit::{Audit, Findings, Verdict};
use crate::files;
use crate::signature::ssh;
use crate::verdict;

/// Rebuild a release from source and compare: do these sources give the bytes that the manifest claims?
///
/// Checks signatures beside the manifest, the source digest, the compiler's files, then runs build-support/build in
/// folders of its own and compares every file of the release. A difference is explained by region, and by bytes where the
/// published images lie beside the manifest.
#[derive(Args)]
#[command(after_help = "Exit status: 0 match, 1 mismatch, or an error; 2 wrong usage; 3 could not tell")]
pub struct Arguments {
    /// Manifest of the release [default: release/manifest.json in the source tree]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Root of the source tree
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
    #[command(flatten)]
    keys: KeyArguments,
    /// Write verdict.txt, verdict.json and verdict.intoto.json into DIR
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The auditor's own SSH key (ed25519), to sign the statement with; into a DSSE envelope
    #[arg(long, value_name = "KEY", requires = "out")]
    key: Option<PathBuf>,
    /// File whose first line is the password of the key [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Build in DIR and leave it [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Use no network: install nothing, download nothing
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let source = fs::canonicalize(&arguments.source).with_context(|| arguments.source.display().to_string())?;
    // A build of an hour ago would be no rebuild.
    let temporary =
        tempfile::Builder::new().prefix("ovmf-xen-audit-").tempdir().context("no temporary folder can be made")?;
    let scratch = arguments.scratch.as_deref().unwrap_or(temporary.path());
    fs::create_dir_all(scratch).with_context(|| scratch.display().to_string())?;
    // Asked for before the build, not after it.
    let key = arguments
        .key
        .as_deref()
        .map(|path| ssh::private_key(path, || password(arguments.password_file.as_deref())))
        .transpose()?;
    let manifest = arguments.manifest.clone().unwrap_or_else(|| source.join("release/manifest.json"));
    // The default is a link into the folder of the release, and what lies beside the manifest lies there.
    let manifest = fs::canonicalize(&manifest).with_context(|| manifest.display().to_string())?;
    let keys = arguments.keys.read()?;
    let audit = Audit { manifest: &manifest, source: &source, keys: &keys, scratch, offline: arguments.offline };
    let findings = audit.run()?;
    let text = verdict::text(&findings);
    let data = serde_json::to_string_pretty(&findings)? + "\n";
    files::print(if arguments.json { &data } else { &text })?;
    if let Some(out) = &arguments.out {
        fs::create_dir_all(out).with_context(|| out.display().to_string())?;
        files::replace(&out.join("verdict.txt"), text.as_bytes())?;
        files::replace(&out.join("verdict.json"), data.as_bytes())?;
        write_statement(out, &findings, key.as_ref())?;
    }
    Ok(match findings.verdict {
        Verdict::Match => Outcome::Success,
        Verdict::Mismatch => Outcome::Failure,
        Verdict::CouldNotTell => Outcome::Unknown,
    })
}

fn write_statement(out: &Path, findings: &Findings, key: Option<&ssh_key::PrivateKey>) -> Result<()> {
    let name = "verdict.intoto.json";
    let Some(statement) = verdict::statement(findings) else {
        eprintln!("{name}: not written, as nothing could be told");
        return Ok(());
    };
    let data = key.map_or_else(|| Ok(statement.clone()), |key| verdict::envelope(&statement, key))?;
    files::replace(&out.join(name), (serde_json::to_string_pretty(&data)? + "\n").as_bytes())
}
