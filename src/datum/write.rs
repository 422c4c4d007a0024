//! Values to datums, in the current memory context. The core has checked that the type stores the value
//! as it is.

use pgrx::pg_sys::{self, Datum};
use plimsoll_core::row::canonical_json;
use plimsoll_core::value::{ColumnType, Value};

use super::{Codec, c_string, numeric};
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
fn boxed<T>(value: T) -> Answer<Datum> {
    let place = allocate(size_of::<T>())?.cast::<T>();
    // SAFETY: the allocation is as large as the value, and aligned for it.
    unsafe { place.write(value) };
    Ok(Datum::from(place))
}
