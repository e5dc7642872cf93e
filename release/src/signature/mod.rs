//! Detached signatures over the files that vouch for all others: `SHA256SUMS` and `manifest.json`.
//!
//! Two schemes, both verified by widespread tools without a network: [`minisign`] and SSH ([`ssh`], `ssh-keygen -Y`).
//! A signature is accepted in exactly one form, so that no byte of its file can be changed unseen.

pub mod minisign;
pub mod ssh;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use thiserror::Error;

use crate::manifest;
use crate::release_set::SUMS;

/// The files that are signed.
pub const SIGNED: [&str; 2] = [SUMS, manifest::FILE];

/// File of the SSH keys in a folder of keys.
const ALLOWED_SIGNERS: &str = "allowed_signers";

/// How a signature is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scheme {
    /// By minisign.
    Minisign,
    /// By `ssh-keygen -Y`.
    Ssh,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Minisign, Self::Ssh];

    /// Name of the file that signs `file`.
    #[must_use]
    pub fn file(self, file: &str) -> String {
        match self {
            Self::Minisign => format!("{file}.minisig"),
            Self::Ssh => format!("{file}.sig"),
        }
    }

    /// What its keys are called in messages.
    #[must_use]
    pub const fn key_kind(self) -> &'static str {
        match self {
            Self::Minisign => "minisign",
            Self::Ssh => "SSH",
        }
    }
}

/// Keys that the caller trusts.
#[derive(Default)]
pub struct Keys {
    /// Public keys of minisign.
    pub minisign: Vec<minisign::Key>,
    /// Signers with their SSH keys.
    pub ssh: Vec<ssh::Signer>,
}

impl Keys {
    /// The keys in a folder such as `release/keys`: `*.pub` are minisign's, `allowed_signers` are ssh-keygen's.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let mut keys = Self::default();
        let mut names = fs::read_dir(folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| folder.display().to_string())?;
        names.sort_by_key(fs::DirEntry::file_name);
        for path in names.iter().map(fs::DirEntry::path) {
            if path.extension().is_some_and(|extension| extension == "pub") {
                keys.add_minisign(&path)?;
            } else if path.file_name().is_some_and(|name| name == ALLOWED_SIGNERS) {
                keys.add_allowed_signers(&path)?;
            }
        }
        Ok(keys)
    }

    /// Adds a public key of minisign.
    pub fn add_minisign(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        self.minisign.push(minisign::Key::parse(&text).with_context(|| path.display().to_string())?);
        Ok(())
    }

    /// Adds the signers of a file as `ssh-keygen` has it under ALLOWED SIGNERS.
    pub fn add_allowed_signers(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        self.ssh.extend(ssh::allowed_signers(&text).with_context(|| path.display().to_string())?);
        Ok(())
    }

    /// Whether there is a key for this scheme.
    #[must_use]
    pub fn has(&self, scheme: Scheme) -> bool {
        match scheme {
            Scheme::Minisign => !self.minisign.is_empty(),
            Scheme::Ssh => !self.ssh.is_empty(),
        }
    }

    /// Says who signed `content`, if it is one of these keys.
    pub fn verify(&self, scheme: Scheme, content: &[u8], signature: &[u8]) -> Result<String, SignatureError> {
        let text = std::str::from_utf8(signature).map_err(|_| SignatureError::Form("it is not text".to_owned()))?;
        match scheme {
            Scheme::Minisign => minisign::verify(&self.minisign, content, text),
            Scheme::Ssh => ssh::verify(&self.ssh, content, text),
        }
    }
}

/// Why a signature does not count.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// Not a signature of its kind in its one form.
    #[error("damaged: {0}")]
    Form(String),
    /// Made with a key that is not trusted.
    #[error("made by another key, {0}, which is not among the trusted ones")]
    Stranger(String),
    /// Made for another purpose.
    #[error("made for {0:?}, not for a release of ovmf-xen ({NAMESPACE:?})", NAMESPACE = ssh::NAMESPACE)]
    Purpose(String),
    /// The key is trusted; the content is not what was signed.
    #[error("does not match: the file or the signature was changed after signing with key {0}")]
    Mismatch(String),
}

#[cfg(test)]
mod tests;
