//! What this program does when the tests have loaded it once more: its load options are the order.

use core::ffi::c_void;
use core::ptr::{null, null_mut};

use guest::{boot, image};
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{InterfaceType, Tpl};
use uefi_raw::{Handle, Status};

use crate::support::OURS_TOO;

/// What a copy of this program is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Order {
    /// Return success.
    Return = 1,
    /// Return [`REFUSAL`].
    Fail,
    /// Call Exit with [`REFUSAL`] and [`FAREWELL`], some calls deep.
    Exit,
    /// Return with the task priority raised.
    ReturnRaised,
    /// Install `OURS_TOO` on the own handle and an unload function that takes it away, and return success.
    Stay,
    /// The same with an unload function that refuses.
    StayForever,
}

/// How load options that are an order begin.
const MARK: u32 = u32::from_le_bytes(*b"OBEY");

/// What copies return that fail.
pub const REFUSAL: Status = Status::CRC_ERROR;
/// What copies that exit leave behind.
pub const FAREWELL: [u16; 4] = [b'b' as u16, b'y' as u16, b'e' as u16, 0];

/// Load options that are an order.
#[repr(C)]
pub struct LoadOptions {
    mark: u32,
    order: u16,
}

impl From<Order> for LoadOptions {
    fn from(order: Order) -> Self {
        Self { mark: MARK, order: order as u16 }
    }
}

/// The order that this program was started with, if it is a copy.
pub fn order() -> Option<Order> {
    let mut interface: *mut c_void = null_mut();
    if bs!(handle_protocol(image(), &LoadedImageProtocol::GUID, &mut interface)) != Status::SUCCESS {
        return None;
    }
    let image = efi!(&*interface.cast::<LoadedImageProtocol>());
    if (image.load_options_size as usize) < size_of::<LoadOptions>() {
        return None;
    }
    let options = efi!(image.load_options.cast::<LoadOptions>().read_unaligned());
    let orders = [Order::Return, Order::Fail, Order::Exit, Order::ReturnRaised, Order::Stay, Order::StayForever];
    orders.into_iter().find(|order| options.mark == MARK && options.order == *order as u16)
}

/// Does it; the status is the image's.
pub fn obey(order: Order) -> Status {
    match order {
        Order::Return => Status::SUCCESS,
        Order::Fail => REFUSAL,
        Order::Exit => deep(10),
        Order::ReturnRaised => {
            bs!(raise_tpl(Tpl::NOTIFY));
            Status::SUCCESS
        }
        Order::Stay => stay(unload),
        Order::StayForever => stay(refuse),
    }
}

#[inline(never)]
fn deep(levels: u32) -> Status {
    if levels > 0 {
        return core::hint::black_box(deep(levels - 1));
    }
    let mut data: *mut u8 = null_mut();
    let size = size_of_val(&FAREWELL);
    efi! {
        let _ = (boot().allocate_pool)(uefi_raw::table::boot::MemoryType::LOADER_DATA, size, &mut data);
        data.copy_from_nonoverlapping(FAREWELL.as_ptr().cast(), size);
        (boot().exit)(image(), REFUSAL, size, data.cast())
    }
}

fn stay(unload: unsafe extern "efiapi" fn(Handle) -> Status) -> Status {
    let mut interface: *mut c_void = null_mut();
    let _ = bs!(handle_protocol(image(), &LoadedImageProtocol::GUID, &mut interface));
    efi!((*interface.cast::<LoadedImageProtocol>()).unload = Some(unload));
    let mut handle = image();
    bs!(install_protocol_interface(&mut handle, &OURS_TOO, InterfaceType::NATIVE_INTERFACE, null()))
}

unsafe extern "efiapi" fn unload(image: Handle) -> Status {
    bs!(uninstall_protocol_interface(image, &OURS_TOO, null()))
}

unsafe extern "efiapi" fn refuse(_: Handle) -> Status {
    Status::NOT_READY
}
