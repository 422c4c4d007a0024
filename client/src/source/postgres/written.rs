//! Core values as text that Postgres reads as the same values: keys that are looked up.

use std::fmt::Write;

use plimsoll_core::value::{Array, Range, Value, datetime};

/// A value as its type's input function takes it; `None` of composites, whose text has a place for NULL attributes too.
pub fn written(value: &Value<'_>) -> Option<String> {
    let mut out = String::new();
    // Writing to a string does not fail.
    write_value(&mut out, value).ok()?;
    Some(out)
}

fn write_value(out: &mut String, value: &Value<'_>) -> std::fmt::Result {
    match value {
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(number) => write!(out, "{number}"),
        Value::Numeric(number) => write!(out, "{number}"),
        Value::Float(number) if number.is_infinite() => {
            write!(out, "{}", if *number > 0.0 { "Infinity" } else { "-Infinity" })
        }
        // The shortest text that is read as the same number.
        Value::Float(number) => write!(out, "{number:?}"),
        Value::Text(text)
        | Value::Json(text)
        | Value::Jsonb(text)
        | Value::Enum(text)
        | Value::Other(text) => out.write_str(text),
        Value::Bytea(bytes) => {
            out.push_str("\\x");
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        Value::Uuid(bytes) => write!(out, "{}", uuid::Uuid::from_bytes(*bytes)),
        Value::Date(days) => out.write_str(&datetime::format_date(*days)),
        Value::Time(micros) => out.write_str(&datetime::format_time(*micros)),
        Value::Timestamp(micros) => out.write_str(&datetime::format_timestamp(*micros)),
        Value::Timestamptz(micros) => out.write_str(&zoned(*micros)),
        Value::Timetz(micros, west) => {
            let (sign, zone) = if *west > 0 { ('-', *west) } else { ('+', -*west) };
            let (hours, minutes, seconds) = (zone / 3600, zone / 60 % 60, zone % 60);
            write!(out, "{}{sign}{hours:02}:{minutes:02}:{seconds:02}", datetime::format_time(*micros))
        }
        Value::Interval(months, days, micros) => {
            let (sign, micros) =
                if *micros < 0 { ("-", micros.unsigned_abs()) } else { ("", micros.unsigned_abs()) };
            write!(
                out,
                "{months} mons {days} days {sign}{}.{:06} secs",
                micros / 1_000_000,
                micros % 1_000_000
            )
        }
        Value::Array(array) => write_array(out, array),
        Value::Range(range) => write_range(out, range),
        Value::Multirange(ranges) => {
            out.push('{');
            for (i, range) in ranges.ranges().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write_range(out, &range)?;
            }
            out.write_char('}')
        }
        Value::Composite(_) => Err(std::fmt::Error),
    }
}

/// An instant with the zone it is written in; the era stands at the very end.
fn zoned(micros: i64) -> String {
    let text = datetime::format_timestamp(micros);
    match text.strip_suffix(" BC") {
        _ if text.ends_with("infinity") => text,
        Some(rest) => format!("{rest}+00 BC"),
        None => format!("{text}+00"),
    }
}

/// A part of something else, in quotes.
fn write_quoted(out: &mut String, value: &Value<'_>) -> std::fmt::Result {
    let mut part = String::new();
    write_value(&mut part, value)?;
    out.push('"');
    for char in part.chars() {
        if matches!(char, '"' | '\\') {
            out.push('\\');
        }
        out.push(char);
    }
    out.write_char('"')
}

fn write_array(out: &mut String, array: &Array<'_>) -> std::fmt::Result {
    let dimensions: Vec<_> = array.dimensions().collect();
    if dimensions.is_empty() {
        return out.write_str("{}");
    }
    for (length, lower) in &dimensions {
        write!(out, "[{lower}:{}]", i64::from(*lower) + i64::from(*length) - 1)?;
    }
    out.push('=');
    // How many dimensions begin, and end, at an element.
    let edges = |at: usize| {
        let mut size = 1;
        let inner = dimensions.iter().rev().take_while(|(length, _)| {
            size *= *length as usize;
            at.is_multiple_of(size)
        });
        inner.count()
    };
    for (i, element) in array.elements().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        out.extend(std::iter::repeat_n('{', edges(i)));
        match element {
            Some(element) => write_quoted(out, &element)?,
            None => out.push_str("NULL"),
        }
        out.extend(std::iter::repeat_n('}', edges(i + 1)));
    }
    Ok(())
}

fn write_range(out: &mut String, range: &Range<'_>) -> std::fmt::Result {
    if range.is_empty() {
        return out.write_str("empty");
    }
    let (lower_inclusive, upper_inclusive) = range.inclusive();
    let (lower, upper) = range.bounds();
    out.push(if lower_inclusive { '[' } else { '(' });
    lower.iter().try_for_each(|bound| write_quoted(out, bound))?;
    out.push(',');
    upper.iter().try_for_each(|bound| write_quoted(out, bound))?;
    out.write_char(if upper_inclusive { ']' } else { ')' })
}

#[cfg(test)]
mod tests {
    use plimsoll_core::value::{ArrayBuilder, NumericBuf, RangeBuilder};

    use super::*;

    #[test]
    fn values_are_written_as_postgres_reads_them() {
        let number = NumericBuf::parse("-1.50").expect("a number");
        for (value, expected) in [
            (Value::Numeric(number.borrow()), "-1.50"),
            (Value::Float(1e300), "1e300"),
            (Value::Float(f64::NEG_INFINITY), "-Infinity"),
            (Value::Float(f64::NAN), "NaN"),
            (Value::Bytea(&[0, 255]), "\\x00ff"),
            (Value::Timestamptz(0), "2000-01-01 00:00:00+00"),
            (Value::Timestamptz(i64::MAX), "infinity"),
            (Value::Timetz(0, -19_800), "00:00:00+05:30:00"),
            (Value::Timetz(0, 3_600), "00:00:00-01:00:00"),
            (Value::Interval(14, -3, -1_500_000), "14 mons -3 days -1.500000 secs"),
        ] {
            assert_eq!(written(&value).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_nests_is_quoted() {
        let mut array = ArrayBuilder::new(&[(2, 0), (1, 1)]);
        array.push(Some(&Value::Text("a\"b")));
        array.push(None);
        let expected = r#"[0:1][1:1]={{"a\"b"},{NULL}}"#;
        assert_eq!(written(&Value::Array(array.array())).as_deref(), Some(expected));
        let range = RangeBuilder::new(Some((&Value::Int(-1), true)), None);
        assert_eq!(written(&Value::Range(range.range())).as_deref(), Some("[\"-1\",)"));
    }
}
