//! A page of text to read.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::frame::{Frame, Style};
use super::{Key, Next, Page, System};

/// Width that lines are broken at.
const WIDTH: usize = 75;
/// Where values begin.
const VALUES: usize = 20;

/// Text that can be scrolled.
#[derive(Debug)]
pub struct TextPage {
    title: &'static str,
    lines: Vec<String>,
    /// Line that is shown first.
    first: usize,
    /// Whether the end is shown until a key says otherwise.
    at_end: bool,
}

impl TextPage {
    /// Names and values.
    pub fn information(facts: &[(String, String)]) -> Self {
        let lines = facts.iter().flat_map(|(name, value)| {
            let values = broken(value, WIDTH - VALUES).into_iter().enumerate();
            values.map(move |(line, value)| format!("{:VALUES$}{value}", if line == 0 { name.as_str() } else { "" }))
        });
        Self { title: "System information", lines: lines.collect(), first: 0, at_end: false }
    }

    /// A log: the last lines are what is looked for.
    pub fn log(lines: Vec<String>) -> Self {
        let lines = lines.iter().flat_map(|line| broken(line, WIDTH)).collect();
        Self { title: "Log", lines, first: 0, at_end: true }
    }

    fn last(&self, page: usize) -> usize {
        self.lines.len().saturating_sub(page)
    }
}

/// A text in pieces of so many characters at most, at least one.
fn broken(text: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return Vec::from(["".to_string()]);
    }
    characters.chunks(width).map(|piece| piece.iter().collect()).collect()
}

impl Page for TextPage {
    fn title(&self) -> String {
        self.title.into()
    }

    fn hints(&self) -> String {
        "\u{2191} \u{2193} j k scroll   PgUp PgDn Home End   Esc back".into()
    }

    fn refresh(&mut self, _system: &mut dyn System) {}

    fn draw(&self, frame: &mut Frame, top: usize, bottom: usize) {
        let height = bottom.saturating_sub(top);
        let first = if self.at_end { self.last(height) } else { self.first.min(self.last(height)) };
        for (place, line) in self.lines.iter().skip(first).take(height).enumerate() {
            frame.text(2, top + place, WIDTH, Style::NORMAL, line);
        }
        if self.lines.is_empty() {
            frame.text(2, top, WIDTH, Style::FAINT, "Nothing.");
        }
    }

    fn press(&mut self, key: Key, page: usize, _system: &mut dyn System) -> Next {
        let last = self.last(page);
        let first = if core::mem::take(&mut self.at_end) { last } else { self.first };
        self.first = match key {
            Key::Escape | Key::Backspace | Key::Left | Key::Enter | Key::Character('q') => return Next::Close,
            Key::Up | Key::Character('k') => first.saturating_sub(1),
            Key::Down | Key::Character('j') => (first + 1).min(last),
            Key::PageUp => first.saturating_sub(page),
            Key::PageDown | Key::Character(' ') => (first + page).min(last),
            Key::Home => 0,
            Key::End => last,
            _ => first,
        };
        Next::Stay
    }
}
