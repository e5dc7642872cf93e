//! Measures the firmware from inside: start-up, disk, file system, allocation, memory kept from the operating system.
//!
//! Prints lines `BENCH name value unit`, then powers off. Needs a file `BENCH.DAT` of 64 MiB on the volume it was started from.
#![no_std]
#![no_main]

use core::ffi::c_void;
use core::ptr::null_mut;

use guest::measure::{best_and_median, best_and_median_of, frequency, get_time, report, variables};
use guest::{boot, image, println, table, tsc};
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::console::{
    GraphicsOutputBltOperation, GraphicsOutputBltPixel, GraphicsOutputProtocol, SimpleTextOutputProtocol,
};
use uefi_raw::protocol::file_system::{FileAttribute, FileMode, FileProtocolV1, SimpleFileSystemProtocol};
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{AllocateType, MemoryDescriptor, MemoryType, Tpl};
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Boolean, Guid, Handle, Status, guid};

const MIB: usize = 1 << 20;
/// What a file read asks for at a time.
const CHUNK: usize = 4 * MIB;

#[unsafe(export_name = "efi_main")]
extern "efiapi" fn main(handle: Handle, system_table: *mut SystemTable) -> Status {
    let started = tsc();
    guest::start(handle, system_table);
    println!("BENCH program_start {started} ticks");
    println!("BENCH tsc_frequency {} hz", frequency());
    start_up();
    allocations();
    services();
    disk();
    files();
    screen();
    inventory();
    println!("BENCH end 0 -");
    guest::power_off()
}

/// The time from the firmware's first instruction to the start of this program, as the firmware published it: the FPDT
/// (ACPI 6.5 §5.2.24) points to the FBPT, whose field `OSLoaderStartImageStart` holds nanoseconds.
fn start_up() {
    const POINTER: usize = 36 + 8;
    const START_IMAGE: usize = 8 + 24;
    let Some(table) = acpi_table(b"FPDT") else { return println!("GUEST-NOTE no FPDT") };
    // SAFETY: the firmware's table, whose first record points to the FBPT.
    let nanoseconds = unsafe {
        let performance = table.add(POINTER).cast::<u64>().read_unaligned() as *const u8;
        performance.add(START_IMAGE).cast::<u64>().read_unaligned()
    };
    println!("BENCH fpdt_start_image {nanoseconds} ns");
    println!(
        "BENCH fpdt_start_image_ticks {} ticks",
        u128::from(nanoseconds) * u128::from(frequency()) / 1_000_000_000
    );
}

/// The ACPI table with this signature, by the list that the configuration table leads to.
fn acpi_table(signature: &[u8; 4]) -> Option<*const u8> {
    const ACPI_20: Guid = guid!("8868e871-e4f1-11d3-bc22-0080c73c8881");
    const XSDT_IN_RSDP: usize = 24;
    const HEADER: usize = 36;
    let count = table().number_of_configuration_table_entries;
    // SAFETY: the firmware's tables, of the lengths they name.
    unsafe {
        let entries = core::slice::from_raw_parts(table().configuration_table, count);
        let rsdp = entries.iter().find(|entry| entry.vendor_guid == ACPI_20)?.vendor_table.cast::<u8>();
        let list = rsdp.add(XSDT_IN_RSDP).cast::<u64>().read_unaligned() as *const u8;
        let length = list.add(4).cast::<u32>().read_unaligned() as usize;
        (HEADER..length)
            .step_by(8)
            .map(|offset| list.add(offset).cast::<u64>().read_unaligned() as *const u8)
            .find(|table| core::slice::from_raw_parts(*table, 4) == signature)
    }
}

fn allocations() {
    const PAIRS: u64 = 1000;
    let (best, median) = best_and_median(|| {
        for _ in 0..PAIRS {
            let mut block = null_mut();
            // SAFETY: boot services with valid arguments.
            unsafe {
                let _ = (boot().allocate_pool)(MemoryType::LOADER_DATA, 100, &mut block);
                let _ = (boot().free_pool)(block);
            }
        }
    });
    println!("BENCH pool_pair {} ticks", median / PAIRS);
    println!("BENCH pool_pair_best {} ticks", best / PAIRS);
    for (name, ty) in [("loader_data", MemoryType::LOADER_DATA), ("boot_services_data", MemoryType::BOOT_SERVICES_DATA)]
    {
        let (best, median) = best_and_median(|| {
            for _ in 0..100 {
                let mut address = 0;
                // SAFETY: boot services with valid arguments.
                unsafe {
                    let _ = (boot().allocate_pages)(AllocateType::ANY_PAGES, ty, 8, &mut address);
                    let _ = (boot().free_pages)(address, 8);
                }
            }
        });
        println!("BENCH pages_pair_{name} {} ticks", median / 100);
        println!("BENCH pages_pair_{name}_best {} ticks", best / 100);
    }
}

/// Runtime services and task priority levels.
fn services() {
    report("get_time", best_and_median(get_time));
    variables();
    report("raise_restore_tpl", best_and_median(raise_and_restore));
}

fn raise_and_restore() {
    // SAFETY: boot services, in the order they belong.
    unsafe { (boot().restore_tpl)((boot().raise_tpl)(Tpl::NOTIFY)) }
}

fn protocol<T>(handle: Handle, guid: &Guid) -> Option<*mut T> {
    let mut interface: *mut c_void = null_mut();
    // SAFETY: a boot service with valid arguments.
    let status = unsafe { (boot().handle_protocol)(handle, guid, &mut interface) };
    (status == Status::SUCCESS).then_some(interface.cast())
}

fn own_device() -> Option<Handle> {
    let loaded: *mut LoadedImageProtocol = protocol(image(), &LoadedImageProtocol::GUID)?;
    // SAFETY: the firmware's protocol.
    Some(unsafe { (*loaded).device_handle })
}

fn pool(size: usize) -> *mut u8 {
    let mut address = 0;
    // SAFETY: a boot service with valid arguments.
    let status =
        unsafe { (boot().allocate_pages)(AllocateType::ANY_PAGES, MemoryType::LOADER_DATA, size / 4096, &mut address) };
    if status == Status::SUCCESS { address as *mut u8 } else { null_mut() }
}

fn disk() {
    let Some(block_io) = own_device().and_then(|device| protocol::<BlockIoProtocol>(device, &BlockIoProtocol::GUID))
    else {
        return println!("GUEST-FAIL bench no block device");
    };
    let buffer = pool(16 * MIB);
    // SAFETY: the firmware's protocol.
    let media = unsafe { *(*block_io).media };
    let read = |lba: u64, size: usize| {
        // SAFETY: the buffer has 16 MiB.
        unsafe { ((*block_io).read_blocks)(block_io, media.media_id, lba, size, buffer.cast()) }
    };
    let start = tsc();
    let status = read(0, 16 * MIB);
    println!("BENCH block_16mib {} ticks", tsc() - start);
    let start = tsc();
    let _ = read(0, 16 * MIB);
    println!("BENCH block_16mib_again {} ticks", tsc() - start);
    if status != Status::SUCCESS {
        println!("GUEST-FAIL bench reading 16 MiB: {status:?}");
    }
    let blocks = 4096 / u64::from(media.block_size);
    let mut lba = 0;
    let (best, median) = best_and_median_of::<101, _>(|| {
        let _ = read(lba, 4096);
        lba += blocks * 64;
    });
    report("block_4kib", (best, median));
}

fn files() {
    let volume = own_device().and_then(|device| protocol(device, &SimpleFileSystemProtocol::GUID));
    let Some(volume): Option<*mut SimpleFileSystemProtocol> = volume else {
        return println!("GUEST-FAIL bench no file system");
    };
    let buffer = pool(CHUNK);
    let name: [u16; 10] = [66, 69, 78, 67, 72, 46, 68, 65, 84, 0];
    let mut root: *mut FileProtocolV1 = null_mut();
    let mut file: *mut FileProtocolV1 = null_mut();
    // SAFETY: the firmware's protocols, valid arguments.
    unsafe {
        if ((*volume).open_volume)(volume, &mut root) != Status::SUCCESS
            || ((*root).open)(root, &mut file, name.as_ptr(), FileMode::READ, FileAttribute::empty()) != Status::SUCCESS
        {
            return println!("GUEST-FAIL bench no BENCH.DAT");
        }
        let start = tsc();
        let mut total = 0u64;
        loop {
            let mut size = CHUNK;
            if ((*file).read)(file, &mut size, buffer.cast()) != Status::SUCCESS {
                return println!("GUEST-FAIL bench reading BENCH.DAT");
            }
            if size == 0 {
                break;
            }
            total += size as u64;
        }
        println!("BENCH file_read {} ticks", tsc() - start);
        println!("BENCH file_size {total} bytes");
        let _ = ((*file).set_position)(file, 0);
        let start = tsc();
        for _ in 0..total / CHUNK as u64 {
            let mut size = CHUNK;
            let _ = ((*file).read)(file, &mut size, buffer.cast());
        }
        println!("BENCH file_read_again {} ticks", tsc() - start);
    }
}

/// The graphical console of a guest that has one: the whole screen filled, cleared, and scrolled by a line with every character
/// changing. The text goes to the display alone, not to the other consoles.
fn screen() {
    let (mut count, mut handles): (usize, *mut Handle) = (0, null_mut());
    let by_protocol = 2;
    // SAFETY: a boot service with valid arguments.
    let status = unsafe {
        let guid = &GraphicsOutputProtocol::GUID;
        (boot().locate_handle_buffer)(by_protocol, guid, null_mut(), &mut count, &mut handles)
    };
    if status != Status::SUCCESS || count == 0 {
        return;
    }
    // SAFETY: the firmware found as many handles.
    let handle = unsafe { *handles };
    let Some(graphics) = protocol::<GraphicsOutputProtocol>(handle, &GraphicsOutputProtocol::GUID) else { return };
    let Some(text) = protocol::<SimpleTextOutputProtocol>(handle, &SimpleTextOutputProtocol::GUID) else {
        return println!("GUEST-FAIL bench the display has no text");
    };
    // SAFETY: the firmware's protocols, valid arguments; strings end with a null.
    unsafe {
        let info = *(*(*graphics).mode).info;
        let (width, height) = (info.horizontal_resolution as usize, info.vertical_resolution as usize);
        println!("BENCH screen_width {width} pixels");
        println!("BENCH screen_height {height} pixels");
        let mut pixel = GraphicsOutputBltPixel::default();
        let fill = GraphicsOutputBltOperation::BLT_VIDEO_FILL;
        let result = best_and_median_of::<9, _>(|| {
            pixel.blue = pixel.blue.wrapping_add(40);
            ((*graphics).blt)(graphics, &mut pixel, fill, 0, 0, 0, 0, width, height, 0)
        });
        report("screen_fill", result);
        let last = (*(*text).mode).max_mode as usize - 1;
        let (mut columns, mut rows) = (0, 0);
        let _ = ((*text).query_mode)(text, last, &mut columns, &mut rows);
        let _ = ((*text).set_mode)(text, last);
        println!("BENCH screen_columns {columns} -");
        println!("BENCH screen_rows {rows} -");
        report("screen_clear", best_and_median_of::<9, _>(|| ((*text).clear_screen)(text)));
        // Each line begins with another letter, so that a scroll changes all of them.
        let mut line = [0u16; 512];
        let columns = columns.min(line.len() - 1);
        let mut next = 0u16;
        let mut write = || {
            for (column, unit) in line.iter_mut().take(columns).enumerate() {
                *unit = 0x21 + (next + column as u16) % 0x5E;
            }
            next += 1;
            ((*text).output_string)(text, line.as_ptr())
        };
        for _ in 0..rows {
            let _ = write();
        }
        report("screen_scroll", best_and_median_of::<9, _>(write));
        let _ = ((*text).reset)(text, Boolean::FALSE);
    }
}

/// Memory the operating system does not get, by type, and how much else is there.
fn inventory() {
    let buffer = pool(64 * 1024);
    let (mut size, mut key, mut descriptor_size, mut version) = (64 * 1024, 0, 0, 0);
    // SAFETY: a boot service with valid arguments.
    let status =
        unsafe { (boot().get_memory_map)(&mut size, buffer.cast(), &mut key, &mut descriptor_size, &mut version) };
    if status != Status::SUCCESS {
        return println!("GUEST-FAIL bench memory map: {status:?}");
    }
    let mut kept = 0;
    for index in 0..size / descriptor_size {
        // SAFETY: the firmware wrote this many descriptors.
        let descriptor = unsafe { &*buffer.add(index * descriptor_size).cast::<MemoryDescriptor>() };
        if matches!(descriptor.ty, MemoryType::RUNTIME_SERVICES_CODE | MemoryType::RUNTIME_SERVICES_DATA)
            || (matches!(
                descriptor.ty,
                MemoryType::ACPI_RECLAIM | MemoryType::ACPI_NON_VOLATILE | MemoryType::RESERVED
            ) && descriptor.phys_start < 0xF000_0000
                && descriptor.phys_start >= 0x10_0000)
        {
            kept += descriptor.page_count * 4096;
            println!("KEPT {:?} {:#x} {} pages", descriptor.ty, descriptor.phys_start, descriptor.page_count);
        }
    }
    println!("BENCH memory_kept {kept} bytes");
    println!("BENCH memory_map_entries {} -", size / descriptor_size);
    let (mut count, mut handles): (usize, *mut Handle) = (0, null_mut());
    // SAFETY: a boot service with valid arguments.
    let _ = unsafe { (boot().locate_handle_buffer)(0, core::ptr::null(), null_mut(), &mut count, &mut handles) };
    println!("BENCH handles {count} -");
    println!("BENCH protocols {} -", protocols(handles, count));
    println!("BENCH configuration_tables {} -", table().number_of_configuration_table_entries);
}

/// How many protocols all handles together have.
fn protocols(handles: *mut Handle, count: usize) -> usize {
    let mut all = 0;
    for index in 0..count {
        let (mut list, mut length): (*mut *const Guid, usize) = (null_mut(), 0);
        // SAFETY: a boot service with valid arguments; the buffer has `count` handles.
        let status = unsafe { (boot().protocols_per_handle)(*handles.add(index), &mut list, &mut length) };
        if status == Status::SUCCESS {
            all += length;
        }
    }
    all
}
