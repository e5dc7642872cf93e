//! Signed updates of authenticated variables, made by openssl and efitools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde::Deserialize;

use crate::command;

/// An update of a key or signature database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Update {
    /// Which variable, `PK`, `KEK`, `db` or `dbx`.
    pub variable: String,
    /// Whose certificate is its new content: the name of a key, which is made when it is needed.
    pub holds: String,
    /// Whose key signs.
    pub signed_by: String,
}

/// The bytes that SetVariable takes.
///
/// # Errors
/// openssl or efitools is missing or fails.
pub fn bytes(update: &Update, scratch: &Path) -> Result<Vec<u8>> {
    let folder = scratch.join("keys");
    fs::create_dir_all(&folder)?;
    let (holder, signer) = (Key::get(&folder, &update.holds)?, Key::get(&folder, &update.signed_by)?);
    let (list, signed) = (folder.join("list"), folder.join("signed"));
    command::output(Command::new("cert-to-efi-sig-list").arg(&holder.certificate).arg(&list))?;
    let mut sign = Command::new("sign-efi-sig-list");
    sign.arg("-k").arg(&signer.key).arg("-c").arg(&signer.certificate).arg(&update.variable).arg(&list).arg(&signed);
    command::output(&mut sign)?;
    command::read(&signed)
}

struct Key {
    key: PathBuf,
    certificate: PathBuf,
}

impl Key {
    /// The key of that name with a certificate that it has signed itself; the same throughout a run.
    fn get(folder: &Path, name: &str) -> Result<Self> {
        let key = Self { key: folder.join(format!("{name}.key")), certificate: folder.join(format!("{name}.crt")) };
        if !key.certificate.exists() {
            let mut openssl = Command::new("openssl");
            openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "3650"]);
            openssl
                .args(["-subj", &format!("/CN={name}/")])
                .arg("-keyout")
                .arg(&key.key)
                .arg("-out")
                .arg(&key.certificate);
            command::output(&mut openssl)?;
        }
        Ok(key)
    }
}
