//! Arguments as SQL hands them over: what is missing, malformed or out of bounds gets a clear error.

use std::collections::BTreeMap;
use std::ffi::CStr;

use pgrx::datum::AnyElement;
use pgrx::{direct_function_call, pg_sys};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Answer, Problem, state};

/// Bytes of JSON that a call may carry.
const JSON_LIMIT: usize = 64 << 20;

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

/// The text of a `jsonb` argument.
fn json_text<'a>(argument: AnyElement, name: &str) -> Answer<&'a [u8]> {
    // SAFETY: the install script declares the argument as jsonb, and the function calls nothing but
    // `jsonb_out`, which reads one. The text lives as long as the call.
    let text: Option<&CStr> = unsafe { direct_function_call(pg_sys::jsonb_out, &[Some(argument.datum())]) };
    let text = text.unwrap_or_default().to_bytes();
    if text.len() > JSON_LIMIT {
        let message = format!("{name} has {} bytes; at most {JSON_LIMIT} are taken", text.len());
        return Err(Problem::new(state::TOO_LARGE, message).hint("Send it in smaller parts."));
    }
    Ok(text)
}

fn unreadable(name: &str, error: &serde_json::Error) -> Problem {
    Problem::new(state::BAD_ARGUMENT, format!("{name} cannot be read: {error}"))
}

/// The value of a `jsonb` argument. pgrx's `JsonB` would panic on numbers that Rust cannot hold.
pub fn json(argument: AnyElement, name: &str) -> Answer<Value> {
    serde_json::from_slice(json_text(argument, name)?).map_err(|error| unreadable(name, &error))
}

/// The members of a JSON object as they are written: a number keeps every digit.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// The objects of a `jsonb` argument that is an array of them, their members as they are written.
pub fn objects(argument: AnyElement, name: &str) -> Answer<Vec<Members>> {
    let text = json_text(argument, name)?;
    if !text.starts_with(b"[") {
        return Err(Problem::new(state::BAD_ARGUMENT, format!("{name} is no array")));
    }
    let items: Vec<&RawValue> = serde_json::from_slice(text).map_err(|error| unreadable(name, &error))?;
    let object = |(ordinal, item): (usize, &RawValue)| {
        members(item).ok_or_else(|| Problem::new(state::BAD_ARGUMENT, format!("row {ordinal} is no object")))
    };
    items.into_iter().enumerate().map(object).collect()
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
