//! Values from SQL text, as far as the corpus needs it.

use plimsoll_core::value::{
    ArrayBuilder, Attribute, ColumnType, CompositeBuilder, MultirangeBuilder, NumericBuf, RangeBuilder,
    Value, datetime,
};
use plimsoll_core::{Error, ErrorKind, Result};

/// What to do with a value that lives no longer than the call.
pub type Take<'t> = &'t mut dyn FnMut(&Value<'_>);

/// Hands over the value that `text` is.
pub fn with_value(text: &str, column_type: &ColumnType, take: Take<'_>) -> Result<()> {
    use ColumnType as T;
    let value = match column_type {
        T::Bool => Value::Bool(["true", "t"].contains(&text)),
        T::Int2 | T::Int4 | T::Int8 | T::Xid8 => Value::Int(text.parse().expect("a whole number")),
        T::Float4 => Value::Float(f64::from(text.parse::<f32>().expect("a number"))),
        T::Float8 => Value::Float(text.parse().expect("a number")),
        T::Numeric(_) => {
            take(&Value::Numeric(NumericBuf::parse(text)?.borrow()));
            return Ok(());
        }
        T::Char(_) => Value::Text(text.trim_end_matches(' ')),
        T::Text | T::Varchar(_) | T::Citext => Value::Text(text),
        T::Bytea => {
            take(&Value::Bytea(&super::corpus::bytes(&text[2..])));
            return Ok(());
        }
        T::Uuid => {
            let bytes = super::corpus::bytes(&text.replace('-', ""));
            Value::Uuid(bytes.try_into().expect("16 bytes"))
        }
        T::Date => Value::Date(datetime::parse_date(text)?),
        T::Time(_) => Value::Time(datetime::parse_time(text)?),
        T::Timetz(_) => {
            let (micros, west) = datetime::parse_timetz(text)?;
            Value::Timetz(micros, west)
        }
        T::Timestamp(_) => Value::Timestamp(datetime::parse_timestamp(text)?.0),
        T::Timestamptz(_) => Value::Timestamptz(datetime::parse_timestamp(text)?.0),
        T::Interval(_) => interval(text)?,
        T::Json => Value::Json(text),
        T::Jsonb => Value::Jsonb(text),
        T::Enum(_) => Value::Enum(text),
        T::Array(element) => return array(text, element, take),
        T::Range(bound) => return range(text, bound, take),
        T::Multirange(bound) => return multirange(text, bound, take),
        T::Composite(attributes) => return composite(text, attributes, take),
        T::Other(_) => Value::Other(text),
        other => return Err(Error::new(ErrorKind::WrongType, format!("no values of {other} in the corpus"))),
    };
    take(&value);
    Ok(())
}

/// `[N mon[s]] [N day[s]] [[-]HH:MM:SS[.ffffff]]`
fn interval(text: &str) -> Result<Value<'static>> {
    let (mut months, mut days, mut micros) = (0, 0, 0);
    let words: Vec<&str> = text.split(' ').collect();
    for (i, word) in words.iter().enumerate() {
        let number = || words[i - 1].parse::<i32>().expect("a number");
        match *word {
            "mon" | "mons" => months = number(),
            "day" | "days" => days = number(),
            time if time.contains(':') => {
                // As many hours as there are.
                let (hours, rest) = time.trim_start_matches('-').split_once(':').expect("hours");
                let size = hours.parse::<i64>().expect("hours") * 3_600_000_000
                    + datetime::parse_time(&format!("00:{rest}"))?;
                micros = if time.starts_with('-') { -size } else { size };
            }
            _ => {}
        }
    }
    Ok(Value::Interval(months, days, micros))
}

/// The parts of a range or composite, and whether each was quoted; a quote in quotes is doubled.
fn parts(text: &str) -> Vec<(String, bool)> {
    let mut items = vec![(String::new(), false)];
    let (mut quotes, mut chars) = (false, text.chars().peekable());
    while let Some(char) = chars.next() {
        let item = items.last_mut().expect("never empty");
        match char {
            '"' if quotes && chars.peek() == Some(&'"') => item.0.extend(chars.next()),
            '"' => {
                quotes = !quotes;
                item.1 = true;
            }
            ',' if !quotes => items.push((String::new(), false)),
            char => item.0.push(char),
        }
    }
    items
}

/// The pieces between commas outside quotes and brackets, and whether each was quoted.
fn split(text: &str) -> Vec<(String, bool)> {
    let mut items = vec![(String::new(), false)];
    let (mut quotes, mut depth) = (false, 0);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let item = items.last_mut().expect("never empty");
        // Inside braces of its own a piece is kept as it is, to be split again.
        match (char, quotes) {
            ('\\', true) => {
                if depth > 0 {
                    item.0.push('\\');
                }
                item.0.extend(chars.next());
            }
            ('"', _) => {
                quotes = !quotes;
                if depth > 0 {
                    item.0.push('"');
                } else {
                    item.1 = true;
                }
            }
            (',', false) if depth == 0 => items.push((String::new(), false)),
            (char, _) => {
                if !quotes {
                    depth += i32::from(char == '{') - i32::from(char == '}');
                }
                item.0.push(char);
            }
        }
    }
    items
}

fn array(text: &str, element: &ColumnType, take: Take<'_>) -> Result<()> {
    let (bounds, body) = match text.split_once('=') {
        Some((bounds, body)) if bounds.starts_with('[') => (bounds, body),
        _ => ("", text),
    };
    let (mut lengths, mut elements) = (Vec::new(), Vec::new());
    flatten(body, 0, &mut lengths, &mut elements);
    let lowers: Vec<i32> = bounds
        .split('[')
        .skip(1)
        .map(|bound| bound.split_once(':').expect("a bound").0.parse().expect("a bound"))
        .collect();
    let dimensions: Vec<(u32, i32)> = lengths
        .iter()
        .enumerate()
        .map(|(i, length)| (*length, lowers.get(i).copied().unwrap_or(1)))
        .filter(|_| !elements.is_empty())
        .collect();
    let mut builder = ArrayBuilder::new(&dimensions);
    for (text, quoted) in elements {
        if text == "NULL" && !quoted {
            builder.push(None);
        } else {
            with_value(&text, element, &mut |value| builder.push(Some(value)))?;
        }
    }
    take(&Value::Array(builder.array()));
    Ok(())
}

fn flatten(body: &str, depth: usize, lengths: &mut Vec<u32>, elements: &mut Vec<(String, bool)>) {
    let inner = &body[1..body.len() - 1];
    let items = if inner.is_empty() { Vec::new() } else { split(inner) };
    if depth == lengths.len() {
        lengths.push(items.len() as u32);
    }
    for (text, quoted) in items {
        if text.starts_with('{') && !quoted {
            flatten(&text, depth + 1, lengths, elements);
        } else {
            elements.push((text, quoted));
        }
    }
}

fn range(text: &str, bound: &ColumnType, take: Take<'_>) -> Result<()> {
    if text == "empty" {
        take(&Value::Range(RangeBuilder::empty().range()));
        return Ok(());
    }
    let inclusive = (text.starts_with('['), text.ends_with(']'));
    let ends = parts(&text[1..text.len() - 1]);
    // Bounds are encoded one by one into arrays of one element, which own them until the range is built.
    let owned = |(text, quoted): &(String, bool)| -> Result<Option<ArrayBuilder>> {
        if text.is_empty() && !quoted {
            return Ok(None);
        }
        let mut holder = ArrayBuilder::new(&[(1, 1)]);
        with_value(text, bound, &mut |value| holder.push(Some(value)))?;
        Ok(Some(holder))
    };
    let (lower, upper) = (owned(&ends[0])?, owned(&ends[1])?);
    let lower = lower.as_ref().and_then(|holder| holder.array().elements().next().flatten());
    let upper = upper.as_ref().and_then(|holder| holder.array().elements().next().flatten());
    let builder = RangeBuilder::new(
        lower.as_ref().map(|value| (value, inclusive.0)),
        upper.as_ref().map(|value| (value, inclusive.1)),
    );
    take(&Value::Range(builder.range()));
    Ok(())
}

fn multirange(text: &str, bound: &ColumnType, take: Take<'_>) -> Result<()> {
    let mut builder = MultirangeBuilder::default();
    let mut rest = &text[1..text.len() - 1];
    while !rest.is_empty() {
        let mut quotes = false;
        let is_end = |char: char| {
            quotes ^= char == '"';
            !quotes && [')', ']'].contains(&char)
        };
        let end = rest.find(is_end).expect("an end") + 1;
        range(&rest[..end], bound, &mut |value| match value {
            Value::Range(range) => builder.push(*range),
            other => panic!("no range: {other:?}"),
        })?;
        rest = rest[end..].trim_start_matches(',');
    }
    take(&Value::Multirange(builder.multirange()));
    Ok(())
}

fn composite(text: &str, attributes: &[Attribute], take: Take<'_>) -> Result<()> {
    let mut builder = CompositeBuilder::default();
    for (attribute, (text, quoted)) in attributes.iter().zip(parts(&text[1..text.len() - 1])) {
        if quoted || !text.is_empty() {
            let Attribute { number, column_type, .. } = attribute;
            with_value(&text, column_type, &mut |value| builder.push(*number, value))?;
        }
    }
    take(&Value::Composite(builder.composite()));
    Ok(())
}
