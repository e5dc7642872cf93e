//! Comparison, case and patterns of UCS-2 strings, and FAT's 8.3 characters (UEFI 2.10 §16.5).
//!
//! Case is that of the Unicode character database where a character maps to a single one of the same plane. Letters
//! that are not ASCII never fold into ASCII (`ı`, `ſ`, `K`), for file names must not become equal that way.

use core::cmp::Ordering;

/// Compares without regard to case.
pub fn compare(a: &[u16], b: &[u16]) -> Ordering {
    a.iter().map(|unit| fold(*unit)).cmp(b.iter().map(|unit| fold(*unit)))
}

/// Whether `text` matches `pattern` without regard to case: `*` is any number of characters, `?` any one, `[abc]` one
/// of these, `[a-z]` one of the range. A set that is not closed matches nothing.
///
/// Takes time proportional to the product of the lengths at most.
pub fn matches(text: &[u16], pattern: &[u16]) -> bool {
    let (mut text, mut pattern) = (text, pattern);
    // Where to go on with the last `*` taking one character more.
    let mut retry: Option<(&[u16], &[u16])> = None;
    loop {
        if let Some((&STAR, rest)) = pattern.split_first() {
            pattern = rest;
            retry = Some((text, rest));
            continue;
        }
        let step = match text.split_first() {
            None if pattern.is_empty() => return true,
            None => None,
            Some((unit, rest)) => match_one(*unit, pattern).map(|pattern| (rest, pattern)),
        };
        if let Some(next) = step {
            (text, pattern) = next;
            continue;
        }
        match retry {
            Some(([_, shorter @ ..], after_star)) => {
                (text, pattern) = (shorter, after_star);
                retry = Some((shorter, after_star));
            }
            _ => return false,
        }
    }
}

/// Makes all letters small.
pub fn to_lower(text: &mut [u16]) {
    text.iter_mut().for_each(|unit| *unit = lower(*unit));
}

/// Makes all letters capital.
pub fn to_upper(text: &mut [u16]) {
    text.iter_mut().for_each(|unit| *unit = upper(*unit));
}

/// The character of a byte of code page 437.
pub fn from_oem(byte: u8) -> u16 {
    match byte.checked_sub(0x80) {
        None => byte.into(),
        Some(index) => OEM[usize::from(index)],
    }
}

/// The byte of code page 437 for a character in a short file name, in capitals: `None` if there is none, or if FAT does
/// not allow it.
pub fn to_fat(unit: u16) -> Option<u8> {
    let unit = upper(unit);
    match u8::try_from(unit) {
        Ok(byte @ 0x21..0x7F) if !FAT_ILLEGAL.contains(&byte) => Some(byte),
        Ok(0..0x80) => None,
        _ => to_oem(unit),
    }
}

/// The byte of code page 437 for a character that is not ASCII.
pub fn to_oem(unit: u16) -> Option<u8> {
    OEM.iter().position(|oem| *oem == unit).and_then(|index| u8::try_from(index + 0x80).ok())
}

const STAR: u16 = b'*' as u16;
const QUESTION_MARK: u16 = b'?' as u16;
const SET_OPEN: u16 = b'[' as u16;
const SET_CLOSE: u16 = b']' as u16;
const RANGE: u16 = b'-' as u16;

/// What no short name has, beyond control characters and the space.
const FAT_ILLEGAL: &[u8] = b"\"*+,./:;<=>?[\\]|";

/// The upper half of code page 437.
const OEM: [u16; 128] = {
    let characters = [
        'Ç', 'ü', 'é', 'â', 'ä', 'à', 'å', 'ç', 'ê', 'ë', 'è', 'ï', 'î', 'ì', 'Ä', 'Å', 'É', 'æ', 'Æ', 'ô', 'ö', 'ò',
        'û', 'ù', 'ÿ', 'Ö', 'Ü', '¢', '£', '¥', '₧', 'ƒ', 'á', 'í', 'ó', 'ú', 'ñ', 'Ñ', 'ª', 'º', '¿', '⌐', '¬', '½',
        '¼', '¡', '«', '»', '░', '▒', '▓', '│', '┤', '╡', '╢', '╖', '╕', '╣', '║', '╗', '╝', '╜', '╛', '┐', '└', '┴',
        '┬', '├', '─', '┼', '╞', '╟', '╚', '╔', '╩', '╦', '╠', '═', '╬', '╧', '╨', '╤', '╥', '╙', '╘', '╒', '╓', '╫',
        '╪', '┘', '┌', '█', '▄', '▌', '▐', '▀', 'α', 'ß', 'Γ', 'π', 'Σ', 'σ', 'µ', 'τ', 'Φ', 'Θ', 'Ω', 'δ', '∞', 'φ',
        'ε', '∩', '≡', '±', '≥', '≤', '⌠', '⌡', '÷', '≈', '°', '∙', '·', '√', 'ⁿ', '²', '■', '\u{A0}',
    ];
    let mut units = [0; 128];
    let mut index = 0;
    while index < units.len() {
        units[index] = characters[index] as u16;
        index += 1;
    }
    units
};

/// The pattern behind its first element, if `unit` matches that.
fn match_one(unit: u16, pattern: &[u16]) -> Option<&[u16]> {
    let (first, rest) = pattern.split_first()?;
    match *first {
        QUESTION_MARK => Some(rest),
        SET_OPEN => match_set(unit, rest),
        first => (fold(unit) == fold(first)).then_some(rest),
    }
}

/// The pattern behind the set that `pattern` is the inside of, if `unit` is in it.
fn match_set(unit: u16, mut pattern: &[u16]) -> Option<&[u16]> {
    let unit = fold(unit);
    let mut found = false;
    loop {
        match *pattern {
            [SET_CLOSE, ref rest @ ..] => return found.then_some(rest),
            [from, RANGE, to, ref rest @ ..] if to != SET_CLOSE => {
                found |= (fold(from)..=fold(to)).contains(&unit);
                pattern = rest;
            }
            [member, ref rest @ ..] => {
                found |= fold(member) == unit;
                pattern = rest;
            }
            [] => return None,
        }
    }
}

/// One representative for all letters that differ in case only.
fn fold(unit: u16) -> u16 {
    lower(upper(unit))
}

fn lower(unit: u16) -> u16 {
    map(unit, |letter| single(letter.to_lowercase()))
}

fn upper(unit: u16) -> u16 {
    map(unit, |letter| single(letter.to_uppercase()))
}

fn map(unit: u16, case: impl Fn(char) -> Option<char>) -> u16 {
    let mapped = char::from_u32(unit.into()).and_then(case).and_then(|letter| u16::try_from(u32::from(letter)).ok());
    mapped.filter(|mapped| unit < 0x80 || *mapped >= 0x80).unwrap_or(unit)
}

fn single(mut letters: impl Iterator<Item = char>) -> Option<char> {
    letters.next().filter(|_| letters.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    #[test]
    fn comparison_ignores_case() {
        for (a, b, order) in [
            ("", "", Ordering::Equal),
            ("abc", "ABC", Ordering::Equal),
            ("abc", "abd", Ordering::Less),
            ("ab", "abc", Ordering::Less),
            ("b", "ABC", Ordering::Greater),
            ("äöü", "ÄÖÜ", Ordering::Equal),
            ("σ", "Σ", Ordering::Equal),
            ("ς", "Σ", Ordering::Equal),
            ("ж", "Ж", Ordering::Equal),
            ("ß", "SS", Ordering::Greater),
            ("ı", "i", Ordering::Greater),
            ("\u{212A}", "k", Ordering::Greater),
            ("日", "日", Ordering::Equal),
        ] {
            assert_eq!(compare(&units(a), &units(b)), order, "{a} {b}");
        }
    }

    #[test]
    fn patterns_match_as_specified() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "*", true),
            ("", "?", false),
            ("a", "", false),
            ("abc", "ABC", true),
            ("abc", "a?c", true),
            ("ac", "a?c", false),
            ("startup.nsh", "*.nsh", true),
            ("startup.nsh", "*.NSH", true),
            ("startup.nsh", "s*t*.?sh", true),
            ("startup.nsh", "*.efi", false),
            ("a.b.c", "*.c", true),
            ("aaab", "*a*b", true),
            ("fs0:", "fs[0-9]:", true),
            ("fsx:", "fs[0-9]:", false),
            ("b", "[abc]", true),
            ("B", "[abc]", true),
            ("d", "[abc]", false),
            ("M", "[a-z]", true),
            ("x", "[a-cx-z]", true),
            ("-", "[a-]", true),
            ("a", "[]", false),
            ("a", "[a", false),
            ("[", "[[]", true),
            ("ab", "[a-z][a-z]", true),
            ("äÖ", "Ä?", true),
            ("ж", "[А-Я]", true),
        ] {
            assert_eq!(matches(&units(text), &units(pattern)), expected, "{text} {pattern}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn pattern_of_many_stars_takes_no_exponential_time() {
        let text = units(&"a".repeat(3000));
        let pattern = units(&("*a".repeat(500) + "b"));
        assert!(!matches(&text, &pattern));
    }

    #[test]
    fn case_changes_in_place() {
        let mut text = units("aÄσЖ1ßÿ");
        to_upper(&mut text);
        assert_eq!(text, units("AÄΣЖ1ßŸ"));
        to_lower(&mut text);
        assert_eq!(text, units("aäσж1ßÿ"));
    }

    #[test]
    fn surrogates_stay() {
        let mut text = units("😀");
        to_upper(&mut text);
        assert_eq!(text, units("😀"));
    }

    #[test]
    fn short_name_characters_are_capital_and_legal() {
        let fat = |letter: char| to_fat(letter as u16);
        assert_eq!(fat('a'), Some(b'A'));
        assert_eq!(fat('~'), Some(b'~'));
        assert_eq!(fat('ä'), Some(0x8E));
        assert_eq!(fat('+'), None);
        assert_eq!(fat(' '), None);
        assert_eq!(fat('\u{7F}'), None);
        assert_eq!(fat('日'), None);
    }

    #[test]
    fn oem_bytes_read_back() {
        for byte in 0x80..=0xFF {
            let unit = from_oem(byte);
            assert!(unit >= 0x80);
            assert!(upper(unit) != unit || to_fat(unit) == Some(byte), "{byte:#x}");
        }
        assert_eq!(from_oem(b'A'), u16::from(b'A'));
    }
}
