//! Names on a FAT volume: 8.3 names, long names in their entries, and how one is made of the other (Microsoft FAT
//! specification 1.03 §6 and §7).

use alloc::string::String;
use alloc::vec::Vec;

use services::file::FileError;
use services::unicode;

use super::layout::SLOT;

/// An 8.3 name as it stands in a directory: padded, without dot.
pub(super) type ShortName = [u8; 11];

/// Longest long name in UTF-16 units.
pub(super) const MAX_LONG: usize = 255;
/// UTF-16 units in one long name entry.
const UNITS: usize = 13;
/// Where the units stand in an entry.
const UNIT_OFFSETS: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// Bit of an ordinal: the last entry of the name, which comes first.
const LAST: u8 = 0x40;
/// Attributes that make an entry a long name entry, and where they stand.
pub(super) const ATTRIBUTE_LONG: u8 = 0x0f;
pub(super) const ATTRIBUTES: usize = 11;
/// First byte of a free entry, and what stands for it in a name that starts with this byte.
pub(super) const FREE: u8 = 0xe5;
const FREE_ESCAPE: u8 = 0x05;
/// Bits of the case byte: base and extension are in lower case (not in the specification; Windows NT and later).
const LOWER_BASE: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;
/// Highest numeric tail tried.
const MAX_TAIL: u32 = 999_999;

/// Whether two names are the same to a FAT volume.
pub(super) fn equal(a: &str, b: &str) -> bool {
    let fold = |name: &str| -> core::iter::FlatMap<_, _, _> {
        // An owned iterator would borrow `name`; collecting is only paid for names that are not ASCII.
        name.chars().collect::<Vec<_>>().into_iter().flat_map(char::to_uppercase as fn(char) -> core::char::ToUppercase)
    };
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && fold(a).eq(fold(b)))
}

/// A name as it is to be stored: without blanks around it and dots behind it, which FAT does not keep.
pub(super) fn tidy(name: &str) -> &str {
    name.trim_start_matches(' ').trim_end_matches([' ', '.'])
}

/// Checks a tidied name.
pub(super) fn check(name: &str) -> Result<(), FileError> {
    let bad = |c: char| c < ' ' || c == '\u{7f}' || matches!(c, '"' | '*' | '/' | ':' | '<' | '>' | '?' | '\\' | '|');
    let length = name.encode_utf16().count();
    if length == 0 || length > MAX_LONG || name.contains(bad) { Err(FileError::InvalidParameter) } else { Ok(()) }
}

/// Whether a byte may stand in a short name.
fn is_short(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'()-@^_`{}~".contains(&byte)
}

/// The short name that is exactly `name`, if there is one; letters must be capitals.
pub(super) fn exact_short(name: &str) -> Option<ShortName> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let fits = |part: &str, most| {
        part.len() <= most && part.bytes().all(|b| b < 0x80 && is_short(b) && !b.is_ascii_lowercase())
    };
    if base.is_empty() || !fits(base, 8) || !fits(extension, 3) || (extension.is_empty() && name.contains('.')) {
        return None;
    }
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    Some(short)
}

/// The short name that a look-up of `name` may also match.
pub(super) fn lookup_short(name: &str) -> Option<ShortName> {
    exact_short(&name.to_ascii_uppercase())
}

/// A short name for `name` that `taken` does not know.
pub(super) fn unique_short(name: &str, taken: impl Fn(&ShortName) -> bool) -> Result<ShortName, FileError> {
    let (basis, lossy) = basis(name);
    if !lossy && !taken(&basis) {
        return Ok(basis);
    }
    let base = basis[..8].iter().position(|&b| b == b' ').unwrap_or(8);
    let tail = |number: u32| {
        let mut short = basis;
        let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
        let kept = base.min(8 - 1 - digits);
        short[kept..8].fill(b' ');
        short[kept] = b'~';
        let mut rest = number;
        for at in (kept + 1..kept + 1 + digits).rev() {
            short[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        short
    };
    // Past the first few, start at a number made of the name, so that many alike names do not each search from 1.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let start = 1000 + hash % 99_000;
    (1..10).chain(start..=MAX_TAIL).chain(10..start).map(tail).find(|short| !taken(short)).ok_or(FileError::Full)
}

/// The basis of a short name (§7.2.1), and whether it says less than the name.
fn basis(name: &str) -> (ShortName, bool) {
    let trimmed = name.trim_start_matches('.');
    let mut lossy = trimmed.len() != name.len();
    let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
    let mut short = [b' '; 11];
    let mut fill = |part: &str, into: &mut [u8]| {
        let mut used = 0;
        for c in part.chars() {
            let byte = match c {
                ' ' | '.' => {
                    lossy = true;
                    continue;
                }
                c if c.is_ascii() && is_short(c as u8) => c.to_ascii_uppercase() as u8,
                _ => {
                    lossy = true;
                    b'_'
                }
            };
            match into.get_mut(used) {
                Some(place) => *place = byte,
                None => {
                    lossy = true;
                    break;
                }
            }
            used += 1;
        }
        used
    };
    let (head, end) = short.split_at_mut(8);
    if fill(base, head) == 0 {
        head[0] = b'_';
    }
    fill(extension, end);
    (short, lossy)
}

/// A short name as text. `case` is the case byte of the entry.
pub(super) fn short_text(short: &ShortName, case: u8) -> String {
    let mut text = String::new();
    let mut part = |bytes: &[u8], first: bool, lower: bool| {
        let length = bytes.iter().rposition(|&b| b != b' ').map_or(0, |last| last + 1);
        if !first && length > 0 {
            text.push('.');
        }
        for (at, &byte) in bytes[..length].iter().enumerate() {
            let byte = if first && at == 0 && byte == FREE_ESCAPE { FREE } else { byte };
            let c = match byte {
                0x80.. => oem_char(byte),
                // What could not be told from a path, or breaks a terminal.
                0..0x20 | b'/' | b'\\' | 0x7f => '_',
                _ => char::from(byte),
            };
            text.push(if lower { c.to_ascii_lowercase() } else { c });
        }
    };
    part(&short[..8], true, case & LOWER_BASE != 0);
    part(&short[8..], false, case & LOWER_EXTENSION != 0);
    text
}

fn oem_char(byte: u8) -> char {
    char::from_u32(unicode::from_oem(byte).into()).unwrap_or('_')
}

/// The sum over a short name that ties long name entries to it.
fn checksum(short: &ShortName) -> u8 {
    short.iter().fold(0, |sum: u8, &byte| sum.rotate_right(1).wrapping_add(byte))
}

/// The long name entries for `name`, in the order they stand in the directory.
pub(super) fn long_entries(name: &str, short: &ShortName) -> Vec<[u8; SLOT]> {
    let units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(UNITS);
    let mut entries = Vec::with_capacity(count);
    for (index, chunk) in units.chunks(UNITS).enumerate().rev() {
        let mut entry = [0; SLOT];
        entry[0] = (index as u8 + 1) | if index + 1 == count { LAST } else { 0 };
        entry[ATTRIBUTES] = ATTRIBUTE_LONG;
        entry[13] = checksum(short);
        for (unit, at) in UNIT_OFFSETS.into_iter().enumerate() {
            // A terminator after the name if there is room, then all ones.
            let value = chunk.get(unit).copied().unwrap_or(if unit == chunk.len() { 0 } else { 0xffff });
            entry[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        entries.push(entry);
    }
    entries
}

/// A long name being put together from its entries, last part first.
#[derive(Debug, Default)]
pub(super) struct LongName {
    units: Vec<u16>,
    /// The ordinal that has to come next; 0 when the name is complete.
    next: u8,
    checksum: u8,
    /// Slot of the first entry.
    first: Option<u32>,
}

impl LongName {
    /// Takes a long name entry. A broken sequence is forgotten.
    pub fn push(&mut self, entry: &[u8], slot: u32) {
        let (Some(&ordinal), Some(&sum)) = (entry.first(), entry.get(13)) else { return };
        let number = ordinal & !LAST;
        if ordinal & LAST != 0 {
            if number == 0 || usize::from(number) > MAX_LONG.div_ceil(UNITS) {
                return self.clear();
            }
            self.units.clear();
            self.units.resize(usize::from(number) * UNITS, 0);
            (self.next, self.checksum, self.first) = (number, sum, Some(slot));
        }
        if self.first.is_none() || number != self.next || number == 0 || sum != self.checksum {
            return self.clear();
        }
        let base = usize::from(number - 1) * UNITS;
        for (unit, at) in UNIT_OFFSETS.into_iter().enumerate() {
            if let (Some(place), Some(bytes)) = (self.units.get_mut(base + unit), entry.get(at..at + 2)) {
                *place = u16::from_le_bytes([bytes[0], bytes[1]]);
            }
        }
        self.next = number - 1;
    }

    /// The name for the short entry that follows, with the slot of its first entry, if it is whole, sound and belongs to
    /// it.
    pub fn take(&mut self, short: &ShortName) -> Option<(String, u32)> {
        let first = self.first.filter(|_| self.next == 0 && self.checksum == checksum(short));
        let length = self.units.iter().position(|&unit| unit == 0).unwrap_or(self.units.len());
        let name: String = char::decode_utf16(self.units[..length].iter().copied())
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        self.clear();
        // A name that could not be asked for, or that leads elsewhere, is not used.
        if check(&name).is_err() || name == "." || name == ".." {
            return None;
        }
        Some((name, first?))
    }

    /// Forgets what there is.
    pub fn clear(&mut self) {
        self.units.clear();
        self.first = None;
        self.next = 0;
    }
}

/// A volume label as it is stored: 11 characters of the short name set, in capitals.
pub(super) fn label(text: &str) -> Result<ShortName, FileError> {
    let text = text.trim_end_matches(' ');
    let mut label = [b' '; 11];
    if text.chars().count() > label.len() {
        return Err(FileError::InvalidParameter);
    }
    for (place, c) in label.iter_mut().zip(text.chars()) {
        let c = c.to_uppercase().next().unwrap_or(c);
        *place = match c {
            ' ' => b' ',
            c if c.is_ascii() && is_short(c as u8) => c as u8,
            c if c.is_ascii() => return Err(FileError::InvalidParameter),
            c => u16::try_from(u32::from(c)).ok().and_then(unicode::to_oem).unwrap_or(b'_'),
        };
    }
    if label[0] == FREE {
        label[0] = FREE_ESCAPE;
    }
    Ok(label)
}

/// A stored label as text.
pub(super) fn label_text(label: &ShortName) -> String {
    let mut text = String::new();
    for (at, &byte) in label.iter().enumerate() {
        let byte = if at == 0 && byte == FREE_ESCAPE { FREE } else { byte };
        text.push(match byte {
            0x80.. => oem_char(byte),
            0..0x20 | 0x7f => '_',
            _ => char::from(byte),
        });
    }
    text.truncate(text.trim_end_matches(' ').len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &str) -> String {
        short_text(&unique_short(name, |_| false).unwrap(), 0)
    }

    #[test]
    fn capitals_that_fit_are_their_own_short_name() {
        for name in ["BOOTX64.EFI", "A", "README", "X~1.TXT", "12345678.123"] {
            assert_eq!(short_text(&exact_short(name).unwrap(), 0), name);
        }
        for name in ["a", "TOOLONGNAME", "A.B.C", "A B", ".A", "A.LONG", "A+B", "Ä"] {
            assert_eq!(exact_short(name), None, "{name}");
        }
    }

    #[test]
    fn short_names_are_made_as_the_specification_says() {
        assert_eq!(short("startup.nsh"), "STARTUP.NSH");
        assert_eq!(short("The quick brown.fox"), "THEQUI~1.FOX");
        assert_eq!(short("vmlinuz-6.1.0-13-amd64"), "VMLINU~1.0-1");
        assert_eq!(short(".bashrc"), "BASHRC~1");
        assert_eq!(short("a+b=c.txt"), "A_B_C~1.TXT");
        assert_eq!(short("x.jpeg"), "X~1.JPE");
        assert_eq!(short("日本"), "__~1");
    }

    #[test]
    fn numeric_tails_avoid_names_that_exist() {
        let mut taken: Vec<ShortName> = Vec::new();
        for index in 0..200 {
            let made = unique_short(&alloc::format!("long name {index}.txt"), |s| taken.contains(s)).unwrap();
            assert!(!taken.contains(&made));
            taken.push(made);
        }
    }

    #[test]
    fn long_names_come_back() {
        for name in ["a", "exactly13char", "exactly26chars-exactly26ch", "Ünïcödé 😀 name.txt", &"x".repeat(255)]
        {
            let short = unique_short(name, |_| false).unwrap();
            let mut long = LongName::default();
            for (slot, entry) in (7..).zip(long_entries(name, &short)) {
                long.push(&entry, slot);
            }
            assert_eq!(long.take(&short), Some((String::from(name), 7)));
        }
    }

    #[test]
    fn a_long_name_of_another_entry_is_not_used() {
        let short = *b"FOO     TXT";
        let mut long = LongName::default();
        for entry in long_entries("some longer name.txt", &short) {
            long.push(&entry, 0);
        }
        assert_eq!(long.take(b"BAR     TXT"), None);
        let mut entries = long_entries("some longer name.txt", &short);
        entries.remove(0);
        for entry in &entries {
            long.push(entry, 0);
        }
        assert_eq!(long.take(&short), None);
    }

    #[test]
    fn case_bytes_and_the_kanji_escape_are_honoured() {
        assert_eq!(short_text(b"FOO     TXT", LOWER_BASE), "foo.TXT");
        assert_eq!(short_text(b"FOO     TXT", LOWER_BASE | LOWER_EXTENSION), "foo.txt");
        assert_eq!(short_text(b"\x05OO     TXT", 0), "σOO.TXT");
        assert_eq!(label_text(&label("é½日").unwrap_or_default()), "É½_");
    }

    #[test]
    fn names_are_compared_without_case() {
        assert!(equal("BootX64.efi", "BOOTX64.EFI"));
        assert!(equal("Ünï", "ÜNÏ"));
        assert!(!equal("a", "b") && !equal("a", "ä"));
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "a/b", "a\\b", "a:b", "a\u{1}", "a*", &"x".repeat(256)] {
            assert!(check(name).is_err(), "{name}");
        }
        assert_eq!(tidy(" a. . "), "a");
    }
}
