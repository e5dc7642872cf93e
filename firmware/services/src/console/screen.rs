//! What EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL knows of a screen, and how a terminal is made to show it (UEFI 2.10 §12.4).
//!
//! A [`Screen`] tracks mode, cursor and colours and turns each request into the bytes a terminal that understands UTF-8
//! and ECMA-48 needs. It holds no contents: terminals keep their own. A line is ended by the screen, not by the
//! terminal's margin, so a terminal that is wider than the mode shows the same.

use alloc::vec::Vec;

/// Columns and rows of the modes. The numbers of the first three are fixed: 80 × 25, 80 × 50, then anything.
pub const MODES: [(usize, usize); 3] = [(80, 25), (80, 50), (100, 31)];

/// Colours of a character: foreground in bits 0 to 3, background in bits 4 to 6 (UEFI 2.10 §12.4.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attribute(u8);

impl Attribute {
    /// Light grey on black.
    pub const DEFAULT: Self = Self(0x07);

    const BRIGHT: u8 = 0x08;
    const ALL: usize = 0x7F;

    /// `None` if undefined bits are set.
    pub const fn new(bits: usize) -> Option<Self> {
        if bits <= Self::ALL { Some(Self(bits as u8)) } else { None }
    }

    /// As the specification encodes it.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The sequence that selects it: UEFI counts colours from blue up, ECMA-48 from red up.
    fn select(self, out: &mut Vec<u8>) {
        let swap = |colour: u8| colour & 0b010 | (colour & 0b001) << 2 | (colour & 0b100) >> 2;
        out.extend_from_slice(b"\x1b[0;");
        if self.0 & Self::BRIGHT != 0 {
            out.extend_from_slice(b"1;");
        }
        out.extend_from_slice(&[b'3', b'0' + swap(self.0 & 7), b';', b'4', b'0' + swap(self.0 >> 4 & 7), b'm']);
    }
}

/// Ordinary colours and a visible cursor, whatever was before.
pub const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h";

/// Mode, cursor and colours of a screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Screen {
    mode: usize,
    column: usize,
    row: usize,
    attribute: Attribute,
    cursor_visible: bool,
    /// Whether rows are the same here and on the terminal.
    anchored: bool,
}

impl Screen {
    /// A screen in mode 0. Nothing is said to the terminal: what it shows stays.
    pub const fn new() -> Self {
        Self { mode: 0, column: 0, row: 0, attribute: Attribute::DEFAULT, cursor_visible: true, anchored: false }
    }

    /// Number of the mode.
    pub const fn mode(&self) -> usize {
        self.mode
    }

    /// Columns and rows.
    pub const fn size(&self) -> (usize, usize) {
        MODES[self.mode]
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

    /// Writes text. Returns whether all of it could be shown; `?` stands for what could not.
    pub fn write(&mut self, text: &[u16], out: &mut Vec<u8>) -> bool {
        let mut all = true;
        for character in char::decode_utf16(text.iter().copied()) {
            match character.ok() {
                Some('\u{8}') => self.backspace(out),
                Some('\n') => self.line_feed(out),
                Some('\r') => {
                    self.column = 0;
                    out.push(b'\r');
                }
                Some('\t') => self.tabulate(out),
                Some(NARROW | WIDE) => {}
                Some(character) if is_printable(character) => self.print(character, out),
                _ => {
                    all = false;
                    self.print('?', out);
                }
            }
        }
        all
    }

    /// Selects a mode, which clears the screen. Does nothing if there is no such mode.
    pub fn set_mode(&mut self, mode: usize, out: &mut Vec<u8>) {
        if mode < MODES.len() {
            self.mode = mode;
            self.clear(out);
        }
    }

    /// Selects colours.
    pub fn set_attribute(&mut self, attribute: Attribute, out: &mut Vec<u8>) {
        self.attribute = attribute;
        attribute.select(out);
    }

    /// Clears in the current background colour; the cursor goes to the upper left.
    pub fn clear(&mut self, out: &mut Vec<u8>) {
        self.attribute.select(out);
        out.extend_from_slice(b"\x1b[2J");
        move_to(0, 0, out);
        (self.column, self.row, self.anchored) = (0, 0, true);
    }

    /// Moves the cursor. Does nothing if the place is not on the screen.
    pub fn set_cursor(&mut self, column: usize, row: usize, out: &mut Vec<u8>) {
        let (columns, rows) = self.size();
        if column >= columns || row >= rows {
            return;
        }
        if self.anchored {
            move_to(column, row, out);
        } else {
            move_by(row.cast_signed() - self.row.cast_signed(), column, out);
        }
        (self.column, self.row) = (column, row);
    }

    /// Shows or hides the cursor.
    pub fn show_cursor(&mut self, visible: bool, out: &mut Vec<u8>) {
        self.cursor_visible = visible;
        out.extend_from_slice(if visible { b"\x1b[?25h" } else { b"\x1b[?25l" });
    }

    /// Default colours, visible cursor, mode 0, empty.
    pub fn reset(&mut self, out: &mut Vec<u8>) {
        self.attribute = Attribute::DEFAULT;
        self.show_cursor(true, out);
        self.set_mode(0, out);
    }

    fn print(&mut self, character: char, out: &mut Vec<u8>) {
        let width = width(character);
        let (columns, _) = self.size();
        if self.column + width > columns {
            self.next_line(out);
        }
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        self.column += width;
        if self.column >= columns {
            self.next_line(out);
        }
    }

    fn next_line(&mut self, out: &mut Vec<u8>) {
        self.column = 0;
        out.push(b'\r');
        self.line_feed(out);
    }

    /// The terminal scrolls by itself when its cursor is at the bottom.
    fn line_feed(&mut self, out: &mut Vec<u8>) {
        let (_, rows) = self.size();
        if self.row + 1 < rows {
            self.row += 1;
        } else {
            self.anchored = false;
        }
        out.push(b'\n');
    }

    fn backspace(&mut self, out: &mut Vec<u8>) {
        if self.column > 0 {
            self.column -= 1;
            out.push(0x08);
        }
    }

    fn tabulate(&mut self, out: &mut Vec<u8>) {
        for _ in 0..TAB_STOP - self.column % TAB_STOP {
            self.print(' ', out);
            if self.column == 0 {
                break;
            }
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether `text` can be shown as it is.
pub fn can_show(text: &[u16]) -> bool {
    char::decode_utf16(text.iter().copied()).all(|character| {
        character.is_ok_and(|character| {
            matches!(character, '\u{8}' | '\n' | '\r' | '\t' | NARROW | WIDE) || is_printable(character)
        })
    })
}

pub(super) const TAB_STOP: usize = 8;

/// Ask for narrow or wide glyphs; not shown (UEFI 2.10 §33.2.6.2.2).
pub(super) const NARROW: char = '\u{FFF0}';
pub(super) const WIDE: char = '\u{FFF1}';

pub(super) fn is_printable(character: char) -> bool {
    !character.is_control()
}

/// Columns a terminal uses for a character.
pub(super) const fn width(character: char) -> usize {
    match character {
        '\u{300}'..='\u{36F}' | '\u{200B}'..='\u{200F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' => 0,
        '\u{1100}'..='\u{115F}'
        | '\u{2E80}'..='\u{303E}'
        | '\u{3041}'..='\u{A4CF}'
        | '\u{AC00}'..='\u{D7A3}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{FE30}'..='\u{FE6F}'
        | '\u{FF00}'..='\u{FF60}'
        | '\u{FFE0}'..='\u{FFE6}'
        | '\u{1F300}'..='\u{1FAFF}'
        | '\u{20000}'..='\u{3FFFD}' => 2,
        _ => 1,
    }
}

fn move_to(column: usize, row: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\x1b[");
    decimal(row + 1, out);
    out.push(b';');
    decimal(column + 1, out);
    out.push(b'H');
}

fn move_by(rows: isize, column: usize, out: &mut Vec<u8>) {
    out.push(b'\r');
    for (distance, letter) in [(rows.unsigned_abs(), if rows < 0 { b'A' } else { b'B' }), (column, b'C')] {
        if distance > 0 {
            out.extend_from_slice(b"\x1b[");
            decimal(distance, out);
            out.push(letter);
        }
    }
}

/// `number` in digits; rows and columns have three at most.
fn decimal(number: usize, out: &mut Vec<u8>) {
    for divisor in [100, 10, 1] {
        if number >= divisor || divisor == 1 {
            out.push(b'0' + (number / divisor % 10) as u8);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A terminal as far as a [`Screen`] needs one, with the delayed wrap of real ones.
    pub struct Model {
        columns: usize,
        cells: Vec<Vec<(char, String)>>,
        pub cursor: (usize, usize),
        pub colours: String,
        pub cursor_visible: bool,
        wrap: bool,
    }

    impl Model {
        pub fn new(columns: usize, rows: usize) -> Self {
            let cells = vec![vec![(' ', String::new()); columns]; rows];
            Self { columns, cells, cursor: (0, 0), colours: String::new(), cursor_visible: true, wrap: false }
        }

        pub fn feed(&mut self, bytes: &[u8]) {
            let text = str::from_utf8(bytes).unwrap();
            let mut rest = text.chars();
            while let Some(character) = rest.next() {
                match character {
                    '\x1b' => {
                        assert_eq!(rest.next(), Some('['));
                        let sequence: String = rest.clone().take_while(|c| !c.is_ascii_alphabetic()).collect();
                        let last = rest.nth(sequence.len()).unwrap();
                        self.control(&sequence, last);
                    }
                    '\r' => (self.cursor.0, self.wrap) = (0, false),
                    '\n' => self.line_feed(),
                    '\x08' => (self.cursor.0, self.wrap) = (self.cursor.0.saturating_sub(1), false),
                    character => self.print(character),
                }
            }
        }

        fn control(&mut self, parameters: &str, last: char) {
            match (parameters, last) {
                (colours, 'm') => self.colours = colours.to_string(),
                ("2", 'J') => {
                    let (columns, rows) = (self.columns, self.cells.len());
                    self.cells = vec![vec![(' ', self.colours.clone()); columns]; rows];
                }
                (rows, 'A') => self.cursor.1 = self.cursor.1.saturating_sub(rows.parse().unwrap()),
                (rows, 'B') => {
                    self.cursor.1 = (self.cursor.1 + rows.parse::<usize>().unwrap()).min(self.cells.len() - 1);
                }
                (columns, 'C') => {
                    self.cursor.0 = (self.cursor.0 + columns.parse::<usize>().unwrap()).min(self.columns - 1);
                }
                ("?25", 'h') => self.cursor_visible = true,
                ("?25", 'l') => self.cursor_visible = false,
                (place, 'H') => {
                    let (row, column) = place.split_once(';').unwrap();
                    let number = |text: &str| text.parse::<usize>().unwrap() - 1;
                    self.cursor = (number(column), number(row));
                    self.wrap = false;
                }
                other => panic!("terminal does not know {other:?}"),
            }
        }

        fn print(&mut self, character: char) {
            if self.wrap {
                self.cursor.0 = 0;
                self.line_feed();
            }
            self.cells[self.cursor.1][self.cursor.0] = (character, self.colours.clone());
            self.cursor.0 += width(character);
            self.wrap = self.cursor.0 >= self.columns;
            self.cursor.0 = self.cursor.0.min(self.columns - 1);
        }

        fn line_feed(&mut self) {
            self.wrap = false;
            if self.cursor.1 + 1 < self.cells.len() {
                self.cursor.1 += 1;
            } else {
                let blank = vec![(' ', String::new()); self.columns];
                self.cells.remove(0);
                self.cells.push(blank);
            }
        }

        pub fn line(&self, row: usize) -> String {
            self.cells[row].iter().map(|(character, _)| *character).collect::<String>().trim_end().to_string()
        }
    }

    /// A screen and the terminal it drives.
    struct Both {
        screen: Screen,
        model: Model,
    }

    impl Both {
        fn new(columns: usize, rows: usize) -> Self {
            Self { screen: Screen::new(), model: Model::new(columns, rows) }
        }

        fn run(&mut self, f: impl FnOnce(&mut Screen, &mut Vec<u8>)) {
            let mut out = Vec::new();
            f(&mut self.screen, &mut out);
            self.model.feed(&out);
            assert_eq!(self.screen.cursor(), self.model.cursor, "cursor of the screen and of the terminal");
        }

        fn write(&mut self, text: &str) -> bool {
            let units: Vec<u16> = text.encode_utf16().collect();
            let mut all = true;
            self.run(|screen, out| all = screen.write(&units, out));
            all
        }
    }

    #[test]
    fn text_appears_where_the_cursor_is() {
        let mut both = Both::new(80, 25);
        both.run(|screen, out| screen.set_cursor(3, 2, out));
        assert!(both.write("Hällo ─┼│█▲►"));
        assert_eq!(both.model.line(2), "   Hällo ─┼│█▲►");
        assert_eq!(both.screen.cursor(), (15, 2));
    }

    #[test]
    fn line_wraps_at_the_right_edge() {
        let mut both = Both::new(80, 25);
        both.write(&"x".repeat(81));
        assert_eq!(both.screen.cursor(), (1, 1));
        assert_eq!(both.model.line(0).len(), 80);
        assert_eq!(both.model.line(1), "x");
    }

    #[test]
    fn full_line_ends_on_the_next() {
        let mut both = Both::new(80, 25);
        both.write(&"x".repeat(80));
        assert_eq!(both.screen.cursor(), (0, 1));
        both.write("y");
        assert_eq!(both.model.line(1), "y");
    }

    #[test]
    fn wider_terminal_shows_the_same() {
        let mut both = Both::new(132, 25);
        both.write(&"x".repeat(81));
        assert_eq!(both.model.line(0).len(), 80);
        assert_eq!(both.model.line(1), "x");
    }

    #[test]
    fn bottom_line_scrolls() {
        let mut both = Both::new(80, 25);
        for line in 0..30 {
            both.write(&format!("line {line}\r\n"));
        }
        assert_eq!(both.screen.cursor(), (0, 24));
        assert_eq!(both.model.line(23), "line 29");
        assert_eq!(both.model.line(0), "line 6");
    }

    /// A shell's line editor goes back to where its line began.
    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn line_is_edited_in_place_on_any_terminal() {
        for (rows, start) in [(25, 0), (25, 20), (24, 0), (60, 0), (60, 50), (30, 29)] {
            for lines in [0, 3, 24, 25, 40, 100] {
                let (mut screen, mut model) = (Screen::new(), Model::new(80, rows));
                model.cursor.1 = start;
                let mut out = Vec::new();
                let write = |screen: &mut Screen, out: &mut Vec<u8>, text: &str| {
                    screen.write(&text.encode_utf16().collect::<Vec<_>>(), out);
                };
                for line in 0..lines {
                    write(&mut screen, &mut out, &format!("line {line}\r\n"));
                }
                write(&mut screen, &mut out, &("> ".to_string() + &"a".repeat(100)));
                screen.set_cursor(2, screen.cursor().1 - 1, &mut out);
                write(&mut screen, &mut out, "X");
                screen.set_cursor(1, screen.cursor().1 + 1, &mut out);
                write(&mut screen, &mut out, "Y");
                model.feed(&out);
                let row = model.cursor.1;
                assert_eq!(model.line(row - 1), "> X".to_string() + &"a".repeat(77), "{rows} {start} {lines}");
                assert_eq!(model.line(row), "aYaaaaaaaaaaaaaaaaaaaa", "{rows} {start} {lines}");
            }
        }
    }

    #[test]
    fn cleared_screen_is_addressed_absolutely() {
        let mut both = Both::new(80, 25);
        both.model.cursor = (5, 20);
        let mut out = Vec::new();
        both.screen.clear(&mut out);
        both.screen.set_cursor(3, 4, &mut out);
        assert!(out.ends_with(b"\x1b[5;4H"));
        both.model.feed(&out);
        assert_eq!(both.model.cursor, (3, 4));
    }

    #[test]
    fn line_feed_keeps_the_column_and_return_the_row() {
        let mut both = Both::new(80, 25);
        both.write("ab\nc\rd");
        assert_eq!(both.model.line(0), "ab");
        assert_eq!(both.model.line(1), "d c");
    }

    #[test]
    fn backspace_stops_at_the_left_edge() {
        let mut both = Both::new(80, 25);
        both.write("ab\u{8}\u{8}\u{8}c");
        assert_eq!(both.model.line(0), "cb");
    }

    #[test]
    fn tab_goes_to_the_next_stop() {
        let mut both = Both::new(80, 25);
        both.write("a\tb\tc");
        assert_eq!(both.model.line(0), "a       b       c");
        both.run(|screen, out| screen.set_cursor(79, 0, out));
        both.write("\t");
        assert_eq!(both.screen.cursor(), (0, 1));
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut both = Both::new(80, 25);
        both.write("日本");
        assert_eq!(both.screen.cursor(), (4, 0));
        both.run(|screen, out| screen.set_cursor(79, 0, out));
        both.write("日");
        assert_eq!(both.screen.cursor(), (2, 1));
    }

    #[test]
    fn what_cannot_be_shown_is_reported_and_harmless() {
        let mut both = Both::new(80, 25);
        assert!(!both.write("a\u{1b}[2Jb\u{7f}\u{9b}"));
        assert_eq!(both.model.line(0), "a?[2Jb??");
        let mut out = Vec::new();
        assert!(!Screen::new().write(&[0xD800, 0x41], &mut out));
        assert_eq!(out, b"?A");
        assert!(!can_show(&[0x1B]));
        assert!(!can_show(&[0xDC00]));
        assert!(can_show(&[0x2500, 0x0D, 0x0A]));
    }

    #[test]
    fn colours_are_those_of_ecma_48() {
        let sequence = |bits| {
            let mut out = Vec::new();
            Screen::new().set_attribute(Attribute::new(bits).unwrap(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(sequence(0x07), "\x1b[0;37;40m");
        assert_eq!(sequence(0x01), "\x1b[0;34;40m");
        assert_eq!(sequence(0x0C), "\x1b[0;1;31;40m");
        assert_eq!(sequence(0x1E), "\x1b[0;1;33;44m");
        assert_eq!(sequence(0x46), "\x1b[0;33;41m");
        assert_eq!(sequence(0x30), "\x1b[0;30;46m");
        assert_eq!(Attribute::new(0x80), None);
    }

    #[test]
    fn clear_uses_the_current_background() {
        let mut both = Both::new(80, 25);
        both.write("text");
        both.run(|screen, out| screen.set_attribute(Attribute::new(0x17).unwrap(), out));
        both.run(Screen::clear);
        assert_eq!(both.model.line(0), "");
        assert_eq!(both.model.cells[24][79].1, "0;37;44");
    }

    #[test]
    fn mode_changes_size_and_clears() {
        let mut both = Both::new(100, 31);
        both.write("text");
        both.run(|screen, out| screen.set_mode(2, out));
        assert_eq!(both.screen.size(), (100, 31));
        assert_eq!(both.model.line(0), "");
        both.run(|screen, out| screen.set_cursor(99, 30, out));
        both.run(|screen, out| screen.set_mode(7, out));
        assert_eq!(both.screen.mode(), 2);
    }

    #[test]
    fn places_off_the_screen_are_ignored() {
        let mut both = Both::new(80, 25);
        both.run(|screen, out| screen.set_cursor(80, 0, out));
        both.run(|screen, out| screen.set_cursor(0, 25, out));
        assert_eq!(both.screen.cursor(), (0, 0));
    }

    #[test]
    fn reset_restores_the_defaults() {
        let mut both = Both::new(100, 31);
        both.run(|screen, out| screen.set_mode(2, out));
        both.run(|screen, out| screen.set_attribute(Attribute::new(0x4F).unwrap(), out));
        both.run(|screen, out| screen.show_cursor(false, out));
        assert!(!both.model.cursor_visible);
        both.run(Screen::reset);
        assert_eq!(both.screen, Screen { anchored: true, ..Screen::new() });
        assert!(both.model.cursor_visible);
        assert_eq!(both.model.colours, "0;37;40");
    }
}
