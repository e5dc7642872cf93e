//! Measures the firmware from inside: start-up, disk, file system, allocation, memory kept from the operating system.
//!
//! Prints lines `BENCH name value unit`, then powers off. Needs a file `BENCH.DAT` of 64 MiB on the volume it was started from.
#![no_std]
#![no_main]

use core::ffi::c_void;
use core::ptr::null_mut;

use guest::{boot, image, println, table, tsc};
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::file_system::{FileAttribute, FileMode, FileProtocolV1, SimpleFileSystemProtocol};
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{AllocateType, MemoryDescriptor, MemoryType};
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Guid, Handle, Status};

const MIB: usize = 1 << 20;
/// What a file read asks for at a time.
const CHUNK: usize = 4 * MIB;

#[unsafe(export_name = "efi_main")]
extern "efiapi" fn main(handle: Handle, system_table: *mut SystemTable) -> Status {
    let started = tsc();
    guest::start(handle, system_table);
    println!("BENCH program_start {started} ticks");
    println!("BENCH tsc_frequency {} hz", frequency());
    allocations();
    disk();
    files();
    inventory();
    println!("BENCH end 0 -");
    guest::power_off()
}

/// Ticks in a second, by the firmware's Stall.
fn frequency() -> u64 {
    let start = tsc();
    // SAFETY: a boot service.
    let _ = unsafe { (boot().stall)(100_000) };
    (tsc() - start) * 10
}

/// Ticks of the fastest and the median of several runs of `f`.
fn best_and_median(mut f: impl FnMut()) -> (u64, u64) {
    let mut ticks = [0u64; 15];
    for slot in &mut ticks {
        let start = tsc();
        f();
        *slot = tsc() - start;
    }
    ticks.sort_unstable();
    (ticks[0], ticks[7])
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
    if status != Status::SUCCESS {
        println!("GUEST-FAIL bench reading 16 MiB: {status:?}");
    }
    let blocks = 4096 / u64::from(media.block_size);
    let mut lba = 0;
    let (best, median) = best_and_median(|| {
        let _ = read(lba, 4096);
        lba += blocks * 64;
    });
    println!("BENCH block_4kib {median} ticks");
    println!("BENCH block_4kib_best {best} ticks");
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
    println!("BENCH configuration_tables {} -", table().number_of_configuration_table_entries);
}
