//! EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::pci::root_bridge::{
    PciRootBridgeIoAccess, PciRootBridgeIoProtocol as Protocol, PciRootBridgeIoProtocolOperation as Operation,
    PciRootBridgeIoProtocolWidth as Width,
};
use uefi_raw::table::boot::{AllocateType, MemoryType};
use uefi_raw::{Handle, PhysicalAddress, Status};

use super::buffer::{Buffers, allocate_buffer, free_buffer};
use super::{Wanted, poll, read, write};
use crate::abi::misc::status;
use crate::device_path::{DevicePath, DevicePathBuf};
use crate::pci::dma::Direction;
use crate::pci::{Access, Attributes, PciError, PciRootBridge, Target, descriptor};
use crate::{Result, api};

/// What is decoded all the time: everything of old, as there is one bridge.
const ATTRIBUTES: Attributes = Attributes::ISA_MOTHERBOARD_IO
    .union(Attributes::ISA_IO)
    .union(Attributes::ISA_IO_16)
    .union(Attributes::VGA_PALETTE_IO)
    .union(Attributes::VGA_PALETTE_IO_16)
    .union(Attributes::VGA_MEMORY)
    .union(Attributes::VGA_IO)
    .union(Attributes::VGA_IO_16)
    .union(Attributes::IDE_PRIMARY_IO)
    .union(Attributes::IDE_SECONDARY_IO);
/// First of the operations with addresses of 64 bits; before them are the same with 32.
const WIDE: u32 = Operation::BUS_MASTER_READ64.0;

/// What the handle has its interfaces in. The protocol comes first, so that `this` leads back.
#[repr(C)]
struct Object {
    protocol: Protocol,
    bridge: Box<dyn PciRootBridge>,
    buffers: Buffers,
    /// What Configuration tells.
    resources: Vec<u8>,
    path: DevicePathBuf,
}

impl Object {
    fn bridge(&self) -> &dyn PciRootBridge {
        &*self.bridge
    }
}

/// Makes a handle with device path and protocol, for good.
pub(crate) fn install(path: &DevicePath, bridge: Box<dyn PciRootBridge>) -> Result<Handle> {
    let resources = descriptor::list(&bridge.resources());
    let protocol = Protocol {
        parent_handle: core::ptr::null_mut(),
        poll_mem,
        poll_io,
        mem: PciRootBridgeIoAccess { read: read_mem, write: write_mem },
        io: PciRootBridgeIoAccess { read: read_io, write: write_io },
        pci: PciRootBridgeIoAccess { read: read_configuration, write: write_configuration },
        copy_mem,
        map,
        unmap,
        allocate_buffer: allocate,
        free_buffer: free,
        flush,
        get_attributes,
        set_attributes,
        configuration,
        segment_number: 0,
    };
    let path = DevicePathBuf::from(path);
    let object = Box::into_raw(Box::new(Object { protocol, bridge, buffers: Buffers::new(), resources, path }));
    // SAFETY: the object is alive; only an address is taken.
    let path = unsafe { (*object).path.as_bytes().as_ptr().cast_mut() };
    let interfaces = [(DevicePathProtocol::GUID, path.cast()), (Protocol::GUID, object.cast())];
    api::install_protocols(None, &interfaces).inspect_err(|_| {
        // SAFETY: it was not installed, so nobody else knows it.
        drop(unsafe { Box::from_raw(object) });
    })
}

/// # Safety
/// `this` is null or the protocol of an [`Object`], which is never freed.
unsafe fn object<'a>(this: *const Protocol) -> Result<&'a Object> {
    // SAFETY: by contract it is null or the first field of an object.
    unsafe { this.cast::<Object>().as_ref() }.ok_or(Status::INVALID_PARAMETER)
}

unsafe extern "efiapi" fn poll_mem(
    this: *mut Protocol,
    width: Width,
    address: u64,
    mask: u64,
    value: u64,
    delay: u64,
    result: *mut u64,
) -> Status {
    // SAFETY: the caller answers for `this` and its pointer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        let target = |access| Target::bus_memory(object.bridge(), access, address, 1);
        poll(target, width.0, &Wanted { mask, value, delay }, result)
    }))
}

unsafe extern "efiapi" fn poll_io(
    this: *mut Protocol,
    width: Width,
    address: u64,
    mask: u64,
    value: u64,
    delay: u64,
    result: *mut u64,
) -> Status {
    // SAFETY: the caller answers for `this` and its pointer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        let target = |access| Target::bus_ports(object.bridge(), access, address, 1);
        poll(target, width.0, &Wanted { mask, value, delay }, result)
    }))
}

unsafe extern "efiapi" fn read_mem(
    this: *mut Protocol,
    width: Width,
    address: u64,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        read(|access| Target::bus_memory(object.bridge(), access, address, count), width.0, count, buffer)
    }))
}

unsafe extern "efiapi" fn write_mem(
    this: *mut Protocol,
    width: Width,
    address: u64,
    count: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        write(|access| Target::bus_memory(object.bridge(), access, address, count), width.0, count, buffer)
    }))
}

unsafe extern "efiapi" fn read_io(
    this: *mut Protocol,
    width: Width,
    address: u64,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        read(|access| Target::bus_ports(object.bridge(), access, address, count), width.0, count, buffer)
    }))
}

unsafe extern "efiapi" fn write_io(
    this: *mut Protocol,
    width: Width,
    address: u64,
    count: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        write(|access| Target::bus_ports(object.bridge(), access, address, count), width.0, count, buffer)
    }))
}

unsafe extern "efiapi" fn read_configuration(
    this: *mut Protocol,
    width: Width,
    address: u64,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        read(|access| Target::bus_configuration(object.bridge(), access, address, count), width.0, count, buffer)
    }))
}

unsafe extern "efiapi" fn write_configuration(
    this: *mut Protocol,
    width: Width,
    address: u64,
    count: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        write(|access| Target::bus_configuration(object.bridge(), access, address, count), width.0, count, buffer)
    }))
}

unsafe extern "efiapi" fn copy_mem(this: *mut Protocol, width: Width, to: u64, from: u64, count: usize) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|object| {
        let access = Access::single(width.0)?;
        let to = Target::bus_memory(object.bridge(), access, to, count)?;
        let from = Target::bus_memory(object.bridge(), access, from, count)?;
        from.copy_to(&to);
        Ok(())
    }))
}

unsafe extern "efiapi" fn map(
    this: *const Protocol,
    operation: Operation,
    host: *const c_void,
    size: *mut usize,
    device: *mut PhysicalAddress,
    mapping: *mut *mut c_void,
) -> Status {
    let wide = operation.0 >= WIDE;
    let direction = Direction::from_raw(if wide { operation.0 - WIDE } else { operation.0 });
    // SAFETY: the caller answers for `this` and its pointers.
    status(
        unsafe { object(this) }
            .and_then(|object| unsafe { object.buffers.map(direction, wide, host.cast_mut(), size, device, mapping) }),
    )
}

unsafe extern "efiapi" fn unmap(this: *const Protocol, mapping: *const c_void) -> Status {
    // SAFETY: the caller answers for `this` and the buffer it has mapped.
    status(unsafe { object(this) }.and_then(|object| unsafe { object.buffers.unmap(mapping) }))
}

/// The type of allocation has no meaning (UEFI 2.11 §14.2).
unsafe extern "efiapi" fn allocate(
    this: *const Protocol,
    _allocate_type: AllocateType,
    memory_type: MemoryType,
    pages: usize,
    host: *mut *mut c_void,
    attributes: u64,
) -> Status {
    let wide = attributes & Attributes::DUAL_ADDRESS_CYCLE.bits() != 0;
    // SAFETY: the caller answers for `this` and its pointer.
    status(unsafe { object(this) }.and_then(|_| unsafe { allocate_buffer(memory_type, pages, host, attributes, wide) }))
}

unsafe extern "efiapi" fn free(this: *const Protocol, pages: usize, host: *const c_void) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|_| free_buffer(pages, host)))
}

/// What was written is with the device when the write returns.
unsafe extern "efiapi" fn flush(this: *mut Protocol) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.map(drop))
}

unsafe extern "efiapi" fn get_attributes(this: *const Protocol, supports: *mut u64, set: *mut u64) -> Status {
    if supports.is_null() && set.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.map(|_| {
        for told in [supports, set].into_iter().filter(|told| !told.is_null()) {
            // SAFETY: not null; the caller answers for the rest.
            unsafe { told.write(ATTRIBUTES.bits()) };
        }
    }))
}

/// What can be set is set.
unsafe extern "efiapi" fn set_attributes(
    this: *mut Protocol,
    attributes: u64,
    _base: *mut u64,
    _length: *mut u64,
) -> Status {
    let known = Attributes::from_bits(attributes).is_some_and(|wanted| ATTRIBUTES.contains(wanted));
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|_| if known { Ok(()) } else { Err(PciError::Unsupported.into()) }))
}

unsafe extern "efiapi" fn configuration(this: *const Protocol, resources: *mut *const c_void) -> Status {
    if resources.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.map(|object| {
        // SAFETY: not null; the caller answers for the rest.
        unsafe { resources.write(object.resources.as_ptr().cast()) };
    }))
}
