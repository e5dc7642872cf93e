//! EFI_RNG_PROTOCOL (UEFI 2.10 §37.5) over the processor's generator.

use uefi_raw::protocol::rng::{RngAlgorithmType, RngProtocol};
use uefi_raw::{Guid, Status};

use super::CORE;
use super::handle::install;
use crate::Result;
use crate::core_state::Core;

/// What can be asked for. The processor's numbers come out of its own deterministic generator (SP 800-90A CTR_DRBG with
/// AES), reseeded all the time; there is none on top of it, so raw numbers are the same ones.
const ALGORITHMS: [RngAlgorithmType; 1] = [RngAlgorithmType::ALGORITHM_RAW];

static PROTOCOL: RngProtocol = RngProtocol { get_info, get_rng };

/// Installs the protocol, if the processor has a generator.
pub(super) fn start(core: &Core) -> Result<()> {
    let mut probe = [0; 8];
    if let Err(error) = core.hardware().random(&mut probe) {
        log::debug!("no random numbers: {error}");
        return Ok(());
    }
    let interface = core::ptr::from_ref(&PROTOCOL).cast_mut().cast();
    install(core, None, &[(RngProtocol::GUID, interface)]).map(drop)
}

unsafe extern "efiapi" fn get_info(this: *mut RngProtocol, size: *mut usize, list: *mut RngAlgorithmType) -> Status {
    if this.is_null() || size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let room = unsafe { size.replace(size_of_val(&ALGORITHMS)) };
    if room < size_of_val(&ALGORITHMS) {
        return Status::BUFFER_TOO_SMALL;
    }
    if list.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null, and the caller says that there is room.
    unsafe { list.cast::<Guid>().copy_from_nonoverlapping(ALGORITHMS.as_ptr().cast(), ALGORITHMS.len()) };
    Status::SUCCESS
}

unsafe extern "efiapi" fn get_rng(
    this: *mut RngProtocol,
    algorithm: *const RngAlgorithmType,
    length: usize,
    value: *mut u8,
) -> Status {
    if this.is_null() || value.is_null() || length == 0 {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null where it is read; the caller answers for the rest.
    if !algorithm.is_null() && !ALGORITHMS.contains(&unsafe { algorithm.read_unaligned() }) {
        return Status::UNSUPPORTED;
    }
    // SAFETY: not null, and as long as the caller says.
    let value = unsafe { core::slice::from_raw_parts_mut(value, length) };
    match CORE.hardware().random(value) {
        Ok(()) => Status::SUCCESS,
        Err(Status::UNSUPPORTED) => Status::NOT_READY,
        Err(error) => error,
    }
}
