//! Xen's ACPI tables are passed on as they are. What the firmware adds is a root table of its own that lists theirs and one
//! more: Linux tells PVH from HVM by the FADT, so nothing of Xen's may change.

use crate::PhysicalMemory;

/// Size of the header every table starts with (ACPI 6.5 §5.2.6).
pub const HEADER: usize = 36;
/// Most tables a root table of ours can list.
pub const TABLES_MAX: usize = 64;
/// Addresses of tables.
pub type Tables = arrayvec::ArrayVec<u64, TABLES_MAX>;
/// Size of the root pointer (ACPI 6.5 §5.2.5.3).
pub const ROOT_POINTER: usize = 36;

/// Where a root pointer may be on a PC (ACPI 6.5 §5.2.5.1).
const BIOS_AREA: core::ops::Range<u64> = 0xE_0000..0x10_0000;

/// Address of the root pointer that hvmloader left in the BIOS area.
pub fn find_rsdp(memory: &dyn PhysicalMemory) -> Option<u64> {
    BIOS_AREA.step_by(16).find(|&address| {
        let mut pointer = [0; ROOT_POINTER];
        memory.read(address, &mut pointer) && pointer.starts_with(b"RSD PTR ") && sum(&pointer[..20]) == 0
    })
}

/// Addresses of the tables that the root pointer at `rsdp` leads to through its XSDT; empty where something is wrong.
pub fn tables(memory: &dyn PhysicalMemory, rsdp: u64) -> Tables {
    let mut tables = Tables::new();
    let mut pointer = [0; ROOT_POINTER];
    if rsdp == 0 || !memory.read(rsdp, &mut pointer) || !pointer.starts_with(b"RSD PTR ") || sum(&pointer) != 0 {
        return tables;
    }
    let xsdt = u64::from_le_bytes(array(&pointer, 24));
    let mut header = [0; HEADER];
    if !memory.read(xsdt, &mut header) || !header.starts_with(b"XSDT") {
        return tables;
    }
    let length = u32::from_le_bytes(array(&header, 4)) as usize;
    for index in 0..length.saturating_sub(HEADER) / 8 {
        let mut entry = [0; 8];
        let Some(at) = xsdt.checked_add((HEADER + index * 8) as u64) else { break };
        if !memory.read(at, &mut entry) || tables.try_push(u64::from_le_bytes(entry)).is_err() {
            break;
        }
    }
    tables
}

/// Writes a root pointer, an XSDT listing `tables`, at `address`; returns how many bytes that took.
pub fn write_root(memory: &mut dyn PhysicalMemory, address: u64, tables: &[u64]) -> Option<u64> {
    let xsdt_address = address.checked_add(ROOT_POINTER.next_multiple_of(16) as u64)?;
    let length = HEADER + tables.len() * 8;
    let mut xsdt = arrayvec::ArrayVec::<u8, { HEADER + TABLES_MAX * 8 }>::new();
    let header = header(b"XSDT", 1, length as u32);
    xsdt.try_extend_from_slice(&header).ok()?;
    for table in tables {
        xsdt.try_extend_from_slice(&table.to_le_bytes()).ok()?;
    }
    seal(&mut xsdt);
    let mut pointer = [0; ROOT_POINTER];
    pointer[..8].copy_from_slice(b"RSD PTR ");
    pointer[9..15].copy_from_slice(OEM_ID);
    pointer[15] = 2;
    pointer[20..24].copy_from_slice(&(ROOT_POINTER as u32).to_le_bytes());
    pointer[24..32].copy_from_slice(&xsdt_address.to_le_bytes());
    pointer[8] = sum(&pointer[..20]).wrapping_neg();
    pointer[32] = sum(&pointer).wrapping_neg();
    (memory.write(xsdt_address, &xsdt) && memory.write(address, &pointer))
        .then_some(xsdt_address + length as u64 - address)
}

const OEM_ID: &[u8; 6] = b"OVMFXN";

/// A table header with the checksum still to be set by [`seal`].
pub fn header(signature: &[u8; 4], revision: u8, length: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(signature);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8] = revision;
    header[10..16].copy_from_slice(OEM_ID);
    header[16..24].copy_from_slice(b"OVMFXEN ");
    header[24..28].copy_from_slice(&1u32.to_le_bytes());
    header[28..32].copy_from_slice(b"OVMF");
    header[32..36].copy_from_slice(&1u32.to_le_bytes());
    header
}

/// Sets the checksum of a whole table.
pub fn seal(table: &mut [u8]) {
    if table.len() >= HEADER {
        table[9] = 0;
        table[9] = sum(table).wrapping_neg();
    }
}

/// What ACPI's checksums must make zero.
pub fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    if let Some(from) = bytes.get(at..at + N) {
        array.copy_from_slice(from);
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes([u8; 1024]);

    impl PhysicalMemory for Bytes {
        fn read(&self, address: u64, into: &mut [u8]) -> bool {
            let Some(from) = self.0.get(address as usize..).and_then(|rest| rest.get(..into.len())) else {
                return false;
            };
            into.copy_from_slice(from);
            true
        }
        fn write(&mut self, address: u64, from: &[u8]) -> bool {
            let Some(to) = self.0.get_mut(address as usize..).and_then(|rest| rest.get_mut(..from.len())) else {
                return false;
            };
            to.copy_from_slice(from);
            true
        }
    }

    #[test]
    fn a_root_we_wrote_leads_to_its_tables() {
        let mut memory = Bytes([0; 1024]);
        let length = write_root(&mut memory, 16, &[0x1111, 0x2222_2222_2222]).unwrap();
        assert_eq!(tables(&memory, 16)[..], [0x1111, 0x2222_2222_2222]);
        assert_eq!(sum(&memory.0[16..16 + 20]), 0);
        assert_eq!(sum(&memory.0[16..16 + ROOT_POINTER]), 0);
        assert_eq!(sum(&memory.0[16 + 48..16 + length as usize]), 0);
    }

    #[test]
    fn a_broken_root_leads_nowhere() {
        let mut memory = Bytes([0; 1024]);
        assert!(tables(&memory, 0).is_empty());
        write_root(&mut memory, 16, &[1]).unwrap();
        memory.0[20] ^= 1;
        assert!(tables(&memory, 16).is_empty());
        assert!(tables(&memory, 1020).is_empty());
    }
}
