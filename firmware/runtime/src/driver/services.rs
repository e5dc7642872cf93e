//! The variable services wherever the variables are: in this driver's memory, or with a daemon outside the guest.

use runtime::remote::Daemon;
use uefi_raw::Status;
use uefi_raw::table::runtime::VariableAttributes;
use variables::{Error, Info, Key, NextVariable, Variable};

use super::daemon::Pages;
use super::state::{InMemory, Region};

/// Who keeps the variables.
#[expect(clippy::large_enum_variant, reason = "there is one, in a static")]
pub enum Services {
    /// This driver, until the domain ends.
    Memory(InMemory),
    /// A daemon outside the guest.
    Daemon(Daemon<Pages>),
}

impl Services {
    /// The region that the core gave: the store, or the way to the daemon.
    pub fn region(&self) -> &Region {
        match self {
            Self::Memory(variables) => variables.non_volatile().backend(),
            Self::Daemon(daemon) => daemon.window().region(),
        }
    }

    /// Follows the region and what is in the image to other addresses.
    pub fn move_memory(&mut self, region_by: u64, image_by: u64) {
        match self {
            Self::Memory(variables) => {
                variables.non_volatile_mut().backend_mut().move_by(region_by);
                variables.volatile_mut().backend_mut().move_by(image_by);
            }
            Self::Daemon(daemon) => daemon.window_mut().move_by(region_by),
        }
    }

    /// From here on the operating system asks.
    pub const fn set_at_runtime(&mut self) {
        match self {
            Self::Memory(variables) => variables.set_at_runtime(),
            Self::Daemon(daemon) => daemon.set_at_runtime(),
        }
    }

    /// GetVariable.
    pub fn get(&mut self, key: Key<'_>) -> Result<Variable<'_>, Status> {
        match self {
            Self::Memory(variables) => variables.get(key).map_err(Error::status),
            Self::Daemon(daemon) => daemon.get(key),
        }
    }

    /// GetNextVariableName.
    pub fn next(&mut self, key: Key<'_>) -> Result<NextVariable<'_>, Status> {
        match self {
            Self::Memory(variables) => variables.next(key).map_err(Error::status),
            Self::Daemon(daemon) => daemon.next(key),
        }
    }

    /// SetVariable.
    pub fn set(&mut self, key: Key<'_>, attributes: VariableAttributes, data: &[u8]) -> Result<(), Status> {
        match self {
            Self::Memory(variables) => variables.set(key, attributes, data).map_err(Error::status),
            Self::Daemon(daemon) => daemon.set(key, attributes, data),
        }
    }

    /// QueryVariableInfo.
    pub fn query(&mut self, attributes: VariableAttributes) -> Result<Info, Status> {
        match self {
            Self::Memory(variables) => variables.query(attributes).map_err(Error::status),
            Self::Daemon(daemon) => daemon.query(attributes),
        }
    }

    /// Tells whoever keeps the variables that Secure Boot refused an image.
    pub fn notify_secure_boot_failure(&mut self) -> Result<(), Status> {
        match self {
            Self::Memory(_) => Err(Status::UNSUPPORTED),
            Self::Daemon(daemon) => daemon.notify_secure_boot_failure(),
        }
    }
}
