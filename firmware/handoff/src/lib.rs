//! What the core and the runtime driver tell each other.
//!
//! The core allocates one [`Handoff`] in EfiRuntimeServicesData, fills in the part above the registration lists, and
//! installs it as a protocol interface under [`PROTOCOL_GUID`] before it loads the runtime driver, which is the first
//! image to be registered. The driver finds it with LocateProtocol. From then on the core keeps the lists of runtime images and events up to date, and sets
//! [`Handoff::at_runtime`] in ExitBootServices; the driver reads all of it in SetVirtualAddressMap. This is the part
//! that EFI_RUNTIME_ARCH_PROTOCOL plays in the PI specification (vol. 2 §12.8), with arrays in place of linked lists:
//! nothing has to be allocated, and no pointer inside the structure has to be converted for the next reader.
//!
//! Rules for the core:
//! - All memory named here (the structure, the variable store, fix-up arrays) is EfiRuntimeServicesData. So are the
//!   system table, the runtime services table, the array of configuration tables and the firmware vendor string.
//! - When ExitBootServices returns, runtime images must be writable through the firmware's own page tables: the driver
//!   relocates them in SetVirtualAddressMap, which a loader may call before it changes page tables.
//!
//! Neighbours: `services::image` fills [`Handoff::register_image`], `services::event` [`Handoff::register_event`];
//! `runtime` consumes both. [`relocation`] is the PE base relocation arithmetic that both of them need.
#![cfg_attr(not(test), no_std)]

pub mod relocation;

use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, Ordering};

use uefi_raw::table::boot::EventNotifyFn;
use uefi_raw::{Event, Guid, Status, guid};

use relocation::Fixup;

/// Protocol under which the core publishes the [`Handoff`].
pub const PROTOCOL_GUID: Guid = guid!("5a0d3ad4-9c1e-4c0a-9d57-6f3a1f0e8b21");

/// First field of a [`Handoff`].
pub const SIGNATURE: u64 = u64::from_le_bytes(*b"RT-HNDOF");

/// Layout of the [`Handoff`]; core and driver are built together, so any other value is a broken image.
pub const VERSION: u32 = 3;

/// How many runtime images fit, the runtime driver included.
pub const MAX_IMAGES: usize = 32;

/// How many VIRTUAL_ADDRESS_CHANGE events fit.
pub const MAX_EVENTS: usize = 64;

/// Size of the variable store region in bytes: the first part of the variable volume, from its firmware volume header
/// to the end of the variable store.
pub const VARIABLE_REGION_SIZE: usize = 0x4_0000;

/// Runtime services that work after ExitBootServices (`RuntimeServicesSupported` of EFI_RT_PROPERTIES_TABLE, UEFI 2.10
/// §4.6.2): all but GetWakeupTime, SetWakeupTime, UpdateCapsule and QueryCapsuleCapabilities.
pub const RUNTIME_SERVICES_SUPPORTED: u32 = supported::GET_TIME
    | supported::SET_TIME
    | supported::GET_VARIABLE
    | supported::GET_NEXT_VARIABLE_NAME
    | supported::SET_VARIABLE
    | supported::SET_VIRTUAL_ADDRESS_MAP
    | supported::CONVERT_POINTER
    | supported::GET_NEXT_HIGH_MONOTONIC_COUNT
    | supported::RESET_SYSTEM
    | supported::QUERY_VARIABLE_INFO;

/// Bits of [`RUNTIME_SERVICES_SUPPORTED`] (`EFI_RT_SUPPORTED_*`).
pub mod supported {
    /// GetTime.
    pub const GET_TIME: u32 = 0x0001;
    /// SetTime.
    pub const SET_TIME: u32 = 0x0002;
    /// GetWakeupTime.
    pub const GET_WAKEUP_TIME: u32 = 0x0004;
    /// SetWakeupTime.
    pub const SET_WAKEUP_TIME: u32 = 0x0008;
    /// GetVariable.
    pub const GET_VARIABLE: u32 = 0x0010;
    /// GetNextVariableName.
    pub const GET_NEXT_VARIABLE_NAME: u32 = 0x0020;
    /// SetVariable.
    pub const SET_VARIABLE: u32 = 0x0040;
    /// SetVirtualAddressMap.
    pub const SET_VIRTUAL_ADDRESS_MAP: u32 = 0x0080;
    /// ConvertPointer.
    pub const CONVERT_POINTER: u32 = 0x0100;
    /// GetNextHighMonotonicCount.
    pub const GET_NEXT_HIGH_MONOTONIC_COUNT: u32 = 0x0200;
    /// ResetSystem.
    pub const RESET_SYSTEM: u32 = 0x0400;
    /// UpdateCapsule.
    pub const UPDATE_CAPSULE: u32 = 0x0800;
    /// QueryCapsuleCapabilities.
    pub const QUERY_CAPSULE_CAPABILITIES: u32 = 0x1000;
    /// QueryVariableInfo.
    pub const QUERY_VARIABLE_INFO: u32 = 0x2000;
}

/// The instruction that enters the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum HypercallInstruction {
    /// There is no hypervisor to call (host tests, plain QEMU); ResetSystem then only halts.
    None = 0,
    /// VMCALL: Intel, Centaur, Shanghai.
    Vmcall = 1,
    /// VMMCALL: AMD, Hygon.
    Vmmcall = 2,
}

/// Which clock GetTime shows and SetTime sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum TimeSource {
    /// [`Handoff::clock`]: PVH, where there is no device that keeps time.
    Xen = 0,
    /// The CMOS real-time clock at ports 0x70 and 0x71: HVM.
    Cmos = 1,
}

/// Wall-clock time as a function of the time stamp counter, in the form of Xen's `vcpu_time_info` (`public/xen.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Clock {
    /// Time stamp counter at the reference moment.
    pub tsc: u64,
    /// Nanoseconds since 1970-01-01 00:00 UTC at the reference moment.
    pub wall_clock_ns: u64,
    /// Nanoseconds per (shifted) tick, as a binary fraction of 2^32: `tsc_to_system_mul`.
    pub multiplier: u32,
    /// Left shift of the tick difference before the multiplication; negative is a right shift: `tsc_shift`.
    pub shift: i8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl Clock {
    /// Nanoseconds since 1970 when the counter is `tsc`. A counter below the reference counts as the reference.
    pub const fn nanoseconds_at(&self, tsc: u64) -> u64 {
        let ticks = tsc.saturating_sub(self.tsc) as u128;
        let shifted = match self.shift {
            0..=31 => ticks << self.shift,
            -63..=-1 => ticks >> self.shift.unsigned_abs(),
            _ => 0,
        };
        let elapsed = (shifted * self.multiplier as u128) >> u32::BITS;
        // A guest that has run for five centuries may see its clock wrap.
        self.wall_clock_ns.wrapping_add(elapsed as u64)
    }
}

/// A loaded image of subsystem EFI runtime driver.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RuntimeImage {
    /// First byte in memory; page-aligned.
    pub base: *mut u8,
    /// Length in memory in bytes (SizeOfImage).
    pub size: usize,
    /// What to change when the image moves to its virtual address: see [`relocation`]. Null if `fixup_count` is 0.
    pub fixups: *const Fixup,
    /// Number of elements of `fixups`.
    pub fixup_count: usize,
}

impl RuntimeImage {
    const NONE: Self = Self { base: core::ptr::null_mut(), size: 0, fixups: core::ptr::null(), fixup_count: 0 };
}

/// An event of type EVT_SIGNAL_VIRTUAL_ADDRESS_CHANGE, or of its event group.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RuntimeEvent {
    /// The event; also what it is unregistered by. Never null.
    pub event: Event,
    /// Called once in SetVirtualAddressMap, in physical mode, before anything is relocated.
    pub notify: Option<EventNotifyFn>,
    /// Second argument of `notify`.
    pub context: *mut c_void,
}

impl RuntimeEvent {
    const NONE: Self = Self { event: core::ptr::null_mut(), notify: None, context: core::ptr::null_mut() };
}

/// What the driver found in the variable store region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum StoreState {
    /// The driver has not run.
    Unknown = 0,
    /// A store, opened.
    Opened = 1,
    /// Nothing: a new store was made.
    Blank = 2,
    /// Something that is no store, or a damaged header: a new store was made, the content is lost.
    Replaced = 3,
    /// Nothing was looked for: a daemon outside the guest keeps the variables.
    Daemon = 4,
}

/// How the driver found the variables; for the core to log, as the driver itself has no console.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct StoreReport {
    /// What there was.
    pub state: StoreState,
    /// Variables that can be read.
    pub variables: u32,
    /// Records that are damaged, and left out.
    pub damaged: u32,
    /// Not 0 if the list of records ends in rubbish: what follows it is lost.
    pub broken_off: u32,
    /// Bytes in use.
    pub used: u32,
    /// Bytes there are.
    pub capacity: u32,
    /// EFI_STATUS of a daemon that answered and cannot be used; 0 if there is none, or if it is used.
    pub daemon_failure: u64,
}

impl StoreReport {
    const UNKNOWN: Self = Self {
        state: StoreState::Unknown,
        variables: 0,
        damaged: 0,
        broken_off: 0,
        used: 0,
        capacity: 0,
        daemon_failure: 0,
    };
}

/// A registration list is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The contract between core and runtime driver. See the module for who writes what and when.
#[derive(Debug)]
#[repr(C)]
pub struct Handoff {
    /// [`SIGNATURE`].
    pub signature: u64,
    /// [`VERSION`].
    pub version: u32,
    /// How to reach Xen; for ResetSystem.
    pub hypercall: HypercallInstruction,
    /// How to tell the time. The core may renew it until ExitBootServices.
    pub clock: Clock,
    /// Which clock the time services use.
    pub time_source: TimeSource,
    /// The variable store region, [`VARIABLE_REGION_SIZE`] bytes, aligned to 8: the core copies the beginning of the
    /// image's variable volume here, or fills it with 0xFF if the image has none. The driver owns it from its start on;
    /// where a daemon keeps the variables, it is what driver and daemon exchange messages through.
    pub variable_region: *mut u8,
    /// Length of `variable_region` in bytes.
    pub variable_region_size: usize,
    /// How long the driver waits for a daemon that keeps the variables, in milliseconds; 0: it has to be there.
    pub daemon_patience: u32,
    /// Written by the driver when it starts.
    pub store_report: StoreReport,
    /// Written by the driver when it starts, if a daemon keeps the variables: tells it that Secure Boot refused an image.
    /// In boot services only.
    pub notify_secure_boot_failure: Option<unsafe extern "efiapi" fn() -> Status>,
    /// Set by the core in ExitBootServices after its last notification, never cleared: from then on the driver treats
    /// each call as one of the operating system's, and uses no boot service.
    pub at_runtime: AtomicBool,
    /// Number of used elements of `images`.
    image_count: u32,
    /// Number of used elements of `events`.
    event_count: u32,
    images: [RuntimeImage; MAX_IMAGES],
    events: [RuntimeEvent; MAX_EVENTS],
}

impl Handoff {
    /// A contract with empty registration lists, for a guest whose time is Xen's.
    pub const fn new(
        hypercall: HypercallInstruction,
        clock: Clock,
        variable_region: *mut u8,
        variable_region_size: usize,
    ) -> Self {
        Self {
            signature: SIGNATURE,
            version: VERSION,
            hypercall,
            clock,
            time_source: TimeSource::Xen,
            variable_region,
            variable_region_size,
            daemon_patience: 0,
            store_report: StoreReport::UNKNOWN,
            notify_secure_boot_failure: None,
            at_runtime: AtomicBool::new(false),
            image_count: 0,
            event_count: 0,
            images: [RuntimeImage::NONE; MAX_IMAGES],
            events: [RuntimeEvent::NONE; MAX_EVENTS],
        }
    }

    /// The same for a guest with another clock.
    pub const fn with_time_source(self, time_source: TimeSource) -> Self {
        Self { time_source, ..self }
    }

    /// The same with a driver that waits for a daemon, so many milliseconds.
    pub const fn with_daemon_patience(self, milliseconds: u32) -> Self {
        Self { daemon_patience: milliseconds, ..self }
    }

    /// Whether signature and version are those of this crate.
    pub const fn is_valid(&self) -> bool {
        self.signature == SIGNATURE && self.version == VERSION
    }

    /// Whether ExitBootServices has been passed.
    pub fn is_at_runtime(&self) -> bool {
        self.at_runtime.load(Ordering::Relaxed)
    }

    /// Core, in ExitBootServices.
    pub fn set_at_runtime(&self) {
        self.at_runtime.store(true, Ordering::Relaxed);
    }

    /// Adds a runtime image after it is loaded and relocated.
    pub fn register_image(&mut self, image: RuntimeImage) -> Result<(), Full> {
        push(&mut self.images, &mut self.image_count, image)
    }

    /// Removes the image at `base`; nothing happens if there is none.
    pub fn unregister_image(&mut self, base: *mut u8) {
        remove(&mut self.images, &mut self.image_count, |image| image.base == base, RuntimeImage::NONE);
    }

    /// Adds an event.
    pub fn register_event(&mut self, event: RuntimeEvent) -> Result<(), Full> {
        push(&mut self.events, &mut self.event_count, event)
    }

    /// Removes `event`; nothing happens if it is not registered.
    pub fn unregister_event(&mut self, event: Event) {
        remove(&mut self.events, &mut self.event_count, |entry| entry.event == event, RuntimeEvent::NONE);
    }

    /// The registered images in order of registration.
    pub fn images(&self) -> &[RuntimeImage] {
        used(&self.images, self.image_count)
    }

    /// The registered events in order of registration.
    pub fn events(&self) -> &[RuntimeEvent] {
        used(&self.events, self.event_count)
    }
}

fn used<T>(list: &[T], count: u32) -> &[T] {
    list.get(..count as usize).unwrap_or(list)
}

fn push<T>(list: &mut [T], count: &mut u32, value: T) -> Result<(), Full> {
    *list.get_mut(*count as usize).ok_or(Full)? = value;
    *count += 1;
    Ok(())
}

fn remove<T: Copy>(list: &mut [T], count: &mut u32, matches: impl Fn(&T) -> bool, none: T) {
    let Some(list) = list.get_mut(..*count as usize) else { return };
    let Some(index) = list.iter().position(matches) else { return };
    list.copy_within(index + 1.., index);
    if let Some(last) = list.last_mut() {
        *last = none;
    }
    *count -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr;

    fn empty() -> Handoff {
        Handoff::new(HypercallInstruction::None, Clock::default(), ptr::null_mut(), 0)
    }

    fn event(id: usize) -> RuntimeEvent {
        RuntimeEvent { event: ptr::without_provenance_mut(id), notify: None, context: ptr::null_mut() }
    }

    #[test]
    fn events_keep_their_order_when_one_is_removed() {
        let mut handoff = empty();
        for id in 1..=4 {
            handoff.register_event(event(id)).unwrap();
        }
        handoff.unregister_event(ptr::without_provenance_mut(2));
        handoff.unregister_event(ptr::without_provenance_mut(9));
        let ids: Vec<_> = handoff.events().iter().map(|entry| entry.event.addr()).collect();
        assert_eq!(ids, [1, 3, 4]);
    }

    #[test]
    fn a_full_list_is_refused_and_usable_again_after_removal() {
        let mut handoff = empty();
        for id in 1..=MAX_EVENTS {
            handoff.register_event(event(id)).unwrap();
        }
        assert_eq!(handoff.register_event(event(1000)), Err(Full));
        handoff.unregister_event(ptr::without_provenance_mut(MAX_EVENTS));
        handoff.register_event(event(1000)).unwrap();
        assert_eq!(handoff.events().len(), MAX_EVENTS);
    }

    #[test]
    fn images_are_removed_by_base() {
        let mut handoff = empty();
        for base in [0x1000, 0x2000] {
            let base = ptr::without_provenance_mut(base);
            handoff.register_image(RuntimeImage { base, ..RuntimeImage::NONE }).unwrap();
        }
        handoff.unregister_image(ptr::without_provenance_mut(0x1000));
        assert_eq!(handoff.images().len(), 1);
        assert_eq!(handoff.images()[0].base.addr(), 0x2000);
    }

    #[test]
    fn the_clock_follows_xens_formula() {
        // 2 GHz: each tick is half a nanosecond. Xen normalises the multiplier to 2^31..2^32.
        let clock = Clock { tsc: 1000, wall_clock_ns: 5, multiplier: 1 << 31, shift: 0, reserved: [0; 3] };
        assert_eq!(clock.nanoseconds_at(1000 + 2_000_000_000), 1_000_000_005);
        let halved = Clock { multiplier: u32::MAX, shift: -1, ..clock };
        assert_eq!(halved.nanoseconds_at(1000 + 2_000_000_000), 5 + 999_999_999);
        let doubled = Clock { multiplier: 1 << 31, shift: 2, ..clock };
        assert_eq!(doubled.nanoseconds_at(1010), 5 + 20);
    }

    #[test]
    fn a_clock_with_nonsense_or_in_the_past_does_not_panic() {
        let clock = Clock { tsc: 1000, wall_clock_ns: 7, multiplier: u32::MAX, shift: -128, reserved: [0; 3] };
        assert_eq!(clock.nanoseconds_at(0), 7);
        assert_eq!(clock.nanoseconds_at(u64::MAX), 7);
        let _ = Clock { shift: 127, ..clock }.nanoseconds_at(u64::MAX);
        let _ = Clock { shift: 31, wall_clock_ns: u64::MAX, ..clock }.nanoseconds_at(u64::MAX);
    }
}
