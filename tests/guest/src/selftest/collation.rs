//! The Unicode collation protocol (UEFI 2.10 §13.11).

use alloc::string::String;

use uefi_raw::protocol::string::UnicodeCollationProtocol;

use crate::harness::{Outcome, Test};
use crate::support::{located, narrow, wide};

pub const TESTS: &[Test] = tests![
    strings_are_compared_without_case,
    patterns_match,
    case_is_changed,
    fat_names_are_converted,
    english_is_supported,
];

fn collation() -> Result<*mut UnicodeCollationProtocol, String> {
    located(&UnicodeCollationProtocol::GUID)
}

fn strings_are_compared_without_case() -> Outcome {
    let collation = collation()?;
    for (first, second, expected) in
        [("Abc", "aBC", 0), ("abc", "abd", -1), ("b", "abc", 1), ("ab", "abc", -1), ("", "", 0)]
    {
        let order = call!(collation.stri_coll(wide(first).as_ptr(), wide(second).as_ptr()));
        same!((first, second, order.signum()), (first, second, expected));
    }
    Ok(())
}

fn patterns_match() -> Outcome {
    let collation = collation()?;
    for (text, pattern, expected) in [
        ("BOOTX64.EFI", "*.efi", true),
        ("bootx64.efi", "boot?64.*", true),
        ("a", "*", true),
        ("", "*", true),
        ("", "?", false),
        ("file7", "file[0-9]", true),
        ("filex", "file[0-9]", false),
        ("filex", "file[xyz]", true),
        ("aXbXc", "a*b*c", true),
        ("abc", "abcd", false),
        ("abc", "ab", false),
    ] {
        let matches = call!(collation.metai_match(wide(text).as_ptr(), wide(pattern).as_ptr()));
        same!((text, pattern, matches.is_true()), (text, pattern, expected));
    }
    Ok(())
}

fn case_is_changed() -> Outcome {
    let collation = collation()?;
    let mut text = wide("Straw 1-Berry");
    call!(collation.str_upr(text.as_mut_ptr()));
    same!(narrow(text.as_ptr()), "STRAW 1-BERRY");
    call!(collation.str_lwr(text.as_mut_ptr()));
    same!(narrow(text.as_ptr()), "straw 1-berry");
    Ok(())
}

fn fat_names_are_converted() -> Outcome {
    let collation = collation()?;
    let mut fat = [0u8; 8];
    let replaced = call!(collation.str_to_fat(wide("abc.d ef").as_ptr(), fat.len(), fat.as_mut_ptr()));
    check!(replaced.is_false(), "{fat:x?}");
    same!(&fat[..6], b"ABCDEF");
    let replaced = call!(collation.str_to_fat(wide("a+b").as_ptr(), fat.len(), fat.as_mut_ptr()));
    check!(replaced.is_true());
    same!(&fat[..3], b"A_B");
    let mut text = [0xFFFF; 9];
    call!(collation.fat_to_str(8, b"KERNEL\0X".as_ptr(), text.as_mut_ptr()));
    same!(narrow(text.as_ptr()), "KERNEL");
    Ok(())
}

fn english_is_supported() -> Outcome {
    let collation = collation()?;
    let languages = efi!(core::ffi::CStr::from_ptr((*collation).supported_languages.cast()));
    check!(
        languages.to_bytes().split(|byte| *byte == b';').any(|language| language.starts_with(b"en")),
        "{languages:?}"
    );
    Ok(())
}
