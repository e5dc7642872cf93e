//! EFI_PCI_IO_PROTOCOL (UEFI 2.11 §14.4), which uefi-raw does not have. Its root bridge is in
//! [`uefi_raw::protocol::pci::root_bridge`].

use core::ffi::c_void;

use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Guid, PhysicalAddress, Status, guid};

/// Reads or writes `count` units of a BAR.
pub type Transfer<B> = unsafe extern "efiapi" fn(
    this: *mut PciIoProtocol,
    width: u32,
    bar: u8,
    offset: u64,
    count: usize,
    buffer: B,
) -> Status;

/// Reads or writes `count` units of the configuration space.
pub type Configure<B> =
    unsafe extern "efiapi" fn(this: *mut PciIoProtocol, width: u32, offset: u32, count: usize, buffer: B) -> Status;

/// Reads until a value comes.
pub type Poll = unsafe extern "efiapi" fn(
    this: *mut PciIoProtocol,
    width: u32,
    bar: u8,
    offset: u64,
    mask: u64,
    value: u64,
    delay: u64,
    result: *mut u64,
) -> Status;

/// Access to a BAR.
#[derive(Debug)]
#[repr(C)]
pub struct PciIoAccess {
    /// Read.
    pub read: Transfer<*mut c_void>,
    /// Write.
    pub write: Transfer<*const c_void>,
}

/// Access to the configuration space.
#[derive(Debug)]
#[repr(C)]
pub struct PciIoConfigAccess {
    /// Read.
    pub read: Configure<*mut c_void>,
    /// Write.
    pub write: Configure<*const c_void>,
}

/// EFI_PCI_IO_PROTOCOL.
#[derive(Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are those of UEFI 2.11 §14.4")]
pub struct PciIoProtocol {
    pub poll_mem: Poll,
    pub poll_io: Poll,
    pub mem: PciIoAccess,
    pub io: PciIoAccess,
    pub pci: PciIoConfigAccess,
    pub copy_mem: unsafe extern "efiapi" fn(
        this: *mut Self,
        width: u32,
        to_bar: u8,
        to_offset: u64,
        from_bar: u8,
        from_offset: u64,
        count: usize,
    ) -> Status,
    pub map: unsafe extern "efiapi" fn(
        this: *mut Self,
        operation: u32,
        host: *mut c_void,
        size: *mut usize,
        device: *mut PhysicalAddress,
        mapping: *mut *mut c_void,
    ) -> Status,
    pub unmap: unsafe extern "efiapi" fn(this: *mut Self, mapping: *mut c_void) -> Status,
    pub allocate_buffer: unsafe extern "efiapi" fn(
        this: *mut Self,
        allocate_type: u32,
        memory_type: MemoryType,
        pages: usize,
        host: *mut *mut c_void,
        attributes: u64,
    ) -> Status,
    pub free_buffer: unsafe extern "efiapi" fn(this: *mut Self, pages: usize, host: *mut c_void) -> Status,
    pub flush: unsafe extern "efiapi" fn(this: *mut Self) -> Status,
    pub get_location: unsafe extern "efiapi" fn(
        this: *mut Self,
        segment: *mut usize,
        bus: *mut usize,
        device: *mut usize,
        function: *mut usize,
    ) -> Status,
    pub attributes:
        unsafe extern "efiapi" fn(this: *mut Self, operation: u32, attributes: u64, result: *mut u64) -> Status,
    pub get_bar_attributes:
        unsafe extern "efiapi" fn(this: *mut Self, bar: u8, supports: *mut u64, resources: *mut *mut c_void) -> Status,
    pub set_bar_attributes: unsafe extern "efiapi" fn(
        this: *mut Self,
        attributes: u64,
        bar: u8,
        offset: *mut u64,
        length: *mut u64,
    ) -> Status,
    pub rom_size: u64,
    pub rom_image: *mut c_void,
}

impl PciIoProtocol {
    /// GUID of the protocol.
    pub const GUID: Guid = guid!("4cf5b200-68b8-4ca5-9eec-b23e3f50029a");
}
