//! EFI_HII_DATABASE_PROTOCOL and EFI_HII_STRING_PROTOCOL (UEFI 2.10 §34.3, §34.8), and an EFI_HII_CONFIG_ROUTING_PROTOCOL
//! (§35.4) without any configuration, which applications expect to find beside them.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::{mem, ptr, slice};

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::hii::config::HiiConfigRoutingProtocol;
use uefi_raw::protocol::hii::database::{
    HiiDatabaseNotifyFn, HiiDatabaseNotifyType, HiiDatabaseProtocol, HiiKeyboardLayout,
};
use uefi_raw::protocol::hii::font::FontInfo;
use uefi_raw::protocol::hii::string::HiiStringProtocol;
use uefi_raw::protocol::hii::{HiiHandle, HiiPackageListHeader};
use uefi_raw::{Char8, Char16, Guid, Handle, Status, guid};

use super::CORE;
use super::misc::status;
use super::text::{bytes, to_pool, units};
use crate::hii::package::{LIST_HEADER, MAX_LIST, PackageType};
use crate::hii::strings::{Font, StringId};
use crate::hii::{ALL_CHANGES, Due, Hii, HiiError, ListId};
use crate::{Result, api};

/// Signaled when the keyboard layout changes (UEFI 2.10 §34.8.11).
const SET_KEYBOARD_LAYOUT: Guid = guid!("14982a4f-b0ed-45b8-a811-5a7a9bc232df");

/// Installs the protocols on a handle of their own.
pub fn install() -> Result<Handle> {
    let interface = |of: *const c_void| of.cast_mut();
    api::install_protocols(
        None,
        &[
            (HiiDatabaseProtocol::GUID, interface((&raw const DATABASE).cast())),
            (HiiStringProtocol::GUID, interface((&raw const STRING).cast())),
            (HiiConfigRoutingProtocol::GUID, interface((&raw const CONFIG_ROUTING).cast())),
        ],
    )
}

static DATABASE: HiiDatabaseProtocol = HiiDatabaseProtocol {
    new_package_list,
    remove_package_list,
    update_package_list,
    list_package_lists,
    export_package_lists,
    // SAFETY: a function that may be null is passed as one that may not; null is what a caller must not give and may.
    register_package_notify: unsafe {
        mem::transmute::<RegisterPackageNotify<Option<HiiDatabaseNotifyFn>>, RegisterPackageNotify<HiiDatabaseNotifyFn>>(
            register_package_notify,
        )
    },
    unregister_package_notify,
    find_keyboard_layouts,
    get_keyboard_layout,
    set_keyboard_layout,
    get_package_list_handle,
};

static STRING: HiiStringProtocol =
    HiiStringProtocol { new_string, get_string, set_string, get_languages, get_secondary_languages };

static CONFIG_ROUTING: HiiConfigRoutingProtocol = HiiConfigRoutingProtocol {
    extract_config,
    export_config,
    route_config,
    block_to_config,
    config_to_block,
    get_alt_cfg,
};

unsafe extern "efiapi" fn new_package_list(
    _this: *const HiiDatabaseProtocol,
    list: *const HiiPackageListHeader,
    driver: Handle,
    handle: *mut HiiHandle,
) -> Status {
    if list.is_null() || handle.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let path = if driver.is_null() { None } else { api::device_path(driver).ok() };
    let path = path.as_ref().map(|path| path.as_bytes());
    // SAFETY: not null, and a package list, says the caller.
    let added = unsafe { package_list(list) }.and_then(|list| change(|hii| hii.add(list, driver.addr(), path)));
    status(added.map(|(id, due)| {
        // SAFETY: not null, and a variable of the caller.
        unsafe { handle.write(to_handle(id)) };
        deliver(due);
    }))
}

unsafe extern "efiapi" fn remove_package_list(_this: *const HiiDatabaseProtocol, handle: HiiHandle) -> Status {
    status(change(|hii| hii.remove(to_id(handle))).map(deliver))
}

unsafe extern "efiapi" fn update_package_list(
    _this: *const HiiDatabaseProtocol,
    handle: HiiHandle,
    list: *const HiiPackageListHeader,
) -> Status {
    if list.is_null() || handle.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null, and a package list, says the caller.
    let updated = unsafe { package_list(list) }.and_then(|list| change(|hii| hii.update(to_id(handle), list)));
    status(updated.map(deliver))
}

unsafe extern "efiapi" fn list_package_lists(
    _this: *const HiiDatabaseProtocol,
    kind: u8,
    guid: *const Guid,
    length: *mut usize,
    handles: *mut HiiHandle,
) -> Status {
    let kind = PackageType(kind);
    // A GUID belongs to packages of that type, and to no others.
    if length.is_null() || (kind == PackageType::GUID) == guid.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: null or a GUID of the caller.
    let guid = unsafe { optional_guid(guid) };
    let found: Vec<HiiHandle> = CORE.hii.with(|hii| hii.find(kind, guid.as_ref())).into_iter().map(to_handle).collect();
    if found.is_empty() {
        return Status::NOT_FOUND;
    }
    // SAFETY: `length` is a variable of the caller that says how large the array is.
    status(unsafe { copy_out(&found, length, handles) })
}

unsafe extern "efiapi" fn export_package_lists(
    _this: *const HiiDatabaseProtocol,
    handle: HiiHandle,
    size: *mut usize,
    buffer: *mut HiiPackageListHeader,
) -> Status {
    if size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let id = if handle.is_null() { None } else { Some(to_id(handle)) };
    status(change(|hii| hii.export(id)).and_then(|(list, due)| {
        // SAFETY: `size` is a variable of the caller that says how large the buffer is.
        unsafe { copy_out(&list, size, buffer.cast()) }?;
        deliver(due);
        Ok(())
    }))
}

/// RegisterPackageNotify with a notification function of type `F`.
type RegisterPackageNotify<F> = unsafe extern "efiapi" fn(
    *const HiiDatabaseProtocol,
    u8,
    *const Guid,
    F,
    HiiDatabaseNotifyType,
    *mut Handle,
) -> Status;

unsafe extern "efiapi" fn register_package_notify(
    _this: *const HiiDatabaseProtocol,
    kind: u8,
    guid: *const Guid,
    function: Option<HiiDatabaseNotifyFn>,
    changes: HiiDatabaseNotifyType,
    handle: *mut Handle,
) -> Status {
    let Some(function) = function else { return Status::INVALID_PARAMETER };
    let kind = PackageType(kind);
    if handle.is_null() || (kind == PackageType::GUID) == guid.is_null() || changes.0 & !ALL_CHANGES != 0 {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: null or a GUID of the caller.
    let guid = unsafe { optional_guid(guid) };
    let number = CORE.hii.with(|hii| hii.register(kind, guid, function as *const (), changes.0));
    // SAFETY: not null, and a variable of the caller.
    unsafe { handle.write(ptr::without_provenance_mut(number)) };
    Status::SUCCESS
}

unsafe extern "efiapi" fn unregister_package_notify(_this: *const HiiDatabaseProtocol, handle: Handle) -> Status {
    status(change(|hii| hii.unregister(handle.addr())))
}

unsafe extern "efiapi" fn find_keyboard_layouts(
    _this: *const HiiDatabaseProtocol,
    length: *mut u16,
    guids: *mut Guid,
) -> Status {
    if length.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let layouts = CORE.hii.with(|hii| hii.keyboard_layouts());
    // SAFETY: `length` is a variable of the caller that says how large the array is.
    status(unsafe { copy_out_short(&layouts, length, guids) })
}

unsafe extern "efiapi" fn get_keyboard_layout(
    _this: *const HiiDatabaseProtocol,
    guid: *const Guid,
    length: *mut u16,
    layout: *mut HiiKeyboardLayout,
) -> Status {
    if length.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: null or a GUID of the caller.
    let guid = unsafe { optional_guid(guid) };
    let found = change(|hii| hii.keyboard_layout(guid.as_ref()).map(<[u8]>::to_vec));
    // SAFETY: `length` is a variable of the caller that says how large the buffer is.
    status(found.and_then(|found| unsafe { copy_out_short(&found, length, layout.cast()) }))
}

unsafe extern "efiapi" fn set_keyboard_layout(_this: *const HiiDatabaseProtocol, guid: *const Guid) -> Status {
    // SAFETY: null or a GUID of the caller.
    let Some(guid) = (unsafe { optional_guid(guid) }) else { return Status::INVALID_PARAMETER };
    status(change(|hii| hii.set_keyboard_layout(&guid)).map(|()| api::signal_group(&SET_KEYBOARD_LAYOUT)))
}

unsafe extern "efiapi" fn get_package_list_handle(
    _this: *const HiiDatabaseProtocol,
    list: HiiHandle,
    driver: *mut Handle,
) -> Status {
    if driver.is_null() || list.is_null() {
        return Status::INVALID_PARAMETER;
    }
    status(change(|hii| hii.driver(to_id(list))).map_err(|_| Status::INVALID_PARAMETER).map(|found| {
        // SAFETY: not null, and a variable of the caller.
        unsafe { driver.write(ptr::without_provenance_mut(found)) }
    }))
}

unsafe extern "efiapi" fn new_string(
    _this: *const HiiStringProtocol,
    list: HiiHandle,
    id: *mut StringId,
    language: *const Char8,
    language_name: *const Char16,
    text: *const Char16,
    font: *const FontInfo,
) -> Status {
    if id.is_null() || language.is_null() || text.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: strings and null or a font, says the caller.
    let (language, text, font) = unsafe { (bytes(language), units(text), font_argument(font)) };
    // SAFETY: a string, says the caller.
    let name = if language_name.is_null() { None } else { Some(unsafe { units(language_name) }) };
    let added = change(|hii| hii.add_string(to_id(list), &language, name.as_deref(), &text, font));
    // SAFETY: not null, and a variable of the caller.
    status(added.map(|added| unsafe { id.write(added) }))
}

unsafe extern "efiapi" fn get_string(
    _this: *const HiiStringProtocol,
    language: *const Char8,
    list: HiiHandle,
    id: StringId,
    text: *mut Char16,
    size: *mut usize,
    font: *mut *mut FontInfo,
) -> Status {
    if language.is_null() || size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: a string, says the caller.
    let language = unsafe { bytes(language) };
    let found = change(|hii| {
        hii.string(to_id(list), &language, id).map(|(mut text, font)| {
            text.push(0);
            (text, font.cloned())
        })
    });
    status(found.and_then(|(found, found_font)| {
        // SAFETY: `size` is a variable of the caller that says how large the buffer is.
        unsafe { copy_out(&found, size, text) }?;
        if !font.is_null() {
            // SAFETY: not null, and a variable of the caller.
            unsafe { font.write(found_font.map_or(ptr::null_mut(), |font| font_result(&font))) };
        }
        Ok(())
    }))
}

unsafe extern "efiapi" fn set_string(
    _this: *const HiiStringProtocol,
    list: HiiHandle,
    id: StringId,
    language: *const Char8,
    text: *const Char16,
    font: *const FontInfo,
) -> Status {
    if language.is_null() || text.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: strings and null or a font, says the caller.
    let (language, text, font) = unsafe { (bytes(language), units(text), font_argument(font)) };
    status(change(|hii| hii.set_string(to_id(list), &language, id, &text, font)))
}

unsafe extern "efiapi" fn get_languages(
    _this: *const HiiStringProtocol,
    list: HiiHandle,
    languages: *mut Char8,
    size: *mut usize,
) -> Status {
    if size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    status(change(|hii| hii.languages(to_id(list))).and_then(|mut found| {
        found.push(0);
        // SAFETY: `size` is a variable of the caller that says how large the buffer is.
        unsafe { copy_out(&found, size, languages) }
    }))
}

unsafe extern "efiapi" fn get_secondary_languages(
    _this: *const HiiStringProtocol,
    list: HiiHandle,
    language: *const Char8,
    languages: *mut Char8,
    size: *mut usize,
) -> Status {
    if size.is_null() || language.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: a string, says the caller.
    let language = unsafe { bytes(language) };
    status(change(|hii| hii.secondary_languages(to_id(list), &language)).and_then(|mut found| {
        found.push(0);
        // SAFETY: `size` is a variable of the caller that says how large the buffer is.
        unsafe { copy_out(&found, size, languages) }
    }))
}

unsafe extern "efiapi" fn extract_config(
    _this: *const HiiConfigRoutingProtocol,
    request: *const Char16,
    progress: *mut *const Char16,
    results: *mut *mut Char16,
) -> Status {
    if results.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: null or a variable of the caller.
    unsafe { nothing_found(request, progress) }
}

unsafe extern "efiapi" fn export_config(_this: *const HiiConfigRoutingProtocol, results: *mut *mut Char16) -> Status {
    if results.is_null() { Status::INVALID_PARAMETER } else { Status::NOT_FOUND }
}

unsafe extern "efiapi" fn route_config(
    _this: *const HiiConfigRoutingProtocol,
    configuration: *const Char16,
    progress: *mut *const Char16,
) -> Status {
    // SAFETY: null or a variable of the caller.
    unsafe { nothing_found(configuration, progress) }
}

unsafe extern "efiapi" fn block_to_config(
    _this: *const HiiConfigRoutingProtocol,
    request: *const Char16,
    _block: *const u8,
    _block_size: usize,
    _config: *mut *mut Char16,
    progress: *mut *const Char16,
) -> Status {
    // SAFETY: null or a variable of the caller.
    unsafe { nothing_found(request, progress) }
}

unsafe extern "efiapi" fn config_to_block(
    _this: *const HiiConfigRoutingProtocol,
    response: *const Char16,
    _block: *mut u8,
    _block_size: *mut usize,
    progress: *mut *const Char16,
) -> Status {
    // SAFETY: null or a variable of the caller.
    unsafe { nothing_found(response, progress) }
}

unsafe extern "efiapi" fn get_alt_cfg(
    _this: *const HiiConfigRoutingProtocol,
    response: *const Char16,
    _guid: *const Guid,
    _name: *const Char16,
    _path: *const DevicePathProtocol,
    _alt_cfg_id: *const Char16,
    result: *mut *mut Char16,
) -> Status {
    if response.is_null() || result.is_null() { Status::INVALID_PARAMETER } else { Status::NOT_FOUND }
}

/// No driver has a configuration, so nothing of a request is understood.
///
/// # Safety
/// `progress` is null or may be written.
unsafe fn nothing_found(request: *const Char16, progress: *mut *const Char16) -> Status {
    if progress.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null; the caller.
    unsafe { progress.write(request) };
    if request.is_null() { Status::INVALID_PARAMETER } else { Status::NOT_FOUND }
}

fn change<R>(f: impl FnOnce(&mut Hii) -> core::result::Result<R, HiiError>) -> Result<R> {
    CORE.hii.with(f).map_err(|error| {
        log::debug!("HII: {error}");
        error.into()
    })
}

/// Calls the notifications.
fn deliver(due: Vec<Due>) {
    for due in due {
        // SAFETY: registered as such a function.
        let function = unsafe { mem::transmute::<*const (), HiiDatabaseNotifyFn>(due.function) };
        let guid = due.guid.as_ref().map_or(ptr::null(), ptr::from_ref);
        let change = HiiDatabaseNotifyType(due.change as usize);
        // SAFETY: GUID and package live until the function returns; the rest is the promise of who registered it.
        let _ = unsafe { function(due.kind.0, guid, due.package.as_ptr().cast(), to_handle(due.list), change) };
    }
}

/// # Safety
/// `list` points to a header and to as many bytes as it says.
unsafe fn package_list<'a>(list: *const HiiPackageListHeader) -> Result<&'a [u8]> {
    // SAFETY: the caller.
    let length = unsafe { list.read_unaligned() }.package_length as usize;
    if !(LIST_HEADER..=MAX_LIST).contains(&length) {
        log::warn!("HII package list of {length} bytes");
        return Err(Status::INVALID_PARAMETER);
    }
    // SAFETY: the caller.
    Ok(unsafe { slice::from_raw_parts(list.cast(), length) })
}

/// # Safety
/// `font` is null or points to a font with its name.
unsafe fn font_argument(font: *const FontInfo) -> Option<Font> {
    if font.is_null() {
        return None;
    }
    // SAFETY: the caller; the name follows the other fields.
    unsafe {
        Some(Font {
            style: (&raw const (*font).font_style).cast::<u32>().read_unaligned(),
            size: (&raw const (*font).font_size).read_unaligned(),
            name: units((&raw const (*font).font_name).cast()),
        })
    }
}

fn font_result(font: &Font) -> *mut FontInfo {
    let mut bytes = font.style.to_le_bytes().to_vec();
    bytes.extend_from_slice(&font.size.to_le_bytes());
    bytes.extend(font.name.iter().chain(&[0]).flat_map(|unit| unit.to_le_bytes()));
    to_pool(&CORE, &bytes).cast()
}

/// # Safety
/// `guid` is null or points to a GUID.
unsafe fn optional_guid(guid: *const Guid) -> Option<Guid> {
    // SAFETY: the caller.
    if guid.is_null() { None } else { Some(unsafe { guid.read_unaligned() }) }
}

/// Copies `values` into a buffer of the caller's and says how many bytes they are.
///
/// # Errors
/// `BUFFER_TOO_SMALL`, `INVALID_PARAMETER` if it would be large enough, but is null.
///
/// # Safety
/// `size` may be written; `buffer` is null or has as many bytes as that says.
unsafe fn copy_out<T: Copy>(values: &[T], size: *mut usize, buffer: *mut T) -> Result<()> {
    let needed = size_of_val(values);
    // SAFETY: the caller.
    let room = unsafe { size.replace(needed) };
    if room < needed {
        return Err(Status::BUFFER_TOO_SMALL);
    }
    if buffer.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    // SAFETY: there is room. By bytes, for the buffer may not be aligned.
    unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(values.as_ptr().cast(), needed) };
    Ok(())
}

/// As [`copy_out`] with a length of 16 bits.
///
/// # Safety
/// As there.
unsafe fn copy_out_short<T: Copy>(values: &[T], length: *mut u16, buffer: *mut T) -> Result<()> {
    // SAFETY: the caller.
    let mut size = usize::from(unsafe { length.read() });
    // SAFETY: the caller.
    let result = unsafe { copy_out(values, &raw mut size, buffer) };
    // SAFETY: the caller.
    unsafe { length.write(u16::try_from(size).unwrap_or(u16::MAX)) };
    result
}

const fn to_handle(id: ListId) -> HiiHandle {
    ptr::without_provenance_mut(id.0)
}

fn to_id(handle: HiiHandle) -> ListId {
    ListId(handle.addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    fn list() -> Vec<u8> {
        let mut package = vec![0, 0, 0, PackageType::STRINGS.0, 49, 0, 0, 0, 49, 0, 0, 0];
        package.resize(44, 0);
        package.extend([1, 0, b'e', b'n', 0]);
        package.extend([0x14, b'H', 0, b'i', 0, 0, 0, 0]);
        package[0] = package.len() as u8;
        let mut list = vec![0x11; 16];
        list.extend((24 + package.len() as u32).to_le_bytes());
        list.extend(package);
        list.extend([4, 0, 0, PackageType::END.0]);
        list
    }

    /// What the UEFI Shell does: hand in its strings, look for the languages, read a string with a growing buffer.
    #[test]
    fn strings_are_handed_in_and_read() {
        fake::install();
        let list = list();
        let mut handle = ptr::null_mut();
        let mut text = [0xFFFF_u16; 4];
        let mut size = 0;
        // SAFETY: a package list, strings and variables.
        unsafe {
            let added = (DATABASE.new_package_list)(&DATABASE, list.as_ptr().cast(), ptr::null_mut(), &raw mut handle);
            assert_eq!(added, Status::SUCCESS);
            let get = |text: *mut u16, size: *mut usize| {
                (STRING.get_string)(&STRING, c"en".as_ptr().cast(), handle, 1, text, size, ptr::null_mut())
            };
            assert_eq!(get(ptr::null_mut(), &raw mut size), Status::BUFFER_TOO_SMALL);
            assert_eq!(size, 6);
            assert_eq!(get(text.as_mut_ptr(), &raw mut size), Status::SUCCESS);
            assert_eq!(text, [b'H'.into(), b'i'.into(), 0, 0xFFFF]);
            let mut languages = [0_u8; 8];
            size = languages.len();
            let got = (STRING.get_languages)(&STRING, handle, languages.as_mut_ptr(), &raw mut size);
            assert_eq!((got, size, &languages[..3]), (Status::SUCCESS, 3, &b"en\0"[..]));
            size = 0;
            let exported = (DATABASE.export_package_lists)(&DATABASE, handle, &raw mut size, ptr::null_mut());
            assert_eq!((exported, size), (Status::BUFFER_TOO_SMALL, list.len()));
            let mut copy = vec![0; size];
            let exported = (DATABASE.export_package_lists)(&DATABASE, handle, &raw mut size, copy.as_mut_ptr().cast());
            assert_eq!((exported, copy), (Status::SUCCESS, list));
            assert_eq!((DATABASE.remove_package_list)(&DATABASE, handle), Status::SUCCESS);
            assert_eq!((DATABASE.remove_package_list)(&DATABASE, handle), Status::NOT_FOUND);
        }
    }

    #[test]
    fn a_notification_without_a_function_is_refused() {
        let mut handle = ptr::null_mut();
        let mut register = |function| {
            let changes = HiiDatabaseNotifyType(ALL_CHANGES);
            // SAFETY: a variable.
            unsafe {
                register_package_notify(&DATABASE, PackageType::ALL.0, ptr::null(), function, changes, &raw mut handle)
            }
        };
        assert_eq!(register(None), Status::INVALID_PARAMETER);
    }

    #[test]
    fn guid_is_for_packages_of_that_type_only() {
        let mut size = 0;
        let guid = Guid::ZERO;
        // SAFETY: a GUID and variables.
        unsafe {
            let mut found = |kind: PackageType, guid| {
                (DATABASE.list_package_lists)(&DATABASE, kind.0, guid, &raw mut size, ptr::null_mut())
            };
            assert_eq!(found(PackageType::GUID, ptr::null()), Status::INVALID_PARAMETER);
            assert_eq!(found(PackageType::STRINGS, &guid), Status::INVALID_PARAMETER);
            assert_eq!(found(PackageType::GUID, &guid), Status::NOT_FOUND);
        }
    }
}
