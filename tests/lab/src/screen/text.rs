//! The text on a picture of a text console, read back by holding every cell against a font.
//!
//! A cell is read only when it has at most two colours and its pixels are exactly those of a glyph; so a wrong font, a cell
//! off by a pixel, a torn line or a colour that runs comes out as [`UNREADABLE`]. What the font does not have and is a line of
//! a box is told by where it leaves its cell.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::{Colour, Picture};

/// What stands for a cell that shows nothing known.
pub const UNREADABLE: char = '\u{FFFD}';

/// A font of fixed width, at most eight pixels wide.
#[derive(Debug, Clone)]
pub struct Font {
    height: usize,
    characters: HashMap<Vec<u8>, char>,
}

/// Pixels in a line of a glyph.
const WIDTH: usize = 8;
/// Lines of a cell that a cursor may cover, counted from its end, and how many.
const CURSOR_LINES: usize = 4;

impl Font {
    /// A font from a PSF 1 file with a table of characters: magic 36 04, mode, height; the glyphs; for each the characters it
    /// stands for in UTF-16, then FFFF; sequences of characters follow FFFE.
    ///
    /// # Errors
    /// It is something else, or cut short.
    pub fn from_psf(bytes: &[u8]) -> Result<Self> {
        let (&[0x36, 0x04, mode, height], rest) = bytes.split_first_chunk().context("no font")? else {
            bail!("not a PSF 1 font");
        };
        let (count, height) = (if mode & 1 == 0 { 256 } else { 512 }, usize::from(height));
        let (glyphs, table) = rest.split_at_checked(count * height).context("a font cut short")?;
        let (codes, _) = table.as_chunks::<2>();
        let codes: Vec<u16> = codes.iter().copied().map(u16::from_le_bytes).collect();
        let mut characters = HashMap::new();
        for (glyph, codes) in glyphs.chunks(height.max(1)).zip(codes.split(|code| *code == 0xFFFF)) {
            let single = codes.split(|code| *code == 0xFFFE).next().unwrap_or_default();
            // The least of the characters that look the same, which is that of ASCII.
            if let Some(character) = single.iter().filter_map(|code| char::from_u32(u32::from(*code))).min() {
                characters
                    .entry(glyph.to_vec())
                    .and_modify(|old: &mut char| *old = (*old).min(character))
                    .or_insert(character);
            }
        }
        characters.insert(vec![0; height], ' ');
        Ok(Self { height, characters })
    }

    /// The text in `columns` × `rows` cells in the middle of `picture`: its lines, without blanks at their ends.
    #[must_use]
    pub fn read(&self, picture: &Picture, columns: usize, rows: usize) -> Vec<String> {
        let left = picture.width.saturating_sub(columns * WIDTH) / 2;
        let top = picture.height.saturating_sub(rows * self.height) / 2;
        let cell = |row: usize, column: usize| self.cell(picture, left + column * WIDTH, top + row * self.height);
        let line = |row| (0..columns).map(|column| cell(row, column)).collect::<String>();
        (0..rows).map(|row| line(row).trim_end().to_owned()).collect()
    }

    fn cell(&self, picture: &Picture, left: usize, top: usize) -> char {
        let Some(lines) = bits(picture, left, top, self.height) else { return UNREADABLE };
        let inverse: Vec<u8> = lines.iter().map(|line| !line).collect();
        let without_cursor = |lines: &[u8]| {
            let (first, end) = (self.height - CURSOR_LINES, self.height);
            let mut lines = lines.to_vec();
            lines[first..end].iter_mut().filter(|line| **line == 0xFF).for_each(|line| *line = 0);
            lines
        };
        // Which colour is the background is not known: blank cells are one of either.
        let looks = [lines.clone(), inverse.clone(), without_cursor(&lines), without_cursor(&inverse)];
        let known = looks.iter().find_map(|look| self.characters.get(look).copied());
        known.or_else(|| boxes(&lines)).or_else(|| boxes(&inverse)).unwrap_or(UNREADABLE)
    }
}

/// A cell's lines, a bit for each pixel that differs in colour from the cell's first pixel; `None` when it has more than two colours.
fn bits(picture: &Picture, left: usize, top: usize, height: usize) -> Option<Vec<u8>> {
    let background = picture.at(left, top)?;
    let mut ink: Option<Colour> = None;
    let mut lines = Vec::with_capacity(height);
    for line in top..top + height {
        let mut bits = 0;
        for column in left..left + WIDTH {
            let colour = picture.at(column, line)?;
            if colour != background && *ink.get_or_insert(colour) != colour {
                return None;
            }
            bits = bits << 1 | u8::from(colour != background);
        }
        lines.push(bits);
    }
    Some(lines)
}

/// A box drawing character of light or of double lines, by how many strokes leave the cell to the left, right, top and bottom. The
/// strokes leave it near its middle, and there is no other ink.
fn boxes(lines: &[u8]) -> Option<char> {
    const MIDDLE: u8 = 0b0011_1100;
    let ends = lines.first()? | lines.last()?;
    let middle = lines.len() / 4..lines.len() - lines.len() / 4;
    let is_stroke = |(number, line): (usize, &u8)| match line & 0x81 {
        0 => line & !ends == 0,
        _ => middle.contains(&number),
    };
    if ends & !MIDDLE != 0 || !lines.iter().enumerate().all(is_stroke) {
        return None;
    }
    let strokes = |ink: &mut dyn Iterator<Item = bool>| {
        let (mut count, mut before) = (0, false);
        for ink in ink {
            count += u8::from(ink && !before);
            before = ink;
        }
        count
    };
    let side = |bit: u8| strokes(&mut lines.iter().map(|line| line & bit != 0));
    let end = |line: u8| strokes(&mut (0..WIDTH).map(|bit| line >> bit & 1 != 0));
    let arms = [side(0x80), side(0x01), end(*lines.first()?), end(*lines.last()?)];
    let known = [
        ([1, 1, 0, 0], '─'),
        ([0, 0, 1, 1], '│'),
        ([0, 1, 0, 1], '┌'),
        ([1, 0, 0, 1], '┐'),
        ([0, 1, 1, 0], '└'),
        ([1, 0, 1, 0], '┘'),
        ([0, 1, 1, 1], '├'),
        ([1, 0, 1, 1], '┤'),
        ([1, 1, 0, 1], '┬'),
        ([1, 1, 1, 0], '┴'),
        ([1, 1, 1, 1], '┼'),
        ([2, 2, 0, 0], '═'),
        ([0, 0, 2, 2], '║'),
        ([0, 2, 0, 2], '╔'),
        ([2, 0, 0, 2], '╗'),
        ([0, 2, 2, 0], '╚'),
        ([2, 0, 2, 0], '╝'),
        ([0, 2, 2, 2], '╠'),
        ([2, 0, 2, 2], '╣'),
        ([2, 2, 0, 2], '╦'),
        ([2, 2, 2, 0], '╩'),
        ([2, 2, 2, 2], '╬'),
    ];
    known.iter().find(|(of, _)| *of == arms).map(|(_, character)| *character)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEIGHT: usize = 16;

    /// A font whose 'A' is a ramp and whose 'B' is its mirror image.
    fn font() -> Font {
        let mut bytes = vec![0x36, 0x04, 0, HEIGHT as u8];
        for glyph in 0..256 {
            bytes.extend((0..HEIGHT).map(|line| match glyph {
                65 => 0x80_u8 >> (line / 2),
                66 => 0x01 << (line / 2),
                _ => 0,
            }));
        }
        for glyph in 0..256_u16 {
            bytes.extend(if glyph == 65 || glyph == 66 { glyph } else { 32 }.to_le_bytes());
            bytes.extend(0xFFFF_u16.to_le_bytes());
        }
        Font::from_psf(&bytes).unwrap()
    }

    fn picture(cells: &[[u8; HEIGHT]], ink: Colour, ground: Colour) -> Picture {
        let mut bytes = format!("P6\n{} {HEIGHT}\n255\n", cells.len() * WIDTH).into_bytes();
        for line in 0..HEIGHT {
            for cell in cells {
                for bit in (0..WIDTH).rev() {
                    bytes.extend(if cell[line] >> bit & 1 != 0 { ink } else { ground });
                }
            }
        }
        Picture::from_ppm(&bytes).unwrap()
    }

    fn glyph(character: char) -> [u8; HEIGHT] {
        std::array::from_fn(|line| match character {
            'A' => 0x80 >> (line / 2),
            'B' => 0x01 << (line / 2),
            _ => 0,
        })
    }

    const WHITE: Colour = [255; 3];
    const BLUE: Colour = [0, 0, 170];

    #[test]
    fn glyphs_are_read_in_any_two_colours() {
        let cells = ['B', 'A', ' '].map(glyph);
        assert_eq!(font().read(&picture(&cells, WHITE, BLUE), 3, 1), ["BA"]);
        assert_eq!(font().read(&picture(&cells, BLUE, WHITE), 3, 1), ["BA"]);
    }

    #[test]
    fn a_wrong_pixel_makes_a_cell_unreadable() {
        let mut cell = glyph('A');
        cell[5] ^= 0x10;
        assert_eq!(font().read(&picture(&[glyph('B'), cell], WHITE, BLUE), 2, 1), ["B\u{FFFD}"]);
    }

    #[test]
    fn a_third_colour_makes_a_cell_unreadable() {
        let mut picture = picture(&[glyph('A')], WHITE, BLUE);
        picture.pixels[WIDTH] = [1, 2, 3];
        picture.pixels[WIDTH + 1] = WHITE;
        assert_eq!(font().read(&picture, 1, 1), ["\u{FFFD}"]);
    }

    #[test]
    fn a_cursor_does_not_hide_what_it_stands_on() {
        let mut cell = glyph(' ');
        cell[13] = 0xFF;
        cell[14] = 0xFF;
        assert_eq!(font().read(&picture(&[glyph('A'), cell], WHITE, BLUE), 2, 1), ["A"]);
    }

    #[test]
    fn lines_of_boxes_are_told_by_where_they_leave_the_cell() {
        let mut corner = [0; HEIGHT];
        corner[7] = 0x1F;
        corner[8..].fill(0x18);
        let mut double = [0; HEIGHT];
        (double[6], double[8]) = (0xFF, 0xFF);
        assert_eq!(font().read(&picture(&[corner, double], WHITE, BLUE), 2, 1), ["┌═"]);
    }
}
