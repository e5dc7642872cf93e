//! SCSI commands for CD drives (MMC-6 §6, SPC-4 §6).

use core::fmt;

use super::command::{Data, Error, LONG, Link, Packet, SHORT, Way};
use super::{rest, wait};
use crate::domain::{EmulatedMachine, MILLISECOND, SECOND};

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const READ_CAPACITY: u8 = 0x25;
const READ_10: u8 = 0x28;

/// Bytes in a block of a CD or DVD with data.
pub const BLOCK: u32 = 2048;
/// Most blocks of a READ (10).
pub const BLOCKS_MAX: usize = u16::MAX as usize;
/// How long a medium may take to become ready.
const LOADING: u64 = 5 * SECOND;
/// Between two questions whether it is ready.
const LOADING_PAUSE: u64 = 20 * MILLISECOND;

/// Why a drive refused a command: sense key, additional sense code and qualifier (SPC-4 §4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub code: u8,
    /// Its qualifier.
    pub qualifier: u8,
}

impl Sense {
    const NOT_READY: u8 = 2;
    const UNIT_ATTENTION: u8 = 6;
    const DATA_PROTECT: u8 = 7;

    /// Whether the drive is empty.
    pub const fn means_no_medium(&self) -> bool {
        const MEDIUM_NOT_PRESENT: u8 = 0x3A;
        self.key == Self::NOT_READY && self.code == MEDIUM_NOT_PRESENT
    }

    /// Whether the medium cannot be written.
    pub const fn means_write_protected(&self) -> bool {
        self.key == Self::DATA_PROTECT
    }

    /// Whether something happened to the drive: a reset, or a change of its medium. Told once.
    pub const fn is_attention(&self) -> bool {
        self.key == Self::UNIT_ATTENTION
    }

    /// Whether it was a reset.
    pub const fn means_reset(&self) -> bool {
        const RESET: u8 = 0x29;
        self.is_attention() && self.code == RESET
    }

    /// Whether the medium is being loaded.
    const fn means_loading(&self) -> bool {
        const BECOMING_READY: u8 = 0x04;
        self.key == Self::NOT_READY && self.code == BECOMING_READY
    }

    /// Fixed format (SPC-4 §4.5.3); `None` for anything else.
    fn parse(data: &[u8]) -> Option<Self> {
        const CURRENT: u8 = 0x70;
        const DEFERRED: u8 = 0x71;
        let valid = data.len() >= 14 && matches!(data[0] & 0x7F, CURRENT | DEFERRED);
        valid.then(|| Self { key: data[2] & 0xF, code: data[12], qualifier: data[13] })
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.means_no_medium() {
            return f.write_str("no medium in the drive");
        }
        write!(f, "sense key {:x}, code {:02x}/{:02x}", self.key, self.code, self.qualifier)
    }
}

fn packet(code: u8, patience: u64) -> Packet {
    let mut bytes = [0; 12];
    bytes[0] = code;
    Packet { bytes, patience }
}

/// Runs a packet; where the drive refuses it, asks why.
fn run(link: &mut dyn Link, device: u8, packet: &Packet, data: Data<'_>, way: Way) -> Result<usize, Error> {
    link.run_packet(device, packet, data, way).map_err(|error| match error {
        Error::Device(..) => request_sense(link, device).map_or(error, Error::Sense),
        other => other,
    })
}

fn request_sense(link: &mut dyn Link, device: u8) -> Option<Sense> {
    let mut data = [0; 18];
    let mut request = packet(REQUEST_SENSE, SHORT);
    request.bytes[4] = data.len() as u8;
    let length = link.run_packet(device, &request, Data::In(&mut data), Way::Pio).ok()?;
    Sense::parse(&data[..length.min(data.len())])
}

/// Waits for the medium; returns its number of blocks.
pub fn medium(machine: &EmulatedMachine, link: &mut dyn Link, device: u8) -> Result<u64, Error> {
    /// More things that happened to the drive than there are.
    const ATTENTIONS: u32 = 8;
    let mut attentions = 0;
    let ready =
        wait(machine, LOADING, || match run(link, device, &packet(TEST_UNIT_READY, SHORT), Data::None, Way::Pio) {
            Err(Error::Sense(sense)) if sense.is_attention() && attentions < ATTENTIONS => {
                attentions += 1;
                None
            }
            Err(Error::Sense(sense)) if sense.means_loading() => {
                rest(machine, LOADING_PAUSE);
                None
            }
            result => Some(result),
        });
    ready.unwrap_or(Err(Error::Stuck("the medium", 0)))?;
    let mut data = [0; 8];
    let length = run(link, device, &packet(READ_CAPACITY, SHORT), Data::In(&mut data), Way::Pio)?;
    let [last, block] = [0, 4].map(|at| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]));
    if length < data.len() || block != BLOCK || last == u32::MAX {
        return Err(Error::Nonsense("medium"));
    }
    Ok(u64::from(last) + 1)
}

/// Reads blocks, at most [`BLOCKS_MAX`]. A reset of the drive in between is overlooked.
pub fn read(link: &mut dyn Link, device: u8, block: u64, into: &mut [u8], way: Way) -> Result<(), Error> {
    let mut request = packet(READ_10, LONG);
    let first = u32::try_from(block).map_err(|_| Error::Short)?;
    let count = u16::try_from(into.len() / BLOCK as usize).map_err(|_| Error::Short)?;
    request.bytes[2..6].copy_from_slice(&first.to_be_bytes());
    request.bytes[7..9].copy_from_slice(&count.to_be_bytes());
    let mut result = run(link, device, &request, Data::In(into), way);
    if matches!(result, Err(Error::Sense(sense)) if sense.means_reset()) {
        result = run(link, device, &request, Data::In(into), way);
    }
    match result? {
        length if length == into.len() => Ok(()),
        _ => Err(Error::Short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sense_data_is_parsed_or_refused() {
        let mut data = [0; 18];
        assert_eq!(Sense::parse(&data), None);
        data[0] = 0xF0;
        data[2] = 0xF2;
        data[12] = 0x3A;
        let sense = Sense::parse(&data).unwrap();
        assert!(sense.means_no_medium() && !sense.is_attention());
        assert_eq!(Sense::parse(&data[..13]), None);
    }
}
