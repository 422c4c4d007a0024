//! Whole numbers and doubles as numerics.

use super::{NumericBuf, NumericKind};

/// Below this, a decimal number has at most 15 digits: no two of them are the same double.
const FIFTEEN_DIGITS: f64 = 1e15;

impl NumericBuf {
    /// A whole number.
    pub fn from_int(number: i64) -> Self {
        let mut groups = [0u16; 5];
        let mut left = number.unsigned_abs();
        for group in groups.iter_mut().rev() {
            *group = (left % 10_000) as u16;
            left /= 10_000;
        }
        let kind = if number < 0 { NumericKind::Negative } else { NumericKind::Positive };
        Self::from_groups(kind, 0, 4, groups)
    }

    /// A double, as the shortest decimal number that reads back as the same double.
    pub fn from_float(number: f64) -> Self {
        let special = |kind| Self::from_groups(kind, 0, 0, []);
        match number {
            n if n.is_nan() => special(NumericKind::NaN),
            f64::INFINITY => special(NumericKind::Infinity),
            f64::NEG_INFINITY => special(NumericKind::NegativeInfinity),
            // A finite double in plain notation has at most 309 + 1,074 digits: always within range.
            n => of_few_digits(n)
                .unwrap_or_else(|| Self::parse(&n.to_string()).unwrap_or_else(|_| special(NumericKind::NaN))),
        }
    }
}

/// A double that a decimal number of at most 15 digits reads as, at most four of them behind the point. The shortest
/// such number has no more digits, so it is the same one.
fn of_few_digits(number: f64) -> Option<NumericBuf> {
    for (scale, factor) in [1.0, 1e1, 1e2, 1e3, 1e4].into_iter().enumerate() {
        let digits = (number.abs() * factor).round();
        if digits >= FIFTEEN_DIGITS {
            return None;
        }
        // Both are exact, so their quotient is the double next to the decimal number.
        if digits / factor == number.abs() {
            let (digits, factor) = (digits as u64, factor as u64);
            let (mut whole, fraction) = (digits / factor, digits % factor * (10_000 / factor));
            let mut groups = [0, 0, 0, 0, fraction as u16];
            for group in groups[..4].iter_mut().rev() {
                *group = (whole % 10_000) as u16;
                whole /= 10_000;
            }
            let kind = if number < 0.0 { NumericKind::Negative } else { NumericKind::Positive };
            return Some(NumericBuf::from_groups(kind, scale as u16, 3, groups));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a double is worth, by its shortest text.
    fn by_text(number: f64) -> NumericBuf {
        NumericBuf::parse(&number.to_string()).expect("a number")
    }

    #[test]
    fn doubles_at_the_edges_are_what_their_text_says() {
        let edges = [
            0.0,
            -0.0,
            0.1,
            0.3,
            0.1 + 0.2,
            1e15,
            999_999_999_999_999.0,
            99_999_999_999_999.98,
            0.0001,
            0.00001,
            f64::MAX,
            f64::MIN_POSITIVE,
            -1.5,
            12_345.678_9,
        ];
        for number in edges {
            assert_eq!(NumericBuf::from_float(number), by_text(number), "{number}");
        }
    }

    proptest! {
        #[test]
        fn doubles_are_what_their_text_says(bits: u64, digits in -2_000_000_000_000_000i64..2_000_000_000_000_000, power in 0i32..6) {
            for number in [f64::from_bits(bits), digits as f64 / 10f64.powi(power), digits as f64 * 1e-7] {
                if number.is_finite() {
                    prop_assert_eq!(NumericBuf::from_float(number), by_text(number), "{}", number);
                }
            }
        }
    }
}
