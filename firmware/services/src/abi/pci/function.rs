//! EFI_PCI_IO_PROTOCOL.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ffi::c_void;
use core::ptr;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Guid, Handle, PhysicalAddress, Status};

use super::buffer::{Buffers, allocate_buffer, free_buffer};
use super::protocol::{PciIoAccess, PciIoConfigAccess, PciIoProtocol};
use super::{Wanted, poll, read, write};
use crate::abi::misc::{is_ours, status};
use crate::api;
use crate::device_path::{DevicePath, DevicePathBuf};
use crate::pci::access::PASS_THROUGH;
use crate::pci::attributes::Operation;
use crate::pci::dma::Direction;
use crate::pci::{Access, Attributes, Bar, PciDevice, Resource, Target, attributes, descriptor};
use crate::{Result, pci};

/// What a handle of ours has its interfaces in. The protocol comes first, so that `this` leads back.
#[repr(C)]
struct Object {
    protocol: PciIoProtocol,
    device: Box<dyn PciDevice>,
    /// Attributes that are no switch of the device.
    noted: Cell<Attributes>,
    buffers: Buffers,
    rom: Vec<u8>,
    path: DevicePathBuf,
}

impl Object {
    /// The interfaces of an object.
    fn interfaces(object: *mut Self) -> [(Guid, *mut c_void); 2] {
        // SAFETY: the object is alive; only an address is taken.
        let path = unsafe { (*object).path.as_bytes().as_ptr().cast_mut() };
        [(DevicePathProtocol::GUID, path.cast()), (PciIoProtocol::GUID, object.cast())]
    }

    fn device(&self) -> &dyn PciDevice {
        &*self.device
    }

    fn has(&self, attribute: Attributes) -> bool {
        self.noted.get().contains(attribute)
    }
}

/// Makes a handle with device path and protocol.
pub(crate) fn install(path: &DevicePath, device: Box<dyn PciDevice>) -> Result<Handle> {
    let protocol = PciIoProtocol {
        poll_mem,
        poll_io,
        mem: PciIoAccess { read: read_mem, write: write_mem },
        io: PciIoAccess { read: read_io, write: write_io },
        pci: PciIoConfigAccess { read: read_configuration, write: write_configuration },
        copy_mem,
        map,
        unmap,
        allocate_buffer: allocate,
        free_buffer: free,
        flush,
        get_location,
        attributes: change_attributes,
        get_bar_attributes,
        set_bar_attributes,
        rom_size: 0,
        rom_image: ptr::null_mut(),
    };
    let object = Box::into_raw(Box::new(Object {
        protocol,
        device,
        noted: Cell::default(),
        buffers: Buffers::new(),
        rom: Vec::new(),
        path: DevicePathBuf::from(path),
    }));
    api::install_protocols(None, &Object::interfaces(object)).inspect_err(|_| {
        // SAFETY: it was not installed, so nobody else knows it.
        drop(unsafe { Box::from_raw(object) });
    })
}

/// Takes back what [`install`] did. `ACCESS_DENIED` if it stays in use.
pub(crate) fn uninstall(handle: Handle) -> Result<()> {
    let object = object_of(handle)?;
    api::uninstall_protocols(handle, &Object::interfaces(object))?;
    // SAFETY: made by `install`, and no longer installed.
    drop(unsafe { Box::from_raw(object) });
    Ok(())
}

/// Lets RomImage and RomSize tell of an option ROM.
pub(crate) fn set_rom(handle: Handle, rom: Vec<u8>) -> Result<()> {
    let object = object_of(handle)?;
    // SAFETY: one of ours; none of its functions runs, and none looks at the ROM.
    unsafe {
        (*object).rom = rom;
        let rom = &mut (*object).rom;
        let (size, image) = (rom.len() as u64, rom.as_mut_ptr());
        (*object).protocol.rom_size = size;
        (*object).protocol.rom_image = if size == 0 { ptr::null_mut() } else { image.cast() };
    }
    Ok(())
}

fn object_of(handle: Handle) -> Result<*mut Object> {
    let interface = api::protocol(handle, &PciIoProtocol::GUID)?.cast::<PciIoProtocol>();
    // SAFETY: what is installed under this GUID is this protocol.
    if interface.is_null() || !is_ours(unsafe { (*interface).flush } as *const (), flush as *const ()) {
        return Err(Status::UNSUPPORTED);
    }
    Ok(interface.cast())
}

/// # Safety
/// `this` is null or the protocol of an [`Object`], which outlives the call.
unsafe fn object<'a>(this: *const PciIoProtocol) -> Result<&'a Object> {
    // SAFETY: by contract it is null or the first field of an object.
    unsafe { this.cast::<Object>().as_ref() }.ok_or(Status::INVALID_PARAMETER)
}

unsafe extern "efiapi" fn poll_mem(
    this: *mut PciIoProtocol,
    width: u32,
    bar: u8,
    offset: u64,
    mask: u64,
    value: u64,
    delay: u64,
    result: *mut u64,
) -> Status {
    // SAFETY: the caller answers for `this` and its pointer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        let target = |access| Target::memory(object.device(), access, bar, offset, 1);
        poll(target, width, &Wanted { mask, value, delay }, result)
    }))
}

unsafe extern "efiapi" fn poll_io(
    this: *mut PciIoProtocol,
    width: u32,
    bar: u8,
    offset: u64,
    mask: u64,
    value: u64,
    delay: u64,
    result: *mut u64,
) -> Status {
    // SAFETY: the caller answers for `this` and its pointer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        let target = |access| Target::ports(object.device(), access, bar, offset, 1);
        poll(target, width, &Wanted { mask, value, delay }, result)
    }))
}

unsafe extern "efiapi" fn read_mem(
    this: *mut PciIoProtocol,
    width: u32,
    bar: u8,
    offset: u64,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        read(|access| Target::memory(object.device(), access, bar, offset, count), width, count, buffer)
    }))
}

unsafe extern "efiapi" fn write_mem(
    this: *mut PciIoProtocol,
    width: u32,
    bar: u8,
    offset: u64,
    count: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        write(|access| Target::memory(object.device(), access, bar, offset, count), width, count, buffer)
    }))
}

unsafe extern "efiapi" fn read_io(
    this: *mut PciIoProtocol,
    width: u32,
    bar: u8,
    offset: u64,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        read(|access| Target::ports(object.device(), access, bar, offset, count), width, count, buffer)
    }))
}

unsafe extern "efiapi" fn write_io(
    this: *mut PciIoProtocol,
    width: u32,
    bar: u8,
    offset: u64,
    count: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        write(|access| Target::ports(object.device(), access, bar, offset, count), width, count, buffer)
    }))
}

unsafe extern "efiapi" fn read_configuration(
    this: *mut PciIoProtocol,
    width: u32,
    offset: u32,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        read(|access| Target::configuration(object.device(), access, offset, count), width, count, buffer)
    }))
}

unsafe extern "efiapi" fn write_configuration(
    this: *mut PciIoProtocol,
    width: u32,
    offset: u32,
    count: usize,
    buffer: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its buffer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        write(|access| Target::configuration(object.device(), access, offset, count), width, count, buffer)
    }))
}

unsafe extern "efiapi" fn copy_mem(
    this: *mut PciIoProtocol,
    width: u32,
    to_bar: u8,
    to_offset: u64,
    from_bar: u8,
    from_offset: u64,
    count: usize,
) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|object| {
        let access = Access::single(width)?;
        let to = Target::memory(object.device(), access, to_bar, to_offset, count)?;
        let from = Target::memory(object.device(), access, from_bar, from_offset, count)?;
        from.copy_to(&to);
        Ok(())
    }))
}

unsafe extern "efiapi" fn map(
    this: *mut PciIoProtocol,
    operation: u32,
    host: *mut c_void,
    size: *mut usize,
    device: *mut PhysicalAddress,
    mapping: *mut *mut c_void,
) -> Status {
    // SAFETY: the caller answers for `this` and its pointers.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        let wide = object.has(Attributes::DUAL_ADDRESS_CYCLE);
        object.buffers.map(Direction::from_raw(operation), wide, host, size, device, mapping)
    }))
}

unsafe extern "efiapi" fn unmap(this: *mut PciIoProtocol, mapping: *mut c_void) -> Status {
    // SAFETY: the caller answers for `this` and the buffer it has mapped.
    status(unsafe { object(this) }.and_then(|object| unsafe { object.buffers.unmap(mapping) }))
}

/// The type of allocation has no meaning (UEFI 2.11 §14.4).
unsafe extern "efiapi" fn allocate(
    this: *mut PciIoProtocol,
    _allocate_type: u32,
    memory_type: MemoryType,
    pages: usize,
    host: *mut *mut c_void,
    attributes: u64,
) -> Status {
    // SAFETY: the caller answers for `this` and its pointer.
    status(unsafe { object(this) }.and_then(|object| unsafe {
        let dual = Attributes::DUAL_ADDRESS_CYCLE;
        if attributes & dual.bits() != 0 {
            return Err(Status::UNSUPPORTED);
        }
        allocate_buffer(memory_type, pages, host, attributes, object.has(dual))
    }))
}

unsafe extern "efiapi" fn free(this: *mut PciIoProtocol, pages: usize, host: *mut c_void) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|_| free_buffer(pages, host)))
}

/// What was written is with the device when the write returns.
unsafe extern "efiapi" fn flush(this: *mut PciIoProtocol) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.map(drop))
}

unsafe extern "efiapi" fn get_location(
    this: *mut PciIoProtocol,
    segment: *mut usize,
    bus: *mut usize,
    device: *mut usize,
    function: *mut usize,
) -> Status {
    if segment.is_null() || bus.is_null() || device.is_null() || function.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.map(|object| {
        let address = object.device.address();
        // SAFETY: not null; the caller answers for the rest.
        unsafe {
            segment.write(0);
            bus.write(address.bus.into());
            device.write(address.device.into());
            function.write(address.function.into());
        }
    }))
}

unsafe extern "efiapi" fn change_attributes(
    this: *mut PciIoProtocol,
    operation: u32,
    attributes: u64,
    result: *mut u64,
) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|object| {
        let (device, noted) = (object.device(), object.noted.get());
        let told = match Operation::from_raw(operation)? {
            Operation::Get => attributes::get(device, noted),
            Operation::Supported => attributes::supported(device),
            operation => {
                let wanted = Attributes::from_bits(attributes).ok_or(Status::UNSUPPORTED)?;
                object.noted.set(attributes::change(device, noted, operation, wanted)?);
                return Ok(());
            }
        };
        if result.is_null() {
            return Err(Status::INVALID_PARAMETER);
        }
        // SAFETY: not null; the caller answers for the rest.
        unsafe { result.write(told.bits()) };
        Ok(())
    }))
}

/// No attribute can be changed for a BAR alone.
unsafe extern "efiapi" fn get_bar_attributes(
    this: *mut PciIoProtocol,
    bar: u8,
    supports: *mut u64,
    resources: *mut *mut c_void,
) -> Status {
    if supports.is_null() && resources.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|object| {
        let bar = object.device.bar(bar).ok_or(Status::UNSUPPORTED)?;
        if !resources.is_null() {
            let list = descriptor::list(&[Resource::of(bar)]);
            let copy = api::allocate_pool(MemoryType::BOOT_SERVICES_DATA, list.len())?;
            // SAFETY: the copy has room for the list; the pointer is not null, and the caller answers for the rest.
            unsafe {
                copy.as_ptr().copy_from_nonoverlapping(list.as_ptr(), list.len());
                resources.write(copy.as_ptr().cast());
            }
        }
        if !supports.is_null() {
            // SAFETY: not null; the caller answers for the rest.
            unsafe { supports.write(0) };
        }
        Ok(())
    }))
}

unsafe extern "efiapi" fn set_bar_attributes(
    this: *mut PciIoProtocol,
    attributes: u64,
    bar: u8,
    offset: *mut u64,
    length: *mut u64,
) -> Status {
    if offset.is_null() || length.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for `this`.
    status(unsafe { object(this) }.and_then(|object| {
        let size = match object.device.bar(bar).filter(|_| bar != PASS_THROUGH).ok_or(Status::UNSUPPORTED)? {
            Bar::Memory { size, .. } => size,
            Bar::Ports { count, .. } => count.into(),
        };
        // SAFETY: not null; the caller answers for the rest.
        let (offset, length) = unsafe { (offset.read(), length.read()) };
        let inside = offset.checked_add(length).is_some_and(|end| end <= size);
        if attributes == 0 && inside { Ok(()) } else { Err(pci::PciError::Unsupported.into()) }
    }))
}
