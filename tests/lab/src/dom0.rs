//! Running shell scripts in dom0.
//!
//! A job is a folder in the share with a script; its name goes over a virtio-serial port to dom0's agent (see
//! `dom0/init`), which writes output and exit status beside the script. Nothing polls inside the emulated machine.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::machine::Machine;

/// Programs of ours for scripts in dom0, which find them in `/lab/tools`.
const TOOLS: [(&str, &str); 3] = [
    ("lab-qmp", include_str!("../dom0/lab-qmp")),
    ("lab-socket", include_str!("../dom0/lab-socket")),
    ("lab-varstored", include_str!("../dom0/lab-varstored")),
];
const POLL: Duration = Duration::from_millis(20);
/// What is sent while nobody in dom0 has the port open is lost: so it is between two connections.
const RESEND: Duration = Duration::from_secs(3);

/// The connection to dom0's agent.
#[derive(Debug)]
pub struct Dom0 {
    machine: Machine,
    socket: UnixStream,
    jobs: AtomicU32,
}

/// What a script left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// Its output and error output.
    pub text: String,
}

impl Dom0 {
    /// Connects to the agent of `machine`.
    ///
    /// # Errors
    /// The machine's socket does not answer, or its folder cannot be written.
    pub fn connect(machine: Machine) -> Result<Self> {
        let socket = UnixStream::connect(machine.path("jobs.sock")).context("dom0's agent cannot be reached")?;
        let dom0 = Self { machine, socket, jobs: AtomicU32::new(0) };
        for (name, text) in TOOLS {
            command::write(&dom0.share("tools").join(name), text)?;
        }
        Ok(dom0)
    }

    /// The machine it runs on.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Gives the machine back.
    #[must_use]
    pub fn disconnect(self) -> Machine {
        self.machine
    }

    /// A path in the shared folder, `/lab` in dom0.
    #[must_use]
    pub fn share(&self, name: &str) -> PathBuf {
        self.machine.path("share").join(name)
    }

    /// Runs a shell script to its end.
    ///
    /// # Errors
    /// dom0 died, or the script takes longer than `timeout`.
    pub fn run(&self, script: &str, timeout: Duration) -> Result<Output> {
        let number = self.jobs.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let folder = self.share("jobs").join(&name);
        fs::create_dir_all(&folder)?;
        // A name that was sent again although the first one arrived starts nothing.
        let once = format!("mkdir /lab/jobs/{name}/taken 2>/dev/null || exec sleep infinity\n");
        fs::write(folder.join("command"), once + script)?;
        writeln!(&self.socket, "{name}").context("dom0's agent cannot be reached")?;
        let started = Instant::now();
        let mut sent = started;
        let text = || String::from_utf8_lossy(&fs::read(folder.join("output")).unwrap_or_default()).into_owned();
        loop {
            if let Ok(status) = fs::read_to_string(folder.join("status")) {
                let output = Output { status: status.trim().parse().unwrap_or(-1), text: text() };
                fs::remove_dir_all(&folder).ok();
                return Ok(output);
            }
            if started.elapsed() > timeout {
                self.machine.check()?;
                bail!("no answer from dom0 after {} s; so far: {}", timeout.as_secs(), text());
            }
            if sent.elapsed() > RESEND && !folder.join("output").exists() {
                writeln!(&self.socket, "{name}").context("dom0's agent cannot be reached")?;
                sent = Instant::now();
            }
            if started.elapsed().as_millis() % 1000 < POLL.as_millis() {
                self.machine.check()?;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Runs a shell script that has to succeed; returns its output.
    ///
    /// # Errors
    /// As [`Dom0::run`], or the script failed.
    pub fn run_well(&self, script: &str, timeout: Duration) -> Result<String> {
        let output = self.run(script, timeout)?;
        if output.status != 0 {
            bail!("in dom0, status {}: {}", output.status, output.text.trim());
        }
        Ok(output.text)
    }
}
