//! Opening the lab: cache, packages, dom0's image, programs, and the machine.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::dom0::Dom0;
use crate::dom0_image::Dom0Image;
use crate::file::Sources;
use crate::machine::{Machine, Wanted};
use crate::packages::Apt;
use crate::programs::Programs;

/// Destroys every domain but dom0.
const LEAVE_NO_GUEST: &str =
    "for domain in $(xenstore-list /local/domain); do [ $domain = 0 ] || xl destroy $domain; done\n";
const LEAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// What scenarios are made from, ready.
#[derive(Debug, Clone)]
pub struct Lab {
    /// The cache.
    pub cache: Cache,
    /// Debian's kernel, dom0, programs, and the firmware under test.
    pub sources: Sources,
}

impl Lab {
    /// Opens the cache and makes in it what is missing. `firmware` is the folder with `OVMF.fd`.
    ///
    /// # Errors
    /// Packages cannot be had, or a host tool is missing.
    pub fn open(firmware: PathBuf) -> Result<Self> {
        let cache = Cache::open()?;
        let apt = Apt::open(&cache).context("preparing packages")?;
        let image = Dom0Image::get(&cache, &apt).context("preparing dom0's image")?;
        let programs = Programs::get(&cache, &apt).context("preparing EFI programs")?;
        let scratch = cache.path(&format!("scratch-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        Ok(Self { cache, sources: Sources { image, programs, guest_programs: None, firmware, scratch } })
    }

    /// The machine that is up, if it has room for the guests and a TPM where one is needed; else a new one. A machine that is
    /// up is only ever taken for number 0.
    ///
    /// # Errors
    /// As [`Machine::start`]; or the machine that is up is too small or has no TPM.
    pub fn machine(&self, wanted: Wanted) -> Result<Machine> {
        let Wanted { guest_memory, has_tpm, .. } = wanted;
        match Machine::running(&self.cache).filter(|_| wanted.number == 0) {
            Some(machine) if has_tpm && !machine.has_tpm() => {
                bail!("the machine that is up has no TPM: `lab down`, or `lab up --tpm`")
            }
            Some(machine) if machine.guest_memory() >= guest_memory => Ok(machine),
            Some(machine) => bail!(
                "the machine that is up has {} MiB for guests, {guest_memory} are needed: `lab down`, or `lab up --memory`",
                machine.guest_memory()
            ),
            None => self.start(wanted),
        }
    }

    /// Starts a machine, telling how long it took.
    ///
    /// # Errors
    /// As [`Machine::start`].
    pub fn start(&self, wanted: Wanted) -> Result<Machine> {
        let started = Instant::now();
        let machine = Machine::start(&self.cache, &self.sources.image, wanted)?;
        eprintln!(
            "lab: Xen and dom0 ready after {:.1} s ({:?})",
            started.elapsed().as_secs_f32(),
            machine.accelerator()
        );
        Ok(machine)
    }

    /// Waits until no other call of the lab uses the machine, then connects to its dom0.
    ///
    /// # Errors
    /// dom0 does not answer.
    pub fn connect(&self, machine: Machine) -> Result<(Dom0, File)> {
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(machine.path("guest.lock"))?;
        if lock.try_lock().is_err() {
            eprintln!("lab: waiting for another call of the lab to finish its guest");
            lock.lock()?;
        }
        let dom0 = Dom0::connect(machine)?;
        // Guests of a call that was ended from outside; nobody else has one now.
        dom0.run_well(LEAVE_NO_GUEST, LEAVE_TIMEOUT)?;
        Ok((dom0, lock))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.sources.scratch).ok();
    }
}
