//! What the variables tell about Secure Boot (UEFI 2.10 §3.3, §32.3).

use uefi_raw::Guid;
use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};

use super::Variables;
use super::stores::Found;
use crate::authenticator::time_based::PLATFORM_KEY;
use crate::authenticator::{Authenticator, owners};
use crate::backend::Backend;
use crate::error::Error;
use crate::name::{Key, StoredName};
use crate::signature_list::{SHA256, X509};

const TOLD: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);
const GLOBAL: Guid = VariableVendor::GLOBAL_VARIABLE.0;
const SETUP_MODE: &[u16] = &[0x53, 0x65, 0x74, 0x75, 0x70, 0x4d, 0x6f, 0x64, 0x65];

impl<V: Backend, N: Backend, A: Authenticator> Variables<V, N, A> {
    /// Makes the variables that tell the state of Secure Boot. To be called once, when the stores have been opened.
    ///
    /// `enforced`: whether programs are verified before they start. Without a platform key they never are.
    ///
    /// The firmware knows setup mode and user mode: AuditMode and DeployedMode stay 0. It brings no keys, so VendorKeys
    /// is 0, and there is no PKDefault and its like.
    pub fn tell_secure_boot(&mut self, enforced: bool) -> Result<(), Error> {
        self.drop_lost_owners()?;
        let user_mode = self.stores.find(PLATFORM_KEY).is_some();
        for (name, value) in [
            ("SetupMode", !user_mode),
            ("SecureBoot", user_mode && enforced),
            ("AuditMode", false),
            ("DeployedMode", false),
            ("VendorKeys", false),
        ] {
            self.tell(name, &[u8::from(value)])?;
        }
        let mut kinds = [0; 2 * size_of::<Guid>()];
        for (place, kind) in kinds.as_chunks_mut().0.iter_mut().zip([X509, SHA256]) {
            *place = kind.to_bytes();
        }
        self.tell("SignatureSupport", &kinds)
    }

    /// Follows the platform key, if the state has been told before. SecureBoot stays until the next start.
    pub(super) fn tell_setup_mode(&mut self) -> Result<(), Error> {
        let key = Key::new(GLOBAL, SETUP_MODE);
        let setup_mode = self.stores.find(PLATFORM_KEY).is_none();
        match self.stores.find(key) {
            Some(Found::Volatile(_)) => self.set_by_firmware(key, TOLD, &[u8::from(setup_mode)]),
            _ => Ok(()),
        }
    }

    fn tell(&mut self, name: &str, value: &[u8]) -> Result<(), Error> {
        let mut units = [0; 16];
        let length = name.len().min(units.len());
        for (unit, character) in units.iter_mut().zip(name.bytes()) {
            *unit = u16::from(character);
        }
        self.set_by_firmware(Key::new(GLOBAL, &units[..length]), TOLD, value)
    }

    /// A start that was cut short between writing an owner and writing the variable leaves an owner of nothing.
    fn drop_lost_owners(&mut self) -> Result<(), Error> {
        let (database, meta) = owners::database(VariableAttributes::NON_VOLATILE);
        let Some(existing) = self.stores.find(database) else { return Ok(()) };
        let store = &self.stores.non_volatile;
        let exists = |vendor, name: &[u8]| {
            let is_it = |stored: &[u8]| {
                StoredName::new(stored).is_some_and(|stored| stored.as_bytes().strip_suffix(&[0, 0]) == Some(name))
            };
            store.variables().any(|record| record.vendor() == vendor && is_it(store.name(&record)))
        };
        let before = self.stores.data(&existing);
        let new = self.authenticator.scratch();
        let Ok(size) = owners::retain(before, exists, new) else { return Ok(()) };
        if size == before.len() {
            return Ok(());
        }
        self.stores.set(database, Some(existing), false, meta, new.get(..size).unwrap_or_default())
    }
}
