//! The machine: QEMU with Xen as its kernel, and the folder through which the lab and dom0 share files.
//!
//! A machine lives in a folder: `share/` (seen by dom0 as `/lab`), `serial.log` (the hypervisor's console), `qemu.log`,
//! two sockets and `state.json`, by which a later call of the lab finds a machine that stays up.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::command;
use crate::dom0_image::Dom0Image;

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";
/// QEMU before this one cannot run dom0: its emulated interrupt controller loses the vector of dom0's first event.
const QEMU_MAJOR: u32 = 10;
/// Memory of dom0, MiB: the toolstack and the guests' disks in its page cache, and a device model for HVM guests.
const DOM0_MEMORY: u64 = 1536;
/// Memory that Xen itself needs beside dom0 and guests, MiB.
const XEN_MEMORY: u64 = 512;
/// Guests get at least this much, MiB.
const LEAST_GUEST_MEMORY: u64 = 2048;
/// Without these an emulated CPU leads Xen or Linux to instructions QEMU's emulation of AMD-V does not carry:
/// MWAIT in the idle loop, RDTSCP (no next-RIP), PCID.
const TCG_CPU: &str = "EPYC,+svm,+npt,-pcid,-monitor,-rdtscp";
/// The initializers of the TPM drivers that are built into dom0's kernel: the TPM is for guests, untouched. A comma would end
/// the command line for QEMU unless it is doubled.
const KEEP_OFF_TPM: &str = "initcall_blacklist=crb_acpi_driver_init,,init_tis";
const START_TIMEOUT: Duration = Duration::from_secs(240);
/// The longest path of a socket that the kernel takes.
const SOCKET_PATH: usize = 107;

/// How the machine's CPU is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// Hardware virtualization, nested.
    Kvm,
    /// Emulation.
    Tcg,
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    folder: PathBuf,
    state: State,
    /// Kept so that the machine ends with the lab; absent for one that stays up.
    child: Option<std::process::Child>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    pid: u32,
    stays_up: bool,
    guest_memory: u64,
    /// A machine that an older lab left up does not say.
    #[serde(default)]
    has_tpm: bool,
    accelerator: Accelerator,
}

/// How a machine is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Memory of the biggest guest, MiB.
    pub guest_memory: u64,
    /// Whether it has a TPM, which guests can be given.
    pub has_tpm: bool,
    /// Whether it outlives this call of the lab.
    pub stays_up: bool,
    /// 0, or of several at once another number each. Only number 0 can stay up.
    pub number: usize,
}

impl Machine {
    /// Starts a machine and waits until dom0 is ready.
    ///
    /// # Errors
    /// Another machine runs, QEMU is missing or too old, or dom0 does not come up.
    pub fn start(cache: &Cache, image: &Dom0Image, wanted: Wanted) -> Result<Self> {
        check_version()?;
        let lock = lock(cache, wanted.number)?;
        let folder = folder(cache, wanted.number);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(folder.join("share/jobs"))?;
        fs::create_dir_all(folder.join("share/log"))?;
        let accelerator = accelerator();
        let guest_memory = wanted.guest_memory.max(LEAST_GUEST_MEMORY);
        let mut qemu = if wanted.stays_up {
            let mut qemu = Command::new(QEMU);
            qemu.process_group(0);
            qemu
        } else {
            let mut qemu = Command::new("setpriv");
            qemu.args(["--pdeathsig", "KILL", QEMU]);
            qemu
        };
        arguments(&mut qemu, image, accelerator, guest_memory);
        if wanted.has_tpm {
            start_tpm(&folder)?;
            qemu.args(["-chardev", "socket,id=tpm,path=tpm.sock", "-tpmdev", "emulator,id=tpm,chardev=tpm"]);
            qemu.args(["-device", "tpm-crb,tpmdev=tpm"]);
            // The SeaBIOS that measures nothing, so that the TPM's PCRs are as after a reset when the first guest gets them.
            qemu.args(["-bios", "bios.bin"]);
        }
        let log = File::create(folder.join("qemu.log"))?;
        // QEMU never reads its input; holding the lock's file there keeps the lock for as long as the machine lives.
        qemu.current_dir(&folder).stdin(Stdio::from(lock)).stdout(log.try_clone()?).stderr(log);
        let child = qemu.spawn().with_context(|| format!("cannot start {QEMU}"))?;
        let state =
            State { pid: child.id(), stays_up: wanted.stays_up, guest_memory, has_tpm: wanted.has_tpm, accelerator };
        command::write(&folder.join("state.json"), serde_json::to_vec(&state)?)?;
        let mut machine = Self { folder, state, child: Some(child) };
        machine.await_dom0()?;
        if wanted.stays_up {
            machine.child = None;
        }
        Ok(machine)
    }

    /// The machine that an earlier call of the lab left up, if there is one. It need not be ready yet.
    #[must_use]
    pub fn left_up(cache: &Cache) -> Option<Self> {
        let folder = folder(cache, 0);
        let state: State = serde_json::from_slice(&fs::read(folder.join("state.json")).ok()?).ok()?;
        let machine = Self { folder, state, child: None };
        (machine.state.stays_up && machine.is_alive()).then_some(machine)
    }

    /// The machine that an earlier call of the lab left up, if there is one and its dom0 is ready.
    #[must_use]
    pub fn running(cache: &Cache) -> Option<Self> {
        Self::left_up(cache).filter(|machine| machine.path("share/ready").exists())
    }

    /// Ends the machine.
    ///
    /// # Errors
    /// The process cannot be ended.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    /// A path in the machine's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The biggest guest it has room for, MiB.
    #[must_use]
    pub fn guest_memory(&self) -> u64 {
        self.state.guest_memory
    }

    /// Whether it has a TPM.
    #[must_use]
    pub fn has_tpm(&self) -> bool {
        self.state.has_tpm
    }

    /// How its CPU is run.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.state.accelerator
    }

    /// Checks that QEMU, the hypervisor and dom0 are alive.
    ///
    /// # Errors
    /// One of them is not: the lab's failure, not the firmware's. The message says what is known.
    pub fn check(&self) -> Result<()> {
        let serial = fs::read(self.path("serial.log")).unwrap_or_default();
        let fatal = Regex::new(r"(?m)^.*(Panic on CPU|Kernel panic - not syncing|Domain 0 crashed|LAB-FAIL).*$")?;
        if let Some(found) = fatal.find_iter(&serial).find(|found| !found.as_bytes().starts_with(b"(d")) {
            bail!("dom0 or the hypervisor died: {}", String::from_utf8_lossy(found.as_bytes()));
        }
        if !self.is_alive() {
            let said = fs::read_to_string(self.path("qemu.log")).unwrap_or_default();
            bail!("QEMU is gone: {}", command::last_lines(&said, 3));
        }
        Ok(())
    }

    fn await_dom0(&mut self) -> Result<()> {
        let started = Instant::now();
        while !self.path("share/ready").exists() {
            let late = started.elapsed() > START_TIMEOUT;
            let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            if late || ended || self.check().is_err() {
                let reason = match self.check() {
                    Err(error) => format!("{error:#}"),
                    Ok(()) => format!("not ready after {} s", started.elapsed().as_secs()),
                };
                let serial = fs::read(self.path("serial.log")).unwrap_or_default();
                let tail = command::last_lines(&String::from_utf8_lossy(&serial), 15);
                bail!("dom0 does not come up: {reason}\n{tail}\n(logs in {})", self.folder.display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn is_alive(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.state.pid)).unwrap_or_default();
        // A child has its own name only a moment after it was started; a number from a file may mean another process.
        let ours = self.child.is_some() || status.starts_with("Name:\tqemu");
        ours && !status.is_empty() && !status.contains("State:\tZ")
    }

    fn end(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait()?;
        } else if self.is_alive() {
            command::output(Command::new("kill").args(["-KILL", &self.state.pid.to_string()]))?;
            while self.is_alive() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        fs::remove_file(self.path("state.json")).ok();
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.end().ok();
        }
    }
}

fn folder(cache: &Cache, number: usize) -> PathBuf {
    if number == 0 { cache.path("lab") } else { cache.path(&format!("lab{number}")) }
}

fn lock(cache: &Cache, number: usize) -> Result<File> {
    let longest = folder(cache, number).join("shell.sock");
    if longest.as_os_str().len() > SOCKET_PATH {
        bail!("{} is too long for a socket: set OVMF_XEN_CACHE to a shorter path", longest.display());
    }
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder(cache, number).with_extension("lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("lab: waiting for another lab on this machine to end (`lab down` ends one that stays up)");
        lock.lock()?;
    }
    Ok(lock)
}

fn arguments(qemu: &mut Command, image: &Dom0Image, accelerator: Accelerator, guest_memory: u64) {
    let memory = DOM0_MEMORY + guest_memory + XEN_MEMORY;
    match accelerator {
        Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
        Accelerator::Tcg => qemu.args(["-accel", "tcg,thread=multi", "-cpu", TCG_CPU]),
    };
    qemu.args(["-machine", "q35", "-smp", "2", "-m", &memory.to_string()]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "file:serial.log", "-no-reboot", "-net", "none"]);
    qemu.arg("-kernel").arg(image.hypervisor());
    // dom0 keeps to one CPU and guests to the other: sharing one made guests die in early boot now and then.
    qemu.arg("-append").arg(format!(
        "dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M dom0_max_vcpus=1 dom0_vcpus_pin sched=credit console=com1 \
         com1=115200,8n1 noreboot cpuidle=0 bootscrub=0 loglvl=warning guest_loglvl=all"
    ));
    let kernel = image.kernel().display().to_string();
    qemu.arg("-initrd").arg(format!("{kernel} console=hvc0 loglevel=3 {KEEP_OFF_TPM},{}", image.initrd().display()));
    qemu.arg("-drive").arg(format!("file={},format=raw,if=none,id=root,snapshot=on", image.root_disk().display()));
    qemu.args(["-device", "virtio-blk-pci,drive=root"]);
    qemu.args(["-fsdev", "local,id=lab,path=share,security_model=none"]);
    qemu.args(["-device", "virtio-9p-pci,fsdev=lab,mount_tag=lab", "-device", "virtio-serial-pci"]);
    qemu.args(["-chardev", "socket,id=jobs,path=jobs.sock,server=on,wait=off"]);
    qemu.args(["-device", "virtserialport,chardev=jobs,name=lab"]);
    qemu.args(["-chardev", "socket,id=shell,path=shell.sock,server=on,wait=off"]);
    qemu.args(["-device", "virtconsole,chardev=shell"]);
}

/// Starts a TPM 2.0 in software, new and empty, that ends with the QEMU that connects to it. Debian builds the device model of
/// HVM guests without TPM, so the TPM is the machine's, and a guest gets its registers: see `guest::Config`.
fn start_tpm(folder: &Path) -> Result<()> {
    let (state, socket) = (folder.join("tpm"), folder.join("tpm.sock"));
    fs::create_dir_all(&state)?;
    command::output(
        Command::new("swtpm")
            .args(["socket", "--tpm2", "--terminate", "--daemon", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display())),
    )
    .map(drop)
}

fn check_version() -> Result<()> {
    let text = command::output(Command::new(QEMU).arg("--version"))?;
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1).unwrap_or_default();
    let major: u32 = version.split('.').next().unwrap_or_default().parse().unwrap_or_default();
    if major < QEMU_MAJOR {
        bail!("QEMU {QEMU_MAJOR} or newer is needed, this is {version}: run tests/setup");
    }
    Ok(())
}

/// Hardware virtualization where it really runs a guest, and offers it virtualization of its own; else emulation.
/// `OVMF_XEN_ACCEL=tcg` or `=kvm` decides without looking.
#[must_use]
pub fn accelerator() -> Accelerator {
    match std::env::var("OVMF_XEN_ACCEL").as_deref() {
        Ok("tcg") => Accelerator::Tcg,
        Ok("kvm") => Accelerator::Kvm,
        _ if kvm_serves() => Accelerator::Kvm,
        _ => Accelerator::Tcg,
    }
}

/// Runs a boot sector under KVM that writes to port 0xE9 whether its CPU has VMX or SVM.
fn kvm_serves() -> bool {
    if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let folder = std::env::temp_dir().join(format!("lab-kvm-{}", std::process::id()));
    let result = probe_kvm(&folder);
    fs::remove_dir_all(&folder).ok();
    result.unwrap_or(false)
}

fn probe_kvm(folder: &Path) -> Result<bool> {
    const SECTOR: usize = 512;
    #[rustfmt::skip]
    const PROBE: [u8; 45] = [
        0x66, 0xb8, 0x01, 0x00, 0x00, 0x00,       // mov eax, 1
        0x0f, 0xa2,                               // cpuid
        0x66, 0xf7, 0xc1, 0x20, 0x00, 0x00, 0x00, // test ecx, 1 << 5     VMX
        0x75, 0x13,                               // jnz yes
        0x66, 0xb8, 0x01, 0x00, 0x00, 0x80,       // mov eax, 0x80000001
        0x0f, 0xa2,                               // cpuid
        0x66, 0xf7, 0xc1, 0x04, 0x00, 0x00, 0x00, // test ecx, 1 << 2     SVM
        0x75, 0x02,                               // jnz yes
        0xeb, 0x04,                               // jmp end
        0xb0, b'Y',                               // yes: mov al, 'Y'
        0xe6, 0xe9,                               // out 0xe9, al
        0xe6, 0xf4,                               // end: out 0xf4, al    QEMU ends
        0xf4,                                     // hlt
        0xeb, 0xfd,                               // jmp $ - 1
    ];
    fs::create_dir_all(folder)?;
    let mut sector = PROBE.to_vec();
    sector.resize(SECTOR, 0);
    sector[SECTOR - 2..].copy_from_slice(&[0x55, 0xaa]);
    command::write(&folder.join("probe.img"), sector)?;
    Command::new("timeout")
        .args(["-s", "KILL", "5", QEMU, "-accel", "kvm", "-cpu", "host", "-m", "64", "-display", "none"])
        .args(["-monitor", "none", "-serial", "none", "-net", "none", "-no-reboot"])
        .args(["-debugcon", "file:answer", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .args(["-drive", "file=probe.img,format=raw"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(fs::read(folder.join("answer")).unwrap_or_default().starts_with(b"Y"))
}
