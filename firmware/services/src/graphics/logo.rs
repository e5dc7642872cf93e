//! The firmware's logo: a mark, a domain inside another, and the name. Drawn from a few strokes when it is shown.

use alloc::vec::Vec;

use super::{Display, PIXEL};
use crate::console::font;

/// Lines of the logo.
pub const HEIGHT: usize = 64;
/// Pixels in a line of the logo.
pub const WIDTH: usize = MARK + GAP + name_width();
/// Pixels of the mark, which is a square.
const MARK: usize = HEIGHT;
const GAP: usize = 22;
/// Pixels between letters.
const SPACE: usize = 11;

const NAME_COLOUR: u32 = 0xE8_E8E8;
const OUTER_COLOUR: u32 = 0x2A_A198;
const INNER_COLOUR: u32 = 0xE8_8A2E;

/// Lines at the middle of the screen that text may be on: nothing is drawn there.
const TEXT_LINES: usize = 25 * font::HEIGHT;

/// Where the logo goes: in the middle above the text. `None` if there is no room.
pub fn place(width: usize, height: usize) -> Option<(usize, usize)> {
    let above = height.checked_sub(TEXT_LINES)? / 2;
    let y = above.checked_sub(HEIGHT)? / 2;
    let x = width.checked_sub(WIDTH)? / 2;
    // Not without some space around.
    (y >= HEIGHT / 4).then_some((x, y))
}

/// Draws the logo.
pub fn draw(display: &mut Display, pixels: &[u8], (x, y): (usize, usize)) {
    display.touch();
    for (row, line) in pixels.chunks_exact(WIDTH * PIXEL).enumerate() {
        display.write(x, y + row, line);
    }
}

/// The pixels of the logo, [`PIXEL`] bytes each, on black.
pub fn pixels() -> Vec<u8> {
    let mut pixels = alloc::vec![0; WIDTH * HEIGHT * PIXEL];
    let mut put = |x: usize, y: usize, colour: u32, coverage: i32| {
        let at = (y * WIDTH + x) * PIXEL;
        for (byte, value) in pixels[at..at + 3].iter_mut().zip(colour.to_le_bytes()) {
            let shade = i32::from(value) * coverage / FULL;
            *byte = (*byte).max(shade as u8);
        }
    };
    for y in 0..HEIGHT {
        for x in 0..MARK {
            let [outer, hole, inner] = [OUTER, HOLE, INNER].map(|square| square.coverage(x, y));
            put(x, y, INNER_COLOUR, inner);
            if inner == 0 {
                put(x, y, OUTER_COLOUR, outer - hole.min(outer));
            }
        }
    }
    let mut left = MARK + GAP;
    for letter in NAME {
        for y in 0..HEIGHT {
            // Strokes begin at 0 and end at the width, and are as thick as they are on both sides of that.
            for x in 0..letter.width + 2 * MARGIN {
                let at = (x as i32 - MARGIN as i32, y as i32);
                let coverage = letter.strokes.iter().map(|stroke| stroke.coverage(at)).max().unwrap_or(0);
                if coverage != 0 {
                    put((left + x).saturating_sub(MARGIN).min(WIDTH - 1), y, NAME_COLOUR, coverage);
                }
            }
        }
        left += letter.width + SPACE;
    }
    pixels
}

/// Units of a pixel.
const UNIT: i32 = 4;
/// A pixel that is covered.
const FULL: i32 = 255;
/// Half the thickness of a stroke.
const HALF: i32 = 11;
/// Pixels that a stroke is thick beyond where it ends.
const MARGIN: usize = 4;

/// A line, or quadrants of a circle, in pixels.
enum Stroke {
    Line((i32, i32), (i32, i32)),
    /// Centre, radius, and whether the quadrants are there: upper left, upper right, lower left, lower right.
    Arc((i32, i32), i32, [bool; 4]),
}

struct Letter {
    width: usize,
    strokes: &'static [Stroke],
}

use Stroke::{Arc, Line};

const ALL: [bool; 4] = [true; 4];
const UPPER: [bool; 4] = [true, true, false, false];

/// "ovmf-xen". Small letters reach from line 27 to 53.
const NAME: [Letter; 8] = [
    Letter { width: 26, strokes: &[Arc((13, 40), 13, ALL)] },
    Letter { width: 24, strokes: &[Line((0, 27), (12, 53)), Line((12, 53), (24, 27))] },
    Letter {
        width: 36,
        strokes: &[
            Line((0, 27), (0, 53)),
            Arc((9, 36), 9, UPPER),
            Line((18, 36), (18, 53)),
            Arc((27, 36), 9, UPPER),
            Line((36, 36), (36, 53)),
        ],
    },
    Letter {
        width: 16,
        strokes: &[
            Line((5, 22), (5, 53)),
            Arc((14, 22), 9, [true, false, false, false]),
            Line((14, 13), (16, 13)),
            Line((0, 29), (14, 29)),
        ],
    },
    Letter { width: 12, strokes: &[Line((0, 41), (12, 41))] },
    Letter { width: 22, strokes: &[Line((0, 27), (22, 53)), Line((22, 27), (0, 53))] },
    Letter {
        width: 26,
        strokes: &[
            Arc((13, 40), 13, [true, true, true, false]),
            Line((0, 40), (26, 40)),
            Line((13, 53), (19, 52)),
            Line((19, 52), (23, 49)),
        ],
    },
    Letter { width: 22, strokes: &[Line((0, 27), (0, 53)), Arc((11, 38), 11, UPPER), Line((22, 38), (22, 53))] },
];

const fn name_width() -> usize {
    let (mut width, mut letter) = (0, 0);
    while letter < NAME.len() {
        width += NAME[letter].width + SPACE;
        letter += 1;
    }
    width - SPACE + MARGIN
}

impl Stroke {
    /// How much of a pixel is covered.
    fn coverage(&self, (x, y): (i32, i32)) -> i32 {
        let scaled = |(x, y): (i32, i32)| (x * UNIT, y * UNIT);
        let (x, y) = scaled((x, y));
        match *self {
            Line(from, to) => {
                let (from, to) = (scaled(from), scaled(to));
                let (dx, dy) = (i64::from(to.0 - from.0), i64::from(to.1 - from.1));
                let (px, py) = (i64::from(x - from.0), i64::from(y - from.1));
                let (length, along) = (dx * dx + dy * dy, px * dx + py * dy);
                // The square of the distance: to an end, or to the line.
                let distance = if along <= 0 {
                    px * px + py * py
                } else if along >= length {
                    (px - dx) * (px - dx) + (py - dy) * (py - dy)
                } else {
                    let across = px * dy - py * dx;
                    across * across / length
                };
                within(distance as i32, HALF)
            }
            Arc(centre, radius, quadrants) => {
                let centre = scaled(centre);
                let (dx, dy) = (x - centre.0, y - centre.1);
                let there = quadrants[usize::from(dy > 0) * 2 + usize::from(dx > 0)];
                let (distance, radius) = (dx * dx + dy * dy, radius * UNIT);
                if there { within(distance, radius + HALF).min(FULL - within(distance, radius - HALF)) } else { 0 }
            }
        }
    }
}

/// How much of a pixel, whose distance has this square, is nearer than `radius`: all or nothing, but for half a pixel around.
const fn within(distance: i32, radius: i32) -> i32 {
    let (near, far) = ((radius - UNIT / 2) * (radius - UNIT / 2), (radius + UNIT / 2) * (radius + UNIT / 2));
    if distance <= near {
        FULL
    } else if distance >= far {
        0
    } else {
        FULL * (far - distance) / (far - near)
    }
}

/// A square with round corners.
struct Square {
    start: i32,
    size: i32,
    radius: i32,
}

const OUTER: Square = Square { start: 5 * UNIT, size: 45 * UNIT, radius: 11 * UNIT };
const HOLE: Square = Square { start: 10 * UNIT, size: 35 * UNIT, radius: 6 * UNIT };
const INNER: Square = Square { start: 29 * UNIT, size: 30 * UNIT, radius: 9 * UNIT };

impl Square {
    /// How much of a pixel is covered.
    const fn coverage(&self, x: usize, y: usize) -> i32 {
        // How far it is from the square that the centres of the corners span.
        let (dx, dy) = (self.beyond(x as i32 * UNIT), self.beyond(y as i32 * UNIT));
        within(dx * dx + dy * dy, self.radius)
    }

    const fn beyond(&self, at: i32) -> i32 {
        let (low, high) = (self.start + self.radius, self.start + self.size - self.radius);
        if at < low {
            low - at
        } else if at > high {
            at - high
        } else {
            0
        }
    }
}

/// The logo as a bitmap file (24 bits per pixel, lines from below).
pub fn bitmap(pixels: &[u8]) -> Vec<u8> {
    const FILE_HEADER: usize = 14;
    const INFO_HEADER: usize = 40;
    const START: usize = FILE_HEADER + INFO_HEADER;
    let line = (WIDTH * 3).next_multiple_of(4);
    let size = START + line * HEIGHT;
    let mut file = Vec::with_capacity(size);
    file.extend_from_slice(b"BM");
    for field in [size as u32, 0, START as u32, INFO_HEADER as u32, WIDTH as u32, HEIGHT as u32] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    // Planes, bits per pixel.
    for field in [1u16, 24] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.resize(START, 0);
    for (number, pixels) in pixels.chunks_exact(WIDTH * PIXEL).rev().enumerate() {
        for pixel in pixels.chunks_exact(PIXEL) {
            file.extend_from_slice(&pixel[..3]);
        }
        file.resize(START + line * (number + 1), 0);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::super::testing::{display, picture, save};
    use super::super::{Mode, PixelFormat};
    use super::*;
    use crate::table::crc32;

    #[test]
    fn the_logo_looks_as_it_did() {
        let mut display = display(&[Mode::new(1280, 800, PixelFormat::Bgrx32)], 0);
        let pixels = pixels();
        draw(&mut display, &pixels, place(1280, 800).unwrap());
        save(&display, "logo");
        assert_eq!(crc32(&pixels), 0x47F2_F590, "{:#010x}", crc32(&pixels));
    }

    #[test]
    fn the_logo_is_in_the_middle_above_the_text() {
        assert_eq!(place(1280, 800), Some(((1280 - WIDTH) / 2, 68)));
        let (x, y) = place(1024, 768).unwrap();
        assert!(1024 - (x * 2 + WIDTH) <= 1 && y + HEIGHT < (768 - TEXT_LINES) / 2);
        assert_eq!(place(640, 480), None);
        assert_eq!(place(100, 800), None);
        assert_eq!(place(1280, 300), None);
    }

    #[test]
    fn strokes_have_soft_edges() {
        let line = Line((10, 10), (20, 10));
        let column: Vec<i32> = (5..16).map(|y| line.coverage((15, y))).collect();
        assert_eq!(column[2..9], column.iter().rev().copied().collect::<Vec<_>>()[2..9]);
        assert_eq!((column[5], column[0], line.coverage((25, 10))), (FULL, 0, 0));
        assert!((1..FULL).contains(&column[2]));
        let arc = Arc((20, 20), 10, UPPER);
        assert_eq!((arc.coverage((20, 10)), arc.coverage((20, 30)), arc.coverage((20, 20))), (FULL, 0, 0));
    }

    #[test]
    fn the_bitmap_holds_the_same_picture() {
        let pixels = pixels();
        let file = bitmap(&pixels);
        let word = |at: usize| u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]) as usize;
        assert_eq!((&file[..2], word(2), word(18), word(22)), (&b"BM"[..], file.len(), WIDTH, HEIGHT));
        let (start, line) = (word(10), (WIDTH * 3).next_multiple_of(4));
        for (x, y) in [(0, 0), (10, 32), (WIDTH - 20, 40), (40, 50)] {
            let at = start + (HEIGHT - 1 - y) * line + x * 3;
            assert_eq!(file[at..at + 3], pixels[(y * WIDTH + x) * PIXEL..][..3]);
        }
    }

    #[test]
    fn nothing_of_the_text_is_covered() {
        let mut display = display(&[Mode::new(1280, 800, PixelFormat::Bgrx32)], 0);
        draw(&mut display, &pixels(), place(1280, 800).unwrap());
        assert!(picture(&display)[1280 * 200..].iter().all(|pixel| *pixel == 0));
    }
}
