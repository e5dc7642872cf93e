//! The globally defined variables (UEFI 2.10 §3.3, table 3.1; §32.3 for the signature databases): what attributes and
//! sizes they have. Names in these two name spaces that UEFI does not define are refused, so that a misspelt name is
//! noticed and a later meaning of it is not met with old content.

use uefi_raw::Guid;
use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};

use crate::authenticator::owners;
use crate::error::Error;
use crate::name::{Key, equals_ascii};

const VOLATILE: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);
const KEPT: VariableAttributes = VOLATILE.union(VariableAttributes::NON_VOLATILE);
const AUTHENTICATED: VariableAttributes = KEPT.union(VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS);

/// Hexadecimal digits at the end of a numbered name, upper case.
const DIGITS: &str = "####";

/// What sizes the data can have, in bytes.
#[derive(Clone, Copy)]
enum Size {
    Any,
    Is(usize),
    MultipleOf(usize),
}

/// A defined variable; `####` at the end of the name stands for a number.
struct Global(&'static str, VariableAttributes, Size);

const BOOLEAN: Size = Size::Is(1);
const NUMBER: Size = Size::Is(2);
const NUMBERS: Size = Size::MultipleOf(2);
const INDICATIONS: Size = Size::Is(8);

#[rustfmt::skip]
const GLOBALS: &[Global] = &[
    Global("AuditMode", VOLATILE, BOOLEAN),
    Global("BootCurrent", VOLATILE, NUMBER),
    Global("BootNext", KEPT, NUMBER),
    Global("Boot####", KEPT, Size::Any),
    Global("BootOptionSupport", VOLATILE, Size::Is(4)),
    Global("BootOrder", KEPT, NUMBERS),
    Global("ConIn", KEPT, Size::Any),
    Global("ConInDev", VOLATILE, Size::Any),
    Global("ConOut", KEPT, Size::Any),
    Global("ConOutDev", VOLATILE, Size::Any),
    Global("CryptoIndications", KEPT, INDICATIONS),
    Global("CryptoIndicationsActivated", VOLATILE, INDICATIONS),
    Global("CryptoIndicationsSupported", VOLATILE, INDICATIONS),
    Global("dbDefault", VOLATILE, Size::Any),
    Global("dbrDefault", VOLATILE, Size::Any),
    Global("dbtDefault", VOLATILE, Size::Any),
    Global("dbxDefault", VOLATILE, Size::Any),
    Global("DeployedMode", VOLATILE, BOOLEAN),
    Global("devAuthBoot", VOLATILE, BOOLEAN),
    Global("devdbDefault", VOLATILE, Size::Any),
    Global("Driver####", KEPT, Size::Any),
    Global("DriverOrder", KEPT, NUMBERS),
    Global("ErrOut", KEPT, Size::Any),
    Global("ErrOutDev", VOLATILE, Size::Any),
    Global("HwErrRecSupport", KEPT, NUMBER),
    Global("KEK", AUTHENTICATED, Size::Any),
    Global("KEKDefault", VOLATILE, Size::Any),
    Global("Key####", KEPT, Size::Any),
    Global("Lang", KEPT, Size::Any),
    Global("LangCodes", VOLATILE, Size::Any),
    Global("OsIndications", KEPT, INDICATIONS),
    Global("OsIndicationsSupported", VOLATILE, INDICATIONS),
    Global("OsRecoveryOrder", AUTHENTICATED, Size::Any),
    Global("PK", AUTHENTICATED, Size::Any),
    Global("PKDefault", VOLATILE, Size::Any),
    Global("PlatformLang", KEPT, Size::Any),
    Global("PlatformLangCodes", VOLATILE, Size::Any),
    Global("PlatformRecovery####", VOLATILE, Size::Any),
    Global("SecureBoot", VOLATILE, BOOLEAN),
    Global("SetupMode", VOLATILE, BOOLEAN),
    Global("SignatureSupport", VOLATILE, Size::MultipleOf(size_of::<Guid>())),
    Global("SysPrep####", KEPT, Size::Any),
    Global("SysPrepOrder", KEPT, NUMBERS),
    Global("Timeout", KEPT, NUMBER),
    Global("VendorKeys", VOLATILE, BOOLEAN),
];

const SIGNATURE_DATABASES: &[Global] = &[
    Global("db", AUTHENTICATED, Size::Any),
    Global("dbr", AUTHENTICATED, Size::Any),
    Global("dbt", AUTHENTICATED, Size::Any),
    Global("dbx", AUTHENTICATED, Size::Any),
    Global("devdb", AUTHENTICATED, Size::Any),
];

/// Names of the variables that tell the state of Secure Boot, and of the keys that the firmware brings.
const DERIVED: &[&str] = &[
    "AuditMode",
    "DeployedMode",
    "SecureBoot",
    "SetupMode",
    "SignatureSupport",
    "VendorKeys",
    "PKDefault",
    "KEKDefault",
    "dbDefault",
    "dbrDefault",
    "dbtDefault",
    "dbxDefault",
    "devdbDefault",
];

/// Whether only the firmware writes the variable: it tells the state of Secure Boot, or who owns variables.
pub fn is_derived(key: Key<'_>) -> bool {
    let is_global = key.vendor == VariableVendor::GLOBAL_VARIABLE.0;
    key.vendor == owners::VENDOR || (is_global && DERIVED.iter().any(|name| equals_ascii(key.name, name)))
}

/// Whether the content is signature lists: PK, KEK, and the signature databases (§32.4.1).
pub fn has_signature_lists(key: Key<'_>) -> bool {
    let is_global = key.vendor == VariableVendor::GLOBAL_VARIABLE.0;
    key.vendor == VariableVendor::IMAGE_SECURITY_DATABASE.0
        || (is_global && ["PK", "KEK"].iter().any(|name| equals_ascii(key.name, name)))
}

/// Whether the variable says how an operating system is recovered (§3.4.2): OsRecoveryOrder, or OsRecovery#### of any
/// vendor.
pub fn is_os_recovery(key: Key<'_>) -> bool {
    key.is(VariableVendor::GLOBAL_VARIABLE.0, "OsRecoveryOrder") || matches(key.name, "OsRecovery####")
}

/// Checks a write of `size` bytes, content only, against the definition of the variable. Variables of other vendors are
/// free.
pub fn check(key: Key<'_>, attributes: VariableAttributes, size: usize) -> Result<(), Error> {
    let defined = match VariableVendor(key.vendor) {
        VariableVendor::GLOBAL_VARIABLE => GLOBALS,
        VariableVendor::IMAGE_SECURITY_DATABASE => SIGNATURE_DATABASES,
        _ => return Ok(()),
    };
    let Some(Global(_, expected, sizes)) = defined.iter().find(|global| matches(key.name, global.0)) else {
        return Err(Error::NotGlobal);
    };
    let fits = match *sizes {
        Size::Any => true,
        Size::Is(expected) => size == expected,
        Size::MultipleOf(unit) => size.is_multiple_of(unit),
    };
    if fits && attributes == *expected { Ok(()) } else { Err(Error::NotGlobal) }
}

fn matches(name: &[u16], pattern: &str) -> bool {
    let Some(stem) = pattern.strip_suffix(DIGITS) else { return equals_ascii(name, pattern) };
    let Some((head, digits)) = name.split_last_chunk::<{ DIGITS.len() }>() else { return false };
    equals_ascii(head, stem) && digits.iter().all(|&digit| is_upper_hex(digit))
}

fn is_upper_hex(unit: u16) -> bool {
    u8::try_from(unit).is_ok_and(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_global(name: &str, attributes: VariableAttributes, size: usize) -> Result<(), Error> {
        let name: Vec<u16> = name.encode_utf16().collect();
        check(Key::new(VariableVendor::GLOBAL_VARIABLE.0, &name), attributes, size)
    }

    #[test]
    fn numbered_names_have_four_upper_case_digits() {
        assert_eq!(check_global("Boot00AF", KEPT, 10), Ok(()));
        for bad in ["Boot00af", "Boot001", "Boot00000", "boot0000", "Boot####"] {
            assert_eq!(check_global(bad, KEPT, 10), Err(Error::NotGlobal), "{bad}");
        }
    }

    #[test]
    fn attributes_and_sizes_are_those_of_the_definition() {
        assert_eq!(check_global("Timeout", KEPT, 2), Ok(()));
        assert_eq!(check_global("Timeout", VOLATILE, 2), Err(Error::NotGlobal));
        assert_eq!(check_global("Timeout", KEPT, 3), Err(Error::NotGlobal));
        assert_eq!(check_global("BootOrder", KEPT, 6), Ok(()));
        assert_eq!(check_global("BootOrder", KEPT, 5), Err(Error::NotGlobal));
        assert_eq!(check_global("PK", KEPT, 5), Err(Error::NotGlobal));
        assert_eq!(check_global("PK", AUTHENTICATED, 5), Ok(()));
    }

    #[test]
    fn other_vendors_are_free() {
        assert_eq!(check(Key::new(Guid::ZERO, &[0x41]), VariableAttributes::BOOTSERVICE_ACCESS, 1), Ok(()));
    }

    #[test]
    fn the_state_of_secure_boot_is_derived() {
        let name: Vec<u16> = "SetupMode".encode_utf16().collect();
        assert!(is_derived(Key::new(VariableVendor::GLOBAL_VARIABLE.0, &name)));
        assert!(!is_derived(Key::new(Guid::ZERO, &name)));
        assert!(is_derived(Key::new(owners::VENDOR, &name)));
    }

    #[test]
    fn recovery_variables_are_known_by_name() {
        for (vendor, name, expected) in [
            (VariableVendor::GLOBAL_VARIABLE.0, "OsRecoveryOrder", true),
            (Guid::ZERO, "OsRecoveryOrder", false),
            (Guid::ZERO, "OsRecovery00AF", true),
            (Guid::ZERO, "OsRecovery", false),
        ] {
            let name: Vec<u16> = name.encode_utf16().collect();
            assert_eq!(is_os_recovery(Key::new(vendor, &name)), expected);
        }
    }
}
