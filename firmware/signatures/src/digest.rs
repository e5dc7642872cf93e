//! Digests, and how signature algorithms name them.

use core::fmt;

use der::asn1::ObjectIdentifier;
use sha2::{Sha256, Sha384, Sha512};

use crate::error::Error;

/// Hands the content over piece by piece, each time it is called the same.
pub type Content<'c> = &'c dyn Fn(&mut dyn FnMut(&[u8]));

/// `rsaEncryption`: names no digest.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A digest algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The algorithm of that identifier (RFC 5754 §2).
    pub fn of_digest(identifier: ObjectIdentifier) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|algorithm| algorithm.identifiers().0 == identifier).ok_or(Error::Unsupported)
    }

    /// The digest algorithm in the identifier of an RSA signature algorithm (RFC 5754 §3.2); `default` where it names
    /// RSA only.
    pub fn of_signature(identifier: ObjectIdentifier, default: Option<Self>) -> Result<Self, Error> {
        if identifier == RSA {
            return default.ok_or(Error::Unsupported);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.identifiers().1 == identifier).ok_or(Error::Unsupported)
    }

    /// The digest of a content.
    pub fn digest(self, content: Content<'_>) -> Digest {
        match self {
            Self::Sha256 => digest::<Sha256>(content),
            Self::Sha384 => digest::<Sha384>(content),
            Self::Sha512 => digest::<Sha512>(content),
        }
    }

    const fn identifiers(self) -> (ObjectIdentifier, ObjectIdentifier) {
        let (digest, signature) = match self {
            Self::Sha256 => ("2.16.840.1.101.3.4.2.1", "1.2.840.113549.1.1.11"),
            Self::Sha384 => ("2.16.840.1.101.3.4.2.2", "1.2.840.113549.1.1.12"),
            Self::Sha512 => ("2.16.840.1.101.3.4.2.3", "1.2.840.113549.1.1.13"),
        };
        (ObjectIdentifier::new_unwrap(digest), ObjectIdentifier::new_unwrap(signature))
    }
}

/// A digest's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    bytes: [u8; 64],
    size: usize,
}

impl Digest {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

fn digest<H: sha2::Digest>(content: Content<'_>) -> Digest {
    let mut state = H::new();
    content(&mut |piece| state.update(piece));
    let mut digest = Digest { bytes: [0; 64], size: <H as sha2::Digest>::output_size() };
    digest.bytes[..digest.size].copy_from_slice(&state.finalize());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        let abc: Content<'_> = &|put| {
            put(b"a");
            put(b"bc");
        };
        for (algorithm, start) in [
            (Algorithm::Sha256, "ba7816bf8f01cfea"),
            (Algorithm::Sha384, "cb00753f45a35e8b"),
            (Algorithm::Sha512, "ddaf35a193617aba"),
        ] {
            assert!(format!("{:?}", algorithm.digest(abc)).starts_with(start), "{algorithm:?}");
        }
    }

    #[test]
    fn algorithms_are_known_by_their_identifiers() {
        let sha1 = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
        assert_eq!(Algorithm::of_digest(sha1), Err(Error::Unsupported));
        assert_eq!(Algorithm::of_signature(RSA, Some(Algorithm::Sha512)), Ok(Algorithm::Sha512));
        assert_eq!(Algorithm::of_signature(RSA, None), Err(Error::Unsupported));
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::of_digest(algorithm.identifiers().0), Ok(algorithm));
            assert_eq!(Algorithm::of_signature(algorithm.identifiers().1, None), Ok(algorithm));
        }
    }
}
