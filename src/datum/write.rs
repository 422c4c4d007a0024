//! Values to datums, in the current memory context. The core has checked that the type stores the value
//! as it is.

use pgrx::pg_sys::{self, Datum};
use pgrx::{IntoDatum, PgBox};
use plimsoll_core::row::canonical_json;
use plimsoll_core::value::{ColumnType, Value};

use super::{Codec, c_string, numeric};
use crate::error::{Answer, Problem, state};

fn from_bytes(bytes: &[u8]) -> Answer<Datum> {
    bytes.into_datum().ok_or_else(|| Problem::new(state::INTERNAL, "a value without a datum"))
}

impl Codec {
    /// The datum of a value that `self.column_type` accepts.
    ///
    /// # Errors
    /// A value of another type, or text that its type's input function takes for malformed.
    pub fn make_datum(&mut self, value: &Value<'_>) -> Answer<Datum> {
        Ok(match (&self.column_type, value) {
            (_, Value::Bool(value)) => Datum::from(*value),
            (ColumnType::Int2, Value::Int(value)) => Datum::from(*value as i16),
            (ColumnType::Int4, Value::Int(value)) => Datum::from(*value as i32),
            (_, Value::Int(value)) => Datum::from(*value),
            (ColumnType::Float4, Value::Float(value)) => Datum::from((*value as f32).to_bits()),
            (_, Value::Float(value)) => Datum::from(value.to_bits()),
            (_, Value::Date(days)) => Datum::from(*days),
            (_, Value::Time(micros) | Value::Timestamp(micros) | Value::Timestamptz(micros)) => {
                Datum::from(*micros)
            }
            (_, Value::Timetz(micros, west)) => boxed(pg_sys::TimeTzADT { time: *micros, zone: *west }),
            (_, Value::Interval(months, days, micros)) => {
                boxed(pg_sys::Interval { time: *micros, day: *days, month: *months })
            }
            (_, Value::Uuid(bytes)) => boxed(*bytes),
            (ColumnType::Char(length), Value::Text(text)) => {
                // A char(n) is stored padded, and no cast will pad this one.
                let missing = (*length as usize).saturating_sub(text.chars().count());
                from_bytes((text.to_string() + &" ".repeat(missing)).as_bytes())?
            }
            (_, Value::Text(text)) => from_bytes(text.as_bytes())?,
            (_, Value::Bytea(bytes)) => from_bytes(bytes)?,
            (ColumnType::Numeric(limits), Value::Numeric(number)) => {
                let shown = match limits {
                    Some((_, scale)) => u16::try_from(*scale).unwrap_or(0),
                    None => number.scale(),
                };
                from_bytes(&numeric::pack(number, shown))?
            }
            (_, Value::Jsonb(text)) => {
                // Refused here with a position, and without an ERROR that would cost a subtransaction.
                canonical_json(text, &mut Vec::new())?;
                self.text_input(text)?
            }
            (_, Value::Json(text) | Value::Enum(text) | Value::Other(text)) => self.text_input(text)?,
            (_, Value::Array(array)) => self.array_datum(array)?,
            _ => {
                let message = format!("not a value of type {}", self.column_type);
                return Err(Problem::new(state::MALFORMED, message));
            }
        })
    }

    /// The datum of a value's text form, by the type's own input function.
    pub fn text_input(&mut self, text: &str) -> Answer<Datum> {
        let text = c_string(text)?;
        // SAFETY: the input function is the type's own; the string outlives the call.
        let datum = unsafe {
            pg_sys::InputFunctionCall(
                &mut self.input,
                text.as_ptr().cast_mut(),
                self.input_parameter,
                self.typmod,
            )
        };
        Ok(datum)
    }

    /// As [`text_input`](Self::text_input), without the column's limits: nothing is rounded or cut.
    pub fn unlimited_input(&mut self, text: &str) -> Answer<Datum> {
        let typmod = std::mem::replace(&mut self.typmod, -1);
        let datum = self.text_input(text);
        self.typmod = typmod;
        datum
    }

    fn array_datum(&mut self, array: &plimsoll_core::value::Array<'_>) -> Answer<Datum> {
        let Some(element) = &mut self.element else {
            return Err(Problem::new(state::MALFORMED, "an array for a column that is none"));
        };
        let (mut items, mut nulls) = (Vec::new(), Vec::new());
        // A domain's constraint holds for elements too, and no cast will check it: the array is built here.
        let is_domain = element.type_oid != element.codec.type_oid;
        for item in array.elements() {
            let null = item.is_none();
            let datum = match item {
                Some(value) => element.codec.make_datum(&value)?,
                None => Datum::from(0usize),
            };
            if is_domain {
                // SAFETY: a value of the domain's base type; what is kept lives as long as the codec's
                // other state.
                unsafe {
                    pg_sys::domain_check(
                        datum,
                        null,
                        element.type_oid,
                        &mut element.domain,
                        element.codec.input.fn_mcxt,
                    );
                }
            }
            nulls.push(null);
            items.push(datum);
        }
        let (mut lengths, mut bounds): (Vec<i32>, Vec<i32>) =
            array.dimensions().map(|(length, lower)| (length as i32, lower)).unzip();
        // SAFETY: items and nulls are as many as the product of the lengths, which the core has checked;
        // all pointers are to locals, copied by the call.
        let built = unsafe {
            pg_sys::construct_md_array(
                items.as_mut_ptr(),
                nulls.as_mut_ptr(),
                lengths.len() as i32,
                lengths.as_mut_ptr(),
                bounds.as_mut_ptr(),
                element.type_oid,
                i32::from(element.length),
                element.by_value,
                element.alignment,
            )
        };
        Ok(Datum::from(built))
    }
}

/// A fixed-length value that is passed by reference, in the current context.
fn boxed<T>(value: T) -> Datum {
    // SAFETY: the allocation is as large as the value, which is written before it is read.
    let place = unsafe { PgBox::<T>::alloc() };
    // SAFETY: a fresh allocation of this type.
    unsafe { place.as_ptr().write(value) };
    Datum::from(place.into_pg())
}
