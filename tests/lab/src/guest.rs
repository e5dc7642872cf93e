//! One guest: its files into dom0, `xl create`, its console, and how it ended.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use regex::Regex;

use crate::command;
use crate::console::Log;
use crate::dom0::Dom0;
use crate::screen::Picture;

/// The registers of a TPM as `iomem=` takes them: FED40000 to FED44FFF (TCG PC Client Platform TPM Profile, "locality").
const TPM_PAGES: &str = "fed40,5";
/// Where the Debian package has the firmware.
const INSTALLED: &str = "/usr/share/ovmf-xen/FV/OVMF.fd";
const MIB: usize = 1 << 20;
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
const SHORT_TIMEOUT: Duration = Duration::from_secs(30);
/// Saving and restoring moves the guest's whole memory through dom0.
const SAVE_TIMEOUT: Duration = Duration::from_secs(180);

/// What a guest is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name; unique among all guests of a machine.
    pub name: String,
    /// `pvh` or `hvm`.
    pub kind: Kind,
    /// Memory, MiB.
    pub memory: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// The firmware of an HVM guest, on the host; SeaBIOS when it is missing. A PVH guest's is its kernel.
    pub firmware: Option<PathBuf>,
    /// What `kernel=` names, on the host. An HVM guest can do without.
    pub kernel: Option<PathBuf>,
    /// What `ramdisk=` names, on the host.
    pub ramdisk: Option<PathBuf>,
    /// `cmdline=`.
    pub command_line: Option<String>,
    /// Whether it is created again when it reboots.
    pub restart: bool,
    /// Whether an HVM guest has a serial port, COM1.
    pub serial: bool,
    /// Whether it is given the machine's TPM.
    pub tpm: bool,
    /// Whether the firmware is the one that a package has put into dom0.
    pub installed: bool,
    /// Shell commands in the guest's folder of dom0, before it is created.
    pub prepare: String,
    /// More lines of `xl.cfg`; `@FOLDER@` in them stands for the guest's folder in dom0.
    pub extra: Vec<String>,
    /// Disks on the host.
    pub disks: Vec<DiskFile>,
    /// Files for the guest's folder in dom0: name there, and path on the host.
    pub files: Vec<(String, PathBuf)>,
}

/// The kind of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `type="pvh"`, `kernel=` the firmware.
    Pvh,
    /// `type="hvm"`, the firmware through hvmloader, emulated devices by a device model in dom0.
    Hvm,
}

/// A disk of a guest.
#[derive(Debug, Clone)]
pub struct DiskFile {
    /// The image on the host.
    pub path: PathBuf,
    /// Bytes of a sector.
    pub sector_size: u64,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Whether it is a CD in a drive instead of a disk.
    pub is_cdrom: bool,
}

/// Why a domain ended, as the toolstack was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// It powered off.
    Poweroff,
    /// It asked for a reboot.
    Reboot,
    /// It was suspended.
    Suspend,
    /// It crashed.
    Crash,
    /// Another reason of `public/sched.h`.
    Other(u32),
}

/// A guest that was created.
#[derive(Debug)]
pub struct Guest<'a> {
    dom0: &'a Dom0,
    config: Config,
    /// Its PV console.
    pub console: Log,
    /// Its serial port, if it has one.
    pub serial: Log,
    /// The hypervisor's log since its creation; lines `(dN)` are what it wrote to port 0xE9.
    pub hypervisor: Log,
}

impl<'a> Guest<'a> {
    /// Creates the guest and returns when the toolstack has started it. The inner error is what `xl create` says when
    /// it refuses.
    ///
    /// # Errors
    /// Files cannot be copied, or the machine died.
    pub fn create(dom0: &'a Dom0, config: Config) -> Result<Result<Self, String>> {
        let folder = dom0.share("guests").join(&config.name);
        fs::create_dir_all(&folder)?;
        let mut script = format!("from=/lab/guests/{}\n", config.name);
        let named = [("firmware", &config.firmware), ("kernel", &config.kernel), ("ramdisk", &config.ramdisk)];
        let named = named.iter().filter_map(|(name, path)| Some((*name, path.as_ref()?)));
        for (name, path) in named.chain(config.files.iter().map(|(name, path)| (name.as_str(), path))) {
            copy(path, &folder.join(name))?;
            script.push_str(&format!("cp $from/{name} .\n"));
        }
        for (number, disk) in config.disks.iter().enumerate() {
            script.push_str(&send_disk(disk, number, &folder)?);
        }
        command::write(&folder.join("xl.cfg"), config.text())?;
        script.push_str("cp $from/xl.cfg .\n");
        for (number, disk) in config.disks.iter().enumerate().filter(|(_, disk)| disk.sector_size != 512) {
            script.push_str(&format!(
                "loop=$(losetup -f --show -b {} disk{number}.img)\nsed -i \"s,@LOOP{number}@,$loop,\" xl.cfg\n",
                disk.sector_size
            ));
        }
        if !config.prepare.is_empty() {
            script.push_str(&format!("(\n{}\n) >&2\n", config.prepare));
        }
        let created = Self::create_prepared(dom0, config, &script)?;
        fs::remove_dir_all(&folder)?;
        Ok(created)
    }

    /// Creates a guest whose files `prepare`, a shell script run in the guest's folder of dom0, puts there: `kernel`,
    /// `xl.cfg` and what that names. The inner error is as that of [`Guest::create`].
    ///
    /// # Errors
    /// The machine died.
    pub fn create_prepared(dom0: &'a Dom0, config: Config, prepare: &str) -> Result<Result<Self, String>> {
        let name = &config.name;
        let log = dom0.hypervisor_log();
        let hypervisor = Log::follow(&log, length(&log));
        let script = format!("set -e\nmkdir -p /var/lab/{name}\ncd /var/lab/{name}\n{prepare}xl create xl.cfg\n");
        let output = dom0.run(&script, CREATE_TIMEOUT)?;
        let console = Log::follow(&dom0.share("log").join(format!("guest-{name}.log")), 0);
        let serial = Log::follow(&dom0.share("log").join(serial_log(name)), 0);
        let guest = Self { dom0, config, console, serial, hypervisor };
        if output.status != 0 {
            guest.destroy()?;
            return Ok(Err(format!("xl create failed: {}", output.text.trim())));
        }
        Ok(Ok(guest))
    }

    /// Takes in what the logs have grown by, and says whether the domain has ended.
    ///
    /// # Errors
    /// The machine died.
    pub fn poll(&mut self) -> Result<Option<Shutdown>> {
        let ended = self.shutdown();
        self.console.poll()?;
        self.serial.poll()?;
        self.hypervisor.poll()?;
        Ok(ended)
    }

    /// Types `text` on its PV console.
    ///
    /// # Errors
    /// The console is not there.
    pub fn send(&self, text: &str) -> Result<()> {
        let name = &self.config.name;
        let script = format!(
            "set -e\ntty=$(xenstore-read /local/domain/$(xl domid {name})/console/tty)\nprintf '{}' >\"$tty\"\n",
            octal(text)
        );
        self.dom0.run_well(&script, SHORT_TIMEOUT).map(drop).context("cannot type on the guest's console")
    }

    /// Types `text` on its serial port.
    ///
    /// # Errors
    /// The port is not there.
    pub fn send_serial(&self, text: &str) -> Result<()> {
        let script =
            format!("printf '{}' | perl /lab/tools/lab-socket {}\n", octal(text), serial_socket(&self.config.name));
        self.dom0.run_well(&script, SHORT_TIMEOUT).map(drop).context("cannot type on the guest's serial port")
    }

    /// Has the device model carry out QMP commands, JSON objects without single quotes.
    ///
    /// # Errors
    /// There is no device model, or it refuses a command.
    pub fn qmp(&self, commands: &[String]) -> Result<()> {
        let words: String = commands.iter().map(|command| format!(" '{command}'")).collect();
        // libxl keeps its own QMP socket; the one it makes for libxenstat is free.
        let script = format!(
            "perl /lab/tools/lab-qmp /run/xen/qmp-libxenstat-$(xl domid {name}){words}\n",
            name = self.config.name
        );
        self.dom0.run_well(&script, SHORT_TIMEOUT).map(drop)
    }

    /// Takes a picture of the emulated screen.
    ///
    /// # Errors
    /// There is no device model or no screen, or what it writes is no picture.
    pub fn screen(&self) -> Result<Picture> {
        let file = format!("screen-{}.ppm", self.config.name);
        self.qmp(&[format!(r#"{{"execute":"screendump","arguments":{{"filename":"/lab/log/{file}"}}}}"#)])?;
        let path = self.dom0.share("log").join(file);
        let picture = Picture::from_ppm(&command::read(&path)?)?;
        fs::remove_file(path)?;
        Ok(picture)
    }

    /// Presses keys on the emulated keyboard, one after the other; `-` joins those pressed together, as in `ctrl-alt-delete`.
    ///
    /// # Errors
    /// There is no device model, or it does not know a key.
    pub fn press(&self, keys: &[String]) -> Result<()> {
        let commands: Vec<String> = keys.iter().map(|key| send_key(key)).collect();
        self.qmp(&commands)
    }

    /// Saves the guest to a file, which ends the domain, and restores it from there.
    ///
    /// # Errors
    /// The toolstack's.
    pub fn save_and_restore(&self) -> Result<()> {
        let name = &self.config.name;
        let script = format!("set -e\ncd /var/lab/{name}\nxl save {name} state\nxl restore state\nrm state\n");
        self.dom0.run_well(&script, SAVE_TIMEOUT).map(drop)
    }

    /// Runs a shell script in dom0 that finds the lab's tools by name.
    ///
    /// # Errors
    /// It failed.
    pub fn run_in_dom0(&self, script: &str, timeout: Duration) -> Result<()> {
        let script = format!(
            "set -e\nPATH=$PATH:/lab/tools\nlab-varstored() {{ bash /lab/tools/lab-varstored \"$@\"; }}\n{script}\n"
        );
        self.dom0.run_well(&script, timeout).map(drop)
    }

    /// Ends the domain, if it still is there, and removes its files from dom0.
    ///
    /// # Errors
    /// The machine died.
    pub fn destroy(&self) -> Result<()> {
        let name = &self.config.name;
        let script = format!(
            "xl destroy {name} 2>/dev/null\n\
             for loop in $(losetup -n -O NAME,BACK-FILE | sed -n 's,^\\([^ ]*\\) */var/lab/{name}/.*,\\1,p'); do \
             losetup -d $loop; done\nrm -rf /var/lab/{name} {}\n",
            serial_socket(name)
        );
        self.dom0.run(&script, SHORT_TIMEOUT).map(drop)
    }

    /// Copies the guest's logs to `folder`.
    ///
    /// # Errors
    /// The file system's.
    pub fn collect_logs(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let name = &self.config.name;
        let log = self.dom0.share("log");
        fs::copy(log.join(format!("guest-{name}.log")), folder.join("console.raw")).ok();
        fs::copy(log.join(format!("xl-{name}.log")), folder.join("xl.log")).ok();
        fs::copy(log.join(format!("qemu-dm-{name}.log")), folder.join("qemu-dm.log")).ok();
        if self.config.serial {
            command::write(&folder.join("serial.log"), self.serial.text())?;
        }
        command::write(&folder.join("console.log"), self.console.text())?;
        command::write(&folder.join("hypervisor.log"), self.hypervisor.text())?;
        command::write(&folder.join("xl.cfg"), self.config.text())
    }

    /// How the domain ended, from the log of the `xl` that watches it.
    fn shutdown(&self) -> Option<Shutdown> {
        let log = self.dom0.share("log").join(format!("xl-{}.log", self.config.name));
        let how = last_shutdown(&String::from_utf8_lossy(&fs::read(log).unwrap_or_default()))?;
        let comes_back = how == Shutdown::Reboot && self.config.restart;
        (!comes_back).then_some(how)
    }
}

impl Config {
    /// A guest with one processor and nothing that is not asked for.
    #[must_use]
    pub fn new(name: String, kind: Kind, memory: u64) -> Self {
        Self {
            name,
            kind,
            memory,
            vcpus: 1,
            firmware: None,
            kernel: None,
            ramdisk: None,
            command_line: None,
            restart: false,
            serial: false,
            tpm: false,
            installed: false,
            prepare: String::new(),
            extra: Vec::new(),
            disks: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The text of `xl.cfg`, with paths as dom0 sees them.
    #[must_use]
    pub fn text(&self) -> String {
        let folder = format!("/var/lab/{}", self.name);
        let mut lines = vec![format!("name={:?}", self.name)];
        lines.push(format!("type={:?}", if self.kind == Kind::Hvm { "hvm" } else { "pvh" }));
        if self.kind == Kind::Hvm {
            lines.extend(self.hvm_lines(&folder));
        }
        if self.kind == Kind::Pvh && self.installed {
            lines.push(format!("kernel={INSTALLED:?}"));
        }
        for (name, path) in [("kernel", &self.kernel), ("ramdisk", &self.ramdisk)] {
            if path.is_some() {
                lines.push(format!(r#"{name}="{folder}/{name}""#));
            }
        }
        match &self.command_line {
            // xl takes none for an HVM guest without a kernel; the firmware's words have another way.
            Some(words) if self.kind == Kind::Hvm && self.kernel.is_none() => {
                let words: Vec<String> = words.split_whitespace().map(|word| format!("oem={word}")).collect();
                lines.push(format!("smbios={words:?}"));
            }
            Some(command_line) => lines.push(format!("cmdline={command_line:?}")),
            None => {}
        }
        lines.push(format!("memory={}", self.memory));
        lines.push(format!("vcpus={}", self.vcpus));
        // See the machine's flags: dom0 has CPU 0, and an emulated RDTSCP is not to be trusted.
        lines.extend([r#"cpus="1""#.to_owned(), r#"tsc_mode="native""#.to_owned()]);
        lines.extend([r#"on_poweroff="destroy""#.to_owned(), r#"on_crash="destroy""#.to_owned()]);
        lines.push(format!("on_reboot={:?}", if self.restart { "restart" } else { "destroy" }));
        let disks: Vec<String> =
            self.disks.iter().enumerate().map(|(number, disk)| disk.line(number, &folder)).collect();
        lines.push(format!("disk=[{}]", disks.join(", ")));
        if self.tpm {
            lines.push(format!(r#"iomem=["{TPM_PAGES}"]"#));
        }
        lines.extend(self.extra.iter().map(|line| line.replace("@FOLDER@", &folder)));
        lines.join("\n") + "\n"
    }

    /// What only an HVM guest has. No display is served to the outside: pictures of the screen are taken through QMP.
    fn hvm_lines(&self, folder: &str) -> Vec<String> {
        let mut lines = match &self.firmware {
            Some(_) => vec![r#"bios="ovmf""#.to_owned(), format!(r#"bios_path_override="{folder}/firmware""#)],
            None if self.installed => vec![r#"bios="ovmf""#.to_owned()],
            None => vec![r#"bios="seabios""#.to_owned()],
        };
        lines.extend([r#"vga="stdvga""#.to_owned(), "vnc=0".to_owned()]);
        let mut device_model = Vec::new();
        if self.serial {
            lines.push(r#"serial="chardev:lab""#.to_owned());
            device_model.push("-chardev".to_owned());
            device_model.push(format!(
                "socket,id=lab,path={},server=on,wait=off,logfile=/lab/log/{}",
                serial_socket(&self.name),
                serial_log(&self.name)
            ));
        }
        if !device_model.is_empty() {
            lines.push(format!("device_model_args={device_model:?}"));
        }
        lines
    }
}

/// Octal for every byte: no shell, printf or terminal convention can change what arrives.
fn octal(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:03o}")).collect()
}

/// The socket that carries what is typed on a guest's serial port.
fn serial_socket(name: &str) -> String {
    format!("/run/serial-{name}")
}

/// The file in the log folder that holds what a guest wrote to its serial port.
fn serial_log(name: &str) -> String {
    format!("serial-{name}.log")
}

/// The QMP command that presses a key, or several joined by `-`.
fn send_key(keys: &str) -> String {
    let keys: Vec<String> = keys.split('-').map(|key| format!(r#"{{"type":"qcode","data":{key:?}}}"#)).collect();
    format!(r#"{{"execute":"send-key","arguments":{{"keys":[{}]}}}}"#, keys.join(","))
}

impl DiskFile {
    /// A disk with the usual sectors, which the guest may write.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, sector_size: 512, read_only: false, is_cdrom: false }
    }

    fn line(&self, number: usize, folder: &str) -> String {
        let letter = char::from(b'a' + u8::try_from(number).unwrap_or_default());
        let access = if self.read_only { "r" } else { "w" };
        if self.is_cdrom {
            format!("'{folder}/disk{number}.img,format=raw,vdev=xvd{letter},access=ro,devtype=cdrom'")
        } else if self.sector_size == 512 {
            format!("'{folder}/disk{number}.img,raw,xvd{letter},{access}'")
        } else {
            format!("'phy:@LOOP{number}@,xvd{letter},{access}'")
        }
    }
}

/// Writes the parts of a disk that are not zero into the share; returns the commands that make the disk from them, with
/// `$from` for the folder as dom0 sees it.
///
/// # Errors
/// The file system's.
pub fn send_disk(disk: &DiskFile, number: usize, folder: &Path) -> Result<String> {
    let mut image = File::open(&disk.path).with_context(|| format!("cannot read {}", disk.path.display()))?;
    let size = image.metadata()?.len();
    let mut data = Vec::new();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut chunk = vec![0; MIB];
    for index in 0.. {
        let filled = read_full(&mut image, &mut chunk)?;
        if filled == 0 {
            break;
        }
        if chunk[..filled].iter().any(|byte| *byte != 0) {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == index => *count += 1,
                _ => runs.push((index, 1)),
            }
            data.extend_from_slice(&chunk[..filled]);
        }
    }
    command::write(&folder.join(format!("disk{number}.data")), &data)?;
    let mut script = format!("truncate -s {size} disk{number}.img\n");
    let mut skip = 0;
    for (seek, count) in runs {
        script.push_str(&format!(
            "dd if=$from/disk{number}.data of=disk{number}.img bs=1M skip={skip} seek={seek} count={count} \
             conv=notrunc status=none\n"
        ));
        skip += count;
    }
    Ok(script)
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// The last shutdown that an `xl` log tells of; the codes are those of `public/sched.h`.
fn last_shutdown(text: &str) -> Option<Shutdown> {
    let pattern = Regex::new(r"Domain \d+ has shut down, reason code (\d+)").ok()?;
    let code = pattern.captures_iter(text).last()?.get(1)?.as_str().parse().ok()?;
    Some(match code {
        0 => Shutdown::Poweroff,
        1 => Shutdown::Reboot,
        2 => Shutdown::Suspend,
        3 => Shutdown::Crash,
        other => Shutdown::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            kernel: Some("/x".into()),
            command_line: Some("say=\"hi\"".into()),
            extra: vec!["acpi_firmware='@FOLDER@/x'".into()],
            disks: vec![DiskFile { sector_size: 4096, ..DiskFile::new("/d".into()) }],
            ..Config::new("a".into(), Kind::Pvh, 512)
        }
    }

    #[test]
    fn a_disk_with_other_sectors_goes_through_a_loop_device() {
        assert!(config().text().contains("'phy:@LOOP0@,xvda,w'"));
    }

    #[test]
    fn a_cd_is_in_a_drive_and_read_only() {
        let mut config = config();
        config.disks[0].is_cdrom = true;
        assert!(config.text().contains("/disk0.img,format=raw,vdev=xvda,access=ro,devtype=cdrom'"));
    }

    #[test]
    fn files_are_named_by_the_guests_folder() {
        assert!(config().text().contains("acpi_firmware='/var/lab/a/x'"));
    }

    #[test]
    fn an_hvm_guest_has_a_firmware_beside_its_kernel() {
        let config = Config { kind: Kind::Hvm, firmware: Some("/f".into()), ..config() };
        let text = config.text();
        assert!(
            text.contains("bios_path_override=\"/var/lab/a/firmware\"")
                && text.contains("kernel=\"/var/lab/a/kernel\"")
        );
    }

    #[test]
    fn words_for_the_firmware_reach_an_hvm_guest_without_a_kernel() {
        let command_line = Some("ovmf.menu ovmf.wait".to_owned());
        let text = Config { kind: Kind::Hvm, kernel: None, command_line, ..config() }.text();
        assert!(text.contains(r#"smbios=["oem=ovmf.menu", "oem=ovmf.wait"]"#) && !text.contains("cmdline="), "{text}");
    }

    #[test]
    fn without_a_firmware_an_hvm_guest_has_seabios() {
        let config = Config { kind: Kind::Hvm, kernel: None, ..config() };
        assert!(config.text().contains("bios=\"seabios\"") && !config.text().contains("kernel="));
    }

    #[test]
    fn an_installed_firmware_is_named_by_kind() {
        let hvm = Config { kind: Kind::Hvm, kernel: None, installed: true, ..config() }.text();
        assert!(hvm.contains("bios=\"ovmf\"") && !hvm.contains("bios_path_override"));
        let pvh = Config { kernel: None, installed: true, ..config() }.text();
        assert!(pvh.contains("kernel=\"/usr/share/ovmf-xen/FV/OVMF.fd\""));
    }

    #[test]
    fn keys_joined_are_pressed_together() {
        let expected = r#"{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"ctrl"},{"type":"qcode","data":"c"}]}}"#;
        assert_eq!(send_key("ctrl-c"), expected);
    }

    #[test]
    fn quotes_in_the_command_line_are_escaped() {
        assert!(config().text().contains(r#"cmdline="say=\"hi\"""#));
    }

    #[test]
    fn the_last_shutdown_counts() {
        let log = "Domain 1 has shut down, reason code 1 0x1\nDomain 2 has shut down, reason code 0 0x0\n";
        assert_eq!(last_shutdown(log), Some(Shutdown::Poweroff));
    }
}
