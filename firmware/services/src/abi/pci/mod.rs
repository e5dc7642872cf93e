//! EFI_PCI_IO_PROTOCOL and EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL (UEFI 2.11 §14.4, §14.2), made of a
//! [`PciDevice`](crate::pci::PciDevice) and a [`PciRootBridge`](crate::pci::PciRootBridge).

mod buffer;
mod function;
mod protocol;
mod root_bridge;
#[cfg(test)]
#[cfg(not(miri))]
mod tests;

use core::ffi::c_void;

use uefi_raw::Status;

use super::CORE;
use crate::Result;
use crate::pci::{Access, PciError, Target};

pub(crate) use function::{install as install_function, set_rom, uninstall as uninstall_function};
pub use protocol::{PciIoAccess, PciIoConfigAccess, PciIoProtocol};
pub(crate) use root_bridge::install as install_root_bridge;

/// Reads from a target into a caller's buffer.
///
/// # Safety
/// `buffer` is null or as long as access and count say.
unsafe fn read<'a>(
    target: impl FnOnce(Access) -> crate::pci::Result<Target<'a>>,
    width: u32,
    count: usize,
    buffer: *mut c_void,
) -> Result<()> {
    let access = Access::from_raw(width)?;
    if buffer.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    let size = access.buffer_size(count)?;
    let target = target(access)?;
    // SAFETY: not null, and by contract as long as that.
    target.read(unsafe { core::slice::from_raw_parts_mut(buffer.cast(), size) });
    Ok(())
}

/// Writes a caller's buffer to a target.
///
/// # Safety
/// As [`read`].
unsafe fn write<'a>(
    target: impl FnOnce(Access) -> crate::pci::Result<Target<'a>>,
    width: u32,
    count: usize,
    buffer: *const c_void,
) -> Result<()> {
    let access = Access::from_raw(width)?;
    if buffer.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    let size = access.buffer_size(count)?;
    let target = target(access)?;
    // SAFETY: not null, and by contract as long as that.
    target.write(unsafe { core::slice::from_raw_parts(buffer.cast(), size) });
    Ok(())
}

/// What PollMem and PollIo wait for.
struct Wanted {
    mask: u64,
    value: u64,
    /// Units of 100 ns.
    delay: u64,
}

/// Reads until the value comes: at least once, and with a delay of zero only once.
///
/// # Safety
/// `result` is null or can be written.
unsafe fn poll<'a>(
    target: impl FnOnce(Access) -> crate::pci::Result<Target<'a>>,
    width: u32,
    wanted: &Wanted,
    result: *mut u64,
) -> Result<()> {
    let access = Access::single(width)?;
    if result.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    let target = target(access)?;
    let hardware = (wanted.delay != 0).then(|| CORE.hardware());
    let deadline = hardware.map(|hardware| hardware.now().saturating_add(wanted.delay));
    loop {
        let found = target.read_one();
        // SAFETY: not null; the caller answers for the rest.
        unsafe { result.write(found) };
        match hardware.zip(deadline) {
            _ if found & wanted.mask == wanted.value => return Ok(()),
            None => return Ok(()),
            Some((hardware, deadline)) if hardware.now() >= deadline => return Err(PciError::Timeout.into()),
            Some((hardware, _)) => hardware.stall(1),
        }
    }
}
