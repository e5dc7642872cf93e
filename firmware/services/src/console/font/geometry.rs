//! Glyphs that are geometry: box drawing, block elements, triangles. Made here, so that neighbours join without a gap and
//! single, heavy and double lines differ, which fonts with few glyphs save on.

use super::{Glyph, HEIGHT, WIDTH};

/// Kinds of lines.
const NONE: u8 = 0;
const LIGHT: u8 = 1;
const HEAVY: u8 = 2;
const DOUBLE: u8 = 3;

/// The lines of U+2500 to U+257F from the middle to the left, right, up and down, two bits each from bit 0 on, as the names of
/// the characters tell them; 0 for dashes, arcs and diagonals, which are the font's.
const ARMS: [u8; 128] = [
    0x05, 0x0A, 0x50, 0xA0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x44, 0x48, 0x84, 0x88, 0x41, 0x42, 0x81,
    0x82, 0x14, 0x18, 0x24, 0x28, 0x11, 0x12, 0x21, 0x22, 0x54, 0x58, 0x64, 0x94, 0xA4, 0x68, 0x98, 0xA8, 0x51, 0x52,
    0x61, 0x91, 0xA1, 0x62, 0x92, 0xA2, 0x45, 0x46, 0x49, 0x4A, 0x85, 0x86, 0x89, 0x8A, 0x15, 0x16, 0x19, 0x1A, 0x25,
    0x26, 0x29, 0x2A, 0x55, 0x56, 0x59, 0x5A, 0x65, 0x95, 0xA5, 0x66, 0x69, 0x96, 0x99, 0x6A, 0x9A, 0xA6, 0xA9, 0xAA,
    0x00, 0x00, 0x00, 0x00, 0x0F, 0xF0, 0x4C, 0xC4, 0xCC, 0x43, 0xC1, 0xC3, 0x1C, 0x34, 0x3C, 0x13, 0x31, 0x33, 0x5C,
    0xF4, 0xFC, 0x53, 0xF1, 0xF3, 0x4F, 0xC5, 0xCF, 0x1F, 0x35, 0x3F, 0x5F, 0xF5, 0xFF, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x01, 0x10, 0x04, 0x40, 0x02, 0x20, 0x08, 0x80, 0x09, 0x90, 0x06, 0x60,
];

/// Which columns or rows the lines cover along one axis: light ones all between the first pair, heavy ones all between the second,
/// double ones the two of the second.
struct Axis {
    light: (usize, usize),
    heavy: (usize, usize),
}

const COLUMNS: Axis = Axis { light: (3, 4), heavy: (2, 5) };
const ROWS: Axis = Axis { light: (7, 7), heavy: (6, 8) };

/// The glyph of a character that is geometry; `None` if it is the font's.
pub const fn glyph(code: u16) -> Option<Glyph> {
    match code {
        0x2500..=0x257F => match ARMS[code as usize - 0x2500] {
            0 => None,
            arms => Some(lines([arms & 3, arms >> 2 & 3, arms >> 4 & 3, arms >> 6])),
        },
        0x2580..=0x259F => Some(block(code)),
        0x25B2 => Some([0, 0, 0, 0, 0, 0x18, 0x18, 0x3C, 0x3C, 0x7E, 0x7E, 0xFF, 0, 0, 0, 0]),
        0x25BC => Some([0, 0, 0, 0, 0, 0xFF, 0x7E, 0x7E, 0x3C, 0x3C, 0x18, 0x18, 0, 0, 0, 0]),
        0x25B6 | 0x25BA => Some([0, 0, 0, 0, 0, 0xC0, 0xF0, 0xFC, 0xFF, 0xFC, 0xF0, 0xC0, 0, 0, 0, 0]),
        0x25C0 | 0x25C4 => Some([0, 0, 0, 0, 0, 0x03, 0x0F, 0x3F, 0xFF, 0x3F, 0x0F, 0x03, 0, 0, 0, 0]),
        _ => None,
    }
}

/// Lines from the middle to the left, right, up and down.
const fn lines([left, right, up, down]: [u8; 4]) -> Glyph {
    let mut glyph = [0; HEIGHT];
    let (mut line, mut column) = (0, 0);
    while line < HEIGHT {
        while column < WIDTH {
            let across = covers(column, line, (left, right), (up, down), &COLUMNS, &ROWS);
            let along = covers(line, column, (up, down), (left, right), &ROWS, &COLUMNS);
            if across || along {
                glyph[line] |= 0x80 >> column;
            }
            column += 1;
        }
        (line, column) = (line + 1, 0);
    }
    glyph
}

/// Whether one of two lines, which go from the middle to the start and to the end of an axis, covers a pixel that is at `at` along
/// that axis and at `beside` on the other. `sides` are the lines of the other axis.
const fn covers(at: usize, beside: usize, lines: (u8, u8), sides: (u8, u8), axis: &Axis, other: &Axis) -> bool {
    let through = lines.0 != NONE && lines.1 != NONE;
    let mut half = 0;
    while half < 2 {
        let is_end = half == 1;
        let kind = if is_end { lines.1 } else { lines.0 };
        let within = match kind {
            LIGHT => beside >= other.light.0 && beside <= other.light.1,
            HEAVY => beside >= other.heavy.0 && beside <= other.heavy.1,
            DOUBLE => beside == other.heavy.0 || beside == other.heavy.1,
            _ => false,
        };
        // Of a double line, the stroke on the side of the first of `sides` ends otherwise than the one on the other side.
        let sides = if kind == DOUBLE && beside == other.heavy.1 { (sides.1, sides.0) } else { sides };
        let ((far, near), (light_far, light_near)) = match is_end {
            true => (axis.heavy, axis.light),
            false => ((axis.heavy.1, axis.heavy.0), (axis.light.1, axis.light.0)),
        };
        let limit = match (kind, sides) {
            (DOUBLE, (DOUBLE, _)) => near,
            (DOUBLE, (NONE, DOUBLE)) => far,
            (LIGHT | HEAVY, (DOUBLE, DOUBLE)) if !through => near,
            (LIGHT | HEAVY, (HEAVY | DOUBLE, _) | (_, HEAVY | DOUBLE)) => far,
            (_, (NONE, NONE)) => light_near,
            _ => light_far,
        };
        if within && (if is_end { at >= limit } else { at <= limit }) {
            return true;
        }
        half += 1;
    }
    false
}

/// Quadrants of U+2596 to U+259F: upper left, upper right, lower left, lower right in bits 3 to 0.
const QUADRANTS: [u8; 10] = [0b0010, 0b0001, 0b1000, 0b1011, 0b1001, 0b1110, 0b1101, 0b0100, 0b0110, 0b0111];

/// A block element.
const fn block(code: u16) -> Glyph {
    let mut glyph = [0; HEIGHT];
    let mut line = 0;
    while line < HEIGHT {
        let lower = line >= HEIGHT / 2;
        glyph[line] = match code {
            0x2580 if !lower => 0xFF,
            // The lower eighths, up to the full block.
            0x2581..=0x2588 if line >= HEIGHT - (code as usize - 0x2580) * 2 => 0xFF,
            // The left eighths, from seven of them down.
            0x2589..=0x258F => 0xFF << (code - 0x2588),
            0x2590 => 0x0F,
            // A quarter, a half, three quarters of the pixels.
            0x2591 => [0x88, 0x22][line % 2],
            0x2592 => [0xAA, 0x55][line % 2],
            0x2593 => [0x77, 0xDD][line % 2],
            0x2594 if line < HEIGHT / 8 => 0xFF,
            0x2595 => 0x01,
            0x2596..=0x259F => {
                let halves = QUADRANTS[code as usize - 0x2596] >> if lower { 0 } else { 2 };
                (if halves & 2 != 0 { 0xF0 } else { 0 }) | (if halves & 1 != 0 { 0x0F } else { 0 })
            }
            _ => 0,
        };
        line += 1;
    }
    glyph
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn of(character: char) -> Glyph {
        glyph(character as u16).unwrap()
    }

    fn art(character: char) -> Vec<String> {
        let line = |bits: &u8| (0..8).map(|bit| if bits << bit & 0x80 != 0 { '#' } else { '.' }).collect();
        of(character)[4..11].iter().map(line).collect()
    }

    #[test]
    fn single_double_and_heavy_lines_join() {
        assert_eq!(art('┼'), ["...##...", "...##...", "...##...", "########", "...##...", "...##...", "...##..."]);
        assert_eq!(art('┌'), ["........", "........", "........", "...#####", "...##...", "...##...", "...##..."]);
        assert_eq!(art('┛'), ["..####..", "..####..", "######..", "######..", "######..", "........", "........"]);
        assert_eq!(art('╔'), ["........", "........", "..######", "..#.....", "..#..###", "..#..#..", "..#..#.."]);
        assert_eq!(art('╬'), ["..#..#..", "..#..#..", "###..###", "........", "###..###", "..#..#..", "..#..#.."]);
        assert_eq!(art('╣'), ["..#..#..", "..#..#..", "###..#..", ".....#..", "###..#..", "..#..#..", "..#..#.."]);
        assert_eq!(art('╦'), ["........", "........", "########", "........", "###..###", "..#..#..", "..#..#.."]);
        assert_eq!(art('╤'), ["........", "........", "########", "........", "########", "...##...", "...##..."]);
        assert_eq!(art('╪'), ["...##...", "...##...", "########", "...##...", "########", "...##...", "...##..."]);
        assert_eq!(art('╟'), ["..#..#..", "..#..#..", "..#..#..", "..#..###", "..#..#..", "..#..#..", "..#..#.."]);
        assert_eq!(art('╒'), ["........", "........", "...#####", "...##...", "...#####", "...##...", "...##..."]);
        assert_eq!(art('╜'), ["..#..#..", "..#..#..", "..#..#..", "######..", "........", "........", "........"]);
        assert_eq!(art('┡'), ["..####..", "..####..", "..######", "..######", "..######", "...##...", "...##..."]);
        assert_eq!(art('╴'), ["........", "........", "........", "####....", "........", "........", "........"]);
    }

    /// What a line looks like at the edge of the cell depends on its kind alone, so that neighbours join.
    #[test]
    fn lines_of_a_kind_look_the_same_at_the_edge() {
        let (rows, columns) = ([0, 1 << 7, 0b111 << 6, 0b101 << 6], [0, 0x18, 0x3C, 0x24]);
        for (code, arms) in (0x2500..=0x257F).zip(ARMS).filter(|(_, arms)| *arms != 0) {
            let glyph = glyph(code).unwrap();
            let column = |bit: u8| {
                (0..HEIGHT).filter(|line| glyph[*line] >> bit & 1 != 0).fold(0, |bits, line| bits | 1 << line)
            };
            let kind = |shift: u8| usize::from(arms >> shift & 3);
            assert_eq!((column(7), column(0)), (rows[kind(0)], rows[kind(2)]), "U+{code:04X}");
            assert_eq!((glyph[0], glyph[HEIGHT - 1]), (columns[kind(4)], columns[kind(6)]), "U+{code:04X}");
        }
    }

    #[test]
    fn block_elements_are_exact() {
        let glyph = of;
        assert_eq!(glyph('█'), [0xFF; HEIGHT]);
        assert_eq!((glyph('▀')[7], glyph('▀')[8]), (0xFF, 0));
        assert_eq!((glyph('▄')[7], glyph('▄')[8]), (0, 0xFF));
        assert_eq!((glyph('▁')[13], glyph('▁')[14]), (0, 0xFF));
        assert_eq!((glyph('▇')[1], glyph('▇')[2]), (0, 0xFF));
        assert_eq!((glyph('▉')[0], glyph('▌')[0], glyph('▏')[0], glyph('▐')[0]), (0xFE, 0xF0, 0x80, 0x0F));
        assert_eq!((glyph('▔')[1], glyph('▔')[2], glyph('▕')[5]), (0xFF, 0, 1));
        assert_eq!((glyph('▚')[0], glyph('▚')[15]), (0xF0, 0x0F));
        assert_eq!((glyph('▟')[0], glyph('▟')[15]), (0x0F, 0xFF));
        assert_eq!((glyph('▖')[0], glyph('▖')[15]), (0, 0xF0));
        let pixels = |character| glyph(character).iter().map(|line| line.count_ones()).sum::<u32>();
        assert_eq!((pixels('░'), pixels('▒'), pixels('▓')), (32, 64, 96));
    }

    #[test]
    fn triangles_point_where_they_should() {
        let mirrored = |glyph: Glyph| glyph.map(u8::reverse_bits);
        assert_eq!(mirrored(of('►')), of('◄'));
        assert_eq!(mirrored(of('▲')), of('▲'));
        assert!(of('▲').iter().zip(&of('▲')[1..12]).all(|(above, below)| above.count_ones() <= below.count_ones()));
        assert_eq!((of('▼')[5], of('▲')[11]), (0xFF, 0xFF));
    }
}
