//! Disks on the one core, used as a loader would: through the protocols of their handles.

use core::ffi::c_void;
use core::ptr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use services::Status;
use services::block::{BlockDevice, BlockError, Geometry};
use services::device_path::{DevicePathBuf, Node};
use services::image::LoadError;
use uefi_raw::guid;
use uefi_raw::protocol::block::{BlockIo2Protocol, BlockIo2Token, BlockIoProtocol};
use uefi_raw::protocol::disk::{DiskIo2Protocol, DiskIo2Token, DiskIoProtocol};
use uefi_raw::protocol::file_system as raw;
use uefi_raw::protocol::file_system::{
    FileAttribute, FileIoToken, FileMode, FileProtocolV1, FileProtocolV2, SimpleFileSystemProtocol,
};
use uefi_raw::table::boot::{EventType, Tpl};
use uefi_raw::time::Daylight;

use super::*;
use crate::test_disk::{MemoryDisk, TemporaryFile, run, small_iso};

/// Type of an EFI system partition.
const ESP: Guid = guid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// Where the file system partition starts, in bytes.
const PARTITION: usize = 2048 * 512;

fn clock() -> Time {
    Time {
        year: 2025,
        month: 1,
        day: 2,
        time_zone: Time::UNSPECIFIED_TIMEZONE,
        daylight: Daylight::empty(),
        ..Time::invalid()
    }
}

/// The drivers; a test has the core for itself as long as it holds them.
struct Drivers(Diagnosis);

// SAFETY: used under the mutex only.
unsafe impl Send for Drivers {}

fn drivers() -> MutexGuard<'static, Drivers> {
    static DRIVERS: OnceLock<Mutex<Drivers>> = OnceLock::new();
    let mutex = DRIVERS.get_or_init(|| Mutex::new(Drivers(install(clock).unwrap())));
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A disk with one GPT partition, in it a FAT file system with a few files.
fn image() -> Vec<u8> {
    let disk = TemporaryFile::new(24 << 20);
    disk.pipe("sfdisk", &["--quiet"], b"label: gpt\nstart=2048,size=32768,type=U\n");
    let volume = TemporaryFile::new(16 << 20);
    volume.pipe("mkfs.vfat", &["-F", "16", "-n", "ESP"], b"");
    let mtools = |tool: &str, arguments: &[&str]| {
        let mut command = Command::new(tool);
        command.arg("-i").arg(volume.path()).args(arguments);
        run(command, b"");
    };
    let file = TemporaryFile::of(&contents());
    mtools("mmd", &["::/EFI", "::/EFI/BOOT"]);
    mtools("mcopy", &[file.path().to_str().unwrap(), "::/EFI/BOOT/BOOTX64.EFI"]);
    let mut bytes = disk.read();
    bytes[PARTITION..PARTITION + (16 << 20)].copy_from_slice(&volume.read());
    bytes
}

fn contents() -> Vec<u8> {
    (0..100_000_u32).flat_map(|i| (i * 7).to_le_bytes()).take(123_457).collect()
}

/// Adds a disk to the core, with a path of its own, and connects it.
fn add(device: impl BlockDevice + 'static) -> Handle {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = DevicePathBuf::new().with(&Node::Controller { number }).unwrap();
    let disk = api::install_block_device(&path, Box::new(device)).unwrap();
    let _ = api::connect(disk, true);
    disk
}

/// Takes a disk away again.
fn remove(disk: Handle) {
    api::disconnect(disk).unwrap();
    api::uninstall_block_device(disk).unwrap();
}

/// The handles below a disk that have a protocol.
fn below(disk: Handle, protocol: &Guid) -> Vec<Handle> {
    let path = api::device_path(disk).unwrap();
    let is_below = |handle: &Handle| api::device_path(*handle).is_ok_and(|other| other.starts_with(&path));
    api::handles_with(protocol).into_iter().filter(is_below).collect()
}

fn interface<T>(handle: Handle, protocol: &Guid) -> *mut T {
    api::protocol(handle, protocol).unwrap().cast()
}

fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// EFI_FILE_PROTOCOL as a caller uses it.
#[derive(Clone, Copy, PartialEq, Debug)]
struct File(*mut FileProtocolV1);

/// The calls of this test hand over valid pointers, which is all that the functions ask for.
macro_rules! call {
    ($this:expr, $function:ident $(, $argument:expr)*) => {
        // SAFETY: `this` is an interface that is installed or a file that is open; see above for the arguments.
        unsafe { ((*$this).$function)($this $(, $argument)*) }
    };
}

const READ: FileMode = FileMode::READ;

impl File {
    fn root(handle: Handle) -> Self {
        let system: *mut SimpleFileSystemProtocol = interface(handle, &SimpleFileSystemProtocol::GUID);
        let mut root = ptr::null_mut();
        assert_eq!(call!(system, open_volume, &mut root), Status::SUCCESS);
        Self(root)
    }

    fn open_with(self, path: &str, mode: FileMode, attributes: FileAttribute) -> core::result::Result<Self, Status> {
        let mut file = ptr::null_mut();
        let status = call!(self.0, open, &mut file, utf16(path).as_ptr(), mode, attributes);
        if status == Status::SUCCESS { Ok(Self(file)) } else { Err(status) }
    }

    fn open(self, path: &str) -> core::result::Result<Self, Status> {
        self.open_with(path, READ, FileAttribute::empty())
    }

    fn create(self, path: &str) -> Self {
        self.open_with(path, READ | FileMode::WRITE | FileMode::CREATE, FileAttribute::empty()).unwrap()
    }

    fn close(self) {
        assert_eq!(call!(self.0, close), Status::SUCCESS);
    }

    fn read(self, length: usize) -> core::result::Result<Vec<u8>, (Status, usize)> {
        let mut buffer = vec![0_u8; length];
        let mut size = length;
        let status = call!(self.0, read, &mut size, buffer.as_mut_ptr().cast());
        if status != Status::SUCCESS {
            return Err((status, size));
        }
        buffer.truncate(size);
        Ok(buffer)
    }

    fn write(self, data: &[u8]) -> Status {
        let mut size = data.len();
        call!(self.0, write, &mut size, data.as_ptr().cast())
    }

    fn seek(self, position: u64) -> Status {
        call!(self.0, set_position, position)
    }

    fn position(self) -> core::result::Result<u64, Status> {
        let mut position = 0;
        let status = call!(self.0, get_position, &mut position);
        if status == Status::SUCCESS { Ok(position) } else { Err(status) }
    }

    fn info(self, kind: &Guid) -> Vec<u8> {
        let mut size = 0;
        assert_eq!(call!(self.0, get_info, kind, &mut size, ptr::null_mut()), Status::BUFFER_TOO_SMALL);
        let mut info = vec![0_u8; size];
        assert_eq!(call!(self.0, get_info, kind, &mut size, info.as_mut_ptr().cast()), Status::SUCCESS);
        assert_eq!(size, info.len());
        info
    }

    fn set_info(self, kind: &Guid, info: &[u8]) -> Status {
        call!(self.0, set_info, kind, info.len(), info.as_ptr().cast())
    }

    /// Changes the name in the file's information.
    fn rename(self, name: &str) -> Status {
        let mut info = self.info(&raw::FileInfo::ID);
        info.truncate(80);
        info.extend(utf16(name).iter().flat_map(|unit| unit.to_le_bytes()));
        let size = info.len() as u64;
        info[..8].copy_from_slice(&size.to_le_bytes());
        self.set_info(&raw::FileInfo::ID, &info)
    }
}

/// Number at an offset of an information structure.
fn number(info: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(info[at..at + 8].try_into().unwrap())
}

fn text_at(info: &[u8], at: usize) -> String {
    let units: Vec<u16> = info[at..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    assert_eq!(units.last(), Some(&0));
    String::from_utf16(&units[..units.len() - 1]).unwrap()
}

#[test]
fn a_gpt_disk_becomes_partitions_and_a_file_system() {
    let drivers = drivers();
    let disk = add(MemoryDisk::of(image(), 512));
    let [partition] = below(disk, &SimpleFileSystemProtocol::GUID)[..] else { panic!() };
    assert_eq!(below(disk, &ESP), [partition]);
    assert_eq!(below(disk, &BlockIoProtocol::GUID), [disk, partition]);
    let path = api::device_path(partition).unwrap();
    let Node::HardDrive { partition: 1, start: 2048, size: 32768, .. } = path.last().unwrap().decode() else {
        panic!("{path}")
    };
    let info: *const api::PartitionInfoProtocol = interface(partition, &api::PartitionInfoProtocol::GUID);
    // SAFETY: installed under this GUID.
    let info = unsafe { &*info };
    assert_eq!(({ info.revision }, { info.partition_type }, info.system), (0x1000, 2, 1));
    assert_eq!(info.info[..16], ESP.to_bytes());
    let block_io: *const BlockIoProtocol = interface(partition, &BlockIoProtocol::GUID);
    // SAFETY: installed under this GUID.
    let media = unsafe { &*(*block_io).media };
    assert_eq!((media.last_block, media.logical_partition.is_true()), (32767, true));
    assert_eq!(drivers.0.reason(disk), None);
    assert_eq!(drivers.0.reason(partition), None);

    assert_eq!(api::connect(disk, true), Err(Status::NOT_FOUND), "connecting again changes nothing");
    assert_eq!(below(disk, &BlockIoProtocol::GUID).len(), 2);
    api::disconnect(disk).unwrap();
    assert_eq!(below(disk, &BlockIoProtocol::GUID), [disk]);
    assert_eq!(below(disk, &DiskIoProtocol::GUID), []);
    api::connect(disk, true).unwrap();
    assert_eq!(below(disk, &SimpleFileSystemProtocol::GUID).len(), 1);
    remove(disk);
    assert_eq!(api::device_path(disk).err(), Some(Status::INVALID_PARAMETER));
}

#[test]
fn block_io_keeps_its_rules() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of((0..64 * 512).map(|i| (i / 512) as u8).collect(), 512));
    let this: *mut BlockIoProtocol = interface(disk, &BlockIoProtocol::GUID);
    let mut buffer = vec![0_u8; 1024];
    let into: *mut c_void = buffer.as_mut_ptr().cast();
    for (media, lba, size, into, expected) in [
        (0, 3, 1024, into, Status::SUCCESS),
        (1, 3, 1024, into, Status::MEDIA_CHANGED),
        (0, 3, 1024, ptr::null_mut(), Status::INVALID_PARAMETER),
        (0, 3, 0, into, Status::SUCCESS),
        (0, 3, 100, into, Status::BAD_BUFFER_SIZE),
        (0, 63, 1024, into, Status::INVALID_PARAMETER),
        (0, 64, 512, into, Status::INVALID_PARAMETER),
        (0, u64::MAX, 1024, into, Status::INVALID_PARAMETER),
    ] {
        assert_eq!(call!(this, read_blocks, media, lba, size, into), expected, "{media} {lba} {size}");
        assert_eq!(call!(this, write_blocks, media, lba, size, into), expected, "{media} {lba} {size}");
    }
    assert_eq!((buffer[0], buffer[1023]), (3, 4));
    assert_eq!(call!(this, flush_blocks), Status::SUCCESS);
    assert_eq!(call!(this, reset, true.into()), Status::SUCCESS);
    let this: *mut BlockIo2Protocol = interface(disk, &BlockIo2Protocol::GUID);
    let event = api::create_event(EventType::empty(), Tpl::CALLBACK, None).unwrap();
    let mut token = BlockIo2Token { event, transaction_status: Status::ABORTED };
    assert_eq!(call!(this, read_blocks_ex, 0, 9, &mut token, 1024, into), Status::SUCCESS);
    assert_eq!((token.transaction_status, buffer[0]), (Status::SUCCESS, 9));
    assert_eq!(api::check_event(event), Ok(()));
    assert_eq!(call!(this, read_blocks_ex, 1, 9, &mut token, 1024, into), Status::MEDIA_CHANGED);
    assert_eq!(api::check_event(event), Err(Status::NOT_READY));
    assert_eq!(call!(this, flush_blocks_ex, &mut token), Status::SUCCESS);
    assert_eq!(api::check_event(event), Ok(()));
    api::close_event(event).unwrap();
    remove(disk);
}

#[test]
fn disk_io_reads_and_writes_any_bytes() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of((0..64 * 512).map(|i| (i / 512) as u8).collect(), 512));
    let this: *mut DiskIoProtocol = interface(disk, &DiskIoProtocol::GUID);
    let mut buffer = [0_u8; 600];
    let into: *mut c_void = buffer.as_mut_ptr().cast();
    assert_eq!(call!(this, read_disk, 0, 511, 514, into), Status::SUCCESS);
    assert_eq!((buffer[0], buffer[1], buffer[512], buffer[513]), (0, 1, 1, 2));
    assert_eq!(call!(this, read_disk, 1, 0, 1, into), Status::MEDIA_CHANGED);
    assert_eq!(call!(this, read_disk, 0, 64 * 512, 1, into), Status::INVALID_PARAMETER);
    assert_eq!(call!(this, write_disk, 0, 100, 3, into), Status::SUCCESS);
    let this: *mut DiskIo2Protocol = interface(disk, &DiskIo2Protocol::GUID);
    let mut token = DiskIo2Token { event: ptr::null_mut(), transaction_status: Status::ABORTED };
    assert_eq!(call!(this, read_disk_ex, 0, 100, &mut token, 4, into), Status::SUCCESS);
    assert_eq!(buffer[..4], [0, 1, 1, 0]);
    assert_eq!(call!(this, flush_disk_ex, &mut token), Status::SUCCESS);
    assert_eq!(call!(this, cancel), Status::SUCCESS);
    remove(disk);
}

#[test]
fn files_are_found_by_any_path() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of(image(), 512));
    let root = File::root(below(disk, &SimpleFileSystemProtocol::GUID)[0]);
    let efi = root.open("efi").unwrap();
    for (from, path) in [
        (root, "EFI\\BOOT\\BOOTX64.EFI"),
        (root, "\\efi\\boot\\bootx64.efi"),
        (efi, "\\efi\\\\boot\\.\\bootx64.efi"),
        (efi, "boot\\..\\..\\EFI\\Boot\\BootX64.efi"),
        (efi, ".\\boot\\bootx64.efi"),
    ] {
        let file = from.open(path).unwrap();
        assert_eq!(text_at(&file.info(&raw::FileInfo::ID), 80), "BOOTX64.EFI", "{path}");
        assert!(file.read(200_000).unwrap() == contents());
        file.close();
    }
    for (from, path, expected) in [
        (root, "none", Status::NOT_FOUND),
        (root, "..", Status::NOT_FOUND),
        (efi, "..\\..", Status::NOT_FOUND),
        (root, "EFI\\BOOT\\BOOTX64.EFI\\x", Status::NOT_FOUND),
        (root, "EFI\\none\\x", Status::NOT_FOUND),
    ] {
        assert_eq!(from.open(path), Err(expected), "{path}");
    }
    for (from, path, expected) in
        [(root, "", ""), (root, "\\", ""), (efi, "", "EFI"), (efi, "..", ""), (efi, ".", "EFI")]
    {
        let file = from.open(path).unwrap();
        assert_eq!(text_at(&file.info(&raw::FileInfo::ID), 80), expected, "{path}");
        file.close();
    }
    for mode in [FileMode::empty(), FileMode::WRITE, FileMode::READ | FileMode::CREATE, FileMode::from_bits_retain(9)] {
        assert_eq!(root.open_with("x", mode, FileAttribute::empty()), Err(Status::INVALID_PARAMETER));
    }
    efi.close();
    root.close();
    remove(disk);
}

#[test]
fn files_are_read_and_written_at_their_position() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of(image(), 512));
    let root = File::root(below(disk, &SimpleFileSystemProtocol::GUID)[0]);
    let file = root.create("new file.txt");
    assert_eq!(file.write(b"hello world"), Status::SUCCESS);
    assert_eq!(file.position(), Ok(11));
    assert_eq!(file.read(10), Ok(vec![]));
    assert_eq!(file.seek(6), Status::SUCCESS);
    assert_eq!(file.read(100), Ok(b"world".to_vec()));
    assert_eq!(file.seek(u64::MAX), Status::SUCCESS);
    assert_eq!(file.write(b"!"), Status::SUCCESS);
    assert_eq!(file.position(), Ok(12));
    assert_eq!(file.seek(100), Status::SUCCESS);
    assert_eq!(file.read(1), Err((Status::DEVICE_ERROR, 1)));
    assert_eq!(call!(file.0, flush), Status::SUCCESS);
    assert_eq!(number(&file.info(&raw::FileInfo::ID), 8), 12);
    file.close();

    let file = root.open("NEW FILE.TXT").unwrap();
    assert_eq!(file.write(b"x"), Status::ACCESS_DENIED);
    assert_eq!(call!(file.0, flush), Status::ACCESS_DENIED);
    assert_eq!(call!(file.0, delete), Status::WARN_DELETE_FAILURE);
    let file = root.open_with("new file.txt", READ | FileMode::WRITE, FileAttribute::empty()).unwrap();
    assert_eq!(call!(file.0, delete), Status::SUCCESS);
    assert_eq!(root.open("new file.txt"), Err(Status::NOT_FOUND));
    root.close();
    remove(disk);
}

#[test]
fn directories_are_listed_entry_by_entry() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of(image(), 512));
    let root = File::root(below(disk, &SimpleFileSystemProtocol::GUID)[0]);
    root.create("another").close();
    let names = || {
        let mut names = Vec::new();
        loop {
            let (status, size) = root.read(10).err().unwrap_or((Status::SUCCESS, 0));
            if status == Status::SUCCESS {
                assert_eq!(root.read(10), Ok(vec![]));
                break names;
            }
            assert_eq!(status, Status::BUFFER_TOO_SMALL);
            let info = root.read(size).unwrap();
            assert_eq!(number(&info, 0), size as u64);
            names.push(text_at(&info, 80));
        }
    };
    assert_eq!(names(), ["EFI", "another"]);
    assert_eq!(root.seek(0), Status::SUCCESS);
    assert_eq!(names(), ["EFI", "another"]);
    assert_eq!(root.seek(1), Status::UNSUPPORTED);
    assert_eq!(root.position(), Err(Status::UNSUPPORTED));
    assert_eq!(root.write(b"x"), Status::UNSUPPORTED);
    root.close();
    remove(disk);
}

#[test]
fn information_is_set() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of(image(), 512));
    let root = File::root(below(disk, &SimpleFileSystemProtocol::GUID)[0]);
    let file = root.create("a.txt");
    assert_eq!(file.write(b"hello"), Status::SUCCESS);
    assert_eq!(file.rename("\\EFI\\b.txt"), Status::SUCCESS);
    assert_eq!(file.rename("c.txt"), Status::SUCCESS);
    assert_eq!(root.open("a.txt"), Err(Status::NOT_FOUND));
    root.open("EFI\\C.TXT").unwrap().close();
    assert_eq!(file.rename("BOOT"), Status::ACCESS_DENIED);
    assert_eq!(file.rename("no\\where"), Status::NOT_FOUND);
    assert_eq!(file.rename("..\\d.txt"), Status::SUCCESS);
    root.open("d.txt").unwrap().close();

    let mut info = file.info(&raw::FileInfo::ID);
    info[8..16].copy_from_slice(&3_u64.to_le_bytes());
    info[72] = 0x02;
    assert_eq!(file.set_info(&raw::FileInfo::ID, &info), Status::SUCCESS);
    let info = file.info(&raw::FileInfo::ID);
    assert_eq!((number(&info, 8), number(&info, 72)), (3, 2));
    assert_eq!(u16::from_le_bytes([info[24], info[25]]), 2025);
    let changed = |at: usize, value: u8| {
        let mut info = info.clone();
        info[at] = value;
        file.set_info(&raw::FileInfo::ID, &info)
    };
    assert_eq!(changed(72, 0x10), Status::ACCESS_DENIED);
    assert_eq!(changed(72, 0x40), Status::INVALID_PARAMETER);
    assert_eq!(changed(7, 0x40), Status::BAD_BUFFER_SIZE);
    assert_eq!(file.set_info(&raw::FileInfo::ID, &info[..80]), Status::BAD_BUFFER_SIZE);
    assert_eq!(file.set_info(&ESP, &info), Status::UNSUPPORTED);
    file.close();

    let info = root.info(&raw::FileSystemInfo::ID);
    assert_eq!((number(&info, 0) as usize, info[8], text_at(&info, 36).as_str()), (info.len(), 0, "ESP"));
    let label: Vec<u8> = utf16("Other").iter().flat_map(|unit| unit.to_le_bytes()).collect();
    assert_eq!(root.set_info(&raw::FileSystemVolumeLabel::ID, &label), Status::SUCCESS);
    assert_eq!(text_at(&root.info(&raw::FileSystemVolumeLabel::ID), 0), "OTHER");
    assert_eq!(root.set_info(&raw::FileSystemInfo::ID, &info), Status::SUCCESS);
    assert_eq!(text_at(&root.info(&raw::FileSystemVolumeLabel::ID), 0), "ESP");
    root.close();
    remove(disk);
}

#[test]
fn asynchronous_file_functions_signal_their_event() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of(image(), 512));
    let root = File::root(below(disk, &SimpleFileSystemProtocol::GUID)[0]);
    let this: *mut FileProtocolV2 = root.0.cast();
    let event = api::create_event(EventType::empty(), Tpl::CALLBACK, None).unwrap();
    let mut token = FileIoToken { event, status: Status::ABORTED, buffer_size: 0, buffer: ptr::null_mut() };
    let mut file: *mut FileProtocolV2 = ptr::null_mut();
    let path = utf16("EFI\\BOOT\\BOOTX64.EFI");
    let opened = call!(this, open_ex, &mut file, path.as_ptr(), READ, FileAttribute::empty(), &mut token);
    assert_eq!((opened, token.status), (Status::SUCCESS, Status::SUCCESS));
    assert_eq!(api::check_event(event), Ok(()));
    let mut buffer = vec![0_u8; 1000];
    (token.buffer_size, token.buffer) = (1000, buffer.as_mut_ptr().cast());
    assert_eq!(call!(file, read_ex, &mut token), Status::SUCCESS);
    assert_eq!((token.status, token.buffer_size), (Status::SUCCESS, 1000));
    assert_eq!(api::check_event(event), Ok(()));
    assert!(buffer == contents()[..1000]);
    assert_eq!(call!(file, write_ex, &mut token), Status::SUCCESS);
    assert_eq!(token.status, Status::ACCESS_DENIED);
    token.event = ptr::null_mut();
    assert_eq!(call!(file, flush_ex, &mut token), Status::ACCESS_DENIED);
    File(file.cast()).close();
    api::close_event(event).unwrap();
    root.close();
    remove(disk);
}

#[test]
fn open_files_outlive_their_volume() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of(image(), 512));
    let root = File::root(below(disk, &SimpleFileSystemProtocol::GUID)[0]);
    let file = root.open("EFI\\BOOT\\BOOTX64.EFI").unwrap();
    remove(disk);
    assert_eq!(file.read(10), Err((Status::MEDIA_CHANGED, 10)));
    assert_eq!(root.open("EFI"), Err(Status::MEDIA_CHANGED));
    assert_eq!(call!(file.0, delete), Status::WARN_DELETE_FAILURE);
    root.close();
}

#[test]
fn what_is_wrong_with_a_disk_is_noted() {
    let drivers = drivers();
    let blank = add(MemoryDisk::new(2048, 512));
    let reason = drivers.0.reason(blank).unwrap();
    assert!(reason.contains("no partition table: the first sector is blank"), "{reason}");
    remove(blank);

    let mut bytes = image();
    bytes[512 + 20] ^= 1;
    let disk = add(MemoryDisk::of(bytes, 512));
    assert_eq!(below(disk, &SimpleFileSystemProtocol::GUID).len(), 1);
    let reason = drivers.0.reason(disk).unwrap();
    assert!(reason.contains("primary GPT: bad header CRC") && reason.contains("the backup"), "{reason}");
    remove(disk);

    let mut bytes = image();
    // Twice as many sectors as the partition has.
    bytes[PARTITION + 19..PARTITION + 21].copy_from_slice(&0_u16.to_le_bytes());
    bytes[PARTITION + 32..PARTITION + 36].copy_from_slice(&65536_u32.to_le_bytes());
    let disk = add(MemoryDisk::of(bytes, 512));
    assert_eq!(below(disk, &SimpleFileSystemProtocol::GUID), []);
    let [_, partition] = below(disk, &BlockIoProtocol::GUID)[..] else { panic!() };
    let reason = drivers.0.reason(partition).unwrap();
    assert!(reason.contains("65536 sectors") && reason.contains("only 32768"), "{reason}");
    remove(disk);
}

#[test]
fn a_disk_that_fails_is_reported() {
    struct Broken;
    impl BlockDevice for Broken {
        fn geometry(&self) -> Geometry {
            MemoryDisk::new(64, 512).geometry()
        }
        fn read(&mut self, _: u64, _: &mut [u8]) -> core::result::Result<(), BlockError> {
            Err(BlockError::Device)
        }
        fn write(&mut self, _: u64, _: &[u8]) -> core::result::Result<(), BlockError> {
            Err(BlockError::Device)
        }
        fn flush(&mut self) -> core::result::Result<(), BlockError> {
            Err(BlockError::Device)
        }
    }
    let drivers = drivers();
    let disk = add(Broken);
    let reason = drivers.0.reason(disk).unwrap();
    assert!(reason.contains("the partition table cannot be read: device error"), "{reason}");
    remove(disk);
}

#[test]
fn a_file_system_on_a_whole_disk_is_found() {
    let drivers = drivers();
    let bytes = image()[PARTITION..PARTITION + (16 << 20)].to_vec();
    let disk = add(MemoryDisk::of(bytes, 512));
    assert_eq!(below(disk, &SimpleFileSystemProtocol::GUID), [disk]);
    assert_eq!(drivers.0.reason(disk), None);
    remove(disk);
}

/// A FAT12 volume of 64 KiB, made here so that this test needs no tools and runs under Miri.
fn small_volume() -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    bytes[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    for (at, value) in [(11, 512_u16), (14, 1), (17, 16), (19, 128), (22, 1)] {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    (bytes[13], bytes[16], bytes[21]) = (1, 2, 0xf8);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    for fat in [512, 1024] {
        bytes[fat..fat + 3].copy_from_slice(&[0xf8, 0xff, 0xff]);
    }
    bytes
}

#[test]
fn the_boot_image_of_a_cd_is_a_volume_whatever_the_block_size() {
    let _drivers = drivers();
    for block in [2048, 512] {
        let iso = small_iso(&small_volume());
        let disk = add(MemoryDisk { read_only: true, removable: true, ..MemoryDisk::of(iso, block) });
        let [volume] = below(disk, &SimpleFileSystemProtocol::GUID)[..] else { panic!() };
        let path = api::device_path(volume).unwrap();
        let per_sector = 2048 / block;
        let text = format!("CDROM(0x1,{:#x},{:#x})", 24 * per_sector, 40 * per_sector);
        assert!(path.to_string().ends_with(&text), "{path}");
        // The volume takes 512 bytes for a sector, the block device under it what the CD has.
        let block_io: *mut BlockIoProtocol = interface(volume, &BlockIoProtocol::GUID);
        // SAFETY: an interface that is installed.
        let media = unsafe { &*(*block_io).media };
        assert_eq!(media.block_size as usize, block);
        assert!(media.logical_partition.is_true() && media.read_only.is_true() && media.removable_media.is_true());
        let root = File::root(volume);
        assert_eq!(
            root.open_with("x", READ | FileMode::WRITE | FileMode::CREATE, FileAttribute::empty()),
            Err(Status::WRITE_PROTECTED)
        );
        root.close();
        remove(disk);
    }
}

#[test]
fn a_volume_on_blocks_larger_than_its_sectors_serves_files() {
    let _drivers = drivers();
    let disk = add(MemoryDisk { removable: true, ..MemoryDisk::of(small_iso(&small_volume()), 2048) });
    let [volume] = below(disk, &SimpleFileSystemProtocol::GUID)[..] else { panic!() };
    let root = File::root(volume);
    let file = root.create("a.txt");
    assert_eq!(file.write(&[7; 3000]), Status::SUCCESS);
    file.close();
    let file = root.open("a.txt").unwrap();
    assert_eq!(file.read(5000), Ok(vec![7; 3000]));
    file.close();
    root.close();
    remove(disk);
}

#[test]
fn a_small_volume_serves_files_from_end_to_end() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of(small_volume(), 512));
    let root = File::root(disk);
    let file = root.create("a longer name.txt");
    assert_eq!(file.write(&[7; 3000]), Status::SUCCESS);
    assert_eq!(file.rename("b.txt"), Status::SUCCESS);
    file.close();
    let file = root.open("B.TXT").unwrap();
    assert_eq!(file.read(5000), Ok(vec![7; 3000]));
    assert_eq!(text_at(&file.info(&raw::FileInfo::ID), 80), "b.txt");
    let block_io: *mut BlockIoProtocol = interface(disk, &BlockIoProtocol::GUID);
    let mut buffer = [0_u8; 1024];
    assert_eq!(call!(block_io, read_blocks, 0, 0, 1024, buffer.as_mut_ptr().cast()), Status::SUCCESS);
    assert_eq!(buffer[..3], [0xeb, 0x3c, 0x90]);
    remove(disk);
    assert_eq!(file.read(1), Err((Status::MEDIA_CHANGED, 1)));
    file.close();
    root.close();
}

#[test]
fn our_own_code_lists_and_reads_files_of_a_volume() {
    let _drivers = drivers();
    let disk = add(MemoryDisk::of(image(), 512));
    let volume = below(disk, &SimpleFileSystemProtocol::GUID)[0];
    let names = |path: &str| {
        let entries = api::list_directory(volume, path).unwrap().into_iter();
        entries.map(|entry| (entry.name, entry.size, entry.is_directory)).collect::<Vec<_>>()
    };
    assert_eq!(names(""), [("EFI".to_string(), 0, true)]);
    assert_eq!(names("\\EFI\\BOOT"), [("BOOTX64.EFI".to_string(), 123_457, false)]);
    assert_eq!(api::read_file(volume, "\\EFI\\BOOT\\BOOTX64.EFI"), Ok(contents()));
    assert_eq!(api::read_file(volume, "\\EFI\\BOOT"), Err(LoadError::Directory));
    assert_eq!(api::read_file(volume, "\\missing"), Err(LoadError::NotFound));
    assert!(api::file_exists(volume, "\\efi\\boot\\bootx64.efi") && !api::file_exists(volume, "\\EFI\\x"));
    remove(disk);
    assert_eq!(api::list_directory(volume, ""), Err(LoadError::NotFound));
}
