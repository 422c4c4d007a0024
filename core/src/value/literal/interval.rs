//! Intervals: Postgres' own form, and ISO 8601 with designators.

use super::super::Value;
use super::bad;
use crate::error::Result;

/// Microseconds in a second.
const SECOND: i128 = 1_000_000;

/// Months, days and microseconds of `1 year 2 mons -3 days 04:05:06.7` or `P1Y2M-3DT4H5M6.7S`. Nothing is carried
/// from one to the other.
///
/// # Errors
/// `InvalidText` where the text is no interval, or beyond what an interval holds.
pub fn parse_interval(text: &str) -> Result<Value<'static>> {
    let parts = match text.strip_prefix('P') {
        Some(rest) => designated(rest),
        None => written(text),
    };
    let fits = |(months, days, micros): (i128, i128, i128)| {
        Some(Value::Interval(months.try_into().ok()?, days.try_into().ok()?, micros.try_into().ok()?))
    };
    parts.and_then(fits).map_or_else(|| bad("interval", text), Ok)
}

/// Microseconds of a decimal number of seconds, at most six digits behind the point.
fn seconds(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let micros =
        whole.parse::<i128>().ok()?.checked_mul(SECOND)? + format!("{fraction:0<6}").parse::<i128>().ok()?;
    Some(if negative { -micros } else { micros })
}

fn whole(text: &str) -> Option<i128> {
    text.parse::<i64>().ok().map(i128::from)
}

/// `[-]HH:MM:SS[.ffffff]`, with as many hours as there are.
fn clock(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let mut parts = text.split(':');
    let (hours, minutes, rest) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (minutes_of_hour, micros) = (whole(minutes)?, seconds(rest)?);
    let sound =
        parts.next().is_none() && is_number(hours) && is_number(minutes) && !rest.starts_with(['-', '+']);
    if !sound || minutes_of_hour > 59 || micros >= 60 * SECOND {
        return None;
    }
    let micros = (whole(hours)? * 60 + minutes_of_hour) * 60 * SECOND + micros;
    Some(if negative { -micros } else { micros })
}

fn written(text: &str) -> Option<(i128, i128, i128)> {
    let (mut months, mut days, mut micros) = (0, 0, 0);
    let mut words = text.split_ascii_whitespace().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        if word.contains(':') {
            micros += clock(word)?;
            continue;
        }
        match words.next()? {
            "year" | "years" => months += whole(word)? * 12,
            "mon" | "mons" | "month" | "months" => months += whole(word)?,
            "week" | "weeks" => days += whole(word)? * 7,
            "day" | "days" => days += whole(word)?,
            "hour" | "hours" => micros += whole(word)? * 3_600 * SECOND,
            "minute" | "minutes" | "min" | "mins" => micros += whole(word)? * 60 * SECOND,
            "second" | "seconds" | "sec" | "secs" => micros += seconds(word)?,
            _ => return None,
        }
    }
    Some((months, days, micros))
}

fn designated(text: &str) -> Option<(i128, i128, i128)> {
    let (mut months, mut days, mut micros) = (0, 0, 0);
    let (mut rest, mut in_time) = (text, false);
    if rest.is_empty() || rest.ends_with('T') {
        return None;
    }
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T').filter(|_| !in_time) {
            (rest, in_time) = (time, true);
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let number = &rest[..end];
        match (rest.as_bytes()[end], in_time) {
            (b'Y', false) => months += whole(number)? * 12,
            (b'M', false) => months += whole(number)?,
            (b'W', false) => days += whole(number)? * 7,
            (b'D', false) => days += whole(number)?,
            (b'H', true) => micros += whole(number)? * 3_600 * SECOND,
            (b'M', true) => micros += whole(number)? * 60 * SECOND,
            (b'S', true) => micros += seconds(number)?,
            _ => return None,
        }
        rest = &rest[end + 1..];
    }
    Some((months, days, micros))
}
