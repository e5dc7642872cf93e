//! What can be wrong with a request, and the status UEFI has for it.

use uefi_raw::Status;

use crate::store::StoreError;

/// Why a variable service failed. Section numbers are UEFI 2.10's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No such variable, or none that can be seen now (§8.2).
    NotFound,
    /// The name is empty, or is not the name of a variable where one is asked for (GetNextVariableName).
    InvalidName,
    /// Reserved attribute bits, or a combination that cannot be.
    InvalidAttributes,
    /// The variable exists with other attributes, or cannot be seen now.
    AttributesDiffer,
    /// The name of a globally defined variable (§3.3) with attributes, a size or content that it cannot have, or a name
    /// that is not defined in a vendor name space that UEFI keeps to itself.
    NotGlobal,
    /// Larger than [`crate::Limits`] allows.
    TooLarge,
    /// The store is full, deleted variables not counted.
    Full,
    /// Only the firmware writes this variable, or it is volatile and the operating system runs, or it was written with
    /// authentication and this write has none.
    ReadOnly,
    /// An attribute this firmware does not implement, or an authenticated write without a verifier.
    Unsupported,
    /// An authenticated write that does not verify.
    SecurityViolation,
    /// The store's backend failed.
    Device,
}

impl Error {
    /// The status of the service (§8.2.1 to §8.2.4).
    pub const fn status(self) -> Status {
        match self {
            Self::NotFound => Status::NOT_FOUND,
            Self::InvalidName | Self::InvalidAttributes | Self::AttributesDiffer | Self::NotGlobal | Self::TooLarge => {
                Status::INVALID_PARAMETER
            }
            Self::Full => Status::OUT_OF_RESOURCES,
            Self::ReadOnly => Status::WRITE_PROTECTED,
            Self::Unsupported => Status::UNSUPPORTED,
            Self::SecurityViolation => Status::SECURITY_VIOLATION,
            Self::Device => Status::DEVICE_ERROR,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            StoreError::Backend => Self::Device,
        }
    }
}
