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
use super::{LocalTable, LocalTables, base, notes};
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
    pub(super) fn read_states(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<LocalStates> {
        let local = self.table(table)?;
        let has_notes = self.has_notes()?;
        let (mut rows, entries) = self.look(|look| {
            let mut rows = Vec::new();
            look.rows(table, ranges, &mut |row| {
                rows.push(match row {
                    RowSeen::Row(row) => good(&local, row)?,
                    RowSeen::Bad(row) => bad(row),
                });
                Ok(())
            })?;
            let entries = if has_notes { read_entries(look, &local, ranges)? } else { HashMap::new() };
            Ok((rows, entries))
        })?;
        self.tell_doubles(table, &local, &mut rows)?;
        self.keys.clear();
        if local.keeps_rows {
            self.keys.extend(rows.iter().filter_map(|row| match &row.key {
                SourceKey::Encoded(key) => Some((row.memory_key(), key.clone())),
                SourceKey::Raw(_) | SourceKey::Long(_) => None,
            }));
        }
        Ok(LocalStates { rows, entries: entries.into_values().collect() })
    }

    /// Of rows that share a key once it is encoded one is there; the others are bad.
    fn tell_doubles(&mut self, table: TableId, local: &LocalTable, rows: &mut Vec<LocalRow>) -> Outcome<()> {
        let mut known = HashSet::with_capacity(rows.len());
        let again: HashSet<MemoryKey> =
            rows.iter().map(LocalRow::memory_key).filter(|key| !known.insert(*key)).collect();
        if again.is_empty() {
            return Ok(());
        }
        let doubles: Vec<SourceKey> =
            rows.extract_if(.., |row| again.contains(&row.memory_key())).map(|row| row.key).collect();
        let shared: Vec<SourceKey> = doubles.into_iter().collect::<HashSet<_>>().into_iter().collect();
        for record in self.store.sharing(table, &shared)? {
            rows.push(match record {
                SourceRecord::Row(row) => good(local, &row)?,
                SourceRecord::Bad(row) => bad(&row),
            });
        }
        Ok(())
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
            for record in self.store.lookup(table, some)? {
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
