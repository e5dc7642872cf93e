//! EFI_GRAPHICS_OUTPUT_PROTOCOL, EFI_EDID_DISCOVERED_PROTOCOL and EFI_EDID_ACTIVE_PROTOCOL (UEFI 2.10 §12.9) made of an
//! [`Adapter`].
//!
//! A display is used at `NOTIFY` level, by the protocol as by the text console on it: so neither comes between the other's use.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::ffi::c_void;
use core::{ptr, slice};

use uefi_raw::protocol::console::{
    EdidDiscoveredProtocol, GraphicsOutputBltOperation, GraphicsOutputBltPixel, GraphicsOutputModeInformation,
    GraphicsOutputProtocol, GraphicsOutputProtocolMode, GraphicsPixelFormat, PixelBitmask,
};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::table::boot::{MemoryType, Tpl};
use uefi_raw::{Guid, Handle, Status, guid};

use super::CORE;
use super::misc::status;
use crate::api::memory::allocate_pool_in;
use crate::device_path::{DevicePath, DevicePathBuf};
use crate::graphics::blt::{self, Area, Buffer, InvalidArea};
use crate::graphics::{Adapter, AdapterError, Display, Mode, PIXEL, PixelFormat, SharedDisplay};
use crate::{Result, api};

/// EFI_EDID_ACTIVE_PROTOCOL has the fields of EFI_EDID_DISCOVERED_PROTOCOL.
pub const EDID_ACTIVE: Guid = guid!("bd8c1056-9f36-44ec-92a8-a6337f817986");

/// EFI_EDID_OVERRIDE_PROTOCOL, which a platform may have: the EDID to be used instead of a monitor's.
#[derive(Debug)]
#[repr(C)]
pub struct EdidOverrideProtocol {
    /// Gives the EDID for a monitor, in pool memory.
    pub get_edid: unsafe extern "efiapi" fn(
        this: *mut Self,
        child: *const Handle,
        attributes: *mut u32,
        size: *mut usize,
        edid: *mut *mut u8,
    ) -> Status,
}

impl EdidOverrideProtocol {
    /// GUID of the protocol.
    pub const GUID: Guid = guid!("48ecb431-fb72-45c0-a922-f458fe040bd5");
    /// The EDID is only for a monitor that has none.
    pub const DONT_OVERRIDE: u32 = 1;
}

/// What the handle has its interfaces in. Never freed: programs may keep the pointers.
#[repr(C)]
struct Object {
    protocol: GraphicsOutputProtocol,
    mode: GraphicsOutputProtocolMode,
    info: GraphicsOutputModeInformation,
    discovered: EdidDiscoveredProtocol,
    active: EdidDiscoveredProtocol,
    path: DevicePathBuf,
    display: SharedDisplay,
}

/// Puts the adapter into its preferred mode and makes a handle with the display's protocols.
pub(crate) fn install(path: &DevicePath, adapter: Box<dyn Adapter>) -> Result<(Handle, SharedDisplay)> {
    let display = Display::start(adapter)?;
    let edid: &'static [u8] = display.edid().to_vec().leak();
    let display = Rc::new(RefCell::new(display));
    let object = Box::into_raw(Box::new(Object {
        protocol: GraphicsOutputProtocol { query_mode, set_mode, blt, mode: ptr::null() },
        mode: GraphicsOutputProtocolMode::default(),
        info: GraphicsOutputModeInformation::default(),
        discovered: of_edid(edid),
        active: of_edid(edid),
        path: DevicePathBuf::from(path),
        display: display.clone(),
    }));
    // SAFETY: just made, and nobody else knows it yet; `mode` points into it.
    unsafe { (*object).protocol.mode = &raw const (*object).mode };
    display.try_borrow_mut().map_err(|_| Status::DEVICE_ERROR)?.observe(Box::new(move |number, mode| {
        // SAFETY: objects are never freed; whoever reads these fields meanwhile does so through a pointer too.
        unsafe {
            (&raw mut (*object).mode.mode).write(number as u32);
            (&raw mut (*object).mode.frame_buffer_size).write(mode.size());
            (&raw mut (*object).info).write(information(&mode));
        }
    }));
    let mode = {
        let display = display.borrow();
        GraphicsOutputProtocolMode {
            max_mode: display.modes().len() as u32,
            mode: display.number() as u32,
            // SAFETY: only the address is taken.
            info: unsafe { &raw const (*object).info },
            size_of_info: size_of::<GraphicsOutputModeInformation>(),
            frame_buffer_base: display.address(),
            frame_buffer_size: display.mode().size(),
        }
    };
    // SAFETY: as above.
    let path = unsafe {
        (&raw mut (*object).mode).write(mode);
        (&raw mut (*object).info).write(information(&display.borrow().mode()));
        (*object).path.as_bytes().as_ptr().cast_mut()
    };
    let mut interfaces =
        alloc::vec![(DevicePathProtocol::GUID, path.cast::<c_void>()), (GraphicsOutputProtocol::GUID, object.cast()),];
    if !edid.is_empty() {
        // SAFETY: only the address is taken.
        interfaces.push((EdidDiscoveredProtocol::GUID, unsafe { &raw mut (*object).discovered }.cast()));
    }
    let handle = api::install_protocols(None, &interfaces)?;
    // Only now there is a handle that the platform can be asked about.
    if let Some(active) = active_edid(handle, edid)? {
        // SAFETY: nobody knows this field yet.
        unsafe { (&raw mut (*object).active).write(active) };
        // SAFETY: only the address is taken.
        api::install_protocol(Some(handle), &EDID_ACTIVE, unsafe { &raw mut (*object).active }.cast())?;
    }
    Ok((handle, display))
}

const fn of_edid(edid: &'static [u8]) -> EdidDiscoveredProtocol {
    let pointer = if edid.is_empty() { ptr::null() } else { edid.as_ptr() };
    EdidDiscoveredProtocol { size_of_edid: edid.len() as u32, edid: pointer }
}

/// The EDID that is used for the monitor behind `handle`: the platform's if it has one, else the monitor's own.
fn active_edid(handle: Handle, discovered: &'static [u8]) -> Result<Option<EdidDiscoveredProtocol>> {
    let own = (!discovered.is_empty()).then(|| of_edid(discovered));
    let Ok(interface) = api::locate_protocol(&EdidOverrideProtocol::GUID) else { return Ok(own) };
    let (mut attributes, mut size, mut edid) = (0, 0, ptr::null_mut());
    let interface = interface.cast::<EdidOverrideProtocol>();
    if interface.is_null() {
        return Ok(own);
    }
    // SAFETY: what is installed under this GUID is this protocol.
    let answer = unsafe { ((*interface).get_edid)(interface, &handle, &mut attributes, &mut size, &mut edid) };
    let weak = attributes & EdidOverrideProtocol::DONT_OVERRIDE != 0;
    Ok(match u32::try_from(size) {
        Ok(size @ 1..) if answer == Status::SUCCESS && !edid.is_null() && !(weak && own.is_some()) => {
            Some(EdidDiscoveredProtocol { size_of_edid: size, edid })
        }
        _ => own,
    })
}

/// A mode as the protocol describes it (UEFI 2.10 §12.9.1).
fn information(mode: &Mode) -> GraphicsOutputModeInformation {
    let (pixel_format, pixel_information) = match mode.format {
        PixelFormat::Bgrx32 => {
            (GraphicsPixelFormat::PIXEL_BLUE_GREEN_RED_RESERVED_8_BIT_PER_COLOR, PixelBitmask::default())
        }
        // The highest bit of the masks tells the size of a pixel.
        PixelFormat::Bgr24 => (
            GraphicsPixelFormat::PIXEL_BIT_MASK,
            PixelBitmask { red: 0x00FF_0000, green: 0x0000_FF00, blue: 0x0000_00FF, reserved: 0 },
        ),
        PixelFormat::Rgb565 => (
            GraphicsPixelFormat::PIXEL_BIT_MASK,
            PixelBitmask { red: 0xF800, green: 0x07E0, blue: 0x001F, reserved: 0 },
        ),
    };
    GraphicsOutputModeInformation {
        version: 0,
        horizontal_resolution: mode.width as u32,
        vertical_resolution: mode.height as u32,
        pixel_format,
        pixel_information,
        pixels_per_scan_line: mode.stride as u32,
    }
}

/// Uses the display behind an interface.
///
/// # Safety
/// `this` is null or the interface of an [`Object`].
unsafe fn with<R>(this: *const GraphicsOutputProtocol, f: impl FnOnce(&mut Display) -> Result<R>) -> Result<R> {
    if this.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    api::at_tpl(Tpl::NOTIFY, || {
        // SAFETY: by contract; the object is never freed, and this field never written.
        let display = unsafe { &(*this.cast::<Object>()).display };
        // In use only for a caller from above the level at which displays may be used.
        f(&mut *display.try_borrow_mut().map_err(|_| Status::DEVICE_ERROR)?)
    })
}

unsafe extern "efiapi" fn query_mode(
    this: *const GraphicsOutputProtocol,
    number: u32,
    size: *mut usize,
    info: *mut *mut GraphicsOutputModeInformation,
) -> Status {
    if size.is_null() || info.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for `this`.
    let mode =
        unsafe { with(this, |display| display.modes().get(number as usize).copied().ok_or(Status::INVALID_PARAMETER)) };
    let length = size_of::<GraphicsOutputModeInformation>();
    status(mode.and_then(|mode| {
        let copy = allocate_pool_in(&CORE, MemoryType::BOOT_SERVICES_DATA, length)?;
        let copy = copy.cast::<GraphicsOutputModeInformation>().as_ptr();
        // SAFETY: fresh memory of this size, aligned to 16 bytes; not null, and variables of the caller.
        unsafe {
            copy.write(information(&mode));
            size.write(length);
            info.write(copy);
        }
        Ok(())
    }))
}

unsafe extern "efiapi" fn set_mode(this: *mut GraphicsOutputProtocol, number: u32) -> Status {
    // SAFETY: the caller answers for `this`.
    status(unsafe {
        with(this, |display| {
            if number as usize >= display.modes().len() {
                return Err(Status::UNSUPPORTED);
            }
            display.touch();
            Ok(display.set_mode(number as usize)?)
        })
    })
}

unsafe extern "efiapi" fn blt(
    this: *mut GraphicsOutputProtocol,
    buffer: *mut GraphicsOutputBltPixel,
    operation: GraphicsOutputBltOperation,
    source_x: usize,
    source_y: usize,
    destination_x: usize,
    destination_y: usize,
    width: usize,
    height: usize,
    delta: usize,
) -> Status {
    let area = Area { source: (source_x, source_y), target: (destination_x, destination_y), width, height };
    // SAFETY: the caller answers for `this`, and for the buffer as far as the transfer reaches.
    status(unsafe { with(this, |display| transfer(display, buffer.cast(), operation, &area, delta)) })
}

/// # Safety
/// `buffer` is null or has all the pixels that the transfer reads or writes.
unsafe fn transfer(
    display: &mut Display,
    buffer: *mut u8,
    operation: GraphicsOutputBltOperation,
    area: &Area,
    delta: usize,
) -> Result<()> {
    // How much of the buffer is used, if `at` is where in it.
    let used = |at: (usize, usize)| {
        let line = blt::line_length(delta, area.width)?;
        blt::buffer_length(at, area.width, area.height, line).filter(|_| !buffer.is_null())
    };
    match operation {
        GraphicsOutputBltOperation::BLT_VIDEO_FILL => {
            if buffer.is_null() {
                return Err(Status::INVALID_PARAMETER);
            }
            let mut pixel = [0; PIXEL];
            // SAFETY: not null, and one pixel of the caller.
            unsafe { ptr::copy_nonoverlapping(buffer, pixel.as_mut_ptr(), PIXEL) };
            Ok(blt::fill(display, area, u32::from_le_bytes(pixel))?)
        }
        GraphicsOutputBltOperation::BLT_VIDEO_TO_BLT_BUFFER => {
            let length = used(area.target).ok_or(InvalidArea)?;
            // SAFETY: not null, and the caller says that it is as long.
            let pixels = unsafe { slice::from_raw_parts_mut(buffer, length) };
            Ok(blt::to_buffer(display, area, Buffer::new(pixels, delta, area.width)?)?)
        }
        GraphicsOutputBltOperation::BLT_BUFFER_TO_VIDEO => {
            let length = used(area.source).ok_or(InvalidArea)?;
            // SAFETY: as above.
            let pixels = unsafe { slice::from_raw_parts(buffer.cast_const(), length) };
            Ok(blt::to_video(display, area, &Buffer::new(pixels, delta, area.width)?)?)
        }
        GraphicsOutputBltOperation::BLT_VIDEO_TO_VIDEO => Ok(blt::within_video(display, area)?),
        _ => Err(Status::INVALID_PARAMETER),
    }
}

impl From<InvalidArea> for Status {
    fn from(_: InvalidArea) -> Self {
        Self::INVALID_PARAMETER
    }
}

impl From<AdapterError> for Status {
    fn from(_: AdapterError) -> Self {
        Self::DEVICE_ERROR
    }
}

#[cfg(test)]
mod tests;
