//! `ovmf-xen inspect`: what is in an image, and what is damaged.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use image::dissect::Dissection;
use serde::Serialize;

use super::Outcome;
use crate::{digest, drawing, files};

/// Shows what is in a firmware image or variable store: regions, headers, hashes, files, variables.
///
/// Images of EDK2 are shown as well. Exit status: 0 all is in order, 1 something is damaged (it is named with its offset) or
/// the file cannot be read, 2 wrong usage.
#[derive(Args, Debug)]
pub struct Arguments {
    /// OVMF.fd, OVMF_CODE.fd, OVMF_VARS.fd, or what somebody made of them
    file: PathBuf,
    /// Write JSON instead of a drawing
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    sha256: String,
    #[serde(flatten)]
    dissection: &'a Dissection,
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let image = files::read(&arguments.file)?;
    let dissection = Dissection::of(&image);
    let file = arguments.file.display().to_string();
    if arguments.json {
        let report = Report { file, sha256: digest::sha256(&image), dissection: &dissection };
        files::print(serde_json::to_string_pretty(&report)? + "\n")?;
    } else {
        files::print(drawing::draw(&file, &image, &dissection))?;
    }
    Ok(if dissection.damages.is_empty() { Outcome::Success } else { Outcome::Failure })
}
