//! The order of boot entries, which of them are active, and how long is waited for a key. What is changed is written at once.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use services::Status;

use super::frame::Frame;
use super::list::{List, Row};
use super::{Key, Next, Page, Question, System};
use crate::load_option::{ACTIVE, LoadOption};
use crate::status::status_text;
use crate::variables::{self, BOOT, GLOBAL};

const TIMEOUT: &str = "Timeout";
/// The timeout that never ends.
const FOR_EVER: u16 = u16::MAX;
/// Timeouts that are offered, in seconds.
const OFFERED: [u16; 9] = [0, 1, 2, 3, 5, 10, 30, 60, FOR_EVER];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Item {
    Timeout,
    Entry(u16),
}

/// The page.
#[derive(Default)]
pub struct OrderPage {
    list: List<Item>,
    /// An entry that is about to be deleted.
    asked: Option<Question<u16>>,
}

impl OrderPage {
    fn timeout(&self, later: bool, system: &mut dyn System) -> Result<(), Status> {
        let now = timeout(system);
        let next = if later {
            OFFERED.into_iter().find(|offered| *offered > now)
        } else {
            OFFERED.into_iter().rfind(|offered| *offered < now)
        };
        variables::keep(system, &GLOBAL, TIMEOUT, &next.unwrap_or(now).to_le_bytes())
    }

    /// Moves an entry one place.
    fn shift(&self, number: u16, later: bool, system: &mut dyn System) -> Result<(), Status> {
        let mut order = BOOT.order(system);
        let place = order.iter().position(|other| *other == number);
        let other = place.and_then(|place| if later { place.checked_add(1) } else { place.checked_sub(1) });
        if let (Some(place), Some(other)) = (place, other.filter(|other| *other < order.len())) {
            order.swap(place, other);
        }
        BOOT.set_order(system, &order)
    }

    fn toggle(&self, number: u16, system: &mut dyn System) -> Result<(), Status> {
        match BOOT.read(system, number) {
            Some(Ok(option)) => {
                let changed = LoadOption { attributes: option.attributes ^ ACTIVE, ..option };
                BOOT.write(system, number, &changed)
            }
            _ => Err(Status::NOT_FOUND),
        }
    }
}

fn timeout(system: &dyn System) -> u16 {
    variables::numbers(system, &GLOBAL, TIMEOUT).first().copied().unwrap_or(0)
}

fn timeout_text(seconds: u16) -> String {
    match seconds {
        0 => "none: starts at once".to_string(),
        1 => "1 second".to_string(),
        FOR_EVER => "for ever: shows the menu".to_string(),
        seconds => format!("{seconds} seconds"),
    }
}

impl Page for OrderPage {
    fn title(&self) -> String {
        "Order and waiting time".into()
    }

    fn hints(&self) -> String {
        match self.asked {
            Some(_) => "y deletes it   any other key keeps it".into(),
            None => "+ - move, change   Space on, off   n next start only   d delete   Esc back".into(),
        }
    }

    fn refresh(&mut self, system: &mut dyn System) {
        let next = variables::numbers(system, &GLOBAL, "BootNext");
        let mut rows = Vec::from([
            Row::heading("Before the start"),
            Row::new(Item::Timeout, "Waiting time for a key", timeout_text(timeout(system))),
            Row::heading(""),
            Row::heading("Order"),
        ]);
        for number in BOOT.order(system) {
            let (label, place) = match BOOT.read(system, number) {
                Some(Ok(option)) => {
                    let mark = if option.attributes & ACTIVE != 0 { '\u{25A0}' } else { '\u{25A1}' };
                    (format!("{mark} {}", option.description), system.place(&option))
                }
                Some(Err(error)) => (format!("? {}", BOOT.name(number)), error.to_string()),
                None => (format!("? {}", BOOT.name(number)), "does not exist".to_string()),
            };
            let place = if next.first() == Some(&number) { format!("next start; {place}") } else { place };
            rows.push(Row::new(Item::Entry(number), label, place));
        }
        self.list.set(rows);
    }

    fn draw(&self, frame: &mut Frame, top: usize, bottom: usize) {
        self.list.draw(frame, top, bottom);
    }

    fn press(&mut self, key: Key, page: usize, system: &mut dyn System) -> Next {
        let item = self.list.selected().copied();
        if let Some(question) = self.asked.take() {
            let deleted = Question::<u16>::is_yes(key).then(|| BOOT.delete(system, question.about));
            return deleted.map_or(Next::Stay, |deleted| tell(deleted, "Deleted."));
        }
        let later = matches!(key, Key::Character('+' | '=' | '>') | Key::Right);
        let changed = match (key, item) {
            (Key::Character('+' | '=' | '>' | '-' | '<') | Key::Right | Key::Left, Some(Item::Timeout)) => {
                self.timeout(later, system)
            }
            (Key::Character('+' | '=' | '>' | '-' | '<'), Some(Item::Entry(number))) => {
                self.shift(number, later, system)
            }
            (Key::Character(' ') | Key::Enter, Some(Item::Entry(number))) => self.toggle(number, system),
            (Key::Character('n'), Some(Item::Entry(number))) => {
                let written = variables::keep(system, &GLOBAL, "BootNext", &number.to_le_bytes());
                return tell(written, "The next start begins with it, once.");
            }
            (Key::Character('d') | Key::Delete, Some(Item::Entry(number))) => {
                self.asked = Some(Question { about: number });
                return Next::Say(format!("Delete {}?", BOOT.name(number)));
            }
            (Key::Escape | Key::Backspace | Key::Left | Key::Character('q'), _) => return Next::Close,
            _ => {
                self.list.press(key, page);
                return Next::Stay;
            }
        };
        tell(changed, "")
    }
}

/// What came of a change.
fn tell(changed: Result<(), Status>, done: &str) -> Next {
    match changed {
        Ok(()) => Next::Say(done.into()),
        Err(status) => Next::Say(format!("The firmware says: {}.", status_text(status))),
    }
}
