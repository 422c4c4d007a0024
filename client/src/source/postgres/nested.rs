//! Arrays, ranges, multiranges and composites in Postgres' binary form.

use plimsoll_core::value::{
    ArrayBuilder, Attribute, ColumnType, CompositeBuilder, MAX_DIMENSIONS, MultirangeBuilder, RangeBuilder,
    Value, datetime::MICROSECONDS_PER_DAY,
};
use plimsoll_core::{ErrorKind, Result};

use super::decode::{malformed, name, refuse, value};
use super::shape::Shape;
use crate::source::kind::Scratch;

/// A value put together from others.
#[derive(Debug)]
pub enum Nested {
    /// An array.
    Array(ArrayBuilder),
    /// A range.
    Range(RangeBuilder),
    /// A multirange.
    Multirange(MultirangeBuilder),
    /// A composite.
    Composite(CompositeBuilder),
}

impl Nested {
    /// The value.
    pub fn value(&self) -> Value<'_> {
        match self {
            Nested::Array(array) => Value::Array(array.array()),
            Nested::Range(range) => Value::Range(range.range()),
            Nested::Multirange(ranges) => Value::Multirange(ranges.multirange()),
            Nested::Composite(composite) => Value::Composite(composite.composite()),
        }
    }
}

/// Bits of a range's first byte, as Postgres sends it.
mod flags {
    pub const EMPTY: u8 = 0x01;
    pub const LOWER_INCLUSIVE: u8 = 0x02;
    pub const UPPER_INCLUSIVE: u8 = 0x04;
    pub const LOWER_INFINITE: u8 = 0x08;
    pub const UPPER_INFINITE: u8 = 0x10;
}

/// The bytes of a message, taken from the front.
struct Bytes<'v> {
    rest: &'v [u8],
    shape: &'v Shape,
}

impl<'v> Bytes<'v> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((first, rest)) = self.rest.split_first_chunk() else { return malformed(self.shape) };
        self.rest = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }

    /// Length and bytes of a part; `None` is NULL.
    fn part(&mut self) -> Result<Option<&'v [u8]>> {
        let length = self.number()?;
        if length == -1 {
            return Ok(None);
        }
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((part, rest)) = split else { return malformed(self.shape) };
        self.rest = rest;
        Ok(Some(part))
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { malformed(self.shape) }
    }
}

/// The instant at which a day begins; the infinities stay.
pub fn midnight(days: i32) -> i64 {
    match days {
        i32::MIN => i64::MIN,
        i32::MAX => i64::MAX,
        days => i64::from(days).saturating_mul(MICROSECONDS_PER_DAY),
    }
}

/// A value of a shape that nests.
///
/// # Errors
/// As [`value`], of a part too.
pub fn nested(shape: &Shape, bytes: &[u8], to: &ColumnType) -> Result<Nested> {
    match (shape, to) {
        (Shape::Array(element), ColumnType::Array(to)) => array(shape, element, bytes, to).map(Nested::Array),
        (Shape::Range(bound), ColumnType::Range(to)) => range(shape, bound, bytes, to).map(Nested::Range),
        (Shape::Multirange(bound), ColumnType::Multirange(to)) => {
            multirange(shape, bound, bytes, to).map(Nested::Multirange)
        }
        (Shape::Composite(own), ColumnType::Composite(to)) => {
            composite(shape, own, bytes, to).map(Nested::Composite)
        }
        _ => refuse(ErrorKind::WrongType, format!("{} where the managed column is {to}", name(shape))),
    }
}

fn array(shape: &Shape, element: &Shape, bytes: &[u8], to: &ColumnType) -> Result<ArrayBuilder> {
    let mut bytes = Bytes { rest: bytes, shape };
    let count = bytes.number()?;
    let _has_nulls = bytes.number()?;
    let _element_type = bytes.number()?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count <= MAX_DIMENSIONS) else {
        return malformed(shape);
    };
    let mut dimensions = [(0, 0); MAX_DIMENSIONS];
    let mut elements = usize::from(count > 0);
    for dimension in &mut dimensions[..count] {
        *dimension = (u32::from_be_bytes(bytes.take()?), bytes.number()?);
        elements = elements.saturating_mul(dimension.0 as usize);
    }
    let mut builder = ArrayBuilder::new(&dimensions[..count]);
    let mut room = Scratch::default();
    for _ in 0..elements {
        match bytes.part()? {
            None => builder.push(None),
            Some(part) => builder.push(Some(&value(element, part, to, &mut room)?)),
        }
    }
    bytes.end().map(|()| builder)
}

fn range(shape: &Shape, bound: &Shape, bytes: &[u8], to: &ColumnType) -> Result<RangeBuilder> {
    let mut bytes = Bytes { rest: bytes, shape };
    let [flags] = bytes.take()?;
    if flags & flags::EMPTY != 0 {
        return bytes.end().map(|()| RangeBuilder::empty());
    }
    let (mut lower_room, mut upper_room) = (Scratch::default(), Scratch::default());
    let mut next = |infinite: u8| match flags & infinite {
        0 => bytes.part()?.map_or_else(|| malformed(shape), |part| Ok(Some(part))),
        _ => Ok(None),
    };
    let (lower, upper) = (next(flags::LOWER_INFINITE)?, next(flags::UPPER_INFINITE)?);
    bytes.end()?;
    let lower = lower.map(|part| value(bound, part, to, &mut lower_room)).transpose()?;
    let upper = upper.map(|part| value(bound, part, to, &mut upper_room)).transpose()?;
    Ok(RangeBuilder::new(
        lower.as_ref().map(|value| (value, flags & flags::LOWER_INCLUSIVE != 0)),
        upper.as_ref().map(|value| (value, flags & flags::UPPER_INCLUSIVE != 0)),
    ))
}

fn multirange(shape: &Shape, bound: &Shape, bytes: &[u8], to: &ColumnType) -> Result<MultirangeBuilder> {
    let mut bytes = Bytes { rest: bytes, shape };
    let mut builder = MultirangeBuilder::default();
    for _ in 0..bytes.number()? {
        let Some(part) = bytes.part()? else { return malformed(shape) };
        builder.push(range(shape, bound, part, to)?.range());
    }
    bytes.end().map(|()| builder)
}

fn composite(
    shape: &Shape,
    own: &[(String, Shape)],
    bytes: &[u8],
    to: &[Attribute],
) -> Result<CompositeBuilder> {
    let mut bytes = Bytes { rest: bytes, shape };
    if usize::try_from(bytes.number()?) != Ok(own.len()) {
        return malformed(shape);
    }
    let mut parts = Vec::with_capacity(own.len());
    for (name, attribute) in own {
        let _type = bytes.number()?;
        parts.push((name, attribute, bytes.part()?));
    }
    bytes.end()?;
    let mut builder = CompositeBuilder::default();
    let mut room = Scratch::default();
    let known = |name: &String| to.iter().any(|attribute| attribute.name == *name);
    if let Some((name, ..)) = parts.iter().find(|(name, ..)| !known(name)) {
        return refuse(
            ErrorKind::WrongType,
            format!("the managed column's type has no attribute \"{name}\""),
        );
    }
    for attribute in to {
        let Some((name, shape, part)) = parts.iter().find(|(name, ..)| **name == attribute.name) else {
            return refuse(ErrorKind::WrongType, format!("no attribute \"{}\"", attribute.name));
        };
        let Some(part) = part else { continue };
        let found = value(shape, part, &attribute.column_type, &mut room);
        let in_attribute = |error: plimsoll_core::Error| {
            plimsoll_core::Error::new(error.kind(), format!("attribute \"{name}\": {}", error.message()))
        };
        builder.push(attribute.number, &found.map_err(in_attribute)?);
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_end_too_soon_are_refused_and_break_nothing() {
        let shape = Shape::Array(Box::new(Shape::Int4));
        let to: ColumnType = "array(int4)".parse().expect("a type");
        let head = [1, 0, 23, 2, 1].map(i32::to_be_bytes).concat();
        let whole = [head, [4, 7, -1].map(i32::to_be_bytes).concat()].concat();
        assert!(nested(&shape, &whole, &to).is_ok());
        for end in 0..whole.len() {
            let error = nested(&shape, &whole[..end], &to).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Malformed, "{end}");
        }
        let huge = [6, 0, 23, i32::MAX, 1, i32::MAX, 1].map(i32::to_be_bytes).concat();
        assert!(nested(&shape, &huge, &to).is_err());
    }
}
