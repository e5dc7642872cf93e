//! EFI_UNICODE_COLLATION_PROTOCOL (UEFI 2.10 §16.5): the second, with language codes of RFC 4646, and the first, with
//! those of ISO 639-2.

use core::ffi::CStr;

use uefi_raw::protocol::string::UnicodeCollationProtocol;
use uefi_raw::{Boolean, Char8, Char16, Guid, Handle, guid};

use super::text::units;
use crate::{Result, api, unicode};

/// `EFI_UNICODE_COLLATION_PROTOCOL_GUID`, of EFI 1.10.
const FIRST_GUID: Guid = guid!("1d85cd7f-f43d-11d2-9a0c-0090273fc14d");

/// Installs the protocols on a handle of their own.
pub fn install() -> Result<Handle> {
    api::install_protocols(
        None,
        &[
            (UnicodeCollationProtocol::GUID, (&raw const COLLATION.0).cast_mut().cast()),
            (FIRST_GUID, (&raw const FIRST_COLLATION.0).cast_mut().cast()),
        ],
    )
}

static COLLATION: Interface = Interface::new(c"en");
static FIRST_COLLATION: Interface = Interface::new(c"eng");

struct Interface(UnicodeCollationProtocol);

// SAFETY: never written; the pointer in it is to a constant.
unsafe impl Sync for Interface {}

impl Interface {
    const fn new(language: &'static CStr) -> Self {
        Self(UnicodeCollationProtocol {
            stri_coll,
            metai_match,
            str_lwr,
            str_upr,
            fat_to_str,
            str_to_fat,
            supported_languages: language.as_ptr().cast(),
        })
    }
}

unsafe extern "efiapi" fn stri_coll(
    _this: *const UnicodeCollationProtocol,
    a: *const Char16,
    b: *const Char16,
) -> isize {
    // SAFETY: strings, says the caller.
    unicode::compare(&unsafe { units(a) }, &unsafe { units(b) }) as isize
}

unsafe extern "efiapi" fn metai_match(
    _this: *const UnicodeCollationProtocol,
    text: *const Char16,
    pattern: *const Char16,
) -> Boolean {
    // SAFETY: strings, says the caller.
    unicode::matches(&unsafe { units(text) }, &unsafe { units(pattern) }).into()
}

unsafe extern "efiapi" fn str_lwr(_this: *const UnicodeCollationProtocol, text: *mut Char16) {
    // SAFETY: a string that may be written, says the caller.
    unsafe { change(text, unicode::to_lower) }
}

unsafe extern "efiapi" fn str_upr(_this: *const UnicodeCollationProtocol, text: *mut Char16) {
    // SAFETY: a string that may be written, says the caller.
    unsafe { change(text, unicode::to_upper) }
}

/// # Safety
/// `text` points to a string that may be written.
unsafe fn change(text: *mut Char16, change: impl FnOnce(&mut [u16])) {
    // SAFETY: the caller.
    let mut units = unsafe { units(text) };
    change(&mut units);
    for (index, unit) in units.iter().enumerate() {
        // SAFETY: the string is as long as the copy.
        unsafe { text.add(index).write_unaligned(*unit) };
    }
}

unsafe extern "efiapi" fn fat_to_str(
    _this: *const UnicodeCollationProtocol,
    fat_size: usize,
    fat: *const Char8,
    text: *mut Char16,
) {
    let mut length = 0;
    while length < fat_size {
        // SAFETY: within the array that the caller gave.
        let byte = unsafe { fat.add(length).read() };
        if byte == 0 {
            break;
        }
        // SAFETY: there is room for as many units and a NUL, says the caller.
        unsafe { text.add(length).write_unaligned(unicode::from_oem(byte)) };
        length += 1;
    }
    // SAFETY: as above.
    unsafe { text.add(length).write_unaligned(0) };
}

unsafe extern "efiapi" fn str_to_fat(
    _this: *const UnicodeCollationProtocol,
    text: *const Char16,
    fat_size: usize,
    fat: *mut Char8,
) -> Boolean {
    // SAFETY: a string, says the caller.
    let units = unsafe { units(text) };
    let ignored = [u16::from(b'.'), u16::from(b' ')];
    let mut substituted = false;
    for (index, unit) in units.iter().filter(|unit| !ignored.contains(unit)).take(fat_size).enumerate() {
        let byte = unicode::to_fat(*unit);
        substituted |= byte.is_none();
        // SAFETY: within the array that the caller gave.
        unsafe { fat.add(index).write(byte.unwrap_or(b'_')) };
    }
    substituted.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u16> {
        text.encode_utf16().chain([0]).collect()
    }

    fn to_fat(name: &str, fat: &mut [u8]) -> bool {
        // SAFETY: a string and the length of the array.
        unsafe { (COLLATION.0.str_to_fat)(&COLLATION.0, text(name).as_ptr(), fat.len(), fat.as_mut_ptr()) }.into()
    }

    #[test]
    fn names_become_short_names() {
        let mut fat = [b'#'; 8];
        assert!(!to_fat("Boot.x 64", &mut fat));
        assert_eq!(&fat, b"BOOTX64#");
        assert!(to_fat("a+b日longname", &mut fat));
        assert_eq!(&fat, b"A_B_LONG");
    }

    #[test]
    fn short_names_become_strings() {
        let mut name = [0xFFFF; 5];
        // SAFETY: an array of that size, and room for one more.
        unsafe { (COLLATION.0.fat_to_str)(&COLLATION.0, 4, c"A\x8EB".as_ptr().cast(), name.as_mut_ptr()) };
        assert_eq!(name[..4], text("AÄB"));
        // SAFETY: as above.
        unsafe { (COLLATION.0.fat_to_str)(&COLLATION.0, 4, b"ABCD".as_ptr(), name.as_mut_ptr()) };
        assert_eq!(name[..], text("ABCD"));
    }

    #[test]
    fn strings_change_case_in_place_and_compare() {
        let mut name = text("Ümlaut");
        // SAFETY: strings.
        unsafe {
            (COLLATION.0.str_upr)(&COLLATION.0, name.as_mut_ptr());
            assert_eq!(name, text("ÜMLAUT"));
            (COLLATION.0.str_lwr)(&COLLATION.0, name.as_mut_ptr());
            assert_eq!(name, text("ümlaut"));
            assert_eq!((COLLATION.0.stri_coll)(&COLLATION.0, name.as_ptr(), text("ÜMLAUT").as_ptr()), 0);
            assert!((COLLATION.0.stri_coll)(&COLLATION.0, name.as_ptr(), text("z").as_ptr()) > 0);
            assert!(bool::from((COLLATION.0.metai_match)(&COLLATION.0, name.as_ptr(), text("*MLA?t").as_ptr())));
        }
    }
}
