//! The seam where authenticated writes are verified.

use uefi_raw::table::runtime::VariableAttributes;

use crate::error::Error;
use crate::name::Key;

/// An authenticated SetVariable (TIME_BASED_AUTHENTICATED_WRITE_ACCESS).
#[derive(Clone, Copy, Debug)]
pub struct AuthenticatedWrite<'a> {
    /// The variable.
    pub key: Key<'a>,
    /// Attributes as given.
    pub attributes: VariableAttributes,
    /// Data as given: an EFI_VARIABLE_AUTHENTICATION_2 and the new content.
    pub payload: &'a [u8],
    /// Bytes of the EFI_TIME of the last authenticated write, if the variable exists.
    pub last_time_stamp: Option<[u8; 16]>,
}

/// What is left of an authenticated write once it is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified<'a> {
    /// Bytes of the EFI_TIME to store with the variable.
    pub time_stamp: [u8; 16],
    /// The new content; empty deletes, or changes only the time stamp of an append.
    pub content: &'a [u8],
}

/// Decides about authenticated writes, and owns the variables that tell how it decides.
pub trait Authenticator {
    /// Verifies a write: the descriptor's form, its time stamp against the last one, its signature.
    ///
    /// # Errors
    /// [`Error::SecurityViolation`] if it does not verify, [`Error::Unsupported`] if there is no way to find out.
    fn verify<'a>(&mut self, write: &AuthenticatedWrite<'a>) -> Result<Verified<'a>, Error>;

    /// Whether the variable is one that the firmware derives from its own state (SecureBoot, SetupMode and so on), so
    /// that nobody else can write it.
    fn is_read_only(&self, key: Key<'_>) -> bool;
}

/// No verifier: every authenticated write is refused as unsupported, in setup mode too. A variable that was
/// authenticated when it came into the store stays readable and cannot be changed.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoVerifier;

impl Authenticator for NoVerifier {
    fn verify<'a>(&mut self, _: &AuthenticatedWrite<'a>) -> Result<Verified<'a>, Error> {
        Err(Error::Unsupported)
    }

    fn is_read_only(&self, key: Key<'_>) -> bool {
        crate::global::is_derived(key)
    }
}
