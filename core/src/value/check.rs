//! Refuses what Postgres would round, trim or change in silence, before it is sent or stored.

use super::datetime::{DATE_MAX, DATE_MIN, MICROSECONDS_PER_DAY, TIMESTAMP_MAX, TIMESTAMP_MIN};
use super::{ColumnType, Numeric, Value};
use crate::error::{Error, ErrorKind, Result};

/// The largest value the encoding carries, in bytes: what Postgres' own values are limited to.
pub const MAX_VALUE_BYTES: usize = (1 << 30) - 1024;

fn fail<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T> {
    Err(Error::new(kind, message))
}

impl ColumnType {
    /// Whether a column of this type stores `value` exactly as it is.
    ///
    /// # Errors
    /// `WrongType`, `OutOfRange`, `TooLong`, `WouldChange`, `InvalidText` or `TooLarge`; the message names
    /// the type and the limit, and no more of the value than a number.
    pub fn check(&self, value: &Value<'_>) -> Result<()> {
        use ColumnType as T;
        match (self, value) {
            (T::Bool, Value::Bool(_)) | (T::Uuid, Value::Uuid(_)) | (T::Float8, Value::Float(_)) => Ok(()),
            (T::Int8, Value::Int(_)) => Ok(()),
            (T::Int2, Value::Int(n)) => whole(*n, i64::from(i16::MIN), i64::from(i16::MAX), "int2"),
            (T::Int4, Value::Int(n)) => whole(*n, i64::from(i32::MIN), i64::from(i32::MAX), "int4"),
            (T::Xid8, Value::Int(n)) => whole(*n, 0, i64::MAX, "xid8"),
            (T::Numeric(None), Value::Numeric(_)) => Ok(()),
            (T::Numeric(Some((precision, scale))), Value::Numeric(n)) => numeric(n, *precision, *scale),
            (T::Float4, Value::Float(n)) => {
                if n.is_nan() || f64::from(*n as f32) == *n {
                    Ok(())
                } else {
                    fail(ErrorKind::WouldChange, format!("float4 cannot hold {n} exactly"))
                }
            }
            (T::Text | T::Citext | T::Varchar(None), Value::Text(text)) => clean(text),
            (T::Varchar(Some(limit)), Value::Text(text)) => {
                clean(text)?;
                at_most(text, *limit, "varchar")
            }
            (T::Char(limit), Value::Text(text)) => {
                clean(text)?;
                if text.ends_with(' ') {
                    return fail(ErrorKind::WouldChange, "char(n) does not keep trailing blanks");
                }
                at_most(text, *limit, "char")
            }
            (T::Bytea, Value::Bytea(bytes)) => fits(bytes.len()),
            (T::Date, Value::Date(days)) => match *days {
                i32::MIN | i32::MAX | DATE_MIN..=DATE_MAX => Ok(()),
                days => fail(ErrorKind::OutOfRange, format!("day {days} is outside date")),
            },
            (T::Time(digits), Value::Time(micros)) => time(*micros, *digits, "time"),
            (T::Timetz(digits), Value::Timetz(micros, west)) => {
                whole(i64::from(*west), -57_599, 57_599, "time zone")?;
                time(*micros, *digits, "timetz")
            }
            (T::Timestamp(digits), Value::Timestamp(micros)) => stamp(*micros, *digits, "timestamp"),
            (T::Timestamptz(digits), Value::Timestamptz(micros)) => stamp(*micros, *digits, "timestamptz"),
            (T::Interval(digits), Value::Interval(_, _, micros)) => fraction(*micros, *digits, "interval"),
            (T::Json, Value::Json(text)) => {
                fits(text.len())?;
                crate::row::check_json(text)
            }
            // What jsonb refuses has no digest form: checked there, once.
            (T::Jsonb, Value::Jsonb(text)) => clean(text),
            (T::Enum(labels), Value::Enum(label)) => {
                if labels.iter().any(|known| known == label) {
                    Ok(())
                } else {
                    fail(ErrorKind::InvalidText, "not a label of the enum")
                }
            }
            (T::Other(_), Value::Other(text)) => clean(text),
            (T::Array(element), Value::Array(array)) => {
                fits(array.0.len())?;
                array.elements().flatten().try_for_each(|value| element.check(&value))
            }
            (T::Range(bound), Value::Range(range)) => {
                fits(range.0.len())?;
                let (lower, upper) = range.bounds();
                [lower, upper].into_iter().flatten().try_for_each(|value| bound.check(&value))
            }
            (T::Multirange(bound), Value::Multirange(ranges)) => {
                fits(ranges.0.len())?;
                let range_type = T::Range(bound.clone());
                ranges.ranges().try_for_each(|range| range_type.check(&Value::Range(range)))
            }
            (T::Composite(attributes), Value::Composite(composite)) => {
                fits(composite.0.len())?;
                composite.attributes().try_for_each(|(number, value)| {
                    match attributes.iter().find(|known| known.number == number) {
                        Some(attribute) => attribute.column_type.check(&value),
                        None => fail(ErrorKind::WrongType, format!("no attribute {number} in the composite")),
                    }
                })
            }
            _ => fail(ErrorKind::WrongType, format!("not a value of type {self}")),
        }
    }
}

fn whole(number: i64, lowest: i64, highest: i64, name: &str) -> Result<()> {
    if (lowest..=highest).contains(&number) {
        Ok(())
    } else {
        fail(ErrorKind::OutOfRange, format!("{number} is out of range for {name}"))
    }
}

fn numeric(number: &Numeric<'_>, precision: u16, scale: i16) -> Result<()> {
    use super::NumericKind::{Infinity, NaN, NegativeInfinity};
    match number.kind() {
        NaN => return Ok(()),
        Infinity | NegativeInfinity => {
            return fail(
                ErrorKind::OutOfRange,
                format!("numeric({precision},{scale}) cannot hold an infinity"),
            );
        }
        _ => {}
    }
    if number.lowest_power() < -i64::from(scale) && !number.digits.is_empty() {
        return fail(ErrorKind::WouldChange, format!("numeric({precision},{scale}) would round it"));
    }
    if number.integer_digits() > i64::from(precision) - i64::from(scale) {
        return fail(
            ErrorKind::OutOfRange,
            format!("it has too many digits for numeric({precision},{scale})"),
        );
    }
    Ok(())
}

fn fits(length: usize) -> Result<()> {
    if length <= MAX_VALUE_BYTES {
        Ok(())
    } else {
        fail(ErrorKind::TooLarge, format!("{length} bytes exceed 1 GB"))
    }
}

fn clean(text: &str) -> Result<()> {
    fits(text.len())?;
    match text.as_bytes().contains(&0) {
        false => Ok(()),
        true => fail(ErrorKind::InvalidText, "Postgres text cannot hold a NUL character"),
    }
}

fn at_most(text: &str, limit: u32, name: &str) -> Result<()> {
    // Characters are never more than bytes: most values need no count.
    if text.len() <= limit as usize || text.chars().count() <= limit as usize {
        return Ok(());
    }
    fail(ErrorKind::TooLong, format!("{} characters exceed {name}({limit})", text.chars().count()))
}

fn fraction(micros: i64, digits: u8, name: &str) -> Result<()> {
    let unit = 10i64.pow(u32::from(6 - digits.min(6)));
    if micros % unit == 0 {
        Ok(())
    } else {
        fail(ErrorKind::WouldChange, format!("{name}({digits}) would round it"))
    }
}

fn time(micros: i64, digits: u8, name: &str) -> Result<()> {
    if !(0..=MICROSECONDS_PER_DAY).contains(&micros) {
        return fail(ErrorKind::OutOfRange, format!("{micros} microseconds is no time of day"));
    }
    fraction(micros, digits, name)
}

fn stamp(micros: i64, digits: u8, name: &str) -> Result<()> {
    match micros {
        i64::MIN | i64::MAX => Ok(()),
        TIMESTAMP_MIN..=TIMESTAMP_MAX => fraction(micros, digits, name),
        _ => fail(ErrorKind::OutOfRange, format!("{micros} microseconds is outside {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::NumericBuf;
    use super::*;

    fn refused(column_type: &str, value: Value<'_>) -> Option<ErrorKind> {
        let column_type: ColumnType = column_type.parse().expect("a type");
        column_type.check(&value).err().map(|e| e.kind())
    }

    #[test]
    fn what_postgres_would_change_is_refused() {
        let number = |text: &str| NumericBuf::parse(text).expect("a number");
        assert_eq!(refused("numeric(5,2)", Value::Numeric(number("123.45").borrow())), None);
        assert_eq!(refused("numeric(5,2)", Value::Numeric(number("123.4500").borrow())), None);
        assert_eq!(
            refused("numeric(5,2)", Value::Numeric(number("1.005").borrow())),
            Some(ErrorKind::WouldChange)
        );
        assert_eq!(
            refused("numeric(5,2)", Value::Numeric(number("1000").borrow())),
            Some(ErrorKind::OutOfRange)
        );
        assert_eq!(refused("numeric(5,2)", Value::Numeric(number("0").borrow())), None);
        assert_eq!(refused("numeric(5,-2)", Value::Numeric(number("1234500").borrow())), None);
        assert_eq!(
            refused("numeric(5,-2)", Value::Numeric(number("150").borrow())),
            Some(ErrorKind::WouldChange)
        );
        assert_eq!(refused("numeric(2,4)", Value::Numeric(number("0.0099").borrow())), None);
        assert_eq!(
            refused("numeric(2,4)", Value::Numeric(number("0.01").borrow())),
            Some(ErrorKind::OutOfRange)
        );
        assert_eq!(refused("varchar(3)", Value::Text("äöü")), None);
        assert_eq!(refused("varchar(3)", Value::Text("abc ")), Some(ErrorKind::TooLong));
        assert_eq!(refused("char(3)", Value::Text("ab ")), Some(ErrorKind::WouldChange));
        assert_eq!(refused("text", Value::Text("a\0b")), Some(ErrorKind::InvalidText));
        assert_eq!(refused("timestamp(0)", Value::Timestamp(1_500_000)), Some(ErrorKind::WouldChange));
        assert_eq!(refused("timestamp(3)", Value::Timestamp(1_500_000)), None);
        assert_eq!(refused("timestamptz(0)", Value::Timestamptz(i64::MAX)), None);
        assert_eq!(refused("time", Value::Time(MICROSECONDS_PER_DAY)), None);
        assert_eq!(refused("time", Value::Time(MICROSECONDS_PER_DAY + 1)), Some(ErrorKind::OutOfRange));
        assert_eq!(refused("int2", Value::Int(32768)), Some(ErrorKind::OutOfRange));
        assert_eq!(refused("int4", Value::Int(1 << 31)), Some(ErrorKind::OutOfRange));
        assert_eq!(refused("float4", Value::Float(0.1)), Some(ErrorKind::WouldChange));
        assert_eq!(refused("float4", Value::Float(f64::from(0.1f32))), None);
        assert_eq!(refused("int4", Value::Text("1")), Some(ErrorKind::WrongType));
        assert_eq!(refused("enum('a')", Value::Enum("b")), Some(ErrorKind::InvalidText));
        assert_eq!(refused("date", Value::Date(DATE_MAX + 1)), Some(ErrorKind::OutOfRange));
    }

    #[test]
    fn values_over_1_gb_are_refused() {
        // Pages that nobody touches cost nothing.
        let large = vec![0; MAX_VALUE_BYTES + 1];
        assert_eq!(refused("bytea", Value::Bytea(&large)), Some(ErrorKind::TooLarge));
        assert_eq!(refused("bytea", Value::Bytea(&large[1..])), None);
    }
}
