use super::digest::{Algorithm, Banks};
use super::fake::{FakeTransport, read_events, read_log, replay};
use super::*;
use std::boxed::Box;
use std::vec::Vec;

fn leak(length: usize) -> &'static mut [u8] {
    Box::leak(std::vec![0xA5; length].into_boxed_slice())
}

fn start(banks: &[Algorithm], log: usize) -> (FakeTransport, Tcg2) {
    let transport = FakeTransport::new(banks);
    let tcg2 = Tcg2::start(Box::new(transport.clone()), leak(log), leak(1024)).unwrap();
    (transport, tcg2)
}

#[test]
fn replaying_the_log_gives_the_pcrs() {
    let (transport, mut tcg2) = start(&Algorithm::ALL, 4096);
    tcg2.measure(0, EventType::CRTM_VERSION, b"code", &[b"version"]).unwrap();
    tcg2.measure_event(4, EventType::EFI_ACTION, &[b"one ", b"two"]).unwrap();
    for pcr in 0..8 {
        tcg2.measure_event(pcr, EventType::SEPARATOR, &[&event::SEPARATOR]).unwrap();
    }
    tcg2.measure_event(4, EventType::NO_ACTION, &[b"only logged"]).unwrap();
    let (head, events) = read_log(tcg2.log().bytes()).unwrap();
    assert!(head.starts_with(b"Spec ID Event03\0\0\0\0\0\0\x02"));
    assert_eq!(events.len(), 11);
    assert_eq!(events[1].content, b"one two");
    for bank in Algorithm::ALL {
        let pcrs = replay(&events, bank);
        for (index, pcr) in pcrs.iter().enumerate() {
            assert_eq!(transport.0.borrow().pcr(bank, index), pcr, "{bank:?} {index}");
        }
    }
}

#[test]
fn the_first_event_lists_the_active_banks() {
    let (_, tcg2) = start(&[Algorithm::Sha256, Algorithm::Sha384], 4096);
    let (head, _) = read_log(tcg2.log().bytes()).unwrap();
    assert_eq!(head[24..], [2, 0, 0, 0, 0x0B, 0, 32, 0, 0x0C, 0, 48, 0, 0]);
    assert_eq!(tcg2.log().last(), 0);
}

#[test]
fn a_full_log_says_so_and_takes_nothing_more() {
    let (transport, mut tcg2) = start(&[Algorithm::Sha256], 200);
    tcg2.measure_event(1, EventType::SEPARATOR, &[&event::SEPARATOR]).unwrap();
    let before = (tcg2.log().bytes().to_vec(), tcg2.log().last());
    let too_long = [0; 200];
    assert_eq!(tcg2.measure_event(1, EventType::EFI_ACTION, &[&too_long]), Err(MeasureError::LogFull));
    // There would be room for this one.
    assert_eq!(tcg2.measure_event(1, EventType::EFI_ACTION, &[&[]]), Err(MeasureError::LogFull));
    assert!(tcg2.log().is_truncated());
    assert_eq!((tcg2.log().bytes().to_vec(), tcg2.log().last()), before);
    assert_eq!(transport.0.borrow().commands.iter().filter(|code| **code == 0x182).count(), 3);
}

#[test]
fn events_after_the_log_was_given_out_are_also_final_events() {
    let (_, mut tcg2) = start(&[Algorithm::Sha256], 4096);
    tcg2.measure_event(1, EventType::EFI_ACTION, &[b"before"]).unwrap();
    tcg2.give_out_log();
    tcg2.measure_event(5, EventType::EFI_ACTION, &[b"after"]).unwrap();
    let table = tcg2.final_events().bytes();
    assert_eq!(table[..16], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let events = read_events(&table[16..]).unwrap();
    assert_eq!((events.len(), &events[0].content[..]), (1, &b"after"[..]));
    assert_eq!(read_log(tcg2.log().bytes()).unwrap().1[1], events[0]);
}

#[test]
fn the_last_event_is_where_the_log_says() {
    let (_, mut tcg2) = start(&[Algorithm::Sha1], 4096);
    tcg2.measure_event(1, EventType::EFI_ACTION, &[b"x"]).unwrap();
    let last = tcg2.log().bytes().len();
    tcg2.measure_event(2, EventType::EFI_ACTION, &[b"y"]).unwrap();
    assert_eq!(tcg2.log().last(), last);
}

#[test]
fn what_the_tpm_refuses_is_not_in_the_log() {
    let (transport, mut tcg2) = start(&[Algorithm::Sha256], 4096);
    let before = tcg2.log().bytes().len();
    transport.0.borrow_mut().refuse = std::vec![0x101];
    let refused = tcg2.measure_event(1, EventType::EFI_ACTION, &[b"x"]);
    assert_eq!(refused, Err(MeasureError::Tpm(TpmError::Code(0x101))));
    assert_eq!(tcg2.measure_event(24, EventType::EFI_ACTION, &[b"x"]), Err(MeasureError::NoSuchPcr));
    assert_eq!(tcg2.log().bytes().len(), before);
}

#[test]
fn a_program_s_command_must_be_as_long_as_it_says() {
    let (_, mut tcg2) = start(&[Algorithm::Sha256], 4096);
    let command: Vec<u8> = [&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0][..]].concat();
    let mut response = [0; 16];
    assert_eq!(tcg2.submit(&command, &mut response), Ok(10));
    assert_eq!(response[..10], [0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0]);
    assert_eq!(tcg2.submit(&command[..11], &mut response), Err(MeasureError::CommandLength));
    assert_eq!(tcg2.submit(&[], &mut response), Err(MeasureError::CommandLength));
    assert_eq!(tcg2.submit(&command, &mut response[..9]), Err(MeasureError::ResponseLength));
}

#[test]
fn a_log_without_room_for_its_head_is_none() {
    assert_eq!(EventLog::new(leak(60), &Banks::from(Algorithm::ALL)).unwrap_err(), Full);
    assert_eq!(FinalEvents::new(leak(15)).unwrap_err(), Full);
}
