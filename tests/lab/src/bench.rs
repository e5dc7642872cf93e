//! The benchmark: guests that measure themselves, all of one run in one dom0, and what their figures say.
//!
//! Each start is three PVH guests: [the test program](../../guest/src/bin/bench.rs) loaded by the firmware, Debian's kernel
//! started by libxl without firmware, and the same kernel through firmware and systemd-boot; and five HVM guests: program and
//! systemd-boot again, systemd-boot from the emulated disk, GRUB, and GRUB through SeaBIOS. The disks of all hold the same
//! files but for the boot loaders'. Guests print lines `BENCH name value unit`; what only the outside can see (create to
//! power-off) is timed here. [`figures`] turns it all into a table, ratios and targets.
//!
//! [`variables`] and [`idle_guests`] are benchmarks of their own: of variables, and of the daemon in dom0 that keeps them.

pub mod figures;
pub mod full_store;
pub mod idle_guests;
pub mod variables;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use regex::bytes::Regex;

use crate::command;
use crate::disk::{Disk, Table};
use crate::dom0::Dom0;
use crate::file::{Content, Made};
use crate::guest::{Config, DiskFile, Guest, Kind, Shutdown, send_disk};
use crate::runner::unique_name;
use crate::session::Lab;
use figures::Samples;

/// The init of the Linux guests.
const GUEST_INIT: &str = include_str!("../guest/bench-init");
/// Size of the file that is read.
const DATA_SIZE: usize = 64 << 20;
/// Size of the disks, MiB: the file, kernel, initial RAM disk and room.
const DISK_SIZE: u64 = 160;
/// What GRUB does, for BIOS and UEFI alike.
const GRUB_CONFIGURATION: &str = "linux /linux console=hvc0\ninitrd /initrd\nboot\n";
const POLL: Duration = Duration::from_millis(10);
const GUEST_TIMEOUT: Duration = Duration::from_secs(240);
const SEND_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a start is tried again when a guest of it failed.
const RETRIES: u32 = 1;
/// Where dom0 keeps what all guests use.
const FOLDER: &str = "/var/lab/bench";

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The firmware, `OVMF.fd` under whatever name.
    pub firmware: PathBuf,
    /// The test program, `bench.efi`.
    pub program: PathBuf,
    /// How often everything is started.
    pub starts: u32,
    /// Whether Linux is started too; without it there are no yardsticks.
    pub yardsticks: bool,
    /// Whether HVM guests are measured.
    pub hvm: bool,
    /// Memory of the guests, MiB.
    pub memory: u64,
    /// `cmdline=` of the firmware.
    pub command_line: String,
    /// Where logs go.
    pub output: PathBuf,
}

/// Runs the benchmark on `dom0`.
///
/// # Errors
/// A guest failed twice, or the lab itself failed.
pub fn run(lab: &Lab, dom0: &Dom0, plan: &Plan) -> Result<Samples> {
    let bench = Bench { lab, dom0, plan };
    eprintln!("bench: making disks");
    bench.send_files()?;
    let mut samples = Samples::default();
    for start in 1..=plan.starts {
        for kind in bench.kinds() {
            eprintln!("bench: start {start} of {}: {}", plan.starts, kind.title());
            samples.add(bench.measure(kind, start)?);
        }
    }
    dom0.run(&format!("rm -rf {FOLDER}\n"), SEND_TIMEOUT)?;
    Ok(samples)
}

/// One of the guests of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Program,
    Direct,
    Loader,
    HvmProgram,
    HvmLoader,
    HvmEmulated,
    HvmGrub,
    SeaBios,
}

/// All guests of a start, in this order.
const SUBJECTS: [Subject; 8] = [
    Subject::Program,
    Subject::Direct,
    Subject::Loader,
    Subject::HvmProgram,
    Subject::HvmLoader,
    Subject::HvmEmulated,
    Subject::HvmGrub,
    Subject::SeaBios,
];

impl Subject {
    fn title(self) -> &'static str {
        match self {
            Self::Program => "test program through the firmware",
            Self::Direct => "Linux without firmware",
            Self::Loader => "Linux through firmware and systemd-boot",
            Self::HvmProgram => "HVM, test program through the firmware",
            Self::HvmLoader => "HVM, Linux through firmware and systemd-boot",
            Self::HvmEmulated => "HVM, the same from the emulated disk",
            Self::HvmGrub => "HVM, Linux through firmware and GRUB",
            Self::SeaBios => "HVM, Linux through SeaBIOS and GRUB",
        }
    }

    /// What its figures' names begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Direct => "direct",
            Self::Loader => "loader",
            Self::HvmProgram => "hvm-program",
            Self::HvmLoader => "hvm-loader",
            Self::HvmEmulated => "hvm-emulated",
            Self::HvmGrub => "hvm-grub",
            Self::SeaBios => "seabios-grub",
        }
    }

    /// The file of its disk in [`FOLDER`].
    fn disk(self) -> &'static str {
        match self {
            Self::Program | Self::Direct | Self::HvmProgram => "program.img",
            Self::Loader | Self::HvmLoader | Self::HvmEmulated => "loader.img",
            Self::HvmGrub | Self::SeaBios => "grub.img",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Program | Self::Direct | Self::Loader => Kind::Pvh,
            _ => Kind::Hvm,
        }
    }

    fn is_linux(self) -> bool {
        !matches!(self, Self::Program | Self::HvmProgram)
    }
}

struct Bench<'a> {
    lab: &'a Lab,
    dom0: &'a Dom0,
    plan: &'a Plan,
}

impl Bench<'_> {
    fn kinds(&self) -> impl Iterator<Item = Subject> {
        let Plan { yardsticks, hvm, .. } = *self.plan;
        SUBJECTS
            .into_iter()
            .filter(move |subject| (yardsticks || !subject.is_linux()) && (hvm || subject.kind() == Kind::Pvh))
    }

    /// Makes firmware, kernel, initial RAM disk and disks in dom0, once for all guests.
    fn send_files(&self) -> Result<()> {
        let sources = &self.lab.sources;
        let share = self.dom0.share("bench");
        fs::create_dir_all(&share)?;
        let initrd = sources.image.guest_parts().archive(GUEST_INIT)?;
        command::write(&share.join("firmware"), command::read(&self.plan.firmware)?)?;
        command::write(&share.join("linux"), sources.source("linux")?)?;
        command::write(&share.join("initrd"), &initrd)?;
        let mut script = format!(
            "set -e\nmkdir -p {FOLDER}\ncd {FOLDER}\nfrom=/lab/bench\ncp $from/firmware $from/linux $from/initrd .\n"
        );
        let data = sources.scratch.join("bench.dat");
        command::write(&data, noise(DATA_SIZE))?;
        let initrd_file = share.join("initrd");
        for (number, subject) in [Subject::Program, Subject::Loader, Subject::HvmGrub].into_iter().enumerate() {
            if !self.kinds().any(|kind| kind.disk() == subject.disk()) {
                continue;
            }
            let path = sources.scratch.join("bench.img");
            self.disk(subject, &data, &initrd_file).write(&path, sources)?;
            let file = DiskFile::new(path);
            script.push_str(&send_disk(&file, number, &share)?);
            script.push_str(&format!("mv disk{number}.img {}\n", subject.disk()));
        }
        // Nothing is to be written back while guests are measured.
        script.push_str("sync\n");
        self.dom0.run_well(&script, SEND_TIMEOUT)?;
        fs::remove_dir_all(&share)?;
        Ok(())
    }

    fn disk(&self, subject: Subject, data: &Path, initrd: &Path) -> Disk {
        let host = |path: &Path| Content::Source(format!("host:{}", path.display()));
        let text = |text: &str| Content::Made(Made::Text(text.to_owned()));
        let boot = match subject {
            Subject::HvmGrub => Content::Source("program:grub".to_owned()),
            Subject::Loader => Content::Source("program:systemd-boot".to_owned()),
            _ => host(&self.plan.program),
        };
        let entry = "title Linux\nlinux /linux\ninitrd /initrd\noptions console=ttyS0 console=hvc0\n";
        let files = BTreeMap::from([
            ("EFI/BOOT/BOOTX64.EFI".to_owned(), boot),
            ("BENCH.DAT".to_owned(), host(data)),
            ("loader/loader.conf".to_owned(), text("timeout 0\ndefault linux.conf\n")),
            ("loader/entries/linux.conf".to_owned(), text(entry)),
            ("EFI/debian/grub.cfg".to_owned(), text(GRUB_CONFIGURATION)),
            ("linux".to_owned(), Content::Source("linux".to_owned())),
            ("initrd".to_owned(), host(initrd)),
        ]);
        let is_grub = subject == Subject::HvmGrub;
        let table = if is_grub { Table::Mbr } else { Table::Gpt };
        Disk { size: DISK_SIZE, files, table, bios_grub: is_grub, ..Disk::default() }
    }

    fn measure(&self, subject: Subject, start: u32) -> Result<Samples> {
        measure(subject.title(), &self.plan.output, |retry| {
            let config = self.config(subject, start, retry);
            let prepare = self.prepare(subject, &config)?;
            attempt(
                self.dom0,
                config,
                &prepare,
                subject.prefix(),
                &self.plan.output.join(format!("{}-{start}", subject.prefix())),
            )
        })
        .map(|(mut samples, retries)| {
            samples.put(&format!("{}.retries", subject.prefix()), "-", f64::from(retries));
            samples
        })
    }

    fn config(&self, subject: Subject, start: u32, retry: u32) -> Config {
        let direct = subject == Subject::Direct;
        let is_hvm = subject.kind() == Kind::Hvm;
        // The firmware takes its words from hvmloader's OEM strings where there is no kernel to have a command line.
        let words = format!("smbios=[\"oem={}\"]", self.plan.command_line);
        let name = unique_name(&format!("bench-{}-{start}", subject.prefix()), retry);
        Config {
            firmware: (is_hvm && subject != Subject::SeaBios).then(PathBuf::new),
            kernel: (!is_hvm).then(PathBuf::new),
            ramdisk: direct.then(PathBuf::new),
            command_line: match subject {
                Subject::Direct => Some("console=hvc0".to_owned()),
                _ => (!is_hvm).then(|| self.plan.command_line.clone()),
            },
            extra: match subject {
                Subject::HvmEmulated => vec![words, "xen_platform_pci=0".to_owned()],
                // SeaBIOS reads IDE disks a word at a time, minutes for a kernel where each word leaves the guest; AHCI by DMA.
                Subject::SeaBios => vec![words, "hdtype=\"ahci\"".to_owned()],
                _ if is_hvm => vec![words],
                _ => Vec::new(),
            },
            disks: vec![DiskFile::new(PathBuf::new())],
            ..Config::new(name, subject.kind(), self.plan.memory)
        }
    }

    /// The guest's folder in dom0 has links to the files that are there already.
    fn prepare(&self, subject: Subject, config: &Config) -> Result<String> {
        command::write(&self.dom0.share("bench.cfg"), config.text())?;
        let kernel = if subject == Subject::Direct { "linux" } else { "firmware" };
        Ok(format!(
            "cp /lab/bench.cfg xl.cfg\nln -s {FOLDER}/{kernel} kernel\nln -s {FOLDER}/initrd ramdisk\n\
             ln -s {FOLDER}/firmware firmware\nln -s {FOLDER}/{} disk0.img\n",
            subject.disk()
        ))
    }
}

/// Measures a guest by `attempt`, again when it failed; with how often that was. `attempt` gets the number of the attempt.
fn measure(
    title: &str,
    output: &Path,
    attempt: impl Fn(u32) -> Result<Result<Samples, String>>,
) -> Result<(Samples, u32)> {
    let mut retries = 0;
    loop {
        match attempt(retries)? {
            Ok(samples) => return Ok((samples, retries)),
            Err(reason) if retries < RETRIES => eprintln!("bench: again, as {reason}"),
            Err(reason) => bail!("{title}: {reason}; logs in {}", output.display()),
        }
        retries += 1;
    }
}

/// Runs a guest to its power-off; the names of what it tells get `prefix`. The outer error is the lab's, the inner one the
/// guest's.
fn attempt(dom0: &Dom0, config: Config, prepare: &str, prefix: &str, logs: &Path) -> Result<Result<Samples, String>> {
    let created = Instant::now();
    let mut guest = match Guest::create_prepared(dom0, config, prepare)? {
        Ok(guest) => guest,
        Err(reason) => return Ok(Err(reason)),
    };
    let outcome = watch(&mut guest, prefix, created);
    guest.poll()?;
    guest.collect_logs(logs)?;
    let text = guest.console.text();
    guest.destroy()?;
    dom0.check()?;
    Ok(outcome?.and_then(|mut samples| {
        samples.read(prefix, &text);
        let complete = samples.take(&format!("{prefix}.end"));
        match text.lines().find(|line| line.contains("GUEST-FAIL")) {
            Some(line) => Err(line.to_owned()),
            None if complete => Ok(samples),
            None => Err("the guest ended before it was done".to_owned()),
        }
    }))
}

/// Follows a guest to its power-off and times what can be seen from outside.
fn watch(guest: &mut Guest<'_>, prefix: &str, created: Instant) -> Result<Result<Samples, String>> {
    let userspace = Regex::new("BENCH userspace")?;
    let (mut first_line, mut in_userspace) = (None, None);
    let ended = loop {
        let ended = guest.poll()?;
        if first_line.is_none() && !guest.console.is_empty() {
            first_line = Some(created.elapsed());
        }
        if in_userspace.is_none() && guest.console.contains(&userspace).is_some() {
            in_userspace = Some(created.elapsed());
        }
        if let Some(how) = ended {
            break how;
        }
        if created.elapsed() > GUEST_TIMEOUT {
            return Ok(Err(format!("it did not end within {} s", GUEST_TIMEOUT.as_secs())));
        }
        std::thread::sleep(POLL);
    };
    let total = created.elapsed();
    if ended != Shutdown::Poweroff {
        return Ok(Err(format!("it ended with {ended:?}")));
    }
    // xenconsoled may still be writing.
    std::thread::sleep(Duration::from_millis(300));
    let mut samples = Samples::default();
    let mut put = |name: &str, time: Duration| {
        samples.put(&format!("{prefix}.{name}"), "s", time.as_secs_f64());
    };
    put("create_to_poweroff", total);
    if let Some(time) = first_line {
        put("create_to_first_line", time);
    }
    if let (Some(first), Some(time)) = (first_line, in_userspace) {
        put("create_to_userspace", time);
        put("first_line_to_userspace", time.saturating_sub(first));
    }
    Ok(Ok(samples))
}

/// Bytes that neither repeat nor compress, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
