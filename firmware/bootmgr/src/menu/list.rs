//! A list to choose from.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Key;
use super::frame::{Frame, Style};

/// Where the detail of a row begins, and the widest label before it.
const DETAIL: usize = 36;
/// Rows that have a number to choose them by.
const NUMBERED: usize = 9;

/// A row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row<T> {
    /// What it says.
    pub label: String,
    /// What it says beside.
    pub detail: String,
    /// What is chosen with it; `None` for a heading.
    pub item: Option<T>,
}

impl<T> Row<T> {
    /// A row to choose.
    pub fn new(item: T, label: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { label: label.into(), detail: detail.into(), item: Some(item) }
    }

    /// A heading.
    pub fn heading(label: impl Into<String>) -> Self {
        Self { label: label.into(), detail: String::new(), item: None }
    }
}

/// Rows, of which one is selected.
#[derive(Clone, Debug)]
pub struct List<T> {
    rows: Vec<Row<T>>,
    /// Number of the selected row among those to choose.
    selected: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), selected: 0 }
    }
}

impl<T: PartialEq> List<T> {
    /// Replaces the rows; what was selected stays selected, or its place.
    pub fn set(&mut self, rows: Vec<Row<T>>) {
        let place = self.selected().and_then(|selected| {
            let mut items = rows.iter().filter_map(|row| row.item.as_ref());
            items.position(|item| item == selected)
        });
        self.rows = rows;
        self.selected = place.unwrap_or(self.selected).min(self.count().saturating_sub(1));
    }

    /// Selects an item, if it is there.
    pub fn select(&mut self, wanted: &T) {
        let place = self.items().position(|item| item == wanted);
        self.selected = place.unwrap_or(self.selected);
    }

    /// The item that is selected.
    pub fn selected(&self) -> Option<&T> {
        self.items().nth(self.selected)
    }

    fn items(&self) -> impl Iterator<Item = &T> {
        self.rows.iter().filter_map(|row| row.item.as_ref())
    }

    fn count(&self) -> usize {
        self.items().count()
    }

    /// Moves the selection. Returns whether an item is chosen: by Enter or by its number.
    pub fn press(&mut self, key: Key, page: usize) -> bool {
        let last = self.count().saturating_sub(1);
        match key {
            Key::Up | Key::Character('k') => self.selected = self.selected.checked_sub(1).unwrap_or(last),
            Key::Down | Key::Character('j') => self.selected = if self.selected < last { self.selected + 1 } else { 0 },
            Key::PageUp => self.selected = self.selected.saturating_sub(page),
            Key::PageDown => self.selected = (self.selected + page).min(last),
            Key::Home => self.selected = 0,
            Key::End => self.selected = last,
            Key::Enter | Key::Right => return self.count() > 0,
            Key::Character(digit @ '1'..='9') => {
                let place = digit as usize - '1' as usize;
                if place <= last && self.count() > 0 {
                    self.selected = place;
                    return true;
                }
            }
            _ => {}
        }
        false
    }

    /// Draws as many rows as fit between `top` and `bottom`, the selected one among them.
    pub fn draw(&self, frame: &mut Frame, top: usize, bottom: usize) {
        let height = bottom.saturating_sub(top);
        let width = frame.columns().saturating_sub(4);
        let chosen = self.row_of(self.selected).unwrap_or(0);
        // The selection keeps a row of company, and the heading above the first item is seen too.
        let first = (chosen + 2).saturating_sub(height).min(self.rows.len().saturating_sub(height));
        let mut number = self.rows.iter().take(first).filter(|row| row.item.is_some()).count();
        for (place, row) in self.rows.iter().enumerate().skip(first).take(height) {
            let line = top + place - first;
            if row.item.is_none() {
                frame.text(2, line, width, Style::STRONG, &row.label);
                continue;
            }
            let selected = number == self.selected;
            let (style, beside) =
                if selected { (Style::SELECTED, Style::SELECTED) } else { (Style::NORMAL, Style::FAINT) };
            if selected {
                frame.fill(2, line, width, style, ' ');
                frame.text(2, line, 1, style, "\u{25BA}");
            }
            if number < NUMBERED {
                frame.text(4, line, 1, beside, &format!("{}", number + 1));
            }
            let label_width = if row.detail.is_empty() { width.saturating_sub(5) } else { DETAIL - 8 };
            frame.text(6, line, label_width, style, &row.label);
            frame.text(DETAIL, line, width.saturating_sub(DETAIL - 2), beside, &row.detail);
            number += 1;
        }
        let edge = frame.columns().saturating_sub(1);
        if first > 0 {
            frame.text(edge, top, 1, Style::STRONG, "\u{2191}");
        }
        if first + height < self.rows.len() {
            frame.text(edge, bottom.saturating_sub(1), 1, Style::STRONG, "\u{2193}");
        }
    }

    fn row_of(&self, item: usize) -> Option<usize> {
        self.rows.iter().enumerate().filter(|(_, row)| row.item.is_some()).nth(item).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> List<usize> {
        let mut list = List::default();
        let rows = (0..count).map(|item| Row::new(item, format!("row {item}"), ""));
        list.set(core::iter::once(Row::heading("Heading")).chain(rows).collect());
        list
    }

    #[test]
    fn keys_move_around_and_numbers_choose() {
        let mut list = list(12);
        let steps = [
            (Key::Up, 11),
            (Key::Down, 0),
            (Key::Character('j'), 1),
            (Key::Character('k'), 0),
            (Key::PageDown, 5),
            (Key::End, 11),
            (Key::PageDown, 11),
            (Key::PageUp, 6),
            (Key::Home, 0),
        ];
        for (key, selected) in steps {
            assert!(!list.press(key, 5));
            assert_eq!(list.selected(), Some(&selected), "{key:?}");
        }
        assert!(list.press(Key::Character('7'), 5));
        assert_eq!(list.selected(), Some(&6));
        assert!(list.press(Key::Enter, 5));
    }

    #[test]
    fn an_empty_list_has_nothing_to_choose() {
        let mut list = list(0);
        for key in [Key::Up, Key::Down, Key::Enter, Key::Character('1'), Key::End, Key::PageDown] {
            assert!(!list.press(key, 5), "{key:?}");
        }
        assert_eq!(list.selected(), None);
        list.draw(&mut Frame::new(80, 24), 1, 10);
    }

    #[test]
    fn the_selected_row_is_always_to_be_seen() {
        let mut list = list(40);
        for item in 0..40 {
            let mut frame = Frame::new(80, 24);
            list.draw(&mut frame, 1, 11);
            let lines: Vec<String> = (1..11).map(|row| frame.line(row)).collect();
            assert!(lines.iter().any(|line| line.contains(&format!("row {item} "))), "{item}: {lines:?}");
            list.press(Key::Down, 5);
        }
    }

    #[test]
    fn what_was_selected_stays_selected_when_rows_change() {
        let mut list = list(5);
        list.press(Key::End, 5);
        list.set(Vec::from([Row::new(4, "four", ""), Row::new(1, "one", "")]));
        assert_eq!(list.selected(), Some(&4));
        list.set(Vec::from([Row::new(1, "one", "")]));
        assert_eq!(list.selected(), Some(&1));
    }
}
