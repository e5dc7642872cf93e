//! The UEFI Shell: a UEFI application that goes into the image as it is, once it has been found to be one.

use object::LittleEndian as LE;
use object::pe;
use object::read::pe::{ImageNtHeaders as _, ImageOptionalHeader as _, PeFile64};
use thiserror::Error;

/// Why a file cannot be the image's shell.
#[derive(Debug, Error)]
pub enum ShellError {
    /// Not a PE32+, or a damaged one.
    #[error(
        "not a readable PE32+ file ({0}); take a UEFI Shell for x86-64, as shellx64.efi of edk2 or Debian's efi-shell-x64"
    )]
    Pe(object::read::Error),
    /// For another processor.
    #[error("Machine = {0:#06x}: must be 0x8664 (x86-64); take the shell for x86-64")]
    Machine(u16),
    /// A driver, or no EFI program at all.
    #[error("Subsystem = {0}: must be 10 (EFI application), as the UEFI Shell's is")]
    Subsystem(u16),
    /// The file ends before its contents.
    #[error("section {number} ends at {end:#x}, and the file at {length:#x}: it has been cut short; copy it again")]
    Cut {
        /// Which section, from 1.
        number: usize,
        /// Where it should end.
        end: u64,
        /// Length of the file.
        length: usize,
    },
}

/// Checks that `data` is a whole UEFI application for x86-64.
pub fn check(data: &[u8]) -> Result<(), ShellError> {
    let file = PeFile64::parse(data).map_err(ShellError::Pe)?;
    let headers = file.nt_headers();
    let machine = headers.file_header().machine.get(LE);
    if machine != pe::IMAGE_FILE_MACHINE_AMD64 {
        return Err(ShellError::Machine(machine));
    }
    let subsystem = headers.optional_header().subsystem();
    if subsystem != pe::IMAGE_SUBSYSTEM_EFI_APPLICATION {
        return Err(ShellError::Subsystem(subsystem));
    }
    for (index, section) in file.section_table().iter().enumerate() {
        let (offset, size) = (section.pointer_to_raw_data.get(LE), section.size_of_raw_data.get(LE));
        let end = u64::from(offset) + u64::from(size);
        if size != 0 && end > data.len() as u64 {
            return Err(ShellError::Cut { number: index + 1, end, length: data.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{application, runtime_driver, runtime_driver_with};

    #[test]
    fn an_application_is_accepted() {
        check(&application()).unwrap();
    }

    #[test]
    fn a_driver_another_machine_and_no_program_are_refused() {
        let refusal = |data: &[u8]| check(data).unwrap_err().to_string();
        assert!(refusal(&runtime_driver()).contains("Subsystem = 12: must be 10"));
        assert!(refusal(&runtime_driver_with(0xaa64, 10)).contains("Machine = 0xaa64: must be 0x8664"));
        assert!(refusal(b"#!/bin/sh\n").contains("PE32+"));
        assert!(refusal(b"").contains("PE32+"));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = application();
        for length in 0..whole.len() {
            let error = check(&whole[..length]).unwrap_err();
            let said = matches!(error, ShellError::Cut { number: 1, end: 0x400, length: cut } if cut == length);
            assert!(said || matches!(error, ShellError::Pe(_)), "{length:#x}: {error}");
        }
    }
}
