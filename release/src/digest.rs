//! Digests of files, in the forms that packagers paste.

use base64ct::{Base64, Encoding as _};
use blake2::Blake2b512;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// SHA-256 in lower-case hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A file's size and digests.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Digests {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256, hex.
    pub sha256: String,
    /// SHA-256 as subresource integrity, which Nix calls an SRI hash: `sha256-` and base64.
    pub sri: String,
    /// SHA-512, hex.
    pub sha512: String,
    /// BLAKE2b with 512 bits, hex.
    pub blake2b: String,
}

impl Digests {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let sha256 = Sha256::digest(bytes);
        Self {
            size: bytes.len() as u64,
            sha256: hex::encode(sha256),
            sri: sri(&sha256),
            sha512: hex::encode(Sha512::digest(bytes)),
            blake2b: hex::encode(Blake2b512::digest(bytes)),
        }
    }

    /// Names the first field that differs from `other`'s.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            ("size", self.size == other.size),
            ("SHA-256", self.sha256 == other.sha256),
            ("SRI hash", self.sri == other.sri),
            ("SHA-512", self.sha512 == other.sha512),
            ("BLAKE2b", self.blake2b == other.blake2b),
        ]
        .into_iter()
        .find_map(|(name, equal)| (!equal).then_some(name))
    }
}

/// The SRI hash of a SHA-256 in hex.
#[must_use]
pub fn sri_of_hex(sha256: &str) -> Option<String> {
    hex::decode(sha256).ok().map(|bytes| sri(&bytes))
}

fn sri(sha256: &[u8]) -> String {
    format!("sha256-{}", Base64::encode_string(sha256))
}

/// Whether this is `length` bytes in lower-case hex.
#[must_use]
pub fn is_hex(text: &str, length: usize) -> bool {
    text.len() == 2 * length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        let digests = Digests::of(b"abc");
        assert_eq!(digests.size, 3);
        assert_eq!(digests.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digests.sri, "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        assert!(digests.sha512.starts_with("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"));
        assert!(digests.blake2b.starts_with("ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b7"));
    }

    #[test]
    fn the_first_difference_is_named() {
        let digests = Digests::of(b"abc");
        assert_eq!(digests.difference(&digests), None);
        assert_eq!(digests.difference(&Digests::of(b"abd")), Some("SHA-256"));
        assert_eq!(digests.difference(&Digests { blake2b: String::new(), ..digests.clone() }), Some("BLAKE2b"));
    }
}
