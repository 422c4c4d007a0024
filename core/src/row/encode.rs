//! Values to bytes.

use super::Tag;
use crate::value::{Numeric, Value};

/// Appends an unsigned number, seven bits a byte, least significant first, high bit on all but the last.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_numeric(out: &mut Vec<u8>, number: &Numeric<'_>) {
    out.push(number.kind() as u8);
    if number.kind().is_finite() {
        out.extend_from_slice(&number.scale().to_le_bytes());
        out.extend_from_slice(&number.weight().to_le_bytes());
        put_varint(out, number.digits().len() as u64);
        out.extend_from_slice(number.digits);
    }
}

/// Appends tag and payload; `None` is NULL, which only arrays have.
pub(crate) fn put_tagged(out: &mut Vec<u8>, value: Option<&Value<'_>>) {
    let Some(value) = value else {
        out.push(Tag::Null as u8);
        return;
    };
    let mut fixed = |tag: Tag, bytes: &[u8]| {
        out.push(tag as u8);
        out.extend_from_slice(bytes);
    };
    match value {
        Value::Bool(value) => fixed(Tag::Bool, &[u8::from(*value)]),
        Value::Int(value) => fixed(Tag::Int, &value.to_le_bytes()),
        Value::Float(value) => fixed(Tag::Float, &value.to_le_bytes()),
        Value::Uuid(value) => fixed(Tag::Uuid, value),
        Value::Date(value) => fixed(Tag::Date, &value.to_le_bytes()),
        Value::Time(value) => fixed(Tag::Time, &value.to_le_bytes()),
        Value::Timestamp(value) => fixed(Tag::Timestamp, &value.to_le_bytes()),
        Value::Timestamptz(value) => fixed(Tag::Timestamptz, &value.to_le_bytes()),
        Value::Timetz(micros, west) => {
            fixed(Tag::Timetz, &micros.to_le_bytes());
            out.extend_from_slice(&west.to_le_bytes());
        }
        Value::Interval(months, days, micros) => {
            fixed(Tag::Interval, &months.to_le_bytes());
            out.extend_from_slice(&days.to_le_bytes());
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Value::Numeric(value) => {
            out.push(Tag::Numeric as u8);
            put_numeric(out, value);
        }
        Value::Text(text) => sized(out, Tag::Text, text.as_bytes()),
        Value::Bytea(bytes) => sized(out, Tag::Bytea, bytes),
        Value::Json(text) => sized(out, Tag::Json, text.as_bytes()),
        Value::Jsonb(text) => sized(out, Tag::Jsonb, text.as_bytes()),
        Value::Enum(label) => sized(out, Tag::Enum, label.as_bytes()),
        Value::Other(text) => sized(out, Tag::Other, text.as_bytes()),
        Value::Array(array) => sized(out, Tag::Array, array.0),
        Value::Range(range) => sized(out, Tag::Range, range.0),
        Value::Multirange(ranges) => sized(out, Tag::Multirange, ranges.0),
        Value::Composite(composite) => sized(out, Tag::Composite, composite.0),
    }
}

pub(super) fn sized(out: &mut Vec<u8>, tag: Tag, bytes: &[u8]) {
    out.push(tag as u8);
    put_bytes(out, bytes);
}

/// Writes one row's fields, by ascending column number.
#[derive(Debug)]
pub struct RowWriter<'b> {
    out: &'b mut Vec<u8>,
    last: u32,
}

impl<'b> RowWriter<'b> {
    /// A row that is appended to `out`.
    pub fn new(out: &'b mut Vec<u8>) -> Self {
        RowWriter { out, last: 0 }
    }

    /// The next column that is not NULL.
    ///
    /// # Panics
    /// In debug builds, where the numbers do not ascend.
    pub fn field(&mut self, number: u32, value: &Value<'_>) {
        debug_assert!(number > self.last, "column numbers ascend");
        self.last = number;
        put_varint(self.out, u64::from(number));
        put_tagged(self.out, Some(value));
    }
}
