//! Display adapters of HVM guests (`vga=` in the guest's configuration).
//!
//! | module | what |
//! | --- | --- |
//! | [`bochs`] | QEMU's standard VGA (`vga="stdvga"`) and virtio-vga, by the registers that Bochs invented |
//! | [`cirrus`] | Cirrus Logic GD5446 (`vga="cirrus"`) |
//! | [`driver`] | both in the UEFI driver model |

pub mod bochs;
pub mod cirrus;
pub mod driver;

use alloc::vec::Vec;
use core::fmt;

use services::graphics::{Mode, PixelFormat};

pub use driver::{Displays, install, is_display};

/// Resolution to begin with where there is room for it and no monitor prefers another one: what an emulated monitor without
/// wishes is given elsewhere too.
const DEFAULT: (usize, usize) = (1280, 800);

/// Why an adapter is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The BAR of the video memory is missing, or cannot be reached.
    NoVideoMemory,
    /// There is less video memory than the smallest mode needs.
    TooLittleVideoMemory(usize),
    /// The registers do not say what those of the adapter say.
    NotTheAdapter(u16),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVideoMemory => f.write_str("the video memory cannot be reached"),
            Self::TooLittleVideoMemory(size) => write!(f, "{size} bytes of video memory are too little for any mode"),
            Self::NotTheAdapter(found) => write!(f, "the registers identify something else ({found:#06x})"),
        }
    }
}

/// The modes that `memory` bytes have room for, and which of them to begin with.
fn choose(
    candidates: impl Iterator<Item = Mode>,
    memory: usize,
    wanted: Option<(usize, usize)>,
) -> Result<(Vec<Mode>, usize), Problem> {
    let modes: Vec<Mode> = candidates.filter(|mode| mode.size() <= memory).collect();
    let find = |size: (usize, usize)| modes.iter().position(|mode| (mode.width, mode.height) == size);
    let preferred = wanted.and_then(find).or_else(|| find(DEFAULT));
    // Else the largest, which is the last one.
    let last = modes.len().checked_sub(1).ok_or(Problem::TooLittleVideoMemory(memory))?;
    Ok((modes, preferred.unwrap_or(last)))
}

/// A mode of 32 bits per pixel.
const fn mode32(width: usize, height: usize) -> Mode {
    Mode::new(width, height, PixelFormat::Bgrx32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mode_is_the_wanted_one_or_the_default_or_the_largest() {
        let modes = [mode32(640, 480), mode32(1024, 768), mode32(1280, 800), mode32(1920, 1080)];
        let first = |memory, wanted| choose(modes.into_iter(), memory, wanted).map(|(modes, first)| modes[first].width);
        assert_eq!(first(16 << 20, None), Ok(1280));
        assert_eq!(first(16 << 20, Some((1920, 1080))), Ok(1920));
        assert_eq!(first(16 << 20, Some((1921, 1080))), Ok(1280));
        assert_eq!(first(4 << 20, Some((1920, 1080))), Ok(1024 + 256));
        assert_eq!(first(3 << 20, None), Ok(1024));
        assert_eq!(first(1000, None), Err(Problem::TooLittleVideoMemory(1000)));
    }
}
