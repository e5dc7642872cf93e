//! Signatures of minisign.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use base64ct::{Base64, Encoding as _};
use minisign::{PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};

use super::SignatureError;

/// The comment that nothing signs. Only the tool's own is accepted, or its bytes could be changed unseen.
const COMMENT: &str = "signature from minisign secret key";

/// Where a secret key says how its password makes a key, and what stands there without a password.
const KDF: std::ops::Range<usize> = 2..4;
const NO_KDF: [u8; 2] = [0, 0];

/// A public key.
pub struct Key {
    key: PublicKey,
}

impl Key {
    /// Reads the text of a `.pub` file.
    pub fn parse(text: &str) -> Result<Self> {
        let key = PublicKeyBox::from_string(text)
            .and_then(PublicKeyBox::into_public_key)
            .context("not a public key of minisign (file minisign.pub of `minisign -G`)")?;
        Ok(Self { key })
    }

    fn id(&self) -> String {
        id(self.key.keynum())
    }
}

/// A key's number as minisign prints it.
fn id(number: &[u8]) -> String {
    hex::encode_upper(number.iter().rev().copied().collect::<Vec<_>>())
}

/// Says which of the keys signed `content`.
pub fn verify(keys: &[Key], content: &[u8], text: &str) -> Result<String, SignatureError> {
    let damaged = |what: &str| SignatureError::Form(what.to_owned());
    let signature = SignatureBox::from_string(text).map_err(|error| damaged(&error.to_string()))?;
    if signature.untrusted_comment().ok().as_deref() != Some(COMMENT) {
        return Err(damaged(&format!("its untrusted comment is not {COMMENT:?}, and nothing vouches for another")));
    }
    if signature.to_string().trim_end() != text.trim_end() || !text.ends_with('\n') || text.ends_with("\n\n") {
        return Err(damaged("it is not written the way minisign writes it"));
    }
    let number = id(signature.keynum());
    let Some(key) = keys.iter().find(|key| key.id() == number) else {
        return Err(SignatureError::Stranger(number));
    };
    minisign::verify(&key.key, &signature, Cursor::new(content), true, false, false)
        .map_err(|_| SignatureError::Mismatch(number.clone()))?;
    Ok(format!("minisign key {number}"))
}

/// Reads a secret key; without a password it is asked for when the key is encrypted.
pub fn secret_key(path: &Path, password: Option<String>) -> Result<SecretKey> {
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    open(&text, password).with_context(named)
}

fn open(text: &str, password: Option<String>) -> Result<SecretKey> {
    let encoded = text.lines().nth(1).context("not a secret key of minisign (file minisign.key of `minisign -G`)")?;
    let bytes =
        Base64::decode_vec(encoded).map_err(|_| anyhow!("not a secret key of minisign: its base64 is damaged"))?;
    // Keys made by `minisign -G -W` have no checksum, which the library misses. `sign` finds a damaged one.
    if bytes.get(KDF) == Some(&NO_KDF) {
        return SecretKey::from_bytes(&bytes).context("not a secret key of minisign: it is cut off");
    }
    SecretKeyBox::from_string(text)
        .and_then(|key| key.into_secret_key(password))
        .context("the key cannot be opened; is the password right?")
}

/// The text of a signature over `content`. `what` is signed along and shown by minisign.
pub fn sign(key: &SecretKey, content: &[u8], what: &str) -> Result<String> {
    let public = PublicKey::from_secret_key(key)?;
    let signature = minisign::sign(Some(&public), key, Cursor::new(content), Some(what), Some(COMMENT))
        .context("the secret key is damaged: it makes signatures that its public half does not accept")?;
    Ok(signature.to_string())
}
