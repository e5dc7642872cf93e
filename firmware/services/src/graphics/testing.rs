//! A display over the test's memory, and its pictures as files that one can look at.

use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

use hw::device::{Window, Windows};
use hw::fake::FakeWindows;

use super::{Adapter, AdapterError, Display, Mode, PIXEL, PixelFormat};

/// Where the fake video memory claims to be.
pub const ADDRESS: u64 = 0xF000_0000;

/// An adapter that does nothing, with memory for its largest mode. The memory starts with garbage.
pub struct FakeAdapter {
    pub modes: Vec<Mode>,
    preferred: usize,
    memory: Box<dyn Window>,
    pub edid: Vec<u8>,
}

impl FakeAdapter {
    pub fn new(modes: &[Mode], preferred: usize) -> Self {
        let windows = FakeWindows::default();
        let size = modes.iter().map(Mode::size).max().unwrap_or(0);
        windows.add(ADDRESS, size);
        let memory = windows.window(ADDRESS, size).unwrap();
        memory.write_bytes(0, &std::vec![0xA5; size]);
        Self { modes: modes.to_vec(), preferred, memory, edid: Vec::new() }
    }
}

impl Adapter for FakeAdapter {
    fn modes(&self) -> &[Mode] {
        &self.modes
    }
    fn preferred(&self) -> usize {
        self.preferred
    }
    fn set_mode(&mut self, _mode: usize) -> Result<bool, AdapterError> {
        Ok(false)
    }
    fn memory(&self) -> &dyn Window {
        &*self.memory
    }
    fn edid(&self) -> &[u8] {
        &self.edid
    }
}

/// A display with these modes.
pub fn display(modes: &[Mode], preferred: usize) -> Display {
    Display::start(Box::new(FakeAdapter::new(modes, preferred))).unwrap()
}

/// What is shown, read from the memory itself: line by line, without the byte that is not shown.
pub fn picture(display: &Display) -> Vec<u32> {
    let mode = display.mode();
    let mut memory = std::vec![0; mode.size()];
    display.adapter.memory().read_bytes(0, &mut memory);
    let bytes = mode.format.bytes();
    let pixel = |x, y| {
        let at = (y * mode.stride + x) * bytes;
        match mode.format {
            PixelFormat::Rgb565 => u32::from_le_bytes(super::from_rgb565([memory[at], memory[at + 1]])),
            _ => u32::from_le_bytes([memory[at], memory[at + 1], memory[at + 2], 0]),
        }
    };
    (0..mode.height).flat_map(|y| (0..mode.width).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect()
}

/// The picture as characters: `#` for what is brighter than half, `+` for what is not black.
pub fn art(pixels: &[u32], width: usize) -> Vec<String> {
    let letter = |pixel: &u32| match pixel.to_le_bytes().iter().map(|byte| u32::from(*byte)).sum::<u32>() {
        0 => '.',
        1..383 => '+',
        _ => '#',
    };
    pixels.chunks(width).map(|line| line.iter().map(letter).collect()).collect()
}

/// Writes what is shown to `NAME.ppm` in the folder that the environment variable `OVMF_XEN_PICTURES` names, if it does.
pub fn save(display: &Display, name: &str) {
    let Some(folder) = std::env::var_os("OVMF_XEN_PICTURES") else { return };
    let mode = display.mode();
    let mut file = std::format!("P6 {} {} 255\n", mode.width, mode.height).into_bytes();
    for pixel in picture(display) {
        let [blue, green, red, _] = pixel.to_le_bytes();
        file.extend([red, green, blue]);
    }
    std::fs::write(std::path::Path::new(&folder).join(name).with_extension("ppm"), file).unwrap();
}

/// A picture of random pixels for [`Display::write`].
pub fn noise(width: usize, height: usize, mut seed: u32) -> Vec<u8> {
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8 & 0x00FF_FFFF).to_le_bytes()
    };
    (0..width * height).flat_map(|_| random()).collect::<Vec<u8>>().chunks(PIXEL).flatten().copied().collect()
}
