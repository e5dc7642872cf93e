//! Dates of the Gregorian calendar as days since 1970-01-01.

/// Seconds in a day; UEFI knows no leap seconds.
pub const SECONDS_PER_DAY: i64 = 86_400;

/// Days in 400 years, after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;
const YEARS_PER_ERA: i64 = 400;
/// Days from 0000-03-01 to 1970-01-01. Counting years from March puts the leap day at the end of a year.
const EPOCH: i64 = 719_468;
/// March to January; from March on the lengths of months repeat every five months, which hold 153 days.
const FIRST_MONTH: i64 = 3;
const FIVE_MONTHS: i64 = 153;

/// A day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Date {
    /// Year, of any era.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

impl Date {
    /// The date that many days after 1970-01-01.
    pub const fn from_days(days: i64) -> Self {
        let days = days.saturating_add(EPOCH);
        let era = days.div_euclid(DAYS_PER_ERA);
        let day_of_era = days.rem_euclid(DAYS_PER_ERA);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - days_before_year(year_of_era);
        let month = (5 * day_of_year + 2) / FIVE_MONTHS;
        let day = day_of_year - days_before_month(month) + 1;
        let in_next_year = month >= 10;
        Self {
            year: year_of_era + era * YEARS_PER_ERA + in_next_year as i64,
            month: (month + FIRST_MONTH - 12 * in_next_year as i64) as u8,
            day: day as u8,
        }
    }

    /// Days since 1970-01-01; the date must be [valid](Self::is_valid).
    pub const fn to_days(self) -> i64 {
        let month = self.month as i64;
        let in_next_year = month < FIRST_MONTH;
        let year = self.year - in_next_year as i64;
        let month = month - FIRST_MONTH + 12 * in_next_year as i64;
        let era = year.div_euclid(YEARS_PER_ERA);
        let day_of_year = days_before_month(month) + self.day as i64 - 1;
        era * DAYS_PER_ERA + days_before_year(year.rem_euclid(YEARS_PER_ERA)) + day_of_year - EPOCH
    }

    /// Whether the month has that day.
    pub const fn is_valid(self) -> bool {
        self.day >= 1 && self.day <= days_in_month(self.year, self.month)
    }
}

/// Days of a month; 0 if there is no such month.
pub const fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap_year(year) => 29,
        2 => 28,
        _ => 0,
    }
}

const fn is_leap_year(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of an era before a year of it (0 to 399).
const fn days_before_year(year: i64) -> i64 {
    365 * year + year / 4 - year / 100
}

/// Days of a year before a month of it (0 is March).
const fn days_before_month(month: i64) -> i64 {
    (FIVE_MONTHS * month + 2) / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_have_their_dates() {
        for (days, year, month, day) in [
            (0, 1970, 1, 1),
            (-1, 1969, 12, 31),
            (11_016, 2000, 2, 29),
            (11_017, 2000, 3, 1),
            (16_455, 2015, 1, 20),
            (-25_567, 1900, 1, 1),
            (2_932_896, 9999, 12, 31),
        ] {
            let date = Date { year, month, day };
            assert_eq!(Date::from_days(days), date);
            assert_eq!(date.to_days(), days);
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let step = if cfg!(miri) { 997 } else { 1 };
        let mut before = Date::from_days(-30_001);
        for days in (-30_000..3_000_000).step_by(step) {
            let date = Date::from_days(days);
            assert!(date.is_valid() && date > before, "{date:?}");
            assert_eq!(date.to_days(), days);
            before = date;
        }
    }

    #[test]
    fn days_that_no_month_has_are_invalid() {
        for (year, month, day) in
            [(2023, 2, 29), (1900, 2, 29), (2024, 4, 31), (2024, 13, 1), (2024, 0, 1), (2024, 1, 0)]
        {
            assert!(!Date { year, month, day }.is_valid());
        }
        assert!(Date { year: 2000, month: 2, day: 29 }.is_valid());
    }

    #[test]
    fn extremes_do_not_overflow() {
        let _ = Date::from_days(i64::MAX);
        let _ = Date::from_days(i64::MIN);
    }
}
