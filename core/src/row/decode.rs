//! Bytes to values. The bytes come from a client that may be hostile: every length is checked against
//! what is left before it is used, nesting is bounded, and there is one encoding for each value.

use super::{MAX_DEPTH, Tag};
use crate::error::{Error, ErrorKind, Result};
use crate::value::{Array, Composite, Multirange, Numeric, NumericKind, Range, Value};

fn malformed<T>(what: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Malformed, what))
}

/// Reads an unsigned number; what is left follows.
///
/// # Errors
/// `Malformed` where it is cut short, exceeds 64 bits, or takes more bytes than it needs.
#[inline]
pub fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8])> {
    // Most numbers take one byte.
    match bytes {
        [byte @ 0..=0x7f, rest @ ..] => Ok((u64::from(*byte), rest)),
        _ => take_long_varint(bytes),
    }
}

fn take_long_varint(bytes: &[u8]) -> Result<(u64, &[u8])> {
    let mut number = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && *byte > 1 {
            break;
        }
        number |= bits << (7 * i);
        if byte & 0x80 == 0 {
            if *byte == 0 && i > 0 {
                return malformed("a number takes more bytes than it needs");
            }
            return Ok((number, &bytes[i + 1..]));
        }
    }
    malformed(if bytes.len() < 10 { "the bytes end inside a number" } else { "a number exceeds 64 bits" })
}

fn take(bytes: &[u8], count: usize) -> Result<(&[u8], &[u8])> {
    match bytes.split_at_checked(count) {
        Some(split) => Ok(split),
        None => malformed("the bytes end inside a value"),
    }
}

fn take_array<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8])> {
    match bytes.split_first_chunk::<N>() {
        Some((chunk, rest)) => Ok((*chunk, rest)),
        None => malformed("the bytes end inside a value"),
    }
}

fn take_sized(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = take_varint(bytes)?;
    match usize::try_from(length) {
        Ok(length) if length <= rest.len() => take(rest, length),
        _ => malformed("a length exceeds what follows"),
    }
}

fn take_text(bytes: &[u8]) -> Result<(&str, &[u8])> {
    let (text, rest) = take_sized(bytes)?;
    match std::str::from_utf8(text) {
        Ok(text) => Ok((text, rest)),
        Err(_) => Err(Error::new(ErrorKind::InvalidText, "text that is not UTF-8")),
    }
}

fn take_numeric(bytes: &[u8]) -> Result<(Numeric<'_>, &[u8])> {
    let ([code], rest) = take_array(bytes)?;
    let Some(kind) = NumericKind::from_code(code) else { return malformed("an unknown kind of numeric") };
    if !kind.is_finite() {
        return Ok((Numeric::from_parts(kind, 0, 0, &[])?, rest));
    }
    let (scale, rest) = take_array(rest)?;
    let (weight, rest) = take_array(rest)?;
    let (count, rest) = take_varint(rest)?;
    let count = usize::try_from(count).ok().and_then(|count| count.checked_mul(2));
    let Some(count) = count.filter(|count| *count <= rest.len()) else {
        return malformed("a length exceeds what follows");
    };
    let (digits, rest) = take(rest, count)?;
    let numeric = Numeric::from_parts(kind, u16::from_le_bytes(scale), i16::from_le_bytes(weight), digits)?;
    Ok((numeric, rest))
}

/// Reads tag and payload; `None` is NULL.
pub(crate) fn take_tagged(bytes: &[u8]) -> Result<(Option<Value<'_>>, &[u8])> {
    take_nested(bytes, 0)
}

fn take_nested(bytes: &[u8], depth: usize) -> Result<(Option<Value<'_>>, &[u8])> {
    let ([tag], rest) = take_array(bytes)?;
    let Some(tag) = Tag::from_byte(tag) else { return malformed("an unknown tag") };
    let (value, rest) = match tag {
        Tag::Null => return Ok((None, rest)),
        Tag::Bool => match take_array(rest)? {
            ([0], rest) => (Value::Bool(false), rest),
            ([1], rest) => (Value::Bool(true), rest),
            _ => return malformed("a bool that is neither 0 nor 1"),
        },
        Tag::Int => take_array(rest).map(|(b, rest)| (Value::Int(i64::from_le_bytes(b)), rest))?,
        Tag::Float => take_array(rest).map(|(b, rest)| (Value::Float(f64::from_le_bytes(b)), rest))?,
        Tag::Uuid => take_array(rest).map(|(b, rest)| (Value::Uuid(b), rest))?,
        Tag::Date => take_array(rest).map(|(b, rest)| (Value::Date(i32::from_le_bytes(b)), rest))?,
        Tag::Time => take_array(rest).map(|(b, rest)| (Value::Time(i64::from_le_bytes(b)), rest))?,
        Tag::Timestamp => {
            take_array(rest).map(|(b, rest)| (Value::Timestamp(i64::from_le_bytes(b)), rest))?
        }
        Tag::Timestamptz => {
            take_array(rest).map(|(b, rest)| (Value::Timestamptz(i64::from_le_bytes(b)), rest))?
        }
        Tag::Timetz => {
            let (micros, rest) = take_array(rest)?;
            let (west, rest) = take_array(rest)?;
            (Value::Timetz(i64::from_le_bytes(micros), i32::from_le_bytes(west)), rest)
        }
        Tag::Interval => {
            let (months, rest) = take_array(rest)?;
            let (days, rest) = take_array(rest)?;
            let (micros, rest) = take_array(rest)?;
            let (months, days) = (i32::from_le_bytes(months), i32::from_le_bytes(days));
            (Value::Interval(months, days, i64::from_le_bytes(micros)), rest)
        }
        Tag::Numeric => take_numeric(rest).map(|(n, rest)| (Value::Numeric(n), rest))?,
        Tag::Text => take_text(rest).map(|(t, rest)| (Value::Text(t), rest))?,
        Tag::Bytea => take_sized(rest).map(|(b, rest)| (Value::Bytea(b), rest))?,
        Tag::Json => take_text(rest).map(|(t, rest)| (Value::Json(t), rest))?,
        Tag::Jsonb => take_text(rest).map(|(t, rest)| (Value::Jsonb(t), rest))?,
        Tag::Enum => take_text(rest).map(|(t, rest)| (Value::Enum(t), rest))?,
        Tag::Other => take_text(rest).map(|(t, rest)| (Value::Other(t), rest))?,
        Tag::Array | Tag::Range | Tag::Multirange | Tag::Composite => {
            if depth == MAX_DEPTH {
                return malformed("values nested too deep");
            }
            let (inner, rest) = take_sized(rest)?;
            (nested(tag, inner, depth + 1)?, rest)
        }
    };
    Ok((Some(value), rest))
}

fn nested(tag: Tag, inner: &[u8], depth: usize) -> Result<Value<'_>> {
    match tag {
        Tag::Array => check_array(inner, depth).map(|()| Value::Array(Array(inner))),
        Tag::Range => check_range(inner, depth).map(|()| Value::Range(Range(inner))),
        Tag::Multirange => {
            let mut rest = inner;
            while !rest.is_empty() {
                match take_nested(rest, depth)? {
                    (Some(Value::Range(range)), after) if !range.is_empty() => rest = after,
                    _ => return malformed("a multirange of something else than ranges"),
                }
            }
            Ok(Value::Multirange(Multirange(inner)))
        }
        _ => {
            let (mut rest, mut last) = (inner, 0);
            while !rest.is_empty() {
                let (number, after) = take_varint(rest)?;
                if number <= last || number > u64::from(u32::MAX) {
                    return malformed("attribute numbers that do not ascend");
                }
                last = number;
                match take_nested(after, depth)? {
                    (Some(_), after) => rest = after,
                    (None, _) => return malformed("a NULL that is written out"),
                }
            }
            Ok(Value::Composite(Composite(inner)))
        }
    }
}

fn check_array(inner: &[u8], depth: usize) -> Result<()> {
    let ([count], mut rest) = take_array(inner)?;
    if usize::from(count) > crate::value::MAX_DIMENSIONS {
        return malformed("an array of more than 6 dimensions");
    }
    let mut elements = u64::from(count > 0);
    for _ in 0..count {
        let (length, after) = take_array(rest)?;
        let (lower, after) = take_array(after)?;
        let length = u32::from_le_bytes(length);
        let end = i32::from_le_bytes(lower).checked_add_unsigned(length);
        elements = elements.saturating_mul(u64::from(length));
        if length == 0 || end.is_none() {
            return malformed("an array dimension without length or beyond its bounds");
        }
        rest = after;
    }
    // Each element takes a byte at least: a lie about the count costs nothing.
    if elements > rest.len() as u64 {
        return malformed("an array with fewer elements than it says");
    }
    for _ in 0..elements {
        rest = take_nested(rest, depth)?.1;
    }
    if rest.is_empty() { Ok(()) } else { malformed("an array with more elements than it says") }
}

fn check_range(inner: &[u8], depth: usize) -> Result<()> {
    use crate::value::range_flags::{
        ALL, EMPTY, LOWER_INCLUSIVE, LOWER_INFINITE, UPPER_INCLUSIVE, UPPER_INFINITE,
    };
    let ([flags], mut rest) = take_array(inner)?;
    let sound = flags & !ALL == 0
        && (flags & EMPTY == 0 || flags == EMPTY)
        && flags & (LOWER_INFINITE | LOWER_INCLUSIVE) != LOWER_INFINITE | LOWER_INCLUSIVE
        && flags & (UPPER_INFINITE | UPPER_INCLUSIVE) != UPPER_INFINITE | UPPER_INCLUSIVE;
    if !sound {
        return malformed("a range with impossible bounds");
    }
    let bounds = match flags & EMPTY {
        0 => usize::from(flags & LOWER_INFINITE == 0) + usize::from(flags & UPPER_INFINITE == 0),
        _ => 0,
    };
    for _ in 0..bounds {
        match take_nested(rest, depth)? {
            (Some(_), after) => rest = after,
            (None, _) => return malformed("a range bound that is NULL"),
        }
    }
    if rest.is_empty() { Ok(()) } else { malformed("a range with bytes after its bounds") }
}

/// One column of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// The column's number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
    /// The field as encoded: number, tag and payload.
    pub bytes: &'a [u8],
}

/// The fields of an encoded row. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
    last: u64,
}

impl<'a> Fields<'a> {
    /// The fields of a row given without its length.
    pub fn new(row: &'a [u8]) -> Self {
        Fields { rest: row, last: 0 }
    }

    fn step(&mut self) -> Result<Field<'a>> {
        let start = self.rest;
        let (number, rest) = take_varint(start)?;
        if number <= self.last {
            return malformed("column numbers that do not ascend");
        }
        let Ok(column) = u32::try_from(number) else { return malformed("a column number beyond 32 bits") };
        let (value, rest) = take_tagged(rest)?;
        let Some(value) = value else { return malformed("a NULL that is written out") };
        self.last = number;
        self.rest = rest;
        Ok(Field { number: column, value, bytes: &start[..start.len() - rest.len()] })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.step();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Checks that bytes are one row by the grammar.
///
/// # Errors
/// `Malformed` or `InvalidText` where they are not.
pub fn check_row(row: &[u8]) -> Result<()> {
    Fields::new(row).try_for_each(|field| field.map(drop))
}
