//! `ovmf-xen compare`: where two images differ.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use super::Outcome;
use crate::compare::{self, Comparison};
use crate::files;
use crate::symbols::Symbols;

/// Differences that the text lists; JSON lists more.
const SHOWN: usize = 50;

/// Compares two images and names region, file and nearest symbol of each difference.
///
/// Exit status: 0 the same bytes, 1 they differ or a file cannot be read, 2 wrong usage.
#[derive(Args, Debug)]
pub struct Arguments {
    /// An image
    a: PathBuf,
    /// Another one; places are named as in the first
    b: PathBuf,
    /// The core's ELF file of the first image's build, for the names of symbols:
    /// target/x86_64-unknown-none/release/ovmf-xen-core
    #[arg(long, value_name = "ELF")]
    core: Option<PathBuf>,
    /// Write JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let (a, b) = (files::read(&arguments.a)?, files::read(&arguments.b)?);
    let read_symbols = |path: &PathBuf| {
        let elf = fs::read(path).with_context(|| path.display().to_string())?;
        Symbols::from_elf(&elf).with_context(|| path.display().to_string())
    };
    let symbols = arguments.core.as_ref().map(read_symbols).transpose()?;
    let comparison = compare::compare(&a, &b, symbols.as_ref());
    files::print(match arguments.json {
        true => serde_json::to_string_pretty(&comparison)? + "\n",
        false => text(arguments, &comparison),
    })?;
    Ok(if comparison.is_equal() { Outcome::Success } else { Outcome::Failure })
}

fn text(arguments: &Arguments, comparison: &Comparison) -> String {
    let Comparison { sizes, sha256, differing_bytes, count, differences } = comparison;
    if comparison.is_equal() {
        return format!("the same: {} bytes, SHA-256 {}\n", sizes[0], sha256[0]);
    }
    let files = [&arguments.a, &arguments.b].into_iter().zip(sizes.iter().zip(sha256));
    let mut lines: Vec<String> =
        files.map(|(path, (size, hash))| format!("{hash}  {size:>8} bytes  {}", path.display())).collect();
    lines.push(format!("{differing_bytes} bytes differ, in {count} places:"));
    lines.extend(differences.iter().take(SHOWN).map(|difference| format!("  {difference}")));
    if *count > SHOWN {
        lines.push(format!("  and {} more places (--json lists them)", count - SHOWN));
    }
    lines.join("\n") + "\n"
}
