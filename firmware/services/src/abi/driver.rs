//! Driver model services (UEFI 2.10 §7.3.12, §7.3.13), and the firmware's own drivers as driver bindings.
//!
//! Which driver is asked, and in which order, is [`crate::handle::driver`]; here they are called, without any lock.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_void};
use core::ptr;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::driver::{ComponentName2Protocol, DriverBindingProtocol};
use uefi_raw::{Boolean, Guid, Handle, Status, guid};

use super::CORE;
use super::handle::install;
use super::misc::status;
use crate::Result;
use crate::core_state::Core;
use crate::device_path::DevicePath;
use crate::handle::driver::{Candidate, Driver, order};
use crate::lock::Lock;

/// ConnectController.
pub(super) unsafe extern "efiapi" fn connect_controller(
    controller: Handle,
    driver_images: *const Handle,
    remaining: *const DevicePathProtocol,
    recursive: Boolean,
) -> Status {
    // SAFETY: the caller says that they are null or a list that ends with null.
    let preferred = unsafe { handle_list(driver_images) };
    // SAFETY: the caller says that it is null or a device path.
    let remaining = match unsafe { path_or_none(remaining) } {
        Ok(remaining) => remaining,
        Err(error) => return error,
    };
    status(connect(&CORE, controller, &preferred, remaining, recursive.into()))
}

/// DisconnectController.
pub(super) unsafe extern "efiapi" fn disconnect_controller(
    controller: Handle,
    driver_image: Handle,
    child: Handle,
) -> Status {
    status(disconnect(&CORE, controller, some(driver_image), some(child)))
}

/// Connects the drivers that manage `controller`, and with `recursive` those of the whole tree below it. `preferred` are
/// driver images to ask first. `NOT_FOUND` if no driver starts.
pub(crate) fn connect(
    core: &Core,
    controller: Handle,
    preferred: &[Handle],
    remaining: Option<&DevicePath>,
    recursive: bool,
) -> Result<()> {
    connect_tree(core, controller, preferred, remaining, recursive, &mut Vec::new())
}

/// Disconnects drivers from `controller`: one or all, from one child or altogether (UEFI 2.10 §7.3.13).
pub(crate) fn disconnect(core: &Core, controller: Handle, driver: Option<Handle>, child: Option<Handle>) -> Result<()> {
    let exists = |handle: Handle| core.handles.with(|handles| handles.exists(handle));
    if !exists(controller) || !child.is_none_or(exists) {
        return Err(Status::INVALID_PARAMETER);
    }
    if let Some(driver) = driver {
        binding_of(core, driver).ok_or(Status::INVALID_PARAMETER)?;
    }
    let mut managing = core.handles.with(|handles| handles.drivers_managing(controller))?;
    managing.retain(|agent| driver.is_none_or(|driver| driver == *agent));
    let mut outcome = if managing.is_empty() { Ok(()) } else { Err(Status::NOT_FOUND) };
    for agent in managing {
        match stop(core, controller, agent, child) {
            Ok(()) => outcome = Ok(()),
            Err(error) if outcome == Err(Status::NOT_FOUND) => outcome = Err(error),
            Err(_) => {}
        }
    }
    outcome
}

/// Makes a driver an EFI_DRIVER_BINDING_PROTOCOL with EFI_COMPONENT_NAME2_PROTOCOL on a handle of its own. It stays for
/// good.
pub(crate) fn install_driver(core: &Core, driver: Box<dyn Driver>) -> Result<Handle> {
    let name = utf16(driver.name());
    let version = driver.version();
    let bound = Box::into_raw(Box::new(Bound {
        binding: DriverBindingProtocol {
            supported: binding_supported,
            start: binding_start,
            stop: binding_stop,
            version,
            image_handle: core.images.with(|images| images.firmware()),
            driver_binding_handle: ptr::null_mut(),
        },
        names: ComponentName2Protocol {
            get_driver_name,
            get_controller_name,
            supported_languages: LANGUAGES.as_ptr().cast(),
        },
        name,
        controller_names: Lock::new("controller names", Vec::new()),
        driver,
    }));
    // `this` of the functions leads to the whole structure, so both pointers are made of the whole structure.
    // SAFETY: the structure is never freed, and not visible to anybody yet.
    let names = (ComponentName2Protocol::GUID, unsafe { &raw mut (*bound).names }.cast());
    // The handle has to be known before anybody can see the binding.
    let handle = install(core, None, &[names])?;
    // SAFETY: as above; nobody looks for the binding through the names.
    unsafe { (*bound).binding.driver_binding_handle = handle };
    install(core, Some(handle), &[(DriverBindingProtocol::GUID, bound.cast())])
}

fn connect_tree(
    core: &Core,
    controller: Handle,
    preferred: &[Handle],
    remaining: Option<&DevicePath>,
    recursive: bool,
    above: &mut Vec<Handle>,
) -> Result<()> {
    if !core.handles.with(|handles| handles.exists(controller)) {
        return Err(Status::INVALID_PARAMETER);
    }
    let result = connect_one(core, controller, preferred, remaining);
    if recursive {
        above.push(controller);
        let children = core.handles.with(|handles| handles.children(controller, None)).unwrap_or_default();
        for child in children {
            // Nothing but convention keeps a bus driver from making a parent its own grandchild.
            if !above.contains(&child) {
                // Whether a child finds a driver is not part of the result (§7.3.12).
                let _ = connect_tree(core, child, &[], None, true, above);
            }
        }
        above.pop();
    }
    result
}

fn connect_one(core: &Core, controller: Handle, preferred: &[Handle], remaining: Option<&DevicePath>) -> Result<()> {
    let mut asked_to_start = Vec::new();
    let mut started = false;
    let remaining_pointer = remaining.map_or(ptr::null(), DevicePath::as_ptr);
    // Once a driver has started, others may be supported that were not before, and new drivers may have come.
    loop {
        let mut images = preferred.to_vec();
        images.extend(overrides(core, controller));
        let candidates = order(&images, &bindings(core));
        let next = candidates.into_iter().filter(|c| !asked_to_start.contains(&c.driver)).find(|c| {
            // SAFETY: just seen installed; who installed it answers for it.
            is_installed(core, c)
                && unsafe { ((*c.driver).supported)(c.driver, controller, remaining_pointer) }.is_success()
        });
        let Some(next) = next else { break };
        asked_to_start.push(next.driver);
        // SAFETY: as above.
        started |= unsafe { ((*next.driver).start)(next.driver, controller, remaining_pointer) }.is_success();
    }
    if started || remaining.is_some_and(DevicePath::is_empty) { Ok(()) } else { Err(Status::NOT_FOUND) }
}

type Binding = *mut DriverBindingProtocol;

fn bindings(core: &Core) -> Vec<Candidate<Binding>> {
    let found = core.handles.with(|handles| handles.instances(&DriverBindingProtocol::GUID).to_vec());
    let candidate = |(binding, interface): (Handle, *mut c_void)| {
        let driver: Binding = interface.cast();
        // SAFETY: who installed it answers for it.
        let (image, version) = unsafe { ((*driver).image_handle, (*driver).version) };
        Candidate { binding, image, version, driver }
    };
    found.into_iter().filter(|(_, interface)| !interface.is_null()).map(candidate).collect()
}

/// A driver that was asked before may have taken this one away.
fn is_installed(core: &Core, candidate: &Candidate<Binding>) -> bool {
    let interface = core.handles.with(|handles| handles.interface(candidate.binding, &DriverBindingProtocol::GUID));
    interface == Ok(candidate.driver.cast())
}

fn binding_of(core: &Core, driver: Handle) -> Option<Binding> {
    let interface = core.handles.with(|handles| handles.interface(driver, &DriverBindingProtocol::GUID)).ok()?;
    some(interface).map(<*mut c_void>::cast)
}

/// Has `agent` destroy the child, or all children and then let go of the controller.
fn stop(core: &Core, controller: Handle, agent: Handle, child: Option<Handle>) -> Result<()> {
    let children = core.handles.with(|handles| handles.children(controller, Some(agent)))?;
    let stop = |children: &[Handle]| {
        let binding = binding_of(core, agent).ok_or(Status::INVALID_PARAMETER)?;
        let list = if children.is_empty() { ptr::null() } else { children.as_ptr() };
        // SAFETY: who installed the binding answers for it.
        let stopped = unsafe { ((*binding).stop)(binding, controller, children.len(), list) };
        // §7.3.13 has one error for a driver that cannot stop.
        if stopped.is_error() { Err(Status::DEVICE_ERROR) } else { Ok(()) }
    };
    match child {
        Some(child) if !children.contains(&child) => return Err(Status::NOT_FOUND),
        Some(child) => {
            stop(&[child])?;
            if children.len() > 1 {
                return Ok(());
            }
        }
        None if !children.is_empty() => stop(&children)?,
        None => {}
    }
    stop(&[])
}

/// EFI_PLATFORM_DRIVER_OVERRIDE_PROTOCOL (UEFI 2.10 §11.2).
#[repr(C)]
struct PlatformDriverOverride {
    get_driver: unsafe extern "efiapi" fn(*const Self, Handle, *mut Handle) -> Status,
    get_driver_path: *const c_void,
    driver_loaded: *const c_void,
}

impl PlatformDriverOverride {
    const GUID: Guid = guid!("6b30c738-a391-11d4-9a3b-0090273fc14d");
}

/// EFI_DRIVER_FAMILY_OVERRIDE_PROTOCOL (UEFI 2.10 §11.4).
#[repr(C)]
struct DriverFamilyOverride {
    get_version: unsafe extern "efiapi" fn(*const Self) -> u32,
}

impl DriverFamilyOverride {
    const GUID: Guid = guid!("b1ee129e-da36-4181-91f8-04a4923766a7");
}

/// EFI_BUS_SPECIFIC_DRIVER_OVERRIDE_PROTOCOL (UEFI 2.10 §11.3).
#[repr(C)]
struct BusSpecificDriverOverride {
    get_driver: unsafe extern "efiapi" fn(*const Self, *mut Handle) -> Status,
}

impl BusSpecificDriverOverride {
    const GUID: Guid = guid!("3bc1b285-8a15-4a82-aabf-4d7d13fb3265");
}

/// Longest list an override protocol is let to give: a broken one may never come to its end.
const MAX_OVERRIDES: usize = 64;

/// Driver images that the platform, a driver family or the bus driver want asked first, in this order.
fn overrides(core: &Core, controller: Handle) -> Vec<Handle> {
    let first = |guid| core.handles.with(|handles| handles.instances(guid).first().map(|(_, i)| *i)).and_then(some);
    let platform = first(&PlatformDriverOverride::GUID).map(<*mut c_void>::cast::<PlatformDriverOverride>);
    let mut images = platform.map_or_else(Vec::new, |platform| {
        // SAFETY: who installed it answers for it.
        driver_list(|image| unsafe { ((*platform).get_driver)(platform, controller, image) })
    });

    let families = core.handles.with(|handles| handles.instances(&DriverFamilyOverride::GUID).to_vec());
    let mut families: Vec<_> = families.into_iter().filter(|(_, interface)| !interface.is_null()).collect();
    families.sort_by_cached_key(|(_, interface)| {
        let family: *mut DriverFamilyOverride = interface.cast();
        // SAFETY: as above.
        core::cmp::Reverse(unsafe { ((*family).get_version)(family) })
    });
    images.extend(families.into_iter().map(|(handle, _)| handle));

    let bus = core.handles.with(|handles| handles.interface(controller, &BusSpecificDriverOverride::GUID));
    if let Some(bus) = bus.ok().and_then(some).map(<*mut c_void>::cast::<BusSpecificDriverOverride>) {
        // SAFETY: as above.
        images.extend(driver_list(|image| unsafe { ((*bus).get_driver)(bus, image) }));
    }
    images
}

/// The images that GetDriver of an override protocol gives, one after the other.
fn driver_list(get_driver: impl Fn(*mut Handle) -> Status) -> Vec<Handle> {
    let mut images = Vec::new();
    let mut image = ptr::null_mut();
    while images.len() < MAX_OVERRIDES && get_driver(&raw mut image).is_success() {
        images.push(image);
    }
    images
}

/// A [`Driver`] as two protocols. The binding comes first, so that its `this` leads back.
#[repr(C)]
struct Bound {
    binding: DriverBindingProtocol,
    names: ComponentName2Protocol,
    name: Vec<u16>,
    /// Names that were given out: their users have never heard of freeing them.
    controller_names: Lock<Vec<Box<[u16]>>>,
    driver: Box<dyn Driver>,
}

/// Languages of the names, RFC 4646.
const LANGUAGES: &CStr = c"en";

unsafe extern "efiapi" fn binding_supported(
    this: *const DriverBindingProtocol,
    controller: Handle,
    remaining: *const DevicePathProtocol,
) -> Status {
    // SAFETY: `this` is the binding of a `Bound`, which is never freed; the path is null or a device path.
    let (bound, remaining) = unsafe { (&*this.cast::<Bound>(), path_or_none(remaining)) };
    status(remaining.and_then(|remaining| bound.driver.supported(controller, remaining)))
}

unsafe extern "efiapi" fn binding_start(
    this: *const DriverBindingProtocol,
    controller: Handle,
    remaining: *const DevicePathProtocol,
) -> Status {
    // SAFETY: as in `binding_supported`.
    let (bound, remaining) = unsafe { (&*this.cast::<Bound>(), path_or_none(remaining)) };
    let handle = bound.binding.driver_binding_handle;
    let started = remaining.and_then(|remaining| bound.driver.start(handle, controller, remaining));
    if let Err(error) = started {
        log::debug!("{} does not start on {controller:p}: {error}", bound.driver.name());
    }
    status(started)
}

unsafe extern "efiapi" fn binding_stop(
    this: *const DriverBindingProtocol,
    controller: Handle,
    count: usize,
    children: *const Handle,
) -> Status {
    if count != 0 && children.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: as in `binding_supported`.
    let bound = unsafe { &*this.cast::<Bound>() };
    let children = if count == 0 {
        &[]
    } else {
        // SAFETY: not null, and the caller says how many there are.
        unsafe { core::slice::from_raw_parts(children, count) }
    };
    status(bound.driver.stop(bound.binding.driver_binding_handle, controller, children))
}

unsafe extern "efiapi" fn get_driver_name(
    this: *const ComponentName2Protocol,
    language: *const u8,
    name: *mut *const u16,
) -> Status {
    // SAFETY: the caller answers for its pointers.
    if let Err(error) = unsafe { check_language(language, name) } {
        return error;
    }
    // SAFETY: not null; `this` is part of a `Bound`, which is never freed.
    unsafe { name.write((*bound_of(this)).name.as_ptr()) };
    Status::SUCCESS
}

unsafe extern "efiapi" fn get_controller_name(
    this: *const ComponentName2Protocol,
    controller: Handle,
    child: Handle,
    language: *const u8,
    name: *mut *const u16,
) -> Status {
    // SAFETY: the caller answers for its pointers.
    if let Err(error) = unsafe { check_language(language, name) } {
        return error;
    }
    let exists = |handle: Handle| CORE.handles.with(|handles| handles.exists(handle));
    if !exists(controller) || !some(child).is_none_or(exists) {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: `this` is part of a `Bound`, which is never freed.
    let bound = unsafe { &*bound_of(this) };
    let Some(text) = bound.driver.controller_name(controller, some(child)) else { return Status::UNSUPPORTED };
    let text = utf16(&text).into_boxed_slice();
    let pointer = bound.controller_names.with(|names| {
        if let Some(known) = names.iter().find(|known| **known == text) {
            return known.as_ptr();
        }
        let pointer = text.as_ptr();
        names.push(text);
        pointer
    });
    // SAFETY: not null.
    unsafe { name.write(pointer) };
    Status::SUCCESS
}

fn bound_of(this: *const ComponentName2Protocol) -> *const Bound {
    this.wrapping_byte_sub(core::mem::offset_of!(Bound, names)).cast()
}

/// Names are in English only, of any country.
///
/// # Safety
/// `language` is null or a string that ends with null.
unsafe fn check_language(language: *const u8, name: *mut *const u16) -> Result<()> {
    if language.is_null() || name.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    // SAFETY: not null; the caller answers for the rest.
    let language = unsafe { CStr::from_ptr(language.cast::<c_char>()) }.to_bytes();
    let primary = language.split(|byte| *byte == b'-').next();
    if primary == Some(LANGUAGES.to_bytes()) { Ok(()) } else { Err(Status::UNSUPPORTED) }
}

/// # Safety
/// `path` is null or points to a device path that does not change during `'a`.
unsafe fn path_or_none<'a>(path: *const DevicePathProtocol) -> Result<Option<&'a DevicePath>> {
    if path.is_null() {
        return Ok(None);
    }
    // SAFETY: not null; the caller answers for the rest.
    Ok(Some(unsafe { DevicePath::from_ptr(path) }?))
}

/// # Safety
/// `list` is null or an array that ends with a null handle.
unsafe fn handle_list(list: *const Handle) -> Vec<Handle> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: up to the null the array is readable.
    (0..).map(|index| unsafe { list.add(index).read() }).take_while(|handle| !handle.is_null()).collect()
}

fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

fn some(handle: Handle) -> Option<Handle> {
    (!handle.is_null()).then_some(handle)
}
