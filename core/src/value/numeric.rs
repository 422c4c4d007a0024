//! Numerics as Postgres holds them: base-10000 digits, weight, display scale.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// What kind of number a numeric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NumericKind {
    /// Zero or more
    Positive = 0,
    /// Less than zero
    Negative = 1,
    /// `NaN`
    NaN = 2,
    /// `Infinity`
    Infinity = 3,
    /// `-Infinity`
    NegativeInfinity = 4,
}

impl NumericKind {
    /// The kind with this code, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        use NumericKind::*;
        [Positive, Negative, NaN, Infinity, NegativeInfinity].into_iter().find(|kind| *kind as u8 == code)
    }

    /// Whether digits follow.
    pub fn is_finite(self) -> bool {
        matches!(self, NumericKind::Positive | NumericKind::Negative)
    }
}

/// A numeric, borrowed. The value is the sum of `digit(i) * 10000^(weight - i)`.
#[derive(Clone, Copy, PartialEq)]
pub struct Numeric<'a> {
    pub(crate) kind: NumericKind,
    pub(crate) scale: u16,
    pub(crate) weight: i16,
    /// Base-10000 digits, two bytes each, least significant byte first; none zero at either end.
    pub(crate) digits: &'a [u8],
}

/// A numeric that owns its digits.
#[derive(Clone, PartialEq)]
pub struct NumericBuf {
    kind: NumericKind,
    scale: u16,
    weight: i16,
    digits: Vec<u8>,
}

/// The largest display scale Postgres keeps.
pub const MAX_SCALE: u16 = 16383;
/// The most digits Postgres takes before the decimal point.
pub const MAX_INTEGER_DIGITS: usize = 131_072;

#[inline]
fn digit_at(digits: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([digits[2 * i], digits[2 * i + 1]])
}

impl<'a> Numeric<'a> {
    /// A numeric from its parts.
    ///
    /// # Errors
    /// `Malformed` unless the parts are in the one form each number has: digits below 10000, none zero at
    /// either end, zero with no digit, weight 0 and no sign, a scale that shows every digit.
    pub fn from_parts(kind: NumericKind, scale: u16, weight: i16, digits: &'a [u8]) -> Result<Self> {
        let numeric = Numeric { kind, scale, weight, digits };
        let count = digits.len() / 2;
        let sound = digits.len().is_multiple_of(2)
            && scale <= MAX_SCALE
            && (0..count).all(|i| digit_at(digits, i) < 10_000)
            && match (kind.is_finite(), count) {
                (false, _) => count == 0 && scale == 0 && weight == 0,
                (true, 0) => weight == 0 && kind == NumericKind::Positive,
                (true, _) => {
                    digit_at(digits, 0) != 0
                        && digit_at(digits, count - 1) != 0
                        && numeric.fraction_digits() <= usize::from(scale)
                }
            };
        if sound {
            Ok(numeric)
        } else {
            Err(Error::new(ErrorKind::Malformed, "a numeric not in its one form"))
        }
    }

    /// A number given by its digits alone, which are not zero at either end: shown with as many decimal
    /// digits as it has. `None` where the digits are not so, or more than [`MAX_SCALE`] would be shown.
    #[inline]
    pub fn from_digits(negative: bool, weight: i16, digits: &'a [u8]) -> Option<Self> {
        let kind = if negative { NumericKind::Negative } else { NumericKind::Positive };
        let whole = digits.len() >= 2 && digits.len().is_multiple_of(2);
        if !whole || digits.starts_with(&[0, 0]) || digits.ends_with(&[0, 0]) {
            return None;
        }
        let number = Numeric { kind, scale: 0, weight, digits };
        let scale = u16::try_from(number.fraction_digits()).ok().filter(|scale| *scale <= MAX_SCALE)?;
        Some(Numeric { scale, ..number })
    }

    /// The same number, shown with no more decimal digits than it has.
    #[inline]
    pub fn smallest_scale(&self) -> Self {
        // A scale is 16383 at most, so that the cast loses nothing.
        Numeric { scale: self.fraction_digits() as u16, ..*self }
    }

    /// What kind of number it is.
    pub fn kind(&self) -> NumericKind {
        self.kind
    }

    /// How many digits are shown after the decimal point.
    pub fn scale(&self) -> u16 {
        self.scale
    }

    /// The power of 10000 of the first digit.
    pub fn weight(&self) -> i16 {
        self.weight
    }

    /// The base-10000 digits.
    pub fn digits(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        let digits = self.digits;
        (0..digits.len() / 2).map(move |i| digit_at(digits, i))
    }

    /// How many decimal digits after the point are needed, trailing zeros not counted.
    #[inline]
    pub fn fraction_digits(&self) -> usize {
        let Some(last) = (self.digits.len() / 2).checked_sub(1) else { return 0 };
        let groups_after_point = last as i64 - i64::from(self.weight);
        let zeros = i64::from(trailing_zeros(digit_at(self.digits, last)));
        (groups_after_point * 4 - zeros).max(0) as usize
    }

    /// The power of ten of the last decimal digit that is not zero: 1200 has 2, 0.05 has -2, 0 has 0.
    pub fn lowest_power(&self) -> i64 {
        let Some(last) = (self.digits.len() / 2).checked_sub(1) else { return 0 };
        (i64::from(self.weight) - last as i64) * 4 + i64::from(trailing_zeros(digit_at(self.digits, last)))
    }

    /// How many decimal digits stand before the point: 0 for 0.5, 3 for 120, negative for 0.05 (-1).
    pub fn integer_digits(&self) -> i64 {
        if self.digits.is_empty() {
            return i64::MIN;
        }
        let first = digit_at(self.digits, 0);
        i64::from(self.weight) * 4 + i64::from(first.ilog10()) + 1
    }
}

#[inline]
fn trailing_zeros(digit: u16) -> u32 {
    match digit {
        d if d % 10 != 0 => 0,
        d if d % 100 != 0 => 1,
        d if d % 1000 != 0 => 2,
        _ => 3,
    }
}

impl fmt::Display for Numeric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            NumericKind::NaN => return f.write_str("NaN"),
            NumericKind::Infinity => return f.write_str("Infinity"),
            NumericKind::NegativeInfinity => return f.write_str("-Infinity"),
            NumericKind::Negative => f.write_str("-")?,
            NumericKind::Positive => {}
        }
        let count = self.digits.len() / 2;
        let group = |power: i64| {
            let i = i64::from(self.weight) - power;
            if (0..count as i64).contains(&i) { digit_at(self.digits, i as usize) } else { 0 }
        };
        let first = i64::from(self.weight).max(0);
        write!(f, "{}", group(first))?;
        for power in (0..first).rev() {
            write!(f, "{:04}", group(power))?;
        }
        let mut left = usize::from(self.scale);
        if left > 0 {
            f.write_str(".")?;
        }
        let mut power = -1;
        while left > 0 {
            let text = format!("{:04}", group(power));
            f.write_str(&text[..left.min(4)])?;
            left -= left.min(4);
            power -= 1;
        }
        Ok(())
    }
}

impl fmt::Debug for Numeric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for NumericBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.borrow())
    }
}

impl NumericBuf {
    /// The borrowed form.
    pub fn borrow(&self) -> Numeric<'_> {
        Numeric { kind: self.kind, scale: self.scale, weight: self.weight, digits: &self.digits }
    }

    /// A number as Postgres reads it: digits with an optional point and exponent, `NaN`, `Infinity`.
    ///
    /// # Errors
    /// `InvalidText` where the text is no number; `OutOfRange` where `numeric` cannot hold it exactly.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::new(ErrorKind::InvalidText, format!("\"{}\" is no number", abbreviate(text)));
        let out_of_range =
            || Error::new(ErrorKind::OutOfRange, format!("\"{}\" exceeds numeric", abbreviate(text)));
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let is = |name: &str| unsigned.eq_ignore_ascii_case(name);
        let special = |kind| Ok(NumericBuf { kind, scale: 0, weight: 0, digits: Vec::new() });
        if is("nan") {
            return special(NumericKind::NaN);
        }
        if is("infinity") || is("inf") {
            return special(if negative { NumericKind::NegativeInfinity } else { NumericKind::Infinity });
        }
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i32>().map_err(|_| bad())?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(bad());
        }
        let exponent = i64::from(exponent);
        let scale = (fraction.len() as i64 - exponent).max(0);
        // The decimal digits, first to last, and the power of ten just above the first.
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
        let Some(first) = digits.iter().position(|d| *d != 0) else {
            let scale = u16::try_from(scale).ok().filter(|s| *s <= MAX_SCALE).ok_or_else(out_of_range)?;
            return Ok(NumericBuf { kind: NumericKind::Positive, scale, weight: 0, digits: Vec::new() });
        };
        let last = digits.iter().rposition(|d| *d != 0).unwrap_or(first);
        let top = whole.len() as i64 + exponent - first as i64;
        if top > MAX_INTEGER_DIGITS as i64 || scale > i64::from(MAX_SCALE) || top < -i64::from(MAX_SCALE) {
            return Err(out_of_range());
        }
        let weight = (top - 1).div_euclid(4);
        let lead = ((weight + 1) * 4 - top) as usize;
        let padded: Vec<u8> =
            std::iter::repeat_n(0, lead).chain(digits[first..=last].iter().copied()).collect();
        let groups = padded.chunks(4).map(|chunk| {
            (0..4).fold(0u16, |group, i| group * 10 + u16::from(chunk.get(i).copied().unwrap_or(0)))
        });
        let kind = if negative { NumericKind::Negative } else { NumericKind::Positive };
        let weight = i16::try_from(weight).map_err(|_| out_of_range())?;
        let scale = u16::try_from(scale).map_err(|_| out_of_range())?;
        Ok(Self::from_groups(kind, scale, weight, groups))
    }

    /// A numeric from base-10000 digits that may have zeros at either end, as Postgres' binary forms do.
    pub fn from_groups(
        kind: NumericKind,
        scale: u16,
        weight: i16,
        groups: impl IntoIterator<Item = u16>,
    ) -> Self {
        let mut weight = weight;
        let mut digits = Vec::new();
        for group in groups {
            if group == 0 && digits.is_empty() {
                weight = weight.wrapping_sub(1);
                continue;
            }
            digits.extend_from_slice(&group.to_le_bytes());
        }
        while digits.ends_with(&[0, 0]) {
            digits.truncate(digits.len() - 2);
        }
        let (kind, weight) = match (kind.is_finite(), digits.is_empty()) {
            (true, true) => (NumericKind::Positive, 0),
            (false, _) => (kind, 0),
            _ => (kind, weight),
        };
        NumericBuf { kind, scale, weight, digits }
    }
}

fn abbreviate(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_print_as_they_were_written() {
        for text in [
            "0",
            "0.00",
            "1",
            "-1",
            "9999",
            "10000",
            "10001",
            "0.5",
            "0.0005",
            "-0.00005",
            "123456789.987654321",
            "1200",
            "1.50",
            "100000000",
            "NaN",
            "Infinity",
            "-Infinity",
            "99999.99990",
        ] {
            let number = NumericBuf::parse(text).expect(text);
            assert_eq!(number.borrow().to_string(), text);
            let n = number.borrow();
            Numeric::from_parts(n.kind, n.scale, n.weight, n.digits).expect(text);
        }
    }

    #[test]
    fn exponents_and_spellings() {
        for (text, plain) in
            [("1e3", "1000"), ("1.5e-3", "0.0015"), (".5", "0.5"), ("5.", "5"), ("+7", "7"), ("-0", "0")]
        {
            assert_eq!(NumericBuf::parse(text).expect(text).borrow().to_string(), plain);
        }
        assert_eq!(NumericBuf::parse("1e400").expect("1e400").borrow().to_string().len(), 401);
        for text in ["", ".", "e5", "1e", "1x", "--1", "0x1", " 1", "1e999999999999"] {
            assert_eq!(NumericBuf::parse(text).expect_err(text).kind(), ErrorKind::InvalidText, "{text}");
        }
        for text in ["1e131072", "1e-16384", "1e2000000000"] {
            assert_eq!(NumericBuf::parse(text).expect_err(text).kind(), ErrorKind::OutOfRange, "{text}");
        }
    }

    #[test]
    fn a_double_is_its_shortest_decimal() {
        assert_eq!(NumericBuf::from_float(12.34).borrow().to_string(), "12.34");
        assert_eq!(NumericBuf::from_float(-0.0).borrow().to_string(), "0");
        assert_eq!(NumericBuf::from_float(1e21).borrow().to_string(), "1000000000000000000000");
        assert_eq!(NumericBuf::from_float(f64::NAN).borrow().kind(), NumericKind::NaN);
    }

    proptest! {
        #[test]
        fn whole_numbers(number: i64) {
            let numeric = NumericBuf::from_int(number);
            prop_assert_eq!(numeric.borrow().to_string(), number.to_string());
            prop_assert_eq!(numeric, NumericBuf::parse(&number.to_string()).expect("a number"));
        }

        #[test]
        fn decimals(text in "-?[1-9][0-9]{0,12}(\\.[0-9]{1,12})?") {
            let numeric = NumericBuf::parse(&text).expect("a number");
            prop_assert_eq!(numeric.borrow().to_string(), text.clone());
            let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction).trim_end_matches('0');
            prop_assert_eq!(numeric.borrow().fraction_digits(), fraction.len());
            let whole = text.trim_start_matches('-').split('.').next().unwrap_or("");
            prop_assert_eq!(numeric.borrow().integer_digits(), whole.len() as i64);
        }
    }
}
