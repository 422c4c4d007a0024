//! Rows stored in the local database, and deleted from it: each call is one transaction, with what the guard counts.

use plimsoll_core::digest::RowDigest;
use plimsoll_core::manifest::KeyedItem;
use plimsoll_core::row::Fields;
use plimsoll_core::schema::{TableSchema, position_of};
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    Applied, Deleted, Failure, FailureKind, Outcome, Reason, Refusal, SourceKey, SourceRecord, SourceRow,
    TableId, Uploaded,
};

use super::guard::{self, Verdict, Weighed};
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
        asked: &mut Asked,
    ) -> Outcome<Uploaded> {
        let mut uploaded = Uploaded::default();
        let may: Vec<(usize, &SourceRow)> =
            rows.iter().enumerate().filter(|(_, row)| self.may_set_back(row)).collect();
        let lower = set_back(transaction, table, &self.schema, &may)?;
        let rows_lower = lower.len() as u64;
        let plan = guard::Plan {
            rows: rows_lower,
            planned: self.asked.held_back + rows_lower,
            along: 0,
            row_count: self.before(),
            replacing: 0,
        };
        let verdict = guard::ask(transaction, &self.name, plan)?;
        *asked = self.asked.after(verdict, rows_lower, rows_lower);
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
        let mut left = 0;
        for (at, applied) in taken.into_iter().zip(applied) {
            match applied {
                Applied::Done | Applied::Held => {}
                // Somebody else is at it; the next comparison tells.
                Applied::Changed => uploaded.unchanged += 1,
                Applied::Refused { waits, reason } => {
                    left += u64::from(lower.binary_search(&at).is_ok());
                    uploaded.refused.push(self.refusal(at, waits, *reason, &rows[at].key));
                }
            }
        }
        if verdict != Verdict::Held {
            guard::count(transaction, &self.name, rows_lower, self.before(), verdict)?;
            guard::give_back(transaction, &self.name, left, verdict)?;
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
        let (mut uploaded, mut asked) = (Uploaded::default(), known.asked);
        fault_point("before-upload");
        let lease = &self.lease;
        let outcome = self.store.transact(&mut |transaction| {
            if let Some(number) = number
                && let Some(done) = number::look_up(transaction, &known.name, number)?
            {
                uploaded = done;
                return Ok(());
            }
            uploaded = known.store(transaction, table, rows, &mut asked)?;
            if let Some(number) = number {
                number::note(transaction, &known.name, number, &uploaded)?;
                known.replacing.add(transaction, &known.name, uploaded.inserted)?;
            }
            fault_point("in-upload");
            lease.stands()
        });
        let known = self.table_mut(table)?;
        if !is_passing(&outcome) {
            known.numbered.end();
        }
        outcome?;
        known.asked = asked;
        fault_point("after-upload");
        known.rows += uploaded.inserted;
        known.top = known.top.max(rows.iter().map(|row| row.item.position).max());
        Ok(uploaded)
    }

    /// Deletes the rows that are there as named; where `stored` has digests, each only beside another row of its key with that
    /// one.
    pub(super) fn remove(
        &mut self,
        table: TableId,
        rows: &[KeyedItem],
        stored: &[RowDigest],
        planned: u64,
    ) -> Outcome<Deleted> {
        self.kept = None;
        self.lease.hold_on()?;
        let tables = &self.tables[..];
        let known = tables.get(table).ok_or_else(|| refused("a table outside the run"))?;
        let (mut deleted, mut asked) = (Deleted::default(), known.asked);
        fault_point("before-delete");
        let lease = &self.lease;
        self.store.transact(&mut |transaction| {
            deleted = Deleted::default();
            let bad = if stored.is_empty() { bad_rows(transaction, table, rows)? } else { Vec::new() };
            let mut changes: Vec<(usize, RowChange<'_>)> = Vec::with_capacity(rows.len());
            for (at, row) in rows.iter().enumerate() {
                let is_bad = row.item.digest.0 == [0; 32];
                if let Some(stored) = stored.get(at).copied() {
                    let surplus = (!is_bad).then(|| ShortItem::from(&row.item).digest);
                    changes.push((at, RowChange::DeleteSurplus { key: &row.key, surplus, stored }));
                } else if !is_bad {
                    let expected = Expected::Row(ShortItem::from(&row.item).digest);
                    let (position, key) = (row.item.position, row.key.as_slice());
                    changes.push((at, RowChange::Delete { position, key, expected }));
                }
            }
            for (at, key, digest) in &bad {
                changes.push((*at, RowChange::DeleteBad { key, expected: *digest }));
            }
            let mut named: Vec<RowChange<'_>> = changes.iter().map(|(_, change)| *change).collect();
            let (mut named_rows, mut planned) = (rows.len() as u64, planned);
            if !stored.is_empty() {
                // Those that are the only one of their key are to stay: nobody need agree to them.
                let found = transaction.finds(table, &named)?;
                changes = found.iter().map(|place| changes[*place]).collect();
                named = found.iter().map(|place| named[*place]).collect();
                let (all, rest) = (named_rows.max(1), planned.saturating_sub(named_rows));
                named_rows = named.len() as u64;
                planned = named_rows + rest.saturating_mul(named_rows) / all;
            }
            let along = transaction.taken_along(table, &named)?;
            let leave = Leave::ask(transaction, known, tables, (named_rows, planned), along)?;
            asked = known.asked.after(leave.verdict, named_rows, planned.max(named_rows));
            if leave.verdict == Verdict::Held {
                deleted.held = named_rows;
                return Ok(());
            }
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
            let not_used = named_rows.saturating_sub(deleted.deleted);
            guard::give_back(transaction, &known.name, not_used, leave.verdict)?;
            fault_point("in-delete");
            lease.stands()
        })?;
        fault_point("after-delete");
        let known = self.table_mut(table)?;
        known.asked = asked;
        known.rows = known.rows.saturating_sub(deleted.deleted);
        Ok(deleted)
    }
}

/// What the guard was asked about a table's rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// Rows that it held back since the run began: a hold is about all of them.
    held_back: u64,
    /// Rows that went by an approval in the transaction that is open for all of the table.
    released: u64,
    /// How many these were when something was held back: they come back with that transaction's end, and go again by the next
    /// approval.
    come_back: u64,
}

impl Asked {
    /// After it was asked about so many rows, and about so many from there on.
    fn after(self, verdict: Verdict, rows: u64, planned: u64) -> Self {
        match verdict {
            Verdict::Allowed => self,
            Verdict::Released => Asked { released: self.released + rows, ..self },
            Verdict::Held => Asked { held_back: self.held_back + planned, come_back: self.released, ..self },
        }
    }

    /// When all calls are about to be one transaction.
    pub(super) fn begin(&mut self) {
        (self.held_back, self.released) = (0, 0);
    }

    /// Rows of the transaction that was rolled back because something was held back, beside those held back.
    pub(super) fn come_back(self) -> u64 {
        self.come_back
    }
}

/// Leave to delete rows, with what they take along from other tables: whether all of it may go is decided at once, and a hold and
/// an approval are those of the table whose rows are named.
struct Leave<'t> {
    verdict: Verdict,
    /// Rows that count as if they were this table's: those of tables that are not of the run.
    more: u64,
    /// Tables of the run of which rows go along, and how many.
    children: Vec<(&'t LocalTable, u64)>,
}

impl<'t> Leave<'t> {
    /// Asks the guard, for so many rows, and about so many in all.
    fn ask(
        transaction: &mut dyn Transaction,
        known: &LocalTable,
        tables: &'t [LocalTable],
        (rows, planned): (u64, u64),
        along: TakenAlong,
    ) -> Outcome<Self> {
        let mut leave = Leave { verdict: Verdict::Allowed, more: 0, children: Vec::new() };
        let mut plan = guard::Plan {
            rows,
            planned: known.asked.held_back + planned.max(rows),
            along: 0,
            row_count: known.before(),
            replacing: known.replacing.rows(transaction, &known.name)?,
        };
        let (mut worst, mut shown, mut all) = (Weighed::Light, Vec::new(), 0);
        for (name, along) in along.rows {
            let most = plan.all_along(along);
            shown.push(format!("\"{name}\""));
            all += most;
            match tables.iter().find(|child| child.name == name && child.name != known.name) {
                Some(child) => {
                    let row_count = child.before();
                    let plan = guard::Plan { rows: most, planned: most, along: 0, row_count, replacing: 0 };
                    worst = worst.max(guard::weigh(transaction, &child.name, plan)?);
                    leave.children.push((child, along));
                }
                None => {
                    leave.more += along;
                    // It may be dealt with by another run of this database.
                    if guard::hold_of(transaction, &name)?.is_some() {
                        worst = Weighed::OnHold;
                    }
                }
            }
        }
        plan.along = leave.more;
        let reason = match all {
            0 => guard::TOO_MANY.to_owned(),
            all => {
                format!("{}, with about {all} rows of {} that go along", guard::TOO_MANY, shown.join(", "))
            }
        };
        leave.verdict = guard::ask_with(transaction, &known.name, plan, worst, &reason)?;
        Ok(leave)
    }

    /// Counts what was deleted with it.
    fn count(&self, transaction: &mut dyn Transaction, table: &LocalTable, deleted: u64) -> Outcome<()> {
        // Where nothing was deleted, nothing went along; what a person agreed to does not count.
        if deleted == 0 || self.verdict != Verdict::Allowed {
            return Ok(());
        }
        let lost = table.replacing.lost(transaction, &table.name, deleted)?;
        guard::count(transaction, &table.name, lost + self.more, table.before(), self.verdict)?;
        for (child, rows) in &self.children {
            guard::count(transaction, &child.name, *rows, child.before(), self.verdict)?;
        }
        Ok(())
    }
}

/// The rows among these that no encoding holds, and still none does, each with the digest that it has now.
fn bad_rows(
    look: &mut dyn Look,
    table: TableId,
    rows: &[KeyedItem],
) -> Outcome<Vec<(usize, SourceKey, RowDigest)>> {
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
