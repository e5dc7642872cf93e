//! The CMOS real-time clock of an HVM guest, an MC146818 as Xen emulates it (UEFI 2.10 §8.3 over the data sheet's registers).
//!
//! The clock holds what was set as it was set: which time zone that is it does not know, so time zone and daylight are kept
//! here and are lost at reset. Until somebody sets them the zone is unspecified, which means local time: what the toolstack
//! lets the clock start with, UTC unless the guest's configuration says `localtime`.

use uefi_raw::time::{Daylight, Time};

use crate::calendar::Date;

/// The clock's registers, one byte each.
pub trait Cmos {
    /// Reads register `index`.
    fn read(&mut self, index: u8) -> u8;
    /// Writes register `index`.
    fn write(&mut self, index: u8, value: u8);
}

/// Registers (MC146818 data sheet).
mod register {
    pub const SECONDS: u8 = 0x00;
    pub const MINUTES: u8 = 0x02;
    pub const HOURS: u8 = 0x04;
    pub const DAY_OF_WEEK: u8 = 0x06;
    pub const DAY: u8 = 0x07;
    pub const MONTH: u8 = 0x08;
    pub const YEAR: u8 = 0x09;
    pub const A: u8 = 0x0A;
    pub const B: u8 = 0x0B;
    /// Where PCs keep the century, as the FADT of Xen's HVM guests says too.
    pub const CENTURY: u8 = 0x32;
}

/// Register A: the registers are about to change.
const UPDATING: u8 = 1 << 7;
/// Register B: no updates, so that all registers can be set.
const SETTING: u8 = 1 << 7;
/// Register B: numbers are binary, not decimal digits of 4 bits each.
const BINARY: u8 = 1 << 2;
/// Register B: hours from 0 to 23.
const HOURS_24: u8 = 1 << 1;
/// Hours from 1 to 12: the afternoon.
const AFTERNOON: u8 = 1 << 7;

/// Looks at register A until an update must be over. It takes 2 ms; a look costs at least a microsecond.
const UPDATE_LOOKS: usize = 4_000;
/// Readings until two are the same.
const READINGS: usize = 4;
/// The century where the clock keeps none: a register that is not there, or holds nonsense.
const CENTURY: u16 = 20;

/// Why there is no time, or it could not be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RtcError {
    /// The clock does not work, or shows what is no time.
    Device,
    /// What should be set is no time.
    InvalidTime,
}

/// What the clock itself does not keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rtc {
    time_zone: i16,
    daylight: Daylight,
}

/// What the clock shows, as its registers have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reading {
    seconds: u8,
    minutes: u8,
    hours: u8,
    day: u8,
    month: u8,
    year: u8,
    century: u8,
}

impl Rtc {
    /// A clock in no particular time zone.
    pub const fn new() -> Self {
        Self { time_zone: Time::UNSPECIFIED_TIMEZONE, daylight: Daylight::empty() }
    }

    /// The time.
    pub fn time(&self, cmos: &mut impl Cmos) -> Result<Time, RtcError> {
        let reading = settled(cmos)?;
        let format = Format(cmos.read(register::B));
        let number = |value| format.number(value).ok_or(RtcError::Device);
        let time = Time {
            year: format.century(reading.century) * 100 + u16::from(number(reading.year)?),
            month: number(reading.month)?,
            day: number(reading.day)?,
            hour: format.hour(reading.hours).ok_or(RtcError::Device)?,
            minute: number(reading.minutes)?,
            second: number(reading.seconds)?,
            pad1: 0,
            nanosecond: 0,
            time_zone: self.time_zone,
            daylight: self.daylight,
            pad2: 0,
        };
        if is_valid(&time) { Ok(time) } else { Err(RtcError::Device) }
    }

    /// Sets the clock. The nanoseconds are lost.
    pub fn set(&mut self, time: &Time, cmos: &mut impl Cmos) -> Result<(), RtcError> {
        if !is_valid(time) {
            return Err(RtcError::InvalidTime);
        }
        let control = cmos.read(register::B);
        let format = Format(control);
        let (century, year) = (time.year / 100, time.year % 100);
        // The clock counts days of this century's years only, and may not keep another one.
        cmos.write(register::CENTURY, format.encode(century as u8));
        if format.century(cmos.read(register::CENTURY)) != century {
            return Err(RtcError::Device);
        }
        let day_of_week = (date(time).to_days() + 4).rem_euclid(7) as u8 + 1;
        cmos.write(register::B, control | SETTING);
        cmos.write(register::SECONDS, format.encode(time.second));
        cmos.write(register::MINUTES, format.encode(time.minute));
        cmos.write(register::HOURS, format.encode_hour(time.hour));
        cmos.write(register::DAY_OF_WEEK, format.encode(day_of_week));
        cmos.write(register::DAY, format.encode(time.day));
        cmos.write(register::MONTH, format.encode(time.month));
        cmos.write(register::YEAR, format.encode(year as u8));
        cmos.write(register::B, control & !SETTING);
        *self = Self { time_zone: time.time_zone, daylight: time.daylight };
        Ok(())
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

/// Register B, for how numbers are written.
#[derive(Clone, Copy)]
struct Format(u8);

impl Format {
    fn number(self, value: u8) -> Option<u8> {
        if self.0 & BINARY != 0 {
            return Some(value);
        }
        let (tens, ones) = (value >> 4, value & 0xF);
        (tens < 10 && ones < 10).then_some(tens * 10 + ones)
    }

    fn encode(self, number: u8) -> u8 {
        if self.0 & BINARY != 0 { number } else { ((number / 10) << 4) | (number % 10) }
    }

    fn century(self, value: u8) -> u16 {
        let kept = self.number(value).map(u16::from);
        kept.filter(|century| (19..=99).contains(century)).unwrap_or(CENTURY)
    }

    fn hour(self, value: u8) -> Option<u8> {
        if self.0 & HOURS_24 != 0 {
            return self.number(value);
        }
        let hour = self.number(value & !AFTERNOON).filter(|hour| (1..=12).contains(hour))?;
        Some(hour % 12 + if value & AFTERNOON != 0 { 12 } else { 0 })
    }

    fn encode_hour(self, hour: u8) -> u8 {
        if self.0 & HOURS_24 != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { AFTERNOON } else { 0 };
        self.encode(if hour.is_multiple_of(12) { 12 } else { hour % 12 }) | afternoon
    }
}

/// A reading that no update has come into.
fn settled(cmos: &mut impl Cmos) -> Result<Reading, RtcError> {
    let mut before = reading(cmos)?;
    for _ in 1..READINGS {
        let after = reading(cmos)?;
        if after == before {
            return Ok(after);
        }
        before = after;
    }
    Err(RtcError::Device)
}

fn reading(cmos: &mut impl Cmos) -> Result<Reading, RtcError> {
    if !(0..UPDATE_LOOKS).any(|_| cmos.read(register::A) & UPDATING == 0) {
        return Err(RtcError::Device);
    }
    Ok(Reading {
        seconds: cmos.read(register::SECONDS),
        minutes: cmos.read(register::MINUTES),
        hours: cmos.read(register::HOURS),
        day: cmos.read(register::DAY),
        month: cmos.read(register::MONTH),
        year: cmos.read(register::YEAR),
        century: cmos.read(register::CENTURY),
    })
}

fn date(time: &Time) -> Date {
    Date { year: time.year.into(), month: time.month, day: time.day }
}

/// Whether UEFI allows it and the month has that day.
fn is_valid(time: &Time) -> bool {
    time.is_valid() && date(time).is_valid() && Daylight::from_bits(time.daylight.bits()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that a test sets, register by register.
    struct Fake {
        registers: [u8; 128],
        /// Looks at register A that show an update.
        updating: usize,
        /// Reads after which a second passes.
        ticks_at: Option<usize>,
        reads: usize,
        /// Writes to the century vanish.
        no_century: bool,
        /// A write while the clock was not stopped.
        torn: bool,
    }

    impl Cmos for Fake {
        fn read(&mut self, index: u8) -> u8 {
            self.reads += 1;
            if self.ticks_at == Some(self.reads) {
                self.registers[..10].copy_from_slice(&[0x00, 0, 0x00, 0, 0x00, 0, 0x06, 0x01, 0x01, 0x00]);
                self.registers[0x32] = 0x20;
            }
            match index {
                register::A if self.updating > 0 => {
                    self.updating -= 1;
                    0xA6
                }
                index => self.registers[usize::from(index)],
            }
        }

        fn write(&mut self, index: u8, value: u8) {
            if index < 10 && self.registers[0x0B] & SETTING == 0 {
                self.torn = true;
            }
            if index != register::CENTURY || !self.no_century {
                self.registers[usize::from(index)] = value;
            }
        }
    }

    /// A clock at 1999-12-31 23:59:58, as Xen keeps it.
    fn decimal() -> Fake {
        let mut registers = [0; 128];
        registers[..14].copy_from_slice(&[0x58, 0, 0x59, 0, 0x23, 0, 6, 0x31, 0x12, 0x99, 0x26, 0x02, 0, 0x80]);
        registers[0x32] = 0x19;
        Fake { registers, updating: 0, ticks_at: None, reads: 0, no_century: false, torn: false }
    }

    fn fields(time: Time) -> [u16; 6] {
        [time.year, time.month.into(), time.day.into(), time.hour.into(), time.minute.into(), time.second.into()]
    }

    const BEFORE: [u16; 6] = [1999, 12, 31, 23, 59, 58];

    #[test]
    fn the_time_is_shown_in_no_particular_zone() {
        let time = Rtc::new().time(&mut decimal()).unwrap();
        assert_eq!(fields(time), BEFORE);
        assert_eq!(
            (time.time_zone, time.daylight, time.nanosecond),
            (Time::UNSPECIFIED_TIMEZONE, Daylight::empty(), 0)
        );
    }

    #[test]
    fn binary_numbers_and_half_days_are_understood() {
        for (control, hours, hour) in
            [(0x06, 23, 23), (0x04, 0x8B, 23), (0x00, 0x91, 23), (0, 0x12, 0), (0, 0x92, 12), (0, 0x11, 11)]
        {
            let mut cmos = decimal();
            if control & BINARY != 0 {
                for register in &mut cmos.registers[..10] {
                    *register = (*register >> 4) * 10 + (*register & 0xF);
                }
                cmos.registers[0x32] = 19;
            }
            cmos.registers[0x0B] = control;
            cmos.registers[4] = hours;
            let time = Rtc::new().time(&mut cmos).unwrap();
            assert_eq!(fields(time), [1999, 12, 31, hour, 59, 58], "{control:x} {hours:x}");
        }
    }

    #[test]
    fn an_update_is_waited_for() {
        let mut cmos = decimal();
        cmos.updating = 100;
        assert_eq!(fields(Rtc::new().time(&mut cmos).unwrap()), BEFORE);
    }

    #[test]
    fn a_second_that_passes_while_reading_does_not_mix_two_times() {
        for ticks_at in 1..20 {
            let mut cmos = decimal();
            cmos.ticks_at = Some(ticks_at);
            let time = fields(Rtc::new().time(&mut cmos).unwrap());
            assert!(time == BEFORE || time == [2000, 1, 1, 0, 0, 0], "{ticks_at}: {time:?}");
        }
    }

    #[test]
    fn a_clock_that_always_updates_is_given_up() {
        let mut cmos = decimal();
        cmos.updating = usize::MAX;
        assert_eq!(Rtc::new().time(&mut cmos), Err(RtcError::Device));
        assert!(cmos.reads <= UPDATE_LOOKS);
    }

    #[test]
    fn a_clock_that_is_not_there_or_shows_nonsense_is_refused() {
        let mut absent = decimal();
        absent.registers = [0xFF; 128];
        assert_eq!(Rtc::new().time(&mut absent), Err(RtcError::Device));
        for (register, value) in [(0, 0x60), (0, 0x0A), (2, 0xA0), (4, 0x24), (7, 0x32), (7, 0), (8, 0x13), (9, 0x9A)] {
            let mut cmos = decimal();
            cmos.registers[register] = value;
            assert_eq!(Rtc::new().time(&mut cmos), Err(RtcError::Device), "{register} {value:x}");
        }
    }

    #[test]
    fn without_a_century_it_is_this_one() {
        for kept in [0xFF, 0x00, 0x18, 0x2A] {
            let mut cmos = decimal();
            cmos.registers[0x32] = kept;
            assert_eq!(Rtc::new().time(&mut cmos).unwrap().year, 2099);
        }
    }

    #[test]
    fn what_was_set_is_shown_in_every_format() {
        for control in [0x00, 0x02, 0x04, 0x06, 0x42] {
            for hour in 0..24 {
                let (mut cmos, mut rtc) = (decimal(), Rtc::new());
                cmos.registers[0x0B] = control;
                let time = Time {
                    year: 2024,
                    month: 2,
                    day: 29,
                    hour,
                    minute: 30,
                    second: 15,
                    pad1: 0,
                    nanosecond: 0,
                    time_zone: -60,
                    daylight: Daylight::ADJUST_DAYLIGHT,
                    pad2: 0,
                };
                rtc.set(&Time { nanosecond: 999, ..time }, &mut cmos).unwrap();
                assert_eq!(rtc.time(&mut cmos), Ok(time));
                assert_eq!((cmos.registers[0x0B], cmos.torn, cmos.registers[6]), (control, false, 5));
            }
        }
    }

    #[test]
    fn a_century_that_the_clock_cannot_keep_is_refused_and_changes_nothing() {
        let (mut cmos, mut rtc) = (decimal(), Rtc::new());
        cmos.no_century = true;
        cmos.registers[0x32] = 0xFF;
        let before = cmos.registers;
        let time = Time { year: 1999, month: 1, day: 1, ..Time::invalid() };
        assert_eq!(rtc.set(&time, &mut cmos), Err(RtcError::Device));
        assert_eq!((cmos.registers, rtc), (before, Rtc::new()));
        assert_eq!(rtc.set(&Time { year: 2026, ..time }, &mut cmos), Ok(()));
        assert_eq!(rtc.time(&mut cmos).unwrap().year, 2026);
    }

    #[test]
    fn times_out_of_range_are_refused_and_change_nothing() {
        let (mut cmos, mut rtc) = (decimal(), Rtc::new());
        let (good, before) = (rtc.time(&mut cmos).unwrap(), cmos.registers);
        for bad in [
            Time { year: 1899, ..good },
            Time { year: 10_000, ..good },
            Time { month: 0, ..good },
            Time { month: 2, day: 30, ..good },
            Time { hour: 24, ..good },
            Time { minute: 60, ..good },
            Time { second: 60, ..good },
            Time { nanosecond: 1_000_000_000, ..good },
            Time { time_zone: 1441, ..good },
            Time { daylight: Daylight::from_bits_retain(4), ..good },
        ] {
            assert_eq!(rtc.set(&bad, &mut cmos), Err(RtcError::InvalidTime));
        }
        assert_eq!((cmos.registers, rtc), (before, Rtc::new()));
    }
}
