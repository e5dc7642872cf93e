//! Publishes SMBIOS tables: those that hvmloader left behind, or on PVH our own.
//!
//! They go into memory of type EfiRuntimeServicesData, which UEFI 2.10 §2.3.4 recommends: operating systems keep it, and some
//! look at the tables late.

use alloc::format;
use alloc::string::String;
use core::arch::x86_64::__cpuid;
use core::ffi::c_void;
use core::ops::Range;

use hw::paging::PAGE;
use hw::xen::{Xen, XenCpuid};
use platform::smbios::own::{Facts, Processor, Table};
use platform::smbios::{Form, Found};
use platform::{GuestKind, PhysicalMemory, Platform, acpi};
use services::{Result, Status};
use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Guid, guid};

use crate::start::Identity;

/// `SMBIOS_TABLE_GUID` (UEFI 2.10 §4.6).
const SMBIOS: Guid = guid!("eb9d2d31-2d88-11d3-9a16-0090273fc14d");
/// `SMBIOS3_TABLE_GUID` (UEFI 2.10 §4.6).
const SMBIOS_3: Guid = guid!("f2fd1544-9794-4a2c-992e-e5bbcf20e394");
/// Room for an entry point.
const SLOT: u64 = 32;

/// Publishes the tables of this guest.
pub fn publish(platform: &Platform, xen: &Xen, cpuid: XenCpuid, memory: Identity) -> Result<()> {
    match platform.kind {
        GuestKind::Pvh => publish_own(platform, xen, cpuid, memory),
        GuestKind::Hvm => publish_found(&platform.smbios, memory),
    }
}

/// Publishes what hvmloader left behind, unchanged but for its place.
///
/// # Errors
/// `NOT_FOUND` if there was nothing.
fn publish_found(found: &Found, memory: Identity) -> Result<()> {
    let tables = [&found.legacy, &found.modern].into_iter().flatten();
    let mut result = Err(Status::NOT_FOUND);
    for entry in tables {
        let Range { start, end } = entry.table();
        let mut place = Place::new(memory, end - start)?;
        place.copy(start..end)?;
        result = place.install(entry.form(), entry.leading_to(place.table).as_deref());
    }
    result
}

/// Publishes tables of our own.
fn publish_own(platform: &Platform, xen: &Xen, cpuid: XenCpuid, memory: Identity) -> Result<()> {
    let (vendor, version) = (vendor(), version(xen, cpuid));
    let signature = __cpuid(1);
    let facts = Facts {
        xen: &version,
        uuid: xen.guest_handle().unwrap_or_default(),
        processors: acpi::processors(&memory, &acpi::tables(&memory, platform.rsdp)),
        processor: Processor { vendor: &vendor, identity: (signature.eax, signature.edx), mhz: megahertz(xen) },
        memory: &platform.memory,
    };
    let table = Table::new(&facts).ok_or(Status::BUFFER_TOO_SMALL)?;
    let mut place = Place::new(memory, table.bytes.len() as u64)?;
    place.write(place.table, &table.bytes)?;
    for form in [Form::Legacy, Form::Modern] {
        place.install(form, table.entry_point(form, place.table).as_deref())?;
    }
    Ok(())
}

/// Memory for a table with its entry points in front.
struct Place {
    memory: Identity,
    table: u64,
    /// Where the next entry point goes.
    entry: u64,
}

impl Place {
    fn new(memory: Identity, table_size: u64) -> Result<Self> {
        let pages = (2 * SLOT + table_size).div_ceil(PAGE);
        let address = services::api::allocate_pages(MemoryType::RUNTIME_SERVICES_DATA, pages)?;
        Ok(Self { memory, table: address + 2 * SLOT, entry: address })
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.memory.write(address, bytes).then_some(()).ok_or(Status::DEVICE_ERROR)
    }

    /// Copies the table from where it is.
    fn copy(&mut self, from: Range<u64>) -> Result<()> {
        let mut piece = [0; 256];
        for address in from.clone().step_by(piece.len()) {
            let piece = &mut piece[..(from.end - address).min(256) as usize];
            self.memory.read(address, piece).then_some(()).ok_or(Status::DEVICE_ERROR)?;
            self.write(self.table + address - from.start, piece)?;
        }
        Ok(())
    }

    /// Puts an entry point into its place and publishes it.
    fn install(&mut self, form: Form, entry: Option<&[u8]>) -> Result<()> {
        let entry = entry.ok_or(Status::UNSUPPORTED)?;
        let address = self.entry;
        self.write(address, entry)?;
        self.entry += SLOT;
        let guid = match form {
            Form::Legacy => &SMBIOS,
            Form::Modern => &SMBIOS_3,
        };
        services::api::install_configuration_table(guid, address as *mut c_void)
    }
}

/// The processor's maker, as CPUID has it.
fn vendor() -> String {
    let leaf = __cpuid(0);
    text([leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened())
}

/// Xen's version as text.
fn version(xen: &Xen, cpuid: XenCpuid) -> String {
    let (major, minor) = cpuid.version;
    format!("{major}.{minor}{}", text(&xen.extra_version().unwrap_or_default()))
}

/// The text before the first zero.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// The clock's frequency.
fn megahertz(xen: &Xen) -> u16 {
    const TICKS: u64 = 1_000_000_000;
    let nanoseconds = xen.time_info().map_or(0, |clock| clock.ticks_to_ns(TICKS));
    (TICKS * 1000).checked_div(nanoseconds).and_then(|mhz| u16::try_from(mhz).ok()).unwrap_or(0)
}
