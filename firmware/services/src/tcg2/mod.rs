//! Measured boot with a TPM 2.0 (TCG PC Client Platform Firmware Profile 1.05, TCG EFI Protocol 1.00 revision 0.13).
//!
//! | module | what |
//! | --- | --- |
//! | [`digest`] | hash algorithms, several at once |
//! | [`command`] | TPM commands, over a [`Transport`] that a driver provides |
//! | [`log`] | the event log and the final events table |
//! | [`event`] | what events have in them |
//! | [`hook`] | what the image loader tells |
//!
//! [`Tcg2`] puts them together; EFI_TCG2_PROTOCOL and what is measured when are the edge's:
//! [`crate::abi::tcg2`] and [`crate::abi::measure`].

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use uefi_raw::Status;
use uefi_raw::protocol::tcg::EventType;

pub mod command;
pub mod digest;
pub mod event;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod hook;
pub mod log;

pub use command::{Transport, TransportError};

use command::{Facts, HEADER, Tpm, TpmError};
use digest::{Digest, Digests, Hasher};
use log::{EventLog, FinalEvents, Full};

/// Number of PCRs.
pub const PCRS: u32 = 24;
/// How long a program's command may take: a TPM that makes a key takes minutes (TPM 2.0 drivers of Linux wait 5).
const PASSED_LIMIT: Duration = Duration::from_secs(300);

/// Why something was not measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeasureError {
    /// No such PCR.
    NoSuchPcr,
    /// The TPM failed; the log says nothing of the event.
    Tpm(TpmError),
    /// It was extended, but the log has no room.
    LogFull,
    /// A program's command has a size in its header that is not its length, or the TPM takes no such length.
    CommandLength,
    /// There is too little room for the response.
    ResponseLength,
}

impl fmt::Display for MeasureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchPcr => "no such PCR",
            Self::Tpm(error) => return error.fmt(f),
            Self::LogFull => "the event log is full",
            Self::CommandLength => "a command of a wrong length",
            Self::ResponseLength => "too little room for the response",
        })
    }
}

impl From<TpmError> for MeasureError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl From<Full> for MeasureError {
    fn from(_: Full) -> Self {
        Self::LogFull
    }
}

impl From<MeasureError> for Status {
    fn from(error: MeasureError) -> Self {
        match error {
            MeasureError::NoSuchPcr | MeasureError::CommandLength => Self::INVALID_PARAMETER,
            MeasureError::Tpm(_) => Self::DEVICE_ERROR,
            MeasureError::LogFull => Self::VOLUME_FULL,
            MeasureError::ResponseLength => Self::BUFFER_TOO_SMALL,
        }
    }
}

/// A TPM that is measured into, and the log of it.
#[derive(Debug)]
pub struct Tcg2 {
    tpm: Tpm,
    facts: Facts,
    log: EventLog,
    final_events: FinalEvents,
    /// Whether somebody has asked for the log, so that later events also go to the final events table.
    log_given_out: bool,
}

impl Tcg2 {
    /// Makes the TPM behind `transport` ready, and a log in `log`.
    ///
    /// # Errors
    /// What the TPM answers, or that it does not.
    pub fn start(
        transport: Box<dyn Transport>,
        log: &'static mut [u8],
        final_events: &'static mut [u8],
    ) -> Result<Self, MeasureError> {
        let mut tpm = Tpm::new(transport);
        let facts = tpm.start()?;
        let log = EventLog::new(log, &facts.banks)?;
        Ok(Self { tpm, facts, log, final_events: FinalEvents::new(final_events)?, log_given_out: false })
    }

    /// What the TPM is.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// A hasher for the banks that are measured into.
    pub fn hasher(&self) -> Hasher {
        Hasher::new(&self.facts.banks)
    }

    /// Hashes `data`, extends the PCR with the digests, and logs that with `content`, the event's parts one after the other.
    /// Allocates nothing.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn measure(&mut self, pcr: u32, kind: EventType, data: &[u8], content: &[&[u8]]) -> Result<(), MeasureError> {
        let mut hasher = self.hasher();
        hasher.update(data);
        self.record(pcr, kind, &hasher.finish(), content)
    }

    /// As [`Self::measure`] of data that is the event's content.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn measure_event(&mut self, pcr: u32, kind: EventType, content: &[&[u8]]) -> Result<(), MeasureError> {
        let mut hasher = self.hasher();
        content.iter().for_each(|part| hasher.update(part));
        self.record(pcr, kind, &hasher.finish(), content)
    }

    /// Extends a PCR with digests, and logs that. An event of type EV_NO_ACTION is only logged.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn record(
        &mut self,
        pcr: u32,
        kind: EventType,
        digests: &Digests,
        content: &[&[u8]],
    ) -> Result<(), MeasureError> {
        if kind == EventType::NO_ACTION {
            let zeros = digests.iter().map(|digest| Digest::zero(digest.algorithm)).collect();
            return self.note(pcr, kind, &zeros, content);
        }
        self.extend(pcr, digests)?;
        self.note(pcr, kind, digests, content)
    }

    /// Extends a PCR with digests, and logs nothing.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn extend(&mut self, pcr: u32, digests: &Digests) -> Result<(), MeasureError> {
        if pcr >= PCRS {
            return Err(MeasureError::NoSuchPcr);
        }
        if digests.is_empty() { Ok(()) } else { Ok(self.tpm.extend(pcr, digests)?) }
    }

    fn note(&mut self, pcr: u32, kind: EventType, digests: &Digests, content: &[&[u8]]) -> Result<(), MeasureError> {
        let logged = self.log.add(pcr, kind, digests, content);
        if self.log_given_out {
            self.final_events.add(pcr, kind, digests, content)?;
        }
        Ok(logged?)
    }

    /// Turns the platform hierarchy off; see [`Tpm::disable_platform_hierarchy`].
    ///
    /// # Errors
    /// What the TPM answers, or that it does not.
    pub fn disable_platform_hierarchy(&mut self) -> Result<(), MeasureError> {
        Ok(self.tpm.disable_platform_hierarchy()?)
    }

    /// The log, for somebody who copies it now.
    pub fn give_out_log(&mut self) -> &EventLog {
        self.log_given_out = true;
        &self.log
    }

    /// The log.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The events since the log was given out.
    pub fn final_events(&self) -> &FinalEvents {
        &self.final_events
    }

    /// Passes a program's command on. Returns the length of the response.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn submit(&mut self, command: &[u8], response: &mut [u8]) -> Result<usize, MeasureError> {
        let size = command.get(2..).and_then(|rest| rest.first_chunk()).map(|size| u32::from_be_bytes(*size));
        let fits = command.len() >= HEADER && command.len() <= self.facts.max_command.into();
        if !fits || size != u32::try_from(command.len()).ok() {
            return Err(MeasureError::CommandLength);
        }
        self.tpm.pass(command, response, PASSED_LIMIT).map_err(|error| match error {
            TpmError::Transport(TransportError::ResponseLength) => MeasureError::ResponseLength,
            TpmError::Transport(TransportError::CommandTooLong) => MeasureError::CommandLength,
            error => error.into(),
        })
    }

    /// Leaves the TPM to the operating system.
    pub fn release(&mut self) {
        self.tpm.release();
    }
}

#[cfg(test)]
mod tests;
