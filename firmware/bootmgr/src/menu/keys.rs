//! Secure Boot's keys: what there is, and files to add.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::browser::{Browser, Purpose};
use super::frame::Frame;
use super::list::{List, Row};
use super::{Key, Next, Page, Question, System};
use crate::enrolment::{self, Database};
use crate::variables::GLOBAL;

/// The page.
#[derive(Default)]
pub struct KeyPage {
    list: List<Database>,
    /// A database that is about to be emptied.
    asked: Option<Question<Database>>,
}

impl Page for KeyPage {
    fn title(&self) -> String {
        "Secure Boot keys".into()
    }

    fn hints(&self) -> String {
        match self.asked {
            Some(_) => "y empties it   any other key keeps it".into(),
            None => "Enter adds a file: .auth, .esl, .cer, .pem   d empty   Esc back".into(),
        }
    }

    fn refresh(&mut self, system: &mut dyn System) {
        let is_set = |name: &str| system.get(&GLOBAL, name).is_some_and(|value| value == [1]);
        let mode =
            if is_set("SetupMode") { "setup mode: keys are taken unsigned" } else { "user mode: keys are signed" };
        let state = format!("Secure Boot {}; {mode}", if is_set("SecureBoot") { "on" } else { "off" });
        let mut rows = Vec::from([Row::heading(state), Row::heading("")]);
        rows.extend(Database::ALL.into_iter().map(|database| {
            let content = match enrolment::count(system, database) {
                None => "none".to_string(),
                Some(Ok(1)) => "1 entry".to_string(),
                Some(Ok(count)) => format!("{count} entries"),
                Some(Err(reason)) => reason.to_string(),
            };
            Row::new(database, format!("{:5}{}", database.name(), database.description()), content)
        }));
        self.list.set(rows);
    }

    fn draw(&self, frame: &mut Frame, top: usize, bottom: usize) {
        self.list.draw(frame, top, bottom);
    }

    fn press(&mut self, key: Key, page: usize, system: &mut dyn System) -> Next {
        if let Some(question) = self.asked.take() {
            let yes = Question::<Database>::is_yes(key);
            let time = system.time();
            return if yes { Next::Say(enrolment::clear(system, question.about, time)) } else { Next::Stay };
        }
        match key {
            Key::Escape | Key::Backspace | Key::Left | Key::Character('q') => return Next::Close,
            Key::Character('d') | Key::Delete => {
                if let Some(database) = self.list.selected().copied() {
                    self.asked = Some(Question { about: database });
                    return Next::Say(format!("Empty {}?", database.name()));
                }
            }
            _ => {}
        }
        match (self.list.press(key, page), self.list.selected()) {
            (true, Some(database)) => Next::Open(Box::new(Browser::new(Purpose::Enrol(*database)))),
            _ => Next::Stay,
        }
    }
}
