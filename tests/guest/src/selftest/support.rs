//! What several groups of tests need: strings, handles, events, protocols.

use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicUsize, Ordering};

use guest::boot;
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{EventType, MemoryDescriptor, Tpl};
use uefi_raw::{Event, Guid, Handle, Status, guid};

/// Search types of LocateHandle (`EFI_LOCATE_SEARCH_TYPE`).
pub const ALL_HANDLES: i32 = 0;
/// By registration.
pub const BY_REGISTER_NOTIFY: i32 = 1;
/// By protocol.
pub const BY_PROTOCOL: i32 = 2;

/// Attributes of OpenProtocol (UEFI 2.10 §7.3.9).
pub mod open {
    pub const BY_HANDLE_PROTOCOL: u32 = 0x01;
    pub const GET_PROTOCOL: u32 = 0x02;
    pub const TEST_PROTOCOL: u32 = 0x04;
    pub const BY_CHILD_CONTROLLER: u32 = 0x08;
    pub const BY_DRIVER: u32 = 0x10;
    pub const EXCLUSIVE: u32 = 0x20;
}

/// A GUID that means nothing to the firmware: these tests' own protocols, groups and vendors.
pub const OURS: Guid = guid!("5e1f7e57-0001-4000-8000-6f766d66786e");
/// Another.
pub const OURS_TOO: Guid = guid!("5e1f7e57-0002-4000-8000-6f766d66786e");
/// One that nobody ever installs.
pub const NOBODYS: Guid = guid!("5e1f7e57-ffff-4000-8000-6f766d66786e");

/// A text as the firmware wants it.
pub fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// A text as the firmware has it.
pub fn narrow(units: *const u16) -> String {
    let length = efi!((0..).take_while(|&index| *units.add(index) != 0).count());
    String::from_utf16_lossy(efi!(core::slice::from_raw_parts(units, length)))
}

/// A handle's protocol.
pub fn protocol_of<T>(handle: Handle, guid: &Guid) -> Option<*mut T> {
    let mut interface: *mut c_void = null_mut();
    let status = bs!(handle_protocol(handle, guid, &mut interface));
    (status == Status::SUCCESS).then_some(interface.cast())
}

/// Some handle's protocol, or a reason.
pub fn located<T>(guid: &Guid) -> Result<*mut T, String> {
    let mut interface: *mut c_void = null_mut();
    match bs!(locate_protocol(guid, null(), &mut interface)) {
        Status::SUCCESS => Ok(interface.cast()),
        status => Err(alloc::format!("no protocol {guid}: {status:?}")),
    }
}

/// All handles with a protocol.
pub fn handles_with(guid: &Guid) -> Vec<Handle> {
    let (mut count, mut handles): (usize, *mut Handle) = (0, null_mut());
    if bs!(locate_handle_buffer(BY_PROTOCOL, guid, null(), &mut count, &mut handles)) != Status::SUCCESS {
        return Vec::new();
    }
    let list = efi!(core::slice::from_raw_parts(handles, count)).to_vec();
    let _ = bs!(free_pool(handles.cast()));
    list
}

/// A new handle with one protocol.
pub fn handle_with(guid: &Guid, interface: *const c_void) -> Handle {
    let mut handle = null_mut();
    let ty = uefi_raw::table::boot::InterfaceType::NATIVE_INTERFACE;
    let _ = bs!(install_protocol_interface(&mut handle, guid, ty, interface));
    handle
}

/// This program's own image.
pub fn own_image() -> &'static LoadedImageProtocol {
    let image = protocol_of::<LoadedImageProtocol>(guest::image(), &LoadedImageProtocol::GUID);
    efi!(&*image.unwrap_or_else(|| unreachable!("a started image has this protocol")))
}

/// An event that counts its notifications in a counter.
pub fn counting_event(kind: EventType, tpl: Tpl, counter: &'static AtomicUsize) -> Event {
    counter.store(0, Ordering::SeqCst);
    let mut event = null_mut();
    let context = core::ptr::from_ref(counter).cast_mut().cast();
    let _ = bs!(create_event(kind, tpl, Some(count), context, &mut event));
    event
}

/// A notification that counts in its context, an [`AtomicUsize`].
pub unsafe extern "efiapi" fn count(_event: Event, context: *mut c_void) {
    efi!((*context.cast::<AtomicUsize>()).fetch_add(1, Ordering::SeqCst));
}

/// An event without a notification.
pub fn plain_event(kind: EventType) -> Event {
    let mut event = null_mut();
    let _ = bs!(create_event(kind, Tpl::CALLBACK, None, null_mut(), &mut event));
    event
}

/// The current task priority level.
pub fn level() -> Tpl {
    let tpl = bs!(raise_tpl(Tpl::HIGH_LEVEL));
    bs!(restore_tpl(tpl));
    tpl
}

/// The memory map in memory that is there before the map is made, and its key.
pub struct Map {
    buffer: Vec<u64>,
    size: usize,
    /// Bytes from one descriptor to the next.
    pub step: usize,
    /// For ExitBootServices.
    pub key: usize,
    /// The descriptors' version.
    pub version: u32,
}

impl Map {
    /// Room for a map.
    pub fn new() -> Self {
        Self { buffer: alloc::vec![0; 8192], size: 0, step: 0, key: 0, version: 0 }
    }

    /// Takes the map; allocates nothing.
    pub fn read(&mut self) -> Status {
        self.size = self.buffer.len() * 8;
        let map = self.buffer.as_mut_ptr().cast();
        efi!((boot().get_memory_map)(&mut self.size, map, &mut self.key, &mut self.step, &mut self.version))
    }

    /// A map that was read.
    pub fn now() -> Self {
        let mut map = Self::new();
        let _ = map.read();
        map
    }

    /// The descriptors.
    pub fn iter(&self) -> impl Iterator<Item = MemoryDescriptor> + '_ {
        let start = self.buffer.as_ptr().cast::<u8>();
        let count = self.size.checked_div(self.step).unwrap_or(0);
        (0..count).map(move |index| efi!(start.add(index * self.step).cast::<MemoryDescriptor>().read_unaligned()))
    }

    /// The descriptor of an address.
    pub fn of(&self, address: u64) -> Option<MemoryDescriptor> {
        self.iter().find(|d| (d.phys_start..d.phys_start + d.page_count * 4096).contains(&address))
    }

    /// The descriptors as they are, to change them for SetVirtualAddressMap.
    pub fn for_each_mut(&mut self, mut f: impl FnMut(&mut MemoryDescriptor)) {
        let start = self.buffer.as_mut_ptr().cast::<u8>();
        for index in 0..self.size.checked_div(self.step).unwrap_or(0) {
            f(efi!(&mut *start.add(index * self.step).cast::<MemoryDescriptor>()));
        }
    }

    /// The descriptors' first byte and length in bytes.
    pub fn raw(&self) -> (*const MemoryDescriptor, usize) {
        (self.buffer.as_ptr().cast(), self.size)
    }
}

/// CRC-32 as the specification has it, bit by bit.
pub fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// Whether a table's header is right: size and checksum.
pub fn header_is_right(header: *const uefi_raw::table::Header, size: usize) -> crate::harness::Outcome {
    let told = efi!(*header);
    same!(told.size as usize, size);
    same!(told.reserved, 0);
    let crc_field = core::mem::offset_of!(uefi_raw::table::Header, crc);
    let bytes = (0..size).map(|index| match index {
        index if (crc_field..crc_field + 4).contains(&index) => 0,
        index => efi!(*header.cast::<u8>().add(index)),
    });
    same!(told.crc, crc32(bytes));
    Ok(())
}
