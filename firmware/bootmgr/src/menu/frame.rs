//! A screen of characters, drawn in memory; what differs from the one before goes to the display, so that nothing flickers.

use alloc::string::String;
use alloc::vec::Vec;

/// Colours of a character, as UEFI 2.10 §12.4.7 encodes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style(pub u8);

impl Style {
    /// Light grey on black.
    pub const NORMAL: Self = Self(0x07);
    /// White.
    pub const STRONG: Self = Self(0x0F);
    /// Cyan: borders, and what stands beside the thing itself.
    pub const FAINT: Self = Self(0x03);
    /// Yellow.
    pub const MESSAGE: Self = Self(0x0E);
    /// Black on light grey.
    pub const SELECTED: Self = Self(0x70);
}

/// What shows frames.
pub trait Display {
    /// Columns and rows.
    fn size(&self) -> (usize, usize);
    /// Clears the screen.
    fn clear(&mut self);
    /// Writes at a place; the text ends within the row.
    fn write(&mut self, column: usize, row: usize, style: Style, text: &str);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cell {
    character: char,
    style: Style,
}

const BLANK: Cell = Cell { character: ' ', style: Style::NORMAL };

/// A screen in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    columns: usize,
    cells: Vec<Cell>,
}

impl Frame {
    /// An empty screen.
    pub fn new(columns: usize, rows: usize) -> Self {
        Self { columns, cells: alloc::vec![BLANK; columns * rows] }
    }

    /// Columns.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.cells.len().checked_div(self.columns).unwrap_or(0)
    }

    /// Writes `text`; what does not fit into `width` columns, or the row, is left out, with an ellipsis in its place.
    pub fn text(&mut self, column: usize, row: usize, width: usize, style: Style, text: &str) {
        let width = width.min(self.columns.saturating_sub(column));
        let length = text.chars().count();
        for (place, character) in text.chars().take(width).enumerate() {
            let cut = place + 1 == width && length > width;
            self.set(column + place, row, if cut { '\u{2026}' } else { shown(character) }, style);
        }
    }

    /// Fills a part of a row.
    pub fn fill(&mut self, column: usize, row: usize, width: usize, style: Style, character: char) {
        (column..column + width).for_each(|column| self.set(column, row, character, style));
    }

    /// A box around everything, with a line across above row `across`.
    pub fn border(&mut self, across: usize, style: Style) {
        let (right, bottom) = (self.columns.saturating_sub(1), self.rows().saturating_sub(1));
        for row in 0..=bottom {
            let (left_end, line, right_end) = match row {
                0 => ('\u{250C}', '\u{2500}', '\u{2510}'),
                row if row == bottom => ('\u{2514}', '\u{2500}', '\u{2518}'),
                row if row == across => ('\u{251C}', '\u{2500}', '\u{2524}'),
                _ => ('\u{2502}', ' ', '\u{2502}'),
            };
            if line != ' ' {
                self.fill(1, row, right.saturating_sub(1), style, line);
            }
            self.set(0, row, left_end, style);
            self.set(right, row, right_end, style);
        }
    }

    fn set(&mut self, column: usize, row: usize, character: char, style: Style) {
        if column < self.columns
            && let Some(cell) = self.cells.get_mut(row * self.columns + column)
        {
            *cell = Cell { character, style };
        }
    }

    /// Shows what differs from `before`, which is what the display shows.
    pub fn show(&self, before: &Self, display: &mut dyn Display) {
        let rows = self.cells.chunks(self.columns.max(1)).zip(before.cells.chunks(self.columns.max(1)));
        for (row, (new, old)) in rows.enumerate() {
            let mut column = 0;
            while column < new.len() {
                if new[column] == old[column] {
                    column += 1;
                    continue;
                }
                let length = run(&new[column..], &old[column..]);
                let text: String = new[column..column + length].iter().map(|cell| cell.character).collect();
                display.write(column, row, new[column].style, &text);
                column += length;
            }
        }
    }

    /// The characters of a row, for tests.
    #[cfg(test)]
    pub fn line(&self, row: usize) -> String {
        let cells = &self.cells[row * self.columns..][..self.columns];
        cells.iter().map(|cell| cell.character).collect()
    }
}

/// How many cells from here on are written at once: up to the last one of this style that differs. A few that do not differ cost
/// less than moving the cursor over them.
fn run(new: &[Cell], old: &[Cell]) -> usize {
    const WORTHWHILE: usize = 8;
    let mut length = 1;
    for (place, (cell, before)) in new.iter().zip(old).enumerate() {
        if cell.style != new[0].style || place >= length + WORTHWHILE {
            break;
        }
        if cell != before {
            length = place + 1;
        }
    }
    length
}

/// What stands for a character: itself, if every display gives it one column.
fn shown(character: char) -> char {
    match character {
        ' '..='~'
        | '\u{A1}'..='\u{2FF}'
        | '\u{370}'..='\u{52F}'
        | '\u{2010}'..='\u{2027}'
        | '\u{2190}'..='\u{25FF}' => character,
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log(Vec<(usize, usize, u8, String)>);

    impl Display for Log {
        fn size(&self) -> (usize, usize) {
            (10, 3)
        }
        fn clear(&mut self) {}
        fn write(&mut self, column: usize, row: usize, style: Style, text: &str) {
            self.0.push((column, row, style.0, text.into()));
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let before = Frame::new(10, 3);
        let mut after = before.clone();
        after.text(2, 1, 10, Style::NORMAL, "abc");
        after.text(3, 1, 1, Style::STRONG, "b");
        after.text(1, 2, 9, Style::NORMAL, "x y");
        after.text(9, 2, 9, Style::STRONG, "z");
        let mut log = Log(Vec::new());
        after.show(&before, &mut log);
        let written = [(2, 1, 7, "a"), (3, 1, 15, "b"), (4, 1, 7, "c"), (1, 2, 7, "x y"), (9, 2, 15, "z")];
        assert_eq!(log.0, written.map(|(column, row, style, text)| (column, row, style, text.to_string())));
        log.0.clear();
        after.show(&after, &mut log);
        assert!(log.0.is_empty());
    }

    #[test]
    fn text_is_cut_and_what_has_no_single_column_replaced() {
        let mut frame = Frame::new(10, 2);
        frame.text(1, 0, 4, Style::NORMAL, "abcdef");
        frame.text(0, 1, 10, Style::NORMAL, "\u{6F22}\x1b\u{e4}");
        frame.text(8, 5, 10, Style::NORMAL, "outside");
        assert_eq!(frame.line(0), " abc\u{2026}     ");
        assert_eq!(frame.line(1), "??\u{e4}       ");
    }

    #[test]
    fn a_border_fits_a_screen_of_any_size() {
        for (columns, rows) in [(0, 0), (1, 1), (2, 2), (80, 24)] {
            Frame::new(columns, rows).border(1, Style::FAINT);
        }
    }
}
