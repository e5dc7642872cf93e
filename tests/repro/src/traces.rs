//! What a machine could leave in an image: paths, names, times; searched for.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use regex::bytes::Regex;

/// Where a file that an image was compiled from may seem to be: what `build-support/build` puts in place of the machine's folders,
/// and the compiler's own name for its library.
const REMAPPED: [&str; 5] = ["/src/", "/crates/", "/cargo/", "/target/", "/rustc/"];
/// Findings of one kind that a message lists.
const LISTED: usize = 3;
/// From 1601, where Windows and PE tools begin to count, to 1970.
const BEFORE_1970: Duration = Duration::from_secs(11_644_473_600);

/// What may not be in an image.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    texts: Vec<Text>,
    bytes: Vec<(String, Vec<u8>)>,
    intervals: Vec<(String, SystemTime, SystemTime)>,
}

#[derive(Debug, Clone)]
struct Text {
    what: String,
    text: String,
    /// Whether it counts only as a word of its own. What follows a string in an image may be the next string, so most do not.
    whole: bool,
}

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// As it is there.
    pub text: String,
    /// Where, in bytes from the start.
    pub offset: usize,
}

impl Traces {
    /// A folder of the machine.
    pub fn path(&mut self, what: &str, path: &Path) {
        let text = path.display().to_string();
        // What every build names anyway tells nothing of this one.
        if text != "/" && !REMAPPED.contains(&format!("{text}/").as_str()) {
            // `/root` is short enough to begin other names.
            let whole = text.matches('/').count() < 2;
            self.texts.push(Text { what: what.to_owned(), text, whole });
        }
    }

    /// A name.
    pub fn text(&mut self, what: &str, text: &str) {
        self.texts.push(Text { what: what.to_owned(), text: text.to_owned(), whole: false });
    }

    /// A day, as people and as structures of the field write it.
    pub fn date(&mut self, what: &str, time: SystemTime) {
        let (year, month, day) = civil(days(time));
        let name = MONTHS[month as usize - 1];
        for text in [
            format!("{year}-{month:02}-{day:02}"),
            format!("{year}{month:02}{day:02}"),
            format!("{year}/{month:02}/{day:02}"),
            format!("{month:02}/{day:02}/{year}"),
            format!("{day:02}/{month:02}/{year}"),
            format!("{day:02}.{month:02}.{year}"),
            format!("{name} {day:2} {year}"),
            format!("{name} {day}, {year}"),
            format!("{day} {name} {year}"),
        ] {
            self.text(what, &text);
        }
        // EFI_TIME, with which a variable's header ends; and the same in BCD.
        let [low, high] = u16::try_from(year).unwrap_or(u16::MAX).to_le_bytes();
        self.bytes.push((what.to_owned(), vec![low, high, month, day]));
        let bcd = |number: u32| u8::try_from(number / 10 % 10 * 16 + number % 10).unwrap_or_default();
        self.bytes.push((what.to_owned(), vec![bcd(year / 100), bcd(year % 100), bcd(month.into()), bcd(day.into())]));
    }

    /// A time between `from` and `to`, as a number.
    pub fn interval(&mut self, what: &str, from: SystemTime, to: SystemTime) {
        self.intervals.push((what.to_owned(), from, to));
    }

    /// All findings in an image, a line each.
    #[must_use]
    pub fn lines(&self, name: &str, image: &[u8]) -> Vec<String> {
        let line = |Finding { what, text, offset }| format!("{name} holds at {offset:#x} the {what}: {text}");
        self.search(image).into_iter().map(line).collect()
    }

    /// All findings in an image.
    #[must_use]
    pub fn search(&self, image: &[u8]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for Text { what, text, whole } in &self.texts {
            for bytes in [text.as_bytes().to_vec(), text.encode_utf16().flat_map(u16::to_le_bytes).collect()] {
                let width = bytes.len() / text.len().max(1);
                let counts = |at: &usize| !whole || ends_word(image, at + bytes.len(), width);
                findings.extend(find(image, &bytes).filter(counts).take(LISTED).map(|offset| Finding {
                    what: what.clone(),
                    text: text.clone(),
                    offset,
                }));
            }
        }
        for (what, bytes) in &self.bytes {
            findings.extend(find(image, bytes).take(LISTED).map(|offset| Finding {
                what: what.clone(),
                text: hex::encode(bytes),
                offset,
            }));
        }
        for (what, from, to) in &self.intervals {
            findings.extend(times(image, *from, *to).into_iter().take(LISTED).map(|(offset, text)| Finding {
                what: what.clone(),
                text,
                offset,
            }));
        }
        findings.extend(foreign_sources(image));
        findings
    }
}

/// Whether no character of a name is at `at`, in characters of `width` bytes.
fn ends_word(image: &[u8], at: usize, width: usize) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !image.get(at..at + width).is_some_and(|next| is_name(&next[0]) && next[1..].iter().all(|byte| *byte == 0))
}

fn find<'a>(image: &'a [u8], bytes: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    image.windows(bytes.len().max(1)).enumerate().filter(move |(_, window)| *window == bytes).map(|(offset, _)| offset)
}

/// Times in an interval: seconds in decimal; seconds, milliseconds, microseconds, nanoseconds since 1970 and units of 100 ns since
/// 1601, 64 bits wide. 32 bits would be met by chance; where PE files have such, [`pe_times`] looks.
fn times(image: &[u8], from: SystemTime, to: SystemTime) -> Vec<(usize, String)> {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (from, to) = (since(from), since(to));
    let seconds = from.as_secs()..=to.as_secs();
    let ranges = [
        (from.as_secs().into(), to.as_secs().into()),
        (from.as_millis(), to.as_millis()),
        (from.as_micros(), to.as_micros()),
        (from.as_nanos(), to.as_nanos()),
        ((from + BEFORE_1970).as_nanos() / 100, (to + BEFORE_1970).as_nanos() / 100),
    ];
    let mut found: Vec<(usize, String)> =
        pe_times(image).into_iter().filter(|(_, time)| seconds.contains(time)).map(describe).collect();
    for (offset, window) in image.windows(8).enumerate() {
        let [a, b, c, d, e, f, g, h] = *window else { continue };
        let number = u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        if ranges.iter().any(|(from, to)| (from..=to).contains(&&number)) {
            found.push((offset, number.to_string()));
        }
    }
    let decimal = Regex::new(r"(?-u)[0-9]{10}").ok();
    for text in decimal.iter().flat_map(|decimal| decimal.find_iter(image)) {
        let number = std::str::from_utf8(text.as_bytes()).ok().and_then(|text| text.parse().ok());
        if number.is_some_and(|number: u64| seconds.contains(&number)) {
            found.push((text.start(), String::from_utf8_lossy(text.as_bytes()).into_owned()));
        }
    }
    found
}

fn describe((offset, time): (usize, u64)) -> (usize, String) {
    (offset, format!("{time} (TimeDateStamp of a PE file)"))
}

/// The time stamps in the headers of PE files inside an image: offset and seconds since 1970.
fn pe_times(image: &[u8]) -> Vec<(usize, u64)> {
    // The signature is followed by Machine (x86-64), NumberOfSections, and TimeDateStamp.
    const SIGNATURE: [u8; 6] = [b'P', b'E', 0, 0, 0x64, 0x86];
    const TIME: usize = 8;
    let time = |at: usize| {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        Some((at, u32::from_le_bytes(bytes).into()))
    };
    find(image, &SIGNATURE).filter_map(|at| time(at + TIME)).collect()
}

/// Names of source and object files that do not begin as the build makes them begin.
fn foreign_sources(image: &[u8]) -> Vec<Finding> {
    let Ok(file) = Regex::new(r"(?-u)/[A-Za-z0-9_.+@~ -]+(?:/[A-Za-z0-9_.+@~ -]+)+\.(?:rs|s|S|c|h|o|rlib|toml|ld)\b")
    else {
        return Vec::new();
    };
    let is_remapped = |text: &str| REMAPPED.iter().any(|folder| text.starts_with(folder));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let is_start =
        |at: usize| !at.checked_sub(1).and_then(|before| image.get(before)).is_some_and(u8::is_ascii_alphanumeric);
    file.find_iter(image)
        .filter(|found| is_start(found.start()))
        .map(|found| Finding {
            what: "path of a source file".into(),
            text: text(found.as_bytes()),
            offset: found.start(),
        })
        .filter(|finding| !is_remapped(&finding.text))
        .take(LISTED)
        .collect()
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn days(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400
}

/// Year, month and day of a number of days since 1970.
fn civil(mut days: u64) -> (u32, u8, u8) {
    let is_leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, u8::try_from(days + 1).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn around(bytes: &[u8]) -> Vec<u8> {
        [&[0xff; 37][..], bytes, &[0xee; 50]].concat()
    }

    fn found(traces: &Traces, bytes: &[u8]) -> Vec<(String, usize)> {
        traces.search(&around(bytes)).into_iter().map(|finding| (finding.what, finding.offset)).collect()
    }

    fn folder() -> Traces {
        let mut traces = Traces::default();
        traces.path("home", Path::new("/home/someone"));
        traces
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_folder_is_found_alone_and_in_front_of_a_file() {
        assert_eq!(found(&folder(), b"/home/someone"), [("home".to_owned(), 37)]);
        assert_eq!(found(&folder(), b"x=/home/someone/x"), [("home".to_owned(), 39)]);
    }

    #[test]
    fn a_folder_is_found_in_utf_16() {
        let wide: Vec<u8> = "/home/someone/x".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(found(&folder(), &wide), [("home".to_owned(), 37)]);
    }

    #[test]
    fn a_string_that_follows_at_once_hides_nothing() {
        assert_eq!(found(&folder(), b"/home/someoneelse"), [("home".to_owned(), 37)]);
    }

    #[test]
    fn a_short_folder_counts_as_a_word() {
        let mut traces = Traces::default();
        traces.path("home", Path::new("/root"));
        assert_eq!(found(&traces, b"pci/root_bridge"), []);
        assert_eq!(found(&traces, b"in /root."), [("home".to_owned(), 40)]);
    }

    #[test]
    fn a_folder_that_every_build_names_is_not_searched_for() {
        let mut traces = Traces::default();
        traces.path("checkout", Path::new("/src"));
        assert_eq!(found(&traces, b"/src/firmware/entry/src/main.rs"), []);
    }

    #[test]
    fn a_source_file_of_the_machine_is_found_without_knowing_its_folder() {
        let what = "path of a source file".to_owned();
        assert_eq!(found(&Traces::default(), b"/opt/build/lib.rs"), [(what, 37)]);
        assert_eq!(found(&Traces::default(), b"/crates/log-0.4.29/src/lib.rs"), []);
        assert_eq!(found(&Traces::default(), b"firmware/entry/src/lib.rs"), []);
    }

    #[test]
    fn a_day_is_found_in_every_form() {
        let mut traces = Traces::default();
        traces.date("date", at(0) + DAY * 20_785);
        let forms: [&[u8]; 8] = [
            b"2026-11-28",
            b"20261128",
            b"11/28/2026",
            b"28.11.2026",
            b"Nov 28 2026",
            b"28 Nov 2026",
            &[0xea, 0x07, 11, 28],
            &[0x20, 0x26, 0x11, 0x28],
        ];
        for form in forms {
            assert_eq!(found(&traces, form), [("date".to_owned(), 37)], "{form:?}");
        }
        assert_eq!(found(&traces, b"2026-11-27"), []);
    }

    #[test]
    fn a_time_is_found_in_every_form() {
        let mut traces = Traces::default();
        traces.interval("time", at(1_795_800_000), at(1_795_800_060));
        let second = 1_795_800_030_u64;
        let mut pe = b"PE\0\0\x64\x86\x04\x00".to_vec();
        pe.extend_from_slice(&u32::try_from(second).unwrap().to_le_bytes());
        let forms: [&[u8]; 5] = [
            &second.to_le_bytes(),
            &(second * 1_000_000_000).to_le_bytes(),
            &((second + 11_644_473_600) * 10_000_000).to_le_bytes(),
            b"1795800030",
            &pe,
        ];
        for form in forms {
            assert_eq!(found(&traces, form).len(), 1, "{form:?}");
        }
        assert_eq!(found(&traces, &(second + 60).to_le_bytes()), []);
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_818), (2026, 12, 31));
    }

    #[test]
    fn the_message_names_image_place_and_kind() {
        let said = folder().lines("OVMF.fd", b"..../home/someone/");
        assert_eq!(said, ["OVMF.fd holds at 0x4 the home: /home/someone"]);
    }
}
