//! Loaded images (UEFI 2.10 §7.4).
//!
//! [`Images`] knows what is loaded, what is running, and what of it the operating system will have to protect or move.
//! [`pe`] checks and lays out files. Reading files, memory and protocols are the edge's: [`crate::abi::image`].

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::fmt;

use handoff::relocation::Fixup;
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::{Handle, Status};

use crate::device_path::DevicePathBuf;
use crate::table::attributes;

pub mod pe;

use pe::{PeError, Segment, Subsystem};

/// Why an image cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// The file is no program that can run here.
    Pe(PeError),
    /// There is no such device, or no such file on it.
    NotFound,
    /// The path names a directory.
    Directory,
    /// The device's file system or loader refuses or fails.
    Read(Status),
    /// Too little memory for a file or an image of this many bytes.
    Memory(u64),
    /// The caller's arguments make no sense, or something else said so.
    Service(Status),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pe(error) => error.fmt(f),
            Self::NotFound => f.write_str("no such file"),
            Self::Directory => f.write_str("is a directory"),
            Self::Read(status) => write!(f, "cannot be read: {status}"),
            Self::Memory(size) => write!(f, "too little memory for {size} bytes"),
            Self::Service(status) => write!(f, "cannot be loaded: {status}"),
        }
    }
}

impl core::error::Error for LoadError {}

impl From<PeError> for LoadError {
    fn from(error: PeError) -> Self {
        Self::Pe(error)
    }
}

impl From<LoadError> for Status {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Pe(error) => error.into(),
            LoadError::NotFound => Self::NOT_FOUND,
            LoadError::Directory => Self::LOAD_ERROR,
            LoadError::Read(status) | LoadError::Service(status) => status,
            LoadError::Memory(_) => Self::OUT_OF_RESOURCES,
        }
    }
}

/// A loaded image.
#[derive(Debug)]
pub struct Image {
    /// Its handle.
    pub handle: Handle,
    /// Its EFI_LOADED_IMAGE_PROTOCOL, a box that the image may write to.
    pub protocol: *mut LoadedImageProtocol,
    /// The path it was loaded from.
    pub path: Option<DevicePathBuf>,
    /// What of that path lies behind the device's own; LoadedImage's FilePath.
    pub file_path: Option<DevicePathBuf>,
    /// Pages it was given: the first one's address and their number.
    pub pages: (u64, u64),
    /// Where it begins; a page.
    pub base: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Address of its entry point.
    pub entry: u64,
    /// What kind of program it is.
    pub subsystem: Subsystem,
    /// How its pages are protected.
    pub segments: Vec<Segment>,
    /// What has to change when it moves to its virtual address, if it is a runtime driver: address and number, in runtime memory.
    pub fixups: Option<(*mut Fixup, usize)>,
    /// Its HII package list.
    pub package_list: Option<*mut c_void>,
    /// Load options that the firmware gave it, in pool memory.
    pub load_options: Option<*mut u8>,
    /// Whether it has been started.
    pub started: bool,
    /// Where Exit returns to while it runs.
    pub exit_to: Option<*mut c_void>,
    /// What it gave to Exit.
    pub exit_data: Option<Box<[u8]>>,
}

/// Why an image cannot be started, left or unloaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// No image's handle.
    NoSuchImage,
    /// It has been started before.
    Started,
    /// It is not the one that runs.
    NotRunning,
    /// It runs.
    Running,
}

impl From<ImageError> for Status {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::NoSuchImage | ImageError::Started | ImageError::NotRunning => Self::INVALID_PARAMETER,
            ImageError::Running => Self::UNSUPPORTED,
        }
    }
}

/// The database.
#[derive(Debug)]
pub struct Images {
    firmware: Handle,
    images: Vec<Image>,
    /// Handles of the images that run, each started by the one before.
    running: Vec<Handle>,
    /// What is known of the runtime images' pages, by address; kept up to date so that ExitBootServices only reads it.
    runtime_segments: Vec<attributes::Segment>,
}

impl Images {
    /// An empty database.
    pub const fn new() -> Self {
        Self { firmware: core::ptr::null_mut(), images: Vec::new(), running: Vec::new(), runtime_segments: Vec::new() }
    }

    /// The handle of the firmware itself as an image: the agent of its own drivers, the parent of the first images. Null
    /// until it is set.
    pub fn firmware(&self) -> Handle {
        self.firmware
    }

    /// Sets [`Self::firmware`].
    pub fn set_firmware(&mut self, handle: Handle) {
        self.firmware = handle;
    }

    /// Adds a loaded image.
    pub fn add(&mut self, image: Image) {
        self.images.push(image);
        self.update_runtime_segments();
    }

    /// Removes an image that does not run.
    pub fn remove(&mut self, handle: Handle) -> Result<Image, ImageError> {
        if self.running.contains(&handle) {
            return Err(ImageError::Running);
        }
        let index = self.images.iter().position(|image| image.handle == handle).ok_or(ImageError::NoSuchImage)?;
        let image = self.images.remove(index);
        self.update_runtime_segments();
        Ok(image)
    }

    /// An image.
    pub fn get(&self, handle: Handle) -> Result<&Image, ImageError> {
        self.images.iter().find(|image| image.handle == handle).ok_or(ImageError::NoSuchImage)
    }

    /// An image, to be changed.
    pub fn get_mut(&mut self, handle: Handle) -> Result<&mut Image, ImageError> {
        self.images.iter_mut().find(|image| image.handle == handle).ok_or(ImageError::NoSuchImage)
    }

    /// All images.
    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        self.images.iter()
    }

    /// The image that runs: the innermost one.
    pub fn current(&self) -> Option<Handle> {
        self.running.last().copied()
    }

    /// Notes that an image begins to run, and where its Exit returns to. Returns its entry point.
    pub fn begin(&mut self, handle: Handle, exit_to: *mut c_void) -> Result<u64, ImageError> {
        let image = self.get_mut(handle)?;
        if image.started {
            return Err(ImageError::Started);
        }
        image.started = true;
        image.exit_to = Some(exit_to);
        let entry = image.entry;
        self.running.push(handle);
        Ok(entry)
    }

    /// Notes that an image has returned. Returns its exit data.
    pub fn end(&mut self, handle: Handle) -> Option<Box<[u8]>> {
        // Images below it that never returned are gone with its stack.
        if let Some(index) = self.running.iter().rposition(|running| *running == handle) {
            self.running.truncate(index);
        }
        let image = self.get_mut(handle).ok()?;
        image.exit_to = None;
        image.exit_data.take()
    }

    /// Where the running image's Exit returns to; nothing for an image that has not been started.
    pub fn exit_of(&mut self, handle: Handle) -> Result<Option<*mut c_void>, ImageError> {
        let current = self.current();
        let image = self.get(handle)?;
        match image.exit_to {
            None if !image.started => Ok(None),
            Some(exit_to) if current == Some(handle) => Ok(Some(exit_to)),
            _ => Err(ImageError::NotRunning),
        }
    }

    /// The runtime images' pages by address. Allocates nothing.
    pub fn runtime_segments(&self) -> &[attributes::Segment] {
        &self.runtime_segments
    }

    fn update_runtime_segments(&mut self) {
        self.runtime_segments.clear();
        for image in self.images.iter().filter(|image| image.subsystem == Subsystem::RuntimeDriver) {
            for segment in &image.segments {
                let Some(kind) = attributes::Kind::of(segment.protection) else { continue };
                let start = image.base + segment.offset;
                self.runtime_segments.push(attributes::Segment { start, pages: segment.pages, kind });
            }
        }
        self.runtime_segments.sort_by_key(|segment| segment.start);
    }
}

impl Default for Images {
    fn default() -> Self {
        Self::new()
    }
}
