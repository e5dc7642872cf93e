//! What is on a screen that keeps no text of its own: a cell for each character, and what writing does to them.
//!
//! Cursor and lines follow the same rules as on a terminal ([`Screen`](super::screen::Screen)), so that both can show the same
//! text side by side.

use alloc::vec::Vec;

use super::font::{self, Index};
use super::screen::{Attribute, NARROW, TAB_STOP, WIDE, is_printable, width};

/// A character of the screen with its colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Number of the glyph.
    pub glyph: u16,
    /// Its colours.
    pub attribute: Attribute,
    /// Whether the cursor is on it.
    pub cursor: bool,
}

/// The cells, and where the next character goes.
#[derive(Debug)]
pub struct Grid {
    columns: usize,
    rows: usize,
    cells: Vec<Cell>,
    /// Which cells were written since [`Grid::settle`].
    fresh: Vec<bool>,
    scrolled: bool,
    /// The first and the last row that may look otherwise than at the last [`Grid::settle`].
    changed: (usize, usize),
    column: usize,
    row: usize,
    attribute: Attribute,
    cursor_visible: bool,
    blank: u16,
}

impl Grid {
    /// An empty grid in the default colours, with a visible cursor.
    pub fn new(columns: usize, rows: usize) -> Self {
        let blank = font::find(' ').map_or(0, Index::number);
        let mut grid = Self {
            columns,
            rows,
            cells: Vec::new(),
            fresh: Vec::new(),
            scrolled: false,
            changed: (0, 0),
            column: 0,
            row: 0,
            attribute: Attribute::DEFAULT,
            cursor_visible: true,
            blank,
        };
        grid.clear();
        grid
    }

    /// Columns and rows.
    pub const fn size(&self) -> (usize, usize) {
        (self.columns, self.rows)
    }

    /// Column and row of the cursor.
    pub const fn cursor(&self) -> (usize, usize) {
        (self.column, self.row)
    }

    /// Colours of what is written next.
    pub const fn attribute(&self) -> Attribute {
        self.attribute
    }

    /// Whether the cursor is shown.
    pub const fn cursor_visible(&self) -> bool {
        self.cursor_visible
    }

    /// The cells of a row, as they are to be seen.
    pub fn row(&self, row: usize) -> impl Iterator<Item = Cell> {
        let cursor = (self.cursor_visible && row == self.row).then_some(self.column);
        let cells = self.cells[row * self.columns..][..self.columns].iter().enumerate();
        cells.map(move |(column, cell)| Cell { cursor: cursor == Some(column), ..*cell })
    }

    /// Whether the cell was written since [`Grid::settle`].
    pub fn is_fresh(&self, column: usize, row: usize) -> bool {
        self.fresh[row * self.columns + column]
    }

    /// Whether rows have moved since [`Grid::settle`].
    pub const fn has_scrolled(&self) -> bool {
        self.scrolled
    }

    /// The rows that may look otherwise than at the last [`Grid::settle`].
    pub fn changed(&self) -> core::ops::Range<usize> {
        self.changed.0..(self.changed.1 + 1).min(self.rows)
    }

    /// Notes that all has been drawn.
    pub fn settle(&mut self) {
        let (first, last) = (self.changed.0 * self.columns, self.changed().end * self.columns);
        self.fresh[first..last].fill(false);
        self.scrolled = false;
        // The cursor may leave the row that it is in.
        self.changed = (self.row, self.row);
    }

    /// Notes that the cursor's row changes.
    const fn touch(&mut self) {
        if self.row < self.changed.0 {
            self.changed.0 = self.row;
        } else if self.row > self.changed.1 {
            self.changed.1 = self.row;
        }
    }

    /// Selects colours.
    pub const fn set_attribute(&mut self, attribute: Attribute) {
        self.attribute = attribute;
    }

    /// Shows or hides the cursor.
    pub const fn show_cursor(&mut self, visible: bool) {
        self.cursor_visible = visible;
    }

    /// Moves the cursor. Does nothing if the place is not on the screen.
    pub const fn set_cursor(&mut self, column: usize, row: usize) {
        if column < self.columns && row < self.rows {
            (self.column, self.row) = (column, row);
            self.touch();
        }
    }

    /// Gives it another size, which clears.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        (self.columns, self.rows) = (columns, rows);
        self.clear();
    }

    /// Clears in the current background colour; the cursor goes to the upper left.
    pub fn clear(&mut self) {
        let blank = self.blank_cell();
        self.cells.clear();
        self.cells.resize(self.columns * self.rows, blank);
        self.fresh.clear();
        self.fresh.resize(self.columns * self.rows, false);
        (self.column, self.row) = (0, 0);
        self.changed = (0, self.rows.saturating_sub(1));
    }

    /// Writes text. Returns whether all of it could be shown; something else stands for what could not.
    pub fn write(&mut self, text: &[u16]) -> bool {
        let mut all = true;
        for character in char::decode_utf16(text.iter().copied()) {
            match character.ok() {
                Some('\u{8}') => self.column = self.column.saturating_sub(1),
                Some('\n') => self.line_feed(),
                Some('\r') => self.column = 0,
                Some('\t') => self.tabulate(),
                Some(NARROW | WIDE) => {}
                Some(character) if is_printable(character) => all &= self.print(character),
                _ => {
                    all = false;
                    self.print('?');
                }
            }
        }
        all
    }

    /// Prints a character; returns whether there is a glyph for it.
    fn print(&mut self, character: char) -> bool {
        let glyph = font::find(character);
        let width = width(character);
        if width == 0 {
            return false;
        }
        if self.column + width > self.columns {
            self.next_line();
        }
        let shown = glyph.or_else(|| font::find(font::REPLACEMENT)).map_or(self.blank, Index::number);
        self.put(self.column, shown);
        if width > 1 {
            self.put(self.column + 1, self.blank);
        }
        self.column += width;
        if self.column >= self.columns {
            self.next_line();
        }
        glyph.is_some()
    }

    fn put(&mut self, column: usize, glyph: u16) {
        let at = self.row * self.columns + column;
        self.cells[at] = Cell { glyph, attribute: self.attribute, cursor: false };
        self.fresh[at] = true;
    }

    const fn blank_cell(&self) -> Cell {
        Cell { glyph: self.blank, attribute: self.attribute, cursor: false }
    }

    fn next_line(&mut self) {
        self.column = 0;
        self.line_feed();
    }

    fn line_feed(&mut self) {
        if self.row + 1 < self.rows {
            self.row += 1;
            self.touch();
            return;
        }
        self.scrolled = true;
        self.changed = (0, self.row);
        self.cells.copy_within(self.columns.., 0);
        self.fresh.copy_within(self.columns.., 0);
        let last = self.cells.len() - self.columns;
        let blank = self.blank_cell();
        self.cells[last..].fill(blank);
        self.fresh[last..].fill(true);
    }

    fn tabulate(&mut self) {
        for _ in 0..TAB_STOP - self.column % TAB_STOP {
            self.print(' ');
            if self.column == 0 {
                break;
            }
        }
    }
}

/// Whether there are glyphs for all of `text`.
pub fn can_show(text: &[u16]) -> bool {
    char::decode_utf16(text.iter().copied()).all(|character| {
        character.is_ok_and(|character| {
            matches!(character, '\u{8}' | '\n' | '\r' | '\t' | NARROW | WIDE)
                || (width(character) == 1 && font::find(character).is_some())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::screen::Screen;
    use super::super::screen::tests::Model;
    use super::*;
    use std::string::String;

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn line(grid: &Grid, row: usize) -> String {
        let letter = |cell: Cell| {
            (' '..='\u{FFFD}').find(|c| font::find(*c).map(Index::number) == Some(cell.glyph)).unwrap_or('?')
        };
        grid.row(row).map(letter).collect::<String>().trim_end().into()
    }

    /// What is written, and where the cursor was put before.
    const TEXTS: [(Option<(usize, usize)>, &str); 9] = [
        (None, "line 1\r\nline 2\n\tx\ty\u{8}z"),
        (Some((70, 3)), "wraps at the right edge of the screen"),
        (Some((0, 10)), "a\u{8}\u{8}b\rc"),
        (Some((79, 24)), "x"),
        (None, "\r\nand so on\n\n\n"),
        (Some((78, 5)), "\t."),
        (Some((0, 24)), "the last line has to scroll when it is full, as it is with as much text as this one has"),
        (None, "\r\n─┼│█ ÄÖÜ é"),
        (Some((80, 25)), "not moved"),
    ];

    #[test]
    fn text_comes_to_lie_where_a_terminal_has_it() {
        let (mut grid, mut screen, mut model) = (Grid::new(80, 25), Screen::new(), Model::new(80, 25));
        let mut out = Vec::new();
        screen.clear(&mut out);
        for (place, text) in TEXTS {
            if let Some((column, row)) = place {
                grid.set_cursor(column, row);
                screen.set_cursor(column, row, &mut out);
            }
            assert!(grid.write(&units(text)));
            screen.write(&units(text), &mut out);
            model.feed(&out);
            out.clear();
            assert_eq!(grid.cursor(), screen.cursor(), "{text}");
            for row in 0..25 {
                assert_eq!(line(&grid, row), model.line(row), "{text}, row {row}");
            }
        }
    }

    #[test]
    fn what_has_no_glyph_is_reported_and_replaced() {
        let mut grid = Grid::new(80, 25);
        assert!(!grid.write(&units("a日b")));
        assert_eq!(line(&grid, 0), "a\u{FFFD} b");
        assert_eq!(grid.cursor(), (4, 0));
        assert!(!grid.write(&[0xD800, 0x1B]));
        assert_eq!(line(&grid, 0), "a\u{FFFD} b??");
        assert!(!grid.write(&units("e\u{301}")));
        assert_eq!(grid.cursor(), (7, 0));
        assert!(can_show(&units("ok ─\r\n\u{fff1}")) && !can_show(&units("日")) && !can_show(&[0xDC00]));
        assert!(!can_show(&units("\u{1b}")) && !can_show(&units("\u{301}")));
    }

    #[test]
    fn the_cursor_is_on_its_cell_only_while_it_is_shown() {
        let mut grid = Grid::new(80, 25);
        grid.set_cursor(2, 1);
        let on = |grid: &Grid| (0..25).flat_map(|row| grid.row(row)).map(|cell| cell.cursor).collect::<Vec<_>>();
        assert_eq!(on(&grid).iter().position(|on| *on), Some(82));
        assert_eq!(on(&grid).iter().filter(|on| **on).count(), 1);
        grid.show_cursor(false);
        assert!(!on(&grid).contains(&true));
    }

    #[test]
    fn rows_that_change_are_known_with_those_that_the_cursor_leaves() {
        let mut grid = Grid::new(80, 25);
        assert_eq!(grid.changed(), 0..25);
        grid.settle();
        grid.set_cursor(0, 5);
        assert_eq!(grid.changed(), 0..6);
        grid.settle();
        grid.write(&units("a\n\nb"));
        assert_eq!(grid.changed(), 5..8);
        grid.settle();
        grid.set_cursor(0, 2);
        assert_eq!(grid.changed(), 2..8);
        grid.settle();
        grid.show_cursor(false);
        assert_eq!(grid.changed(), 2..3);
        grid.clear();
        assert_eq!(grid.changed(), 0..25);
    }

    #[test]
    fn new_lines_have_the_background_of_the_moment() {
        let mut grid = Grid::new(80, 25);
        let blue = Attribute::new(0x17).unwrap();
        grid.set_cursor(0, 24);
        grid.set_attribute(blue);
        grid.write(&units("\n"));
        assert!(grid.row(24).all(|cell| cell.attribute == blue));
        assert!(grid.row(23).all(|cell| cell.attribute == Attribute::DEFAULT));
        assert!(grid.has_scrolled());
        assert_eq!(grid.changed(), 0..25);
        grid.settle();
        assert!(!grid.has_scrolled() && !grid.is_fresh(0, 24));
    }
}
