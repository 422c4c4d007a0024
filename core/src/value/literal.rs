//! Values as the text that Postgres writes for them: read, for sources that keep arrays, ranges and the like as
//! text, and written, for people.
//!
//! What is read is a little more than what is written: blanks around the parts of an array, quotes where none are
//! needed, intervals by ISO 8601. Every other text is refused: nothing is guessed.

use super::{ArrayBuilder, Attribute, ColumnType, MAX_DIMENSIONS, NumericBuf, Value, datetime};
use crate::error::{Error, ErrorKind, Result};
use crate::row::{Tag, canonical_json, put_tagged, put_tagged_bytes, put_varint, take_tagged};

mod interval;
mod write;

pub use interval::parse_interval;
pub use write::{shown, to_text, whole_text};

fn bad<T>(what: &str, text: &str) -> Result<T> {
    let shown: String = text.chars().take(40).collect();
    Err(Error::new(ErrorKind::InvalidText, format!("\"{shown}\" is no {what}")))
}

/// The value that a text stands for in a column of the type, kept in `buffer`. The type's limits are still to be
/// checked.
///
/// # Errors
/// `InvalidText`, `OutOfRange` or `WouldChange` where the text is none of the type.
pub fn parse<'b>(text: &str, column_type: &ColumnType, buffer: &'b mut Vec<u8>) -> Result<Value<'b>> {
    buffer.clear();
    put(buffer, text, column_type)?;
    match take_tagged(buffer)? {
        (Some(value), []) => Ok(value),
        _ => bad("value", text),
    }
}

/// Appends the value with its tag.
fn put(out: &mut Vec<u8>, text: &str, column_type: &ColumnType) -> Result<()> {
    use ColumnType as T;
    let value = match column_type {
        T::Bool => match text {
            "t" | "true" => Value::Bool(true),
            "f" | "false" => Value::Bool(false),
            _ => return bad("bool", text),
        },
        T::Int2 | T::Int4 | T::Int8 | T::Xid8 => match text.parse() {
            Ok(number) => Value::Int(number),
            Err(_) => return bad("whole number of 64 bits", text),
        },
        T::Numeric(_) => {
            put_tagged(out, Some(&Value::Numeric(NumericBuf::parse(text)?.borrow())));
            return Ok(());
        }
        T::Float4 => Value::Float(f64::from(float(text, text.parse::<f32>().ok())?)),
        T::Float8 => Value::Float(float(text, text.parse().ok())?),
        T::Text | T::Varchar(_) | T::Citext => Value::Text(text),
        T::Char(_) => Value::Text(text.trim_end_matches(' ')),
        T::Bytea => {
            let Some(bytes) = text.strip_prefix("\\x").and_then(octets) else { return bad("bytea", text) };
            put_tagged(out, Some(&Value::Bytea(&bytes)));
            return Ok(());
        }
        T::Uuid => match octets(&text.replace('-', "")).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Value::Uuid(bytes),
            None => return bad("uuid", text),
        },
        T::Date => Value::Date(datetime::parse_date(text)?),
        T::Time(_) => Value::Time(datetime::parse_time(text)?),
        T::Timetz(_) => {
            let (micros, west) = datetime::parse_timetz(text)?;
            Value::Timetz(micros, west)
        }
        T::Timestamp(_) => match datetime::parse_timestamp(text)? {
            (micros, None) => Value::Timestamp(micros),
            _ => return bad("timestamp without a zone", text),
        },
        T::Timestamptz(_) => Value::Timestamptz(datetime::parse_timestamp(text)?.0),
        T::Interval(_) => parse_interval(text)?,
        T::Json => Value::Json(text),
        T::Jsonb => {
            canonical_json(text, &mut Vec::new())?;
            Value::Jsonb(text)
        }
        T::Enum(_) => Value::Enum(text),
        T::Other(_) => Value::Other(text),
        T::Array(element) => return array(out, text, element),
        T::Range(bound) => {
            let mut parts = Parts { text, rest: text };
            range(out, &mut parts, bound)?;
            return parts.end("range");
        }
        T::Multirange(bound) => return multirange(out, text, bound),
        T::Composite(attributes) => return composite(out, text, attributes),
    };
    put_tagged(out, Some(&value));
    Ok(())
}

/// A number that is finite unless it is spelled as none.
fn float<F: Copy + Into<f64>>(text: &str, number: Option<F>) -> Result<F> {
    let spelled = matches!(text, "NaN" | "Infinity" | "-Infinity");
    match number {
        Some(number) if spelled || number.into().is_finite() => Ok(number),
        _ => bad("number", text),
    }
}

fn octets(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    let octet = |i| u8::from_str_radix(digits.get(i..i + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(octet).collect()
}

/// A text that is taken apart from the front.
struct Parts<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn eat(&mut self, wanted: char) -> bool {
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    }

    fn end(&self, what: &str) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { bad(what, self.text) }
    }

    /// What stands in front of one of `ends`, without its quotes and backslashes, and whether any of it was quoted. A
    /// quote in quotes is doubled.
    fn item(&mut self, ends: &[char], what: &str) -> Result<(String, bool)> {
        let (mut item, mut quoted, mut in_quotes) = (String::new(), false, false);
        let mut characters = self.rest.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, escaped)) => {
                        quoted = true;
                        item.push(escaped);
                    }
                    None => break,
                },
                '"' if in_quotes && characters.next_if(|(_, next)| *next == '"').is_some() => item.push('"'),
                '"' => {
                    quoted = true;
                    in_quotes = !in_quotes;
                }
                end if !in_quotes && ends.contains(&end) => {
                    self.rest = &self.rest[at..];
                    return Ok((item, quoted));
                }
                character => item.push(character),
            }
        }
        bad(what, self.text)
    }

    /// An element of an array, and whether it was quoted: all of it, or none. `delimiter` stands between two.
    fn element(&mut self, delimiter: char) -> Result<(String, bool)> {
        let in_quotes = self.eat('"');
        let (mut item, mut escaped, mut blanks) = (String::new(), false, 0);
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, character)) => {
                        escaped = true;
                        blanks = 0;
                        item.push(character);
                    }
                    None => break,
                },
                '"' if in_quotes => {
                    self.rest = &self.rest[at + 1..];
                    return Ok((item, true));
                }
                end if !in_quotes && (end == delimiter || end == '}') => {
                    self.rest = &self.rest[at..];
                    item.truncate(item.len() - blanks);
                    return Ok((item, escaped));
                }
                '"' | '{' if !in_quotes => break,
                character => {
                    let is_blank = !in_quotes && character.is_ascii_whitespace();
                    blanks = if is_blank { blanks + 1 } else { 0 };
                    item.push(character);
                }
            }
        }
        bad("array", self.text)
    }
}

/// `[0:1]={a,"b c",NULL}`
fn array(out: &mut Vec<u8>, text: &str, element: &ColumnType) -> Result<()> {
    let mut parts = Parts { text, rest: text };
    let mut bounds = Vec::new();
    parts.blanks();
    while parts.rest.starts_with('[') {
        let bound = parts.rest.split_once(']').and_then(|(bound, rest)| {
            parts.rest = rest;
            let (first, last) = bound[1..].split_once(':')?;
            Some((first.parse::<i32>().ok()?, last.parse::<i32>().ok()?))
        });
        bounds.push(bound.map_or_else(|| bad("array", text), Ok)?);
    }
    if !bounds.is_empty() && !parts.eat('=') {
        return bad("array", text);
    }
    let mut elements = Vec::new();
    let mut reader = ArrayReader {
        element,
        delimiter: delimiter(element),
        elements: &mut elements,
        lengths: Vec::new(),
        count: 0,
    };
    reader.level(&mut parts, 0)?;
    let (lengths, count) = (reader.lengths, reader.count);
    parts.blanks();
    parts.end("array")?;
    if count == 0 {
        let is_empty = lengths == [0] && bounds.is_empty();
        put_tagged(out, Some(&Value::Array(ArrayBuilder::new(&[]).array())));
        return if is_empty { Ok(()) } else { bad("array", text) };
    }
    let fits = |(length, (first, last)): (&u32, &(i32, i32))| {
        i64::from(*last) - i64::from(*first) + 1 == i64::from(*length)
    };
    if !bounds.is_empty() && (bounds.len() != lengths.len() || !lengths.iter().zip(&bounds).all(fits)) {
        return bad("array", text);
    }
    let lower = |i: usize| bounds.get(i).map_or(1, |(first, _)| *first);
    let dimensions: Vec<(u32, i32)> =
        lengths.iter().enumerate().map(|(i, length)| (*length, lower(i))).collect();
    let mut payload = ArrayBuilder::new(&dimensions).into_bytes();
    payload.extend_from_slice(&elements);
    put_tagged_bytes(out, Tag::Array, &payload);
    Ok(())
}

/// What stands between two elements of an array: a semicolon between boxes, a comma between all others.
fn delimiter(element: &ColumnType) -> char {
    match element {
        ColumnType::Other(name) if matches!(name.as_str(), "box" | "pg_catalog.box") => ';',
        _ => ',',
    }
}

/// Reads the elements of an array, brace by brace.
struct ArrayReader<'r> {
    element: &'r ColumnType,
    delimiter: char,
    elements: &'r mut Vec<u8>,
    /// Of each dimension, as far as they are known.
    lengths: Vec<u32>,
    /// Elements so far: from the first on no other dimension is begun.
    count: u64,
}

impl ArrayReader<'_> {
    /// One pair of braces, and what is in it.
    fn level(&mut self, parts: &mut Parts<'_>, depth: usize) -> Result<()> {
        parts.blanks();
        if depth == MAX_DIMENSIONS || !parts.eat('{') {
            return bad("array", parts.text);
        }
        let is_known = self.lengths.len() > depth;
        if !is_known {
            if self.count > 0 {
                return bad("array", parts.text);
            }
            self.lengths.push(0);
        }
        let mut length = 0u32;
        parts.blanks();
        while !parts.eat('}') {
            if length > 0 && !parts.eat(self.delimiter) {
                return bad("array", parts.text);
            }
            parts.blanks();
            if parts.rest.starts_with('{') {
                self.level(parts, depth + 1)?;
            } else if self.lengths.len() == depth + 1 {
                self.item(parts)?;
            } else {
                return bad("array", parts.text);
            }
            length += 1;
            parts.blanks();
        }
        match std::mem::replace(&mut self.lengths[depth], length) {
            known if !is_known || known == length => Ok(()),
            _ => bad("array", parts.text),
        }
    }

    fn item(&mut self, parts: &mut Parts<'_>) -> Result<()> {
        self.count += 1;
        let (item, quoted) = parts.element(self.delimiter)?;
        match item.as_str() {
            null if !quoted && null.eq_ignore_ascii_case("null") => {
                put_tagged(self.elements, None);
                Ok(())
            }
            "" if !quoted => bad("array", parts.text),
            item => put(self.elements, item, self.element),
        }
    }
}

/// `[1,"a b")`
fn range(out: &mut Vec<u8>, parts: &mut Parts<'_>, bound: &ColumnType) -> Result<()> {
    use super::range_flags::{EMPTY, LOWER_INCLUSIVE, LOWER_INFINITE, UPPER_INCLUSIVE, UPPER_INFINITE};
    if let Some(rest) = parts.rest.strip_prefix("empty") {
        parts.rest = rest;
        put_tagged_bytes(out, Tag::Range, &[EMPTY]);
        return Ok(());
    }
    let included = parts.eat('[');
    if !included && !parts.eat('(') {
        return bad("range", parts.text);
    }
    let mut flags = if included { LOWER_INCLUSIVE } else { 0 };
    let mut payload = vec![0];
    let (lower, quoted) = parts.item(&[','], "range")?;
    if lower.is_empty() && !quoted {
        flags = LOWER_INFINITE;
    } else {
        put(&mut payload, &lower, bound)?;
    }
    parts.eat(',');
    let (upper, quoted) = parts.item(&[']', ')'], "range")?;
    let included = parts.eat(']');
    if !included {
        parts.eat(')');
    }
    if upper.is_empty() && !quoted {
        flags |= UPPER_INFINITE;
    } else {
        flags |= if included { UPPER_INCLUSIVE } else { 0 };
        put(&mut payload, &upper, bound)?;
    }
    payload[0] = flags;
    put_tagged_bytes(out, Tag::Range, &payload);
    Ok(())
}

/// `{[1,2),[3,4)}`
fn multirange(out: &mut Vec<u8>, text: &str, bound: &ColumnType) -> Result<()> {
    let mut parts = Parts { text, rest: text };
    let mut payload = Vec::new();
    if !parts.eat('{') {
        return bad("multirange", text);
    }
    parts.blanks();
    while !parts.eat('}') {
        if !payload.is_empty() && !parts.eat(',') {
            return bad("multirange", text);
        }
        parts.blanks();
        range(&mut payload, &mut parts, bound)?;
        parts.blanks();
    }
    parts.end("multirange")?;
    put_tagged_bytes(out, Tag::Multirange, &payload);
    Ok(())
}

/// `(1,"a b",)`
fn composite(out: &mut Vec<u8>, text: &str, attributes: &[Attribute]) -> Result<()> {
    let mut parts = Parts { text, rest: text };
    let mut payload = Vec::new();
    if !parts.eat('(') {
        return bad("composite", text);
    }
    for (i, attribute) in attributes.iter().enumerate() {
        if i > 0 && !parts.eat(',') {
            return bad("composite", text);
        }
        let (item, quoted) = parts.item(&[',', ')'], "composite")?;
        if quoted || !item.is_empty() {
            put_varint(&mut payload, u64::from(attribute.number));
            put(&mut payload, &item, &attribute.column_type)?;
        }
    }
    if !parts.eat(')') {
        return bad("composite", text);
    }
    parts.end("composite")?;
    put_tagged_bytes(out, Tag::Composite, &payload);
    Ok(())
}

#[cfg(test)]
mod tests;
