//! The lab in a dom0 that others made, with what scenarios are made from in a folder: for distributions, which have a kernel,
//! boot programs and a way to start machines of their own.
//!
//! | in the folder | what |
//! | --- | --- |
//! | `scenarios/NAME.toml` | the scenarios |
//! | `programs/NAME` | EFI programs by the names that scenarios use, as far as they are there |
//! | `guest/NAME.efi` | our test programs, from `tests/guest` |
//! | `vmlinuz`, `root/usr/lib/modules/VERSION`, `root/usr/bin/busybox` | the guests' kernel, its modules, a static busybox |

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::dom0::Dom0;
use crate::dom0_image::Dom0Image;
use crate::file::Sources;
use crate::programs::Programs;

/// This dom0 and what scenarios are made from.
#[derive(Debug)]
pub struct Here {
    /// The dom0 that this is.
    pub dom0: Dom0,
    /// What the folder has, and the firmware under test.
    pub sources: Sources,
}

impl Here {
    /// Takes the parts from `parts`; `firmware` is the folder with `OVMF.fd`.
    ///
    /// # Errors
    /// This is no dom0, or a part is missing.
    pub fn open(parts: &Path, firmware: PathBuf) -> Result<Self> {
        let dom0 = Dom0::here()?;
        let scratch = std::env::temp_dir().join(format!("lab-scratch-{}", std::process::id()));
        let image = Dom0Image::for_guests(&parts.join("vmlinuz"), &parts.join("root"), scratch.join("linux"))
            .with_context(|| format!("the guests' Linux in {}", parts.display()))?;
        let sources = Sources {
            image,
            programs: Programs::Folder(parts.join("programs")),
            guest_programs: Some(parts.join("guest")),
            firmware,
            scratch,
        };
        Ok(Self { dom0, sources })
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.sources.scratch).ok();
    }
}
