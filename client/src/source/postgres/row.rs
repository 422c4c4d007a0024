//! Rows as the driver hands them out, and values that are bound again.

use std::error::Error as StdError;

use bytes::BytesMut;
use plimsoll_core::Result;
use plimsoll_core::value::{ColumnType, Value};
use tokio_postgres::Row;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::decode::{self, name};
use super::shape::Shape;
use super::written::written;
use crate::source::kind::{LocalRow, Scratch};
use crate::source::query::RawValue;
use crate::source::statement::Parameter;

/// The class of values in the type's binary form.
pub const BINARY: u8 = 1;
/// The class of values in the type's text form.
pub const WRITTEN: u8 = 2;

/// A value's own bytes.
pub struct Raw<'a>(pub Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A row whose selected columns have these shapes. Columns behind them are read for their bytes alone.
pub struct PostgresRow<'r> {
    /// The driver's row.
    pub row: &'r Row,
    /// The shapes of its columns.
    pub shapes: &'r [&'r Shape],
}

impl PostgresRow<'_> {
    /// A column's bytes; `None` is NULL. How many columns there are is the statement's, so that none is missing.
    fn bytes(&self, place: usize) -> Option<&[u8]> {
        self.row.try_get::<_, Raw<'_>>(place).ok()?.0
    }
}

impl LocalRow for PostgresRow<'_> {
    fn value<'v>(
        &'v self,
        place: usize,
        column_type: &ColumnType,
        scratch: &'v mut Scratch,
    ) -> Result<Option<Value<'v>>> {
        let Some(bytes) = self.bytes(place) else { return Ok(None) };
        decode::value(self.shapes[place], bytes, column_type, scratch).map(Some)
    }

    fn raw(&self, place: usize, bytes: &mut Vec<u8>) -> u8 {
        let Some(own) = self.bytes(place) else { return 0 };
        bytes.extend_from_slice(own);
        match self.shapes.get(place) {
            Some(shape) if shape.is_written() => WRITTEN,
            _ => BINARY,
        }
    }

    fn shown(&self, place: usize) -> serde_json::Value {
        /// More of a value than this helps nobody to find the row.
        const MOST: usize = 200;
        let Some(bytes) = self.bytes(place) else { return serde_json::Value::Null };
        let shape = self.shapes[place];
        let mut scratch = Scratch::default();
        let own = own_type(shape).and_then(|own| decode::value(shape, bytes, &own, &mut scratch).ok());
        match own {
            Some(Value::Int(number)) => number.into(),
            Some(Value::Bool(value)) => value.into(),
            Some(value) => match written(&value) {
                Some(text) => text.chars().take(MOST).collect::<String>().into(),
                None => name(shape).into(),
            },
            None if shape.is_written() => {
                String::from_utf8_lossy(bytes).chars().take(MOST).collect::<String>().into()
            }
            None => {
                let hex: String = bytes.iter().take(MOST / 2).map(|byte| format!("{byte:02x}")).collect();
                format!("{} {hex}", name(shape)).into()
            }
        }
    }
}

/// The managed type that takes a shape's values as they are.
fn own_type(shape: &Shape) -> Option<ColumnType> {
    Some(match shape {
        Shape::Bool => ColumnType::Bool,
        Shape::Int2 | Shape::Int4 | Shape::Int8 | Shape::Xid8 | Shape::Oid => ColumnType::Int8,
        Shape::Numeric | Shape::Money => ColumnType::Numeric(None),
        Shape::Float4 | Shape::Float8 => ColumnType::Float8,
        Shape::Text | Shape::Padded | Shape::Enum => ColumnType::Text,
        Shape::Bytea => ColumnType::Bytea,
        Shape::Uuid => ColumnType::Uuid,
        Shape::Date => ColumnType::Date,
        Shape::Time => ColumnType::Time(6),
        Shape::Timetz => ColumnType::Timetz(6),
        Shape::Timestamp => ColumnType::Timestamp(6),
        Shape::Timestamptz => ColumnType::Timestamptz(6),
        Shape::Interval => ColumnType::Interval(6),
        Shape::Json => ColumnType::Json,
        Shape::Jsonb => ColumnType::Jsonb,
        Shape::Array(element) => ColumnType::Array(Box::new(own_type(element)?)),
        Shape::Range(bound) => ColumnType::Range(Box::new(own_type(bound)?)),
        Shape::Multirange(bound) => ColumnType::Multirange(Box::new(own_type(bound)?)),
        Shape::Written(name) => ColumnType::Other(name.clone()),
        Shape::Composite(_) => return None,
    })
}

/// A value that a statement is run with, and that stands there as a value of its type.
#[derive(Debug)]
pub struct Bound<'q> {
    bytes: std::borrow::Cow<'q, [u8]>,
    class: u8,
}

impl<'q> Bound<'q> {
    /// The value of a parameter; the version is of this shape.
    pub fn new(parameter: &Parameter<'q>, version: &Shape) -> Self {
        let made = |bytes: Vec<u8>| Bound { bytes: bytes.into(), class: BINARY };
        match *parameter {
            Parameter::Least(position) => match version {
                Shape::Bytea => made(plimsoll_core::schema::least_version_bytes(position)),
                // No transaction has a negative number.
                Shape::Xid8 => made(position.max(0).to_be_bytes().to_vec()),
                Shape::Timestamp | Shape::Timestamptz => made(least_stamp(position).to_be_bytes().to_vec()),
                _ => made(position.to_be_bytes().to_vec()),
            },
            Parameter::Rows(rows) => made(i64::try_from(rows).unwrap_or(i64::MAX).to_be_bytes().to_vec()),
            Parameter::Version(_, value) | Parameter::Read(_, value) => Bound::read(value),
        }
    }

    /// Bytes in the binary form of the parameter's type.
    pub fn binary(bytes: Vec<u8>) -> Self {
        Bound { bytes: bytes.into(), class: BINARY }
    }

    /// A text that the parameter's type reads.
    pub fn written(text: std::borrow::Cow<'q, str>) -> Self {
        let bytes = match text {
            std::borrow::Cow::Borrowed(text) => text.as_bytes().into(),
            std::borrow::Cow::Owned(text) => text.into_bytes().into(),
        };
        Bound { bytes, class: WRITTEN }
    }

    /// NULL
    pub fn null() -> Self {
        Bound { bytes: Vec::new().into(), class: 0 }
    }

    /// Bytes that are borrowed, in the binary form of the parameter's type.
    pub fn borrowed(bytes: &'q [u8]) -> Self {
        Bound { bytes: bytes.into(), class: BINARY }
    }

    fn read(value: &'q RawValue) -> Self {
        Bound { bytes: value.bytes.as_slice().into(), class: value.class }
    }
}

/// The least stamp that Postgres takes at a position or above: between its ends and the infinities there is none.
fn least_stamp(position: i64) -> i64 {
    /// 4714-11-24 00:00:00 BC, the first.
    const FIRST: i64 = -211_813_488_000_000_000;
    /// 294277-01-01 00:00:00, behind the last.
    const BEHIND: i64 = 9_223_371_331_200_000_000;
    match position {
        i64::MIN => i64::MIN,
        BEHIND.. => i64::MAX,
        position => position.max(FIRST),
    }
}

impl ToSql for Bound<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        if self.class == 0 {
            return Ok(IsNull::Yes);
        }
        out.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        if self.class == WRITTEN { Format::Text } else { Format::Binary }
    }

    to_sql_checked!();
}
