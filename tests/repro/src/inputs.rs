//! What variations need: copies of the toolchain and of the crates, Xen's headers and libclang of other releases.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lab::cache::{Cache, Key};
use lab::command;
use lab::packages::{self, Apt};
use sha2::{Digest, Sha256};

/// The source of the compiler's library: rustup's component `rust-src` as an archive.
const RUST_SRC: &str = "https://static.rust-lang.org/dist/rust-src-1.95.0.tar.xz";
const RUST_SRC_SHA256: &str = "67b09138c8db96afc4bbfc69ea771ac9a091fd777698acb43f6dfd9fb7dea363";
/// Where it is in a toolchain.
pub const RUST_SRC_FOLDER: &str = "lib/rustlib/src/rust";
/// Releases of Debian with Xen's headers of different releases of Xen.
const HEADER_PACKAGES: [&str; 2] = ["libxen-dev/trixie", "libxen-dev/bookworm"];
/// libclang and the LLVM that it needs; other libraries are those of the machine.
const LIBCLANG_PACKAGES: [[&str; 2]; 3] = [
    ["libclang1-16/bookworm", "libllvm16/bookworm"],
    ["libclang1-15/bookworm", "libllvm15/bookworm"],
    ["libclang1-18/trixie", "libllvm18/trixie"],
];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The machine as it is, and a folder for what is made.
#[derive(Debug)]
pub struct Inputs {
    /// The checkout.
    pub root: PathBuf,
    /// For what is made, readable by other users.
    pub scratch: PathBuf,
    /// `CARGO_HOME` of this user.
    pub cargo_home: PathBuf,
    /// `RUSTUP_HOME` of this user.
    pub rustup_home: PathBuf,
    /// Where the toolchain is.
    pub sysroot: PathBuf,
    /// Folder of Xen's headers: what `build-support/setup` takes.
    pub xen_headers: PathBuf,
}

impl Inputs {
    /// Asks the machine.
    ///
    /// # Errors
    /// There is no toolchain, or `HOME` is not set.
    pub fn of_this_machine(root: PathBuf, scratch: PathBuf) -> Result<Self> {
        let home = PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?);
        let folder = |variable: &str, default: &str| {
            std::env::var_os(variable).map_or_else(|| home.join(default), PathBuf::from)
        };
        let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(&root))?;
        fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        Ok(Self {
            cargo_home: folder("CARGO_HOME", ".cargo"),
            rustup_home: folder("RUSTUP_HOME", ".rustup"),
            xen_headers: std::env::var_os("XEN_HEADERS").map_or_else(|| "/usr/include".into(), PathBuf::from),
            sysroot: sysroot.trim().into(),
            root,
            scratch,
        })
    }

    /// A copy of the toolchain's programs and libraries, with or without the source of its library.
    ///
    /// # Errors
    /// It cannot be copied, or the source cannot be fetched.
    pub fn toolchain(&self, with_source: bool) -> Result<PathBuf> {
        let target = self.scratch.join(if with_source { "toolchain-with-source" } else { "toolchain" });
        if target.exists() {
            return Ok(target);
        }
        let partial = self.scratch.join("toolchain-partial");
        fs::create_dir_all(&partial)?;
        for part in ["bin", "lib"] {
            link(&self.sysroot.join(part), &partial.join(part))?;
        }
        let source = partial.join(RUST_SRC_FOLDER);
        if source.exists() && !with_source {
            fs::remove_dir_all(&source)?;
        }
        if !source.exists() && with_source {
            let archive = rust_src()?;
            command::output(
                Command::new("tar")
                    .args(["--extract", "--strip-components=2", "--file"])
                    .arg(archive)
                    .arg("--directory")
                    .arg(&partial)
                    .arg("rust-src-1.95.0/rust-src/lib"),
            )?;
        }
        fs::rename(partial, &target)?;
        Ok(target)
    }

    /// A copy of a folder where other users can read it.
    fn readable(&self, name: &str, folder: &Path) -> Result<PathBuf> {
        let target = self.scratch.join(name);
        if !target.exists() {
            link(folder, &target)?;
        }
        Ok(target)
    }

    /// Whether the toolchain has the source of its library.
    #[must_use]
    pub fn has_rust_src(&self) -> bool {
        self.sysroot.join(RUST_SRC_FOLDER).exists()
    }

    /// The crates of `Cargo.lock` in a folder of their own.
    ///
    /// # Errors
    /// They are not in cargo's cache.
    pub fn crates(&self) -> Result<PathBuf> {
        let target = self.scratch.join("crates");
        if !target.exists() {
            let mut vendor = Command::new("cargo");
            vendor.args(["vendor", "--quiet", "--locked"]).arg(&target).current_dir(&self.root);
            command::output(&mut vendor).context("copying the crates of Cargo.lock")?;
        }
        Ok(target)
    }

    /// Headers of another release of Xen than this machine's, from Debian. Nothing, if they are the same.
    ///
    /// # Errors
    /// The packages cannot be had.
    pub fn other_xen_headers(&self) -> Result<Option<PathBuf>> {
        let own = header_digest(&self.xen_headers)?;
        for package in HEADER_PACKAGES {
            let headers = debian_package(package)?.join("usr/include");
            if header_digest(&headers)? != own {
                return self.readable("headers", &headers).map(Some);
            }
        }
        Ok(None)
    }

    /// A folder with another libclang than bindgen takes here, and one with the LLVM it needs; or why there is none.
    ///
    /// # Errors
    /// The packages cannot be had.
    pub fn other_libclang(&self) -> Result<Result<[PathBuf; 2], String>> {
        let mut reason = "no package".to_owned();
        for [clang, llvm] in LIBCLANG_PACKAGES {
            let version = clang.trim_start_matches("libclang1-").split('/').next().unwrap_or_default();
            if Path::new(&format!("/usr/lib/llvm-{version}/lib/libclang.so.1")).exists() {
                continue;
            }
            let folders = [debian_package(clang)?.join(LIBRARIES), debian_package(llvm)?.join(LIBRARIES)];
            match missing_library(&folders, version)? {
                None => return Ok(Ok([self.readable("clang", &folders[0])?, self.readable("llvm", &folders[1])?])),
                Some(library) => reason = format!("{clang} needs {library}, which this machine has not"),
            }
        }
        Ok(Err(reason))
    }
}

/// Copies a checkout, without what builds leave.
///
/// # Errors
/// It cannot be copied.
pub fn copy_checkout(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("no checkout at {}", from.display()))? {
        let entry = entry?;
        if ![".git", "target", "out"].iter().any(|left_out| entry.file_name() == *left_out) {
            command::output(Command::new("cp").args(["-r", "--reflink=auto"]).arg(entry.path()).arg(to))?;
        }
    }
    Ok(())
}

/// Copies a folder, by links where the file system allows them.
fn link(from: &Path, to: &Path) -> Result<()> {
    let copy = |how: &str| command::output(Command::new("cp").args(["-r", how, "-T"]).arg(from).arg(to));
    if copy("--link").is_err() {
        copy("--reflink=auto")?;
    }
    Ok(())
}

fn missing_library(folders: &[PathBuf; 2], version: &str) -> Result<Option<String>> {
    let library = folders[0].join(format!("libclang-{version}.so.1"));
    let path = format!("{}:{}", folders[0].display(), folders[1].display());
    let text = command::output(Command::new("ldd").arg(&library).env("LD_LIBRARY_PATH", path))?;
    Ok(text.lines().find(|line| line.contains("not found")).map(|line| line.trim().to_owned()))
}

/// The content of a package of Debian, from the lab's cache.
fn debian_package(name: &str) -> Result<PathBuf> {
    let cache = Cache::open()?;
    packages::content(&cache, &Apt::open(&cache)?, name).with_context(|| format!("fetching {name}"))
}

/// A digest of Xen's public headers below a folder.
fn header_digest(folder: &Path) -> Result<String> {
    let folder = folder.join("xen");
    let mut list = Command::new("find");
    list.args([".", "-name", "*.h", "-type", "f"]).current_dir(&folder);
    let text = command::output(&mut list).with_context(|| format!("no headers in {}", folder.display()))?;
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    let mut digest = Sha256::new();
    for name in names {
        digest.update(command::read(&folder.join(name))?);
    }
    Ok(hex::encode(digest.finalize()))
}

/// The archive of `rust-src`, from the cache.
fn rust_src() -> Result<PathBuf> {
    const FILE: &str = "rust-src.tar.xz";
    let folder = Cache::open()?.entry("rust-src", &Key::default().with(RUST_SRC_SHA256), |folder| {
        let file = folder.join(FILE);
        let mut fetch = Command::new("curl");
        fetch.args(["--silent", "--show-error", "--fail", "--location", "--proto", "=https", "--output"]);
        command::output(fetch.arg(&file).arg(RUST_SRC))?;
        let digest = hex::encode(Sha256::digest(command::read(&file)?));
        if digest != RUST_SRC_SHA256 {
            bail!("{RUST_SRC} is not the file it was: its SHA-256 is {digest}");
        }
        Ok(())
    })?;
    Ok(folder.join(FILE))
}
