use super::*;
use uefi_raw::guid;

const VENDOR: Guid = guid!("11111111-2222-3333-4444-555555555555");
const OTHER: Guid = guid!("99999999-2222-3333-4444-555555555555");
const META: Meta = Meta { attributes: 7, time_stamp: [0; 16] };
/// Header, the name "A" with NUL, and 12 bytes of data.
const RECORD_OF_12: usize = 60 + 4 + 12;

/// A medium behind the store that fails once a number of bytes is written: a cut at any byte.
#[derive(Clone)]
struct Medium {
    memory: Vec<u8>,
    durable: Vec<u8>,
    budget: usize,
}

impl Medium {
    fn new(size: usize) -> Self {
        Self { memory: vec![0; size], durable: vec![0; size], budget: usize::MAX }
    }
}

impl Backend for Medium {
    fn bytes(&self) -> &[u8] {
        &self.memory
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    fn persist(&mut self, range: Range<usize>) -> Result<(), BackendError> {
        for offset in range {
            self.budget = self.budget.checked_sub(1).ok_or(BackendError)?;
            self.durable[offset] = self.memory[offset];
        }
        Ok(())
    }

    fn persist_all(&mut self) -> Result<(), BackendError> {
        self.budget = self.budget.checked_sub(1).ok_or(BackendError)?;
        self.durable.copy_from_slice(&self.memory);
        Ok(())
    }
}

impl Backend for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

fn store(size: usize) -> Store<Medium> {
    Store::format(Medium::new(size), 0).unwrap()
}

fn name(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn value(store: &Store<impl Backend>, text: &str) -> Option<Vec<u8>> {
    let record = store.find(Key::new(VENDOR, &name(text)))?;
    Some(store.data(&record).to_vec())
}

fn write(store: &mut Store<impl Backend>, text: &str, data: &[u8]) -> Result<(), StoreError> {
    store.write(Key::new(VENDOR, &name(text)), META, data)
}

fn reopen(bytes: Vec<u8>) -> Store<Vec<u8>> {
    Store::open(bytes, 0).map_err(|(_, error)| error).unwrap()
}

#[test]
fn a_written_record_is_byte_for_byte_that_of_edk2() {
    let mut store = Store::format(vec![0; 256], 0).unwrap();
    store.write(Key::new(VENDOR, &name("AB")), META, &[1, 2, 3]).unwrap();
    let record = &store.backend()[28..28 + 72];
    let mut expected = vec![0xaa, 0x55, 0x3f, 0, 7, 0, 0, 0];
    expected.extend([0; 8 + 16 + 4]);
    expected.extend([6, 0, 0, 0, 3, 0, 0, 0]);
    expected.extend(VENDOR.to_bytes());
    expected.extend([0x41, 0, 0x42, 0, 0, 0, 1, 2, 3, 0xff, 0xff, 0xff]);
    assert_eq!(record, expected);
}

#[test]
fn replaced_and_deleted_records_have_the_states_of_edk2() {
    let mut store = Store::format(vec![0; 512], 0).unwrap();
    write(&mut store, "A", &[1; 12]).unwrap();
    write(&mut store, "A", &[2; 12]).unwrap();
    assert_eq!(store.backend()[28 + 2], 0x3c);
    assert_eq!(store.backend()[28 + RECORD_OF_12 + 2], 0x3f);
    store.delete(Key::new(VENDOR, &name("A"))).unwrap();
    assert_eq!(store.backend()[28 + RECORD_OF_12 + 2], 0x3d);
    assert_eq!(value(&store, "A"), None);
}

#[test]
fn vendors_are_separate() {
    let mut store = store(512);
    write(&mut store, "A", &[1]).unwrap();
    assert!(store.find(Key::new(OTHER, &name("A"))).is_none());
}

#[test]
fn appending_adds_to_the_data() {
    let mut store = store(512);
    let name = name("A");
    let key = Key::new(VENDOR, &name);
    store.append(key, META, &[1, 2]).unwrap();
    store.append(key, META, &[3]).unwrap();
    assert_eq!(value(&store, "A"), Some(vec![1, 2, 3]));
}

#[test]
fn a_full_store_reclaims_deleted_records_first() {
    let mut store = store(28 + 3 * RECORD_OF_12);
    for round in (0..20).skip(if cfg!(miri) { 15 } else { 0 }) {
        write(&mut store, "A", &[round; 12]).unwrap();
        write(&mut store, "B", &[round + 1; 12]).unwrap();
    }
    assert_eq!(value(&store, "A"), Some(vec![19; 12]));
    assert_eq!(value(&store, "B"), Some(vec![20; 12]));
    write(&mut store, "C", &[3; 12]).unwrap();
    assert_eq!(write(&mut store, "D", &[4; 12]), Err(StoreError::Full));
    assert_eq!(store.available(), 0);
    assert_eq!(value(&store, "A"), Some(vec![19; 12]));
}

#[test]
fn a_variable_of_a_full_store_can_still_be_replaced() {
    let mut store = store(28 + 3 * RECORD_OF_12);
    for text in ["A", "B", "C"] {
        write(&mut store, text, &[1; 12]).unwrap();
    }
    write(&mut store, "A", &[2; 12]).unwrap();
    write(&mut store, "B", &[3; 8]).unwrap();
    let name = name("B");
    store.append(Key::new(VENDOR, &name), META, &[4; 4]).unwrap();
    assert_eq!(store.append(Key::new(VENDOR, &name), META, &[4; 1]), Err(StoreError::Full));
    assert_eq!(value(&store, "A"), Some(vec![2; 12]));
    assert_eq!(value(&store, "B"), Some([[3; 8].as_slice(), &[4; 4]].concat()));
    assert_eq!(value(&store, "C"), Some(vec![1; 12]));
    let durable = reopen(store.backend().durable.clone());
    assert_eq!(durable.report(), store.report());
    assert_eq!(durable.report().variables, 3);
}

#[test]
fn a_cut_at_any_byte_of_a_write_leaves_the_old_value_or_the_new() {
    let room = 28 + 4 * RECORD_OF_12;
    for (start_full, append) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut before = store(room);
        write(&mut before, "A", b"old value 12").unwrap();
        write(&mut before, "B", b"other").unwrap();
        if start_full {
            // Leaves no room for another record at the end, so the write has to reclaim first.
            write(&mut before, "B", b"another 12by").unwrap();
            write(&mut before, "B", b"other").unwrap();
        }
        let new: &[u8] = if append { b"old value 12+++" } else { b"new value" };
        let mut cuts = 0;
        let step = if cfg!(miri) { 17 } else { 1 };
        for budget in (0..).step_by(step) {
            let mut store = Store { backend: before.backend.clone(), ..before };
            store.backend.budget = budget;
            let name = name("A");
            let key = Key::new(VENDOR, &name);
            let result = if append { store.append(key, META, b"+++") } else { store.write(key, META, new) };
            let spare = store.backend.budget;
            let found = value(&store, "A").unwrap();
            assert_eq!(found, if result.is_ok() { new } else { b"old value 12" }, "memory at {budget}");
            let mut durable = reopen(store.backend.durable.clone());
            let kept = value(&durable, "A").unwrap();
            assert!(kept == new || kept == b"old value 12", "medium at {budget}: {kept:?}");
            assert!(result.is_err() || kept == new, "durable at {budget}");
            assert_eq!(value(&durable, "B").unwrap(), b"other");
            // What a cut leaves behind does not disturb later writes.
            write(&mut durable, "A", b"again").unwrap();
            assert_eq!(value(&durable, "A").unwrap(), b"again");
            durable.delete(key).unwrap();
            assert_eq!(value(&durable, "A"), None);
            assert_eq!(durable.report().damaged, 0);
            // The failed store recovers as soon as its medium does.
            store.backend.budget = usize::MAX;
            write(&mut store, "B", b"later").unwrap();
            let durable = reopen(store.backend.durable.clone());
            assert_eq!(value(&durable, "A"), value(&store, "A"));
            assert_eq!(value(&durable, "B").unwrap(), b"later");
            cuts += 1;
            if spare > 0 {
                break;
            }
        }
        assert!(cuts > RECORD_OF_12 / step, "{cuts}");
    }
}

#[test]
fn a_cut_at_any_byte_of_a_deletion_leaves_the_variable_or_none() {
    let mut before = store(1024);
    write(&mut before, "A", b"oldest").unwrap();
    write(&mut before, "A", b"old").unwrap();
    // As a cut before the last step of a write leaves it.
    before.put_bytes(28 + RecordHeader::STATE_OFFSET, &[state::ADDED_IN_TRANSITION]);
    before.backend.persist_all().unwrap();
    assert_eq!(value(&before, "A").unwrap(), b"old");
    for budget in 0..4 {
        let mut store = Store { backend: before.backend.clone(), ..before };
        store.backend.budget = budget;
        let result = store.delete(Key::new(VENDOR, &name("A")));
        assert_eq!(result.is_ok(), budget >= 2);
        for value in [value(&store, "A"), value(&reopen(store.backend.durable.clone()), "A")] {
            assert_eq!(value, if budget >= 2 { None } else { Some(b"old".to_vec()) });
        }
    }
}

#[test]
fn a_value_in_transition_counts_until_the_new_one_is_complete() {
    let mut store = store(1024);
    write(&mut store, "A", b"old").unwrap();
    store.put_bytes(28 + RecordHeader::STATE_OFFSET, &[state::ADDED_IN_TRANSITION]);
    assert_eq!(value(&store, "A").unwrap(), b"old");
    store.reclaim().unwrap();
    assert_eq!(store.backend().memory[28 + RecordHeader::STATE_OFFSET], state::ADDED);
}

#[test]
fn second_copies_are_not_shown_and_go_with_the_first() {
    let mut store = store(1024);
    write(&mut store, "A", b"first").unwrap();
    let (record, free) = (28..store.free, store.free);
    store.backend.memory.copy_within(record, free);
    let mut store = reopen(store.backend.memory);
    assert_eq!(store.variables().count(), 1);
    assert_eq!((store.report().variables, store.report().damaged), (1, 1));
    store.delete(Key::new(VENDOR, &name("A"))).unwrap();
    assert_eq!(value(&store, "A"), None);
}

#[test]
fn damaged_records_are_skipped_and_reported() {
    for (offset, bytes) in [
        (60 + 2, &[0x42, 0][..]), // name without terminator
        (60, &[0, 0]),            // empty name
        (36, &[3, 0, 0, 0]),      // odd name size (and so shifted data)
    ] {
        let mut store = Store::format(vec![0; 512], 0).unwrap();
        write(&mut store, "A", b"12").unwrap();
        write(&mut store, "B", b"3").unwrap();
        let mut bytes_of_store = store.backend().clone();
        bytes_of_store[28 + offset..][..bytes.len()].copy_from_slice(bytes);
        let mut store = reopen(bytes_of_store);
        assert_eq!((store.report().variables, store.report().damaged), (1, 1), "{offset}");
        assert_eq!(value(&store, "B").unwrap(), b"3");
        store.reclaim().unwrap();
        assert_eq!(store.report().damaged, 0);
        assert_eq!(value(&store, "B").unwrap(), b"3");
    }
}

#[test]
fn a_record_beyond_the_end_breaks_the_walk_off() {
    let mut store = Store::format(vec![0; 512], 0).unwrap();
    write(&mut store, "A", b"1").unwrap();
    write(&mut store, "B", b"2").unwrap();
    let mut bytes = store.backend().clone();
    bytes[28 + 68 + 40..][..4].copy_from_slice(&0x1000u32.to_le_bytes());
    let mut store = reopen(bytes);
    assert!(store.report().broken_off);
    assert_eq!(store.report().variables, 1);
    write(&mut store, "C", b"3").unwrap();
    assert!(!store.report().broken_off);
    assert_eq!(value(&store, "A").unwrap(), b"1");
    assert_eq!(value(&store, "C").unwrap(), b"3");
}

#[test]
fn headers_that_lie_about_the_store_are_refused() {
    assert!(matches!(Store::open(vec![], 0), Err((_, StoreHeaderError::Short))));
    assert!(matches!(Store::open(vec![0; 64], usize::MAX), Err((_, StoreHeaderError::Short))));
    let mut bytes = Store::format(vec![0; 512], 0).unwrap().backend().clone();
    bytes[16..20].copy_from_slice(&513u32.to_le_bytes());
    assert!(matches!(Store::open(bytes.clone(), 0), Err((_, StoreHeaderError::Size))));
    bytes[16..20].copy_from_slice(&27u32.to_le_bytes());
    assert!(matches!(Store::open(bytes.clone(), 0), Err((_, StoreHeaderError::Size))));
    bytes[21] = 0;
    assert!(matches!(Store::open(bytes, 0), Err((_, StoreHeaderError::State))));
}

#[test]
fn random_damage_never_panics_and_never_hangs() {
    let mut random = crate::random::Random::new(1);
    let mut clean = Store::format(vec![0; 700], 0).unwrap();
    for text in ["A", "BB", "CCC", "DDDD"] {
        write(&mut clean, text, text.as_bytes()).unwrap();
        write(&mut clean, text, &text.as_bytes().repeat(3)).unwrap();
    }
    let rounds = if cfg!(miri) { 3 } else { 20_000 };
    for _ in 0..rounds {
        let mut bytes = clean.backend().clone();
        for _ in 0..=random.below(6) {
            let at = 22 + random.below(bytes.len() - 22);
            bytes[at] = random.next() as u8;
        }
        let mut store = reopen(bytes);
        let _ = store.report();
        let _ = write(&mut store, "A", &[1; 40]);
        let _ = store.append(Key::new(VENDOR, &name("BB")), META, &[7; 90]);
        let _ = store.delete(Key::new(VENDOR, &name("CCC")));
        let _ = store.reclaim();
        let report = store.report();
        assert_eq!((report.damaged, report.broken_off), (0, false));
        assert_eq!(report.used + store.available(), report.capacity);
    }
}

#[test]
fn any_size_of_store_can_be_formatted_or_is_refused() {
    for size in (0..200).step_by(if cfg!(miri) { 9 } else { 1 }) {
        let Ok(mut store) = Store::format(vec![0; size], 0) else { continue };
        let _ = write(&mut store, "A", &[1; 5]);
        let _ = write(&mut store, "A", &[2; 9]);
        let _ = store.report();
        assert_eq!(value(&store, "A").is_some(), size >= 28 + 72);
    }
}
