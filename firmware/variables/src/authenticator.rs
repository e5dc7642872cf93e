//! The seam where authenticated writes are verified, and what verifies them.
//!
//! | module | what |
//! | --- | --- |
//! | [`time_based`] | [`TimeBased`]: the rules for PK, KEK, db, dbx and for everybody's own variables |
//! | [`descriptor`] | EFI_VARIABLE_AUTHENTICATION_2, in front of the data of each write |
//! | [`owners`] | who owns everybody's own variables: certdb |

pub mod descriptor;
pub mod owners;
pub mod time_based;

use uefi_raw::table::runtime::VariableAttributes;

use crate::error::Error;
use crate::name::Key;

pub use time_based::TimeBased;

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
    /// Of a private authenticated variable, who signed it: the only one who can write it from now on.
    pub owner: Option<owners::Owner>,
}

/// The variables, for those who decide about one of them.
pub trait Lookup {
    /// Content of a variable.
    fn lookup(&self, key: Key<'_>) -> Option<&[u8]>;
}

/// Decides about authenticated writes.
pub trait Authenticator {
    /// Verifies a write: the descriptor's form, its time stamp against the last one, its signature.
    ///
    /// # Errors
    /// [`Error::SecurityViolation`] if it does not verify, [`Error::Unsupported`] if there is no way to find out.
    fn verify<'a>(&mut self, write: &AuthenticatedWrite<'a>, variables: &dyn Lookup) -> Result<Verified<'a>, Error>;

    /// Room for new content of a variable that is made of old content.
    fn scratch(&mut self) -> &mut [u8];
}

/// No verifier: every authenticated write is refused as unsupported, in setup mode too. A variable that was
/// authenticated when it came into the store stays readable and cannot be changed.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoVerifier;

impl Authenticator for NoVerifier {
    fn verify<'a>(&mut self, _: &AuthenticatedWrite<'a>, _: &dyn Lookup) -> Result<Verified<'a>, Error> {
        Err(Error::Unsupported)
    }

    fn scratch(&mut self) -> &mut [u8] {
        &mut []
    }
}
