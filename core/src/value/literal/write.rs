//! Values as text, for people: as Postgres writes them in UTC and with ISO dates.

use std::fmt::{self, Write};

use crate::error::{Error, ErrorKind, Result};
use crate::value::check::MAX_VALUE_BYTES;

use super::super::{ColumnType, Composite, NumericKind, Range, Value, datetime};

/// Characters of a text at most: each level of values in values doubles quotes and backslashes.
const MOST: usize = 1 << 16;

/// Takes so many characters, and then no more.
struct Limited {
    text: String,
    left: usize,
}

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.write_char(character))
    }

    fn write_char(&mut self, character: char) -> fmt::Result {
        self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
        self.text.push(character);
        Ok(())
    }
}

/// Escapes what is written within quotes.
struct Escaping<'w> {
    out: &'w mut dyn Write,
    quote: &'static str,
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.write_char(character))
    }

    fn write_char(&mut self, character: char) -> fmt::Result {
        match character {
            '"' => self.out.write_str(self.quote),
            '\\' => self.out.write_str("\\\\"),
            character => self.out.write_char(character),
        }
    }
}

fn limited(value: &Value<'_>, most: usize) -> (String, bool) {
    let mut out = Limited { text: String::new(), left: most };
    // It fails where there is more of it.
    let all = put(&mut out, value, None).is_ok();
    (out.text, all)
}

/// The whole text of a value of this type, which [`parse`](super::parse) reads as the same value. Attributes of composite
/// types stand in the order in which the type lists them.
///
/// # Errors
/// `TooLarge` where it has more characters than a text may have.
pub fn whole_text(value: &Value<'_>, column_type: &ColumnType) -> Result<String> {
    let mut out = Limited { text: String::new(), left: MAX_VALUE_BYTES };
    match put(&mut out, value, Some(column_type)) {
        Ok(()) => Ok(out.text),
        Err(fmt::Error) => Err(Error::new(ErrorKind::TooLarge, "a value whose text exceeds 1 GB")),
    }
}

/// The text of a value; of a very long one the beginning.
pub fn to_text(value: &Value<'_>) -> String {
    let (mut text, all) = limited(value, MOST);
    if !all {
        text.push('…');
    }
    text
}

/// The beginning of a value's text in quotes, at most `most` characters, control characters escaped.
pub fn shown(value: &Value<'_>, most: usize) -> String {
    let (text, all) = limited(value, most);
    let mut visible = String::from("\"");
    for character in text.chars() {
        match character.is_control() {
            true => visible.extend(character.escape_default()),
            false => visible.push(character),
        }
    }
    visible + if all { "\"" } else { "…\"" }
}

fn put(out: &mut dyn Write, value: &Value<'_>, of: Option<&ColumnType>) -> fmt::Result {
    let inner = match of {
        Some(ColumnType::Array(inner) | ColumnType::Range(inner) | ColumnType::Multirange(inner)) => {
            Some(inner.as_ref())
        }
        _ => None,
    };
    match value {
        Value::Bool(value) => out.write_str(if *value { "t" } else { "f" }),
        Value::Int(value) => write!(out, "{value}"),
        Value::Numeric(number) => match number.kind() {
            NumericKind::NaN => out.write_str("NaN"),
            NumericKind::Infinity => out.write_str("Infinity"),
            NumericKind::NegativeInfinity => out.write_str("-Infinity"),
            _ => write!(out, "{number}"),
        },
        Value::Float(number) if number.is_infinite() => {
            out.write_str(if *number > 0.0 { "Infinity" } else { "-Infinity" })
        }
        Value::Float(number) => write!(out, "{number}"),
        Value::Text(text)
        | Value::Json(text)
        | Value::Jsonb(text)
        | Value::Enum(text)
        | Value::Other(text) => out.write_str(text),
        Value::Bytea(bytes) => {
            out.write_str("\\x")?;
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        Value::Uuid(bytes) => bytes.iter().enumerate().try_for_each(|(i, byte)| {
            let hyphen = if [4, 6, 8, 10].contains(&i) { "-" } else { "" };
            write!(out, "{hyphen}{byte:02x}")
        }),
        Value::Date(days) => out.write_str(&datetime::format_date(*days)),
        Value::Time(micros) => out.write_str(&datetime::format_time(*micros)),
        Value::Timetz(micros, west) => {
            out.write_str(&datetime::format_time(*micros))?;
            zone(out, *west)
        }
        Value::Timestamp(micros) => out.write_str(&datetime::format_timestamp(*micros)),
        Value::Timestamptz(micros) => {
            let text = datetime::format_timestamp(*micros);
            match text.strip_suffix(" BC") {
                Some(before) => write!(out, "{before}+00 BC"),
                None if text.ends_with("infinity") => out.write_str(&text),
                None => write!(out, "{text}+00"),
            }
        }
        Value::Interval(months, days, micros) => interval(out, *months, *days, *micros),
        Value::Array(array) => {
            let dimensions: Vec<(u32, i32)> = array.dimensions().collect();
            if dimensions.iter().any(|(_, lower)| *lower != 1) {
                for (length, lower) in &dimensions {
                    write!(out, "[{lower}:{}]", i64::from(*lower) + i64::from(*length) - 1)?;
                }
                out.write_char('=')?;
            }
            let mut elements = array.elements();
            let lengths: Vec<u32> = dimensions.iter().map(|(length, _)| *length).collect();
            level(out, &lengths, &mut elements, inner)
        }
        Value::Range(range) => put_range(out, range, inner),
        Value::Multirange(ranges) => {
            out.write_char('{')?;
            for (i, range) in ranges.ranges().enumerate() {
                if i > 0 {
                    out.write_char(',')?;
                }
                put_range(out, &range, inner)?;
            }
            out.write_char('}')
        }
        Value::Composite(composite) => match of {
            Some(ColumnType::Composite(attributes)) => {
                out.write_char('(')?;
                for (i, attribute) in attributes.iter().enumerate() {
                    out.write_str(if i > 0 { "," } else { "" })?;
                    let mut all = composite.attributes();
                    if let Some((_, value)) = all.find(|(number, _)| *number == attribute.number) {
                        part(out, &value, ",()\"\\", "\"\"", Some(&attribute.column_type))?;
                    }
                }
                out.write_char(')')
            }
            _ => put_composite(out, composite),
        },
    }
}

/// One dimension of an array, and those within it.
fn level<'a>(
    out: &mut dyn Write,
    lengths: &[u32],
    elements: &mut dyn Iterator<Item = Option<Value<'a>>>,
    of: Option<&ColumnType>,
) -> fmt::Result {
    out.write_char('{')?;
    for i in 0..lengths.first().copied().unwrap_or(0) {
        if i > 0 {
            out.write_char(',')?;
        }
        match lengths {
            [_, rest @ ..] if !rest.is_empty() => level(out, rest, elements, of)?,
            _ => match elements.next().flatten() {
                None => out.write_str("NULL")?,
                Some(value) => part(out, &value, ",{}\"\\", "\\\"", of)?,
            },
        }
    }
    out.write_char('}')
}

/// A value within another, in quotes unless it is one without blanks, parts and `special` characters; a quote within
/// quotes as `quote`.
fn part(
    out: &mut dyn Write,
    value: &Value<'_>,
    special: &'static str,
    quote: &'static str,
    of: Option<&ColumnType>,
) -> fmt::Result {
    let nests =
        matches!(value, Value::Array(_) | Value::Range(_) | Value::Multirange(_) | Value::Composite(_));
    // What nests is never looked at twice.
    if !nests {
        let mut look = Plain { special, start: String::new(), is_plain: true };
        // Looking does not fail.
        let _ = put(&mut look, value, of);
        if look.is_plain && !look.start.is_empty() && !look.start.eq_ignore_ascii_case("null") {
            return put(out, value, of);
        }
    }
    out.write_char('"')?;
    put(&mut Escaping { out, quote }, value, of)?;
    out.write_char('"')
}

/// Looks whether a text needs no quotes.
struct Plain {
    special: &'static str,
    /// Its first characters.
    start: String,
    is_plain: bool,
}

impl Write for Plain {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.is_plain &= !text.contains(|c: char| c.is_ascii_whitespace() || self.special.contains(c));
        self.start.extend(text.chars().take(5usize.saturating_sub(self.start.len())));
        Ok(())
    }
}

fn put_range(out: &mut dyn Write, range: &Range<'_>, of: Option<&ColumnType>) -> fmt::Result {
    if range.is_empty() {
        return out.write_str("empty");
    }
    let ((lower, upper), (includes_lower, includes_upper)) = (range.bounds(), range.inclusive());
    out.write_char(if includes_lower { '[' } else { '(' })?;
    lower.iter().try_for_each(|value| part(out, value, ",()[]\"\\", "\"\"", of))?;
    out.write_char(',')?;
    upper.iter().try_for_each(|value| part(out, value, ",()[]\"\\", "\"\"", of))?;
    out.write_char(if includes_upper { ']' } else { ')' })
}

/// By number: attributes that are NULL at the end are not known here.
fn put_composite(out: &mut dyn Write, composite: &Composite<'_>) -> fmt::Result {
    out.write_char('(')?;
    let mut next = 1;
    for (number, value) in composite.attributes() {
        (next..number).try_for_each(|_| out.write_char(','))?;
        next = number;
        part(out, &value, ",()\"\\", "\"\"", None)?;
    }
    out.write_char(')')
}

fn zone(out: &mut dyn Write, west: i32) -> fmt::Result {
    let (sign, seconds) = (if west > 0 { '-' } else { '+' }, west.unsigned_abs());
    write!(out, "{sign}{:02}", seconds / 3_600)?;
    if seconds % 3_600 != 0 {
        write!(out, ":{:02}", seconds / 60 % 60)?;
    }
    if seconds % 60 != 0 {
        write!(out, ":{:02}", seconds % 60)?;
    }
    Ok(())
}

fn interval(out: &mut dyn Write, months: i32, days: i32, micros: i64) -> fmt::Result {
    let mut blank = "";
    for (number, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if number != 0 {
            write!(out, "{blank}{number} {unit}{}", if number == 1 { "" } else { "s" })?;
            blank = " ";
        }
    }
    if micros != 0 || blank.is_empty() {
        let sign = if micros < 0 { "-" } else { "" };
        let size = micros.unsigned_abs();
        let (seconds, rest) = (size / 1_000_000, size % 1_000_000);
        write!(out, "{blank}{sign}{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)?;
        if rest != 0 {
            out.write_str(format!(".{rest:06}").trim_end_matches('0'))?;
        }
    }
    Ok(())
}
