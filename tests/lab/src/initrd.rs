//! Initial RAM disks: a cpio archive of busybox, the kernel modules a machine needs, and an init script.
//!
//! Not compressed: under emulation the guest unpacks faster than it decompresses.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// File type and permission bits of a cpio entry, as in `stat(2)`.
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const REGULAR: u32 = 0o100_644;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// A cpio archive in the `newc` form that Linux unpacks.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a program.
    pub fn executable(&mut self, path: &str, content: &[u8]) {
        self.entry(path, EXECUTABLE, (0, 0), content);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, REGULAR, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// Ends the archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let name_size = path.len() + 1;
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let header = format!(
            "070701{:08X}{mode:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{name_size:08X}{:08X}",
            self.entries,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            device.0,
            device.1,
            0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// What an initial RAM disk is made from: a static busybox and decompressed modules in the order they load.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The folder with `busybox` and `modules/`.
    pub folder: PathBuf,
}

impl Parts {
    /// Collects into `folder` the busybox of `root` and every module in `names` with what it depends on.
    ///
    /// # Errors
    /// A module is in neither the tree nor the kernel, or a tool is missing.
    pub fn collect(root: &Path, kernel_version: &str, names: &[&str], folder: PathBuf) -> Result<Self> {
        let modules = root.join("usr/lib/modules").join(kernel_version);
        let order = load_order(&modules, names)?;
        fs::create_dir_all(folder.join("modules"))?;
        for (number, path) in order.iter().enumerate() {
            let packed = modules.join(path);
            let stem = packed.file_name().context("a module without a name")?.to_string_lossy().into_owned();
            let stem = stem.split(".ko").next().unwrap_or_default();
            let target = folder.join("modules").join(format!("{number:03}-{stem}.ko"));
            let content = Command::new("xz").arg("-dc").arg(&packed).output().context("cannot run xz")?;
            anyhow::ensure!(content.status.success(), "xz cannot unpack {}", packed.display());
            command::write(&target, content.stdout)?;
        }
        fs::copy(root.join("usr/bin/busybox"), folder.join("busybox")).context("busybox-static is not unpacked")?;
        Ok(Self { folder })
    }

    /// An initial RAM disk that loads the modules whose name is in `wanted` (all of them when it is empty) and what
    /// they depend on, then runs `init`, a busybox shell script.
    ///
    /// # Errors
    /// The parts cannot be read.
    pub fn archive(&self, init: &str) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "proc", "sys", "run", "mnt", "modules", "root", "tmp"] {
            archive.directory(folder);
        }
        archive.character_device("dev/console", 5, 1);
        archive.executable("bin/busybox", &command::read(&self.folder.join("busybox"))?);
        archive.symlink("bin/sh", "busybox");
        let mut modules: Vec<PathBuf> =
            fs::read_dir(self.folder.join("modules"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        modules.sort();
        for module in modules {
            let name = module.file_name().context("a module without a name")?.to_string_lossy().into_owned();
            archive.file(&format!("modules/{name}"), &command::read(&module)?);
        }
        archive.executable("init", init.as_bytes());
        Ok(archive.finish())
    }
}

/// Paths (relative to the module tree) of `names` and their dependencies, dependencies first.
fn load_order(modules: &Path, names: &[&str]) -> Result<Vec<String>> {
    let text = fs::read_to_string(modules.join("modules.dep")).context("modules.dep is missing: depmod did not run")?;
    let builtin = fs::read_to_string(modules.join("modules.builtin")).unwrap_or_default();
    let lines: Vec<(&str, Vec<&str>)> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let mut seen = HashSet::new();
    let mut order = Vec::new();
    for name in names {
        if builtin.lines().any(|path| is_module(path, name)) {
            continue;
        }
        let (path, needs) =
            lines.iter().find(|(path, _)| is_module(path, name)).with_context(|| format!("no kernel module {name}"))?;
        // modules.dep lists what is needed in the reverse of the order it loads in.
        for path in needs.iter().rev().chain([path]) {
            if seen.insert(*path) {
                order.push((*path).to_owned());
            }
        }
    }
    Ok(order)
}

/// Whether `path` is the module `name`; `-` and `_` are the same in module names.
fn is_module(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    let stem = file.split(".ko").next().unwrap_or_default();
    stem.replace('-', "_") == name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_to_four_bytes() {
        let mut archive = Archive::default();
        archive.file("a", b"x");
        archive.directory("bc");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        let second = bytes.windows(6).skip(1).position(|window| window == b"070701").map(|at| at + 1);
        // 110 bytes of header, "a\0", then "x" padded to four.
        assert_eq!(second, Some(116));
    }

    #[test]
    fn modules_load_after_what_they_depend_on() {
        let folder = std::env::temp_dir().join(format!("lab-modules-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("modules.dep"), "k/b.ko.xz: k/a.ko.xz k/z.ko.xz\nk/a.ko.xz:k/z.ko.xz\nk/z.ko.xz:\n")
            .unwrap();
        assert_eq!(load_order(&folder, &["a", "b"]).unwrap(), ["k/z.ko.xz", "k/a.ko.xz", "k/b.ko.xz"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn dash_and_underscore_name_the_same_module() {
        assert!(is_module("kernel/drivers/block/xen-blkfront.ko.xz", "xen_blkfront"));
    }
}
