//! ACPI tables that tell an operating system of the TPM, where the toolstack's do not (TCG ACPI Specification 1.3).
//!
//! hvmloader writes them only for what `platform/tpm_version` in xenstore says: 1, the default, gives a device and a table TCPA
//! where a TPM with FIFO registers is, 2 a device and a table TPM2 for a command response buffer (Xen's `tools/libacpi/build.c`,
//! `tools/firmware/hvmloader/util.c`). xl has no word for it. What they leave out is added here; theirs stay as they are.

use crate::PhysicalMemory;
use crate::acpi::{self, HEADER, table_length};

/// Where the registers of a TPM are.
const REGISTERS: u32 = 0xFED4_0000;
/// What belongs to them: one page for a command response buffer, five localities of a FIFO.
const CRB_LENGTH: u32 = 0x1000;
const FIFO_LENGTH: u32 = 0x5000;
/// Control area of a command response buffer.
const CRB_CONTROL_AREA: u64 = REGISTERS as u64 + 0x40;
/// Start methods.
const START_FIFO: u32 = 6;
const START_CRB: u32 = 7;
/// Revision of the table TPM2.
const REVISION: u8 = 4;
/// Size of the table TPM2.
pub const TPM2: usize = HEADER + 40;
/// Size of the table with the device.
pub const DEVICE: usize = HEADER + 59;

/// The TPM as it was found, and the log of what was measured into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tpm {
    /// Whether its registers are a command response buffer; else a FIFO.
    pub is_crb: bool,
    /// Address of the event log.
    pub log_address: u64,
    /// Length of the event log.
    pub log_length: u32,
}

/// What the toolstack's tables do not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing {
    /// There is no table TPM2.
    pub table: bool,
    /// There is no device in the namespace.
    pub device: bool,
}

/// Looks at the toolstack's tables. With a table TCPA or TPM2 there is a device as well: the one goes with the other.
pub fn missing(memory: &dyn PhysicalMemory, tables: &[u64]) -> Missing {
    let has = |signature| tables.iter().any(|table| table_length(memory, *table, signature).is_some());
    let table = !has(b"TPM2");
    Missing { table, device: table && !has(b"TCPA") }
}

/// The table TPM2.
pub fn tpm2(tpm: &Tpm) -> [u8; TPM2] {
    let mut table = [0; TPM2];
    table[..HEADER].copy_from_slice(&acpi::header(b"TPM2", REVISION, TPM2 as u32));
    let (control_area, start) = if tpm.is_crb { (CRB_CONTROL_AREA, START_CRB) } else { (0, START_FIFO) };
    // Platform class: a client.
    table[HEADER + 4..HEADER + 12].copy_from_slice(&control_area.to_le_bytes());
    table[HEADER + 12..HEADER + 16].copy_from_slice(&start.to_le_bytes());
    // Start method specific parameters: none.
    table[HEADER + 28..HEADER + 32].copy_from_slice(&tpm.log_length.to_le_bytes());
    table[HEADER + 32..].copy_from_slice(&tpm.log_address.to_le_bytes());
    acpi::seal(&mut table);
    table
}

/// A table SSDT with the device:
///
/// ```text
/// Scope (\_SB) { Device (TPM) {
///     Name (_HID, "MSFT0101")
///     Name (_STA, 0x0F)
///     Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, registers, length) })
/// } }
/// ```
pub fn device(tpm: &Tpm) -> [u8; DEVICE] {
    let mut table = [0; DEVICE];
    table[..HEADER].copy_from_slice(&acpi::header(b"SSDT", 2, DEVICE as u32));
    // AML (ACPI 6.5 §20.2): opcode, length of the package with its own byte, content.
    let aml: &[&[u8]] = &[
        &[0x10, 58],
        b"\\_SB_",
        &[0x5B, 0x82, 50],
        b"TPM_",
        b"\x08_HID\x0DMSFT0101\0",
        b"\x08_STA\x0A\x0F",
        b"\x08_CRS",
        // A buffer of 14 bytes: the descriptor (ACPI 6.5 §6.4.3.4), writable, and the end tag.
        &[0x11, 17, 0x0A, 14, 0x86, 9, 0, 1],
        &REGISTERS.to_le_bytes(),
        &if tpm.is_crb { CRB_LENGTH } else { FIFO_LENGTH }.to_le_bytes(),
        &[0x79, 0],
    ];
    let bytes = aml.iter().copied().flatten();
    table[HEADER..].iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    acpi::seal(&mut table);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    const CRB: Tpm = Tpm { is_crb: true, log_address: 0x1234_5000, log_length: 0x1_0000 };

    #[test]
    fn the_table_has_the_place_of_registers_and_log() {
        let table = tpm2(&CRB);
        assert_eq!(acpi::sum(&table), 0);
        assert_eq!(table[4..9], [76, 0, 0, 0, 4]);
        assert_eq!(table[40..52], [0x40, 0, 0xD4, 0xFE, 0, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(table[64..], [0, 0, 1, 0, 0, 0x50, 0x34, 0x12, 0, 0, 0, 0]);
        assert_eq!(tpm2(&Tpm { is_crb: false, ..CRB })[40..52], [0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0]);
    }

    #[test]
    fn packages_end_where_their_lengths_say() {
        let table = device(&CRB);
        assert_eq!(acpi::sum(&table), 0);
        let aml = &table[HEADER..];
        assert_eq!((usize::from(aml[1]) + 1, usize::from(aml[9]) + 9), (aml.len(), aml.len()));
        let buffer = aml.windows(2).position(|bytes| bytes == [0x11, 17]).unwrap() + 1;
        assert_eq!(usize::from(aml[buffer]) + buffer, aml.len());
        assert_eq!(aml[aml.len() - 2..], [0x79, 0]);
    }

    #[test]
    fn only_what_the_toolstack_left_out_is_missing() {
        let mut memory = Memory::new(0..512);
        memory.write(100, &acpi::header(b"TCPA", 2, 50));
        memory.write(200, &acpi::header(b"TPM2", 4, 76));
        memory.write(300, &acpi::header(b"APIC", 4, 76));
        let missing = |tables: &[u64]| {
            let missing = missing(&memory, tables);
            (missing.table, missing.device)
        };
        assert_eq!(missing(&[300]), (true, true));
        assert_eq!(missing(&[300, 100]), (true, false));
        assert_eq!(missing(&[200, 300]), (false, false));
    }
}
