//! The stores of all guests: opened when a guest asks, closed when it has not for a while.
//!
//! A guest has two files: `NAME.fd` is a variable volume as OVMF has it, with the non-volatile variables; `NAME.volatile`
//! holds the others, so that they outlive the daemon, and the host while a guest is saved.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};
use variables::volume::{self, VolumeError};
use variables::{Backend, Key, Limits, NoVerifier, Store, Variables};

use crate::file::{Durability, StoreFile};

/// A store that nobody asked for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes for volatile variables, as in the firmware's own memory.
const VOLATILE_SIZE: usize = 0x1_0000;
const GLOBAL: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);

/// A guest's variables.
pub type GuestVariables = Variables<StoreFile, StoreFile, NoVerifier>;

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
                volume::store_offset(&bytes).map_err(|error| anyhow!(explain(error))).with_context(named)?;
                bytes
            }
            None => empty(),
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
            let open = Open { variables: self.load(name, starts)?, used: Instant::now() };
            self.open.insert(name.to_owned(), open);
        }
        let open = self.open.get_mut(name).context("a store that has just been opened")?;
        open.used = Instant::now();
        Ok(&mut open.variables)
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
        let synced = StoreFile::read(&path, Durability::Process).and_then(|file| file.sync());
        match synced {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => log::warn!("{}: {error}", path.display()),
            _ => {}
        }
    }

    fn load(&self, name: &str, starts: bool) -> Result<GuestVariables> {
        let non_volatile = self.non_volatile(name)?;
        let volatile = self.volatile(name, starts)?;
        let mut variables = Variables::new(volatile, non_volatile, NoVerifier, Limits::DEFAULT);
        tell_secure_boot(&mut variables).map_err(|error| anyhow!("telling the state of Secure Boot: {error:?}"))?;
        Ok(variables)
    }

    fn non_volatile(&self, name: &str) -> Result<Store<StoreFile>> {
        let path = self.path(name, "fd");
        let named = || path.display().to_string();
        if !path.exists() {
            log::info!("{}: a new store", path.display());
            StoreFile::create(&path, self.template.clone(), Durability::PowerCut).with_context(named)?;
        }
        let file = StoreFile::read(&path, Durability::PowerCut).with_context(named)?;
        let offset = volume::store_offset(file.bytes()).map_err(|error| anyhow!(explain(error))).with_context(named)?;
        match Store::open(file, offset) {
            Ok(store) => Ok(store),
            Err((_, error)) => bail!("{}: the variable store is damaged ({error:?}); {WAY_OUT}", path.display()),
        }
    }

    fn volatile(&self, name: &str, starts: bool) -> Result<Store<StoreFile>> {
        let path = self.path(name, "volatile");
        let named = || path.display().to_string();
        if !starts
            && let Ok(file) = StoreFile::read(&path, Durability::Process)
            && let Ok(store) = Store::open(file, 0)
        {
            return Ok(store);
        }
        let file = StoreFile::create(&path, vec![0xFF; VOLATILE_SIZE], Durability::Process).with_context(named)?;
        Store::format(file, 0).map_err(|error| anyhow!("{error:?}")).with_context(named)
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}.{extension}"))
    }
}

const WAY_OUT: &str = "move it away for a new one, or put back a copy";

fn explain(error: VolumeError) -> String {
    let what = match error {
        VolumeError::Blank => "nothing was ever written to it",
        VolumeError::Signature => "it is no variable store",
        VolumeError::Checksum => "its header is damaged",
        VolumeError::Size => "it is too short for a variable store",
    };
    format!("{what}; {WAY_OUT}")
}

/// An empty volume.
fn empty() -> Vec<u8> {
    let mut bytes = vec![0xFF; volume::VOLUME_SIZE as usize];
    // Fails for fewer bytes than two headers take.
    let _ = volume::format(&mut bytes[..volume::REGION_SIZE]);
    bytes
}

/// A name that is a file's in the folder and nowhere else.
fn is_file_stem(name: &str) -> bool {
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// What the firmware's driver tells where no daemon keeps the variables.
fn tell_secure_boot(variables: &mut GuestVariables) -> Result<(), variables::Error> {
    variables.set_asker(false);
    let global = VariableVendor::GLOBAL_VARIABLE.0;
    let units = |name: &str| name.encode_utf16().collect::<Vec<u16>>();
    let has_platform_key = variables.get(Key::new(global, &units("PK"))).is_ok();
    for (name, value) in
        [("SetupMode", !has_platform_key), ("SecureBoot", false), ("AuditMode", false), ("DeployedMode", false)]
    {
        variables.set_by_firmware(Key::new(global, &units(name)), GLOBAL, &[u8::from(value)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
