//! Handles and protocols for our own code. The services are those of UEFI 2.10 §7.3, without a word more said here.

use alloc::vec::Vec;
use core::ffi::c_void;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::{Guid, Handle, Status};

use crate::Result;
use crate::abi::{CORE, handle};
use crate::device_path::{DevicePath, DevicePathBuf};
use crate::handle::{HandleError, OpenAttributes};

/// Installs one interface on `handle`, or on a new handle.
pub fn install_protocol(to: Option<Handle>, protocol: &Guid, interface: *mut c_void) -> Result<Handle> {
    handle::install(&CORE, to, &[(*protocol, interface)])
}

/// Installs several interfaces, all or none. `ALREADY_STARTED` if one is a device path that another handle has.
pub fn install_protocols(to: Option<Handle>, interfaces: &[(Guid, *mut c_void)]) -> Result<Handle> {
    handle::install_unique(&CORE, to, interfaces)
}

/// Uninstalls one interface; drivers that use it are disconnected. `ACCESS_DENIED` if it stays in use.
pub fn uninstall_protocol(from: Handle, protocol: &Guid, interface: *mut c_void) -> Result<()> {
    handle::uninstall(&CORE, from, &[(*protocol, interface)])
}

/// Uninstalls several interfaces, all or none.
pub fn uninstall_protocols(from: Handle, interfaces: &[(Guid, *mut c_void)]) -> Result<()> {
    handle::uninstall(&CORE, from, interfaces)
}

/// The interface of a protocol, with nothing written down about who uses it. `UNSUPPORTED` if the handle does not have it.
pub fn protocol(of: Handle, protocol: &Guid) -> Result<*mut c_void> {
    CORE.handles.with(|handles| handles.interface(of, protocol)).map_err(|error| match error {
        HandleError::NoSuchProtocol => Status::UNSUPPORTED,
        other => other.into(),
    })
}

/// Opens a protocol. `controller` may be null where the attributes allow it.
pub fn open_protocol(
    of: Handle,
    protocol: &Guid,
    agent: Handle,
    controller: Handle,
    attributes: OpenAttributes,
) -> Result<*mut c_void> {
    handle::open(&CORE, of, protocol, agent, controller, attributes)
}

/// Closes what [`open_protocol`] opened.
pub fn close_protocol(of: Handle, protocol: &Guid, agent: Handle, controller: Handle) -> Result<()> {
    Ok(CORE.handles.with(|handles| handles.close(of, protocol, agent, controller))?)
}

/// The handles that have a protocol, in order of installation.
pub fn handles_with(protocol: &Guid) -> Vec<Handle> {
    CORE.handles.with(|handles| handles.instances(protocol).iter().map(|(handle, _)| *handle).collect())
}

/// All handles, in the order in which they were made.
pub fn all_handles() -> Vec<Handle> {
    CORE.handles.with(|handles| handles.all())
}

/// The first interface of a protocol on any handle.
pub fn locate_protocol(protocol: &Guid) -> Result<*mut c_void> {
    let first = CORE.handles.with(|handles| handles.instances(protocol).first().map(|(_, interface)| *interface));
    first.ok_or(Status::NOT_FOUND)
}

/// The handle with `protocol` whose device path is the longest that `path` begins with, and what remains of `path`.
pub fn locate_device_path<'a>(protocol: &Guid, path: &'a DevicePath) -> Result<(Handle, &'a DevicePath)> {
    handle::locate_path(&CORE, protocol, path)
}

/// The device path of a handle.
pub fn device_path(of: Handle) -> Result<DevicePathBuf> {
    let interface = protocol(of, &DevicePathProtocol::GUID)?;
    if interface.is_null() {
        return Err(Status::UNSUPPORTED);
    }
    // SAFETY: not null, and installed as a device path; copied before anybody can take it away.
    Ok(alloc::borrow::ToOwned::to_owned(unsafe { DevicePath::from_ptr(interface.cast_const().cast()) }?))
}
