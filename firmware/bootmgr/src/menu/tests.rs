//! The menu on a screen in memory, with a machine of tables.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use core::cell::RefCell;

use services::Status;
use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;

use super::*;
use crate::load_option::{ACTIVE, HIDDEN};
use crate::testing::{Store, entry, handle};
use crate::variables::{BOOT, GLOBAL, SECURITY_DATABASE};

#[derive(Default)]
struct Machine {
    store: Store,
    /// Files by volume and path.
    files: BTreeMap<String, Vec<u8>>,
    /// The firmware has a shell of its own.
    shell: bool,
    reset: Option<&'static str>,
}

impl Variables for Machine {
    fn get(&self, vendor: &Guid, name: &str) -> Option<Vec<u8>> {
        self.store.get(vendor, name)
    }
    fn set(&mut self, vendor: &Guid, name: &str, attributes: VariableAttributes, data: &[u8]) -> Result<(), Status> {
        if attributes.contains(VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS) {
            if self.store.get(&GLOBAL, "SetupMode") != Some(Vec::from([1])) {
                return Err(Status::SECURITY_VIOLATION);
            }
            let old = if attributes.contains(VariableAttributes::APPEND_WRITE) { self.get(vendor, name) } else { None };
            return self.store.set(vendor, name, attributes, &[&old.unwrap_or_default(), &data[40..]].concat());
        }
        self.store.set(vendor, name, attributes, data)
    }
}

impl System for Machine {
    fn name(&self) -> String {
        "ovmf-xen 0.1.0".into()
    }
    fn volumes(&mut self) -> Vec<Volume> {
        let mut names: Vec<&str> = self.files.keys().filter_map(|file| file.split(':').next()).collect();
        names.dedup();
        names.iter().enumerate().map(|(number, name)| Volume { name: (*name).into(), handle: handle(number) }).collect()
    }
    fn list(&mut self, volume: &Volume, path: &str) -> Result<Vec<DirectoryEntry>, String> {
        let folder = format!("{}:{path}\\", volume.name);
        let mut entries: Vec<DirectoryEntry> = Vec::new();
        for (file, content) in &self.files {
            let Some(rest) = file.strip_prefix(&folder) else { continue };
            let (name, is_directory) = rest.split_once('\\').map_or((rest, false), |(name, _)| (name, true));
            if entries.iter().all(|entry| entry.name != name) {
                entries.push(DirectoryEntry { name: name.into(), size: content.len() as u64, is_directory });
            }
        }
        if entries.is_empty() { Err("not found".into()) } else { Ok(entries) }
    }
    fn read(&mut self, volume: &Volume, path: &str) -> Result<Vec<u8>, String> {
        self.files.get(&format!("{}:{path}", volume.name)).cloned().ok_or_else(|| "not found".to_string())
    }
    fn has_shell(&self) -> bool {
        self.shell
    }
    fn place(&mut self, option: &LoadOption) -> String {
        format!("xvda1:\\EFI\\{}", option.description)
    }
    fn information(&self) -> Vec<(String, String)> {
        Vec::from([("Guest".into(), "PVH on Xen 4.20".into()), ("Memory".into(), "x".repeat(100))])
    }
    fn log(&self) -> Vec<String> {
        (0..40).map(|line| format!("line {line}")).collect()
    }
    fn time(&self) -> [u8; 16] {
        [0xEA, 7, 11, 28, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }
    fn restart(&mut self) {
        self.reset = Some("restart");
    }
    fn power_off(&mut self) {
        self.reset = Some("power off");
    }
}

/// A terminal that checks that nothing is written beside it.
struct Screen {
    cells: Vec<Vec<char>>,
    written: usize,
}

impl Screen {
    fn new(columns: usize, rows: usize) -> Self {
        Self { cells: alloc::vec![alloc::vec![' '; columns]; rows], written: 0 }
    }

    fn text(&self) -> String {
        self.cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_string() + "\n").collect()
    }
}

impl Display for Screen {
    fn size(&self) -> (usize, usize) {
        (self.cells.first().map_or(0, Vec::len), self.cells.len())
    }
    fn clear(&mut self) {
        self.cells.iter_mut().for_each(|row| row.fill(' '));
    }
    fn write(&mut self, column: usize, row: usize, _style: Style, text: &str) {
        assert!(column + text.chars().count() < self.cells[row].len(), "nothing stands in the last column");
        self.written += text.chars().count();
        text.chars().enumerate().for_each(|(place, character)| self.cells[row][column + place] = character);
    }
}

fn machine() -> Machine {
    let mut machine = Machine::default();
    for (number, attributes, name) in [(0, ACTIVE, "debian"), (1, ACTIVE, "xvda"), (2, ACTIVE | HIDDEN, "hidden")] {
        machine.store.put(&BOOT.name(number), &entry(attributes, name));
    }
    machine.store.put("BootOrder", &[0, 0, 2, 0, 1, 0]);
    machine.store.put("SetupMode", &[1]);
    for file in
        ["xvda1:\\EFI\\BOOT\\BOOTX64.EFI", "xvda1:\\EFI\\tools\\shellx64.efi", "xvda1:\\db.cer", "xvdb1:\\a.txt"]
    {
        machine.files.insert(file.into(), Vec::from([0x30, 0x82, 0, 4, 1, 2, 3, 4]));
    }
    machine
}

impl Display for &RefCell<Screen> {
    fn size(&self) -> (usize, usize) {
        self.borrow().size()
    }
    fn clear(&mut self) {
        self.borrow_mut().clear();
    }
    fn write(&mut self, column: usize, row: usize, style: Style, text: &str) {
        self.borrow_mut().write(column, row, style, text);
    }
}

/// Presses the keys that `text` stands for; returns what was chosen in the end, and what is shown then.
fn press(machine: &mut Machine, screen: &mut Screen, text: &str) -> (Choice, String) {
    let mut keys = text.chars();
    let shared = RefCell::new(core::mem::replace(screen, Screen::new(0, 0)));
    let choice = run(machine, &mut &shared, None, || {
        Some(match keys.next()? {
            '\n' => Key::Enter,
            '<' => Key::Left,
            'E' => Key::Escape,
            'D' => Key::Down,
            'U' => Key::Up,
            other => Key::Character(other),
        })
    });
    *screen = shared.into_inner();
    (choice, screen.text())
}

fn on_80x25(machine: &mut Machine, text: &str) -> (Choice, String) {
    press(machine, &mut Screen::new(80, 25), text)
}

#[test]
fn the_first_page_shows_entries_and_what_else_there_is() {
    let (choice, shown) = on_80x25(&mut machine(), "");
    assert_eq!(choice, Choice::Continue);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("\u{250C}\u{2500} Boot menu \u{2500}") && lines[0].contains(" ovmf-xen 0.1.0 "));
    assert!(lines[2].contains("\u{25BA} 1 debian") && lines[2].contains("xvda1:\\EFI\\debian"), "{shown}");
    assert!(lines[3].contains("  2 xvda"));
    assert!(shown.contains("UEFI Shell") && shown.contains("Power off") && !shown.contains("hidden"));
    assert_eq!(lines.len(), 25);
    assert_eq!(lines[24], "", "a terminal of 24 rows shows all of it");
    assert!(lines.iter().all(|line| line.chars().count() <= 79));
}

#[test]
fn entries_are_chosen_by_arrows_letters_and_numbers() {
    for keys in ["\n", "1", "DU\n", "jk\n"] {
        assert_eq!(on_80x25(&mut machine(), keys).0, Choice::Entry(0), "{keys:?}");
    }
    for keys in ["2", "D\n", "j\n"] {
        assert_eq!(on_80x25(&mut machine(), keys).0, Choice::Entry(1), "{keys:?}");
    }
    assert_eq!(on_80x25(&mut machine(), "jE").0, Choice::Continue);
    let mut ended = machine();
    on_80x25(&mut ended, "k\n");
    assert_eq!(ended.reset, Some("power off"));
}

#[test]
fn the_shell_is_found_where_shells_are_kept() {
    let path = "\\EFI\\tools\\shellx64.efi".to_string();
    let (choice, _) = on_80x25(&mut machine(), "4");
    assert_eq!(choice, Choice::File { volume: Volume { name: "xvda1".into(), handle: handle(0) }, path });
}

#[test]
fn the_firmware_s_own_shell_stands_before_one_on_a_volume() {
    let mut machine = machine();
    machine.shell = true;
    let (choice, shown) = on_80x25(&mut machine, "4");
    assert_eq!(choice, Choice::Shell);
    assert!(shown.contains("4 UEFI Shell") && shown.contains("in the firmware"), "{shown}");
    assert!(matches!(on_80x25(&mut machine, "5").0, Choice::File { .. }));
    machine.files.clear();
    assert_eq!(on_80x25(&mut machine, "jjj\n").0, Choice::Shell);
}

#[test]
fn a_file_is_browsed_to_and_started() {
    let mut machine = machine();
    let volume = Volume { name: "xvda1".into(), handle: handle(0) };
    let (choice, _) = on_80x25(&mut machine, "31222");
    assert_eq!(choice, Choice::File { volume, path: "\\EFI\\BOOT\\BOOTX64.EFI".into() });
    let (_, shown) = on_80x25(&mut machine, "3122");
    assert!(shown.contains("Start a file: xvda1:\\EFI\\BOOT\\") && shown.contains("BOOTX64.EFI"), "{shown}");
    // Back to where it was come from, and out at the top.
    let (_, shown) = on_80x25(&mut machine, "3122<");
    assert!(shown.contains("\u{25BA} 2 BOOT\\"), "{shown}");
    assert_eq!(on_80x25(&mut machine, "31<<E").0, Choice::Continue);
}

#[test]
fn order_and_timeout_are_written_at_once() {
    let mut machine = machine();
    let order = |machine: &Machine| BOOT.order(machine);
    on_80x25(&mut machine, "5+++");
    assert_eq!(machine.get(&GLOBAL, "Timeout"), Some(Vec::from([3, 0])));
    on_80x25(&mut machine, "5-");
    assert_eq!(machine.get(&GLOBAL, "Timeout"), Some(Vec::from([2, 0])));
    let (_, shown) = on_80x25(&mut machine, "5j+");
    assert_eq!(order(&machine), [2, 0, 1]);
    assert!(shown.contains("\u{25BA} 3 \u{25A0} debian"), "the selection moves along: {shown}");
    on_80x25(&mut machine, "5jj-- ");
    assert_eq!(order(&machine), [0, 2, 1]);
    assert_eq!(BOOT.read(&machine, 0).unwrap().unwrap().attributes, 0);
    on_80x25(&mut machine, "5jjdn");
    assert_eq!(order(&machine), [0, 2, 1], "only y deletes");
    on_80x25(&mut machine, "5jjdy");
    assert_eq!(order(&machine), [0, 1]);
    assert_eq!(machine.get(&GLOBAL, "Boot0002"), None);
    on_80x25(&mut machine, "5jjn");
    assert_eq!(machine.get(&GLOBAL, "BootNext"), Some(Vec::from([1, 0])));
}

#[test]
fn what_cannot_be_written_is_told() {
    let mut machine = machine();
    machine.store.full = true;
    let (_, shown) = on_80x25(&mut machine, "5+");
    assert!(shown.contains("The firmware says: out of memory."), "{shown}");
}

#[test]
fn a_certificate_is_enrolled_and_what_the_firmware_says_told() {
    let mut machine = machine();
    let (_, shown) = on_80x25(&mut machine, "6113");
    assert!(shown.contains("db: written. It has 1 entry now."), "{shown}");
    assert!(machine.get(&SECURITY_DATABASE, "db").is_some());
    machine.files.insert("xvdb1:\\a.txt".into(), b"no keys".to_vec());
    let (_, shown) = on_80x25(&mut machine, "6122");
    assert!(shown.contains("Not a signed update (.auth)"), "{shown}");
    machine.store.put("SetupMode", &[0]);
    let (_, shown) = on_80x25(&mut machine, "6113");
    assert!(shown.contains("db: not changed. Nobody who may change it has signed this."), "{shown}");
}

#[test]
fn information_and_log_are_scrolled() {
    let (_, shown) = on_80x25(&mut machine(), "7");
    assert!(shown.contains("Guest               PVH on Xen 4.20"));
    assert!(shown.lines().filter(|line| line.contains("xxxx")).count() == 2, "long values are broken");
    let (_, shown) = on_80x25(&mut machine(), "8");
    assert!(shown.contains("line 39") && !shown.contains("line 0 "));
    let (_, shown) = on_80x25(&mut machine(), "8kk");
    assert!(shown.contains("line 37") && !shown.contains("line 38"));
}

#[test]
fn a_move_draws_two_rows_and_ctrl_l_all() {
    let (mut before, mut after) = (Screen::new(80, 25), Screen::new(80, 25));
    press(&mut machine(), &mut before, "");
    press(&mut machine(), &mut after, "j");
    assert!(after.written - before.written <= 2 * 76);
    let mut again = Screen::new(80, 25);
    press(&mut machine(), &mut again, "\u{C}");
    assert_eq!(again.text(), before.text());
    assert_eq!(again.written, 2 * before.written);
}

#[test]
fn a_screen_of_any_size_is_drawn_on() {
    for (columns, rows) in [(0, 0), (1, 1), (20, 6), (40, 12), (79, 24), (240, 67)] {
        for keys in ["", "5", "31", "6", "7", "8", "jjjjjjjj"] {
            press(&mut machine(), &mut Screen::new(columns, rows), keys);
        }
    }
}

#[test]
fn the_graphical_console_has_a_glyph_for_every_character() {
    for keys in ["", "3122", "5", "6", "7", "8"] {
        let (_, shown) = on_80x25(&mut machine(), keys);
        for character in shown.chars().filter(|character| *character != '\n') {
            assert!(services::console::font::find(character).is_some(), "{character:?}");
        }
    }
}
