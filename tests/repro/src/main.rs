//! The command `repro`: whether the same source gives the same images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lab::command;
use repro::build::Images;
use repro::inputs::Inputs;
use repro::plant::{PLANTS, Plant};
use repro::run::{Plan, Report, run};
use repro::traces::Traces;
use repro::variation::{VARIATIONS, Variation};

/// Builds the images under variations of what should not matter, and compares.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 the same, 1 not the same (or traces found), 2 wrong usage, 3 it could not be found out."
)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists variations, and plants.
    List,
    /// Builds with all variations at once and compares; when the images differ, finds the variation that makes the difference.
    Run(Run),
    /// Searches files for paths of this machine, and for paths of sources that are not those that every build puts in.
    Traces {
        /// Images, or other files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Variations; all when none is named.
    variations: Vec<String>,
    /// One build for each variation.
    #[arg(long)]
    each: bool,
    /// Makes the firmware depend on the machine first, to see that it is noticed: see `list`.
    #[arg(long)]
    plant: Option<String>,
    /// A folder with images built from this checkout, to compare with; without it they are built.
    #[arg(long, conflicts_with = "plant")]
    reference: Option<PathBuf>,
    /// Where logs, report.json and, of a difference, images go.
    #[arg(long, default_value_os_t = root().join("out/repro"))]
    output: PathBuf,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().action {
        Action::List => {
            list();
            Ok(true)
        }
        Action::Run(run) => vary(run),
        Action::Traces { files } => traces(&files),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("repro: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn list() {
    for variation in VARIATIONS {
        let needs =
            if variation.needs.is_empty() { String::new() } else { format!(" (with {})", variation.needs.join(", ")) };
        println!("{:15} {}{needs}", variation.name, variation.what);
    }
    println!();
    for plant in PLANTS {
        println!("--plant {:15} noticed under {}", plant.name, plant.culprit);
    }
}

fn vary(arguments: Run) -> Result<bool> {
    let chosen: Result<Vec<Variation>> = arguments.variations.iter().map(|name| Variation::named(name)).collect();
    let chosen = chosen?;
    // A folder that no build's image may name, and that every user can read.
    let scratch = std::env::temp_dir().join(format!("ovmf-xen-repro-{}", std::process::id()));
    let inputs = Inputs::of_this_machine(root(), scratch.clone())?;
    let plan = Plan {
        variations: if chosen.is_empty() { VARIATIONS.to_vec() } else { chosen },
        each: arguments.each,
        plant: arguments.plant.as_deref().map(Plant::named).transpose()?,
        reference: arguments.reference.map(|folder| Images { folder, core: core(), traces: Vec::new() }),
        output: arguments.output.clone(),
    };
    let report = run(&inputs, plan);
    fs::remove_dir_all(scratch).ok();
    let report = report?;
    command::write(&arguments.output.join("report.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    show(&report);
    Ok(report.differences.is_empty())
}

fn show(report: &Report) {
    for (name, reason) in &report.left_out {
        println!("left out: {name}: {reason}");
    }
    for difference in &report.differences {
        println!("NOT THE SAME with {}", difference.variations.join(" and "));
        for line in difference.places.iter().chain(&difference.failure) {
            println!("    {line}");
        }
        if let Some(folder) = &difference.images {
            println!("    the images: {}", folder.display());
        }
    }
    if report.differences.is_empty() {
        println!("the same images with {}", report.varied.join(", "));
    }
}

fn traces(files: &[PathBuf]) -> Result<bool> {
    let inputs = Inputs::of_this_machine(root(), std::env::temp_dir())?;
    let mut traces = Traces::default();
    traces.path("checkout", &inputs.root);
    traces.path("home directory", Path::new(&std::env::var_os("HOME").context("HOME is not set")?));
    traces.path("cargo's home", &inputs.cargo_home);
    traces.path("rustup's home", &inputs.rustup_home);
    traces.path("toolchain", &inputs.sysroot);
    traces.path("target directory", &target());
    traces.text("Nix store", "/nix/store/");
    let mut clean = true;
    for file in files {
        let name = file.display().to_string();
        let found = traces.lines(&name, &command::read(file)?);
        clean &= found.is_empty();
        if found.is_empty() {
            println!("{name}: nothing of this machine");
        }
        found.iter().for_each(|line| println!("{line}"));
    }
    Ok(clean)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn core() -> PathBuf {
    target().join("x86_64-unknown-none/release/ovmf-xen-core")
}
