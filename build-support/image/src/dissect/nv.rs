//! A volume of variables read back: header, store, records, journal.

use serde::Serialize;
use uguid::Guid;
use variables::format::{StoreHeader, StoreHeaderError};
use variables::journal::{self, Recovery};
use variables::store::{Record, Slot};
use variables::volume::{self, VolumeError};
use variables::{Backend, Store};

use super::Damages;

/// A volume of variables.
#[derive(Debug, Clone, Serialize)]
pub struct Variables {
    /// Place of the store, from the start of the image; `None` where it cannot be read.
    pub store: Option<u64>,
    /// Bytes that records can take up.
    pub capacity: u64,
    /// Bytes that the variables take up.
    pub used: u64,
    /// Deleted and superseded records, which the next reclaim removes.
    pub deleted: usize,
    /// How the journal of fault tolerant writes stands.
    pub journal: Journal,
    /// The variables.
    pub variables: Vec<Variable>,
}

/// How the journal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Journal {
    /// Nothing is under way.
    Clean,
    /// A write was cut and is completed at the next opening.
    Pending,
    /// A write was cut and is given up at the next opening.
    Abandoned,
    /// The journal itself was being rewritten.
    Rewritten,
    /// There is no valid journal.
    Missing,
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Place of its record, from the start of the image.
    pub offset: u64,
    /// Its name.
    pub name: String,
    /// Its vendor.
    pub guid: Guid,
    /// Its attributes.
    pub attributes: u32,
    /// Bytes of an EFI_TIME: when it was last written with authentication.
    #[serde(serialize_with = "hex")]
    pub time_stamp: [u8; 16],
    /// Its content.
    #[serde(serialize_with = "hex")]
    pub data: Vec<u8>,
}

fn hex<S: serde::Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&::hex::encode(bytes))
}

/// Bytes that are only read.
struct ReadOnly<'a>(&'a [u8]);

impl Backend for ReadOnly<'_> {
    fn bytes(&self) -> &[u8] {
        self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut []
    }
}

/// Reads the volume of variables at `start` of the image.
pub(crate) fn read(bytes: &[u8], start: usize, damages: &mut Damages) -> Variables {
    let journal = match journal::inspect(bytes) {
        Recovery::Clean => Journal::Clean,
        Recovery::Completed => Journal::Pending,
        Recovery::Abandoned => Journal::Abandoned,
        Recovery::Restored => Journal::Rewritten,
        Recovery::Reset | Recovery::None => Journal::Missing,
    };
    let mut read = Variables { store: None, capacity: 0, used: 0, deleted: 0, journal, variables: Vec::new() };
    if let (Journal::Missing, Some(areas)) = (journal, journal::Areas::of(bytes.len())) {
        damages.add(start + areas.working.start, "journal of fault tolerant writes: there is no valid one");
    }
    let offset = match volume::store_offset(bytes) {
        Ok(offset) => offset,
        Err(error) => {
            damages.add(start, volume_problem(error));
            // The store's own header says whether it is where it always is.
            volume::STORE_OFFSET
        }
    };
    match Store::open(ReadOnly(bytes), offset) {
        Ok(store) => read_store(&store, offset, start, &mut read, damages),
        Err((_, error)) => damages.add(start + offset, store_problem(error)),
    }
    read
}

fn read_store(store: &Store<ReadOnly<'_>>, offset: usize, start: usize, read: &mut Variables, damages: &mut Damages) {
    read.store = Some((start + offset) as u64);
    read.capacity = store.capacity() as u64;
    for (range, slot) in store.walk() {
        let at = start + range.start;
        match slot {
            Slot::Variable(record) => {
                read.used += range.len() as u64;
                read.variables.push(variable(store, &record, at));
            }
            Slot::Superseded(_) | Slot::Deleted => read.deleted += 1,
            Slot::Unfinished => damages.add(at, "variable store: a record whose writing was cut; it is left out"),
            Slot::Damaged => damages.add(at, "variable store: a damaged record (its name or data); it is left out"),
            Slot::Broken => damages.add(at, "variable store: a record larger than the store; what follows is lost"),
            Slot::Soiled => damages.add(at, "variable store: neither a record nor erased; what follows is lost"),
        }
    }
}

fn variable(store: &Store<ReadOnly<'_>>, record: &Record, at: usize) -> Variable {
    let units: Vec<u16> = store.name(record).as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    Variable {
        offset: at as u64,
        name: String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned(),
        guid: record.vendor(),
        attributes: record.attributes(),
        time_stamp: record.time_stamp(),
        data: store.data(record).to_vec(),
    }
}

fn volume_problem(error: VolumeError) -> &'static str {
    match error {
        VolumeError::Blank => "variable volume: its header is blank",
        VolumeError::Signature => "volume header: not that of a volume of variables (signature or file system)",
        VolumeError::Checksum => "volume header: the checksum does not match",
        VolumeError::Size => "volume header: HeaderLength does not fit the volume",
    }
}

fn store_problem(error: StoreHeaderError) -> String {
    let problem = match error {
        StoreHeaderError::Short => "there is none",
        StoreHeaderError::Signature => "not that of a store of authenticated variables",
        StoreHeaderError::State => "not marked as formatted and healthy",
        StoreHeaderError::Size => "its size does not fit the volume",
    };
    format!("variable store header ({} bytes): {problem}", StoreHeader::SIZE)
}
