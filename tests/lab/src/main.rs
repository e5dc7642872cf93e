//! The command `lab`: boot tests on the real hypervisor.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use lab::bench;
use lab::cache::Cache;
use lab::fleet;
use lab::guest::{Config, DiskFile, Guest, Kind};
use lab::here::Here;
use lab::machine::{Machine, Wanted};
use lab::report::Report;
use lab::runner;
use lab::scenario::{self, Scenario};
use lab::screen::text::Font;
use lab::session::Lab;

/// Boots guests on the real Xen hypervisor inside QEMU and checks what they say.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "The cache is $OVMF_XEN_CACHE, else ~/.cache/ovmf-xen. OVMF_XEN_ACCEL=tcg or =kvm \
overrides the probe of /dev/kvm."
)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists the scenarios.
    List,
    /// Runs scenarios (all when none is named) and reports.
    Run(Run),
    /// Starts Xen and dom0 and leaves them up, for `try`, `run`, `shell`.
    Up(Up),
    /// Ends the machine that `up` left.
    Down,
    /// Boots one guest with an ESP made from a folder and streams its console and its debug lines.
    Try(Try),
    /// Runs a shell command in dom0, or an interactive shell.
    Shell {
        /// The command; an interactive shell when it is missing.
        command: Vec<String>,
    },
    /// Plays scenarios with EDK2's firmware in plain QEMU: whether disks and expectations are right, without Xen and
    /// without the firmware under test. What only Xen or our firmware says is not seen there.
    Reference {
        /// Scenarios; a name may end in `*`.
        names: Vec<String>,
    },
    /// Makes a scenario's disks in a folder, without booting anything.
    Disks {
        /// The scenario.
        name: String,
        /// The folder.
        folder: PathBuf,
    },
    /// Measures the firmware, or what variables cost; `tests/bench` builds what it needs.
    Bench(Bench),
    /// Lists the EFI programs and variable stores from Debian that scenarios can use, and where they are.
    Programs,
    /// Makes in the cache what is missing, and fetches the package index anew.
    Update,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Scenarios; a name may end in `*`.
    names: Vec<String>,
    /// The firmware: OVMF.fd, or the folder it is in.
    #[arg(long, default_value_os_t = default_firmware())]
    image: PathBuf,
    /// Where logs and report.json go.
    #[arg(long, default_value_os_t = root().join("out/lab"))]
    output: PathBuf,
    /// Machines at once, each of which needs 2 GiB more than the biggest guest. Emulated, one keeps a processor busy.
    #[arg(long, default_value_t = 1)]
    machines: usize,
    /// Starts no machine and uses no Debian package: this is a dom0, and what scenarios are made from is in this folder
    /// (tests/lab/src/here.rs says how).
    #[arg(long, value_name = "PARTS")]
    here: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The firmware from inside, with Linux and SeaBIOS beside it.
    Firmware,
    /// SetVariable and GetVariable, in the firmware's memory and through the daemon in dom0.
    Variables,
    /// Starts with a full variable store and with an empty one, by turns.
    FullStore,
    /// The daemon's memory with many guests attached.
    IdleGuests,
}

#[derive(Debug, clap::Args)]
struct Bench {
    /// What is measured.
    #[arg(value_enum, default_value = "firmware")]
    part: Part,
    /// The firmware: OVMF.fd, or the folder it is in.
    #[arg(long, default_value_os_t = default_firmware())]
    image: PathBuf,
    /// The folder with the test programs `bench.efi` and `variables.efi`.
    #[arg(long)]
    programs: PathBuf,
    /// How many guests `idle-guests` attaches.
    #[arg(long, default_value_t = 100)]
    guests: u32,
    /// How often everything is started.
    #[arg(long, default_value_t = 4)]
    starts: u32,
    /// PVH guests only.
    #[arg(long)]
    pvh: bool,
    /// Starts no Linux: no yardsticks, a quarter of the time.
    #[arg(long)]
    quick: bool,
    /// Memory of the guests, MiB.
    #[arg(long, default_value_t = 512)]
    memory: u64,
    /// `cmdline=` of the firmware.
    #[arg(long, default_value = "ovmf.timeline")]
    cmdline: String,
    /// How long a build from clean took, to be reported with the rest.
    #[arg(long)]
    build_seconds: Option<f64>,
    /// Where logs, samples.json and report.json go.
    #[arg(long, default_value_os_t = root().join("out/bench"))]
    output: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Up {
    /// Memory for the biggest guest, MiB.
    #[arg(long, default_value_t = 2048)]
    memory: u64,
    /// With a TPM, for `try --tpm` and scenarios that need one; takes the program swtpm.
    #[arg(long)]
    tpm: bool,
}

#[derive(Debug, clap::Args)]
struct Try {
    /// The firmware.
    #[arg(long, default_value_os_t = default_firmware())]
    image: PathBuf,
    /// The folder whose content becomes the ESP; no disk when it is missing.
    #[arg(long)]
    files: Option<PathBuf>,
    /// Puts this program (such as systemd-boot, shell, grub) at \EFI\BOOT\BOOTX64.EFI.
    #[arg(long)]
    program: Option<String>,
    /// Takes disks, memory, command line from this scenario instead (its steps are not done).
    #[arg(long)]
    scenario: Option<String>,
    /// Ends the guest after this many seconds.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Memory, MiB.
    #[arg(long, default_value_t = 512)]
    memory: u64,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
    /// `cmdline=` of the guest.
    #[arg(long)]
    cmdline: Option<String>,
    /// An HVM guest instead of a PVH one.
    #[arg(long)]
    hvm: bool,
    /// SeaBIOS instead of the firmware, for an HVM guest.
    #[arg(long)]
    seabios: bool,
    /// Adds a CD with this image, behind the other disks.
    #[arg(long)]
    cdrom: Option<PathBuf>,
    /// A serial port for an HVM guest; its lines are shown behind "com1|".
    #[arg(long)]
    serial: bool,
    /// Gives the guest the machine's TPM.
    #[arg(long)]
    tpm: bool,
    /// One more line of xl.cfg, such as 'vga="cirrus"'.
    #[arg(long)]
    extra: Vec<String>,
    /// Takes a picture of the screen before the guest is ended: screen.png among its logs, and screen.txt, the text on it.
    #[arg(long)]
    screenshot: bool,
    /// Pressed on the emulated keyboard: PATTERN=KEYS, once the console shows PATTERN; keys as QEMU names them, with blanks
    /// between them, as in "Shell> =v e r ret".
    #[arg(long)]
    press: Vec<String>,
    /// Ends the guest as soon as its console shows this pattern.
    #[arg(long)]
    until: Option<String>,
    /// Typed on the console: PATTERN=TEXT, typed once the console shows PATTERN; `\r` is the enter key.
    #[arg(long)]
    send: Vec<String>,
    /// Shows all of the hypervisor's lines, not only the guest's debug output.
    #[arg(long)]
    verbose: bool,
    /// Where the guest's logs go.
    #[arg(long, default_value_os_t = root().join("out/lab/try"))]
    output: PathBuf,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Action::List => list(),
        Action::Run(run) => self::run(&run),
        Action::Up(up) => self::up(&up),
        Action::Down => down(),
        Action::Try(arguments) => try_guest(&arguments),
        Action::Shell { command } => shell(&command),
        Action::Reference { names } => reference(&names),
        Action::Disks { name, folder } => disks(&name, &folder),
        Action::Bench(arguments) => measure(&arguments),
        Action::Programs => programs(),
        Action::Update => update(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn list() -> Result<bool> {
    for scenario in scenario::read_all(&scenarios())? {
        let when = if scenario.is_on_request() { " (only when named)" } else { "" };
        println!("{:45} {}{when}", scenario.name, scenario.description);
    }
    Ok(true)
}

fn run(arguments: &Run) -> Result<bool> {
    if let Some(parts) = &arguments.here {
        return run_here(parts, arguments);
    }
    let scenarios = select(&scenarios(), &arguments.names)?;
    let lab = Lab::open(firmware_folder(&arguments.image)?)?;
    fs::create_dir_all(&arguments.output)?;
    let mut report = Report::default();
    let (guests, plain): (Vec<_>, Vec<_>) = scenarios.iter().partition(|scenario| scenario.needs_xen());
    for scenario in plain {
        report.add(runner::play(scenario, &lab.sources, None, &arguments.output));
    }
    fleet::play(&lab, &guests, arguments.machines, &arguments.output, &mut report)?;
    report.finish(&arguments.output)?;
    Ok(report.failed == 0)
}

fn run_here(parts: &Path, arguments: &Run) -> Result<bool> {
    let scenarios = select(&parts.join("scenarios"), &arguments.names)?;
    let here = Here::open(parts, firmware_folder(&arguments.image)?)?;
    fs::create_dir_all(&arguments.output)?;
    let mut report = Report::default();
    for scenario in scenarios.iter().filter(|scenario| scenario.needs_xen()) {
        report.add(runner::play(scenario, &here.sources, Some(&here.dom0), &arguments.output));
    }
    report.finish(&arguments.output)?;
    Ok(report.failed == 0)
}

fn up(arguments: &Up) -> Result<bool> {
    let lab = Lab::open(default_firmware_folder())?;
    if let Some(machine) = Machine::left_up(&lab.cache) {
        eprintln!("lab: already up, with {} MiB for guests", machine.guest_memory());
        return Ok(true);
    }
    lab.start(Wanted { guest_memory: arguments.memory, has_tpm: arguments.tpm, stays_up: true, number: 0 })?;
    Ok(true)
}

fn down() -> Result<bool> {
    match Machine::left_up(&Cache::open()?) {
        Some(machine) => machine.stop()?,
        None => eprintln!("lab: nothing is up"),
    }
    Ok(true)
}

fn try_guest(arguments: &Try) -> Result<bool> {
    let lab = Lab::open(firmware_folder(&arguments.image)?)?;
    let config = try_config(&lab, arguments)?;
    let until = arguments.until.as_deref().map(regex::bytes::Regex::new).transpose()?;
    let sends = arguments.send.iter().map(|send| parse_send(send)).collect::<Result<Vec<_>>>()?;
    let mut sends = sends.into_iter();
    let presses = arguments.press.iter().map(|press| parse_send(press)).collect::<Result<Vec<_>>>()?;
    let mut presses = presses.into_iter();
    let (dom0, _lock) =
        lab.connect(lab.machine(Wanted { guest_memory: config.memory, has_tpm: config.tpm, ..Wanted::default() })?)?;
    let mut guest = Guest::create(&dom0, config)?.map_err(anyhow::Error::msg)?;
    let started = Instant::now();
    let mut next = sends.next();
    let mut next_press = presses.next();
    let reason = loop {
        let ended = guest.poll()?;
        show(&mut guest, arguments.verbose);
        if let Some((pattern, text)) = &next
            && guest.console.expect(pattern).is_some()
        {
            guest.send(text)?;
            next = sends.next();
        }
        if let Some((pattern, keys)) = &next_press
            && guest.console.expect(pattern).is_some()
        {
            guest.press(&keys.split_whitespace().map(str::to_owned).collect::<Vec<_>>())?;
            next_press = presses.next();
        }
        if let Some(how) = ended {
            std::thread::sleep(Duration::from_millis(300));
            guest.poll()?;
            show(&mut guest, arguments.verbose);
            break format!("domain ended: {how:?}");
        }
        if until.as_ref().is_some_and(|until| guest.console.contains(until).is_some()) {
            break "seen what was waited for".to_owned();
        }
        if started.elapsed() > Duration::from_secs(arguments.timeout) {
            break format!("still running, last line: {}", guest.console.last_lines(1));
        }
        dom0.check()?;
        std::thread::sleep(Duration::from_millis(50));
    };
    eprintln!("lab: after {:.1} s {reason}; logs in {}", started.elapsed().as_secs_f32(), arguments.output.display());
    if arguments.screenshot {
        take_picture(&guest, &arguments.output)?;
    }
    guest.collect_logs(&arguments.output)?;
    guest.destroy()?;
    Ok(true)
}

fn take_picture(guest: &Guest<'_>, folder: &Path) -> Result<()> {
    let picture = guest.screen()?;
    let font = Font::from_psf(spleen_font::FONT_8X16)?;
    let text = font.read(&picture, picture.width / 8, picture.height / 16);
    eprintln!("lab: the screen is {} x {}, of {} colours", picture.width, picture.height, picture.colours());
    picture.write_png(&folder.join("screen.png"))?;
    fs::write(folder.join("screen.txt"), text.join("\n") + "\n")?;
    Ok(())
}

fn show(guest: &mut Guest<'_>, verbose: bool) {
    for line in guest.hypervisor.fresh() {
        if verbose || line.contains("(d") {
            println!("xen| {line}");
        }
    }
    for line in guest.serial.fresh() {
        println!("com1| {line}");
    }
    for line in guest.console.fresh() {
        println!("{line}");
    }
}

/// `PATTERN=TEXT`.
fn parse_send(text: &str) -> Result<(regex::bytes::Regex, String)> {
    let (pattern, text) = text.split_once('=').context("--send takes PATTERN=TEXT")?;
    Ok((regex::bytes::Regex::new(pattern)?, text.replace("\\r", "\r").replace("\\e", "\x1b")))
}

fn try_config(lab: &Lab, arguments: &Try) -> Result<Config> {
    let name = runner::unique_name("try", 0);
    let mut config = match &arguments.scenario {
        Some(scenario) => {
            let mut config = runner::config(&only(scenario)?, name, &lab.sources)?;
            config.command_line = arguments.cmdline.clone().or(config.command_line);
            config
        }
        None => Config {
            vcpus: arguments.vcpus,
            command_line: arguments.cmdline.clone(),
            serial: arguments.serial,
            tpm: arguments.tpm,
            ..Config::new(name, if arguments.hvm { Kind::Hvm } else { Kind::Pvh }, arguments.memory)
        },
    };
    let image = if arguments.image.is_dir() { arguments.image.join("OVMF.fd") } else { arguments.image.clone() };
    match config.kind {
        Kind::Hvm if arguments.seabios => config.firmware = None,
        Kind::Hvm => config.firmware = Some(image),
        Kind::Pvh if arguments.scenario.is_none() => config.kernel = Some(image),
        Kind::Pvh => {}
    }
    if arguments.files.is_some() || arguments.program.is_some() {
        let mut files = std::collections::BTreeMap::new();
        if let Some(folder) = &arguments.files {
            collect(folder, "", &mut files)?;
        }
        if let Some(program) = &arguments.program {
            let source = lab::file::Content::Source(format!("program:{program}"));
            files.insert("EFI/BOOT/BOOTX64.EFI".to_owned(), source);
        }
        let disk = lab::disk::Disk { files, size: 160, ..lab::disk::Disk::default() };
        config.disks = runner::disk_files(&[disk], &lab.sources)?;
    }
    if let Some(path) = &arguments.cdrom {
        config.disks.push(DiskFile { path: path.clone(), sector_size: 512, read_only: true, is_cdrom: true });
    }
    config.extra.extend(arguments.extra.iter().cloned());
    Ok(config)
}

fn collect(
    folder: &Path,
    prefix: &str,
    files: &mut std::collections::BTreeMap<String, lab::file::Content>,
) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files)?;
        } else {
            files.insert(name, lab::file::Content::Source(format!("host:{}", path.display())));
        }
    }
    Ok(())
}

fn shell(command: &[String]) -> Result<bool> {
    let cache = Cache::open()?;
    let machine = Machine::running(&cache).context("nothing is up: lab up")?;
    if command.is_empty() {
        return interactive(&machine).map(|()| true);
    }
    let lab = Lab::open(default_firmware_folder())?;
    let (dom0, _lock) = lab.connect(machine)?;
    let output = dom0.run(&command.join(" "), Duration::from_secs(600))?;
    print!("{}", output.text);
    Ok(output.status == 0)
}

/// Connects the terminal to dom0's shell until Ctrl-] is typed.
fn interactive(machine: &Machine) -> Result<()> {
    const LEAVE: u8 = 0x1d;
    let socket = UnixStream::connect(machine.path("shell.sock"))?;
    let terminal = std::io::stdin().is_terminal();
    eprintln!("lab: dom0's shell; Ctrl-] leaves");
    if terminal {
        Command::new("stty").args(["raw", "-echo"]).status()?;
    }
    let mut from = socket.try_clone()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut out = std::io::stdout();
            if out.write_all(&buffer[..count]).and_then(|()| out.flush()).is_err() {
                break;
            }
        }
    });
    let mut buffer = [0; 256];
    (&socket).write_all(b"\r")?;
    while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
        if buffer[..count].contains(&LEAVE) {
            break;
        }
        (&socket).write_all(&buffer[..count])?;
    }
    if terminal {
        Command::new("stty").arg("sane").status()?;
    }
    Ok(())
}

fn reference(names: &[String]) -> Result<bool> {
    let lab = Lab::open(default_firmware_folder())?;
    let output = root().join("out/lab/reference");
    let mut report = Report::default();
    for scenario in select(&scenarios(), names)? {
        report.add(runner::play(&scenario.as_reference(), &lab.sources, None, &output));
    }
    report.finish(&output)?;
    Ok(report.failed == 0)
}

fn disks(name: &str, folder: &Path) -> Result<bool> {
    let scenario = only(name)?;
    let lab = Lab::open(default_firmware_folder())?;
    fs::create_dir_all(folder)?;
    for (number, disk) in scenario.disks.iter().enumerate() {
        let path = folder.join(format!("disk{number}.img"));
        disk.write(&path, &lab.sources)?;
        println!("{}", path.display());
    }
    Ok(true)
}

fn measure(arguments: &Bench) -> Result<bool> {
    let lab = Lab::open(firmware_folder(&arguments.image)?)?;
    fs::create_dir_all(&arguments.output)?;
    let image = &arguments.image;
    let plan = bench::Plan {
        firmware: if image.is_dir() { image.join("OVMF.fd") } else { image.clone() },
        program: arguments.programs.join(match arguments.part {
            Part::Firmware => "bench.efi",
            _ => "variables.efi",
        }),
        starts: arguments.starts,
        yardsticks: !arguments.quick,
        hvm: !arguments.pvh,
        memory: arguments.memory,
        command_line: arguments.cmdline.clone(),
        output: arguments.output.clone(),
    };
    let guest_memory = match arguments.part {
        Part::IdleGuests => bench::idle_guests::machine_memory(arguments.guests),
        _ => arguments.memory,
    };
    let (dom0, _lock) = lab.connect(lab.machine(Wanted { guest_memory, ..Wanted::default() })?)?;
    let mut samples = match arguments.part {
        Part::Firmware => bench::run(&lab, &dom0, &plan)?,
        Part::Variables => bench::variables::services(&lab, &dom0, &plan)?,
        Part::FullStore => bench::variables::starts_with_full_store(&lab, &dom0, &plan)?,
        Part::IdleGuests => bench::idle_guests::run(&dom0, &plan, arguments.guests)?,
    };
    if let Some(seconds) = arguments.build_seconds {
        samples.put("build.clean", "s", seconds);
    }
    let report = samples.report();
    fs::write(arguments.output.join("samples.json"), serde_json::to_vec_pretty(&samples)?)?;
    fs::write(arguments.output.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    print!("{}", report.table());
    Ok(true)
}

fn programs() -> Result<bool> {
    let lab = Lab::open(default_firmware_folder())?;
    for name in lab::programs::names() {
        println!("{name:20} {}", lab.sources.programs.path(name)?.display());
    }
    Ok(true)
}

fn update() -> Result<bool> {
    lab::packages::Apt::open(&Cache::open()?)?.update()?;
    Lab::open(default_firmware_folder())?;
    Ok(true)
}

fn select(folder: &Path, names: &[String]) -> Result<Vec<Scenario>> {
    let all = scenario::read_all(folder)?;
    if names.is_empty() {
        return Ok(all.into_iter().filter(|scenario| !scenario.is_on_request()).collect());
    }
    for name in names {
        if !all.iter().any(|scenario| matches(name, &scenario.name)) {
            bail!("no scenario {name}: see `lab list`");
        }
    }
    Ok(all.into_iter().filter(|scenario| names.iter().any(|name| matches(name, &scenario.name))).collect())
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

fn only(name: &str) -> Result<Scenario> {
    select(&scenarios(), &[name.to_owned()])?.into_iter().next().context("no scenario")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

fn scenarios() -> PathBuf {
    root().join("tests/scenarios")
}

fn default_firmware_folder() -> PathBuf {
    root().join("out/ovmf-xen-pvh/FV")
}

fn default_firmware() -> PathBuf {
    default_firmware_folder().join("OVMF.fd")
}

fn firmware_folder(image: &Path) -> Result<PathBuf> {
    let folder = if image.is_dir() { Some(image) } else { image.parent() };
    folder.map(Path::to_owned).context("the image is in no folder")
}
