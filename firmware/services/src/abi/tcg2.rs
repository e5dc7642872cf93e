//! EFI_TCG2_PROTOCOL (TCG EFI Protocol 1.00 revision 0.13 §6) over [`Tcg2`].

use alloc::boxed::Box;
use core::ffi::c_void;
use core::ptr;

use uefi_raw::protocol::tcg::EventType;
use uefi_raw::protocol::tcg::v2::{
    Tcg2BootServiceCapability, Tcg2EventHeader, Tcg2EventLogBitmap, Tcg2EventLogFormat, Tcg2HashAlgorithmBitmap,
    Tcg2HashLogExtendEventFlags, Tcg2Protocol, Tcg2Version,
};
use uefi_raw::table::boot::{MemoryType, PAGE_SIZE};
use uefi_raw::{Boolean, Guid, PhysicalAddress, Status, guid};

use super::gate::Gate;
use super::handle::install;
use super::misc::status;
use super::table::set_configuration;
use crate::Result;
use crate::api::memory::{allocate_pages_in, free_pages_in};
use crate::core_state::Core;
use crate::image::pe::Pe;
use crate::memory::Placement;
use crate::tcg2::{Tcg2, Transport};

/// EFI_TCG2_FINAL_EVENTS_TABLE.
const FINAL_EVENTS: Guid = guid!("1e2ed096-30e2-4254-bd89-863bbef82325");
/// Version of protocol and structure: 1.1.
const VERSION: Tcg2Version = Tcg2Version { major: 1, minor: 1 };
/// Version and size of EFI_TCG2_BOOT_SERVICE_CAPABILITY for callers that know version 1.0: it ends before the number of banks.
const VERSION_1_0: Tcg2Version = Tcg2Version { major: 1, minor: 0 };
const SIZE_1_0: usize = core::mem::offset_of!(Tcg2BootServiceCapability, number_of_pcr_banks);
/// Version of EFI_TCG2_EVENT_HEADER.
const HEADER_VERSION: u16 = 1;
/// Pages of the log: the least that TCG's ACPI specification lets a log have is 64 KiB.
const LOG_PAGES: usize = 16;
/// Pages of the final events table. What is measured late is ExitBootServices, and what a loader does after it has read the log.
const FINAL_EVENTS_PAGES: usize = 2;

/// What the protocol is the first field of.
#[repr(C)]
pub(super) struct Object {
    protocol: Tcg2Protocol,
    /// Where the log is.
    log: u64,
    pub(super) tcg2: Gate<Tcg2>,
}

/// Where the event log lies: for the ACPI table that tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogArea {
    /// Physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: u32,
}

/// Makes the TPM behind `transport` ready, and installs the protocol and the final events table.
///
/// # Errors
/// `DEVICE_ERROR` if the TPM does not work; `OUT_OF_RESOURCES`.
pub(super) fn start(core: &Core, transport: Box<dyn Transport>) -> Result<(&'static Object, LogArea)> {
    // Kept by the operating system: it reads both when the boot services are long gone.
    let ty = MemoryType::ACPI_NON_VOLATILE;
    let pages = LOG_PAGES + FINAL_EVENTS_PAGES;
    let address = allocate_pages_in(core, Placement::Any, ty, pages as u64)?;
    let memory: *mut u8 = ptr::with_exposed_provenance_mut(address as usize);
    // SAFETY: just allocated, of this length, never freed once it is used. Programs that are shown it only read it.
    let memory: &'static mut [u8] = unsafe {
        memory.write_bytes(0, pages * PAGE_SIZE);
        core::slice::from_raw_parts_mut(memory, pages * PAGE_SIZE)
    };
    let (log, final_events) = memory.split_at_mut(LOG_PAGES * PAGE_SIZE);
    let final_address: *mut u8 = final_events.as_mut_ptr();
    let tcg2 = match Tcg2::start(transport, log, final_events) {
        Ok(tcg2) => tcg2,
        Err(error) => {
            log::error!("TPM: {error}");
            free_pages_in(core, address, pages as u64)?;
            return Err(error.into());
        }
    };
    let object = Box::leak(Box::new(Object { protocol: protocol(), log: address, tcg2: Gate::new(tcg2) }));
    install(core, None, &[(Tcg2Protocol::GUID, (&raw mut *object).cast())])?;
    set_configuration(core, &FINAL_EVENTS, final_address.cast())?;
    Ok((object, LogArea { address, length: (LOG_PAGES * PAGE_SIZE) as u32 }))
}

fn protocol() -> Tcg2Protocol {
    Tcg2Protocol {
        get_capability,
        get_event_log,
        hash_log_extend_event,
        submit_command,
        get_active_pcr_banks,
        set_active_pcr_banks,
        get_result_of_set_active_pcr_banks,
    }
}

/// # Safety
/// `this` is null or the EFI_TCG2_PROTOCOL of an [`Object`].
unsafe fn object<'a>(this: *mut Tcg2Protocol) -> Result<&'a Object> {
    // SAFETY: by contract it is null or the first field of an object, which is never freed.
    unsafe { this.cast::<Object>().as_ref() }.ok_or(Status::INVALID_PARAMETER)
}

unsafe extern "efiapi" fn get_capability(this: *mut Tcg2Protocol, into: *mut Tcg2BootServiceCapability) -> Status {
    // SAFETY: the caller answers for `this`.
    let Ok(object) = (unsafe { object(this) }) else { return Status::INVALID_PARAMETER };
    if into.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let whole = size_of::<Tcg2BootServiceCapability>();
    // SAFETY: not null; its first byte is its size.
    let room = usize::from(unsafe { into.cast::<u8>().read() });
    let (size, version) = match room {
        room if room >= whole => (whole, VERSION),
        room if room >= SIZE_1_0 => (SIZE_1_0, VERSION_1_0),
        _ => {
            // SAFETY: as above.
            unsafe { into.cast::<u8>().write(whole as u8) };
            return Status::BUFFER_TOO_SMALL;
        }
    };
    let capability = object.tcg2.with(|tcg2| {
        let facts = tcg2.facts();
        Tcg2BootServiceCapability {
            size: size as u8,
            structure_version: version,
            protocol_version: VERSION,
            hash_algorithm_bitmap: facts.supported,
            supported_event_logs: Tcg2EventLogBitmap::TCG_2,
            tpm_present_flag: 1,
            max_command_size: facts.max_command,
            max_response_size: facts.max_response,
            manufacturer_id: facts.manufacturer,
            number_of_pcr_banks: facts.bank_count,
            active_pcr_banks: facts.active,
        }
    });
    let Ok(capability) = capability else { return Status::DEVICE_ERROR };
    // SAFETY: the caller has room for as many bytes.
    unsafe { into.cast::<u8>().copy_from_nonoverlapping((&raw const capability).cast(), size) };
    Status::SUCCESS
}

unsafe extern "efiapi" fn get_event_log(
    this: *mut Tcg2Protocol,
    format: Tcg2EventLogFormat,
    location: *mut PhysicalAddress,
    last_entry: *mut PhysicalAddress,
    truncated: *mut Boolean,
) -> Status {
    // SAFETY: the caller answers for `this`.
    let Ok(object) = (unsafe { object(this) }) else { return Status::INVALID_PARAMETER };
    if format != Tcg2EventLogBitmap::TCG_2 {
        return Status::INVALID_PARAMETER;
    }
    let found = object.tcg2.with(|tcg2| {
        let log = tcg2.give_out_log();
        (log.last() as u64, log.is_truncated())
    });
    let Ok((last, is_truncated)) = found else { return Status::DEVICE_ERROR };
    // SAFETY: each is written only where it is not null.
    unsafe {
        if let Some(location) = location.as_mut() {
            *location = object.log;
        }
        if let Some(last_entry) = last_entry.as_mut() {
            *last_entry = object.log + last;
        }
        if let Some(truncated) = truncated.as_mut() {
            *truncated = is_truncated.into();
        }
    }
    Status::SUCCESS
}

unsafe extern "efiapi" fn hash_log_extend_event(
    this: *mut Tcg2Protocol,
    flags: Tcg2HashLogExtendEventFlags,
    data: PhysicalAddress,
    data_length: u64,
    event: *const c_void,
) -> Status {
    // SAFETY: the caller answers for `this`.
    let Ok(object) = (unsafe { object(this) }) else { return Status::INVALID_PARAMETER };
    let length = usize::try_from(data_length).ok().filter(|length| isize::try_from(*length).is_ok());
    let (Some(length), false) = (length, data == 0 || event.is_null()) else { return Status::INVALID_PARAMETER };
    // SAFETY: not null, and as long as the caller says; memory is identity-mapped.
    let data = unsafe { core::slice::from_raw_parts(ptr::with_exposed_provenance(data as usize), length) };
    // SAFETY: not null, and an event (the caller).
    let Some((header, content)) = (unsafe { read_event(event) }) else { return Status::INVALID_PARAMETER };
    let (pcr, kind) = (header.pcr_index, header.event_type);
    status(measure(object, flags, data, pcr, kind, content))
}

/// Takes an EFI_TCG2_EVENT apart: its header and its content. `None` if its sizes contradict each other.
///
/// # Safety
/// `event` points to an event, as long as it says.
unsafe fn read_event<'a>(event: *const c_void) -> Option<(Tcg2EventHeader, &'a [u8])> {
    /// The event's size, before the header.
    const SIZE: usize = size_of::<u32>();
    // SAFETY: an event has these, not aligned.
    let (size, header) = unsafe {
        (event.cast::<u32>().read_unaligned(), event.byte_add(SIZE).cast::<Tcg2EventHeader>().read_unaligned())
    };
    let content_at = SIZE + size_of::<Tcg2EventHeader>();
    let content = (size as usize).checked_sub(content_at)?;
    if header.header_size as usize != size_of::<Tcg2EventHeader>() || header.header_version != HEADER_VERSION {
        return None;
    }
    // SAFETY: the caller's promise.
    Some((header, unsafe { core::slice::from_raw_parts(event.byte_add(content_at).cast(), content) }))
}

fn measure(
    object: &Object,
    flags: Tcg2HashLogExtendEventFlags,
    data: &[u8],
    pcr: u32,
    kind: EventType,
    content: &[u8],
) -> Result<()> {
    let mut hasher = object.tcg2.with(|tcg2| tcg2.hasher())?;
    if flags.contains(Tcg2HashLogExtendEventFlags::PE_COFF_IMAGE) {
        let pieces = Pe::parse(data).ok().and_then(|pe| pe.authenticode()).ok_or(Status::UNSUPPORTED)?;
        pieces.iter().for_each(|piece| hasher.update(piece));
    } else {
        hasher.update(data);
    }
    let digests = hasher.finish();
    let extend_only = flags.contains(Tcg2HashLogExtendEventFlags::EFI_TCG2_EXTEND_ONLY);
    object.tcg2.with(|tcg2| {
        if extend_only { tcg2.extend(pcr, &digests) } else { tcg2.record(pcr, kind, &digests, &[content]) }
    })??;
    Ok(())
}

unsafe extern "efiapi" fn submit_command(
    this: *mut Tcg2Protocol,
    input_size: u32,
    input: *const u8,
    output_size: u32,
    output: *mut u8,
) -> Status {
    // SAFETY: the caller answers for `this`.
    let Ok(object) = (unsafe { object(this) }) else { return Status::INVALID_PARAMETER };
    if input.is_null() || output.is_null() || input_size == 0 || output_size == 0 {
        return Status::INVALID_PARAMETER;
    }
    // A caller may use one buffer for both, so the command is copied.
    // SAFETY: not null, and as long as the caller says.
    let command = unsafe { core::slice::from_raw_parts(input, input_size as usize) }.to_vec();
    // SAFETY: as above; the command is not read from there any more.
    let response = unsafe { core::slice::from_raw_parts_mut(output, output_size as usize) };
    match object.tcg2.with(|tcg2| tcg2.submit(&command, response)) {
        Ok(Ok(_)) => Status::SUCCESS,
        Ok(Err(error)) => error.into(),
        Err(error) => error,
    }
}

unsafe extern "efiapi" fn get_active_pcr_banks(this: *mut Tcg2Protocol, banks: *mut Tcg2HashAlgorithmBitmap) -> Status {
    // SAFETY: the caller answers for `this`.
    let Ok(object) = (unsafe { object(this) }) else { return Status::INVALID_PARAMETER };
    if banks.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let Ok(active) = object.tcg2.with(|tcg2| tcg2.facts().active) else { return Status::DEVICE_ERROR };
    // SAFETY: not null.
    unsafe { banks.write(active) };
    Status::SUCCESS
}

/// Only confirms what is. Another choice would have to be remembered until the next start, and there is nothing that outlasts
/// the guest to remember it in; whoever gives the guest a TPM chooses its banks.
unsafe extern "efiapi" fn set_active_pcr_banks(this: *mut Tcg2Protocol, banks: Tcg2HashAlgorithmBitmap) -> Status {
    // SAFETY: the caller answers for `this`.
    let Ok(object) = (unsafe { object(this) }) else { return Status::INVALID_PARAMETER };
    let found = object.tcg2.with(|tcg2| (tcg2.facts().active, tcg2.facts().supported));
    match found {
        Ok((_, supported)) if banks.is_empty() || !supported.contains(banks) => Status::INVALID_PARAMETER,
        Ok((active, _)) if active == banks => Status::SUCCESS,
        Ok(_) => Status::UNSUPPORTED,
        Err(error) => error,
    }
}

/// No start of the firmware has ever been asked to change the banks.
unsafe extern "efiapi" fn get_result_of_set_active_pcr_banks(
    this: *mut Tcg2Protocol,
    operation_present: *mut u32,
    response: *mut u32,
) -> Status {
    if this.is_null() || operation_present.is_null() || response.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: neither is null.
    unsafe {
        operation_present.write(0);
        response.write(0);
    }
    Status::SUCCESS
}
