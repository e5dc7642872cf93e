//! One build: what it sees of the machine, and the images it leaves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use lab::command;

use crate::traces::Traces;

/// The images that a build leaves, the one that holds everything first.
pub const IMAGES: [&str; 3] = ["OVMF.fd", "OVMF_CODE.fd", "OVMF_VARS.fd"];

/// A build that is to be run. [`crate::variation`] changes it.
#[derive(Debug)]
pub struct Build {
    /// Everything of it is in this folder.
    pub folder: PathBuf,
    /// The checkout, as the build sees it.
    pub source: PathBuf,
    /// Variables set (or, with `None`, removed) on top of this process's own.
    pub environment: BTreeMap<String, Option<String>>,
    /// Lines of shell in front of the build: as this user, but in the namespaces below.
    pub setup: Vec<String>,
    /// Words in front of the build's command.
    pub prefix: Vec<String>,
    /// Whether it has mounts, a host name and processes of its own, which takes root.
    pub own_namespaces: bool,
    /// The user and group that it runs as, if not this one.
    pub user: Option<u32>,
    /// How much later its clock is.
    pub clock_offset: Duration,
    /// What may not be in its images.
    pub traces: Traces,
}

/// What a build left.
#[derive(Debug, Clone)]
pub struct Images {
    /// The folder with the three images.
    pub folder: PathBuf,
    /// The core's ELF, whose symbols name what is where.
    pub core: PathBuf,
    /// What tells in them where, when or by whom they were made, a line each.
    pub traces: Vec<String>,
}

impl Build {
    /// A build of `source` as it is, in an empty `folder`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: PathBuf, source: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        for name in ["target", "out"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(Self {
            folder,
            source,
            environment: BTreeMap::new(),
            setup: Vec::new(),
            prefix: Vec::new(),
            own_namespaces: false,
            user: None,
            clock_offset: Duration::ZERO,
            traces: Traces::default(),
        })
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(name.to_owned(), Some(value.into()));
    }

    /// The value of a variable as the build will see it.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        match self.environment.get(name) {
            Some(value) => value.clone(),
            None => std::env::var(name).ok(),
        }
    }

    /// Puts a folder in front of `PATH`.
    pub fn prepend_path(&mut self, folder: &Path) {
        let path = self.variable("PATH").unwrap_or_default();
        self.set("PATH", format!("{}:{path}", folder.display()));
    }

    /// Builds; what the build says goes to `log`. Then searches the images for traces of the machine it ran on.
    ///
    /// # Errors
    /// The build fails.
    pub fn run(mut self, log: &Path) -> Result<Images> {
        let target = self.folder.join("target");
        self.set("CARGO_TARGET_DIR", target.display().to_string());
        self.traces.path("target directory", &target);
        self.traces.path("checkout", &self.source);
        if let Some(user) = self.user {
            for folder in [self.folder.clone(), target, self.folder.join("out")] {
                chown(&folder, Some(user), Some(user))?;
            }
        }
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let started = SystemTime::now();
        let status = self
            .command()
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()
            .context("cannot run the build")?;
        if !status.success() {
            let said = String::from_utf8_lossy(&command::read(log)?).into_owned();
            bail!("the build fails ({status}): {}\n(log: {})", command::last_lines(&said, 8), log.display());
        }
        let now = SystemTime::now();
        self.traces.interval("time of the build", started, now);
        if self.clock_offset != Duration::ZERO {
            self.traces.interval("time on the build's clock", started + self.clock_offset, now + self.clock_offset);
            self.traces.date("date on the build's clock", now + self.clock_offset);
        }
        let mut images = Images {
            folder: self.folder.join("out/ovmf-xen-pvh/FV"),
            core: self.folder.join("target/x86_64-unknown-none/release/ovmf-xen-core"),
            traces: Vec::new(),
        };
        for name in IMAGES {
            images.traces.extend(self.traces.lines(name, &command::read(&images.folder.join(name))?));
        }
        Ok(images)
    }

    fn command(&self) -> Command {
        // The build ends with this process.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if self.own_namespaces {
            command.args(["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
        }
        command.arg("bash");
        let script = format!("set -e\n{}\nexec \"$@\"\n", self.setup.join("\n"));
        command.args(["-c", &script, "setup"]).args(&self.prefix);
        command.arg(self.source.join("build-support/build"));
        command.args(["--offline", "--out"]).arg(self.folder.join("out"));
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Neither rustup nor a shell may find its way by where the lab was started.
        command.env_remove("OLDPWD").current_dir("/");
        command
    }
}

/// A word for the shell.
#[must_use]
pub fn quote(text: impl AsRef<Path>) -> String {
    format!("'{}'", text.as_ref().display().to_string().replace('\'', r"'\''"))
}

/// Runs something and tells on standard error how long it took.
///
/// # Errors
/// Its own.
pub fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("repro: {what} ...");
    let started = Instant::now();
    let result = work()?;
    eprintln!("repro: {what}: {:.1} s", started.elapsed().as_secs_f32());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_one_word() {
        let text = "it's a 'b' $c";
        let said = command::output(Command::new("bash").args(["-c", &format!("printf %s {}", quote(text))])).unwrap();
        assert_eq!(said, text);
    }
}
