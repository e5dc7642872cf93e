//! What the firmware measures, and when (TCG PC Client Platform Firmware Profile 1.05 §3.3, §8):
//!
//! | PCR | what | when |
//! | --- | --- | --- |
//! | 0 | version and code of the firmware | [`firmware`] |
//! | 7 | the Secure Boot variables | [`variables`] |
//! | 1 | `BootOrder` and its entries | before the first boot option |
//! | 0 to 7 | separators | then |
//! | 4 | that a boot option is tried, each program with its Authenticode digest | as it is loaded |
//! | 2 | drivers that are loaded from somewhere | as they are loaded |
//! | 5 | the GPT of the disk that is booted from; ExitBootServices | before the program; when it is called |
//!
//! A measurement that fails is told in the log and hinders nothing: whoever can make a virtual TPM fail is who could read and
//! change the guest anyway, and a guest that does not start helps nobody.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::cell::Cell;

use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::tcg::EventType as Measured;
use uefi_raw::table::boot::{EventType, Tpl};
use uefi_raw::table::runtime::VariableVendor;
use uefi_raw::{Event, Guid, Handle, guid};

use super::runtime::{set_boot_variable, variable};
use super::tcg2::{LogArea, Object, start};
use crate::Result;
use crate::api;
use crate::api::event::create_in;
use crate::block::{BlockDevice, ByteDevice, Bytes};
use crate::core_state::Core;
use crate::device_path::{DevicePath, DevicePathBuf, Node, Signature};
use crate::event::{Notify, group};
use crate::handle::OpenAttributes;
use crate::image::pe::Pe;
use crate::tcg2::hook::{LoadedFile, event_of};
use crate::tcg2::{MeasureError, Tcg2, Transport, event};

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: Guid = VariableVendor::GLOBAL_VARIABLE.0;
/// EFI_IMAGE_SECURITY_DATABASE_GUID: `db` and `dbx`.
const SECURITY_DATABASE: Guid = guid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
/// What decides about Secure Boot, in the order that the profile gives.
const SECURE_BOOT: [(&str, Guid); 5] =
    [("SecureBoot", GLOBAL), ("PK", GLOBAL), ("KEK", GLOBAL), ("db", SECURITY_DATABASE), ("dbx", SECURITY_DATABASE)];
/// SHIM_LOCK_GUID of shim.
const SHIM_LOCK: Guid = guid!("605dab50-e046-4300-abb6-3dd810dd8b23");
/// PCRs that the firmware measures into, and that get a separator.
const FIRMWARE_PCRS: core::ops::Range<u32> = 0..8;

/// What is measured into, and what has been.
pub struct Measurer {
    object: &'static Object,
    /// Whether the boot manager has begun.
    booting: Cell<bool>,
    /// The disk whose GPT was measured last.
    disk: Cell<Option<Handle>>,
}

/// A part of the firmware as it was loaded.
#[derive(Clone, Copy, Debug)]
pub struct FirmwarePart<'a> {
    /// What it is called in the log.
    pub description: &'a str,
    /// Where it was.
    pub address: u64,
    /// Its bytes, the same ones at each start.
    pub bytes: &'a [u8],
}

/// Makes a TPM ready and everything that is to be measured from now on measured into it. Returns where the event log is.
///
/// # Errors
/// `DEVICE_ERROR` if the TPM does not work; `OUT_OF_RESOURCES`.
pub(crate) fn install(core: &Core, transport: Box<dyn Transport>) -> Result<LogArea> {
    let (object, log) = start(core, transport)?;
    let measurer = Box::leak(Box::new(Measurer { object, booting: Cell::new(false), disk: Cell::new(None) }));
    core.measure.with(|slot| *slot = Some(measurer));
    // At the lowest level that notifications have, so that what others measure at the end is in the log before it.
    let exit = Box::new(|_| measurer.exit(event::EXIT_BOOT_SERVICES_SUCCEEDED, true));
    listen(core, group::EXIT_BOOT_SERVICES, exit)?;
    let failed = Box::new(|_| measurer.exit(event::EXIT_BOOT_SERVICES_FAILED, false));
    listen(core, group::EXIT_BOOT_SERVICES_FAILED, failed)?;
    Ok(log)
}

fn listen(core: &Core, group: Guid, notify: Box<dyn FnMut(Event)>) -> Result<()> {
    create_in(core, EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, Notify::Closure(notify), Some(group)).map(drop)
}

/// Measures the firmware itself into PCR 0. Nothing without a TPM.
pub(crate) fn firmware(core: &Core, version: &str, parts: &[FirmwarePart<'_>]) {
    let Some(measurer) = core.measure.with(|slot| *slot) else { return };
    let mut version = event::utf16(version);
    version.extend([0, 0]);
    measurer.measure("firmware version", |tcg2| tcg2.measure_event(0, Measured::CRTM_VERSION, &[&version]));
    for part in parts {
        let content = event::firmware_blob(part.description, part.address, part.bytes.len() as u64);
        measurer.measure(part.description, |tcg2| {
            tcg2.measure(0, Measured::EFI_PLATFORM_FIRMWARE_BLOB2, part.bytes, &[&content])
        });
    }
}

/// Measures the Secure Boot variables into PCR 7; those that are missing as empty ones. Nothing without a TPM.
pub(crate) fn secure_boot_variables(core: &Core) {
    let Some(measurer) = core.measure.with(|slot| *slot) else { return };
    for (name, vendor) in SECURE_BOOT {
        let data = variable(core, name, &vendor).unwrap_or_default();
        let head = event::variable_head(&vendor, name, data.len());
        measurer.measure(name, |tcg2| tcg2.measure_event(7, Measured::EFI_VARIABLE_DRIVER_CONFIG, &[&head, &data]));
    }
}

/// Measures into PCR 7 which entry of a variable let a program pass Secure Boot: `data` is the EFI_SIGNATURE_DATA. Nothing
/// without a TPM.
pub(crate) fn authority(core: &Core, name: &str, vendor: &Guid, data: &[u8]) {
    let Some(measurer) = core.measure.with(|slot| *slot) else { return };
    let head = event::variable_head(vendor, name, data.len());
    measurer.measure(name, |tcg2| tcg2.measure_event(7, Measured::EFI_VARIABLE_AUTHORITY, &[&head, data]));
}

/// Asks shim's fallback.efi not to reset the machine. Where there is a TPM, it makes boot entries and resets, so that the next
/// start measures what an entry starts; but where variables end with the guest the next start makes the entries again, for ever.
/// Nothing without a TPM.
pub(crate) fn keep_fallback_from_resetting(core: &Core) {
    if core.measure.with(|slot| slot.is_none()) || variable(core, "FB_NO_REBOOT", &SHIM_LOCK).is_some() {
        return;
    }
    let status = set_boot_variable(core, "FB_NO_REBOOT", &SHIM_LOCK, &1u32.to_le_bytes());
    if status.is_error() {
        log::warn!("FB_NO_REBOOT cannot be set: {status}");
    }
}

impl core::fmt::Debug for Measurer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Measurer")
    }
}

impl Measurer {
    /// An image was laid out and is about to be loaded.
    pub(super) fn image(&self, core: &Core, image: &LoadedFile<'_>) {
        if image.boot_option {
            self.boot_option(core);
        }
        if let Some(path) = image.path {
            self.gpt(path);
        }
        let Some(pieces) = Pe::parse(image.file).ok().and_then(|pe| pe.authenticode()) else {
            log::error!("an image with contradicting sections is not measured");
            return;
        };
        let Ok(mut hasher) = self.object.tcg2.with(|tcg2| tcg2.hasher()) else { return };
        pieces.iter().for_each(|piece| hasher.update(piece));
        let digests = hasher.finish();
        let (pcr, kind) = event_of(image.subsystem);
        let path = image.path.map(DevicePath::as_bytes).unwrap_or_default();
        let head = event::image_load_head(image.base, image.size, image.linked_for, path.len());
        self.measure("image", |tcg2| tcg2.record(pcr, kind, &digests, &[&head, path]));
    }

    /// Measures, or tells why not.
    fn measure(&self, what: &str, measure: impl FnOnce(&mut Tcg2) -> core::result::Result<(), MeasureError>) {
        match self.object.tcg2.with(measure) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::error!("TPM: {what}: {error}"),
            Err(error) => log::error!("TPM: {what}: {error}"),
        }
    }

    /// A boot option is about to be loaded.
    fn boot_option(&self, core: &Core) {
        let action = |text: &'static [u8]| {
            self.measure("boot option", |tcg2| tcg2.measure_event(4, Measured::EFI_ACTION, &[text]));
        };
        if self.booting.replace(true) {
            action(event::RETURNING_FROM_APPLICATION);
            return action(event::CALLING_APPLICATION);
        }
        self.boot_variables(core);
        action(event::CALLING_APPLICATION);
        for pcr in FIRMWARE_PCRS {
            let separator = [&event::SEPARATOR[..]];
            self.measure("separator", |tcg2| tcg2.measure_event(pcr, Measured::SEPARATOR, &separator));
        }
        self.measure("platform hierarchy", Tcg2::disable_platform_hierarchy);
    }

    /// `BootOrder` and the entries that it names. Their digests are of the data alone, unlike those of other variables.
    fn boot_variables(&self, core: &Core) {
        let measure = |name: &str| {
            let data = variable(core, name, &GLOBAL)?;
            let head = event::variable_head(&GLOBAL, name, data.len());
            self.measure(name, |tcg2| tcg2.measure(1, Measured::EFI_VARIABLE_BOOT, &data, &[&head, &data]));
            Some(data)
        };
        let order = measure("BootOrder").unwrap_or_default();
        for number in order.chunks_exact(2) {
            measure(&format!("Boot{:04X}", u16::from_le_bytes([number[0], number[1]])));
        }
    }

    /// The GPT of the disk that a program comes from.
    fn gpt(&self, path: &DevicePath) {
        let Some(disk) = gpt_disk(path).filter(|disk| self.disk.replace(Some(*disk)) != Some(*disk)) else { return };
        match read_gpt(disk) {
            Some(event) => {
                self.measure("GPT", |tcg2| tcg2.measure_event(5, Measured::EFI_GPT_EVENT, &[&event]));
            }
            None => log::warn!("the GPT of {} cannot be read and is not measured", path.to_text()),
        }
    }

    /// ExitBootServices. Allocates nothing.
    fn exit(&self, outcome: &'static [u8], release: bool) {
        for action in [event::EXIT_BOOT_SERVICES, outcome] {
            self.measure("ExitBootServices", |tcg2| tcg2.measure_event(5, Measured::EFI_ACTION, &[action]));
        }
        if release {
            let _ = self.object.tcg2.with(Tcg2::release);
        }
    }
}

/// The disk under the first GPT partition that a path goes through.
fn gpt_disk(path: &DevicePath) -> Option<Handle> {
    let mut disk = DevicePathBuf::new();
    for node in path.nodes() {
        if let Node::HardDrive { signature: Signature::Guid(_), .. } = node {
            let (handle, rest) = api::locate_device_path(&BlockIoProtocol::GUID, disk.as_path()).ok()?;
            return rest.is_empty().then_some(handle);
        }
        disk.push(&node).ok()?;
    }
    None
}

fn read_gpt(disk: Handle) -> Option<Vec<u8>> {
    let device = api::open_block_io(disk, api::firmware_image(), disk, OpenAttributes::GET_PROTOCOL).ok()?;
    let block_size = u64::from(device.geometry().block_size);
    let mut device = Bytes::new(device);
    let mut header = [0; event::GPT_HEADER];
    device.read_at(block_size, &mut header).ok()?;
    let place = event::gpt_entries(&header)?;
    let mut entries = alloc::vec![0; place.length];
    device.read_at(place.first_block.checked_mul(block_size)?, &mut entries).ok()?;
    event::gpt(&header, &entries)
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests;
