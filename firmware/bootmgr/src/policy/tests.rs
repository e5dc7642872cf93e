//! What is started in which order, on a scripted machine.

use alloc::collections::BTreeMap;

use services::Handle;
use services::file::DirectoryEntry;
use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;

use super::*;
use crate::devices::Network;
use crate::load_option::ACTIVE;
use crate::testing::{Store, disk, entry, handle};
use crate::variables::Variables;

/// A machine made of tables: which variables there are, what loads, what a program returns.
#[derive(Default)]
struct Scripted {
    store: Store,
    kernel: Option<Loaded>,
    order: DeviceOrder,
    networks: Vec<Network>,
    options: BTreeMap<String, Loaded>,
    files: BTreeMap<String, Loaded>,
    shell: Option<Handle>,
    disks: Vec<Disk>,
    /// What is chosen in the menu, one after the other; then to go on.
    choices: Vec<Choice>,
    /// A key asks for the menu.
    key: bool,
    /// How often a key is pressed when nothing is left; then there is no keyboard.
    presses: usize,
    started: Vec<usize>,
    /// `BootCurrent` whenever something was started.
    current: Vec<Option<Vec<u8>>>,
    said: Vec<String>,
    /// What the menu was told.
    messages: Vec<Option<String>>,
    asked: Vec<u16>,
    waited: Vec<Option<u16>>,
    connected: Vec<bool>,
}

impl Variables for Scripted {
    fn get(&self, vendor: &Guid, name: &str) -> Option<Vec<u8>> {
        self.store.get(vendor, name)
    }
    fn set(&mut self, vendor: &Guid, name: &str, attributes: VariableAttributes, data: &[u8]) -> Result<(), Status> {
        self.store.set(vendor, name, attributes, data)
    }
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
    fn load_option(&mut self, option: &LoadOption) -> Loaded {
        self.options[&option.description].clone()
    }
    fn load_file(&mut self, volume: &Volume, path: &str) -> Option<Loaded> {
        self.files.get(&format!("{}:{path}", volume.name)).cloned()
    }
    fn load_shell(&mut self) -> Loaded {
        self.shell.ok_or_else(|| "none".to_string())
    }
    fn start(&mut self, program: Handle) -> Status {
        self.started.push(program as usize);
        self.current.push(self.get(&GLOBAL, "BootCurrent"));
        Status::ABORTED
    }
    fn start_before(&mut self, program: Handle) -> Status {
        self.started.push(program as usize);
        Status::SUCCESS
    }
    fn connect(&mut self, anew: bool) {
        self.connected.push(anew);
    }
    fn disks(&mut self) -> Vec<Disk> {
        self.disks.clone()
    }
    fn list(&mut self, volume: &Volume, path: &str) -> Result<Vec<DirectoryEntry>, String> {
        let folder = format!("{}:{path}\\", volume.name);
        let mut entries: Vec<DirectoryEntry> = Vec::new();
        for rest in self.files.keys().filter_map(|file| file.strip_prefix(&folder)) {
            let (name, is_directory) = rest.split_once('\\').map_or((rest, false), |(name, _)| (name, true));
            if entries.iter().all(|entry| entry.name != name) {
                entries.push(DirectoryEntry { name: name.into(), size: 0, is_directory });
            }
        }
        Ok(entries)
    }
    fn exists(&mut self, volume: &Volume, path: &str) -> bool {
        self.files.contains_key(&format!("{}:{path}", volume.name))
    }
    fn variables_last(&self) -> bool {
        self.key
    }
    fn failures(&mut self) -> Vec<String> {
        Vec::new()
    }
    fn say(&mut self, line: &str) {
        self.said.push(line.to_string());
    }
    fn is_menu_wanted(&mut self, seconds: u16) -> bool {
        self.asked.push(seconds);
        self.key
    }
    fn wait_for_key(&mut self, seconds: Option<u16>) -> bool {
        self.waited.push(seconds);
        self.presses.checked_sub(1).map(|left| self.presses = left).is_some()
    }
    fn menu(&mut self, message: Option<String>) -> Choice {
        self.messages.push(message);
        if self.choices.is_empty() { Choice::Continue } else { self.choices.remove(0) }
    }
}

const NOTHING_LEFT: &str = "Nothing left to boot. Press a key within 5 s for the boot menu.";

fn boot(machine: &mut Scripted) {
    super::boot(machine, Wishes::default());
}

/// Entries 1, 2 (which is not active) and A in the order A, 2, 1, and a disk.
fn machine() -> Scripted {
    let mut machine = Scripted::default();
    for (number, attributes, name) in [(1, ACTIVE, "one"), (2, 0, "two"), (0xA, ACTIVE, "ten")] {
        machine.store.put(&format!("Boot{number:04X}"), &entry(attributes, name));
        machine.options.insert(name.into(), Ok(handle(number as usize)));
    }
    machine.store.put("BootOrder", &[0xA, 0, 2, 0, 1, 0]);
    machine.add_disk("xvda", Class::HardDisk, 100);
    machine
}

impl Scripted {
    /// A disk with one volume, which has a program at the removable media path.
    fn add_disk(&mut self, name: &str, class: Class, program: usize) {
        self.add_file(&format!("{name}1:{REMOVABLE_PATH}"), program);
        self.disks.push(disk(name, class));
    }

    fn add_file(&mut self, file: &str, program: usize) {
        self.files.insert(file.into(), Ok(handle(program)));
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
    machine.store.put("BootNext", &[2, 0]);
    boot(&mut machine);
    assert_eq!(machine.started, [2, 10, 1, 100]);
    assert_eq!(machine.get(&GLOBAL, "BootNext"), None);
}

#[test]
fn a_failure_names_its_device_and_reason_and_the_next_is_tried() {
    let mut machine = machine();
    machine.options.insert("ten".into(), Err("not a PE file".into()));
    machine.store.put("Boot0001", &[1]);
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
    machine.store.put("BootNext", &[2, 0]);
    boot(&mut machine);
    assert_eq!(machine.started, [2, 101, 100, 103, 104, 10, 1]);
}

#[test]
fn a_kernel_of_the_configuration_comes_before_everything() {
    let mut machine = machine();
    machine.kernel = Some(Ok(handle(7)));
    machine.store.put("BootNext", &[2, 0]);
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
    machine.disks.push(Disk { volumes: Vec::new(), problems, ..disk("xvda", Class::HardDisk) });
    boot(&mut machine);
    assert_eq!(machine.said, ["xvda: no partition table", NOTHING_LEFT]);
    let mut empty = Scripted::default();
    boot(&mut empty);
    assert!(empty.said[0].starts_with("No disks"));
}

#[test]
fn without_the_removable_path_vendors_programs_are_tried_shim_first() {
    let mut machine = Scripted::default();
    machine.disks.push(disk("xvda", Class::HardDisk));
    for (path, program) in [
        ("Microsoft\\Boot\\bootmgfw.efi", 5),
        ("ubuntu\\grubx64.efi", 4),
        ("debian\\grubx64.efi", 2),
        ("debian\\SHIMX64.EFI", 1),
        ("debian\\fbx64.efi", 9),
        ("opensuse\\shim.efi", 3),
        ("tools\\grubx64.efi", 9),
    ] {
        machine.add_file(&format!("xvda1:\\EFI\\{path}"), program);
    }
    boot(&mut machine);
    assert_eq!(machine.started, [1, 2, 3, 4, 5]);
    assert_eq!(machine.said[0], "Starting xvda1:\\EFI\\debian\\SHIMX64.EFI");
    assert_eq!(machine.current, [const { Some([0, 0]) }; 5].map(|current| current.map(|number| number.to_vec())));
}

#[test]
fn a_volume_whose_program_ran_is_not_searched_for_others() {
    let mut machine = Scripted::default();
    machine.add_disk("xvda", Class::HardDisk, 100);
    machine.add_file("xvda1:\\EFI\\debian\\grubx64.efi", 1);
    boot(&mut machine);
    assert_eq!(machine.started, [100]);
}

#[test]
fn the_entry_of_a_disk_is_that_disks_turn() {
    let mut machine = zoo();
    boot(&mut machine);
    assert_eq!(BOOT.order(&machine), [0xA, 2, 1, 0, 4, 3]);
    machine.started.clear();
    machine.store.put("BootOrder", &[3, 0, 1, 0]);
    machine.store.put("BootNext", &[4, 0]);
    boot(&mut machine);
    assert_eq!(machine.started, [103, 101, 1, 100, 104]);
    assert_eq!(machine.current.last(), Some(&None), "no entry leads to the network");
}

#[test]
fn of_disks_that_cannot_be_booted_is_told_before_the_next_one_boots() {
    let mut machine = Scripted::default();
    let problems = alloc::vec![("xvda".into(), "no partition table".into())];
    machine.disks.push(Disk { volumes: Vec::new(), problems, ..disk("xvda", Class::HardDisk) });
    machine.disks.push(disk("xvdb", Class::HardDisk));
    machine.add_disk("xvdc", Class::HardDisk, 100);
    machine.disks.push(disk("xvdd", Class::HardDisk));
    boot(&mut machine);
    assert_eq!(machine.said[0], "xvda: no partition table");
    assert!(machine.said[1].starts_with("xvdb1: no \\EFI\\BOOT\\BOOTX64.EFI,"));
    assert_eq!(machine.said[2], "Starting xvdc1:\\EFI\\BOOT\\BOOTX64.EFI");
    assert!(machine.said[4].starts_with("xvdd1: no"));
    assert_eq!(machine.said[5..], [NOTHING_LEFT]);
}

#[test]
fn timeout_is_how_long_a_key_is_waited_for() {
    let mut machine = machine();
    boot(&mut machine);
    machine.store.put("Timeout", &[5, 0]);
    boot(&mut machine);
    assert_eq!(machine.asked, [0, 5]);
    assert!(machine.messages.is_empty());
}

#[test]
fn what_is_chosen_in_the_menu_is_started_and_the_menu_told_what_came_of_it() {
    let mut machine = zoo();
    machine.key = true;
    let file = Choice::File { volume: machine.disks[1].volumes[0].clone(), path: REMOVABLE_PATH.into() };
    machine.shell = Some(handle(7));
    machine.choices = alloc::vec![Choice::Entry(2), file, Choice::Entry(0x77), Choice::Shell];
    boot(&mut machine);
    assert_eq!(machine.started[..4], [2, 101, 7, 10]);
    let told = |text: &str| Some(text.to_string());
    assert_eq!(machine.messages[1], told("Boot0002 \"two\": came back: aborted"));
    assert_eq!(machine.messages[3], told("Boot0077: does not exist"));
    assert_eq!(machine.messages[4], told("the firmware's UEFI Shell: came back: aborted"));
    assert_eq!(machine.current[..3], [Some(alloc::vec![2, 0]), None, None]);
}

#[test]
fn the_operating_system_asks_for_the_menu_once() {
    let mut machine = machine();
    machine.store.put("OsIndications", &[0x05, 0, 0, 0, 0, 0, 0, 0]);
    machine.choices = alloc::vec![Choice::Entry(1)];
    boot(&mut machine);
    assert_eq!(machine.started[0], 1);
    assert_eq!(machine.get(&GLOBAL, "OsIndications"), Some(alloc::vec![0x04, 0, 0, 0, 0, 0, 0, 0]));
    let messages = machine.messages.len();
    boot(&mut machine);
    assert_eq!(machine.messages.len(), messages);
    assert_eq!(machine.get(&GLOBAL, "OsIndicationsSupported").map(|bits| bits[0]), Some(0x41));
}

#[test]
fn platform_recovery_leaves_entries_alone() {
    let mut machine = zoo();
    machine.store.put("OsIndications", &[0x40, 0, 0, 0, 0, 0, 0, 0]);
    machine.store.put("BootNext", &[1, 0]);
    boot(&mut machine);
    assert_eq!(machine.started, [100, 103, 101, 104]);
    assert!(machine.get(&GLOBAL, "BootNext").is_some());
    assert!(machine.get(&GLOBAL, "PlatformRecovery0000").is_some());
}

#[test]
fn when_nothing_is_left_the_menu_comes_after_a_key() {
    for (wait, limit) in [(true, None), (false, Some(SECONDS_AFTER_FAILURE))] {
        let mut machine = machine();
        machine.choices = alloc::vec![Choice::Entry(2)];
        machine.presses = 1;
        super::boot(&mut machine, Wishes { wait, menu: false });
        assert_eq!(machine.started, [10, 1, 100, 2, 10, 1, 100]);
        assert_eq!(machine.waited, [limit, limit]);
    }
}

#[test]
fn drivers_and_system_preparation_come_before_boot_options() {
    let mut machine = machine();
    machine.store.put("Driver0001", &entry(ACTIVE | FORCE_RECONNECT, "driver"));
    machine.store.put("DriverOrder", &[1, 0, 9, 0]);
    machine.store.put("SysPrep0001", &entry(ACTIVE, "tool"));
    machine.store.put("SysPrepOrder", &[1, 0]);
    machine.options.insert("driver".into(), Ok(handle(50)));
    machine.options.insert("tool".into(), Ok(handle(51)));
    boot(&mut machine);
    assert_eq!(machine.started, [50, 51, 10, 1, 100]);
    assert_eq!(machine.connected, [true]);
    assert_eq!(machine.said[0], "Driver0009: does not exist");
}
