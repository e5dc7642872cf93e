//! Block transfers (UEFI 2.10 §12.9.3, EFI_GRAPHICS_OUTPUT_PROTOCOL.Blt()).

use super::{Display, PIXEL, Rectangle};

/// Where a transfer takes place: the pixels of the caller's buffer, the screen, or both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// Upper left corner of what is read.
    pub source: (usize, usize),
    /// Upper left corner of what is written.
    pub target: (usize, usize),
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
}

impl Area {
    fn source(&self) -> Rectangle {
        let (x, y) = self.source;
        Rectangle { x, y, width: self.width, height: self.height }
    }

    fn target(&self) -> Rectangle {
        let (x, y) = self.target;
        Rectangle { x, y, width: self.width, height: self.height }
    }
}

/// The caller's pixels.
#[derive(Debug)]
pub struct Buffer<B> {
    bytes: B,
    /// Bytes from one line to the next.
    delta: usize,
}

/// The call makes no sense: nothing to transfer, or not all of it on the screen or in the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidArea;

/// Bytes from one line to the next in a buffer for which the caller gave `delta`: 0 means that the lines have no gap.
pub const fn line_length(delta: usize, width: usize) -> Option<usize> {
    if delta == 0 { width.checked_mul(PIXEL) } else { Some(delta) }
}

/// How long a buffer must be that has `width` × `height` pixels at (`x`, `y`); `None` if there is no such buffer, or no pixel.
pub fn buffer_length((x, y): (usize, usize), width: usize, height: usize, delta: usize) -> Option<usize> {
    let lines = y.checked_add(height.checked_sub(1)?)?.checked_mul(delta)?;
    if width == 0 {
        return None;
    }
    let length = x.checked_add(width)?.checked_mul(PIXEL)?.checked_add(lines)?;
    isize::try_from(length).is_ok().then_some(length)
}

impl<B: AsRef<[u8]>> Buffer<B> {
    /// A buffer whose lines are `delta` bytes apart; 0 means that lines of `width` pixels have no gap.
    pub fn new(bytes: B, delta: usize, width: usize) -> Result<Self, InvalidArea> {
        Ok(Self { bytes, delta: line_length(delta, width).ok_or(InvalidArea)? })
    }

    /// The bytes of line `row` of an area at `at`.
    fn line(&self, (x, y): (usize, usize), row: usize, width: usize) -> core::ops::Range<usize> {
        // Checked by `holds`.
        let start = (y + row) * self.delta + x * PIXEL;
        start..start + width * PIXEL
    }

    fn holds(&self, at: (usize, usize), area: &Area) -> Result<(), InvalidArea> {
        let needed = buffer_length(at, area.width, area.height, self.delta).ok_or(InvalidArea)?;
        if needed <= self.bytes.as_ref().len() { Ok(()) } else { Err(InvalidArea) }
    }
}

/// EfiBltVideoFill: one pixel over all of the target.
pub fn fill(display: &mut Display, area: &Area, pixel: u32) -> Result<(), InvalidArea> {
    on_screen(display, area.target())?;
    display.touch();
    display.fill(area.target(), pixel);
    Ok(())
}

/// EfiBltVideoToBltBuffer: from the screen into a buffer.
pub fn to_buffer(display: &mut Display, area: &Area, buffer: Buffer<&mut [u8]>) -> Result<(), InvalidArea> {
    on_screen(display, area.source())?;
    buffer.holds(area.target, area)?;
    let (x, y) = area.source;
    for row in 0..area.height {
        let line = buffer.line(area.target, row, area.width);
        display.read(x, y + row, &mut buffer.bytes[line]);
    }
    Ok(())
}

/// EfiBltBufferToVideo: from a buffer to the screen.
pub fn to_video(display: &mut Display, area: &Area, buffer: &Buffer<&[u8]>) -> Result<(), InvalidArea> {
    on_screen(display, area.target())?;
    buffer.holds(area.source, area)?;
    display.touch();
    let (x, y) = area.target;
    for row in 0..area.height {
        display.write(x, y + row, &buffer.bytes[buffer.line(area.source, row, area.width)]);
    }
    Ok(())
}

/// EfiBltVideoToVideo: from the screen to the screen; the two may overlap.
pub fn within_video(display: &mut Display, area: &Area) -> Result<(), InvalidArea> {
    on_screen(display, area.source())?;
    on_screen(display, area.target())?;
    display.touch();
    let (x, y) = area.target;
    display.copy(area.source(), x, y);
    Ok(())
}

fn on_screen(display: &Display, area: Rectangle) -> Result<(), InvalidArea> {
    let mode = display.mode();
    if area.is_within(mode.width, mode.height) { Ok(()) } else { Err(InvalidArea) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{display, noise, picture};
    use super::super::{Mode, PixelFormat};
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const WIDTH: usize = 7;
    const HEIGHT: usize = 5;
    const MODES: [Mode; 3] = [
        Mode::new(WIDTH, HEIGHT, PixelFormat::Bgrx32),
        Mode { width: WIDTH, height: HEIGHT, stride: 9, format: PixelFormat::Bgrx32 },
        Mode { width: WIDTH, height: HEIGHT, stride: 8, format: PixelFormat::Bgr24 },
    ];

    /// A display with noise on it.
    fn noisy(mode: Mode) -> Display {
        let mut display = display(&[mode], 0);
        for (y, line) in noise(WIDTH, HEIGHT, 1).chunks(WIDTH * PIXEL).enumerate() {
            display.write(0, y, line);
        }
        display
    }

    /// All areas with all ways to lie on a small screen and partly off it.
    fn areas() -> Vec<Area> {
        let mut areas = Vec::new();
        for source in [(0, 0), (2, 1), (6, 4), (7, 0), (0, 5), (usize::MAX, 0)] {
            for target in [(0, 0), (1, 2), (6, 4), (7, 4), (0, usize::MAX)] {
                for (width, height) in [(1, 1), (3, 2), (5, 3), (7, 5), (8, 1), (1, 6), (0, 1), (1, 0), (usize::MAX, 2)]
                {
                    areas.push(Area { source, target, width, height });
                }
            }
        }
        areas
    }

    fn fits((x, y): (usize, usize), area: &Area, width: usize, height: usize) -> bool {
        let end = |start: usize, length: usize| start.saturating_add(length);
        area.width > 0 && area.height > 0 && end(x, area.width) <= width && end(y, area.height) <= height
    }

    /// The pixels of an area, one after the other, with the two places of each.
    fn places(area: &Area) -> impl Iterator<Item = ((usize, usize), (usize, usize))> {
        let (source, target, width) = (area.source, area.target, area.width);
        let at = |corner: (usize, usize), x, y| (corner.0.wrapping_add(x), corner.1.wrapping_add(y));
        (0..area.height).flat_map(move |y| (0..width).map(move |x| (at(source, x, y), at(target, x, y))))
    }

    #[test]
    fn filling_changes_the_target_and_nothing_else() {
        for (mode, area) in MODES.iter().flat_map(|mode| areas().into_iter().map(move |area| (*mode, area))) {
            let mut display = noisy(mode);
            let mut expected = picture(&display);
            let allowed = fits(area.target, &area, WIDTH, HEIGHT);
            assert_eq!(fill(&mut display, &area, 0x0012_3456).is_ok(), allowed, "{area:?}");
            if allowed {
                places(&area).for_each(|(_, (x, y))| expected[y * WIDTH + x] = 0x0012_3456);
            }
            assert_eq!(picture(&display), expected, "{mode:?} {area:?}");
        }
    }

    #[test]
    fn a_copy_on_the_screen_takes_the_pixels_as_they_were() {
        for (mode, area) in MODES.iter().flat_map(|mode| areas().into_iter().map(move |area| (*mode, area))) {
            let mut display = noisy(mode);
            let before = picture(&display);
            let mut expected = before.clone();
            let allowed = fits(area.source, &area, WIDTH, HEIGHT) && fits(area.target, &area, WIDTH, HEIGHT);
            assert_eq!(within_video(&mut display, &area).is_ok(), allowed, "{area:?}");
            if allowed {
                places(&area).for_each(|(from, to)| expected[to.1 * WIDTH + to.0] = before[from.1 * WIDTH + from.0]);
            }
            assert_eq!(picture(&display), expected, "{mode:?} {area:?}");
        }
    }

    /// Lines of a buffer of 8 × 6 pixels with a gap of 5 bytes.
    const DELTA: usize = 8 * PIXEL + 5;

    fn fits_buffer(at: (usize, usize), area: &Area, delta: usize, length: usize) -> bool {
        buffer_length(at, area.width, area.height, delta).is_some_and(|needed| needed <= length)
    }

    #[test]
    fn a_buffer_is_written_to_the_screen() {
        let content = noise(DELTA, 6, 2)[..DELTA * 6].to_vec();
        for (mode, area) in MODES.iter().flat_map(|mode| areas().into_iter().map(move |area| (*mode, area))) {
            let mut display = noisy(mode);
            let mut expected = picture(&display);
            let allowed =
                fits(area.target, &area, WIDTH, HEIGHT) && fits_buffer(area.source, &area, DELTA, content.len());
            let buffer = Buffer::new(&content[..], DELTA, area.width).unwrap();
            assert_eq!(to_video(&mut display, &area, &buffer).is_ok(), allowed, "{area:?}");
            if allowed {
                for (from, to) in places(&area) {
                    let at = from.1 * DELTA + from.0 * PIXEL;
                    expected[to.1 * WIDTH + to.0] =
                        u32::from_le_bytes([content[at], content[at + 1], content[at + 2], 0]);
                }
            }
            assert_eq!(picture(&display), expected, "{mode:?} {area:?}");
        }
    }

    #[test]
    fn the_screen_is_read_into_a_buffer() {
        for (mode, area) in MODES.iter().flat_map(|mode| areas().into_iter().map(move |area| (*mode, area))) {
            let mut display = noisy(mode);
            let shown = picture(&display);
            let mut content = vec![0x77; DELTA * 6];
            let mut expected = content.clone();
            let allowed =
                fits(area.source, &area, WIDTH, HEIGHT) && fits_buffer(area.target, &area, DELTA, content.len());
            let buffer = Buffer::new(&mut content[..], DELTA, area.width).unwrap();
            assert_eq!(to_buffer(&mut display, &area, buffer).is_ok(), allowed, "{area:?}");
            if allowed {
                for (from, to) in places(&area) {
                    let at = to.1 * DELTA + to.0 * PIXEL;
                    expected[at..at + 4].copy_from_slice(&shown[from.1 * WIDTH + from.0].to_le_bytes());
                }
            }
            assert_eq!(content, expected, "{mode:?} {area:?}");
        }
    }

    #[test]
    fn a_delta_of_zero_means_lines_without_a_gap() {
        assert_eq!(line_length(0, 3), Some(12));
        assert_eq!(line_length(20, 3), Some(20));
        assert_eq!(line_length(0, usize::MAX), None);
    }

    #[test]
    fn the_length_of_a_buffer_is_that_of_its_last_pixel() {
        assert_eq!(buffer_length((0, 0), 3, 2, 12), Some(24));
        assert_eq!(buffer_length((1, 2), 3, 2, 100), Some(316));
        for (at, width, height, delta) in [
            ((0, 0), 0, 1, 4),
            ((0, 0), 1, 0, 4),
            ((usize::MAX, 0), 1, 1, 4),
            ((0, usize::MAX), 1, 1, 4),
            ((0, 2), 1, 1, usize::MAX),
            ((0, 0), usize::MAX / 8, 2, 4),
            ((0, 1), 1, 1, isize::MAX as usize),
        ] {
            assert_eq!(buffer_length(at, width, height, delta), None);
        }
    }

    #[test]
    fn drawing_is_noted_and_reading_is_not() {
        let mut display = noisy(MODES[0]);
        let before = display.foreign();
        let area = Area { source: (0, 0), target: (0, 0), width: 1, height: 1 };
        to_buffer(&mut display, &area, Buffer::new(&mut [0; 4][..], 0, 1).unwrap()).unwrap();
        assert_eq!(display.foreign(), before);
        fill(&mut display, &area, 0).unwrap();
        to_video(&mut display, &area, &Buffer::new(&[0; 4][..], 0, 1).unwrap()).unwrap();
        within_video(&mut display, &area).unwrap();
        assert_eq!(display.foreign(), before + 3);
    }
}
