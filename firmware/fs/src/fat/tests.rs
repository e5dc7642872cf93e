//! Volumes made by mkfs.vfat, worked on here, checked by fsck.vfat and read by mtools; a model for random operations; and
//! hostile images.

use std::collections::BTreeMap;
use std::process::Command;

use services::block::Bytes;
use uefi_raw::time::Daylight;

use super::*;
use crate::test_disk::{MemoryDisk, TemporaryFile, run};

type TestVolume = Volume<Bytes<MemoryDisk>>;

/// Kinds of volume: width, KiB, sector size, block size of the device, sectors per cluster.
const KINDS: [(u32, u64, u32, usize, u32); 8] = [
    (12, 1440, 512, 512, 1),
    (12, 4096, 512, 4096, 4),
    (16, 16384, 512, 512, 4),
    (16, 65536, 512, 512, 16),
    (16, 65536, 4096, 4096, 1),
    (32, 36864, 512, 512, 1),
    (32, 81920, 512, 4096, 2),
    (32, 65536, 4096, 4096, 1),
];

fn clock() -> Time {
    Time {
        year: 2024,
        month: 5,
        day: 17,
        hour: 13,
        minute: 37,
        second: 42,
        pad1: 0,
        nanosecond: 0,
        time_zone: Time::UNSPECIFIED_TIMEZONE,
        daylight: Daylight::empty(),
        pad2: 0,
    }
}

fn make(kind: (u32, u64, u32, usize, u32)) -> TemporaryFile {
    let (width, kib, sector, _, per_cluster) = kind;
    let image = TemporaryFile::new(kib << 10);
    let (width, sector, per_cluster) = (width.to_string(), sector.to_string(), per_cluster.to_string());
    image.pipe("mkfs.vfat", &["-F", &width, "-S", &sector, "-s", &per_cluster, "-n", "MADE HERE"], b"");
    image
}

fn mount_bytes(bytes: Vec<u8>, block: usize) -> Result<TestVolume, MountError> {
    Volume::mount(Bytes::new(MemoryDisk::of(bytes, block)), "test", Box::new(clock))
}

fn mount(image: &TemporaryFile, block: usize) -> TestVolume {
    mount_bytes(image.read(), block).unwrap()
}

/// Unmounts and has the result checked.
fn check(mut volume: TestVolume) -> TemporaryFile {
    assert!(volume.opens.is_empty(), "files left open");
    assert_eq!(volume.nodes.len(), 1, "nodes left over");
    volume.flush_all().unwrap();
    let image = TemporaryFile::of(&volume.medium.disk.device().bytes);
    image.pipe("fsck.vfat", &["-n", "-v"], b"");
    image
}

/// Opens a path of names with slashes.
fn open(volume: &mut TestVolume, path: &str, mode: OpenMode) -> Result<FileId, FileError> {
    let mut at = volume.open_root()?;
    let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        let mode = if names.peek().is_some() { OpenMode::Read } else { mode };
        let next = volume.open(at, name, mode);
        volume.close(at)?;
        at = next?;
    }
    Ok(at)
}

fn write_file(volume: &mut TestVolume, path: &str, data: &[u8]) -> Result<(), FileError> {
    let file = open(volume, path, OpenMode::Create(Attributes::empty()))?;
    let result = volume.write(file, 0, data);
    volume.close(file).and(result)
}

fn make_directory(volume: &mut TestVolume, path: &str) {
    let directory = open(volume, path, OpenMode::Create(Attributes::DIRECTORY)).unwrap();
    volume.close(directory).unwrap();
}

fn read_file(volume: &mut TestVolume, path: &str) -> Result<Vec<u8>, FileError> {
    let file = open(volume, path, OpenMode::Read)?;
    let size = volume.info(file)?.size;
    let mut data = vec![0; size as usize + 1];
    let read = volume.read(file, 0, &mut data);
    volume.close(file)?;
    assert_eq!(read? as u64, size);
    data.truncate(size as usize);
    Ok(data)
}

fn names(volume: &mut TestVolume, path: &str) -> Result<Vec<String>, FileError> {
    let directory = open(volume, path, OpenMode::Read)?;
    let names =
        (0..).map_while(|index| volume.entry(directory, index).transpose()).map(|info| Ok(info?.name)).collect();
    volume.close(directory)?;
    names
}

fn data(length: usize, seed: u32) -> Vec<u8> {
    let mut random = Random(u64::from(seed) + 1);
    (0..length).map(|_| random.next() as u8).collect()
}

/// A small generator, so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[test]
fn what_mtools_wrote_is_read() {
    for kind in KINDS.into_iter().filter(|kind| kind.2 == 512) {
        let image = make(kind);
        let tools = |tool: &str, arguments: &[&str]| {
            let mut command = Command::new(tool);
            command.arg("-i").arg(image.path()).args(arguments);
            run(command, b"")
        };
        let big = data(300_001, 1);
        let file = TemporaryFile::of(&big);
        tools("mmd", &["::/EFI", "::/EFI/BOOT"]);
        tools("mcopy", &[file.path().to_str().unwrap(), "::/EFI/BOOT/BOOTX64.EFI"]);
        tools("mcopy", &[file.path().to_str().unwrap(), "::/a rather long name, with more than one entry.bin"]);
        let mut volume = mount(&image, kind.3);
        assert_eq!(read_file(&mut volume, "efi/boot/bootx64.efi").unwrap(), big);
        assert_eq!(read_file(&mut volume, "A rather LONG name, with more than one entry.bin").unwrap(), big);
        assert_eq!(read_file(&mut volume, "ARATHE~1.BIN").unwrap(), big);
        assert_eq!(names(&mut volume, "").unwrap(), ["EFI", "a rather long name, with more than one entry.bin"]);
        assert_eq!(volume.volume().unwrap().label, "MADE HERE");
        assert_eq!(volume.width() as u32, [12, 16, 32].iter().position(|&w| w == kind.0).unwrap() as u32);
        assert!(matches!(open(&mut volume, "EFI/none", OpenMode::Read), Err(FileError::NotFound)));
        assert!(volume.medium.disk.device().writes.is_empty(), "reading must not write");
    }
}

#[test]
fn what_is_written_is_read_by_mtools() {
    for kind in KINDS.into_iter().filter(|kind| kind.2 == 512) {
        let mut volume = mount(&make(kind), kind.3);
        make_directory(&mut volume, "Dir");
        make_directory(&mut volume, "Dir/A longer directory name");
        let contents = [("UPPER.TXT", 0), ("lower.txt", 1), ("Dir/A longer directory name/file.with.dots", 100_000)];
        for (path, length) in contents {
            write_file(&mut volume, path, &data(length, 7)).unwrap();
        }
        let image = check(volume);
        for (path, length) in contents {
            let mut command = Command::new("mcopy");
            let out = TemporaryFile::new(0);
            command.arg("-n").arg("-o").arg("-i").arg(image.path()).arg(format!("::/{path}")).arg(out.path());
            run(command, b"");
            assert_eq!(out.read(), data(length, 7), "{path}");
        }
        let mut command = Command::new("mdir");
        command.arg("-i").arg(image.path()).arg("::/");
        let listing = run(command, b"");
        assert!(listing.contains("2024-05-17  13:37"), "{listing}");
    }
}

#[test]
fn directories_grow_and_shrink() {
    for kind in KINDS {
        let mut volume = mount(&make(kind), kind.3);
        make_directory(&mut volume, "many");
        let count = 300;
        for index in 0..count {
            write_file(&mut volume, &format!("many/file number {index}.data"), &data(index, index as u32)).unwrap();
        }
        assert_eq!(names(&mut volume, "many").unwrap().len(), count);
        let image = check(volume);
        let mut volume = mount(&image, kind.3);
        for index in 0..count {
            let path = format!("many/FILE number {index}.data");
            assert_eq!(read_file(&mut volume, &path).unwrap(), data(index, index as u32));
            if index % 2 == 0 {
                let file = open(&mut volume, &path, OpenMode::ReadWrite).unwrap();
                volume.delete(file).unwrap();
            }
        }
        assert_eq!(names(&mut volume, "many").unwrap().len(), count / 2);
        let directory = open(&mut volume, "many", OpenMode::ReadWrite).unwrap();
        assert_eq!(volume.delete(directory), Err(FileError::AccessDenied));
        check(volume);
    }
}

#[test]
fn free_space_is_counted_right_before_and_after() {
    for kind in KINDS {
        let mut volume = mount(&make(kind), kind.3);
        let before = volume.volume().unwrap();
        write_file(&mut volume, "x", &data(70_000, 0)).unwrap();
        let cluster = u64::from(before.block_size);
        assert_eq!(volume.volume().unwrap().free, before.free - 70_000_u64.next_multiple_of(cluster));
        let mut volume = mount(&check(volume), kind.3);
        let file = open(&mut volume, "X", OpenMode::ReadWrite).unwrap();
        volume.delete(file).unwrap();
        assert_eq!(volume.volume().unwrap().free, before.free);
        let mut volume = mount(&check(volume), kind.3);
        assert_eq!(volume.volume().unwrap(), before);
    }
}

#[test]
fn a_full_volume_says_so_and_stays_whole() {
    let kind = KINDS[0];
    let mut volume = mount(&make(kind), kind.3);
    let free = volume.volume().unwrap().free;
    assert_eq!(write_file(&mut volume, "too big", &vec![1; free as usize + 1]), Err(FileError::Full));
    write_file(&mut volume, "fits", &vec![2; free as usize]).unwrap();
    assert_eq!(volume.volume().unwrap().free, 0);
    assert_eq!(write_file(&mut volume, "no", &[3]), Err(FileError::Full));
    let directory = open(&mut volume, "dir", OpenMode::Create(Attributes::DIRECTORY));
    assert_eq!(directory, Err(FileError::Full));
    assert_eq!(names(&mut volume, "").unwrap(), ["too big", "fits", "no"]);
    check(volume);
}

#[test]
fn a_full_root_directory_of_fat12_says_so() {
    let kind = KINDS[0];
    let mut volume = mount(&make(kind), kind.3);
    let mut made = 0;
    let error = loop {
        match write_file(&mut volume, &format!("F{made}"), b"") {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    // 224 slots of which the label takes one.
    assert_eq!((error, made), (FileError::Full, 223));
    check(volume);
}

#[test]
fn files_grow_with_zeros_and_are_cut() {
    for kind in KINDS {
        let mut volume = mount(&make(kind), kind.3);
        let file = open(&mut volume, "f", OpenMode::Create(Attributes::empty())).unwrap();
        volume.write(file, 10_000, b"end").unwrap();
        let mut expected = vec![0; 10_000];
        expected.extend(b"end");
        for size in [10_003, 5_000, 20_000, 0, 1] {
            let info = FileInfo { size, ..volume.info(file).unwrap() };
            volume.set_info(file, &info).unwrap();
            expected.resize(size as usize, 0);
            let mut read = vec![0xff; 30_000];
            assert_eq!(volume.read(file, 0, &mut read).unwrap() as u64, size);
            assert!(read[..size as usize] == expected);
            let info = volume.info(file).unwrap();
            assert_eq!(
                (info.size, info.allocated),
                (size, size.next_multiple_of(u64::from(volume.medium.layout.cluster)))
            );
        }
        volume.close(file).unwrap();
        check(volume);
    }
}

#[test]
fn two_opens_of_a_file_see_the_same() {
    let kind = KINDS[2];
    let mut volume = mount(&make(kind), kind.3);
    let a = open(&mut volume, "file", OpenMode::Create(Attributes::empty())).unwrap();
    let b = open(&mut volume, "FILE", OpenMode::Read).unwrap();
    volume.write(a, 0, b"hello").unwrap();
    let mut read = [0; 10];
    assert_eq!(volume.read(b, 0, &mut read), Ok(5));
    let root = volume.open_root().unwrap();
    assert_eq!(volume.entry(root, 0).unwrap().unwrap().size, 5);
    assert_eq!(volume.write(b, 0, b"x"), Err(FileError::AccessDenied));
    volume.delete(a).unwrap();
    assert_eq!(volume.read(b, 0, &mut read), Err(FileError::Device));
    assert_eq!(volume.read(a, 0, &mut read), Err(FileError::InvalidParameter));
    assert_eq!(volume.entry(root, 0), Ok(None));
    volume.close(b).unwrap();
    volume.close(root).unwrap();
    check(volume);
}

#[test]
fn renaming_keeps_contents_and_refuses_what_exists() {
    for kind in KINDS {
        let mut volume = mount(&make(kind), kind.3);
        make_directory(&mut volume, "one");
        make_directory(&mut volume, "one/two");
        make_directory(&mut volume, "other");
        write_file(&mut volume, "one/two/file", b"contents").unwrap();
        write_file(&mut volume, "other/taken", b"").unwrap();

        let two = open(&mut volume, "one/two", OpenMode::ReadWrite).unwrap();
        let other = open(&mut volume, "other", OpenMode::Read).unwrap();
        assert_eq!(volume.rename(two, other, "TAKEN"), Err(FileError::AccessDenied));
        assert_eq!(volume.rename(two, two, "x"), Err(FileError::AccessDenied));
        volume.rename(two, other, "moved directory").unwrap();
        let info = FileInfo { name: "Moved Directory".into(), ..volume.info(two).unwrap() };
        volume.set_info(two, &info).unwrap();
        let parent = volume.open_parent(two).unwrap();
        assert_eq!(volume.info(parent).unwrap().name, "other");
        for id in [two, other, parent] {
            volume.close(id).unwrap();
        }
        assert_eq!(names(&mut volume, "other").unwrap(), ["taken", "Moved Directory"]);
        let mut volume = mount(&check(volume), kind.3);
        assert_eq!(read_file(&mut volume, "other/moved directory/file").unwrap(), b"contents");
        assert_eq!(names(&mut volume, "one").unwrap(), [""; 0]);

        let info = |volume: &mut TestVolume, name: &str| {
            let file = open(volume, "other/taken", OpenMode::ReadWrite).unwrap();
            let info = FileInfo { name: name.into(), ..volume.info(file).unwrap() };
            let result = volume.set_info(file, &info);
            volume.close(file).unwrap();
            result
        };
        assert_eq!(info(&mut volume, "a/b"), Err(FileError::InvalidParameter));
        assert_eq!(info(&mut volume, "moved directory"), Err(FileError::AccessDenied));
        assert_eq!(info(&mut volume, "free"), Ok(()));
        check(volume);
    }
}

#[test]
fn attributes_and_times_are_kept() {
    let kind = KINDS[5];
    let mut volume = mount(&make(kind), kind.3);
    write_file(&mut volume, "file", b"1").unwrap();
    let file = open(&mut volume, "file", OpenMode::Read).unwrap();
    let info = volume.info(file).unwrap();
    assert_eq!(info.created, clock());
    assert!(info.attributes == Attributes::ARCHIVE);
    let time = Time { year: 1999, month: 12, second: 58, ..clock() };
    let changed = FileInfo {
        attributes: Attributes::READ_ONLY | Attributes::HIDDEN,
        modified: time,
        created: Time::invalid(),
        ..info.clone()
    };
    volume.set_info(file, &changed).unwrap();
    volume.close(file).unwrap();
    assert_eq!(open(&mut volume, "file", OpenMode::ReadWrite), Err(FileError::AccessDenied));
    let mut volume = mount(&check(volume), kind.3);
    let file = open(&mut volume, "file", OpenMode::Read).unwrap();
    assert_eq!(volume.info(file).unwrap(), FileInfo { created: info.created, ..changed.clone() });
    let directory = FileInfo { attributes: Attributes::DIRECTORY, ..changed };
    assert_eq!(volume.set_info(file, &directory), Err(FileError::AccessDenied));
    volume.close(file).unwrap();
}

#[test]
fn the_label_can_be_changed_and_removed() {
    for kind in KINDS {
        let mut volume = mount(&make(kind), kind.3);
        for label in ["NEW LABEL", "", "Again"] {
            volume.set_label(label).unwrap();
            volume = mount(&check(volume), kind.3);
            assert_eq!(volume.volume().unwrap().label, label.to_uppercase());
        }
        assert_eq!(volume.set_label("far too long a label"), Err(FileError::InvalidParameter));
        assert_eq!(volume.set_label("a*b"), Err(FileError::InvalidParameter));
    }
}

#[test]
fn a_write_protected_volume_is_read_only() {
    let kind = KINDS[2];
    let mut volume = mount(&make(kind), kind.3);
    write_file(&mut volume, "file", b"1").unwrap();
    let mut disk = MemoryDisk::of(check(volume).read(), 512);
    disk.read_only = true;
    let mut volume = Volume::mount(Bytes::new(disk), "test", Box::new(clock)).unwrap();
    assert_eq!(read_file(&mut volume, "file").unwrap(), b"1");
    assert_eq!(write_file(&mut volume, "file", b"2"), Err(FileError::WriteProtected));
    assert_eq!(write_file(&mut volume, "new", b"2"), Err(FileError::WriteProtected));
    assert_eq!(volume.set_label("X"), Err(FileError::WriteProtected));
    assert!(volume.volume().unwrap().read_only);
}

#[test]
fn a_large_file_is_read_in_few_transfers() {
    let kind = (32, 163_840, 512, 512, 8);
    let mut volume = mount(&make(kind), kind.3);
    let contents = data(64 << 20, 3);
    write_file(&mut volume, "big", &contents).unwrap();
    let mut volume = mount(&check(volume), kind.3);
    let file = open(&mut volume, "big", OpenMode::Read).unwrap();
    volume.medium.disk.device().reads.clear();
    let mut read = vec![0; 64 << 20];
    assert_eq!(volume.read(file, 0, &mut read), Ok(64 << 20));
    assert!(read == contents);
    let reads = volume.medium.disk.device().reads.clone();
    assert!(reads.iter().filter(|&&bytes| bytes > 64 << 10).count() == 1, "{reads:?}");
    assert!(reads.len() <= 4, "{reads:?}");
    volume.close(file).unwrap();
}

#[test]
fn looking_up_names_reads_nothing_twice() {
    let kind = KINDS[5];
    let mut volume = mount(&make(kind), kind.3);
    make_directory(&mut volume, "EFI");
    make_directory(&mut volume, "EFI/BOOT");
    write_file(&mut volume, "EFI/BOOT/BOOTX64.EFI", b"MZ").unwrap();
    let mut volume = mount(&check(volume), kind.3);
    read_file(&mut volume, "EFI/BOOT/BOOTX64.EFI").unwrap();
    volume.medium.disk.device().reads.clear();
    read_file(&mut volume, "EFI/BOOT/BOOTX64.EFI").unwrap();
    assert_eq!(volume.medium.disk.device().reads.len(), 1);
}

#[test]
fn the_volume_is_marked_as_in_use_only_while_it_is() {
    for kind in KINDS.into_iter().filter(|kind| kind.0 != 12) {
        let mut volume = mount(&make(kind), kind.3);
        let file = open(&mut volume, "file", OpenMode::Create(Attributes::empty())).unwrap();
        volume.write(file, 0, b"x").unwrap();
        let mut cut = mount_bytes(volume.medium.disk.device().bytes.clone(), kind.3).unwrap();
        assert!(!cut.was_clean);
        assert_eq!(names(&mut cut, "").unwrap(), ["file"]);
        volume.flush(file).unwrap();
        assert!(mount_bytes(volume.medium.disk.device().bytes.clone(), kind.3).unwrap().was_clean);
        volume.close(file).unwrap();
        check(volume);
    }
}

/// A tree in memory: paths in capitals to name and contents; directories have none.
type Model = BTreeMap<String, (String, Option<Vec<u8>>)>;

fn children(model: &Model, path: &str) -> Vec<String> {
    let parent = |key: &str| key.rsplit_once('/').map_or("", |(parent, _)| parent).to_string();
    let mut names: Vec<String> =
        model.iter().filter(|(key, _)| parent(key) == path).map(|(_, (name, _))| name.clone()).collect();
    names.sort();
    names
}

fn compare(volume: &mut TestVolume, model: &Model, path: &str) {
    let mut found = names(volume, path).unwrap();
    found.sort();
    assert_eq!(found, children(model, path), "in \"{path}\"");
    for name in found {
        let below = if path.is_empty() { name.to_uppercase() } else { format!("{path}/{}", name.to_uppercase()) };
        match &model[&below].1 {
            None => compare(volume, model, &below),
            Some(contents) => assert!(read_file(volume, &below).unwrap() == *contents, "{below}"),
        }
    }
}

#[test]
fn random_operations_do_what_the_model_does() {
    const NAMES: [&str; 11] = [
        "A",
        "b.txt",
        "LongerName.With.Dots",
        "UPPER.EXT",
        "mixed Case name",
        "ünïcode",
        "x+y",
        "longername.with.dashes",
        "thirteen-char",
        "very long name that takes several of the entries for long names",
        "~1",
    ];
    for (kind, seed) in KINDS.into_iter().zip(1..) {
        let mut random = Random(seed * 7919);
        let mut volume = mount(&make(kind), kind.3);
        let mut model = Model::new();
        for step in 0..400 {
            let directories: Vec<String> = [String::new()]
                .into_iter()
                .chain(model.iter().filter(|(_, (_, data))| data.is_none()).map(|(path, _)| path.clone()))
                .collect();
            let directory = directories[random.below(directories.len() as u64) as usize].clone();
            let name = NAMES[random.below(NAMES.len() as u64) as usize].to_string();
            let name = if random.below(3) == 0 { format!("{}{name}", random.below(20)) } else { name };
            let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            let key = path.to_uppercase();
            let exists = model.get(&key).map(|(_, data)| data.is_some());
            match random.below(10) {
                0 if directory.matches('/').count() < 3 => {
                    let made = open(&mut volume, &path, OpenMode::Create(Attributes::DIRECTORY));
                    if made != Err(FileError::Full) {
                        assert_eq!(made.is_ok(), exists != Some(true), "{path}");
                    }
                    if let Ok(id) = made {
                        volume.close(id).unwrap();
                        model.entry(key).or_insert((name, None));
                    }
                }
                0..=4 if exists != Some(false) => {
                    let (at, length) = (random.below(20_000), random.below(30_000) as usize + 1);
                    let contents = data(length, step);
                    let file = match open(&mut volume, &path, OpenMode::Create(Attributes::empty())) {
                        Err(FileError::Full) => continue,
                        file => file.unwrap(),
                    };
                    let (_, known) = model.entry(key).or_insert((name, Some(Vec::new())));
                    match volume.write(file, at, &contents) {
                        Ok(()) => {
                            let known = known.as_mut().unwrap();
                            let end = at as usize + length;
                            known.resize(known.len().max(end), 0);
                            known[at as usize..end].copy_from_slice(&contents);
                        }
                        Err(error) => assert_eq!(error, FileError::Full),
                    }
                    volume.close(file).unwrap();
                }
                5 if exists == Some(true) => {
                    let size = random.below(40_000);
                    let file = open(&mut volume, &path, OpenMode::ReadWrite).unwrap();
                    let info = FileInfo { size, ..volume.info(file).unwrap() };
                    match volume.set_info(file, &info) {
                        Ok(()) => model.get_mut(&key).unwrap().1.as_mut().unwrap().resize(size as usize, 0),
                        Err(error) => assert_eq!(error, FileError::Full),
                    }
                    volume.close(file).unwrap();
                }
                6 | 7 => {
                    // The name as chosen may be there under another directory; take what exists for certain.
                    let Some(victim) = model.keys().nth(random.below(model.len().max(1) as u64) as usize).cloned()
                    else {
                        continue;
                    };
                    let file = open(&mut volume, &victim, OpenMode::ReadWrite).unwrap();
                    let empty = children(&model, &victim).is_empty();
                    assert_eq!(volume.delete(file).is_ok(), empty, "{victim}");
                    if empty {
                        model.remove(&victim);
                    }
                }
                8 => {
                    let Some(from) = model.keys().nth(random.below(model.len().max(1) as u64) as usize).cloned() else {
                        continue;
                    };
                    let file = open(&mut volume, &from, OpenMode::ReadWrite).unwrap();
                    let to = open(&mut volume, &directory, OpenMode::Read).unwrap();
                    let into_itself = directory == from || directory.starts_with(&format!("{from}/"));
                    let allowed = !into_itself && (exists.is_none() || key == from);
                    let result = volume.rename(file, to, &name);
                    let allowed = allowed && result != Err(FileError::Full);
                    assert_eq!(result.is_ok(), allowed, "{from} to {path}: {result:?}");
                    volume.close(to).unwrap();
                    volume.close(file).unwrap();
                    if allowed {
                        let moved: Vec<String> = model
                            .keys()
                            .filter(|k| **k == from || k.starts_with(&format!("{from}/")))
                            .cloned()
                            .collect();
                        for old in moved {
                            let (old_name, contents) = model.remove(&old).unwrap();
                            let new_name = if old == from { name.clone() } else { old_name };
                            model.insert(format!("{key}{}", &old[from.len()..]), (new_name, contents));
                        }
                    }
                }
                _ => {
                    if let Some((_, Some(contents))) = model.get(&key) {
                        assert!(read_file(&mut volume, &path).unwrap() == *contents);
                    } else if exists.is_none() {
                        assert_eq!(open(&mut volume, &path, OpenMode::Read), Err(FileError::NotFound), "{path}");
                    }
                }
            }
        }
        compare(&mut volume, &model, "");
        let mut volume = mount(&check(volume), kind.3);
        compare(&mut volume, &model, "");
    }
}

/// Walks all there is; every cluster may belong to one file or directory only, except for a file with two names in the
/// middle of a move.
fn check_tree(volume: &mut TestVolume, path: &str, owners: &mut BTreeMap<u32, u32>) {
    for name in names(volume, path).unwrap() {
        let below = format!("{path}/{name}");
        let id = open(volume, &below, OpenMode::Read).unwrap();
        let node = volume.open_of(id).unwrap().node;
        let first = volume.node(node).unwrap().entry.cluster;
        let mut chain = Chain::new(first);
        let length = volume.medium.length(&mut chain).unwrap();
        for index in 0..length {
            let (cluster, _) = volume.medium.run(&mut chain, index, 1).unwrap().unwrap();
            assert_eq!(*owners.entry(cluster).or_insert(first), first, "{below} shares cluster {cluster}");
        }
        if volume.info(id).unwrap().attributes.contains(Attributes::DIRECTORY) {
            check_tree(volume, &below, owners);
        } else {
            read_file(volume, &below).unwrap();
        }
        volume.close(id).unwrap();
    }
}

#[test]
fn a_power_cut_leaves_every_file_whole() {
    for kind in [(12, 1440, 512, 512, 1), (16, 4096, 512, 512, 1), (32, 36864, 512, 512, 1)] {
        let start = busy_image(kind);
        let mut volume = mount_bytes(start.clone(), kind.3).unwrap();
        volume.medium.disk.device().journal = Some(Vec::new());
        make_directory(&mut volume, "dir/new");
        for index in 0..12 {
            write_file(&mut volume, &format!("dir/new/file number {index}"), &data(2_000, index)).unwrap();
        }
        write_file(&mut volume, "FILE", &data(20_000, 9)).unwrap();
        let file = open(&mut volume, "FILE", OpenMode::ReadWrite).unwrap();
        for size in [700, 6_000, 0] {
            let info = FileInfo { size, ..volume.info(file).unwrap() };
            volume.set_info(file, &info).unwrap();
        }
        let directory = open(&mut volume, "dir/new", OpenMode::Read).unwrap();
        volume.rename(file, directory, "moved").unwrap();
        volume.close(directory).unwrap();
        volume.delete(file).unwrap();
        let file = open(&mut volume, "dir/new/file number 3", OpenMode::ReadWrite).unwrap();
        volume.delete(file).unwrap();
        write_file(&mut volume, "takes its place", &data(3_000, 1)).unwrap();

        let journal = volume.medium.disk.device().journal.take().unwrap();
        assert!(journal.len() > 100);
        let mut bytes = start;
        for (at, written) in journal {
            bytes[at..at + written.len()].copy_from_slice(&written);
            // With 512-byte sectors a write of several may stop after any of them; the whole ones are what is tried.
            let mut cut = mount_bytes(bytes, kind.3).unwrap();
            check_tree(&mut cut, "", &mut BTreeMap::new());
            bytes = std::mem::take(&mut cut.medium.disk.device().bytes);
        }
    }
}

/// A small volume with something of everything.
fn busy_image(kind: (u32, u64, u32, usize, u32)) -> Vec<u8> {
    let mut volume = mount(&make(kind), kind.3);
    make_directory(&mut volume, "dir");
    make_directory(&mut volume, "dir/a subdirectory");
    write_file(&mut volume, "dir/a subdirectory/some long file name", &data(3_000, 1)).unwrap();
    write_file(&mut volume, "FILE", &data(9_000, 2)).unwrap();
    write_file(&mut volume, "other file", &data(1, 3)).unwrap();
    check(volume).read()
}

/// Walks, reads and changes whatever is there; results do not matter, only that it ends.
fn exercise(bytes: Vec<u8>, block: usize) {
    fn walk(volume: &mut TestVolume, directory: FileId, depth: usize) {
        for index in 0..64 {
            let Ok(Some(info)) = volume.entry(directory, index) else { break };
            let Ok(id) = volume.open(directory, &info.name, OpenMode::Read) else { continue };
            if !info.attributes.contains(Attributes::DIRECTORY) {
                let _ = volume.read(id, 0, &mut vec![0; 20_000]);
                let _ = volume.read(id, info.size.saturating_sub(10), &mut [0; 20]);
            } else if depth < 8 {
                walk(volume, id, depth + 1);
            }
            let _ = volume.close(id);
        }
    }
    let Ok(mut volume) = mount_bytes(bytes, block) else { return };
    let _ = volume.volume();
    let root = volume.open_root().unwrap();
    walk(&mut volume, root, 0);
    let _ = volume.close(root);
    let _ = write_file(&mut volume, "FILE", &data(12_000, 1));
    let _ = write_file(&mut volume, "dir/another new file", &data(5_000, 1));
    make_directory_quietly(&mut volume, "dir/new");
    for path in ["FILE", "dir/a subdirectory/some long file name", "dir/new"] {
        if let Ok(id) = open(&mut volume, path, OpenMode::ReadWrite) {
            let _ = volume.delete(id);
        }
    }
    let _ = volume.set_label("X");
    let _ = volume.unmount();
}

fn make_directory_quietly(volume: &mut TestVolume, path: &str) {
    if let Ok(id) = open(volume, path, OpenMode::Create(Attributes::DIRECTORY)) {
        let _ = volume.close(id);
    }
}

#[test]
fn flipped_bytes_neither_panic_nor_hang() {
    for kind in [(12, 1440, 512, 512, 1), (16, 2560, 512, 512, 1), (32, 1024, 512, 512, 1)] {
        let good = busy_image(kind);
        let mut random = Random(u64::from(kind.0));
        let interesting: Vec<usize> = good.iter().enumerate().filter(|(_, b)| **b != 0).map(|(at, _)| at).collect();
        // The boot sector at every byte, the rest by chance.
        for at in (0..90).chain([510, 511]) {
            for value in [0, 0xff, good[at] ^ 1, good[at].wrapping_add(0x80)] {
                let mut bytes = good.clone();
                bytes[at] = value;
                exercise(bytes, 512);
            }
        }
        for _ in 0..400 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(4) {
                let at = match random.below(4) {
                    0 => interesting[random.below(interesting.len() as u64) as usize],
                    1 => random.below(16 << 10) as usize,
                    _ => interesting[random.below(interesting.len().min(600) as u64) as usize],
                };
                bytes[at] = random.next() as u8;
            }
            exercise(bytes, 512);
        }
    }
}

/// Sets the FAT entry of a cluster of an image with 16-bit entries.
fn set_fat16(bytes: &mut [u8], cluster: u32, value: u16) {
    let volume = mount_bytes(bytes.to_vec(), 512).unwrap();
    let at = volume.medium.layout.fat_offset as usize + cluster as usize * 2;
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn damaged_chains_are_reported() {
    let kind = (16, 16384, 512, 512, 4);
    let good = busy_image(kind);
    let mut volume = mount_bytes(good.clone(), 512).unwrap();
    let file = open(&mut volume, "FILE", OpenMode::Read).unwrap();
    let node = volume.open_of(file).unwrap().node;
    let first = volume.node(node).unwrap().entry.cluster;
    for value in [0, 1, first as u16, 0xfff7, 0xfff0, 0xffff] {
        let mut bytes = good.clone();
        set_fat16(&mut bytes, first + 1, value);
        let mut volume = mount_bytes(bytes, 512).unwrap();
        let read = read_file(&mut volume, "FILE");
        // A loop within the size of the file cannot be told from a file; it only must end.
        assert!(value == first as u16 || read == Err(FileError::Corrupted), "{value:#x}: {read:?}");
        let file = open(&mut volume, "FILE", OpenMode::ReadWrite).unwrap();
        volume.delete(file).unwrap();
    }
}

#[test]
fn looping_directories_are_reported() {
    let kind = (16, 16384, 512, 512, 4);
    let good = busy_image(kind);
    let mut volume = mount_bytes(good.clone(), 512).unwrap();
    let directory = open(&mut volume, "dir", OpenMode::Read).unwrap();
    let node = volume.open_of(directory).unwrap().node;
    let cluster = volume.node(node).unwrap().entry.cluster;
    let slots = volume.with_listing(node, |_, listing| Ok(listing.items[0].slots.clone())).unwrap();
    let at = volume.medium.layout.cluster_offset(cluster) as usize + (slots.end as usize - 1) * SLOT;

    let mut bytes = good.clone();
    set_fat16(&mut bytes, cluster, cluster as u16);
    let mut volume = mount_bytes(bytes, 512).unwrap();
    assert_eq!(names(&mut volume, "dir"), Err(FileError::Corrupted));

    let mut bytes = good;
    bytes[at + 26..at + 28].copy_from_slice(&(cluster as u16).to_le_bytes());
    let mut volume = mount_bytes(bytes, 512).unwrap();
    assert_eq!(open(&mut volume, "dir/a subdirectory", OpenMode::Read), Err(FileError::Corrupted));
}

#[test]
fn a_truncated_device_is_reported_with_both_sizes() {
    let mut bytes = make(KINDS[2]).read();
    bytes.truncate(bytes.len() / 2);
    let Err(MountError::Damaged(reason)) = mount_bytes(bytes, 512) else { panic!() };
    assert!(reason.contains("32768 sectors") && reason.contains("only 16384"), "{reason}");
}

#[test]
fn other_contents_are_no_fat() {
    assert!(matches!(mount_bytes(vec![0; 1 << 20], 512), Err(MountError::NotFat("the first sector is blank"))));
    assert!(matches!(mount_bytes(vec![0xff; 1 << 20], 512), Err(MountError::NotFat(_))));
    assert!(matches!(mount_bytes(Vec::new(), 512), Err(MountError::NotFat(_))));
}

#[test]
fn small_fat32_volumes_are_taken_as_such() {
    let image = TemporaryFile::new(8 << 20);
    image.pipe("mkfs.vfat", &["-F", "32", "-s", "1"], b"");
    let mut volume = mount(&image, 512);
    assert_eq!(volume.width(), Width::Fat32);
    write_file(&mut volume, "x", b"y").unwrap();
    check(volume);
}
