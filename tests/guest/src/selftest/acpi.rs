//! The ACPI tables that the configuration table leads to (ACPI 6.5 §5.2).

use alloc::vec::Vec;

use uefi_raw::{Guid, guid};

use crate::harness::{Outcome, Test};
use crate::support::Map;
use crate::tables::configuration;
use uefi_raw::table::boot::MemoryType;

pub const TESTS: &[Test] = tests![
    the_root_pointer_has_both_checksums,
    every_table_has_its_signature_and_checksum,
    the_tables_an_operating_system_needs_are_there,
    the_tables_are_not_in_memory_that_an_operating_system_may_use,
];

const ACPI_20: Guid = guid!("8868e871-e4f1-11d3-bc22-0080c73c8881");
const RSDP_1_SIZE: usize = 20;
const RSDP_2_SIZE: usize = 36;
const HEADER_SIZE: usize = 36;
const DSDT: usize = 40;
const X_DSDT: usize = 140;

fn bytes(address: u64, size: usize) -> &'static [u8] {
    efi!(core::slice::from_raw_parts(address as *const u8, size))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn rsdp() -> Result<&'static [u8], alloc::string::String> {
    let pointer = configuration(&ACPI_20).ok_or("no ACPI 2.0 table")?;
    Ok(bytes(pointer.addr() as u64, RSDP_2_SIZE))
}

fn table(address: u64) -> &'static [u8] {
    bytes(address, half(bytes(address, HEADER_SIZE), 4) as usize)
}

/// XSDT, what it lists, and the DSDT.
fn all() -> Result<Vec<&'static [u8]>, alloc::string::String> {
    let xsdt = table(word(rsdp()?, 24));
    let mut tables = alloc::vec![xsdt];
    for entry in xsdt[HEADER_SIZE..].chunks_exact(8) {
        let found = table(word(entry, 0));
        tables.push(found);
        if found.starts_with(b"FACP") {
            let dsdt = [word(found, X_DSDT), half(found, DSDT).into()].into_iter().find(|address| *address != 0);
            tables.extend(dsdt.map(table));
        }
    }
    Ok(tables)
}

fn the_root_pointer_has_both_checksums() -> Outcome {
    let rsdp = rsdp()?;
    same!(&rsdp[..8], b"RSD PTR ");
    check!(rsdp[15] >= 2, "revision {}", rsdp[15]);
    same!((sum(&rsdp[..RSDP_1_SIZE]), sum(rsdp)), (0, 0));
    Ok(())
}

fn every_table_has_its_signature_and_checksum() -> Outcome {
    let tables = all()?;
    same!(&tables[0][..4], b"XSDT");
    for table in tables {
        let name = table[..4].escape_ascii();
        check!(table[..4].iter().all(u8::is_ascii_uppercase), "{name}");
        check!(table.len() >= HEADER_SIZE && sum(table) == 0, "{name} of {} bytes sums to {}", table.len(), sum(table));
    }
    Ok(())
}

fn the_tables_an_operating_system_needs_are_there() -> Outcome {
    let tables = all()?;
    for name in [b"FACP", b"APIC", b"DSDT"] {
        check!(tables.iter().any(|table| table.starts_with(name)), "no {}", name.escape_ascii());
    }
    Ok(())
}

fn the_tables_are_not_in_memory_that_an_operating_system_may_use() -> Outcome {
    let map = Map::now();
    let rsdp = rsdp()?;
    for table in all()?.into_iter().chain([rsdp]) {
        let ty = map.of(table.as_ptr().addr() as u64).map(|descriptor| descriptor.ty);
        let kept = [
            MemoryType::ACPI_RECLAIM,
            MemoryType::ACPI_NON_VOLATILE,
            MemoryType::RESERVED,
            MemoryType::RUNTIME_SERVICES_DATA,
        ];
        check!(ty.is_none_or(|ty| kept.contains(&ty)), "{} is in {ty:?}", table[..4].escape_ascii());
    }
    Ok(())
}
