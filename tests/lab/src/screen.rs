//! Pictures of a guest's screen: taken as PPM by the device model, read back as text ([`text`]), looked at pixel by pixel,
//! and kept as PNG for a person to look at.

pub mod text;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command;

/// A colour: red, green, blue.
pub type Colour = [u8; 3];

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    pixels: Vec<Colour>,
}

impl Picture {
    /// A picture from the bytes of a binary PPM with 8 bits a channel, as QEMU's `screendump` writes it.
    ///
    /// # Errors
    /// It is something else, or cut short.
    pub fn from_ppm(bytes: &[u8]) -> Result<Self> {
        let mut fields = Vec::new();
        let mut rest = bytes;
        while fields.len() < 4 {
            let end = rest.iter().position(u8::is_ascii_whitespace).context("a picture without a header")?;
            fields.push(std::str::from_utf8(&rest[..end])?);
            rest = &rest[end + 1..];
        }
        let [magic, width, height, greatest] = fields[..] else { bail!("a picture without a header") };
        if magic != "P6" || greatest != "255" {
            bail!("not a PPM picture with 8 bits a channel");
        }
        let (width, height): (usize, usize) = (width.parse()?, height.parse()?);
        let (pixels, _) = rest.as_chunks::<3>();
        if width.checked_mul(height) != Some(pixels.len()) || pixels.is_empty() {
            bail!("a picture of {width} x {height} with {} pixels", pixels.len());
        }
        Ok(Self { width, height, pixels: pixels.to_vec() })
    }

    /// The colour of a pixel; `None` outside.
    #[must_use]
    pub fn at(&self, column: usize, line: usize) -> Option<Colour> {
        (column < self.width && line < self.height).then(|| self.pixels[line * self.width + column])
    }

    /// How many colours it has.
    #[must_use]
    pub fn colours(&self) -> usize {
        let mut colours = self.pixels.clone();
        colours.sort_unstable();
        colours.dedup();
        colours.len()
    }

    /// Writes it as a PNG.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_png(&self, path: &Path) -> Result<()> {
        command::write(path, self.png()?)
    }

    /// PNG (W3C, third edition): 8 bits a channel, no filter, the data in stored blocks (RFC 1951 §3.2.4).
    fn png(&self) -> Result<Vec<u8>> {
        let mut lines = Vec::with_capacity(self.pixels.len() * 3 + self.height);
        for line in self.pixels.chunks(self.width) {
            lines.push(0);
            lines.extend_from_slice(line.as_flattened());
        }
        // RFC 1950: a window of 32 KiB, no dictionary.
        let mut data = vec![0x78, 0x01];
        let mut blocks = lines.chunks(usize::from(u16::MAX)).peekable();
        while let Some(block) = blocks.next() {
            data.push(u8::from(blocks.peek().is_none()));
            let length = u16::try_from(block.len())?;
            data.extend_from_slice(&length.to_le_bytes());
            data.extend_from_slice(&(!length).to_le_bytes());
            data.extend_from_slice(block);
        }
        data.extend_from_slice(&adler32(&lines).to_be_bytes());
        let mut header = Vec::new();
        header.extend_from_slice(&u32::try_from(self.width)?.to_be_bytes());
        header.extend_from_slice(&u32::try_from(self.height)?.to_be_bytes());
        // 8 bits, red green blue, deflate, the five filters, not interlaced.
        header.extend_from_slice(&[8, 2, 0, 0, 0]);
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, content) in [(b"IHDR", header.as_slice()), (b"IDAT", &data), (b"IEND", &[])] {
            let mut body = kind.to_vec();
            body.extend_from_slice(content);
            png.extend_from_slice(&u32::try_from(content.len())?.to_be_bytes());
            png.extend_from_slice(&body);
            png.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
        }
        Ok(png)
    }
}

/// The checksum of RFC 1950.
fn adler32(bytes: &[u8]) -> u32 {
    const BASE: u32 = 65521;
    let (mut a, mut b) = (1, 0);
    for byte in bytes {
        a = (a + u32::from(*byte)) % BASE;
        b = (b + a) % BASE;
    }
    b << 16 | a
}

/// A colour from six hexadecimal digits.
///
/// # Errors
/// It is none.
pub fn colour(text: &str) -> Result<Colour> {
    let bytes = hex::decode(text).with_context(|| format!("{text:?} is no colour"))?;
    bytes.try_into().ok().with_context(|| format!("{text:?} is no colour"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ppm_is_read_by_lines() {
        let picture = Picture::from_ppm(b"P6\n2 1\n255\nabcABC").unwrap();
        assert_eq!((picture.at(1, 0), picture.at(2, 0)), (Some(*b"ABC"), None));
    }

    #[test]
    fn a_ppm_cut_short_is_an_error() {
        assert!(Picture::from_ppm(b"P6\n2 2\n255\nabcABC").is_err());
        assert!(Picture::from_ppm(b"P6\n2 2\n").is_err());
    }

    #[test]
    fn a_png_has_the_checksums_of_its_format() {
        let png = Picture::from_ppm(b"P6\n1 1\n255\n\xff\x00\x00").unwrap().png().unwrap();
        // The end of any PNG, and the checksum of 00 ff 00 00.
        assert!(png.ends_with(&[0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82]));
        assert!(png.windows(4).any(|bytes| bytes == 0x0301_0100_u32.to_be_bytes()));
    }

    #[test]
    fn colours_are_hexadecimal() {
        assert_eq!(colour("00aaff").unwrap(), [0, 0xaa, 0xff]);
        assert!(colour("00aa").is_err());
    }
}
