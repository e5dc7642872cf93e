//! File systems: the trait that file system drivers implement, and the protocols made of it.

use alloc::string::String;
use core::fmt;

use uefi_raw::time::Time;

/// Why a file operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileError {
    /// No such file or directory.
    NotFound,
    /// The device failed.
    Device,
    /// The volume's structures contradict themselves.
    Corrupted,
    /// The volume is full.
    Full,
    /// The volume or the file may not be written.
    WriteProtected,
    /// The file was not opened for this, or is of the wrong kind (a directory where a file is needed).
    AccessDenied,
    /// The name cannot stand in this file system, or a value makes no sense.
    InvalidParameter,
    /// Not possible on this kind of file.
    Unsupported,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Device => "device error",
            Self::Corrupted => "file system is damaged",
            Self::Full => "volume is full",
            Self::WriteProtected => "write protected",
            Self::AccessDenied => "access denied",
            Self::InvalidParameter => "invalid name or value",
            Self::Unsupported => "not supported here",
        })
    }
}

impl core::error::Error for FileError {}

bitflags::bitflags! {
    /// Attributes of a file, the values of `EFI_FILE_*` (UEFI 2.10 §13.5.2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Attributes: u64 {
        /// May not be written.
        const READ_ONLY = 0x01;
        /// Not listed by default.
        const HIDDEN = 0x02;
        /// Part of an operating system.
        const SYSTEM = 0x04;
        /// A directory.
        const DIRECTORY = 0x10;
        /// Changed since the last archive.
        const ARCHIVE = 0x20;
    }
}

/// What is known of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct FileInfo {
    /// Name without path; empty for the root directory.
    pub name: String,
    /// Length in bytes; 0 for a directory.
    pub size: u64,
    /// Bytes it takes on the volume.
    pub allocated: u64,
    /// When it was made.
    pub created: Time,
    /// When it was last read (to the day on FAT).
    pub accessed: Time,
    /// When it was last written.
    pub modified: Time,
    /// Attributes.
    pub attributes: Attributes,
}

/// What is known of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeInfo {
    /// Label.
    pub label: String,
    /// Size in bytes.
    pub size: u64,
    /// Free bytes.
    pub free: u64,
    /// Bytes of an allocation unit.
    pub block_size: u32,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Read only.
    Read,
    /// Read and write an existing file.
    ReadWrite,
    /// Read and write; made with these attributes if it does not exist.
    Create(Attributes),
}

/// Number of an open file within its volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileId(pub u64);

/// A mounted volume. The edge keeps positions and paths; a volume only knows open files by number.
pub trait FileSystem {
    /// Facts about the volume.
    fn volume(&mut self) -> Result<VolumeInfo, FileError>;
    /// Changes the label.
    fn set_label(&mut self, label: &str) -> Result<(), FileError>;
    /// Opens the root directory.
    fn open_root(&mut self) -> Result<FileId, FileError>;
    /// Opens `name` (one path component, never empty, `.` or `..`) in the directory `parent`. Each open yields a new number.
    fn open(&mut self, parent: FileId, name: &str, mode: OpenMode) -> Result<FileId, FileError>;
    /// Opens the directory that holds `file`; the root's parent is `NotFound`.
    fn open_parent(&mut self, file: FileId) -> Result<FileId, FileError>;
    /// Closes; pending metadata is written.
    fn close(&mut self, file: FileId) -> Result<(), FileError>;
    /// Deletes and closes (it is closed even if it cannot be deleted).
    fn delete(&mut self, file: FileId) -> Result<(), FileError>;
    /// Reads from `offset`; returns the bytes read, fewer than asked only at the end of the file.
    fn read(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<usize, FileError>;
    /// Writes at `offset`, growing the file; bytes between the old end and `offset` become zero.
    fn write(&mut self, file: FileId, offset: u64, from: &[u8]) -> Result<(), FileError>;
    /// Entry number `index` of a directory (`.` and `..` left out), or `None` past the last.
    fn entry(&mut self, directory: FileId, index: u64) -> Result<Option<FileInfo>, FileError>;
    /// Facts about an open file.
    fn info(&mut self, file: FileId) -> Result<FileInfo, FileError>;
    /// Length of an open file in bytes; 0 for a directory. Asked for before every read.
    fn size(&mut self, file: FileId) -> Result<u64, FileError> {
        Ok(self.info(file)?.size)
    }
    /// Changes name, size, times and attributes to those of `info` where they differ. A time whose year is 0 stays as it
    /// is.
    fn set_info(&mut self, file: FileId, info: &FileInfo) -> Result<(), FileError>;
    /// Moves a file into the open directory `directory` under `name`.
    fn rename(&mut self, file: FileId, directory: FileId, name: &str) -> Result<(), FileError>;
    /// Writes everything pending of this file.
    fn flush(&mut self, file: FileId) -> Result<(), FileError>;
}

/// What a directory lists, of whichever file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// Name without path.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// A file without a file system, as EFI_LOAD_FILE2_PROTOCOL hands it out.
pub trait FileSource {
    /// Its size in bytes. Does not change.
    fn size(&self) -> usize;
    /// Reads all of it; `into` is as long as the file.
    ///
    /// # Errors
    /// What the device says.
    fn read(&mut self, into: &mut [u8]) -> crate::Result<()>;
}

/// A file that is in memory.
impl FileSource for &[u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn read(&mut self, into: &mut [u8]) -> crate::Result<()> {
        into.copy_from_slice(self);
        Ok(())
    }
}
