//! The order in which programs are tried (UEFI 2.10 §3.1.1, §3.3, §3.5.1.1):
//!
//! 1. the kernel that the guest's configuration names, for it has nothing to do with disks and what is stored;
//! 2. `BootNext`, once: it is deleted before it is tried;
//! 3. `BootOrder`, its active entries;
//! 4. the devices, kind by kind in the toolstack's order ([`DeviceOrder`]): the removable media path of every volume, disks of a
//!    kind in the order of the guest's configuration; network devices choose a program themselves;
//! 5. what is left to do is documented and said: shut down, or wait for a key.
//!
//! A start can ask for 4 before 3.
//!
//! Whatever fails is told with its device and its reason, and the next one is tried.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use services::{Handle, Status};

use crate::load_option::LoadOption;

/// The program of a volume that no boot entry points to, for x86-64.
pub const REMOVABLE_PATH: &str = "\\EFI\\BOOT\\BOOTX64.EFI";

/// What a person calls the kernel that the guest's configuration names.
const KERNEL: &str = "the kernel of the guest's configuration";

/// A loaded program, or why there is none, for a person to read.
pub type Loaded = Result<Handle, String>;

/// A kind of device to boot from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A hard disk.
    HardDisk,
    /// A CD.
    Cd,
    /// A network device.
    Network,
}

/// The order in which kinds of devices are tried.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceOrder {
    /// What the toolstack says, which may be nothing. Kinds that it does not name follow in the order of
    /// [`DeviceOrder::OTHERS`]: a guest that is installed from a CD is not to be lost because of its configuration.
    pub classes: Vec<Class>,
    /// Whether devices come before `BootOrder`.
    pub first: bool,
}

impl DeviceOrder {
    const OTHERS: [Class; 3] = [Class::HardDisk, Class::Cd, Class::Network];

    /// All kinds, each once.
    fn all(&self) -> Vec<Class> {
        let mut all = Vec::new();
        for class in self.classes.iter().chain(&Self::OTHERS) {
            if !all.contains(class) {
                all.push(*class);
            }
        }
        all
    }
}

/// A disk, and the volumes found on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// What a person calls it: `xvda`.
    pub name: String,
    /// What kind it is of.
    pub class: Class,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// What is wrong with it, or why there is nothing on it: what a person calls the disk or partition, and the reason.
    pub problems: Vec<(String, String)>,
}

/// A device that has programs from elsewhere (`EFI_LOAD_FILE_PROTOCOL`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// What a person calls it.
    pub name: String,
    /// Its handle.
    pub handle: Handle,
}

/// A file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// What a person calls it: `xvda1`.
    pub name: String,
    /// Its handle.
    pub handle: Handle,
}

/// What the policy needs of the firmware.
pub trait Firmware {
    /// Loads the kernel that the guest's configuration names; `None` if it names none.
    fn load_kernel(&mut self) -> Option<Loaded>;
    /// In which order devices are tried.
    fn device_order(&mut self) -> DeviceOrder;
    /// A global variable (`EFI_GLOBAL_VARIABLE`).
    fn variable(&mut self, name: &str) -> Option<Vec<u8>>;
    /// Deletes a global variable.
    fn delete_variable(&mut self, name: &str);
    /// Sets the volatile `BootCurrent`.
    fn set_boot_current(&mut self, number: u16);
    /// Loads the program of a load option; short-form paths are completed.
    fn load_option(&mut self, option: &LoadOption) -> Loaded;
    /// Loads a file of a volume; `None` if it is not there.
    fn load_file(&mut self, volume: &Volume, path: &str) -> Option<Loaded>;
    /// Starts a program; comes back only if the program does.
    fn start(&mut self, program: Handle) -> Status;
    /// Loads what a network device chooses.
    fn load_network(&mut self, network: &Network) -> Loaded;
    /// Network devices; their drivers are started now if they were not.
    fn networks(&mut self) -> Vec<Network>;
    /// Disks in a stable order.
    fn disks(&mut self) -> Vec<Disk>;
    /// What is wrong with devices that could not be used at all.
    fn failures(&mut self) -> Vec<String>;
    /// A line on the console.
    fn say(&mut self, line: &str);
}

/// Tries everything there is. Comes back when nothing is left to try.
pub fn boot(firmware: &mut dyn Firmware) {
    if let Some(loaded) = firmware.load_kernel() {
        run(firmware, KERNEL, loaded);
    }
    if let Some(next) = firmware.variable("BootNext") {
        // Deleted first: an entry that crashes the machine must not be tried for ever.
        firmware.delete_variable("BootNext");
        match <[u8; 2]>::try_from(next.as_slice()) {
            Ok(number) => try_entry(firmware, u16::from_le_bytes(number), true),
            Err(_) => firmware.say("BootNext is no entry number; ignored"),
        }
    }
    let order = firmware.device_order();
    if order.first {
        try_devices(firmware, &order);
    }
    let entries = firmware.variable("BootOrder").unwrap_or_default();
    for number in entries.chunks_exact(2) {
        try_entry(firmware, u16::from_le_bytes([number[0], number[1]]), false);
    }
    if !order.first {
        try_devices(firmware, &order);
    }
}

/// Tries `Boot####`. `chosen`: somebody asked for this one, so it need not be active.
fn try_entry(firmware: &mut dyn Firmware, number: u16, chosen: bool) {
    let name = format!("Boot{number:04X}");
    let Some(content) = firmware.variable(&name) else {
        firmware.say(&format!("{name}: does not exist"));
        return;
    };
    let option = match LoadOption::parse(&content) {
        Ok(option) => option,
        Err(error) => {
            firmware.say(&format!("{name}: {error}"));
            return;
        }
    };
    if !chosen && !option.is_active() {
        return;
    }
    firmware.set_boot_current(number);
    let what = format!("{name} \"{}\"", option.description);
    let loaded = firmware.load_option(&option);
    run(firmware, &what, loaded);
}

/// Tries all devices, and tells of disks that have nothing to boot.
fn try_devices(firmware: &mut dyn Firmware, order: &DeviceOrder) {
    let failures = firmware.failures();
    failures.iter().for_each(|failure| firmware.say(failure));
    let disks = firmware.disks();
    if disks.is_empty() && failures.is_empty() {
        firmware.say("No disks: the guest's configuration has no 'disk=' that this firmware can use");
    }
    for class in order.all() {
        disks.iter().filter(|disk| disk.class == class).for_each(|disk| try_disk(firmware, disk));
        // Asked for only when their turn comes: their drivers may have to be started first.
        let networks = if class == Class::Network { firmware.networks() } else { Vec::new() };
        for network in &networks {
            let loaded = firmware.load_network(network);
            run(firmware, &network.name, loaded);
        }
    }
}

/// Tries the removable media path of every volume of a disk.
fn try_disk(firmware: &mut dyn Firmware, disk: &Disk) {
    for (name, problem) in &disk.problems {
        firmware.say(&format!("{name}: {problem}"));
    }
    for volume in &disk.volumes {
        match firmware.load_file(volume, REMOVABLE_PATH) {
            None => firmware.say(&format!("{}: no {REMOVABLE_PATH}", volume.name)),
            Some(loaded) => run(firmware, &format!("{}:{REMOVABLE_PATH}", volume.name), loaded),
        }
    }
}

fn run(firmware: &mut dyn Firmware, what: &str, loaded: Loaded) {
    match loaded {
        Ok(program) => {
            firmware.say(&format!("Starting {what}"));
            let status = firmware.start(program);
            firmware.say(&format!("{what}: came back: {}", status_text(status)));
        }
        Err(reason) => firmware.say(&format!("{what}: {reason}")),
    }
}

/// A status as a person reads it.
pub fn status_text(status: Status) -> String {
    let text = match status {
        Status::SUCCESS => "success",
        Status::LOAD_ERROR => "load error",
        Status::INVALID_PARAMETER => "invalid parameter",
        Status::UNSUPPORTED => "unsupported",
        Status::BUFFER_TOO_SMALL => "buffer too small",
        Status::NOT_READY => "not ready",
        Status::DEVICE_ERROR => "device error",
        Status::WRITE_PROTECTED => "write protected",
        Status::OUT_OF_RESOURCES => "out of memory",
        Status::VOLUME_CORRUPTED => "file system is damaged",
        Status::VOLUME_FULL => "volume is full",
        Status::NO_MEDIA => "no medium",
        Status::NOT_FOUND => "not found",
        Status::ACCESS_DENIED => "access denied",
        Status::TIMEOUT => "timed out",
        Status::ABORTED => "aborted",
        Status::SECURITY_VIOLATION => "refused by Secure Boot",
        other => return format!("status {:#x}", other.0),
    };
    text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_option::ACTIVE;
    use alloc::collections::BTreeMap;

    /// A machine made of tables: which variables there are, what loads, what a program returns.
    #[derive(Default)]
    struct Scripted {
        variables: BTreeMap<String, Vec<u8>>,
        kernel: Option<Loaded>,
        order: DeviceOrder,
        networks: Vec<Network>,
        options: BTreeMap<String, Loaded>,
        files: BTreeMap<String, Loaded>,
        disks: Vec<Disk>,
        started: Vec<usize>,
        current: Option<u16>,
        said: Vec<String>,
    }

    impl Firmware for Scripted {
        fn load_kernel(&mut self) -> Option<Loaded> {
            self.kernel.clone()
        }
        fn device_order(&mut self) -> DeviceOrder {
            self.order.clone()
        }
        fn load_network(&mut self, network: &Network) -> Loaded {
            Ok(network.handle)
        }
        fn networks(&mut self) -> Vec<Network> {
            self.networks.clone()
        }
        fn variable(&mut self, name: &str) -> Option<Vec<u8>> {
            self.variables.get(name).cloned()
        }
        fn delete_variable(&mut self, name: &str) {
            self.variables.remove(name);
        }
        fn set_boot_current(&mut self, number: u16) {
            self.current = Some(number);
        }
        fn load_option(&mut self, option: &LoadOption) -> Loaded {
            self.options[&option.description].clone()
        }
        fn load_file(&mut self, volume: &Volume, _path: &str) -> Option<Loaded> {
            self.files.get(&volume.name).cloned()
        }
        fn start(&mut self, program: Handle) -> Status {
            self.started.push(program as usize);
            Status::ABORTED
        }
        fn disks(&mut self) -> Vec<Disk> {
            self.disks.clone()
        }
        fn failures(&mut self) -> Vec<String> {
            Vec::new()
        }
        fn say(&mut self, line: &str) {
            self.said.push(line.to_string());
        }
    }

    fn handle(number: usize) -> Handle {
        number as Handle
    }

    fn entry(attributes: u32, description: &str) -> Vec<u8> {
        let mut bytes = attributes.to_le_bytes().to_vec();
        bytes.extend([4, 0]);
        bytes.extend(description.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        bytes.extend([0x7F, 0xFF, 4, 0]);
        bytes
    }

    fn machine() -> Scripted {
        let mut machine = Scripted::default();
        for (number, attributes, name) in [(1, ACTIVE, "one"), (2, 0, "two"), (0xA, ACTIVE, "ten")] {
            machine.variables.insert(format!("Boot{number:04X}"), entry(attributes, name));
            machine.options.insert(name.into(), Ok(handle(number as usize)));
        }
        machine.variables.insert("BootOrder".into(), alloc::vec![0xA, 0, 2, 0, 1, 0]);
        machine.add_disk("xvda", Class::HardDisk, 100);
        machine
    }

    impl Scripted {
        /// A disk with one volume, which has a program.
        fn add_disk(&mut self, name: &str, class: Class, program: usize) {
            let volume = Volume { name: format!("{name}1"), handle: handle(program) };
            self.files.insert(volume.name.clone(), Ok(handle(program)));
            self.disks.push(Disk { name: name.into(), class, volumes: alloc::vec![volume], problems: Vec::new() });
        }
    }

    /// A machine with devices of all kinds, and an entry.
    fn zoo() -> Scripted {
        let mut machine = machine();
        machine.add_disk("xvdb", Class::Cd, 101);
        machine.add_disk("xvdc", Class::HardDisk, 103);
        machine.networks.push(Network { name: "eth0".into(), handle: handle(104) });
        machine
    }

    #[test]
    fn active_entries_are_tried_in_order_and_then_the_removable_path() {
        let mut machine = machine();
        boot(&mut machine);
        assert_eq!(machine.started, [10, 1, 100]);
    }

    #[test]
    fn boot_next_comes_first_once_and_even_inactive() {
        let mut machine = machine();
        machine.variables.insert("BootNext".into(), alloc::vec![2, 0]);
        boot(&mut machine);
        assert_eq!(machine.started, [2, 10, 1, 100]);
        assert!(!machine.variables.contains_key("BootNext"));
    }

    #[test]
    fn a_failure_names_its_device_and_reason_and_the_next_is_tried() {
        let mut machine = machine();
        machine.options.insert("ten".into(), Err("not a PE file".into()));
        machine.variables.insert("Boot0001".into(), alloc::vec![1]);
        boot(&mut machine);
        assert_eq!(machine.started, [100]);
        assert_eq!(machine.said[0], "Boot000A \"ten\": not a PE file");
        assert_eq!(machine.said[1], "Boot0001: is cut short");
        assert_eq!(machine.said[2], "Starting xvda1:\\EFI\\BOOT\\BOOTX64.EFI");
    }

    #[test]
    fn without_a_toolstacks_order_hard_disks_come_first() {
        let mut machine = zoo();
        boot(&mut machine);
        assert_eq!(machine.started, [10, 1, 100, 103, 101, 104]);
    }

    #[test]
    fn devices_are_tried_in_the_toolstacks_order_and_the_others_after_them() {
        let mut machine = zoo();
        machine.order.classes = alloc::vec![Class::Network, Class::Cd];
        boot(&mut machine);
        assert_eq!(machine.started, [10, 1, 104, 101, 100, 103]);
    }

    #[test]
    fn devices_come_before_entries_when_asked_for_and_then_only_once() {
        let mut machine = zoo();
        machine.order = DeviceOrder { classes: alloc::vec![Class::Cd], first: true };
        machine.variables.insert("BootNext".into(), alloc::vec![2, 0]);
        boot(&mut machine);
        assert_eq!(machine.started, [2, 101, 100, 103, 104, 10, 1]);
    }

    #[test]
    fn a_kernel_of_the_configuration_comes_before_everything() {
        let mut machine = machine();
        machine.kernel = Some(Ok(handle(7)));
        machine.variables.insert("BootNext".into(), alloc::vec![2, 0]);
        boot(&mut machine);
        assert_eq!(machine.started, [7, 2, 10, 1, 100]);
        assert_eq!(machine.said[0], "Starting the kernel of the guest's configuration");
    }

    #[test]
    fn a_kernel_that_cannot_be_loaded_says_why_and_the_rest_is_tried() {
        let mut machine = machine();
        machine.kernel = Some(Err("no EFI program".into()));
        boot(&mut machine);
        assert_eq!(machine.started, [10, 1, 100]);
        assert_eq!(machine.said[0], "the kernel of the guest's configuration: no EFI program");
    }

    #[test]
    fn disks_without_volumes_say_why() {
        let mut machine = Scripted::default();
        let problems = alloc::vec![("xvda".into(), "no partition table".into())];
        machine.disks.push(Disk { name: "xvda".into(), class: Class::HardDisk, volumes: Vec::new(), problems });
        boot(&mut machine);
        assert_eq!(machine.said, ["xvda: no partition table"]);
        let mut empty = Scripted::default();
        boot(&mut empty);
        assert!(empty.said[0].starts_with("No disks"));
    }
}
