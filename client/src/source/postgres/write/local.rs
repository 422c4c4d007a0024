//! The managed column's values as the local column takes them: in its type's own binary form where that is plain, else as
//! text that it reads.

use plimsoll_core::value::datetime::MICROSECONDS_PER_DAY;
use plimsoll_core::value::{ColumnType, NumericBuf, Value, literal};
use plimsoll_core::{ErrorKind, Result};

use super::super::decode::{name, refuse, whole_of};
use super::super::row::{BINARY, WRITTEN};
use super::super::shape::Shape;
use crate::source::query::RawValue;

/// A value for a column of this shape; `column_type` is the managed column's, with attributes in the local order.
pub fn local(shape: &Shape, column_type: &ColumnType, value: &Value<'_>) -> Result<RawValue> {
    let binary = |bytes: &[u8]| Ok(RawValue { class: BINARY, bytes: bytes.to_vec() });
    let written = |text: String| Ok(RawValue { class: WRITTEN, bytes: text.into_bytes() });
    let wrong = || {
        refuse(ErrorKind::WrongType, format!("a value of type {column_type} where {} is kept", name(shape)))
    };
    match (shape, value) {
        (Shape::Bool, Value::Bool(value)) => binary(&[u8::from(*value)]),
        (Shape::Int2 | Shape::Int4 | Shape::Int8, value) => match whole(value) {
            Some(number) => integer(shape, number),
            None => refuse(ErrorKind::WouldChange, format!("{} holds whole numbers alone", name(shape))),
        },
        (Shape::Xid8 | Shape::Oid, value) => match (whole(value), value) {
            (Some(number @ 0..), _) => written(number.to_string()),
            (None, Value::Other(text)) => written((*text).to_owned()),
            _ => refuse(ErrorKind::OutOfRange, format!("{} holds no such number", name(shape))),
        },
        (Shape::Numeric | Shape::Money, Value::Int(number)) => written(number.to_string()),
        (Shape::Numeric | Shape::Money, Value::Numeric(_)) => {
            written(literal::whole_text(value, &ColumnType::Numeric(None))?)
        }
        (Shape::Float8, Value::Float(number)) => binary(&number.to_be_bytes()),
        (Shape::Float4, Value::Float(number)) => match *number as f32 {
            single if number.is_nan() || f64::from(single) == *number => binary(&single.to_be_bytes()),
            _ => refuse(ErrorKind::WouldChange, format!("float4 cannot hold {number} exactly")),
        },
        (
            Shape::Text | Shape::Padded | Shape::Json,
            Value::Text(text)
            | Value::Enum(text)
            | Value::Json(text)
            | Value::Jsonb(text)
            | Value::Other(text),
        ) => binary(text.as_bytes()),
        (Shape::Jsonb, Value::Json(text) | Value::Jsonb(text)) => written((*text).to_owned()),
        (Shape::Enum, Value::Text(text) | Value::Enum(text)) => written((*text).to_owned()),
        (Shape::Bytea, Value::Bytea(bytes)) => binary(bytes),
        (Shape::Uuid, Value::Uuid(bytes)) => binary(bytes),
        (Shape::Date, Value::Date(days)) => binary(&days.to_be_bytes()),
        (Shape::Date, Value::Timestamp(micros)) => match day(*micros) {
            Some(days) => binary(&days.to_be_bytes()),
            None => refuse(ErrorKind::WouldChange, "a time of day, which date would drop"),
        },
        (Shape::Time, Value::Time(micros))
        | (Shape::Timestamp, Value::Timestamp(micros))
        | (Shape::Timestamptz, Value::Timestamptz(micros)) => binary(&micros.to_be_bytes()),
        (Shape::Timestamp, Value::Date(days)) => binary(&super::super::nested::midnight(*days).to_be_bytes()),
        (Shape::Timetz, Value::Timetz(..)) | (Shape::Interval, Value::Interval(..)) => {
            written(literal::whole_text(value, column_type)?)
        }
        (Shape::Written(_), Value::Other(text) | Value::Text(text)) => written((*text).to_owned()),
        // What nests, and what the managed column has as text.
        (
            Shape::Array(_) | Shape::Range(_) | Shape::Multirange(_) | Shape::Composite(_),
            Value::Text(text),
        ) => written((*text).to_owned()),
        (Shape::Array(_), Value::Array(_))
        | (Shape::Range(_), Value::Range(_))
        | (Shape::Multirange(_), Value::Multirange(_))
        | (Shape::Composite(_), Value::Composite(_)) => written(literal::whole_text(value, column_type)?),
        _ => wrong(),
    }
}

/// The whole number that a value is.
fn whole(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Numeric(number) => whole_of(number),
        Value::Float(number) if number.is_finite() => whole_of(&NumericBuf::from_float(*number).borrow()),
        _ => None,
    }
}

fn integer(shape: &Shape, number: i64) -> Result<RawValue> {
    let bytes = match shape {
        Shape::Int2 => i16::try_from(number).ok().map(|number| number.to_be_bytes().to_vec()),
        Shape::Int4 => i32::try_from(number).ok().map(|number| number.to_be_bytes().to_vec()),
        _ => Some(number.to_be_bytes().to_vec()),
    };
    match bytes {
        Some(bytes) => Ok(RawValue { class: BINARY, bytes }),
        None => refuse(ErrorKind::OutOfRange, format!("{number} is out of range for {}", name(shape))),
    }
}

/// The day whose midnight a moment is.
fn day(micros: i64) -> Option<i32> {
    match micros {
        i64::MAX => Some(i32::MAX),
        i64::MIN => Some(i32::MIN),
        micros if micros % MICROSECONDS_PER_DAY == 0 => i32::try_from(micros / MICROSECONDS_PER_DAY).ok(),
        _ => None,
    }
}
