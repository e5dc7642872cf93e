//! Scenarios: one boot claim each, as data. `tests/scenarios/README.md` documents the keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use regex::bytes::Regex;
use serde::Deserialize;

use crate::disk::Disk;
use crate::file::Content;
use crate::step::{Action, Channel, Step};

/// What no guest may ever print, unless its scenario says otherwise with `forbid`.
const FORBIDDEN: [&str; 3] = ["GUEST-FAIL.*", "Kernel panic - not syncing.*", "panicked at .*"];

/// One boot claim, as it is made of one kind of machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// The claim's name: the kind of machine, and the file's name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// The claim in a sentence.
    pub description: String,
    /// What kind of machine boots.
    #[serde(skip)]
    pub kind: Kind,
    /// The kinds of machine that the claim is made of.
    #[serde(default = "default_kinds")]
    kinds: Vec<Kind>,
    /// The kinds of machine of which it is made only when it is asked for by name: it takes long.
    #[serde(default)]
    on_request: Vec<Kind>,
    /// Memory, MiB.
    #[serde(default = "default_memory")]
    pub memory: u64,
    /// Virtual CPUs.
    #[serde(default = "default_vcpus")]
    pub vcpus: u32,
    /// The firmware: a file, `"seabios"` for an HVM guest, or `"installed"`, what dom0 has for one.
    #[serde(default = "default_firmware")]
    pub firmware: Content,
    /// What `kernel=` names. A PVH guest's is the firmware when it is missing.
    pub kernel: Option<Content>,
    /// What `ramdisk=` names.
    pub ramdisk: Option<Content>,
    /// `cmdline=`.
    pub cmdline: Option<String>,
    /// Whether the guest is given the machine's TPM.
    #[serde(default)]
    pub tpm: bool,
    /// More lines of `xl.cfg`; `@FOLDER@` in them is the folder that `files` are in.
    #[serde(default)]
    pub extra: Vec<String>,
    /// Files that lines of `xl.cfg` name.
    #[serde(default)]
    pub files: BTreeMap<String, Content>,
    /// Shell commands in dom0, in the guest's folder with its files, before it is created.
    #[serde(default)]
    pub prepare: String,
    /// Where steps look and type when they do not say.
    #[serde(default)]
    pub console: Channel,
    /// Whether a guest that reboots is created again.
    #[serde(default)]
    pub restart: bool,
    /// Whether a daemon in dom0 keeps the guest's variables.
    #[serde(default)]
    pub variable_daemon: bool,
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

/// Names that the lab itself gives to files of a guest.
const RESERVED_NAMES: [&str; 4] = ["firmware", "kernel", "ramdisk", "xl.cfg"];
/// The firmware of an HVM guest that is not ours.
pub const SEABIOS: &str = "seabios";
/// The firmware that a package has put into dom0.
pub const INSTALLED: &str = "installed";

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

impl Kind {
    /// What the names of its scenarios begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
            Self::PlainQemu => "plain-qemu",
            Self::Reference => "reference",
        }
    }
}

impl Scenario {
    /// Reads the scenarios of a file, one for each kind of machine.
    ///
    /// # Errors
    /// The file cannot be read, has unknown keys, or a pattern is malformed.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&text, &stem).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str, stem: &str) -> Result<Vec<Self>> {
        let scenario: Self = toml::from_str(text)?;
        scenario.forbidden()?;
        scenario.kinds.iter().map(|kind| scenario.of_kind(*kind, stem)).collect()
    }

    /// The claim as it is made of `kind`.
    fn of_kind(&self, kind: Kind, stem: &str) -> Result<Self> {
        let mut scenario = self.clone();
        scenario.kind = kind;
        scenario.name = format!("{}-{stem}", kind.prefix());
        scenario.steps.retain(|step| step.only.is_none_or(|only| only == kind));
        if scenario.steps.is_empty() {
            bail!("claims nothing: it has no step");
        }
        if scenario.has_serial() && kind == Kind::Pvh {
            bail!("a PVH guest has no serial port");
        }
        let fails = |step: &Step| matches!(step.action, Action::CreateFails(_));
        if scenario.steps.iter().any(fails) && scenario.steps.len() > 1 {
            bail!("a guest that is not created does nothing more: create-fails is the only step");
        }
        if scenario.files.keys().any(|name| RESERVED_NAMES.contains(&name.as_str()) || name.contains('/')) {
            bail!("a file is named without a folder, and not {}", RESERVED_NAMES.join(", "));
        }
        Ok(scenario)
    }

    /// Whether it runs only when it is asked for by name.
    #[must_use]
    pub fn is_on_request(&self) -> bool {
        self.on_request.contains(&self.kind)
    }

    /// Whether the guest gets a serial port: some step needs it.
    #[must_use]
    pub fn has_serial(&self) -> bool {
        self.console == Channel::Serial || self.steps.iter().any(|step| step.channel() == Some(Channel::Serial))
    }

    /// What `kernel=` names: a PVH guest's firmware is its kernel.
    #[must_use]
    pub fn kernel(&self) -> Option<&Content> {
        self.kernel.as_ref().or((self.kind != Kind::Hvm && !self.is_installed()).then_some(&self.firmware))
    }

    /// Whether the firmware is one that dom0 has.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.firmware == Content::Source(INSTALLED.to_owned())
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
        reference.firmware = Content::Source("program:edk2".to_owned());
        reference.kernel = None;
        reference.steps.retain_mut(|step| match &mut step.action {
            Action::Expect { pattern, .. } => {
                *pattern = pattern.replace("name=xvd", "name=vd").replace("ovmf-xen", ".*");
                !pattern.contains("xvd") && !pattern.contains("Nothing left")
            }
            Action::Send { .. } | Action::Pause(_) => true,
            _ => false,
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
    let read: Vec<Vec<Scenario>> = paths.iter().map(|path| Scenario::read(path)).collect::<Result<_>>()?;
    let mut scenarios: Vec<Scenario> = read.into_iter().flatten().collect();
    scenarios.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scenarios)
}

fn default_memory() -> u64 {
    512
}

fn default_vcpus() -> u32 {
    1
}

fn default_kinds() -> Vec<Kind> {
    vec![Kind::Pvh]
}

fn default_firmware() -> Content {
    Content::Source("firmware:OVMF.fd".to_owned())
}

fn default_forbidden() -> Vec<String> {
    FORBIDDEN.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Scenario>> {
        Scenario::parse(&format!("description = 'a claim'\n{text}"), "name")
    }

    #[test]
    fn every_scenario_of_the_tree_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        assert!(!read_all(&folder).unwrap().is_empty());
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(parse("memory = 5\n[[step]]\npause = 1").is_ok());
        assert!(parse("memroy = 5\n[[step]]\npause = 1").is_err());
    }

    #[test]
    fn a_file_makes_a_scenario_for_each_kind() {
        let text = "kinds = ['pvh', 'hvm']\n[[step]]\npause = 1\n[[step]]\npause = 2\nonly = 'hvm'";
        let scenarios = parse(text).unwrap();
        let seen: Vec<_> = scenarios.iter().map(|scenario| (scenario.name.as_str(), scenario.steps.len())).collect();
        assert_eq!(seen, [("pvh-name", 1), ("hvm-name", 2)]);
    }

    #[test]
    fn what_takes_long_may_be_on_request_for_one_kind() {
        let scenarios = parse("kinds = ['pvh', 'hvm']\non-request = ['pvh']\n[[step]]\npause = 1").unwrap();
        assert_eq!(scenarios.iter().map(Scenario::is_on_request).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_kind_without_a_step_is_an_error() {
        assert!(parse("kinds = ['pvh', 'hvm']\n[[step]]\npause = 1\nonly = 'hvm'").is_err());
    }

    #[test]
    fn the_firmware_of_a_pvh_guest_is_its_kernel() {
        let scenarios = parse("kinds = ['pvh', 'hvm']\n[[step]]\npause = 1").unwrap();
        assert_eq!(scenarios[0].kernel(), Some(&Content::Source("firmware:OVMF.fd".into())));
        assert_eq!(scenarios[1].kernel(), None);
    }

    #[test]
    fn a_step_on_the_serial_port_gives_the_guest_one() {
        let text = |kind| format!("kinds = ['{kind}']\n[[step]]\nexpect = 'a'\non = 'serial'");
        assert!(parse(&text("hvm")).unwrap()[0].has_serial());
        assert!(parse(&text("pvh")).is_err());
    }

    #[test]
    fn nothing_follows_a_guest_that_is_not_created() {
        assert!(parse("[[step]]\ncreate-fails = 'a'").is_ok());
        assert!(parse("[[step]]\ncreate-fails = 'a'\n[[step]]\npause = 1").is_err());
    }

    #[test]
    fn a_file_of_the_guest_has_a_name_of_its_own() {
        assert!(parse("[files]\nkernel.text = 'a'\n[[step]]\npause = 1").is_err());
        assert!(parse("files.'a/b'.text = 'a'\n[[step]]\npause = 1").is_err());
    }
}
