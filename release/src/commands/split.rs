//! `ovmf-xen split`: a combined image into code and variables.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use super::Outcome;
use crate::{digest, files};

/// Splits a combined image into OVMF_CODE.fd and OVMF_VARS.fd; `join` puts them together again, byte for byte.
///
/// Of an image as it was built these are the files of that name beside it. Images of EDK2 are split as well.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The combined image
    image: PathBuf,
    /// Directory to write the two files to; made if missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// The image cannot be read or split, or a file cannot be written.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let image = files::read(&arguments.image)?;
    let named = |path: &Path| path.display().to_string();
    let (code, variables) = image::join::split(&image).with_context(|| named(&arguments.image))?;
    fs::create_dir_all(&arguments.out).with_context(|| named(&arguments.out))?;
    for (name, bytes) in [("OVMF_CODE.fd", code), ("OVMF_VARS.fd", variables)] {
        let path = arguments.out.join(name);
        files::replace(&path, &bytes)?;
        println!("{}  {:>8} bytes  {}", digest::sha256(&bytes), bytes.len(), named(&path));
    }
    Ok(Outcome::Success)
}
