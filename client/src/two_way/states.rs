//! The rows and the memory of ranges, and rows by their keys.

use std::collections::{HashMap, HashSet};

use plimsoll_core::row::Fields;
use plimsoll_core::schema::{TableSchema, position_of};
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    BadRow, Base, LocalContent, LocalRow, LocalStates, MemoryEntry, MemoryKey, Outcome, PositionRange,
    ROW_ROOM, Reason, SourceKey, SourceRecord, SourceRow, TableId,
};
use plimsoll_core::two_way::wire::read_columns;

use super::notes::damaged;
use super::spool::Spool;
use super::{LocalTable, LocalTables, base, notes};
use crate::failure::table as refused;
use crate::source::write::{Look, RowSeen};

/// Keys that are looked up at first, until it is known how large rows are.
const FIRST_KEYS: usize = 32;
/// Of so many more keys as before rows are looked up at once.
const GROWTH: usize = 8;

/// A row's version where it has one.
fn revision(schema: &TableSchema, row: &[u8]) -> i64 {
    let version = schema.version().map(|column| column.number);
    let fields = Fields::new(row).filter_map(Result::ok);
    let found = fields.into_iter().find(|field| Some(field.number) == version);
    found.and_then(|field| position_of(&field.value)).unwrap_or(i64::MIN)
}

fn good(table: &LocalTable, row: &SourceRow) -> Outcome<LocalRow> {
    let columns = match &table.merging {
        Some(merging) => merging.columns(&row.row).map_err(|error| damaged(error.message()))?,
        None => Vec::new(),
    };
    let content = LocalContent::Row {
        digest: ShortItem::from(&row.item).digest,
        revision: revision(&table.schema, &row.row),
        columns,
    };
    Ok(LocalRow { position: Some(row.item.position), key: SourceKey::Encoded(row.key.clone()), content })
}

fn bad(row: &BadRow) -> LocalRow {
    let reason = Reason {
        key_text: row.key_text.clone(),
        sqlstate: row.sqlstate.clone(),
        column: row.column.clone(),
        message: row.message.clone(),
    };
    LocalRow { position: row.position, key: row.key.clone(), content: LocalContent::Bad(Box::new(reason)) }
}

impl LocalTables {
    /// As [`LocalSide::states`](plimsoll_core::store::LocalSide::states).
    pub(super) fn read_states(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        later: &[Vec<PositionRange>],
    ) -> Outcome<LocalStates> {
        let local = self.table(table)?;
        let has_notes = self.has_notes()?;
        let states = match self.spooled(table, &local, ranges, later)? {
            Some(rows) => LocalStates { rows, entries: Vec::new() },
            None => self.look(|look| {
                let mut rows = Vec::new();
                each_row(look, table, &local, ranges, &mut |row, _| {
                    rows.push(row);
                    Ok(())
                })?;
                // Of the same moment: of two rows the one that is left by then would count as gone too.
                tell_doubles(look, table, &local, &mut rows)?;
                let entries = if has_notes { read_entries(look, &local, ranges)? } else { HashMap::new() };
                Ok(LocalStates { rows, entries: entries.into_values().collect() })
            })?,
        };
        self.keys.clear();
        if local.keeps_rows {
            self.keys.extend(states.rows.iter().filter_map(|row| match &row.key {
                SourceKey::Encoded(key) => Some((row.memory_key(), key.clone())),
                SourceKey::Raw(_) | SourceKey::Long(_) => None,
            }));
        }
        Ok(states)
    }

    /// The rows of a group of ranges that were read with others, or are now; `None` where it is to be read by itself. Nothing
    /// is remembered of the group.
    fn spooled(
        &mut self,
        table: TableId,
        local: &LocalTable,
        ranges: &[PositionRange],
        later: &[Vec<PositionRange>],
    ) -> Outcome<Option<Vec<LocalRow>>> {
        let is_large = self.rows.get(&table).copied().unwrap_or(0) >= self.spools_from;
        if self.spool.is_none() && (later.is_empty() || !is_large || self.has_no_room) {
            return Ok(None);
        }
        let is_remembered = self.is_remembered(local, ranges)?;
        let mut taken = match &mut self.spool {
            Some(spool) => spool.take(table, ranges),
            None => Ok(None),
        };
        self.has_no_room |= taken.is_err();
        if !matches!(taken, Ok(Some(_))) {
            self.spool = None;
            if is_remembered || later.is_empty() || !is_large || self.has_no_room {
                return Ok(None);
            }
            self.spool = self.fill(table, local, ranges, later)?;
            self.has_no_room = self.spool.is_none();
            taken = self.spool.as_mut().map_or(Ok(None), |spool| spool.take(table, ranges));
        }
        let rows = taken.ok().flatten().filter(|rows| !is_remembered && doubled(rows).is_empty());
        if rows.is_none() {
            self.spool.iter_mut().for_each(Spool::forget);
        }
        Ok(rows)
    }

    /// Whether anything is remembered of these ranges.
    fn is_remembered(&mut self, local: &LocalTable, ranges: &[PositionRange]) -> Outcome<bool> {
        if !self.has_notes()? {
            return Ok(false);
        }
        self.look(|look| Ok(!read_entries(look, local, ranges)?.is_empty()))
    }

    /// Reads groups of ranges in one pass; `None` where there is no room for them: the pass ends at once then.
    fn fill(
        &mut self,
        table: TableId,
        local: &LocalTable,
        ranges: &[PositionRange],
        later: &[Vec<PositionRange>],
    ) -> Outcome<Option<Spool>> {
        let Ok(mut spool) = Spool::new(table, ranges, later, self.make_file) else { return Ok(None) };
        let all = spool.ranges().to_vec();
        let mut written = Ok(());
        let passed = self.store.look(&mut |look| {
            each_row(look, table, local, &all, &mut |row, content| {
                written = spool.put(&row, content);
                written.as_ref().map_err(|error| refused(format!("a temporary file: {error}"))).copied()
            })
        });
        if written.is_err() {
            return Ok(None);
        }
        passed?;
        Ok(spool.finish().is_ok().then_some(spool))
    }

    /// As [`LocalSide::lookup`](plimsoll_core::store::LocalSide::lookup).
    pub(super) fn look_up(
        &mut self,
        table: TableId,
        keys: &[SourceKey],
        bytes: usize,
    ) -> Outcome<Vec<Option<SourceRecord>>> {
        let mut found: Vec<Option<SourceRecord>> = Vec::with_capacity(keys.len().min(1 << 12));
        let (mut taken, mut at_once) = (0usize, FIRST_KEYS);
        while found.len() < keys.len() {
            let some = &keys[found.len()..keys.len().min(found.len() + at_once)];
            for record in self.records(table, some)? {
                let own = match &record {
                    Some(SourceRecord::Row(row)) => row.row.len() + row.key.len() + ROW_ROOM,
                    _ => ROW_ROOM,
                };
                taken += own;
                if taken > bytes && !found.is_empty() {
                    return Ok(found);
                }
                found.push(record);
            }
            // No more than there is room for, should they be as large as those before.
            let average = taken / found.len().max(1);
            let room = bytes.saturating_sub(taken) / average.max(1);
            at_once = at_once.saturating_mul(GROWTH).min(room.max(1));
        }
        Ok(found)
    }

    /// Rows by their keys: those that were read with their states, and the others as they are now.
    fn records(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        let Some(spool) = &self.spool else { return self.store.lookup(table, keys) };
        let mut found: Vec<Option<SourceRecord>> = keys.iter().map(|key| spool.row(table, key)).collect();
        let missing: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
        if !missing.is_empty() {
            let sought: Vec<SourceKey> = missing.iter().map(|at| keys[*at].clone()).collect();
            for (at, record) in missing.into_iter().zip(self.store.lookup(table, &sought)?) {
                found[at] = record;
            }
        }
        Ok(found)
    }
}

/// Each row of ranges, with its content where it has one.
fn each_row(
    look: &mut dyn Look,
    table: TableId,
    local: &LocalTable,
    ranges: &[PositionRange],
    each: &mut dyn FnMut(LocalRow, Option<&SourceRow>) -> Outcome<()>,
) -> Outcome<()> {
    look.rows(table, ranges, &mut |row| match row {
        RowSeen::Row(row) => each(good(local, row)?, Some(row)),
        RowSeen::Bad(row) => each(bad(row), None),
    })
}

/// The keys that several rows have once they are encoded.
fn doubled(rows: &[LocalRow]) -> HashSet<MemoryKey> {
    // Only such as share a position can share a key.
    let mut positions: Vec<Option<i64>> = rows.iter().map(|row| row.position).collect();
    positions.sort_unstable();
    let is_shared = |pair: &[Option<i64>]| pair[0] == pair[1];
    let shared: HashSet<Option<i64>> =
        positions.windows(2).filter(|pair| is_shared(pair)).map(|pair| pair[0]).collect();
    let mut known = HashSet::new();
    rows.iter()
        .filter(|row| !shared.is_empty() && shared.contains(&row.position))
        .map(LocalRow::memory_key)
        .filter(|key| !known.insert(*key))
        .collect()
}

/// Of rows that share a key once it is encoded one is there; the others are bad.
fn tell_doubles(
    look: &mut dyn Look,
    table: TableId,
    local: &LocalTable,
    rows: &mut Vec<LocalRow>,
) -> Outcome<()> {
    let again = doubled(rows);
    if again.is_empty() {
        return Ok(());
    }
    let doubles: HashSet<SourceKey> =
        rows.extract_if(.., |row| again.contains(&row.memory_key())).map(|row| row.key).collect();
    let mut doubles: Vec<SourceKey> = doubles.into_iter().collect();
    let mut told: HashSet<SourceKey> = HashSet::new();
    for record in look.sharing(table, &doubles)? {
        let row = listed(local, record)?;
        told.insert(row.key.clone());
        rows.push(row);
    }
    // A database without snapshots may have lost the other row meanwhile: this one is there still.
    doubles.retain(|key| !told.contains(key));
    for record in look.lookup(table, &doubles)?.into_iter().flatten() {
        rows.push(listed(local, record)?);
    }
    Ok(())
}

fn listed(local: &LocalTable, record: SourceRecord) -> Outcome<LocalRow> {
    match record {
        SourceRecord::Row(row) => good(local, &row),
        SourceRecord::Bad(row) => Ok(bad(&row)),
    }
}

/// What is remembered of ranges.
fn read_entries(
    look: &mut dyn Look,
    local: &LocalTable,
    ranges: &[PositionRange],
) -> Outcome<HashMap<MemoryKey, MemoryEntry>> {
    let relation = local.relation();
    let mut entries: HashMap<MemoryKey, MemoryEntry> = HashMap::new();
    base::each_agreed(look, relation, ranges, &mut |_, (key, digest)| {
        let base = Some(Base { digest, columns: Vec::new() });
        entries.insert(key, MemoryEntry { key, base, open: None });
    })?;
    for stretch in base::stretches(ranges) {
        notes::each_open(look, relation, stretch, &mut |opened| {
            if base::place_of(ranges, opened.key.position).is_some() {
                let empty = MemoryEntry { key: opened.key, base: None, open: None };
                entries.entry(opened.key).or_insert(empty).open = Some(opened.open);
            }
            Ok(())
        })?;
        if local.merging.is_none() {
            continue;
        }
        notes::each_row(look, relation, stretch, false, &mut |kept| {
            let base = entries.get_mut(&kept.key).and_then(|entry| entry.base.as_mut());
            if let (Some(base), Some(digests)) =
                (base.filter(|base| base.digest == kept.digest), kept.digests)
            {
                base.columns = read_columns(&digests).map_err(|_| damaged("the columns of a row"))?;
            }
            Ok(())
        })?;
    }
    Ok(entries)
}
