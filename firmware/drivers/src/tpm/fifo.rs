//! The FIFO interface (PTP 1.05 §6.5.2), which older specifications call TIS: commands and responses go through one register.

use core::time::Duration;

use services::tcg2::{Transport, TransportError};

use super::{REGISTER_WAIT, Registers, response_length};

/// TPM_ACCESS_x and its bits.
const ACCESS: usize = 0x00;
const REQUEST_USE: u8 = 1 << 1;
const ACTIVE_LOCALITY: u8 = 1 << 5;
const VALID: u8 = 1 << 7;
/// TPM_INTF_CAPABILITY_x; its field DataTransferSizeSupport is 0 where only single bytes can be transferred.
const CAPABILITY: usize = 0x14;
const TRANSFER_SIZE: u32 = 3 << 9;
/// TPM_STS_x and its bits; the two bytes above them are burstCount.
const STATUS: usize = 0x18;
const EXPECT: u32 = 1 << 3;
const DATA_AVAILABLE: u32 = 1 << 4;
const GO: u32 = 1 << 5;
const COMMAND_READY: u32 = 1 << 6;
const STATUS_VALID: u32 = 1 << 7;
/// TPM_DATA_FIFO_x.
const DATA: usize = 0x24;
/// What of a response is read first: its header.
const HEADER: usize = 10;

/// A TPM with this interface.
#[derive(Debug)]
pub struct Fifo {
    registers: Registers,
    /// Whether four bytes can be transferred at once.
    words: bool,
}

impl Fifo {
    /// Takes locality 0.
    ///
    /// # Errors
    /// If it is not granted.
    pub(super) fn new(registers: Registers) -> Result<Self, TransportError> {
        registers.window.write_u8(ACCESS, REQUEST_USE);
        let taken = VALID | ACTIVE_LOCALITY;
        let granted = registers.machine.poll(REGISTER_WAIT, || {
            let access = registers.window.read_u8(ACCESS);
            (access & taken == taken && access != u8::MAX).then_some(())
        });
        granted.ok_or(TransportError::TimedOut)?;
        let words = registers.window.read_u32(CAPABILITY) & TRANSFER_SIZE != 0;
        Ok(Self { registers, words })
    }

    fn write_status(&self, value: u32) {
        self.registers.window.write_u32(STATUS, value);
    }

    /// How many bytes can go through the FIFO now, once that is one at least.
    fn burst(&self) -> Result<usize, TransportError> {
        let window = &self.registers.window;
        let burst = self.registers.machine.poll(REGISTER_WAIT, || {
            let status = window.read_u32(STATUS);
            let burst = usize::from((status >> 8) as u16);
            (burst != 0 && status != u32::MAX).then_some(burst)
        });
        burst.ok_or(TransportError::TimedOut)
    }

    fn send(&self, command: &[u8]) -> Result<(), TransportError> {
        let window = &self.registers.window;
        let mut rest = command;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.burst()?.min(rest.len()));
            let (words, bytes) = now.as_chunks::<4>();
            for word in words {
                if self.words {
                    window.write_u32(DATA, u32::from_le_bytes(*word));
                } else {
                    word.iter().for_each(|byte| window.write_u8(DATA, *byte));
                }
            }
            bytes.iter().for_each(|byte| window.write_u8(DATA, *byte));
            rest = later;
        }
        let status = self.registers.wait_u32(STATUS, STATUS_VALID, STATUS_VALID, REGISTER_WAIT)?;
        // It wants more than the command: they do not agree on where it ends.
        if status & EXPECT == 0 { Ok(()) } else { Err(TransportError::Interface) }
    }

    fn receive(&self, mut into: &mut [u8]) -> Result<(), TransportError> {
        let window = &self.registers.window;
        while !into.is_empty() {
            let (now, later) = into.split_at_mut(self.burst()?.min(into.len()));
            let (words, bytes) = now.as_chunks_mut::<4>();
            for word in words {
                if self.words {
                    *word = window.read_u32(DATA).to_le_bytes();
                } else {
                    word.iter_mut().for_each(|byte| *byte = window.read_u8(DATA));
                }
            }
            bytes.iter_mut().for_each(|byte| *byte = window.read_u8(DATA));
            into = later;
        }
        Ok(())
    }
}

impl Transport for Fifo {
    fn submit(&mut self, command: &[u8], into: &mut [u8], limit: Duration) -> Result<usize, TransportError> {
        self.write_status(COMMAND_READY);
        self.registers.wait_u32(STATUS, COMMAND_READY, COMMAND_READY, REGISTER_WAIT)?;
        self.send(command)?;
        self.write_status(GO);
        let ready = STATUS_VALID | DATA_AVAILABLE;
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let response = self.registers.wait_u32(STATUS, ready, ready, limit).and_then(|_| {
            let (header, rest) = into.split_at_mut_checked(HEADER).ok_or(TransportError::ResponseLength)?;
            self.receive(header)?;
            let length = response_length(header, HEADER + rest.len())?;
            self.receive(&mut rest[..length - HEADER])?;
            Ok(length)
        });
        // Ends a command that still runs, and drops what of a response is left.
        self.write_status(COMMAND_READY);
        response
    }

    fn release(&mut self) {
        // Writing the bit gives the locality back.
        self.registers.window.write_u8(ACCESS, ACTIVE_LOCALITY);
    }
}
