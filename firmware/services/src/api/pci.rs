//! PCI for our own code.

use alloc::boxed::Box;
use alloc::vec::Vec;

use uefi_raw::Handle;

use crate::Result;
use crate::abi::pci;
use crate::device_path::DevicePath;
use crate::pci::{PciDevice, PciRootBridge};

pub use pci::PciIoProtocol;

/// Makes a handle with the device path and EFI_PCI_IO_PROTOCOL of a function.
///
/// # Errors
/// `ALREADY_STARTED` if another handle has the path.
pub fn install_pci_function(path: &DevicePath, device: Box<dyn PciDevice>) -> Result<Handle> {
    pci::install_function(path, device)
}

/// Takes it away, and drops the device.
///
/// # Errors
/// `ACCESS_DENIED` if a driver does not let go of it; `UNSUPPORTED` if it is not ours.
pub fn uninstall_pci_function(handle: Handle) -> Result<()> {
    pci::uninstall_function(handle)
}

/// Lets the EFI_PCI_IO_PROTOCOL of a function tell of its option ROM.
///
/// # Errors
/// `UNSUPPORTED` if it is not ours.
pub fn set_pci_rom(handle: Handle, rom: Vec<u8>) -> Result<()> {
    pci::set_rom(handle, rom)
}

/// Makes a handle with the device path and EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL of a root bridge. It stays for good.
///
/// # Errors
/// `ALREADY_STARTED` if another handle has the path.
pub fn install_pci_root_bridge(path: &DevicePath, bridge: Box<dyn PciRootBridge>) -> Result<Handle> {
    pci::install_root_bridge(path, bridge)
}
