//! What a scenario puts into a file of a disk, by description.
//!
//! A string names a source: `program:NAME` (an EFI program from Debian), `guest:NAME` (one of ours), `linux` (Debian's kernel), `initrd` (the test
//! guests' initial RAM disk), `firmware:NAME` (a file of the firmware under test), `host:PATH`, `debian-installer-cd`, `debian-package` (of the firmware under
//! test), `debian-varstored` (of the daemon). A table gives the bytes themselves (`text`, `hex`, `zeros`), builds one (`uki`, `image`, `joined`, `update`), or changes a source (`from` with
//! `truncate` or `patch`; `vars`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command;
use crate::dom0_image::Dom0Image;
use crate::programs::Programs;
use crate::update::{self, Update};
use crate::{debian_package, firmware, guest_program, installer, iso, uki};

/// The test guests' init.
const GUEST_INIT: &str = include_str!("../guest/init");

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// A source by name.
    Source(String),
    /// Anything else.
    Made(Made),
}

/// Content that is written down or derived.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Made {
    /// This text.
    Text(String),
    /// These bytes.
    Hex(String),
    /// So many bytes of zero.
    Zeros(usize),
    /// A unified kernel image of Debian's kernel and the test initial RAM disk with this command line.
    Uki(String),
    /// A source with changes.
    Changed(Changed),
    /// A signed update of an authenticated variable.
    Update(Update),
    /// A firmware image of another layout.
    Image(firmware::Built),
    /// A firmware image of code and variables.
    Joined(firmware::Joined),
    /// A variable store that `virt-fw-vars` has changed.
    Vars(firmware::Vars),
    /// A CD that `grub-mkrescue` makes of these files, for PCs with BIOS and with UEFI.
    Iso(BTreeMap<String, Content>),
}

/// A source with changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Changed {
    /// The source.
    pub from: String,
    /// Cut to this many bytes.
    pub truncate: Option<usize>,
    /// So many bytes of zero at the end.
    #[serde(default)]
    pub grow: usize,
    /// Bytes to overwrite.
    #[serde(default)]
    pub patch: Vec<Patch>,
}

/// Bytes to overwrite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Patch {
    /// Offset in the file. With `pe` it counts from the PE signature.
    pub at: usize,
    /// Whether `at` counts from the PE signature.
    #[serde(default)]
    pub pe: bool,
    /// The bytes.
    pub hex: String,
}

/// What sources stand for in this run.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Debian's kernel and the guests' initial RAM disk.
    pub image: Dom0Image,
    /// EFI programs.
    pub programs: Programs,
    /// The folder with our test programs, `NAME.efi`; they are built when it is missing.
    pub guest_programs: Option<PathBuf>,
    /// The folder with `OVMF.fd` and its neighbours.
    pub firmware: PathBuf,
    /// A folder for files in the making.
    pub scratch: PathBuf,
}

impl Sources {
    /// The bytes of `content`.
    ///
    /// # Errors
    /// A source is unknown or cannot be read, hexadecimal is malformed, or a patch lies outside the file.
    pub fn bytes(&self, content: &Content) -> Result<Vec<u8>> {
        match content {
            Content::Source(name) => self.source(name),
            Content::Made(Made::Text(text)) => Ok(text.clone().into_bytes()),
            Content::Made(Made::Hex(text)) => decode(text),
            Content::Made(Made::Zeros(count)) => Ok(vec![0; *count]),
            Content::Made(Made::Uki(command_line)) => self.unified_kernel_image(command_line),
            Content::Made(Made::Changed(changed)) => self.changed(changed),
            Content::Made(Made::Update(wanted)) => update::bytes(wanted, &self.scratch),
            Content::Made(Made::Image(built)) => built.bytes(self),
            Content::Made(Made::Joined(joined)) => joined.bytes(self),
            Content::Made(Made::Vars(vars)) => vars.bytes(self),
            Content::Made(Made::Iso(files)) => iso::bytes(files, self),
        }
    }

    /// The bytes of a source by name.
    ///
    /// # Errors
    /// The source is unknown or cannot be read.
    pub fn source(&self, name: &str) -> Result<Vec<u8>> {
        match name.split_once(':') {
            Some(("program", name)) => command::read(&self.programs.path(name)?),
            Some(("firmware", name)) => command::read(&self.firmware.join(name)),
            Some(("guest", name)) => match &self.guest_programs {
                Some(folder) => command::read(&folder.join(format!("{name}.efi"))),
                None => guest_program::bytes(name),
            },
            Some(("host", path)) => command::read(Path::new(path)),
            None if name == "linux" => command::read(&self.image.kernel()),
            None if name == "initrd" => self.initrd(),
            None if name == "debian-installer-cd" => installer::bytes(self),
            None if name == "debian-package" => debian_package::bytes(self),
            None if name == "debian-varstored" => debian_package::daemon_bytes(self),
            _ => bail!(
                "no source {name}; known: program:NAME, guest:NAME, firmware:FILE, host:PATH, linux, initrd, debian-installer-cd, debian-package, debian-varstored"
            ),
        }
    }

    fn initrd(&self) -> Result<Vec<u8>> {
        self.image.guest_parts().archive(GUEST_INIT)
    }

    fn unified_kernel_image(&self, command_line: &str) -> Result<Vec<u8>> {
        let parts = uki::Parts {
            stub: &self.programs.path("systemd-stub")?,
            kernel: &self.image.kernel(),
            initrd: &self.initrd()?,
            command_line,
        };
        let target = self.scratch.join("unified.efi");
        uki::write(&parts, &target)?;
        command::read(&target)
    }

    fn changed(&self, changed: &Changed) -> Result<Vec<u8>> {
        let mut bytes = self.source(&changed.from)?;
        for patch in &changed.patch {
            let base = if patch.pe { pe_signature(&bytes)? } else { 0 };
            overwrite(&mut bytes, base + patch.at, &decode(&patch.hex)?)?;
        }
        if let Some(length) = changed.truncate {
            bytes.truncate(length);
        }
        bytes.resize(bytes.len() + changed.grow, 0);
        Ok(bytes)
    }
}

/// Overwrites `bytes` from `at` on with `new`.
///
/// # Errors
/// The range does not lie inside.
pub fn overwrite(bytes: &mut [u8], at: usize, new: &[u8]) -> Result<()> {
    let range = bytes.get_mut(at..at + new.len()).with_context(|| format!("no {} bytes at {at:#x}", new.len()))?;
    range.copy_from_slice(new);
    Ok(())
}

/// Decodes hexadecimal with optional blanks.
///
/// # Errors
/// The text is not hexadecimal.
pub fn decode(text: &str) -> Result<Vec<u8>> {
    let digits: String = text.split_whitespace().collect();
    hex::decode(&digits).with_context(|| format!("{text:?} is not hexadecimal"))
}

/// Offset of `PE\0\0`, from the field `e_lfanew` of the DOS header.
fn pe_signature(bytes: &[u8]) -> Result<usize> {
    const E_LFANEW: std::ops::Range<usize> = 0x3c..0x40;
    let field: [u8; 4] = bytes.get(E_LFANEW).and_then(|field| field.try_into().ok()).context("no DOS header")?;
    Ok(u32::from_le_bytes(field) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Holder {
        file: Content,
    }

    fn parse(text: &str) -> Result<Content, toml::de::Error> {
        toml::from_str::<Holder>(text).map(|holder| holder.file)
    }

    #[test]
    fn a_string_is_a_source() {
        assert_eq!(parse("file = 'linux'").unwrap(), Content::Source("linux".into()));
    }

    #[test]
    fn a_table_gives_the_bytes() {
        assert_eq!(parse("file.zeros = 12").unwrap(), Content::Made(Made::Zeros(12)));
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(parse("file.txt = 'a'").is_err());
    }

    #[test]
    fn a_patch_outside_the_file_is_an_error() {
        assert!(overwrite(&mut [0; 4], 3, &[1, 2]).is_err());
    }
}
