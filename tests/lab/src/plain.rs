//! QEMU without Xen, started with the firmware as its kernel: what the firmware says where it does not belong.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::console::Log;
use crate::guest::{DiskFile, Shutdown};
use crate::machine::QEMU;
use crate::runner::Subject;
use crate::scenario::Scenario;

/// A plain machine; ends with the value.
#[derive(Debug)]
pub struct PlainQemu {
    child: Child,
    console: Log,
}

impl PlainQemu {
    /// Starts `kernel` under emulation with its serial port going to `console.log` in `logs`.
    ///
    /// # Errors
    /// QEMU does not start.
    pub fn start(kernel: &Path, scenario: &Scenario, disks: &[DiskFile], logs: &Path) -> Result<Self> {
        let serial = logs.join("console.log");
        std::fs::remove_file(&serial).ok();
        let log = File::create(logs.join("qemu.log"))?;
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", QEMU, "-accel", "tcg", "-machine", "q35", "-display", "none"]);
        qemu.args(["-monitor", "none", "-net", "none", "-no-reboot", "-m", &scenario.memory.to_string()]);
        qemu.args(["-smp", &scenario.vcpus.to_string()]);
        qemu.arg("-serial").arg(format!("file:{}", serial.display())).arg("-kernel").arg(kernel);
        for disk in disks {
            qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio", disk.path.display()));
        }
        qemu.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = qemu.spawn().with_context(|| format!("cannot start {QEMU}"))?;
        Ok(Self { child, console: Log::follow(&serial, 0) })
    }
}

impl Subject for PlainQemu {
    fn poll(&mut self) -> Result<Option<Shutdown>> {
        let ended = self.child.try_wait()?;
        self.console.poll()?;
        Ok(ended.map(|status| if status.success() { Shutdown::Poweroff } else { Shutdown::Crash }))
    }

    fn console(&mut self) -> &mut Log {
        &mut self.console
    }

    fn send(&mut self, _text: &str) -> Result<()> {
        bail!("nothing can be typed on a plain machine")
    }

    fn save_and_restore(&mut self) -> Result<()> {
        bail!("a plain machine cannot be saved")
    }
}

impl Drop for PlainQemu {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
