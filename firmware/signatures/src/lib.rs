//! PKCS #7 signatures over X.509 certificates: who signed this, and does it lead to a key that is trusted?
//!
//! | module | what |
//! | --- | --- |
//! | [`signed_data`] | [`SignedData`] (RFC 2315, RFC 5652) with one signer |
//! | [`chain`] | [`Signer`]: from the signer's certificate to a trusted one, or to the topmost |
//! | [`certificate`] | [`Certificate`] (RFC 5280), as much of it as chains need |
//! | [`rsa`] | RSASSA-PKCS1-v1_5 (RFC 8017 §8.2.2), verification only |
//! | [`digest`] | SHA-256, SHA-384, SHA-512 |
//!
//! Nothing is allocated and nothing is copied: it runs in the runtime driver, where the operating system owns all
//! memory. All input is hostile: sizes and the number of RSA operations are bounded, and malformed input is an error.
//!
//! What is not looked at: validity dates (the clock is the guest's), revocation lists (dbx is the caller's), key usages
//! and other extensions than BasicConstraints.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod certificate;
pub mod chain;
pub mod digest;
mod elements;
pub mod error;
pub mod rsa;
pub mod signed_data;

pub use certificate::Certificate;
pub use chain::Signer;
pub use digest::{Algorithm, Digest};
pub use error::Error;
pub use signed_data::SignedData;
