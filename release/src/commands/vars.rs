//! `ovmf-xen vars`: the variables of an image or store.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use uefi_raw::Guid;

use super::Outcome;
use crate::files::{self, printable};
use crate::guids;
use crate::var_store::{self, VarStore};

/// Bytes of a variable that the list shows without `--data`.
const SHOWN: usize = 32;

/// Lists and changes the variables of an image (OVMF.fd) or variable store (OVMF_VARS.fd).
///
/// The file must not be in use by a running guest's variable service. Names of vendors and their GUIDs are both understood.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Lists all variables with vendor, attributes, time stamp and data
    List {
        /// The image or store
        file: PathBuf,
        /// Write JSON, as `virt-fw-vars --output-json` does, instead of text
        #[arg(long)]
        json: bool,
        /// Show all of the data
        #[arg(long)]
        data: bool,
    },
    /// Writes a variable's data to standard output, or to a file
    Get {
        /// The image or store
        file: PathBuf,
        /// The variable
        name: String,
        /// Its vendor; not needed where there is only one variable of that name
        #[arg(long, value_parser = guids::parse)]
        guid: Option<Guid>,
        /// Write it there
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Write it in hexadecimal digits
        #[arg(long)]
        hex: bool,
    },
    /// Makes or replaces a variable
    Set {
        /// The image or store, which is changed in place
        file: PathBuf,
        /// The variable
        name: String,
        /// Its vendor; without it that of the variable there is, else EfiGlobalVariable
        #[arg(long, value_parser = guids::parse)]
        guid: Option<Guid>,
        /// Its attributes, such as NV+BS+RT; without it those of the variable there is, else NV+BS+RT
        #[arg(long, value_parser = var_store::parse_attributes)]
        attributes: Option<u32>,
        #[command(flatten)]
        data: Data,
    },
    /// Deletes a variable
    Delete {
        /// The image or store, which is changed in place
        file: PathBuf,
        /// The variable
        name: String,
        /// Its vendor; not needed where there is only one variable of that name
        #[arg(long, value_parser = guids::parse)]
        guid: Option<Guid>,
    },
}

/// Where a variable's data comes from.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Data {
    /// The data in hexadecimal digits
    #[arg(long, value_name = "DIGITS")]
    hex: Option<String>,
    /// The data as the content of a file
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The data as text, without a final zero
    #[arg(long)]
    text: Option<String>,
}

impl Data {
    fn bytes(&self) -> Result<Vec<u8>> {
        match (&self.hex, &self.from, &self.text) {
            (Some(digits), ..) => hex::decode(digits.replace([' ', ':', '\n'], "")).context("--hex"),
            (_, Some(path), _) => files::read(path),
            (_, _, text) => Ok(text.clone().unwrap_or_default().into_bytes()),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read, or what is asked for is not there or cannot be done.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    match &arguments.command {
        Command::List { file, json: true, .. } => {
            files::print(serde_json::to_string_pretty(&open(file)?.list())? + "\n")?;
        }
        Command::List { file, data, .. } => files::print(list(&open(file)?, *data))?,
        Command::Get { file, name, guid, out, hex } => {
            let mut data = open(file)?.find(name, *guid).with_context(|| file.display().to_string())?.data;
            if *hex {
                data = format!("{}\n", hex::encode(data)).into_bytes();
            }
            match out {
                Some(path) => files::replace(path, &data)?,
                None => files::print(&data)?,
            }
        }
        Command::Set { file, name, guid, attributes, data } => {
            let data = data.bytes()?;
            change(file, |store| store.set(name, *guid, *attributes, &data))?;
        }
        Command::Delete { file, name, guid } => change(file, |store| store.delete(name, *guid))?,
    }
    Ok(Outcome::Success)
}

fn open(path: &Path) -> Result<VarStore> {
    VarStore::open(files::read(path)?).with_context(|| path.display().to_string())
}

fn change(path: &Path, change: impl FnOnce(&mut VarStore) -> Result<()>) -> Result<()> {
    let mut store = open(path)?;
    change(&mut store).with_context(|| path.display().to_string())?;
    files::replace(path, &store.into_bytes())
}

fn list(store: &VarStore, whole: bool) -> String {
    let mut out = String::new();
    for variable in store.variables() {
        let attributes = var_store::attributes_text(variable.attributes);
        let time = var_store::time_text(&variable.time_stamp).map(|time| format!("  {time}")).unwrap_or_default();
        let (vendor, name) = (guids::name(variable.guid), printable(&variable.name));
        let shown = if whole { variable.data.len() } else { variable.data.len().min(SHOWN) };
        let rest = if shown < variable.data.len() { "..." } else { "" };
        let (size, data) = (variable.data.len(), hex::encode(&variable.data[..shown]));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{vendor} {name}  {attributes}  {size} bytes{time}\n    {data}{rest}");
    }
    out
}
