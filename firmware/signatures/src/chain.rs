//! From the signer's certificate upwards.

use crate::certificate::Certificate;
use crate::error::Error;
use crate::signed_data::Certificates;

/// How many certificates a chain can have.
const LONGEST: usize = 8;

/// How many signatures of certificates are verified at most, so that many certificates of one name cost no time.
const MOST_STEPS: u32 = 32;

/// Whose signature it is: the key of this certificate has signed.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    certificate: Certificate<'a>,
    certificates: Certificates<'a>,
}

impl<'a> Signer<'a> {
    pub(crate) const fn new(certificate: Certificate<'a>, certificates: Certificates<'a>) -> Self {
        Self { certificate, certificates }
    }

    /// The signer's certificate.
    pub const fn certificate(&self) -> &Certificate<'a> {
        &self.certificate
    }

    /// Whether the signer's certificate is one of `trusted`, or has been issued by one of them, be it by way of the
    /// certificates that came with the signature. What is no certificate among `trusted` is passed over.
    pub fn leads_to<'t>(&self, trusted: impl Iterator<Item = &'t [u8]> + Clone) -> Result<(), Error> {
        let mut steps = MOST_STEPS;
        let mut current = self.certificate;
        for below in 0..LONGEST {
            if trusted.clone().any(|certificate| certificate == current.der()) {
                return Ok(());
            }
            for issuer in trusted.clone().filter_map(|certificate| Certificate::new(certificate).ok()) {
                if is_issued_by(&current, &issuer, below, &mut steps)? {
                    return Ok(());
                }
            }
            current = self.issuer(&current, below, &mut steps)?.ok_or(Error::Untrusted)?;
        }
        Err(Error::Excessive)
    }

    /// The topmost certificate of the chain, as far as the certificates that came with the signature go.
    pub fn top(&self) -> Result<Certificate<'a>, Error> {
        let mut steps = MOST_STEPS;
        let mut current = self.certificate;
        for below in 0..LONGEST {
            match self.issuer(&current, below, &mut steps)? {
                Some(issuer) => current = issuer,
                None => return Ok(current),
            }
        }
        Err(Error::Excessive)
    }

    /// The issuer of `current` among the certificates that came with the signature; `None` for one that issued itself.
    fn issuer(
        &self,
        current: &Certificate<'a>,
        below: usize,
        steps: &mut u32,
    ) -> Result<Option<Certificate<'a>>, Error> {
        if current.is_self_issued() {
            return Ok(None);
        }
        for issuer in self.certificates.iter() {
            if is_issued_by(current, &issuer, below, steps)? {
                return Ok(Some(issuer));
            }
        }
        Ok(None)
    }
}

fn is_issued_by(
    certificate: &Certificate<'_>,
    issuer: &Certificate<'_>,
    below: usize,
    steps: &mut u32,
) -> Result<bool, Error> {
    if !certificate.can_be_of(issuer, below) {
        return Ok(false);
    }
    *steps = steps.checked_sub(1).ok_or(Error::Excessive)?;
    Ok(certificate.is_signed_by(issuer).is_ok())
}
