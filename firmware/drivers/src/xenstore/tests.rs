use std::rc::Rc;

use hw::fake::FakeHypervisor;

use super::*;
use crate::testing::{Random, Xenstored, domain};

/// A connection to a daemon whose ring indices stand at `index`.
fn connect_at(index: u32) -> (&'static FakeHypervisor, Rc<Xenstored>, Xenstore) {
    let (hypervisor, domain) = domain();
    let daemon = Xenstored::new(hypervisor, index);
    let serving = daemon.clone();
    *hypervisor.on_notify.borrow_mut() = Some(Box::new(move |hypervisor, port| serving.step(hypervisor, port)));
    let store = Xenstore::open(domain).unwrap();
    (hypervisor, daemon, store)
}

fn connect() -> (&'static FakeHypervisor, Rc<Xenstored>, Xenstore) {
    connect_at(0)
}

const STATE: Key<'static> = Key::new("device/vbd/51712", "state");

#[test]
fn values_are_written_read_and_removed() {
    let (_, daemon, mut store) = connect();
    store.write(NONE, STATE, b"4").unwrap();
    assert_eq!(daemon.store.get("/local/domain/1/device/vbd/51712/state").unwrap(), "4");
    assert_eq!(store.read(NONE, STATE).unwrap(), b"4");
    store.remove(NONE, STATE).unwrap();
    assert_eq!(store.read(NONE, STATE), Err(Error::NotFound));
    assert_eq!(store.remove(NONE, STATE), Err(Error::NotFound));
}

#[test]
fn a_directory_lists_its_names() {
    let (_, daemon, mut store) = connect();
    for name in ["51712", "51728"] {
        daemon.store.set(&format!("device/vbd/{name}/state"), 1);
    }
    assert_eq!(store.directory(NONE, Key::path("device/vbd")).unwrap(), ["51712", "51728"]);
    store.write(NONE, Key::path("data"), b"").unwrap();
    assert_eq!(store.directory(NONE, Key::path("data")).unwrap(), [""; 0]);
    assert_eq!(store.directory(NONE, Key::path("device/vif")), Err(Error::NotFound));
}

#[test]
fn large_values_go_through_a_small_ring_in_pieces_and_across_the_wrap() {
    for chunk in [1, 7, 1000, usize::MAX] {
        let (_, daemon, mut store) = connect_at(u32::MAX - 500);
        daemon.chunk.set(chunk);
        let value = vec![b'x'; 4000];
        store.write(NONE, Key::path("data/large"), &value).unwrap();
        assert!(store.read(NONE, Key::path("data/large")).unwrap() == value);
        assert!(daemon.is_idle());
    }
}

#[test]
fn many_requests_take_one_round_trip() {
    let (_, daemon, mut store) = connect();
    let names = ["a", "b", "c", "d", "e", "f"];
    let writes: Vec<_> = names.iter().map(|name| Operation::Write(Key::new("data", name), name.as_bytes())).collect();
    daemon.notified.set(0);
    store.perform_all(NONE, &writes).unwrap();
    let reads: Vec<_> = names.iter().map(|name| Operation::Read(Key::new("data", name))).collect();
    let mut answers = Vec::new();
    store.perform(NONE, &reads, |index, reply| answers.push((index, reply.unwrap().to_vec()))).unwrap();
    assert_eq!(daemon.notified.get(), 2);
    let expected: Vec<_> = names.iter().enumerate().map(|(index, name)| (index, name.as_bytes().to_vec())).collect();
    assert_eq!(answers, expected);
}

#[test]
fn more_requests_than_a_batch_are_answered_in_order() {
    let (_, _, mut store) = connect();
    let reads = [Operation::Read(STATE); 50];
    let mut numbers = Vec::new();
    store
        .perform(NONE, &reads, |index, reply| {
            assert_eq!(reply, Err(Error::NotFound));
            numbers.push(index);
        })
        .unwrap();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[test]
fn a_request_too_long_for_a_message_fails_alone() {
    let (_, daemon, mut store) = connect();
    let value = [0; 4096];
    let operations = [Operation::Write(STATE, b"1"), Operation::Write(STATE, &value), Operation::Read(STATE)];
    let mut results = Vec::new();
    store.perform(NONE, &operations, |_, reply| results.push(reply.map(<[u8]>::to_vec))).unwrap();
    assert_eq!(results, [Ok(b"OK\0".to_vec()), Err(Error::TooLong), Ok(b"1".to_vec())]);
    assert!(daemon.is_idle());
}

#[test]
fn a_transaction_is_tried_again_when_others_got_in_the_way() {
    let (_, daemon, mut store) = connect();
    daemon.again.set(3);
    let mut attempts = 0;
    let result = store.transaction(|store, transaction| {
        attempts += 1;
        store.write(transaction, STATE, b"1")
    });
    assert_eq!((result, attempts), (Ok(()), 4));
    assert!(daemon.transactions.borrow().is_empty());
}

#[test]
fn a_transaction_that_never_succeeds_ends() {
    let (_, daemon, mut store) = connect();
    daemon.again.set(usize::MAX);
    assert_eq!(store.transaction(|_, _| Ok(())), Err(Error::Again));
    assert!(daemon.transactions.borrow().is_empty());
}

#[test]
fn a_failed_transaction_is_ended() {
    let (_, daemon, mut store) = connect();
    let result = store.transaction(|store, transaction| store.read(transaction, STATE));
    assert_eq!(result, Err(Error::NotFound));
    assert!(daemon.transactions.borrow().is_empty());
}

#[test]
fn a_watch_tells_of_changes_until_it_ends() {
    let (hypervisor, daemon, mut store) = connect();
    let soon = |hypervisor: &FakeHypervisor| hypervisor.time_ns.get() + SECOND;
    let watch = store.watch(STATE).unwrap();
    let other = store.watch(Key::path("control")).unwrap();
    assert_eq!(store.wait_for_event(&[watch, other], soon(hypervisor)), Ok(true));
    assert!(store.take_event(watch) && store.take_event(other));
    assert_eq!(store.wait_for_event(&[watch, other], soon(hypervisor)), Ok(false));
    daemon.store.set("device/vbd/51712/state", 2);
    assert_eq!(store.wait_for_event(&[watch, other], soon(hypervisor)), Ok(true));
    assert!(store.take_event(watch) && !store.take_event(watch) && !store.take_event(other));
    daemon.store.set("device/vbd/51712/state", 3);
    store.unwatch(watch).unwrap();
    assert_eq!(daemon.watches.borrow().len(), 1);
    assert_eq!(store.wait_for_event(&[watch], soon(hypervisor)), Ok(false));
    daemon.store.set("control", 1);
    assert_eq!(store.wait_for_event(&[watch], soon(hypervisor)), Ok(false));
    assert!(store.take_event(other));
}

#[test]
fn events_between_answers_are_kept() {
    let (_, daemon, mut store) = connect();
    let watch = store.watch(Key::path("device")).unwrap();
    daemon.store.set(STATE.directory, 1);
    assert_eq!(store.read(NONE, STATE), Err(Error::NotFound));
    store.write(NONE, STATE, b"2").unwrap();
    assert!(store.take_event(watch));
}

#[test]
fn watches_are_limited_in_number() {
    let (_, _, mut store) = connect();
    for _ in 0..WATCHES {
        store.new_watch(STATE).unwrap();
    }
    assert_eq!(store.new_watch(STATE), Err(Error::TooManyWatches));
}

#[test]
fn a_dead_daemon_is_an_error_and_costs_the_time_only_once() {
    let (hypervisor, daemon, mut store) = connect();
    daemon.dead.set(true);
    assert_eq!(store.read(NONE, STATE), Err(Error::Broken(Break::Silent(10_000))));
    let waited = hypervisor.time_ns.get();
    assert!((TIMEOUT..2 * TIMEOUT).contains(&waited));
    assert_eq!(store.write(NONE, STATE, b"1"), Err(Error::Broken(Break::Silent(10_000))));
    assert!(hypervisor.time_ns.get() < waited + MILLISECOND);
}

#[test]
fn impossible_indices_break_the_connection() {
    let (_, daemon, mut store) = connect();
    daemon.dead.set(true);
    daemon.page().write_u32(2060, 1025);
    assert_eq!(store.read(NONE, STATE), Err(Error::Broken(Break::Indices)));
    let (_, daemon, mut store) = connect();
    daemon.dead.set(true);
    daemon.page().write_u32(2048, 1);
    assert_eq!(store.read(NONE, STATE), Err(Error::Broken(Break::Indices)));
}

#[test]
fn indices_that_were_impossible_from_the_start_are_no_connection() {
    let (hypervisor, domain) = domain();
    let daemon = Xenstored::new(hypervisor, 0);
    daemon.page().write_u32(2048, 4000);
    assert!(matches!(Xenstore::open(domain), Err(Error::Broken(Break::Indices))));
}

#[test]
fn our_own_indices_in_the_page_are_not_believed() {
    let (_, daemon, mut store) = connect();
    store.write(NONE, STATE, b"1").unwrap();
    daemon.page().write_u32(2056, 0);
    assert_eq!(store.read(NONE, STATE).unwrap(), b"1");
}

#[test]
fn a_message_of_absurd_length_breaks_the_connection() {
    let (_, daemon, mut store) = connect();
    for word in [2, 1, 0, 4097u32] {
        daemon.say(&word.to_le_bytes());
    }
    assert_eq!(store.read(NONE, STATE), Err(Error::Broken(Break::MessageLength(4097))));
}

#[test]
fn an_answer_nobody_asked_for_breaks_the_connection() {
    for (kind, id) in [(2u32, 77u32), (11, 1)] {
        let (_, daemon, mut store) = connect();
        for word in [kind, id, 0, 0] {
            daemon.say(&word.to_le_bytes());
        }
        assert_eq!(store.read(NONE, STATE), Err(Error::Broken(Break::Unasked(id))));
    }
}

#[test]
fn events_without_end_do_not_hold_us() {
    let (hypervisor, domain) = domain();
    let daemon = Xenstored::new(hypervisor, 0);
    daemon.store.set("nothing", 0);
    let serving = daemon.clone();
    *hypervisor.on_notify.borrow_mut() = Some(Box::new(move |hypervisor, port| {
        // Nothing but events of a watch we do not have.
        for word in [15u32, 0, 0, 5] {
            serving.say(&word.to_le_bytes());
        }
        serving.say(b"a\x003f\x00");
        let input = serving.page().read_u32(2052);
        serving.page().write_u32(2048, input);
        serving.step(hypervisor, port);
        hypervisor.time_ns.set(hypervisor.time_ns.get() + MILLISECOND);
    }));
    let mut store = Xenstore::open(domain).unwrap();
    assert_eq!(store.wait_for_event(&[], hypervisor.time_ns.get() + SECOND), Ok(false));
    assert!(matches!(store.read(NONE, STATE), Err(Error::Broken(_))));
}

#[test]
fn the_daemons_errors_keep_their_names() {
    assert_eq!(named_error(b"EROFS\0").to_string(), "xenstore error EROFS");
    assert_eq!(named_error(b"\xff\x1b[2Jabcdefghijklmno\0").to_string(), "xenstore error \\xff\\x1b[2Jabcdefg");
    assert_eq!(named_error(b""), Error::Daemon([0; 12]));
    assert_eq!(named_error(b"EACCES"), Error::Denied);
}

#[test]
fn without_a_ring_there_is_no_connection() {
    let (hypervisor, domain) = domain();
    assert!(matches!(Xenstore::open(domain), Err(Error::Hypervisor(_))));
    hypervisor.params.borrow_mut().insert(HVM_PARAM_STORE_PFN, 0);
    hypervisor.params.borrow_mut().insert(HVM_PARAM_STORE_EVTCHN, 0);
    assert!(matches!(Xenstore::open(domain), Err(Error::NoRing)));
}

#[test]
fn handing_over_ends_watches_and_starts_the_connection_afresh() {
    let (hypervisor, daemon, mut store) = connect_at(4000);
    store.watch(STATE).unwrap();
    store.watch(Key::path("control")).unwrap();
    store.shut_down(hypervisor.time_ns.get() + SECOND);
    assert!(daemon.watches.borrow().is_empty());
    assert_eq!(daemon.reconnects.get(), 1);
    assert!(daemon.is_idle());
    assert_eq!(store.read(NONE, STATE), Err(Error::Broken(Break::HandedOver)));
    store.shut_down(u64::MAX);
    assert_eq!(daemon.reconnects.get(), 1);
}

#[test]
fn without_reconnection_the_ring_is_left_idle_at_a_message_boundary() {
    let (hypervisor, daemon, mut store) = connect_at(4000);
    daemon.page().write_u32(2064, 0);
    store.watch(STATE).unwrap();
    daemon.store.set("device/vbd/51712/state", 3);
    store.shut_down(hypervisor.time_ns.get() + SECOND);
    assert!(daemon.watches.borrow().is_empty() && daemon.is_idle());
    assert_eq!(daemon.reconnects.get(), 0);
}

#[test]
fn handing_over_is_bounded_when_the_daemon_is_dead() {
    let (hypervisor, daemon, mut store) = connect();
    store.watch(STATE).unwrap();
    daemon.dead.set(true);
    let start = hypervisor.time_ns.get();
    store.shut_down(start + SECOND);
    assert!(hypervisor.time_ns.get() < start + 2 * TIMEOUT);
}

#[test]
fn decimal_numbers_are_digits_only_and_in_range() {
    assert_eq!(parse_decimal(b"51712"), Some(51712));
    assert_eq!(parse_decimal(b"18446744073709551615"), Some(u64::MAX));
    for text in [&b""[..], b"18446744073709551616", b"-1", b"+1", b" 1", b"1\0", b"0x10", b"000000000000000000001"] {
        assert_eq!(parse_decimal(text), None);
    }
}

#[test]
fn noise_from_the_daemon_never_does_more_than_fail() {
    let mut random = Random(0xFEDC_BA98_7654_3211);
    for _ in 0..300 {
        let (hypervisor, daemon, mut store) = connect_at(random.below(1 << 32) as u32);
        let watch = store.watch(STATE).unwrap();
        let mut noise = Random(random.below(u64::MAX) | 1);
        let mut serve = hypervisor.on_notify.take().unwrap();
        let serving = daemon.clone();
        serving.lenient.set(true);
        // An index that is noise is a very long way off.
        serving.chunk.set(2048);
        *hypervisor.on_notify.borrow_mut() = Some(Box::new(move |hypervisor, port| {
            match noise.below(8) {
                0 => serving.page().write_u32(2048 + noise.below(7) as usize * 4, noise.below(1 << 32) as u32),
                1 => serving.say(&noise.below(1 << 32).to_le_bytes()),
                2 => {
                    // A message that is whole but makes no sense.
                    let length = noise.below(40);
                    for word in [noise.below(18), noise.below(20), noise.below(2), length] {
                        serving.say(&(word as u32).to_le_bytes());
                    }
                    for _ in 0..length {
                        serving.say(&[noise.below(256) as u8]);
                    }
                }
                _ => {}
            }
            hypervisor.time_ns.set(hypervisor.time_ns.get() + 100 * MILLISECOND);
            serving.dead.set(noise.below(16) == 0);
            serve(hypervisor, port);
        }));
        for _ in 0..10 {
            let _ = store.read(NONE, STATE);
            let _ = store.directory(NONE, Key::path("device"));
            let _ = store.transaction(|store, transaction| store.write(transaction, STATE, b"1"));
            let _ = store.wait_for_event(&[watch], hypervisor.time_ns.get() + SECOND);
            store.take_event(watch);
        }
        store.shut_down(hypervisor.time_ns.get() + SECOND);
    }
}
