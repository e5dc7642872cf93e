//! EFI_LOAD_FILE2_PROTOCOL (UEFI 2.10 §13.2) made of a [`FileSource`].

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use core::ffi::c_void;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::media::LoadFile2Protocol;
use uefi_raw::{Boolean, Guid, Handle, Status};

use super::gate::Gate;
use super::misc::{is_ours, status};
use crate::device_path::{DevicePath, DevicePathBuf};
use crate::file::FileSource;
use crate::{Result, api};

#[repr(C)]
struct Object {
    protocol: LoadFile2Protocol,
    path: DevicePathBuf,
    file: Gate<Box<dyn FileSource>>,
}

impl Object {
    /// # Safety
    /// `object` is an object.
    unsafe fn interfaces(object: *mut Self) -> [(Guid, *mut c_void); 2] {
        // SAFETY: by contract.
        let path = unsafe { &(*object).path }.as_bytes().as_ptr().cast_mut().cast();
        [(DevicePathProtocol::GUID, path), (LoadFile2Protocol::GUID, object.cast())]
    }
}

/// Makes a handle for a file.
pub(crate) fn install(path: &DevicePath, file: Box<dyn FileSource>) -> Result<Handle> {
    let protocol = LoadFile2Protocol { load_file };
    let object = Box::into_raw(Box::new(Object { protocol, path: path.to_owned(), file: Gate::new(file) }));
    // SAFETY: just made.
    let interfaces = unsafe { Object::interfaces(object) };
    api::install_protocols(None, &interfaces).inspect_err(|_| {
        // SAFETY: it was not installed, so nobody else knows it.
        drop(unsafe { Box::from_raw(object) });
    })
}

/// Takes back what [`install`] did; the file is dropped. `ACCESS_DENIED` if it stays in use.
pub(crate) fn uninstall(handle: Handle) -> Result<()> {
    let interface = api::protocol(handle, &LoadFile2Protocol::GUID)?.cast::<LoadFile2Protocol>();
    // SAFETY: what is installed under this GUID is this protocol.
    if interface.is_null() || !is_ours(unsafe { (*interface).load_file } as *const (), load_file as *const ()) {
        return Err(Status::UNSUPPORTED);
    }
    let object = interface.cast::<Object>();
    // SAFETY: made by `install`.
    api::uninstall_protocols(handle, &unsafe { Object::interfaces(object) })?;
    // SAFETY: made by `install`, and no longer installed.
    drop(unsafe { Box::from_raw(object) });
    Ok(())
}

/// The path is what remains behind the handle's own: nothing, as there is one file.
unsafe extern "efiapi" fn load_file(
    this: *mut LoadFile2Protocol,
    path: *const DevicePathProtocol,
    boot_policy: Boolean,
    size: *mut usize,
    buffer: *mut c_void,
) -> Status {
    if this.is_null() || path.is_null() || size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    if boot_policy.is_true() {
        return Status::UNSUPPORTED;
    }
    // SAFETY: made by `install`, and installed.
    let object = unsafe { &*this.cast_const().cast::<Object>() };
    let loaded = object.file.with(|file| {
        let length = file.size();
        // SAFETY: not null.
        let room = unsafe { size.replace(length) };
        if buffer.is_null() || room < length {
            return Err(Status::BUFFER_TOO_SMALL);
        }
        // SAFETY: not null, and the caller says that there is room.
        file.read(unsafe { core::slice::from_raw_parts_mut(buffer.cast(), length) })
    });
    status(loaded.and_then(|loaded| loaded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_path::Node;
    use crate::fake;
    use core::ptr;
    use uefi_raw::guid;

    #[test]
    fn a_file_is_loaded_in_two_calls_and_goes_with_its_handle() {
        fake::install();
        let node = Node::VendorMedia { guid: guid!("fa900b16-0001-4001-8001-000000000001"), data: Vec::new() };
        let path = DevicePathBuf::new().with(&node).unwrap();
        let handle = install(&path, Box::new(&b"content"[..])).unwrap();
        let (found, rest) = api::locate_device_path(&LoadFile2Protocol::GUID, &path).unwrap();
        assert_eq!(found, handle);
        let this = api::protocol(handle, &LoadFile2Protocol::GUID).unwrap().cast::<LoadFile2Protocol>();
        let mut buffer = [0u8; 16];
        let load = |policy: Boolean, size: &mut usize, buffer: *mut u8| {
            // SAFETY: the protocol is installed, and the buffer as long as the tests say.
            unsafe { ((*this).load_file)(this, rest.as_ptr(), policy, size, buffer.cast()) }
        };
        let mut size = 0;
        assert_eq!(load(Boolean::FALSE, &mut size, ptr::null_mut()), Status::BUFFER_TOO_SMALL);
        assert_eq!(size, 7);
        assert_eq!(load(Boolean::FALSE, &mut 6, buffer.as_mut_ptr()), Status::BUFFER_TOO_SMALL);
        let mut size = 16;
        assert_eq!(load(Boolean::FALSE, &mut size, buffer.as_mut_ptr()), Status::SUCCESS);
        assert_eq!(&buffer[..size], b"content");
        assert_eq!(load(Boolean::TRUE, &mut size, buffer.as_mut_ptr()), Status::UNSUPPORTED);
        uninstall(handle).unwrap();
        assert!(api::locate_device_path(&LoadFile2Protocol::GUID, &path).is_err());
    }
}
