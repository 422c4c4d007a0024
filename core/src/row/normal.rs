//! The digest form: values that Postgres calls equal get the same bytes.

use super::encode::sized;
use super::json::canonical_json;
use super::{Field, Fields, Tag, put_tagged, put_varint};
use crate::error::Result;
use crate::value::{Array, Composite, Multirange, Range, Value};

/// Appends the digest form of a row given in wire form.
///
/// # Errors
/// `Malformed` or `InvalidText` where the row breaks the grammar or holds jsonb that is no JSON.
pub fn digest_form(row: &[u8], out: &mut Vec<u8>) -> Result<()> {
    Fields::new(row).try_for_each(|field| put_field(out, &field?))
}

/// Appends the digest form of one field.
///
/// # Errors
/// `InvalidText` where it holds jsonb that is no JSON.
pub fn put_field(out: &mut Vec<u8>, field: &Field<'_>) -> Result<()> {
    if is_normal(&field.value) {
        out.extend_from_slice(field.bytes);
        return Ok(());
    }
    put_varint(out, u64::from(field.number));
    put_normal(out, &field.value)
}

/// Whether the wire form is the digest form already. Nested values are always rewritten.
fn is_normal(value: &Value<'_>) -> bool {
    match value {
        Value::Numeric(number) => usize::from(number.scale()) == number.fraction_digits(),
        Value::Float(number) => number.to_bits() == normal_float(*number).to_bits(),
        Value::Jsonb(_) | Value::Array(_) | Value::Range(_) | Value::Multirange(_) | Value::Composite(_) => {
            false
        }
        _ => true,
    }
}

pub(super) fn normal_float(number: f64) -> f64 {
    match number {
        n if n.is_nan() => f64::from_bits(0x7ff8_0000_0000_0000),
        0.0 => 0.0,
        n => n,
    }
}

pub(crate) fn put_normal(out: &mut Vec<u8>, value: &Value<'_>) -> Result<()> {
    match value {
        Value::Numeric(number) => put_tagged(out, Some(&Value::Numeric(number.smallest_scale()))),
        Value::Float(number) => put_tagged(out, Some(&Value::Float(normal_float(*number)))),
        Value::Jsonb(text) => {
            let mut canonical = Vec::with_capacity(text.len());
            canonical_json(text, &mut canonical)?;
            sized(out, Tag::Jsonb, &canonical);
        }
        Value::Array(array) => nested(out, Tag::Array, |inner| normal_array(inner, array))?,
        Value::Range(range) => nested(out, Tag::Range, |inner| normal_range(inner, range))?,
        Value::Multirange(ranges) => nested(out, Tag::Multirange, |inner| normal_multirange(inner, ranges))?,
        Value::Composite(composite) => {
            nested(out, Tag::Composite, |inner| normal_composite(inner, composite))?
        }
        value => put_tagged(out, Some(value)),
    }
    Ok(())
}

fn nested(out: &mut Vec<u8>, tag: Tag, fill: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let mut inner = Vec::new();
    fill(&mut inner)?;
    sized(out, tag, &inner);
    Ok(())
}

fn normal_array(out: &mut Vec<u8>, array: &Array<'_>) -> Result<()> {
    let dimensions = array.dimensions();
    out.push(dimensions.len() as u8);
    for (length, lower) in dimensions {
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&lower.to_le_bytes());
    }
    for element in array.elements() {
        match element {
            Some(value) => put_normal(out, &value)?,
            None => put_tagged(out, None),
        }
    }
    Ok(())
}

fn normal_range(out: &mut Vec<u8>, range: &Range<'_>) -> Result<()> {
    out.push(range.0.first().copied().unwrap_or(crate::value::range_flags::EMPTY));
    let (lower, upper) = range.bounds();
    for bound in [lower, upper].into_iter().flatten() {
        put_normal(out, &bound)?;
    }
    Ok(())
}

fn normal_multirange(out: &mut Vec<u8>, ranges: &Multirange<'_>) -> Result<()> {
    ranges.ranges().try_for_each(|range| put_normal(out, &Value::Range(range)))
}

fn normal_composite(out: &mut Vec<u8>, composite: &Composite<'_>) -> Result<()> {
    composite.attributes().try_for_each(|(number, value)| {
        put_varint(out, u64::from(number));
        put_normal(out, &value)
    })
}
