//! Display adapters with a linear frame buffer (UEFI 2.10 §12.9).
//!
//! | item | what |
//! | --- | --- |
//! | [`Adapter`] | what a driver provides: modes, and the memory that is shown |
//! | [`Display`] | an adapter in one of its modes: pixels are written, read, filled, copied |
//! | [`blt`] | the block transfers of EFI_GRAPHICS_OUTPUT_PROTOCOL, with all their checks |
//! | [`edid`] | what a monitor says of itself |
//! | [`logo`] | the firmware's logo |
//!
//! A pixel is `0x00RRGGBB` everywhere: the bytes of an EFI_GRAPHICS_OUTPUT_BLT_PIXEL in their order. The protocol over this is
//! in [`abi::graphics`](crate::abi::graphics), the text console in [`console::graphics`](crate::console::graphics).

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use hw::device::Window;

pub mod blt;
pub mod edid;
pub mod logo;
#[cfg(test)]
pub(crate) mod testing;

/// Bytes of a pixel outside of video memory.
pub const PIXEL: usize = 4;

/// How a pixel lies in video memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PixelFormat {
    /// Blue, green, red, and a byte that is not shown.
    Bgrx32,
    /// Blue, green, red.
    Bgr24,
    /// A little-endian word: 5 bits of red at the top, 6 of green, 5 of blue.
    Rgb565,
}

impl PixelFormat {
    /// Bytes of a pixel.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bgrx32 => 4,
            Self::Bgr24 => 3,
            Self::Rgb565 => 2,
        }
    }
}

/// A pixel in 16 bits.
const fn to_rgb565([blue, green, red, ..]: [u8; PIXEL]) -> [u8; 2] {
    ((red as u16 >> 3) << 11 | (green as u16 >> 2) << 5 | blue as u16 >> 3).to_le_bytes()
}

/// The pixel of 16 bits, its highest bits repeated in the lowest ones so that white stays white.
const fn from_rgb565(bytes: [u8; 2]) -> [u8; PIXEL] {
    let word = u16::from_le_bytes(bytes);
    let (red, green, blue) = (word >> 11, word >> 5 & 0x3F, word & 0x1F);
    [(blue << 3 | blue >> 2) as u8, (green << 2 | green >> 4) as u8, (red << 3 | red >> 2) as u8, 0]
}

/// A mode of an adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// Pixels from one line to the next.
    pub stride: usize,
    /// Its pixels.
    pub format: PixelFormat,
}

impl Mode {
    /// A mode whose lines follow each other without a gap.
    pub const fn new(width: usize, height: usize, format: PixelFormat) -> Self {
        Self { width, height, stride: width, format }
    }

    /// Bytes of video memory that it shows.
    pub const fn size(&self) -> usize {
        self.stride * self.height * self.format.bytes()
    }
}

/// The adapter did not do what it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdapterError;

/// A display adapter with a linear frame buffer.
pub trait Adapter {
    /// Its modes, at least one. They do not change, and the memory has room for each.
    fn modes(&self) -> &[Mode];
    /// The mode to begin with.
    fn preferred(&self) -> usize;
    /// Selects one of its modes; returns whether all is black then.
    fn set_mode(&mut self, mode: usize) -> Result<bool, AdapterError>;
    /// The memory that is shown, from the upper left pixel on.
    fn memory(&self) -> &dyn Window;
    /// The monitor's EDID; empty where there is none.
    fn edid(&self) -> &[u8] {
        &[]
    }
}

/// Called with the number of a mode and the mode when one was selected.
pub type Observer = Box<dyn Fn(usize, Mode)>;

/// An adapter in use.
pub struct Display {
    adapter: Box<dyn Adapter>,
    number: usize,
    mode: Mode,
    observers: Vec<Observer>,
    /// How often somebody other than the text console has drawn.
    foreign: usize,
    /// A line as it lies in video memory.
    line: Vec<u8>,
}

impl fmt::Debug for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Display").field("number", &self.number).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// A display that several use: the protocol, the text console.
pub type SharedDisplay = Rc<RefCell<Display>>;

/// A rectangle of pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rectangle {
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
}

impl Rectangle {
    /// Whether it has pixels, and all of them are in `width` × `height`.
    pub fn is_within(&self, width: usize, height: usize) -> bool {
        let fits = |start: usize, length: usize, limit| {
            length != 0 && start.checked_add(length).is_some_and(|end| end <= limit)
        };
        fits(self.x, self.width, width) && fits(self.y, self.height, height)
    }
}

impl Display {
    /// Puts the adapter into its preferred mode, all black.
    pub fn start(adapter: Box<dyn Adapter>) -> Result<Self, AdapterError> {
        let number = adapter.preferred();
        let mode = *adapter.modes().get(number).ok_or(AdapterError)?;
        let mut display = Self { adapter, number, mode, observers: Vec::new(), foreign: 0, line: Vec::new() };
        display.set_mode(number)?;
        Ok(display)
    }

    /// All modes.
    pub fn modes(&self) -> &[Mode] {
        self.adapter.modes()
    }

    /// Number of the mode.
    pub const fn number(&self) -> usize {
        self.number
    }

    /// The mode.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The adapter's EDID; empty where there is none.
    pub fn edid(&self) -> &[u8] {
        self.adapter.edid()
    }

    /// Address of the first pixel.
    pub fn address(&self) -> u64 {
        self.adapter.memory().address()
    }

    /// Has `observer` called whenever a mode was selected.
    pub fn observe(&mut self, observer: Observer) {
        self.observers.push(observer);
    }

    /// Selects a mode, all black.
    pub fn set_mode(&mut self, number: usize) -> Result<(), AdapterError> {
        let mode = *self.modes().get(number).ok_or(AdapterError)?;
        if mode.size() == 0 || mode.size() > self.adapter.memory().len() || mode.stride < mode.width {
            return Err(AdapterError);
        }
        let is_black = self.adapter.set_mode(number)?;
        (self.number, self.mode) = (number, mode);
        if !is_black {
            self.fill(Rectangle { x: 0, y: 0, width: mode.width, height: mode.height }, 0);
        }
        self.observers.iter().for_each(|observer| observer(number, mode));
        Ok(())
    }

    /// Notes that somebody other than the text console has drawn.
    pub const fn touch(&mut self) {
        self.foreign = self.foreign.wrapping_add(1);
    }

    /// Changes whenever somebody other than the text console has drawn.
    pub const fn foreign(&self) -> usize {
        self.foreign
    }

    /// Writes a piece of a line. `pixels` are whole pixels, [`PIXEL`] bytes each. What is not on the screen is left out.
    pub fn write(&mut self, x: usize, y: usize, pixels: &[u8]) {
        let Some((offset, count)) = self.place(x, y, pixels.len() / PIXEL) else { return };
        let pixels = &pixels[..count * PIXEL];
        match self.mode.format {
            PixelFormat::Bgrx32 => self.adapter.memory().write_bytes(offset, pixels),
            PixelFormat::Bgr24 => {
                self.line.clear();
                self.line.extend(pixels.as_chunks().0.iter().flat_map(|&[blue, green, red, _]| [blue, green, red]));
                self.adapter.memory().write_bytes(offset, &self.line);
            }
            PixelFormat::Rgb565 => {
                self.line.clear();
                self.line.extend(pixels.as_chunks().0.iter().flat_map(|&pixel| to_rgb565(pixel)));
                self.adapter.memory().write_bytes(offset, &self.line);
            }
        }
    }

    /// Reads a piece of a line into whole pixels. What is not on the screen is left alone.
    pub fn read(&mut self, x: usize, y: usize, pixels: &mut [u8]) {
        let Some((offset, count)) = self.place(x, y, pixels.len() / PIXEL) else { return };
        let pixels = &mut pixels[..count * PIXEL];
        match self.mode.format {
            PixelFormat::Bgrx32 => self.adapter.memory().read_bytes(offset, pixels),
            PixelFormat::Bgr24 => {
                self.line.resize(count * 3, 0);
                self.adapter.memory().read_bytes(offset, &mut self.line);
                for (pixel, &[blue, green, red]) in pixels.as_chunks_mut().0.iter_mut().zip(self.line.as_chunks().0) {
                    *pixel = [blue, green, red, 0];
                }
            }
            PixelFormat::Rgb565 => {
                self.line.resize(count * 2, 0);
                self.adapter.memory().read_bytes(offset, &mut self.line);
                for (pixel, &bytes) in pixels.as_chunks_mut().0.iter_mut().zip(self.line.as_chunks().0) {
                    *pixel = from_rgb565(bytes);
                }
            }
        }
    }

    /// Fills a rectangle of the screen.
    pub fn fill(&mut self, area: Rectangle, pixel: u32) {
        let Some((_, count)) = self.place(area.x, area.y, area.width) else { return };
        let pixel = pixel.to_le_bytes();
        let word = to_rgb565(pixel);
        let bytes = match self.mode.format {
            PixelFormat::Rgb565 => &word[..],
            format => &pixel[..format.bytes()],
        };
        self.line.clear();
        self.line.extend(bytes.iter().cycle().take(count * bytes.len()));
        for y in area.y..area.y.saturating_add(area.height).min(self.mode.height) {
            if let Some((offset, _)) = self.place(area.x, y, count) {
                self.adapter.memory().write_bytes(offset, &self.line);
            }
        }
    }

    /// Copies a rectangle of the screen to where its upper left corner comes to lie at (`x`, `y`). The two may overlap.
    pub fn copy(&mut self, from: Rectangle, x: usize, y: usize) {
        let bytes = self.mode.format.bytes();
        let (Some((_, source)), Some((_, target))) =
            (self.place(from.x, from.y, from.width), self.place(x, y, from.width))
        else {
            return;
        };
        let length = source.min(target) * bytes;
        self.line.resize(length, 0);
        for step in 0..from.height {
            let row = if y > from.y { from.height - 1 - step } else { step };
            if let (Some((source, _)), Some((target, _))) =
                (self.place(from.x, from.y + row, 1), self.place(x, y + row, 1))
            {
                let memory = self.adapter.memory();
                memory.read_bytes(source, &mut self.line[..length]);
                memory.write_bytes(target, &self.line[..length]);
            }
        }
    }

    /// Where a pixel lies in video memory, and how many of `count` from there on are on the screen; `None` if none is.
    fn place(&self, x: usize, y: usize, count: usize) -> Option<(usize, usize)> {
        let count = count.min(self.mode.width.checked_sub(x)?);
        (count != 0 && y < self.mode.height).then(|| ((y * self.mode.stride + x) * self.mode.format.bytes(), count))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{FakeAdapter, display};
    use super::*;

    #[test]
    fn a_display_starts_black_in_the_preferred_mode() {
        let display = display(&[Mode::new(4, 2, PixelFormat::Bgrx32), Mode::new(8, 4, PixelFormat::Bgrx32)], 1);
        assert_eq!((display.number(), display.mode().width), (1, 8));
        assert_eq!(testing::picture(&display), [0; 32]);
    }

    #[test]
    fn a_mode_that_the_memory_has_no_room_for_is_refused() {
        let mut adapter = FakeAdapter::new(&[Mode::new(4, 2, PixelFormat::Bgrx32)], 0);
        adapter.modes[0].height = 3;
        assert_eq!(Display::start(Box::new(adapter)).err(), Some(AdapterError));
    }

    #[test]
    fn pixels_outside_the_screen_are_left_out() {
        for format in [PixelFormat::Bgrx32, PixelFormat::Bgr24, PixelFormat::Rgb565] {
            let mode = Mode { width: 4, height: 2, stride: 5, format };
            let mut display = display(&[mode], 0);
            let white = [0xFF, 0xFF, 0xFF, 0].repeat(4);
            display.write(2, 1, &white);
            display.write(0, 2, &white);
            display.write(4, 0, &white);
            display.fill(Rectangle { x: 3, y: 0, width: 9, height: 1 }, 0x0000_00FF);
            let w = 0x00FF_FFFF;
            assert_eq!(testing::picture(&display), [0, 0, 0, 0xFF, 0, 0, w, w]);
            let mut read = [7; 16];
            display.read(2, 1, &mut read);
            assert_eq!(read[..9], [0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0, 7]);
        }
    }

    #[test]
    fn sixteen_bits_keep_the_highest_bits_of_each_colour() {
        assert_eq!(to_rgb565([0xFF, 0, 0, 0]), 0x001F_u16.to_le_bytes());
        assert_eq!(to_rgb565([0, 0xFF, 0, 0]), 0x07E0_u16.to_le_bytes());
        assert_eq!(to_rgb565([0, 0, 0xFF, 0]), 0xF800_u16.to_le_bytes());
        for word in 0..=u16::MAX {
            assert_eq!(to_rgb565(from_rgb565(word.to_le_bytes())), word.to_le_bytes());
        }
        assert_eq!(from_rgb565([0xFF; 2]), [0xFF, 0xFF, 0xFF, 0]);
    }

    #[test]
    fn observers_hear_of_each_mode() {
        let mut display = display(&[Mode::new(4, 2, PixelFormat::Bgrx32), Mode::new(8, 4, PixelFormat::Bgr24)], 0);
        let heard = Rc::new(RefCell::new(Vec::new()));
        let log = heard.clone();
        display.observe(Box::new(move |number, mode| log.borrow_mut().push((number, mode.width))));
        display.set_mode(1).unwrap();
        assert_eq!(display.set_mode(2), Err(AdapterError));
        assert_eq!(*heard.borrow(), [(1, 8)]);
    }
}
