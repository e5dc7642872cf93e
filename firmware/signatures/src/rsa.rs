//! RSASSA-PKCS1-v1_5 (RFC 8017 §8.2.2), verification only.
//!
//! The encoded message is made from the digest and compared as a whole, so there is nothing in it to be parsed.
//! All values are public, so nothing here has to take the same time for all of them.

use crypto_bigint::modular::runtime_mod::{DynResidue, DynResidueParams};
use crypto_bigint::{U2048, U3072, U4096, Uint};
use der::Tag;
use der::asn1::{BitStringRef, ObjectIdentifier, UintRef};

use crate::digest::{Algorithm, Digest};
use crate::elements::Elements;
use crate::error::Error;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Bytes of the shortest modulus: UEFI asks for 2048 bits or more.
const SHORTEST: usize = 2048 / 8;
/// Bytes of moduli up to which the arithmetic is done with 3072 bits.
const MIDDLE: usize = 3072 / 8;
/// Bytes of the longest modulus.
const LONGEST: usize = 4096 / 8;
/// The exponents in use are 3 and 65537. The larger, the longer it takes.
const LARGEST_EXPONENT: u64 = 1 << 32;

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey<'a> {
    /// Big-endian, without leading zeros.
    modulus: &'a [u8],
    exponent: u64,
}

impl<'a> PublicKey<'a> {
    /// Reads a SubjectPublicKeyInfo's content (RFC 5280 §4.1.2.7, RFC 3279 §2.3.1).
    pub(crate) fn read(mut info: Elements<'a>) -> Result<Self, Error> {
        if info.algorithm()? != RSA {
            return Err(Error::Unsupported);
        }
        let bits: BitStringRef<'a> = info.decode()?;
        info.end()?;
        let mut key = Elements::of(bits.as_bytes().ok_or(Error::Malformed)?, Tag::Sequence)?;
        let (modulus, exponent): (UintRef<'a>, UintRef<'a>) = (key.decode()?, key.decode()?);
        key.end()?;
        Self::new(modulus.as_bytes(), exponent.as_bytes())
    }

    /// The key of a modulus and an exponent, both big-endian.
    pub fn new(modulus: &'a [u8], exponent: &[u8]) -> Result<Self, Error> {
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        if !is_odd(modulus) || !is_odd(exponent) || modulus.first() == Some(&0) || exponent.len() > 8 {
            return Err(Error::Unsupported);
        }
        let exponent = exponent.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        if !(SHORTEST..=LONGEST).contains(&modulus.len()) || !(3..LARGEST_EXPONENT).contains(&exponent) {
            return Err(Error::Unsupported);
        }
        Ok(Self { modulus, exponent })
    }

    /// Whether `signature` is one of this key over a digest.
    pub fn verify(&self, algorithm: Algorithm, digest: &Digest, signature: &[u8]) -> Result<(), Error> {
        if signature.len() != self.modulus.len() {
            return Err(Error::BadSignature);
        }
        let mut expected = [0; LONGEST];
        let (expected, _) = expected.split_at_mut(signature.len());
        encode(algorithm, digest, expected)?;
        let is_good = if signature.len() <= SHORTEST {
            self.leads_to::<{ U2048::LIMBS }>(signature, expected)
        } else if signature.len() <= MIDDLE {
            self.leads_to::<{ U3072::LIMBS }>(signature, expected)
        } else {
            self.leads_to::<{ U4096::LIMBS }>(signature, expected)
        };
        if is_good { Ok(()) } else { Err(Error::BadSignature) }
    }

    /// Whether `signature` to the power of the exponent is `expected`, by squaring and multiplying.
    fn leads_to<const LIMBS: usize>(&self, signature: &[u8], expected: &[u8]) -> bool {
        let modulus = number::<LIMBS>(self.modulus);
        let signature = number(signature);
        if signature >= modulus {
            return false;
        }
        let base = DynResidue::new(&signature, DynResidueParams::new(&modulus));
        let mut power = base;
        for bit in (0..self.exponent.ilog2()).rev() {
            power = power.square();
            if self.exponent >> bit & 1 == 1 {
                power = power.mul(&base);
            }
        }
        power.retrieve() == number(expected)
    }
}

/// A number from its big-endian bytes, of which there are at most as many as it has.
fn number<const LIMBS: usize>(bytes: &[u8]) -> Uint<LIMBS> {
    let mut words = [0; LIMBS];
    for (word, chunk) in words.iter_mut().zip(bytes.rchunks(size_of::<crypto_bigint::Word>())) {
        *word = chunk.iter().fold(0, |word, &byte| word << 8 | crypto_bigint::Word::from(byte));
    }
    Uint::from_words(words)
}

/// EMSA-PKCS1-v1_5 (RFC 8017 §9.2): 00 01 FF... 00, then the DER of a DigestInfo.
fn encode(algorithm: Algorithm, digest: &Digest, message: &mut [u8]) -> Result<(), Error> {
    let (prefix, digest) = (digest_info(algorithm), digest.as_bytes());
    let padding = message.len().checked_sub(prefix.len() + digest.len() + 3).ok_or(Error::Unsupported)?;
    message.fill(0xff);
    message[..2].copy_from_slice(&[0, 1]);
    message[padding + 2] = 0;
    let (_, info) = message.split_at_mut(padding + 3);
    info[..prefix.len()].copy_from_slice(&prefix);
    info[prefix.len()..].copy_from_slice(digest);
    Ok(())
}

/// DER of a DigestInfo up to the digest.
const fn digest_info(algorithm: Algorithm) -> [u8; 19] {
    let (last_arc, size) = match algorithm {
        Algorithm::Sha256 => (1, 32),
        Algorithm::Sha384 => (2, 48),
        Algorithm::Sha512 => (3, 64),
    };
    [
        0x30,
        17 + size,
        0x30,
        0x0d,
        0x06,
        0x09,
        0x60,
        0x86,
        0x48,
        0x01,
        0x65,
        0x03,
        0x04,
        0x02,
        last_arc,
        0x05,
        0x00,
        0x04,
        size,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        Algorithm::Sha256.digest(&|put| put(b"content"))
    }

    #[test]
    fn keys_that_are_too_short_too_long_or_too_slow_are_refused() {
        let mut modulus = [0xff; 600];
        fn key(modulus: &[u8], exponent: &[u8]) -> Result<u64, Error> {
            PublicKey::new(modulus, exponent).map(|key| key.exponent)
        }
        assert_eq!(key(&modulus[..256], &[1, 0, 1]), Ok(65537));
        assert_eq!(key(&modulus[..512], &[3]), Ok(3));
        for (size, exponent) in
            [(255, &[3][..]), (513, &[3]), (256, &[1]), (256, &[2]), (256, &[]), (256, &[0xff; 5]), (256, &[0xff; 9])]
        {
            assert_eq!(key(&modulus[..size], exponent), Err(Error::Unsupported), "{size} {exponent:?}");
        }
        modulus[255] = 0xfe;
        assert_eq!(key(&modulus[..256], &[3]), Err(Error::Unsupported));
        assert_eq!(key(&[], &[3]), Err(Error::Unsupported));
    }

    #[test]
    #[cfg_attr(miri, ignore = "big numbers take minutes")]
    fn any_odd_modulus_and_any_signature_are_computed_with() {
        for size in [256, 257, 384, 385, 511, 512] {
            for filler in [0, 0x55, 0xff] {
                let mut modulus = vec![filler; size];
                modulus[0] |= 1;
                modulus[size - 1] |= 1;
                let key = PublicKey::new(&modulus, &[1, 0, 1]).unwrap();
                for signature in [vec![0; size], vec![1; size], vec![0xff; size], modulus.clone(), vec![0; size - 1]] {
                    assert_eq!(key.verify(Algorithm::Sha256, &digest(), &signature), Err(Error::BadSignature));
                }
            }
        }
    }

    #[test]
    fn the_encoded_message_is_that_of_the_standard() {
        let mut message = [0; 256];
        encode(Algorithm::Sha256, &digest(), &mut message).unwrap();
        assert_eq!(message[..3], [0, 1, 0xff]);
        assert_eq!(message[256 - 52 - 1..256 - 32], [&[0xff, 0][..], &digest_info(Algorithm::Sha256)].concat());
        assert_eq!(&message[256 - 32..], digest().as_bytes());
        assert_eq!(encode(Algorithm::Sha256, &digest(), &mut [0; 53]), Err(Error::Unsupported));
    }
}
