use super::*;
use crate::store::{Meta, Store};
use crate::{Durable, Key};

/// The smallest volume: a block each for store, event log and journal.
const SIZE: usize = 6 * BLOCK_SIZE;
const VENDOR: Guid = guid!("11111111-2222-3333-4444-555555555555");
const META: Meta = Meta { attributes: 7, time_stamp: [0; 16] };

/// A file whose power is cut when a number of bytes is written; of the write in which that happens the first bytes are
/// there, or the last.
#[derive(Clone)]
struct File {
    bytes: Vec<u8>,
    budget: usize,
    from_behind: bool,
}

impl Medium for File {
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        let length = bytes.len().min(self.budget);
        let part = if self.from_behind { bytes.len() - length..bytes.len() } else { 0..length };
        self.bytes[offset + part.start..offset + part.end].copy_from_slice(&bytes[part]);
        self.budget -= length;
        if length == bytes.len() { Ok(()) } else { Err(BackendError) }
    }
}

type Volume = Store<Durable<Vec<u8>, File>>;

fn empty() -> Vec<u8> {
    let areas = Areas::of(SIZE).unwrap();
    let mut bytes = vec![ERASED; SIZE];
    volume::format(&mut bytes[..areas.store.end]).unwrap();
    bytes[areas.working.start..][..HEADER_SIZE].copy_from_slice(&header(areas.working.len()));
    bytes
}

fn open(bytes: Vec<u8>) -> (Volume, Recovery) {
    let file = File { bytes: bytes.clone(), budget: usize::MAX, from_behind: false };
    let (durable, recovery) = Durable::open(bytes, file).unwrap();
    let store = Store::open(durable, volume::STORE_OFFSET).map_err(|(_, error)| error).unwrap();
    assert_eq!(store.backend().medium().bytes, store.backend().volume(), "memory and medium agree after opening");
    (store, recovery)
}

fn name(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn write(store: &mut Volume, text: &str, data: &[u8]) -> Result<(), crate::store::StoreError> {
    store.write(Key::new(VENDOR, &name(text)), META, data)
}

fn value(store: &Volume, text: &str) -> Option<Vec<u8>> {
    store.find(Key::new(VENDOR, &name(text))).map(|record| store.data(&record).to_vec())
}

/// Writes until the next write has to reclaim.
fn nearly_full() -> Vec<u8> {
    with_value(1000)
}

/// Three writes of so many bytes.
fn with_value(size: usize) -> Vec<u8> {
    let (mut store, _) = open(empty());
    write(&mut store, "Kept", b"kept").unwrap();
    for round in 0..3 {
        write(&mut store, "Value", &vec![round; size]).unwrap();
    }
    store.backend().volume().to_vec()
}

#[test]
fn the_header_is_byte_for_byte_that_of_edk2() {
    let expected = [
        0x2b, 0x29, 0x58, 0x9e, 0x68, 0x7c, 0x7d, 0x49, 0xa0, 0xce, 0x65, 0x00, 0xfd, 0x9f, 0x1b, 0x95, 0x2c, 0xaf,
        0x2c, 0x64, 0xfe, 0xff, 0xff, 0xff, 0xe0, 0x0f, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(header(Areas::of(0x8_4000).unwrap().working.len()), expected);
}

#[test]
fn the_areas_of_a_4_mib_ovmf_are_where_edk2_has_them() {
    let areas = Areas::of(0x8_4000).unwrap();
    assert_eq!((areas.store, areas.working, areas.spare), (0..0x4_0000, 0x4_1000..0x4_2000, 0x4_2000..0x8_4000));
    let areas = Areas::of(0x2_0000).unwrap();
    assert_eq!((areas.store, areas.working, areas.spare), (0..0xe000, 0xf000..0x1_0000, 0x1_0000..0x2_0000));
    assert_eq!((Areas::of(0), Areas::of(SIZE - 1), Areas::of(SIZE - 2 * BLOCK_SIZE)), (None, None, None));
}

#[test]
fn a_completed_write_leaves_the_record_that_edk2_leaves() {
    let (mut store, recovery) = open(nearly_full());
    assert_eq!(recovery, Recovery::Clean);
    write(&mut store, "Value", &[9; 1000]).unwrap();
    let areas = Areas::of(SIZE).unwrap();
    let journal = &store.backend().volume()[areas.working.start + HEADER_SIZE..areas.working.end];
    let mut expected = vec![0xf8, 0xff, 0xff, 0xff];
    expected.extend(CALLER.to_bytes());
    expected.extend([ERASED; 4]);
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0xf9, ERASED, ERASED, ERASED, ERASED, ERASED, ERASED, ERASED, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend(0x48u64.to_le_bytes());
    expected.extend(0xfb8u64.to_le_bytes());
    expected.extend((-0x3000i64).to_le_bytes());
    assert_eq!(journal[..80], expected);
    assert!(journal[80..].iter().all(|&byte| byte == ERASED));
    assert!(store.backend().volume()[areas.spare].iter().all(|&byte| byte == ERASED));
}

/// A cut at every byte of a write, or from behind at some; returns how often the old value was found and how often the new.
fn cut_everywhere(before: &[u8], size: usize, from_behind: bool) -> (usize, usize) {
    let (mut old, mut new) = (0, 0);
    for budget in (0..).step_by(if from_behind { 7 } else { 1 }) {
        let (mut store, _) = open(before.to_vec());
        let medium = store.backend_mut().medium_mut();
        (medium.budget, medium.from_behind) = (budget, from_behind);
        let done = write(&mut store, "Value", &vec![9; size]).is_ok() && store.backend().medium().budget != 0;
        let (mut after, _) = open(store.backend().medium().bytes.clone());
        match value(&after, "Value").expect("one of the two")[..] {
            [2, ..] => old += 1,
            [9, ..] => new += 1,
            ref other => panic!("cut after {budget} bytes: {:?}", &other[..1]),
        }
        assert_eq!(value(&after, "Kept").unwrap(), b"kept");
        assert_eq!(after.report().damaged, 0);
        if budget % 11 != 0 && !done {
            continue;
        }
        // What the cut left disturbs nothing that comes after it.
        for round in [7, 8, 9] {
            write(&mut after, "Value", &vec![round; size]).unwrap();
        }
        let (again, recovery) = open(after.backend().medium().bytes.clone());
        assert_eq!((value(&again, "Value").unwrap(), recovery), (vec![9; size], Recovery::Clean));
        // The store that saw the failure goes on when its medium works again.
        store.backend_mut().medium_mut().budget = usize::MAX;
        write(&mut store, "Later", b"later").unwrap();
        let (again, _) = open(store.backend().medium().bytes.clone());
        assert_eq!(value(&again, "Later").unwrap(), b"later");
        assert_eq!(value(&again, "Value"), value(&store, "Value"));
        if done {
            break;
        }
    }
    (old, new)
}

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of cuts")]
fn a_cut_at_any_byte_of_a_write_that_reclaims_leaves_the_old_value_or_the_new() {
    for from_behind in [false, true] {
        // The store is made compact first, and the new value is appended then.
        let (old, new) = cut_everywhere(&nearly_full(), 1000, from_behind);
        let step = if from_behind { 7 } else { 1 };
        assert!(old > 3 * BLOCK_SIZE / step && new > 0, "{old} {new}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of cuts")]
fn a_cut_at_any_byte_of_a_write_without_room_beside_the_old_value_leaves_one_of_them() {
    for from_behind in [false, true] {
        // The new value comes with the whole store.
        let (old, new) = cut_everywhere(&with_value(2500), 2500, from_behind);
        let step = if from_behind { 7 } else { 1 };
        assert!(old > BLOCK_SIZE / step && new > BLOCK_SIZE / step, "{old} {new}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "thousands of cuts")]
fn a_medium_that_fails_twice_still_has_the_old_value_or_the_new() {
    let before = nearly_full();
    for first in (0..9000).step_by(149) {
        for second in (0..9000).step_by(823) {
            let (mut store, _) = open(before.clone());
            store.backend_mut().medium_mut().budget = first;
            let written = write(&mut store, "Value", &[9; 1000]).is_ok();
            store.backend_mut().medium_mut().budget = second;
            let again = write(&mut store, "Value", &[8; 1000]).is_ok();
            let (after, _) = open(store.backend().medium().bytes.clone());
            let kept = value(&after, "Value").expect("one of the three")[0];
            assert!([2, 9, 8].contains(&kept), "{first} {second}: {kept}");
            assert!(!again || kept == 8, "{first} {second}: {kept}");
            assert!(!written || kept != 2, "{first} {second}: {kept}");
            assert_eq!(value(&after, "Kept").unwrap(), b"kept");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_full_journal_is_made_anew() {
    let (mut store, _) = open(nearly_full());
    for round in 0..200 {
        write(&mut store, "Value", &[round; 1000]).unwrap();
    }
    let (after, recovery) = open(store.backend().medium().bytes.clone());
    assert_eq!((value(&after, "Value").unwrap(), recovery), (vec![199; 1000], Recovery::Clean));
}

/// A volume that EDK2 left in the middle of a write: `flags` of header and record, the new store in the spare area, and
/// what its erasing left of the old one.
fn left_by_edk2(header: u8, record: u8) -> Vec<u8> {
    let areas = Areas::of(SIZE).unwrap();
    let (mut store, _) = open(nearly_full());
    write(&mut store, "Value", &[9; 1000]).unwrap();
    let new = store.backend().volume()[areas.store.clone()].to_vec();
    let mut bytes = nearly_full();
    bytes[areas.spare.start..][..new.len()].copy_from_slice(&new);
    let at = areas.working.start + HEADER_SIZE;
    bytes[at..at + WRITE_SIZE].copy_from_slice(&new_write());
    bytes[at] = header;
    bytes[at + WRITE_SIZE..][..RECORD_SIZE].copy_from_slice(&new_record(&areas));
    bytes[at + WRITE_SIZE] = record;
    bytes
}

#[test]
fn a_write_that_edk2_began_is_completed_once_its_content_is_in_the_spare_area() {
    let mut bytes = left_by_edk2(0xfc, 0xfd);
    bytes[..BLOCK_SIZE].fill(ERASED);
    let (store, recovery) = open(bytes);
    assert_eq!((recovery, value(&store, "Value").unwrap()), (Recovery::Completed, vec![9; 1000]));
    let areas = Areas::of(SIZE).unwrap();
    assert!(store.backend().volume()[areas.spare].iter().all(|&byte| byte == ERASED));
    assert_eq!(open(store.backend().medium().bytes.clone()).1, Recovery::Clean);
}

#[test]
fn a_write_that_edk2_only_began_is_abandoned() {
    for (header, record) in [(0xfe, 0xff), (0xfc, 0xff)] {
        let (store, recovery) = open(left_by_edk2(header, record));
        assert_eq!((recovery, value(&store, "Value").unwrap()), (Recovery::Abandoned, vec![2; 1000]));
        assert_eq!(open(store.backend().medium().bytes.clone()).1, Recovery::Clean);
    }
}

#[test]
fn a_write_that_is_done_is_not_done_again() {
    for header in [0xfc, 0xf8] {
        let (store, recovery) = open(left_by_edk2(header, 0xf9));
        assert_eq!((recovery, value(&store, "Value").unwrap()), (Recovery::Clean, vec![2; 1000]));
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_record_for_another_place_is_not_obeyed() {
    let areas = Areas::of(SIZE).unwrap();
    let record = areas.working.start + HEADER_SIZE + WRITE_SIZE;
    for (offset, value) in [
        (8, 1u64),                   // another block than the relative offset says
        (24, 0x3000),                // into the journal
        (24, u64::MAX),              // overflow
        (32, u64::MAX - 0x2fff + 1), // another volume
    ] {
        let mut bytes = left_by_edk2(0xfc, 0xfd);
        bytes[record + offset..][..8].copy_from_slice(&value.to_le_bytes());
        let (store, recovery) = open(bytes);
        assert_eq!((recovery, super::tests::value(&store, "Value").unwrap()), (Recovery::Abandoned, vec![2; 1000]));
    }
}

#[test]
fn a_journal_that_edk2_was_rewriting_comes_from_the_spare_area() {
    let areas = Areas::of(SIZE).unwrap();
    let mut bytes = nearly_full();
    bytes.copy_within(areas.working.clone(), areas.spare.start);
    bytes[areas.working.clone()].fill(ERASED);
    let (store, recovery) = open(bytes);
    assert_eq!((recovery, value(&store, "Value").unwrap()), (Recovery::Restored, vec![2; 1000]));
}

#[test]
fn a_journal_in_the_data_of_a_variable_is_none() {
    let areas = Areas::of(SIZE).unwrap();
    let mut bytes = nearly_full();
    let journal = left_by_edk2(0xfc, 0xfd)[areas.working.clone()].to_vec();
    bytes[areas.working.clone()].fill(ERASED);
    bytes[2 * BLOCK_SIZE - BLOCK_SIZE..2 * BLOCK_SIZE].copy_from_slice(&journal);
    assert_eq!(open(bytes).1, Recovery::Reset);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn random_damage_never_panics_and_recovery_is_once() {
    let mut random = crate::random::Random::new(7);
    let clean = left_by_edk2(0xfc, 0xfd);
    let areas = Areas::of(SIZE).unwrap();
    for _ in 0..if cfg!(miri) { 2 } else { 5_000 } {
        let mut bytes = clean.clone();
        for _ in 0..=random.below(5) {
            let at = areas.working.start + random.below(HEADER_SIZE + WRITE_SIZE + RECORD_SIZE + 8);
            bytes[at] = random.next() as u8;
        }
        let expected = inspect(&bytes);
        let recovery = recover(&mut bytes, &mut crate::backend::NoMedium).unwrap();
        assert!(recovery == expected || [expected, recovery].contains(&Recovery::Clean), "{expected:?} {recovery:?}");
        assert_eq!(inspect(&bytes), Recovery::Clean);
    }
}

#[test]
fn a_volume_of_any_size_is_taken() {
    for size in (0..0x7000).step_by(if cfg!(miri) { 0x1801 } else { 0x201 }) {
        let _ = recover(&mut vec![ERASED; size], &mut crate::backend::NoMedium);
        let _ = replace(&mut vec![0; size], &mut crate::backend::NoMedium);
    }
}
