//! What the local side tells of its rows. A row that no encoding holds counts as one whose digest is nothing but zeros: the
//! server has none like it.
//!
//! Where no index leads to positions, each question reads all rows. There the rows of ranges that were asked about as a
//! whole are kept, where they are few, and the questions about parts of them that follow are answered from these.

use std::collections::{HashMap, HashSet};

use plimsoll_core::digest::RowDigest;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::leaves::Leaves;
use plimsoll_core::manifest::{Item, KeyedItem};
use plimsoll_core::ranges::{RangeSummary, choose, in_equal_parts};
use plimsoll_core::short::ShortItem;
use plimsoll_core::sketch::Sketch;
use plimsoll_core::store::{BadRow, Outcome, PositionRange, RangeHeld, SourceWindow, Summaries, TableId};

use super::{LocalTarget, local_key};
use crate::failure::table as refused;
use crate::source::write::RowSeen;

/// Rows that are kept at most: somewhat more than are compared one by one at a time.
const MOST_KEPT: u64 = 400_000;
/// Rows that are read at a time.
const PAGE: u64 = 100_000;
/// Leaves for each range that is asked for, before they are joined to ranges of about equal row count.
const LEAVES_A_RANGE: usize = 4;

/// Rows of ranges of a table.
#[derive(Debug)]
pub struct Kept {
    table: TableId,
    ranges: Vec<PositionRange>,
    /// In order.
    items: Vec<Item>,
}

/// What a range holds, rows that no encoding holds among the others.
pub(super) fn held(range: &RangeHeld) -> Fingerprint {
    Fingerprint::from_parts(range.rows.row_count() + range.bad, range.rows.sum())
}

/// Where a row that no encoding holds stands among the others.
fn item_of(bad: &BadRow) -> Item {
    Item { position: bad.position.unwrap_or(i64::MIN), digest: RowDigest([0; 32]) }
}

fn items_of(window: SourceWindow) -> impl Iterator<Item = Item> {
    let mut items = window.items;
    items.extend(window.bad.iter().map(item_of));
    items.sort_unstable();
    items.into_iter()
}

/// Adds items up, each of them counted.
fn sum<'i>(items: impl Iterator<Item = &'i Item>) -> Fingerprint {
    let (mut sum, mut bad) = (Fingerprint::default(), 0);
    for item in items {
        match item.digest.0 == [0; 32] {
            true => bad += 1,
            false => sum.insert(&item.digest),
        }
    }
    Fingerprint::from_parts(sum.row_count() + bad, sum.sum())
}

fn within(items: &[Item], range: PositionRange) -> &[Item] {
    let begin = range.from.map_or(0, |from| items.partition_point(|item| item.position < from));
    let end = range.to.map_or(items.len(), |to| items.partition_point(|item| item.position < to));
    items.get(begin..end).unwrap_or_default()
}

/// The share of the axis that ranges take.
fn share(ranges: &[PositionRange]) -> f64 {
    let length = |range: &PositionRange| {
        let end = range.to.map_or(i128::from(i64::MAX) + 1, i128::from);
        (end - i128::from(range.from.unwrap_or(i64::MIN))) as f64
    };
    ranges.iter().map(length).sum::<f64>() / 2f64.powi(64)
}

impl Kept {
    fn covers(&self, table: TableId, ranges: &[PositionRange]) -> bool {
        let begins = |own: &PositionRange, range: &PositionRange| {
            own.from.is_none() || range.from.is_some_and(|from| own.from.is_some_and(|own| own <= from))
        };
        let ends = |own: &PositionRange, range: &PositionRange| {
            own.to.is_none() || range.to.is_some_and(|to| own.to.is_some_and(|own| to <= own))
        };
        let covers = |range: &PositionRange| {
            let at = self
                .ranges
                .partition_point(|own| own.to.is_some_and(|to| range.from.is_some_and(|from| to <= from)));
            self.ranges.get(at).is_some_and(|own| begins(own, range) && ends(own, range))
        };
        self.table == table && ranges.iter().all(covers)
    }
}

impl LocalTarget<'_> {
    /// What ranges hold, as they are now.
    pub(super) fn sums(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<Fingerprint>> {
        if self.read_few(table, ranges)?
            && let Some(kept) = &self.kept
        {
            return Ok(ranges.iter().map(|range| sum(within(&kept.items, *range).iter())).collect());
        }
        self.tell_of_pass(table);
        Ok(self.store.fingerprints(table, &opened(ranges))?.iter().map(held).collect())
    }

    /// Says that all rows of a table are read, where no index leads to those that are asked about.
    pub(super) fn tell_of_pass(&self, table: TableId) {
        if self.is_scanned(table) {
            tracing::trace!("all rows of \"{}\" are read", self.name(table));
        }
    }

    /// Reads the rows of ranges and keeps them, where all rows are read for it and these are few.
    fn read_few(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<bool> {
        self.kept = None;
        let known = self.table(table)?;
        let about = known.rows as f64 * share(ranges);
        if !known.is_scanned || about > MOST_KEPT as f64 / 2.0 {
            return Ok(false);
        }
        // Ranges that meet are one: those of a window do not.
        let mut joined: Vec<PositionRange> = Vec::with_capacity(ranges.len());
        for range in opened(ranges) {
            match joined.last_mut() {
                Some(last) if last.to.is_some() && last.to == range.from => last.to = range.to,
                _ => joined.push(range),
            }
        }
        self.tell_of_pass(table);
        let windows = self.store.windows(table, &joined, MOST_KEPT)?;
        let is_whole = windows.len() == joined.len()
            && windows.iter().zip(&joined).all(|(window, range)| window.range == *range);
        if !is_whole {
            return Ok(false);
        }
        let mut items: Vec<Item> = windows.into_iter().flat_map(items_of).collect();
        items.sort_unstable();
        self.kept = Some(Kept { table, ranges: joined, items });
        Ok(true)
    }

    /// The rows of ranges, which ascend and do not meet, handed over by ascending position.
    fn each_item(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        each: &mut dyn FnMut(&Item),
    ) -> Outcome<()> {
        if let Some(kept) = self.kept.as_ref().filter(|kept| kept.covers(table, ranges)) {
            ranges.iter().for_each(|range| within(&kept.items, *range).iter().for_each(&mut *each));
            return Ok(());
        }
        let page = if self.table(table)?.is_scanned { u64::MAX } else { PAGE };
        let mut rest = opened(ranges);
        while !rest.is_empty() {
            self.tell_of_pass(table);
            let windows = self.store.windows(table, &rest, page)?;
            if windows.is_empty() {
                return Err(refused("the rows of a range are missing"));
            }
            let mut done = 0;
            for (window, range) in windows.into_iter().zip(&mut rest) {
                match window.range.to {
                    to if to == range.to => done += 1,
                    to => range.from = to,
                }
                items_of(window).for_each(|item| each(&item));
            }
            rest.drain(..done);
        }
        Ok(())
    }

    /// Position, digest and key of the rows that short items stand for.
    pub(super) fn keyed(&mut self, table: TableId, items: &[ShortItem]) -> Outcome<Vec<KeyedItem>> {
        // What is deleted is looked at anew.
        self.kept = None;
        let mut wanted: HashMap<ShortItem, usize> = HashMap::with_capacity(items.len());
        items.iter().for_each(|item| *wanted.entry(*item).or_default() += 1);
        let positions: HashSet<i64> = items.iter().map(|item| item.position).collect();
        let mut positions: Vec<i64> = positions.into_iter().collect();
        positions.sort_unstable();
        let ranges = points(&positions);
        let mut found = Vec::with_capacity(items.len());
        self.tell_of_pass(table);
        self.store.look(&mut |look| {
            // It may be looked at again.
            let mut wanted = wanted.clone();
            found.clear();
            look.rows(table, &ranges, &mut |row| {
                let (item, key) = match row {
                    RowSeen::Row(row) => (row.item, row.key.clone()),
                    RowSeen::Bad(bad) => (item_of(bad), local_key::put(&bad.key)),
                };
                if let Some(left) = wanted.get_mut(&ShortItem::from(&item)).filter(|left| **left > 0) {
                    *left -= 1;
                    found.push(KeyedItem { item, key });
                }
                Ok(())
            })
        })?;
        Ok(found)
    }

    /// Divides ranges by the rows in them, of a table in which these come in order.
    fn divided(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        most: usize,
    ) -> Outcome<Vec<RangeSummary>> {
        let mut parts = Vec::new();
        for range in ranges {
            let mut leaves = Leaves::new(LEAVES_A_RANGE * most);
            let mut bad: Vec<i64> = Vec::new();
            self.each_item(table, &[*range], &mut |item| match item.digest.0 == [0; 32] {
                true => bad.push(item.position),
                false => leaves.insert(item.position, &item.digest),
            })?;
            let leaves = leaves.finish();
            let mut rest = leaves.iter().peekable();
            for part in choose(&leaves, *range, most) {
                let mut own = Fingerprint::default();
                while let Some((_, sum)) =
                    rest.next_if(|(leaf, _)| part.to.is_none_or(|to| leaf.first() < to))
                {
                    own.combine(sum);
                }
                let bad = bad.iter().filter(|position| part.contains(**position)).count() as u64;
                let own = Fingerprint::from_parts(own.row_count() + bad, own.sum());
                parts.push(RangeSummary::new(part, &own));
            }
        }
        Ok(parts)
    }
}

/// The same ranges, where one that begins at the lowest position is open below: rows that stand nowhere are there.
fn opened(ranges: &[PositionRange]) -> Vec<PositionRange> {
    let open =
        |range: &PositionRange| PositionRange { from: range.from.filter(|from| *from != i64::MIN), ..*range };
    ranges.iter().map(open).collect()
}

/// These positions, which ascend, each as a range.
fn points(positions: &[i64]) -> Vec<PositionRange> {
    let range = |position: &i64| PositionRange { from: Some(*position), to: position.checked_add(1) };
    opened(&positions.iter().map(range).collect::<Vec<_>>())
}

impl Summaries for LocalTarget<'_> {
    fn range_manifest(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        let most = (most as usize).max(1);
        if !self.table(table)?.shape.hashed {
            return self.divided(table, ranges, most);
        }
        // Rows stand at hashes: ranges of equal length hold about as many.
        let parts = 1usize << most.ilog2();
        let divided: Vec<PositionRange> =
            ranges.iter().flat_map(|range| in_equal_parts(*range, parts)).collect();
        let sums = match self.kept.as_ref().filter(|kept| kept.covers(table, ranges)) {
            Some(kept) => divided.iter().map(|range| sum(within(&kept.items, *range).iter())).collect(),
            None => self.sums(table, &divided)?,
        };
        Ok(divided.iter().zip(sums).map(|(range, sum)| RangeSummary::new(*range, &sum)).collect())
    }

    fn summaries(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        let sums = self.sums(table, ranges)?;
        Ok(ranges.iter().zip(sums).map(|(range, sum)| RangeSummary::new(*range, &sum)).collect())
    }

    fn sketch(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        first: u32,
        symbols: u32,
    ) -> Outcome<Vec<u8>> {
        let mut sketch =
            Sketch::new(ranges, first, symbols).map_err(|error| refused(error.message().to_owned()))?;
        self.each_item(table, ranges, &mut |item| sketch.add(&ShortItem::from(item)))?;
        Ok(sketch.pack())
    }

    fn items(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        let mut items = Vec::new();
        self.each_item(table, ranges, &mut |item| items.push(ShortItem::from(item)))?;
        Ok(items)
    }
}
