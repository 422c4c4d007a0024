//! MariaDB's and MySQL's values to the managed column's: exactly, or refused with the reason.

use mysql_async::Value as Raw;
use plimsoll_core::value::datetime::{MICROSECONDS_PER_DAY, day_of};
use plimsoll_core::value::{ColumnType, NumericBuf, Value, literal};
use plimsoll_core::{Error, ErrorKind, Result};

use super::types::LocalType;
use crate::source::kind::Scratch;

fn refuse<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T> {
    Err(Error::new(kind, message))
}

fn wrong<T>(local: &LocalType, column_type: &ColumnType) -> Result<T> {
    let hint = match local {
        LocalType::Other(_) => ": leave the column out",
        _ => "",
    };
    refuse(ErrorKind::WrongType, format!("{column_type} takes no {}{hint}", local.shown()))
}

/// Whether some value of a local type is one of the managed column's type. Where none is, rows need not be read to say so.
pub fn takes(column_type: &ColumnType, local: &LocalType) -> bool {
    use ColumnType as T;
    use LocalType as L;
    match column_type {
        T::Int2 | T::Int4 | T::Int8 | T::Xid8 => {
            matches!(local, L::Integer { .. } | L::Year | L::Bit(_) | L::Decimal(..) | L::Float | L::Double)
        }
        T::Numeric(_) => matches!(
            local,
            L::Integer { .. } | L::Year | L::Bit(_) | L::Decimal(..) | L::Float | L::Double | L::Text(_)
        ),
        T::Float4 | T::Float8 => matches!(local, L::Integer { .. } | L::Year | L::Float | L::Double),
        T::Bool => matches!(local, L::Integer { .. } | L::Bit(_)),
        T::Bytea => matches!(local, L::Binary { .. } | L::Bit(_)),
        T::Uuid => matches!(local, L::Binary { .. } | L::Text(_) | L::Uuid),
        T::Date | T::Timestamp(_) | T::Timestamptz(_) => {
            matches!(local, L::Date | L::Datetime(_) | L::Timestamp(_))
        }
        T::Time(_) => matches!(local, L::Time(_)),
        T::Interval(_) => matches!(local, L::Time(_) | L::Text(_)),
        T::Text | T::Varchar(_) | T::Char(_) | T::Citext => {
            matches!(local, L::Text(_) | L::Members { .. } | L::Json | L::Uuid | L::Inet(_))
        }
        T::Json | T::Jsonb => matches!(local, L::Text(_) | L::Json),
        T::Enum(_) => matches!(local, L::Text(_) | L::Members { .. }),
        T::Other(name) => match local {
            L::Bit(_) => is_bits(name),
            local => matches!(local, L::Text(_) | L::Members { .. } | L::Inet(_) | L::Uuid),
        },
        T::Array(_) => matches!(local, L::Text(_) | L::Members { is_enum: false, .. }),
        _ => matches!(local, L::Text(_)),
    }
}

/// The value that the managed column takes for `raw`, of a column of this local type; `None` is NULL. What the managed
/// column's own limits are is not looked at.
///
/// # Errors
/// Where it is no value of that type. The message does not name the column.
pub fn convert<'v>(
    raw: &'v Raw,
    local: &LocalType,
    column_type: &ColumnType,
    scratch: &'v mut Scratch,
) -> Result<Option<Value<'v>>> {
    use ColumnType as T;
    if *raw == Raw::NULL {
        return Ok(None);
    }
    let value = match column_type {
        T::Int2 | T::Int4 | T::Int8 | T::Xid8 => Value::Int(whole_number(raw, local, column_type)?),
        T::Numeric(_) => Value::Numeric(scratch.number.insert(numeric(raw, local, column_type)?).borrow()),
        T::Float4 | T::Float8 => Value::Float(float(raw, local, column_type)?),
        T::Bool => match (local, whole_number(raw, local, column_type)?) {
            (LocalType::Integer { .. } | LocalType::Bit(_), number @ (0 | 1)) => Value::Bool(number == 1),
            (LocalType::Integer { .. } | LocalType::Bit(_), number) => {
                return refuse(ErrorKind::WrongType, format!("{number} where bool takes 0 and 1 alone"));
            }
            _ => return wrong(local, column_type),
        },
        T::Bytea => match (raw, local) {
            (Raw::Bytes(bytes), LocalType::Binary { .. } | LocalType::Bit(_)) => Value::Bytea(bytes),
            _ => return wrong(local, column_type),
        },
        T::Uuid => Value::Uuid(uuid(raw, local, column_type)?),
        T::Date | T::Timestamp(_) | T::Timestamptz(_) => {
            let (days, micros) = moment(raw, local, column_type)?;
            match column_type {
                T::Date if micros == 0 => Value::Date(days),
                T::Date => return refuse(ErrorKind::WouldChange, "a time of day, which date would drop"),
                T::Timestamp(_) => Value::Timestamp(i64::from(days) * MICROSECONDS_PER_DAY + micros),
                _ => Value::Timestamptz(i64::from(days) * MICROSECONDS_PER_DAY + micros),
            }
        }
        T::Time(_) => match duration(raw) {
            Some(micros @ 0..=MICROSECONDS_PER_DAY) => Value::Time(micros),
            Some(_) => return refuse(ErrorKind::OutOfRange, "a TIME that is no time of day"),
            None => return wrong(local, column_type),
        },
        T::Interval(_) if duration(raw).is_some() => Value::Interval(0, 0, duration(raw).unwrap_or_default()),
        T::Text | T::Varchar(_) | T::Char(_) | T::Citext => match local {
            LocalType::Text(_)
            | LocalType::Members { .. }
            | LocalType::Json
            | LocalType::Uuid
            | LocalType::Inet(_) => Value::Text(text(raw)?),
            _ => return wrong(local, column_type),
        },
        T::Json | T::Jsonb => match (local, column_type) {
            (LocalType::Text(_) | LocalType::Json, T::Json) => Value::Json(text(raw)?),
            (LocalType::Text(_) | LocalType::Json, _) => Value::Jsonb(text(raw)?),
            _ => return wrong(local, column_type),
        },
        T::Enum(_) => match local {
            LocalType::Text(_) | LocalType::Members { .. } => Value::Enum(text(raw)?),
            _ => return wrong(local, column_type),
        },
        T::Other(name) => match (raw, local) {
            (Raw::Bytes(bytes), LocalType::Bit(bits)) if is_bits(name) => {
                Value::Other(bit_string(bytes, *bits, &mut scratch.text))
            }
            (_, LocalType::Text(_) | LocalType::Members { .. } | LocalType::Inet(_) | LocalType::Uuid) => {
                Value::Other(text(raw)?)
            }
            _ => return wrong(local, column_type),
        },
        // What MariaDB has no type for it keeps as the text that Postgres writes.
        _ => match local {
            LocalType::Text(_) => literal::parse(text(raw)?, column_type, &mut scratch.bytes)?,
            LocalType::Members { is_enum: false, .. } if matches!(column_type, T::Array(_)) => {
                put_members(text(raw)?, &mut scratch.text);
                literal::parse(&scratch.text, column_type, &mut scratch.bytes)?
            }
            _ => return wrong(local, column_type),
        },
    };
    Ok(Some(value))
}

/// Writes the members of a SET, of which none has a comma, as an array is written.
fn put_members(members: &str, out: &mut String) {
    out.clear();
    out.push('{');
    for (i, member) in members.split(',').filter(|_| !members.is_empty()).enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push('"');
        for character in member.chars() {
            if matches!(character, '"' | '\\') {
                out.push('\\');
            }
            out.push(character);
        }
        out.push('"');
    }
    out.push('}');
}

/// Text as it must be for Postgres: UTF-8. Texts whose character set has no such text come with a first byte that makes
/// them none (see [`selected`](super::dialect::selected)).
pub fn text(raw: &Raw) -> Result<&str> {
    let Raw::Bytes(bytes) = raw else { return refuse(ErrorKind::WrongType, "a value that is no text") };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if error.valid_up_to() == 0 && bytes.first() == Some(&super::dialect::NO_UTF8) => {
            refuse(ErrorKind::InvalidText, "text with a character that UTF-8 has not")
        }
        Err(error) => {
            let message = format!("text that is not UTF-8 (at its byte {})", error.valid_up_to());
            refuse(ErrorKind::InvalidText, message)
        }
    }
}

/// The first whole number beyond `i64`.
const BEYOND: f64 = 9_223_372_036_854_775_808.0;

fn whole_number(raw: &Raw, local: &LocalType, column_type: &ColumnType) -> Result<i64> {
    let beyond =
        |shown: String| refuse(ErrorKind::OutOfRange, format!("{shown} is out of range for {column_type}"));
    let inexact =
        |shown: String| refuse(ErrorKind::WouldChange, format!("{column_type} cannot hold {shown} exactly"));
    match (raw, local) {
        (Raw::Int(number), _) => Ok(*number),
        (Raw::UInt(number), _) => match i64::try_from(*number) {
            Ok(number) => Ok(number),
            Err(_) => beyond(number.to_string()),
        },
        (Raw::Bytes(bytes), LocalType::Bit(_)) => {
            let number = bit_number(bytes);
            i64::try_from(number).or_else(|_| beyond(number.to_string()))
        }
        (Raw::Bytes(_), LocalType::Decimal(..)) => {
            let text = text(raw)?;
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            if fraction.bytes().any(|digit| digit != b'0') {
                return inexact(text.to_owned());
            }
            whole.parse().or_else(|_| beyond(text.to_owned()))
        }
        (Raw::Float(_) | Raw::Double(_), _) => {
            let number = double(raw).unwrap_or(f64::NAN);
            if number.fract() == 0.0 && (-BEYOND..BEYOND).contains(&number) {
                return Ok(number as i64);
            }
            inexact(number.to_string())
        }
        _ => wrong(local, column_type),
    }
}

fn numeric(raw: &Raw, local: &LocalType, column_type: &ColumnType) -> Result<NumericBuf> {
    match (raw, local) {
        (Raw::Int(number), _) => Ok(NumericBuf::from_int(*number)),
        (Raw::UInt(number), _) => NumericBuf::parse(&number.to_string()),
        // The shortest decimal number that reads back as the same FLOAT.
        (Raw::Float(number), _) => NumericBuf::parse(&number.to_string()),
        (Raw::Double(number), _) => Ok(NumericBuf::from_float(*number)),
        (Raw::Bytes(bytes), LocalType::Bit(_)) => NumericBuf::parse(&bit_number(bytes).to_string()),
        (Raw::Bytes(_), LocalType::Decimal(..) | LocalType::Text(_)) => NumericBuf::parse(text(raw)?),
        _ => wrong(local, column_type),
    }
}

fn double(raw: &Raw) -> Option<f64> {
    match raw {
        Raw::Float(number) => Some(f64::from(*number)),
        Raw::Double(number) => Some(*number),
        _ => None,
    }
}

fn float(raw: &Raw, local: &LocalType, column_type: &ColumnType) -> Result<f64> {
    let (number, whole) = match raw {
        Raw::Int(number) => (*number as f64, i128::from(*number)),
        Raw::UInt(number) => (*number as f64, i128::from(*number)),
        _ => return double(raw).map_or_else(|| wrong(local, column_type), Ok),
    };
    if number as i128 == whole {
        return Ok(number);
    }
    refuse(ErrorKind::WouldChange, format!("{column_type} cannot hold {whole} exactly"))
}

/// Days since 2000-01-01, and microseconds of that day.
fn moment(raw: &Raw, local: &LocalType, column_type: &ColumnType) -> Result<(i32, i64)> {
    match (raw, local) {
        (
            Raw::Date(year, month, day, hours, minutes, seconds, micros),
            LocalType::Date | LocalType::Datetime(_) | LocalType::Timestamp(_),
        ) => match day_of(*year, *month, *day) {
            Some(days) => Ok((days, time_of(0, *hours, *minutes, *seconds, *micros))),
            None => {
                let message = format!("{year:04}-{month:02}-{day:02} is no date that Postgres has");
                refuse(ErrorKind::OutOfRange, message)
            }
        },
        _ => wrong(local, column_type),
    }
}

fn time_of(days: u32, hours: u8, minutes: u8, seconds: u8, micros: u32) -> i64 {
    let hours = i64::from(days) * 24 + i64::from(hours);
    ((hours * 60 + i64::from(minutes)) * 60 + i64::from(seconds)) * 1_000_000 + i64::from(micros)
}

/// A TIME in microseconds: up to 838 hours either way.
fn duration(raw: &Raw) -> Option<i64> {
    match raw {
        Raw::Time(is_negative, days, hours, minutes, seconds, micros) => {
            let time = time_of(*days, *hours, *minutes, *seconds, *micros);
            Some(if *is_negative { -time } else { time })
        }
        _ => None,
    }
}

fn uuid(raw: &Raw, local: &LocalType, column_type: &ColumnType) -> Result<[u8; 16]> {
    match (raw, local) {
        (Raw::Bytes(bytes), LocalType::Binary { .. }) => match bytes.as_slice().try_into() {
            Ok(bytes) => Ok(bytes),
            Err(_) => refuse(ErrorKind::InvalidText, format!("{} bytes where a uuid has 16", bytes.len())),
        },
        (Raw::Bytes(bytes), LocalType::Text(_) | LocalType::Uuid) => match uuid::Uuid::try_parse_ascii(bytes)
        {
            Ok(uuid) => Ok(*uuid.as_bytes()),
            Err(_) => refuse(ErrorKind::InvalidText, "text that is no uuid"),
        },
        _ => wrong(local, column_type),
    }
}

/// The number that the bits of a BIT column are, most significant byte first.
pub fn bit_number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether a type that is known by its text is one of bits.
fn is_bits(name: &str) -> bool {
    name.starts_with("bit") || name.starts_with("varbit")
}

fn bit_string<'t>(bytes: &[u8], bits: u32, text: &'t mut String) -> &'t str {
    let number = bit_number(bytes);
    text.clear();
    text.extend((0..bits.min(64)).rev().map(|bit| if number >> bit & 1 == 1 { '1' } else { '0' }));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(raw: &Raw, declared: &str, column_type: &str) -> String {
        let column_type: ColumnType = column_type.parse().expect("a type");
        let mut scratch = Scratch::default();
        match convert(raw, &LocalType::parse(declared), &column_type, &mut scratch) {
            Ok(None) => "NULL".to_owned(),
            Ok(Some(value)) => format!("{value:?}"),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    #[test]
    fn values_are_exact_or_refused() {
        let bytes = |text: &str| Raw::Bytes(text.as_bytes().to_vec());
        let date = |year, month, day, hours| Raw::Date(year, month, day, hours, 0, 0, 5);
        let day = |year, month, day| Raw::Date(year, month, day, 0, 0, 0, 0);
        for (raw, declared, column_type, expected) in [
            (Raw::NULL, "int", "int4", "NULL"),
            (Raw::Int(-5), "int", "int8", "Int(-5)"),
            (Raw::UInt(u64::MAX), "bigint unsigned", "numeric", "Numeric(18446744073709551615)"),
            (Raw::UInt(u64::MAX), "bigint unsigned", "int8", "OutOfRange"),
            (Raw::UInt(1 << 63), "bigint unsigned", "float8", "Float(9.223372036854776e18)"),
            (Raw::UInt(u64::MAX), "bigint unsigned", "float8", "WouldChange"),
            (Raw::Int(1), "tinyint(1)", "bool", "Bool(true)"),
            (Raw::Int(2), "tinyint(1)", "bool", "WrongType"),
            (Raw::Double(1.0), "double", "bool", "WrongType"),
            (bytes("1.50"), "decimal(5,2)", "numeric", "Numeric(1.50)"),
            (bytes("7.00"), "decimal(5,2)", "int4", "Int(7)"),
            (bytes("7.10"), "decimal(5,2)", "int4", "WouldChange"),
            (bytes("7.10"), "decimal(5,2)", "float8", "WrongType"),
            (bytes("99999999999999999999"), "decimal(20,0)", "int8", "OutOfRange"),
            (Raw::Float(0.1), "float", "float4", "Float(0.10000000149011612)"),
            (Raw::Float(0.1), "float", "numeric", "Numeric(0.1)"),
            (Raw::Double(0.1), "double", "numeric", "Numeric(0.1)"),
            (Raw::Double(3.0), "double", "int4", "Int(3)"),
            (Raw::Double(3.5), "double", "int4", "WouldChange"),
            (Raw::Bytes(vec![1, 2]), "bit(12)", "int4", "Int(258)"),
            (Raw::Bytes(vec![0b1010]), "bit(5)", "other('bit')", "Other(\"01010\")"),
            (Raw::Bytes(vec![1]), "bit(1)", "bool", "Bool(true)"),
            (day(2024, 2, 29), "date", "date", "Date(8825)"),
            (day(2024, 2, 29), "date", "timestamp", "Timestamp(762480000000000)"),
            (day(0, 0, 0), "date", "date", "OutOfRange"),
            (day(2024, 0, 0), "date", "date", "OutOfRange"),
            (day(2023, 2, 29), "datetime", "timestamp", "OutOfRange"),
            (date(2000, 1, 1, 1), "datetime(6)", "timestamp", "Timestamp(3600000005)"),
            (date(2000, 1, 1, 1), "timestamp(6)", "timestamptz", "Timestamptz(3600000005)"),
            (date(2000, 1, 1, 1), "datetime(6)", "date", "WouldChange"),
            (Raw::Time(false, 1, 0, 0, 0, 0), "time", "time", "Time(86400000000)"),
            (Raw::Time(false, 1, 0, 0, 1, 0), "time", "time", "OutOfRange"),
            (Raw::Time(true, 0, 0, 0, 1, 0), "time", "time", "OutOfRange"),
            (Raw::Time(true, 34, 22, 59, 59, 0), "time", "interval", "Interval(0, 0, -3020399000000)"),
            (bytes("a"), "enum('a')", "enum('a')", "Enum(\"a\")"),
            (bytes("a,b"), "set('a','b')", "text", "Text(\"a,b\")"),
            (
                bytes("a,\"b"),
                "set('a','\"b')",
                "array(text)",
                "Array(Array([1, 2, 0, 0, 0, 1, 0, 0, 0, 5, 1, 97, 5, 2, 34, 98]))",
            ),
            (
                bytes("[1,5)"),
                "varchar(20)",
                "range(int4)",
                "Range(Range([8, 2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 5, 0, 0, 0, 0, 0, 0, 0]))",
            ),
            (bytes("1 mon"), "varchar(20)", "interval", "Interval(1, 0, 0)"),
            (bytes("{}"), "json", "jsonb", "Jsonb(\"{}\")"),
            (bytes("{}"), "longblob", "json", "WrongType"),
            (bytes("a"), "varchar(5)", "bytea", "WrongType"),
            (bytes("a"), "binary(5)", "text", "WrongType"),
            (bytes("x"), "geometry", "bytea", "WrongType"),
            (Raw::Bytes(vec![0xff, 0x41]), "text", "text", "InvalidText"),
            (bytes("2001:db8::1"), "inet6", "other('inet')", "Other(\"2001:db8::1\")"),
        ] {
            assert_eq!(shown(&raw, declared, column_type), expected, "{raw:?} {declared} {column_type}");
            let takes = takes(&column_type.parse().expect("a type"), &LocalType::parse(declared));
            // A boolean takes some numbers and not others.
            assert!(takes == (expected != "WrongType") || column_type == "bool", "{declared} {column_type}");
        }
    }

    #[test]
    fn a_uuid_comes_from_text_and_from_16_bytes() {
        let text = "6b3e7f7e-6f0c-4e0c-9a57-0f2f0e6f0c11";
        let by_text = shown(&Raw::Bytes(text.to_uppercase().into_bytes()), "char(36)", "uuid");
        let bytes = uuid::Uuid::parse_str(text).expect("a uuid").as_bytes().to_vec();
        assert_eq!(by_text, shown(&Raw::Bytes(bytes), "binary(16)", "uuid"));
        assert_eq!(by_text, shown(&Raw::Bytes(text.as_bytes().to_vec()), "uuid", "uuid"));
        assert_eq!(shown(&Raw::Bytes(vec![1; 15]), "binary(16)", "uuid"), "InvalidText");
    }
}
