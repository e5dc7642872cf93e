//! Publishes Xen's ACPI tables, with the boot performance table and what they leave out of a TPM beside them.

use core::ffi::c_void;

use hw::paging::PAGE;
use platform::PhysicalMemory;
use platform::acpi::{self, Tables};
use platform::boot_graphics::bgrt;
use platform::performance::{self, Moment};
use platform::tpm::{self, Tpm};
use services::Result;
use services::Status;
use services::api::ShownLogo;
use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Guid, guid};

use crate::start::Identity;

/// `EFI_ACPI_20_TABLE_GUID` (UEFI 2.10 §4.6).
const ACPI_20: Guid = guid!("8868e871-e4f1-11d3-bc22-0080c73c8881");

/// The published boot performance table.
#[derive(Clone, Copy, Debug)]
pub struct BootPerformance {
    memory: Identity,
    table: u64,
}

impl BootPerformance {
    /// Notes that `moment` was `nanoseconds` after the firmware's first instruction.
    pub fn note(&mut self, moment: Moment, nanoseconds: u64) {
        self.memory.write(self.table + moment as u64, &nanoseconds.to_le_bytes());
    }
}

/// Installs the ACPI root pointer as a configuration table. Xen's tables stay where they are and as they are; only the list of
/// them is written anew, with more entries. Where that cannot be, Xen's own list is published, and without tables from Xen
/// nothing is.
pub fn publish(rsdp: u64, memory: Identity, tpm: Option<Tpm>, logo: Option<ShownLogo>) -> Result<BootPerformance> {
    let tables = acpi::tables(&memory, rsdp);
    if tables.is_empty() {
        log::warn!("no ACPI tables at {rsdp:#x}");
        return Err(Status::NOT_FOUND);
    }
    publish_with_ours(tables, memory, tpm, logo).inspect_err(|status| {
        log::error!("ACPI tables: {status}");
        // No worse than it was: an operating system finds Xen's tables.
        let _ = services::api::install_configuration_table(&ACPI_20, rsdp as *mut c_void);
    })
}

fn publish_with_ours(
    mut tables: Tables,
    memory: Identity,
    tpm: Option<Tpm>,
    logo: Option<ShownLogo>,
) -> Result<BootPerformance> {
    let missing = tpm.map(|tpm| (tpm, tpm::missing(&memory, &tables)));
    let kept = services::api::allocate_pages(MemoryType::ACPI_NON_VOLATILE, 1)?;
    let mut page = Page::new(memory)?;
    page.memory.write(kept, &performance::fbpt());
    tables.try_push(page.put(&performance::fpdt(kept))?).map_err(|_| Status::OUT_OF_RESOURCES)?;
    if let Some((tpm, missing)) = missing {
        if missing.device {
            tables.try_push(page.put(&tpm::device(&tpm))?).map_err(|_| Status::OUT_OF_RESOURCES)?;
        }
        if missing.table {
            tables.try_push(page.put(&tpm::tpm2(&tpm))?).map_err(|_| Status::OUT_OF_RESOURCES)?;
        }
    }
    if let Some(ShownLogo { bitmap, place }) = logo {
        tables.try_push(page.put(&bgrt(bitmap, place))?).map_err(|_| Status::OUT_OF_RESOURCES)?;
    }
    let root = page.next;
    acpi::write_root(&mut page.memory, root, &tables)
        .filter(|length| root + length <= page.end)
        .ok_or(Status::OUT_OF_RESOURCES)?;
    services::api::install_configuration_table(&ACPI_20, root as *mut c_void)?;
    Ok(BootPerformance { memory, table: kept })
}

/// A page of tables of ours, filled from its beginning on.
struct Page {
    memory: Identity,
    next: u64,
    end: u64,
}

impl Page {
    fn new(memory: Identity) -> Result<Self> {
        let start = services::api::allocate_pages(MemoryType::ACPI_RECLAIM, 1)?;
        Ok(Self { memory, next: start, end: start + PAGE })
    }

    /// Puts a table down; returns where.
    fn put(&mut self, table: &[u8]) -> Result<u64> {
        let at = self.next;
        let next = (at + table.len() as u64).next_multiple_of(16);
        if next > self.end || !self.memory.write(at, table) {
            return Err(Status::OUT_OF_RESOURCES);
        }
        self.next = next;
        Ok(at)
    }
}
