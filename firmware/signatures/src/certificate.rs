//! X.509 certificates (RFC 5280), as much of them as chains need.

use der::asn1::{BitStringRef, ObjectIdentifier, OctetStringRef};
use der::{Tag, TagNumber};

use crate::digest::Algorithm;
use crate::elements::{Elements, context};
use crate::error::Error;
use crate::rsa::PublicKey;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");

/// A certificate. Names are compared by their DER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Certificate<'a> {
    der: &'a [u8],
    tbs: &'a [u8],
    serial: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    key: &'a [u8],
    authority: Option<Authority>,
    algorithm: ObjectIdentifier,
    signature: &'a [u8],
}

/// The right to issue certificates (RFC 5280 §4.2.1.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Authority {
    /// How many authorities there can be between this one and the last certificate of the chain.
    longest_path: Option<u8>,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate, which is all of `der`.
    pub fn new(der: &'a [u8]) -> Result<Self, Error> {
        let mut certificate = Elements::of(der, Tag::Sequence)?;
        let tbs = certificate.whole(Tag::Sequence)?;
        let algorithm = certificate.algorithm()?;
        let signature: BitStringRef<'a> = certificate.decode()?;
        certificate.end()?;

        let mut fields = Elements::of(tbs, Tag::Sequence)?;
        fields.optional(context(TagNumber::N0))?; // version
        let serial = fields.whole(Tag::Integer)?;
        if fields.algorithm()? != algorithm {
            return Err(Error::Malformed);
        }
        let issuer = fields.whole(Tag::Sequence)?;
        fields.value(Tag::Sequence)?; // validity
        let subject = fields.whole(Tag::Sequence)?;
        let key = fields.value(Tag::Sequence)?;
        let authority = authority(fields)?;
        let signature = signature.as_bytes().ok_or(Error::Malformed)?;
        Ok(Self { der, tbs, serial, issuer, subject, key, authority, algorithm, signature })
    }

    /// The certificate's DER.
    pub const fn der(&self) -> &'a [u8] {
        self.der
    }

    /// DER of the part that is signed.
    pub const fn tbs(&self) -> &'a [u8] {
        self.tbs
    }

    /// The public key, if it is one that is known here.
    pub fn key(&self) -> Result<PublicKey<'a>, Error> {
        PublicKey::read(Elements::new(self.key)?)
    }

    /// The first common name of the subject, as it is encoded; empty without one.
    pub fn common_name(&self) -> &'a [u8] {
        common_name(self.subject).ok().flatten().unwrap_or_default()
    }

    /// Whether these are DER of its issuer's name and of its serial number.
    pub(crate) fn is(&self, issuer: &[u8], serial: &[u8]) -> bool {
        self.issuer == issuer && self.serial == serial
    }

    /// Whether it names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Whether `issuer` can have issued this one by its name and its rights, with `below` authorities under it.
    pub(crate) fn can_be_of(&self, issuer: &Certificate<'_>, below: usize) -> bool {
        let may_issue =
            |authority: Authority| authority.longest_path.is_none_or(|longest| below <= usize::from(longest));
        self.issuer == issuer.subject && issuer.authority.is_some_and(may_issue)
    }

    /// Whether it is signed with the key of `issuer`.
    pub(crate) fn is_signed_by(&self, issuer: &Certificate<'_>) -> Result<(), Error> {
        let algorithm = Algorithm::of_signature(self.algorithm, None)?;
        let digest = algorithm.digest(&|put| put(self.tbs));
        issuer.key()?.verify(algorithm, &digest, self.signature)
    }
}

/// Reads what follows the key: identifiers and extensions.
fn authority(mut fields: Elements<'_>) -> Result<Option<Authority>, Error> {
    while !fields.is_empty() {
        if !fields.is_next(context(TagNumber::N3)) {
            fields.any()?;
            continue;
        }
        let mut extensions = Elements::of(fields.value(context(TagNumber::N3))?, Tag::Sequence)?;
        while !extensions.is_empty() {
            let mut extension = extensions.enter(Tag::Sequence)?;
            let identifier: ObjectIdentifier = extension.decode()?;
            extension.optional(Tag::Boolean)?; // critical
            let value: OctetStringRef<'_> = extension.decode()?;
            if identifier == BASIC_CONSTRAINTS {
                return basic_constraints(Elements::of(value.as_bytes(), Tag::Sequence)?);
            }
        }
    }
    Ok(None)
}

fn basic_constraints(mut constraints: Elements<'_>) -> Result<Option<Authority>, Error> {
    let is_authority = constraints.is_next(Tag::Boolean) && constraints.decode()?;
    let longest_path = if constraints.is_next(Tag::Integer) { Some(constraints.decode()?) } else { None };
    Ok(is_authority.then_some(Authority { longest_path }))
}

fn common_name(name: &[u8]) -> Result<Option<&[u8]>, Error> {
    let mut parts = Elements::of(name, Tag::Sequence)?;
    while !parts.is_empty() {
        let mut part = parts.enter(Tag::Set)?;
        while !part.is_empty() {
            let mut attribute = part.enter(Tag::Sequence)?;
            if attribute.decode::<ObjectIdentifier>()? == COMMON_NAME {
                return Ok(Some(attribute.any()?.value()));
            }
        }
    }
    Ok(None)
}
