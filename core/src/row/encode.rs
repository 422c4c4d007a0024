//! Values to bytes.

use super::Tag;
use super::normal::{normal_float, put_normal};
use crate::error::Result;
use crate::value::{Numeric, Value};

/// Appends an unsigned number, seven bits a byte, least significant first, high bit on all but the last.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Column number and tag of a field; both take one byte in nearly every table.
#[inline(always)]
fn put_head(out: &mut Vec<u8>, number: u32, tag: Tag) {
    match u8::try_from(number) {
        Ok(number @ 0..0x80) => out.extend_from_slice(&[number, tag as u8]),
        _ => {
            put_varint(out, u64::from(number));
            out.push(tag as u8);
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[inline]
fn put_numeric(out: &mut Vec<u8>, number: &Numeric<'_>) {
    if !number.kind().is_finite() {
        out.push(number.kind() as u8);
    } else {
        let ([s0, s1], [w0, w1]) = (number.scale().to_le_bytes(), number.weight().to_le_bytes());
        out.extend_from_slice(&[number.kind() as u8, s0, s1, w0, w1]);
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

/// Appends the tag and the payload of an array, range, multirange or composite.
pub(crate) fn put_tagged_bytes(out: &mut Vec<u8>, tag: Tag, payload: &[u8]) {
    sized(out, tag, payload);
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
        self.ascend(number);
        put_varint(self.out, u64::from(number));
        put_tagged(self.out, Some(value));
    }

    /// The next column that is not NULL, in digest form.
    ///
    /// # Errors
    /// `InvalidText` where it is jsonb that is no JSON.
    ///
    /// # Panics
    /// As [`field`](Self::field).
    pub fn digest_field(&mut self, number: u32, value: &Value<'_>) -> Result<()> {
        self.ascend(number);
        put_varint(self.out, u64::from(number));
        put_normal(self.out, value)
    }

    /// As [`field`](Self::field) with an `Int`, which is its own digest form.
    #[inline]
    pub fn int(&mut self, number: u32, value: i64) {
        self.fixed(number, Tag::Int, value.to_le_bytes());
    }

    /// As [`field`](Self::field) with a `Bool`.
    #[inline]
    pub fn bool(&mut self, number: u32, value: bool) {
        self.fixed(number, Tag::Bool, [u8::from(value)]);
    }

    /// As [`digest_field`](Self::digest_field) with a `Float`.
    #[inline]
    pub fn digest_float(&mut self, number: u32, value: f64) {
        self.fixed(number, Tag::Float, normal_float(value).to_le_bytes());
    }

    /// As [`field`](Self::field) with a `Uuid`.
    #[inline]
    pub fn uuid(&mut self, number: u32, value: [u8; 16]) {
        self.fixed(number, Tag::Uuid, value);
    }

    /// As [`field`](Self::field) with a `Date`.
    #[inline]
    pub fn date(&mut self, number: u32, days: i32) {
        self.fixed(number, Tag::Date, days.to_le_bytes());
    }

    /// As [`field`](Self::field) with a `Time`.
    #[inline]
    pub fn time(&mut self, number: u32, micros: i64) {
        self.fixed(number, Tag::Time, micros.to_le_bytes());
    }

    /// As [`field`](Self::field) with a `Timestamp`.
    #[inline]
    pub fn timestamp(&mut self, number: u32, micros: i64) {
        self.fixed(number, Tag::Timestamp, micros.to_le_bytes());
    }

    /// As [`field`](Self::field) with a `Timestamptz`.
    #[inline]
    pub fn timestamptz(&mut self, number: u32, micros: i64) {
        self.fixed(number, Tag::Timestamptz, micros.to_le_bytes());
    }

    /// As [`field`](Self::field) with a `Text` of these bytes, which the caller knows to be UTF-8.
    #[inline]
    pub fn text_bytes(&mut self, number: u32, utf8: &[u8]) {
        self.sized(number, Tag::Text, utf8);
    }

    /// As [`field`](Self::field) with a `Bytea`.
    #[inline]
    pub fn bytea(&mut self, number: u32, bytes: &[u8]) {
        self.sized(number, Tag::Bytea, bytes);
    }

    /// As [`field`](Self::field) with a `Numeric`; one with [`Numeric::smallest_scale`] is in digest form.
    #[inline]
    pub fn numeric(&mut self, number: u32, value: &Numeric<'_>) {
        self.ascend(number);
        put_head(self.out, number, Tag::Numeric);
        put_numeric(self.out, value);
    }

    #[inline(always)]
    fn fixed<const N: usize>(&mut self, number: u32, tag: Tag, payload: [u8; N]) {
        self.ascend(number);
        match u8::try_from(number) {
            // In one piece, because each piece is looked whether it fits.
            Ok(number @ 0..0x80) if N <= 16 => {
                let mut field = [0; 18];
                (field[0], field[1]) = (number, tag as u8);
                field[2..N + 2].copy_from_slice(&payload);
                self.out.extend_from_slice(&field[..N + 2]);
            }
            _ => {
                put_head(self.out, number, tag);
                self.out.extend_from_slice(&payload);
            }
        }
    }

    #[inline]
    fn sized(&mut self, number: u32, tag: Tag, payload: &[u8]) {
        self.ascend(number);
        match (u8::try_from(number), u8::try_from(payload.len())) {
            (Ok(number @ 0..0x80), Ok(length @ 0..0x80)) => {
                self.out.extend_from_slice(&[number, tag as u8, length]);
                self.out.extend_from_slice(payload);
            }
            _ => {
                put_head(self.out, number, tag);
                put_bytes(self.out, payload);
            }
        }
    }

    #[inline]
    fn ascend(&mut self, number: u32) {
        debug_assert!(number > self.last, "column numbers ascend");
        self.last = number;
    }
}
