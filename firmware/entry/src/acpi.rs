//! Publishes Xen's ACPI tables, with the boot performance table beside them.

use core::ffi::c_void;

use hw::paging::PAGE;
use platform::PhysicalMemory;
use platform::acpi::{self, Tables};
use platform::performance::{self, FPDT, Moment};
use services::Result;
use services::Status;
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
/// them is written anew, with one more entry. Where that cannot be, Xen's own list is published, and without tables from Xen
/// nothing is.
pub fn publish(rsdp: u64, memory: Identity) -> Result<BootPerformance> {
    let tables = acpi::tables(&memory, rsdp);
    if tables.is_empty() {
        log::warn!("no ACPI tables at {rsdp:#x}");
        return Err(Status::NOT_FOUND);
    }
    publish_with_performance(tables, memory).inspect_err(|status| {
        log::error!("boot performance table: {status}");
        // No worse than it was: an operating system finds Xen's tables.
        let _ = services::api::install_configuration_table(&ACPI_20, rsdp as *mut c_void);
    })
}

fn publish_with_performance(mut tables: Tables, mut memory: Identity) -> Result<BootPerformance> {
    let kept = services::api::allocate_pages(MemoryType::ACPI_NON_VOLATILE, 1)?;
    let reclaimable = services::api::allocate_pages(MemoryType::ACPI_RECLAIM, 1)?;
    memory.write(kept, &performance::fbpt());
    memory.write(reclaimable, &performance::fpdt(kept));
    let root = reclaimable + (FPDT as u64).next_multiple_of(16);
    tables.try_push(reclaimable).map_err(|_| Status::OUT_OF_RESOURCES)?;
    acpi::write_root(&mut memory, root, &tables)
        .filter(|length| root + length <= reclaimable + PAGE)
        .ok_or(Status::OUT_OF_RESOURCES)?;
    services::api::install_configuration_table(&ACPI_20, root as *mut c_void)?;
    Ok(BootPerformance { memory, table: kept })
}
