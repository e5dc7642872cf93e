//! Digests for the PCR banks of a TPM, made in software: a TPM hashes much slower than a processor.

use arrayvec::ArrayVec;
use sha1::Digest as _;
use uefi_raw::protocol::tcg::AlgorithmId;
use uefi_raw::protocol::tcg::v2::Tcg2HashAlgorithmBitmap;

/// Most banks that can be measured into at once: one for each [`Algorithm`].
pub const BANKS_MAX: usize = 4;
/// Longest digest in bytes.
pub const DIGEST_MAX: usize = 64;

/// A hash algorithm that the firmware computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// SHA-1: old logs and old tools know no other.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// All of them, in the order of their identifiers.
    pub const ALL: [Self; BANKS_MAX] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Its identifier, `TPM_ALG_ID` (TCG Algorithm Registry).
    pub fn id(self) -> u16 {
        match self {
            Self::Sha1 => AlgorithmId::SHA1.0,
            Self::Sha256 => AlgorithmId::SHA256.0,
            Self::Sha384 => AlgorithmId::SHA384.0,
            Self::Sha512 => AlgorithmId::SHA512.0,
        }
    }

    /// The algorithm with an identifier.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.id() == id)
    }

    /// Length of its digests in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// The bit for a `TPM_ALG_ID` in what EFI_TCG2_PROTOCOL says; none for an algorithm it has no bit for.
pub fn bitmap_of(id: u16) -> Tcg2HashAlgorithmBitmap {
    match AlgorithmId(id) {
        AlgorithmId::SHA1 => Tcg2HashAlgorithmBitmap::SHA1,
        AlgorithmId::SHA256 => Tcg2HashAlgorithmBitmap::SHA256,
        AlgorithmId::SHA384 => Tcg2HashAlgorithmBitmap::SHA384,
        AlgorithmId::SHA512 => Tcg2HashAlgorithmBitmap::SHA512,
        AlgorithmId::SM3_256 => Tcg2HashAlgorithmBitmap::SM3_256,
        _ => Tcg2HashAlgorithmBitmap::empty(),
    }
}

/// The algorithms of a set of banks.
pub type Banks = ArrayVec<Algorithm, BANKS_MAX>;

/// A digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest {
    /// What made it.
    pub algorithm: Algorithm,
    bytes: [u8; DIGEST_MAX],
}

impl Digest {
    /// A digest of zeros: what an event that is not extended has in the log.
    pub fn zero(algorithm: Algorithm) -> Self {
        Self { algorithm, bytes: [0; DIGEST_MAX] }
    }

    fn new(algorithm: Algorithm, from: &[u8]) -> Self {
        let mut digest = Self::zero(algorithm);
        digest.bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        digest
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.size()]
    }
}

/// One digest for each of some banks.
pub type Digests = ArrayVec<Digest, BANKS_MAX>;

/// Hashes for several banks at once.
#[derive(Clone, Debug)]
pub struct Hasher(ArrayVec<State, BANKS_MAX>);

#[derive(Clone, Debug)]
enum State {
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher for `banks`.
    pub fn new(banks: &[Algorithm]) -> Self {
        let state = |algorithm: &Algorithm| match algorithm {
            Algorithm::Sha1 => State::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => State::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        };
        Self(banks.iter().take(BANKS_MAX).map(state).collect())
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for state in &mut self.0 {
            match state {
                State::Sha1(hash) => hash.update(bytes),
                State::Sha256(hash) => hash.update(bytes),
                State::Sha384(hash) => hash.update(bytes),
                State::Sha512(hash) => hash.update(bytes),
            }
        }
    }

    /// The digests of what was taken.
    pub fn finish(self) -> Digests {
        let digest = |state| match state {
            State::Sha1(hash) => Digest::new(Algorithm::Sha1, &hash.finalize()),
            State::Sha256(hash) => Digest::new(Algorithm::Sha256, &hash.finalize()),
            State::Sha384(hash) => Digest::new(Algorithm::Sha384, &hash.finalize()),
            State::Sha512(hash) => Digest::new(Algorithm::Sha512, &hash.finalize()),
        };
        self.0.into_iter().map(digest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn hex(digest: &Digest) -> String {
        digest.bytes().iter().map(|byte| std::format!("{byte:02x}")).collect()
    }

    /// FIPS 180-4's example "abc".
    #[test]
    fn digests_are_those_of_the_standard() {
        let mut hasher = Hasher::new(&Algorithm::ALL);
        hasher.update(b"a");
        hasher.update(b"bc");
        let digests = hasher.finish();
        assert_eq!(hex(&digests[0]), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(&digests[1]), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(hex(&digests[2]).starts_with("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded163"));
        assert!(hex(&digests[3]).starts_with("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"));
        for digest in digests {
            assert_eq!(digest.bytes().len(), digest.algorithm.size());
            assert_eq!(Algorithm::from_id(digest.algorithm.id()), Some(digest.algorithm));
        }
    }
}
