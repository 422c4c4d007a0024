//! Postgres' packed numeric: a header of two or four bytes, then base-10000 digits.
//!
//! Short header: bit 15 set, 14 clear; sign 0x2000, scale 0x1f80, weight 0x007f (signed).
//! Long header: sign in bits 14-15, scale in the rest, then the weight. Bits 14 and 15 set: a special value.

use plimsoll_core::value::{Numeric, NumericBuf, NumericKind};

const KIND: u16 = 0xc000;
const SHORT: u16 = 0x8000;
const NEGATIVE: u16 = 0x4000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;
const SPECIAL: u16 = 0xf000;

/// What stands in front of the digits.
enum Header {
    Finite { negative: bool, scale: u16, weight: i16, length: usize },
    Special(NumericKind),
}

#[inline]
fn header(bytes: &[u8]) -> Option<Header> {
    let units = bytes.as_chunks::<2>().0;
    // Memory of this machine: its own byte order.
    let unit = |i: usize| units.get(i).map(|unit| from_memory(*unit));
    let header = unit(0)?;
    Some(match header & KIND {
        KIND => Header::Special(match header & SPECIAL {
            INFINITY => NumericKind::Infinity,
            NEGATIVE_INFINITY => NumericKind::NegativeInfinity,
            _ => NumericKind::NaN,
        }),
        SHORT => Header::Finite {
            negative: header & 0x2000 != 0,
            scale: (header & 0x1f80) >> 7,
            weight: (header & 0x3f) as i16 - if header & 0x40 != 0 { 64 } else { 0 },
            length: 2,
        },
        sign => Header::Finite {
            negative: sign == NEGATIVE,
            scale: header & 0x3fff,
            weight: unit(1)? as i16,
            length: 4,
        },
    })
}

/// Reads the bytes behind a numeric's varlena header.
pub fn unpack(bytes: &[u8]) -> Option<NumericBuf> {
    Some(match header(bytes)? {
        Header::Special(kind) => NumericBuf::from_groups(kind, 0, 0, []),
        Header::Finite { negative, scale, weight, length } => {
            let kind = if negative { NumericKind::Negative } else { NumericKind::Positive };
            let groups = bytes[length..].as_chunks::<2>().0.iter().map(|unit| from_memory(*unit));
            NumericBuf::from_groups(kind, scale, weight, groups)
        }
    })
}

/// How many digits the number has when it is written, about.
pub fn written_digits(bytes: &[u8]) -> usize {
    match header(bytes) {
        Some(Header::Finite { weight, scale, .. }) => {
            (4 * (i64::from(weight) + 1)).max(1) as usize + usize::from(scale)
        }
        _ => 9,
    }
}

/// The number with its smallest scale, read where it stands; `None` where that is not possible and
/// [`unpack`] has to copy it: zero and what is no finite number, another byte order.
#[inline]
pub fn borrow_normal(bytes: &[u8]) -> Option<Numeric<'_>> {
    match header(bytes)? {
        Header::Finite { negative, weight, length, .. } if cfg!(target_endian = "little") => {
            Numeric::from_digits(negative, weight, &bytes[length..])
        }
        _ => None,
    }
}

/// The bytes behind the varlena header of `number`, shown with at least `scale` digits after the point.
pub fn pack(number: &Numeric<'_>, scale: u16) -> Vec<u8> {
    let special = match number.kind() {
        NumericKind::NaN => Some(KIND),
        NumericKind::Infinity => Some(INFINITY),
        NumericKind::NegativeInfinity => Some(NEGATIVE_INFINITY),
        _ => None,
    };
    let mut out = Vec::with_capacity(4 + 2 * number.digits().len());
    if let Some(header) = special {
        out.extend_from_slice(&header.in_memory());
        return out;
    }
    let negative = number.kind() == NumericKind::Negative;
    let scale = scale.max(number.fraction_digits() as u16);
    let weight = number.weight();
    if scale <= 0x3f && (-64..=63).contains(&weight) {
        let sign = if negative { 0x2000 } else { 0 };
        let header = SHORT | sign | (scale << 7) | (weight as u16 & 0x7f);
        out.extend_from_slice(&header.in_memory());
    } else {
        let sign = if negative { NEGATIVE } else { 0 };
        out.extend_from_slice(&(sign | scale).in_memory());
        out.extend_from_slice(&(weight as u16).in_memory());
    }
    for digit in number.digits() {
        out.extend_from_slice(&digit.in_memory());
    }
    out
}

/// Postgres' in-memory form has this machine's byte order, unlike anything the core encodes.
trait InMemory {
    fn in_memory(self) -> [u8; 2];
}

impl InMemory for u16 {
    fn in_memory(self) -> [u8; 2] {
        if cfg!(target_endian = "little") { self.to_le_bytes() } else { self.to_be_bytes() }
    }
}

fn from_memory(bytes: [u8; 2]) -> u16 {
    if cfg!(target_endian = "little") { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
}
