//! Protocol handler services (UEFI 2.10 §7.3).
//!
//! The database [`Handles`](crate::handle::Handles) decides; what it asks for (signal these events, disconnect those
//! drivers) is done here once its lock is released.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::table::boot::{InterfaceType, MemoryType, OpenProtocolInformationEntry};
use uefi_raw::{Event, Guid, Handle, Status};

use super::CORE;
use super::driver::{connect, disconnect};
use super::misc::status;
use crate::core_state::Core;
use crate::device_path::DevicePath;
use crate::handle::{HandleError, Open, OpenAttributes, Opened};
use crate::{Result, api};

/// `EFI_LOCATE_SEARCH_TYPE` (UEFI 2.10 §7.3.7).
mod search {
    pub const ALL_HANDLES: i32 = 0;
    pub const BY_REGISTER_NOTIFY: i32 = 1;
    pub const BY_PROTOCOL: i32 = 2;
}

/// InstallProtocolInterface.
pub(super) unsafe extern "efiapi" fn install_protocol_interface(
    handle: *mut Handle,
    protocol: *const Guid,
    interface_type: InterfaceType,
    interface: *const c_void,
) -> Status {
    if handle.is_null() || protocol.is_null() || interface_type != InterfaceType::NATIVE_INTERFACE {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let (on, protocol) = unsafe { (handle.read(), protocol.read_unaligned()) };
    status(install(&CORE, some(on), &[(protocol, interface.cast_mut())]).map(|installed| {
        // SAFETY: not null; the caller answers for the rest.
        unsafe { handle.write(installed) }
    }))
}

/// ReinstallProtocolInterface.
pub(super) unsafe extern "efiapi" fn reinstall_protocol_interface(
    handle: Handle,
    protocol: *const Guid,
    old: *const c_void,
    new: *const c_void,
) -> Status {
    if protocol.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let protocol = unsafe { protocol.read_unaligned() };
    status(reinstall(&CORE, handle, &protocol, old.cast_mut(), new.cast_mut()))
}

/// UninstallProtocolInterface.
pub(super) unsafe extern "efiapi" fn uninstall_protocol_interface(
    handle: Handle,
    protocol: *const Guid,
    interface: *const c_void,
) -> Status {
    if protocol.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let protocol = unsafe { protocol.read_unaligned() };
    status(uninstall(&CORE, handle, &[(protocol, interface.cast_mut())]))
}

/// What [`variadic`](super::variadic) calls for InstallMultipleProtocolInterfaces: `arguments` is the area with the
/// handle's address, pairs of GUID and interface, and a null.
pub(super) unsafe extern "efiapi" fn install_multiple(arguments: *const *mut c_void) -> Status {
    // SAFETY: the shim hands on its caller's arguments.
    let handle: *mut Handle = unsafe { arguments.read() }.cast();
    if handle.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: as above; the list ends with a null as the service demands.
    let interfaces = unsafe { pairs(arguments.add(1)) };
    // SAFETY: not null; the caller answers for the rest.
    let on = unsafe { handle.read() };
    status(install_unique(&CORE, some(on), &interfaces).map(|installed| {
        // SAFETY: as above.
        unsafe { handle.write(installed) }
    }))
}

/// What [`variadic`](super::variadic) calls for UninstallMultipleProtocolInterfaces.
pub(super) unsafe extern "efiapi" fn uninstall_multiple(arguments: *const *mut c_void) -> Status {
    // SAFETY: the shim hands on its caller's arguments, and the list ends with a null as the service demands.
    let (handle, interfaces) = unsafe { (arguments.read(), pairs(arguments.add(1))) };
    // §7.3.19 knows one error only.
    status(uninstall(&CORE, handle, &interfaces).map_err(|_| Status::INVALID_PARAMETER))
}

/// RegisterProtocolNotify.
pub(super) unsafe extern "efiapi" fn register_protocol_notify(
    protocol: *const Guid,
    event: Event,
    registration: *mut *mut c_void,
) -> Status {
    if protocol.is_null() || event.is_null() || registration.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    unsafe { registration.write(CORE.handles.with(|handles| handles.register(&protocol.read_unaligned(), event))) };
    Status::SUCCESS
}

/// LocateHandle.
pub(super) unsafe extern "efiapi" fn locate_handle(
    search_type: i32,
    protocol: *const Guid,
    search_key: *const c_void,
    buffer_size: *mut usize,
    buffer: *mut Handle,
) -> Status {
    if buffer_size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller answers for its pointers.
    let found = match unsafe { locate(&CORE, search_type, protocol, search_key) } {
        Ok(found) => found,
        Err(error) => return error,
    };
    let size = size_of_val(found.as_slice());
    // SAFETY: not null; the caller answers for the rest.
    let room = unsafe { buffer_size.replace(size) };
    if room < size {
        return Status::BUFFER_TOO_SMALL;
    }
    if buffer.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller says that there is room for them.
    unsafe { buffer.copy_from_nonoverlapping(found.as_ptr(), found.len()) };
    taken(&CORE, search_type, search_key);
    Status::SUCCESS
}

/// LocateHandleBuffer.
pub(super) unsafe extern "efiapi" fn locate_handle_buffer(
    search_type: i32,
    protocol: *const Guid,
    search_key: *const c_void,
    count: *mut usize,
    buffer: *mut *mut Handle,
) -> Status {
    if count.is_null() || buffer.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null, and the caller answers for its pointers.
    unsafe {
        count.write(0);
        buffer.write(ptr::null_mut());
    }
    // SAFETY: the caller answers for its pointers.
    let found = unsafe { locate(&CORE, search_type, protocol, search_key) };
    status(found.and_then(|found| pool_copy(&found).map(|copy| (copy, found.len()))).map(|(copy, length)| {
        taken(&CORE, search_type, search_key);
        // SAFETY: not null.
        unsafe {
            count.write(length);
            buffer.write(copy);
        }
    }))
}

/// LocateProtocol.
pub(super) unsafe extern "efiapi" fn locate_protocol(
    protocol: *const Guid,
    registration: *const c_void,
    interface: *mut *mut c_void,
) -> Status {
    if protocol.is_null() || interface.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let protocol = unsafe { protocol.read_unaligned() };
    let found = CORE.handles.with(|handles| {
        if registration.is_null() {
            return handles.instances(&protocol).first().map(|(_, interface)| *interface);
        }
        let (_, interface) = handles.peek_new(registration).ok()?;
        handles.take_new(registration);
        Some(interface)
    });
    // SAFETY: not null.
    unsafe { interface.write(found.unwrap_or(ptr::null_mut())) };
    if found.is_some() { Status::SUCCESS } else { Status::NOT_FOUND }
}

/// LocateDevicePath.
pub(super) unsafe extern "efiapi" fn locate_device_path(
    protocol: *const Guid,
    device_path: *mut *const DevicePathProtocol,
    device: *mut Handle,
) -> Status {
    if protocol.is_null() || device_path.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let (protocol, path) = unsafe { (protocol.read_unaligned(), device_path.read()) };
    if path.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null, and a device path (the caller).
    let Ok(path) = (unsafe { DevicePath::from_ptr(path) }) else { return Status::INVALID_PARAMETER };
    status(locate_path(&CORE, &protocol, path).and_then(|(found, remaining)| {
        if device.is_null() {
            return Err(Status::INVALID_PARAMETER);
        }
        // SAFETY: not null.
        unsafe {
            device.write(found);
            device_path.write(remaining.as_ptr());
        }
        Ok(())
    }))
}

/// HandleProtocol.
pub(super) unsafe extern "efiapi" fn handle_protocol(
    handle: Handle,
    protocol: *const Guid,
    interface: *mut *mut c_void,
) -> Status {
    if protocol.is_null() || interface.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let protocol = unsafe { protocol.read_unaligned() };
    let found = CORE.handles.with(|handles| handles.handle_protocol(handle, &protocol));
    // SAFETY: not null.
    unsafe { interface.write(found.unwrap_or(ptr::null_mut())) };
    status(found.map(drop).map_err(of_open))
}

/// OpenProtocol.
pub(super) unsafe extern "efiapi" fn open_protocol(
    handle: Handle,
    protocol: *const Guid,
    interface: *mut *mut c_void,
    agent: Handle,
    controller: Handle,
    attributes: u32,
) -> Status {
    let attributes = OpenAttributes::from_bits_retain(attributes);
    let wants_interface = attributes != OpenAttributes::TEST_PROTOCOL;
    if protocol.is_null() || (wants_interface && interface.is_null()) {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let protocol = unsafe { protocol.read_unaligned() };
    let opened = open(&CORE, handle, &protocol, agent, controller, attributes);
    let given = match opened {
        Ok(found) => Some(found),
        Err(Status::UNSUPPORTED) => Some(ptr::null_mut()),
        // The driver that has it open already gets it again.
        Err(Status::ALREADY_STARTED) => CORE.handles.with(|handles| handles.interface(handle, &protocol).ok()),
        Err(_) => None,
    };
    if let Some(given) = given.filter(|_| wants_interface) {
        // SAFETY: not null.
        unsafe { interface.write(given) };
    }
    status(opened.map(drop))
}

/// CloseProtocol.
pub(super) unsafe extern "efiapi" fn close_protocol(
    handle: Handle,
    protocol: *const Guid,
    agent: Handle,
    controller: Handle,
) -> Status {
    if protocol.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let protocol = unsafe { protocol.read_unaligned() };
    status(CORE.handles.with(|handles| handles.close(handle, &protocol, agent, controller)))
}

/// OpenProtocolInformation.
pub(super) unsafe extern "efiapi" fn open_protocol_information(
    handle: Handle,
    protocol: *const Guid,
    entries: *mut *mut OpenProtocolInformationEntry,
    count: *mut usize,
) -> Status {
    if protocol.is_null() || entries.is_null() || count.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller answers for the rest.
    let protocol = unsafe { protocol.read_unaligned() };
    let core_agent = CORE.images.with(|images| images.firmware());
    let opens = CORE.handles.with(|handles| handles.opens(handle, &protocol, core_agent));
    let opens = opens.map_err(Status::from).map(|opens| opens.into_iter().map(entry_of).collect::<Vec<_>>());
    status(opens.and_then(|opens| {
        let copy = pool_copy(&opens)?;
        // SAFETY: not null.
        unsafe {
            entries.write(copy);
            count.write(opens.len());
        }
        Ok(())
    }))
}

/// ProtocolsPerHandle.
pub(super) unsafe extern "efiapi" fn protocols_per_handle(
    handle: Handle,
    protocols: *mut *mut *const Guid,
    count: *mut usize,
) -> Status {
    if protocols.is_null() || count.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let found = CORE.handles.with(|handles| handles.protocols(handle)).map_err(Status::from);
    status(found.and_then(|found| {
        let copy = pool_copy(&found)?;
        // SAFETY: not null.
        unsafe {
            protocols.write(copy);
            count.write(found.len());
        }
        Ok(())
    }))
}

/// Installs interfaces on a handle, or on a new one, and tells those who registered for them.
pub(crate) fn install(core: &Core, handle: Option<Handle>, interfaces: &[(Guid, *mut c_void)]) -> Result<Handle> {
    let (handle, events) = core.handles.with(|handles| handles.install(handle, interfaces))?;
    signal(core, &events);
    Ok(handle)
}

/// The same, refusing a device path that another handle has already (UEFI 2.10 §7.3.18).
pub(crate) fn install_unique(
    core: &Core,
    handle: Option<Handle>,
    interfaces: &[(Guid, *mut c_void)],
) -> Result<Handle> {
    for (_, interface) in interfaces.iter().filter(|(guid, _)| *guid == DevicePathProtocol::GUID) {
        let interface = some(*interface).ok_or(Status::INVALID_PARAMETER)?;
        // SAFETY: not null, and who installs a device path answers for it.
        let path = unsafe { DevicePath::from_ptr(interface.cast_const().cast()) }?;
        if device_paths(core, &DevicePathProtocol::GUID).iter().any(|(_, other)| *other == path) {
            return Err(Status::ALREADY_STARTED);
        }
    }
    install(core, handle, interfaces)
}

/// Disconnects the drivers that use the interfaces and uninstalls them. If that cannot be done all stay, and the drivers
/// are connected again.
pub(crate) fn uninstall(core: &Core, handle: Handle, interfaces: &[(Guid, *mut c_void)]) -> Result<()> {
    let mut disconnected = false;
    let disconnections = interfaces.iter().try_for_each(|(guid, interface)| {
        disconnected |= disconnect_users(core, handle, guid, *interface)?;
        Ok(())
    });
    let result = disconnections
        .and_then(|()| core.handles.with(|handles| handles.uninstall(handle, interfaces)).map_err(Status::from));
    if result.is_err() && disconnected {
        reconnect(core, handle);
    }
    result
}

/// Disconnects the drivers that use the interface, replaces it, tells those who registered for it, and connects again.
pub(crate) fn reinstall(core: &Core, handle: Handle, guid: &Guid, old: *mut c_void, new: *mut c_void) -> Result<()> {
    core.handles.with(|handles| handles.drivers_using(handle, guid, old))?;
    let result = disconnect_users(core, handle, guid, old)
        .and_then(|_| core.handles.with(|handles| handles.reinstall(handle, guid, old, new)).map_err(Status::from));
    if let Ok(events) = &result {
        signal(core, events);
    }
    reconnect(core, handle);
    result.map(drop)
}

/// Opens a protocol; for an exclusive open the drivers that have it are disconnected first.
pub(crate) fn open(
    core: &Core,
    handle: Handle,
    guid: &Guid,
    agent: Handle,
    controller: Handle,
    attributes: OpenAttributes,
) -> Result<*mut c_void> {
    let open = || core.handles.with(|handles| handles.open(handle, guid, agent, controller, attributes));
    match open().map_err(of_open)? {
        Opened::Interface(interface) => return Ok(interface),
        Opened::DisconnectFirst(drivers) => {
            for driver in drivers {
                disconnect(core, handle, Some(driver), None).map_err(|_| Status::ACCESS_DENIED)?;
            }
        }
    }
    match open().map_err(of_open)? {
        Opened::Interface(interface) => Ok(interface),
        Opened::DisconnectFirst(_) => Err(Status::ACCESS_DENIED),
    }
}

/// The handle with `guid` whose device path is the longest that `path` begins with, and what remains of `path`.
pub(crate) fn locate_path<'a>(core: &Core, guid: &Guid, path: &'a DevicePath) -> Result<(Handle, &'a DevicePath)> {
    device_paths(core, guid)
        .into_iter()
        .filter_map(|(handle, device)| path.strip_prefix(device).map(|remaining| (handle, remaining)))
        // The first of equals, as the database orders them.
        .reduce(|best, next| if next.1.as_bytes().len() < best.1.as_bytes().len() { next } else { best })
        .ok_or(Status::NOT_FOUND)
}

/// Uninstalling is refused, and reinstalling comes with it: what drivers were asked to let go of is offered to them again.
fn reconnect(core: &Core, handle: Handle) {
    // Nobody may want it: not an error.
    let _ = connect(core, handle, &[], None, true);
}

/// Disconnects the drivers that have an interface open by driver. Returns whether there were any.
fn disconnect_users(core: &Core, handle: Handle, guid: &Guid, interface: *mut c_void) -> Result<bool> {
    let users = || core.handles.with(|handles| handles.drivers_using(handle, guid, interface));
    let drivers = users()?;
    for driver in &drivers {
        disconnect(core, handle, Some(*driver), None).map_err(|_| Status::ACCESS_DENIED)?;
    }
    // A driver that stays although its Stop succeeded would only be asked in vain again.
    if users()?.is_empty() { Ok(!drivers.is_empty()) } else { Err(Status::ACCESS_DENIED) }
}

fn signal(core: &Core, events: &[Event]) {
    for event in events {
        // It may have been closed since; nobody waits for it then.
        let _ = api::event::signal_in(core, *event);
    }
}

/// Device paths of the handles that have protocol `guid`.
fn device_paths(core: &Core, guid: &Guid) -> Vec<(Handle, &'static DevicePath)> {
    let found: Vec<_> = core.handles.with(|handles| {
        let with_guid = handles.instances(guid).iter();
        with_guid.filter_map(|(h, _)| Some((*h, handles.interface(*h, &DevicePathProtocol::GUID).ok()?))).collect()
    });
    let path = |(handle, interface): (Handle, *mut c_void)| {
        // SAFETY: who installed it answers for it as long as it is installed, and this function's callers keep the
        // borrow no longer than their own call.
        let path = unsafe { DevicePath::from_ptr(some(interface)?.cast_const().cast()) };
        path.ok().map(|path| (handle, path))
    };
    found.into_iter().filter_map(path).collect()
}

/// The handles that a search finds; those new to a registration stay new until [`taken`].
///
/// # Safety
/// `protocol` is null or points to a GUID.
unsafe fn locate(
    core: &Core,
    search_type: i32,
    protocol: *const Guid,
    search_key: *const c_void,
) -> Result<Vec<Handle>> {
    let found = match search_type {
        search::ALL_HANDLES => core.handles.with(|handles| handles.all()),
        search::BY_REGISTER_NOTIFY if !search_key.is_null() => {
            let (handle, _) = core.handles.with(|handles| handles.peek_new(search_key))?;
            alloc::vec![handle]
        }
        search::BY_PROTOCOL if !protocol.is_null() => {
            // SAFETY: points to a GUID.
            let protocol = unsafe { protocol.read_unaligned() };
            core.handles.with(|handles| handles.instances(&protocol).iter().map(|(handle, _)| *handle).collect())
        }
        _ => return Err(Status::INVALID_PARAMETER),
    };
    if found.is_empty() { Err(Status::NOT_FOUND) } else { Ok(found) }
}

/// The caller has received what [`locate`] found.
fn taken(core: &Core, search_type: i32, search_key: *const c_void) {
    if search_type == search::BY_REGISTER_NOTIFY {
        core.handles.with(|handles| handles.take_new(search_key));
    }
}

/// A copy in pool memory, which the caller of the service frees.
fn pool_copy<T>(items: &[T]) -> Result<*mut T> {
    let copy: *mut T =
        api::allocate_pool(MemoryType::BOOT_SERVICES_DATA, size_of_val(items).max(size_of::<T>()))?.as_ptr().cast();
    // SAFETY: the pool gives memory aligned to 8 and of this size; no type that is copied here needs more.
    unsafe { copy.copy_from_nonoverlapping(items.as_ptr(), items.len()) };
    Ok(copy)
}

/// Pairs of GUID and interface up to the null.
///
/// # Safety
/// `arguments` points to such a list.
unsafe fn pairs(mut arguments: *const *mut c_void) -> Vec<(Guid, *mut c_void)> {
    let mut pairs = Vec::new();
    loop {
        // SAFETY: within the list.
        let guid: *const Guid = unsafe { arguments.read() }.cast();
        if guid.is_null() {
            return pairs;
        }
        // SAFETY: a GUID is followed by an interface, and that by the next GUID or the null.
        unsafe {
            pairs.push((guid.read_unaligned(), arguments.add(1).read()));
            arguments = arguments.add(2);
        }
    }
}

/// HandleProtocol and OpenProtocol have a status of their own for a protocol that is not there.
fn of_open(error: HandleError) -> Status {
    match error {
        HandleError::NoSuchProtocol => Status::UNSUPPORTED,
        other => other.into(),
    }
}

fn entry_of(open: Open) -> OpenProtocolInformationEntry {
    OpenProtocolInformationEntry {
        agent_handle: open.agent,
        controller_handle: open.controller,
        attributes: open.attributes.bits(),
        open_count: open.count,
    }
}

fn some(pointer: *mut c_void) -> Option<*mut c_void> {
    (!pointer.is_null()).then_some(pointer)
}
