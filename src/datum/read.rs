//! Datums to values of the row encoding.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum};
use plimsoll_core::row::RowWriter;
use plimsoll_core::value::{ColumnType, Value};

use super::nested::Inner;
use super::{Codec, numeric};
use crate::error::{Answer, Problem, state};

/// The bytes of a variable-length value, decompressed and fetched where they are stored elsewhere.
///
/// # Safety
/// `datum` is a non-NULL value of a variable-length type; the bytes live as long as the current context.
unsafe fn bytes_of<'a>(datum: Datum) -> &'a [u8] {
    // SAFETY: by the caller's promise.
    unsafe {
        let packed = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        pgrx::varlena::varlena_to_byte_slice(packed)
    }
}

/// # Safety
/// As [`bytes_of`], of a type whose bytes are text.
unsafe fn text_of<'a>(datum: Datum) -> Answer<&'a str> {
    // SAFETY: by the caller's promise.
    let bytes = unsafe { bytes_of(datum) };
    std::str::from_utf8(bytes).map_err(|_| Problem::new(state::INTERNAL, "stored text is not UTF-8"))
}

/// Makes the doubles within a text the shortest that are read as the same number, whatever the caller set: geometric
/// types and some of extensions are known by their text alone.
struct FloatDigits(i32);

impl FloatDigits {
    fn begin() -> Self {
        // SAFETY: a variable of the backend that output functions read; `drop` sets it back.
        FloatDigits(unsafe { std::ptr::replace(&raw mut pg_sys::extra_float_digits, 1) })
    }
}

impl Drop for FloatDigits {
    fn drop(&mut self) {
        // SAFETY: as in `begin`.
        unsafe { pg_sys::extra_float_digits = self.0 };
    }
}

/// A copy of a text in the current context.
fn leaked<'a>(text: &str) -> &'a str {
    // SAFETY: the copy is as long as the text, and as valid.
    unsafe {
        let copy = pg_sys::pnstrdup(text.as_ptr().cast(), text.len());
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(copy.cast(), text.len()))
    }
}

impl Codec {
    /// Appends a column that is not NULL to a row.
    ///
    /// # Safety
    /// `datum` is a value of the codec's type. Memory is taken from the current context.
    pub unsafe fn write_field(&mut self, datum: Datum, number: u32, row: &mut RowWriter<'_>) -> Answer<()> {
        // SAFETY: by the caller's promise.
        unsafe { self.with_value(datum, |value| row.field(number, value)) }
    }

    /// Hands the value of a datum to `take`.
    ///
    /// # Safety
    /// As [`write_field`](Self::write_field).
    pub unsafe fn with_value<T>(&mut self, datum: Datum, take: impl FnOnce(&Value<'_>) -> T) -> Answer<T> {
        // SAFETY: each arm reads the datum as what its type says it is, by the caller's promise.
        unsafe {
            match &mut self.inner {
                Inner::None => {}
                Inner::Array(element) => {
                    return Ok(take(&Value::Array(element.read(datum, false)?.array())));
                }
                Inner::Range(range) => return Ok(take(&Value::Range(range.read_range(datum)?.range()))),
                Inner::Multirange(range) => {
                    return Ok(take(&Value::Multirange(range.read_multirange(datum)?.multirange())));
                }
                Inner::Composite(row) => return Ok(take(&Value::Composite(row.read(datum)?.composite()))),
            }
        }
        // SAFETY: as above.
        let value = unsafe {
            match &self.column_type {
                ColumnType::Bool => Value::Bool(datum.value() != 0),
                ColumnType::Int2 => Value::Int(i64::from(datum.value() as i16)),
                ColumnType::Int4 => Value::Int(i64::from(datum.value() as i32)),
                ColumnType::Int8 | ColumnType::Xid8 => Value::Int(datum.value() as i64),
                ColumnType::Float4 => Value::Float(f64::from(f32::from_bits(datum.value() as u32))),
                ColumnType::Float8 => Value::Float(f64::from_bits(datum.value() as u64)),
                ColumnType::Date => Value::Date(datum.value() as i32),
                ColumnType::Time(_) => Value::Time(datum.value() as i64),
                ColumnType::Timestamp(_) => Value::Timestamp(datum.value() as i64),
                ColumnType::Timestamptz(_) => Value::Timestamptz(datum.value() as i64),
                ColumnType::Timetz(_) => {
                    // Field by field: the datum is shorter than the padded struct.
                    let time = datum.cast_mut_ptr::<pg_sys::TimeTzADT>();
                    Value::Timetz((&raw const (*time).time).read(), (&raw const (*time).zone).read())
                }
                ColumnType::Interval(_) => {
                    let interval = &*datum.cast_mut_ptr::<pg_sys::Interval>();
                    Value::Interval(interval.month, interval.day, interval.time)
                }
                ColumnType::Uuid => Value::Uuid(*datum.cast_mut_ptr::<[u8; 16]>()),
                ColumnType::Text | ColumnType::Citext | ColumnType::Varchar(_) => {
                    Value::Text(text_of(datum)?)
                }
                ColumnType::Char(_) => Value::Text(text_of(datum)?.trim_end_matches(' ')),
                ColumnType::Bytea => Value::Bytea(bytes_of(datum)),
                ColumnType::Json => Value::Json(text_of(datum)?),
                ColumnType::Numeric(_) => {
                    let number = numeric::unpack(bytes_of(datum));
                    let number = number.ok_or_else(|| Problem::new(state::INTERNAL, "a damaged numeric"))?;
                    return Ok(take(&Value::Numeric(number.borrow())));
                }
                ColumnType::Jsonb => Value::Jsonb(self.text_output(datum)?),
                ColumnType::Enum(_) => Value::Enum(self.text_output(datum)?),
                _ => Value::Other(self.text_output(datum)?),
            }
        };
        Ok(take(&value))
    }

    /// As [`with_value`](Self::with_value), without another copy of the code for each `take`: values nest.
    ///
    /// # Safety
    /// As [`write_field`](Self::write_field).
    pub(super) unsafe fn hand_value(
        &mut self,
        datum: Datum,
        take: &mut dyn FnMut(&Value<'_>) -> plimsoll_core::Result<()>,
    ) -> Answer<plimsoll_core::Result<()>> {
        // SAFETY: by the caller's promise.
        unsafe { self.with_value(datum, take) }
    }

    /// # Safety
    /// As [`write_field`](Self::write_field).
    pub(super) unsafe fn text_output<'a>(&mut self, datum: Datum) -> Answer<&'a str> {
        if self.type_oid == pg_sys::CHAROID && datum.value() as u8 >= 0x80 {
            // Not UTF-8 in the text of older releases.
            return Ok(leaked(&format!("\\{:03o}", datum.value() as u8)));
        }
        let _digits = FloatDigits::begin();
        // SAFETY: the output function is the type's own; it answers a NUL-terminated string in the
        // current context.
        let text = unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(&mut self.output, datum)) };
        text.to_str().map_err(|_| Problem::new(state::INTERNAL, "stored text is not UTF-8"))
    }
}
