//! Arguments as SQL hands them over: what is missing, malformed or out of bounds gets a clear error.

use std::collections::BTreeMap;
use std::ffi::CStr;

use pgrx::datum::AnyElement;
use pgrx::{direct_function_call, pg_sys};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::datum::written_digits;
use crate::error::{Answer, Problem, state};

/// Bytes of JSON that a call may carry besides rows.
const JSON_LIMIT: usize = 64 << 20;

/// Values that such JSON may have: each takes many times its length once it is read.
const JSON_VALUES: usize = 1_000_000;

/// Objects in an array of rows.
const MOST_OBJECTS: usize = plimsoll_core::row::MAX_BATCH_ROWS as usize;

/// The argument, which must not be NULL.
pub fn required<T>(argument: Option<T>, name: &str) -> Answer<T> {
    argument.ok_or_else(|| Problem::new(state::MISSING_ARGUMENT, format!("argument {name} must not be NULL")))
}

/// A name that people and agents gave: 1 to `limit` characters, none of them a control character.
pub fn name<'a>(text: &'a str, what: &str, limit: usize) -> Answer<&'a str> {
    let wrong = |message| Err(Problem::new(state::BAD_ARGUMENT, format!("{what} {message}")));
    if text.trim().is_empty() {
        return wrong("must not be empty".to_owned());
    }
    if text.chars().count() > limit {
        return wrong(format!("is longer than {limit} characters"));
    }
    if text.chars().any(char::is_control) {
        return wrong("must not contain control characters".to_owned());
    }
    Ok(text)
}

/// A number that must not be negative.
pub fn count(number: Option<i64>, name: &str) -> Answer<i64> {
    let number = required(number, name)?;
    if number < 0 {
        return Err(Problem::new(
            state::BAD_ARGUMENT,
            format!("{name} is {number}; it must not be negative"),
        ));
    }
    Ok(number)
}

fn too_large(name: &str, bytes: usize, limit: usize) -> Problem {
    Problem::new(state::TOO_LARGE, format!("{name} has {bytes} bytes; at most {limit} are taken"))
        .hint("Send it in smaller parts.")
}

/// The text of a `jsonb` argument, of at most `limit` bytes.
fn json_text<'a>(argument: AnyElement, name: &str, limit: usize) -> Answer<&'a [u8]> {
    let datum = argument.datum();
    // SAFETY: the install script declares the argument as jsonb; only the header of the value is read.
    let stored = unsafe { pg_sys::toast_raw_datum_size(datum) };
    if stored > limit {
        return Err(too_large(name, stored, limit));
    }
    // SAFETY: as above.
    let digits = unsafe { written_digits(datum) };
    if digits > limit {
        return Err(too_large(name, digits, limit).detail("Its numbers are written without exponents."));
    }
    // SAFETY: as above, and the function calls nothing but `jsonb_out`, which reads one. The text lives as long as
    // the call.
    let text: Option<&CStr> = unsafe { direct_function_call(pg_sys::jsonb_out, &[Some(datum)]) };
    let text = text.unwrap_or_default().to_bytes();
    if text.len() > limit { Err(too_large(name, text.len(), limit)) } else { Ok(text) }
}

fn unreadable(name: &str, error: &serde_json::Error) -> Problem {
    Problem::new(state::BAD_ARGUMENT, format!("{name} cannot be read: {error}"))
}

/// The value of a `jsonb` argument. pgrx's `JsonB` would panic on numbers that Rust cannot hold.
pub fn json(argument: AnyElement, name: &str) -> Answer<Value> {
    let text = json_text(argument, name, JSON_LIMIT)?;
    let values = text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if values > JSON_VALUES {
        let message = format!("{name} has about {values} values; at most {JSON_VALUES} are taken");
        return Err(Problem::new(state::TOO_LARGE, message).hint("Send it in smaller parts."));
    }
    serde_json::from_slice(text).map_err(|error| unreadable(name, &error))
}

/// The members of a JSON object as they are written: a number keeps every digit.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// The objects of a `jsonb` argument that is an array of them and at most `limit` bytes long, their members as they
/// are written. They are read one by one: read, they take many times their length.
pub fn objects(
    argument: AnyElement,
    name: &str,
    limit: usize,
) -> Answer<impl ExactSizeIterator<Item = Answer<Members>> + use<>> {
    let text = json_text(argument, name, limit)?;
    if !text.starts_with(b"[") {
        return Err(Problem::new(state::BAD_ARGUMENT, format!("{name} is no array")));
    }
    let items: Vec<&RawValue> = serde_json::from_slice(text).map_err(|error| unreadable(name, &error))?;
    if items.len() > MOST_OBJECTS {
        let message = format!("{name} has {} rows; at most {MOST_OBJECTS} are taken", items.len());
        return Err(Problem::new(state::TOO_LARGE, message).hint("Send it in smaller parts."));
    }
    let object = |(ordinal, item): (usize, &RawValue)| {
        pgrx::check_for_interrupts!();
        members(item).ok_or_else(|| Problem::new(state::BAD_ARGUMENT, format!("row {ordinal} is no object")))
    };
    Ok(items.into_iter().enumerate().map(object))
}

/// The members of a `jsonb` argument that is an object of at most `limit` bytes, as they are written.
pub fn object(argument: AnyElement, name: &str, limit: usize) -> Answer<Members> {
    let text = json_text(argument, name, limit)?;
    if !text.starts_with(b"{") {
        return Err(Problem::new(state::BAD_ARGUMENT, format!("{name} is no object")));
    }
    serde_json::from_slice(text).map_err(|error| unreadable(name, &error))
}

/// The members of a value that is an object.
pub fn members(value: &RawValue) -> Option<Members> {
    serde_json::from_str(value.get()).ok()
}

/// The entries of a JSON array, at most `limit`.
pub fn entries<'a>(value: &'a Value, name: &str, limit: usize) -> Answer<&'a [Value]> {
    let entries = value.as_array().ok_or_else(|| {
        Problem::new(state::BAD_ARGUMENT, format!("{name} must be a JSON array of objects"))
    })?;
    if entries.len() > limit {
        let message = format!("{name} has {} entries; at most {limit} are taken", entries.len());
        return Err(Problem::new(state::TOO_LARGE, message).hint("Send them in several calls."));
    }
    Ok(entries)
}

/// One object of a JSON array, for reading its members with errors that say where they are.
pub struct Entry<'a> {
    name: &'a str,
    ordinal: usize,
    value: &'a Value,
}

impl<'a> Entry<'a> {
    /// The entry with this ordinal (from 0) of the argument `name`.
    pub fn new(name: &'a str, ordinal: usize, value: &'a Value) -> Self {
        Entry { name, ordinal, value }
    }

    /// What is wrong with a member.
    pub fn wrong(&self, member: &str, message: &str) -> Problem {
        let Entry { name, ordinal, .. } = self;
        Problem::new(state::BAD_ARGUMENT, format!("{name}[{ordinal}].{member} {message}"))
    }

    /// A member; absent and null are the same.
    pub fn member(&self, member: &str) -> Option<&'a Value> {
        self.value.get(member).filter(|value| !value.is_null())
    }

    /// A text that must be there.
    pub fn text(&self, member: &str) -> Answer<&'a str> {
        self.text_or_null(member)?.ok_or_else(|| self.wrong(member, "is missing"))
    }

    /// A text, or null.
    pub fn text_or_null(&self, member: &str) -> Answer<Option<&'a str>> {
        let Some(value) = self.member(member) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(member, "must be a text"))
    }

    /// A whole number of 64 bits, or null.
    pub fn integer_or_null(&self, member: &str) -> Answer<Option<i64>> {
        let Some(value) = self.member(member) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| self.wrong(member, "must be a whole number of 64 bits"))
    }

    /// A number that is not negative; 0 where it is missing.
    pub fn count(&self, member: &str) -> Answer<i64> {
        let number = self.integer_or_null(member)?.unwrap_or(0);
        if number < 0 { Err(self.wrong(member, "must not be negative")) } else { Ok(number) }
    }

    /// Yes or no; no where it is missing.
    pub fn flag(&self, member: &str) -> Answer<bool> {
        let Some(value) = self.member(member) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(member, "must be true or false"))
    }

    /// Bytes written as hexadecimal digits, within bounds on their number.
    pub fn bytes(&self, member: &str, lengths: std::ops::RangeInclusive<usize>) -> Answer<Vec<u8>> {
        let bytes = from_hex(self.text(member)?)
            .ok_or_else(|| self.wrong(member, "must be pairs of hexadecimal digits"))?;
        if !lengths.contains(&bytes.len()) {
            let (least, most) = (lengths.start(), lengths.end());
            let bounds = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return Err(self.wrong(member, &format!("has {} bytes; {bounds} are taken", bytes.len())));
        }
        Ok(bytes)
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
}
