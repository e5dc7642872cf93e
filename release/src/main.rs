//! `ovmf-xen`: images, variable stores and releases of ovmf-xen. `--help` says more.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ovmf_xen::commands::{Outcome, audit, compare, inspect, join, pin, pins, sign, split, vars, verify};

/// Firmware images for Xen guests: take them apart, make and check releases.
#[derive(Parser)]
#[command(name = "ovmf-xen", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Audit(audit::Arguments),
    Compare(compare::Arguments),
    Inspect(inspect::Arguments),
    Join(join::Arguments),
    Pin(pin::Arguments),
    Pins(pins::Arguments),
    Sign(sign::Arguments),
    Split(split::Arguments),
    Vars(vars::Arguments),
    Verify(verify::Arguments),
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Join(arguments) => join::run(&arguments),
        Command::Pin(arguments) => pin::run(&arguments),
        Command::Pins(arguments) => pins::run(&arguments),
        Command::Sign(arguments) => sign::run(&arguments),
        Command::Split(arguments) => split::run(&arguments),
        Command::Vars(arguments) => vars::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
    }
}

fn main() -> ExitCode {
    match run(Program::parse().command) {
        Ok(outcome) => ExitCode::from(outcome.exit_status()),
        Err(error) => {
            eprintln!("ovmf-xen: {error:#}");
            ExitCode::FAILURE
        }
    }
}
