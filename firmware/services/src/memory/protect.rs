//! Which access rights pages have, by what they are used for.
//!
//! Only code types are executable, and only until the image loader has tightened them by section. The database keeps per
//! range how its pages are mapped ([`Class`]) and asks for a change only where that differs from what the new use wants,
//! so that ordinary allocations never touch the page tables. The change itself ([`Change`]) is made by the edge, outside
//! the lock: after an allocation, before a range is free again.

use uefi_raw::table::boot::MemoryType;

use crate::hardware::Protection;

/// How the pages of a range are mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Class {
    /// Readable and writable.
    Data,
    /// Readable, writable and executable: code types until their image is in place.
    Code,
    /// Something else, set page by page (image sections, `EFI_MEMORY_ATTRIBUTE_PROTOCOL`, the firmware's own image).
    Custom,
}

impl Class {
    /// How memory of a type is mapped when it is handed out.
    #[inline]
    pub fn of(ty: MemoryType) -> Self {
        match ty {
            MemoryType::LOADER_CODE | MemoryType::BOOT_SERVICES_CODE | MemoryType::RUNTIME_SERVICES_CODE => Self::Code,
            _ => Self::Data,
        }
    }

    /// The access rights. [`Class::Custom`] has no rights of its own; its pages have already been set.
    pub fn protection(self) -> Protection {
        Protection { read_protect: false, read_only: false, execute_protect: self != Self::Code }
    }
}

/// A change of access rights that the edge has to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Change {
    /// First byte.
    pub address: u64,
    /// Number of pages.
    pub pages: u64,
    /// The rights from now on.
    pub protection: Protection,
}
