//! Values to datums, in the current memory context. The core has checked that the type stores the value
//! as it is.

use pgrx::pg_sys::{self, Datum};
use plimsoll_core::row::canonical_json;
use plimsoll_core::value::{ColumnType, Value};

use super::nested::{Inner, kept_otherwise};
use super::{Codec, c_string, numeric, type_name};
use crate::error::{Answer, Problem, state};

/// The most that Postgres allocates for one value.
const MOST_BYTES: usize = 0x3fff_ffff;

unsafe extern "C" {
    /// Postgres' own, called past the guard that turns its errors into panics: that costs as much as the call, for
    /// each value of an upload. Told to answer null where there is no memory, it raises none for sizes that are
    /// allowed.
    fn MemoryContextAllocExtended(
        context: pg_sys::MemoryContext,
        size: usize,
        flags: core::ffi::c_int,
    ) -> *mut core::ffi::c_void;
}

/// Memory in the current context, aligned for any value.
fn allocate(size: usize) -> Answer<*mut u8> {
    let allocated = match size {
        // SAFETY: the size is one that is allowed, so that nothing is raised.
        0..=MOST_BYTES => unsafe {
            MemoryContextAllocExtended(
                pg_sys::CurrentMemoryContext,
                size,
                pg_sys::MCXT_ALLOC_NO_OOM as core::ffi::c_int,
            )
        },
        _ => std::ptr::null_mut(),
    };
    if allocated.is_null() {
        return Err(Problem::new(state::OUT_OF_MEMORY, format!("no memory for a value of {size} bytes")));
    }
    Ok(allocated.cast())
}

/// A value of variable length, in the current context.
fn from_bytes(bytes: &[u8]) -> Answer<Datum> {
    const HEADER: usize = pg_sys::VARHDRSZ;
    let length = HEADER + bytes.len();
    let place = allocate(length)?;
    // SAFETY: the allocation has room for header and bytes, and does not overlap with them.
    unsafe {
        pgrx::set_varsize_4b(place.cast(), length as i32);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.add(HEADER), bytes.len());
    }
    Ok(Datum::from(place))
}

impl Codec {
    /// The datum of a value that `self.column_type` accepts.
    ///
    /// # Errors
    /// A value of another type, or one that its type would keep as another (`WOULD_CHANGE`). What the type's own
    /// functions and the constraints of domains inside the value do not take is raised.
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
            (_, Value::Timetz(micros, west)) => boxed(pg_sys::TimeTzADT { time: *micros, zone: *west })?,
            (_, Value::Interval(months, days, micros)) => {
                boxed(pg_sys::Interval { time: *micros, day: *days, month: *months })?
            }
            (_, Value::Uuid(bytes)) => boxed(*bytes)?,
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
            (_, Value::Json(text) | Value::Enum(text)) => self.text_input(text)?,
            (_, Value::Other(text)) => self.exact_input(text)?,
            (_, value) => match (&mut self.inner, value) {
                (Inner::Array(element), Value::Array(array)) => element.make(array)?,
                (Inner::Range(kind), Value::Range(range)) => kind.make_range(range)?,
                (Inner::Multirange(kind), Value::Multirange(ranges)) => {
                    kind.make_multirange(ranges, self.type_oid)?
                }
                (Inner::Composite(row), Value::Composite(composite)) => row.make(composite)?,
                _ => {
                    let message = format!("not a value of type {}", self.column_type);
                    return Err(Problem::new(state::MALFORMED, message));
                }
            },
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

    /// As [`text_input`](Self::text_input), of text that stands for the value as the type writes it.
    ///
    /// # Errors
    /// `WOULD_CHANGE` where the type writes the value otherwise: it would be known by another text than was sent.
    fn exact_input(&mut self, text: &str) -> Answer<Datum> {
        let datum = self.text_input(text)?;
        // SAFETY: the datum was just made by the type's own input function.
        let written = unsafe { self.text_output(datum) }?;
        if written == text {
            return Ok(datum);
        }
        let shown: String = written.chars().take(200).collect();
        Err(kept_otherwise(&format!("{} writes it as \"{shown}\"", type_name(self.type_oid))))
    }

    /// As [`text_input`](Self::text_input), without the column's limits: nothing is rounded or cut.
    pub fn unlimited_input(&mut self, text: &str) -> Answer<Datum> {
        let typmod = std::mem::replace(&mut self.typmod, -1);
        let datum = self.text_input(text);
        self.typmod = typmod;
        datum
    }
}

/// A fixed-length value that is passed by reference, in the current context.
fn boxed<T>(value: T) -> Answer<Datum> {
    let place = allocate(size_of::<T>())?.cast::<T>();
    // SAFETY: the allocation is as large as the value, and aligned for it.
    unsafe { place.write(value) };
    Ok(Datum::from(place))
}
