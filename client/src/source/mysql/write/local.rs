//! The managed column's values as the local column takes them.

use mysql_async::Value as Raw;
use plimsoll_core::value::datetime::{MICROSECONDS_PER_DAY, TIMESTAMP_MIN};
use plimsoll_core::value::{ColumnType, Numeric, Value, literal};
use plimsoll_core::{Error, ErrorKind, Result};

use super::super::convert::bit_number;
use super::super::raw::{made, moment, moments, time};
use super::super::types::LocalType;
use crate::source::query::RawValue;

fn refuse<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T> {
    Err(Error::new(kind, message))
}

/// A value for a column of this local type.
pub fn local(local: &LocalType, column_type: &ColumnType, value: &Value<'_>) -> Result<RawValue> {
    use LocalType as L;
    let text = |text: &str| Ok(Raw::from(text));
    let raw = match (local, value) {
        (L::Bit(_), Value::Bool(value)) => Raw::UInt(u64::from(*value)),
        (L::Bit(_), Value::Bytea(bytes)) => Raw::UInt(bit_number(bytes)),
        (L::Bit(_), Value::Int(number @ 0..)) => Raw::UInt(number.unsigned_abs()),
        (L::Bit(_), Value::Other(bits)) => match u64::from_str_radix(bits, 2) {
            Ok(number) => Raw::UInt(number),
            Err(_) => return refuse(ErrorKind::OutOfRange, "BIT holds 64 bits at most"),
        },
        (L::Bit(_) | L::Integer { .. } | L::Year, Value::Numeric(number)) => whole(number, local)?,
        (L::Integer { .. } | L::Year, Value::Bool(value)) => Raw::Int(i64::from(*value)),
        (L::Integer { .. } | L::Year | L::Float | L::Double | L::Decimal(..), Value::Int(number)) => {
            Raw::Int(*number)
        }
        (L::Integer { .. } | L::Year, Value::Float(number)) if number.fract() == 0.0 => {
            match number.to_string().parse::<i64>() {
                Ok(number) => Raw::Int(number),
                Err(_) => {
                    return refuse(ErrorKind::OutOfRange, format!("{} holds no such number", local.shown()));
                }
            }
        }
        (L::Float | L::Double, Value::Float(number)) if number.is_finite() => Raw::Double(*number),
        (L::Decimal(..) | L::Float | L::Double | L::Text(_), Value::Numeric(_))
            if is_finite(value) || matches!(local, L::Text(_)) =>
        {
            text(&literal::whole_text(value, column_type)?)?
        }
        (_, Value::Numeric(_) | Value::Float(_)) if !is_finite(value) => {
            return refuse(
                ErrorKind::OutOfRange,
                format!("{} holds neither NaN nor infinities", local.shown()),
            );
        }
        (L::Text(_) | L::Members { .. } | L::Json | L::Uuid | L::Inet(_), value) => {
            return in_text(local, column_type, value).map(|raw| made(&raw));
        }
        (L::Binary { .. }, Value::Bytea(bytes)) => Raw::Bytes(bytes.to_vec()),
        (L::Binary { .. }, Value::Uuid(bytes)) => Raw::Bytes(bytes.to_vec()),
        (L::Date | L::Datetime(_) | L::Timestamp(_), Value::Date(days)) => {
            stamp(i64::from(*days).saturating_mul(MICROSECONDS_PER_DAY))?
        }
        (L::Date, Value::Timestamp(micros) | Value::Timestamptz(micros))
            if micros.rem_euclid(MICROSECONDS_PER_DAY) != 0 =>
        {
            return refuse(ErrorKind::WouldChange, "a time of day, which DATE would drop");
        }
        (
            L::Date | L::Datetime(_) | L::Timestamp(_),
            Value::Timestamp(micros) | Value::Timestamptz(micros),
        ) => stamp(*micros)?,
        (L::Time(_), Value::Time(micros) | Value::Interval(0, 0, micros)) => time(*micros),
        (L::Time(_), Value::Interval(..)) => {
            return refuse(ErrorKind::WouldChange, "a length with months or days, which TIME has not");
        }
        _ => {
            let message = format!("a value of type {column_type} where {} is kept", local.shown());
            return refuse(ErrorKind::WrongType, message);
        }
    };
    Ok(made(&raw))
}

fn is_finite(value: &Value<'_>) -> bool {
    match value {
        Value::Numeric(number) => number.kind().is_finite(),
        Value::Float(number) => number.is_finite(),
        _ => true,
    }
}

fn whole(number: &Numeric<'_>, local: &LocalType) -> Result<Raw> {
    let text = match number.kind().is_finite() {
        true => number.smallest_scale().to_string(),
        false => String::new(),
    };
    match (text.parse::<i64>(), text.parse::<u64>()) {
        (Ok(number), _) => Ok(Raw::Int(number)),
        (_, Ok(number)) => Ok(Raw::UInt(number)),
        _ => refuse(ErrorKind::OutOfRange, format!("{} holds no such number", local.shown())),
    }
}

/// A moment of the years 1 to 9999.
fn stamp(micros: i64) -> Result<Raw> {
    let (first, beyond) = moments();
    if micros < first.max(TIMESTAMP_MIN) || micros >= beyond {
        return refuse(ErrorKind::OutOfRange, "a date outside the years 1 to 9999");
    }
    Ok(moment(micros))
}

fn in_text(local: &LocalType, column_type: &ColumnType, value: &Value<'_>) -> Result<Raw> {
    Ok(match value {
        Value::Text(text)
        | Value::Json(text)
        | Value::Jsonb(text)
        | Value::Enum(text)
        | Value::Other(text) => Raw::from(*text),
        Value::Uuid(bytes) => Raw::from(uuid::Uuid::from_bytes(*bytes).to_string()),
        // The members of a set; one with a comma there is not.
        Value::Array(array) if matches!(local, LocalType::Members { .. }) => {
            let member = |element: Option<Value<'_>>| match element {
                Some(Value::Text(text) | Value::Enum(text)) => Some(text.to_owned()),
                _ => None,
            };
            match array.elements().map(member).collect::<Option<Vec<String>>>() {
                Some(members) => Raw::from(members.join(",")),
                None => return refuse(ErrorKind::WouldChange, "an array that is no set"),
            }
        }
        value => Raw::from(literal::whole_text(value, column_type)?),
    })
}
