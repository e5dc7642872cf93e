//! `ovmf-xen sign`: for the keeper of a key.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::Outcome;
use crate::files;
use crate::signature::{Keys, SIGNED, Scheme, minisign, ssh};
use crate::verification;

/// Sign a release that was rebuilt independently (see `audit`), for the keeper of a key.
///
/// Makes SHA256SUMS.minisig and manifest.json.minisig, or the same with .sig for SSH. The release is checked first; what
/// does not hold is not signed. `minisign -V` and `ssh-keygen -Y verify -n ovmf-xen-release` accept the signatures.
#[derive(Args)]
#[command(after_help = "Exit status: 0 signed, 1 the release does not hold or an error, 2 wrong usage")]
pub struct Arguments {
    /// Secret key of minisign (`minisign -G`)
    #[arg(long, value_name = "KEY", required_unless_present = "ssh")]
    minisign: Option<PathBuf>,
    /// Private SSH key (`ssh-keygen -t ed25519`)
    #[arg(long, value_name = "KEY")]
    ssh: Option<PathBuf>,
    /// File whose first line is the password of the keys [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Folder of the release
    #[arg(value_name = "DIR")]
    release: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let report = verification::verify(&arguments.release, &Keys::default(), None)?;
    for problem in &report.problems {
        eprintln!("{}", files::printable(&problem.to_string()));
    }
    let Some(version) = report.version.filter(|_| report.problems.is_empty()) else {
        eprintln!("{}: not signed, as it does not hold", arguments.release.display());
        return Ok(Outcome::Failure);
    };
    let file = arguments.password_file.as_deref();
    if let Some(path) = &arguments.minisign {
        let key = minisign::secret_key(path, file.map(first_line).transpose()?)?;
        write(&arguments.release, Scheme::Minisign, |file, content| {
            minisign::sign(&key, content, &format!("ovmf-xen {version} {file}"))
        })?;
    }
    if let Some(path) = &arguments.ssh {
        let key = ssh::private_key(path, || password(file))?;
        write(&arguments.release, Scheme::Ssh, |_, content| ssh::sign(&key, content))?;
    }
    Ok(Outcome::Success)
}

fn write(folder: &Path, scheme: Scheme, sign: impl Fn(&str, &[u8]) -> Result<String>) -> Result<()> {
    for file in SIGNED {
        let content = folder.join(file);
        let content = fs::read(&content).with_context(|| content.display().to_string())?;
        let path = folder.join(scheme.file(file));
        files::replace(&path, sign(file, &content)?.as_bytes())?;
        files::print(format!("{}: made\n", path.display()))?;
    }
    Ok(())
}

/// The password of an SSH key, from a file or from the terminal.
pub(super) fn password(file: Option<&Path>) -> Result<String> {
    file.map_or_else(
        || {
            rpassword::prompt_password("Password of the SSH key: ")
                .context("no password can be asked for; see --password-file")
        },
        first_line,
    )
}

fn first_line(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("{}: its first line is empty; the password belongs there", path.display()),
    }
}
