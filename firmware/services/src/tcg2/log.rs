//! The event log: what was measured, so that somebody who trusts the PCRs can tell what is in them. In the crypto-agile format
//! (TCG PC Client Platform Firmware Profile 1.05 §10), written into memory that programs and the operating system read.

use uefi_raw::protocol::tcg::EventType;

use super::digest::{Algorithm, Digest, Digests};

/// Identifies the log in its first event, `TCG_EfiSpecIDEvent`.
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
/// Version 2.0, errata 105: Platform Firmware Profile 1.05.
const SPECIFICATION: [u8; 3] = [0, 2, 105];
/// Platform class: a client.
const CLIENT: u32 = 0;
/// Size of UINTN in units of 32 bits.
const UINTN_SIZE: u8 = 2;
/// Length of the digest of a `TCG_PCClientPCREvent`.
const SHA1: usize = 20;
/// Version of EFI_TCG2_FINAL_EVENTS_TABLE.
const FINAL_EVENTS_VERSION: u64 = 1;
/// Length of that table's head: version and number of events.
const FINAL_EVENTS_HEAD: usize = 16;

/// The log did not take an event: no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Memory that is written from its beginning on.
#[derive(Debug)]
struct Area {
    memory: &'static mut [u8],
    used: usize,
}

impl Area {
    /// Writes one more `TCG_PCR_EVENT2`, or nothing. Returns where it begins.
    fn event(&mut self, pcr: u32, kind: EventType, digests: &[Digest], content: &[&[u8]]) -> Result<usize, Full> {
        let length = content.iter().map(|part| part.len()).sum::<usize>();
        let whole = 16 + digests.iter().map(|digest| 2 + digest.bytes().len()).sum::<usize>() + length;
        let length = u32::try_from(length).map_err(|_| Full)?;
        if whole > self.memory.len() - self.used {
            return Err(Full);
        }
        let start = self.used;
        self.u32(pcr);
        self.u32(kind.0);
        self.u32(digests.len() as u32);
        for digest in digests {
            self.bytes(&digest.algorithm.id().to_le_bytes());
            self.bytes(digest.bytes());
        }
        self.u32(length);
        content.iter().for_each(|part| self.bytes(part));
        Ok(start)
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes bytes for which there is room.
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(to) = self.memory.get_mut(self.used..).and_then(|rest| rest.get_mut(..bytes.len())) {
            to.copy_from_slice(bytes);
            self.used += bytes.len();
        }
    }
}

/// The log.
#[derive(Debug)]
pub struct EventLog {
    area: Area,
    /// Where the last event begins.
    last: usize,
    truncated: bool,
}

impl EventLog {
    /// A log in `memory`, with the event that says what follows: `TCG_PCClientPCREvent` with a `TCG_EfiSpecIDEvent`.
    ///
    /// # Errors
    /// If `memory` is too small even for that.
    pub fn new(memory: &'static mut [u8], banks: &[Algorithm]) -> Result<Self, Full> {
        memory.fill(0);
        let content = SIGNATURE.len() + 4 + SPECIFICATION.len() + 1 + 4 + banks.len() * 4 + 1;
        if memory.len() < 4 + 4 + SHA1 + 4 + content {
            return Err(Full);
        }
        let mut area = Area { memory, used: 0 };
        area.u32(0);
        area.u32(EventType::NO_ACTION.0);
        area.bytes(&[0; SHA1]);
        area.u32(content as u32);
        area.bytes(SIGNATURE);
        area.u32(CLIENT);
        area.bytes(&SPECIFICATION);
        area.bytes(&[UINTN_SIZE]);
        area.u32(banks.len() as u32);
        for bank in banks {
            area.bytes(&bank.id().to_le_bytes());
            area.bytes(&(bank.size() as u16).to_le_bytes());
        }
        // No vendor's information.
        area.bytes(&[0]);
        Ok(Self { area, last: 0, truncated: false })
    }

    /// Adds an event; its content is the `content`'s parts one after the other. Allocates nothing.
    ///
    /// # Errors
    /// If there is no room. The log then stays as it is, and says that it is cut short.
    pub fn add(&mut self, pcr: u32, kind: EventType, digests: &Digests, content: &[&[u8]]) -> Result<(), Full> {
        // After an event that is missing no other may follow: the log would look complete.
        let result = if self.truncated { Err(Full) } else { self.area.event(pcr, kind, digests, content) };
        match result {
            Ok(start) => self.last = start,
            Err(Full) => self.truncated = true,
        }
        result.map(drop)
    }

    /// Where the last event begins, from the log's beginning.
    pub fn last(&self) -> usize {
        self.last
    }

    /// Whether events are missing at the end.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// What was written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.area.memory[..self.area.used]
    }
}

/// EFI_TCG2_FINAL_EVENTS_TABLE (TCG EFI Protocol 1.00 §7): what was measured after the log was first asked for, for an
/// operating system that copies the log before it ends the boot services.
#[derive(Debug)]
pub struct FinalEvents {
    area: Area,
    count: u64,
}

impl FinalEvents {
    /// A table in `memory` without events.
    ///
    /// # Errors
    /// If `memory` is too small even for that.
    pub fn new(memory: &'static mut [u8]) -> Result<Self, Full> {
        memory.fill(0);
        if memory.len() < FINAL_EVENTS_HEAD {
            return Err(Full);
        }
        let mut area = Area { memory, used: 0 };
        area.bytes(&FINAL_EVENTS_VERSION.to_le_bytes());
        area.bytes(&0u64.to_le_bytes());
        Ok(Self { area, count: 0 })
    }

    /// Adds an event; as [`EventLog::add`].
    ///
    /// # Errors
    /// If there is no room.
    pub fn add(&mut self, pcr: u32, kind: EventType, digests: &Digests, content: &[&[u8]]) -> Result<(), Full> {
        self.area.event(pcr, kind, digests, content)?;
        self.count += 1;
        let count = self.count.to_le_bytes();
        self.area.memory.iter_mut().skip(FINAL_EVENTS_HEAD - count.len()).zip(count).for_each(|(to, from)| *to = from);
        Ok(())
    }

    /// What was written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.area.memory[..self.area.used]
    }
}
