//! A TPM in software for tests: its PCRs, and answers to the commands that firmware sends.

use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

use core::time::Duration;

use super::command::{Transport, TransportError};
use super::digest::{Algorithm, Hasher};

/// The state of a TPM.
#[derive(Debug)]
pub struct FakeTpm {
    /// PCRs of each bank.
    pub banks: Vec<(Algorithm, Vec<Vec<u8>>)>,
    /// Identifiers of further banks, which have no PCRs.
    pub inactive: Vec<u16>,
    /// Codes of the commands received.
    pub commands: Vec<u32>,
    /// Response codes for the next commands, instead of executing them.
    pub refuse: Vec<u32>,
    /// The next response, whatever the command; `None` in it for none at all.
    pub say: Option<Option<Vec<u8>>>,
    /// Whether the transport was released.
    pub released: bool,
}

impl FakeTpm {
    /// A TPM with these banks active.
    pub fn new(banks: &[Algorithm]) -> Self {
        let banks = banks.iter().map(|bank| (*bank, std::vec![std::vec![0; bank.size()]; 24])).collect();
        Self { banks, inactive: Vec::new(), commands: Vec::new(), refuse: Vec::new(), say: None, released: false }
    }

    /// A PCR of a bank.
    pub fn pcr(&self, bank: Algorithm, index: usize) -> &[u8] {
        self.banks.iter().find(|(algorithm, _)| *algorithm == bank).map_or(&[], |(_, pcrs)| &pcrs[index])
    }

    /// Executes a command. What is no command is refused with TPM_RC_COMMAND_SIZE.
    pub fn execute(&mut self, command: &[u8]) -> Vec<u8> {
        let Some(code) = word(command, 6).filter(|_| word(command, 2) == Some(command.len() as u32)) else {
            return response(0x142, &[]);
        };
        self.commands.push(code);
        if !self.refuse.is_empty() {
            return response(self.refuse.remove(0), &[]);
        }
        match code {
            0x144 | 0x143 => response(0, &[]),
            0x121 => sessions(),
            0x17A if word(command, 10) == Some(5) => response(0, &self.pcr_selection()),
            0x17A => {
                let mut parameters = std::vec![0, 0, 0, 0, 6, 0, 0, 0, 3];
                for (property, value) in [(0x105, 0x4641_4B45), (0x11E, 4096), (0x11F, 2048)] as [(u32, u32); 3] {
                    parameters.extend(property.to_be_bytes());
                    parameters.extend(value.to_be_bytes());
                }
                response(0, &parameters)
            }
            0x182 => self.extend(command).map_or_else(|| response(0x1C4, &[]), |()| sessions()),
            _ => response(0x143, &[]),
        }
    }

    fn pcr_selection(&self) -> Vec<u8> {
        let mut parameters = std::vec![0, 0, 0, 0, 5];
        parameters.extend(((self.banks.len() + self.inactive.len()) as u32).to_be_bytes());
        let active = self.banks.iter().map(|(bank, _)| (bank.id(), 0xFF));
        for (id, pcrs) in active.chain(self.inactive.iter().map(|id| (*id, 0))) {
            parameters.extend(id.to_be_bytes());
            parameters.extend([3, pcrs, pcrs, pcrs]);
        }
        parameters
    }

    fn extend(&mut self, command: &[u8]) -> Option<()> {
        let pcr = word(command, 10)? as usize;
        let count = word(command, 27)?;
        let mut digests = &command[31..];
        for _ in 0..count {
            let (id, rest) = digests.split_first_chunk()?;
            let bank = Algorithm::from_id(u16::from_be_bytes(*id))?;
            let (digest, rest) = rest.split_at_checked(bank.size())?;
            let (_, pcrs) = self.banks.iter_mut().find(|(algorithm, _)| *algorithm == bank)?;
            extend(bank, pcrs.get_mut(pcr)?, digest);
            digests = rest;
        }
        digests.is_empty().then_some(())
    }
}

/// What extending does to a PCR.
pub fn extend(bank: Algorithm, pcr: &mut Vec<u8>, digest: &[u8]) {
    let mut hasher = Hasher::new(&[bank]);
    hasher.update(pcr);
    hasher.update(digest);
    *pcr = hasher.finish()[0].bytes().to_vec();
}

/// A transport that leads to a TPM which a test can look at.
#[derive(Clone, Debug)]
pub struct FakeTransport(pub Rc<RefCell<FakeTpm>>);

impl FakeTransport {
    /// A transport to a new TPM.
    pub fn new(banks: &[Algorithm]) -> Self {
        Self(Rc::new(RefCell::new(FakeTpm::new(banks))))
    }
}

impl Transport for FakeTransport {
    fn submit(&mut self, command: &[u8], into: &mut [u8], _: Duration) -> Result<usize, TransportError> {
        let said = self.0.borrow_mut().say.take();
        let response = match said {
            Some(said) => said.ok_or(TransportError::TimedOut)?,
            None => self.0.borrow_mut().execute(command),
        };
        into.get_mut(..response.len()).ok_or(TransportError::ResponseLength)?.copy_from_slice(&response);
        Ok(response.len())
    }

    fn release(&mut self) {
        self.0.borrow_mut().released = true;
    }
}

/// One event of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedEvent {
    /// Its PCR.
    pub pcr: u32,
    /// Its type.
    pub kind: u32,
    /// Its digests.
    pub digests: Vec<(Algorithm, Vec<u8>)>,
    /// Its content.
    pub content: Vec<u8>,
}

/// Reads events, all of the crypto-agile form; `None` if they are damaged.
pub fn read_events(mut bytes: &[u8]) -> Option<Vec<LoggedEvent>> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let (pcr, kind, count) = (le(bytes, 0)?, le(bytes, 4)?, le(bytes, 8)?);
        bytes = &bytes[12..];
        let mut digests = Vec::new();
        for _ in 0..count {
            let (id, rest) = bytes.split_first_chunk()?;
            let bank = Algorithm::from_id(u16::from_le_bytes(*id))?;
            let (digest, rest) = rest.split_at_checked(bank.size())?;
            digests.push((bank, digest.to_vec()));
            bytes = rest;
        }
        let length = le(bytes, 0)? as usize;
        let (content, rest) = bytes.get(4..)?.split_at_checked(length)?;
        events.push(LoggedEvent { pcr, kind, digests, content: content.to_vec() });
        bytes = rest;
    }
    Some(events)
}

/// Reads a log: the first event's content, and the others.
pub fn read_log(log: &[u8]) -> Option<(Vec<u8>, Vec<LoggedEvent>)> {
    let length = le(log, 28)? as usize;
    let (content, rest) = log.get(32..)?.split_at_checked(length)?;
    Some((content.to_vec(), read_events(rest)?))
}

/// What the PCRs of a bank must be if a log is right.
pub fn replay(events: &[LoggedEvent], bank: Algorithm) -> Vec<Vec<u8>> {
    let mut pcrs = std::vec![std::vec![0; bank.size()]; 24];
    for event in events.iter().filter(|event| event.kind != 3) {
        for (_, digest) in event.digests.iter().filter(|(algorithm, _)| *algorithm == bank) {
            extend(bank, &mut pcrs[event.pcr as usize], digest);
        }
    }
    pcrs
}

/// A response with its header.
pub fn response(code: u32, parameters: &[u8]) -> Vec<u8> {
    tagged(0x8001, code, parameters)
}

/// The response to a command with a password that returns nothing.
fn sessions() -> Vec<u8> {
    tagged(0x8002, 0, &[0, 0, 0, 0, 0, 0, 1, 0, 0])
}

fn tagged(tag: u16, code: u32, parameters: &[u8]) -> Vec<u8> {
    let mut response = tag.to_be_bytes().to_vec();
    response.extend((10 + parameters.len() as u32).to_be_bytes());
    response.extend(code.to_be_bytes());
    response.extend(parameters);
    response
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
