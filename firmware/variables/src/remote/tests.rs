use super::*;
use crate::random::Random;

const VENDOR: Guid = uefi_raw::guid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
const NAME: [u16; 4] = [0x42, 0x6f, 0xe4, 0x20ac];

fn key() -> Key<'static> {
    Key::new(VENDOR, &NAME)
}

fn requests() -> [Request<'static>; 5] {
    [
        Request::Get { key: key(), room: 0x1234, at_runtime: true },
        Request::Set { key: key(), attributes: VariableAttributes::NON_VOLATILE, data: b"content", at_runtime: false },
        Request::Next { key: Key::new(Guid::ZERO, &[]), room: 8, at_runtime: true },
        Request::Query { attributes: VariableAttributes::from_bits_retain(0xdead_beef) },
        Request::Notify,
    ]
}

fn replies() -> [(Command, Reply<'static>); 6] {
    [
        (Command::Get, Reply::Variable { attributes: VariableAttributes::RUNTIME_ACCESS, data: b"content" }),
        (Command::Get, Reply::TooSmall { needed: 77 }),
        (Command::Next, Reply::Next { vendor: VENDOR, name: b"A\0b\0" }),
        (Command::Query, Reply::Info(Info { maximum_storage: 1, remaining_storage: 2, maximum_variable: 3 })),
        (Command::Set, Reply::Status(Status::SUCCESS)),
        (Command::Notify, Reply::Status(Status::ACCESS_DENIED)),
    ]
}

#[test]
fn a_request_is_laid_out_as_varstored_reads_it() {
    let mut buffer = [0xAA; 64];
    let request = Request::Set {
        key: Key::new(VENDOR, &[0x41]),
        attributes: VariableAttributes::from_bits_retain(7),
        data: b"xyz",
        at_runtime: true,
    };
    let length = request.encode(&mut buffer).unwrap();
    let mut expected = vec![1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x41, 0];
    expected.extend([0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c]);
    expected.extend([3, 0, 0, 0, 0, 0, 0, 0, b'x', b'y', b'z', 7, 0, 0, 0, 1]);
    assert_eq!(buffer[..length], expected);
    assert_eq!(buffer[length], 0xAA);
}

#[test]
fn a_reply_is_laid_out_as_varstored_writes_it() {
    let mut buffer = [0xAA; 64];
    let length = Reply::Next { vendor: VENDOR, name: b"A\0" }.encode(&mut buffer).unwrap();
    let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x41, 0];
    expected.extend([0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c]);
    assert_eq!(buffer[..length], expected);
    let length = Reply::TooSmall { needed: 0x102 }.encode(&mut buffer).unwrap();
    assert_eq!(buffer[..length], [5, 0, 0, 0, 0, 0, 0, 0x80, 2, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn requests_come_back_as_they_were() {
    for request in requests() {
        let (mut buffer, mut name) = ([0; 256], [0; NAME_UNITS]);
        let length = request.encode(&mut buffer).unwrap();
        assert_eq!(Request::decode(&buffer[..length], &mut name), Ok(request));
        for cut in 0..length {
            assert_eq!(request.encode(&mut [0; 256][..cut]), None);
            assert!(Request::decode(&buffer[..cut], &mut [0; NAME_UNITS]).is_err(), "{request:?} cut at {cut}");
        }
    }
}

#[test]
fn replies_come_back_as_they_were() {
    for (command, reply) in replies() {
        let mut buffer = [0; 256];
        let length = reply.encode(&mut buffer).unwrap();
        assert_eq!(Reply::decode(command, &buffer[..length]), Ok(reply));
        assert_eq!(Reply::size(command, &buffer).max(REPLY_HEAD), length.max(REPLY_HEAD));
        for cut in 0..length {
            assert_eq!(Reply::decode(command, &buffer[..cut]), Err(Unreadable::Malformed), "{reply:?} cut at {cut}");
        }
    }
}

#[test]
fn a_request_that_is_still_there_was_not_answered() {
    for request in requests() {
        let mut buffer = [0; 256];
        request.encode(&mut buffer).unwrap();
        assert_eq!(Reply::decode(request.command(), &buffer), Err(Unreadable::Unanswered));
    }
}

#[test]
fn no_reply_looks_like_a_request() {
    // A daemon that takes up a request again after a crash finds either the request or its own reply.
    for (_, reply) in replies() {
        let (mut buffer, mut name) = ([0; 256], [0; NAME_UNITS]);
        reply.encode(&mut buffer).unwrap();
        assert_eq!(Request::decode(&buffer, &mut name), Err(Refusal::Unknown));
    }
}

#[test]
fn sizes_beyond_the_limits_are_refused_with_varstoreds_status() {
    let get = |name: u64| [&1u32.to_le_bytes()[..], &0u32.to_le_bytes(), &name.to_le_bytes(), &[0; 8192]].concat();
    let decode = |bytes: &[u8]| Request::decode(bytes, &mut [0; NAME_UNITS]).map(drop);
    assert_eq!(decode(&get(4096)), Ok(()));
    assert_eq!(decode(&get(4098)), Err(Refusal::Status(Status::DEVICE_ERROR)));
    assert_eq!(decode(&get(u64::MAX)), Err(Refusal::Status(Status::DEVICE_ERROR)));
    assert_eq!(decode(&get(3)), Err(Refusal::Status(Status::INVALID_PARAMETER)));
    let mut set = vec![0; WINDOW_SIZE];
    let request = Request::Set {
        key: key(),
        attributes: VariableAttributes::empty(),
        data: &[7; DATA_LIMIT + 1],
        at_runtime: false,
    };
    request.encode(&mut set).unwrap();
    assert_eq!(decode(&set), Err(Refusal::Status(Status::OUT_OF_RESOURCES)));
}

#[test]
fn other_versions_and_commands_have_no_reply() {
    for head in [[2u32, 0], [0, 0], [1, 5], [1, u32::MAX]] {
        let bytes: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).chain([0; 64]).collect();
        assert_eq!(Request::decode(&bytes, &mut [0; NAME_UNITS]), Err(Refusal::Unknown));
    }
}

#[test]
fn a_reply_with_a_warning_or_with_a_name_that_is_none_is_malformed() {
    for status in [2u64, 5, u64::MAX >> 1] {
        assert_eq!(Reply::decode(Command::Set, &status.to_le_bytes()), Err(Unreadable::Malformed), "{status:x}");
    }
    for name in [&b""[..], b"A", b"A\0\0\0", b"\0\0"] {
        let mut buffer = [0; 64];
        Reply::Next { vendor: VENDOR, name }.encode(&mut buffer).unwrap();
        assert_eq!(Reply::decode(Command::Next, &buffer), Err(Unreadable::Malformed), "{name:?}");
    }
}

#[test]
fn whatever_the_bytes_nothing_panics() {
    let mut random = Random::new(5);
    for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
        let request = requests()[random.below(5)];
        let (command, reply) = replies()[random.below(6)];
        for is_request in [true, false] {
            let mut buffer = [0; 96];
            let length = if is_request { request.encode(&mut buffer) } else { reply.encode(&mut buffer) }.unwrap();
            for _ in 0..=random.below(4) {
                buffer[random.below(length)] = random.below(256) as u8;
            }
            let _ = Request::decode(&buffer, &mut [0; NAME_UNITS]);
            let _ = Reply::decode(command, &buffer);
        }
    }
}
