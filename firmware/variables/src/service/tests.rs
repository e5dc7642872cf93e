use std::collections::BTreeMap;

use uefi_raw::table::runtime::VariableVendor;
use uefi_raw::{Status, guid};

use super::*;
use crate::authenticator::{Lookup, NoVerifier, Verified};
use crate::random::Random;

const VENDOR: Guid = guid!("11111111-2222-3333-4444-555555555555");
const GLOBAL: Guid = VariableVendor::GLOBAL_VARIABLE.0;
const BS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS;
const RT: VariableAttributes = VariableAttributes::RUNTIME_ACCESS;
const NV: VariableAttributes = VariableAttributes::NON_VOLATILE;
const APPEND: VariableAttributes = VariableAttributes::APPEND_WRITE;
const NONE: VariableAttributes = VariableAttributes::empty();

type Services = Variables<Vec<u8>, Vec<u8>, NoVerifier>;

fn services(size: usize) -> Services {
    let store = || Store::format(vec![0; size], 0).unwrap();
    Variables::new(store(), store(), NoVerifier, Limits { volatile: 600, non_volatile: 600, reserved: 0 })
}

fn at_runtime(mut services: Services) -> Services {
    services.set_at_runtime();
    services
}

fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn set(services: &mut Services, name: &str, attributes: VariableAttributes, data: &[u8]) -> Result<(), Error> {
    services.set(Key::new(VENDOR, &units(name)), attributes, data)
}

fn get(services: &Services, name: &str) -> Result<(VariableAttributes, Vec<u8>), Error> {
    let found = services.get(Key::new(VENDOR, &units(name)))?;
    Ok((found.attributes, found.data.to_vec()))
}

fn text(name: &[u8]) -> String {
    let units: Vec<u16> = name.as_chunks().0.iter().map(|&unit| u16::from_le_bytes(unit)).collect();
    String::from_utf16(&units).unwrap().trim_end_matches('\0').to_owned()
}

fn all(services: &Services) -> Vec<String> {
    let (mut vendor, mut name) = (Guid::ZERO, String::new());
    let mut found = vec![];
    loop {
        match services.next(Key::new(vendor, &units(&name))) {
            Ok(next) => (vendor, name) = (next.vendor, text(next.name)),
            Err(error) => {
                assert_eq!(error, Error::NotFound);
                return found;
            }
        }
        found.push(name.clone());
    }
}

#[test]
fn a_variable_is_read_as_it_was_written() {
    let mut services = services(2000);
    set(&mut services, "A", BS | RT, &[1, 2]).unwrap();
    set(&mut services, "B", BS | NV, &[3]).unwrap();
    assert_eq!(get(&services, "A"), Ok((BS | RT, vec![1, 2])));
    assert_eq!(get(&services, "B"), Ok((BS | NV, vec![3])));
    assert_eq!(get(&services, "C"), Err(Error::NotFound));
    assert_eq!(get(&services, ""), Err(Error::NotFound));
}

#[test]
fn zero_size_and_no_access_delete() {
    let mut services = services(2000);
    for (attributes, data) in [(BS | NV, &[][..]), (NONE, &[1]), (NONE, &[]), (NV, &[1])] {
        set(&mut services, "A", BS | NV, &[1]).unwrap();
        assert_eq!(set(&mut services, "A", attributes, data), Ok(()), "{attributes:?}");
        assert_eq!(get(&services, "A"), Err(Error::NotFound));
        assert_eq!(set(&mut services, "A", attributes, data), Err(Error::NotFound));
    }
}

#[test]
fn appending_nothing_changes_nothing() {
    let mut services = services(2000);
    set(&mut services, "A", BS | APPEND, &[]).unwrap();
    assert_eq!(get(&services, "A"), Err(Error::NotFound));
    set(&mut services, "A", BS | APPEND, &[1]).unwrap();
    set(&mut services, "A", BS | APPEND, &[]).unwrap();
    set(&mut services, "A", BS | APPEND, &[2]).unwrap();
    assert_eq!(get(&services, "A"), Ok((BS, vec![1, 2])));
}

#[test]
fn attributes_of_an_existing_variable_cannot_change() {
    let mut services = services(2000);
    set(&mut services, "A", BS, &[1]).unwrap();
    for attributes in [BS | RT, BS | NV, BS | RT | NV | APPEND] {
        assert_eq!(set(&mut services, "A", attributes, &[2]), Err(Error::AttributesDiffer));
        assert_eq!(set(&mut services, "A", attributes, &[]).map_err(Error::status), Err(Status::INVALID_PARAMETER));
    }
    assert_eq!(get(&services, "A"), Ok((BS, vec![1])));
}

#[test]
fn impossible_attributes_are_refused() {
    let mut services = services(2000);
    let enhanced = VariableAttributes::ENHANCED_AUTHENTICATED_ACCESS;
    let timed = VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS;
    for (attributes, error) in [
        (RT, Error::InvalidAttributes),
        (RT | NV, Error::InvalidAttributes),
        (BS | enhanced | timed, Error::InvalidAttributes),
        (VariableAttributes::from_bits_retain(0x102), Error::InvalidAttributes),
        (BS | NV | VariableAttributes::AUTHENTICATED_WRITE_ACCESS, Error::Unsupported),
        (BS | NV | enhanced, Error::Unsupported),
        (BS | RT | NV | VariableAttributes::HARDWARE_ERROR_RECORD, Error::Unsupported),
        (BS | NV | timed, Error::Unsupported),
    ] {
        assert_eq!(set(&mut services, "A", attributes, &[1]), Err(error), "{attributes:?}");
    }
    assert_eq!(set(&mut services, "", BS, &[1]), Err(Error::InvalidName));
}

#[test]
fn sizes_are_limited() {
    let mut services = services(2000);
    let largest = 600 - RecordHeader::SIZE - 4;
    assert_eq!(set(&mut services, "A", BS, &vec![1; largest + 1]), Err(Error::TooLarge));
    set(&mut services, "A", BS, &vec![1; largest]).unwrap();
    assert_eq!(set(&mut services, "A", BS | APPEND, &[1]), Err(Error::TooLarge));
    set(&mut services, "B", BS | NV, &vec![1; largest]).unwrap();
    let info = services.query(BS).unwrap();
    assert_eq!(info.maximum_variable, 600 - RecordHeader::SIZE as u64);
    assert_eq!(info.remaining_storage, info.maximum_storage - 600);
}

#[test]
fn a_full_store_is_out_of_resources_until_something_is_deleted() {
    let mut services = services(28 + 2 * 600);
    for name in ["A", "B"] {
        set(&mut services, name, BS | NV, &[1; 536]).unwrap();
    }
    assert_eq!(set(&mut services, "C", BS | NV, &[1]).map_err(Error::status), Err(Status::OUT_OF_RESOURCES));
    set(&mut services, "D", BS, &[1]).unwrap();
    set(&mut services, "A", NONE, &[]).unwrap();
    set(&mut services, "C", BS | NV, &[1]).unwrap();
}

#[test]
fn the_operating_system_cannot_use_up_the_reserve() {
    let mut services = services(28 + 2 * 600);
    services.stores.limits.reserved = 300;
    set(&mut services, "A", BS | RT | NV, &[1; 300]).unwrap();
    let before = services.query(BS | RT | NV).unwrap();
    let mut services = at_runtime(services);
    let after = services.query(BS | RT | NV).unwrap();
    assert_eq!(after.maximum_storage, before.maximum_storage - 300);
    assert_eq!(after.remaining_storage, before.remaining_storage - 300);
    let mut count = 0;
    let full = loop {
        match set(&mut services, &format!("F{count}"), BS | RT | NV, &[2; 40]) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((count, full.status()), (4, Status::OUT_OF_RESOURCES));
    assert!(services.stores.non_volatile.available() >= 300);
    assert!(services.query(BS | RT | NV).unwrap().remaining_storage < 108);
    // What does not grow can be written, and the next start has the reserve.
    set(&mut services, "A", BS | RT | NV, &[3; 300]).unwrap();
    assert_eq!(set(&mut services, "A", BS | RT | NV | APPEND, &[3; 150]), Err(Error::Full));
    set(&mut services, "F0", NONE, &[]).unwrap();
    let mut services = reopened(services);
    services.stores.at_runtime = false;
    set(&mut services, "Boot", BS | NV, &[4; 300]).unwrap();
}

#[test]
fn boot_variables_are_hidden_from_the_operating_system() {
    let mut services = services(2000);
    set(&mut services, "Boot", BS | NV, &[1]).unwrap();
    set(&mut services, "Run", BS | RT | NV, &[2]).unwrap();
    assert_eq!(all(&services), ["Boot", "Run"]);
    let mut services = at_runtime(services);
    assert_eq!(all(&services), ["Run"]);
    assert_eq!(get(&services, "Boot"), Err(Error::NotFound));
    assert_eq!(services.next(Key::new(VENDOR, &units("Boot"))), Err(Error::InvalidName));
    assert_eq!(set(&mut services, "Boot", NONE, &[]), Err(Error::NotFound));
    assert_eq!(set(&mut services, "Boot", BS | RT | NV, &[9]), Err(Error::AttributesDiffer));
}

#[test]
fn the_operating_system_writes_non_volatile_runtime_variables_only() {
    let mut services = services(2000);
    set(&mut services, "V", BS | RT, &[1]).unwrap();
    let mut services = at_runtime(services);
    assert_eq!(set(&mut services, "V", BS | RT, &[2]).map_err(Error::status), Err(Status::WRITE_PROTECTED));
    assert_eq!(set(&mut services, "V", NONE, &[]).map_err(Error::status), Err(Status::WRITE_PROTECTED));
    assert_eq!(get(&services, "V"), Ok((BS | RT, vec![1])));
    for attributes in [BS, BS | RT, BS | NV] {
        assert_eq!(set(&mut services, "N", attributes, &[1]), Err(Error::InvalidAttributes));
    }
    set(&mut services, "N", BS | RT | NV, &[1]).unwrap();
    set(&mut services, "N", BS | RT | NV | APPEND, &[2]).unwrap();
    assert_eq!(get(&services, "N").unwrap().1, [1, 2]);
    set(&mut services, "N", NONE, &[]).unwrap();
    assert_eq!(services.query(BS | NV), Err(Error::InvalidAttributes));
    assert!(services.query(BS | RT | NV).is_ok());
}

#[test]
fn only_the_firmware_writes_what_tells_the_state_of_secure_boot() {
    let mut services = services(2000);
    let name = units("SecureBoot");
    let key = Key::new(GLOBAL, &name);
    assert_eq!(services.set(key, BS | RT, &[1]), Err(Error::ReadOnly));
    services.set_by_firmware(key, BS | RT, &[0]).unwrap();
    assert_eq!(services.set(key, NONE, &[]), Err(Error::ReadOnly));
    assert_eq!(services.get(key).unwrap().data, [0]);
}

#[test]
fn a_file_cannot_forge_what_the_firmware_derives() {
    let mut services = services(2000);
    let name = units("SecureBoot");
    let key = Key::new(GLOBAL, &name);
    let meta = Meta { attributes: (BS | RT | NV).bits(), ..Meta::default() };
    services.stores.non_volatile.write(key, meta, &[1]).unwrap();
    services.set_by_firmware(key, BS | RT, &[0]).unwrap();
    assert_eq!(services.get(key).unwrap(), Variable { attributes: BS | RT, data: &[0] });
    assert_eq!(all(&services), ["SecureBoot"]);
    // The volatile store covers the other even if both have the name.
    services.stores.non_volatile.write(key, meta, &[1]).unwrap();
    assert_eq!(services.get(key).unwrap().data, [0]);
    assert_eq!(all(&services), ["SecureBoot"]);
}

#[test]
fn authenticated_variables_are_kept_from_plain_writes() {
    let mut services = services(2000);
    let attributes = BS | RT | NV | VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS;
    let name = units("A");
    let key = Key::new(VENDOR, &name);
    services.stores.non_volatile.write(key, Meta { attributes: attributes.bits(), ..Meta::default() }, &[1]).unwrap();
    for (attributes, data) in [(BS | RT | NV, &[2][..]), (NONE, &[]), (BS | RT | NV, &[]), (BS | NV | APPEND, &[1])] {
        assert_eq!(services.set(key, attributes, data), Err(Error::ReadOnly));
    }
    assert_eq!(services.set(key, attributes, &[]), Err(Error::Unsupported));
    assert_eq!(services.get(key).unwrap(), Variable { attributes, data: &[1] });
}

/// Takes the first byte of the payload as the time stamp; 0 does not verify.
struct Toy;

impl Authenticator for Toy {
    fn verify<'a>(&mut self, write: &AuthenticatedWrite<'a>, _: &dyn Lookup) -> Result<Verified<'a>, Error> {
        let (&stamp, content) = write.payload.split_first().ok_or(Error::SecurityViolation)?;
        let newer = write.last_time_stamp.is_none_or(|last| stamp > last[0]);
        if stamp == 0 || !newer {
            return Err(Error::SecurityViolation);
        }
        Ok(Verified { time_stamp: [stamp; 16], content, owner: None })
    }

    fn scratch(&mut self) -> &mut [u8] {
        &mut []
    }
}

#[test]
fn a_verifier_decides_about_authenticated_writes() {
    let store = || Store::format(vec![0; 2000], 0).unwrap();
    let mut services = Variables::new(store(), store(), Toy, Limits::DEFAULT);
    let attributes = BS | NV | VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS;
    let name = units("A");
    let key = Key::new(VENDOR, &name);
    assert_eq!(services.set(key, attributes, &[0, 1]), Err(Error::SecurityViolation));
    services.set(key, attributes, &[1, 7]).unwrap();
    assert_eq!(services.get(key).unwrap().data, [7]);
    assert_eq!(services.set(key, attributes, &[1, 8]), Err(Error::SecurityViolation));
    services.set(key, attributes, &[2, 7]).unwrap();
    assert_eq!(services.stores.non_volatile.find(key).unwrap().time_stamp(), [2; 16]);
    services.set(key, attributes | APPEND, &[3, 9]).unwrap();
    assert_eq!(services.get(key).unwrap().data, [7, 9]);
    services.set(key, attributes | APPEND, &[4]).unwrap();
    assert_eq!(services.get(key).unwrap().data, [7, 9]);
    assert_eq!(services.stores.non_volatile.find(key).unwrap().time_stamp(), [4; 16]);
    services.set(key, attributes, &[5]).unwrap();
    assert_eq!(services.get(key), Err(Error::NotFound));
}

#[test]
fn rewriting_the_same_value_writes_nothing() {
    let mut services = services(2000);
    set(&mut services, "A", BS | NV, &[1, 2]).unwrap();
    let before = services.stores.non_volatile.backend().clone();
    set(&mut services, "A", BS | NV, &[1, 2]).unwrap();
    assert_eq!(*services.stores.non_volatile.backend(), before);
}

/// What a variable service has to do, without stores, sizes and records.
#[derive(Default)]
struct Model {
    variables: BTreeMap<String, (VariableAttributes, Vec<u8>)>,
    at_runtime: bool,
}

impl Model {
    fn set(&mut self, name: &str, attributes: VariableAttributes, data: &[u8]) -> Result<(), Status> {
        if attributes.contains(RT) && !attributes.contains(BS) {
            return Err(Status::INVALID_PARAMETER);
        }
        let stored = attributes - APPEND;
        let delete = !attributes.intersects(BS | RT) || (data.is_empty() && !attributes.contains(APPEND));
        let old = self.variables.get(name).cloned();
        match &old {
            Some((old, _)) if self.at_runtime && !old.contains(RT) => {
                return Err(if delete { Status::NOT_FOUND } else { Status::INVALID_PARAMETER });
            }
            Some((old, _)) if self.at_runtime && !old.contains(NV) => return Err(Status::WRITE_PROTECTED),
            Some((old, _)) if attributes.intersects(BS | RT) && *old != stored => {
                return Err(Status::INVALID_PARAMETER);
            }
            None if delete => return Err(Status::NOT_FOUND),
            None if self.at_runtime && !stored.contains(RT | NV) => return Err(Status::INVALID_PARAMETER),
            _ => {}
        }
        if delete {
            self.variables.remove(name);
            return Ok(());
        }
        let mut value = if attributes.contains(APPEND) { old.map_or_else(Vec::new, |old| old.1) } else { vec![] };
        value.extend(data);
        if !value.is_empty() {
            self.variables.insert(name.to_owned(), (stored, value));
        }
        Ok(())
    }

    fn visible(&self) -> BTreeMap<String, (VariableAttributes, Vec<u8>)> {
        let visible = |attributes: &VariableAttributes| !self.at_runtime || attributes.contains(RT);
        self.variables.clone().into_iter().filter(|(_, (attributes, _))| visible(attributes)).collect()
    }
}

#[test]
fn random_operations_agree_with_a_model() {
    let (seeds, steps) = if cfg!(miri) { (1, 16) } else { (60, 600) };
    for seed in 1..=seeds {
        let mut random = Random::new(seed);
        // Small enough to be full at times: then the model may be ahead, so it takes part only in what succeeded.
        let mut services = services(900);
        let mut model = Model::default();
        for step in 0..steps {
            if step == steps / 2 {
                services.set_at_runtime();
                model.at_runtime = true;
            }
            let name = ["A", "Bb", "Ccc", "D", "Eeeee", "F"][random.below(6)];
            let attributes = [NONE, BS, BS | RT, BS | NV, BS | RT | NV, RT][random.below(6)];
            let attributes = if random.below(4) == 0 { attributes | APPEND } else { attributes };
            let data = vec![random.next() as u8; random.below(90) * random.below(3)];
            let done = set(&mut services, name, attributes, &data).map_err(Error::status);
            let size = model.variables.get(name).map_or(0, |(_, old)| old.len()) + data.len();
            match done {
                Err(Status::OUT_OF_RESOURCES) => {
                    let volatile = !attributes.contains(NV);
                    let available = if volatile {
                        services.stores.volatile.available()
                    } else {
                        services.stores.non_volatile.available()
                    };
                    assert!(available < RecordHeader::SIZE + 12 + size + 3, "seed {seed} step {step}");
                }
                Err(Status::INVALID_PARAMETER) if size > 500 => {}
                _ => assert_eq!(done, model.set(name, attributes, &data), "seed {seed} step {step} {name}"),
            }
            if random.below(50) == 0 {
                services = reopened(services);
            }
            let found: BTreeMap<_, _> =
                all(&services).into_iter().map(|name| (name.clone(), get(&services, &name).unwrap())).collect();
            assert_eq!(found, model.visible(), "seed {seed} step {step}");
        }
    }
}

fn reopened(services: Services) -> Services {
    let open = |bytes: &Vec<u8>| Store::open(bytes.clone(), 0).map_err(|(_, error)| error).unwrap();
    let Services { stores, authenticator } = services;
    let (volatile, non_volatile) = (open(stores.volatile.backend()), open(stores.non_volatile.backend()));
    Services { stores: Stores { volatile, non_volatile, ..stores }, authenticator }
}

#[test]
fn services_over_a_damaged_store_neither_panic_nor_hang() {
    let mut random = Random::new(7);
    let mut clean = services(600);
    for name in ["A", "Bb", "Ccc", "SetupMode"] {
        set(&mut clean, name, BS | RT | NV, name.as_bytes()).unwrap();
        set(&mut clean, name, BS | RT | NV | APPEND, &[0x55; 9]).unwrap();
    }
    let rounds = if cfg!(miri) { 2 } else { 5_000 };
    for _ in 0..rounds {
        let mut bytes = clean.stores.non_volatile.backend().clone();
        for _ in 0..=random.below(8) {
            let at = 22 + random.below(bytes.len() - 22);
            bytes[at] = [0, 0x3e, 0x3f, 0xff, random.next() as u8][random.below(5)];
        }
        let non_volatile = Store::open(bytes, 0).map_err(|(_, error)| error).unwrap();
        let volatile = Store::format(vec![0; 600], 0).unwrap();
        let mut services = Variables::new(volatile, non_volatile, NoVerifier, Limits::DEFAULT);
        let (mut vendor, mut name, mut count) = (Guid::ZERO, vec![], 0);
        while let Ok(next) = services.next(Key::new(vendor, &name)) {
            vendor = next.vendor;
            name = next.name.as_chunks().0.iter().map(|&unit| u16::from_le_bytes(unit)).collect();
            name.pop();
            assert!(services.get(Key::new(vendor, &name)).is_ok());
            count += 1;
        }
        assert_eq!(count, services.stores.non_volatile.report().variables);
        let _ = services.set(Key::new(vendor, &name), NONE, &[]);
        let _ = set(&mut services, "Bb", BS | RT | NV, &[1; 200]);
        let _ = set(&mut services, "A", BS | RT | NV | APPEND, &[2; 50]);
        assert!(services.query(BS | RT | NV).unwrap().remaining_storage <= 600);
    }
}
