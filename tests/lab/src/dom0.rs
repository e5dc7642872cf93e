//! Running shell scripts in dom0.
//!
//! In a machine of ours a job is a folder in the share with a script; its name goes over a virtio-serial port to dom0's
//! agent (see `dom0/init`), which writes output and exit status beside the script. Nothing polls inside the emulated
//! machine. In the dom0 that the lab itself runs in, a job is a child process.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
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

/// The share as scripts in dom0 see it.
const SHARE: &str = "/lab";
/// The exit status of `timeout` when the time is up.
const TIMED_OUT: i32 = 124;

/// A dom0 that runs scripts.
#[derive(Debug)]
pub struct Dom0(Place);

#[derive(Debug)]
enum Place {
    /// Behind the agent of a machine of ours.
    Machine { machine: Machine, socket: UnixStream, jobs: AtomicU32 },
    /// Here.
    Here,
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
        let dom0 = Self(Place::Machine { machine, socket, jobs: AtomicU32::new(0) });
        dom0.write_tools()?;
        Ok(dom0)
    }

    /// The dom0 that this is. `/lab/log` has to be where Xen's tools write their logs, the guests' consoles and the
    /// hypervisor's log (`hypervisor.log`) included.
    ///
    /// # Errors
    /// This is no dom0, or is not prepared.
    pub fn here() -> Result<Self> {
        let capabilities = fs::read_to_string("/proc/xen/capabilities").unwrap_or_default();
        if !capabilities.contains("control_d") {
            bail!("this is no dom0 (/proc/xen/capabilities): leave out --here, and the lab starts one");
        }
        let dom0 = Self(Place::Here);
        if !dom0.hypervisor_log().exists() {
            bail!("no {}: link /lab/log to where xenconsoled --log=all writes", dom0.hypervisor_log().display());
        }
        dom0.write_tools()?;
        Ok(dom0)
    }

    fn write_tools(&self) -> Result<()> {
        TOOLS.iter().try_for_each(|(name, text)| command::write(&self.share("tools").join(name), text))
    }

    /// Fails when the machine died.
    ///
    /// # Errors
    /// It did.
    pub fn check(&self) -> Result<()> {
        match &self.0 {
            Place::Machine { machine, .. } => machine.check(),
            Place::Here => Ok(()),
        }
    }

    /// Where the hypervisor's log grows.
    #[must_use]
    pub fn hypervisor_log(&self) -> PathBuf {
        match &self.0 {
            Place::Machine { machine, .. } => machine.path("serial.log"),
            Place::Here => self.share("log/hypervisor.log"),
        }
    }

    /// A path in the shared folder, `/lab` in dom0.
    #[must_use]
    pub fn share(&self, name: &str) -> PathBuf {
        match &self.0 {
            Place::Machine { machine, .. } => machine.path("share").join(name),
            Place::Here => Path::new(SHARE).join(name),
        }
    }

    /// Runs a shell script to its end.
    ///
    /// # Errors
    /// dom0 died, or the script takes longer than `timeout`.
    pub fn run(&self, script: &str, timeout: Duration) -> Result<Output> {
        match &self.0 {
            Place::Machine { machine, socket, jobs } => self.run_there(script, timeout, machine, socket, jobs),
            Place::Here => run_here(script, timeout),
        }
    }

    fn run_there(
        &self,
        script: &str,
        timeout: Duration,
        machine: &Machine,
        mut socket: &UnixStream,
        jobs: &AtomicU32,
    ) -> Result<Output> {
        let number = jobs.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let folder = self.share("jobs").join(&name);
        fs::create_dir_all(&folder)?;
        // A name that was sent again although the first one arrived starts nothing.
        let once = format!("mkdir /lab/jobs/{name}/taken 2>/dev/null || exec sleep infinity\n");
        fs::write(folder.join("command"), once + script)?;
        writeln!(socket, "{name}").context("dom0's agent cannot be reached")?;
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
                machine.check()?;
                bail!("no answer from dom0 after {} s; so far: {}", timeout.as_secs(), text());
            }
            if sent.elapsed() > RESEND && !folder.join("output").exists() {
                writeln!(socket, "{name}").context("dom0's agent cannot be reached")?;
                sent = Instant::now();
            }
            if started.elapsed().as_millis() % 1000 < POLL.as_millis() {
                machine.check()?;
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

/// Runs a script as dom0's agent does: output and error output together, in a file, as a program that stays behind may
/// keep it open.
fn run_here(script: &str, timeout: Duration) -> Result<Output> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("lab-output-{}-{number}", std::process::id()));
    let file = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut bash = Command::new("timeout");
    bash.arg(timeout.as_secs().to_string()).args(["bash", "-c", script]);
    bash.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let status = bash.status().context("cannot run timeout and bash")?.code().unwrap_or(-1);
    let text = String::from_utf8_lossy(&command::read(&path)?).into_owned();
    fs::remove_file(&path)?;
    if status == TIMED_OUT {
        bail!("a script did not end within {} s; so far: {text}", timeout.as_secs());
    }
    Ok(Output { status, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_here_gives_status_and_both_outputs() {
        let output = run_here("echo a; echo b >&2; exit 3", Duration::from_secs(10)).unwrap();
        assert_eq!((output.status, output.text.as_str()), (3, "a\nb\n"));
    }

    #[test]
    fn a_script_here_that_does_not_end_is_an_error() {
        assert!(run_here("echo a; sleep 30", Duration::from_secs(1)).unwrap_err().to_string().contains("so far: a"));
    }
}
