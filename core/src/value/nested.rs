//! Arrays, ranges, multiranges and composites: payloads of the row encoding, read element by element.
//!
//! Each wraps the bytes of its payload. Bytes from a client are only wrapped after `row::decode` has
//! checked them, so reading here stops silently at bytes that break the grammar instead of failing.

use super::Value;
use crate::error::Result;
use crate::row::{put_normal, put_tagged, put_varint, take_tagged, take_varint};

/// The most dimensions an array has.
pub const MAX_DIMENSIONS: usize = 6;

/// An array: dimensions, then elements in row-major order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a>(pub(crate) &'a [u8]);

/// A range of an element type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range<'a>(pub(crate) &'a [u8]);

/// A list of ranges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multirange<'a>(pub(crate) &'a [u8]);

/// A composite value: the attributes that are not NULL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Composite<'a>(pub(crate) &'a [u8]);

/// Bits of a range's first byte.
pub(crate) mod range_flags {
    /// The range holds nothing; no bound follows.
    pub const EMPTY: u8 = 1;
    /// The lower bound is open.
    pub const LOWER_INFINITE: u8 = 2;
    /// The upper bound is open.
    pub const UPPER_INFINITE: u8 = 4;
    /// The lower bound belongs to the range.
    pub const LOWER_INCLUSIVE: u8 = 8;
    /// The upper bound belongs to the range.
    pub const UPPER_INCLUSIVE: u8 = 16;
    /// All bits that mean something.
    pub const ALL: u8 = 31;
}

impl<'a> Array<'a> {
    fn parts(&self) -> (usize, &'a [u8], &'a [u8]) {
        let Some((&count, rest)) = self.0.split_first() else { return (0, &[], &[]) };
        let count = usize::from(count);
        let split = (count * 8).min(rest.len());
        (count, &rest[..split], &rest[split..])
    }

    /// Length and lower bound of each dimension; none for an empty array.
    pub fn dimensions(&self) -> impl ExactSizeIterator<Item = (u32, i32)> + use<'a> {
        let (_, dimensions, _) = self.parts();
        dimensions.as_chunks::<8>().0.iter().map(|d| {
            let [a, b, c, d, e, f, g, h] = *d;
            (u32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h]))
        })
    }

    /// The elements, NULL as `None`.
    pub fn elements(&self) -> impl Iterator<Item = Option<Value<'a>>> + use<'a> {
        let mut bytes = self.parts().2;
        std::iter::from_fn(move || {
            let (value, rest) = take_tagged(bytes).ok()?;
            bytes = rest;
            Some(value)
        })
    }
}

/// Builds an array's payload.
#[derive(Debug)]
pub struct ArrayBuilder(Vec<u8>);

impl ArrayBuilder {
    /// An array of these dimensions (length, lower bound); the product of the lengths is the number of
    /// elements to push. At most [`MAX_DIMENSIONS`].
    pub fn new(dimensions: &[(u32, i32)]) -> Self {
        let mut bytes = vec![dimensions.len() as u8];
        for (length, lower) in dimensions {
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&lower.to_le_bytes());
        }
        ArrayBuilder(bytes)
    }

    /// The next element.
    pub fn push(&mut self, element: Option<&Value<'_>>) {
        put_tagged(&mut self.0, element);
    }

    /// The next element, in digest form: an array of such elements alone is in digest form itself.
    ///
    /// # Errors
    /// As [`RowWriter::digest_field`](crate::row::RowWriter::digest_field).
    pub fn push_digest_form(&mut self, element: Option<&Value<'_>>) -> Result<()> {
        match element {
            Some(value) => put_normal(&mut self.0, value),
            None => {
                put_tagged(&mut self.0, None);
                Ok(())
            }
        }
    }

    /// The payload, as far as it is built.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The array.
    pub fn array(&self) -> Array<'_> {
        Array(&self.0)
    }
}

impl<'a> Range<'a> {
    fn flags(&self) -> u8 {
        self.0.first().copied().unwrap_or(range_flags::EMPTY)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.flags() & range_flags::EMPTY != 0
    }

    /// Whether the lower and the upper bound belong to it.
    pub fn inclusive(&self) -> (bool, bool) {
        let flags = self.flags();
        (flags & range_flags::LOWER_INCLUSIVE != 0, flags & range_flags::UPPER_INCLUSIVE != 0)
    }

    /// The bounds, `None` where open.
    pub fn bounds(&self) -> (Option<Value<'a>>, Option<Value<'a>>) {
        let flags = self.flags();
        let mut bytes = self.0.get(1..).unwrap_or(&[]);
        let mut bound = |infinite: u8| {
            if flags & (range_flags::EMPTY | infinite) != 0 {
                return None;
            }
            let (value, rest) = take_tagged(bytes).ok()?;
            bytes = rest;
            value
        };
        (bound(range_flags::LOWER_INFINITE), bound(range_flags::UPPER_INFINITE))
    }
}

/// Builds a range's payload.
#[derive(Debug)]
pub struct RangeBuilder(Vec<u8>);

impl RangeBuilder {
    /// The empty range.
    pub fn empty() -> Self {
        RangeBuilder(vec![range_flags::EMPTY])
    }

    /// A range between two bounds, `None` for open; each with whether it belongs to the range.
    pub fn new(lower: Option<(&Value<'_>, bool)>, upper: Option<(&Value<'_>, bool)>) -> Self {
        let included = |bound: Option<(&Value<'_>, bool)>| bound.map(|(_, included)| included);
        let mut builder = RangeBuilder::between(included(lower), included(upper));
        for (bound, _) in [lower, upper].into_iter().flatten() {
            builder.push(bound);
        }
        builder
    }

    /// A range whose bounds are still to be pushed, lower first: of each whether it belongs to the range,
    /// `None` for open.
    pub fn between(lower: Option<bool>, upper: Option<bool>) -> Self {
        let lower = match lower {
            None => range_flags::LOWER_INFINITE,
            Some(true) => range_flags::LOWER_INCLUSIVE,
            Some(false) => 0,
        };
        let upper = match upper {
            None => range_flags::UPPER_INFINITE,
            Some(true) => range_flags::UPPER_INCLUSIVE,
            Some(false) => 0,
        };
        RangeBuilder(vec![lower | upper])
    }

    /// The next bound.
    pub fn push(&mut self, bound: &Value<'_>) {
        put_tagged(&mut self.0, Some(bound));
    }

    /// The range.
    pub fn range(&self) -> Range<'_> {
        Range(&self.0)
    }
}

impl<'a> Multirange<'a> {
    /// The ranges in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<'a>> + use<'a> {
        let mut bytes = self.0;
        std::iter::from_fn(move || {
            let (value, rest) = take_tagged(bytes).ok()?;
            bytes = rest;
            match value {
                Some(Value::Range(range)) => Some(range),
                _ => None,
            }
        })
    }
}

/// Builds a multirange's payload.
#[derive(Debug, Default)]
pub struct MultirangeBuilder(Vec<u8>);

impl MultirangeBuilder {
    /// The next range.
    pub fn push(&mut self, range: Range<'_>) {
        put_tagged(&mut self.0, Some(&Value::Range(range)));
    }

    /// The multirange.
    pub fn multirange(&self) -> Multirange<'_> {
        Multirange(&self.0)
    }
}

impl<'a> Composite<'a> {
    /// Attribute number and value of each attribute that is not NULL, in order.
    pub fn attributes(&self) -> impl Iterator<Item = (u32, Value<'a>)> + use<'a> {
        let mut bytes = self.0;
        std::iter::from_fn(move || {
            let (number, rest) = take_varint(bytes).ok()?;
            let (value, rest) = take_tagged(rest).ok()?;
            bytes = rest;
            Some((u32::try_from(number).ok()?, value?))
        })
    }
}

/// Builds a composite's payload.
#[derive(Debug, Default)]
pub struct CompositeBuilder(Vec<u8>);

impl CompositeBuilder {
    /// The next attribute, by ascending number; NULL attributes are left out.
    pub fn push(&mut self, number: u32, value: &Value<'_>) {
        put_varint(&mut self.0, u64::from(number));
        put_tagged(&mut self.0, Some(value));
    }

    /// The composite.
    pub fn composite(&self) -> Composite<'_> {
        Composite(&self.0)
    }
}
