//! `ovmf-xen join`: code and variables into a combined image.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use super::Outcome;
use crate::{digest, files};

/// Puts code and variables together into one image, as HVM guests need it: `join` of what `split` gave is the image itself.
///
/// The variables may come from anyone (virt-fw-vars, EDK2, a guest's own file), as long as they have the size of the place
/// for them. A damaged store is put in as it is; `inspect` tells.
#[derive(Args, Debug)]
pub struct Arguments {
    /// OVMF_CODE.fd
    code: PathBuf,
    /// OVMF_VARS.fd, or a guest's own variables
    vars: PathBuf,
    /// The image to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read or written, or the two do not fit.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let (code, vars) = (files::read(&arguments.code)?, files::read(&arguments.vars)?);
    let what = || format!("{} and {}", arguments.code.display(), arguments.vars.display());
    let image = image::join::join(&code, &vars).with_context(what)?;
    files::replace(&arguments.out, &image)?;
    println!("{}  {:>8} bytes  {}", digest::sha256(&image), image.len(), arguments.out.display());
    Ok(Outcome::Success)
}
