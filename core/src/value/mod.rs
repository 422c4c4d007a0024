//! Column types, and values as Postgres would store them.
//!
//! [`ColumnType`] says what a managed table's column takes; [`Value`] is one value of it, borrowed from
//! wherever it came; [`ColumnType::check`] refuses what Postgres would round, trim or change in silence.

pub mod adapt;
mod check;
mod column_type;
pub mod datetime;
mod from_number;
pub mod literal;
mod nested;
mod numeric;

pub use column_type::{Attribute, ColumnType};
pub(crate) use nested::range_flags;
pub use nested::{
    Array, ArrayBuilder, Composite, CompositeBuilder, MAX_DIMENSIONS, Multirange, MultirangeBuilder, Range,
    RangeBuilder,
};
pub use numeric::{Numeric, NumericBuf, NumericKind};

/// One value that is not NULL, in Postgres' own units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `bool`
    Bool(bool),
    /// `int2`, `int4`, `int8`, `xid8`: equal numbers are equal values whatever the width.
    Int(i64),
    /// `numeric`
    Numeric(Numeric<'a>),
    /// `float4` (widened) and `float8`
    Float(f64),
    /// `text`, `varchar`, `char(n)` without its padding, `citext`
    Text(&'a str),
    /// `bytea`
    Bytea(&'a [u8]),
    /// `uuid`
    Uuid([u8; 16]),
    /// `date`: days since 2000-01-01; the ends of `i32` are the infinities.
    Date(i32),
    /// `time`: microseconds since midnight.
    Time(i64),
    /// `timestamp`: microseconds since 2000-01-01 00:00; the ends of `i64` are the infinities.
    Timestamp(i64),
    /// `timestamptz`: the same in UTC.
    Timestamptz(i64),
    /// `timetz`: microseconds since midnight, and seconds west of UTC.
    Timetz(i64, i32),
    /// `interval`: months, days, microseconds.
    Interval(i32, i32, i64),
    /// `json`: its text.
    Json(&'a str),
    /// `jsonb`: a text of it.
    Jsonb(&'a str),
    /// An array of any number of dimensions.
    Array(Array<'a>),
    /// A range.
    Range(Range<'a>),
    /// A multirange.
    Multirange(Multirange<'a>),
    /// A composite value.
    Composite(Composite<'a>),
    /// An enum's label.
    Enum(&'a str),
    /// The text output of a type without an encoding of its own.
    Other(&'a str),
}
