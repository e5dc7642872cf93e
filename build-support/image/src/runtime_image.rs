//! The runtime services driver: a PE32+ that goes into the image as it is, once it has been found to be one.

use object::pe;
use object::read::pe::{ImageNtHeaders as _, ImageOptionalHeader as _, PeFile64};
use object::{LittleEndian as LE, pe::IMAGE_FILE_MACHINE_AMD64};
use thiserror::Error;

/// Why a file cannot serve as the runtime driver.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// Not a PE32+, or a damaged one.
    #[error("not a readable PE32+ file ({0}); build package `runtime` for x86_64-unknown-uefi")]
    Pe(object::read::Error),
    /// For another processor.
    #[error("Machine = {0:#06x}: must be 0x8664 (x86-64); build for target x86_64-unknown-uefi")]
    Machine(u16),
    /// An application or boot driver, whose memory would not outlive the boot services.
    #[error(
        "Subsystem = {0}: must be 12 (EFI runtime driver), or the OS gets its memory; \
         link with /subsystem:efi_runtime_driver"
    )]
    Subsystem(u16),
    /// No relocations, though the OS moves runtime code.
    #[error("Characteristics: relocations are stripped; the OS maps runtime code where it likes, so they must stay")]
    NoRelocations,
}

/// Checks that `data` is a runtime driver for x86-64.
pub fn check(data: &[u8]) -> Result<(), RuntimeError> {
    let pe = PeFile64::parse(data).map_err(RuntimeError::Pe)?;
    let headers = pe.nt_headers();
    let machine = headers.file_header().machine.get(LE);
    if machine != IMAGE_FILE_MACHINE_AMD64 {
        return Err(RuntimeError::Machine(machine));
    }
    let subsystem = headers.optional_header().subsystem();
    if subsystem != pe::IMAGE_SUBSYSTEM_EFI_RUNTIME_DRIVER {
        return Err(RuntimeError::Subsystem(subsystem));
    }
    if headers.file_header().characteristics.get(LE) & pe::IMAGE_FILE_RELOCS_STRIPPED != 0 {
        return Err(RuntimeError::NoRelocations);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{runtime_driver, runtime_driver_with};

    #[test]
    fn a_runtime_driver_is_accepted() {
        check(&runtime_driver()).unwrap();
    }

    #[test]
    fn an_application_is_refused() {
        assert!(check(&runtime_driver_with(0x8664, 10)).unwrap_err().to_string().contains("Subsystem = 10"));
    }

    #[test]
    fn another_machine_is_refused() {
        assert!(check(&runtime_driver_with(0xaa64, 12)).unwrap_err().to_string().contains("0xaa64"));
    }

    #[test]
    fn no_truncation_panics() {
        let whole = runtime_driver();
        for length in 0..whole.len() {
            let _ = check(&whole[..length]);
        }
    }
}
