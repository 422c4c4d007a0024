//! Canonical JSON, so that two spellings of what `jsonb` calls equal get one digest.
//!
//! No blanks; object keys once each (the last wins) and ordered by length, then bytes, as `jsonb` does;
//! strings with the fewest escapes; numbers as `[-]digits[e power]` without zeros at either end. Works on
//! a list of open containers rather than by recursion, so depth costs memory and never the stack.

use std::fmt::Write;

use crate::error::{Error, ErrorKind, Result};

/// The deepest nesting taken; `jsonb` input itself gives up at a few thousand.
const MAX_JSON_DEPTH: usize = 10_000;
/// The most digits before the point, and after it, that `numeric` and so `jsonb` takes.
const MAX_POWER: i64 = 131_072;

/// A container that is still open, with the canonical text of what it holds so far.
enum Open {
    Array(Vec<u8>),
    Object { members: Vec<(Vec<u8>, Vec<u8>)>, key: Vec<u8> },
}

/// Appends the canonical form of a JSON text.
///
/// # Errors
/// `InvalidText` where the text is no JSON that `jsonb` takes.
pub fn canonical_json(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let mut scanner = Scanner { text, at: 0 };
    let mut open: Vec<Open> = Vec::new();
    loop {
        scanner.blanks();
        let mut value = match scanner.peek() {
            Some(b'[') => {
                scanner.at += 1;
                scanner.blanks();
                if scanner.eat(b']') {
                    b"[]".to_vec()
                } else {
                    open.push(Open::Array(Vec::new()));
                    scanner.depth(&open)?;
                    continue;
                }
            }
            Some(b'{') => {
                scanner.at += 1;
                scanner.blanks();
                if scanner.eat(b'}') {
                    b"{}".to_vec()
                } else {
                    let key = scanner.key()?;
                    open.push(Open::Object { members: Vec::new(), key });
                    scanner.depth(&open)?;
                    continue;
                }
            }
            _ => scanner.scalar()?,
        };
        // Hand the value to the container around it, and close containers while they end here.
        loop {
            scanner.blanks();
            match open.last_mut() {
                None => {
                    if scanner.at < text.len() {
                        return scanner.bad("text after the value");
                    }
                    out.extend_from_slice(&value);
                    return Ok(());
                }
                Some(Open::Array(items)) => {
                    items.push(if items.is_empty() { b'[' } else { b',' });
                    items.extend_from_slice(&value);
                    if scanner.eat(b',') {
                        break;
                    }
                    if !scanner.eat(b']') {
                        return scanner.bad("no ',' or ']'");
                    }
                }
                Some(Open::Object { members, key }) => {
                    members.push((std::mem::take(key), value));
                    if scanner.eat(b',') {
                        scanner.blanks();
                        *key = scanner.key()?;
                        break;
                    }
                    if !scanner.eat(b'}') {
                        return scanner.bad("no ',' or '}'");
                    }
                }
            }
            value = match open.pop() {
                Some(Open::Array(mut items)) => {
                    items.push(b']');
                    items
                }
                Some(Open::Object { members, .. }) => close_object(members),
                None => return scanner.bad("nothing to close"),
            };
        }
    }
}

fn close_object(mut members: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    // Stable, so that of equal keys the last one stays last and wins.
    members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    let mut out = vec![b'{'];
    for (i, (key, value)) in members.iter().enumerate() {
        if members.get(i + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        put_string(&mut out, key);
        out.push(b':');
        out.extend_from_slice(value);
    }
    out.push(b'}');
    out
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn bad<T>(&self, what: &str) -> Result<T> {
        Err(Error::new(ErrorKind::InvalidText, format!("no JSON: {what}")).at(self.at))
    }

    fn depth(&self, open: &[Open]) -> Result<()> {
        if open.len() > MAX_JSON_DEPTH { self.bad("nested too deep") } else { Ok(()) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn key(&mut self) -> Result<Vec<u8>> {
        if self.peek() != Some(b'"') {
            return self.bad("no key");
        }
        let key = self.string()?;
        self.blanks();
        if !self.eat(b':') {
            return self.bad("no ':' after a key");
        }
        Ok(key)
    }

    fn scalar(&mut self) -> Result<Vec<u8>> {
        match self.peek() {
            Some(b'"') => {
                let text = self.string()?;
                let mut out = Vec::with_capacity(text.len() + 2);
                put_string(&mut out, &text);
                Ok(out)
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                for word in ["true", "false", "null"] {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(word.as_bytes().to_vec());
                    }
                }
                self.bad("no value")
            }
        }
    }

    /// The bytes of a string without quotes and escapes.
    fn string(&mut self) -> Result<Vec<u8>> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let Some(byte) = self.peek() else { return self.bad("an unended string") };
            self.at += 1;
            match byte {
                b'"' => return Ok(out),
                b'\\' => self.escape(&mut out)?,
                0..0x20 => return self.bad("a control character in a string"),
                byte => out.push(byte),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let Some(byte) = self.peek() else { return self.bad("an unended string") };
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' => out.push(byte),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(10),
            b'r' => out.push(13),
            b't' => out.push(9),
            b'u' => {
                let mut unit = self.hex()?;
                if (0xd800..0xdc00).contains(&unit) {
                    if !(self.eat(b'\\') && self.eat(b'u')) {
                        return self.bad("an unpaired surrogate");
                    }
                    let low = self.hex()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return self.bad("an unpaired surrogate");
                    }
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                }
                match char::from_u32(unit) {
                    Some('\0') => return self.bad("jsonb holds no NUL character"),
                    Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => return self.bad("an unpaired surrogate"),
                }
            }
            _ => return self.bad("an unknown escape"),
        }
        Ok(())
    }

    fn hex(&mut self) -> Result<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let sound = digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if !sound {
            return self.bad("no four hexadecimal digits");
        }
        let unit = u32::from_str_radix(&self.text[self.at..self.at + 4], 16);
        self.at += 4;
        unit.or_else(|_| self.bad("no four hexadecimal digits"))
    }

    fn digits(&mut self) -> Result<&str> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.bad("no digit") } else { Ok(&self.text[start..self.at]) }
    }

    fn number(&mut self) -> Result<Vec<u8>> {
        let negative = self.eat(b'-');
        let whole = self.digits()?.to_owned();
        if whole.len() > 1 && whole.starts_with('0') {
            return self.bad("a number with a leading zero");
        }
        let fraction = if self.eat(b'.') { self.digits()?.to_owned() } else { String::new() };
        let mut exponent = 0i64;
        if self.eat(b'e') || self.eat(b'E') {
            let sign = if self.eat(b'-') {
                -1
            } else {
                self.eat(b'+');
                1
            };
            let Ok(power) = self.digits()?.parse::<i32>() else {
                return self.bad("an exponent out of range");
            };
            exponent = sign * i64::from(power);
        }
        if matches!(self.peek(), Some(b'0'..=b'9' | b'.' | b'a'..=b'z' | b'A'..=b'Z')) {
            return self.bad("a malformed number");
        }
        let digits = whole + &fraction;
        let lead = digits.bytes().take_while(|b| *b == b'0').count();
        let significant = digits[lead..].trim_end_matches('0');
        if significant.is_empty() {
            return Ok(b"0".to_vec());
        }
        let power = exponent - fraction.len() as i64 + (digits.len() - lead - significant.len()) as i64;
        if power + significant.len() as i64 > MAX_POWER || exponent - (fraction.len() as i64) < -16_383 {
            return self.bad("a number beyond what numeric holds");
        }
        let mut out = String::new();
        if negative {
            out.push('-');
        }
        out.push_str(significant);
        if power != 0 {
            // Writing to a string cannot fail.
            let _ = write!(out, "e{power}");
        }
        Ok(out.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> Result<String> {
        let mut out = Vec::new();
        canonical_json(text, &mut out)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn equal_documents_have_one_form() {
        for (text, form) in [
            (" { \"bb\" : 1.50 , \"a\" : [ 1 , 2 ] } ", r#"{"a":[1,2],"bb":15e-1}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"b":1,"aa":2,"a":3}"#, r#"{"a":3,"b":1,"aa":2}"#),
            ("100", "1e2"),
            ("1e2", "1e2"),
            ("100.00", "1e2"),
            ("-0.0", "0"),
            ("0.050", "5e-2"),
            ("1e400", "1e400"),
            (r#""\u00e9\/\n""#, "\"é/\\u000a\""),
            (r#""\ud83d\ude00""#, "\"😀\""),
            ("[]", "[]"),
            ("[{}, [], [[]]]", "[{},[],[[]]]"),
            ("null", "null"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(form), "{text}");
        }
    }

    #[test]
    fn what_jsonb_refuses_is_refused() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "tru",
            "nul",
            "\"",
            "\"\u{1}\"",
            r#""\u0000""#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\u0041""#,
            "1 2",
            "[1 2]",
            "NaN",
            "1e131073",
            "1e99999999999",
            "\"\\x\"",
            "{\"a\":1,}",
            "truex",
            "[1}",
            "1e-16384",
        ] {
            assert!(canonical(text).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(9_999) + &"]".repeat(9_999);
        assert_eq!(canonical(&deep).as_deref(), Ok(deep.as_str()));
        assert!(canonical(&"[".repeat(1_000_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_the_form_is_a_fixed_point(text in "[\\[\\]{}:,\"0-9eE.tfn\\\\u -]{0,24}|\\PC{0,12}") {
            if let Ok(form) = canonical(&text) {
                prop_assert_eq!(canonical(&form), Ok(form.clone()));
            }
        }
    }
}
