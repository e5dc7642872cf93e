//! Files with keys, and how they get into the signature databases (UEFI 2.10 §8.2.2, §32.4.1): all through SetVariable, which
//! decides.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ::variables::authenticator::descriptor::{TIME_STAMP_SIZE, signed_data, unsigned};
use ::variables::signature_list::{SignatureLists, X509};
use services::Status;
use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;

use crate::status::status_text;
use crate::variables::{GLOBAL, KEPT, OURS, SECURITY_DATABASE, Variables};

/// Header of an `EFI_SIGNATURE_LIST`.
const LIST: usize = 28;
/// Owner of a signature, in front of it.
const OWNER: usize = size_of::<Guid>();
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// A database that a person may want to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum Database {
    PlatformKey,
    KeyExchangeKeys,
    Allowed,
    Forbidden,
}

impl Database {
    /// All of them, in the order in which they are filled: with a platform key the others are closed.
    pub const ALL: [Self; 4] = [Self::Allowed, Self::Forbidden, Self::KeyExchangeKeys, Self::PlatformKey];

    /// Name of the variable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlatformKey => "PK",
            Self::KeyExchangeKeys => "KEK",
            Self::Allowed => "db",
            Self::Forbidden => "dbx",
        }
    }

    /// What it is for.
    pub const fn description(self) -> &'static str {
        match self {
            Self::PlatformKey => "owner, ends setup mode",
            Self::KeyExchangeKeys => "signs db and dbx",
            Self::Allowed => "what may start",
            Self::Forbidden => "what may not",
        }
    }

    const fn vendor(self) -> Guid {
        match self {
            Self::PlatformKey | Self::KeyExchangeKeys => GLOBAL,
            Self::Allowed | Self::Forbidden => SECURITY_DATABASE,
        }
    }
}

const AUTHENTICATED: VariableAttributes = KEPT.union(VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS);

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Keys {
    /// An `EFI_VARIABLE_AUTHENTICATION_2` and what it is for: `.auth`.
    Signed(Vec<u8>),
    /// Signature lists: `.esl`, or made of a certificate.
    Lists(Vec<u8>),
}

/// Adds what a file holds to a database (the platform key is replaced) at this time (`EFI_TIME`); returns what came of it.
pub fn enrol<V: Variables + ?Sized>(
    variables: &mut V,
    database: Database,
    file: &[u8],
    time: [u8; TIME_STAMP_SIZE],
) -> String {
    let keys = match read(file) {
        Ok(keys) => keys,
        Err(reason) => return reason.into(),
    };
    let append = AUTHENTICATED | VariableAttributes::APPEND_WRITE;
    let written = match &keys {
        // What was signed for appending only can be told by trying.
        Keys::Signed(data) => write(variables, database, AUTHENTICATED, data).or_else(|status| match status {
            Status::SECURITY_VIOLATION => write(variables, database, append, data),
            other => Err(other),
        }),
        Keys::Lists(lists) => {
            let attributes = if database == Database::PlatformKey { AUTHENTICATED } else { append };
            let data = [&unsigned(time)[..], lists].concat();
            write(variables, database, attributes, &data)
        }
    };
    answer(variables, database, written)
}

/// Empties a database; returns what came of it.
pub fn clear<V: Variables + ?Sized>(variables: &mut V, database: Database, time: [u8; TIME_STAMP_SIZE]) -> String {
    let data = unsigned(time);
    let written = write(variables, database, AUTHENTICATED, &data);
    answer(variables, database, written)
}

/// How many signatures a database has; `None` if it is missing.
pub fn count(variables: &(impl Variables + ?Sized), database: Database) -> Option<Result<usize, &'static str>> {
    let content = variables.get(&database.vendor(), database.name())?;
    Some(signatures(&content).ok_or("is no list of signatures"))
}

fn write<V: Variables + ?Sized>(
    variables: &mut V,
    database: Database,
    attributes: VariableAttributes,
    data: &[u8],
) -> Result<(), Status> {
    variables.set(&database.vendor(), database.name(), attributes, data)
}

fn answer<V: Variables + ?Sized>(variables: &V, database: Database, written: Result<(), Status>) -> String {
    let name = database.name();
    let Err(status) = written else {
        let entries = count(variables, database).and_then(Result::ok).unwrap_or(0);
        return format!("{name}: written. It has {entries} {} now.", if entries == 1 { "entry" } else { "entries" });
    };
    let in_setup_mode = variables.get(&GLOBAL, "SetupMode").is_some_and(|mode| mode == [1]);
    match status {
        Status::SECURITY_VIOLATION | Status::ACCESS_DENIED if !in_setup_mode => {
            format!("{name}: not changed. Nobody who may change it has signed this.")
        }
        other => format!("{name}: not changed: {}.", status_text(other)),
    }
}

/// Finds out what a file holds.
fn read(file: &[u8]) -> Result<Keys, &'static str> {
    if signed_data(file).is_some() {
        Ok(Keys::Signed(file.to_vec()))
    } else if signatures(file).is_some_and(|count| count > 0) {
        Ok(Keys::Lists(file.to_vec()))
    } else if is_certificate(file) {
        Ok(Keys::Lists(list_of(file)))
    } else if let Some(certificate) = pem(file).filter(|certificate| is_certificate(certificate)) {
        Ok(Keys::Lists(list_of(&certificate)))
    } else {
        Err("Not a signed update (.auth), signature list (.esl) or certificate (.cer, .pem).")
    }
}

/// How many signatures whole lists have; `None` for anything else.
fn signatures(lists: &[u8]) -> Option<usize> {
    Some(SignatureLists::new(lists)?.signatures().count())
}

/// Whether it is one DER sequence of a certificate's size (ITU-T X.690 §8.1.3).
fn is_certificate(file: &[u8]) -> bool {
    let length = match file {
        [0x30, 0x81, length, ..] => 3 + usize::from(*length),
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => return false,
    };
    length == file.len()
}

/// A signature list with one certificate.
fn list_of(certificate: &[u8]) -> Vec<u8> {
    // A certificate that was read is no longer than 64 KiB.
    let size = (OWNER + certificate.len()) as u32;
    let mut list = X509.to_bytes().to_vec();
    for field in [LIST as u32 + size, 0, size] {
        list.extend(field.to_le_bytes());
    }
    list.extend(OURS.to_bytes());
    list.extend(certificate);
    list
}

/// The first certificate of a PEM file (RFC 7468).
fn pem(file: &[u8]) -> Option<Vec<u8>> {
    let text = core::str::from_utf8(file).ok()?;
    let (_, rest) = text.split_once(PEM_BEGIN)?;
    let (body, _) = rest.split_once(PEM_END)?;
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for character in body.bytes().filter(|character| !character.is_ascii_whitespace() && *character != b'=') {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as a certificate that is told by its two bytes of length.
    fn certificate() -> Vec<u8> {
        let mut bytes = Vec::from([0x30, 0x82, 1, 4]);
        bytes.extend((0..260_u16).map(|byte| byte as u8));
        bytes
    }

    #[test]
    fn a_certificate_becomes_a_list_of_one() {
        let Ok(Keys::Lists(list)) = read(&certificate()) else { panic!() };
        assert_eq!(signatures(&list), Some(1));
        assert!(list.ends_with(&certificate()));
        assert_eq!(read(&list), Ok(Keys::Lists(list.clone())));
        assert_eq!(signatures(&[list.clone(), list].concat()), Some(2));
    }

    struct Memory(Vec<u8>);

    impl ::variables::Backend for Memory {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
        fn bytes_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    /// The firmware's own variable services.
    struct Real(::variables::Variables<Memory, Memory, ::variables::TimeBased>);

    impl Real {
        fn new() -> Self {
            let store = || ::variables::Store::format(Memory(alloc::vec![0; 80_000]), 0).ok().unwrap();
            let services = ::variables::Variables::new(
                store(),
                store(),
                ::variables::TimeBased::new(),
                ::variables::Limits::DEFAULT,
            );
            let mut real = Self(services);
            let name: Vec<u16> = "SetupMode".encode_utf16().collect();
            real.0.set_by_firmware(::variables::Key::new(GLOBAL, &name), crate::variables::VOLATILE, &[1]).unwrap();
            real
        }
    }

    impl Variables for Real {
        fn get(&self, vendor: &Guid, name: &str) -> Option<Vec<u8>> {
            let name: Vec<u16> = name.encode_utf16().collect();
            self.0.get(::variables::Key::new(*vendor, &name)).ok().map(|variable| variable.data.to_vec())
        }
        fn set(&mut self, vendor: &Guid, name: &str, how: VariableAttributes, data: &[u8]) -> Result<(), Status> {
            let name: Vec<u16> = name.encode_utf16().collect();
            self.0.set(::variables::Key::new(*vendor, &name), how, data).map_err(|error| error.status())
        }
    }

    #[test]
    fn the_variable_services_take_unsigned_keys_in_setup_mode() {
        let mut variables = Real::new();
        let time = |second| [0xEA, 7, 11, 28, 7, 0, second, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let other = [&certificate()[..263], &[0xFF]].concat();
        let mut enrol = |database, file: &[u8], second| enrol(&mut variables, database, file, time(second));
        assert_eq!(enrol(Database::Allowed, &certificate(), 1), "db: written. It has 1 entry now.");
        assert_eq!(enrol(Database::Allowed, &other, 1), "db: written. It has 2 entries now.");
        assert_eq!(enrol(Database::Forbidden, &certificate(), 1), "dbx: written. It has 1 entry now.");
        assert_eq!(enrol(Database::KeyExchangeKeys, &certificate(), 1), "KEK: written. It has 1 entry now.");
        assert_eq!(clear(&mut variables, Database::Forbidden, time(2)), "dbx: written. It has 0 entries now.");
        let mut enrol = |database, file: &[u8], second| super::enrol(&mut variables, database, file, time(second));
        // The owner's certificate is looked into, and this one only begins like one.
        let refused = "PK: not changed: invalid parameter.";
        assert_eq!(enrol(Database::PlatformKey, &certificate(), 3), refused);
        assert_eq!(count(&variables, Database::PlatformKey), None);
    }

    #[test]
    fn pem_is_the_same_certificate() {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::from("subject=x\n-----BEGIN CERTIFICATE-----\n");
        for (line, three) in certificate().chunks(3).enumerate() {
            let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            for place in 0..4 {
                let letter = ALPHABET[(bits >> (18 - 6 * place) & 0x3F) as usize];
                text.push(if place > three.len() { '=' } else { letter.into() });
            }
            text.push_str(if line % 16 == 15 { "\r\n" } else { "" });
        }
        text.push_str("\n-----END CERTIFICATE-----\n");
        assert_eq!(read(text.as_bytes()), read(&certificate()));
    }

    #[test]
    fn an_update_is_told_by_its_header() {
        let mut file = unsigned([0xE6, 7, 11, 28, 7, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9]).to_vec();
        assert_eq!(file[7..TIME_STAMP_SIZE], [0; 9]);
        file.extend(list_of(&certificate()));
        assert_eq!(read(&file), Ok(Keys::Signed(file.clone())));
        file[TIME_STAMP_SIZE] = 0xFF;
        file[TIME_STAMP_SIZE + 1] = 0xFF;
        assert!(read(&file).is_err(), "the certificate is longer than the file");
    }

    #[test]
    fn files_cut_anywhere_are_never_taken_for_keys() {
        let update = [&unsigned([0; TIME_STAMP_SIZE])[..], &list_of(&certificate())].concat();
        for whole in [certificate(), list_of(&certificate())] {
            for length in 0..whole.len() {
                assert!(read(&whole[..length]).is_err(), "{length}");
            }
        }
        for length in 0..update.len() {
            let _ = read(&update[..length]);
        }
    }
}
