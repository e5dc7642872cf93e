//! The first page: boot entries, and everything else that the menu can do.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::browser::{Browser, Purpose};
use super::frame::Frame;
use super::keys::KeyPage;
use super::list::{List, Row};
use super::order::OrderPage;
use super::text::TextPage;
use super::{Choice, Key, Next, Page, System};
use crate::devices::Volume;
use crate::variables::BOOT;

/// Where a program is that the firmware's image carries.
pub const IN_FIRMWARE: &str = "in the firmware";

/// Where UEFI shells are kept.
const SHELLS: [&str; 5] = [
    "\\shellx64.efi",
    "\\EFI\\BOOT\\shellx64.efi",
    "\\EFI\\tools\\shellx64.efi",
    "\\EFI\\shell\\shellx64.efi",
    "\\EFI\\shellx64.efi",
];

#[derive(Clone, PartialEq, Eq, Debug)]
enum Item {
    Entry(u16),
    File,
    OwnShell,
    Shell(Volume, &'static str),
    Order,
    Keys,
    Information,
    Log,
    Continue,
    Restart,
    PowerOff,
}

#[derive(Default)]
struct StartPage {
    list: List<Item>,
    shell: Option<Option<(Volume, &'static str)>>,
}

/// The first page.
pub fn page() -> Box<dyn Page> {
    Box::new(StartPage::default())
}

impl Page for StartPage {
    fn title(&self) -> String {
        "Boot menu".into()
    }

    fn hints(&self) -> String {
        "\u{2191} \u{2193} j k move   Enter, 1-9 choose   Esc goes on with the start".into()
    }

    fn refresh(&mut self, system: &mut dyn System) {
        let shell = self.shell.get_or_insert_with(|| find_shell(system)).clone();
        let mut rows = Vec::from([Row::heading("Start")]);
        for number in BOOT.order(system) {
            if let Some(Ok(option)) = BOOT.read(system, number)
                && option.is_shown()
            {
                rows.push(Row::new(Item::Entry(number), option.description.clone(), system.place(&option)));
            }
        }
        rows.push(Row::new(Item::File, "A file \u{2026}", ""));
        if system.has_shell() {
            rows.push(Row::new(Item::OwnShell, "UEFI Shell", IN_FIRMWARE));
        }
        if let Some((volume, path)) = shell {
            let place = alloc::format!("{}:{path}", volume.name);
            rows.push(Row::new(Item::Shell(volume, path), "UEFI Shell", place));
        }
        rows.extend(["", "Set up"].map(Row::heading));
        rows.push(Row::new(Item::Order, "Order and waiting time", ""));
        rows.push(Row::new(Item::Keys, "Secure Boot keys", ""));
        rows.push(Row::new(Item::Information, "System information", ""));
        rows.push(Row::new(Item::Log, "Log", ""));
        rows.extend(["", "Leave"].map(Row::heading));
        rows.push(Row::new(Item::Continue, "Go on with the start", ""));
        rows.push(Row::new(Item::Restart, "Restart", ""));
        rows.push(Row::new(Item::PowerOff, "Power off", ""));
        self.list.set(rows);
    }

    fn draw(&self, frame: &mut Frame, top: usize, bottom: usize) {
        self.list.draw(frame, top, bottom);
    }

    fn press(&mut self, key: Key, page: usize, system: &mut dyn System) -> Next {
        if matches!(key, Key::Escape | Key::Character('q')) {
            return Next::Leave(Choice::Continue);
        }
        if !self.list.press(key, page) {
            return Next::Stay;
        }
        match self.list.selected().cloned() {
            Some(Item::Entry(number)) => Next::Leave(Choice::Entry(number)),
            Some(Item::File) => Next::Open(Box::new(Browser::new(Purpose::Start))),
            Some(Item::OwnShell) => Next::Leave(Choice::Shell),
            Some(Item::Shell(volume, path)) => Next::Leave(Choice::File { volume, path: path.into() }),
            Some(Item::Order) => Next::Open(Box::<OrderPage>::default()),
            Some(Item::Keys) => Next::Open(Box::<KeyPage>::default()),
            Some(Item::Information) => Next::Open(Box::new(TextPage::information(&system.information()))),
            Some(Item::Log) => Next::Open(Box::new(TextPage::log(system.log()))),
            Some(Item::Continue) => Next::Leave(Choice::Continue),
            Some(Item::Restart) => {
                system.restart();
                Next::Stay
            }
            Some(Item::PowerOff) => {
                system.power_off();
                Next::Stay
            }
            None => Next::Stay,
        }
    }
}

/// The first shell on any volume.
fn find_shell(system: &mut dyn System) -> Option<(Volume, &'static str)> {
    for volume in system.volumes() {
        for path in SHELLS {
            let (folder, name) = path.rsplit_once('\\').unwrap_or(("", path));
            let files = system.list(&volume, folder).unwrap_or_default();
            if files.iter().any(|file| !file.is_directory && file.name.eq_ignore_ascii_case(name)) {
                return Some((volume, path));
            }
        }
    }
    None
}
