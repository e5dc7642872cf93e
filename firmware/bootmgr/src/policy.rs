//! The order in which programs are tried (UEFI 2.10 §3.1.1, §3.3, §3.5.1.1):
//!
//! 1. the kernel that the guest's configuration names, for it has nothing to do with disks and what is stored;
//! 2. drivers that `DriverOrder` names, then the programs of `SysPrepOrder`;
//! 3. the menu, if `OsIndications`, a key or the guest's configuration asks for it;
//! 4. `BootNext`, once: it is deleted before it is tried;
//! 5. `BootOrder`, its active entries. Each disk that can be booted from has one ([`crate::automatic`]); new ones are placed kind
//!    by kind in the toolstack's order ([`DeviceOrder`]). Of a disk it is the removable media path of every volume that is tried,
//!    then what vendors' folders have;
//! 6. whatever device has had no turn; network devices, which choose a program themselves, and disks without an entry have theirs
//!    before the entries of disks that come later in that order;
//! 7. the menu, if a key is pressed soon, or whenever it is where the guest's configuration asks to wait; else the end.
//!
//! A start can ask for 6 before 5. Whatever fails is told with its device and its reason, and the next one is tried.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use services::Status;

use crate::automatic;
use crate::devices::{Class, DeviceOrder, Disk, Volume};
use crate::firmware::{Firmware, Loaded};
use crate::indications::{self, Indications};
use crate::load_option::{FORCE_RECONNECT, LoadOption};
use crate::menu::Choice;
use crate::status::status_text;
use crate::variables::{self, BOOT, DRIVER, GLOBAL, Options, SYSTEM_PREPARATION, VOLATILE};
use crate::vendors;

/// The program of a volume that no boot entry points to, for x86-64.
pub const REMOVABLE_PATH: &str = "\\EFI\\BOOT\\BOOTX64.EFI";

/// How long a key is waited for when nothing is left to boot: long enough for somebody who watches, and short for a toolstack
/// that waits for the guest to end.
const SECONDS_AFTER_FAILURE: u16 = 5;

/// What a person calls the kernel that the guest's configuration names.
const KERNEL: &str = "the kernel of the guest's configuration";
/// And the UEFI Shell that the firmware's image carries.
const SHELL: &str = "the firmware's UEFI Shell";

/// What the guest's configuration asks of the boot manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wishes {
    /// The menu before anything is started.
    pub menu: bool,
    /// When nothing is left to boot, wait for a key as long as it takes.
    pub wait: bool,
}

/// Tries everything there is. Comes back when nothing is left to try.
pub fn boot(firmware: &mut dyn Firmware, wishes: Wishes) {
    if let Some(loaded) = firmware.load_kernel() {
        run(firmware, KERNEL, loaded);
    }
    start_drivers(firmware);
    let mut boot = Boot::new(firmware);
    boot.synchronize();
    let indications = indications::take(boot.firmware);
    let timeout = match variables::numbers(boot.firmware, &GLOBAL, "Timeout").first() {
        // What is asked for here has been waited for.
        _ if wishes.menu || indications != Indications::default() => 0,
        timeout => timeout.copied().unwrap_or(0),
    };
    if wishes.menu || indications.menu || boot.firmware.is_menu_wanted(timeout) {
        boot.menu();
    }
    boot.try_everything(indications.recovery);
    loop {
        let (limit, how_long) = match wishes.wait {
            true => (None, String::new()),
            false => (Some(SECONDS_AFTER_FAILURE), format!(" within {SECONDS_AFTER_FAILURE} s")),
        };
        boot.firmware.say(&format!("Nothing left to boot. Press a key{how_long} for the boot menu."));
        if !boot.firmware.wait_for_key(limit) {
            return;
        }
        boot.menu();
        boot.try_everything(false);
    }
}

/// Starts the drivers of `DriverOrder`, and lets them have the devices.
fn start_drivers(firmware: &mut dyn Firmware) {
    let (mut started, mut anew) = (false, false);
    for (name, option) in active(firmware, DRIVER) {
        started |= start_before(firmware, &name, &option);
        anew |= option.attributes & FORCE_RECONNECT != 0;
    }
    if started {
        firmware.connect(anew);
    }
}

/// The active options of a kind, each with what a person calls it. What is no option is told.
fn active(firmware: &mut dyn Firmware, options: Options) -> Vec<(String, LoadOption)> {
    let mut active = Vec::new();
    for number in options.order(firmware) {
        match options.read(firmware, number) {
            Some(Ok(option)) if option.is_active() => active.push((label(options, number, &option), option)),
            Some(Ok(_)) => {}
            Some(Err(error)) => firmware.say(&format!("{}: {error}", options.name(number))),
            None => firmware.say(&format!("{}: does not exist", options.name(number))),
        }
    }
    active
}

fn label(options: Options, number: u16, option: &LoadOption) -> String {
    format!("{} \"{}\"", options.name(number), option.description)
}

fn start_before(firmware: &mut dyn Firmware, name: &str, option: &LoadOption) -> bool {
    let outcome = match firmware.load_option(option) {
        Ok(program) => match firmware.start_before(program) {
            Status::SUCCESS => return true,
            status => status_text(status),
        },
        Err(reason) => reason,
    };
    firmware.say(&format!("{name}: {outcome}"));
    false
}

/// A start, from the first boot option on.
struct Boot<'a> {
    firmware: &'a mut dyn Firmware,
    order: DeviceOrder,
    disks: Vec<Disk>,
    /// Names of disks that have an entry.
    listed: Vec<String>,
    /// Names of disks that have had their turn.
    tried: Vec<String>,
    networks_tried: bool,
    /// Whether the programs of `SysPrepOrder` have run.
    prepared: bool,
    /// What came of the last program.
    outcome: Option<String>,
}

impl<'a> Boot<'a> {
    fn new(firmware: &'a mut dyn Firmware) -> Self {
        let order = firmware.device_order();
        let disks = firmware.disks();
        Self {
            firmware,
            order,
            disks,
            listed: Vec::new(),
            tried: Vec::new(),
            networks_tried: false,
            prepared: false,
            outcome: None,
        }
    }

    /// Makes the variables say what there is.
    fn synchronize(&mut self) {
        indications::publish(self.firmware);
        self.listed = automatic::synchronize(self.firmware, &self.disks, &self.order, |firmware, disk| {
            disk.volumes.iter().any(|volume| is_bootable(firmware, volume))
        });
    }

    /// Shows the menu and does what is chosen, until that is to go on.
    fn menu(&mut self) {
        loop {
            match self.firmware.menu(self.outcome.take()) {
                Choice::Continue => return,
                Choice::Entry(number) => self.try_entry(number, true),
                Choice::File { volume, path } => {
                    self.set_current(None);
                    let missing = || Err("no such file".to_string());
                    let loaded = self.firmware.load_file(&volume, &path).unwrap_or_else(missing);
                    self.run(&format!("{}:{path}", volume.name), loaded);
                }
                Choice::Shell => {
                    self.set_current(None);
                    let loaded = self.firmware.load_shell();
                    self.run(SHELL, loaded);
                }
            }
            // A shell may have brought drivers or taken volumes away.
            self.disks = self.firmware.disks();
            self.tried.clear();
            self.networks_tried = false;
        }
    }

    /// Tries all there is; with `recovery` only what no entry is needed for.
    fn try_everything(&mut self, recovery: bool) {
        for failure in self.firmware.failures() {
            self.firmware.say(&failure);
        }
        if !recovery {
            self.try_next();
        }
        if self.order.first || recovery {
            self.try_devices();
        }
        if !recovery {
            BOOT.order(self.firmware).into_iter().for_each(|number| self.try_entry(number, false));
        }
        self.try_devices();
        self.tried.clear();
        self.networks_tried = false;
    }

    fn try_next(&mut self) {
        let Some(next) = self.firmware.get(&GLOBAL, "BootNext") else { return };
        // Deleted first: an entry that crashes the machine must not be tried for ever.
        let _ = variables::keep(self.firmware, &GLOBAL, "BootNext", &[]);
        match <[u8; 2]>::try_from(next.as_slice()) {
            Ok(number) => self.try_entry(u16::from_le_bytes(number), true),
            Err(_) => self.firmware.say("BootNext is no entry number; ignored"),
        }
    }

    /// Tries `Boot####`. `chosen`: somebody asked for this one, so it need not be active.
    fn try_entry(&mut self, number: u16, chosen: bool) {
        let name = BOOT.name(number);
        let option = match BOOT.read(self.firmware, number) {
            Some(Ok(option)) => option,
            Some(Err(error)) => return self.tell(format!("{name}: {error}")),
            None => return self.tell(format!("{name}: does not exist")),
        };
        if !chosen && !option.is_active() {
            return;
        }
        if let Some(disk) = automatic::disk_of(&option, &self.disks).cloned() {
            if chosen {
                self.tried.retain(|tried| *tried != disk.name);
            } else {
                self.try_unlisted_before(&disk);
            }
            self.try_disk(&disk, Some(number));
            return;
        }
        self.set_current(Some(number));
        let loaded = self.firmware.load_option(&option);
        self.run(&label(BOOT, number, &option), loaded);
    }

    /// Tries all devices that have had no turn, and tells of disks that have nothing to boot.
    fn try_devices(&mut self) {
        if self.disks.is_empty() && self.firmware.failures().is_empty() && !self.networks_tried {
            self.firmware.say("No disks: the guest's configuration has no 'disk=' that this firmware can use");
        }
        for class in self.order.all() {
            for disk in self.disks.clone().iter().filter(|disk| disk.class == class) {
                self.try_disk(disk, None);
            }
            if class == Class::Network {
                self.try_networks();
            }
        }
    }

    /// Gives what has no entry its turn before a disk that has one: network devices, and disks with nothing to boot, of which is
    /// told why.
    fn try_unlisted_before(&mut self, disk: &Disk) {
        let rank = self.order.rank(disk.class);
        if self.order.rank(Class::Network) < rank {
            self.try_networks();
        }
        let place = self.disks.iter().position(|other| other.name == disk.name).unwrap_or(0);
        for (other_place, other) in self.disks.clone().iter().enumerate() {
            let before = (self.order.rank(other.class), other_place) < (rank, place);
            if before && !self.listed.contains(&other.name) {
                self.try_disk(other, None);
            }
        }
    }

    /// Network devices are asked for only when their turn comes: their drivers may have to be started first.
    fn try_networks(&mut self) {
        if core::mem::replace(&mut self.networks_tried, true) {
            return;
        }
        for network in self.firmware.networks() {
            self.set_current(None);
            let loaded = self.firmware.load_network(&network);
            self.run(&network.name, loaded);
        }
    }

    /// Tries every volume of a disk, if it has had no turn.
    fn try_disk(&mut self, disk: &Disk, number: Option<u16>) {
        if self.tried.contains(&disk.name) {
            return;
        }
        self.tried.push(disk.name.clone());
        self.set_current(number);
        for (name, problem) in &disk.problems {
            self.tell(format!("{name}: {problem}"));
        }
        for volume in &disk.volumes {
            self.try_volume(volume);
        }
    }

    /// Tries the removable media path, and where nothing comes of it the boot programs of installed systems.
    fn try_volume(&mut self, volume: &Volume) {
        let removable = self.firmware.load_file(volume, REMOVABLE_PATH);
        let mut found = removable.is_some();
        if let Some(loaded) = removable {
            let runs = loaded.is_ok();
            self.run(&format!("{}:{REMOVABLE_PATH}", volume.name), loaded);
            if runs {
                return;
            }
        }
        for path in vendors::programs(self.firmware, volume) {
            if let Some(loaded) = self.firmware.load_file(volume, &path) {
                found = true;
                self.run(&format!("{}:{path}", volume.name), loaded);
            }
        }
        if !found {
            self.tell(format!("{}: no {REMOVABLE_PATH}, no boot program of a known system", volume.name));
        }
    }

    /// Tells which entry it is that is tried.
    fn set_current(&mut self, number: Option<u16>) {
        self.prepare();
        let data = number.map(u16::to_le_bytes);
        let data = data.as_ref().map_or(&[][..], |data| data);
        if !data.is_empty() || self.firmware.get(&GLOBAL, "BootCurrent").is_some() {
            let _ = self.firmware.set(&GLOBAL, "BootCurrent", VOLATILE, data);
        }
    }

    /// Runs the programs of `SysPrepOrder`, once.
    fn prepare(&mut self) {
        if core::mem::replace(&mut self.prepared, true) {
            return;
        }
        for (name, option) in active(self.firmware, SYSTEM_PREPARATION) {
            start_before(self.firmware, &name, &option);
        }
    }

    fn run(&mut self, what: &str, loaded: Loaded) {
        self.outcome = Some(run(self.firmware, what, loaded));
    }

    fn tell(&mut self, line: String) {
        self.firmware.say(&line);
        self.outcome = Some(line);
    }
}

fn is_bootable(firmware: &mut dyn Firmware, volume: &Volume) -> bool {
    firmware.exists(volume, REMOVABLE_PATH) || !vendors::programs(firmware, volume).is_empty()
}

/// Starts what was loaded, and says what came of it.
fn run(firmware: &mut dyn Firmware, what: &str, loaded: Loaded) -> String {
    let outcome = match loaded {
        Ok(program) => {
            firmware.say(&format!("Starting {what}"));
            let status = firmware.start(program);
            format!("{what}: came back: {}", status_text(status))
        }
        Err(reason) => format!("{what}: {reason}"),
    };
    firmware.say(&outcome);
    outcome
}

#[cfg(test)]
mod tests;
