//! PCI functions and root bridges: the traits that the bus driver implements, and the rules of the protocols made of them
//! (UEFI 2.11 §14.2, §14.4).
//!
//! | module | what |
//! | --- | --- |
//! | [`access`] | reads and writes of memory, ports and configuration space, of every width |
//! | [`attributes`] | what can be switched on and off in a function |
//! | [`descriptor`] | ranges as ACPI resource descriptors |
//! | [`dma`] | buffers that a device reads and writes by itself |

use alloc::boxed::Box;
use alloc::vec::Vec;

use hw::device::{Ports, Window};
use uefi_raw::Status;

pub mod access;
pub mod attributes;
pub mod descriptor;
pub mod dma;

pub use access::{Access, Target};
pub use attributes::Attributes;
pub use descriptor::Resource;

/// Number of BARs of a function.
pub const BARS: u8 = 6;

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PciError {
    /// There is no such BAR, range or attribute.
    Unsupported,
    /// The request itself makes no sense.
    InvalidParameter,
    /// The value did not come in time.
    Timeout,
    /// No memory where the device can reach it.
    OutOfResources,
}

impl From<PciError> for Status {
    fn from(error: PciError) -> Self {
        match error {
            PciError::Unsupported => Self::UNSUPPORTED,
            PciError::InvalidParameter => Self::INVALID_PARAMETER,
            PciError::Timeout => Self::TIMEOUT,
            PciError::OutOfResources => Self::OUT_OF_RESOURCES,
        }
    }
}

/// Result of a request.
pub type Result<T> = core::result::Result<T, PciError>;

/// Where a function is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address {
    /// Bus, from 0.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Where a function answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// I/O ports.
    Ports {
        /// First port.
        first: u16,
        /// Number of ports.
        count: u32,
    },
    /// Memory.
    Memory {
        /// First byte.
        address: u64,
        /// Number of bytes, a power of two.
        size: u64,
        /// Whether reading has no effect.
        prefetchable: bool,
        /// Whether it takes two registers.
        wide: bool,
    },
}

/// The address spaces in which devices answer. A device sees the same addresses as the CPU.
pub trait PciSpaces {
    /// Memory of devices; `None` where none can be.
    fn window(&self, address: u64, length: usize) -> Option<Box<dyn Window>>;
    /// All ports.
    fn ports(&self) -> &dyn Ports;
}

/// One function. Offsets are in bytes, `unit` is 1, 2 or 4; an access is aligned to its unit.
pub trait PciDevice: PciSpaces {
    /// Where it is. All functions are in segment 0.
    fn address(&self) -> Address;
    /// BAR `index`; a wide one has the index of its first register.
    fn bar(&self, index: u8) -> Option<Bar>;
    /// Base class, sub-class and interface.
    fn class(&self) -> [u8; 3];
    /// Whether it leads to another bus.
    fn is_bridge(&self) -> bool;
    /// Reads from its configuration space.
    fn read_configuration(&self, offset: u16, unit: u8) -> u32;
    /// Writes to its configuration space.
    fn write_configuration(&self, offset: u16, unit: u8, value: u32);
}

/// A root bridge.
pub trait PciRootBridge: PciSpaces {
    /// Reads from the configuration space of a function below it; all ones where there is none.
    fn read_configuration(&self, address: Address, offset: u16, unit: u8) -> u32;
    /// Writes to it.
    fn write_configuration(&self, address: Address, offset: u16, unit: u8, value: u32);
    /// What functions below it have been given.
    fn resources(&self) -> Vec<Resource>;
}
