//! Our own EFI test programs (crate `guest`), built when a scenario asks for one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command;

const TARGET: &str = "x86_64-unknown-uefi";

/// The bytes of the program `name`, built from this checkout.
///
/// # Errors
/// There is no such program, or it does not compile.
pub fn bytes(name: &str) -> Result<Vec<u8>> {
    let output = command::output(
        Command::new("cargo")
            .args(["build", "--quiet", "--locked", "--release", "--package", "guest", "--bin", name])
            .args(["--target", TARGET, "--message-format", "json"])
            .current_dir(workspace()),
    )
    .with_context(|| format!("building the test program {name}"))?;
    let executable = output.lines().filter_map(executable).next_back();
    command::read(&executable.with_context(|| format!("cargo made no program {name}"))?)
}

/// A line of what cargo says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// The program that a line of what cargo says names.
pub(crate) fn executable(line: &str) -> Option<PathBuf> {
    serde_json::from_str::<Message>(line).ok()?.executable
}

/// The checkout.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_where_cargo_says() {
        let said =
            r#"{"reason":"compiler-artifact","target":{"name":"bench"},"executable":"/target/bench.efi","fresh":true}"#;
        assert_eq!(executable(said), Some("/target/bench.efi".into()));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
