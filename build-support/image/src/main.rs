//! `mkfd`: makes the firmware images from the core, the runtime driver and the layout.

use anyhow::{Context as _, Result};
use clap::Parser;
use image::assemble::{self, Image};
use image::core_image::CoreImage;
use image::layout::Layout;
use image::runtime_image;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Makes the firmware images (OVMF.fd, OVMF_CODE.fd, OVMF_VARS.fd) from the core, the runtime driver and the layout.
#[derive(Parser)]
#[command(name = "mkfd", version)]
struct Arguments {
    /// The images' layout
    #[arg(long, value_name = "TOML")]
    layout: PathBuf,
    /// The core: a static-pie ELF for x86_64-unknown-none
    #[arg(long, value_name = "ELF")]
    core: PathBuf,
    /// The runtime services driver: a PE32+ for x86_64-unknown-uefi
    #[arg(long, value_name = "PE")]
    runtime: PathBuf,
    /// Directory to write the images to; made if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Say where things are in each image
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mkfd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let named = |path: &Path| path.display().to_string();
    let text = fs::read_to_string(&arguments.layout).with_context(|| named(&arguments.layout))?;
    let layout = Layout::parse(&text).with_context(|| named(&arguments.layout))?;
    let elf = fs::read(&arguments.core).with_context(|| named(&arguments.core))?;
    let core = CoreImage::from_elf(&elf).with_context(|| named(&arguments.core))?;
    let runtime = fs::read(&arguments.runtime).with_context(|| named(&arguments.runtime))?;
    runtime_image::check(&runtime).with_context(|| named(&arguments.runtime))?;
    let images = assemble::assemble(&layout, &core, &runtime)?;

    fs::create_dir_all(&arguments.out).with_context(|| named(&arguments.out))?;
    for image in &images {
        write(&arguments.out.join(&image.file), &image.bytes)?;
        if arguments.verbose {
            describe(image, &core, runtime.len());
        }
    }
    Ok(())
}

/// Writes a file so that its name never stands for half of it.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_added_extension("part");
    fs::write(&partial, bytes).with_context(|| partial.display().to_string())?;
    fs::rename(&partial, path).with_context(|| path.display().to_string())
}

fn describe(image: &Image, core: &CoreImage, runtime: usize) {
    println!("{}: {:#x} bytes", image.file, image.bytes.len());
    if let Some(code) = image.code {
        let in_memory = core.memory_size;
        println!("  core at {:#x}, {:#x} bytes ({in_memory:#x} in memory)", code.core_offset, core.bytes.len());
        println!("  runtime driver {runtime:#x} bytes; code volume {:#x} of {:#x} used", code.used, code.size);
        println!("  PVH entry {:#x}", code.entry);
    }
}
