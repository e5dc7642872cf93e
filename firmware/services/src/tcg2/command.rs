//! The few TPM commands that the firmware itself needs (TPM 2.0 Library, part 3), put together and taken apart.
//!
//! A virtual TPM runs in another domain and is not trusted: of a response every size is checked, and what it means beyond that
//! is only believed where believing it harms nobody but the one who gave the guest that TPM.

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use arrayvec::ArrayVec;
use uefi_raw::protocol::tcg::v2::Tcg2HashAlgorithmBitmap;

use super::digest::{Algorithm, Banks, Digest, bitmap_of};

/// How a TPM is reached.
pub trait Transport {
    /// Sends a command, waits for the response, `limit` at the longest, and copies it out. Returns its length, which is
    /// `response`'s at the most. Allocates nothing.
    ///
    /// # Errors
    /// After an error of the kind [`TransportError::TimedOut`] the TPM must not be used again.
    fn submit(&mut self, command: &[u8], response: &mut [u8], limit: Duration) -> Result<usize, TransportError>;
    /// Leaves the TPM to the operating system's driver. Allocates nothing and waits for nothing.
    fn release(&mut self);
}

/// Why there is no response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransportError {
    /// A wait was too long.
    TimedOut,
    /// The command is longer than the TPM takes.
    CommandTooLong,
    /// The response is longer than there is room for, or shorter than its own header says.
    ResponseLength,
    /// The interface reports an error of its own.
    Interface,
}

/// Why a command failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TpmError {
    /// No response.
    Transport(TransportError),
    /// The response contradicts itself or the command.
    Malformed,
    /// The TPM's response code (TPM 2.0 Library, part 2 §6.6).
    Code(u32),
    /// It failed to respond before and is not asked again.
    GivenUp,
}

impl From<TransportError> for TpmError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl fmt::Display for TpmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transport(TransportError::TimedOut) => "does not respond",
            Self::Transport(TransportError::CommandTooLong) => "takes no command of this length",
            Self::Transport(TransportError::ResponseLength) => "its response has a wrong length",
            Self::Transport(TransportError::Interface) => "its interface reports an error",
            Self::Malformed => "its response makes no sense",
            Self::Code(code) => return write!(f, "response code {code:#x}"),
            Self::GivenUp => "has failed before",
        })
    }
}

/// Length of a command's and a response's header: tag, size, code.
pub const HEADER: usize = 10;
/// TPM_ST_NO_SESSIONS, TPM_ST_SESSIONS.
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// TPM_CC_*.
const HIERARCHY_CONTROL: u32 = 0x121;
const SELF_TEST: u32 = 0x143;
const STARTUP: u32 = 0x144;
const GET_CAPABILITY: u32 = 0x17A;
const PCR_EXTEND: u32 = 0x182;
/// TPM_RC_*: what is no failure.
const SUCCESS: u32 = 0;
const INITIALIZE: u32 = 0x100;
const NEEDS_TEST: u32 = 0x153;
const YIELDED: u32 = 0x908;
const TESTING: u32 = 0x90A;
const RETRY: u32 = 0x922;
/// TPM_SU_CLEAR.
const SU_CLEAR: u16 = 0;
/// TPM_CAP_*.
const CAP_PCRS: u32 = 5;
const CAP_TPM_PROPERTIES: u32 = 6;
/// TPM_PT_*.
const PT_MANUFACTURER: u32 = 0x105;
const PT_MAX_COMMAND_SIZE: u32 = 0x11E;
const PT_MAX_RESPONSE_SIZE: u32 = 0x11F;
/// TPM_RS_PW: a session that is a password; the empty one here.
const PASSWORD_SESSION: u32 = 0x4000_0009;
/// TPM_RH_PLATFORM.
const PLATFORM: u32 = 0x4000_000C;

/// The longest command of ours is PCR_Extend for all banks, 203 bytes.
const COMMAND_MAX: usize = 256;
/// The longest response of ours has properties or banks in it, 8 bytes each.
const RESPONSE_MAX: usize = 512;
/// How long a command of ours may take: many times what TCG's profile for PCs gives the slowest, as a virtual TPM competes with
/// guests for processors.
const LIMIT: Duration = Duration::from_secs(20);
/// How often a command is repeated that the TPM asks to be sent again.
const RETRIES: usize = 100;
/// What a TPM that does not tell is taken to accept.
const SIZE_UNKNOWN: u16 = 1024;

/// What a TPM says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// TPM_PT_MANUFACTURER.
    pub manufacturer: u32,
    /// Longest command.
    pub max_command: u16,
    /// Longest response.
    pub max_response: u16,
    /// Banks that can be active.
    pub supported: Tcg2HashAlgorithmBitmap,
    /// How many those are.
    pub bank_count: u32,
    /// Banks that are active.
    pub active: Tcg2HashAlgorithmBitmap,
    /// Those of them that the firmware can measure into.
    pub banks: Banks,
}

/// A TPM.
pub struct Tpm {
    transport: Box<dyn Transport>,
    given_up: bool,
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tpm")
    }
}

impl Tpm {
    /// The TPM behind a transport.
    pub fn new(transport: Box<dyn Transport>) -> Self {
        Self { transport, given_up: false }
    }

    /// Makes the TPM ready, unless it is already, and asks what it is.
    ///
    /// # Errors
    /// What the TPM answers, or that it does not.
    pub fn start(&mut self) -> Result<Facts, TpmError> {
        match self.call(&Command::new(NO_SESSIONS, STARTUP).u16(SU_CLEAR)) {
            // Whoever started the machine may have done it.
            Ok(()) | Err(TpmError::Code(INITIALIZE)) => {}
            Err(error) => return Err(error),
        }
        match self.facts() {
            Err(TpmError::Code(NEEDS_TEST)) => {
                // A full test: all algorithms at once, instead of each at its first use.
                self.call(&Command::new(NO_SESSIONS, SELF_TEST).u8(1))?;
                self.facts()
            }
            result => result,
        }
    }

    /// Extends a PCR in every bank that there is a digest for. Allocates nothing.
    ///
    /// # Errors
    /// What the TPM answers, or that it does not.
    pub fn extend(&mut self, pcr: u32, digests: &[Digest]) -> Result<(), TpmError> {
        let mut command = Command::new(SESSIONS, PCR_EXTEND).u32(pcr).bytes(&EMPTY_PASSWORD).u32(digests.len() as u32);
        for digest in digests {
            command = command.u16(digest.algorithm.id()).bytes(digest.bytes());
        }
        self.call(&command)
    }

    /// Turns the platform hierarchy off until the TPM is started anew: it is the firmware's, and what is loaded next is not
    /// the firmware (TCG PC Client Platform Firmware Profile 1.05 §2.3.3).
    ///
    /// # Errors
    /// What the TPM answers, or that it does not.
    pub fn disable_platform_hierarchy(&mut self) -> Result<(), TpmError> {
        let command = Command::new(SESSIONS, HIERARCHY_CONTROL);
        self.call(&command.u32(PLATFORM).bytes(&EMPTY_PASSWORD).u32(PLATFORM).u8(0))
    }

    /// Passes a command on as it is. Returns the length of the response.
    ///
    /// # Errors
    /// That there is no response.
    pub fn pass(&mut self, command: &[u8], response: &mut [u8], limit: Duration) -> Result<usize, TpmError> {
        if self.given_up {
            return Err(TpmError::GivenUp);
        }
        let result = self.transport.submit(command, response, limit);
        self.given_up = result == Err(TransportError::TimedOut);
        let length = result?;
        if length > response.len() { Err(TransportError::ResponseLength.into()) } else { Ok(length) }
    }

    /// Leaves the TPM to the operating system.
    pub fn release(&mut self) {
        self.transport.release();
    }

    fn facts(&mut self) -> Result<Facts, TpmError> {
        let mut facts = Facts {
            manufacturer: 0,
            max_command: SIZE_UNKNOWN,
            max_response: SIZE_UNKNOWN,
            supported: Tcg2HashAlgorithmBitmap::empty(),
            bank_count: 0,
            active: Tcg2HashAlgorithmBitmap::empty(),
            banks: Banks::new(),
        };
        let mut response = [0; RESPONSE_MAX];
        let count = PT_MAX_RESPONSE_SIZE - PT_MANUFACTURER + 1;
        let properties = self.capability(CAP_TPM_PROPERTIES, PT_MANUFACTURER, count, &mut response)?;
        read_properties(properties, &mut facts).ok_or(TpmError::Malformed)?;
        let banks = self.capability(CAP_PCRS, 0, 1, &mut response)?;
        read_banks(banks, &mut facts).ok_or(TpmError::Malformed)?;
        Ok(facts)
    }

    /// What GetCapability returns, behind the capability.
    fn capability<'r>(
        &mut self,
        capability: u32,
        property: u32,
        count: u32,
        response: &'r mut [u8],
    ) -> Result<Reader<'r>, TpmError> {
        let command = Command::new(NO_SESSIONS, GET_CAPABILITY).u32(capability).u32(property).u32(count);
        let mut reader = self.execute(&command, response)?;
        let _more = reader.u8();
        if reader.u32() == Some(capability) { Ok(reader) } else { Err(TpmError::Malformed) }
    }

    /// A command whose response says no more than whether it worked.
    fn call(&mut self, command: &Command) -> Result<(), TpmError> {
        self.execute(command, &mut [0; RESPONSE_MAX]).map(drop)
    }

    /// Sends a command and checks the response; returns what is behind its header.
    fn execute<'r>(&mut self, command: &Command, response: &'r mut [u8]) -> Result<Reader<'r>, TpmError> {
        let command = command.finish()?;
        let mut code = RETRY;
        for _ in 0..RETRIES {
            let length = self.pass(&command, response, LIMIT)?;
            let mut header = Reader(response.get(..length).ok_or(TpmError::Malformed)?);
            let (tag, size) = (header.u16(), header.u32());
            code = header.u32().ok_or(TpmError::Malformed)?;
            if tag.is_none() || size != u32::try_from(length).ok() {
                return Err(TpmError::Malformed);
            }
            match code {
                SUCCESS => return Ok(Reader(response.get(HEADER..length).ok_or(TpmError::Malformed)?)),
                YIELDED | TESTING | RETRY => {}
                _ => break,
            }
        }
        Err(TpmError::Code(code))
    }
}

/// The authorization area of a command that an empty password authorizes: its size, then the session.
const EMPTY_PASSWORD: [u8; 13] = {
    let handle = PASSWORD_SESSION.to_be_bytes();
    // Size; handle; nonce (size 0); attributes; password (size 0).
    [0, 0, 0, 9, handle[0], handle[1], handle[2], handle[3], 0, 0, 0, 0, 0]
};

/// TPML_TAGGED_TPM_PROPERTY.
fn read_properties(mut list: Reader<'_>, facts: &mut Facts) -> Option<()> {
    for _ in 0..list.u32()? {
        let (property, value) = (list.u32()?, list.u32()?);
        let size = u16::try_from(value).unwrap_or(u16::MAX);
        match property {
            PT_MANUFACTURER => facts.manufacturer = value,
            PT_MAX_COMMAND_SIZE => facts.max_command = size,
            PT_MAX_RESPONSE_SIZE => facts.max_response = size,
            _ => {}
        }
    }
    Some(())
}

/// TPML_PCR_SELECTION: a bank that has no PCR is one that can be made active.
fn read_banks(mut list: Reader<'_>, facts: &mut Facts) -> Option<()> {
    let mut active = [false; Algorithm::ALL.len()];
    for _ in 0..list.u32()? {
        let id = list.u16()?;
        let size = list.u8()?;
        let is_active = list.take(usize::from(size))?.iter().any(|byte| *byte != 0);
        facts.supported |= bitmap_of(id);
        if !is_active {
            continue;
        }
        facts.active |= bitmap_of(id);
        match Algorithm::ALL.iter().position(|algorithm| algorithm.id() == id) {
            Some(index) => active[index] = true,
            None => log::warn!("TPM: no measurements in the bank of algorithm {id:#x}: cannot compute it"),
        }
    }
    facts.bank_count = facts.supported.bits().count_ones();
    facts.banks = Algorithm::ALL.into_iter().zip(active).filter(|(_, active)| *active).map(|(bank, _)| bank).collect();
    Some(())
}

/// A command in the making; integers are big-endian.
#[derive(Clone, Debug)]
struct Command {
    bytes: ArrayVec<u8, COMMAND_MAX>,
    too_long: bool,
}

impl Command {
    fn new(tag: u16, code: u32) -> Self {
        Self { bytes: ArrayVec::new(), too_long: false }.u16(tag).u32(0).u32(code)
    }

    fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.too_long |= self.bytes.try_extend_from_slice(bytes).is_err();
        self
    }

    /// The command with its size in its header.
    fn finish(&self) -> Result<ArrayVec<u8, COMMAND_MAX>, TpmError> {
        if self.too_long {
            return Err(TransportError::CommandTooLong.into());
        }
        let mut bytes = self.bytes.clone();
        let size = (bytes.len() as u32).to_be_bytes();
        bytes.iter_mut().skip(2).zip(size).for_each(|(to, from)| *to = from);
        Ok(bytes)
    }
}

/// A response being read; integers are big-endian.
#[derive(Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().copied().map(u32::from_be_bytes)
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
