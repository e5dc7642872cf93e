//! The boot menu: what is shown, and what a key does. It knows the firmware through [`System`] and the screen through
//! [`Display`], so tests run it on a screen in memory.
//!
//! | module | what |
//! | --- | --- |
//! | [`frame`] | a screen in memory, and how it gets to the display |
//! | [`list`] | a list to choose from |
//! | [`start`] | the first page: entries, and everything else |
//! | [`order`] | order of entries, waiting time |
//! | [`browser`] | files of volumes |
//! | [`keys`] | Secure Boot's keys |
//! | [`text`] | information and log |

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use services::file::DirectoryEntry;

use crate::devices::Volume;
use crate::load_option::LoadOption;
use crate::variables::Variables;

pub mod browser;
pub mod frame;
pub mod keys;
pub mod list;
pub mod order;
pub mod start;
#[cfg(test)]
mod tests;
pub mod text;

use frame::{Display, Frame, Style};

/// Most columns and rows that are used: less than the 80 and 25 that every display has. Behind the last column a terminal goes to
/// the next line, and terminals of 24 rows scroll then.
const MOST: (usize, usize) = (79, 24);
/// Rows that a page has not for itself: a border above, four rows below.
const FURNITURE: usize = 5;

/// A key, as far as the menu knows keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Key {
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    Enter,
    Escape,
    Backspace,
    Delete,
    Character(char),
}

/// What leaves the menu.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Go on as if the menu had not been there.
    Continue,
    /// Start `Boot####`.
    Entry(u16),
    /// Start a file.
    File {
        /// Where it is.
        volume: Volume,
        /// Its path on the volume.
        path: String,
    },
    /// Start the UEFI Shell of the firmware's image.
    Shell,
}

/// What the menu needs of the firmware.
pub trait System: Variables {
    /// The firmware's name and version.
    fn name(&self) -> String;
    /// All file systems.
    fn volumes(&mut self) -> Vec<Volume>;
    /// Lists a directory of a volume; an empty path is the root.
    ///
    /// # Errors
    /// What a person should read.
    fn list(&mut self, volume: &Volume, path: &str) -> Result<Vec<DirectoryEntry>, String>;
    /// Reads a file.
    ///
    /// # Errors
    /// What a person should read.
    fn read(&mut self, volume: &Volume, path: &str) -> Result<Vec<u8>, String>;
    /// Whether the firmware's image carries a UEFI Shell.
    fn has_shell(&self) -> bool;
    /// Where the program of an entry is, in words.
    fn place(&mut self, option: &LoadOption) -> String;
    /// What is known of the machine: names and values.
    fn information(&self) -> Vec<(String, String)>;
    /// The last lines of the firmware's log.
    fn log(&self) -> Vec<String>;
    /// Date and time as `EFI_TIME`.
    fn time(&self) -> [u8; 16];
    /// Starts the guest anew. Does not come back.
    fn restart(&mut self);
    /// Ends the guest. Does not come back.
    fn power_off(&mut self);
}

/// What a key leads to.
pub enum Next {
    /// Nothing but what the page shows.
    Stay,
    /// A message.
    Say(String),
    /// A page on top of this one.
    Open(Box<dyn Page>),
    /// Back to the page below.
    Close,
    /// The end of the menu.
    Leave(Choice),
}

/// A page of the menu.
pub trait Page {
    /// What it is.
    fn title(&self) -> String;
    /// What keys do, in few words.
    fn hints(&self) -> String;
    /// Reads anew what it shows: it has just been opened, a page above it was closed, or a key was pressed.
    fn refresh(&mut self, system: &mut dyn System);
    /// Draws itself between two rows.
    fn draw(&self, frame: &mut Frame, top: usize, bottom: usize);
    /// Takes a key. `page` is how many rows it has.
    fn press(&mut self, key: Key, page: usize, system: &mut dyn System) -> Next;
}

/// Ctrl-L: draws everything anew, for a terminal that was attached late.
const REDRAW: char = '\u{C}';

/// Shows the menu until something is chosen. `key` waits for a key; without one (`None`) the menu ends.
pub fn run(
    system: &mut dyn System,
    display: &mut dyn Display,
    message: Option<String>,
    mut key: impl FnMut() -> Option<Key>,
) -> Choice {
    let mut pages: Vec<Box<dyn Page>> = Vec::from([start::page()]);
    let mut message = message.unwrap_or_default();
    let name = system.name();
    let size = display.size();
    let (columns, rows) = (size.0.saturating_sub(1).min(MOST.0), size.1.min(MOST.1));
    let blank = Frame::new(columns, rows);
    let mut shown = blank.clone();
    display.clear();
    loop {
        let Some(page) = pages.last_mut() else { return Choice::Continue };
        page.refresh(system);
        let frame = draw(&**page, &name, &message, columns, rows);
        frame.show(&shown, display);
        shown = frame;
        let Some(key) = key() else { return Choice::Continue };
        if key == Key::Character(REDRAW) {
            display.clear();
            shown = blank.clone();
            continue;
        }
        message.clear();
        match page.press(key, rows.saturating_sub(FURNITURE), system) {
            Next::Stay => {}
            Next::Say(text) => message = text,
            Next::Open(page) => pages.push(page),
            Next::Close => drop(pages.pop()),
            Next::Leave(choice) => return choice,
        }
    }
}

/// The page with what is around it.
fn draw(page: &dyn Page, name: &str, message: &str, columns: usize, rows: usize) -> Frame {
    let mut frame = Frame::new(columns, rows);
    let bottom = rows.saturating_sub(4);
    frame.border(bottom, Style::FAINT);
    let title = format!(" {} ", page.title());
    frame.text(2, 0, columns.saturating_sub(4), Style::STRONG, &title);
    let name = format!(" {name} ");
    let place = columns.saturating_sub(name.chars().count() + 2);
    if place > title.chars().count() + 3 {
        frame.text(place, 0, columns, Style::FAINT, &name);
    }
    page.draw(&mut frame, 1, bottom);
    let width = columns.saturating_sub(4);
    frame.text(2, rows.saturating_sub(3), width, Style::MESSAGE, message);
    frame.text(2, rows.saturating_sub(2), width, Style::FAINT, &page.hints());
    frame
}

/// A question to be answered with y.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question<T> {
    /// What is done then.
    pub about: T,
}

impl<T> Question<T> {
    /// Whether the answer is yes.
    pub fn is_yes(key: Key) -> bool {
        matches!(key, Key::Character('y' | 'Y'))
    }
}
