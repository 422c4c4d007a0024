//! Datums to values of the row encoding.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum};
use plimsoll_core::row::RowWriter;
use plimsoll_core::value::{ArrayBuilder, ColumnType, Value};

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
        // SAFETY: each arm reads the datum as what its column type says it is, by the caller's promise.
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
                ColumnType::Array(_) => {
                    let array = self.array_of(datum, false)?;
                    return Ok(take(&Value::Array(array.array())));
                }
                _ => Value::Other(self.text_output(datum)?),
            }
        };
        Ok(take(&value))
    }

    /// # Safety
    /// As [`write_field`](Self::write_field).
    pub(super) unsafe fn text_output<'a>(&mut self, datum: Datum) -> Answer<&'a str> {
        // SAFETY: the output function is the type's own; it answers a NUL-terminated string in the
        // current context.
        let text = unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(&mut self.output, datum)) };
        text.to_str().map_err(|_| Problem::new(state::INTERNAL, "stored text is not UTF-8"))
    }

    /// The array in wire form or in digest form.
    ///
    /// # Safety
    /// As [`write_field`](Self::write_field), of an array type.
    pub(super) unsafe fn array_of(&mut self, datum: Datum, digest_form: bool) -> Answer<ArrayBuilder> {
        let Some(element) = &mut self.element else {
            return Err(Problem::new(state::INTERNAL, "an array type without elements"));
        };
        let (mut items, mut nulls) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut count = 0;
        // SAFETY: the datum is an array of the element type, by the caller's promise; the answers are
        // `count` long. Dimensions and lower bounds follow the array's header, `ndim` of each.
        let (items, nulls, dimensions) = unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            pg_sys::deconstruct_array(
                array,
                element.type_oid,
                i32::from(element.length),
                element.by_value,
                element.alignment,
                &mut items,
                &mut nulls,
                &mut count,
            );
            let ndim = (*array).ndim as usize;
            let bounds = array.add(1).cast::<i32>();
            let dimensions: Vec<(u32, i32)> =
                (0..ndim).map(|i| (*bounds.add(i) as u32, *bounds.add(ndim + i))).collect();
            let count = count as usize;
            if count == 0 {
                (&[][..], &[][..], dimensions)
            } else {
                (
                    std::slice::from_raw_parts(items, count),
                    std::slice::from_raw_parts(nulls, count),
                    dimensions,
                )
            }
        };
        let mut builder = ArrayBuilder::new(&dimensions);
        for (item, null) in items.iter().zip(nulls) {
            if *null {
                builder.push(None);
                continue;
            }
            // As a trait object: an array's elements must not make a new type of this function.
            let mut push = |value: &Value<'_>| {
                if digest_form {
                    return builder.push_digest_form(Some(value));
                }
                builder.push(Some(value));
                Ok(())
            };
            let push: &mut dyn FnMut(&Value<'_>) -> plimsoll_core::Result<()> = &mut push;
            // SAFETY: an element of the array, of the element type.
            unsafe { element.codec.with_value(*item, push) }??;
        }
        Ok(builder)
    }
}
