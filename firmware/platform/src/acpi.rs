//! The toolstack's ACPI tables are passed on as they are. What the firmware adds is a root table of its own that lists theirs
//! and one more: Linux tells PVH from HVM by the FADT, so nothing of theirs may change.

use crate::{PhysicalMemory, legacy_area};

/// Size of the header every table starts with (ACPI 6.5 §5.2.6).
pub const HEADER: usize = 36;
/// Most tables a root table of ours can list.
pub const TABLES_MAX: usize = 64;
/// Addresses of tables.
pub type Tables = arrayvec::ArrayVec<u64, TABLES_MAX>;
/// Size of the root pointer (ACPI 6.5 §5.2.5.3).
pub const ROOT_POINTER: usize = 36;
/// Size of what a root pointer of ACPI 1.0 has.
const ROOT_POINTER_1: usize = 20;
const ROOT_POINTER_SIGNATURE: &[u8] = b"RSD PTR ";

/// Address of the root pointer that hvmloader left behind. Of the two places that ACPI 6.5 §5.2.5.1 names, hvmloader makes no
/// extended BIOS data area.
pub fn find_rsdp(memory: &dyn PhysicalMemory) -> Option<u64> {
    legacy_area::find(memory, ROOT_POINTER_SIGNATURE, |address| root_pointer(memory, address).map(|_| address))
}

/// The root pointer at `rsdp`, if its checksums are right; what ACPI 1.0 does not have is zero.
fn root_pointer(memory: &dyn PhysicalMemory, rsdp: u64) -> Option<[u8; ROOT_POINTER]> {
    let mut pointer = [0; ROOT_POINTER];
    let (old, new) = pointer.split_at_mut(ROOT_POINTER_1);
    if rsdp == 0 || !memory.read(rsdp, old) || !old.starts_with(ROOT_POINTER_SIGNATURE) || sum(old) != 0 {
        return None;
    }
    let is_new = old[15] >= 2;
    if is_new && (!memory.read(rsdp.checked_add(ROOT_POINTER_1 as u64)?, new) || sum(&pointer) != 0) {
        return None;
    }
    Some(pointer)
}

/// Addresses of the tables that the root pointer at `rsdp` leads to through its XSDT, or through its RSDT where it has no XSDT;
/// empty where something is wrong.
pub fn tables(memory: &dyn PhysicalMemory, rsdp: u64) -> Tables {
    let Some(pointer) = root_pointer(memory, rsdp) else { return Tables::new() };
    let xsdt = listed::<8>(memory, u64::from_le_bytes(array(&pointer, 24)), b"XSDT");
    if xsdt.is_empty() { listed::<4>(memory, u32::from_le_bytes(array(&pointer, 16)).into(), b"RSDT") } else { xsdt }
}

/// What the root table at `address` lists in entries of `SIZE` bytes.
fn listed<const SIZE: usize>(memory: &dyn PhysicalMemory, address: u64, signature: &[u8; 4]) -> Tables {
    let mut tables = Tables::new();
    let Some(length) = table_length(memory, address, signature) else { return tables };
    for offset in (HEADER..).step_by(SIZE).take(length.saturating_sub(HEADER) / SIZE) {
        let mut entry = [0; 8];
        let Some(at) = address.checked_add(offset as u64) else { break };
        if !memory.read(at, &mut entry[..SIZE]) || tables.try_push(u64::from_le_bytes(entry)).is_err() {
            break;
        }
    }
    tables
}

/// Length that the table at `address` claims; `None` if it is not of this kind.
pub(crate) fn table_length(memory: &dyn PhysicalMemory, address: u64, signature: &[u8; 4]) -> Option<usize> {
    let mut header = [0; HEADER];
    (address != 0 && memory.read(address, &mut header) && header.starts_with(signature))
        .then(|| u32::from_le_bytes(array(&header, 4)) as usize)
}

/// How many processors the MADT (ACPI 6.5 §5.2.12) among `tables` has that can be used; 0 without one.
pub fn processors(memory: &dyn PhysicalMemory, tables: &[u64]) -> usize {
    /// Where the list of structures begins.
    const LIST: usize = HEADER + 8;
    /// Flags of a processor: enabled.
    const ENABLED: u8 = 1;
    let madt = tables.iter().find_map(|table| Some((*table, table_length(memory, *table, b"APIC")?)));
    let Some((madt, length)) = madt else { return 0 };
    let (mut offset, mut count) = (LIST, 0);
    while offset < length {
        let mut entry = [0; 9];
        // The last one may be shorter than what is read, and then memory may end behind it.
        let Some(at) = madt.checked_add(offset as u64) else { break };
        if !memory.read(at, &mut entry) && !memory.read(at, &mut entry[..8]) {
            break;
        }
        // Local APIC (§5.2.12.2) and local x2APIC (§5.2.12.12).
        count += usize::from(
            matches!((entry[0], entry[4], entry[8]), (0, flags, _) | (9, _, flags) if flags & ENABLED != 0),
        );
        // An entry without length would be read for ever.
        offset += usize::from(entry[1]).max(2);
    }
    count
}

/// Writes a root pointer, an XSDT and an RSDT listing `tables`, at `address`; returns how many bytes that took.
///
/// The RSDT is for readers that know no other: GRUB's `halt` follows its address without a look at it, and page 0 is not
/// mapped here. A table above 4 GiB is left out of it.
pub fn write_root(memory: &mut dyn PhysicalMemory, address: u64, tables: &[u64]) -> Option<u64> {
    let xsdt_address = address.checked_add(ROOT_POINTER.next_multiple_of(16) as u64)?;
    let xsdt = root_table(b"XSDT", tables.iter().map(|table| table.to_le_bytes()))?;
    let rsdt_address = xsdt_address.checked_add(xsdt.len().next_multiple_of(16) as u64)?;
    let low = tables.iter().filter_map(|table| u32::try_from(*table).ok());
    let rsdt = root_table(b"RSDT", low.map(u32::to_le_bytes))?;
    let mut pointer = [0; ROOT_POINTER];
    pointer[..8].copy_from_slice(ROOT_POINTER_SIGNATURE);
    pointer[9..15].copy_from_slice(OEM_ID);
    pointer[15] = 2;
    pointer[16..20].copy_from_slice(&u32::try_from(rsdt_address).unwrap_or(0).to_le_bytes());
    pointer[20..24].copy_from_slice(&(ROOT_POINTER as u32).to_le_bytes());
    pointer[24..32].copy_from_slice(&xsdt_address.to_le_bytes());
    pointer[8] = sum(&pointer[..ROOT_POINTER_1]).wrapping_neg();
    pointer[32] = sum(&pointer).wrapping_neg();
    (memory.write(xsdt_address, &xsdt) && memory.write(rsdt_address, &rsdt) && memory.write(address, &pointer))
        .then_some(rsdt_address + rsdt.len() as u64 - address)
}

/// A table that lists others.
type RootTable = arrayvec::ArrayVec<u8, { HEADER + TABLES_MAX * 8 }>;

/// The whole table with these entries; `None` if it would be too long.
fn root_table<const SIZE: usize>(
    signature: &[u8; 4],
    entries: impl Iterator<Item = [u8; SIZE]> + Clone,
) -> Option<RootTable> {
    let mut table = RootTable::new();
    table.try_extend_from_slice(&header(signature, 1, (HEADER + entries.clone().count() * SIZE) as u32)).ok()?;
    for entry in entries {
        table.try_extend_from_slice(&entry).ok()?;
    }
    seal(&mut table);
    Some(table)
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

/// The bytes at `at`; zeros where there are not enough.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    if let Some(from) = bytes.get(at..at + N) {
        array.copy_from_slice(from);
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    #[test]
    fn a_root_we_wrote_leads_to_its_tables() {
        let mut memory = Memory::new(0..1024);
        let length = write_root(&mut memory, 16, &[0x1111, 0x2222_2222_2222]).unwrap();
        assert_eq!(tables(&memory, 16)[..], [0x1111, 0x2222_2222_2222]);
        assert_eq!(sum(&memory.bytes[16..16 + 20]), 0);
        assert_eq!(sum(&memory.bytes[16..16 + ROOT_POINTER]), 0);
        // The XSDT; behind it what fills up its last 16 bytes is zero, then the RSDT.
        assert_eq!(sum(&memory.bytes[64..64 + 52]), 0);
        assert_eq!(sum(&memory.bytes[16 + 48..16 + length as usize]), 0);
        let rsdt = u32::from_le_bytes(array(&memory.bytes, 32)).into();
        assert_eq!(listed::<4>(&memory, rsdt, b"RSDT")[..], [0x1111]);
    }

    #[test]
    fn a_broken_root_leads_nowhere() {
        let mut memory = Memory::new(0..1024);
        assert!(tables(&memory, 0).is_empty());
        write_root(&mut memory, 16, &[1]).unwrap();
        memory.bytes[20] ^= 1;
        assert!(tables(&memory, 16).is_empty());
        assert!(tables(&memory, 1020).is_empty());
    }

    /// A root pointer of ACPI 1.0 with an RSDT behind it.
    fn write_old_root(memory: &mut Memory, address: u64, tables: &[u32]) {
        let rsdt = address + 32;
        let mut bytes = header(b"RSDT", 1, (HEADER + tables.len() * 4) as u32).to_vec();
        bytes.extend(tables.iter().flat_map(|table| table.to_le_bytes()));
        seal(&mut bytes);
        assert!(memory.write(rsdt, &bytes));
        let pointer = memory.at(address, ROOT_POINTER_1);
        pointer[..8].copy_from_slice(ROOT_POINTER_SIGNATURE);
        pointer[16..].copy_from_slice(&(rsdt as u32).to_le_bytes());
        pointer[8] = sum(pointer).wrapping_neg();
    }

    #[test]
    fn a_root_of_acpi_1_leads_to_the_tables_of_its_rsdt() {
        let mut memory = Memory::new(0xE_0000..0x10_0000);
        write_old_root(&mut memory, 0xE_A020, &[0xFC00_1000, 0xFFFF_FFF0]);
        assert_eq!(tables(&memory, find_rsdp(&memory).unwrap())[..], [0xFC00_1000, 0xFFFF_FFF0]);
    }

    #[test]
    fn only_a_root_pointer_with_the_right_checksum_is_found() {
        let mut memory = Memory::new(0xE_0000..0x10_0000);
        assert_eq!(find_rsdp(&memory), None);
        memory.at(0xE_0010, 8).copy_from_slice(ROOT_POINTER_SIGNATURE);
        write_root(&mut memory, 0xF_FF00, &[1]).unwrap();
        assert_eq!(find_rsdp(&memory), Some(0xF_FF00));
    }

    #[test]
    fn enabled_processors_of_either_kind_are_counted() {
        let mut memory = Memory::new(0..256);
        let mut madt = header(b"APIC", 3, 0).to_vec();
        madt.extend([0; 8]);
        madt.extend([0, 8, 0, 0, 1, 0, 0, 0]);
        madt.extend([1, 12, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        madt.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        madt.extend([0, 8, 0, 0, 0, 0, 0, 0]);
        madt.extend([0, 8, 1, 2, 1, 0, 0, 0]);
        madt[4] = madt.len() as u8;
        let address = 256 - madt.len() as u64;
        assert!(memory.write(address, &madt));
        assert_eq!(processors(&memory, &[1, address]), 3);
    }

    #[test]
    fn a_madt_that_goes_nowhere_ends() {
        let mut memory = Memory::new(0..256);
        memory.at(16, HEADER).copy_from_slice(&header(b"APIC", 3, u32::MAX));
        assert_eq!(processors(&memory, &[16]), 0);
        assert_eq!(processors(&memory, &[]), 0);
    }
}
