//! Conversions that a configuration names for a column: what a source holds made into what the managed column takes.
//! Both sides know the converted value alone.

use std::fmt;
use std::str::FromStr;

use super::datetime::{MICROSECONDS_PER_DAY, UNIX_EPOCH, parse_timestamp};
use super::{ColumnType, Numeric, NumericBuf, Value};
use crate::error::{Error, ErrorKind, Result};

/// A named conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conversion {
    /// Text without its NUL characters, which Postgres does not take.
    StripNul,
    /// A number rounded to the column's digits, halves away from zero as `numeric` does it.
    Round,
    /// A time cut to the digits of a second that the column has, a point in time to its day for `date`.
    Truncate,
    /// A number of seconds since 1970-01-01 UTC.
    UnixSeconds,
    /// A number of milliseconds since 1970-01-01 UTC.
    UnixMilliseconds,
    /// A Julian day and its fraction, as SQLite's `julianday` has it: to the millisecond.
    JulianDay,
}

/// The conversions by the names that configurations use.
const NAMES: [(&str, Conversion); 6] = [
    ("strip_nul", Conversion::StripNul),
    ("round", Conversion::Round),
    ("truncate", Conversion::Truncate),
    ("unix_seconds", Conversion::UnixSeconds),
    ("unix_milliseconds", Conversion::UnixMilliseconds),
    ("julian_day", Conversion::JulianDay),
];

/// Room for what a converted value is borrowed from; used again for each value.
#[derive(Debug, Default)]
pub struct Room {
    number: Option<NumericBuf>,
    text: String,
}

/// A converted value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adapted<'v> {
    /// The value, as the column takes it; still to be checked.
    pub value: Value<'v>,
    /// Whether something of the original was lost.
    pub lossy: bool,
}

impl fmt::Display for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMES.iter().find(|(_, conversion)| conversion == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

impl FromStr for Conversion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = NAMES.iter().find(|(name, _)| *name == text);
        named.map(|(_, conversion)| *conversion).ok_or_else(|| {
            let names = NAMES.map(|(name, _)| name).join(", ");
            Error::new(ErrorKind::InvalidSchema, format!("\"{text}\" is no conversion; there are {names}"))
        })
    }
}

impl Conversion {
    /// Whether a column of this type can be converted so.
    pub fn fits(self, column_type: &ColumnType) -> bool {
        use ColumnType as T;
        match self {
            Conversion::StripNul => {
                matches!(column_type, T::Text | T::Citext | T::Varchar(_) | T::Char(_))
            }
            Conversion::Round => {
                matches!(column_type, T::Numeric(Some(_)) | T::Int2 | T::Int4 | T::Int8 | T::Float4)
            }
            Conversion::Truncate => {
                matches!(column_type, T::Timestamp(_) | T::Timestamptz(_) | T::Time(_) | T::Date)
            }
            Conversion::UnixSeconds | Conversion::UnixMilliseconds | Conversion::JulianDay => {
                matches!(column_type, T::Timestamp(_) | T::Timestamptz(_) | T::Date)
            }
        }
    }

    /// Whether two values that differ may be the same once converted.
    pub fn may_lose(self) -> bool {
        matches!(
            self,
            Conversion::StripNul | Conversion::Round | Conversion::Truncate | Conversion::JulianDay
        )
    }

    /// As which type the source's own value is read, for a column of `column_type`; and as which where it is none of
    /// that type.
    pub fn read_as(self, column_type: &ColumnType) -> (ColumnType, Option<ColumnType>) {
        use ColumnType as T;
        match (self, column_type) {
            (Conversion::StripNul, _) => (column_type.clone(), None),
            (Conversion::Round, T::Float4) | (Conversion::JulianDay, _) => (T::Float8, None),
            (Conversion::Round | Conversion::UnixSeconds | Conversion::UnixMilliseconds, _) => {
                (T::Numeric(None), None)
            }
            (Conversion::Truncate, T::Time(_)) => (T::Time(6), None),
            (Conversion::Truncate, T::Timestamptz(_)) => (T::Timestamptz(6), Some(T::Text)),
            // Text may have more digits than any type.
            (Conversion::Truncate, _) => (T::Timestamp(6), Some(T::Text)),
        }
    }

    /// Converts a value that was read as [`read_as`](Self::read_as) says.
    ///
    /// # Errors
    /// `WrongType` where it is of another type; `OutOfRange` and `WouldChange` where no value of the column says the
    /// same and the conversion does not provide for that.
    pub fn apply<'v>(
        self,
        value: Value<'v>,
        column_type: &ColumnType,
        room: &'v mut Room,
    ) -> Result<Adapted<'v>> {
        let exact = |value| Ok(Adapted { value, lossy: false });
        match (self, value) {
            (Conversion::StripNul, Value::Text(text)) if text.contains('\0') => {
                room.text.clear();
                room.text.extend(text.chars().filter(|character| *character != '\0'));
                let padded = matches!(column_type, ColumnType::Char(_));
                let text = if padded { room.text.trim_end_matches(' ') } else { &room.text };
                Ok(Adapted { value: Value::Text(text), lossy: true })
            }
            (Conversion::StripNul, Value::Text(_)) => exact(value),
            (Conversion::Round, Value::Float(number)) => {
                let rounded = f64::from(number as f32);
                Ok(Adapted { value: Value::Float(rounded), lossy: rounded != number && !number.is_nan() })
            }
            (Conversion::Round, Value::Numeric(number)) => rounded(number, column_type, room),
            (Conversion::Truncate, value) => truncated(value, column_type),
            (Conversion::UnixSeconds, Value::Numeric(number)) => exact(since_1970(&number, 6, column_type)?),
            (Conversion::UnixMilliseconds, Value::Numeric(number)) => {
                exact(since_1970(&number, 3, column_type)?)
            }
            (Conversion::JulianDay, Value::Float(day)) => exact(julian_day(day, column_type)?),
            _ => Err(Error::new(ErrorKind::WrongType, format!("a value that {self} does not take"))),
        }
    }
}

impl Conversion {
    /// The way back: what a source holds that is converted to `value`, as one of the types that
    /// [`read_as`](Self::read_as) names. Where a conversion loses something, several values are converted to one, and
    /// this is the simplest of them.
    ///
    /// # Errors
    /// `OutOfRange` where no value of a source is converted to this one.
    pub fn restore<'v>(self, value: Value<'v>, room: &'v mut Room) -> Result<Value<'v>> {
        let (unit, first) = match self {
            Conversion::StripNul | Conversion::Round | Conversion::Truncate => return Ok(value),
            Conversion::UnixSeconds => ("e-6", UNIX_EPOCH),
            Conversion::UnixMilliseconds => ("e-3", UNIX_EPOCH),
            Conversion::JulianDay => ("", UNIX_EPOCH + UNIX_EPOCH_JULIAN * 1000),
        };
        let micros = match value {
            Value::Timestamp(micros) | Value::Timestamptz(micros) => Some(micros),
            Value::Date(i32::MIN) => Some(i64::MIN),
            Value::Date(i32::MAX) => Some(i64::MAX),
            Value::Date(days) => Some(i64::from(days) * MICROSECONDS_PER_DAY),
            _ => None,
        };
        let is_finite = |micros: &i64| *micros != i64::MIN && *micros != i64::MAX;
        let since = micros.filter(is_finite).and_then(|micros| micros.checked_add(first));
        let Some(since) = since else {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("a point in time that {self} does not reach"),
            ));
        };
        if self == Conversion::JulianDay {
            return Ok(Value::Float(since.div_euclid(1000) as f64 / 86_400_000.0));
        }
        let number = room.number.insert(NumericBuf::parse(&format!("{since}{unit}"))?);
        Ok(Value::Numeric(number.borrow().smallest_scale()))
    }
}

/// A number with no more digits behind the point than the column has.
fn rounded<'v>(number: Numeric<'v>, column_type: &ColumnType, room: &'v mut Room) -> Result<Adapted<'v>> {
    let scale = match column_type {
        ColumnType::Numeric(Some((_, scale))) => i64::from(*scale),
        _ => 0,
    };
    let lossy = number.kind().is_finite() && number.digits().len() > 0 && number.lowest_power() < -scale;
    let number = match lossy {
        true => room.number.insert(round(&number, scale)?).borrow(),
        false => number,
    };
    let value = match column_type {
        ColumnType::Numeric(_) => Value::Numeric(number),
        _ => {
            let whole = number.smallest_scale().to_string().parse();
            let beyond =
                |_| Error::new(ErrorKind::OutOfRange, format!("{column_type} cannot hold the number"));
            Value::Int(whole.map_err(beyond)?)
        }
    };
    Ok(Adapted { value, lossy })
}

/// A finite number rounded to `scale` digits behind the point, before it where negative.
fn round(number: &Numeric<'_>, scale: i64) -> Result<NumericBuf> {
    let text = number.smallest_scale().to_string();
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.as_str()),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let Ok(kept) = usize::try_from(whole.len() as i64 + scale) else { return NumericBuf::parse("0") };
    let up = digits.get(kept).is_some_and(|digit| *digit >= b'5');
    let mut digits = digits[..kept.min(digits.len())].to_vec();
    if up {
        let nines = digits.iter().rev().take_while(|digit| **digit == b'9').count();
        let at = digits.len() - nines;
        digits[at..].fill(b'0');
        match at.checked_sub(1) {
            Some(before) => digits[before] += 1,
            None => digits.insert(0, b'1'),
        }
    }
    if digits.is_empty() {
        return NumericBuf::parse("0");
    }
    let digits = String::from_utf8_lossy(&digits);
    NumericBuf::parse(&format!("{sign}{digits}e{}", -scale))
}

fn truncated<'v>(value: Value<'_>, column_type: &ColumnType) -> Result<Adapted<'v>> {
    use ColumnType as T;
    let (micros, mut lossy) = match value {
        Value::Time(micros) | Value::Timestamp(micros) | Value::Timestamptz(micros) => (micros, false),
        Value::Text(text) => {
            let (text, lossy) = six_digits(text);
            let zone_is_lost = !matches!(column_type, T::Timestamptz(_));
            match parse_timestamp(&text)? {
                (_, Some(1.. | ..=-1)) if zone_is_lost => {
                    let message = format!("a time zone, which {column_type} would drop");
                    return Err(Error::new(ErrorKind::WouldChange, message));
                }
                (micros, _) => (micros, lossy),
            }
        }
        _ => return Err(Error::new(ErrorKind::WrongType, "a value that is no time")),
    };
    let unit = match column_type {
        T::Time(digits) | T::Timestamp(digits) | T::Timestamptz(digits) => {
            10i64.pow(6 - u32::from(*digits).min(6))
        }
        _ => MICROSECONDS_PER_DAY,
    };
    // The ends are the infinities.
    let is_finite = micros != i64::MIN && micros != i64::MAX;
    let cut = if is_finite { micros - micros.rem_euclid(unit) } else { micros };
    lossy |= cut != micros;
    let value = match column_type {
        T::Time(_) => Value::Time(cut),
        _ => stamp(cut, column_type)?,
    };
    Ok(Adapted { value, lossy })
}

/// A text for a time with at most six digits of a second, and whether one that is not zero was cut.
fn six_digits(text: &str) -> (String, bool) {
    let Some(point) = text.find('.') else { return (text.to_owned(), false) };
    let digits = text[point + 1..].bytes().take_while(u8::is_ascii_digit).count();
    let (kept, end) = (point + 1 + digits.min(6), point + 1 + digits);
    let lossy = text[kept..end].bytes().any(|digit| digit != b'0');
    (format!("{}{}", &text[..kept], &text[end..]), lossy)
}

/// A point in time from a number of units since 1970 of which each has `10^power` microseconds.
fn since_1970<'v>(number: &Numeric<'_>, power: u32, column_type: &ColumnType) -> Result<Value<'v>> {
    let unit = if power == 6 { "seconds" } else { "milliseconds" };
    if number.kind().is_finite() && number.fraction_digits() > power as usize {
        let message = format!("a number of {unit} with parts of a microsecond");
        return Err(Error::new(ErrorKind::WouldChange, message));
    }
    let scaled = NumericBuf::parse(&format!("{}e{power}", number.smallest_scale()));
    let micros =
        scaled.ok().and_then(|scaled| scaled.borrow().smallest_scale().to_string().parse::<i64>().ok());
    let micros = micros.and_then(|micros| micros.checked_sub(UNIX_EPOCH));
    let beyond = || Error::new(ErrorKind::OutOfRange, format!("a number of {unit} beyond {column_type}"));
    stamp(micros.ok_or_else(beyond)?, column_type)
}

/// The last millisecond of the year 9999 in milliseconds of Julian days, where SQLite's own functions end.
const LAST_JULIAN: f64 = 464_269_060_799_999.0;

/// 1970-01-01 in milliseconds of Julian days.
const UNIX_EPOCH_JULIAN: i64 = 210_866_760_000_000;

fn julian_day<'v>(day: f64, column_type: &ColumnType) -> Result<Value<'v>> {
    let millis = (day * 86_400_000.0 + 0.5).floor();
    if !(0.0..=LAST_JULIAN).contains(&millis) {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            "a number that is no Julian day of the years up to 9999",
        ));
    }
    stamp((millis as i64 - UNIX_EPOCH_JULIAN) * 1000 - UNIX_EPOCH, column_type)
}

/// A point in time as a value of the column.
fn stamp<'v>(micros: i64, column_type: &ColumnType) -> Result<Value<'v>> {
    match column_type {
        ColumnType::Timestamp(_) => Ok(Value::Timestamp(micros)),
        ColumnType::Timestamptz(_) => Ok(Value::Timestamptz(micros)),
        _ if micros == i64::MIN => Ok(Value::Date(i32::MIN)),
        _ if micros == i64::MAX => Ok(Value::Date(i32::MAX)),
        _ if micros % MICROSECONDS_PER_DAY != 0 => {
            Err(Error::new(ErrorKind::WouldChange, "a time of day, which date would drop"))
        }
        _ => {
            let days = i32::try_from(micros / MICROSECONDS_PER_DAY);
            Ok(Value::Date(days.map_err(|_| Error::new(ErrorKind::OutOfRange, "a day beyond date"))?))
        }
    }
}

#[cfg(test)]
mod tests;
