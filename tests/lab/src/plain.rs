//! QEMU without Xen. Started with the firmware as its kernel: what the firmware says where it does not belong. Started
//! with EDK2's firmware: whether a scenario's disks and expectations are right.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::console::Log;
use crate::guest::{DiskFile, Shutdown};
use crate::machine::QEMU;
use crate::runner::Subject;
use crate::scenario::{Kind, Scenario};
use crate::screen::Picture;
use crate::step::Channel;

/// A plain machine; ends with the value.
#[derive(Debug)]
pub struct PlainQemu {
    child: Child,
    console: Log,
    socket: PathBuf,
    /// Connected when something is typed for the first time.
    input: Option<UnixStream>,
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
        let socket = std::env::temp_dir().join(format!("lab-{}.sock", std::process::id()));
        std::fs::remove_file(&socket).ok();
        qemu.arg("-chardev").arg(format!(
            "socket,id=serial,server=on,wait=off,path={},logfile={}",
            socket.display(),
            serial.display()
        ));
        qemu.args(["-serial", "chardev:serial"]);
        qemu.arg(if scenario.kind == Kind::Reference { "-bios" } else { "-kernel" }).arg(kernel);
        for (number, disk) in disks.iter().enumerate() {
            let sector = disk.sector_size;
            qemu.arg("-drive").arg(format!("file={},format=raw,if=none,id=disk{number}", disk.path.display()));
            qemu.arg("-device").arg(format!(
                "virtio-blk-pci,drive=disk{number},logical_block_size={sector},physical_block_size={sector}"
            ));
        }
        qemu.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = qemu.spawn().with_context(|| format!("cannot start {QEMU}"))?;
        Ok(Self { child, console: Log::follow(&serial, 0), socket, input: None })
    }
}

impl Subject for PlainQemu {
    fn poll(&mut self) -> Result<Option<Shutdown>> {
        let ended = self.child.try_wait()?;
        self.console.poll()?;
        Ok(ended.map(|status| if status.success() { Shutdown::Poweroff } else { Shutdown::Crash }))
    }

    fn log(&mut self, _channel: Channel) -> &mut Log {
        &mut self.console
    }

    fn fault(&self) -> Option<String> {
        None
    }

    fn send(&mut self, _channel: Channel, text: &str) -> Result<()> {
        if self.input.is_none() {
            let socket = UnixStream::connect(&self.socket).context("the serial port cannot be reached")?;
            // Unread output would hold the machine up; the log has it all.
            let mut output = socket.try_clone()?;
            std::thread::spawn(move || while matches!(output.read(&mut [0; 4096]), Ok(1..)) {});
            self.input = Some(socket);
        }
        if let Some(input) = &mut self.input {
            input.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    fn press(&mut self, _keys: &[String]) -> Result<()> {
        bail!("a plain machine has no keyboard")
    }

    fn screen(&mut self) -> Result<Picture> {
        bail!("a plain machine has no screen")
    }

    fn save_and_restore(&mut self) -> Result<()> {
        bail!("a plain machine cannot be saved")
    }

    fn run_in_dom0(&mut self, _: &str, _: Duration) -> Result<()> {
        bail!("a plain machine has no dom0")
    }
}

impl Drop for PlainQemu {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_file(&self.socket).ok();
    }
}
