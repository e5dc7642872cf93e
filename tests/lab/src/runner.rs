//! Playing a scenario: make its disks, create the guest, do its steps, say how it went.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use regex::bytes::Regex;

use crate::command;
use crate::console::Log;
use crate::dom0::Dom0;
use crate::file::{Content, Sources};
use crate::guest::{Config, DiskFile, Guest, Kind, Shutdown};
use crate::plain::PlainQemu;
use crate::report::{Outcome, Verdict};
use crate::scenario::{self, Action, Expected, Scenario, Step};

const POLL: Duration = Duration::from_millis(50);
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
    /// The console.
    fn console(&mut self) -> &mut Log;
    /// A fault that the firmware told of elsewhere than on the console.
    fn fault(&self) -> Option<String>;
    /// Types text.
    ///
    /// # Errors
    /// The lab itself failed.
    fn send(&mut self, text: &str) -> Result<()>;
    /// Saves and restores.
    ///
    /// # Errors
    /// The toolstack refuses.
    fn save_and_restore(&mut self) -> Result<()>;
}

impl Subject for Guest<'_> {
    fn poll(&mut self) -> Result<Option<Shutdown>> {
        Guest::poll(self)
    }

    fn console(&mut self) -> &mut Log {
        &mut self.console
    }

    fn fault(&self) -> Option<String> {
        let text = self.hypervisor.text();
        text.lines()
            .find(|line| line.contains("(d") && FAULTS.iter().any(|fault| line.contains(fault)))
            .map(str::to_owned)
    }

    fn send(&mut self, text: &str) -> Result<()> {
        Guest::send(self, text)
    }

    fn save_and_restore(&mut self) -> Result<()> {
        Guest::save_and_restore(self)
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
        let disks = self.make_disks()?;
        let kernel = self.make_file("kernel", &Content::Source(self.scenario.kernel.clone()))?;
        match (self.scenario.kind, self.dom0) {
            (scenario::Kind::PlainQemu | scenario::Kind::Reference, _) => {
                let mut machine = PlainQemu::start(&kernel, self.scenario, &disks, self.logs)?;
                self.judge(&mut machine)
            }
            (_, Some(dom0)) => self.play_guest(dom0, kernel, disks),
            (_, None) => anyhow::bail!("no dom0 for a guest"),
        }
    }

    fn play_guest(&self, dom0: &Dom0, kernel: PathBuf, disks: Vec<DiskFile>) -> Result<Verdict> {
        let ramdisk = self.scenario.ramdisk.as_ref().map(|content| self.make_file("ramdisk", content)).transpose()?;
        let config = config(self.scenario, unique_name(&self.scenario.name, self.number), kernel, ramdisk, disks);
        let mut guest = match Guest::create(dom0, config)? {
            Ok(guest) => guest,
            Err(reason) => return Ok(Verdict::Failed(reason)),
        };
        let verdict = self.judge(&mut guest);
        guest.poll()?;
        guest.collect_logs(self.logs)?;
        let flaked = is_known_flake(&guest.hypervisor);
        guest.destroy()?;
        dom0.machine().check()?;
        match verdict? {
            Verdict::Failed(reason) if flaked && self.number < RETRIES => Ok(Verdict::Flaked(reason)),
            verdict => Ok(verdict),
        }
    }

    fn judge(&self, subject: &mut dyn Subject) -> Result<Verdict> {
        let steps = Steps { forbidden: self.scenario.forbidden()?, subject };
        Ok(match steps.run(&self.scenario.steps)? {
            Ok(()) => Verdict::Passed,
            Err(reason) => Verdict::Failed(reason),
        })
    }

    fn make_disks(&self) -> Result<Vec<DiskFile>> {
        let describe = |(number, disk): (usize, &crate::disk::Disk)| {
            let path = self.sources.scratch.join(format!("disk{number}.img"));
            disk.write(&path, self.sources).with_context(|| format!("making disk {number}"))?;
            Ok(DiskFile { path, sector_size: disk.sector_size, read_only: disk.read_only })
        };
        self.scenario.disks.iter().enumerate().map(describe).collect()
    }

    fn make_file(&self, name: &str, content: &Content) -> Result<PathBuf> {
        let path = self.sources.scratch.join(name);
        command::write(&path, self.sources.bytes(content)?)?;
        Ok(path)
    }
}

/// The guest's configuration for a scenario.
fn config(
    scenario: &Scenario,
    name: String,
    kernel: PathBuf,
    ramdisk: Option<PathBuf>,
    disks: Vec<DiskFile>,
) -> Config {
    Config {
        name,
        kind: if scenario.kind == scenario::Kind::Hvm { Kind::Hvm } else { Kind::Pvh },
        memory: scenario.memory,
        vcpus: scenario.vcpus,
        kernel,
        ramdisk,
        command_line: scenario.cmdline.clone(),
        restart: scenario.restart,
        extra: scenario.extra.clone(),
        disks,
    }
}

/// A guest's name that no other guest of the machine has had: logs are kept by name.
#[must_use]
pub fn unique_name(name: &str, number: u32) -> String {
    format!("{name}-{}-{number}", std::process::id())
}

struct Steps<'a> {
    forbidden: Vec<Regex>,
    subject: &'a mut dyn Subject,
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
            Action::Expect { pattern, clock_within } => self.expect(pattern, *clock_within, timeout),
            Action::Send(text) => self.subject.send(text).map(Ok),
            Action::State(expected) => self.state(*expected, timeout),
            Action::SaveRestore => Ok(self.subject.save_and_restore().map_err(|error| format!("{error:#}"))),
            Action::Pause(seconds) => {
                std::thread::sleep(Duration::from_secs(*seconds));
                Ok(Ok(()))
            }
        }
    }

    fn expect(&mut self, pattern: &str, clock: Option<u64>, timeout: Duration) -> Result<Result<(), String>> {
        let regex = Regex::new(&pattern.replace("@UTC-DATE@", &utc_date(now())))?;
        let started = Instant::now();
        let mut ended_at: Option<(Shutdown, Instant)> = None;
        loop {
            let ended = self.subject.poll()?;
            if let Some(found) = self.subject.console().expect(&regex) {
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

    fn check_forbidden(&mut self) -> Result<(), String> {
        if let Some(fault) = self.subject.fault() {
            return Err(format!("the firmware faulted: {fault}"));
        }
        let console = self.subject.console();
        match self.forbidden.iter().find_map(|pattern| console.contains(pattern)) {
            Some(found) => Err(format!("forbidden: {found}")),
            None => Ok(()),
        }
    }
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

    #[test]
    fn a_clock_that_is_off_is_told() {
        assert!(check_clock(Some(5), Some(now())).is_ok());
        assert!(check_clock(Some(5), Some(now() - 60)).is_err());
        assert!(check_clock(Some(5), None).is_err());
    }
}
