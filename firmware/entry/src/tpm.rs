//! A TPM of an HVM guest, and the firmware measured into it.

use alloc::vec::Vec;
use core::ops::Range;
use core::slice;

use drivers::domain::EmulatedMachine;
use drivers::tpm::{self, Interface};
use platform::tpm::Tpm;
use services::api::{self, FirmwarePart};

use crate::start::{Relocation, Start, relocations};

/// What `EV_S_CRTM_VERSION` says.
const VERSION: &str = concat!("ovmf-xen ", env!("CARGO_PKG_VERSION"));

/// Looks for a TPM, makes it ready, and measures the firmware as it was loaded. The file has to be there still.
pub fn start(machine: EmulatedMachine, start: &Start) -> Option<Tpm> {
    let device = tpm::find(machine)?;
    let is_crb = device.interface == Interface::Crb;
    let log = api::install_tpm(device.transport).inspect_err(|status| log::error!("TPM: {status}")).ok()?;
    let (code, rest) = code_volume(start);
    let core = FirmwarePart { description: "core", address: code.address, bytes: &code.bytes };
    let drivers = FirmwarePart { description: "drivers", address: rest.start, bytes: bytes(&rest) };
    api::measure_firmware(VERSION, &[core, drivers]);
    Some(Tpm { is_crb, log_address: log.address, log_length: log.length })
}

/// The core's code and constants, as the file has them.
struct Code {
    address: u64,
    bytes: Vec<u8>,
}

/// The code volume in two parts: up to the end of the core's constants, and what is behind the core. In between is the core's
/// data, which changes while it runs.
fn code_volume(start: &Start) -> (Code, Range<u64>) {
    let layout = start.layout;
    let volume = start.file.start + layout.code_offset;
    let core = start.file.start + layout.core_offset;
    let constants = core + (start.image.constant_end - start.image.start);
    let mut code = Code { address: volume, bytes: bytes(&(volume..constants)).to_vec() };
    // The core has run where it was loaded, with addresses filled in that depend on the place.
    for Relocation { offset, .. } in relocations() {
        let at = (core - volume).checked_add(*offset).and_then(|at| usize::try_from(at).ok());
        let word = at.and_then(|at| code.bytes.get_mut(at..)).and_then(|rest| rest.first_chunk_mut::<8>());
        if let Some(word) = word {
            *word = [0; 8];
        }
    }
    (code, core + start.image.loaded..volume + layout.code_size)
}

/// Bytes of the loaded file.
fn bytes(range: &Range<u64>) -> &[u8] {
    let length = range.end.saturating_sub(range.start) as usize;
    // SAFETY: within the loaded file, which nobody writes and which is freed only later.
    unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(range.start as usize), length) }
}
