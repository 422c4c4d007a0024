//! Reading in order: batches, windows, and what the index alone answers.
//!
//! A row whose version is NULL or no version stands nowhere on the axis. Batches and windows skip it; the
//! window that begins at the open end reports all such rows (the first [`MOST_MISPLACED`] of them).

use std::ops::ControlFlow;
use std::time::Instant;

use plimsoll_core::digest::RowDigest;
use plimsoll_core::manifest::Item;
use plimsoll_core::store::{
    BadRow, BatchLimit, Cursor, PositionRange, ROW_ROOM, SourceBatch, SourceRecord, SourceWindow,
};

use super::encode::{Digests, Encoded};
use super::{Clock, Reader, Step, Trouble, all_rows, cursor};
use crate::failure::table as refused;
use crate::source::kind::{Kind, LocalRow, Scratch};
use crate::source::query::{Condition, Order, Query, Select};

/// In place of a digest that is made together with others.
pub(super) const TO_COME: RowDigest = RowDigest([0; 32]);
/// The most rows without a position that are reported.
pub(super) const MOST_MISPLACED: usize = 10_000;

/// Puts the digests that are due into their rows.
fn add_digests(digests: &mut Digests, batch: &mut SourceBatch) {
    digests.take(|number, digest| {
        if let Some(SourceRecord::Row(row)) = batch.records.get_mut(number) {
            row.item.digest = digest;
        }
    });
}

impl<K: Kind> Reader<'_, K> {
    /// The position of the row that has `skipped` rows above it, below `beyond`.
    pub(super) fn position_from_end(&mut self, beyond: Option<i64>, skipped: u64) -> Step<Option<i64>> {
        let Some(version) = self.plan.schema.version().filter(|_| self.plan.version_place().is_some()) else {
            return Ok(None);
        };
        let query = Query {
            select: Select::Version,
            condition: Condition::At(PositionRange { from: None, to: beyond }),
            order: Order::VersionDown,
            skip: skipped,
            expected: Some(1),
            ..all_rows(self.table, self.plan)
        };
        let (mut position, mut scratch) = (None, Scratch::default());
        self.each(&query, |_, row| {
            position = row.position(0, &version.column_type, &mut scratch);
            // The first whose row has one.
            Ok(if position.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(position)
    }

    pub(super) fn read_batch(&mut self, after: Option<&Cursor>, limit: BatchLimit) -> Step<SourceBatch> {
        let mark = self.kind.order_mark(self.table, self.plan)?;
        let is_ordered = self.plan.version_place().is_some();
        let everything = if is_ordered { Condition::At(PositionRange::ALL) } else { Condition::All };
        match after {
            None => self.batch(everything, after, limit, mark),
            // Beyond all rows of a position; where rows come in no such order, nothing is.
            Some(Cursor { position, key: None }) => match PositionRange::beyond(*position) {
                Some(range) if is_ordered => self.batch(Condition::At(range), after, limit, mark),
                _ => Ok(SourceBatch::default()),
            },
            Some(&Cursor { position, key: Some(ref bytes) }) => {
                let place =
                    cursor::read(bytes, self.plan).ok_or_else(|| refused("a cursor of another table"))?;
                let condition = match (place.mark == mark, is_ordered) {
                    (true, _) => Condition::Behind {
                        version: place.version.as_ref().map(|version| (position, version)),
                        order: &place.order,
                        or_there: self.plan.shares_places,
                    },
                    // Rows of the position stood in another order then: they all come again.
                    (false, true) => Condition::At(PositionRange::starting_at(position)),
                    (false, false) => everything,
                };
                self.batch(condition, after, limit, mark)
            }
        }
    }

    /// How many rows are asked for to fill a batch: one more than may be in it, which tells whether there are any. Where
    /// all of them would be read, no more than will fit, as far as earlier rows tell: a batch that gets too few ends there,
    /// and the next goes on.
    fn rows_to_ask_for(&self, limit: BatchLimit) -> u64 {
        let most = (limit.rows as u64).saturating_add(1);
        if !self.kind.reads_what_was_asked() {
            return most;
        }
        let fit = match *self.row_bytes {
            0 => FIRST_ROWS,
            bytes => limit.bytes / bytes,
        } as u64;
        most.min(fit + fit / 16 + 2)
    }

    fn batch(
        &mut self,
        condition: Condition<'_>,
        after: Option<&Cursor>,
        limit: BatchLimit,
        mark: u8,
    ) -> Step<SourceBatch> {
        let plan = self.plan;
        let is_ordered = plan.version_place().is_some();
        // Of rows that share a place, those read before are passed over.
        let is_there = matches!(condition, Condition::Behind { or_there: true, .. });
        let mut place = after.filter(|_| is_there).and_then(|cursor| cursor.key.clone()).unwrap_or_default();
        let mut copies = cursor::read(&place, plan).map_or(0, |place| place.copies);
        let most = self.rows_to_ask_for(limit);
        let query = Query {
            condition,
            order: Order::Reading,
            skip: copies,
            limit: Some(most),
            expected: Some(most),
            ..all_rows(self.table, plan)
        };
        let mut batch = SourceBatch { records: Vec::with_capacity(limit.rows.min(MOST_ROOM)), next: None };
        let mut last = after.map_or(i64::MIN, |cursor| cursor.position);
        let (mut before, mut clock) = (Vec::new(), Clock::start(self.snapshot));
        let (mut bytes, mut rows, mut is_whole) = (0, 0u64, true);
        let mut digests = self.encoder.digests();
        self.each(&query, |encoder, row| {
            let is_late = clock.is_late();
            let is_full = batch.records.len() >= limit.rows || bytes >= limit.bytes || is_late;
            if is_full && !batch.records.is_empty() {
                is_whole = false;
                return Ok(ControlFlow::Break(()));
            }
            let record = match encoder.encode(plan, row) {
                Encoded::Good(position) => {
                    SourceRecord::Row(encoder.take_row(Item { position, digest: TO_COME }))
                }
                Encoded::Bad(bad) => SourceRecord::Bad(Box::new(bad)),
            };
            let (position, length) = match &record {
                SourceRecord::Row(row) => (Some(row.item.position), row.row.len()),
                SourceRecord::Bad(bad) => (bad.position, bad.key_text.len()),
            };
            let length = length + ROW_ROOM;
            if bytes + length > limit.bytes && !batch.records.is_empty() {
                is_whole = false;
                return Ok(ControlFlow::Break(()));
            }
            rows += 1;
            if plan.shares_places {
                cursor::set_copies(&mut place, 1);
                std::mem::swap(&mut before, &mut place);
                cursor::write(&mut place, mark, plan, row);
                copies = if place == before { copies + 1 } else { 1 };
            } else {
                cursor::write(&mut place, mark, plan, row);
            }
            match position {
                Some(position) if is_ordered && position < last => return Err(Trouble::Disorder),
                Some(position) => last = position,
                // A row that stands nowhere is reported by the window at the open end.
                None => return Ok(ControlFlow::Continue(())),
            }
            bytes += length;
            let is_good = matches!(record, SourceRecord::Row(_));
            batch.records.push(record);
            if is_good && encoder.queue(&mut digests, batch.records.len() - 1) {
                add_digests(&mut digests, &mut batch);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        add_digests(&mut digests, &mut batch);
        if !batch.records.is_empty() {
            *self.row_bytes = bytes / batch.records.len() + 1;
        }
        if !is_whole || rows >= most {
            if plan.shares_places {
                cursor::set_copies(&mut place, copies);
            }
            batch.next = Some(Cursor { position: last, key: Some(place) });
        }
        Ok(batch)
    }

    pub(super) fn window(&mut self, range: PositionRange, wanted: u64) -> Step<SourceWindow> {
        if !self.kind.finds_positions(self.table, self.plan)? {
            let mut windows = self.scan_windows(&[range], wanted)?;
            return Ok(windows.pop().unwrap_or(SourceWindow { range, ..SourceWindow::default() }));
        }
        let plan = self.plan;
        let mut window = SourceWindow { range, ..SourceWindow::default() };
        if range.from.is_none() {
            window.bad = self.misplaced()?;
        }
        let query = Query {
            condition: Condition::At(range),
            order: Order::Version,
            expected: Some(wanted.saturating_add(1)),
            ..all_rows(self.table, plan)
        };
        let (mut covered, mut last, mut clock) = (0u64, i64::MIN, Clock::start(self.snapshot));
        let mut digests = self.encoder.digests();
        self.each(&query, |encoder, row| {
            let encoded = encoder.encode(plan, row);
            let position = match &encoded {
                Encoded::Good(position) => *position,
                Encoded::Bad(bad) => match bad.position {
                    Some(position) => position,
                    None => return Ok(ControlFlow::Continue(())),
                },
            };
            if position < last || !range.contains(position) {
                return Err(Trouble::Disorder);
            }
            let is_late = clock.is_late();
            if covered > 0 && position > last && (covered >= wanted || is_late) {
                window.range.to = Some(position);
                return Ok(ControlFlow::Break(()));
            }
            covered += 1;
            last = position;
            match encoded {
                Encoded::Good(position) => {
                    window.items.push(Item { position, digest: TO_COME });
                    if encoder.queue(&mut digests, window.items.len() - 1) {
                        digests.take(|number, digest| window.items[number].digest = digest);
                    }
                }
                Encoded::Bad(bad) => window.bad.push(bad),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        digests.take(|number, digest| window.items[number].digest = digest);
        Ok(window)
    }

    /// The windows of ranges that ascend and do not meet. Without an index to find them by, all rows are gone through
    /// once, in whatever order they come, instead of once for each range.
    pub(super) fn windows(&mut self, ranges: &[PositionRange], wanted: u64) -> Step<Vec<SourceWindow>> {
        if !self.kind.finds_positions(self.table, self.plan)? {
            return self.scan_windows(ranges, wanted);
        }
        let mut windows: Vec<SourceWindow> = Vec::with_capacity(ranges.len());
        let (mut left, started) = (wanted.max(1), Instant::now());
        for range in ranges {
            let window = self.window(*range, left)?;
            left = left.saturating_sub(window.rows());
            windows.push(window);
            if left == 0
                || started.elapsed() > self.snapshot
                || windows.last().map(|last| last.range) != Some(*range)
            {
                break;
            }
        }
        Ok(windows)
    }

    /// The rows that stand nowhere, of a table whose rows stand at their version.
    pub(super) fn misplaced(&mut self) -> Step<Vec<BadRow>> {
        let plan = self.plan;
        let query = Query {
            condition: Condition::Misplaced,
            limit: Some(MOST_MISPLACED as u64),
            ..all_rows(self.table, plan)
        };
        let mut found = Vec::new();
        self.each(&query, |encoder, row| {
            if let Encoded::Bad(bad) = encoder.encode(plan, row) {
                found.push(bad);
            }
            let is_enough = found.len() >= MOST_MISPLACED;
            Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }
}

/// Rows that are asked for before it is known how large they are.
const FIRST_ROWS: usize = 1_000;
/// Room for more records than this is made when they come.
const MOST_ROOM: usize = 100_000;
