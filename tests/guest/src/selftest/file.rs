//! File systems (UEFI 2.10 §13.4, §13.5), in a directory of their own on the volume that this program comes from.

use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::{null, null_mut};

use uefi_raw::protocol::file_system::{
    FileAttribute, FileInfo, FileIoToken, FileMode, FileProtocolRevision, FileProtocolV1, FileProtocolV2,
    FileSystemInfo, FileSystemVolumeLabel, SimpleFileSystemProtocol,
};
use uefi_raw::table::boot::EventType;
use uefi_raw::{Guid, Status};

use crate::harness::{Outcome, Test};
use crate::support::{NOBODYS, own_image, plain_event, protocol_of, wide};

pub const TESTS: &[Test] = tests![
    the_volume_opens_at_its_root,
    a_directory_is_made_for_the_tests,
    a_file_keeps_what_is_written,
    a_large_file_is_written_and_read_in_pieces,
    reading_ends_at_the_end_of_the_file,
    reading_beyond_the_end_is_an_error,
    writing_beyond_the_end_fills_with_zeros,
    the_position_can_be_set_to_the_end,
    open_tells_what_is_wrong,
    a_file_opened_for_reading_is_not_written,
    creating_what_exists_opens_it,
    names_are_found_whatever_their_case_and_shown_as_made,
    paths_lead_through_directories,
    a_directory_lists_its_entries,
    a_directory_with_many_files_lists_all,
    a_directory_is_not_written,
    info_tells_how_much_room_it_needs,
    a_file_tells_size_and_time,
    a_file_is_renamed,
    a_file_is_moved,
    a_name_in_use_is_not_given_twice,
    a_size_is_set,
    a_read_only_file_is_not_opened_for_writing,
    a_full_directory_is_not_deleted,
    a_file_opened_for_reading_is_not_deleted,
    a_deleted_file_is_not_found,
    the_volume_tells_its_size,
    the_label_can_be_changed,
    deleting_gives_the_space_back,
    files_are_read_and_written_with_events,
    the_directory_of_the_tests_is_deleted,
];

const DIRECTORY: &str = "\\selftest.tmp";
const READ: FileMode = FileMode::READ;
const WRITE: FileMode = FileMode::READ.union(FileMode::WRITE);
const CREATE: FileMode = WRITE.union(FileMode::CREATE);
const NO_ATTRIBUTES: FileAttribute = FileAttribute::empty();

/// A file that is open, closed when it is dropped.
struct File(*mut FileProtocolV1);

impl Drop for File {
    fn drop(&mut self) {
        let _ = efi!(((*self.0).close)(self.0));
    }
}

/// A status as the reason of a failure.
fn reason(what: &str) -> impl Fn(Status) -> String {
    move |status| alloc::format!("{what}: {status:?}")
}

fn result(status: Status) -> Result<(), Status> {
    if status.is_success() { Ok(()) } else { Err(status) }
}

impl File {
    fn root() -> Result<Self, String> {
        let volume =
            protocol_of::<SimpleFileSystemProtocol>(own_image().device_handle, &SimpleFileSystemProtocol::GUID);
        let volume = volume.ok_or("no file system")?;
        let mut root = null_mut();
        result(call!(volume.open_volume(&mut root))).map_err(reason("OpenVolume"))?;
        Ok(Self(root))
    }

    fn try_open(&self, name: &str, mode: FileMode, attributes: FileAttribute) -> Result<Self, Status> {
        let (mut file, name) = (null_mut(), wide(name));
        result(efi!(((*self.0).open)(self.0, &mut file, name.as_ptr(), mode, attributes)))?;
        Ok(Self(file))
    }

    fn open(&self, name: &str, mode: FileMode) -> Result<Self, String> {
        self.try_open(name, mode, NO_ATTRIBUTES).map_err(reason(name))
    }

    /// The directory of the tests.
    fn directory() -> Result<Self, String> {
        Self::root()?.open(DIRECTORY, WRITE)
    }

    /// A new file with this content, open.
    fn with(name: &str, content: &[u8]) -> Result<Self, String> {
        let file = Self::directory()?.open(name, CREATE)?;
        file.write(content).map_err(reason("Write"))?;
        Ok(file)
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Status> {
        let mut size = bytes.len();
        result(efi!(((*self.0).write)(self.0, &mut size, bytes.as_ptr().cast())))?;
        if size == bytes.len() { Ok(()) } else { Err(Status::WARN_WRITE_FAILURE) }
    }

    fn read(&self, most: usize) -> Result<Vec<u8>, Status> {
        let mut bytes = alloc::vec![0u8; most.max(1)];
        let mut size = most;
        result(efi!(((*self.0).read)(self.0, &mut size, bytes.as_mut_ptr().cast())))?;
        bytes.truncate(size);
        Ok(bytes)
    }

    fn position(&self) -> Result<u64, Status> {
        let mut position = 0;
        result(efi!(((*self.0).get_position)(self.0, &mut position)))?;
        Ok(position)
    }

    fn seek(&self, position: u64) -> Result<(), Status> {
        result(efi!(((*self.0).set_position)(self.0, position)))
    }

    fn read_all(&self) -> Result<Vec<u8>, Status> {
        self.seek(0)?;
        let size = self.info()?.0.file_size as usize;
        self.read(size)
    }

    /// Any information as bytes.
    fn raw_info(&self, kind: &Guid) -> Result<Vec<u64>, Status> {
        let mut size = 0;
        let status = efi!(((*self.0).get_info)(self.0, kind, &mut size, null_mut()));
        if status != Status::BUFFER_TOO_SMALL {
            return Err(status);
        }
        let mut bytes = alloc::vec![0u64; size.div_ceil(8)];
        result(efi!(((*self.0).get_info)(self.0, kind, &mut size, bytes.as_mut_ptr().cast())))?;
        Ok(bytes)
    }

    /// File information and name.
    fn info(&self) -> Result<(FileInfo, String), Status> {
        let bytes = self.raw_info(&FileInfo::ID)?;
        Ok(parsed(&bytes))
    }

    /// Sets file information, changed by `change`, with this name.
    fn set_info(&self, name: Option<&str>, change: impl FnOnce(&mut FileInfo)) -> Result<(), Status> {
        let (mut info, old) = self.info()?;
        change(&mut info);
        let name = wide(name.unwrap_or(&old));
        let size = size_of::<FileInfo>() + name.len() * 2;
        info.size = size as u64;
        let mut bytes = alloc::vec![0u64; size.div_ceil(8)];
        efi! {
            bytes.as_mut_ptr().cast::<FileInfo>().write(info);
            bytes.as_mut_ptr().byte_add(size_of::<FileInfo>()).cast::<u16>().copy_from(name.as_ptr(), name.len());
        }
        result(efi!(((*self.0).set_info)(self.0, &FileInfo::ID, size, bytes.as_ptr().cast())))
    }

    fn delete(self) -> Status {
        let file = self.0;
        core::mem::forget(self);
        call!(file.delete())
    }

    /// The names in a directory, without those of itself and its parent, which some file systems list.
    fn names(&self) -> Result<Vec<String>, Status> {
        self.seek(0)?;
        let mut names = Vec::new();
        loop {
            let mut bytes = [0u64; 128];
            let mut size = size_of_val(&bytes);
            result(efi!(((*self.0).read)(self.0, &mut size, bytes.as_mut_ptr().cast())))?;
            if size == 0 {
                return Ok(names);
            }
            names.push(parsed(&bytes).1);
            names.retain(|name| name != "." && name != "..");
        }
    }
}

fn parsed(bytes: &[u64]) -> (FileInfo, String) {
    let info: *const FileInfo = bytes.as_ptr().cast();
    (efi!(info.read()), crate::support::narrow(efi!(info.add(1)).cast()))
}

/// A file's content, by its path from the root.
pub fn contents(path: &str) -> Result<Vec<u8>, String> {
    File::root()?.open(path, READ)?.read_all().map_err(reason(path))
}

fn the_volume_opens_at_its_root() -> Outcome {
    let root = File::root()?;
    let (info, name) = root.info().map_err(reason("GetInfo"))?;
    check!(info.attribute.contains(FileAttribute::DIRECTORY) && name.is_empty(), "{info:?} {name}");
    check!(root.names().map_err(reason("Read"))?.iter().any(|name| name.eq_ignore_ascii_case("EFI")));
    Ok(())
}

fn a_directory_is_made_for_the_tests() -> Outcome {
    let root = File::root()?;
    let directory = root.try_open(DIRECTORY, CREATE, FileAttribute::DIRECTORY).map_err(reason("Open"))?;
    check!(directory.info().map_err(reason("GetInfo"))?.0.attribute.contains(FileAttribute::DIRECTORY));
    same!(directory.names(), Ok(Vec::new()));
    Ok(())
}

fn a_file_keeps_what_is_written() -> Outcome {
    let file = File::with("kept", b"Hello, world")?;
    same!(file.position(), Ok(12));
    result(call_flush(&file)).map_err(reason("Flush"))?;
    drop(file);
    let file = File::directory()?.open("kept", WRITE)?;
    same!(file.read(100), Ok(b"Hello, world".to_vec()));
    file.seek(7).map_err(reason("SetPosition"))?;
    file.write(b"U").map_err(reason("Write"))?;
    same!(file.read_all(), Ok(b"Hello, Uorld".to_vec()));
    want!(SUCCESS, file.delete());
    Ok(())
}

fn call_flush(file: &File) -> Status {
    efi!(((*file.0).flush)(file.0))
}

fn a_large_file_is_written_and_read_in_pieces() -> Outcome {
    let content: Vec<u8> = (0..700_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let file = File::directory()?.open("large", CREATE)?;
    for piece in content.chunks(30_011) {
        file.write(piece).map_err(reason("Write"))?;
    }
    check!(file.read_all() == Ok(content.clone()));
    for (at, size) in [(0, 1), (511, 2), (4095, 70_000), (699_999, 1), (131_072, 131_072), (65_535, 3)] {
        file.seek(at as u64).map_err(reason("SetPosition"))?;
        check!(file.read(size).as_deref() == Ok(&content[at..at + size]), "{size} bytes at {at}");
    }
    want!(SUCCESS, file.delete());
    Ok(())
}

fn reading_ends_at_the_end_of_the_file() -> Outcome {
    let file = File::with("end", b"12345")?;
    file.seek(3).map_err(reason("SetPosition"))?;
    same!(file.read(100), Ok(b"45".to_vec()));
    same!((file.read(100), file.position()), (Ok(Vec::new()), Ok(5)));
    want!(SUCCESS, file.delete());
    Ok(())
}

fn reading_beyond_the_end_is_an_error() -> Outcome {
    let file = File::with("beyond", b"12345")?;
    file.seek(6).map_err(reason("SetPosition"))?;
    same!(file.read(1), Err(Status::DEVICE_ERROR));
    want!(SUCCESS, file.delete());
    Ok(())
}

fn writing_beyond_the_end_fills_with_zeros() -> Outcome {
    let file = File::with("hole", b"12345")?;
    file.seek(10_000).map_err(reason("SetPosition"))?;
    file.write(b"67").map_err(reason("Write"))?;
    let content = file.read_all().map_err(reason("Read"))?;
    same!((content.len(), &content[..5], &content[10_000..]), (10_002, &b"12345"[..], &b"67"[..]));
    check!(content[5..10_000].iter().all(|byte| *byte == 0));
    want!(SUCCESS, file.delete());
    Ok(())
}

fn the_position_can_be_set_to_the_end() -> Outcome {
    let file = File::with("seek", b"12345")?;
    file.seek(0).map_err(reason("SetPosition"))?;
    file.seek(u64::MAX).map_err(reason("SetPosition"))?;
    same!(file.position(), Ok(5));
    want!(SUCCESS, file.delete());
    Ok(())
}

fn open_tells_what_is_wrong() -> Outcome {
    let (root, mut file) = (File::root()?, null_mut());
    let name = wide("x");
    let try_mode = |mode| root.try_open("\\EFI", mode, NO_ATTRIBUTES).err();
    same!(root.try_open("\\no such file", READ, NO_ATTRIBUTES).err(), Some(Status::NOT_FOUND));
    same!(root.try_open("\\no such directory\\file", CREATE, NO_ATTRIBUTES).err(), Some(Status::NOT_FOUND));
    for mode in [FileMode::empty(), FileMode::WRITE, FileMode::CREATE, FileMode::READ | FileMode::CREATE] {
        same!((mode, try_mode(mode)), (mode, Some(Status::INVALID_PARAMETER)));
    }
    let bad = FileAttribute::from_bits_retain(0x40);
    same!(root.try_open("\\bad attributes", CREATE, bad).err(), Some(Status::INVALID_PARAMETER));
    want!(INVALID_PARAMETER, efi!(((*root.0).open)(root.0, null_mut(), name.as_ptr(), READ, NO_ATTRIBUTES)));
    want!(INVALID_PARAMETER, efi!(((*root.0).open)(root.0, &mut file, null(), READ, NO_ATTRIBUTES)));
    Ok(())
}

fn a_file_opened_for_reading_is_not_written() -> Outcome {
    drop(File::with("reading", b"12345")?);
    let directory = File::directory()?;
    let file = directory.open("reading", READ)?;
    same!(file.write(b"x"), Err(Status::ACCESS_DENIED));
    same!(call_flush(&file), Status::ACCESS_DENIED);
    same!(file.set_info(None, |info| info.file_size = 1), Err(Status::ACCESS_DENIED));
    same!(file.read_all(), Ok(b"12345".to_vec()));
    want!(SUCCESS, directory.open("reading", WRITE)?.delete());
    Ok(())
}

fn creating_what_exists_opens_it() -> Outcome {
    drop(File::with("exists", b"12345")?);
    let file = File::directory()?.open("exists", CREATE)?;
    same!(file.read_all(), Ok(b"12345".to_vec()));
    want!(SUCCESS, file.delete());
    Ok(())
}

fn names_are_found_whatever_their_case_and_shown_as_made() -> Outcome {
    let directory = File::directory()?;
    for name in [
        "A Long Name, with Spaces and Dots.in.it.Text",
        "short.txt",
        "MIXED.Case",
        "\u{e4}\u{f6}\u{fc}\u{20ac}.txt",
        "a+b=c[d].e",
    ] {
        drop(File::with(name, name.as_bytes())?);
        let other: String = name
            .chars()
            .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
            .collect();
        let file = directory.open(&other, WRITE)?;
        same!(file.read_all(), Ok(name.as_bytes().to_vec()));
        same!(file.info().map_err(reason("GetInfo"))?.1, name);
        check!(directory.names().map_err(reason("Read"))?.iter().any(|listed| listed == name), "{name} is not listed");
        want!(SUCCESS, file.delete());
    }
    let name = "n".repeat(255);
    want!(SUCCESS, File::with(&name, b"x")?.delete());
    let longer = directory.try_open(&"n".repeat(256), CREATE, NO_ATTRIBUTES);
    check!(longer.is_err(), "a name of 256 characters");
    Ok(())
}

fn paths_lead_through_directories() -> Outcome {
    let directory = File::directory()?;
    drop(directory.try_open("one", CREATE, FileAttribute::DIRECTORY).map_err(reason("one"))?);
    let two = directory.try_open("one\\two", CREATE, FileAttribute::DIRECTORY).map_err(reason("two"))?;
    two.open("file", CREATE)?.write(b"deep").map_err(reason("Write"))?;
    for path in ["\\selftest.tmp\\one\\two\\file", "file", ".\\file", "..\\two\\file", "..\\..\\one\\.\\two\\file"] {
        same!((path, two.open(path, READ)?.read_all()), (path, Ok(b"deep".to_vec())));
    }
    same!(two.try_open("file\\x", READ, NO_ATTRIBUTES).err().map(|status| status.is_error()), Some(true));
    want!(SUCCESS, two.open("file", WRITE)?.delete());
    want!(SUCCESS, two.delete());
    want!(SUCCESS, directory.open("one", WRITE)?.delete());
    Ok(())
}

fn a_directory_lists_its_entries() -> Outcome {
    let directory = File::directory()?;
    drop(File::with("first", b"1")?);
    drop(File::with("second with a longer name", b"2")?);
    let expected = ["first", "second with a longer name"].map(String::from).to_vec();
    same!(directory.names(), Ok(expected.clone()));
    same!(directory.names(), Ok(expected));
    directory.seek(0).map_err(reason("SetPosition"))?;
    let (mut size, mut bytes) = (10, [0u64; 2]);
    want!(BUFFER_TOO_SMALL, efi!(((*directory.0).read)(directory.0, &mut size, bytes.as_mut_ptr().cast())));
    check!(size >= size_of::<FileInfo>() + 4, "{size} bytes");
    same!(directory.seek(1), Err(Status::UNSUPPORTED));
    same!(directory.position(), Err(Status::UNSUPPORTED));
    want!(SUCCESS, directory.open("first", WRITE)?.delete());
    want!(SUCCESS, directory.open("second with a longer name", WRITE)?.delete());
    Ok(())
}

fn a_directory_with_many_files_lists_all() -> Outcome {
    const MANY: usize = 150;
    let directory = File::directory()?.try_open("many", CREATE, FileAttribute::DIRECTORY).map_err(reason("many"))?;
    let name = |index: usize| alloc::format!("file number {index} of many.text");
    for index in 0..MANY {
        directory.open(&name(index), CREATE)?;
    }
    let names = directory.names().map_err(reason("Read"))?;
    let missing = (0..MANY).find(|index| !names.contains(&name(*index)));
    same!((names.len(), missing), (MANY, None));
    for index in 0..MANY {
        want!(SUCCESS, directory.open(&name(index), WRITE)?.delete());
    }
    want!(SUCCESS, directory.delete());
    Ok(())
}

fn a_directory_is_not_written() -> Outcome {
    same!(File::directory()?.write(b"x"), Err(Status::UNSUPPORTED));
    Ok(())
}

fn info_tells_how_much_room_it_needs() -> Outcome {
    let file = File::with("info", b"")?;
    let mut size = 0;
    want!(BUFFER_TOO_SMALL, efi!(((*file.0).get_info)(file.0, &FileInfo::ID, &mut size, null_mut())));
    same!(size, size_of::<FileInfo>() + 5 * 2);
    want!(UNSUPPORTED, efi!(((*file.0).get_info)(file.0, &NOBODYS, &mut size, null_mut())));
    want!(SUCCESS, file.delete());
    Ok(())
}

fn a_file_tells_size_and_time() -> Outcome {
    let file = File::with("facts", &[7; 5000])?;
    let (info, name) = file.info().map_err(reason("GetInfo"))?;
    same!((info.file_size, name.as_str()), (5000, "facts"));
    check!(info.physical_size >= 5000 && info.physical_size % 512 == 0, "{} bytes allocated", info.physical_size);
    check!(info.modification_time.year >= 2024 && info.create_time.year >= 2024, "{:?}", info.modification_time);
    want!(SUCCESS, file.delete());
    Ok(())
}

fn a_file_is_renamed() -> Outcome {
    let directory = File::directory()?;
    let file = File::with("before", b"content")?;
    file.set_info(Some("after, with a long name"), |_| {}).map_err(reason("SetInfo"))?;
    drop(file);
    same!(directory.try_open("before", READ, NO_ATTRIBUTES).err(), Some(Status::NOT_FOUND));
    let file = directory.open("after, with a long name", WRITE)?;
    same!(file.read_all(), Ok(b"content".to_vec()));
    file.set_info(Some("After, With A Long Name"), |_| {}).map_err(reason("SetInfo, only the case"))?;
    same!(file.info().map_err(reason("GetInfo"))?.1, "After, With A Long Name");
    want!(SUCCESS, file.delete());
    Ok(())
}

fn a_file_is_moved() -> Outcome {
    let directory = File::directory()?;
    drop(directory.try_open("target", CREATE, FileAttribute::DIRECTORY).map_err(reason("target"))?);
    let file = File::with("moved", b"content")?;
    file.set_info(Some("\\selftest.tmp\\target\\arrived"), |_| {}).map_err(reason("SetInfo"))?;
    drop(file);
    let file = directory.open("target\\arrived", WRITE)?;
    same!(file.read_all(), Ok(b"content".to_vec()));
    want!(SUCCESS, file.delete());
    want!(SUCCESS, directory.open("target", WRITE)?.delete());
    Ok(())
}

fn a_name_in_use_is_not_given_twice() -> Outcome {
    let (first, second) = (File::with("first", b"1")?, File::with("second", b"2")?);
    same!(second.set_info(Some("FIRST"), |_| {}), Err(Status::ACCESS_DENIED));
    want!(SUCCESS, first.delete());
    want!(SUCCESS, second.delete());
    Ok(())
}

fn a_size_is_set() -> Outcome {
    let file = File::with("size", b"1234567890")?;
    file.set_info(None, |info| info.file_size = 4).map_err(reason("SetInfo, shorter"))?;
    same!(file.read_all(), Ok(b"1234".to_vec()));
    file.set_info(None, |info| info.file_size = 20_000).map_err(reason("SetInfo, longer"))?;
    let content = file.read_all().map_err(reason("Read"))?;
    same!((content.len(), &content[..4]), (20_000, &b"1234"[..]));
    want!(SUCCESS, file.delete());
    Ok(())
}

fn a_read_only_file_is_not_opened_for_writing() -> Outcome {
    let directory = File::directory()?;
    let file = File::with("locked", b"1")?;
    file.set_info(None, |info| info.attribute = FileAttribute::READ_ONLY).map_err(reason("SetInfo"))?;
    drop(file);
    let file = directory.open("locked", READ)?;
    check!(file.info().map_err(reason("GetInfo"))?.0.attribute.contains(FileAttribute::READ_ONLY));
    let status = directory.try_open("locked", WRITE, NO_ATTRIBUTES).err();
    check!(matches!(status, Some(Status::ACCESS_DENIED | Status::WRITE_PROTECTED)), "{status:?}");
    let kind = file.set_info(None, |info| info.attribute = FileAttribute::DIRECTORY);
    check!(kind.is_err(), "a file became a directory");
    file.set_info(None, |info| info.attribute = NO_ATTRIBUTES).map_err(reason("SetInfo, writable"))?;
    want!(SUCCESS, directory.open("locked", WRITE)?.delete());
    Ok(())
}

fn a_full_directory_is_not_deleted() -> Outcome {
    let directory = File::directory()?;
    let inner = directory.try_open("full", CREATE, FileAttribute::DIRECTORY).map_err(reason("full"))?;
    drop(inner.open("file", CREATE)?);
    want!(WARN_DELETE_FAILURE, inner.delete());
    want!(SUCCESS, directory.open("full\\file", WRITE)?.delete());
    want!(SUCCESS, directory.open("full", WRITE)?.delete());
    want!(WARN_DELETE_FAILURE, File::root()?.delete());
    Ok(())
}

fn a_file_opened_for_reading_is_not_deleted() -> Outcome {
    let directory = File::directory()?;
    drop(File::with("stays", b"1")?);
    want!(WARN_DELETE_FAILURE, directory.open("stays", READ)?.delete());
    want!(SUCCESS, directory.open("stays", WRITE)?.delete());
    Ok(())
}

fn a_deleted_file_is_not_found() -> Outcome {
    want!(SUCCESS, File::with("gone", b"1")?.delete());
    let directory = File::directory()?;
    same!(directory.try_open("gone", READ, NO_ATTRIBUTES).err(), Some(Status::NOT_FOUND));
    same!(directory.names(), Ok(Vec::new()));
    Ok(())
}

fn volume() -> Result<FileSystemInfo, String> {
    let bytes = File::root()?.raw_info(&FileSystemInfo::ID).map_err(reason("GetInfo"))?;
    Ok(efi!(bytes.as_ptr().cast::<FileSystemInfo>().read()))
}

fn the_volume_tells_its_size() -> Outcome {
    let info = volume()?;
    check!(info.volume_size > 1 << 20 && info.free_space < info.volume_size && info.read_only.is_false(), "{info:?}");
    check!(info.block_size.is_power_of_two() && info.block_size >= 512, "{info:?}");
    Ok(())
}

fn label() -> Result<String, String> {
    let label = File::root()?.raw_info(&FileSystemVolumeLabel::ID).map_err(reason("GetInfo"))?;
    Ok(crate::support::narrow(label.as_ptr().cast()))
}

fn set_label(label: &str) -> Result<(), String> {
    let (root, label) = (File::root()?, wide(label));
    let (kind, size) = (&FileSystemVolumeLabel::ID, label.len() * 2);
    result(efi!(((*root.0).set_info)(root.0, kind, size, label.as_ptr().cast()))).map_err(reason("SetInfo"))
}

fn the_label_can_be_changed() -> Outcome {
    let before = label()?;
    set_label("SELFTEST")?;
    let inside = label()?;
    let info = File::root()?.raw_info(&FileSystemInfo::ID).map_err(reason("GetInfo"))?;
    set_label(&before)?;
    same!((inside.as_str(), label()?), ("SELFTEST", before));
    let at = core::mem::offset_of!(FileSystemInfo, volume_label);
    same!(crate::support::narrow(efi!(info.as_ptr().byte_add(at)).cast()), "SELFTEST");
    Ok(())
}

fn deleting_gives_the_space_back() -> Outcome {
    let before = volume()?.free_space;
    let file = File::with("space", &alloc::vec![1u8; 300_000])?;
    let inside = volume()?.free_space;
    want!(SUCCESS, file.delete());
    let after = volume()?.free_space;
    check!(before - inside >= 300_000, "{before}, {inside}");
    same!(after, before);
    Ok(())
}

fn files_are_read_and_written_with_events() -> Outcome {
    let directory = File::directory()?;
    check!(efi!((*directory.0).revision) >= FileProtocolRevision::REVISION_2);
    let base: *mut FileProtocolV2 = directory.0.cast();
    let token = |bytes: &mut Vec<u8>| FileIoToken {
        event: plain_event(EventType::empty()),
        status: Status::NOT_READY,
        buffer_size: bytes.len(),
        buffer: bytes.as_mut_ptr().cast(),
    };
    let finished = |token: &FileIoToken| {
        let mut index = 0;
        let waited = bs!(wait_for_event(1, &token.event, &mut index));
        let _ = bs!(close_event(token.event));
        (waited, efi!((&raw const token.status).read_volatile()))
    };
    let done = (Status::SUCCESS, Status::SUCCESS);
    let (mut nothing, mut content) = (Vec::new(), (0..9000u32).map(|index| index as u8).collect::<Vec<u8>>());
    let (name, mut file) = (wide("events"), null_mut());

    let mut opening = token(&mut nothing);
    want!(SUCCESS, call!(base.open_ex(&mut file, name.as_ptr(), CREATE, NO_ATTRIBUTES, &mut opening)));
    same!(finished(&opening), done);
    let mut writing = token(&mut content);
    want!(SUCCESS, call!(file.write_ex(&mut writing)));
    same!(finished(&writing), done);
    let mut flushing = token(&mut nothing);
    want!(SUCCESS, call!(file.flush_ex(&mut flushing)));
    same!(finished(&flushing), done);
    let file = File(file.cast());
    file.seek(0).map_err(reason("SetPosition"))?;
    let mut back = alloc::vec![0u8; 10_000];
    let mut reading = token(&mut back);
    let extended: *mut FileProtocolV2 = file.0.cast();
    want!(SUCCESS, call!(extended.read_ex(&mut reading)));
    same!(finished(&reading), done);
    same!(reading.buffer_size, 9000);
    check!(back[..9000] == content[..]);
    let mut waiting = FileIoToken { event: null_mut(), ..token(&mut back) };
    file.seek(0).map_err(reason("SetPosition"))?;
    want!(SUCCESS, call!(extended.read_ex(&mut waiting)));
    same!(waiting.buffer_size, 9000);
    want!(INVALID_PARAMETER, call!(extended.read_ex(null_mut())));
    want!(SUCCESS, file.delete());
    Ok(())
}

fn the_directory_of_the_tests_is_deleted() -> Outcome {
    want!(SUCCESS, File::directory()?.delete());
    same!(File::root()?.try_open(DIRECTORY, READ, NO_ATTRIBUTES).err(), Some(Status::NOT_FOUND));
    Ok(())
}
