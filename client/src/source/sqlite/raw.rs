//! SQLite's own values, as cursors and raw keys keep them.
//!
//! ```text
//! values = *value
//! value  = 0 | 1 int(8) | 2 real(8) | 3 length(varint) text | 4 length(varint) blob
//! ```

use plimsoll_core::row::{put_varint, take_varint};
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// A value that can be bound again exactly as it was read, also text that is not UTF-8.
#[derive(Debug, Clone, PartialEq)]
pub enum RawValue {
    /// NULL
    Null,
    /// INTEGER
    Integer(i64),
    /// REAL
    Real(f64),
    /// TEXT, as its bytes
    Text(Vec<u8>),
    /// BLOB
    Blob(Vec<u8>),
}

impl RawValue {
    fn borrow(&self) -> ValueRef<'_> {
        match self {
            RawValue::Null => ValueRef::Null,
            RawValue::Integer(number) => ValueRef::Integer(*number),
            RawValue::Real(number) => ValueRef::Real(*number),
            RawValue::Text(bytes) => ValueRef::Text(bytes),
            RawValue::Blob(bytes) => ValueRef::Blob(bytes),
        }
    }
}

impl ToSql for RawValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.borrow()))
    }
}

/// Appends one value.
pub fn put_raw(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.push(0),
        ValueRef::Integer(number) => {
            out.push(1);
            out.extend_from_slice(&number.to_le_bytes());
        }
        ValueRef::Real(number) => {
            out.push(2);
            out.extend_from_slice(&number.to_le_bytes());
        }
        ValueRef::Text(bytes) => put_sized(out, 3, bytes),
        ValueRef::Blob(bytes) => put_sized(out, 4, bytes),
    }
}

fn put_sized(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads all values; `None` where the bytes are none that [`put_raw`] wrote.
pub fn read_raw(mut bytes: &[u8]) -> Option<Vec<RawValue>> {
    let mut values = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        let (value, rest) = match tag {
            0 => (RawValue::Null, rest),
            1 | 2 => {
                let (number, rest) = rest.split_first_chunk::<8>()?;
                let value = match tag {
                    1 => RawValue::Integer(i64::from_le_bytes(*number)),
                    _ => RawValue::Real(f64::from_le_bytes(*number)),
                };
                (value, rest)
            }
            3 | 4 => {
                let (length, rest) = take_varint(rest).ok()?;
                let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                let bytes = bytes.to_vec();
                (if *tag == 3 { RawValue::Text(bytes) } else { RawValue::Blob(bytes) }, rest)
            }
            _ => return None,
        };
        values.push(value);
        bytes = rest;
    }
    Some(values)
}
