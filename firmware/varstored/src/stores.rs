//! The stores of all guests: opened when a guest asks, closed when it has not for a while.
//!
//! A guest has two files: `NAME.fd` is a variable volume as OVMF has it, with the non-volatile variables; `NAME.volatile`
//! holds the others, so that they outlive the daemon, and the host while a guest is saved.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use variables::backend::NoMedium;
use variables::format::ERASED;
use variables::journal::{self, Recovery};
use variables::volume::{self, VolumeError};
use variables::{Backend, Limits, Store, TimeBased, Variables};

use crate::file::{self, Content, Durability, FileVolume, Storage};

/// A store that nobody asked for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// So many stores are open at a time, whatever guests do: a store takes most of a megabyte.
const MOST_OPEN: usize = 16;
/// Bytes of the volume for volatile variables: its store is as large as that in the firmware's own memory.
const VOLATILE_SIZE: usize = 2 * (0x1_0000 + 2 * volume::BLOCK_SIZE);

/// A guest's variables.
pub type GuestVariables = Variables<FileVolume, FileVolume, TimeBased>;

/// The stores in a folder.
#[derive(Debug)]
pub struct Stores {
    folder: PathBuf,
    template: Vec<u8>,
    open: HashMap<String, Open>,
}

#[derive(Debug)]
struct Open {
    variables: GuestVariables,
    used: Instant,
}

impl Stores {
    /// Stores in `folder`, new ones copies of the file `template` or empty.
    ///
    /// # Errors
    /// The template cannot be read, or is no variable store.
    pub fn new(folder: &Path, template: Option<&Path>) -> Result<Self> {
        let template = match template {
            Some(path) => {
                let named = || format!("template {}", path.display());
                let bytes = std::fs::read(path).with_context(named)?;
                check(&bytes).with_context(named)?;
                bytes
            }
            None => empty()?,
        };
        Ok(Self { folder: folder.to_owned(), template, open: HashMap::new() })
    }

    /// The name of the store of the guest with that name and UUID: that of the UUID if there is such a file.
    #[must_use]
    pub fn name(&self, name: &str, uuid: &str) -> Option<String> {
        let is_there = |stem: &str| self.path(stem, "fd").exists();
        let uuid = uuid.to_lowercase();
        if is_file_stem(&uuid) && is_there(&uuid) {
            return Some(uuid);
        }
        // While a guest comes from another host, the toolstack calls it so.
        let name = name.strip_suffix("--incoming").unwrap_or(name);
        is_file_stem(name).then(|| name.to_owned())
    }

    /// The variables of the guest whose store is called `name`; a new store if there is none. `starts` forgets volatile
    /// variables.
    ///
    /// # Errors
    /// The files cannot be read or written, or hold something else.
    pub fn open(&mut self, name: &str, starts: bool) -> Result<&mut GuestVariables> {
        if starts || !self.open.contains_key(name) {
            self.open.remove(name);
            self.make_room();
            let open = Open { variables: self.load(name, starts)?, used: Instant::now() };
            self.open.insert(name.to_owned(), open);
        }
        let open = self.open.get_mut(name).context("a store that has just been opened")?;
        open.used = Instant::now();
        Ok(&mut open.variables)
    }

    /// Closes the store that was not used for longest, if there are many.
    fn make_room(&mut self) {
        if self.open.len() < MOST_OPEN {
            return;
        }
        let oldest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            self.open.remove(&oldest);
        }
    }

    /// Closes what was not used for a while; says whether something is still open.
    pub fn close_idle(&mut self) -> bool {
        self.open.retain(|_, open| open.used.elapsed() < IDLE);
        !self.open.is_empty()
    }

    /// Brings a guest's volatile variables to the disk, and closes its store: the domain has ended, and may be one that
    /// was saved.
    pub fn close(&mut self, name: &str) {
        self.open.remove(name);
        let path = self.path(name, "volatile");
        let synced = std::fs::File::open(&path).and_then(|file| file.sync_all());
        match synced {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => log::warn!("{}: {error}", path.display()),
            _ => {}
        }
    }

    fn load(&self, name: &str, starts: bool) -> Result<GuestVariables> {
        let non_volatile = self.non_volatile(name)?;
        let (volatile, is_new) = self.volatile(name, starts)?;
        let mut variables = Variables::new(volatile, non_volatile, TimeBased::new(), Limits::DEFAULT);
        if starts || is_new {
            let told = variables.tell_secure_boot(false);
            told.map_err(|error| anyhow!("{name}: telling the state of Secure Boot: {error:?}"))?;
        }
        Ok(variables)
    }

    fn non_volatile(&self, name: &str) -> Result<Store<FileVolume>> {
        let path = self.path(name, "fd");
        let named = || path.display().to_string();
        if !path.exists() {
            log::info!("{}: a new store", path.display());
            file::create(&path, &self.template).with_context(named)?;
        }
        let content = Content::read(&path, Durability::PowerCut).with_context(named)?;
        store_in(content).with_context(named)
    }

    /// The volatile store, and whether it is new.
    fn volatile(&self, name: &str, starts: bool) -> Result<(Store<FileVolume>, bool)> {
        let path = self.path(name, "volatile");
        if !starts
            && let Ok(volume) = Content::read(&path, Durability::Process).and_then(Content::open)
            && let Ok(store) = Store::open(volume, 0)
        {
            return Ok((store, false));
        }
        let named = || path.display().to_string();
        file::create(&path, &[ERASED; VOLATILE_SIZE]).with_context(named)?;
        let volume = Content::read(&path, Durability::Process).and_then(Content::open).with_context(named)?;
        let store = Store::format(volume, 0).map_err(|error| anyhow!("{error:?}")).with_context(named)?;
        Ok((store, true))
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}.{extension}"))
    }
}

const WAY_OUT: &str = "move it away for a new one, or put back a copy";

/// The store in a file; what a cut left undone is finished.
fn store_in<F: Storage>(content: Content<F>) -> Result<Store<FileVolume<F>>> {
    // A cut while the store was replaced may have left half of one; then the journal has all of it.
    if journal::inspect(content.bytes()) != Recovery::Completed {
        check(content.bytes())?;
    }
    let volume = content.open()?;
    let offset = check(volume.bytes())?;
    Store::open(volume, offset).map_err(|(_, error)| anyhow!("the variable store is damaged ({error:?}); {WAY_OUT}"))
}

/// Where the store is in a volume.
fn check(volume: &[u8]) -> Result<usize> {
    volume::store_offset(volume).map_err(|error| {
        let what = match error {
            VolumeError::Blank => "nothing was ever written to it",
            VolumeError::Signature => "it is no variable store",
            VolumeError::Checksum => "its header is damaged",
            VolumeError::Size => "it is too short for a variable store",
        };
        anyhow!("{what}; {WAY_OUT}")
    })
}

/// An empty volume.
fn empty() -> Result<Vec<u8>> {
    let mut bytes = vec![ERASED; volume::VOLUME_SIZE as usize];
    let region = bytes.get_mut(..volume::REGION_SIZE).context("an empty volume")?;
    volume::format(region).map_err(|error| anyhow!("an empty volume: {error:?}"))?;
    journal::start_anew(&mut bytes, &mut NoMedium).map_err(|error| anyhow!("an empty volume: {error:?}"))?;
    Ok(bytes)
}

/// A name that is a file's in the folder and nowhere else.
fn is_file_stem(name: &str) -> bool {
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod tests;
