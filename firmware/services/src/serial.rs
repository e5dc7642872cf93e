//! Serial ports: the trait that drivers implement. The protocol over it is in [`abi::serial`](crate::abi::serial).

use uefi_raw::protocol::console::serial::{ControlBits, Parity, StopBits};

/// What a line is set to (UEFI 2.10 §12.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Bits per second.
    pub baud_rate: u64,
    /// Characters that the receiver keeps.
    pub receive_fifo_depth: u32,
    /// Longest wait for one character, in microseconds.
    pub timeout: u32,
    /// Parity; never the default.
    pub parity: Parity,
    /// Bits of a character.
    pub data_bits: u8,
    /// Stop bits; never the default.
    pub stop_bits: StopBits,
}

impl Attributes {
    /// What UEFI 2.10 §12.8 gives for all UARTs.
    pub const DEFAULT: Self = Self {
        baud_rate: 115_200,
        receive_fifo_depth: 1,
        timeout: 1_000_000,
        parity: Parity::NONE,
        data_bits: 8,
        stop_bits: StopBits::ONE,
    };

    /// With the defaults in place of what is zero.
    pub fn or_default(self) -> Self {
        macro_rules! field {
            ($name:ident, $unset:expr) => {
                if self.$name == $unset { Self::DEFAULT.$name } else { self.$name }
            };
        }
        Self {
            baud_rate: field!(baud_rate, 0),
            receive_fifo_depth: field!(receive_fifo_depth, 0),
            timeout: field!(timeout, 0),
            parity: field!(parity, Parity::DEFAULT),
            data_bits: field!(data_bits, 0),
            stop_bits: field!(stop_bits, StopBits::DEFAULT),
        }
    }
}

/// The port cannot be set to what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsupported;

/// A serial port.
pub trait SerialPort {
    /// What it is set to.
    fn attributes(&self) -> Attributes;
    /// Sets it up. The baud rate may come out lower.
    fn set_attributes(&mut self, attributes: Attributes) -> Result<(), Unsupported>;
    /// Control lines and the state of the buffers.
    fn control(&self) -> ControlBits;
    /// Sets control lines.
    fn set_control(&mut self, control: ControlBits) -> Result<(), Unsupported>;
    /// Control bits that can be read or set.
    fn control_mask(&self) -> ControlBits;
    /// Writes, waiting for each character as long as the attributes say; returns how many were taken.
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// Reads, waiting for each character as long as the attributes say; returns how many came.
    fn read(&mut self, into: &mut [u8]) -> usize;
    /// Back to what it began with; what has not been read or sent is lost.
    fn reset(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_the_default() {
        let asked = Attributes {
            baud_rate: 0,
            receive_fifo_depth: 0,
            timeout: 0,
            parity: Parity::DEFAULT,
            data_bits: 0,
            stop_bits: StopBits::DEFAULT,
        };
        assert_eq!(asked.or_default(), Attributes::DEFAULT);
        let asked = Attributes { baud_rate: 9_600, parity: Parity::EVEN, ..asked };
        assert_eq!(asked.or_default(), Attributes { baud_rate: 9_600, parity: Parity::EVEN, ..Attributes::DEFAULT });
    }
}
