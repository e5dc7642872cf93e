//! The clock behind GetTime and SetTime (UEFI 2.10 §8.3): Xen's wall clock, and what SetTime changed about it.

use uefi_raw::time::{Daylight, Time};

use crate::calendar::{Date, SECONDS_PER_DAY};

const NANOSECONDS: i128 = 1_000_000_000;
const SECONDS_PER_MINUTE: i64 = 60;
const SECONDS_PER_HOUR: i64 = 3_600;

/// A date or time out of the ranges of EFI_TIME.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidTime;

/// Difference between the reference clock and what the user set. Lost at reset, like the rest of a guest's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Nanoseconds to add to the reference for UTC (or for local time, if the time zone is unspecified).
    offset: i128,
    time_zone: i16,
    daylight: Daylight,
}

impl Clock {
    /// A clock that shows the reference as UTC.
    pub const fn new() -> Self {
        Self { offset: 0, time_zone: 0, daylight: Daylight::empty() }
    }

    /// The time when the reference clock shows `now` nanoseconds since 1970.
    pub fn time(&self, now: u64) -> Result<Time, InvalidTime> {
        let utc = i128::from(now) + self.offset;
        let seconds = i64::try_from(utc.div_euclid(NANOSECONDS)).map_err(|_| InvalidTime)?;
        let seconds = seconds.checked_sub(zone_seconds(self.time_zone)).ok_or(InvalidTime)?;
        let date = Date::from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let second = seconds.rem_euclid(SECONDS_PER_DAY);
        let time = Time {
            year: u16::try_from(date.year).map_err(|_| InvalidTime)?,
            month: date.month,
            day: date.day,
            hour: (second / SECONDS_PER_HOUR) as u8,
            minute: (second % SECONDS_PER_HOUR / SECONDS_PER_MINUTE) as u8,
            second: (second % SECONDS_PER_MINUTE) as u8,
            pad1: 0,
            nanosecond: utc.rem_euclid(NANOSECONDS) as u32,
            time_zone: self.time_zone,
            daylight: self.daylight,
            pad2: 0,
        };
        if time.is_valid() { Ok(time) } else { Err(InvalidTime) }
    }

    /// Makes the clock show `time` when the reference clock shows `now` nanoseconds since 1970.
    pub fn set(&mut self, time: &Time, now: u64) -> Result<(), InvalidTime> {
        let date = Date { year: i64::from(time.year), month: time.month, day: time.day };
        let daylight = Daylight::from_bits(time.daylight.bits()).ok_or(InvalidTime)?;
        if !time.is_valid() || !date.is_valid() {
            return Err(InvalidTime);
        }
        let seconds = date.to_days() * SECONDS_PER_DAY
            + i64::from(time.hour) * SECONDS_PER_HOUR
            + i64::from(time.minute) * SECONDS_PER_MINUTE
            + i64::from(time.second)
            + zone_seconds(time.time_zone);
        let utc = i128::from(seconds) * NANOSECONDS + i128::from(time.nanosecond);
        *self = Self { offset: utc - i128::from(now), time_zone: time.time_zone, daylight };
        Ok(())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Seconds from local time to UTC (`Localtime = UTC - TimeZone`).
fn zone_seconds(time_zone: i16) -> i64 {
    if time_zone == Time::UNSPECIFIED_TIMEZONE { 0 } else { i64::from(time_zone) * SECONDS_PER_MINUTE }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_123_456_789;

    fn fields(time: Time) -> (u16, u8, u8, u8, u8, u8, u32, i16) {
        let Time { year, month, day, hour, minute, second, nanosecond, time_zone, .. } = time;
        (year, month, day, hour, minute, second, nanosecond, time_zone)
    }

    #[test]
    fn the_reference_is_shown_as_utc() {
        let time = Clock::new().time(NOW).unwrap();
        assert_eq!(fields(time), (2023, 11, 14, 22, 13, 20, 123_456_789, 0));
    }

    #[test]
    fn what_was_set_is_shown_and_goes_on() {
        let mut clock = Clock::new();
        let mut time = clock.time(NOW).unwrap();
        (time.year, time.month, time.day, time.time_zone) = (2031, 2, 28, -330);
        (time.hour, time.minute, time.second) = (23, 59, 59);
        time.daylight = Daylight::ADJUST_DAYLIGHT;
        clock.set(&time, NOW).unwrap();
        assert_eq!(clock.time(NOW), Ok(time));
        let later = clock.time(NOW + 1_000_000_000).unwrap();
        assert_eq!(fields(later), (2031, 3, 1, 0, 0, 0, 123_456_789, -330));
        assert_eq!(later.daylight, Daylight::ADJUST_DAYLIGHT);
    }

    #[test]
    fn a_zone_west_of_greenwich_is_behind_utc() {
        let mut clock = Clock::new();
        let mut time = clock.time(NOW).unwrap();
        time.time_zone = 300;
        clock.set(&time, NOW).unwrap();
        time.time_zone = Time::UNSPECIFIED_TIMEZONE;
        let zoned = clock.offset;
        clock.set(&time, NOW).unwrap();
        assert_eq!(zoned - clock.offset, 5 * 3600 * NANOSECONDS);
        assert_eq!(clock.time(NOW), Ok(time));
    }

    #[test]
    fn the_whole_range_of_years_can_be_set() {
        for year in [1900, 9999] {
            let mut clock = Clock::new();
            let time = Time { year, month: 12, day: 31, time_zone: 1440, ..Time::invalid() };
            clock.set(&time, NOW).unwrap();
            assert_eq!(clock.time(NOW), Ok(time));
            assert_eq!(clock.time(u64::MAX).is_ok(), year == 1900);
        }
    }

    #[test]
    fn times_out_of_range_are_refused_and_change_nothing() {
        let mut clock = Clock::new();
        let good = clock.time(NOW).unwrap();
        for bad in [
            Time { year: 1899, ..good },
            Time { month: 13, ..good },
            Time { month: 2, day: 30, ..good },
            Time { hour: 24, ..good },
            Time { nanosecond: 1_000_000_000, ..good },
            Time { time_zone: 1441, ..good },
            Time { daylight: Daylight::from_bits_retain(4), ..good },
        ] {
            assert_eq!(clock.set(&bad, NOW), Err(InvalidTime));
        }
        assert_eq!(clock, Clock::new());
    }
}
