//! `mkfd`: makes the firmware images from the core, the runtime driver, the layout and, where one is given, a UEFI Shell.

use anyhow::{Context as _, Result};
use clap::Parser;
use image::assemble::{self, Contents, Image};
use image::core_image::CoreImage;
use image::layout::Layout;
use image::{runtime_image, shell_image};
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
    /// A UEFI Shell for the images to carry: a PE32+ application for x86-64. The boot menu offers it
    #[arg(long, value_name = "PE")]
    shell: Option<PathBuf>,
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
    let shell = arguments.shell.as_deref().map(|path| read_shell(path).with_context(|| named(path))).transpose()?;
    let contents = Contents { core: &core, runtime: &runtime, shell: shell.as_deref() };
    let images = assemble::assemble(&layout, &contents)?;

    fs::create_dir_all(&arguments.out).with_context(|| named(&arguments.out))?;
    for image in &images {
        write(&arguments.out.join(&image.file), &image.bytes)?;
        if arguments.verbose {
            describe(image, &contents);
        }
    }
    Ok(())
}

fn read_shell(path: &Path) -> Result<Vec<u8>> {
    let shell = fs::read(path)?;
    shell_image::check(&shell)?;
    Ok(shell)
}

/// Writes a file so that its name never stands for half of it.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_added_extension("part");
    fs::write(&partial, bytes).with_context(|| partial.display().to_string())?;
    fs::rename(&partial, path).with_context(|| path.display().to_string())
}

fn describe(image: &Image, contents: &Contents<'_>) {
    println!("{}: {:#x} bytes", image.file, image.bytes.len());
    if let Some(code) = image.code {
        let (core, runtime) = (contents.core, contents.runtime.len());
        let in_memory = core.memory_size;
        println!("  core at {:#x}, {:#x} bytes ({in_memory:#x} in memory)", code.core_offset, core.bytes.len());
        println!("  runtime driver {runtime:#x} bytes; code volume {:#x} of {:#x} used", code.used, code.size);
        if let Some(shell) = contents.shell {
            println!("  UEFI Shell {:#x} bytes", shell.len());
        }
        println!("  PVH entry {:#x}", code.entry);
    }
}
