//! The way to the daemon: pages of the variable region, and the port that tells it where they are.
//!
//! The region's first 16 pages are the window; our own copy of what is in them follows. So a daemon costs the guest no
//! memory, and SetVirtualAddressMap moves nothing more than without one. The port takes the page frame number, which
//! stays what it is when addresses become virtual.

use core::arch::asm;
use core::slice;

use handoff::{Handoff, HypercallInstruction, StoreReport, StoreState};
use runtime::remote::{Absence, Daemon, Window};
use uefi_raw::Status;
use uefi_raw::table::boot::BootServices;
use variables::remote::{PORT, REPLY_HEAD, WINDOW_SIZE};
use variables::{Backend, Info};

use super::state::{self, Region};

const PAGE_SIZE: u64 = 4096;
/// Between two looks for a daemon, in microseconds.
const LOOK_AGAIN: usize = 10_000;

/// Window and copy in the variable region.
pub struct Pages {
    region: Region,
    /// Page frame number of the window.
    frame: u32,
}

impl Pages {
    /// `None` if the region is too small, or where no page frame number of the port reaches. It is identity-mapped.
    fn new(region: Region) -> Result<Self, Region> {
        let frame = u32::try_from(region.address() / PAGE_SIZE);
        match frame {
            Ok(frame) if region.address().is_multiple_of(PAGE_SIZE) && region.size() >= 2 * WINDOW_SIZE => {
                Ok(Self { region, frame })
            }
            _ => Err(region),
        }
    }

    /// The region.
    pub const fn region(&self) -> &Region {
        &self.region
    }

    /// Follows the region to another address.
    pub const fn move_by(&mut self, distance: u64) {
        self.region.move_by(distance);
    }

    const fn window(&self) -> *mut u8 {
        self.region.base()
    }
}

impl Window for Pages {
    fn buffer(&mut self) -> &mut [u8] {
        // SAFETY: behind the window, in a region of twice its size that this value owns; nobody outside is told of it.
        unsafe { slice::from_raw_parts_mut(self.window().add(WINDOW_SIZE), WINDOW_SIZE) }
    }

    fn exchange(&mut self, length: usize) {
        let window = self.window();
        for (offset, &byte) in self.buffer().iter().take(length).enumerate() {
            // SAFETY: within the window; volatile, as the daemon reads it.
            unsafe { window.add(offset).write_volatile(byte) };
        }
        // SAFETY: a daemon reads and writes the window before the instruction completes; without one nothing happens.
        unsafe { asm!("out dx, eax", in("dx") PORT, in("eax") self.frame, options(nostack, preserves_flags)) };
    }

    fn fetch(&mut self, from: usize, to: usize) {
        let window = self.window();
        for (offset, byte) in self.buffer().iter_mut().enumerate().take(to).skip(from) {
            // SAFETY: within the window; volatile, as the daemon may write it at any time.
            *byte = unsafe { window.add(offset).read_volatile() };
        }
    }
}

/// Finds out whether a daemon keeps this guest's variables, waiting for one as long as the core wants. Otherwise the
/// region comes back as it was, with the EFI_STATUS of a daemon that cannot be used.
///
/// # Safety
/// Both pointers are valid, in boot services.
pub unsafe fn find(
    region: Region,
    handoff: *mut Handoff,
    boot_services: *mut BootServices,
) -> Result<(Daemon<Pages>, StoreReport), (Region, u64)> {
    // SAFETY: the caller vouches for the handoff.
    if unsafe { (*handoff).hypercall } == HypercallInstruction::None {
        return Err((region, 0));
    }
    let mut pages = Pages::new(region).map_err(|region| (region, 0))?;
    // SAFETY: as above.
    let mut looks = unsafe { (*handoff).daemon_patience as usize } * 1_000 / LOOK_AGAIN;
    let heads = heads(&mut pages);
    loop {
        let (tried, absence) = match Daemon::find(pages) {
            Ok((daemon, info)) => {
                // SAFETY: as above.
                unsafe { (*handoff).notify_secure_boot_failure = Some(notify_secure_boot_failure) };
                return Ok((daemon, report(info)));
            }
            Err(absent) => absent,
        };
        pages = tried;
        restore(&mut pages, heads);
        match absence {
            Absence::Failed(status) => return Err((pages.region, status.0 as u64)),
            Absence::Unanswered if looks == 0 => return Err((pages.region, 0)),
            Absence::Unanswered => looks -= 1,
        }
        // SAFETY: the caller vouches for the boot services.
        let _ = unsafe { ((*boot_services).stall)(LOOK_AGAIN) };
    }
}

/// What looking for a daemon overwrites.
type Heads = [[u8; REPLY_HEAD]; 2];

fn heads(pages: &mut Pages) -> Heads {
    let mut heads = [[0; REPLY_HEAD]; 2];
    for (head, part) in heads.iter_mut().zip(pages.region.bytes_mut().chunks(WINDOW_SIZE)) {
        head.copy_from_slice(&part[..REPLY_HEAD]);
    }
    heads
}

fn restore(pages: &mut Pages, heads: Heads) {
    for (head, part) in heads.iter().zip(pages.region.bytes_mut().chunks_mut(WINDOW_SIZE)) {
        part[..REPLY_HEAD].copy_from_slice(head);
    }
}

fn report(info: Info) -> StoreReport {
    let count = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    StoreReport {
        state: StoreState::Daemon,
        used: count(info.maximum_storage.saturating_sub(info.remaining_storage)),
        capacity: count(info.maximum_storage),
        variables: 0,
        damaged: 0,
        broken_off: 0,
        daemon_failure: 0,
    }
}

/// For the core, see [`Handoff::notify_secure_boot_failure`].
unsafe extern "efiapi" fn notify_secure_boot_failure() -> Status {
    match state::with(|state| state.variables.notify_secure_boot_failure()) {
        Ok(Ok(())) => Status::SUCCESS,
        Ok(Err(status)) | Err(status) => status,
    }
}
