//! Changes of rows, and what is remembered of them, in one transaction.

use std::collections::{BTreeMap, HashMap};

use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    Applied, Change, Conclusion, MemoryEntry, MemoryKey, Outcome, Settle, ShortDigest, SourceKey,
    SourceRecord, SourceRow, TableId,
};
use plimsoll_core::two_way::wire::{pack_applied, pack_columns, read_applied};

use super::change::{Changing, HeldBack};
use super::notes::{KeptRow, Opened, damaged};
use super::{Guarding, LocalTable, LocalTables, base, begun, notes};
use crate::failure::{Advise, table as refused};
use crate::fault::fault_point;
use crate::source::write::Transaction;

impl LocalTables {
    /// As [`LocalSide::conclude`](plimsoll_core::store::LocalSide::conclude).
    pub(super) fn carry_out(&mut self, table: TableId, conclusion: &Conclusion) -> Outcome<Vec<Applied>> {
        let local = self.table(table)?;
        self.have_notes()?;
        let keys = std::mem::take(&mut self.keys);
        let rows = self.rows.get(&table).copied();
        let guarded = (self.guarding == Guarding::On).then_some(rows);
        let before = self.held_back.get(&table).copied().unwrap_or_default();
        let mut held_back = before;
        let applied = self.transact(|transaction| {
            held_back = before;
            conclude(transaction, table, &local, (guarded, &mut held_back), &keys, conclusion)
        });
        self.keys = keys;
        if applied.is_ok() {
            self.held_back.insert(table, held_back);
        }
        applied
    }
}

fn conclude(
    transaction: &mut dyn Transaction,
    table: TableId,
    local: &LocalTable,
    (guarded, held_back): (Option<Option<u64>>, &mut HeldBack),
    keys: &HashMap<MemoryKey, Vec<u8>>,
    conclusion: &Conclusion,
) -> Outcome<Vec<Applied>> {
    let relation = local.relation();
    let mut info = begun(transaction, relation)?;
    if info.concluded == conclusion.serial {
        return read_applied(&info.answers).map_err(|_| damaged("the answer of the last transaction"));
    }
    if info.concluded + 1 != conclusion.serial {
        return Err(refused(
            "what is remembered in the local database is not what it was when the run began",
        )
        .advise("was the file replaced, or does another agent work with it? run again"));
    }
    let row_count = guarded.map(|rows| rows.unwrap_or(info.known.unsigned_abs()));
    let mut changing =
        Changing { table, local, row_count, planned: conclusion.planned, held_back: *held_back };
    let applied =
        changing.make(transaction, conclusion.changes.iter().map(|(change, _)| change).collect())?;
    *held_back = changing.held_back;
    fault_point("two-way-concluding");
    let done = conclusion.changes.iter().zip(&applied).filter(|(_, applied)| **applied == Applied::Done);
    let mut rows: HashMap<MemoryKey, &SourceRow> = HashMap::new();
    let mut settles: Vec<&Settle> = conclusion.settled.iter().collect();
    for ((change, settle), _) in done {
        if let Change::Upsert { row, .. } = change {
            rows.insert(settle.entry.key, row);
        }
        settles.push(settle);
    }
    info.known += remember(transaction, local, info.known.unsigned_abs(), &settles)?;
    keep_rows(transaction, table, local, &settles, &rows, keys)?;
    let pending = info.pending.as_ref().map(|(batch, _)| *batch);
    if pending == conclusion.batch {
        info.pending = None;
    }
    if let Some(batch) = conclusion.batch.filter(|_| conclusion.applied) {
        info.last = batch;
    }
    info.concluded = conclusion.serial;
    info.is_partly_made_of(local.made_of);
    info.answers = pack_applied(&applied);
    notes::put_info(transaction, relation, &local.name, &info)?;
    Ok(applied)
}

/// Remembers what was settled, the last of each key. Answers how many keys more the base has.
fn remember(
    transaction: &mut dyn Transaction,
    local: &LocalTable,
    known: u64,
    settles: &[&Settle],
) -> Outcome<i64> {
    let relation = local.relation();
    let mut entries: BTreeMap<MemoryKey, &MemoryEntry> = BTreeMap::new();
    let mut closing: BTreeMap<MemoryKey, bool> = BTreeMap::new();
    for settle in settles {
        let entry = &settle.entry;
        entries.insert(entry.key, entry);
        if settle.closes {
            closing.insert(entry.key, true);
        }
        if entry.open.is_some() {
            closing.insert(entry.key, false);
        }
    }
    let agreed: Vec<(MemoryKey, Option<ShortDigest>)> =
        entries.iter().map(|(key, entry)| (*key, entry.base.as_ref().map(|base| base.digest))).collect();
    let more = base::agree(transaction, relation, known, &agreed)?;
    let opened: Vec<Opened> = entries
        .values()
        .filter_map(|entry| {
            let base = entry.base.as_ref().map(|base| base.digest);
            Some(Opened { key: entry.key, open: entry.open?, base })
        })
        .collect();
    let not_open: Vec<MemoryKey> =
        entries.values().filter(|entry| entry.open.is_none()).map(|entry| entry.key).collect();
    if !not_open.is_empty() && notes::count_open(transaction, relation)? > 0 {
        notes::remove(transaction, notes::OPEN, relation, &not_open)?;
    }
    if !opened.is_empty() {
        notes::put_open(transaction, relation, &opened)?;
    }
    let of = |wanted: bool| {
        closing.iter().filter(|(_, closes)| **closes == wanted).map(|(key, _)| *key).collect::<Vec<_>>()
    };
    let (closes, open_again) = (of(true), of(false));
    if !closes.is_empty() {
        notes::list(transaction, notes::CLOSING, relation, &closes)?;
    }
    if !open_again.is_empty() {
        notes::remove(transaction, notes::CLOSING, relation, &open_again)?;
    }
    Ok(more)
}

/// Keeps of the rows agreed on what is kept of them beside their digests. A row itself is kept where it is at hand: it was
/// written now, or is there with a key that was told of lately.
fn keep_rows(
    transaction: &mut dyn Transaction,
    table: TableId,
    local: &LocalTable,
    settles: &[&Settle],
    written: &HashMap<MemoryKey, &SourceRow>,
    keys: &HashMap<MemoryKey, Vec<u8>>,
) -> Outcome<()> {
    if local.merging.is_none() && !local.keeps_rows {
        return Ok(());
    }
    let mut kept: BTreeMap<MemoryKey, Option<KeptRow>> = BTreeMap::new();
    // What is left open leaves the base as it was.
    let agreed = settles.iter().map(|settle| &settle.entry).filter(|entry| entry.open.is_none());
    for MemoryEntry { key, base, .. } in agreed {
        let row = base.as_ref().map(|base| KeptRow {
            key: *key,
            digest: base.digest,
            digests: (!base.columns.is_empty()).then(|| pack_columns(&base.columns)),
            content: None,
        });
        kept.insert(*key, row);
    }
    let mut sought: Vec<(MemoryKey, SourceKey)> = Vec::new();
    for row in kept.values_mut().flatten().filter(|_| local.keeps_rows) {
        match (written.get(&row.key), keys.get(&row.key)) {
            (Some(written), _) if ShortItem::from(&written.item).digest == row.digest => {
                row.content = Some(written.row.clone());
            }
            (_, Some(key)) => sought.push((row.key, SourceKey::Encoded(key.clone()))),
            _ => {}
        }
    }
    let asked: Vec<SourceKey> = sought.iter().map(|(_, key)| key.clone()).collect();
    for ((key, _), record) in sought.iter().zip(transaction.lookup(table, &asked)?) {
        if let (Some(Some(kept)), Some(SourceRecord::Row(row))) = (kept.get_mut(key), record)
            && ShortItem::from(&row.item).digest == kept.digest
        {
            kept.content = Some(row.row);
        }
    }
    let relation = local.relation();
    let is_empty = |row: &KeptRow| row.digests.is_none() && row.content.is_none();
    let gone: Vec<MemoryKey> =
        kept.iter().filter(|(_, row)| row.as_ref().is_none_or(is_empty)).map(|(key, _)| *key).collect();
    let put: Vec<KeptRow> = kept.into_values().flatten().filter(|row| !is_empty(row)).collect();
    if !gone.is_empty() {
        notes::remove(transaction, notes::ROWS, relation, &gone)?;
    }
    if !put.is_empty() {
        notes::put_rows(transaction, relation, &put)?;
    }
    Ok(())
}
