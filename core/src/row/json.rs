//! Canonical JSON, so that two spellings of what `jsonb` calls equal get one digest.
//!
//! No blanks; object keys once each (the last wins) and ordered by length, then bytes, as `jsonb` does;
//! strings with the fewest escapes; numbers as `[-]digits[e power]` without zeros at either end. Works on
//! a list of open containers rather than by recursion, so depth costs memory and never the stack.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// The deepest nesting taken; `jsonb` input itself gives up at a few thousand.
const MAX_JSON_DEPTH: usize = 10_000;
/// The most digits before the point, and after it, that `numeric` and so `jsonb` takes.
const MAX_POWER: i64 = 131_072;
const MAX_SCALE: i64 = 16_383;

/// By how much `jsonb` may write a text longer than it is: it writes numbers without exponents, and `1e131071`
/// has 131,072 digits. So many times its length, and so many bytes that are free.
const MOST_GROWTH: usize = 16;
const FREE_GROWTH: usize = 1 << 20;

/// An object's member: its key in `Scanner::keys`, and all of it in `Scanner::out`.
struct Member {
    key: Range<usize>,
    text: Range<usize>,
}

/// A container that is still open.
enum Open {
    Array,
    Object { start: usize, keys: usize, members: Vec<Member> },
}

/// An object whose members stand in another order than theirs, or twice: the places to copy instead.
struct Reordered {
    text: Range<usize>,
    members: Vec<Range<usize>>,
}

/// Appends the canonical form of a JSON text, in time and memory proportional to its length.
///
/// # Errors
/// `InvalidText` where the text is no JSON that `jsonb` takes; `TooLarge` where `jsonb` would write it many times
/// as long.
pub fn canonical_json(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let mut scanner = Scanner::new(text, false);
    scanner.document()?;
    let Scanner { out: flat, mut reordered, .. } = scanner;
    if reordered.is_empty() {
        out.extend_from_slice(&flat);
        return Ok(());
    }
    reordered.sort_by_key(|object| object.text.start);
    let mut pieces = vec![Piece::Text(0..flat.len())];
    while let Some(piece) = pieces.pop() {
        let text = match piece {
            Piece::Comma => {
                out.push(b',');
                continue;
            }
            Piece::Text(text) => text,
        };
        let next = reordered.partition_point(|object| object.text.start < text.start);
        match reordered.get(next).filter(|object| object.text.start < text.end) {
            None => out.extend_from_slice(&flat[text]),
            Some(object) => {
                out.extend_from_slice(&flat[text.start..=object.text.start]);
                pieces.push(Piece::Text(object.text.end - 1..text.end));
                for (i, member) in object.members.iter().enumerate().rev() {
                    pieces.push(Piece::Text(member.clone()));
                    if i > 0 {
                        pieces.push(Piece::Comma);
                    }
                }
            }
        }
    }
    Ok(())
}

enum Piece {
    Text(Range<usize>),
    Comma,
}

/// Checks that a text is JSON as the type `json` takes it: escapes that stand for no character and numbers
/// beyond `numeric` are its own.
///
/// # Errors
/// `InvalidText` where it is not.
pub fn check_json(text: &str) -> Result<()> {
    Scanner::new(text, true).document()
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
    /// Whether everything is taken that the type `json` takes.
    lax: bool,
    /// Digits of numbers, as `jsonb` writes them.
    digits: usize,
    /// The text so far, canonical but for the order of members.
    out: Vec<u8>,
    open: Vec<Open>,
    /// The keys of the open objects, without escapes.
    keys: Vec<u8>,
    reordered: Vec<Reordered>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, lax: bool) -> Self {
        let out = Vec::with_capacity(text.len());
        Scanner {
            text,
            at: 0,
            lax,
            digits: 0,
            out,
            open: Vec::new(),
            keys: Vec::new(),
            reordered: Vec::new(),
        }
    }

    fn document(&mut self) -> Result<()> {
        loop {
            self.blanks();
            match self.peek() {
                Some(b'[') => {
                    self.token(b'[');
                    self.blanks();
                    if self.peek() != Some(b']') {
                        self.enter(Open::Array)?;
                        continue;
                    }
                    self.token(b']');
                }
                Some(b'{') => {
                    let (start, keys) = (self.out.len(), self.keys.len());
                    self.token(b'{');
                    self.blanks();
                    if self.peek() != Some(b'}') {
                        self.enter(Open::Object { start, keys, members: Vec::new() })?;
                        self.key()?;
                        continue;
                    }
                    self.token(b'}');
                }
                _ => self.scalar()?,
            }
            if self.after_value()? {
                return Ok(());
            }
        }
    }

    /// Closes the containers that end behind a value; whether that was the whole document.
    fn after_value(&mut self) -> Result<bool> {
        loop {
            self.blanks();
            let end = self.out.len();
            match self.open.last_mut() {
                None if self.at < self.text.len() => return self.bad("text after the value"),
                None => return Ok(true),
                Some(Open::Array) => match self.peek() {
                    Some(b',') => {
                        self.token(b',');
                        return Ok(false);
                    }
                    Some(b']') => {
                        self.token(b']');
                        self.open.pop();
                    }
                    _ => return self.bad("no ',' or ']'"),
                },
                Some(Open::Object { members, .. }) => {
                    if let Some(member) = members.last_mut() {
                        member.text.end = end;
                    }
                    match self.peek() {
                        Some(b',') => {
                            self.token(b',');
                            self.blanks();
                            self.key()?;
                            return Ok(false);
                        }
                        Some(b'}') => {
                            self.token(b'}');
                            self.close_object();
                        }
                        _ => return self.bad("no ',' or '}'"),
                    }
                }
            }
        }
    }

    /// Notes the order of the members, where it is not the one they stand in.
    fn close_object(&mut self) {
        let Some(Open::Object { start, keys, members }) = self.open.pop() else { return };
        let key = |member: &Member| &self.keys[member.key.clone()];
        let before = |a: &[u8], b: &[u8]| a.len().cmp(&b.len()).then_with(|| a.cmp(b));
        if members.windows(2).any(|pair| before(key(&pair[0]), key(&pair[1])).is_ge()) {
            let mut order: Vec<usize> = (0..members.len()).collect();
            // Stable, so that of equal keys the last one stays last and wins.
            order.sort_by(|a, b| before(key(&members[*a]), key(&members[*b])));
            let last_of_its_key = |i: &usize| {
                order.get(i + 1).is_none_or(|next| key(&members[*next]) != key(&members[order[*i]]))
            };
            let kept = (0..order.len()).filter(last_of_its_key);
            let kept = kept.map(|i| members[order[i]].text.clone()).collect();
            self.reordered.push(Reordered { text: start..self.out.len(), members: kept });
        }
        self.keys.truncate(keys);
    }

    fn token(&mut self, byte: u8) {
        self.at += 1;
        self.out.push(byte);
    }

    fn enter(&mut self, container: Open) -> Result<()> {
        self.open.push(container);
        if self.open.len() > MAX_JSON_DEPTH { self.bad("nested too deep") } else { Ok(()) }
    }

    fn bad<T>(&self, what: &str) -> Result<T> {
        Err(Error::new(ErrorKind::InvalidText, format!("no JSON: {what}")).at(self.at))
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

    fn key(&mut self) -> Result<()> {
        if self.peek() != Some(b'"') {
            return self.bad("no key");
        }
        let (start, from) = (self.out.len(), self.keys.len());
        self.string()?;
        put_string(&mut self.out, &self.keys[from..]);
        self.blanks();
        if self.peek() != Some(b':') {
            return self.bad("no ':' after a key");
        }
        self.token(b':');
        let key = from..self.keys.len();
        if let Some(Open::Object { members, .. }) = self.open.last_mut() {
            members.push(Member { key, text: start..start });
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'"') => {
                let from = self.keys.len();
                self.string()?;
                put_string(&mut self.out, &self.keys[from..]);
                self.keys.truncate(from);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                for word in ["true", "false", "null"] {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        self.out.extend_from_slice(word.as_bytes());
                        return Ok(());
                    }
                }
                self.bad("no value")
            }
        }
    }

    /// Appends the bytes of a string, without quotes and escapes, to `keys`.
    fn string(&mut self) -> Result<()> {
        self.at += 1;
        loop {
            let Some(byte) = self.peek() else { return self.bad("an unended string") };
            self.at += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                0..0x20 => return self.bad("a control character in a string"),
                byte => self.keys.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<()> {
        let Some(byte) = self.peek() else { return self.bad("an unended string") };
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' => self.keys.push(byte),
            b'b' => self.keys.push(8),
            b'f' => self.keys.push(12),
            b'n' => self.keys.push(10),
            b'r' => self.keys.push(13),
            b't' => self.keys.push(9),
            b'u' => {
                let mut unit = self.hex()?;
                if self.lax {
                    return Ok(());
                }
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
                    Some(character) => {
                        self.keys.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    }
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

    fn number(&mut self) -> Result<()> {
        let negative = self.eat(b'-');
        let whole = self.digits()?.to_owned();
        if whole.len() > 1 && whole.starts_with('0') {
            return self.bad("a number with a leading zero");
        }
        let fraction = if self.eat(b'.') { self.digits()?.to_owned() } else { String::new() };
        let mut exponent = Some(0i64);
        if self.eat(b'e') || self.eat(b'E') {
            let sign = if self.eat(b'-') {
                -1
            } else {
                self.eat(b'+');
                1
            };
            exponent = self.digits()?.parse::<i32>().ok().map(|power| sign * i64::from(power));
        }
        if matches!(self.peek(), Some(b'0'..=b'9' | b'.' | b'a'..=b'z' | b'A'..=b'Z')) {
            return self.bad("a malformed number");
        }
        if self.lax {
            return Ok(());
        }
        let Some(exponent) = exponent else { return self.bad("an exponent out of range") };
        let scale = fraction.len() as i64 - exponent;
        let digits = whole + &fraction;
        let lead = digits.bytes().take_while(|b| *b == b'0').count();
        let significant = digits[lead..].trim_end_matches('0');
        let power = (digits.len() - lead - significant.len()) as i64 - scale;
        let before_point = if significant.is_empty() { 0 } else { power + significant.len() as i64 };
        if before_point > MAX_POWER || scale > MAX_SCALE {
            return self.bad("a number beyond what numeric holds");
        }
        // Both are small, as was just made sure of.
        self.digits += (before_point.max(1) + scale.max(0)) as usize;
        if self.digits > FREE_GROWTH + MOST_GROWTH * self.text.len() {
            let message = "JSON whose numbers, written without exponents, are many times as long";
            return Err(Error::new(ErrorKind::TooLarge, message).at(self.at));
        }
        if significant.is_empty() {
            self.out.push(b'0');
            return Ok(());
        }
        if negative {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(significant.as_bytes());
        if power != 0 {
            self.out.extend_from_slice(format!("e{power}").as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
