//! Reading all rows in one pass, where no index finds those that are wanted: rows that stand at a hash, and versions
//! without an index.

use std::ops::ControlFlow;

use plimsoll_core::manifest::Item;
use plimsoll_core::store::{BadRow, PositionRange, RangeHeld, SourceWindow};

use super::encode::{Digests, Encoded, Encoder, put_order};
use super::read::{MOST_MISPLACED, TO_COME};
use super::{Clock, Reader, Step, Trouble, all_rows};
use crate::source::kind::Kind;
use crate::source::query::{Condition, Order, Query, RawValue, read_raw};

/// Fewer rows than this are kept whatever was asked for.
const FEW_ROWS: usize = 1024;

impl<K: Kind> Reader<'_, K> {
    /// Goes through all rows in any order until `work` breaks or fails. Where a long snapshot holds up those who write it
    /// is let go now and then: what changes meanwhile is seen before or after.
    pub(super) fn each_of_all(
        &mut self,
        mut work: impl FnMut(&mut Encoder, &K::Row<'_>) -> Step<ControlFlow<()>>,
    ) -> Step<()> {
        let (table, plan) = (self.table, self.plan);
        let by_row_id = plan.by_row_id().filter(|_| self.kind.holds_up_writers());
        let Some(plan) = by_row_id else { return self.each(&all_rows(table, plan), work) };
        let mut last: Option<Vec<RawValue>> = None;
        loop {
            let condition = match &last {
                None => Condition::All,
                Some(order) => Condition::Behind { version: None, order, or_there: false },
            };
            let query = Query { condition, order: Order::Reading, ..all_rows(table, &plan) };
            let (mut clock, mut raw) = (Clock::start(self.snapshot), Vec::new());
            self.each(&query, |encoder, row| {
                let flow = work(encoder, row)?;
                if clock.is_late() && flow.is_continue() {
                    put_order(&plan, row, &mut raw);
                    return Ok(ControlFlow::Break(()));
                }
                Ok(flow)
            })?;
            if raw.is_empty() {
                return Ok(());
            }
            last = read_raw(&raw);
            self.kind.end();
            self.kind.begin()?;
        }
    }

    /// The windows of ranges that ascend and do not meet, from one pass over all rows. Of more rows than about twice
    /// those wanted, only the lowest positions' are kept: memory does not grow with the table.
    pub(super) fn scan_windows(&mut self, ranges: &[PositionRange], wanted: u64) -> Step<Vec<SourceWindow>> {
        let plan = self.plan;
        let mut sieve = Sieve::new(ranges, wanted);
        let reports_misplaced = ranges.first().is_some_and(|range| range.from.is_none());
        let mut misplaced = Vec::new();
        let mut digests = self.encoder.digests();
        self.each_of_all(|encoder, row| {
            // What is outside the ranges need not be encoded.
            match encoder.position(plan, row) {
                Some(position) if !sieve.wants(position) => return Ok(ControlFlow::Continue(())),
                None if !reports_misplaced || misplaced.len() >= MOST_MISPLACED => {
                    return Ok(ControlFlow::Continue(()));
                }
                _ => {}
            }
            match encoder.encode(plan, row) {
                Encoded::Good(position) => {
                    sieve.items.push(Item { position, digest: TO_COME });
                    if encoder.queue(&mut digests, sieve.items.len() - 1) {
                        sieve.settle(&mut digests);
                    }
                }
                Encoded::Bad(bad) => match bad.position {
                    Some(position) => sieve.bad.push((position, bad)),
                    None => misplaced.push(bad),
                },
            }
            if sieve.is_full() {
                sieve.settle(&mut digests);
                sieve.sift();
            }
            Ok(ControlFlow::Continue(()))
        })?;
        sieve.settle(&mut digests);
        let mut windows = sieve.into_windows();
        if let Some(first) = windows.first_mut() {
            first.bad.append(&mut misplaced);
        }
        Ok(windows)
    }

    /// What ranges hold that ascend and may meet. No row is kept. Without an index to find them by, all rows are gone
    /// through once.
    pub(super) fn fingerprints(&mut self, ranges: &[PositionRange]) -> Step<Vec<RangeHeld>> {
        let (table, plan) = (self.table, self.plan);
        let mut held = vec![RangeHeld::default(); ranges.len()];
        let open_below = ranges.iter().position(|range| range.from.is_none());
        let is_found = self.kind.finds_positions(table, plan)?;
        let is_whole = joined(ranges) == [PositionRange::ALL];
        let mut digests = self.encoder.digests();
        let mut take = |encoder: &mut Encoder, row: &K::Row<'_>| {
            // What is outside the ranges need not be encoded.
            if !is_found && !is_whole {
                let position = encoder.position(plan, row);
                if position.map_or(open_below, |position| place_of(ranges, position)).is_none() {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            match encoder.encode(plan, row) {
                Encoded::Good(position) => {
                    let Some(place) = place_of(ranges, position) else { return Err(Trouble::Disorder) };
                    if encoder.queue(&mut digests, place) {
                        digests.take(|place, digest| held[place].rows.insert(&digest));
                    }
                }
                Encoded::Bad(bad) => {
                    let place = bad.position.map_or(open_below, |position| place_of(ranges, position));
                    // Those that stand nowhere are counted by themselves where an index finds the others.
                    if let Some(place) = place.filter(|_| !is_found || bad.position.is_some()) {
                        held[place].bad += 1;
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        match is_found {
            true => {
                for range in joined(ranges) {
                    let query = Query { condition: Condition::At(range), ..all_rows(table, plan) };
                    self.each(&query, &mut take)?;
                }
            }
            false => self.each_of_all(&mut take)?,
        }
        digests.take(|place, digest| held[place].rows.insert(&digest));
        if let Some(place) = open_below.filter(|_| is_found) {
            held[place].bad += self.misplaced()?.len() as u64;
        }
        Ok(held)
    }
}

/// Ranges one after the other that meet, as one.
pub(super) fn joined(ranges: &[PositionRange]) -> Vec<PositionRange> {
    let mut joined: Vec<PositionRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.to.is_some() && last.to == range.from => last.to = range.to,
            _ => joined.push(*range),
        }
    }
    joined
}

/// The place of the range that a position is in, among ranges that ascend.
pub(super) fn place_of(ranges: &[PositionRange], position: i64) -> Option<usize> {
    let at = ranges.partition_point(|range| range.to.is_some_and(|to| to <= position));
    ranges.get(at).filter(|range| range.contains(position)).map(|_| at)
}

/// Rows of some ranges, of which the lowest are kept.
struct Sieve<'r> {
    ranges: &'r [PositionRange],
    wanted: usize,
    /// Sifted when it holds so many rows.
    room: usize,
    /// Nothing is kept from here on.
    cut: Option<i64>,
    items: Vec<Item>,
    bad: Vec<(i64, BadRow)>,
}

impl<'r> Sieve<'r> {
    fn new(ranges: &'r [PositionRange], wanted: u64) -> Self {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).max(1);
        let room = wanted.saturating_mul(2).max(FEW_ROWS);
        Sieve { ranges, wanted, room, cut: None, items: Vec::new(), bad: Vec::new() }
    }

    fn wants(&self, position: i64) -> bool {
        self.cut.is_none_or(|cut| position < cut) && place_of(self.ranges, position).is_some()
    }

    fn settle(&mut self, digests: &mut Digests) {
        digests.take(|number, digest| self.items[number].digest = digest);
    }

    fn is_full(&self) -> bool {
        self.items.len() + self.bad.len() >= self.room
    }

    /// Drops what lies beyond the rows that are wanted; whole positions stay.
    fn sift(&mut self) {
        let mut positions: Vec<i64> = self.items.iter().map(|item| item.position).collect();
        positions.extend(self.bad.iter().map(|(position, _)| *position));
        let before = positions.len();
        let (_, last, _) = positions.select_nth_unstable(self.wanted.min(before) - 1);
        if let Some(cut) = last.checked_add(1) {
            self.cut = Some(cut);
            self.items.retain(|item| item.position < cut);
            self.bad.retain(|(position, _)| *position < cut);
        }
        // Where one position holds most of them there is nothing to drop.
        if self.items.len() + self.bad.len() > before / 4 * 3 {
            self.room = self.room.saturating_mul(2);
        }
    }

    /// The windows up to the cut.
    fn into_windows(mut self) -> Vec<SourceWindow> {
        self.items.sort_unstable();
        self.bad.sort_by_key(|(position, _)| *position);
        let (mut items, mut bad) = (self.items.into_iter().peekable(), self.bad.into_iter().peekable());
        let mut windows = Vec::with_capacity(self.ranges.len());
        for range in self.ranges {
            let mut range = *range;
            let is_cut = self.cut.is_some_and(|cut| range.to.is_none_or(|to| cut < to));
            if let Some(cut) = self.cut.filter(|_| is_cut) {
                // Of what begins beyond the cut nothing is known.
                if range.from.is_some_and(|from| cut <= from) {
                    break;
                }
                range.to = Some(cut);
            }
            let mut window = SourceWindow { range, ..SourceWindow::default() };
            while let Some(item) = items.next_if(|item| range.contains(item.position)) {
                window.items.push(item);
            }
            while let Some((_, row)) = bad.next_if(|(position, _)| range.contains(*position)) {
                window.bad.push(row);
            }
            windows.push(window);
            if is_cut {
                break;
            }
        }
        windows
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::digest::RowDigest;

    use super::*;

    /// Windows of rows at these positions, whatever order they come in.
    fn windows(ranges: &[PositionRange], wanted: u64, positions: &[i64]) -> Vec<(PositionRange, Vec<i64>)> {
        let mut sieve = Sieve::new(ranges, wanted);
        sieve.room = 4;
        for position in positions {
            if sieve.wants(*position) {
                sieve.items.push(Item { position: *position, digest: RowDigest([0; 32]) });
            }
            if sieve.is_full() {
                sieve.sift();
            }
        }
        let shown = |window: SourceWindow| {
            (window.range, window.items.iter().map(|item| item.position).collect::<Vec<_>>())
        };
        sieve.into_windows().into_iter().map(shown).collect()
    }

    #[test]
    fn the_lowest_positions_stay_whole() {
        let range = |from, to| PositionRange { from, to };
        let positions: Vec<i64> = (0..100).map(|i| i * 37 % 100 / 2).collect();
        let all = windows(&[PositionRange::ALL], 3, &positions);
        let (covered, found) = &all[0];
        let end = covered.to.expect("cut");
        let mut expected: Vec<i64> = positions.iter().copied().filter(|position| *position < end).collect();
        expected.sort_unstable();
        assert_eq!(*found, expected);
        assert!((3..=12).contains(&found.len()), "{found:?}");
        // One position that holds all rows is read whole; and so is the last there can be.
        assert_eq!(windows(&[PositionRange::ALL], 1, &[7; 50]).pop().expect("one").1.len(), 50);
        let top = windows(&[range(Some(0), None)], 1, &[i64::MAX; 50]);
        assert_eq!(top, [(range(Some(0), None), vec![i64::MAX; 50])]);
        // What begins beyond the cut is left out.
        let two = windows(&[range(Some(0), Some(40)), range(Some(45), None)], 3, &positions);
        assert_eq!(two.len(), 1);
        let few = windows(&[range(None, Some(2)), range(Some(45), Some(46))], 100, &[1, 45, 1]);
        assert_eq!(few, [(range(None, Some(2)), vec![1, 1]), (range(Some(45), Some(46)), vec![45])]);
    }
}
