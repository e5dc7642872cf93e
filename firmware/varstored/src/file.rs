//! The file that a volume lives in.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use variables::Durable;
use variables::backend::{BackendError, Medium};

/// A volume is half a megabyte; what is far longer is something else.
const LONGEST: u64 = 16 << 20;

/// A volume in memory that follows its file.
pub type FileVolume<F = File> = Durable<Vec<u8>, VolumeFile<F>>;

/// What of a file a volume needs.
pub trait Storage {
    /// Writes all of `bytes` at `offset`; a power cut may keep any part of them, or none.
    ///
    /// # Errors
    /// The file system's.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Has what was written survive a power cut.
    ///
    /// # Errors
    /// The file system's.
    fn sync_data(&self) -> io::Result<()>;
}

impl Storage for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}

/// What a change survives once it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut.
    PowerCut,
    /// The end of the daemon; for what is of no use without the guest that runs.
    Process,
}

/// A file, written in place: the volume's own order of writes keeps it whole at a cut.
#[derive(Debug)]
pub struct VolumeFile<F = File> {
    path: PathBuf,
    file: F,
    durability: Durability,
}

/// A file's content, as it is.
#[derive(Debug)]
pub struct Content<F = File> {
    bytes: Vec<u8>,
    file: VolumeFile<F>,
}

impl Content {
    /// Reads a file.
    ///
    /// # Errors
    /// The file system's; the file is too long for a volume.
    pub fn read(path: &Path, durability: Durability) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        if length > LONGEST {
            return Err(io::Error::other(format!("{length} bytes are too many for a variable store")));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::new(bytes, file, path, durability))
    }
}

impl<F: Storage> Content<F> {
    /// What was read from `file`.
    pub fn new(bytes: Vec<u8>, file: F, path: &Path, durability: Durability) -> Self {
        Self { bytes, file: VolumeFile { path: path.to_owned(), file, durability } }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The volume that it is; what a cut left undone is finished, in the file too.
    ///
    /// # Errors
    /// The length is not a volume's, or the file cannot be written.
    pub fn open(self) -> io::Result<FileVolume<F>> {
        let length = self.bytes.len();
        match Durable::open(self.bytes, self.file) {
            Ok((volume, _)) => Ok(volume),
            Err(BackendError) => {
                Err(io::Error::other(format!("{length} bytes are no whole volume, or the file cannot be written")))
            }
        }
    }
}

/// Makes a file, in place of one that may be there: a cut leaves either.
///
/// # Errors
/// The file system's.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path)) {
        fs::remove_file(&beside).ok();
        return Err(error);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

impl<F: Storage> Medium for VolumeFile<F> {
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        let written = self.file.write_all_at(bytes, offset as u64).and_then(|()| match self.durability {
            Durability::PowerCut => self.file.sync_data(),
            Durability::Process => Ok(()),
        });
        written.map_err(|error| {
            log::error!("{}: {error}", self.path.display());
            BackendError
        })
    }
}
