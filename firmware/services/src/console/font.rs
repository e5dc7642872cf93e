//! The font of the graphical console: 8 × 16 pixels.
//!
//! The glyphs are Spleen's, Copyright (c) 2018-2024 Frederic Cambus, BSD-2-Clause: Latin, Greek, Cyrillic, arrows, symbols. What
//! is geometry is made in [`geometry`]. Everything is laid out at build time: a sorted list of characters, and their glyphs in
//! the same order.

use spleen_font::FONT_8X16 as PSF;

mod geometry;

/// Pixels in a line of a glyph.
pub const WIDTH: usize = 8;
/// Lines of a glyph.
pub const HEIGHT: usize = 16;
/// A glyph: lines from above, in each the leftmost pixel in the highest bit.
pub type Glyph = [u8; HEIGHT];

/// What is shown where there is no glyph.
pub const REPLACEMENT: char = '\u{FFFD}';

/// Number of a glyph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Index(u16);

impl Index {
    /// Its place in the font.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The glyph at a place; that of the last place if there is no such place.
    pub fn glyph(number: u16) -> &'static Glyph {
        &GLYPHS[usize::from(number).min(COUNT - 1)]
    }
}

/// The glyph for a character; `None` if there is none.
pub fn find(character: char) -> Option<Index> {
    let code = u16::try_from(u32::from(character)).ok()?;
    CODES.binary_search(&code).ok().map(|index| Index(index as u16))
}

/// Header of a PSF 1 font: magic, mode, bytes of a glyph. Behind the glyphs follow, for each of them, the characters that it
/// stands for, and an end mark.
const PSF_HEADER: usize = 4;
const PSF_GLYPHS: usize = if PSF[2] & 1 != 0 { 512 } else { 256 };
const PSF_CHARACTERS: usize = PSF_HEADER + PSF_GLYPHS * HEIGHT;
const PSF_END: u16 = 0xFFFF;
const PSF_SEQUENCE: u16 = 0xFFFE;

/// What the font lacks, by what looks the same: the em dash.
const ALIASES: [(u16, u16); 1] = [(0x2014, 0x2500)];
/// What the font lacks in part, and is geometry: block elements, and triangles that UEFI demands (UEFI 2.10, related definitions
/// of EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL).
const GEOMETRY: [(u16, u16); 3] = [(0x2580, 0x259F), (0x25BA, 0x25BA), (0x25C4, 0x25C4)];

/// More than any PSF 1 font of this size has characters.
const ROOM: usize = 1024;
const COUNT: usize = table::<ROOM>().0;
const CODES: [u16; COUNT] = table::<COUNT>().1;
static GLYPHS: [Glyph; COUNT] = glyphs();

/// Whether a character of the font is wanted: not circled letters and digits.
const fn is_wanted(code: u16) -> bool {
    !matches!(code, 0x2460..=0x24FF)
}

const fn psf_word(at: usize) -> u16 {
    PSF[at] as u16 | (PSF[at + 1] as u16) << 8
}

/// How many characters there are, and all of them in order.
const fn table<const ROOM: usize>() -> (usize, [u16; ROOM]) {
    assert!(PSF[0] == 0x36 && PSF[1] == 0x04 && PSF[3] as usize == HEIGHT, "not the font that was expected");
    let (mut codes, mut count) = ([0; ROOM], 0);
    let (mut at, mut sequence) = (PSF_CHARACTERS, false);
    while at + 1 < PSF.len() {
        match psf_word(at) {
            PSF_END => sequence = false,
            PSF_SEQUENCE => sequence = true,
            code => {
                if !sequence && is_wanted(code) {
                    count = insert(&mut codes, count, code);
                }
            }
        }
        at += 2;
    }
    let mut alias = 0;
    while alias < ALIASES.len() {
        count = insert(&mut codes, count, ALIASES[alias].0);
        alias += 1;
    }
    let mut range = 0;
    while range < GEOMETRY.len() {
        let (mut code, last) = GEOMETRY[range];
        while code <= last {
            count = insert(&mut codes, count, code);
            code += 1;
        }
        range += 1;
    }
    (count, codes)
}

/// Puts `code` where it belongs among the first `count`, unless it is there. Returns how many there are then.
const fn insert<const ROOM: usize>(codes: &mut [u16; ROOM], count: usize, code: u16) -> usize {
    let mut at = count;
    while at > 0 && codes[at - 1] > code {
        at -= 1;
    }
    if at > 0 && codes[at - 1] == code {
        return count;
    }
    let mut last = count;
    while last > at {
        codes[last] = codes[last - 1];
        last -= 1;
    }
    codes[at] = code;
    count + 1
}

const fn glyphs() -> [Glyph; COUNT] {
    let (mut glyphs, mut done) = ([[0; HEIGHT]; COUNT], [false; COUNT]);
    let (mut at, mut sequence, mut number) = (PSF_CHARACTERS, false, 0);
    while at + 1 < PSF.len() {
        match psf_word(at) {
            PSF_END => (sequence, number) = (false, number + 1),
            PSF_SEQUENCE => sequence = true,
            code => {
                // The first glyph of a character is the one.
                if !sequence && is_wanted(code) && !done[place(code)] {
                    (glyphs[place(code)], done[place(code)]) = (psf_glyph(number), true);
                }
            }
        }
        at += 2;
    }
    let mut place = 0;
    while place < COUNT {
        if let Some(glyph) = geometry::glyph(CODES[place]) {
            glyphs[place] = glyph;
        }
        place += 1;
    }
    let mut alias = 0;
    while alias < ALIASES.len() {
        glyphs[self::place(ALIASES[alias].0)] = glyphs[self::place(ALIASES[alias].1)];
        alias += 1;
    }
    glyphs
}

const fn psf_glyph(number: usize) -> Glyph {
    let mut glyph = [0; HEIGHT];
    let mut line = 0;
    while line < HEIGHT {
        glyph[line] = PSF[PSF_HEADER + number * HEIGHT + line];
        line += 1;
    }
    glyph
}

/// Where `code`, which is there, is among the characters.
const fn place(code: u16) -> usize {
    let (mut low, mut high) = (0, COUNT);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if CODES[middle] <= code {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn art(character: char) -> Vec<String> {
        let glyph = Index::glyph(find(character).unwrap().number());
        let line = |bits: &u8| (0..8).map(|bit| if bits << bit & 0x80 != 0 { '#' } else { '.' }).collect();
        glyph.iter().map(line).collect()
    }

    #[test]
    fn characters_are_in_order_and_each_once() {
        assert!(CODES.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn everything_that_uefi_and_consoles_need_is_there() {
        let ranges = [0x20..=0x7E, 0xA0..=0xFF, 0x2190..=0x2195, 0x2500..=0x259F];
        let uefi = [0x25B2, 0x25BA, 0x25BC, 0x25C4];
        let others = "…–—‘’“”•€☺♥√∞≤≥■●◆○".chars().map(u32::from);
        for code in ranges.into_iter().flatten().chain(uefi).chain(others) {
            let character = char::from_u32(code).unwrap();
            assert!(find(character).is_some(), "U+{code:04X} {character}");
        }
        assert!(find(REPLACEMENT).is_some());
        assert!(find('日').is_none() && find('😀').is_none());
    }

    #[test]
    fn a_letter_is_what_it_should_be() {
        assert_eq!(
            art('A'),
            [
                "........", "........", ".#####..", "##...##.", "##...##.", "##...##.", "#######.", "##...##.",
                "##...##.", "##...##.", "##...##.", "##...##.", "........", "........", "........", "........"
            ]
        );
    }

    #[test]
    fn what_is_missing_in_the_font_looks_like_what_is_there() {
        assert_eq!(art('—'), art('─'));
    }
}
