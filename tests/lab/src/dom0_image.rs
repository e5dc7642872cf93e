//! The image of dom0: hypervisor, kernel, initial RAM disk and root file system, made from Debian packages.
//!
//! The packages are unpacked, not installed: no maintainer script runs, no chroot and no mounts are needed, and what
//! little configuration dom0 wants is written here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cache::{Cache, Key};
use crate::command;
use crate::initrd::Parts;
use crate::packages::{Apt, unpack};

/// What dom0 consists of; apt adds the dependencies.
const PACKAGES: [&str; 19] = [
    "base-files",
    "bash",
    "bsdutils",
    "busybox-static",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "iproute2",
    "kmod",
    "linux-image-amd64",
    "mawk",
    "mount",
    "procps",
    "qemu-system-xen",
    "sed",
    "util-linux",
    "xen-hypervisor-4.20-amd64",
    "xen-utils-4.20",
];
/// Modules dom0 needs to reach its root file system.
/// `crc32c_generic` is what ext4 asks for by algorithm, so that no dependency names it.
const DOM0_MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
/// Modules guests may need.
const GUEST_MODULES: [&str; 14] = [
    "xen-blkfront",
    "xen-netfront",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
    "efivarfs",
    "virtio_pci",
    "virtio_blk",
    "ata_piix",
    "ahci",
    "sd_mod",
    "sr_mod",
    "isofs",
];
/// Size of the root file system; sparse, so the rest is room for the guests' disks and saved states.
const ROOT_SIZE: &str = "6G";
const INIT: &str = include_str!("../dom0/init");
const INITRD_INIT: &str = include_str!("../dom0/initrd-init");

/// The files of a dom0 image.
#[derive(Debug, Clone)]
pub struct Dom0Image {
    folder: PathBuf,
}

impl Dom0Image {
    /// The image from the cache, made first when packages or recipe changed.
    ///
    /// # Errors
    /// Packages cannot be had, or a host tool is missing.
    pub fn get(cache: &Cache, apt: &Apt) -> Result<Self> {
        let mut key = Key::default().with(include_str!("dom0_image.rs")).with(INIT).with(INITRD_INIT);
        for package in apt.with_dependencies(&PACKAGES)? {
            key = key.with(package.file).with(package.digest);
        }
        let folder = cache.entry("dom0", &key, |folder| make(apt, folder))?;
        Ok(Self { folder })
    }

    /// What guests need of it, in `folder`, from a kernel and a tree with its modules and a static busybox
    /// (`usr/lib/modules/VERSION`, `usr/bin/busybox`).
    ///
    /// # Errors
    /// A file or a module is missing.
    pub fn for_guests(kernel: &Path, root: &Path, folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        fs::copy(kernel, folder.join("vmlinuz")).with_context(|| format!("cannot copy {}", kernel.display()))?;
        Parts::collect(root, &kernel_version(root)?, &GUEST_MODULES, folder.join("guest"))?;
        Ok(Self { folder })
    }

    /// The hypervisor, as QEMU's multiboot loader takes it.
    #[must_use]
    pub fn hypervisor(&self) -> PathBuf {
        self.folder.join("xen")
    }

    /// Debian's kernel, for dom0 and guests alike.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// dom0's initial RAM disk.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd.img")
    }

    /// dom0's root disk.
    #[must_use]
    pub fn root_disk(&self) -> PathBuf {
        self.folder.join("root.img")
    }

    /// What guests' initial RAM disks are made from.
    #[must_use]
    pub fn guest_parts(&self) -> Parts {
        Parts { folder: self.folder.join("guest") }
    }
}

fn make(apt: &Apt, folder: &Path) -> Result<()> {
    let packages = apt.download_with_dependencies(&PACKAGES)?;
    let root = folder.join("root");
    fs::create_dir(&root)?;
    let bar = ProgressBar::new(packages.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}")?);
    eprintln!("lab: making the dom0 image from {} packages (about a minute, once)", packages.len());
    for package in &packages {
        bar.set_message(package.file_name().unwrap_or_default().to_string_lossy().into_owned());
        unpack(package, &root)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let version = kernel_version(&root)?;
    command::output(Command::new("depmod").arg("-b").arg(&root).arg(&version))?;
    configure(&root)?;
    let dom0 = Parts::collect(&root, &version, &DOM0_MODULES, folder.join("dom0"))?;
    command::write(&folder.join("initrd.img"), dom0.archive(INITRD_INIT)?)?;
    fs::remove_dir_all(&dom0.folder)?;
    Parts::collect(&root, &version, &GUEST_MODULES, folder.join("guest"))?;
    fs::copy(root.join(format!("boot/vmlinuz-{version}")), folder.join("vmlinuz"))?;
    let hypervisor = command::read(&root.join("boot/xen-4.20-amd64.gz"));
    drop(hypervisor.context("the hypervisor is not in its package")?);
    let unpacked = Command::new("gzip").arg("-dc").arg(root.join("boot/xen-4.20-amd64.gz")).output()?;
    command::write(&folder.join("xen"), unpacked.stdout)?;
    for unneeded in ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "boot"] {
        fs::remove_dir_all(root.join(unneeded)).ok();
    }
    eprintln!("lab: writing dom0's root disk");
    let disk = folder.join("root.img");
    command::output(
        Command::new("mke2fs").args(["-q", "-t", "ext4", "-m", "0", "-d"]).arg(&root).arg(&disk).arg(ROOT_SIZE),
    )?;
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// Writes what maintainer scripts would have.
fn configure(root: &Path) -> Result<()> {
    command::write(&root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n")?;
    command::write(&root.join("etc/group"), "root:x:0:\ntty:x:5:\ndisk:x:6:\nkvm:x:7:\nnogroup:x:65534:\n")?;
    command::write(&root.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\n")?;
    command::write(&root.join("etc/hostname"), "lab\n")?;
    for (link, target) in
        [("usr/bin/awk", "mawk"), ("usr/bin/sh", "dash"), ("var/run", "/run"), ("var/lock", "/run/lock")]
    {
        let link = root.join(link);
        if link.is_dir() && !link.is_symlink() {
            fs::remove_dir_all(&link)?;
        }
        if !link.is_symlink() {
            symlink(target, link)?;
        }
    }
    for folder in ["proc", "sys", "dev", "run", "tmp", "lab", "root"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let init = root.join("lab-init");
    command::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn kernel_version(root: &Path) -> Result<String> {
    let modules = root.join("usr/lib/modules");
    let first = fs::read_dir(&modules).context("no kernel modules in the packages")?.next();
    Ok(first.context("no kernel modules in the packages")??.file_name().to_string_lossy().into_owned())
}
