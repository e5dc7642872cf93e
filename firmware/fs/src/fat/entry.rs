//! Directory entries and their time stamps (Microsoft FAT specification 1.03 §6).

use services::file::Attributes;
use uefi_raw::time::{Daylight, Time};

use super::layout::SLOT;
use super::name::{ATTRIBUTES, ShortName};

/// Attribute of the entry that holds the volume label.
pub(super) const VOLUME_ID: u8 = 0x08;
/// Attribute of a directory.
pub(super) const DIRECTORY: u8 = 0x10;
/// Attributes that a caller may know of.
const KNOWN: u8 = 0x37;
/// The first and the last year that a time stamp can say.
const YEARS: core::ops::RangeInclusive<u16> = 1980..=2107;

/// The short entry of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub name: ShortName,
    pub attributes: u8,
    pub case: u8,
    /// Creation: hundredths of a second up to 199, time, date.
    pub created: (u8, u16, u16),
    /// Date of the last access.
    pub accessed: u16,
    /// Time and date of the last write.
    pub modified: (u16, u16),
    pub cluster: u32,
    pub size: u32,
}

impl Entry {
    /// An empty file of this name, made now.
    pub fn new(name: ShortName, attributes: u8, now: &Time) -> Self {
        let mut entry =
            Self { name, attributes, case: 0, created: (0, 0, 0), accessed: 0, modified: (0, 0), cluster: 0, size: 0 };
        entry.set_created(now);
        entry.set_modified(now);
        entry
    }

    pub fn decode(raw: &[u8; SLOT]) -> Self {
        let word = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let mut name = [0; 11];
        name.copy_from_slice(&raw[..11]);
        Self {
            name,
            attributes: raw[ATTRIBUTES],
            case: raw[12],
            created: (raw[13], word(14), word(16)),
            accessed: word(18),
            modified: (word(22), word(24)),
            cluster: u32::from(word(20)) << 16 | u32::from(word(26)),
            size: u32::from_le_bytes([raw[28], raw[29], raw[30], raw[31]]),
        }
    }

    pub fn encode(&self) -> [u8; SLOT] {
        let mut raw = [0; SLOT];
        let mut word = |at: usize, value: u16| raw[at..at + 2].copy_from_slice(&value.to_le_bytes());
        word(14, self.created.1);
        word(16, self.created.2);
        word(18, self.accessed);
        word(20, (self.cluster >> 16) as u16);
        word(22, self.modified.0);
        word(24, self.modified.1);
        word(26, self.cluster as u16);
        raw[..11].copy_from_slice(&self.name);
        raw[ATTRIBUTES] = self.attributes;
        raw[12] = self.case;
        raw[13] = self.created.0;
        raw[28..].copy_from_slice(&self.size.to_le_bytes());
        raw
    }

    pub fn is_directory(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }

    /// Attributes as callers know them.
    pub fn public_attributes(&self) -> Attributes {
        Attributes::from_bits_truncate(u64::from(self.attributes & KNOWN))
    }

    pub fn created(&self) -> Time {
        time(self.created.2, self.created.1, self.created.0)
    }

    pub fn accessed(&self) -> Time {
        time(self.accessed, 0, 0)
    }

    pub fn modified(&self) -> Time {
        time(self.modified.1, self.modified.0, 0)
    }

    pub fn set_created(&mut self, at: &Time) {
        let hundredths = u32::from(at.second % 2) * 100 + (at.nanosecond / 10_000_000).min(99);
        self.created = (hundredths as u8, time_word(at), date_word(at));
    }

    pub fn set_accessed(&mut self, at: &Time) {
        self.accessed = date_word(at);
    }

    /// Sets the time of the last write, which is an access too.
    pub fn set_modified(&mut self, at: &Time) {
        self.modified = (time_word(at), date_word(at));
        self.set_accessed(at);
    }
}

fn date_word(time: &Time) -> u16 {
    let year = time.year.clamp(*YEARS.start(), *YEARS.end()) - YEARS.start();
    year << 9 | u16::from(time.month.clamp(1, 12)) << 5 | u16::from(time.day.clamp(1, 31))
}

fn time_word(time: &Time) -> u16 {
    let (hour, minute, second) = (time.hour.min(23), time.minute.min(59), time.second.min(59));
    u16::from(hour) << 11 | u16::from(minute) << 5 | u16::from(second / 2)
}

/// A time stamp; one that cannot be is the start of 1980, as a stamp that was never set would be.
fn time(date: u16, time: u16, hundredths: u8) -> Time {
    let hundredths = u32::from(hundredths.min(199));
    let parsed = Time {
        year: YEARS.start() + (date >> 9),
        month: (date >> 5 & 0x0f) as u8,
        day: (date & 0x1f) as u8,
        hour: (time >> 11) as u8,
        minute: (time >> 5 & 0x3f) as u8,
        second: ((time & 0x1f) * 2) as u8 + (hundredths / 100) as u8,
        pad1: 0,
        nanosecond: hundredths % 100 * 10_000_000,
        time_zone: Time::UNSPECIFIED_TIMEZONE,
        daylight: Daylight::empty(),
        pad2: 0,
    };
    if parsed.is_valid() {
        return parsed;
    }
    Time { year: *YEARS.start(), month: 1, day: 1, time_zone: Time::UNSPECIFIED_TIMEZONE, ..Time::invalid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back() {
        let raw: [u8; SLOT] = core::array::from_fn(|i| i as u8 * 7 + 1);
        assert_eq!(Entry::decode(&raw).encode(), raw);
    }

    #[test]
    fn times_come_back_to_their_resolution() {
        let now = Time { year: 2024, month: 2, day: 29, hour: 23, minute: 59, second: 59, ..Time::invalid() };
        let now = Time { nanosecond: 987_654_321, ..now };
        let entry = Entry::new(*b"A          ", 0, &now);
        let created = entry.created();
        assert_eq!((created.day, created.hour, created.second, created.nanosecond), (29, 23, 59, 980_000_000));
        assert_eq!((entry.modified().second, entry.accessed().day), (58, 29));
    }

    #[test]
    fn impossible_times_become_valid_ones() {
        assert!(time(0, 0, 0).is_valid());
        assert!(time(0xffff, 0xffff, 0xff).is_valid());
        for year in [0, 1900, 9999] {
            let mut entry = Entry::new(*b"A          ", 0, &Time::invalid());
            entry.set_created(&Time { year, month: 200, day: 200, hour: 200, ..Time::invalid() });
            assert!(entry.created().is_valid());
        }
    }
}
