//! PKCS #7 SignedData (RFC 2315 §9, RFC 5652 §5) with exactly one signer.

use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Tag, TagNumber};

use crate::certificate::Certificate;
use crate::chain::Signer;
use crate::digest::{Algorithm, Content, Digest};
use crate::elements::{Elements, context};
use crate::error::Error;

/// `id-data`: content that has no structure.
pub const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");

/// How many certificates a signature can bring.
const MOST_CERTIFICATES: usize = 16;

/// A signature and the certificates that come with it.
#[derive(Clone, Copy, Debug)]
pub struct SignedData<'a> {
    content_type: ObjectIdentifier,
    content: Option<&'a [u8]>,
    certificates: Certificates<'a>,
    signer: SignerInfo<'a>,
}

#[derive(Clone, Copy, Debug)]
struct SignerInfo<'a> {
    issuer: &'a [u8],
    serial: &'a [u8],
    algorithm: Algorithm,
    /// DER of `[0] IMPLICIT SET OF Attribute`.
    attributes: Option<&'a [u8]>,
    signature: &'a [u8],
}

/// The certificates that came with a signature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Certificates<'a>(&'a [u8]);

impl<'a> SignedData<'a> {
    /// Reads SignedData, with a ContentInfo around it or without, which is all of `der`.
    pub fn new(der: &'a [u8]) -> Result<Self, Error> {
        let mut outer = Elements::of(der, Tag::Sequence)?;
        if !outer.is_next(Tag::ObjectIdentifier) {
            return Self::read(outer);
        }
        if outer.decode::<ObjectIdentifier>()? != SIGNED_DATA {
            return Err(Error::Malformed);
        }
        let content = outer.value(context(TagNumber::N0))?;
        outer.end()?;
        Self::read(Elements::of(content, Tag::Sequence)?)
    }

    fn read(mut fields: Elements<'a>) -> Result<Self, Error> {
        fields.value(Tag::Integer)?; // version
        fields.value(Tag::Set)?; // digest algorithms: the signer names its own
        let mut content_info = fields.enter(Tag::Sequence)?;
        let content_type = content_info.decode()?;
        let content = content_info.optional(context(TagNumber::N0))?;
        content_info.end()?;
        let certificates = Certificates(fields.optional(context(TagNumber::N0))?.unwrap_or_default());
        certificates.check()?;
        fields.optional(context(TagNumber::N1))?; // revocation lists
        let mut signers = fields.enter(Tag::Set)?;
        fields.end()?;
        let signer = SignerInfo::read(signers.enter(Tag::Sequence)?)?;
        if !signers.is_empty() {
            return Err(Error::Excessive);
        }
        Ok(Self { content_type, content, certificates, signer })
    }

    /// Type of the content: [`DATA`], or a structure.
    pub const fn content_type(&self) -> ObjectIdentifier {
        self.content_type
    }

    /// DER of the content, if it is included.
    pub const fn content(&self) -> Option<&'a [u8]> {
        self.content
    }

    /// The digest algorithm of the signature.
    pub const fn algorithm(&self) -> Algorithm {
        self.signer.algorithm
    }

    /// Verifies the signature over `content`: the bytes to which the content type refers, which are not those of
    /// [`Self::content`] but its value.
    pub fn verify(&self, content: Content<'_>) -> Result<Signer<'a>, Error> {
        let SignerInfo { issuer, serial, algorithm, attributes, signature } = self.signer;
        let mut certificates = self.certificates.iter();
        let certificate = certificates.find(|certificate| certificate.is(issuer, serial)).ok_or(Error::NoSigner)?;
        let mut digest = algorithm.digest(content);
        if let Some(attributes) = attributes {
            self.check_attributes(attributes, &digest)?;
            // What is signed is the DER of the attributes as a SET (RFC 5652 §5.4).
            digest = algorithm.digest(&|put| {
                put(&[u8::from(Tag::Set)]);
                put(attributes.get(1..).unwrap_or_default());
            });
        }
        certificate.key()?.verify(algorithm, &digest, signature)?;
        Ok(Signer::new(certificate, self.certificates))
    }

    /// Both attributes have to be there, once, with what they have to say.
    fn check_attributes(&self, attributes: &'a [u8], digest: &Digest) -> Result<(), Error> {
        let mut attributes = Elements::of(attributes, context(TagNumber::N0))?;
        let (mut types, mut digests) = (0, 0);
        while !attributes.is_empty() {
            let mut attribute = attributes.enter(Tag::Sequence)?;
            let name: ObjectIdentifier = attribute.decode()?;
            let mut values = attribute.enter(Tag::Set)?;
            attribute.end()?;
            if name == CONTENT_TYPE {
                types += usize::from(values.decode::<ObjectIdentifier>()? == self.content_type && values.is_empty());
            } else if name == MESSAGE_DIGEST {
                let value: OctetStringRef<'_> = values.decode()?;
                digests += usize::from(value.as_bytes() == digest.as_bytes() && values.is_empty());
            }
        }
        if (types, digests) == (1, 1) { Ok(()) } else { Err(Error::BadSignature) }
    }
}

impl<'a> SignerInfo<'a> {
    fn read(mut fields: Elements<'a>) -> Result<Self, Error> {
        fields.value(Tag::Integer)?; // version
        let mut name = fields.enter(Tag::Sequence)?;
        let (issuer, serial) = (name.whole(Tag::Sequence)?, name.whole(Tag::Integer)?);
        name.end()?;
        let algorithm = Algorithm::of_digest(fields.algorithm()?)?;
        let attributes = context(TagNumber::N0);
        let attributes = if fields.is_next(attributes) { Some(fields.whole(attributes)?) } else { None };
        if Algorithm::of_signature(fields.algorithm()?, Some(algorithm))? != algorithm {
            return Err(Error::Malformed);
        }
        let signature: OctetStringRef<'a> = fields.decode()?;
        fields.optional(context(TagNumber::N1))?; // attributes that are not signed
        fields.end()?;
        Ok(Self { issuer, serial, algorithm, attributes, signature: signature.as_bytes() })
    }
}

impl<'a> Certificates<'a> {
    fn check(&self) -> Result<(), Error> {
        let mut elements = Elements::new(self.0)?;
        for _ in 0..MOST_CERTIFICATES {
            if elements.is_empty() {
                return Ok(());
            }
            elements.any()?;
        }
        if elements.is_empty() { Ok(()) } else { Err(Error::Excessive) }
    }

    /// Those that can be read; the others cannot be part of a chain.
    pub fn iter(&self) -> impl Iterator<Item = Certificate<'a>> + use<'a> {
        let mut elements = Elements::new(self.0).ok();
        core::iter::from_fn(move || {
            let elements = elements.as_mut()?;
            while !elements.is_empty() {
                if !elements.is_next(Tag::Sequence) {
                    elements.any().ok()?;
                } else if let Ok(certificate) = Certificate::new(elements.whole(Tag::Sequence).ok()?) {
                    return Some(certificate);
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element of DER; longer lengths than 65535 are not needed.
    fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let value = parts.concat();
        let length = (value.len() as u16).to_be_bytes();
        let header = match length {
            [0, low @ ..=0x7f] => vec![tag, low],
            [0, low] => vec![tag, 0x81, low],
            [high, low] => vec![tag, 0x82, high, low],
        };
        [header, value].concat()
    }

    fn identifier(name: &str) -> Vec<u8> {
        element(6, &[ObjectIdentifier::new_unwrap(name).as_bytes()])
    }

    fn algorithm(name: &str) -> Vec<u8> {
        element(0x30, &[&identifier(name), &[5, 0]])
    }

    fn signer() -> Vec<u8> {
        let name = element(0x30, &[&element(0x30, &[]), &[2, 1, 1]]);
        let (digest, rsa) = (algorithm("2.16.840.1.101.3.4.2.1"), algorithm("1.2.840.113549.1.1.1"));
        element(0x30, &[&[2, 1, 1], &name, &digest, &rsa, &element(4, &[&[1; 256]])])
    }

    fn signed(certificates: &[u8], signers: &[Vec<u8>]) -> Vec<u8> {
        let content = element(0x30, &[&identifier("1.2.840.113549.1.7.1")]);
        let signers = element(0x31, &[&signers.concat()]);
        element(0x30, &[&[2, 1, 1], &element(0x31, &[]), &content, &element(0xa0, &[certificates]), &signers])
    }

    #[test]
    fn one_signer_and_a_bounded_number_of_certificates_are_read() {
        let certificate = element(0x30, &[]);
        for (certificates, signers, expected) in [
            (0, 1, None),
            (16, 1, None),
            (17, 1, Some(Error::Excessive)),
            (0, 0, Some(Error::Malformed)),
            (0, 2, Some(Error::Excessive)),
        ] {
            let bare = signed(&certificate.repeat(certificates), &vec![signer(); signers]);
            let whole = element(0x30, &[&identifier("1.2.840.113549.1.7.2"), &element(0xa0, &[&bare])]);
            for der in [&bare, &whole] {
                assert_eq!(SignedData::new(der).err(), expected, "{certificates} {signers}");
            }
            assert_eq!(SignedData::new(&[&whole[..], &[0]].concat()).err(), Some(Error::Malformed));
        }
    }

    #[test]
    fn a_signer_without_a_certificate_is_told() {
        let der = signed(&element(0x30, &[]), &[signer()]);
        let signed = SignedData::new(&der).unwrap();
        assert_eq!((signed.content_type(), signed.content(), signed.algorithm()), (DATA, None, Algorithm::Sha256));
        assert_eq!(signed.verify(&|put| put(b"content")).err(), Some(Error::NoSigner));
    }

    #[test]
    fn damaged_data_are_refused_without_a_panic() {
        let good = signed(&element(0x30, &[&[0xff; 40]]), &[signer()]);
        for end in 0..good.len() {
            assert_eq!(SignedData::new(&good[..end]).err(), Some(Error::Malformed), "{end}");
        }
        let last = if cfg!(miri) { 40 } else { good.len() };
        for at in 0..last {
            for value in [0, 1, 0x30, 0x31, 0x80, 0x82, 0x84, 0x88, 0xa0, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                if let Ok(signed) = SignedData::new(&bad) {
                    assert!(signed.verify(&|put| put(b"content")).is_err());
                }
            }
        }
    }
}
