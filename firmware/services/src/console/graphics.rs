//! Text drawn on a display.
//!
//! The cells that should be seen ([`Grid`]) are compared with those that are, and what differs is drawn: so a scroll, however
//! many lines it moves, is one pass over the cells, and video memory is never read. Where a program has drawn on the display
//! by itself, what is written comes on top, and the next scroll or clear takes the rest away.
//!
//! The modes are those of one resolution, the one the display had at first. A program that selects another one gets text in
//! the middle of that until somebody resets the console or sets its mode, which also brings the resolution back.

use alloc::vec::Vec;

use super::font::{self, Index};
use super::grid::{self, Cell, Grid};
use super::{Attribute, OutputState, TextDevice, TextInput, TextOutput};
use crate::graphics::{Display, Mode, PIXEL, Rectangle, SharedDisplay};

/// Text modes that a resolution may have room for, the first three as [`super::screen::MODES`] numbers them. The whole screen
/// follows as the last.
const SIZES: [(usize, usize); 6] = [(80, 25), (80, 50), (100, 31), (128, 40), (160, 50), (240, 67)];
/// Sizes whose numbers are fixed: one that there is no room for leaves a gap.
const NUMBERED: usize = 3;
/// Lines of a cell that the cursor covers.
const CURSOR: core::ops::Range<usize> = font::HEIGHT - 3..font::HEIGHT - 1;
/// Bytes of half a line of a glyph.
const HALF: usize = font::WIDTH / 2 * PIXEL;
/// The colours in the order of UEFI 2.10 §12.4.7, with the values that VGA gives them in text modes.
const COLOURS: [u32; 16] = [
    0x00_0000, 0x00_00AA, 0x00_AA00, 0x00_AAAA, 0xAA_0000, 0xAA_00AA, 0xAA_5500, 0xAA_AAAA, 0x55_5555, 0x55_55FF,
    0x55_FF55, 0x55_FFFF, 0xFF_5555, 0xFF_55FF, 0xFF_FF55, 0xFF_FFFF,
];

/// A text console on a display.
#[derive(Debug)]
pub struct GraphicsConsole {
    display: SharedDisplay,
    /// The display's mode that the text modes are for.
    home: usize,
    modes: Vec<(usize, usize)>,
    mode: usize,
    grid: Grid,
    painter: Painter,
}

impl GraphicsConsole {
    /// A console in mode 0 on `display`; `None` if that is too small. Nothing is drawn: what is shown stays.
    pub fn new(display: SharedDisplay) -> Option<Self> {
        let (home, mode, foreign) = {
            let display = display.try_borrow().ok()?;
            (display.number(), display.mode(), display.foreign())
        };
        let modes = modes(&mode)?;
        let (columns, rows) = *modes.first()?;
        let painter =
            Painter { shown: alloc::vec![None; columns * rows], seen: foreign.wrapping_sub(1), ..Painter::new() };
        Some(Self { display, home, modes, mode: 0, grid: Grid::new(columns, rows), painter })
    }

    /// Shows what has changed.
    fn paint(&mut self) {
        // In use only if somebody draws from above the level at which displays are used.
        if let Ok(mut display) = self.display.try_borrow_mut() {
            self.painter.paint(&mut display, &mut self.grid);
        }
    }

    /// Clears the whole screen, whatever is on it.
    fn wipe(&mut self) {
        self.grid.clear();
        if let Ok(mut display) = self.display.try_borrow_mut() {
            self.painter.wipe(&mut display, &self.grid);
        }
        self.paint();
    }
}

/// The text modes for a resolution; `None` if it has no room for the first one.
fn modes(resolution: &Mode) -> Option<Vec<(usize, usize)>> {
    let whole = (resolution.width / font::WIDTH, resolution.height / font::HEIGHT);
    let fits = |size: &(usize, usize)| size.0 <= whole.0 && size.1 <= whole.1;
    if !fits(&SIZES[0]) {
        return None;
    }
    let mut modes = Vec::new();
    for (number, size) in SIZES.iter().enumerate() {
        if fits(size) && *size != whole {
            modes.push(*size);
        } else if number < NUMBERED {
            modes.push(if *size == whole { whole } else { (0, 0) });
        }
    }
    if !modes.contains(&whole) {
        modes.push(whole);
    }
    Some(modes)
}

impl TextDevice for GraphicsConsole {
    fn output(&mut self) -> Option<&mut dyn TextOutput> {
        Some(self)
    }

    fn input(&mut self) -> Option<&mut dyn TextInput> {
        None
    }
}

impl TextOutput for GraphicsConsole {
    fn modes(&self) -> &[(usize, usize)] {
        &self.modes
    }

    fn state(&self) -> OutputState {
        let (column, row) = self.grid.cursor();
        let (attribute, cursor_visible) = (self.grid.attribute(), self.grid.cursor_visible());
        OutputState { mode: self.mode, column, row, attribute, cursor_visible }
    }

    fn write(&mut self, text: &[u16]) -> bool {
        let all = self.grid.write(text);
        self.paint();
        all
    }

    fn can_show(&self, text: &[u16]) -> bool {
        grid::can_show(text)
    }

    fn set_mode(&mut self, mode: usize) {
        let Some(&(columns, rows)) = self.modes.get(mode).filter(|size| **size != (0, 0)) else { return };
        if let Ok(mut display) = self.display.try_borrow_mut()
            && display.number() != self.home
            && display.set_mode(self.home).is_err()
        {
            log::warn!("the display does not go back to its first mode");
        }
        self.mode = mode;
        self.grid.resize(columns, rows);
        self.wipe();
    }

    fn set_attribute(&mut self, attribute: Attribute) {
        self.grid.set_attribute(attribute);
    }

    fn clear(&mut self) {
        self.wipe();
    }

    fn set_cursor(&mut self, column: usize, row: usize) {
        self.grid.set_cursor(column, row);
        self.paint();
    }

    fn show_cursor(&mut self, visible: bool) {
        self.grid.show_cursor(visible);
        self.paint();
    }

    fn reset(&mut self) {
        self.grid.set_attribute(Attribute::DEFAULT);
        self.grid.show_cursor(true);
        self.set_mode(0);
    }

    fn leave(&mut self) {
        // The operating system finds the frame buffer as it is, in the mode that it was told of.
    }
}

/// Brings cells to the screen.
#[derive(Debug)]
struct Painter {
    /// What is on the screen; `None` where that is not known.
    shown: Vec<Option<Cell>>,
    /// [`Display::foreign`] when all of the screen was ours.
    seen: usize,
    /// The colours that `halves` is for.
    attribute: Attribute,
    /// Half a line of a glyph, by its bits.
    halves: [[u8; HALF]; 16],
    /// Cells of a row that are drawn together, line by line.
    strip: Vec<u8>,
}

impl Painter {
    const fn new() -> Self {
        let halves = halves(Attribute::DEFAULT);
        Self { shown: Vec::new(), seen: 0, attribute: Attribute::DEFAULT, halves, strip: Vec::new() }
    }

    /// Clears the whole screen.
    fn wipe(&mut self, display: &mut Display, grid: &Grid) {
        let Mode { width, height, .. } = display.mode();
        display.fill(Rectangle { x: 0, y: 0, width, height }, colours(grid.attribute()).1);
        self.shown.clear();
        for row in 0..grid.size().1 {
            self.shown.extend(grid.row(row).map(|cell| Some(Cell { cursor: false, ..cell })));
        }
        self.seen = display.foreign();
    }

    /// Draws all that differs from what is shown.
    fn paint(&mut self, display: &mut Display, grid: &mut Grid) {
        let (columns, rows) = grid.size();
        let mut changed = grid.changed();
        let mode = display.mode();
        let left = mode.width.saturating_sub(columns * font::WIDTH) / 2;
        let top = mode.height.saturating_sub(rows * font::HEIGHT) / 2;
        if display.foreign() != self.seen && grid.has_scrolled() {
            self.shown.fill(None);
            self.seen = display.foreign();
            changed = 0..rows;
        }
        let trust = display.foreign() == self.seen;
        let mut run = Vec::with_capacity(columns);
        for row in changed {
            for (column, cell) in grid.row(row).enumerate() {
                let shown = &mut self.shown[row * columns + column];
                if *shown != Some(cell) && (shown.is_some() || trust || cell.cursor)
                    || !trust && grid.is_fresh(column, row)
                {
                    *shown = Some(cell);
                    run.push(cell);
                } else if !run.is_empty() {
                    let x = left + (column - run.len()) * font::WIDTH;
                    self.draw(display, x, top + row * font::HEIGHT, &run);
                    run.clear();
                }
            }
            if !run.is_empty() {
                let x = left + (columns - run.len()) * font::WIDTH;
                self.draw(display, x, top + row * font::HEIGHT, &run);
                run.clear();
            }
        }
        grid.settle();
    }

    /// Draws cells beside each other.
    fn draw(&mut self, display: &mut Display, x: usize, y: usize, cells: &[Cell]) {
        let line = cells.len() * 2 * HALF;
        self.strip.resize(line * font::HEIGHT, 0);
        for (column, cell) in cells.iter().enumerate() {
            if cell.attribute != self.attribute {
                (self.attribute, self.halves) = (cell.attribute, halves(cell.attribute));
            }
            let strips = self.strip.chunks_exact_mut(line);
            for (number, (strip, bits)) in strips.zip(Index::glyph(cell.glyph)).enumerate() {
                let bits = if cell.cursor && CURSOR.contains(&number) { 0xFF } else { *bits };
                let pixels = &mut strip[column * 2 * HALF..][..2 * HALF];
                pixels[..HALF].copy_from_slice(&self.halves[usize::from(bits >> 4)]);
                pixels[HALF..].copy_from_slice(&self.halves[usize::from(bits & 0xF)]);
            }
        }
        for (number, strip) in self.strip.chunks_exact(line).enumerate() {
            display.write(x, y + number, strip);
        }
    }
}

/// Foreground and background.
const fn colours(attribute: Attribute) -> (u32, u32) {
    let bits = attribute.bits() as usize;
    (COLOURS[bits & 0xF], COLOURS[bits >> 4 & 7])
}

/// The pixels for each half line of a glyph.
const fn halves(attribute: Attribute) -> [[u8; HALF]; 16] {
    let (foreground, background) = colours(attribute);
    let mut halves = [[0; HALF]; 16];
    let mut bits = 0;
    while bits < 16 {
        let mut pixel = 0;
        while pixel < font::WIDTH / 2 {
            let colour = if bits << pixel & 0b1000 != 0 { foreground } else { background };
            let bytes = colour.to_le_bytes();
            let mut byte = 0;
            while byte < PIXEL {
                halves[bits][pixel * PIXEL + byte] = bytes[byte];
                byte += 1;
            }
            pixel += 1;
        }
        bits += 1;
    }
    halves
}

#[cfg(test)]
mod tests;
