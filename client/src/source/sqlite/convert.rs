//! SQLite's values to the managed column's: exactly, or refused with the reason.

use plimsoll_core::value::{ColumnType, NumericBuf, Value, datetime, literal};
use plimsoll_core::{Error, ErrorKind, Result};
use rusqlite::types::ValueRef;

use crate::source::kind::Scratch;

fn refuse<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T> {
    Err(Error::new(kind, message))
}

/// The storage class of a value, as `typeof()` says it.
pub fn storage_class(raw: ValueRef<'_>) -> &'static str {
    match raw {
        ValueRef::Null => "NULL",
        ValueRef::Integer(_) => "an INTEGER",
        ValueRef::Real(_) => "a REAL",
        ValueRef::Text(_) => "a TEXT",
        ValueRef::Blob(_) => "a BLOB",
    }
}

fn wrong<T>(raw: ValueRef<'_>, column_type: &ColumnType, takes: &str) -> Result<T> {
    let class = storage_class(raw);
    refuse(ErrorKind::WrongType, format!("{class} where {column_type} takes {takes}"))
}

/// Text as it must be for Postgres: UTF-8.
fn text(bytes: &[u8]) -> Result<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let message = format!("text that is not UTF-8 (at its byte {})", error.valid_up_to());
            refuse(ErrorKind::InvalidText, message)
        }
    }
}

/// The whole number that a value is; `None` where it is none.
pub fn whole_number(raw: ValueRef<'_>) -> Option<i64> {
    /// 2^63, the first double beyond `i64`.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    match raw {
        ValueRef::Integer(number) => Some(number),
        ValueRef::Real(number) if number.fract() == 0.0 && (-BEYOND..BEYOND).contains(&number) => {
            Some(number as i64)
        }
        _ => None,
    }
}

fn exact_float(number: i64) -> Option<f64> {
    let float = number as f64;
    (float as i128 == i128::from(number)).then_some(float)
}

/// The value of `column_type` that `raw` is; `None` is NULL. What must be kept for it is kept in `scratch`. Whether the
/// column stores it exactly is not looked at.
///
/// # Errors
/// Where it is none. The message does not name the column.
pub fn convert<'v>(
    raw: ValueRef<'v>,
    column_type: &ColumnType,
    scratch: &'v mut Scratch,
) -> Result<Option<Value<'v>>> {
    use ColumnType as T;
    if raw == ValueRef::Null {
        return Ok(None);
    }
    let value = match column_type {
        T::Int2 | T::Int4 | T::Int8 | T::Xid8 => match (whole_number(raw), raw) {
            (Some(number), _) => Value::Int(number),
            (None, ValueRef::Real(real)) => {
                return refuse(ErrorKind::WouldChange, format!("{column_type} cannot hold {real} exactly"));
            }
            _ => return wrong(raw, column_type, "whole numbers"),
        },
        T::Numeric(_) => {
            let parsed = match raw {
                ValueRef::Integer(number) => NumericBuf::from_int(number),
                ValueRef::Real(number) => NumericBuf::from_float(number),
                ValueRef::Text(bytes) => NumericBuf::parse(text(bytes)?)?,
                _ => return wrong(raw, column_type, "numbers or text"),
            };
            Value::Numeric(scratch.number.insert(parsed).borrow())
        }
        T::Float4 | T::Float8 => match raw {
            ValueRef::Real(number) => Value::Float(number),
            ValueRef::Integer(number) => match exact_float(number) {
                Some(number) => Value::Float(number),
                None => {
                    let message = format!("{column_type} cannot hold {number} exactly");
                    return refuse(ErrorKind::WouldChange, message);
                }
            },
            _ => return wrong(raw, column_type, "numbers"),
        },
        T::Bool => match whole_number(raw) {
            Some(0) => Value::Bool(false),
            Some(1) => Value::Bool(true),
            _ => return wrong(raw, column_type, "0 or 1 alone"),
        },
        T::Bytea => match raw {
            ValueRef::Blob(bytes) => Value::Bytea(bytes),
            _ => return wrong(raw, column_type, "BLOBs"),
        },
        T::Uuid => Value::Uuid(uuid(raw)?),
        _ => match raw {
            ValueRef::Text(bytes) => from_text(text(bytes)?, column_type, &mut scratch.bytes)?,
            _ => return wrong(raw, column_type, "TEXT"),
        },
    };
    Ok(Some(value))
}

fn from_text<'v>(text: &'v str, column_type: &ColumnType, buffer: &'v mut Vec<u8>) -> Result<Value<'v>> {
    use ColumnType as T;
    Ok(match column_type {
        T::Text | T::Varchar(_) | T::Citext => Value::Text(text),
        T::Char(_) => Value::Text(text.trim_end_matches(' ')),
        T::Date => Value::Date(date(text)?),
        T::Time(_) => Value::Time(datetime::parse_time(text)?),
        T::Timetz(_) => {
            let (micros, west) = datetime::parse_timetz(text)?;
            Value::Timetz(micros, west)
        }
        T::Timestamp(_) => match datetime::parse_timestamp(text)? {
            (micros, None | Some(0)) => Value::Timestamp(micros),
            _ => {
                return refuse(
                    ErrorKind::WouldChange,
                    format!("\"{}\" has a time zone, which timestamp would drop", shown(text)),
                );
            }
        },
        // Without a zone SQLite's own functions mean UTC.
        T::Timestamptz(_) => Value::Timestamptz(datetime::parse_timestamp(text)?.0),
        T::Json => Value::Json(text),
        T::Jsonb => Value::Jsonb(text),
        T::Enum(_) => Value::Enum(text),
        T::Other(_) => Value::Other(text),
        // As Postgres writes them: arrays, ranges, composites, intervals.
        _ => literal::parse(text, column_type, buffer)?,
    })
}

/// A date, also where it is written with the time 00:00.
fn date(text: &str) -> Result<i32> {
    let error = match datetime::parse_date(text) {
        Ok(days) => return Ok(days),
        Err(error) => error,
    };
    match datetime::parse_timestamp(text) {
        Ok((micros, None)) if micros % datetime::MICROSECONDS_PER_DAY == 0 => {
            i32::try_from(micros / datetime::MICROSECONDS_PER_DAY).map_err(|_| error)
        }
        Ok(_) => {
            refuse(ErrorKind::WouldChange, format!("\"{}\" has a time, which date would drop", shown(text)))
        }
        Err(_) => Err(error),
    }
}

fn uuid(raw: ValueRef<'_>) -> Result<[u8; 16]> {
    let bytes = match raw {
        ValueRef::Blob(bytes) => match bytes.try_into() {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let message = format!("{} bytes where a uuid has 16", bytes.len());
                return refuse(ErrorKind::InvalidText, message);
            }
        },
        ValueRef::Text(bytes) => bytes,
        _ => return wrong(raw, &ColumnType::Uuid, "TEXT or 16-byte BLOBs"),
    };
    // The parser takes braces and URN prefixes too, which Postgres stores as the same uuid.
    match uuid::Uuid::try_parse_ascii(bytes) {
        Ok(uuid) => Ok(*uuid.as_bytes()),
        Err(_) => refuse(ErrorKind::InvalidText, "text that is no uuid"),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
