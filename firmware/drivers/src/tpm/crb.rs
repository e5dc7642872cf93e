//! The command response buffer interface (PTP 1.05 §6.5.3): a command is written into a buffer, a register starts it, the
//! response is read from a buffer.

use core::time::Duration;

use services::tcg2::{Transport, TransportError};

use super::{ADDRESS, LENGTH, REGISTER_WAIT, Registers, response_length};
use crate::domain::MILLISECOND;

/// TPM_LOC_CTRL_x and its bits.
const LOCALITY_CONTROL: usize = 0x08;
const REQUEST_ACCESS: u32 = 1 << 0;
const RELINQUISH: u32 = 1 << 1;
/// TPM_LOC_STS_x and its bit Granted.
const LOCALITY_STATUS: usize = 0x0C;
const GRANTED: u32 = 1 << 0;
/// TPM_CRB_CTRL_REQ_x and its bits.
const REQUEST: usize = 0x40;
const COMMAND_READY: u32 = 1 << 0;
const GO_IDLE: u32 = 1 << 1;
/// TPM_CRB_CTRL_STS_x and its bit tpmSts.
const STATUS: usize = 0x44;
const FATAL: u32 = 1 << 0;
/// TPM_CRB_CTRL_CANCEL_x.
const CANCEL: usize = 0x48;
/// TPM_CRB_CTRL_START_x.
const START: usize = 0x4C;
/// TPM_CRB_CTRL_CMD_SIZE_x, and the command buffer's address in two halves.
const COMMAND_SIZE: usize = 0x58;
const COMMAND_LOW: usize = 0x5C;
const COMMAND_HIGH: usize = 0x60;
/// TPM_CRB_CTRL_RSP_SIZE_x, and the response buffer's address in two halves.
const RESPONSE_SIZE: usize = 0x64;
const RESPONSE_LOW: usize = 0x68;
const RESPONSE_HIGH: usize = 0x6C;
/// Where the registers end and TPM_CRB_DATA_BUFFER_x begins.
const DATA: usize = 0x80;
/// How long a cancelled command may take to end.
const CANCEL_WAIT: u64 = 500 * MILLISECOND;
/// What of a response is read first: its header.
const HEADER: usize = 10;

/// A TPM with this interface.
#[derive(Debug)]
pub struct Crb {
    registers: Registers,
    command: Buffer,
    response: Buffer,
}

/// A buffer within the registers' window.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    offset: usize,
    length: usize,
}

impl Buffer {
    /// The buffer that the TPM describes. One elsewhere in memory is not believed in: it would let the device model have the
    /// firmware write wherever it wants.
    fn new(low: u32, high: u32, length: u32) -> Result<Self, TransportError> {
        let address = u64::from(high) << 32 | u64::from(low);
        let offset = address.checked_sub(ADDRESS).and_then(|offset| usize::try_from(offset).ok());
        let offset = offset.filter(|offset| (DATA..LENGTH).contains(offset)).ok_or(TransportError::Interface)?;
        let length = (length as usize).min(LENGTH - offset);
        if length < HEADER { Err(TransportError::Interface) } else { Ok(Self { offset, length }) }
    }
}

impl Crb {
    /// Takes locality 0.
    ///
    /// # Errors
    /// If it is not granted, or the buffers are not where the driver looks.
    pub(super) fn new(registers: Registers) -> Result<Self, TransportError> {
        let read = |offset| registers.window.read_u32(offset);
        let command = Buffer::new(read(COMMAND_LOW), read(COMMAND_HIGH), read(COMMAND_SIZE))?;
        let response = Buffer::new(read(RESPONSE_LOW), read(RESPONSE_HIGH), read(RESPONSE_SIZE))?;
        registers.window.write_u32(LOCALITY_CONTROL, REQUEST_ACCESS);
        registers.wait_u32(LOCALITY_STATUS, GRANTED, GRANTED, REGISTER_WAIT)?;
        Ok(Self { registers, command, response })
    }

    /// Waits for a command to end; one that takes too long is cancelled.
    fn wait(&self, limit: Duration) -> Result<(), TransportError> {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        if self.registers.wait_u32(START, u32::MAX, 0, limit).is_ok() {
            return Ok(());
        }
        self.registers.window.write_u32(CANCEL, 1);
        let _ = self.registers.wait_u32(START, u32::MAX, 0, CANCEL_WAIT);
        self.registers.window.write_u32(CANCEL, 0);
        Err(TransportError::TimedOut)
    }
}

impl Transport for Crb {
    fn submit(&mut self, command: &[u8], into: &mut [u8], limit: Duration) -> Result<usize, TransportError> {
        if command.len() > self.command.length {
            return Err(TransportError::CommandTooLong);
        }
        let window = &self.registers.window;
        window.write_u32(REQUEST, COMMAND_READY);
        self.registers.wait_u32(REQUEST, COMMAND_READY, 0, REGISTER_WAIT)?;
        // Plain memory for as long as no command runs: one access of the device model's for many bytes.
        window.write_bytes(self.command.offset, command);
        window.write_u32(START, 1);
        self.wait(limit)?;
        if window.read_u32(STATUS) & FATAL != 0 {
            return Err(TransportError::Interface);
        }
        let (header, rest) = into.split_at_mut_checked(HEADER).ok_or(TransportError::ResponseLength)?;
        window.read_bytes(self.response.offset, header);
        let length = response_length(header, self.response.length.min(HEADER + rest.len()))?;
        window.read_bytes(self.response.offset + HEADER, &mut rest[..length - HEADER]);
        Ok(length)
    }

    fn release(&mut self) {
        self.registers.window.write_u32(REQUEST, GO_IDLE);
        self.registers.window.write_u32(LOCALITY_CONTROL, RELINQUISH);
    }
}
