//! Measured boot for our own code. All of it is free of cost where no TPM was installed.

use alloc::boxed::Box;

use uefi_raw::Guid;

use crate::Result;
use crate::abi::{CORE, measure};
use crate::tcg2::Transport;

pub use crate::abi::measure::FirmwarePart;
pub use crate::abi::tcg2::LogArea;

/// Makes the TPM behind `transport` ready, installs EFI_TCG2_PROTOCOL, and has every image measured that is loaded from a device
/// from now on, boot options and ExitBootServices. Returns where the event log is, for the ACPI table TPM2.
///
/// # Errors
/// `DEVICE_ERROR` if the TPM does not work; `OUT_OF_RESOURCES`.
pub fn install_tpm(transport: Box<dyn Transport>) -> Result<LogArea> {
    measure::install(&CORE, transport)
}

/// Measures the firmware itself into PCR 0: its version, and its parts as they were loaded.
pub fn measure_firmware(version: &str, parts: &[FirmwarePart<'_>]) {
    measure::firmware(&CORE, version, parts);
}

/// Measures the Secure Boot variables into PCR 7. The runtime driver has to run.
pub fn measure_secure_boot_variables() {
    measure::secure_boot_variables(&CORE);
}

/// Measures which entry (EFI_SIGNATURE_DATA) of which variable let a program pass Secure Boot into PCR 7.
pub fn measure_authority(variable: &str, vendor: &Guid, signature_data: &[u8]) {
    measure::authority(&CORE, variable, vendor, signature_data);
}

/// Asks shim's fallback.efi not to reset the machine, where variables end with the guest: it would for ever. The runtime driver
/// has to run.
pub fn keep_fallback_from_resetting() {
    measure::keep_fallback_from_resetting(&CORE);
}
