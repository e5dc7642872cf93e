//! What a power cut leaves of a guest's file: whatever the daemon asked the file system for is recorded, and the file is made
//! as a cut at each point could have left it. What was synced is there; of what was not, any sectors may be there or not, and
//! one may be half there.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::*;
use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;
use variables::volume::BLOCK_SIZE;
use variables::{Key, NoVerifier};

const SECTOR: usize = 512;
/// With so many sectors not synced all subsets are tried, else some.
const ALL_SUBSETS: usize = 5;
/// The smallest volume: a block each for store, event log and journal, and as much again.
const SIZE: usize = 6 * BLOCK_SIZE;
const STORED: VariableAttributes = VariableAttributes::NON_VOLATILE
    .union(VariableAttributes::BOOTSERVICE_ACCESS)
    .union(VariableAttributes::RUNTIME_ACCESS);

/// What the file system was asked for.
#[derive(Debug, Clone)]
enum Request {
    Write { at: usize, bytes: Vec<u8> },
    Sync,
}

/// A file that records.
#[derive(Debug, Clone, Default)]
struct Recorder(Rc<RefCell<Vec<Request>>>);

impl Storage for Recorder {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.borrow_mut().push(Request::Write { at: offset as usize, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.borrow_mut().push(Request::Sync);
        Ok(())
    }
}

/// The variables of a guest, sorted by name: what a cut may not change.
type Listing = Vec<(Vec<u8>, u32, Vec<u8>)>;

type OpenedStore = Store<FileVolume<Recorder>>;
type Opened<'a> = Variables<&'a mut [u8], FileVolume<Recorder>, NoVerifier>;

/// Opens a file as the daemon does, and says what it asked the file system for.
fn open(bytes: &[u8], durability: Durability) -> Result<(OpenedStore, Recorder)> {
    let recorder = Recorder::default();
    let content = Content::new(bytes.to_vec(), recorder.clone(), Path::new("guest.fd"), durability);
    Ok((store_in(content)?, recorder))
}

fn listing(store: &OpenedStore) -> Listing {
    let entry = |record| (store.name(&record).to_vec(), record.attributes(), store.data(&record).to_vec());
    let mut listing: Listing = store.variables().map(entry).collect();
    listing.sort();
    listing
}

/// How many of the ways are tried in which sectors can be there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ways {
    Many,
    Few,
}

/// The file as it was when power was cut after `requests`: one for each way the sectors can be that were not synced.
fn cuts(before: &[u8], requests: &[Request], ways: Ways, mut each: impl FnMut(&[u8])) {
    let synced = requests.iter().rposition(|request| matches!(request, Request::Sync)).map_or(0, |at| at + 1);
    let mut base = before.to_vec();
    let write = |file: &mut [u8], at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    for request in &requests[..synced] {
        if let Request::Write { at, bytes } = request {
            write(&mut base, *at, bytes);
        }
    }
    let sectors: Vec<(usize, &[u8])> = requests[synced..].iter().flat_map(sectors).collect();
    let count = sectors.len();
    let mut with = |is_there: &dyn Fn(usize) -> bool| {
        let mut file = base.clone();
        let there = sectors.iter().enumerate().filter(|(index, _)| is_there(*index));
        there.for_each(|(_, (at, bytes))| write(&mut file, *at, bytes));
        each(&file);
    };
    if ways == Ways::Few {
        for some in [0, count / 2, count] {
            with(&|index| index < some);
        }
        return with(&|index| index >= count / 2);
    }
    if count <= ALL_SUBSETS {
        (0..1usize << count).for_each(|set| with(&|index| set >> index & 1 != 0));
    } else {
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for some in (0..=count).step_by(count / ALL_SUBSETS) {
            with(&|index| index < some);
            with(&|index| index >= some);
            with(&|index| index == some);
            with(&|index| index != some);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            with(&|index| random >> (index % 61) & 1 != 0);
        }
    }
    // A sector that is half there, or has only its end, with the others there or not.
    for torn in (0..count).step_by(1 + count / ALL_SUBSETS) {
        let (at, bytes) = sectors[torn];
        let halves = [0..bytes.len() / 2, bytes.len() / 2..bytes.len()];
        for (part, others) in halves.into_iter().flat_map(|half| [(half.clone(), false), (half, true)]) {
            let mut file = base.clone();
            let kept = sectors.iter().enumerate().filter(|(index, _)| others && *index != torn);
            kept.for_each(|(_, (at, bytes))| write(&mut file, *at, bytes));
            write(&mut file, at + part.start, &bytes[part]);
            each(&file);
        }
    }
}

/// The sectors that a request writes, or parts of them.
fn sectors(request: &Request) -> impl Iterator<Item = (usize, &[u8])> {
    let (mut at, mut rest) = match request {
        Request::Write { at, bytes } => (*at, &bytes[..]),
        Request::Sync => (0, &[][..]),
    };
    std::iter::from_fn(move || {
        let length = (SECTOR - at % SECTOR).min(rest.len());
        let (sector, behind) = rest.split_at(length);
        let place = at;
        (at, rest) = (at + length, behind);
        (!sector.is_empty()).then_some((place, sector))
    })
}

/// What became of the cuts at a change.
#[derive(Debug, Default)]
struct Found {
    old: usize,
    new: usize,
    /// The store cannot be opened, or has neither.
    neither: usize,
}

/// Makes `change` in the file `before`, cuts power everywhere, also while the reopened store finishes what was cut, and looks
/// at what is there then.
fn cut_everywhere(before: &[u8], durability: Durability, change: impl Fn(&mut Opened<'_>)) -> Found {
    let (store, recorder) = open(before, durability).unwrap();
    let old = listing(&store);
    let opening = recorder.0.borrow().len();
    let mut memory = vec![0; 0x1000];
    let mut variables = variables(&mut memory, store);
    change(&mut variables);
    let requests = recorder.0.borrow()[opening..].to_vec();
    let mut after = before.to_vec();
    for request in &requests {
        if let Request::Write { at, bytes } = request {
            after[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
    let new = listing(&open(&after, durability).unwrap().0);
    assert_ne!(old, new, "the change changes something");
    if durability == Durability::PowerCut {
        // What the guest was told is there.
        cuts(before, &requests, Ways::Many, |file| assert_eq!(listing(&open(file, durability).unwrap().0), new));
    }
    let mut found = Found::default();
    let mut judge = |listed: Option<Listing>| match listed {
        Some(listed) if listed == old => found.old += 1,
        Some(listed) if listed == new => found.new += 1,
        _ => found.neither += 1,
    };
    for end in 0..=requests.len() {
        cuts(before, &requests[..end], Ways::Many, |file| {
            let Ok((reopened, recorder)) = open(file, durability) else { return judge(None) };
            let listed = listing(&reopened);
            let finishing = recorder.0.borrow();
            // What was decided once stays so.
            for end in 0..finishing.len() {
                cuts(file, &finishing[..end], Ways::Few, |file| {
                    judge(
                        open(file, durability).ok().map(|(again, _)| listing(&again)).filter(|again| *again == listed),
                    );
                });
            }
            judge(Some(listed));
        });
    }
    found
}

fn variables(memory: &mut [u8], store: OpenedStore) -> Opened<'_> {
    let volatile = Store::format(memory, 0).unwrap();
    Variables::new(volatile, store, NoVerifier, Limits { reserved: 0, ..Limits::DEFAULT })
}

fn name(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn set(variables: &mut Opened<'_>, text: &str, data: &[u8]) {
    variables.set(Key::new(Guid::ZERO, &name(text)), STORED, data).unwrap();
}

/// A file with two variables that stay and one of `size` bytes that was written so many times.
fn file(size: usize, times: u8) -> Vec<u8> {
    let mut bytes = vec![ERASED; SIZE];
    volume::format(&mut bytes[..BLOCK_SIZE]).unwrap();
    journal::start_anew(&mut bytes, &mut NoMedium).unwrap();
    let (store, recorder) = open(&bytes, Durability::PowerCut).unwrap();
    let mut memory = vec![0; 0x1000];
    let mut variables = variables(&mut memory, store);
    set(&mut variables, "Kept", b"kept");
    for time in 1..=times {
        set(&mut variables, "Value", &vec![time; size]);
    }
    set(&mut variables, "KeptToo", b"kept, too");
    for request in recorder.0.borrow().iter() {
        if let Request::Write { at, bytes: written } = request {
            bytes[*at..at + written.len()].copy_from_slice(written);
        }
    }
    bytes
}

fn assert_old_or_new(found: &Found, least: usize) {
    assert_eq!(found.neither, 0, "{found:?}");
    assert!(found.old > 0 && found.new > 0 && found.old + found.new > least, "{found:?}");
}

#[test]
fn a_cut_leaves_the_old_value_or_the_new() {
    let found = cut_everywhere(&file(600, 1), Durability::PowerCut, |variables| set(variables, "Value", &[9; 700]));
    assert_old_or_new(&found, 30);
}

#[test]
fn a_cut_leaves_a_new_variable_or_none() {
    let found = cut_everywhere(&file(600, 1), Durability::PowerCut, |variables| set(variables, "Other", &[9; 700]));
    assert_old_or_new(&found, 20);
}

#[test]
fn a_cut_leaves_a_deleted_variable_or_none() {
    let found = cut_everywhere(&file(600, 1), Durability::PowerCut, |variables| set(variables, "Value", &[]));
    assert_old_or_new(&found, 2);
}

#[test]
fn a_cut_while_the_store_is_made_compact_leaves_the_old_value_or_the_new() {
    let found = cut_everywhere(&file(900, 3), Durability::PowerCut, |variables| set(variables, "Value", &[9; 900]));
    assert_old_or_new(&found, 1000);
}

#[test]
fn a_cut_while_the_store_is_replaced_leaves_the_old_value_or_the_new() {
    // Old and new have no room beside each other.
    let found = cut_everywhere(&file(2500, 1), Durability::PowerCut, |variables| set(variables, "Value", &[9; 2500]));
    assert_old_or_new(&found, 1000);
}

#[test]
fn a_cut_while_a_full_journal_is_made_anew_leaves_the_old_value_or_the_new() {
    // Each time but the first the store is made compact and then replaced, and the journal grows by twice 80 bytes.
    let before = file(2500, 26);
    let journal = &before[2 * BLOCK_SIZE..3 * BLOCK_SIZE];
    assert!(journal[BLOCK_SIZE - 80..].iter().any(|&byte| byte != ERASED), "the journal is full");
    let found = cut_everywhere(&before, Durability::PowerCut, |variables| set(variables, "Value", &[99; 2500]));
    assert_old_or_new(&found, 1000);
}

/// The test would notice: without syncing, sectors of later writes can be there without those of earlier ones.
#[test]
fn a_file_that_is_not_synced_loses_values() {
    let found = cut_everywhere(&file(900, 3), Durability::Process, |variables| set(variables, "Value", &[9; 900]));
    assert!(found.neither > 0, "{found:?}");
}
