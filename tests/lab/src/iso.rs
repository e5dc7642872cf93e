//! CDs: ISO 9660 images with El Torito boot entries, made by GRUB's `grub-mkrescue`.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::file::{Content, Sources};

/// The bytes of a CD with these files, by path. GRUB reads its configuration from `boot/grub/grub.cfg`.
///
/// # Errors
/// A content cannot be had, or a tool is missing.
pub fn bytes(files: &BTreeMap<String, Content>, sources: &Sources) -> Result<Vec<u8>> {
    let folder = sources.scratch.join("iso");
    let target = sources.scratch.join("cd.iso");
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder)?;
    for (name, content) in files {
        let bytes = sources.bytes(content).with_context(|| format!("file {name}"))?;
        command::write(&folder.join(name.trim_start_matches('/')), bytes)?;
    }
    // Without fonts, themes and translations, a CD of both platforms has 5 MB beside its files.
    let mut rescue = Command::new("grub-mkrescue");
    rescue.args(["--fonts=", "--themes=", "--locales=", "--compress=no", "-o"]).arg(&target).arg(&folder);
    command::output(&mut rescue)?;
    fs::remove_dir_all(&folder)?;
    command::read(&target)
}
