//! The database's own values in bytes, from which they are bound again.

use mysql_async::Value as Raw;
use plimsoll_core::value::Value;
use plimsoll_core::value::datetime::{MICROSECONDS_PER_DAY, TIMESTAMP_MIN, date_of, day_of};
use serde_json::Value as Json;

use super::convert::bit_number;
use super::types::LocalType;
use crate::source::query::RawValue;

const INT: u8 = 1;
const UINT: u8 = 2;
const DOUBLE: u8 = 3;
const BYTES: u8 = 4;
const DATE: u8 = 5;
const TIME: u8 = 6;

/// Appends the bytes of a value and answers its class.
pub fn put(raw: &Raw, local: &LocalType, bytes: &mut Vec<u8>) -> u8 {
    match (raw, local) {
        (Raw::NULL, _) => 0,
        (Raw::Int(number), _) => {
            bytes.extend_from_slice(&number.to_le_bytes());
            INT
        }
        (Raw::UInt(number), _) => {
            bytes.extend_from_slice(&number.to_le_bytes());
            UINT
        }
        (Raw::Bytes(bits), LocalType::Bit(_)) => {
            bytes.extend_from_slice(&bit_number(bits).to_le_bytes());
            UINT
        }
        (Raw::Float(number), _) => put_double(f64::from(*number), bytes),
        (Raw::Double(number), _) => put_double(*number, bytes),
        (Raw::Bytes(text), _) => {
            bytes.extend_from_slice(text);
            BYTES
        }
        (Raw::Date(year, month, day, hours, minutes, seconds, micros), _) => {
            bytes.extend_from_slice(&year.to_le_bytes());
            bytes.extend_from_slice(&[*month, *day, *hours, *minutes, *seconds]);
            bytes.extend_from_slice(&micros.to_le_bytes());
            DATE
        }
        (Raw::Time(is_negative, days, hours, minutes, seconds, micros), _) => {
            bytes.extend_from_slice(&[u8::from(*is_negative), *hours, *minutes, *seconds]);
            bytes.extend_from_slice(&days.to_le_bytes());
            bytes.extend_from_slice(&micros.to_le_bytes());
            TIME
        }
    }
}

/// Both zeros are one: the database finds either by the other, and no cursor may stand between them.
fn put_double(number: f64, bytes: &mut Vec<u8>) -> u8 {
    let number = if number == 0.0 { 0.0 } else { number };
    bytes.extend_from_slice(&number.to_le_bytes());
    DOUBLE
}

/// The value that [`put`] wrote; NULL where the bytes are none of its.
pub fn bound(value: &RawValue) -> Raw {
    let bytes = value.bytes.as_slice();
    let eight = || bytes.try_into().ok();
    let read = || match value.class {
        INT => eight().map(|bytes| Raw::Int(i64::from_le_bytes(bytes))),
        UINT => eight().map(|bytes| Raw::UInt(u64::from_le_bytes(bytes))),
        DOUBLE => eight().map(|bytes| Raw::Double(f64::from_le_bytes(bytes))),
        BYTES => Some(Raw::Bytes(bytes.to_vec())),
        DATE => {
            let (year, rest) = bytes.split_first_chunk::<2>()?;
            let (&[month, day, hours, minutes, seconds], rest) = rest.split_first_chunk::<5>()?;
            let micros = u32::from_le_bytes(rest.try_into().ok()?);
            Some(Raw::Date(u16::from_le_bytes(*year), month, day, hours, minutes, seconds, micros))
        }
        TIME => {
            let (&[is_negative, hours, minutes, seconds], rest) = bytes.split_first_chunk::<4>()?;
            let (days, rest) = rest.split_first_chunk::<4>()?;
            let micros = u32::from_le_bytes(rest.try_into().ok()?);
            let days = u32::from_le_bytes(*days);
            Some(Raw::Time(is_negative == 1, days, hours, minutes, seconds, micros))
        }
        _ => None,
    };
    read().unwrap_or(Raw::NULL)
}

/// A value made to be bound.
pub fn made(raw: &Raw) -> RawValue {
    let mut bytes = Vec::new();
    let class = put(raw, &LocalType::Year, &mut bytes);
    RawValue { class, bytes }
}

/// The first position of the year 1, and the first beyond the year 9999: no moment stands outside.
pub fn moments() -> (i64, i64) {
    let start =
        |year| day_of(year, 1, 1).map_or(TIMESTAMP_MIN, |days| i64::from(days) * MICROSECONDS_PER_DAY);
    (start(1), start(9999) + 365 * MICROSECONDS_PER_DAY)
}

/// The moment at this many microseconds since 2000-01-01; the nearest that there is where there is none.
pub fn moment(micros: i64) -> Raw {
    let (first, beyond) = moments();
    let micros = micros.clamp(first, beyond - 1);
    let days = i32::try_from(micros.div_euclid(MICROSECONDS_PER_DAY)).unwrap_or_default();
    let (year, month, day) = date_of(days);
    let (hours, minutes, seconds, micros) = clock(micros.rem_euclid(MICROSECONDS_PER_DAY));
    // Within the years 1 to 9999, and hours of one day.
    Raw::Date(year as u16, month, day, hours as u8, minutes, seconds, micros)
}

/// A TIME of so many microseconds.
pub fn time(micros: i64) -> Raw {
    let (hours, minutes, seconds, rest) = clock(micros.abs());
    let days = u32::try_from(hours / 24).unwrap_or(u32::MAX);
    // Less than a day is left.
    Raw::Time(micros < 0, days, (hours % 24) as u8, minutes, seconds, rest)
}

fn clock(micros: i64) -> (i64, u8, u8, u32) {
    let seconds = micros / 1_000_000;
    // Each is less than 60, but the microseconds of a second.
    (seconds / 3600, (seconds / 60 % 60) as u8, (seconds % 60) as u8, (micros % 1_000_000) as u32)
}

/// How a column of this local type may hold a value of the managed column, and whether it can in no other way.
pub fn spellings_of(value: &Value<'_>, local: &LocalType) -> (Vec<RawValue>, bool) {
    let one = |raw: Raw| (vec![made(&raw)], true);
    match (value, local) {
        (Value::Bool(value), _) => one(Raw::Int(i64::from(*value))),
        (Value::Int(number), _) => one(Raw::Int(*number)),
        (Value::Float(number), _) => one(Raw::Double(*number)),
        (Value::Text(text) | Value::Enum(text), _) => one(Raw::from(*text)),
        (Value::Bytea(bytes), LocalType::Bit(_)) => one(Raw::UInt(bit_number(bytes))),
        (Value::Bytea(bytes), _) => one(Raw::from(*bytes)),
        (Value::Uuid(bytes), LocalType::Binary { .. }) => one(Raw::from(&bytes[..])),
        (Value::Uuid(bytes), LocalType::Uuid) => one(Raw::from(uuid::Uuid::from_bytes(*bytes).to_string())),
        (Value::Uuid(bytes), _) => {
            let text = uuid::Uuid::from_bytes(*bytes).to_string();
            let capitals = made(&Raw::from(text.to_uppercase()));
            (vec![made(&Raw::from(text)), capitals], false)
        }
        (Value::Date(days), _) => one(moment(i64::from(*days).saturating_mul(MICROSECONDS_PER_DAY))),
        (Value::Timestamp(micros) | Value::Timestamptz(micros), _) => one(moment(*micros)),
        (Value::Time(micros) | Value::Interval(0, 0, micros), LocalType::Time(_)) => one(time(*micros)),
        (Value::Other(text), LocalType::Bit(_)) => match u64::from_str_radix(text, 2) {
            Ok(number) => one(Raw::UInt(number)),
            Err(_) => (Vec::new(), false),
        },
        (Value::Other(text), _) => one(Raw::from(*text)),
        _ => (Vec::new(), false),
    }
}

/// The most characters of a value that are shown.
const MOST_SHOWN: usize = 200;

/// A value for people.
pub fn shown(raw: &Raw, local: &LocalType) -> Json {
    match (raw, local) {
        (Raw::NULL, _) => Json::Null,
        (Raw::Int(number), _) => Json::from(*number),
        (Raw::UInt(number), _) => Json::from(*number),
        (Raw::Float(number), _) => Json::from(f64::from(*number)),
        (Raw::Double(number), _) => Json::from(*number),
        (Raw::Bytes(bits), LocalType::Bit(_)) => Json::from(bit_number(bits)),
        (Raw::Bytes(bytes), local) => match (std::str::from_utf8(bytes), local) {
            (Ok(text), local) if !matches!(local, LocalType::Binary { .. } | LocalType::Other(_)) => {
                Json::from(text.chars().take(MOST_SHOWN).collect::<String>())
            }
            _ => {
                let digits = bytes.iter().take(MOST_SHOWN / 2 - 1).map(|byte| format!("{byte:02x}"));
                Json::from(format!("\\x{}", digits.collect::<String>()))
            }
        },
        (Raw::Date(year, month, day, hours, minutes, seconds, micros), local) => {
            let date = format!("{year:04}-{month:02}-{day:02}");
            match local {
                LocalType::Date => Json::from(date),
                _ => Json::from(format!(
                    "{date} {}",
                    time_text(u32::from(*hours), *minutes, *seconds, *micros)
                )),
            }
        }
        (Raw::Time(is_negative, days, hours, minutes, seconds, micros), _) => {
            let sign = if *is_negative { "-" } else { "" };
            let hours = days.saturating_mul(24).saturating_add(u32::from(*hours));
            Json::from(format!("{sign}{}", time_text(hours, *minutes, *seconds, *micros)))
        }
    }
}

fn time_text(hours: u32, minutes: u8, seconds: u8, micros: u32) -> String {
    let text = format!("{hours:02}:{minutes:02}:{seconds:02}");
    match micros {
        0 => text,
        micros => format!("{text}.{micros:06}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were() {
        let local = LocalType::parse("varchar(9)");
        for raw in [
            Raw::NULL,
            Raw::Int(i64::MIN),
            Raw::UInt(u64::MAX),
            Raw::Double(-0.5),
            Raw::Bytes(vec![0, 255, 7]),
            Raw::Bytes(Vec::new()),
            Raw::Date(0, 0, 0, 0, 0, 0, 0),
            Raw::Date(9999, 12, 31, 23, 59, 59, 999_999),
            Raw::Time(true, 34, 22, 59, 59, 999_999),
        ] {
            let mut bytes = Vec::new();
            let class = put(&raw, &local, &mut bytes);
            assert_eq!(bound(&RawValue { class, bytes }), raw);
        }
        let mut bytes = Vec::new();
        let class = put(&Raw::Double(-0.0), &local, &mut bytes);
        assert_eq!(class, DOUBLE);
        assert_eq!(bytes, 0f64.to_le_bytes());
        assert_eq!(bound(&RawValue { class: DATE, bytes: vec![1] }), Raw::NULL);
        assert_eq!(bound(&RawValue { class: 9, bytes: Vec::new() }), Raw::NULL);
    }

    #[test]
    fn moments_are_the_nearest_there_are() {
        assert_eq!(moment(0), Raw::Date(2000, 1, 1, 0, 0, 0, 0));
        assert_eq!(moment(-1), Raw::Date(1999, 12, 31, 23, 59, 59, 999_999));
        assert_eq!(moment(i64::MIN), Raw::Date(1, 1, 1, 0, 0, 0, 0));
        assert_eq!(moment(i64::MAX), Raw::Date(9999, 12, 31, 23, 59, 59, 999_999));
        assert_eq!(time(-3_020_399_000_000), Raw::Time(true, 34, 22, 59, 59, 0));
    }
}
