//! Authenticated writes as openssl and efitools make them: `cargo test -p variables --test signed -- --ignored`.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "these are tests, helper functions included"
)]

mod tools;

use std::sync::OnceLock;

use tools::{
    APPEND, AUTHENTICATED, Form, Signer, der, descriptor, issued, list, self_signed, signed, time, update, variable,
};
use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};
use uefi_raw::{Guid, Status, guid};
use variables::signature_list::SignatureLists;
use variables::{Backend, Key, Limits, Store, TimeBased, Variables};

const PRIVATE: Guid = guid!("11111111-2222-3333-4444-555555555555");
const CERTIFICATE_DATABASE: Guid = guid!("d9bee56e-75dc-49d9-b4d7-b534210f637a");
const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE";

/// A store's bytes.
#[derive(Clone)]
struct Memory(Vec<u8>);

impl Backend for Memory {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

type Services = Variables<Memory, Memory, TimeBased>;

struct Keys {
    platform: Signer,
    exchange: Signer,
    image: Signer,
    rogue: Signer,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        platform: self_signed("platform", "rsa:2048"),
        exchange: self_signed("exchange", "rsa:2048"),
        image: self_signed("image", "rsa:2048"),
        rogue: self_signed("rogue", "rsa:2048"),
    })
}

fn empty() -> Services {
    let store = || Store::format(Memory(vec![0; 0x8000]), 0).unwrap();
    let mut services = Variables::new(store(), store(), TimeBased::new(), Limits::DEFAULT);
    services.tell_secure_boot(true).unwrap();
    services
}

fn reopened(services: &Services, enforced: bool) -> Services {
    let volatile = Store::format(Memory(vec![0; 0x8000]), 0).unwrap();
    let non_volatile = Store::open(services.non_volatile().backend().clone(), 0).map_err(|(_, error)| error).unwrap();
    let mut services = Variables::new(volatile, non_volatile, TimeBased::new(), Limits::DEFAULT);
    services.tell_secure_boot(enforced).unwrap();
    services
}

fn set_of(services: &mut Services, name: (Guid, &str), attributes: VariableAttributes, data: &[u8]) -> Status {
    let units: Vec<u16> = name.1.encode_utf16().collect();
    let set = services.set(Key::new(name.0, &units), attributes, data);
    set.map_or_else(|error| error.status(), |()| Status::SUCCESS)
}

fn set(services: &mut Services, name: &str, data: &[u8]) -> Status {
    set_of(services, variable(name), AUTHENTICATED, data)
}

fn append(services: &mut Services, name: &str, data: &[u8]) -> Status {
    set_of(services, variable(name), AUTHENTICATED | APPEND, data)
}

fn get_of(services: &Services, name: (Guid, &str)) -> Option<Vec<u8>> {
    let units: Vec<u16> = name.1.encode_utf16().collect();
    services.get(Key::new(name.0, &units)).ok().map(|variable| variable.data.to_vec())
}

fn get(services: &Services, name: &str) -> Option<Vec<u8>> {
    get_of(services, variable(name))
}

fn flag(services: &Services, name: &str) -> u8 {
    get_of(services, (VariableVendor::GLOBAL_VARIABLE.0, name)).unwrap()[0]
}

/// Keys enrolled at second 1.
fn enrolled() -> Services {
    let (keys, mut services) = (keys(), empty());
    for (name, signer) in [("db", &keys.image), ("KEK", &keys.exchange), ("PK", &keys.platform)] {
        let content = list(signer);
        let data = signed(&keys.platform, &Form::default(), variable(name), AUTHENTICATED, 1, &content);
        assert_eq!(set(&mut services, name, &data), Status::SUCCESS, "{name}");
        assert_eq!(get(&services, name), Some(content));
    }
    assert_eq!(flag(&services, "SetupMode"), 0);
    services
}

#[test]
#[ignore = "runs openssl and efitools"]
fn keys_are_enrolled_with_efitools() {
    let (keys, mut services) = (keys(), empty());
    assert_eq!((flag(&services, "SetupMode"), flag(&services, "SecureBoot")), (1, 0));
    for (name, signer, content) in [
        ("db", &keys.exchange, &keys.image),
        ("KEK", &keys.platform, &keys.exchange),
        ("PK", &keys.platform, &keys.platform),
    ] {
        let data = update(signer, name, "2026-01-01 00:00:01", false, &list(content));
        assert_eq!(set(&mut services, name, &data), Status::SUCCESS, "{name}");
    }
    // SecureBoot says how this start has begun.
    assert_eq!((flag(&services, "SetupMode"), flag(&services, "SecureBoot")), (0, 0));
    let next = reopened(&services, true);
    assert_eq!((flag(&next, "SetupMode"), flag(&next, "SecureBoot")), (0, 1));
    let next = reopened(&services, false);
    assert_eq!((flag(&next, "SetupMode"), flag(&next, "SecureBoot")), (0, 0));

    let content = [list(&keys.image), list(&keys.rogue)].concat();
    let data = update(&keys.exchange, "db", "2026-01-01 00:00:02", false, &content);
    assert_eq!(set(&mut services, "db", &data), Status::SUCCESS);
    assert_eq!(get(&services, "db"), Some(content));
    assert_eq!(set(&mut services, "db", &data), Status::SECURITY_VIOLATION, "the same once more");
    let data = update(&keys.rogue, "db", "2026-01-01 00:00:03", false, &list(&keys.rogue));
    assert_eq!(set(&mut services, "db", &data), Status::SECURITY_VIOLATION);

    let data = update(&keys.platform, "PK", "2026-01-01 00:00:03", false, &[]);
    assert_eq!(set(&mut services, "PK", &data), Status::SUCCESS);
    assert_eq!((get(&services, "PK"), flag(&services, "SetupMode")), (None, 1));
}

#[test]
#[ignore = "runs openssl and efitools"]
fn each_variable_has_its_signers() {
    let (keys, mut services) = (keys(), enrolled());
    let all = [&keys.platform, &keys.exchange, &keys.image, &keys.rogue];
    let mut second = 1;
    for (name, good) in
        [("KEK", &[0][..]), ("db", &[0, 1]), ("dbx", &[0, 1]), ("dbt", &[0, 1]), ("dbr", &[0, 1]), ("PK", &[0])]
    {
        let content = if name == "PK" { list(&keys.platform) } else { list(&keys.exchange) };
        for (index, signer) in all.into_iter().enumerate() {
            second += 1;
            let data = signed(signer, &Form::default(), variable(name), AUTHENTICATED, second, &content);
            let expected = if good.contains(&index) { Status::SUCCESS } else { Status::SECURITY_VIOLATION };
            assert_eq!(set(&mut services, name, &data), expected, "{name} {index}");
        }
    }
    let recovery = (VariableVendor::GLOBAL_VARIABLE.0, "OsRecoveryOrder");
    for (index, signer) in all.into_iter().enumerate() {
        let data = signed(signer, &Form::default(), recovery, AUTHENTICATED, 10 + index as u8, &[7; 16]);
        // dbr has the exchange key only.
        let expected = if index < 2 { Status::SUCCESS } else { Status::SECURITY_VIOLATION };
        assert_eq!(set_of(&mut services, recovery, AUTHENTICATED, &data), expected, "{index}");
    }
}

#[test]
#[ignore = "runs openssl and efitools"]
fn setup_mode_needs_no_signature_but_the_form() {
    let (keys, mut services) = (keys(), empty());
    let content = list(&keys.image);
    assert_eq!(set(&mut services, "db", &content), Status::SECURITY_VIOLATION);
    assert_eq!(set(&mut services, "db", &descriptor(&time(1), &[], &content)), Status::SUCCESS);
    assert_eq!(set(&mut services, "db", &descriptor(&time(1), &[], &content)), Status::SECURITY_VIOLATION, "not later");
    assert_eq!(set(&mut services, "db", &descriptor(&time(2), &[], &content[1..])), Status::INVALID_PARAMETER);
    assert_eq!(set(&mut services, "PK", &descriptor(&time(1), &[], &list(&keys.platform))), Status::SUCCESS);
    assert_eq!(set(&mut services, "db", &descriptor(&time(3), &[], &content)), Status::SECURITY_VIOLATION);
    assert_eq!(set(&mut services, "PK", &descriptor(&time(3), &[], &[])), Status::SECURITY_VIOLATION);
    for attributes in
        [VariableAttributes::empty(), AUTHENTICATED - VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS]
    {
        for data in [&[][..], &content] {
            assert_eq!(set_of(&mut services, variable("PK"), attributes, data), Status::WRITE_PROTECTED);
        }
    }
    assert_eq!(flag(&services, "SetupMode"), 0);
}

#[test]
#[ignore = "runs openssl and efitools"]
fn a_platform_key_is_one_certificate_with_a_usable_key() {
    let (keys, mut services) = (keys(), empty());
    let elliptic = self_signed("elliptic", "ec -pkeyopt ec_paramgen_curve:P-256");
    let short = self_signed("short", "rsa:1024");
    for content in [
        [list(&keys.platform), list(&keys.image)].concat(),
        list(&elliptic),
        list(&short),
        b"no list".to_vec(),
        list(&keys.platform)[..100].to_vec(),
    ] {
        assert_eq!(set(&mut services, "PK", &descriptor(&time(1), &[], &content)), Status::INVALID_PARAMETER);
    }
    assert_eq!(flag(&services, "SetupMode"), 1);
    let content = list(&keys.platform);
    assert_eq!(append(&mut services, "PK", &descriptor(&time(1), &[], &content)), Status::INVALID_PARAMETER);
    assert_eq!(set(&mut services, "PK", &descriptor(&time(1), &[], &content)), Status::SUCCESS);
}

#[test]
#[ignore = "runs openssl and efitools"]
fn appending_adds_what_is_new_and_never_sets_the_clock_back() {
    let (keys, mut services) = (keys(), enrolled());
    let (image, rogue) = (list(&keys.image), list(&keys.rogue));
    for (second, content, expected) in [
        (0, image.clone(), image.clone()),
        (0, [image.clone(), rogue.clone()].concat(), [image.clone(), rogue.clone()].concat()),
        (9, rogue.clone(), [image.clone(), rogue.clone()].concat()),
    ] {
        let data = signed(&keys.exchange, &Form::default(), variable("db"), AUTHENTICATED | APPEND, second, &content);
        assert_eq!(append(&mut services, "db", &data), Status::SUCCESS);
        assert_eq!(get(&services, "db"), Some(expected));
    }
    // The last append was at second 9, though it added nothing.
    for (second, expected) in [(9, Status::SECURITY_VIOLATION), (10, Status::SUCCESS)] {
        let data = signed(&keys.exchange, &Form::default(), variable("db"), AUTHENTICATED, second, &image);
        assert_eq!(set(&mut services, "db", &data), expected);
    }
    let data = signed(&keys.exchange, &Form::default(), variable("dbx"), AUTHENTICATED | APPEND, 1, &rogue);
    assert_eq!(append(&mut services, "dbx", &data), Status::SUCCESS);
    assert_eq!(get(&services, "dbx"), Some(rogue), "appending makes the variable");
}

#[test]
#[ignore = "runs openssl and efitools"]
fn a_signature_is_for_one_name_vendor_time_and_kind_of_write() {
    let (keys, mut services) = (keys(), enrolled());
    let content = list(&keys.image);
    let data = signed(&keys.platform, &Form::default(), variable("db"), AUTHENTICATED, 5, &content);
    assert_eq!(append(&mut services, "db", &data), Status::SECURITY_VIOLATION);
    assert_eq!(set(&mut services, "dbx", &data), Status::SECURITY_VIOLATION);
    assert_eq!(set(&mut services, "KEK", &data), Status::SECURITY_VIOLATION);
    let mut later = data.clone();
    later[6] += 1;
    assert_eq!(set(&mut services, "db", &later), Status::SECURITY_VIOLATION);
    let mut other = data.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(set(&mut services, "db", &other), Status::SECURITY_VIOLATION);
    assert_eq!(set(&mut services, "db", &[&data[..], &content].concat()), Status::SECURITY_VIOLATION);
    assert_eq!(set(&mut services, "db", &data), Status::SUCCESS);
}

#[test]
#[ignore = "runs openssl and efitools"]
fn signatures_have_several_forms() {
    let (keys, mut services) = (keys(), enrolled());
    let large = self_signed("large", "rsa:4096");
    let middle = self_signed("middle", "rsa:3072");
    let content = [list(&keys.exchange), list(&large), list(&middle)].concat();
    let data = signed(&keys.platform, &Form::default(), variable("KEK"), AUTHENTICATED, 2, &content);
    assert_eq!(set(&mut services, "KEK", &data), Status::SUCCESS);
    let form = Form::default();
    let with = |options: &[&'static str]| Form { options: options.to_vec(), ..Form::default() };
    let bad = Status::SECURITY_VIOLATION;
    for (index, (name, signer, form, expected)) in [
        ("bare", &keys.exchange, Form { content_info: false, ..form.clone() }, Status::SUCCESS),
        ("4096", &large, form.clone(), Status::SUCCESS),
        ("3072", &middle, form.clone(), Status::SUCCESS),
        ("sha384", &keys.exchange, Form { digest: "sha384", ..form.clone() }, Status::SUCCESS),
        ("sha512", &large, Form { digest: "sha512", ..form.clone() }, Status::SUCCESS),
        ("sha1", &keys.exchange, Form { digest: "sha1", ..form.clone() }, bad),
        ("attributes", &keys.exchange, with(&[]), Status::SUCCESS),
        ("content", &keys.exchange, with(&["-noattr", "-nodetach"]), bad),
        ("no certificate", &keys.exchange, with(&["-noattr", "-nocerts"]), bad),
    ]
    .into_iter()
    .enumerate()
    {
        let second = 10 + index as u8;
        let data = signed(signer, &form, variable("db"), AUTHENTICATED, second, &list(&keys.image));
        assert_eq!(set(&mut services, "db", &data), expected, "{name}");
    }
    let second = format!("{}\0{}", tools::text(&keys.rogue.certificate), tools::text(&keys.rogue.key));
    let (certificate, key) = second.split_once('\0').unwrap();
    let two = with(&["-noattr", "-signer", String::leak(certificate.into()), "-inkey", String::leak(key.into())]);
    let data = signed(&keys.exchange, &two, variable("db"), AUTHENTICATED, 40, &list(&keys.image));
    assert_eq!(set(&mut services, "db", &data), bad, "two signers");
}

#[test]
#[ignore = "runs openssl and efitools"]
fn chains_lead_to_an_enrolled_key() {
    let (keys, mut services) = (keys(), enrolled());
    let exchange = &keys.exchange;
    let leaf = issued("leaf", exchange, "basicConstraints=CA:FALSE");
    let middle = issued("middle-ca", exchange, AUTHORITY);
    let below = issued("below", &middle, "");
    let deep = issued("deep-ca", &middle, AUTHORITY);
    let bottom = issued("bottom", &deep, "");
    let short = issued("short-ca", exchange, "basicConstraints=critical,CA:TRUE,pathlen:0");
    let too_deep = issued("too-deep-ca", &short, AUTHORITY);
    let too_low = issued("too-low", &too_deep, "");
    let no_authority = issued("no-ca", &leaf, "");
    let with = |signer: &Signer, chain: &[&Signer]| Signer {
        chain: chain.iter().map(|link| link.certificate.clone()).collect(),
        ..signer.clone()
    };
    let bad = Status::SECURITY_VIOLATION;
    for (index, (name, signer, expected)) in [
        ("leaf", leaf.clone(), Status::SUCCESS),
        ("below", with(&below, &[&middle]), Status::SUCCESS),
        ("below, alone", below, bad),
        ("bottom", with(&bottom, &[&middle, &deep]), Status::SUCCESS),
        ("bottom, reversed", with(&bottom, &[exchange, &deep, &middle]), Status::SUCCESS),
        ("bottom, a link missing", with(&bottom, &[&middle]), bad),
        ("too low", with(&too_low, &[&too_deep, &short]), bad),
        ("issued by no authority", with(&no_authority, &[&leaf]), bad),
        ("rogue, with a good chain", with(&keys.rogue, &[exchange, &keys.platform]), bad),
    ]
    .into_iter()
    .enumerate()
    {
        let second = 10 + index as u8;
        let data = signed(&signer, &Form::default(), variable("db"), AUTHENTICATED, second, &list(&keys.image));
        assert_eq!(set(&mut services, "db", &data), expected, "{name}");
    }
}

#[test]
#[ignore = "runs openssl and efitools"]
fn a_private_variable_belongs_to_its_first_signer() {
    let (keys, mut services) = (keys(), enrolled());
    let name = (PRIVATE, "Mine");
    let data = |signer, second, content: &[u8]| signed(signer, &Form::default(), name, AUTHENTICATED, second, content);
    let set = |services: &mut Services, signer, second, content: &[u8]| {
        set_of(services, name, AUTHENTICATED, &data(signer, second, content))
    };
    assert_eq!(set(&mut services, &keys.rogue, 1, b""), Status::NOT_FOUND);
    assert_eq!(get_of(&services, (CERTIFICATE_DATABASE, "certdb")), None);
    assert_eq!(set(&mut services, &keys.rogue, 1, b"one"), Status::SUCCESS);
    assert_eq!(set(&mut services, &keys.platform, 2, b"two"), Status::SECURITY_VIOLATION);
    assert_eq!(set(&mut services, &keys.rogue, 1, b"two"), Status::SECURITY_VIOLATION);
    assert_eq!(set(&mut services, &keys.rogue, 2, b"two"), Status::SUCCESS);
    let mut services = reopened(&services, true);
    assert_eq!(get_of(&services, name), Some(b"two".to_vec()));
    assert_eq!(set(&mut services, &keys.platform, 3, b""), Status::SECURITY_VIOLATION);
    for (vendor, attributes) in
        [(CERTIFICATE_DATABASE, AUTHENTICATED), (CERTIFICATE_DATABASE, VariableAttributes::empty())]
    {
        assert_eq!(set_of(&mut services, (vendor, "certdb"), attributes, b""), Status::WRITE_PROTECTED);
    }
    assert_eq!(set(&mut services, &keys.rogue, 3, b""), Status::SUCCESS);
    assert_eq!(get_of(&services, (CERTIFICATE_DATABASE, "certdb")), Some(vec![4, 0, 0, 0]));
    assert_eq!(set(&mut services, &keys.platform, 1, b"now mine"), Status::SUCCESS);
    assert_eq!(get_of(&services, (CERTIFICATE_DATABASE, "certdb")).unwrap().len(), 4 + 28 + 2 * 4 + 32);
}

#[test]
#[ignore = "runs openssl and efitools"]
fn a_private_volatile_variable_has_an_owner_until_the_next_start() {
    let (keys, mut services) = (keys(), enrolled());
    let (name, attributes) = ((PRIVATE, "Mine"), AUTHENTICATED - VariableAttributes::NON_VOLATILE);
    let data = signed(&keys.rogue, &Form::default(), name, attributes, 1, b"one");
    assert_eq!(set_of(&mut services, name, attributes, &data), Status::SUCCESS);
    let data = signed(&keys.image, &Form::default(), name, attributes, 2, b"one");
    assert_eq!(set_of(&mut services, name, attributes, &data), Status::SECURITY_VIOLATION);
    let mut services = reopened(&services, true);
    assert_eq!(set_of(&mut services, name, attributes, &data), Status::SUCCESS);
    assert_eq!(get_of(&services, (CERTIFICATE_DATABASE, "certdb")), None);
}

#[test]
#[ignore = "runs openssl and efitools"]
fn an_owner_of_nothing_is_dropped_at_the_next_start() {
    let (keys, mut services) = (keys(), empty());
    let data = signed(&keys.rogue, &Form::default(), (PRIVATE, "Mine"), AUTHENTICATED, 1, b"one");
    assert_eq!(set_of(&mut services, (PRIVATE, "Mine"), AUTHENTICATED, &data), Status::SUCCESS);
    let name: Vec<u16> = "Mine".encode_utf16().collect();
    services.non_volatile_mut().delete(Key::new(PRIVATE, &name)).unwrap();
    let services = reopened(&services, true);
    assert_eq!(get_of(&services, (CERTIFICATE_DATABASE, "certdb")), Some(vec![4, 0, 0, 0]));
}

#[test]
#[ignore = "runs openssl and efitools"]
fn no_change_of_a_signed_update_changes_what_it_does() {
    let (keys, services) = (keys(), enrolled());
    let list_before = get(&services, "db").unwrap();
    let signer = issued("mutated", &keys.exchange, "");
    let content = list(&keys.rogue);
    let (mut accepted, mut tried) = (0, 0);
    for options in [vec!["-noattr"], vec![]] {
        let form = Form { options, ..Form::default() };
        let good = signed(&signer, &form, variable("db"), AUTHENTICATED, 5, &content);
        for at in (0..good.len()).step_by(3) {
            let mut bad = good.clone();
            bad[at] ^= [0x01, 0x80, 0xff][at % 7 % 3];
            let mut services = reopened(&services, true);
            tried += 1;
            match set(&mut services, "db", &bad) {
                Status::SUCCESS => {
                    accepted += 1;
                    assert_eq!(get(&services, "db").as_ref(), Some(&content), "byte {at}");
                    assert!((40..good.len() - content.len()).contains(&at), "byte {at}");
                }
                Status::SECURITY_VIOLATION => assert_eq!(get(&services, "db"), Some(list_before.clone())),
                status => panic!("byte {at}: {status:?}"),
            }
        }
        for end in (0..good.len()).step_by(7) {
            let status = set(&mut reopened(&services, true), "db", &good[..end]);
            assert_eq!(status, Status::SECURITY_VIOLATION, "{end}");
        }
    }
    // Versions, the set of digest algorithms, attributes outside of the signature and the like may change.
    println!("{accepted} of {tried} changed updates were accepted: changes of what is not signed");
    assert!(accepted < tried / 20, "{accepted} of {tried}");
}

#[test]
#[ignore = "runs openssl and efitools"]
fn lists_of_efitools_are_read() {
    let keys = keys();
    let list = list(&keys.image);
    let lists = SignatureLists::new(&list).unwrap();
    let signatures: Vec<_> = lists.signatures().collect();
    assert_eq!(signatures.len(), 1);
    assert_eq!(signatures[0].owner.to_string(), tools::OWNER);
    assert_eq!(lists.certificates().collect::<Vec<_>>(), [der(&keys.image.certificate)]);
}
