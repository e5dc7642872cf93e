//! The boot timeline as ACPI tables (ACPI 6.5 §5.2.24): FPDT, which points to FBPT, which holds the times.

use crate::acpi::{self, HEADER};

/// Size of the FPDT: header and one pointer record.
pub const FPDT: usize = HEADER + 16;
/// Size of the FBPT: its header and the boot performance record.
pub const FBPT: usize = 8 + RECORD;
/// Size of the Firmware Basic Boot Performance Data Record.
const RECORD: usize = 48;
/// Record types: pointer to the FBPT, boot performance data.
const POINTER_TYPE: u16 = 0;
const DATA_TYPE: u16 = 2;

/// A moment that the FBPT holds, in nanoseconds since the firmware's first instruction; the table's first field, for that
/// instruction itself, stays 0. The value is the offset of its field in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Moment {
    /// The boot program starts to be loaded.
    LoadStart = 24,
    /// The boot program starts to run.
    StartImage = 32,
    /// ExitBootServices is called.
    ExitEntry = 40,
    /// ExitBootServices returns.
    ExitDone = 48,
}

/// An FPDT that points to the FBPT at `fbpt`.
pub fn fpdt(fbpt: u64) -> [u8; FPDT] {
    let mut table = [0; FPDT];
    table[..HEADER].copy_from_slice(&acpi::header(b"FPDT", 1, FPDT as u32));
    record(&mut table[HEADER..], POINTER_TYPE, 16, 1);
    table[HEADER + 8..HEADER + 16].copy_from_slice(&fbpt.to_le_bytes());
    acpi::seal(&mut table);
    table
}

/// An FBPT with all times still 0.
pub fn fbpt() -> [u8; FBPT] {
    let mut table = [0; FBPT];
    table[..4].copy_from_slice(b"FBPT");
    table[4..8].copy_from_slice(&(FBPT as u32).to_le_bytes());
    record(&mut table[8..], DATA_TYPE, RECORD as u8, 2);
    table
}

fn record(into: &mut [u8], kind: u16, length: u8, revision: u8) {
    into[..2].copy_from_slice(&kind.to_le_bytes());
    into[2] = length;
    into[3] = revision;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_the_sizes_they_claim() {
        let fpdt = fpdt(0x1234_5678);
        assert_eq!(acpi::sum(&fpdt), 0);
        assert_eq!(fpdt[4..8], 52u32.to_le_bytes());
        assert_eq!(fpdt[44..52], 0x1234_5678u64.to_le_bytes());
        assert_eq!(fbpt()[4..8], 56u32.to_le_bytes());
        assert_eq!(Moment::ExitDone as usize + 8, FBPT);
    }
}
