//! Ranges and what they hold, as they travel, and how a side divides a range.
//!
//! ```text
//! ranges    = version(1) flags(1) shift(1) count(varint) [ first ] [ end gap *( length [ gap ] ) ] [ last ]
//! first     = zigzag varint          -- where the first range begins; absent where flag 1 is set: it is open
//! last      = zigzag varint          -- where the last range ends; absent where flag 2 is set: it is open
//! end       = zigzag varint          -- where the first of several ranges ends
//! length    = varint                 -- of each range between, doubled, and one more where a gap follows
//! gap       = varint                 -- from a range's end to the next one's beginning
//! summaries = ranges *( row count(varint) sum(8) )
//! held      = version(1) *( row count(8) sum(32) )       -- of ranges that the asker named
//! ```
//! Boundaries within the list are dyadic as a rule, and so share trailing zeros: `end`, `length` and `gap` are
//! given without the `shift` bits that all of them have clear.

use std::cmp::Reverse;

use crate::ENCODING_VERSION;
use crate::dyadic::Dyadic;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::row::{put_varint, take_varint};
use crate::short::{unzigzag, zigzag};
use crate::store::PositionRange;

/// Open ends are cut off where a range is divided into so many parts.
const FEWEST_TO_TRIM: usize = 8;

/// How many ranges a packed list has at most.
pub const MOST_RANGES: usize = 1 << 16;

const FROM_OPEN: u8 = 1;
const TO_OPEN: u8 = 2;

/// The low 64 bits of a digest sum. Digests are keyed, so that two different sets of rows share them by
/// chance alone; whole sums confirm what comparisons of short ones found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ShortSum(pub u64);

impl From<&Fingerprint> for ShortSum {
    fn from(fingerprint: &Fingerprint) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = fingerprint.sum();
        ShortSum(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// What a side holds in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RangeSummary {
    /// The range.
    pub range: PositionRange,
    /// Rows in it.
    pub row_count: u64,
    /// Their digest sum, shortened.
    pub sum: ShortSum,
}

impl RangeSummary {
    /// The summary of a range with this fingerprint.
    pub fn new(range: PositionRange, fingerprint: &Fingerprint) -> Self {
        RangeSummary { range, row_count: fingerprint.row_count(), sum: fingerprint.into() }
    }

    /// Whether two sides hold the same in it.
    pub fn agrees(&self, other: &RangeSummary) -> bool {
        (self.row_count, self.sum) == (other.row_count, other.sum)
    }
}

/// A range in so many parts of equal length that together make it up, fewer where it has not as many positions. Where
/// rows stand at hashes they hold about as many of them.
pub fn in_equal_parts(range: PositionRange, parts: usize) -> Vec<PositionRange> {
    crate::passes::divided(range, parts)
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Malformed, what)
}

/// A position in offset binary, whose unsigned order is the axis' order.
fn offset(position: i64) -> u64 {
    (position as u64) ^ (1 << 63)
}

fn position(offset: u64) -> i64 {
    (offset ^ (1 << 63)) as i64
}

/// Whether ranges are ascending, disjoint and not empty.
pub fn in_order(ranges: &[PositionRange]) -> bool {
    let sound = |range: &PositionRange| range.from.zip(range.to).is_none_or(|(from, to)| from < to);
    let follows = |pair: &[PositionRange]| pair[0].to.zip(pair[1].from).is_some_and(|(to, from)| to <= from);
    ranges.iter().all(sound) && ranges.windows(2).all(follows)
}

/// The boundaries within a list: where a range ends and the next begins.
fn inner(ranges: &[PositionRange]) -> impl Iterator<Item = (u64, u64)> {
    ranges.windows(2).filter_map(|pair| Some((offset(pair[0].to?), offset(pair[1].from?))))
}

/// Numbers of up to 65 bits, 7 to a byte, least significant first.
fn put_long(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_long(bytes: &[u8]) -> Result<(u128, &[u8])> {
    let mut number = 0u128;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        number |= u128::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok((number, &bytes[i + 1..]));
        }
    }
    Err(malformed("a number in a list of ranges has no end"))
}

/// Packs ranges that are [`in_order`].
pub fn pack_ranges(ranges: &[PositionRange]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 + 2 * ranges.len());
    put_ranges(ranges, &mut bytes);
    bytes
}

/// Packs what ranges hold, in their order: of each its row count and its whole digest sum.
pub fn pack_fingerprints(held: &[Fingerprint]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + 40 * held.len());
    bytes.push(ENCODING_VERSION);
    for held in held {
        bytes.extend_from_slice(&held.row_count().to_le_bytes());
        bytes.extend_from_slice(&held.sum());
    }
    bytes
}

/// Reads what [`pack_fingerprints`] made.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_fingerprints(bytes: &[u8]) -> Result<Vec<Fingerprint>> {
    let Some((&ENCODING_VERSION, rest)) = bytes.split_first() else {
        return Err(malformed("what ranges hold, of another kind or version"));
    };
    let (held, []) = rest.as_chunks::<40>() else {
        return Err(malformed("the bytes end inside what a range holds"));
    };
    let fingerprint = |held: &[u8; 40]| {
        let [a, b, c, d, e, f, g, h, sum @ ..] = *held;
        Fingerprint::from_parts(u64::from_le_bytes([a, b, c, d, e, f, g, h]), sum)
    };
    Ok(held.iter().map(fingerprint).collect())
}

fn put_ranges(ranges: &[PositionRange], out: &mut Vec<u8>) {
    let (from, to) = (ranges.first().and_then(|range| range.from), ranges.last().and_then(|range| range.to));
    let shift = inner(ranges).fold(0, |bits, (to, from)| bits | to | from).trailing_zeros().min(63);
    let open = |end: Option<i64>, flag| if end.is_none() { flag } else { 0 };
    out.extend_from_slice(&[ENCODING_VERSION, open(from, FROM_OPEN) | open(to, TO_OPEN), shift as u8]);
    put_varint(out, ranges.len() as u64);
    from.inspect(|from| put_varint(out, zigzag(*from)));
    let mut begin = None;
    for (to, next) in inner(ranges) {
        match begin {
            None => put_varint(out, zigzag(position(to) >> shift)),
            Some(begin) => put_long(out, u128::from((to - begin) >> shift) << 1 | u128::from(to < next)),
        }
        // The first range's end has no room for the sign of a gap.
        if begin.is_none() || to < next {
            put_varint(out, (next - to) >> shift);
        }
        begin = Some(next);
    }
    to.inspect(|to| put_varint(out, zigzag(*to)));
}

/// Reads packed ranges: in order, at most [`MOST_RANGES`].
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_ranges(bytes: &[u8]) -> Result<Vec<PositionRange>> {
    let (ranges, rest) = take_ranges(bytes)?;
    if rest.is_empty() { Ok(ranges) } else { Err(malformed("bytes after the last range")) }
}

fn take_ranges(bytes: &[u8]) -> Result<(Vec<PositionRange>, &[u8])> {
    let Some(([ENCODING_VERSION, flags @ 0..=3, shift @ 0..=63], rest)) = bytes.split_first_chunk() else {
        return Err(malformed("a list of ranges of another kind or version"));
    };
    let (count, mut rest) = take_varint(rest)?;
    // Each but the last takes a byte at least.
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > MOST_RANGES || count > rest.len() + 1 {
        return Err(malformed("more ranges than there may be"));
    }
    let end = |flag: u8, rest: &mut &[u8]| -> Result<Option<i64>> {
        if flags & flag != 0 {
            return Ok(None);
        }
        let (number, after) = take_varint(rest)?;
        *rest = after;
        Ok(Some(unzigzag(number)))
    };
    let mut ranges = Vec::with_capacity(count);
    let Some(inner) = count.checked_sub(1) else {
        let canonical = (*flags, *shift) == (FROM_OPEN | TO_OPEN, 63);
        return if canonical { Ok((ranges, rest)) } else { Err(malformed("no ranges")) };
    };
    let mut from = end(FROM_OPEN, &mut rest)?;
    let beyond = || malformed("a range beyond the end of the axis");
    let go = |at: u64, steps: u128| -> Result<u64> {
        let steps = u64::try_from(steps << shift).map_err(|_| beyond())?;
        at.checked_add(steps).ok_or_else(beyond)
    };
    for place in 0..inner {
        let (to, has_gap) = if place == 0 {
            let (number, after) = take_varint(rest)?;
            rest = after;
            let to = i128::from(unzigzag(number)) << shift;
            (offset(i64::try_from(to).map_err(|_| beyond())?), true)
        } else {
            let (number, after) = take_long(rest)?;
            rest = after;
            (go(from.map_or(0, offset), number >> 1)?, number & 1 != 0)
        };
        let mut next = to;
        if has_gap {
            let (gap, after) = take_varint(rest)?;
            rest = after;
            next = go(to, gap.into())?;
        }
        ranges.push(PositionRange { from, to: Some(position(to)) });
        from = Some(position(next));
    }
    let to = end(TO_OPEN, &mut rest)?;
    ranges.push(PositionRange { from, to });
    if !in_order(&ranges) {
        return Err(malformed("ranges that are empty or overlap"));
    }
    // One form for each list: the greatest shift, no number longer than it need be.
    if bytes.strip_suffix(rest) != Some(&pack_ranges(&ranges)) {
        return Err(malformed("a list of ranges packed otherwise than it must be"));
    }
    Ok((ranges, rest))
}

/// Packs summaries of ranges that are [`in_order`].
pub fn pack_summaries(summaries: &[RangeSummary]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 + 12 * summaries.len());
    let ranges: Vec<_> = summaries.iter().map(|summary| summary.range).collect();
    put_ranges(&ranges, &mut bytes);
    for summary in summaries {
        put_varint(&mut bytes, summary.row_count);
        bytes.extend_from_slice(&summary.sum.0.to_le_bytes());
    }
    bytes
}

/// Reads packed summaries.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_summaries(bytes: &[u8]) -> Result<Vec<RangeSummary>> {
    let (ranges, mut rest) = take_ranges(bytes)?;
    let mut summaries = Vec::with_capacity(ranges.len());
    for range in ranges {
        let (row_count, after) = take_varint(rest)?;
        let (sum, after) =
            after.split_first_chunk().ok_or_else(|| malformed("the bytes end inside a summary"))?;
        summaries.push(RangeSummary { range, row_count, sum: ShortSum(u64::from_le_bytes(*sum)) });
        rest = after;
    }
    if rest.is_empty() { Ok(summaries) } else { Err(malformed("bytes after the last summary")) }
}

/// Divides `range` into at most `most` ranges of about equal row count, given what it holds as disjoint
/// nodes in order, single positions at the finest; the first and last may reach beyond it. Cuts are made
/// between nodes only, and at the roundest position near the best one: there the other side has a boundary
/// too, and it packs well.
pub fn choose(nodes: &[(Dyadic, Fingerprint)], range: PositionRange, most: usize) -> Vec<PositionRange> {
    let total: u128 = nodes.iter().map(|(_, held)| u128::from(held.row_count())).sum();
    // What lies beyond the first and the last row is cut off from an open end: the parts that have rows are
    // short then, and their positions too.
    let first = nodes.first().map(|(node, _)| node.first()).filter(|_| range.from.is_none());
    let last = nodes.last().and_then(|(node, _)| node.last().checked_add(1)).filter(|_| range.to.is_none());
    let (first, last) = if most >= FEWEST_TO_TRIM {
        (
            first.filter(|first| *first > i64::MIN && range.contains(*first)),
            last.filter(|last| range.contains(*last)),
        )
    } else {
        (None, None)
    };
    let parts = (most.max(1) - usize::from(first.is_some()) - usize::from(last.is_some())) as u128;
    // The best cut so far: which of the ideal ones it stands for, how round and how near it is, and where.
    let mut best: Option<(u128, (u32, Reverse<u128>), i64)> = None;
    let mut cuts: Vec<i64> = Vec::from_iter(first);
    let mut passed = 0;
    for pair in nodes.windows(2) {
        let [(before, held), (after, _)] = pair else { continue };
        passed += u128::from(held.row_count());
        let cut = roundest(before.last(), after.first());
        let place = (passed * parts + total / 2) / total.max(1);
        let distance = (passed * parts).abs_diff(place * total);
        let inside = range.contains(cut) && range.from != Some(cut);
        if !inside || place == 0 || place >= parts {
            continue;
        }
        let near = distance * 3 <= total;
        let merit = (if near { 1 + offset(cut).trailing_zeros() } else { 0 }, Reverse(distance));
        match best {
            Some((of, so_far, _)) if of == place && so_far >= merit => {}
            Some((of, _, at)) if of != place => {
                cuts.push(at);
                best = Some((place, merit, cut));
            }
            _ => best = Some((place, merit, cut)),
        }
    }
    cuts.extend(best.map(|(_, _, at)| at));
    cuts.extend(last);
    let ends = cuts.iter().copied().map(Some).chain([range.to]);
    let begins = [range.from].into_iter().chain(cuts.iter().copied().map(Some));
    begins.zip(ends).map(|(from, to)| PositionRange { from, to }).collect()
}

/// The position beyond `last` and not beyond `first` that has the most trailing zeros in offset binary.
fn roundest(last: i64, first: i64) -> i64 {
    let differing = (offset(last) ^ offset(first)).max(1).ilog2();
    position(offset(first) >> differing << differing)
}

#[cfg(test)]
mod tests;
