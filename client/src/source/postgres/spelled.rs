//! How the local database may hold a key of the managed table: what is found by an index instead of a pass over all keys.

use plimsoll_core::value::Value;

use super::decode::whole_of;
use super::row::WRITTEN;
use super::shape::Shape;
use super::written::written;
use crate::source::query::RawValue;

/// The values of a column of this shape that may be `value` of the managed column, and whether no others are. A text that the
/// column's type does not read would fail the statement: where the replica holds a key that the local type has not,
/// there is none.
pub fn spellings(shape: &Shape, value: &Value<'_>) -> (Vec<RawValue>, bool) {
    let one = |text: Option<String>| {
        let values = text.map(|text| RawValue { class: WRITTEN, bytes: text.into_bytes() });
        (values.into_iter().collect(), true)
    };
    // Looked for among all keys: the same value is spelled in many ways, or nobody knows which texts the type reads.
    let unknown = (Vec::new(), false);
    match (shape, value) {
        (Shape::Int2 | Shape::Int4 | Shape::Int8 | Shape::Xid8 | Shape::Oid, value) => {
            let (least, most) = match shape {
                Shape::Int2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
                Shape::Int4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
                Shape::Oid => (0, i64::from(u32::MAX)),
                Shape::Xid8 => (0, i64::MAX),
                _ => (i64::MIN, i64::MAX),
            };
            let number = whole_number(value).filter(|number| (least..=most).contains(number));
            one(number.map(|number| number.to_string()))
        }
        (Shape::Float4, Value::Float(number)) if !number.is_nan() && f64::from(*number as f32) != *number => {
            one(None)
        }
        (Shape::Text | Shape::Padded | Shape::Json, Value::Json(_) | Value::Jsonb(_)) => unknown,
        (Shape::Written(_), Value::Text(_)) | (Shape::Enum, _) => unknown,
        (Shape::Array(_) | Shape::Range(_) | Shape::Multirange(_) | Shape::Composite(_), _) => unknown,
        // Text that equals in the column's own terms: what its type ignores is ignored.
        (_, value) => match written(value) {
            Some(text) => one(Some(text)),
            None => unknown,
        },
    }
}

fn whole_number(value: &Value<'_>) -> Option<i64> {
    /// 2^63, the first double beyond `i64`.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    match value {
        Value::Int(number) => Some(*number),
        Value::Numeric(number) => whole_of(number),
        Value::Float(number) if number.fract() == 0.0 && (-BEYOND..BEYOND).contains(number) => {
            Some(*number as i64)
        }
        Value::Other(text) => text.parse().ok(),
        _ => None,
    }
}
