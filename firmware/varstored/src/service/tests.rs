use super::*;
use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;
use variables::remote::{NAME_UNITS, WINDOW_SIZE};
use variables::{Key, Limits, NoVerifier, Store};

const NV: VariableAttributes = VariableAttributes::NON_VOLATILE;
const BS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS;
const RT: VariableAttributes = VariableAttributes::RUNTIME_ACCESS;
const NAME: [u16; 2] = [0x41, 0x42];

fn key() -> Key<'static> {
    Key::new(Guid::ZERO, &NAME)
}

/// Asks, through the bytes of both messages.
fn ask<'a>(
    variables: &mut Variables<&mut [u8], &mut [u8], NoVerifier>,
    request: Request<'_>,
    window: &'a mut Vec<u8>,
) -> Reply<'a> {
    let (mut buffer, mut name) = (vec![0; WINDOW_SIZE], [0; NAME_UNITS]);
    request.encode(&mut buffer).unwrap();
    window.resize(WINDOW_SIZE, 0);
    let decoded = Request::decode(&buffer, &mut name).unwrap();
    assert_eq!(decoded, request);
    let length = answer(variables, &decoded, window);
    Reply::decode(request.command(), &window[..length]).unwrap()
}

fn with(test: impl FnOnce(&mut Variables<&mut [u8], &mut [u8], NoVerifier>)) {
    let (mut volatile, mut non_volatile) = (vec![0; 0x1000], vec![0; 0x8000]);
    let volatile = Store::format(&mut volatile[..], 0).unwrap();
    let non_volatile = Store::format(&mut non_volatile[..], 0).unwrap();
    test(&mut Variables::new(volatile, non_volatile, NoVerifier, Limits::DEFAULT));
}

fn set(attributes: VariableAttributes, data: &'static [u8], at_runtime: bool) -> Request<'static> {
    Request::Set { key: key(), attributes, data, at_runtime }
}

fn get(room: u64, at_runtime: bool) -> Request<'static> {
    Request::Get { key: key(), room, at_runtime }
}

#[test]
fn what_was_set_is_read_and_listed() {
    with(|variables| {
        let mut window = Vec::new();
        assert_eq!(ask(variables, set(NV | BS | RT, b"content", false), &mut window), Reply::Status(Status::SUCCESS));
        let expected = Reply::Variable { attributes: NV | BS | RT, data: b"content" };
        assert_eq!(ask(variables, get(7, false), &mut window), expected);
        assert_eq!(ask(variables, get(6, false), &mut window), Reply::TooSmall { needed: 7 });
        let next = |key, room| Request::Next { key, room, at_runtime: false };
        let first = Key::new(Guid::ZERO, &[]);
        let expected = Reply::Next { vendor: Guid::ZERO, name: b"A\0B\0" };
        assert_eq!(ask(variables, next(first, 6), &mut window), expected);
        assert_eq!(ask(variables, next(first, 5), &mut window), Reply::TooSmall { needed: 6 });
        assert_eq!(ask(variables, next(key(), 99), &mut window), Reply::Status(Status::NOT_FOUND));
    });
}

#[test]
fn each_request_says_anew_who_asks() {
    with(|variables| {
        let mut window = Vec::new();
        assert_eq!(ask(variables, set(NV | BS, b"x", false), &mut window), Reply::Status(Status::SUCCESS));
        assert_eq!(ask(variables, get(9, true), &mut window), Reply::Status(Status::NOT_FOUND));
        assert_eq!(ask(variables, get(9, false), &mut window).status(), Status::SUCCESS);
        let denied = ask(variables, set(BS | RT, b"x", true), &mut window).status();
        assert!(denied.is_error(), "{denied:?}");
    });
}

#[test]
fn a_guest_that_floods_runs_out_of_its_own_space() {
    with(|variables| {
        let mut window = Vec::new();
        let mut flood = |number: u16| {
            let name = [0x46, 0x100 + number];
            let request = Request::Set {
                key: Key::new(Guid::ZERO, &name),
                attributes: NV | BS | RT,
                data: &[7; 900],
                at_runtime: true,
            };
            ask(variables, request, &mut window).status()
        };
        let refused = (0..100).find(|&number| flood(number) != Status::SUCCESS).unwrap();
        assert!(refused > 10, "{refused}");
        assert_eq!(flood(refused), Status::OUT_OF_RESOURCES);
        assert_eq!(flood(0), Status::SUCCESS);
    });
}

#[test]
fn space_is_told() {
    with(|variables| {
        let mut window = Vec::new();
        let Reply::Info(info) = ask(variables, Request::Query { attributes: NV | BS | RT }, &mut window) else {
            panic!()
        };
        assert!(info.maximum_storage < 0x8000 && info.remaining_storage == info.maximum_storage);
        let refused = ask(variables, Request::Query { attributes: VariableAttributes::empty() }, &mut window);
        assert_eq!(refused, Reply::Status(Status::INVALID_PARAMETER));
    });
}

#[test]
fn whatever_a_guest_asks_it_gets_a_reply() {
    with(|variables| {
        let mut seed = 1u64;
        let mut random = |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % limit
        };
        let samples = [set(NV | BS | RT, b"content", true), get(99, false), Request::Query { attributes: NV | BS }];
        for _ in 0..300 {
            let (mut buffer, mut name, mut reply) = ([0; 128], [0; NAME_UNITS], vec![0; WINDOW_SIZE]);
            let length = samples[random(3)].encode(&mut buffer).unwrap();
            for _ in 0..random(4) {
                buffer[8 + random(length - 8)] = random(256) as u8;
            }
            let Ok(request) = Request::decode(&buffer, &mut name) else { continue };
            let length = answer(variables, &request, &mut reply);
            assert!(Reply::decode(request.command(), &reply[..length]).is_ok());
        }
    });
}
