//! Values in Postgres' binary form to the managed column's: exactly, or refused with the reason. Text and bytes are
//! borrowed from the row, numbers and times are read from it; only what nests is put together anew.

use plimsoll_core::value::literal;
use plimsoll_core::value::{ColumnType, Numeric, NumericBuf, NumericKind, Value};
use plimsoll_core::{Error, ErrorKind, Result};

use super::nested;
use super::shape::{Shape, bare, same_type};
use crate::source::kind::Scratch;

/// An error of `kind`.
pub fn refuse<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T> {
    Err(Error::new(kind, message))
}

/// Bytes that are no value of their type: another server than we know.
pub fn malformed<T>(shape: &Shape) -> Result<T> {
    refuse(ErrorKind::Malformed, format!("the server's bytes are no {}", name(shape)))
}

/// What messages call a shape.
pub fn name(shape: &Shape) -> String {
    match shape {
        Shape::Padded => "char".to_owned(),
        Shape::Enum => "enum".to_owned(),
        Shape::Array(element) => format!("array of {}", name(element)),
        Shape::Range(bound) => format!("range of {}", name(bound)),
        Shape::Multirange(bound) => format!("multirange of {}", name(bound)),
        Shape::Composite(_) => "composite".to_owned(),
        Shape::Written(name) => name.clone(),
        shape => format!("{shape:?}").to_lowercase(),
    }
}

fn wrong<T>(shape: &Shape, to: &ColumnType) -> Result<T> {
    refuse(ErrorKind::WrongType, format!("{} where the managed column is {to}", name(shape)))
}

/// Whether values of a shape are taken for a column of a type at all; single values may still not fit.
pub fn fits(shape: &Shape, to: &ColumnType) -> bool {
    use ColumnType as T;
    let is_text = |to: &ColumnType| matches!(to, T::Text | T::Varchar(_) | T::Citext);
    match (shape, to) {
        (Shape::Array(part), T::Array(to))
        | (Shape::Range(part), T::Range(to))
        | (Shape::Multirange(part), T::Multirange(to)) => fits(part, to),
        (Shape::Composite(own), T::Composite(attributes)) => {
            let same_order = own.iter().zip(attributes).all(|((name, _), attribute)| *name == attribute.name);
            own.len() == attributes.len()
                // In a text they have no names.
                && (same_order || !shape.is_written())
                && own.iter().all(|(_, shape)| *shape != Shape::Money)
                && attributes.iter().all(|attribute| {
                    let found = own.iter().find(|(name, _)| *name == attribute.name);
                    found.is_some_and(|(_, shape)| fits(shape, &attribute.column_type))
                })
        }
        (Shape::Written(name), T::Other(to)) => same_type(name, to),
        (shape, to) if shape.is_written() && *shape != Shape::Money => is_text(to),
        (Shape::Bool, T::Bool)
        | (Shape::Bytea, T::Bytea)
        | (Shape::Uuid, T::Uuid)
        | (Shape::Date, T::Date | T::Timestamp(_))
        | (Shape::Time, T::Time(_))
        | (Shape::Timetz, T::Timetz(_))
        | (Shape::Timestamp, T::Timestamp(_))
        | (Shape::Timestamptz, T::Timestamptz(_))
        | (Shape::Interval, T::Interval(_))
        | (Shape::Json | Shape::Jsonb, T::Json | T::Jsonb)
        | (Shape::Numeric | Shape::Money, T::Numeric(_))
        | (Shape::Float4 | Shape::Float8, T::Float4 | T::Float8) => true,
        (Shape::Numeric, T::Int2 | T::Int4 | T::Int8) => true,
        (
            Shape::Int2 | Shape::Int4 | Shape::Int8 | Shape::Xid8 | Shape::Oid,
            T::Int2 | T::Int4 | T::Int8 | T::Xid8 | T::Numeric(_) | T::Float4 | T::Float8,
        ) => true,
        (Shape::Oid, T::Other(to)) => bare(to) == "oid",
        (Shape::Text, T::Other(to)) => bare(to) == "name",
        (Shape::Text | Shape::Padded, T::Char(_) | T::Enum(_) | T::Json | T::Jsonb) => true,
        (Shape::Text | Shape::Padded | Shape::Enum, to) if is_text(to) => true,
        (Shape::Enum, T::Enum(_)) => true,
        _ => false,
    }
}

/// The value that a column of type `to` takes for the bytes of a value. Lengths and precisions are not looked at.
///
/// # Errors
/// Where it is no such value. The message does not name the column.
pub fn value<'v>(
    shape: &Shape,
    bytes: &'v [u8],
    to: &ColumnType,
    room: &'v mut Scratch,
) -> Result<Value<'v>> {
    use ColumnType as T;
    Ok(match (shape, to) {
        (Shape::Bool, T::Bool) => match bytes {
            [byte] => Value::Bool(*byte != 0),
            _ => return malformed(shape),
        },
        (Shape::Int2 | Shape::Int4 | Shape::Int8 | Shape::Xid8 | Shape::Oid, _) => {
            return of_whole(shape, whole(shape, bytes)?, to, room);
        }
        (Shape::Numeric, T::Numeric(_)) => Value::Numeric(numeric(bytes, &mut room.bytes)?),
        (Shape::Numeric, T::Int2 | T::Int4 | T::Int8) => {
            let number = numeric(bytes, &mut room.bytes)?;
            match whole_of(&number) {
                Some(whole) => Value::Int(whole),
                None => return refuse(ErrorKind::WouldChange, format!("{to} cannot hold {number}")),
            }
        }
        (Shape::Money, T::Numeric(_)) => {
            Value::Numeric(room.number.insert(NumericBuf::parse(text(bytes)?)?).borrow())
        }
        (Shape::Float4, T::Float4 | T::Float8) => {
            Value::Float(f64::from(f32::from_be_bytes(fixed(shape, bytes)?)))
        }
        (Shape::Float8, T::Float4 | T::Float8) => Value::Float(f64::from_be_bytes(fixed(shape, bytes)?)),
        (Shape::Text, T::Text | T::Varchar(_) | T::Citext | T::Char(_)) => Value::Text(text(bytes)?),
        (Shape::Padded, T::Text | T::Varchar(_) | T::Citext | T::Char(_)) => {
            Value::Text(text(bytes)?.trim_end_matches(' '))
        }
        (Shape::Enum, T::Text | T::Varchar(_) | T::Citext) => Value::Text(text(bytes)?),
        (Shape::Enum | Shape::Text, T::Enum(_)) => Value::Enum(text(bytes)?),
        (Shape::Padded, T::Enum(_)) => Value::Enum(text(bytes)?.trim_end_matches(' ')),
        (Shape::Text | Shape::Padded | Shape::Json, T::Json) => Value::Json(text(bytes)?),
        (Shape::Text | Shape::Padded | Shape::Json, T::Jsonb) => Value::Jsonb(text(bytes)?),
        (Shape::Jsonb, T::Json | T::Jsonb) => match bytes.split_first() {
            Some((1, bytes)) if *to == T::Json => Value::Json(text(bytes)?),
            Some((1, bytes)) => Value::Jsonb(text(bytes)?),
            _ => return malformed(shape),
        },
        (Shape::Bytea, T::Bytea) => Value::Bytea(bytes),
        (Shape::Uuid, T::Uuid) => Value::Uuid(fixed(shape, bytes)?),
        (Shape::Date, T::Date) => Value::Date(i32::from_be_bytes(fixed(shape, bytes)?)),
        (Shape::Date, T::Timestamp(_)) => {
            Value::Timestamp(nested::midnight(i32::from_be_bytes(fixed(shape, bytes)?)))
        }
        (Shape::Time, T::Time(_)) => Value::Time(i64::from_be_bytes(fixed(shape, bytes)?)),
        (Shape::Timestamp, T::Timestamp(_)) => Value::Timestamp(i64::from_be_bytes(fixed(shape, bytes)?)),
        (Shape::Timestamptz, T::Timestamptz(_)) => {
            Value::Timestamptz(i64::from_be_bytes(fixed(shape, bytes)?))
        }
        (Shape::Timetz, T::Timetz(_)) => {
            let [a, b, c, d, e, f, g, h, west @ ..]: [u8; 12] = fixed(shape, bytes)?;
            Value::Timetz(i64::from_be_bytes([a, b, c, d, e, f, g, h]), i32::from_be_bytes(west))
        }
        (Shape::Interval, T::Interval(_)) => {
            let [a, b, c, d, e, f, g, h, days @ .., i, j, k, l]: [u8; 16] = fixed(shape, bytes)?;
            let micros = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
            Value::Interval(i32::from_be_bytes([i, j, k, l]), i32::from_be_bytes(days), micros)
        }
        (Shape::Text, T::Other(to)) if bare(to) == "name" => Value::Other(text(bytes)?),
        (Shape::Written(own), T::Other(to)) if same_type(own, to) => Value::Other(text(bytes)?),
        (Shape::Array(_) | Shape::Range(_) | Shape::Multirange(_) | Shape::Composite(_), _)
            if shape.is_written() && !is_text(to) =>
        {
            return literal::parse(text(bytes)?, to, &mut room.bytes);
        }
        (Shape::Array(_) | Shape::Range(_) | Shape::Multirange(_) | Shape::Composite(_), _)
            if !is_text(to) =>
        {
            let nested = nested::nested(shape, bytes, to)?;
            room.nested.insert(nested).value()
        }
        (shape, _) if shape.is_written() && *shape != Shape::Money && is_text(to) => {
            Value::Text(text(bytes)?)
        }
        _ => return wrong(shape, to),
    })
}

fn is_text(to: &ColumnType) -> bool {
    matches!(to, ColumnType::Text | ColumnType::Varchar(_) | ColumnType::Citext)
}

fn fixed<const N: usize>(shape: &Shape, bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().or_else(|_| malformed(shape))
}

/// Text as it must be: UTF-8. Only a database whose encoding is SQL_ASCII hands out other.
pub fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).or_else(|error| {
        let message = format!("text that is not UTF-8 (at its byte {})", error.valid_up_to());
        refuse(ErrorKind::InvalidText, message)
    })
}

/// The number that the bytes of a whole number's type stand for.
///
/// # Errors
/// Where they are none, or an `xid8` beyond `i64`.
pub fn whole(shape: &Shape, bytes: &[u8]) -> Result<i64> {
    Ok(match shape {
        Shape::Int2 => i64::from(i16::from_be_bytes(fixed(shape, bytes)?)),
        Shape::Int4 => i64::from(i32::from_be_bytes(fixed(shape, bytes)?)),
        Shape::Oid => i64::from(u32::from_be_bytes(fixed(shape, bytes)?)),
        Shape::Xid8 => {
            let number = u64::from_be_bytes(fixed(shape, bytes)?);
            match i64::try_from(number) {
                Ok(number) => number,
                Err(_) => return refuse(ErrorKind::OutOfRange, format!("{number} is beyond 2^63 - 1")),
            }
        }
        _ => i64::from_be_bytes(fixed(shape, bytes)?),
    })
}

fn of_whole<'v>(shape: &Shape, number: i64, to: &ColumnType, room: &'v mut Scratch) -> Result<Value<'v>> {
    use ColumnType as T;
    Ok(match to {
        T::Int2 | T::Int4 | T::Int8 | T::Xid8 => Value::Int(number),
        T::Numeric(_) => Value::Numeric(room.number.insert(NumericBuf::from_int(number)).borrow()),
        T::Float4 | T::Float8 if number as f64 as i128 == i128::from(number) => Value::Float(number as f64),
        T::Float4 | T::Float8 => {
            return refuse(ErrorKind::WouldChange, format!("{to} cannot hold {number} exactly"));
        }
        T::Other(name) if *shape == Shape::Oid && bare(name) == "oid" => {
            room.text = number.to_string();
            Value::Other(&room.text)
        }
        _ => return wrong(shape, to),
    })
}

/// A numeric from its digits in network order, which may have zeros at either end.
fn numeric<'v>(bytes: &[u8], digits: &'v mut Vec<u8>) -> Result<Numeric<'v>> {
    let head = |at: usize| bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (Some(count), Some(weight), Some(sign), Some(scale)) = (head(0), head(2), head(4), head(6)) else {
        return malformed(&Shape::Numeric);
    };
    let kind = match sign {
        0x0000 => NumericKind::Positive,
        0x4000 => NumericKind::Negative,
        0xc000 => NumericKind::NaN,
        0xd000 => NumericKind::Infinity,
        0xf000 => NumericKind::NegativeInfinity,
        _ => return malformed(&Shape::Numeric),
    };
    digits.clear();
    if !kind.is_finite() {
        return Numeric::from_parts(kind, 0, 0, digits);
    }
    let mut groups = &bytes[8..];
    if groups.len() != 2 * usize::from(count) {
        return malformed(&Shape::Numeric);
    }
    let mut weight = weight as i16;
    while let Some(rest) = groups.strip_prefix(&[0, 0]) {
        groups = rest;
        weight = weight.wrapping_sub(1);
    }
    while let Some(rest) = groups.strip_suffix(&[0, 0]) {
        groups = rest;
    }
    if groups.is_empty() {
        return Numeric::from_parts(NumericKind::Positive, scale, 0, digits);
    }
    digits.extend(groups.as_chunks::<2>().0.iter().flat_map(|[high, low]| [*low, *high]));
    Numeric::from_parts(kind, scale, weight, digits)
}

/// The whole number that a numeric is; `None` where it is none, or beyond `i64`.
pub fn whole_of(number: &Numeric<'_>) -> Option<i64> {
    if !number.kind().is_finite() || number.fraction_digits() > 0 {
        return None;
    }
    let mut whole: i128 = 0;
    let mut power = i32::from(number.weight());
    if power > 5 {
        return None;
    }
    for digit in number.digits() {
        whole = whole * 10_000 + i128::from(digit);
        power -= 1;
    }
    for _ in 0..=power {
        whole *= 10_000;
    }
    i64::try_from(if number.kind() == NumericKind::Negative { -whole } else { whole }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(column_type: &str) -> ColumnType {
        column_type.parse().expect("a type")
    }

    /// A numeric in network order.
    fn wire(weight: i16, sign: u16, scale: u16, groups: &[u16]) -> Vec<u8> {
        let head = [groups.len() as u16, weight as u16, sign, scale];
        head.iter().chain(groups).flat_map(|number| number.to_be_bytes()).collect()
    }

    fn shown(bytes: &[u8], to: &str) -> Result<String> {
        let mut room = Scratch::default();
        value(&Shape::Numeric, bytes, &parsed(to), &mut room).map(|value| format!("{value:?}"))
    }

    #[test]
    fn numerics_keep_their_scale_and_lose_zeros_at_the_ends() {
        for (bytes, expected) in [
            (wire(0, 0, 2, &[1, 5000]), "Numeric(1.50)"),
            (wire(1, 0x4000, 0, &[0, 12]), "Numeric(-12)"),
            (wire(0, 0, 3, &[]), "Numeric(0.000)"),
            (wire(0, 0, 4, &[7, 0]), "Numeric(7.0000)"),
            (wire(0, 0xc000, 0, &[]), "Numeric(NaN)"),
            (wire(0, 0xf000, 0, &[]), "Numeric(-Infinity)"),
        ] {
            assert_eq!(shown(&bytes, "numeric").as_deref(), Ok(expected));
        }
        for bytes in [&[0, 1][..], &wire(0, 7, 0, &[1]), &wire(0, 0, 0, &[10_000]), &wire(0, 0, 0, &[1])[..9]]
        {
            assert_eq!(shown(bytes, "numeric").expect_err("refused").kind(), ErrorKind::Malformed);
        }
    }

    #[test]
    fn numerics_become_whole_numbers_where_they_are() {
        let number = |text: &str| NumericBuf::parse(text).expect("a number");
        for (text, expected) in [
            ("0", Some(0)),
            ("120000", Some(120_000)),
            ("-7", Some(-7)),
            ("1.0", Some(1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1e300", None),
            ("0.5", None),
            ("NaN", None),
        ] {
            assert_eq!(whole_of(&number(text).borrow()), expected, "{text}");
        }
        assert_eq!(
            shown(&wire(0, 0, 1, &[1, 5000]), "int4").expect_err("refused").kind(),
            ErrorKind::WouldChange
        );
    }

    #[test]
    fn other_types_are_taken_only_where_nothing_is_lost() {
        let kind = |shape: Shape, bytes: &[u8], to: &str| {
            let mut room = Scratch::default();
            value(&shape, bytes, &parsed(to), &mut room).map(|_| ()).map_err(|error| error.kind())
        };
        let wrong = Err(ErrorKind::WrongType);
        assert_eq!(kind(Shape::Int4, &7i32.to_be_bytes(), "int8"), Ok(()));
        assert_eq!(
            kind(Shape::Int8, &((1i64 << 53) + 1).to_be_bytes(), "float8"),
            Err(ErrorKind::WouldChange)
        );
        assert_eq!(kind(Shape::Xid8, &u64::MAX.to_be_bytes(), "xid8"), Err(ErrorKind::OutOfRange));
        assert_eq!(kind(Shape::Numeric, &wire(0, 0, 0, &[1]), "float8"), wrong);
        assert_eq!(kind(Shape::Float8, &1f64.to_be_bytes(), "numeric"), wrong);
        assert_eq!(kind(Shape::Timestamp, &[0; 8], "timestamptz"), wrong);
        assert_eq!(kind(Shape::Timestamptz, &[0; 8], "timestamp"), wrong);
        assert_eq!(kind(Shape::Int4, &[0; 4], "text"), wrong);
        assert_eq!(kind(Shape::Text, b"x", "uuid"), wrong);
        assert_eq!(kind(Shape::Text, b"\xff", "text"), Err(ErrorKind::InvalidText));
        assert_eq!(kind(Shape::Int4, &[0; 3], "int4"), Err(ErrorKind::Malformed));
        assert_eq!(kind(Shape::Written("public.hstore".to_owned()), b"", "other('ext.hstore')"), Ok(()));
        assert_eq!(kind(Shape::Written("inet".to_owned()), b"", "other('cidr')"), wrong);
    }

    #[test]
    fn what_fits_is_what_values_are_taken_for() {
        let types = [
            "bool",
            "int2",
            "int4",
            "int8",
            "xid8",
            "numeric",
            "float4",
            "float8",
            "text",
            "citext",
            "varchar(3)",
            "char(3)",
            "bytea",
            "uuid",
            "date",
            "time",
            "timetz",
            "timestamp",
            "timestamptz",
            "interval",
            "json",
            "jsonb",
            "enum('a')",
            "other('inet')",
            "other('oid')",
        ];
        let shapes: [(Shape, &[u8]); 23] = [
            (Shape::Bool, &[1]),
            (Shape::Int2, &[0; 2]),
            (Shape::Int4, &[0; 4]),
            (Shape::Int8, &[0; 8]),
            (Shape::Xid8, &[0; 8]),
            (Shape::Oid, &[0; 4]),
            (Shape::Numeric, &[0; 8]),
            (Shape::Float4, &[0; 4]),
            (Shape::Float8, &[0; 8]),
            (Shape::Text, b"1"),
            (Shape::Padded, b"1  "),
            (Shape::Bytea, b"1"),
            (Shape::Uuid, &[0; 16]),
            (Shape::Date, &[0; 4]),
            (Shape::Time, &[0; 8]),
            (Shape::Timetz, &[0; 12]),
            (Shape::Timestamp, &[0; 8]),
            (Shape::Timestamptz, &[0; 8]),
            (Shape::Interval, &[0; 16]),
            (Shape::Json, b"1"),
            (Shape::Jsonb, b"\x011"),
            (Shape::Enum, b"a"),
            (Shape::Money, b"1.00"),
        ];
        for (shape, bytes) in &shapes {
            for to in types.map(parsed) {
                let mut room = Scratch::default();
                let taken = value(shape, bytes, &to, &mut room);
                assert_eq!(taken.is_ok(), fits(shape, &to), "{shape:?} to {to}: {taken:?}");
            }
        }
    }
}
