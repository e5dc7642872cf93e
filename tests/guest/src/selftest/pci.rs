//! PCI functions and their root bridge (UEFI 2.11 §14). A PVH guest has none: there these tests only see that nothing claims
//! otherwise.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr::null_mut;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::pci::root_bridge::{PciRootBridgeIoProtocol, PciRootBridgeIoProtocolWidth as Width};
use uefi_raw::table::boot::{AllocateType, MemoryType, OpenProtocolInformationEntry};
use uefi_raw::{Guid, Handle, Status, guid};

use crate::harness::{Outcome, Test, say};
use crate::support::{Map, handles_with, open, protocol_of};

pub const TESTS: &[Test] = tests![
    a_root_bridge_and_functions_are_there_or_neither,
    every_function_is_where_its_path_says,
    functions_are_children_of_the_root_bridge,
    configuration_space_reads_alike_in_every_width_and_way,
    bars_are_described,
    video_memory_keeps_what_is_written,
    attributes_are_switches,
    wrong_requests_are_refused,
    polling_ends_in_time,
    buffers_can_be_mapped,
    buffers_for_devices_are_below_4_gib,
    the_root_bridge_tells_its_resources,
    option_roms_are_roms,
];

type Transfer = unsafe extern "efiapi" fn(*mut PciIo, u32, u8, u64, usize, *mut c_void) -> Status;
type Configure = unsafe extern "efiapi" fn(*mut PciIo, u32, u32, usize, *mut c_void) -> Status;
type Poll = unsafe extern "efiapi" fn(*mut PciIo, u32, u8, u64, u64, u64, u64, *mut u64) -> Status;

/// EFI_PCI_IO_PROTOCOL.
#[repr(C)]
struct PciIo {
    poll_mem: Poll,
    poll_io: Poll,
    mem_read: Transfer,
    mem_write: Transfer,
    io_read: Transfer,
    io_write: Transfer,
    pci_read: Configure,
    pci_write: Configure,
    copy_mem: unsafe extern "efiapi" fn(*mut Self, u32, u8, u64, u8, u64, usize) -> Status,
    map: unsafe extern "efiapi" fn(*mut Self, u32, *mut c_void, *mut usize, *mut u64, *mut *mut c_void) -> Status,
    unmap: unsafe extern "efiapi" fn(*mut Self, *mut c_void) -> Status,
    allocate_buffer: unsafe extern "efiapi" fn(*mut Self, u32, MemoryType, usize, *mut *mut c_void, u64) -> Status,
    free_buffer: unsafe extern "efiapi" fn(*mut Self, usize, *mut c_void) -> Status,
    flush: unsafe extern "efiapi" fn(*mut Self) -> Status,
    get_location: unsafe extern "efiapi" fn(*mut Self, *mut usize, *mut usize, *mut usize, *mut usize) -> Status,
    attributes: unsafe extern "efiapi" fn(*mut Self, u32, u64, *mut u64) -> Status,
    get_bar_attributes: unsafe extern "efiapi" fn(*mut Self, u8, *mut u64, *mut *mut u8) -> Status,
    set_bar_attributes: unsafe extern "efiapi" fn(*mut Self, u64, u8, *mut u64, *mut u64) -> Status,
    rom_size: u64,
    rom_image: *mut u8,
}

const PCI_IO: Guid = guid!("4cf5b200-68b8-4ca5-9eec-b23e3f50029a");
const PASS_THROUGH: u8 = 0xFF;
const FOUR_GIB: u64 = 1 << 32;

/// Operations of Attributes.
const GET: u32 = 0;
const ENABLE: u32 = 2;
const DISABLE: u32 = 3;
const SUPPORTED: u32 = 4;
/// Attributes.
const IO: u64 = 0x100;
const MEMORY: u64 = 0x200;
const BUS_MASTER: u64 = 0x400;

fn root_bridge() -> Option<(Handle, *mut PciRootBridgeIoProtocol)> {
    let handle = *handles_with(&PciRootBridgeIoProtocol::GUID).first()?;
    Some((handle, protocol_of(handle, &PciRootBridgeIoProtocol::GUID)?))
}

fn functions() -> Vec<(Handle, *mut PciIo)> {
    let handles = handles_with(&PCI_IO).into_iter();
    handles.filter_map(|handle| Some((handle, protocol_of(handle, &PCI_IO)?))).collect()
}

fn configuration(io: *mut PciIo, offset: u32) -> u32 {
    let mut value = 0u32;
    let _ = call!(io.pci_read(2, offset, 1, (&raw mut value).cast()));
    value
}

fn class(io: *mut PciIo) -> [u8; 3] {
    let [_, interface, sub, base] = configuration(io, 8).to_le_bytes();
    [base, sub, interface]
}

fn location(io: *mut PciIo) -> [usize; 4] {
    let mut at = [99; 4];
    let [segment, bus, device, function] = at.each_mut();
    let _ = call!(io.get_location(segment, bus, device, function));
    at
}

fn a_root_bridge_and_functions_are_there_or_neither() -> Outcome {
    let count = functions().len();
    match root_bridge() {
        None => say(format_args!("SELFTEST note pci: no PCI")),
        Some(_) => say(format_args!("SELFTEST note pci: {count} functions")),
    }
    same!(root_bridge().is_some(), count != 0);
    for (_, io) in functions() {
        let (at, command) = (location(io), configuration(io, 4) & 0xFFFF);
        say(format_args!(
            "SELFTEST note pci: {at:x?} is {:08x} class {:02x?} {command:x}",
            configuration(io, 0),
            class(io)
        ));
    }
    Ok(())
}

fn every_function_is_where_its_path_says() -> Outcome {
    for (handle, io) in functions() {
        let [segment, bus, device, function] = location(io);
        check!(segment == 0 && bus < 256 && device < 32 && function < 8, "{:?}", location(io));
        check!(configuration(io, 0) as u16 != 0xFFFF, "nothing at {:?}", location(io));
        let path = protocol_of::<u8>(handle, &DevicePathProtocol::GUID).ok_or("no device path")?;
        // ACPI(PNP0A03,0), and Pci(device,function) behind it; deeper ones have more in between.
        same!(efi!(core::slice::from_raw_parts(path, 12)), [2, 1, 12, 0, 0xD0, 0x41, 0x03, 0x0A, 0, 0, 0, 0]);
        if bus == 0 {
            let node = efi!(core::slice::from_raw_parts(path.add(12), 10));
            same!(node, [1, 1, 6, 0, function as u8, device as u8, 0x7F, 0xFF, 4, 0]);
        }
    }
    Ok(())
}

fn functions_are_children_of_the_root_bridge() -> Outcome {
    let Some((bridge, _)) = root_bridge() else { return Ok(()) };
    let (mut entries, mut count): (*mut OpenProtocolInformationEntry, usize) = (null_mut(), 0);
    let guid = &PciRootBridgeIoProtocol::GUID;
    want!(SUCCESS, bs!(open_protocol_information(bridge, guid, &mut entries, &mut count)));
    let opens = efi!(core::slice::from_raw_parts(entries, count));
    let is_child = |handle| {
        opens.iter().any(|open| open.attributes == open::BY_CHILD_CONTROLLER && open.controller_handle == handle)
    };
    check!(functions().iter().all(|(handle, _)| is_child(*handle)));
    want!(SUCCESS, bs!(free_pool(entries.cast())));
    Ok(())
}

fn configuration_space_reads_alike_in_every_width_and_way() -> Outcome {
    let Some((_, bridge)) = root_bridge() else { return Ok(()) };
    for (_, io) in functions() {
        let mut bytes = [0u8; 16];
        want!(SUCCESS, call!(io.pci_read(0, 0, 16, bytes.as_mut_ptr().cast())));
        for width in 1..4 {
            let mut wide = [0u8; 16];
            want!(SUCCESS, call!(io.pci_read(width, 0, 16 >> width, wide.as_mut_ptr().cast())));
            same!(wide, bytes);
        }
        let [_, bus, device, function] = location(io).map(|number| number as u64);
        let at = bus << 24 | device << 16 | function << 8;
        let (mut first, mut fourth) = ([0u32; 2], 0u32);
        want!(SUCCESS, efi!(((*bridge).pci.read)(bridge, Width::UINT32, at, 2, first.as_mut_ptr().cast())));
        same!(first.map(u32::to_le_bytes).concat(), bytes[..8].to_vec());
        let extended = at | 12 << 32;
        want!(SUCCESS, efi!(((*bridge).pci.read)(bridge, Width::UINT32, extended, 1, (&raw mut fourth).cast())));
        same!(fourth.to_le_bytes(), bytes[12..]);
    }
    Ok(())
}

/// Type, first address and length of a BAR.
fn bar(io: *mut PciIo, index: u8) -> Result<Option<(u8, u64, u64)>, alloc::string::String> {
    let mut list = null_mut();
    let status = call!(io.get_bar_attributes(index, null_mut(), &mut list));
    if status == Status::UNSUPPORTED {
        return Ok(None);
    }
    want!(SUCCESS, status);
    let bytes = efi!(core::slice::from_raw_parts(list, 48)).to_vec();
    want!(SUCCESS, bs!(free_pool(list)));
    same!((bytes[0], bytes[1], bytes[2], bytes[46]), (0x8A, 43, 0, 0x79));
    let value = |index: usize| bytes[6 + 8 * index..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (first, last, length) = (value(1), value(2), value(4));
    same!((last - first + 1, value(3)), (length, 0));
    check!(length.is_power_of_two() && first.is_multiple_of(length), "{first:x} {length:x}");
    Ok(Some((bytes[3], first, length)))
}

fn bars_are_described() -> Outcome {
    for (_, io) in functions() {
        for index in 0..6 {
            let Some((kind, first, length)) = bar(io, index)? else { continue };
            let register = configuration(io, 0x10 + 4 * u32::from(index));
            same!(register & 1 != 0, kind == 1);
            same!(u64::from(register & if kind == 1 { !3 } else { !15 }), first & 0xFFFF_FFFF);
            check!(kind == 0 || first + length <= 0x1_0000, "ports {first:x} {length:x}");
            let inside = Map::now().iter().any(|memory| {
                let end = memory.phys_start + memory.page_count * 4096;
                memory.ty == MemoryType::CONVENTIONAL && memory.phys_start < first + length && first < end
            });
            check!(kind == 1 || !inside, "memory {first:x} {length:x} is RAM");
        }
        for index in [6, PASS_THROUGH] {
            want!(UNSUPPORTED, call!(io.get_bar_attributes(index, null_mut(), &mut null_mut())));
        }
    }
    Ok(())
}

fn video_memory_keeps_what_is_written() -> Outcome {
    for (_, io) in functions().into_iter().filter(|(_, io)| class(*io)[..2] == [3, 0]) {
        let Some((0, first, length)) = bar(io, 0)? else { continue };
        // The last line of the memory, which is on no screen.
        let at = length - 4096;
        let mut old = [0u32; 8];
        want!(SUCCESS, call!(io.mem_read(2, 0, at, 8, old.as_mut_ptr().cast())));
        let mut new: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
        want!(SUCCESS, call!(io.mem_write(2, 0, at, 8, new.as_mut_ptr().cast())));
        want!(SUCCESS, call!(io.copy_mem(3, 0, at + 8, 0, at, 2)));
        let mut back = [0u32; 8];
        want!(SUCCESS, call!(io.mem_read(2, PASS_THROUGH, first + at, 8, back.as_mut_ptr().cast())));
        same!(back, [1, 2, 1, 2, 3, 4, 7, 8]);
        let mut found = 0;
        want!(SUCCESS, call!(io.poll_mem(1, 0, at + 4, 0xFF, 2, 1000, &mut found)));
        same!(found, 2);
        // Fill, then FIFO: the last one stays.
        want!(SUCCESS, call!(io.mem_write(10, 0, at, 8, new.as_mut_ptr().cast())));
        want!(SUCCESS, call!(io.mem_write(6, 0, at, 8, new.as_mut_ptr().cast())));
        want!(SUCCESS, call!(io.mem_read(2, 0, at, 8, back.as_mut_ptr().cast())));
        same!(back, [8, 1, 1, 1, 1, 1, 1, 1]);
        want!(SUCCESS, call!(io.mem_write(2, 0, at, 8, old.as_mut_ptr().cast())));
        want!(SUCCESS, call!(io.flush()));
    }
    Ok(())
}

fn attributes_are_switches() -> Outcome {
    for (_, io) in functions() {
        let (mut supported, mut set) = (0, 0);
        want!(SUCCESS, call!(io.attributes(SUPPORTED, 0, &mut supported)));
        want!(SUCCESS, call!(io.attributes(GET, 0, &mut set)));
        check!(set & !supported == 0, "{set:x} of {supported:x}");
        let command = u64::from(configuration(io, 4));
        same!(set & (IO | MEMORY | BUS_MASTER), command << 8 & (IO | MEMORY | BUS_MASTER) & supported);
        want!(UNSUPPORTED, call!(io.attributes(ENABLE, 1 << 62, null_mut())));
        want!(INVALID_PARAMETER, call!(io.attributes(9, 0, &mut set)));
        // Network cards are nobody's yet.
        if class(io)[0] == 2 && set & BUS_MASTER == 0 {
            want!(SUCCESS, call!(io.attributes(ENABLE, BUS_MASTER, null_mut())));
            check!(configuration(io, 4) & 4 != 0);
            want!(SUCCESS, call!(io.attributes(DISABLE, BUS_MASTER, null_mut())));
            check!(configuration(io, 4) & 4 == 0);
        }
    }
    Ok(())
}

fn wrong_requests_are_refused() -> Outcome {
    for (_, io) in functions() {
        let mut buffer = [0u64; 4];
        let at = buffer.as_mut_ptr().cast::<c_void>();
        want!(INVALID_PARAMETER, call!(io.pci_read(12, 0, 1, at)));
        want!(INVALID_PARAMETER, call!(io.pci_read(0, 0, 1, null_mut())));
        want!(UNSUPPORTED, call!(io.pci_read(2, 254, 1, at)));
        want!(UNSUPPORTED, call!(io.pci_read(0, 256, 1, at)));
        want!(UNSUPPORTED, call!(io.mem_read(0, 6, 0, 1, at)));
        want!(UNSUPPORTED, call!(io.io_read(0, 6, 0, 1, at)));
        want!(UNSUPPORTED, call!(io.mem_read(0, PASS_THROUGH, u64::MAX, 1, at)));
        want!(UNSUPPORTED, call!(io.io_read(2, PASS_THROUGH, 0xFFFE, 1, at)));
        want!(INVALID_PARAMETER, call!(io.io_read(3, PASS_THROUGH, 0x80, 1, at)));
        for index in 0..6 {
            let Some((kind, _, length)) = bar(io, index)? else { continue };
            let (right, wrong) =
                if kind == 0 { efi!(((*io).mem_read, (*io).io_read)) } else { efi!(((*io).io_read, (*io).mem_read)) };
            want!(UNSUPPORTED, efi!(right(io, 0, index, length, 1, at)));
            want!(UNSUPPORTED, efi!(right(io, 0, index, u64::MAX, 2, at)));
            want!(UNSUPPORTED, efi!(wrong(io, 0, index, 0, 1, at)));
            let (mut offset, mut size) = (0, length);
            want!(SUCCESS, call!(io.set_bar_attributes(0, index, &mut offset, &mut size)));
            size += 1;
            want!(UNSUPPORTED, call!(io.set_bar_attributes(0, index, &mut offset, &mut size)));
        }
    }
    Ok(())
}

fn polling_ends_in_time() -> Outcome {
    /// Nobody's, it reads as all ones.
    const NOBODYS: u64 = 0x2E0;
    for (_, io) in functions().into_iter().take(1) {
        let mut found = 0;
        want!(SUCCESS, call!(io.poll_io(0, PASS_THROUGH, NOBODYS, 0xFF, 0xFF, 0, &mut found)));
        same!(found, 0xFF);
        want!(SUCCESS, call!(io.poll_io(0, PASS_THROUGH, NOBODYS, 0xFF, 0, 0, &mut found)));
        want!(TIMEOUT, call!(io.poll_io(0, PASS_THROUGH, NOBODYS, 0xFF, 0, 100_000, &mut found)));
        want!(INVALID_PARAMETER, call!(io.poll_io(0, PASS_THROUGH, NOBODYS, 0xFF, 0, 0, null_mut())));
    }
    Ok(())
}

fn buffers_can_be_mapped() -> Outcome {
    for (_, io) in functions().into_iter().take(1) {
        let mut address = 0;
        want!(SUCCESS, bs!(allocate_pages(AllocateType::ANY_PAGES, MemoryType::LOADER_DATA, 2, &mut address)));
        map_and_unmap(io, address)?;
        want!(SUCCESS, bs!(free_pages(address, 2)));
        // Where there is memory above 4 GiB.
        let mut address = FOUR_GIB;
        let placed = bs!(allocate_pages(AllocateType::ADDRESS, MemoryType::LOADER_DATA, 2, &mut address));
        if placed == Status::SUCCESS {
            say(format_args!("SELFTEST note pci: memory above 4 GiB"));
            map_and_unmap(io, address)?;
            want!(SUCCESS, bs!(free_pages(address, 2)));
        }
    }
    Ok(())
}

/// A device reads what is there and what it writes gets there, whether it is told the place itself or one below 4 GiB.
fn map_and_unmap(io: *mut PciIo, address: u64) -> Outcome {
    const READ: u32 = 0;
    const WRITE: u32 = 1;
    const COMMON: u32 = 2;
    let host = address as *mut u8;
    let (mut size, mut device, mut mapping) = (5000, 0, null_mut());
    efi!(host.write_bytes(0x11, 8192));
    want!(SUCCESS, call!(io.map(READ, host.cast(), &mut size, &mut device, &mut mapping)));
    check!(device + 5000 <= FOUR_GIB, "{device:x}");
    same!(efi!((*(device as *const u8), *(device as *const u8).add(4999))), (0x11, 0x11));
    want!(SUCCESS, call!(io.unmap(mapping)));
    want!(INVALID_PARAMETER, call!(io.unmap(mapping)));
    want!(SUCCESS, call!(io.map(WRITE, host.cast(), &mut size, &mut device, &mut mapping)));
    efi!((device as *mut u8).write_bytes(0x22, 5000));
    want!(SUCCESS, call!(io.unmap(mapping)));
    same!(efi!((*host, *host.add(4999), *host.add(5000))), (0x22, 0x22, 0x11));
    let common = call!(io.map(COMMON, host.cast(), &mut size, &mut device, &mut mapping));
    if address < FOUR_GIB {
        want!(SUCCESS, common);
        same!(device, address);
        want!(SUCCESS, call!(io.unmap(mapping)));
    } else {
        want!(UNSUPPORTED, common);
    }
    Ok(())
}

fn buffers_for_devices_are_below_4_gib() -> Outcome {
    for (_, io) in functions().into_iter().take(1) {
        let mut host = null_mut();
        let (data, loader) = (MemoryType::BOOT_SERVICES_DATA, MemoryType::LOADER_DATA);
        want!(SUCCESS, call!(io.allocate_buffer(0, data, 3, &mut host, 0)));
        check!(host.addr().is_multiple_of(4096) && (host.addr() as u64) < FOUR_GIB);
        want!(SUCCESS, call!(io.free_buffer(3, host)));
        want!(INVALID_PARAMETER, call!(io.free_buffer(3, host)));
        want!(INVALID_PARAMETER, call!(io.allocate_buffer(0, loader, 3, &mut host, 0)));
        want!(UNSUPPORTED, call!(io.allocate_buffer(0, data, 3, &mut host, IO)));
    }
    Ok(())
}

fn the_root_bridge_tells_its_resources() -> Outcome {
    let Some((_, bridge)) = root_bridge() else { return Ok(()) };
    let mut list: *const c_void = core::ptr::null();
    want!(SUCCESS, efi!(((*bridge).configuration)(bridge, &mut list)));
    let (list, mut at, mut kinds) = (list.cast::<u8>(), 0, Vec::new());
    while efi!(*list.add(at)) != 0x79 {
        same!(efi!((*list.add(at), *list.add(at + 1))), (0x8A, 43));
        let [first, last] = [14, 22].map(|field| efi!(list.add(at + field).cast::<u64>().read_unaligned()));
        check!(first <= last, "{first:x} to {last:x}");
        kinds.push(efi!(*list.add(at + 3)));
        at += 46;
    }
    check!(kinds.contains(&0) && kinds.contains(&2), "{kinds:?}");
    let (mut supports, mut set) = (0, 0);
    want!(SUCCESS, efi!(((*bridge).get_attributes)(bridge, &mut supports, &mut set)));
    same!(set & !supports, 0);
    Ok(())
}

fn option_roms_are_roms() -> Outcome {
    for (_, io) in functions() {
        let (size, image) = efi!(((*io).rom_size, (*io).rom_image));
        same!(size == 0, image.is_null());
        check!(size == 0 || size > 512 && efi!((*image, *image.add(1))) == (0x55, 0xAA));
    }
    Ok(())
}
