//! A side in memory as a kept manifest would answer for it: blocks whose sums are known, rows that are read
//! only where blocks do not tell; and a wrapper that counts what travels.
#![allow(dead_code)]

use std::collections::BTreeMap;

use plimsoll_core::digest::RowDigest;
use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::ranges::{RangeSummary, choose, pack_ranges, pack_summaries, read_ranges, read_summaries};
use plimsoll_core::reconcile::Found;
use plimsoll_core::short::{ShortItem, pack_items, read_items};
use plimsoll_core::sketch::Sketch;
use plimsoll_core::store::{Outcome, PositionRange, Summaries, TableId};

/// Rows that blocks are split above.
const MOST_IN_BLOCK: usize = 2_048;
/// Rows of a range that is divided by its rows, where blocks are too few.
const READ_AT_MOST: usize = 8_192;

/// A row of the tests: its digest follows from its position and a salt.
pub fn row(position: i64, salt: u64) -> ShortItem {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&position.to_le_bytes()).update(&salt.to_le_bytes());
    let mut digest = [0; 16];
    hasher.finalize_xof().fill(&mut digest);
    ShortItem { position, digest }
}

fn fingerprint(rows: &[ShortItem]) -> Fingerprint {
    let whole = |item: &ShortItem| {
        let mut digest = [0; 32];
        digest[..16].copy_from_slice(&item.digest);
        RowDigest(digest)
    };
    rows.iter().map(whole).collect()
}

/// The rows that only one of two sides has, counted one by one in the simplest way.
pub fn difference(local: &[ShortItem], remote: &[ShortItem]) -> (Vec<ShortItem>, Vec<ShortItem>) {
    let mut counts: BTreeMap<ShortItem, i64> = BTreeMap::new();
    local.iter().for_each(|item| *counts.entry(*item).or_default() += 1);
    remote.iter().for_each(|item| *counts.entry(*item).or_default() -= 1);
    let side = |sign: i64| {
        let of = |(item, count): (&ShortItem, &i64)| {
            std::iter::repeat_n(*item, usize::try_from(count * sign).unwrap_or(0))
        };
        counts.iter().flat_map(of).collect()
    };
    (side(1), side(-1))
}

#[derive(Clone)]
pub struct Kept {
    rows: Vec<ShortItem>,
    blocks: Vec<(Dyadic, Fingerprint)>,
    /// Rows that had to be read to answer.
    pub read: u64,
}

impl Kept {
    pub fn new(mut rows: Vec<ShortItem>) -> Self {
        rows.sort_unstable();
        let mut blocks = Vec::new();
        let mut pending = vec![Dyadic::ALL];
        while let Some(range) = pending.pop() {
            let held = slice(&rows, range.range());
            match range.halves().filter(|_| held.len() > MOST_IN_BLOCK) {
                Some((lower, upper)) => pending.extend([upper, lower]),
                None if held.is_empty() => {}
                None => blocks.push((range, fingerprint(held))),
            }
        }
        Kept { rows, blocks, read: 0 }
    }

    pub fn rows(&self) -> &[ShortItem] {
        &self.rows
    }

    /// The same side after some rows went or were altered, with the same blocks, as a kept manifest has them.
    pub fn changed(&self, positions: &[i64], change: impl Fn(&ShortItem) -> Option<ShortItem>) -> Self {
        let mut positions = positions.to_vec();
        positions.sort_unstable();
        let hit = |item: &ShortItem| positions.binary_search(&item.position).is_ok();
        let rows = self.rows.iter().filter_map(|item| if hit(item) { change(item) } else { Some(*item) });
        let rows: Vec<_> = rows.collect();
        let again = |(block, held): &(Dyadic, Fingerprint)| {
            let at = positions.partition_point(|position| *position < block.first());
            let same = positions.get(at).is_none_or(|position| !block.contains(*position));
            (*block, if same { *held } else { fingerprint(slice(&rows, block.range())) })
        };
        let blocks = self.blocks.iter().map(again).filter(|(_, held)| held.row_count() > 0).collect();
        Kept { rows, blocks, read: 0 }
    }

    /// Whole blocks, and the rows of the others.
    fn summary(&mut self, range: PositionRange) -> RangeSummary {
        let mut held = Fingerprint::default();
        let first =
            self.blocks.partition_point(|(block, _)| range.from.is_some_and(|from| block.last() < from));
        for (block, whole) in self.blocks[first..].iter().take_while(|(block, _)| block.meets(&range)) {
            if block.lies_in(&range) {
                held.combine(whole);
            } else {
                let rows = slice(&self.rows, block.range());
                self.read += rows.len() as u64;
                held.combine(&fingerprint(slice(rows, range)));
            }
        }
        RangeSummary::new(range, &held)
    }
}

fn slice(rows: &[ShortItem], range: PositionRange) -> &[ShortItem] {
    let begin = range.from.map_or(0, |from| rows.partition_point(|item| item.position < from));
    let end = range.to.map_or(rows.len(), |to| rows.partition_point(|item| item.position < to));
    &rows[begin..end]
}

impl Summaries for Kept {
    fn range_manifest(
        &mut self,
        _: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        let mut parts = Vec::new();
        for range in ranges {
            let nodes: Vec<_> = self.blocks.iter().filter(|(block, _)| block.meets(range)).copied().collect();
            let held = slice(&self.rows, *range);
            let by_rows = nodes.len() < most as usize && held.len() <= READ_AT_MOST;
            let chosen = if by_rows {
                self.read += held.len() as u64;
                let mut points: Vec<(Dyadic, Fingerprint)> = Vec::new();
                for item in held {
                    let one = fingerprint(&[*item]);
                    match points.last_mut() {
                        Some((point, held)) if point.contains(item.position) => held.combine(&one),
                        _ => points.push((Dyadic::point(item.position), one)),
                    }
                }
                choose(&points, *range, most as usize)
            } else {
                choose(&nodes, *range, most as usize)
            };
            parts.extend(chosen.into_iter().map(|part| self.summary(part)));
        }
        Ok(parts)
    }

    fn summaries(&mut self, _: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        Ok(ranges.iter().map(|range| self.summary(*range)).collect())
    }

    fn sketch(&mut self, _: TableId, ranges: &[PositionRange], first: u32, symbols: u32) -> Outcome<Vec<u8>> {
        let mut sketch = Sketch::new(ranges, first, symbols).expect("a sketch");
        for range in ranges {
            let held = slice(&self.rows, *range);
            self.read += held.len() as u64;
            held.iter().for_each(|item| sketch.add(item));
        }
        Ok(sketch.pack())
    }

    fn items(&mut self, _: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        let items: Vec<_> = ranges.iter().flat_map(|range| slice(&self.rows, *range)).copied().collect();
        self.read += items.len() as u64;
        Ok(items)
    }
}

/// What a connection adds to a question and its answer, about.
pub const TRIP_BYTES: usize = 150;

/// A side beyond the network: questions and answers go through their packed form, and are counted.
pub struct Remote<'a> {
    pub side: &'a mut dyn Summaries,
    pub trips: usize,
    pub bytes: usize,
    pub log: Vec<(&'static str, usize)>,
}

impl<'a> Remote<'a> {
    pub fn new(side: &'a mut dyn Summaries) -> Self {
        Remote { side, trips: 0, bytes: 0, log: Vec::new() }
    }

    fn count(&mut self, what: &'static str, question: &[PositionRange], answer: &[u8]) {
        assert_eq!(read_ranges(&pack_ranges(question)).as_deref(), Ok(question));
        let bytes = pack_ranges(question).len() + answer.len();
        self.trips += 1;
        self.bytes += bytes + TRIP_BYTES;
        self.log.push((what, bytes));
    }
}

impl Summaries for Remote<'_> {
    fn range_manifest(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        let bytes = pack_summaries(&self.side.range_manifest(table, ranges, most)?);
        self.count("range manifest", ranges, &bytes);
        Ok(read_summaries(&bytes).expect("summaries"))
    }

    fn summaries(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        let bytes = pack_summaries(&self.side.summaries(table, ranges)?);
        self.count("summaries", ranges, &bytes);
        Ok(read_summaries(&bytes).expect("summaries"))
    }

    fn sketch(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        first: u32,
        symbols: u32,
    ) -> Outcome<Vec<u8>> {
        let bytes = self.side.sketch(table, ranges, first, symbols)?;
        self.count("sketch", ranges, &bytes);
        Ok(bytes)
    }

    fn items(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        let bytes = pack_items(&self.side.items(table, ranges)?);
        self.count("items", ranges, &bytes);
        Ok(read_items(&bytes).expect("items"))
    }
}

/// Whether what was found is the true difference, below the position where it was cut short.
pub fn assert_exact(found: &Found, local: &[ShortItem], remote: &[ShortItem], context: &str) {
    let below = |item: &ShortItem| found.end.is_none_or(|end| item.position < end);
    let (mut local_only, mut remote_only) = difference(local, remote);
    local_only.retain(below);
    remote_only.retain(below);
    assert_eq!(found.local_only, local_only, "{context}: rows of the local side alone");
    assert_eq!(found.remote_only, remote_only, "{context}: rows of the remote side alone");
}
