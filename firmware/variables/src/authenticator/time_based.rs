//! Whose signature an authenticated write needs (UEFI 2.10 §8.2.6, §32.3).
//!
//! | variable | signed by |
//! | --- | --- |
//! | PK, KEK | the platform key |
//! | db, dbx, dbt, dbr, devdb | the platform key, or a key exchange key |
//! | OsRecoveryOrder, OsRecovery#### | one of these, or a key of dbr |
//! | any other | whoever signed it when it was made |
//!
//! "Signed by" a certificate includes those it has issued. In setup mode, while there is no platform key, the first
//! three need no signature, PK itself included: §8.2.6 asks for none there, and whoever can write PK unsigned could sign it
//! with a key made for that. The descriptor is needed all the same; its SignedData may be empty.

use signatures::{Algorithm, Certificate, SignedData, Signer, signed_data};
use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};

use super::descriptor::{Descriptor, is_later};
use super::owners::{self, Owner};
use super::{AuthenticatedWrite, Authenticator, Lookup, Verified};
use crate::error::Error;
use crate::global;
use crate::name::Key;
use crate::service::Limits;
use crate::signature_list::{SignatureLists, X509};

/// PK.
pub const PLATFORM_KEY: Key<'static> = Key::new(VariableVendor::GLOBAL_VARIABLE.0, &[0x50, 0x4b]);
/// KEK.
pub const KEY_EXCHANGE_KEYS: Key<'static> = Key::new(VariableVendor::GLOBAL_VARIABLE.0, &[0x4b, 0x45, 0x4b]);
/// dbr.
const RECOVERY_KEYS: Key<'static> = Key::new(VariableVendor::IMAGE_SECURITY_DATABASE.0, &[0x64, 0x62, 0x72]);

/// Verifies time-based authenticated writes.
#[derive(Debug)]
pub struct TimeBased {
    scratch: [u8; Limits::DEFAULT.non_volatile],
}

impl TimeBased {
    /// A verifier.
    pub const fn new() -> Self {
        Self { scratch: [0; Limits::DEFAULT.non_volatile] }
    }
}

impl Default for TimeBased {
    fn default() -> Self {
        Self::new()
    }
}

/// Who decides about a variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Authority {
    PlatformKey,
    KeyExchangeKeys,
    RecoveryKeys,
    Owner,
}

impl Authenticator for TimeBased {
    fn verify<'a>(&mut self, write: &AuthenticatedWrite<'a>, variables: &dyn Lookup) -> Result<Verified<'a>, Error> {
        let descriptor = Descriptor::new(write.payload).ok_or(Error::SecurityViolation)?;
        let time_stamp = time_stamp(write, &descriptor)?;
        let authority = authority(write.key);
        let is_setup_mode = variables.lookup(PLATFORM_KEY).is_none();
        let owner = if authority != Authority::Owner && is_setup_mode {
            None
        } else {
            let signer = verify_signature(write, &descriptor).map_err(|_| Error::SecurityViolation)?;
            check_signer(authority, write, &signer, variables)?
        };
        check_content(write, descriptor.content)?;
        Ok(Verified { time_stamp, content: descriptor.content, owner })
    }

    fn scratch(&mut self) -> &mut [u8] {
        &mut self.scratch
    }
}

fn authority(key: Key<'_>) -> Authority {
    if key == PLATFORM_KEY || key == KEY_EXCHANGE_KEYS {
        Authority::PlatformKey
    } else if key.vendor == VariableVendor::IMAGE_SECURITY_DATABASE.0 {
        Authority::KeyExchangeKeys
    } else if global::is_os_recovery(key) {
        Authority::RecoveryKeys
    } else {
        Authority::Owner
    }
}

/// The time stamp that the variable gets. Appending needs no later one, and does not set the clock back.
fn time_stamp(write: &AuthenticatedWrite<'_>, descriptor: &Descriptor<'_>) -> Result<[u8; 16], Error> {
    match write.last_time_stamp {
        Some(last) if !is_later(&descriptor.time_stamp, &last) => {
            let appends = write.attributes.contains(VariableAttributes::APPEND_WRITE);
            if appends { Ok(last) } else { Err(Error::SecurityViolation) }
        }
        _ => Ok(descriptor.time_stamp),
    }
}

/// Verifies the signature over name, vendor, attributes, time stamp and content.
fn verify_signature<'a>(
    write: &AuthenticatedWrite<'_>,
    descriptor: &Descriptor<'a>,
) -> Result<Signer<'a>, signatures::Error> {
    let signed = SignedData::new(descriptor.signed_data)?;
    if signed.content_type() != signed_data::DATA || signed.content().is_some() {
        return Err(signatures::Error::Malformed);
    }
    signed.verify(&|put| {
        for unit in write.key.name {
            put(&unit.to_le_bytes());
        }
        put(&write.key.vendor.to_bytes());
        put(&write.attributes.bits().to_le_bytes());
        put(&descriptor.time_stamp);
        put(descriptor.content);
    })
}

/// Whether the signer may write the variable. Returns the owner of a private variable.
fn check_signer(
    authority: Authority,
    write: &AuthenticatedWrite<'_>,
    signer: &Signer<'_>,
    variables: &dyn Lookup,
) -> Result<Option<Owner>, Error> {
    let databases: &[Key<'_>] = match authority {
        Authority::PlatformKey => &[PLATFORM_KEY],
        Authority::KeyExchangeKeys => &[PLATFORM_KEY, KEY_EXCHANGE_KEYS],
        Authority::RecoveryKeys => &[PLATFORM_KEY, KEY_EXCHANGE_KEYS, RECOVERY_KEYS],
        Authority::Owner => return check_owner(write, signer, variables).map(Some),
    };
    let lists = databases.iter().filter_map(|&key| SignatureLists::new(variables.lookup(key)?));
    let trusted = lists.flat_map(|lists| lists.certificates());
    signer.leads_to(trusted).map_err(|_| Error::SecurityViolation)?;
    Ok(None)
}

/// Whether the signer is the owner, which it becomes by making the variable.
fn check_owner(write: &AuthenticatedWrite<'_>, signer: &Signer<'_>, variables: &dyn Lookup) -> Result<Owner, Error> {
    let top = signer.top().map_err(|_| Error::SecurityViolation)?;
    let digest = Algorithm::Sha256.digest(&|put| {
        put(signer.certificate().common_name());
        put(top.tbs());
    });
    let owner = Owner::try_from(digest.as_bytes()).map_err(|_| Error::SecurityViolation)?;
    if write.last_time_stamp.is_none() {
        return Ok(owner);
    }
    let (database, _) = owners::database(write.attributes);
    let recorded = variables.lookup(database).and_then(|database| owners::find(database, write.key));
    if recorded == Some(&owner) { Ok(owner) } else { Err(Error::SecurityViolation) }
}

/// Keys and signature databases hold signature lists, and PK holds one key, one that a later write can be verified with:
/// any other could not be replaced.
fn check_content(write: &AuthenticatedWrite<'_>, content: &[u8]) -> Result<(), Error> {
    if content.is_empty() || !global::has_signature_lists(write.key) {
        return Ok(());
    }
    let lists = SignatureLists::new(content).ok_or(Error::NotGlobal)?;
    if write.key != PLATFORM_KEY {
        return Ok(());
    }
    let mut signatures = lists.signatures();
    let key = signatures.next().filter(|signature| signature.kind == X509).ok_or(Error::NotGlobal)?;
    let is_only_one = signatures.next().is_none() && !write.attributes.contains(VariableAttributes::APPEND_WRITE);
    let is_usable = Certificate::new(key.data).and_then(|certificate| certificate.key()).is_ok();
    if is_only_one && is_usable { Ok(()) } else { Err(Error::NotGlobal) }
}
