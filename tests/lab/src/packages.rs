//! Debian packages fetched by name and suite, without touching the host's own package set.
//!
//! apt runs with its own state, cache and source list (in the cache folder); mirror, proxies and credentials are the
//! host's. Packages are only downloaded, checked by apt against the signed index, and unpacked; nothing of them runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cache::{Cache, Key};
use crate::command;

/// The suites packages are taken from; the last one wins where none is named.
const SUITES: [&str; 2] = ["bookworm", "trixie"];
/// Debian's archive keys, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// An index older than this is refreshed before it is used.
const INDEX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// One package file as the index names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name of the file in apt's archive folder; carries the version.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// The index's digest of the file, as apt prints it.
    pub digest: String,
}

/// A private apt.
#[derive(Debug, Clone)]
pub struct Apt {
    root: PathBuf,
}

impl Apt {
    /// Opens the private apt in `cache`, writing its configuration and fetching the index when it is missing or old.
    ///
    /// # Errors
    /// The host has no Debian mirror configured, or the index cannot be fetched.
    pub fn open(cache: &Cache) -> Result<Self> {
        let apt = Self { root: cache.path("apt") };
        for folder in ["state/lists/partial", "cache/archives/partial", "etc", "resolved"] {
            fs::create_dir_all(apt.root.join(folder))?;
        }
        command::write(&apt.root.join("state/status"), "")?;
        command::write(&apt.root.join("etc/preferences"), preferences())?;
        match apt.index_age() {
            Some(age) if age < INDEX_AGE => {}
            Some(_) => apt.update().unwrap_or_else(|error| eprintln!("lab: package index kept: {error:#}")),
            None => apt.update()?,
        }
        Ok(apt)
    }

    /// Fetches the package index anew.
    ///
    /// # Errors
    /// apt's.
    pub fn update(&self) -> Result<()> {
        eprintln!("lab: fetching the package index of {}", SUITES.join(", "));
        command::write(&self.root.join("etc/sources.list"), sources(&mirror()?))?;
        command::output(self.apt("apt-get").args(["update", "-qq"]))?;
        fs::remove_dir_all(self.root.join("resolved"))?;
        fs::create_dir_all(self.root.join("resolved"))?;
        command::write(&self.stamp(), "")
    }

    /// `names` (each `package` or `package/suite`) and everything they depend on.
    ///
    /// # Errors
    /// A name is unknown.
    pub fn with_dependencies(&self, names: &[&str]) -> Result<Vec<Package>> {
        self.resolve(&["install", "--yes", "--print-uris"], names)
    }

    /// `names` alone.
    ///
    /// # Errors
    /// A name is unknown.
    pub fn alone(&self, names: &[&str]) -> Result<Vec<Package>> {
        self.resolve(&["download", "--print-uris"], names)
    }

    /// Downloads `names` with their dependencies; returns the package files.
    ///
    /// # Errors
    /// A package cannot be had.
    pub fn download_with_dependencies(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        self.download(names, &self.archives(), &["install", "--yes", "--download-only"], Self::with_dependencies)
    }

    /// Downloads `names` alone; returns the package files.
    ///
    /// # Errors
    /// A package cannot be had.
    pub fn download_alone(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        self.download(names, &self.archives(), &["download"], Self::alone)
    }

    fn download(
        &self,
        names: &[&str],
        folder: &Path,
        arguments: &[&str],
        list: impl Fn(&Self, &[&str]) -> Result<Vec<Package>>,
    ) -> Result<Vec<PathBuf>> {
        let fetch = |packages: &[Package]| {
            let mut child = self.apt("apt-get");
            child.args(["-qq"]).args(arguments).args(names).current_dir(folder);
            watch(&mut child, folder, packages)
        };
        let mut packages = list(self, names)?;
        if fetch(&packages).is_err() {
            // A mirror drops old versions at a point release: the index may name files that are gone.
            self.update()?;
            packages = list(self, names)?;
            fetch(&packages)?;
        }
        Ok(packages.iter().map(|package| folder.join(&package.file)).collect())
    }

    fn resolve(&self, arguments: &[&str], names: &[&str]) -> Result<Vec<Package>> {
        let mut key = Key::default();
        for part in arguments.iter().chain(names) {
            key = key.with(part);
        }
        let memo = self.root.join("resolved").join(key.digest());
        let text = match fs::read_to_string(&memo) {
            Ok(text) => text,
            Err(_) => {
                // apt does not list what its archive folder already holds, so it gets an empty one to look at.
                let empty = self.root.join("none");
                fs::create_dir_all(empty.join("partial"))?;
                let archives = format!("Dir::Cache::archives={}", empty.display());
                let mut list = self.apt("apt-get");
                list.args(["-qq", "-o", &archives]).args(arguments).args(names).current_dir(&empty);
                let text = command::output(&mut list)?;
                command::write(&memo, &text)?;
                text
            }
        };
        let packages: Vec<Package> = text.lines().filter_map(parse_uri).collect();
        if packages.len() < names.len() {
            bail!("apt names {} files for {} packages: {}", packages.len(), names.len(), names.join(" "));
        }
        Ok(packages)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let root = self.root.display();
        for option in [
            format!("Dir::State={root}/state"),
            format!("Dir::State::status={root}/state/status"),
            format!("Dir::Cache={root}/cache"),
            format!("Dir::Etc::sourcelist={root}/etc/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::Etc::preferences={root}/etc/preferences"),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "APT::Update::Post-Invoke::=true".to_owned(),
            "APT::Keep-Downloaded-Packages=true".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    }

    fn archives(&self) -> PathBuf {
        self.root.join("cache/archives")
    }

    fn stamp(&self) -> PathBuf {
        self.root.join("index-fetched")
    }

    fn index_age(&self) -> Option<Duration> {
        let fetched = fs::metadata(self.stamp()).ok()?.modified().ok()?;
        SystemTime::now().duration_since(fetched).ok()
    }
}

/// The folder with the content of a package (`package` or `package/suite`), which is fetched into the cache when it is asked for.
///
/// # Errors
/// The package cannot be had.
pub fn content(cache: &Cache, apt: &Apt, name: &str) -> Result<PathBuf> {
    let mut key = Key::default().with(name);
    for file in apt.alone(&[name])? {
        key = key.with(file.file).with(file.digest);
    }
    cache.entry("package", &key, |folder| apt.download_alone(&[name])?.iter().try_for_each(|file| unpack(file, folder)))
}

/// Unpacks a package file into `folder` without running anything of it.
///
/// # Errors
/// dpkg-deb's.
pub fn unpack(package: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    command::output(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder)).map(drop)
}

/// The address of the Debian mirror this machine's own apt uses.
fn mirror() -> Result<String> {
    let text = command::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME) $(SUITE)",
        "Created-By: Packages",
    ]))?;
    let address = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let main = |line: &&str| {
        let suites: Vec<&str> = line.split_whitespace().skip(1).collect();
        !suites.is_empty() && suites.iter().all(|suite| !suite.contains("security"))
    };
    let debian = |line: &&str| address(line).is_some_and(|address| address.trim_end_matches('/').ends_with("/debian"));
    let mut candidates = text.lines().filter(main);
    let best = candidates.clone().find(debian).or_else(|| candidates.next());
    best.and_then(address).context("this machine's apt has no package index: run apt-get update")
}

fn sources(mirror: &str) -> String {
    SUITES.iter().map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n")).collect()
}

fn preferences() -> String {
    let last = SUITES.last().copied().unwrap_or_default();
    format!("Package: *\nPin: release n={last}\nPin-Priority: 600\n")
}

/// A line of `apt-get --print-uris`: `'address' file size digest`.
fn parse_uri(line: &str) -> Option<Package> {
    let mut words = line.strip_prefix('\'')?.split_whitespace();
    words.next()?;
    let file = words.next()?.to_owned();
    let size = words.next()?.parse().ok()?;
    let digest = words.next().unwrap_or_default().to_owned();
    Some(Package { file, size, digest })
}

/// Runs a download and shows how far it is by the sizes of the files that appear in `folder`.
fn watch(download: &mut Command, folder: &Path, packages: &[Package]) -> Result<()> {
    let total: u64 = packages.iter().map(|package| package.size).sum();
    let present = || -> u64 {
        let size = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let partial = folder.join("partial");
        packages.iter().map(|package| size(folder.join(&package.file)).max(size(partial.join(&package.file)))).sum()
    };
    if present() == total {
        return Ok(());
    }
    eprintln!("lab: downloading {} packages, {} MB", packages.len(), total / 1_000_000);
    let bar = ProgressBar::new(total);
    bar.set_style(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}")?);
    let mut child = download.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    while child.try_wait()?.is_none() {
        bar.set_position(present());
        std::thread::sleep(Duration::from_millis(200));
    }
    bar.finish_and_clear();
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("apt-get: {}", command::last_lines(&String::from_utf8_lossy(&output.stderr), 3));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_print_uris_names_file_size_and_digest() {
        let line = "'mirror/pool/x_1%3a2_amd64.deb' x_1%3a2_amd64.deb 1581976 SHA256:07dd";
        let expected = Package { file: "x_1%3a2_amd64.deb".into(), size: 1_581_976, digest: "SHA256:07dd".into() };
        assert_eq!(parse_uri(line), Some(expected));
    }

    #[test]
    fn other_output_of_apt_is_not_a_package() {
        assert_eq!(parse_uri("Reading package lists..."), None);
    }
}
