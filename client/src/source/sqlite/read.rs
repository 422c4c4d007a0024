//! Reading in order of position: batches, windows, and what the index alone answers.
//!
//! A row whose version is NULL or no version stands nowhere on the axis. Batches and windows skip it; the
//! window that begins at the open end reports all such rows (the first [`MOST_MISPLACED`] of them).

use std::time::{Duration, Instant};

use plimsoll_core::digest::RowDigest;
use plimsoll_core::manifest::Item;
use plimsoll_core::store::{BatchLimit, Cursor, PositionRange, SourceBatch, SourceRecord, SourceWindow};
use rusqlite::types::{Value as Owned, ValueRef};
use rusqlite::{Params, Row, Statement, params_from_iter};

use super::axis::Axis;
use super::encode::{Digests, Encoded, value_at};
use super::raw::{RawValue, put_raw, read_raw};
use super::schema::quoted;
use super::{Reader, Step, Trouble};
use crate::failure::table as refused;

/// How long a read may hold its snapshot before it ends where it is.
const SNAPSHOT: Duration = Duration::from_millis(1500);
/// Rows between two looks at the clock.
const CLOCK_ROWS: u64 = 256;
/// In place of a digest that is made together with others.
const TO_COME: RowDigest = RowDigest([0; 32]);
/// The most rows without a position that are reported.
const MOST_MISPLACED: usize = 10_000;

/// A value that a statement compares with.
pub(super) enum Bound {
    /// Made from a position.
    Made(Owned),
    /// Read from a row before.
    Read(RawValue),
}

impl rusqlite::ToSql for Bound {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Bound::Made(value) => value.to_sql(),
            Bound::Read(value) => value.to_sql(),
        }
    }
}

/// Puts the digests that are due into their rows.
fn add_digests(digests: &mut Digests, batch: &mut SourceBatch) {
    digests.take(|number, digest| {
        if let Some(SourceRecord::Row(row)) = batch.records.get_mut(number) {
            row.item.digest = digest;
        }
    });
}

impl Reader<'_> {
    /// The table and version column as statements name them.
    pub(super) fn names(&self) -> (String, String) {
        (format!("main.{}", quoted(&self.plan.table)), self.axis.expression(self.plan.version_column()))
    }

    /// Whether ranges of positions are found by an index.
    pub(super) fn has_index(&self) -> bool {
        self.plan.indexed && *self.axis != Axis::Computed
    }

    /// `key columns in their order`, each preceded by a comma.
    fn key_list(&self) -> String {
        self.plan.key_columns().map(|name| format!(", {}", quoted(name))).collect()
    }

    pub(super) fn conditions(&self, range: PositionRange) -> (String, Vec<Bound>) {
        let (_, version) = self.names();
        let mut sql = Vec::new();
        let mut bounds = Vec::new();
        for (sign, end) in [(">=", range.from), ("<", range.to)] {
            if let Some(position) = end {
                bounds.push(Bound::Made(self.axis.bound(position)));
                sql.push(format!("{version} {sign} ?{}", bounds.len()));
            }
        }
        (if sql.is_empty() { "1".to_owned() } else { sql.join(" AND ") }, bounds)
    }

    fn position(&self, row: &Row<'_>, place: usize) -> Step<Option<i64>> {
        Ok(self.plan.version_kind.position(value_at(row, place)?))
    }

    /// The first position that a statement answers whose row has one.
    fn first_position(&self, statement: &mut Statement<'_>, parameters: impl Params) -> Step<Option<i64>> {
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            if let Some(position) = self.position(row, 0)? {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    pub(super) fn max_position(&mut self) -> Step<Option<i64>> {
        self.position_from_end(None, 0)
    }

    pub(super) fn tail_start(&mut self, upto: i64, rows: u64) -> Step<Option<i64>> {
        self.position_from_end(upto.checked_add(1), rows.saturating_sub(1))
    }

    /// The position of the row that has `skipped` rows above it, below `beyond`.
    fn position_from_end(&mut self, beyond: Option<i64>, skipped: u64) -> Step<Option<i64>> {
        let (table, version) = self.names();
        let (condition, mut bounds) = self.conditions(PositionRange { from: None, to: beyond });
        // Text and BLOBs sort above all numbers, NULL below them: neither has a position.
        let numbers = match self.axis {
            Axis::Number => format!(" AND {version} <= 9223372036854775807"),
            _ => format!(" AND {version} IS NOT NULL"),
        };
        bounds.push(Bound::Made(Owned::Integer(i64::try_from(skipped).unwrap_or(i64::MAX))));
        let sql = format!(
            "SELECT {} FROM {table} WHERE {condition}{numbers} ORDER BY {version} DESC LIMIT -1 OFFSET ?{}",
            quoted(self.plan.version_column()),
            bounds.len(),
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        self.first_position(&mut statement, params_from_iter(&bounds))
    }

    pub(super) fn row_count(&mut self) -> Step<u64> {
        let (table, _) = self.names();
        let mut statement = self.connection.prepare_cached(&format!("SELECT count(*) FROM {table}"))?;
        let count: i64 = statement.query_row([], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    pub(super) fn read_batch(&mut self, after: Option<&Cursor>, limit: BatchLimit) -> Step<SourceBatch> {
        let (_, version) = self.names();
        let keys = self.key_list();
        let (condition, bounds) = match after {
            None => self.conditions(PositionRange::ALL),
            Some(Cursor { position, key: None }) => match PositionRange::beyond(*position) {
                Some(range) => self.conditions(range),
                None => return Ok(SourceBatch::default()),
            },
            Some(&Cursor { position, key: Some(ref raw) }) => {
                let values = read_raw(raw).filter(|values| values.len() == self.plan.key_order.len() + 1);
                let Some(values) = values else { return Err(refused("a cursor of another table").into()) };
                if self.is_of_other_axis(&values) {
                    // Rows of the position stood in another order then: they all come again.
                    let range = PositionRange::starting_at(position);
                    return self.read_from(after, self.conditions(range), limit);
                }
                let marks: Vec<_> = (1..=values.len()).map(|i| format!("?{i}")).collect();
                let condition = format!("({version}{keys}) > ({})", marks.join(", "));
                (condition, values.into_iter().map(Bound::Read).collect())
            }
        };
        self.read_from(after, (condition, bounds), limit)
    }

    /// Whether a cursor was made while versions were compared in another way.
    fn is_of_other_axis(&self, values: &[RawValue]) -> bool {
        let text = matches!(values.first(), Some(RawValue::Text(_)));
        text != matches!(self.axis, Axis::Local(_) | Axis::Zoned { .. })
    }

    fn read_from(
        &mut self,
        after: Option<&Cursor>,
        (condition, bounds): (String, Vec<Bound>),
        limit: BatchLimit,
    ) -> Step<SourceBatch> {
        let (table, version) = self.names();
        let sql = format!(
            "SELECT {} FROM {table} WHERE {condition} ORDER BY {version}{}",
            self.plan.select_list(),
            self.key_list()
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(&bounds))?;
        self.collect_batch(&mut rows, after, limit)
    }

    fn collect_batch(
        &mut self,
        rows: &mut rusqlite::Rows<'_>,
        after: Option<&Cursor>,
        limit: BatchLimit,
    ) -> Step<SourceBatch> {
        let started = Instant::now();
        let mut batch = SourceBatch { records: Vec::with_capacity(limit.rows), next: None };
        let mut cursor = Vec::new();
        let mut last = after.map_or(i64::MIN, |cursor| cursor.position);
        let (mut bytes, mut seen) = (0, 0u64);
        // A row with NULL in its key sorts where no cursor can go on: it is never the last one.
        let (mut may_stop, mut late) = (false, false);
        let mut digests = self.encoder.digests();
        while let Some(row) = rows.next()? {
            seen += 1;
            late |= seen.is_multiple_of(CLOCK_ROWS) && started.elapsed() > SNAPSHOT;
            let full = batch.records.len() >= limit.rows || bytes >= limit.bytes || late;
            if full && may_stop {
                batch.next = Some(Cursor { position: last, key: Some(cursor) });
                break;
            }
            let record = match self.encoder.encode(self.plan, row)? {
                Encoded::Good(position) => {
                    SourceRecord::Row(self.encoder.take_row(Item { position, digest: TO_COME }))
                }
                Encoded::Bad(bad) => SourceRecord::Bad(Box::new(bad)),
            };
            let (position, length) = match &record {
                SourceRecord::Row(row) => (row.item.position, row.row.len()),
                SourceRecord::Bad(bad) => match bad.position {
                    Some(position) => (position, bad.key_text.len()),
                    None => continue,
                },
            };
            if position < last {
                return Err(Trouble::Disorder);
            }
            if bytes + length > limit.bytes && may_stop {
                batch.next = Some(Cursor { position: last, key: Some(cursor) });
                break;
            }
            last = position;
            bytes += length;
            let good = matches!(record, SourceRecord::Row(_));
            batch.records.push(record);
            if good && self.encoder.queue(&mut digests, batch.records.len() - 1) {
                add_digests(&mut digests, &mut batch);
            }
            may_stop = self.write_cursor(&mut cursor, position, row)?;
        }
        add_digests(&mut digests, &mut batch);
        Ok(batch)
    }

    /// The cursor of a row: its version as it is spelled, then its key. Answers whether reading can go on
    /// from there.
    fn write_cursor(&self, raw: &mut Vec<u8>, position: i64, row: &Row<'_>) -> Step<bool> {
        raw.clear();
        match self.axis {
            Axis::Computed => put_raw(raw, ValueRef::Integer(position)),
            _ => put_raw(raw, value_at(row, self.plan.version)?),
        }
        let mut sound = true;
        for place in &self.plan.key_order {
            let value = value_at(row, *place)?;
            sound &= value != ValueRef::Null;
            put_raw(raw, value);
        }
        Ok(sound)
    }

    pub(super) fn window(&mut self, range: PositionRange, wanted: u64) -> Step<SourceWindow> {
        let mut window = SourceWindow { range, ..SourceWindow::default() };
        let (table, version) = self.names();
        if range.from.is_none() {
            self.misplaced(&mut window)?;
        }
        let (condition, bounds) = self.conditions(range);
        let sql =
            format!("SELECT {} FROM {table} WHERE {condition} ORDER BY {version}", self.plan.select_list());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(&bounds))?;
        let started = Instant::now();
        let (mut covered, mut last, mut late) = (0u64, i64::MIN, false);
        let mut digests = self.encoder.digests();
        while let Some(row) = rows.next()? {
            let encoded = self.encoder.encode(self.plan, row)?;
            let position = match &encoded {
                Encoded::Good(position) => *position,
                Encoded::Bad(bad) => match bad.position {
                    Some(position) => position,
                    None => continue,
                },
            };
            if position < last || !range.contains(position) {
                return Err(Trouble::Disorder);
            }
            late |= covered.is_multiple_of(CLOCK_ROWS) && started.elapsed() > SNAPSHOT;
            if covered > 0 && position > last && (covered >= wanted || late) {
                window.range.to = Some(position);
                break;
            }
            covered += 1;
            last = position;
            match encoded {
                Encoded::Good(position) => {
                    window.items.push(Item { position, digest: TO_COME });
                    if self.encoder.queue(&mut digests, window.items.len() - 1) {
                        digests.take(|number, digest| window.items[number].digest = digest);
                    }
                }
                Encoded::Bad(bad) => window.bad.push(bad),
            }
        }
        digests.take(|number, digest| window.items[number].digest = digest);
        Ok(window)
    }

    /// The windows of ranges that ascend and do not meet. Without an index to find them by, all rows are gone through
    /// once, in whatever order they come, instead of once for each range.
    pub(super) fn windows(&mut self, ranges: &[PositionRange], wanted: u64) -> Step<Vec<SourceWindow>> {
        let mut windows: Vec<SourceWindow> = Vec::with_capacity(ranges.len());
        if self.has_index() || ranges.len() < 2 {
            let (mut left, started) = (wanted.max(1), Instant::now());
            for range in ranges {
                let window = self.window(*range, left)?;
                left = left.saturating_sub(window.rows());
                windows.push(window);
                if left == 0
                    || started.elapsed() > SNAPSHOT
                    || windows.last().map(|last| last.range) != Some(*range)
                {
                    break;
                }
            }
            return Ok(windows);
        }
        windows.extend(ranges.iter().map(|range| SourceWindow { range: *range, ..SourceWindow::default() }));
        if let Some(first) = windows.first_mut().filter(|first| first.range.from.is_none()) {
            self.misplaced(first)?;
        }
        let sql = format!("SELECT {} FROM {}", self.plan.select_list(), self.names().0);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some(position) = self.position(row, self.plan.version)? else { continue };
            let at = windows.partition_point(|window| window.range.to.is_some_and(|to| to <= position));
            let window = windows.get_mut(at).filter(|window| window.range.contains(position));
            let Some(window) = window else { continue };
            match self.encoder.encode(self.plan, row)? {
                Encoded::Good(position) => window.items.push(self.encoder.item(position)),
                Encoded::Bad(bad) => window.bad.push(bad),
            }
        }
        windows.iter_mut().for_each(|window| window.items.sort_unstable());
        Ok(windows)
    }

    /// The rows that stand nowhere.
    fn misplaced(&mut self, window: &mut SourceWindow) -> Step<()> {
        let (table, _) = self.names();
        let sql = format!(
            "SELECT {} FROM {table} WHERE {} LIMIT {MOST_MISPLACED}",
            self.plan.select_list(),
            self.axis.misplaced(self.plan.version_column()),
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Encoded::Bad(bad) = self.encoder.encode(self.plan, row)? {
                window.bad.push(bad);
            }
        }
        Ok(())
    }
}
