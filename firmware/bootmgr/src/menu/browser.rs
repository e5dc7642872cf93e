//! Files of all volumes, to be started or to hold keys.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::frame::Frame;
use super::list::{List, Row};
use super::{Choice, Key, Next, Page, System};
use crate::devices::Volume;
use crate::enrolment::{self, Database};

/// What a file is looked for for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To be started.
    Start,
    /// To be put into a signature database.
    Enrol(Database),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Item {
    Volume(Volume),
    Up,
    Folder(String),
    File(String),
}

/// The page.
pub struct Browser {
    purpose: Purpose,
    volume: Option<Volume>,
    /// Folder that is shown; empty is the root.
    folder: String,
    list: List<Item>,
    /// What is shown is up to date.
    fresh: bool,
    problem: Option<String>,
}

impl Browser {
    /// A browser that shows all volumes.
    pub fn new(purpose: Purpose) -> Self {
        let list = List::default();
        Self { purpose, volume: None, folder: String::new(), list, fresh: false, problem: None }
    }

    fn rows(&mut self, system: &mut dyn System) -> Vec<Row<Item>> {
        let Some(volume) = &self.volume else {
            let volumes = system.volumes().into_iter();
            return volumes.map(|volume| Row::new(Item::Volume(volume.clone()), volume.name, "")).collect();
        };
        let mut rows = Vec::from([Row::new(Item::Up, "..", "")]);
        match system.list(volume, &self.folder) {
            Ok(mut entries) => {
                entries.sort_by_key(|entry| (!entry.is_directory, entry.name.to_lowercase()));
                rows.extend(entries.into_iter().map(|entry| {
                    if entry.is_directory {
                        Row::new(Item::Folder(entry.name.clone()), format!("{}\\", entry.name), "")
                    } else {
                        Row::new(Item::File(entry.name.clone()), entry.name, size_text(entry.size))
                    }
                }));
            }
            Err(reason) => self.problem = Some(reason),
        }
        rows
    }

    /// Back to the folder above, where the one that was left is selected; `false` from the volumes.
    fn up(&mut self, system: &mut dyn System) -> bool {
        let left = match self.volume.take() {
            None => return false,
            Some(volume) if self.folder.is_empty() => Item::Volume(volume),
            Some(volume) => {
                let folder = core::mem::take(&mut self.folder);
                let (above, name) = folder.rsplit_once('\\').unwrap_or(("", &folder));
                self.folder = above.to_string();
                self.volume = Some(volume);
                Item::Folder(name.to_string())
            }
        };
        self.show(system);
        self.list.select(&left);
        true
    }

    fn show(&mut self, system: &mut dyn System) {
        self.fresh = true;
        self.list = List::default();
        let rows = self.rows(system);
        self.list.set(rows);
    }

    fn choose_file(&self, name: &str, system: &mut dyn System) -> Next {
        let Some(volume) = &self.volume else { return Next::Stay };
        let path = format!("{}\\{name}", self.folder);
        match self.purpose {
            Purpose::Start => Next::Leave(Choice::File { volume: volume.clone(), path }),
            Purpose::Enrol(database) => Next::Say(match system.read(volume, &path) {
                Ok(file) => {
                    let time = system.time();
                    enrolment::enrol(system, database, &file, time)
                }
                Err(reason) => format!("{name}: {reason}"),
            }),
        }
    }
}

impl Page for Browser {
    fn title(&self) -> String {
        let purpose = match self.purpose {
            Purpose::Start => "Start a file".to_string(),
            Purpose::Enrol(database) => format!("A file for {}", database.name()),
        };
        match &self.volume {
            Some(volume) => format!("{purpose}: {}:{}\\", volume.name, self.folder),
            None => purpose,
        }
    }

    fn hints(&self) -> String {
        "\u{2191} \u{2193} j k move   Enter, \u{2192} open   Backspace, \u{2190} up   Esc back".into()
    }

    fn refresh(&mut self, system: &mut dyn System) {
        if !self.fresh {
            self.show(system);
        }
    }

    fn draw(&self, frame: &mut Frame, top: usize, bottom: usize) {
        self.list.draw(frame, top, bottom);
        let empty = if self.volume.is_none() && self.list.selected().is_none() {
            Some("There is no file system.")
        } else {
            self.problem.as_deref()
        };
        if let Some(text) = empty {
            frame.text(6, top + 2, frame.columns().saturating_sub(8), super::Style::MESSAGE, text);
        }
    }

    fn press(&mut self, key: Key, page: usize, system: &mut dyn System) -> Next {
        self.problem = None;
        match key {
            Key::Escape | Key::Character('q') => return Next::Close,
            Key::Backspace | Key::Left => {
                return if self.up(system) { Next::Stay } else { Next::Close };
            }
            _ => {}
        }
        if !self.list.press(key, page) {
            return Next::Stay;
        }
        match self.list.selected().cloned() {
            Some(Item::Volume(volume)) => self.volume = Some(volume),
            Some(Item::Folder(name)) => self.folder = format!("{}\\{name}", self.folder),
            Some(Item::File(name)) => return self.choose_file(&name, system),
            Some(Item::Up) => {
                self.up(system);
                return Next::Stay;
            }
            None => return Next::Stay,
        }
        self.show(system);
        Next::Stay
    }
}

/// A size as people read it.
fn size_text(size: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match size {
        0..KIB => format!("{size} bytes"),
        KIB..MIB => format!("{} KiB", size.div_ceil(KIB)),
        _ => format!("{} MiB", size.div_ceil(MIB)),
    }
}
