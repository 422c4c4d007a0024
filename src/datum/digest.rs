//! Datums to the digest form, without a value in between where there need not be one: this runs for every
//! row that is written to a managed table or scanned. The bytes are those that
//! [`digest_form`](plimsoll_core::row::digest_form) makes of the wire form.

use pgrx::pg_sys::{self, Datum};
use pgrx::varlena::{varatt_is_1b_e, varatt_is_4b_c, varlena_to_byte_slice};
use plimsoll_core::row::RowWriter;
use plimsoll_core::value::{ColumnType, Value};

use super::nested::Inner;
use super::{Codec, Row, numeric};
use crate::error::{Answer, Problem, state};

/// Hands the bytes of a variable-length value to `take`. A copy that had to be decompressed or fetched for it
/// is freed again: values that are stored elsewhere are large.
///
/// # Safety
/// `datum` is a non-NULL value of a variable-length type.
#[inline]
pub(super) unsafe fn with_bytes<T>(datum: Datum, take: impl FnOnce(&[u8]) -> T) -> T {
    let stored = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: by the caller's promise; only what is neither compressed nor stored elsewhere is read in place,
    // and the copy is ours.
    unsafe {
        if !varatt_is_1b_e(stored) && !varatt_is_4b_c(stored) {
            return take(varlena_to_byte_slice(stored));
        }
        let copy = pg_sys::pg_detoast_datum_packed(stored);
        let answer = take(varlena_to_byte_slice(copy));
        if copy != stored {
            pg_sys::pfree(copy.cast());
        }
        answer
    }
}

fn without_padding(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

impl Codec {
    /// Appends a column that is not NULL to a row in digest form.
    ///
    /// # Errors
    /// `INTERNAL` where the stored value is damaged.
    ///
    /// # Safety
    /// `datum` is a value of the codec's type, in a database with encoding UTF8. Memory that is not freed at
    /// once is taken from the current context.
    #[inline]
    pub unsafe fn write_digest_field(
        &mut self,
        datum: Datum,
        number: u32,
        row: &mut RowWriter<'_>,
    ) -> Answer<()> {
        // SAFETY: each arm reads the datum as what its column type says it is, by the caller's promise; text
        // in a database with encoding UTF8 is UTF-8.
        unsafe {
            match &self.column_type {
                ColumnType::Int2 => row.int(number, i64::from(datum.value() as i16)),
                ColumnType::Int4 => row.int(number, i64::from(datum.value() as i32)),
                ColumnType::Int8 | ColumnType::Xid8 => row.int(number, datum.value() as i64),
                ColumnType::Text | ColumnType::Citext | ColumnType::Varchar(_) => {
                    with_bytes(datum, |text| row.text_bytes(number, text))
                }
                ColumnType::Char(_) => {
                    with_bytes(datum, |text| row.text_bytes(number, without_padding(text)))
                }
                ColumnType::Numeric(_) => return with_bytes(datum, |bytes| put_numeric(bytes, number, row)),
                ColumnType::Timestamp(_) => row.timestamp(number, datum.value() as i64),
                ColumnType::Timestamptz(_) => row.timestamptz(number, datum.value() as i64),
                ColumnType::Time(_) => row.time(number, datum.value() as i64),
                ColumnType::Date => row.date(number, datum.value() as i32),
                ColumnType::Bool => row.bool(number, datum.value() != 0),
                ColumnType::Uuid => row.uuid(number, *datum.cast_mut_ptr::<[u8; 16]>()),
                ColumnType::Float4 => {
                    row.digest_float(number, f64::from(f32::from_bits(datum.value() as u32)));
                }
                ColumnType::Float8 => row.digest_float(number, f64::from_bits(datum.value() as u64)),
                ColumnType::Bytea => with_bytes(datum, |bytes| row.bytea(number, bytes)),
                _ => match &mut self.inner {
                    Inner::Array(element) => {
                        row.field(number, &Value::Array(element.read(datum, true)?.array()));
                    }
                    _ => return Ok(self.with_value(datum, |value| row.digest_field(number, value))??),
                },
            }
        }
        Ok(())
    }
}

fn put_numeric(bytes: &[u8], number: u32, row: &mut RowWriter<'_>) -> Answer<()> {
    if let Some(value) = numeric::borrow_normal(bytes) {
        row.numeric(number, &value);
        return Ok(());
    }
    let value = numeric::unpack(bytes).ok_or_else(|| Problem::new(state::INTERNAL, "a damaged numeric"))?;
    row.numeric(number, &value.borrow().smallest_scale());
    Ok(())
}

/// Fields of a row that are gathered besides.
pub struct Gathered<'g> {
    /// Of which of its columns.
    pub wanted: &'g [bool],
    /// Where they are appended.
    pub fields: &'g mut Vec<u8>,
}

impl Row<'_> {
    /// Appends the columns at `places` in digest form, as the columns that `codecs` and `numbers` describe.
    ///
    /// # Errors
    /// As [`Codec::write_digest_field`].
    pub fn encode_places(
        &self,
        places: &[usize],
        numbers: &[u32],
        codecs: &mut [Codec],
        out: &mut Vec<u8>,
        mut gathered: Option<Gathered<'_>>,
    ) -> Answer<()> {
        for (i, ((place, number), codec)) in places.iter().zip(numbers).zip(codecs).enumerate() {
            let Some(datum) = self.datum(*place) else { continue };
            let start = out.len();
            // SAFETY: the codecs were made for the columns at these places; tables are only managed in databases
            // with encoding UTF8.
            unsafe { codec.write_digest_field(datum, *number, &mut RowWriter::new(out)) }?;
            if let Some(Gathered { fields, .. }) = gathered.as_mut().filter(|gathered| gathered.wanted[i]) {
                fields.extend_from_slice(&out[start..]);
            }
        }
        Ok(())
    }

    /// Appends columns `first..` of the result in digest form, as the columns that `codecs` and `numbers`
    /// describe.
    ///
    /// # Errors
    /// As [`Codec::write_digest_field`].
    pub fn encode_digest_form(
        &self,
        first: usize,
        numbers: &[u32],
        codecs: &mut [Codec],
        out: &mut Vec<u8>,
    ) -> Answer<()> {
        let mut row = RowWriter::new(out);
        for (i, (number, codec)) in numbers.iter().zip(codecs).enumerate() {
            if let Some(datum) = self.datum(first + i) {
                // SAFETY: the statement selects the columns in this order, so the types agree; tables are
                // only managed in databases with encoding UTF8.
                unsafe { codec.write_digest_field(datum, *number, &mut row) }?;
            }
        }
        Ok(())
    }
}
