//! Row encoding, version 1. The grammar is in `docs/encoding.md`; this is its only implementation.
//!
//! A row is the list of (column number, tag, payload) of its columns that are not NULL, by ascending
//! number. What is hashed, the digest form, has the same grammar with values that Postgres calls equal
//! made the same.

mod batch;
mod decode;
mod encode;
mod json;
mod normal;

pub use batch::{BatchReader, BatchWriter, MAX_BATCH_ROWS, put_batch};
pub(crate) use decode::take_tagged;
pub use decode::{Field, Fields, check_row, take_varint};
pub use encode::{RowWriter, put_varint};
pub(crate) use encode::{put_tagged, put_tagged_bytes};
pub use json::{canonical_json, check_json};
pub(crate) use normal::put_normal;
pub use normal::{digest_form, put_field};

use crate::error::Result;
use crate::schema::{Axis, Column, TableSchema, hash_position, position_of};
use crate::{Error, ErrorKind};

/// How deep arrays, ranges and composites may nest inside each other.
pub const MAX_DEPTH: usize = 32;

/// The byte in front of a payload that says what it is. 0 is NULL, inside arrays only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    Null = 0,
    Bool = 1,
    Int = 2,
    Numeric = 3,
    Float = 4,
    Text = 5,
    Bytea = 6,
    Uuid = 7,
    Date = 8,
    Time = 9,
    Timestamp = 10,
    Timestamptz = 11,
    Timetz = 12,
    Interval = 13,
    Json = 14,
    Jsonb = 15,
    Array = 16,
    Range = 17,
    Multirange = 18,
    Composite = 19,
    Enum = 20,
    Other = 21,
}

impl Tag {
    fn from_byte(byte: u8) -> Option<Tag> {
        use Tag::*;
        const ALL: [Tag; 22] = [
            Null,
            Bool,
            Int,
            Numeric,
            Float,
            Text,
            Bytea,
            Uuid,
            Date,
            Time,
            Timestamp,
            Timestamptz,
            Timetz,
            Interval,
            Json,
            Jsonb,
            Array,
            Range,
            Multirange,
            Composite,
            Enum,
            Other,
        ];
        ALL.get(usize::from(byte)).copied()
    }
}

/// The key of a row in wire form: the fields of the schema's key columns, in digest form, so that equal
/// keys have equal bytes. In a keyless table, all of the row's.
///
/// # Errors
/// `Malformed` where the row breaks the grammar, `Null` where a key column is missing.
pub fn key_of(row: &[u8], schema: &TableSchema) -> Result<Vec<u8>> {
    let mut key = Vec::new();
    if schema.is_keyless() {
        digest_form(row, &mut key)?;
        return Ok(key);
    }
    let missing = put_fields(row, schema.key(), &mut key)?;
    match missing {
        Some(column) => Err(Error::new(ErrorKind::Null, format!("key column \"{}\" is NULL", column.name))),
        None => Ok(key),
    }
}

/// Appends the fields of these columns in digest form. The first that is NULL, which is left out.
fn put_fields<'s>(
    row: &[u8],
    columns: impl Iterator<Item = &'s Column>,
    out: &mut Vec<u8>,
) -> Result<Option<&'s Column>> {
    let (mut wanted, mut missing) = (columns.peekable(), None);
    for field in Fields::new(row) {
        let field = field?;
        while let Some(column) = wanted.next_if(|column| column.number < field.number) {
            missing = missing.or(Some(column));
        }
        if wanted.next_if(|column| column.number == field.number).is_some() {
            normal::put_field(out, &field)?;
        }
    }
    Ok(missing.or(wanted.next()))
}

/// The position of a row in wire form.
///
/// # Errors
/// `Malformed` where the row breaks the grammar, `Null` where it stands at its version and has none.
pub fn position_in(row: &[u8], schema: &TableSchema) -> Result<i64> {
    let Axis::Version(version) = schema.axis() else {
        let mut fields = Vec::new();
        put_fields(row, schema.placed_by(), &mut fields)?;
        return Ok(hash_position(&fields));
    };
    let version = &schema.columns()[version];
    for field in Fields::new(row) {
        let field = field?;
        if field.number == version.number {
            let position = position_of(&field.value);
            let message = format!("version column \"{}\" has a value that is no version", version.name);
            return position.ok_or_else(|| Error::new(ErrorKind::WrongType, message));
        }
    }
    let message = format!("version column \"{}\" is NULL", version.name);
    Err(Error::new(ErrorKind::Null, message))
}

/// Checks a row from the wire against the schema: known columns only, every value one its column stores
/// exactly, no NULL where none is taken. Appends the row's digest form to `form` and its key, as [`key_of`], to
/// `key`, and answers its position, as [`position_in`], all in one pass.
///
/// # Errors
/// As [`crate::value::ColumnType::check`], and `Null`; with the column's name, which bytes that break the
/// grammar have not.
pub fn examine(
    row: &[u8],
    schema: &TableSchema,
    form: &mut Vec<u8>,
    key: &mut Vec<u8>,
) -> Result<i64, (Option<String>, crate::Error)> {
    let is_keyless = schema.is_keyless();
    examine_each(row, schema, |_, field, is_key| {
        let start = form.len();
        normal::put_field(form, field)?;
        if is_key || is_keyless {
            key.extend_from_slice(&form[start..]);
        }
        Ok(())
    })
}

/// Checks a row as [`examine`], and hands each field to `take`, with its column's place in the schema and whether
/// that is a key column, which none is in a keyless table. What `take` refuses is told as that column's.
///
/// # Errors
/// As [`examine`], and those of `take`.
pub fn examine_each(
    row: &[u8],
    schema: &TableSchema,
    mut take: impl FnMut(usize, &Field<'_>, bool) -> Result<()>,
) -> Result<i64, (Option<String>, crate::Error)> {
    let mut columns = schema.columns().iter().enumerate();
    let mut wanted = schema.key().peekable();
    let (mut position, mut placed_by, mut placing) = (None, schema.placed_by().peekable(), Vec::new());
    let null = |column: &Column| {
        let message = format!("column \"{}\" takes no NULL", column.name);
        (Some(column.name.clone()), Error::new(ErrorKind::Null, message))
    };
    for field in Fields::new(row) {
        let field = field.map_err(|error| (None, error))?;
        let (place, column) = loop {
            match columns.next() {
                Some((place, column)) if column.number == field.number => break (place, column),
                Some((_, column)) if column.number < field.number => {
                    if column.not_null {
                        return Err(null(column));
                    }
                }
                _ => {
                    let message = format!("no column has number {}", field.number);
                    return Err((None, Error::new(ErrorKind::WrongType, message)));
                }
            }
        };
        let in_column = |error| (Some(column.name.clone()), error);
        column.column_type.check(&field.value).map_err(in_column)?;
        let is_key = wanted.next_if(|wanted| wanted.number == field.number).is_some();
        take(place, &field, is_key).map_err(in_column)?;
        match schema.axis() {
            Axis::Version(version) if version == place => position = position_of(&field.value),
            Axis::Version(_) => {}
            Axis::Hash => {
                while placed_by.next_if(|placing| placing.number < field.number).is_some() {}
                if placed_by.next_if(|placing| placing.number == field.number).is_some() {
                    normal::put_field(&mut placing, &field).map_err(in_column)?;
                }
            }
        }
    }
    let missing = columns.map(|(_, column)| column).find(|column| column.not_null);
    if let Some(column) = missing.or(wanted.next()) {
        return Err(null(column));
    }
    match schema.axis() {
        Axis::Version(version) => position.ok_or_else(|| null(&schema.columns()[version])),
        Axis::Hash => Ok(hash_position(&placing)),
    }
}

#[cfg(test)]
mod digest_tests;
#[cfg(test)]
mod tests;
