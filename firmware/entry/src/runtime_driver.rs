//! Takes the runtime driver and the variables out of the loaded file, starts the driver, and frees the file.

use alloc::format;
use core::ptr::NonNull;
use core::slice;

use bootmgr::live;
use handoff::{Clock, Handoff, HypercallInstruction, StoreReport, StoreState, TimeSource, VARIABLE_REGION_SIZE};
use hw::hypervisor::Hypervisor;
use hw::paging::PAGE;
use hw::xen::Instruction;
use platform::{GuestKind, volume};
use services::{Handle, Result, Status};
use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Guid, guid};

use crate::home::AttachedXen;
use crate::modules;
use crate::start::{ImageInfo, Start};

/// FFS name of the runtime driver (`build-support/layout.toml`).
const RUNTIME_DRIVER: Guid = guid!("6c1f3b52-8a0e-4d5b-9c57-3f0c2b7f7d11");

/// How long a daemon for the variables is waited for where the guest's configuration says that there is one.
const DAEMON_PATIENCE: u32 = 30_000;

/// Makes what the core and the runtime driver share. The variables in it are the guest's own, if it has some, else the file's.
pub fn hand_over(start: &mut Start, xen: &AttachedXen, own: Option<&'static mut [u8]>) -> Result<()> {
    let region = services::api::allocate_pages(MemoryType::RUNTIME_SERVICES_DATA, VARIABLE_REGION_SIZE as u64 / PAGE)?;
    let region = NonNull::new(region as *mut u8).ok_or(Status::OUT_OF_RESOURCES)?;
    // SAFETY: just allocated, of this size.
    let content = unsafe { slice::from_raw_parts_mut(region.as_ptr(), VARIABLE_REGION_SIZE) };
    let ImageInfo { vars_offset, vars_size, .. } = start.layout;
    content.fill(0xFF);
    match own {
        Some(own) => {
            live::say("Variables: those of ramdisk=");
            copy_store(own, content);
            let address = own.as_ptr() as u64;
            modules::release(address..address + own.len() as u64);
        }
        None => {
            if let Some(volume) = part_mut(start, vars_offset, vars_size) {
                if let Err(what) = modules::mend(volume) {
                    live::say(&format!("Variables: the firmware's file has {what}; a new one is made"));
                }
                copy_store(volume, content);
            }
        }
    }
    let hypercall = match start.xen.instruction {
        Instruction::Vmcall => HypercallInstruction::Vmcall,
        Instruction::Vmmcall => HypercallInstruction::Vmmcall,
    };
    let time_source = if start.platform.kind == GuestKind::Hvm { TimeSource::Cmos } else { TimeSource::Xen };
    let contract = Handoff::new(hypercall, clock(xen)?, region.as_ptr(), VARIABLE_REGION_SIZE);
    let handoff =
        services::api::allocate_pool(MemoryType::RUNTIME_SERVICES_DATA, size_of::<Handoff>())?.cast::<Handoff>();
    let patience = if start.platform.options.variable_daemon { DAEMON_PATIENCE } else { 0 };
    // SAFETY: just allocated for it, aligned to 16 bytes.
    unsafe { handoff.write(contract.with_time_source(time_source).with_daemon_patience(patience)) };
    services::api::install_protocol(None, &handoff::PROTOCOL_GUID, handoff.as_ptr().cast())?;
    Ok(())
}

/// Copies the part of a volume that has the store.
fn copy_store(volume: &mut [u8], region: &mut [u8]) {
    let store = variables::volume::region(volume);
    if let Some(place) = region.get_mut(..store.len()) {
        place.copy_from_slice(store);
    }
}

/// The wall clock as the runtime driver will go on counting it, without Xen's shared page.
fn clock(xen: &AttachedXen) -> Result<Clock> {
    let info = xen.xen.time_info().ok_or(Status::DEVICE_ERROR)?;
    let tsc = hw::tsc::read();
    Ok(Clock {
        tsc,
        wall_clock_ns: xen.xen.wall_clock_ns(),
        multiplier: info.multiplier,
        shift: info.shift,
        reserved: [0; 3],
    })
}

/// Loads and starts the runtime driver.
pub fn start(start: &Start) -> Result<Handle> {
    let driver = code_volume(start).and_then(|volume| volume::pe32(volume, &RUNTIME_DRIVER.to_bytes()));
    let Some(driver) = driver else {
        log::error!("no runtime driver in the firmware volume");
        return Err(Status::NOT_FOUND);
    };
    let parent = services::api::firmware_image();
    let handle = services::api::load_image(false, parent, None, Some(driver)).map_err(|error| {
        log::error!("runtime driver: {error}");
        Status::LOAD_ERROR
    })?;
    let status = services::api::start_image(handle)?;
    if status != Status::SUCCESS {
        return Err(status);
    }
    report(start.platform.options.variable_daemon);
    Ok(handle)
}

/// How the driver found the variables; `None` before it was there.
pub fn store_report() -> Option<StoreReport> {
    let handoff = services::api::locate_protocol(&handoff::PROTOCOL_GUID).ok()?;
    // SAFETY: installed by `hand_over`, and never taken away.
    Some(unsafe { (*handoff.cast::<Handoff>()).store_report })
}

/// Says what became of the variables, and how long they live.
fn report(is_daemon_wanted: bool) {
    let Some(report) = store_report() else { return };
    match report.state {
        StoreState::Opened | StoreState::Blank => {
            log::info!("{} variables, {} of {} bytes", report.variables, report.used, report.capacity);
        }
        StoreState::Daemon => log::info!("variables: {} of the daemon's {} bytes", report.used, report.capacity),
        StoreState::Replaced => log::error!("the variable store is damaged; a new one was made"),
        StoreState::Unknown => log::error!("the runtime driver did not open the variable store"),
    }
    if report.damaged != 0 || report.broken_off != 0 {
        log::warn!("variable store: {} damaged records left out", report.damaged);
    }
    if report.daemon_failure != 0 {
        let status = Status(report.daemon_failure as usize);
        live::say(&format!("The host's daemon for variables has none for this guest: {status}"));
    } else if is_daemon_wanted && report.state != StoreState::Daemon {
        live::say("No daemon on the host keeps this guest's variables, although ovmf.variables=daemon asks for one.");
    }
    live::say(match report.state {
        StoreState::Daemon => "Variables are kept by the host.",
        _ => "Variables live until the guest ends.",
    });
}

/// Frees the memory of the loaded file. Nothing of it is needed any more.
pub fn release_file(start: &Start) {
    let pages = (start.file.end - start.file.start) / PAGE;
    if let Err(status) = services::api::release_memory(start.file.start, pages) {
        log::warn!("the loaded file stays in memory: {status}");
    }
}

/// The firmware volume with the programs.
pub fn code_volume(start: &Start) -> Option<&[u8]> {
    let ImageInfo { code_offset, code_size, .. } = start.layout;
    part(start, code_offset, code_size)
}

/// A part of the loaded file; `None` where the file has none, or its description is wrong.
fn part(start: &Start, offset: u64, size: u64) -> Option<&[u8]> {
    let (address, size) = place(start, offset, size)?;
    // SAFETY: within the loaded file, which nobody writes and which is freed only after the driver has started.
    Some(unsafe { slice::from_raw_parts(address as *const u8, size) })
}

/// The same, to be changed: nobody else looks at it at that time.
fn part_mut(start: &mut Start, offset: u64, size: u64) -> Option<&mut [u8]> {
    let (address, size) = place(start, offset, size)?;
    // SAFETY: within the loaded file, which is memory of the firmware's, and of which no other reference exists now.
    Some(unsafe { slice::from_raw_parts_mut(address as *mut u8, size) })
}

fn place(start: &Start, offset: u64, size: u64) -> Option<(u64, usize)> {
    let address = start.file.start.checked_add(offset)?;
    if size == 0 || address.checked_add(size)? > start.file.end {
        return None;
    }
    Some((address, size as usize))
}
