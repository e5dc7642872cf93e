//! Playing a scenario: make its disks, create the guest, do its steps, say how it went.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use regex::bytes::Regex;

use crate::command;
use crate::console::Log;
use crate::disk::{Disk, DiskKind};
use crate::dom0::Dom0;
use crate::file::{Content, Sources};
use crate::guest::{Config, DiskFile, Guest, Kind, Shutdown};
use crate::host_program::Profile;
use crate::plain::PlainQemu;
use crate::report::{Outcome, Verdict};
use crate::scenario::{self, Scenario};
use crate::screen::text::Font;
use crate::screen::{self, Picture};
use crate::step::{Action, Channel, Expected, Screenshot, Step};
use crate::variable_daemon;

const POLL: Duration = Duration::from_millis(50);
const BETWEEN_PICTURES: Duration = Duration::from_millis(500);
/// How often a guest that died of a known flake of the lab is started again.
const RETRIES: u32 = 1;
/// xenconsoled may still be writing when the domain is already gone.
const DRAIN: Duration = Duration::from_millis(500);
/// Lines of the console that a failure shows.
const SHOWN_LINES: usize = 25;
/// Lines of the guest's debug output that a failure shows.
const SHOWN_DEBUG_LINES: usize = 12;
/// What the firmware writes to its debug port when it cannot go on.
const FAULTS: [&str; 2] = ["FAULT:", "panicked at"];

/// The machine side of a scenario: what steps need of a guest, wherever it runs.
pub trait Subject {
    /// Takes in new output; says whether it has ended.
    ///
    /// # Errors
    /// The lab itself failed.
    fn poll(&mut self) -> Result<Option<Shutdown>>;
    /// What it writes there.
    fn log(&mut self, channel: Channel) -> &mut Log;
    /// A fault that the firmware told of elsewhere than on the console.
    fn fault(&self) -> Option<String>;
    /// Types text there.
    ///
    /// # Errors
    /// The lab itself failed.
    fn send(&mut self, channel: Channel, text: &str) -> Result<()>;
    /// Presses keys on the emulated keyboard.
    ///
    /// # Errors
    /// There is none, or it does not know a key.
    fn press(&mut self, keys: &[String]) -> Result<()>;
    /// Takes a picture of the emulated screen.
    ///
    /// # Errors
    /// There is none.
    fn screen(&mut self) -> Result<Picture>;
    /// Saves and restores.
    ///
    /// # Errors
    /// The toolstack refuses.
    fn save_and_restore(&mut self) -> Result<()>;
    /// Runs a shell script in dom0, and says what it said if it failed.
    ///
    /// # Errors
    /// The script failed, or there is no dom0.
    fn run_in_dom0(&mut self, script: &str, timeout: Duration) -> Result<()>;
}

impl Subject for Guest<'_> {
    fn poll(&mut self) -> Result<Option<Shutdown>> {
        Guest::poll(self)
    }

    fn log(&mut self, channel: Channel) -> &mut Log {
        match channel {
            Channel::Xen => &mut self.console,
            Channel::Serial => &mut self.serial,
            Channel::Log => &mut self.hypervisor,
        }
    }

    fn fault(&self) -> Option<String> {
        let text = self.hypervisor.text();
        text.lines()
            .find(|line| line.contains("(d") && FAULTS.iter().any(|fault| line.contains(fault)))
            .map(str::to_owned)
    }

    fn send(&mut self, channel: Channel, text: &str) -> Result<()> {
        match channel {
            Channel::Serial => self.send_serial(text),
            Channel::Xen | Channel::Log => Guest::send(self, text),
        }
    }

    fn press(&mut self, keys: &[String]) -> Result<()> {
        Guest::press(self, keys)
    }

    fn screen(&mut self) -> Result<Picture> {
        Guest::screen(self)
    }

    fn save_and_restore(&mut self) -> Result<()> {
        Guest::save_and_restore(self)
    }

    fn run_in_dom0(&mut self, script: &str, timeout: Duration) -> Result<()> {
        Guest::run_in_dom0(self, script, timeout)
    }
}

/// Plays one scenario, again when it died of a known flake. Logs go to a folder of its name in `logs`.
pub fn play(scenario: &Scenario, sources: &Sources, dom0: Option<&Dom0>, logs: &Path) -> Outcome {
    let started = Instant::now();
    let folder = logs.join(&scenario.name);
    let mut retries = 0;
    let verdict = loop {
        let attempt = Attempt { scenario, sources, dom0, logs: &folder, number: retries };
        match attempt.play() {
            Ok(Verdict::Flaked(_)) if retries < RETRIES => retries += 1,
            Ok(verdict) => break verdict,
            Err(error) => break Verdict::LabFailed(format!("{error:#}")),
        }
    };
    Outcome { name: scenario.name.clone(), verdict, retries, seconds: started.elapsed().as_secs_f32(), logs: folder }
}

struct Attempt<'a> {
    scenario: &'a Scenario,
    sources: &'a Sources,
    dom0: Option<&'a Dom0>,
    logs: &'a Path,
    number: u32,
}

impl Attempt<'_> {
    fn play(&self) -> Result<Verdict> {
        std::fs::create_dir_all(self.logs)?;
        match (self.scenario.kind, self.dom0) {
            (scenario::Kind::PlainQemu | scenario::Kind::Reference, _) => {
                let config = config(self.scenario, String::new(), self.sources)?;
                let kernel = config.kernel.context("nothing to start")?;
                let mut machine = PlainQemu::start(&kernel, self.scenario, &config.disks, self.logs)?;
                self.judge(&mut machine)
            }
            (_, Some(dom0)) => self.play_guest(dom0),
            (_, None) => anyhow::bail!("no dom0 for a guest"),
        }
    }

    fn play_guest(&self, dom0: &Dom0) -> Result<Verdict> {
        let config = config(self.scenario, unique_name(&self.scenario.name, self.number), self.sources)?;
        let refused = match self.scenario.steps.first().map(|step| &step.action) {
            Some(Action::CreateFails(pattern)) => Some(Regex::new(pattern)?),
            _ => None,
        };
        if self.scenario.variable_daemon {
            variable_daemon::send(dom0, Profile::Debug)?;
            variable_daemon::start(dom0)?;
        }
        let mut guest = match (Guest::create(dom0, config)?, refused) {
            (Ok(guest), None) => guest,
            (Ok(guest), Some(_)) => {
                guest.destroy()?;
                return Ok(Verdict::Failed("xl create took the guest".to_owned()));
            }
            (Err(said), Some(pattern)) if pattern.is_match(said.as_bytes()) => return Ok(Verdict::Passed),
            (Err(said), _) => return Ok(Verdict::Failed(said)),
        };
        let verdict = self.judge(&mut guest);
        guest.poll()?;
        guest.collect_logs(self.logs)?;
        let flaked = is_known_flake(&guest.hypervisor);
        guest.destroy()?;
        if self.scenario.variable_daemon {
            variable_daemon::stop(dom0)?;
        }
        dom0.check()?;
        match verdict? {
            Verdict::Failed(reason) if flaked && self.number < RETRIES => Ok(Verdict::Flaked(reason)),
            verdict => Ok(verdict),
        }
    }

    fn judge(&self, subject: &mut dyn Subject) -> Result<Verdict> {
        let font = Font::from_psf(spleen_font::FONT_8X16)?;
        let steps = Steps {
            forbidden: self.scenario.forbidden()?,
            subject,
            console: self.scenario.console,
            font,
            logs: self.logs,
        };
        Ok(match steps.run(&self.scenario.steps)? {
            Ok(()) => Verdict::Passed,
            Err(reason) => Verdict::Failed(reason),
        })
    }
}

/// A guest's configuration for a scenario; makes the files it names.
///
/// # Errors
/// A content cannot be had.
pub fn config(scenario: &Scenario, name: String, sources: &Sources) -> Result<Config> {
    let file = |name: &str, content: &Content| {
        let path = sources.scratch.join(name);
        command::write(&path, sources.bytes(content).with_context(|| format!("making {name}"))?)?;
        anyhow::Ok(path)
    };
    let is_hvm = scenario.kind == scenario::Kind::Hvm;
    let is_seabios = scenario.firmware == Content::Source(scenario::SEABIOS.to_owned());
    let firmware = (is_hvm && !is_seabios && !scenario.is_installed())
        .then(|| file("firmware", &scenario.firmware))
        .transpose()?;
    Ok(Config {
        name,
        kind: if is_hvm { Kind::Hvm } else { Kind::Pvh },
        memory: scenario.memory,
        vcpus: scenario.vcpus,
        firmware,
        kernel: scenario.kernel().map(|content| file("kernel", content)).transpose()?,
        ramdisk: scenario.ramdisk.as_ref().map(|content| file("ramdisk", content)).transpose()?,
        command_line: scenario.cmdline.clone(),
        restart: scenario.restart,
        serial: is_hvm && scenario.has_serial(),
        tpm: scenario.tpm,
        installed: scenario.is_installed(),
        prepare: scenario.prepare.clone(),
        extra: scenario.extra.clone(),
        disks: disk_files(&scenario.disks, sources)?,
        files: scenario
            .files
            .iter()
            .map(|(name, content)| Ok((name.clone(), file(&format!("file-{name}"), content)?)))
            .collect::<Result<_>>()?,
    })
}

/// Makes the images of disks.
///
/// # Errors
/// A content cannot be had.
pub fn disk_files(disks: &[Disk], sources: &Sources) -> Result<Vec<DiskFile>> {
    let describe = |(number, disk): (usize, &Disk)| {
        let path = sources.scratch.join(format!("disk{number}.img"));
        disk.write(&path, sources).with_context(|| format!("making disk {number}"))?;
        Ok(DiskFile {
            path,
            sector_size: disk.sector_size,
            read_only: disk.read_only,
            is_cdrom: disk.kind == DiskKind::Cdrom,
        })
    };
    disks.iter().enumerate().map(describe).collect()
}

/// A guest's name that no other guest of the machine has had: logs are kept by name.
#[must_use]
pub fn unique_name(name: &str, number: u32) -> String {
    format!("{name}-{}-{number}", std::process::id())
}

struct Steps<'a> {
    forbidden: Vec<Regex>,
    subject: &'a mut dyn Subject,
    /// Where steps look and type that do not say.
    console: Channel,
    /// The font of the firmware's graphical console.
    font: Font,
    /// Where pictures go.
    logs: &'a Path,
}

impl Steps<'_> {
    /// The outer result is the lab's, the inner one the claim's.
    fn run(mut self, steps: &[Step]) -> Result<Result<(), String>> {
        for step in steps {
            if let Err(reason) = self.step(step)? {
                return Ok(Err(reason));
            }
        }
        self.subject.poll()?;
        Ok(self.check_forbidden())
    }

    fn step(&mut self, step: &Step) -> Result<Result<(), String>> {
        let timeout = Duration::from_secs(step.timeout);
        match &step.action {
            Action::Expect { pattern, clock_within, on } => {
                self.expect(on.unwrap_or(self.console), pattern, *clock_within, timeout)
            }
            Action::Send { text, on } => self.subject.send(on.unwrap_or(self.console), text).map(Ok),
            Action::Keys(keys) => self.subject.press(keys).map(Ok),
            Action::Screenshot(expected) => self.screenshot(expected, timeout),
            Action::CreateFails(_) => Ok(Err("xl create took the guest".to_owned())),
            Action::State(expected) => self.state(*expected, timeout),
            Action::SaveRestore => Ok(self.subject.save_and_restore().map_err(|error| format!("{error:#}"))),
            Action::Dom0(script) => Ok(self.subject.run_in_dom0(script, timeout).map_err(|error| format!("{error:#}"))),
            Action::Pause(seconds) => {
                std::thread::sleep(Duration::from_secs(*seconds));
                Ok(Ok(()))
            }
        }
    }

    fn expect(
        &mut self,
        channel: Channel,
        pattern: &str,
        clock: Option<u64>,
        timeout: Duration,
    ) -> Result<Result<(), String>> {
        let regex = Regex::new(&pattern.replace("@UTC-DATE@", &utc_date(now())))?;
        let started = Instant::now();
        let mut ended_at: Option<(Shutdown, Instant)> = None;
        loop {
            let ended = self.subject.poll()?;
            if let Some(found) = self.subject.log(channel).expect(&regex) {
                return Ok(check_clock(clock, found.epoch));
            }
            if let Err(reason) = self.check_forbidden() {
                return Ok(Err(reason));
            }
            ended_at = ended.map(|how| ended_at.unwrap_or((how, Instant::now())));
            if let Some((how, when)) = ended_at
                && when.elapsed() > DRAIN
            {
                return Ok(Err(format!("domain ended ({how:?}) before {pattern:?} was seen")));
            }
            if started.elapsed() > timeout {
                return Ok(Err(format!("{pattern:?} not seen within {} s", timeout.as_secs())));
            }
            std::thread::sleep(POLL);
        }
    }

    fn state(&mut self, expected: Expected, timeout: Duration) -> Result<Result<(), String>> {
        let wanted = match expected {
            Expected::Poweroff => Shutdown::Poweroff,
            Expected::Reboot => Shutdown::Reboot,
            Expected::Crash => Shutdown::Crash,
            Expected::Running => {
                return Ok(match self.subject.poll()? {
                    None => Ok(()),
                    Some(how) => Err(format!("domain ended ({how:?}), expected it to run")),
                });
            }
        };
        let started = Instant::now();
        loop {
            match self.subject.poll()? {
                Some(how) if how == wanted => return Ok(Ok(())),
                Some(how) => return Ok(Err(format!("domain ended with {how:?}, expected {wanted:?}"))),
                None if started.elapsed() > timeout => {
                    return Ok(Err(format!("no {wanted:?} within {} s", timeout.as_secs())));
                }
                None => std::thread::sleep(POLL),
            }
        }
    }

    /// Takes pictures until one is as expected. The last one is kept.
    fn screenshot(&mut self, expected: &Screenshot, timeout: Duration) -> Result<Result<(), String>> {
        let started = Instant::now();
        loop {
            let ended = self.subject.poll()?;
            if let Err(reason) = self.check_forbidden() {
                return Ok(Err(reason));
            }
            if let Some(how) = ended {
                return Ok(Err(format!("domain ended ({how:?}) before the picture {} was taken", expected.name)));
            }
            let picture = self.subject.screen()?;
            let text = self.font.read(&picture, expected.cells.0, expected.cells.1);
            let verdict = compare(expected, &picture, &text)?;
            if verdict.is_ok() || started.elapsed() > timeout {
                picture.write_png(&self.logs.join(format!("{}.png", expected.name)))?;
                command::write(&self.logs.join(format!("{}.txt", expected.name)), text.join("\n") + "\n")?;
                return Ok(verdict.map_err(|reason| format!("picture {}: {reason}", expected.name)));
            }
            std::thread::sleep(BETWEEN_PICTURES);
        }
    }

    fn check_forbidden(&mut self) -> Result<(), String> {
        if let Some(fault) = self.subject.fault() {
            return Err(format!("the firmware faulted: {fault}"));
        }
        for channel in [Channel::Xen, Channel::Serial] {
            let log = self.subject.log(channel);
            if let Some(found) = self.forbidden.iter().find_map(|pattern| log.contains(pattern)) {
                return Err(format!("forbidden: {found}"));
            }
        }
        Ok(())
    }
}

/// Holds a picture, and the text read from it, against what is expected. The outer result is that of malformed patterns.
fn compare(expected: &Screenshot, picture: &Picture, text: &[String]) -> Result<Result<(), String>> {
    if let Some(size) = expected.size
        && size != (picture.width, picture.height)
    {
        return Ok(Err(format!("{} x {}, expected {} x {}", picture.width, picture.height, size.0, size.1)));
    }
    for pixel in &expected.pixels {
        let (wanted, seen) = (screen::colour(&pixel.is)?, picture.at(pixel.at.0, pixel.at.1));
        if seen != Some(wanted) {
            return Ok(Err(format!("pixel {:?} is {:02x?}, expected {}", pixel.at, seen, pixel.is)));
        }
    }
    let colours = picture.colours();
    if colours < expected.colours {
        return Ok(Err(format!("{colours} colours, expected {}", expected.colours)));
    }
    if expected.text.is_empty() {
        return Ok(Ok(()));
    }
    let text = text.join("\n");
    let mut rest = text.as_str();
    for pattern in &expected.text {
        match regex::Regex::new(pattern)?.find(rest) {
            Some(found) => rest = &rest[found.end()..],
            None => return Ok(Err(format!("{pattern:?} is not on the screen"))),
        }
    }
    let unreadable = text.chars().filter(|character| *character == screen::text::UNREADABLE).count();
    if unreadable > expected.unreadable {
        return Ok(Err(format!("{unreadable} cells show no character of the font, expected {}", expected.unreadable)));
    }
    Ok(Ok(()))
}

fn check_clock(within: Option<u64>, epoch: Option<u64>) -> Result<(), String> {
    match (within, epoch) {
        (None, _) => Ok(()),
        (Some(within), Some(epoch)) if epoch.abs_diff(now()) <= within => Ok(()),
        (Some(_), Some(epoch)) => Err(format!("the guest's clock is {} s off", i128::from(epoch) - i128::from(now()))),
        (Some(_), None) => Err("the guest's clock is no number".to_owned()),
    }
}

/// Guests under emulation die now and then of a triple fault in early boot, without any firmware too.
fn is_known_flake(hypervisor: &Log) -> bool {
    hypervisor.text().contains("Triple fault - invoking HVM shutdown action")
}

/// The last lines of the console and of the guest's debug output, for a failure's report.
#[must_use]
pub fn last_lines(logs: &Path) -> Vec<String> {
    let read = |name: &str| String::from_utf8_lossy(&std::fs::read(logs.join(name)).unwrap_or_default()).into_owned();
    let console = command::last_lines(read("console.log").trim_end(), SHOWN_LINES);
    let hypervisor = read("hypervisor.log");
    let debug: Vec<&str> = hypervisor.lines().filter(|line| line.contains("(d")).collect();
    let debug = &debug[debug.len().saturating_sub(SHOWN_DEBUG_LINES)..];
    let console = console.lines().map(|line| format!("console| {line}"));
    console.chain(debug.iter().map(|line| format!("debug  | {line}"))).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The date as MM/DD/YYYY.
fn utc_date(epoch: u64) -> String {
    const DAY: u64 = 24 * 3600;
    let (mut year, mut day) = (1970, epoch / DAY);
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{month:02}/{:02}/{year}", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_with_leap_days() {
        assert_eq!(utc_date(0), "01/01/1970");
        assert_eq!(utc_date(951_782_400), "02/29/2000");
        assert_eq!(utc_date(1_772_323_200), "03/01/2026");
    }

    fn screenshot(text: &str) -> Screenshot {
        toml::from_str(&format!("name = 'a'\n{text}")).unwrap()
    }

    fn seen(expected: &str) -> Result<(), String> {
        let picture = Picture::from_ppm(b"P6\n2 1\n255\nabcABC").unwrap();
        compare(&screenshot(expected), &picture, &["one two".to_owned(), "three\u{FFFD}".to_owned()]).unwrap()
    }

    #[test]
    fn a_picture_of_another_size_is_not_as_expected() {
        assert!(seen("size = [2, 1]").is_ok());
        assert!(seen("size = [1, 2]").is_err());
    }

    #[test]
    fn a_pixel_has_its_colour() {
        assert!(seen("pixel = [{ at = [1, 0], is = '414243' }]").is_ok());
        assert!(seen("pixel = [{ at = [0, 0], is = '414243' }]").is_err());
        assert!(seen("pixel = [{ at = [2, 0], is = '414243' }]").is_err());
    }

    #[test]
    fn text_of_a_picture_is_found_in_order_and_readable() {
        assert!(seen("text = ['one', 'three']\nunreadable = 1").is_ok());
        assert!(seen("text = ['three', 'one']\nunreadable = 1").is_err());
        assert!(seen("text = ['one', 'three']").is_err());
    }

    #[test]
    fn a_picture_of_one_colour_is_no_logo() {
        assert!(seen("colours = 2").is_ok());
        assert!(seen("colours = 3").is_err());
    }

    #[test]
    fn a_clock_that_is_off_is_told() {
        assert!(check_clock(Some(5), Some(now())).is_ok());
        assert!(check_clock(Some(5), Some(now() - 60)).is_err());
        assert!(check_clock(Some(5), None).is_err());
    }
}
