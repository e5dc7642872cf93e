//! The command `ovmf-xen-varstored`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use log::LevelFilter;
use varstored::config::{self, Config};
use varstored::daemon::{self, Daemon};
use varstored::journal;

/// Keeps the UEFI variables of Xen guests (HVM and PVH) in files, so that they last from start to start.
///
/// Runs in dom0, one for all guests, beside the toolstack: nothing in a guest's configuration is needed. A guest whose
/// firmware asks gets a store `NAME.fd` in the folder, or `UUID.fd` if there is such a file: a variable volume as OVMF has
/// it, which `ovmf-xen vars` and `virt-fw-vars` read and write while the guest is off.
#[derive(Parser)]
#[command(name = "ovmf-xen-varstored", version, after_help = AFTER)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// More messages; twice: all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

const AFTER: &str = "\
The configuration, /etc/ovmf-xen/varstored.toml, may be missing; these are its keys with their defaults:

  folder = \"/var/lib/ovmf-xen/vars\"
  template = \"/path/to/OVMF_VARS.fd\"   # what new stores are copies of; without it they are empty
  guests = \"all\"                       # or names and UUIDs: [\"web\", \"2a7c...\"]
  user = \"ovmf-varstored\"              # what root becomes; it needs no rights

Exit status: 0 it was told to end, 1 it cannot work and says why, 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    /// Serve guests until SIGTERM or SIGINT
    Serve {
        /// Another configuration
        #[arg(long, value_name = "FILE", help = format!("Another configuration than {}", config::DEFAULT_PATH))]
        config: Option<PathBuf>,
    },
    /// Let go of guests that a daemon left waiting which died and is not started again
    Release,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    journal::start(match arguments.verbose {
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    });
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("ovmf-xen-varstored: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve { config } => Daemon::start(Config::read(config.as_deref())?)?.run(),
        Command::Release => {
            let count = daemon::release()?;
            log::info!("{count} guests let go of");
            Ok(())
        }
    }
}
