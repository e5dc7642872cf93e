//! Scenarios: one boot claim each, as data. `tests/scenarios/README.md` documents the keys.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use regex::bytes::Regex;
use serde::Deserialize;

use crate::disk::Disk;
use crate::file::Content;

/// What no guest may ever print, unless its scenario says otherwise with `forbid`.
const FORBIDDEN: [&str; 3] = ["GUEST-FAIL.*", "Kernel panic - not syncing.*", "panicked at .*"];
/// How long a step may take when it does not say.
const STEP_TIMEOUT: u64 = 60;

/// One boot claim.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// The claim's name: the file's name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// The claim in a sentence.
    pub description: String,
    /// What kind of machine boots.
    #[serde(default)]
    pub kind: Kind,
    /// Memory, MiB.
    #[serde(default = "default_memory")]
    pub memory: u64,
    /// Virtual CPUs.
    #[serde(default = "default_vcpus")]
    pub vcpus: u32,
    /// What `kernel=` names: a firmware file, or a source such as `linux`.
    #[serde(default = "default_kernel")]
    pub kernel: String,
    /// What `ramdisk=` names.
    pub ramdisk: Option<Content>,
    /// `cmdline=`.
    pub cmdline: Option<String>,
    /// More lines of `xl.cfg`.
    #[serde(default)]
    pub extra: Vec<String>,
    /// Whether a guest that reboots is created again.
    #[serde(default)]
    pub restart: bool,
    /// The disks, xvda first.
    #[serde(default, rename = "disk")]
    pub disks: Vec<Disk>,
    /// What is done and expected, in this order.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
    /// Patterns that may not appear on the console.
    #[serde(default = "default_forbidden")]
    pub forbid: Vec<String>,
}

/// What kind of machine boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A PVH guest of Xen.
    #[default]
    Pvh,
    /// An HVM guest of Xen.
    Hvm,
    /// QEMU without Xen, `-kernel` the firmware; the console is the serial port.
    PlainQemu,
    /// QEMU without Xen, EDK2's firmware as its BIOS: see [`Scenario::as_reference`].
    #[serde(skip)]
    Reference,
}

/// One thing done or expected, and how long it may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawStep")]
pub struct Step {
    /// The thing.
    pub action: Action,
    /// Seconds.
    pub timeout: u64,
}

/// A thing done or expected.
#[derive(Debug, Clone)]
pub enum Action {
    /// The console shows a match, behind what the last expectation matched.
    Expect {
        /// The pattern, in which `@UTC-DATE@` stands for today's date as MM/DD/YYYY.
        pattern: String,
        /// The group `epoch` of the pattern is the host's time within so many seconds.
        clock_within: Option<u64>,
    },
    /// This is typed.
    Send(String),
    /// The domain ends so, or is still there.
    State(Expected),
    /// The guest is saved and restored.
    SaveRestore,
    /// Nothing, for this many seconds.
    Pause(u64),
}

/// How a domain is expected to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// It powers off.
    Poweroff,
    /// It asks for a reboot.
    Reboot,
    /// It crashes.
    Crash,
    /// It is still running.
    Running,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawStep {
    expect: Option<String>,
    clock_within: Option<u64>,
    send: Option<String>,
    state: Option<Expected>,
    save_restore: Option<bool>,
    pause: Option<u64>,
    timeout: Option<u64>,
}

impl TryFrom<RawStep> for Step {
    type Error = String;

    fn try_from(raw: RawStep) -> Result<Self, String> {
        let mut actions = Vec::new();
        if let Some(pattern) = raw.expect {
            Regex::new(&pattern).map_err(|error| error.to_string())?;
            if raw.clock_within.is_some() && !pattern.contains("(?<epoch>") {
                return Err("clock-within needs a group (?<epoch>...) in expect".into());
            }
            actions.push(Action::Expect { pattern, clock_within: raw.clock_within });
        } else if raw.clock_within.is_some() {
            return Err("clock-within goes with expect".into());
        }
        actions.extend(raw.send.map(Action::Send));
        actions.extend(raw.state.map(Action::State));
        actions.extend(raw.save_restore.filter(|yes| *yes).map(|_| Action::SaveRestore));
        actions.extend(raw.pause.map(Action::Pause));
        match (actions.pop(), actions.is_empty()) {
            (Some(action), true) => Ok(Self { action, timeout: raw.timeout.unwrap_or(STEP_TIMEOUT) }),
            _ => Err("a step has exactly one of expect, send, state, save-restore, pause".into()),
        }
    }
}

impl Scenario {
    /// Reads a scenario; its name is the file's.
    ///
    /// # Errors
    /// The file cannot be read, has unknown keys, or a pattern is malformed.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut scenario: Self = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        scenario.forbidden()?;
        if scenario.steps.is_empty() {
            bail!("{} claims nothing: it has no step", path.display());
        }
        Ok(scenario)
    }

    /// The forbidden patterns.
    ///
    /// # Errors
    /// One is malformed.
    pub fn forbidden(&self) -> Result<Vec<Regex>> {
        self.forbid.iter().map(|pattern| Regex::new(pattern).with_context(|| format!("forbid {pattern:?}"))).collect()
    }

    /// Whether it needs Xen.
    #[must_use]
    pub fn needs_xen(&self) -> bool {
        matches!(self.kind, Kind::Pvh | Kind::Hvm)
    }

    /// The scenario as far as EDK2's firmware in plain QEMU can play it: disks have virtio's names, and nothing is
    /// said of how the machine ends or of what our boot manager prints.
    #[must_use]
    pub fn as_reference(&self) -> Self {
        let mut reference = self.clone();
        reference.kind = Kind::Reference;
        reference.kernel = "program:edk2".to_owned();
        reference.steps.retain_mut(|step| match &mut step.action {
            Action::Expect { pattern, .. } => {
                *pattern = pattern.replace("name=xvd", "name=vd").replace("ovmf-xen", ".*");
                !pattern.contains("xvd") && !pattern.contains("Nothing left")
            }
            Action::Send(_) | Action::Pause(_) => true,
            Action::State(_) | Action::SaveRestore => false,
        });
        reference
    }
}

/// All scenarios of a folder by name, in the order of their names.
///
/// # Errors
/// A scenario cannot be read.
pub fn read_all(folder: &Path) -> Result<Vec<Scenario>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("no scenarios in {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths.iter().map(|path| Scenario::read(path)).collect()
}

fn default_memory() -> u64 {
    512
}

fn default_vcpus() -> u32 {
    1
}

fn default_kernel() -> String {
    "firmware:OVMF.fd".to_owned()
}

fn default_forbidden() -> Vec<String> {
    FORBIDDEN.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Scenario, toml::de::Error> {
        toml::from_str(&format!("description = 'a claim'\n{text}"))
    }

    #[test]
    fn every_scenario_of_the_tree_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        assert!(!read_all(&folder).unwrap().is_empty());
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(parse("memroy = 5").is_err());
    }

    #[test]
    fn a_step_does_one_thing() {
        assert!(parse("[[step]]\nexpect = 'a'\nsend = 'b'").is_err());
        assert!(parse("[[step]]\ntimeout = 5").is_err());
    }

    #[test]
    fn a_malformed_pattern_is_an_error() {
        assert!(parse("[[step]]\nexpect = '('").is_err());
    }

    #[test]
    fn a_clock_needs_a_group() {
        assert!(parse("[[step]]\nexpect = 'a'\nclock-within = 5").is_err());
        assert!(parse("[[step]]\nexpect = '(?<epoch>1)'\nclock-within = 5").is_ok());
    }
}
