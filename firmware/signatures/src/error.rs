//! Why a signature counts for nothing.

/// Why a signature counts for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Not DER, or not of the expected form.
    Malformed,
    /// More certificates, signers or steps than are looked at.
    Excessive,
    /// An algorithm, or a size of key, that is not known here.
    Unsupported,
    /// The signer's certificate is not among the certificates.
    NoSigner,
    /// The signature is not one of the signer's key over this content.
    BadSignature,
    /// The signer's certificate does not lead to a trusted one.
    Untrusted,
}

impl From<der::Error> for Error {
    fn from(_: der::Error) -> Self {
        Self::Malformed
    }
}
