//! Dates and times between ISO text and Postgres' own units (days and microseconds since 2000-01-01).
//!
//! Years reach beyond what date libraries hold (4714 BC to 294276 AD), so the calendar is ours: the civil
//! day count of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".

use crate::error::{Error, ErrorKind, Result};

/// Microseconds in a day.
pub const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;
/// The first date Postgres holds, 4714-11-24 BC, in days since 2000-01-01.
pub const DATE_MIN: i32 = -2_451_545;
/// The last date Postgres holds, 5874897-12-31.
pub const DATE_MAX: i32 = 2_145_031_948;
/// The first timestamp Postgres holds, 4714-11-24 BC 00:00.
pub const TIMESTAMP_MIN: i64 = -211_813_488_000_000_000;
/// The last timestamp Postgres holds, one microsecond before the year 294277.
pub const TIMESTAMP_MAX: i64 = 9_223_371_331_199_999_999;

/// Microseconds from the Unix epoch to 2000-01-01 UTC, where Postgres' timestamps and our stamps begin.
pub const UNIX_EPOCH: i64 = 946_684_800_000_000;
/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_SHIFT: i64 = 10_957;

/// Days since 2000-01-01 of a date of the proleptic Gregorian calendar; year 0 is 1 BC.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468 - EPOCH_SHIFT
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468 + EPOCH_SHIFT;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 2000-01-01 of a day given by its year, from 1 to 9999, its month and its place in that; `None` where the
/// calendar has no such day.
pub fn day_of(year: u16, month: u8, day: u8) -> Option<i32> {
    let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
    let is_day = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day);
    i32::try_from(days_from_civil(year, month, day)).ok().filter(|_| is_day)
}

/// Year, month and day of the month of a day since 2000-01-01; year 0 is 1 BC.
pub fn date_of(days: i32) -> (i64, u8, u8) {
    let (year, month, day) = civil_from_days(i64::from(days));
    // Both are 1 to 31.
    (year, month as u8, day as u8)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    fn bad<T>(&self) -> Result<T> {
        let shown: String = self.text.chars().take(40).collect();
        Err(Error::new(ErrorKind::InvalidText, format!("\"{shown}\" is no {}", self.what)))
    }

    fn out_of_range<T>(&self) -> Result<T> {
        let shown: String = self.text.chars().take(40).collect();
        Err(Error::new(ErrorKind::OutOfRange, format!("\"{shown}\" is outside {}", self.what)))
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn digits(&mut self, least: usize, most: usize) -> Result<i64> {
        let rest = &self.text[self.at..];
        let count = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if count < least {
            return self.bad();
        }
        self.at += count;
        match rest[..count].parse() {
            Ok(number) => Ok(number),
            Err(_) => self.bad(),
        }
    }

    fn end(&self) -> Result<()> {
        if self.at == self.text.len() { Ok(()) } else { self.bad() }
    }

    /// `YYYY-MM-DD`, more year digits allowed; the era comes at the end of the text.
    fn date(&mut self, before_christ: bool) -> Result<i64> {
        let year = self.digits(4, 7)?;
        let year = if before_christ { 1 - year } else { year };
        if !self.eat("-") {
            return self.bad();
        }
        let month = self.digits(2, 2)?;
        if !self.eat("-") {
            return self.bad();
        }
        let day = self.digits(2, 2)?;
        let sound = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        if !sound || (before_christ && year == 1) || (!before_christ && year == 0) {
            return self.bad();
        }
        Ok(days_from_civil(year, month, day))
    }

    /// `HH:MM[:SS[.ffffff]]` in microseconds; 24:00 allowed, a leap second is not.
    fn time(&mut self) -> Result<i64> {
        let hours = self.digits(2, 2)?;
        if !self.eat(":") {
            return self.bad();
        }
        let minutes = self.digits(2, 2)?;
        let mut micros = 0;
        if self.eat(":") {
            micros = self.digits(2, 2)? * 1_000_000;
            if micros >= 60_000_000 {
                return self.bad();
            }
            if self.eat(".") {
                let start = self.at;
                let fraction = self.digits(1, 6)?;
                let length = self.at - start;
                micros += fraction * 10i64.pow((6 - length) as u32);
                // Digits beyond microseconds are taken only where they say nothing.
                while self.eat("0") {}
                if self.text[self.at..].starts_with(|c: char| c.is_ascii_digit()) {
                    let shown: String = self.text.chars().take(40).collect();
                    let message = format!("\"{shown}\" is finer than a microsecond");
                    return Err(Error::new(ErrorKind::WouldChange, message));
                }
            }
        }
        let total = (hours * 60 + minutes) * 60_000_000 + micros;
        if minutes >= 60 {
            return self.bad();
        }
        if total > MICROSECONDS_PER_DAY { self.out_of_range() } else { Ok(total) }
    }

    /// `Z`, `+HH`, `+HHMM`, `+HH:MM[:SS]`: seconds east of UTC, `None` where there is no zone.
    fn zone(&mut self) -> Result<Option<i64>> {
        if self.eat("Z") || self.eat("z") {
            return Ok(Some(0));
        }
        let sign = if self.eat("+") {
            1
        } else if self.eat("-") {
            -1
        } else {
            return Ok(None);
        };
        let hours = self.digits(2, 2)?;
        let mut seconds = hours * 3600;
        if self.eat(":") {
            seconds += self.digits(2, 2)? * 60;
            if self.eat(":") {
                seconds += self.digits(2, 2)?;
            }
        } else if self.at < self.text.len() {
            seconds += self.digits(2, 2)? * 60;
        }
        if seconds >= 57_600 {
            return self.out_of_range();
        }
        Ok(Some(sign * seconds))
    }
}

/// Strips a trailing ` BC`.
fn era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// Days since 2000-01-01 of `YYYY-MM-DD[ BC]`, `infinity` or `-infinity`.
///
/// # Errors
/// `InvalidText` where it is no date, `OutOfRange` where Postgres holds no such date.
pub fn parse_date(text: &str) -> Result<i32> {
    match text {
        "infinity" => return Ok(i32::MAX),
        "-infinity" => return Ok(i32::MIN),
        _ => {}
    }
    let (body, before_christ) = era(text);
    let mut reader = Reader { text: body, at: 0, what: "date" };
    let days = reader.date(before_christ)?;
    reader.end()?;
    match i32::try_from(days) {
        Ok(days) if (DATE_MIN..=DATE_MAX).contains(&days) => Ok(days),
        _ => reader.out_of_range(),
    }
}

/// Microseconds since midnight of `HH:MM[:SS[.ffffff]]`.
///
/// # Errors
/// `InvalidText` where it is no time of day, `OutOfRange` beyond 24:00, `WouldChange` where it is finer than a
/// microsecond.
pub fn parse_time(text: &str) -> Result<i64> {
    let mut reader = Reader { text, at: 0, what: "time" };
    let micros = reader.time()?;
    reader.end()?;
    Ok(micros)
}

/// Microseconds since midnight and seconds west of UTC of a time with a zone; no zone means UTC.
///
/// # Errors
/// As [`parse_time`]; `OutOfRange` also for a zone of 16 hours or more.
pub fn parse_timetz(text: &str) -> Result<(i64, i32)> {
    let mut reader = Reader { text, at: 0, what: "timetz" };
    let micros = reader.time()?;
    let east = reader.zone()?.unwrap_or(0);
    reader.end()?;
    Ok((micros, -(east as i32)))
}

/// Microseconds since 2000-01-01 00:00 of `YYYY-MM-DD[(T| )HH:MM[:SS[.ffffff]]][zone][ BC]`, and the
/// zone's seconds east of UTC where one is given (already taken off). A date alone is its midnight.
///
/// # Errors
/// `InvalidText`, `OutOfRange` or `WouldChange`, as the other functions here.
pub fn parse_timestamp(text: &str) -> Result<(i64, Option<i64>)> {
    match text {
        "infinity" => return Ok((i64::MAX, None)),
        "-infinity" => return Ok((i64::MIN, None)),
        _ => {}
    }
    let (body, before_christ) = era(text);
    let mut reader = Reader { text: body, at: 0, what: "timestamp" };
    let days = reader.date(before_christ)?;
    let mut micros = 0;
    let mut zone = None;
    if reader.at < body.len() {
        if !reader.eat("T") && !reader.eat(" ") {
            return reader.bad();
        }
        micros = reader.time()?;
        zone = reader.zone()?;
    }
    reader.end()?;
    let stamp = days
        .checked_mul(MICROSECONDS_PER_DAY)
        .and_then(|day| day.checked_add(micros))
        .and_then(|stamp| stamp.checked_sub(zone.unwrap_or(0) * 1_000_000));
    match stamp {
        Some(stamp) if (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&stamp) => Ok((stamp, zone)),
        _ => reader.out_of_range(),
    }
}

/// The ISO text of a date.
pub fn format_date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        days => with_era(i64::from(days), ""),
    }
}

fn with_era(days: i64, time: &str) -> String {
    let (year, month, day) = civil_from_days(days);
    let (year, era) = if year <= 0 { (1 - year, " BC") } else { (year, "") };
    format!("{year:04}-{month:02}-{day:02}{time}{era}")
}

/// The ISO text of a time of day, with as many digits of a second as it needs.
pub fn format_time(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        return text;
    }
    let digits = format!("{fraction:06}");
    format!("{text}.{}", digits.trim_end_matches('0'))
}

/// The ISO text of a timestamp, with a blank between date and time and no zone.
pub fn format_timestamp(micros: i64) -> String {
    match micros {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        micros => {
            let time = format!(" {}", format_time(micros.rem_euclid(MICROSECONDS_PER_DAY)));
            with_era(micros.div_euclid(MICROSECONDS_PER_DAY), &time)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_that_their_text_says() {
        for (year, month, day) in [(1, 1, 1), (1000, 2, 28), (1999, 12, 31), (2000, 2, 29), (9999, 12, 31)] {
            let days = parse_date(&format!("{year:04}-{month:02}-{day:02}")).expect("a date");
            assert_eq!(day_of(year, month, day), Some(days));
            assert_eq!(date_of(days), (i64::from(year), month, day));
        }
        for (year, month, day) in
            [(0, 0, 0), (0, 1, 1), (2024, 0, 1), (2024, 1, 0), (2023, 2, 29), (2024, 4, 31), (10_000, 1, 1)]
        {
            assert_eq!(day_of(year, month, day), None, "{year} {month} {day}");
        }
        assert_eq!(date_of(DATE_MIN).0, -4713);
    }
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        // As `date '...' - date '2000-01-01'` answers.
        for (text, days) in [
            ("2000-01-01", 0),
            ("1999-12-31", -1),
            ("2000-02-29", 59),
            ("1970-01-01", -10_957),
            ("0001-01-01", -730_119),
            ("0001-12-31 BC", -730_120),
            ("4714-11-24 BC", DATE_MIN),
            ("5874897-12-31", DATE_MAX),
            ("infinity", i32::MAX),
        ] {
            assert_eq!(parse_date(text), Ok(days), "{text}");
            assert_eq!(format_date(days), text);
        }
    }

    #[test]
    fn known_stamps() {
        assert_eq!(parse_timestamp("2000-01-01"), Ok((0, None)));
        assert_eq!(parse_timestamp("2000-01-01 00:00:01.5"), Ok((1_500_000, None)));
        assert_eq!(parse_timestamp("2000-01-01T01:00:00+01:00"), Ok((0, Some(3600))));
        assert_eq!(parse_timestamp("2000-01-01T00:00Z"), Ok((0, Some(0))));
        assert_eq!(parse_timestamp("294276-12-31 23:59:59.999999"), Ok((TIMESTAMP_MAX, None)));
        assert_eq!(parse_timestamp("4714-11-24 00:00:00 BC"), Ok((TIMESTAMP_MIN, None)));
        assert_eq!(parse_timestamp("2000-01-01 00:00:00.1234560"), Ok((123_456, None)));
        assert_eq!(parse_timetz("10:00:00-05"), Ok((36_000_000_000, 18_000)));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in
            ["", "2000", "2000-1-1", "2000-13-01", "2001-02-29", "0000-01-01", "2000-01-01x", "99-01-01"]
        {
            assert!(parse_date(text).is_err(), "{text}");
        }
        for text in [
            "2000-01-01 25:00",
            "2000-01-01 23:59:60",
            "2000-01-01 1:00",
            "294277-01-01",
            "2000-01-01 24:00:01",
        ] {
            assert!(parse_timestamp(text).is_err(), "{text}");
        }
        let finer = parse_timestamp("2000-01-01 00:00:00.1234567").expect_err("too fine");
        assert_eq!(finer.kind(), ErrorKind::WouldChange);
        assert!(parse_time("10:00:00\u{e9}").is_err());
    }

    proptest! {
        #[test]
        fn dates_come_back(days in DATE_MIN..=DATE_MAX) {
            prop_assert_eq!(parse_date(&format_date(days)), Ok(days));
        }

        #[test]
        fn stamps_come_back(micros in TIMESTAMP_MIN..=TIMESTAMP_MAX) {
            prop_assert_eq!(parse_timestamp(&format_timestamp(micros)), Ok((micros, None)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = (parse_date(&text), parse_timestamp(&text), parse_timetz(&text));
        }
    }
}
