//! Variables as the boot manager uses them (UEFI 2.10 §3.3, §8.2).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use services::Status;
use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};
use uefi_raw::{Guid, guid};

use crate::load_option::{LoadOption, LoadOptionError};

/// `EFI_GLOBAL_VARIABLE` (UEFI 2.10 §3.3).
pub const GLOBAL: Guid = VariableVendor::GLOBAL_VARIABLE.0;
/// Vendor of the signature databases (UEFI 2.10 §32.4.1).
pub const SECURITY_DATABASE: Guid = VariableVendor::IMAGE_SECURITY_DATABASE.0;
/// Vendor of what the boot manager remembers for itself.
pub const OURS: Guid = guid!("d3b4f2a6-6a0c-4a7e-9d0b-5b7a6a0c51f4");
/// Attributes of what tells the operating system something for one start.
pub const VOLATILE: VariableAttributes =
    VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);
/// Attributes of settings.
pub const KEPT: VariableAttributes = VOLATILE.union(VariableAttributes::NON_VOLATILE);

/// The variable services.
pub trait Variables {
    /// GetVariable.
    fn get(&self, vendor: &Guid, name: &str) -> Option<Vec<u8>>;
    /// SetVariable; without data it is deleted.
    ///
    /// # Errors
    /// The service's.
    fn set(&mut self, vendor: &Guid, name: &str, attributes: VariableAttributes, data: &[u8]) -> Result<(), Status>;
}

/// Writes a setting, where it is not so already. What cannot be written is logged: a start goes on without.
pub fn keep(variables: &mut (impl Variables + ?Sized), vendor: &Guid, name: &str, data: &[u8]) -> Result<(), Status> {
    if variables.get(vendor, name).unwrap_or_default() == data {
        return Ok(());
    }
    let written = variables.set(vendor, name, KEPT, data);
    if let Err(status) = written {
        log::warn!("{name} cannot be written: {status}");
    }
    written
}

/// A variable that is a list of numbers; none where it is missing.
pub fn numbers(variables: &(impl Variables + ?Sized), vendor: &Guid, name: &str) -> Vec<u16> {
    let list = variables.get(vendor, name).unwrap_or_default();
    list.chunks_exact(2).map(|number| u16::from_le_bytes([number[0], number[1]])).collect()
}

/// Numbers as a variable holds them.
pub fn bytes_of(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A kind of load options: numbered variables, and one that tells their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    prefix: &'static str,
    order: &'static str,
}

/// Programs to boot.
pub const BOOT: Options = Options { prefix: "Boot", order: "BootOrder" };
/// Drivers to start before.
pub const DRIVER: Options = Options { prefix: "Driver", order: "DriverOrder" };
/// Programs to start before anything is booted.
pub const SYSTEM_PREPARATION: Options = Options { prefix: "SysPrep", order: "SysPrepOrder" };

impl Options {
    /// Name of an option's variable.
    pub fn name(self, number: u16) -> String {
        format!("{}{number:04X}", self.prefix)
    }

    /// The numbers, in order.
    pub fn order(self, variables: &(impl Variables + ?Sized)) -> Vec<u16> {
        numbers(variables, &GLOBAL, self.order)
    }

    /// Changes the order.
    ///
    /// # Errors
    /// That of SetVariable.
    pub fn set_order(self, variables: &mut (impl Variables + ?Sized), order: &[u16]) -> Result<(), Status> {
        keep(variables, &GLOBAL, self.order, &bytes_of(order))
    }

    /// Reads an option; `None` if there is none of this number.
    pub fn read(
        self,
        variables: &(impl Variables + ?Sized),
        number: u16,
    ) -> Option<Result<LoadOption, LoadOptionError>> {
        variables.get(&GLOBAL, &self.name(number)).map(|content| LoadOption::parse(&content))
    }

    /// Writes an option.
    ///
    /// # Errors
    /// That of SetVariable.
    pub fn write(
        self,
        variables: &mut (impl Variables + ?Sized),
        number: u16,
        option: &LoadOption,
    ) -> Result<(), Status> {
        keep(variables, &GLOBAL, &self.name(number), &option.to_bytes())
    }

    /// Deletes an option, and takes it out of the order.
    ///
    /// # Errors
    /// That of SetVariable.
    pub fn delete(self, variables: &mut (impl Variables + ?Sized), number: u16) -> Result<(), Status> {
        let mut order = self.order(variables);
        order.retain(|other| *other != number);
        self.set_order(variables, &order)?;
        keep(variables, &GLOBAL, &self.name(number), &[])
    }

    /// The lowest number that no option has.
    pub fn free_number(self, variables: &(impl Variables + ?Sized)) -> Option<u16> {
        (0..=u16::MAX).find(|number| variables.get(&GLOBAL, &self.name(*number)).is_none())
    }
}
