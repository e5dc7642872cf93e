//! Firmware images for scenarios beside those of the build: other layouts, a guest's own variables.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use image::assemble::{Contents, Image, assemble};
use image::core_image::CoreImage;
use image::layout::Layout;
use serde::Deserialize;

use crate::command;
use crate::file::{Content, Sources};

/// The layout of the build.
const LAYOUT: &str = "build-support/layout.toml";
const CORE: &str = "x86_64-unknown-none/release/ovmf-xen-core";
const RUNTIME: &str = "x86_64-unknown-uefi/release/runtime.efi";

/// An image of another layout, made of the same core and runtime driver as the images under test.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Built {
    /// The layout, from the root of the source.
    layout: PathBuf,
    /// Which of its images.
    file: String,
    /// A UEFI Shell for it to carry.
    shell: Option<Box<Content>>,
}

/// Code and variables in one image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    code: Box<Content>,
    vars: Box<Content>,
}

/// A variable store that `virt-fw-vars` has changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vars {
    from: String,
    arguments: Vec<String>,
}

impl Built {
    /// The image's bytes.
    ///
    /// # Errors
    /// The layout is none, or the build that the images under test come from is not the last one here.
    pub fn bytes(&self, sources: &Sources) -> Result<Vec<u8>> {
        let ours = images(Path::new(LAYOUT), None)?;
        let tested = sources.source("firmware:OVMF.fd")?;
        let matches = ours.iter().any(|image| image.file == "OVMF.fd" && image.bytes == tested);
        ensure!(matches, "the last build here is not the image under test: run build-support/build");
        let shell = self.shell.as_deref().map(|shell| sources.bytes(shell)).transpose()?;
        let made = images(&self.layout, shell.as_deref())?.into_iter().find(|image| image.file == self.file);
        Ok(made.with_context(|| format!("{} has no {}", self.layout.display(), self.file))?.bytes)
    }
}

impl Joined {
    /// The image's bytes.
    ///
    /// # Errors
    /// The two do not fit.
    pub fn bytes(&self, sources: &Sources) -> Result<Vec<u8>> {
        Ok(image::join::join(&sources.bytes(&self.code)?, &sources.bytes(&self.vars)?)?)
    }
}

impl Vars {
    /// The store's bytes.
    ///
    /// # Errors
    /// There is no such source, or `virt-fw-vars` refuses.
    pub fn bytes(&self, sources: &Sources) -> Result<Vec<u8>> {
        let program = sources.programs.tool("virt-fw-vars");
        let path = sources.scratch.join("vars.fd");
        command::write(&path, sources.source(&self.from)?)?;
        command::output(Command::new(program).arg("--inplace").arg(&path).args(&self.arguments))
            .context("virt-fw-vars, which tests/setup installs")?;
        command::read(&path)
    }
}

/// All images of a layout, of the core and driver of the last build.
fn images(layout: &Path, shell: Option<&[u8]>) -> Result<Vec<Image>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let text = String::from_utf8(command::read(&root.join(layout))?)?;
    let layout = Layout::parse(&text).with_context(|| layout.display().to_string())?;
    let core = CoreImage::from_elf(&command::read(&target.join(CORE))?)?;
    let runtime = command::read(&target.join(RUNTIME))?;
    Ok(assemble(&layout, &Contents { core: &core, runtime: &runtime, shell })?)
}
