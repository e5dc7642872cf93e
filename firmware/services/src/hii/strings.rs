//! String packages (UEFI 2.10 §33.3.6).

use alloc::vec::Vec;

use super::HiiError;
use super::package::{PACKAGE_HEADER, PackageType, header};

/// A string's number within its package list; the first is 1.
pub type StringId = u16;

/// The strings of one language. Strings stay where they are in the package until they are changed.
#[derive(Clone, Debug)]
pub struct Strings {
    /// The package it came from; empty if it was made here.
    bytes: Vec<u8>,
    windows: [u16; 16],
    /// ASCII; secondary languages follow the first after `;`.
    language: Vec<u8>,
    language_name: StringId,
    /// Entry 0 is string 1.
    entries: Vec<Entry>,
    fonts: Vec<(u8, Font)>,
    changed: bool,
}

/// A font of a string.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Font {
    /// `EFI_HII_FONT_STYLE`.
    pub style: u32,
    /// Height in pixels.
    pub size: u16,
    /// Name without NUL.
    pub name: Vec<u16>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    text: Text,
    font: Option<u8>,
}

#[derive(Clone, Debug, Default)]
enum Text {
    /// No string has this number.
    #[default]
    Missing,
    /// Compressed (SCSU), at this offset.
    Compressed(usize),
    /// UCS-2, at this offset.
    Plain(usize),
    /// The text of another string.
    Duplicate(StringId),
    Changed(Vec<u16>),
}

/// Types of blocks (`EFI_HII_SIBT_*`).
mod block {
    pub const END: u8 = 0x00;
    pub const STRING_SCSU: u8 = 0x10;
    pub const STRING_SCSU_FONT: u8 = 0x11;
    pub const STRINGS_SCSU: u8 = 0x12;
    pub const STRINGS_SCSU_FONT: u8 = 0x13;
    pub const STRING_UCS2: u8 = 0x14;
    pub const STRING_UCS2_FONT: u8 = 0x15;
    pub const STRINGS_UCS2: u8 = 0x16;
    pub const STRINGS_UCS2_FONT: u8 = 0x17;
    pub const DUPLICATE: u8 = 0x20;
    pub const SKIP2: u8 = 0x21;
    pub const SKIP1: u8 = 0x22;
    pub const EXT1: u8 = 0x30;
    pub const EXT2: u8 = 0x31;
    pub const EXT4: u8 = 0x32;
    /// Second type of an extended block.
    pub const FONT: u8 = 0x40;
}

/// Offset of the language in the header of a package.
const LANGUAGE_OFFSET: usize = PACKAGE_HEADER + 4 + 4 + 32 + 2;
/// How many duplicates may lead to one string.
const MAX_DUPLICATES: usize = 16;
/// The static, then the dynamic windows that text is compressed with at first (SCSU, Unicode TR 6).
const WINDOWS: [u16; 16] = [
    0x0000, 0x0080, 0x0100, 0x0300, 0x2000, 0x2080, 0x2100, 0x3000, 0x0080, 0x00C0, 0x0400, 0x0600, 0x0900, 0x3040,
    0x30A0, 0xFF00,
];

impl Strings {
    /// No strings of `language`.
    pub fn new(language: &[u8]) -> Self {
        Self {
            bytes: Vec::new(),
            windows: WINDOWS,
            language: language.to_vec(),
            language_name: 0,
            entries: Vec::new(),
            fonts: Vec::new(),
            changed: true,
        }
    }

    /// The strings of a package with its header. Every block is checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, HiiError> {
        let mut reader = Reader { bytes, at: PACKAGE_HEADER };
        let _header_size = reader.u32()?;
        let blocks = reader.u32()?;
        let mut windows = [0; 16];
        for window in &mut windows {
            *window = reader.u16()?;
        }
        let language_name = reader.u16()?;
        let language = reader.text8()?;
        let language = bytes.get(language).ok_or(HiiError::Malformed)?.to_vec();
        reader.at = usize::try_from(blocks).map_err(|_| HiiError::Malformed)?;
        let (entries, fonts) = (Vec::new(), Vec::new());
        let mut strings = Self { bytes: Vec::new(), windows, language, language_name, entries, fonts, changed: false };
        while strings.parse_block(&mut reader)? {}
        strings.bytes = bytes.to_vec();
        Ok(strings)
    }

    /// Takes one block; false at the end.
    fn parse_block(&mut self, r: &mut Reader<'_>) -> Result<bool, HiiError> {
        let kind = r.u8()?;
        match kind {
            block::END => return Ok(false),
            block::STRING_SCSU
            | block::STRING_SCSU_FONT
            | block::STRINGS_SCSU
            | block::STRINGS_SCSU_FONT
            | block::STRING_UCS2
            | block::STRING_UCS2_FONT
            | block::STRINGS_UCS2
            | block::STRINGS_UCS2_FONT => {
                let with_font = kind & 1 != 0;
                let several = kind & 2 != 0;
                let plain = kind & 4 != 0;
                let font = if with_font { Some(r.u8()?) } else { None };
                let count = if several { r.u16()? } else { 1 };
                for _ in 0..count {
                    let text = if plain { Text::Plain(r.text16()?.start) } else { Text::Compressed(r.text8()?.start) };
                    self.push(Entry { text, font })?;
                }
            }
            block::DUPLICATE => {
                let of = r.u16()?;
                self.push(Entry { text: Text::Duplicate(of), font: None })?;
            }
            block::SKIP2 => {
                let count = r.u16()?;
                self.skip(count)?;
            }
            block::SKIP1 => {
                let count = r.u8()?;
                self.skip(count.into())?;
            }
            block::EXT1 | block::EXT2 | block::EXT4 => self.parse_extended(kind, r)?,
            _ => return Err(HiiError::Malformed),
        }
        Ok(true)
    }

    /// The length of an extended block counts from its first byte.
    fn parse_extended(&mut self, kind: u8, r: &mut Reader<'_>) -> Result<(), HiiError> {
        let start = r.at - 1;
        let second = r.u8()?;
        let length = match kind {
            block::EXT1 => r.u8()?.into(),
            block::EXT2 => r.u16()?.into(),
            _ => usize::try_from(r.u32()?).map_err(|_| HiiError::Malformed)?,
        };
        let end = start.checked_add(length).filter(|end| *end >= r.at && *end <= r.bytes.len());
        let end = end.ok_or(HiiError::Malformed)?;
        if second == block::FONT {
            let id = r.u8()?;
            let (size, style) = (r.u16()?, r.u32()?);
            let name = r.text16()?;
            if r.at > end {
                return Err(HiiError::Malformed);
            }
            self.fonts.push((id, Font { style, size, name: units(r.bytes, name.start) }));
        }
        r.at = end;
        Ok(())
    }

    fn push(&mut self, entry: Entry) -> Result<(), HiiError> {
        if self.entries.len() >= StringId::MAX.into() {
            return Err(HiiError::Malformed);
        }
        self.entries.push(entry);
        Ok(())
    }

    fn skip(&mut self, count: u16) -> Result<(), HiiError> {
        let length = self.entries.len() + usize::from(count);
        if length > StringId::MAX.into() {
            return Err(HiiError::Malformed);
        }
        self.entries.resize_with(length, Entry::default);
        Ok(())
    }

    /// The language, and behind `;` the secondary ones.
    pub fn languages(&self) -> &[u8] {
        &self.language
    }

    /// The language without the secondary ones.
    pub fn language(&self) -> &[u8] {
        self.language.split(|byte| *byte == b';').next().unwrap_or_default()
    }

    /// The secondary languages, separated by `;`.
    pub fn secondary_languages(&self) -> &[u8] {
        self.language.get(self.language().len() + 1..).unwrap_or_default()
    }

    /// Whether a string that says how the language is called is there.
    pub const fn has_language_name(&self) -> bool {
        self.language_name != 0
    }

    /// Which string says how the language is called.
    pub const fn set_language_name(&mut self, id: StringId) {
        self.language_name = id;
        self.changed = true;
    }

    /// The highest number that a string here has, or that was left out here.
    pub const fn last_id(&self) -> usize {
        self.entries.len()
    }

    /// The text of a string and its font.
    pub fn get(&self, id: StringId) -> Option<(Vec<u16>, Option<&Font>)> {
        let mut entry = self.entry(id)?;
        for _ in 0..MAX_DUPLICATES {
            let text = match &entry.text {
                Text::Missing => return None,
                Text::Duplicate(of) => {
                    entry = self.entry(*of)?;
                    continue;
                }
                Text::Plain(at) => units(&self.bytes, *at),
                Text::Compressed(at) => self.decompress(*at),
                Text::Changed(text) => text.clone(),
            };
            let font = entry.font.and_then(|id| self.fonts.iter().find(|(other, _)| *other == id));
            return Some((text, font.map(|(_, font)| font)));
        }
        None
    }

    /// Changes a string that is there.
    pub fn set(&mut self, id: StringId, text: &[u16], font: Option<Font>) -> Result<(), HiiError> {
        match self.entry(id) {
            Some(entry) if !matches!(entry.text, Text::Missing) => self.insert(id, text, font),
            _ => Err(HiiError::NotFound),
        }
    }

    /// Adds or changes a string. Without a font, one that it has stays.
    pub fn insert(&mut self, id: StringId, text: &[u16], font: Option<Font>) -> Result<(), HiiError> {
        let index = usize::from(id).checked_sub(1).ok_or(HiiError::NotFound)?;
        let font = match font {
            Some(font) => Some(self.font_id(font)?),
            None => self.entry(id).and_then(|entry| entry.font),
        };
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, Entry::default);
        }
        self.entries[index] = Entry { text: Text::Changed(text.to_vec()), font };
        self.changed = true;
        Ok(())
    }

    /// Header and body of a package with these strings.
    pub fn to_bytes(&self) -> Result<Vec<u8>, HiiError> {
        if !self.changed {
            return Ok(self.bytes.clone());
        }
        let blocks = LANGUAGE_OFFSET + self.language.len() + 1;
        let blocks_offset = u32::try_from(blocks).map_err(|_| HiiError::Malformed)?;
        let mut out = [0; PACKAGE_HEADER].to_vec();
        out.extend_from_slice(&blocks_offset.to_le_bytes());
        out.extend_from_slice(&blocks_offset.to_le_bytes());
        out.extend(self.windows.iter().flat_map(|window| window.to_le_bytes()));
        out.extend_from_slice(&self.language_name.to_le_bytes());
        out.extend_from_slice(&self.language);
        out.push(0);
        for (id, font) in &self.fonts {
            write_font(*id, font, &mut out)?;
        }
        for (index, entry) in self.entries.iter().enumerate() {
            self.write_entry(index, entry, &mut out);
        }
        out.push(block::END);
        let header = header(PackageType::STRINGS, out.len())?;
        out[..PACKAGE_HEADER].copy_from_slice(&header);
        Ok(out)
    }

    fn write_entry(&self, index: usize, entry: &Entry, out: &mut Vec<u8>) {
        let text = StringId::try_from(index + 1).ok().and_then(|id| self.get(id));
        let Some((text, _)) = text else {
            out.extend_from_slice(&[block::SKIP1, 1]);
            return;
        };
        match entry.font {
            Some(font) => out.extend_from_slice(&[block::STRING_UCS2_FONT, font]),
            None => out.push(block::STRING_UCS2),
        }
        out.extend(text.iter().chain(&[0]).flat_map(|unit| unit.to_le_bytes()));
    }

    fn entry(&self, id: StringId) -> Option<&Entry> {
        self.entries.get(usize::from(id).checked_sub(1)?)
    }

    fn font_id(&mut self, font: Font) -> Result<u8, HiiError> {
        if let Some((id, _)) = self.fonts.iter().find(|(_, known)| *known == font) {
            return Ok(*id);
        }
        // 0 is the system's font.
        let id = (1..=u8::MAX).find(|id| !self.fonts.iter().any(|(known, _)| known == id));
        let id = id.ok_or(HiiError::OutOfResources)?;
        self.fonts.push((id, font));
        Ok(id)
    }

    /// Text in the single-byte mode of SCSU with the windows of the package. Windows that text defines itself, and the
    /// Unicode mode, whose bytes could not be told from the end, stand as U+FFFD.
    fn decompress(&self, at: usize) -> Vec<u16> {
        let (fixed, dynamic) = self.windows.split_at(8);
        let mut active = 0;
        let mut quoted: Option<usize> = None;
        let mut text = Vec::new();
        for byte in self.bytes.get(at..).unwrap_or_default().iter().take_while(|byte| **byte != 0) {
            let window = quoted.take();
            match (*byte, window) {
                (0x80.., window) => text.push(dynamic[window.unwrap_or(active)].wrapping_add(u16::from(byte - 0x80))),
                (_, Some(window)) => text.push(fixed[window].wrapping_add((*byte).into())),
                (0x01..=0x08, None) => quoted = Some(usize::from(byte - 0x01)),
                (0x10..=0x17, None) => active = usize::from(byte - 0x10),
                (b'\t' | b'\n' | b'\r' | 0x20.., None) => text.push((*byte).into()),
                (_, None) => text.push(char::REPLACEMENT_CHARACTER as u16),
            }
        }
        text
    }
}

fn write_font(id: u8, font: &Font, out: &mut Vec<u8>) -> Result<(), HiiError> {
    let name = font.name.iter().chain(&[0]).flat_map(|unit| unit.to_le_bytes());
    let length = 4 + 1 + 2 + 4 + 2 * (font.name.len() + 1);
    let length = u16::try_from(length).map_err(|_| HiiError::Malformed)?;
    out.extend_from_slice(&[block::EXT2, block::FONT]);
    out.extend_from_slice(&length.to_le_bytes());
    out.push(id);
    out.extend_from_slice(&font.size.to_le_bytes());
    out.extend_from_slice(&font.style.to_le_bytes());
    out.extend(name);
    Ok(())
}

/// UCS-2 up to NUL or to the end.
fn units(bytes: &[u8], at: usize) -> Vec<u16> {
    let (units, _) = bytes.get(at..).unwrap_or_default().as_chunks();
    units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0).collect()
}

/// Fields from a place in a package on.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], HiiError> {
        let array = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk).ok_or(HiiError::Malformed)?;
        self.at += N;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, HiiError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, HiiError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, HiiError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Where a string of bytes is; the NUL behind it is taken too.
    fn text8(&mut self) -> Result<core::ops::Range<usize>, HiiError> {
        let start = self.at;
        while self.u8()? != 0 {}
        Ok(start..self.at - 1)
    }

    /// Where a string of UCS-2 is; the NUL behind it is taken too.
    fn text16(&mut self) -> Result<core::ops::Range<usize>, HiiError> {
        let start = self.at;
        while self.u16()? != 0 {}
        Ok(start..self.at - 2)
    }
}
