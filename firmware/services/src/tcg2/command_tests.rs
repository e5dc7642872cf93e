use super::super::digest::Hasher;
use super::super::fake::{FakeTpm, FakeTransport, response};
use super::*;
use std::vec::Vec;

fn tpm(banks: &[Algorithm]) -> (FakeTransport, Tpm) {
    let transport = FakeTransport::new(banks);
    (transport.clone(), Tpm::new(Box::new(transport)))
}

fn state(transport: &FakeTransport) -> std::cell::RefMut<'_, FakeTpm> {
    transport.0.borrow_mut()
}

#[test]
fn a_tpm_says_what_it_is() {
    let (transport, mut tpm) = tpm(&[Algorithm::Sha256, Algorithm::Sha1]);
    state(&transport).inactive = std::vec![Algorithm::Sha384.id(), 0x12];
    let facts = tpm.start().unwrap();
    assert_eq!(facts.manufacturer, u32::from_be_bytes(*b"FAKE"));
    assert_eq!((facts.max_command, facts.max_response, facts.bank_count), (4096, 2048, 4));
    assert_eq!(facts.banks[..], [Algorithm::Sha1, Algorithm::Sha256]);
    assert_eq!(facts.active, Tcg2HashAlgorithmBitmap::SHA1 | Tcg2HashAlgorithmBitmap::SHA256);
    assert!(facts.supported.contains(Tcg2HashAlgorithmBitmap::SM3_256 | Tcg2HashAlgorithmBitmap::SHA384));
    assert_eq!(state(&transport).commands, [0x144, 0x17A, 0x17A]);
}

#[test]
fn a_tpm_that_was_started_before_is_taken_as_it_is() {
    let (transport, mut tpm) = tpm(&[Algorithm::Sha256]);
    state(&transport).refuse = std::vec![INITIALIZE];
    assert!(tpm.start().is_ok());
}

#[test]
fn a_tpm_that_wants_a_self_test_gets_one() {
    let (transport, mut tpm) = tpm(&[Algorithm::Sha256]);
    state(&transport).refuse = std::vec![SUCCESS, NEEDS_TEST];
    assert!(tpm.start().is_ok());
    assert_eq!(state(&transport).commands, [0x144, 0x17A, 0x143, 0x17A, 0x17A]);
}

#[test]
fn a_command_is_repeated_while_the_tpm_asks_for_it_but_not_for_ever() {
    let (transport, mut tpm) = tpm(&[Algorithm::Sha256]);
    state(&transport).refuse = std::vec![RETRY, TESTING, YIELDED];
    assert_eq!(tpm.disable_platform_hierarchy(), Ok(()));
    state(&transport).refuse = std::vec![RETRY; 2 * RETRIES];
    assert_eq!(tpm.disable_platform_hierarchy(), Err(TpmError::Code(RETRY)));
    assert_eq!(state(&transport).refuse.len(), RETRIES);
}

#[test]
fn extending_changes_the_pcr_of_every_bank() {
    let (transport, mut tpm) = tpm(&Algorithm::ALL);
    let mut hasher = Hasher::new(&Algorithm::ALL);
    hasher.update(b"event");
    let digests = hasher.finish();
    tpm.extend(7, &digests).unwrap();
    for digest in digests {
        let mut expected = std::vec![0; digest.algorithm.size()];
        super::super::fake::extend(digest.algorithm, &mut expected, digest.bytes());
        assert_eq!(state(&transport).pcr(digest.algorithm, 7), expected);
    }
}

#[test]
fn a_tpm_that_does_not_respond_is_not_asked_again() {
    let (transport, mut tpm) = tpm(&[Algorithm::Sha256]);
    state(&transport).say = Some(None);
    assert_eq!(tpm.start(), Err(TransportError::TimedOut.into()));
    assert_eq!(tpm.start(), Err(TpmError::GivenUp));
    assert!(state(&transport).commands.is_empty());
}

/// Every response that a right one can be damaged to: an answer or an error, never a panic.
#[test]
fn damaged_responses_are_errors_or_harmless() {
    let (transport, mut tpm) = tpm(&Algorithm::ALL);
    for command in [[5, 0, 1], [6, 0x105, 27]] as [[u32; 3]; 2] {
        let [capability, property, count] = command;
        let command = Command::new(NO_SESSIONS, GET_CAPABILITY).u32(capability).u32(property).u32(count);
        let right = state(&transport).execute(&command.finish().unwrap());
        let mut damaged: Vec<Vec<u8>> = (0..right.len()).map(|length| right[..length].to_vec()).collect();
        for at in 0..right.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut copy = right.clone();
                copy[at] = value;
                damaged.push(copy);
            }
        }
        damaged.push(std::vec![0xFF; RESPONSE_MAX]);
        for response in damaged {
            state(&transport).say = Some(Some(response));
            let _ = tpm.facts();
            state(&transport).say = None;
        }
    }
}

#[test]
fn a_response_that_is_shorter_or_longer_than_it_says_is_refused() {
    let (transport, mut tpm) = tpm(&[Algorithm::Sha256]);
    for said in
        [std::vec![], std::vec![0; 9], response(0, &[])[..9].to_vec(), [response(0, &[]), std::vec![0]].concat()]
    {
        state(&transport).say = Some(Some(said));
        assert_eq!(tpm.disable_platform_hierarchy(), Err(TpmError::Malformed));
    }
    state(&transport).say = Some(Some(std::vec![0; RESPONSE_MAX + 1]));
    assert_eq!(tpm.disable_platform_hierarchy(), Err(TransportError::ResponseLength.into()));
}
