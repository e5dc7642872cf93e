//! Real EFI programs (and variable stores made by others), and their names in scenarios: from Debian packages, unpacked into
//! the cache, or from a folder.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::cache::{Cache, Key};
use crate::packages::{self, Apt, unpack};

/// A program by the name scenarios use, the package (and suite) it is in, and its path there.
struct Program {
    name: &'static str,
    package: &'static str,
    path: &'static str,
}

const PROGRAMS: [Program; 23] = [
    Program {
        name: "systemd-boot",
        package: "systemd-boot-efi/trixie",
        path: "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
    },
    Program {
        name: "systemd-boot-252",
        package: "systemd-boot-efi/bookworm",
        path: "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
    },
    Program {
        name: "systemd-stub",
        package: "systemd-boot-efi/trixie",
        path: "usr/lib/systemd/boot/efi/linuxx64.efi.stub",
    },
    Program {
        name: "grub",
        package: "grub-efi-amd64-unsigned/trixie",
        path: "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi",
    },
    Program {
        name: "grub-2.06",
        package: "grub-efi-amd64-bin/bookworm",
        path: "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi",
    },
    Program {
        name: "grub-signed",
        package: "grub-efi-amd64-signed/trixie",
        path: "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    },
    Program { name: "shim", package: "shim-signed/trixie", path: "usr/lib/shim/shimx64.efi.signed" },
    Program {
        name: "shim-mokmanager",
        package: "shim-helpers-amd64-signed/trixie",
        path: "usr/lib/shim/mmx64.efi.signed",
    },
    Program {
        name: "shim-fallback",
        package: "shim-helpers-amd64-signed/trixie",
        path: "usr/lib/shim/fbx64.efi.signed",
    },
    Program { name: "shell", package: "efi-shell-x64/trixie", path: "usr/share/efi-shell-x64/shellx64.efi" },
    Program { name: "shell-ia32", package: "efi-shell-ia32/trixie", path: "usr/share/efi-shell-ia32/shellia32.efi" },
    Program { name: "ipxe", package: "ipxe/trixie", path: "boot/ipxe.efi" },
    Program { name: "ipxe-snponly", package: "ipxe/trixie", path: "usr/lib/ipxe/snponly.efi" },
    Program { name: "vars-empty", package: "ovmf/trixie", path: "usr/share/OVMF/OVMF_VARS_4M.fd" },
    Program { name: "vars-microsoft", package: "ovmf/trixie", path: "usr/share/OVMF/OVMF_VARS_4M.ms.fd" },
    Program { name: "vars-snakeoil", package: "ovmf/trixie", path: "usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd" },
    // A Linux program with all that it is linked to, to be run from a guest's disk.
    Program { name: "efibootmgr", package: "efibootmgr/trixie", path: "usr/bin/efibootmgr" },
    Program { name: "libefiboot", package: "libefiboot1t64/trixie", path: "usr/lib/x86_64-linux-gnu/libefiboot.so.1" },
    Program { name: "libefivar", package: "libefivar1t64/trixie", path: "usr/lib/x86_64-linux-gnu/libefivar.so.1" },
    Program { name: "libpopt", package: "libpopt0/trixie", path: "usr/lib/x86_64-linux-gnu/libpopt.so.0" },
    Program { name: "libc", package: "libc6/trixie", path: "usr/lib/x86_64-linux-gnu/libc.so.6" },
    Program { name: "ld-linux", package: "libc6/trixie", path: "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" },
    Program { name: "edk2", package: "ovmf/trixie", path: "usr/share/ovmf/OVMF.fd" },
];

/// The programs.
#[derive(Debug, Clone)]
pub enum Programs {
    /// Unpacked from Debian packages.
    Debian {
        /// The folder with a folder for each package.
        folder: PathBuf,
        /// Where other packages go.
        cache: Cache,
        /// Where they come from.
        apt: Apt,
    },
    /// Files of a folder, with the names that scenarios use.
    Folder(PathBuf),
}

impl Programs {
    /// The programs from the cache, fetched first when a package changed.
    ///
    /// # Errors
    /// A package cannot be had.
    pub fn get(cache: &Cache, apt: &Apt) -> Result<Self> {
        let mut packages: Vec<&str> = PROGRAMS.iter().map(|program| program.package).collect();
        packages.sort_unstable();
        packages.dedup();
        let mut key = Key::default();
        for package in &packages {
            for file in apt.alone(&[package])? {
                key = key.with(package).with(file.file).with(file.digest);
            }
        }
        let folder = cache.entry("programs", &key, |folder| {
            for package in &packages {
                for file in apt.download_alone(&[package])? {
                    unpack(&file, &folder.join(package))?;
                }
            }
            Ok(())
        })?;
        Ok(Self::Debian { folder, cache: cache.clone(), apt: apt.clone() })
    }

    /// The folder with the content of another package, which is fetched when it is asked for.
    ///
    /// # Errors
    /// The package cannot be had.
    pub fn package(&self, package: &str) -> Result<PathBuf> {
        let Self::Debian { cache, apt, .. } = self else { bail!("no Debian package {package} without Debian") };
        packages::content(cache, apt, package)
    }

    /// A program of the Python environment that `tests/setup` makes; without Debian it is where programs are.
    #[must_use]
    pub fn tool(&self, name: &str) -> PathBuf {
        match self {
            Self::Debian { cache, .. } => cache.path("venv/bin").join(name),
            _ => name.into(),
        }
    }

    /// The file of a program.
    ///
    /// # Errors
    /// The name is unknown; the message lists those that are known.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let Some(program) = PROGRAMS.iter().find(|program| program.name == name) else {
            bail!("no program {name}; known: {}", names().join(", "));
        };
        Ok(match self {
            Self::Debian { folder, .. } => folder.join(program.package).join(program.path),
            Self::Folder(folder) => folder.join(name),
        })
    }
}

/// The names scenarios can use.
#[must_use]
pub fn names() -> Vec<&'static str> {
    PROGRAMS.iter().map(|program| program.name).collect()
}
