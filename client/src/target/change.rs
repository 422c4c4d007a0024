//! Rows stored in the local database, and deleted from it: each call is one transaction, with what the guard counts.

use plimsoll_core::manifest::KeyedItem;
use plimsoll_core::row::Fields;
use plimsoll_core::schema::{TableSchema, position_of};
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    Applied, Deleted, Failure, FailureKind, Outcome, Reason, Refusal, SourceKey, SourceRecord, SourceRow,
    TableId, Uploaded,
};

use super::guard::{self, Verdict};
use super::{LocalTable, LocalTarget, local_key, number};
use crate::failure::table as refused;
use crate::fault::fault_point;
use crate::report::key_text;
use crate::source::write::{Expected, Look, RowChange, TakenAlong, Transaction};

/// The row's version as a number, where its table has a version and that is one: by it a row is set back.
fn height(row: &[u8], schema: &TableSchema) -> Outcome<Option<i64>> {
    let Some(version) = schema.version() else { return Ok(None) };
    for field in Fields::new(row) {
        let field = field.map_err(|error| refused(format!("a row cannot be read: {}", error.message())))?;
        if field.number == version.number {
            return Ok(position_of(&field.value));
        }
    }
    Ok(None)
}

/// Which of these rows, by their places in the list, would take the place of one with a higher version.
///
/// # Errors
/// What the database says.
pub fn set_back(
    look: &mut dyn Look,
    table: TableId,
    schema: &TableSchema,
    rows: &[(usize, &SourceRow)],
) -> Outcome<Vec<usize>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<SourceKey> = rows.iter().map(|(_, row)| SourceKey::Encoded(row.key.clone())).collect();
    let found = look.lookup(table, &keys)?;
    let mut lower = Vec::new();
    for ((at, row), found) in rows.iter().zip(found) {
        let Some(SourceRecord::Row(stored)) = found else { continue };
        let heights = height(&row.row, schema)?.zip(height(&stored.row, schema)?);
        if heights.is_some_and(|(sent, stored)| sent < stored) {
            lower.push(*at);
        }
    }
    Ok(lower)
}

impl LocalTable {
    /// Rows of the table before the run: what the guard weighs losses by. What the run itself brought makes none smaller.
    fn before(&self) -> u64 {
        self.began_with.unwrap_or(self.rows)
    }

    /// Whether a row may take the place of one with a higher version.
    fn may_set_back(&self, row: &SourceRow) -> bool {
        if self.shape.keyless || self.schema.version().is_none() || self.began_with == Some(0) {
            return false;
        }
        self.shape.hashed || self.top.is_none_or(|top| row.item.position < top)
    }

    fn refusal(&self, ordinal: usize, waits: bool, reason: Reason, key: &[u8]) -> Refusal {
        let Reason { key_text: text, sqlstate, column, message } = reason;
        let text = if text.is_empty() { key_text(key, &self.schema) } else { text };
        Refusal {
            ordinal,
            waits,
            holder: None,
            sqlstate,
            column,
            key_text: text,
            message: format!("the local table \"{}\" does not take it: {message}", self.name),
        }
    }

    /// Stores rows in the transaction that is open.
    fn store(
        &self,
        transaction: &mut dyn Transaction,
        table: TableId,
        rows: &[SourceRow],
    ) -> Outcome<Uploaded> {
        let mut uploaded = Uploaded::default();
        let may: Vec<(usize, &SourceRow)> =
            rows.iter().enumerate().filter(|(_, row)| self.may_set_back(row)).collect();
        let lower = set_back(transaction, table, &self.schema, &may)?;
        let plan = guard::Plan {
            rows: lower.len() as u64,
            planned: lower.len() as u64,
            row_count: self.before(),
            replacing: 0,
        };
        let verdict = guard::ask(transaction, &self.name, plan)?;
        let is_held = |at: &usize| verdict == Verdict::Held && lower.binary_search(at).is_ok();
        let taken: Vec<usize> = (0..rows.len()).filter(|at| !is_held(at)).collect();
        uploaded.held = (rows.len() - taken.len()) as u64;
        let changes: Vec<RowChange<'_>> = taken
            .iter()
            .map(|at| RowChange::Upsert { row: &rows[*at], expected: Expected::Anything })
            .collect();
        let applied = transaction.apply(table, &changes)?;
        let tally = transaction.tally();
        (uploaded.inserted, uploaded.updated, uploaded.unchanged) =
            (tally.inserted, tally.updated, tally.unchanged);
        for (at, applied) in taken.into_iter().zip(applied) {
            match applied {
                Applied::Done | Applied::Held => {}
                // Somebody else is at it; the next comparison tells.
                Applied::Changed => uploaded.unchanged += 1,
                Applied::Refused { waits, reason } => {
                    uploaded.refused.push(self.refusal(at, waits, *reason, &rows[at].key));
                }
            }
        }
        if verdict != Verdict::Held {
            guard::count(transaction, &self.name, lower.len() as u64, self.before(), verdict)?;
        }
        Ok(uploaded)
    }
}

impl LocalTarget<'_> {
    /// Stores rows; those of a table without a key once.
    pub(super) fn put(&mut self, table: TableId, rows: &[SourceRow]) -> Outcome<Uploaded> {
        self.kept = None;
        self.lease.hold_on()?;
        let known = self.tables.get_mut(table).ok_or_else(|| refused("a table outside the run"))?;
        let number = if known.shape.keyless { Some(known.numbered.begin()) } else { None };
        let known = &*known;
        let mut uploaded = Uploaded::default();
        fault_point("before-upload");
        let lease = &self.lease;
        let outcome = self.store.transact(&mut |transaction| {
            if let Some(number) = number
                && let Some(done) = number::look_up(transaction, &known.name, number)?
            {
                uploaded = done;
                return Ok(());
            }
            uploaded = known.store(transaction, table, rows)?;
            if let Some(number) = number {
                number::note(transaction, &known.name, number, &uploaded)?;
                known.replacing.add(transaction, &known.name, uploaded.inserted)?;
            }
            fault_point("in-upload");
            lease.hold_on()
        });
        let known = self.table_mut(table)?;
        if !is_passing(&outcome) {
            known.numbered.end();
        }
        outcome?;
        fault_point("after-upload");
        known.rows += uploaded.inserted;
        known.top = known.top.max(rows.iter().map(|row| row.item.position).max());
        Ok(uploaded)
    }

    /// Deletes the rows that are there as named.
    pub(super) fn remove(&mut self, table: TableId, rows: &[KeyedItem], planned: u64) -> Outcome<Deleted> {
        self.kept = None;
        self.lease.hold_on()?;
        let (tables, is_held) = (&self.tables[..], self.held);
        let known = tables.get(table).ok_or_else(|| refused("a table outside the run"))?;
        let mut deleted = Deleted::default();
        fault_point("before-delete");
        let lease = &self.lease;
        self.store.transact(&mut |transaction| {
            deleted = Deleted::default();
            let bad = bad_rows(transaction, table, rows)?;
            let mut changes: Vec<(usize, RowChange<'_>)> = Vec::with_capacity(rows.len());
            for (at, row) in rows.iter().enumerate() {
                if row.item.digest.0 != [0; 32] {
                    let expected = Expected::Row(ShortItem::from(&row.item).digest);
                    let (position, key) = (row.item.position, row.key.as_slice());
                    changes.push((at, RowChange::Delete { position, key, expected }));
                }
            }
            for (at, key, digest) in &bad {
                changes.push((*at, RowChange::DeleteBad { key, expected: *digest }));
            }
            let named: Vec<RowChange<'_>> = changes.iter().map(|(_, change)| *change).collect();
            let along = transaction.taken_along(table, &named)?;
            let apart = if is_held { &[][..] } else { tables };
            let leave = match Leave::ask(transaction, known, apart, (rows.len() as u64, planned), along)? {
                Ok(leave) => leave,
                Err(held) => {
                    deleted.held = held;
                    return Ok(());
                }
            };
            let applied = transaction.apply(table, &named)?;
            for ((at, _), applied) in changes.iter().zip(applied) {
                if let Applied::Refused { waits, reason } = applied {
                    tracing::debug!("a row of \"{}\" is not deleted: {}", known.name, reason.message);
                    deleted.blocked.push(*at);
                    // Else other rows refer to it.
                    if !waits {
                        deleted.why.get_or_insert(reason.message);
                    }
                }
            }
            deleted.blocked.sort_unstable();
            if let Some(why) = &deleted.why {
                tracing::warn!("a row of \"{}\" cannot be deleted: {why}", known.name);
            }
            deleted.deleted = transaction.tally().deleted;
            leave.count(transaction, known, deleted.deleted)?;
            fault_point("in-delete");
            lease.hold_on()
        })?;
        fault_point("after-delete");
        let known = self.table_mut(table)?;
        known.rows = known.rows.saturating_sub(deleted.deleted);
        Ok(deleted)
    }
}

/// Leave to delete rows, with what they take along from other tables.
struct Leave<'t> {
    verdict: Verdict,
    /// Rows that count as if they were this table's: those of tables that are not of the run, and all where the run is one
    /// transaction, with which holds of other tables would be undone.
    more: u64,
    children: Vec<(&'t LocalTable, u64, Verdict)>,
}

impl<'t> Leave<'t> {
    /// Asks the guard, for so many rows, and about so many in all. Where the table, or one of `apart` whose rows would go along,
    /// is on hold: how many rows are.
    fn ask(
        transaction: &mut dyn Transaction,
        known: &LocalTable,
        apart: &'t [LocalTable],
        (rows, planned): (u64, u64),
        along: TakenAlong,
    ) -> Outcome<Result<Self, u64>> {
        let mut leave = Leave { verdict: Verdict::Allowed, more: 0, children: Vec::new() };
        for (name, rows) in along.rows {
            match apart.iter().find(|child| child.name == name && child.name != known.name) {
                Some(child) => {
                    let row_count = child.before();
                    let plan = guard::Plan { rows, planned: rows, row_count, replacing: 0 };
                    leave.children.push((child, rows, guard::ask(transaction, &child.name, plan)?));
                }
                None => leave.more += rows,
            }
        }
        let plan = guard::Plan {
            rows: rows + leave.more,
            planned: planned.max(rows) + leave.more,
            row_count: known.before(),
            replacing: known.replacing.rows(transaction, &known.name)?,
        };
        leave.verdict = guard::ask(transaction, &known.name, plan)?;
        let mut verdicts = leave.children.iter().map(|(.., verdict)| *verdict).chain([leave.verdict]);
        let is_held = verdicts.any(|verdict| verdict == Verdict::Held);
        Ok(if is_held { Err(rows + leave.more) } else { Ok(leave) })
    }

    /// Counts what was deleted with it.
    fn count(self, transaction: &mut dyn Transaction, table: &LocalTable, deleted: u64) -> Outcome<()> {
        // Where nothing was deleted, nothing went along.
        let more = if deleted > 0 { self.more } else { 0 };
        if self.verdict == Verdict::Allowed {
            let lost = table.replacing.lost(transaction, &table.name, deleted)?;
            guard::count(transaction, &table.name, lost + more, table.before(), self.verdict)?;
        }
        for (child, rows, verdict) in self.children.into_iter().filter(|_| deleted > 0) {
            guard::count(transaction, &child.name, rows, child.before(), verdict)?;
        }
        Ok(())
    }
}

/// The rows among these that no encoding holds, and still none does, each with the digest that it has now.
fn bad_rows(
    look: &mut dyn Look,
    table: TableId,
    rows: &[KeyedItem],
) -> Outcome<Vec<(usize, SourceKey, plimsoll_core::digest::RowDigest)>> {
    let places: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].item.digest.0 == [0; 32]).collect();
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<SourceKey> = places.iter().map(|at| local_key::take(&rows[*at].key)).collect();
    let found = look.lookup(table, &keys)?;
    let bad = places.into_iter().zip(keys).zip(found).filter_map(|((at, key), found)| match found {
        Some(SourceRecord::Bad(bad)) => Some((at, key, bad.source_digest)),
        _ => None,
    });
    Ok(bad.collect())
}

fn is_passing(outcome: &Result<(), Failure>) -> bool {
    outcome.as_ref().is_err_and(|failure| failure.kind == FailureKind::Passing)
}
