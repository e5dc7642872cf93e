//! SSH signatures, as `ssh-keygen -Y sign` makes them.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use super::SignatureError;

/// What the signatures are for; SSH signatures for anything else are not accepted.
pub const NAMESPACE: &str = "ovmf-xen-release";

/// Someone whose signatures are accepted.
#[derive(Debug)]
pub struct Signer {
    /// Under which names.
    pub principals: String,
    key: KeyData,
}

/// Reads a file in the form of ssh-keygen's ALLOWED SIGNERS. Signers for other namespaces are passed over.
pub fn allowed_signers(text: &str) -> Result<Vec<Signer>> {
    let mut signers = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        signers.extend(signer(line).with_context(|| format!("line {}", index + 1))?);
    }
    Ok(signers)
}

/// Reads "PRINCIPALS [OPTIONS] TYPE KEY [COMMENT]".
fn signer(line: &str) -> Result<Option<Signer>> {
    let (principals, rest) = line.split_once([' ', '\t']).context("a key is missing behind the name")?;
    let rest = rest.trim_start();
    let (options, key) = match PublicKey::from_openssh(rest) {
        Ok(key) => ("", key),
        Err(_) => {
            let end = end_of_options(rest).context("neither a key nor options with a key behind them")?;
            let (options, key) = rest.split_at(end);
            (options, PublicKey::from_openssh(key.trim_start()).context("the key cannot be read")?)
        }
    };
    for option in options.split("\",").map(|option| option.trim_end_matches('"')).filter(|option| !option.is_empty()) {
        match option.split_once("=\"") {
            Some(("namespaces", names)) if !names.split(',').any(|name| name == NAMESPACE) => return Ok(None),
            Some(("namespaces", _)) => {}
            _ => bail!("option {option:?} is not known here; give the key without it"),
        }
    }
    Ok(Some(Signer { principals: principals.to_owned(), key: key.key_data().clone() }))
}

/// The first blank outside quotes.
fn end_of_options(text: &str) -> Option<usize> {
    let mut quoted = false;
    text.find(|c: char| {
        quoted ^= c == '"';
        !quoted && (c == ' ' || c == '\t')
    })
}

/// Says which of the signers signed `content`.
pub fn verify(signers: &[Signer], content: &[u8], text: &str) -> Result<String, SignatureError> {
    let damaged = |error: ssh_key::Error| SignatureError::Form(error.to_string());
    let signature = SshSig::from_pem(text).map_err(damaged)?;
    if signature.to_pem(LineEnding::LF).map_err(damaged)? != text {
        return Err(SignatureError::Form("it is not written the way ssh-keygen writes it".to_owned()));
    }
    if signature.namespace() != NAMESPACE {
        return Err(SignatureError::Purpose(signature.namespace().to_owned()));
    }
    let fingerprint = signature.public_key().fingerprint(HashAlg::Sha256).to_string();
    let Some(signer) = signers.iter().find(|signer| signer.key == *signature.public_key()) else {
        return Err(SignatureError::Stranger(fingerprint));
    };
    PublicKey::from(signer.key.clone())
        .verify(NAMESPACE, content, &signature)
        .map_err(|_| SignatureError::Mismatch(fingerprint.clone()))?;
    Ok(format!("SSH key {fingerprint} of {}", signer.principals))
}

/// Reads a private key in OpenSSH's form; `password` is called when it is encrypted.
pub fn private_key(path: &Path, password: impl FnOnce() -> Result<String>) -> Result<PrivateKey> {
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    let key = PrivateKey::from_openssh(text).context("not a private key of OpenSSH").with_context(named)?;
    let key = if key.is_encrypted() {
        key.decrypt(password()?).context("the key cannot be opened; is the password right?").with_context(named)?
    } else {
        key
    };
    ensure!(
        key.key_data().ed25519().is_some(),
        "{}: is a key of type {}; only ed25519 is supported: ssh-keygen -t ed25519",
        named(),
        key.algorithm()
    );
    Ok(key)
}

/// The text of a signature over `content`.
pub fn sign(key: &PrivateKey, content: &[u8]) -> Result<String> {
    let signature = key.sign(NAMESPACE, HashAlg::Sha512, content)?;
    Ok(signature.to_pem(LineEnding::LF)?)
}
