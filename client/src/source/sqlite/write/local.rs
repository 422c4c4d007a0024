//! The managed column's values as SQLite keeps them: in the storage class that is read back as the same value, under the
//! affinity of the declared type.

use plimsoll_core::Result;
use plimsoll_core::value::datetime::{format_date, format_time, format_timestamp, parse_timestamp};
use plimsoll_core::value::{ColumnType, Numeric, NumericBuf, Value, literal};
use rusqlite::types::Value as Owned;

use super::super::axis::Axis;
use super::super::row::raw_of;
use crate::source::query::RawValue;

/// Whether a declared type turns whatever it can into text.
fn is_text(declared: &str) -> bool {
    let has = |part: &str| contains(declared, part);
    !has("INT") && (has("CHAR") || has("CLOB") || has("TEXT"))
}

fn contains(declared: &str, part: &str) -> bool {
    declared.as_bytes().windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}

/// A value for a column that is declared so. `axis`: how stamps are spelled, in the column by which rows are ordered.
pub fn local(
    value: &Value<'_>,
    column_type: &ColumnType,
    declared: &str,
    axis: Option<&Axis>,
) -> Result<RawValue> {
    let text = |text: &str| RawValue { class: 3, bytes: text.as_bytes().to_vec() };
    Ok(match value {
        Value::Bool(value) => raw_of(Owned::Integer(i64::from(*value))),
        Value::Int(number) => raw_of(Owned::Integer(*number)),
        Value::Float(number) => raw_of(Owned::Real(*number)),
        Value::Numeric(_) if is_text(declared) => text(&literal::whole_text(value, column_type)?),
        Value::Numeric(number) => match number_of(number) {
            Some(number) => raw_of(number),
            None => text(&literal::whole_text(value, column_type)?),
        },
        Value::Text(own) | Value::Json(own) | Value::Jsonb(own) | Value::Enum(own) | Value::Other(own) => {
            text(own)
        }
        Value::Bytea(bytes) => RawValue { class: 4, bytes: bytes.to_vec() },
        Value::Uuid(bytes) if contains(declared, "BLOB") || contains(declared, "BINARY") => {
            RawValue { class: 4, bytes: bytes.to_vec() }
        }
        Value::Uuid(bytes) => text(&uuid::Uuid::from_bytes(*bytes).hyphenated().to_string()),
        Value::Date(days) => text(&format_date(*days)),
        Value::Time(micros) => text(&format_time(*micros)),
        Value::Timestamp(micros) | Value::Timestamptz(micros) => text(&stamp(*micros, axis)),
        _ => text(&literal::whole_text(value, column_type)?),
    })
}

/// A stamp as those that are there already are spelled, so that they keep their order.
fn stamp(micros: i64, axis: Option<&Axis>) -> String {
    let usual = format_timestamp(micros);
    match axis {
        Some(Axis::Local('T')) => usual.replacen(' ', "T", 1),
        Some(axis @ Axis::Zoned { .. }) => match axis.bound(micros) {
            Owned::Text(text) if parse_timestamp(&text).is_ok_and(|(same, _)| same == micros) => text,
            _ => usual,
        },
        _ => usual,
    }
}

/// A number in the smallest class that holds it exactly; `None` where only a text does.
fn number_of(number: &Numeric<'_>) -> Option<Owned> {
    if !number.kind().is_finite() || number.digits().len() > MOST_DIGITS {
        return None;
    }
    let written = number.smallest_scale().to_string();
    if let Ok(whole) = written.parse() {
        return Some(Owned::Integer(whole));
    }
    let real = written.parse::<f64>().ok().filter(|real| real.is_finite() && is_same(*real, number));
    real.map(Owned::Real)
}

/// Groups of four digits beyond which no number is a double's shortest text.
const MOST_DIGITS: usize = 8;

/// Whether a double is read as this number.
fn is_same(real: f64, number: &Numeric<'_>) -> bool {
    let read = NumericBuf::from_float(real);
    read.borrow().smallest_scale() == number.smallest_scale()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_smallest_class_that_holds_them() {
        let of = |text: &str| number_of(&NumericBuf::parse(text).expect("a number").borrow());
        assert_eq!(of("12.00"), Some(Owned::Integer(12)));
        assert_eq!(of("-1.50"), Some(Owned::Real(-1.5)));
        assert_eq!(of("0.1"), Some(Owned::Real(0.1)));
        assert_eq!(of("1e30"), Some(Owned::Real(1e30)));
        assert_eq!(of("123456789012345678.5"), None);
        assert_eq!(of("NaN"), None);
    }

    #[test]
    fn stamps_are_spelled_as_their_neighbours() {
        let zoned = Axis::Zoned { separator: 'T', seconds: true, digits: 3, zone: "Z".to_owned() };
        assert_eq!(stamp(1_500_000, Some(&zoned)), "2000-01-01T00:00:01.500Z");
        // What that spelling does not hold is written in full.
        assert_eq!(stamp(1_500_001, Some(&zoned)), "2000-01-01 00:00:01.500001");
        assert_eq!(stamp(0, Some(&Axis::Local('T'))), "2000-01-01T00:00:00");
        assert_eq!(stamp(0, None), "2000-01-01 00:00:00");
    }
}
