//! The file that a store lives in.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use variables::Backend;
use variables::backend::BackendError;

/// A store is half a megabyte; what is far longer is something else.
const LONGEST: u64 = 16 << 20;

/// Whether a change has to be on the disk before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut.
    PowerCut,
    /// It survives the daemon; for what is of no use without the guest that runs.
    Process,
}

/// The file's content in memory, and the file.
#[derive(Debug)]
pub struct StoreFile {
    path: PathBuf,
    file: File,
    bytes: Vec<u8>,
    durability: Durability,
}

impl StoreFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file system's; the file is too long for a store.
    pub fn read(path: &Path, durability: Durability) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        if length > LONGEST {
            return Err(io::Error::other(format!("{length} bytes are too many for a variable store")));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self { path: path.to_owned(), file, bytes, durability })
    }

    /// Makes a file, in place of one that may be there.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(path: &Path, bytes: Vec<u8>, durability: Durability) -> io::Result<Self> {
        let file = replace(path, &bytes, durability)?;
        Ok(Self { path: path.to_owned(), file, bytes, durability })
    }

    /// Brings to the disk what may not be there yet.
    ///
    /// # Errors
    /// The file system's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn note(&self, result: io::Result<()>) -> Result<(), BackendError> {
        result.map_err(|error| {
            log::error!("{}: {error}", self.path.display());
            BackendError
        })
    }
}

impl Backend for StoreFile {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The store asks for its ranges in an order in which each may be there in part.
    fn persist(&mut self, range: Range<usize>) -> Result<(), BackendError> {
        let bytes = self.bytes.get(range.clone()).ok_or(BackendError)?;
        let written = self.file.write_all_at(bytes, range.start as u64);
        self.note(written.and_then(|()| match self.durability {
            Durability::PowerCut => self.file.sync_data(),
            Durability::Process => Ok(()),
        }))
    }

    fn persist_all(&mut self) -> Result<(), BackendError> {
        match replace(&self.path, &self.bytes, self.durability) {
            Ok(file) => {
                self.file = file;
                Ok(())
            }
            Err(error) => self.note(Err(error)),
        }
    }
}

/// Writes a new file beside the old one and puts it in its place: a cut leaves either.
fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<File> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| match durability {
        Durability::PowerCut => file.sync_all(),
        Durability::Process => Ok(()),
    });
    if let Err(error) = written.and_then(|()| fs::rename(&beside, path)) {
        fs::remove_file(&beside).ok();
        return Err(error);
    }
    if durability == Durability::PowerCut
        && let Some(folder) = path.parent()
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}
