//! The driver's state and the guard around it.
//!
//! All of it is in the image, so that SetVirtualAddressMap moves it along; what it points to outside is moved by
//! [`State::move_memory`]. No reference or function pointer is ever stored here: it would keep its physical value.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use handoff::{Handoff, StoreReport, StoreState};
use runtime::clock::Clock;
use runtime::rtc::Rtc;
use uefi_raw::Status;
use uefi_raw::table::boot::Tpl;
use uefi_raw::table::system::SystemTable;
use variables::volume::{self, VolumeError};
use variables::{Backend, Limits, Store, TimeBased, Variables};

use super::daemon;
use super::services::Services;

/// Bytes of the volatile store. Loaders keep a few kilobytes there; shim mirrors its lists, tens of kilobytes.
const VOLATILE_SIZE: usize = 0x1_0000;

/// Whether programs are verified before they start: not yet, and SecureBoot says so.
const SECURE_BOOT_IS_ENFORCED: bool = false;

/// The variables where no daemon keeps them.
pub type InMemory = Variables<Region, Region, TimeBased>;

/// What the services work on.
pub struct State {
    /// The variables.
    pub variables: Services,
    /// The clock of PVH guests.
    pub clock: Clock,
    /// The clock of HVM guests.
    pub rtc: Rtc,
    /// The monotonic counter.
    pub monotonic_count: u64,
}

impl State {
    /// Follows the memory outside the image, and the volatile store in it, to other addresses.
    pub fn move_memory(&mut self, non_volatile_by: u64, image_by: u64) {
        self.variables.move_memory(non_volatile_by, image_by);
    }
}

/// A range of memory that this driver owns.
pub struct Region {
    base: *mut u8,
    size: usize,
}

impl Region {
    /// # Safety
    /// The range is valid, writable, and nobody else's for as long as the value lives.
    const unsafe fn new(base: *mut u8, size: usize) -> Self {
        Self { base, size }
    }

    /// Follows the range to another address.
    pub const fn move_by(&mut self, distance: u64) {
        self.base = self.base.wrapping_add(distance as usize);
    }

    /// Its first byte.
    pub const fn base(&self) -> *mut u8 {
        self.base
    }

    /// Where the range is.
    pub fn address(&self) -> u64 {
        self.base.addr() as u64
    }

    /// How long the range is.
    pub const fn size(&self) -> usize {
        self.size
    }
}

impl Backend for Region {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the range is owned by this value, see `new`.
        unsafe { core::slice::from_raw_parts(self.base, self.size) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.base, self.size) }
    }
}

struct Shared<T>(UnsafeCell<T>);

// SAFETY: STATE is only used by `with`, which lets one caller in at a time, and by `open` before there is any;
// VOLATILE only through the region in STATE.
unsafe impl<T> Sync for Shared<T> {}

/// Initialized when `IS_OPEN`. As an option it would be in the file, with the zeros of its buffers.
static STATE: Shared<MaybeUninit<State>> = Shared(UnsafeCell::new(MaybeUninit::uninit()));
static IS_OPEN: AtomicBool = AtomicBool::new(false);
static VOLATILE: Shared<[u8; VOLATILE_SIZE]> = Shared(UnsafeCell::new([0; VOLATILE_SIZE]));
static BUSY: AtomicBool = AtomicBool::new(false);
static HANDOFF: AtomicPtr<Handoff> = AtomicPtr::new(ptr::null_mut());
static SYSTEM_TABLE: AtomicPtr<SystemTable> = AtomicPtr::new(ptr::null_mut());

/// Opens the stores and makes the state.
///
/// # Safety
/// Both pointers are valid for the rest of the firmware's life, and nothing else runs.
pub unsafe fn open(system_table: *mut SystemTable, handoff: *mut Handoff) -> Result<(), Status> {
    // SAFETY: the caller vouches for the handoff, which gives the region to this driver.
    let region = unsafe { Region::new((*handoff).variable_region, (*handoff).variable_region_size) };
    if region.base.is_null() {
        return Err(Status::INVALID_PARAMETER);
    }
    // SAFETY: the caller vouches for both, in boot services.
    let (variables, report) = match unsafe { daemon::find(region, handoff, (*system_table).boot_services) } {
        Ok((daemon, report)) => (Services::Daemon(daemon), report),
        Err((region, failure)) => {
            let (variables, report) = open_in_memory(region)?;
            (Services::Memory(variables), StoreReport { daemon_failure: failure, ..report })
        }
    };
    // SAFETY: the caller vouches for the handoff, and that nothing else runs.
    unsafe {
        (*handoff).store_report = report;
        (*STATE.0.get()).write(State { variables, clock: Clock::new(), rtc: Rtc::new(), monotonic_count: 0 });
    }
    IS_OPEN.store(true, Ordering::Relaxed);
    HANDOFF.store(handoff, Ordering::Relaxed);
    SYSTEM_TABLE.store(system_table, Ordering::Relaxed);
    Ok(())
}

/// The stores in memory, which live as long as the domain.
fn open_in_memory(region: Region) -> Result<(InMemory, StoreReport), Status> {
    let (non_volatile, found) = open_non_volatile(region)?;
    // SAFETY: the array is used nowhere else.
    let region = unsafe { Region::new(VOLATILE.0.get().cast(), VOLATILE_SIZE) };
    let volatile = Store::format(region, 0).map_err(|_| Status::OUT_OF_RESOURCES)?;
    let report = report(&non_volatile, found);
    let mut variables = Variables::new(volatile, non_volatile, TimeBased::new(), Limits::DEFAULT);
    variables.tell_secure_boot(SECURE_BOOT_IS_ENFORCED).map_err(|error| error.status())?;
    Ok((variables, report))
}

/// Calls `service` with the state, with events held off in boot services.
///
/// # Errors
/// `NOT_READY` if a service is being called already: after ExitBootServices the operating system must not do that
/// (UEFI 2.10 §8.1), and this keeps the state whole if it does.
pub fn with<R>(service: impl FnOnce(&mut State) -> R) -> Result<R, Status> {
    let tpl = raise_tpl();
    let result = with_state(service);
    if let Some(tpl) = tpl {
        restore_tpl(tpl);
    }
    result
}

/// The handoff. Null before [`open`].
pub fn handoff() -> *mut Handoff {
    HANDOFF.load(Ordering::Relaxed)
}

/// The system table. Null before [`open`].
pub fn system_table() -> *mut SystemTable {
    SYSTEM_TABLE.load(Ordering::Relaxed)
}

/// Follows handoff and system table to their virtual addresses.
pub fn move_pointers(handoff_by: u64, system_table_by: u64) {
    HANDOFF.store(handoff().wrapping_byte_add(handoff_by as usize), Ordering::Relaxed);
    SYSTEM_TABLE.store(system_table().wrapping_byte_add(system_table_by as usize), Ordering::Relaxed);
}

/// An address inside this image.
pub fn address_in_image() -> u64 {
    (&raw const BUSY).addr() as u64
}

/// Whether ExitBootServices has been passed.
pub fn is_at_runtime() -> bool {
    let handoff = handoff();
    // SAFETY: not null means valid, see `open`.
    !handoff.is_null() && unsafe { (*handoff).is_at_runtime() }
}

fn with_state<R>(service: impl FnOnce(&mut State) -> R) -> Result<R, Status> {
    if BUSY.swap(true, Ordering::Acquire) {
        return Err(Status::NOT_READY);
    }
    let result = if IS_OPEN.load(Ordering::Relaxed) {
        // SAFETY: BUSY lets one caller in, and the state is initialized.
        let state = unsafe { (*STATE.0.get()).assume_init_mut() };
        if is_at_runtime() {
            state.variables.set_at_runtime();
        }
        Ok(service(state))
    } else {
        Err(Status::NOT_READY)
    };
    BUSY.store(false, Ordering::Release);
    result
}

/// In boot services, holds events off: their notifications may call runtime services too. HIGH_LEVEL, as that is legal
/// whatever the caller's level is.
fn raise_tpl() -> Option<Tpl> {
    let system_table = system_table();
    if system_table.is_null() || is_at_runtime() {
        return None;
    }
    // SAFETY: in boot services the system table and its boot services are valid.
    unsafe { Some(((*(*system_table).boot_services).raise_tpl)(Tpl::HIGH_LEVEL)) }
}

fn restore_tpl(tpl: Tpl) {
    // SAFETY: `raise_tpl` found boot services, and no service of this driver ends them.
    unsafe { ((*(*system_table()).boot_services).restore_tpl)(tpl) }
}

fn open_non_volatile(region: Region) -> Result<(Store<Region>, StoreState), Status> {
    match volume::store_offset(region.bytes()) {
        Ok(offset) => match Store::open(region, offset) {
            Ok(store) => Ok((store, StoreState::Opened)),
            Err((region, _)) => Ok((new_store(region)?, StoreState::Replaced)),
        },
        Err(VolumeError::Blank) => Ok((new_store(region)?, StoreState::Blank)),
        Err(_) => Ok((new_store(region)?, StoreState::Replaced)),
    }
}

fn new_store(mut region: Region) -> Result<Store<Region>, Status> {
    volume::format(region.bytes_mut()).map_err(|_| Status::INVALID_PARAMETER)?;
    Store::format(region, volume::STORE_OFFSET).map_err(|_| Status::INVALID_PARAMETER)
}

fn report(store: &Store<Region>, state: StoreState) -> StoreReport {
    let report = store.report();
    let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    StoreReport {
        state,
        variables: count(report.variables),
        damaged: count(report.damaged),
        broken_off: u32::from(report.broken_off),
        used: count(report.used),
        capacity: count(report.capacity),
        daemon_failure: 0,
    }
}

/// The UCS-2 units of an ASCII name.
pub const fn utf16<const N: usize>(text: &[u8; N]) -> [u16; N] {
    let mut units = [0; N];
    let mut index = 0;
    while index < N {
        units[index] = text[index] as u16;
        index += 1;
    }
    units
}
