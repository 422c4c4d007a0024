//! Rows of a statement, and SQLite's own values in cursors and keys.
//!
//! | class | bytes |
//! |---|---|
//! | 1 | INTEGER, 8 bytes |
//! | 2 | REAL, 8 bytes |
//! | 3 | TEXT, as it is, also where it is not UTF-8 |
//! | 4 | BLOB |

use plimsoll_core::Result;
use plimsoll_core::value::{ColumnType, Value, datetime};
use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
use rusqlite::{Row, ToSql};
use serde_json::Value as Json;

use super::axis::{Axis, VersionKind};
use super::convert::{convert, storage_class};
use crate::source::kind::{LocalRow, Scratch};
use crate::source::query::RawValue;
use crate::source::statement::Parameter;

/// More of a value than this helps nobody to find the row.
const MOST_SHOWN: usize = 200;

/// A column of a row. Statements have those that are asked for.
fn cell<'r>(row: &'r Row<'_>, place: usize) -> ValueRef<'r> {
    row.get_ref(place).unwrap_or(ValueRef::Null)
}

impl LocalRow for Row<'_> {
    #[inline(always)]
    fn value<'v>(
        &'v self,
        place: usize,
        column_type: &ColumnType,
        scratch: &'v mut Scratch,
    ) -> Result<Option<Value<'v>>> {
        convert(cell(self, place), column_type, scratch)
    }

    fn position(&self, place: usize, column_type: &ColumnType, _: &mut Scratch) -> Option<i64> {
        VersionKind::of(column_type).position(cell(self, place))
    }

    fn raw(&self, place: usize, bytes: &mut Vec<u8>) -> u8 {
        match cell(self, place) {
            ValueRef::Null => 0,
            ValueRef::Integer(number) => {
                bytes.extend_from_slice(&number.to_le_bytes());
                1
            }
            ValueRef::Real(number) => {
                bytes.extend_from_slice(&number.to_le_bytes());
                2
            }
            ValueRef::Text(text) => {
                bytes.extend_from_slice(text);
                3
            }
            ValueRef::Blob(blob) => {
                bytes.extend_from_slice(blob);
                4
            }
        }
    }

    fn shown(&self, place: usize) -> Json {
        let value = cell(self, place);
        match value {
            ValueRef::Null => Json::Null,
            ValueRef::Integer(number) => number.into(),
            ValueRef::Real(number) => {
                serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Json::Number)
            }
            ValueRef::Text(bytes) => {
                String::from_utf8_lossy(bytes).chars().take(MOST_SHOWN).collect::<String>().into()
            }
            ValueRef::Blob(bytes) => {
                let hex: String =
                    bytes.iter().take(MOST_SHOWN / 2).map(|byte| format!("{byte:02x}")).collect();
                format!("{} {hex}", storage_class(value)).into()
            }
        }
    }
}

/// A value read before, to be bound again exactly as it was.
pub fn borrowed(value: &RawValue) -> ValueRef<'_> {
    let number = value.bytes.first_chunk::<8>();
    match (value.class, number) {
        (1, Some(number)) => ValueRef::Integer(i64::from_le_bytes(*number)),
        (2, Some(number)) => ValueRef::Real(f64::from_le_bytes(*number)),
        (3, _) => ValueRef::Text(&value.bytes),
        (4, _) => ValueRef::Blob(&value.bytes),
        _ => ValueRef::Null,
    }
}

/// A value of a row, as a kind keeps it.
pub fn raw_at(row: &Row<'_>, place: usize) -> RawValue {
    let mut bytes = Vec::new();
    let class = row.raw(place, &mut bytes);
    RawValue { class, bytes }
}

/// A value of SQLite's, as a kind keeps it.
pub fn raw_of(value: Owned) -> RawValue {
    let (class, bytes) = match value {
        Owned::Null => (0, Vec::new()),
        Owned::Integer(number) => (1, number.to_le_bytes().to_vec()),
        Owned::Real(number) => (2, number.to_le_bytes().to_vec()),
        Owned::Text(text) => (3, text.into_bytes()),
        Owned::Blob(bytes) => (4, bytes),
    };
    RawValue { class, bytes }
}

/// What a statement is run with.
pub struct Bound<'q> {
    /// The value.
    pub parameter: Parameter<'q>,
    /// How versions compare.
    pub axis: &'q Axis,
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.parameter {
            Parameter::Least(position) => ToSqlOutput::Owned(self.axis.bound(position)),
            Parameter::Version(position, _) if *self.axis == Axis::Computed => {
                ToSqlOutput::Owned(Owned::Integer(position))
            }
            Parameter::Version(_, value) | Parameter::Read(_, value) => {
                ToSqlOutput::Borrowed(borrowed(value))
            }
            Parameter::Rows(rows) => {
                ToSqlOutput::Owned(Owned::Integer(i64::try_from(rows).unwrap_or(i64::MAX)))
            }
        })
    }
}

/// How SQLite may hold a value of a key, and whether it can hold it in no other way.
pub fn spellings_of(value: &Value<'_>, column_type: &ColumnType) -> (Vec<RawValue>, bool) {
    let text = |text: String| Owned::Text(text);
    let (values, all) = match value {
        // A REAL of the same number compares equal.
        Value::Int(number) => (vec![Owned::Integer(*number)], true),
        // A char(n) may be padded.
        Value::Text(value) => (vec![text((*value).to_owned())], !matches!(column_type, ColumnType::Char(_))),
        Value::Enum(value) | Value::Other(value) => (vec![text((*value).to_owned())], true),
        Value::Bytea(bytes) => (vec![Owned::Blob(bytes.to_vec())], true),
        Value::Bool(value) => (vec![Owned::Integer(i64::from(*value))], true),
        Value::Float(number) => (vec![Owned::Real(*number)], true),
        Value::Numeric(number) => {
            let written = number.to_string();
            let integer = written.parse().ok().map(Owned::Integer);
            let spelled = integer.or_else(|| written.parse().ok().map(Owned::Real));
            (spelled.into_iter().chain([text(written)]).collect(), false)
        }
        Value::Uuid(bytes) => {
            let uuid = uuid::Uuid::from_bytes(*bytes);
            let hyphenated = uuid.hyphenated().to_string();
            let values = vec![
                text(hyphenated.to_uppercase()),
                text(hyphenated),
                Owned::Blob(bytes.to_vec()),
                text(uuid.simple().to_string()),
            ];
            (values, false)
        }
        Value::Date(days) => {
            let date = datetime::format_date(*days);
            (vec![text(format!("{date} 00:00:00")), text(date)], false)
        }
        Value::Time(micros) => (vec![text(datetime::format_time(*micros))], false),
        Value::Timestamp(micros) | Value::Timestamptz(micros) => {
            let stamp = datetime::format_timestamp(*micros);
            let iso = stamp.replacen(' ', "T", 1);
            (vec![text(format!("{iso}Z")), text(iso), text(stamp)], false)
        }
        _ => (Vec::new(), false),
    };
    (values.into_iter().map(raw_of).collect(), all)
}

/// Whether keys that SQLite tells apart are two of this type too: it is taken as it stands, and INTEGER and REAL of one
/// number are one key.
pub fn tells_apart(column_type: &ColumnType) -> bool {
    use ColumnType as T;
    matches!(
        column_type,
        T::Int2
            | T::Int4
            | T::Int8
            | T::Xid8
            | T::Float4
            | T::Float8
            | T::Bool
            | T::Bytea
            | T::Text
            | T::Varchar(_)
            | T::Citext
            | T::Enum(_)
            | T::Other(_)
    )
}
