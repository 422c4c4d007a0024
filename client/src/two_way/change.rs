//! Changes of local rows, as far as the guard lets them, and none that takes other rows along.

use plimsoll_core::store::{Applied, Change, Outcome, Reason, SourceRow, TableId};

use super::LocalTable;
use crate::failure::table as refused;
use crate::report::key_text;
use crate::source::write::{Expected, RowChange, Transaction};
use crate::target::guard::{self, Plan, Verdict};
use crate::target::set_back;

/// SQLSTATE of a row that others refer to.
const REFERRED_TO: &str = "23503";

/// A change as the database is told of it.
fn row_change(change: &Change) -> RowChange<'_> {
    match change {
        Change::Upsert { row, expected } => {
            RowChange::Upsert { row, expected: expected.map_or(Expected::Absent, Expected::Row) }
        }
        Change::Delete { position, key, expected } => {
            RowChange::Delete { position: *position, key, expected: Expected::Row(*expected) }
        }
    }
}

fn is_delete(change: &Change) -> bool {
    matches!(change, Change::Delete { .. })
}

/// How a table is changed.
pub struct Changing<'l> {
    pub table: TableId,
    pub local: &'l LocalTable,
    /// Rows of the table before the run; `None`: the guard weighs nothing.
    pub row_count: Option<u64>,
    /// About how many rows the run deletes from here on.
    pub planned: u64,
}

impl Changing<'_> {
    /// Makes changes; what became of each. A delete that a foreign key would extend to rows that stay waits: what it would
    /// delete or change with it may have changed on either side, and is decided upon by itself.
    pub fn make(&self, transaction: &mut dyn Transaction, changes: Vec<&Change>) -> Outcome<Vec<Applied>> {
        let mut applied: Vec<Option<Applied>> = vec![None; changes.len()];
        let all: Vec<usize> = (0..changes.len()).collect();
        let extended = self.alone(transaction, &changes, all, &mut applied)?;
        let is_done = |applied: &Option<Applied>| *applied == Some(Applied::Done);
        if !extended.is_empty() && applied.iter().any(is_done) {
            // What referred to them may be gone, or refer to others now.
            self.alone(transaction, &changes, extended, &mut applied)?;
        }
        let applied: Option<Vec<Applied>> = applied.into_iter().collect();
        applied.ok_or_else(|| refused("the local database answered too few changes"))
    }

    /// Makes those of the changes at these places that take nothing along, and answers the places of the others.
    fn alone(
        &self,
        transaction: &mut dyn Transaction,
        changes: &[&Change],
        places: Vec<usize>,
        applied: &mut [Option<Applied>],
    ) -> Outcome<Vec<usize>> {
        let told: Vec<RowChange<'_>> = places.iter().map(|at| row_change(changes[*at])).collect();
        let along = transaction.taken_along(self.table, &told)?;
        let (mut alone, mut extended) = (Vec::with_capacity(places.len()), Vec::new());
        for (number, at) in places.into_iter().enumerate() {
            match along.by.get(&number) {
                Some(children) => {
                    let names: Vec<String> = children.iter().map(|name| format!("\"{name}\"")).collect();
                    applied[at] = Some(self.waits(changes[at], &names.join(", ")));
                    extended.push(at);
                }
                None => alone.push(at),
            }
        }
        let verdicts = Verdicts::ask(transaction, self, changes, &alone)?;
        let (held, free): (Vec<usize>, Vec<usize>) =
            alone.into_iter().partition(|at| verdicts.holds(*at, changes[*at]));
        held.into_iter().for_each(|at| applied[at] = Some(Applied::Held));
        let mut deleted = 0;
        if !free.is_empty() {
            let told: Vec<RowChange<'_>> = free.iter().map(|at| row_change(changes[*at])).collect();
            let answers = transaction.apply(self.table, &told)?;
            free.into_iter().zip(answers).for_each(|(at, answer)| applied[at] = Some(answer));
            deleted = transaction.tally().deleted;
        }
        verdicts.count(transaction, self, deleted, applied)?;
        Ok(extended)
    }

    fn waits(&self, change: &Change, children: &str) -> Applied {
        let key = match change {
            Change::Upsert { row, .. } => &row.key,
            Change::Delete { key, .. } => key,
        };
        let message = format!(
            "local rows of {children} refer to it, and the foreign key would delete or change them with it: they go \
             first"
        );
        let reason = Reason {
            key_text: key_text(key, &self.local.schema),
            sqlstate: REFERRED_TO.to_owned(),
            column: None,
            message,
        };
        Applied::Refused { waits: true, reason: Box::new(reason) }
    }
}

/// What the guard says of rows that are deleted, and of those that are set back.
struct Verdicts {
    deletes: Verdict,
    lowering: Verdict,
    /// The places of the rows that are set back, in ascending order.
    lower: Vec<usize>,
}

impl Verdicts {
    fn ask(
        transaction: &mut dyn Transaction,
        changing: &Changing<'_>,
        changes: &[&Change],
        places: &[usize],
    ) -> Outcome<Self> {
        let allowed = Verdict::Allowed;
        let mut verdicts = Verdicts { deletes: allowed, lowering: allowed, lower: Vec::new() };
        let Some(row_count) = changing.row_count else { return Ok(verdicts) };
        let name = &changing.local.local;
        let of = |at: &usize| match changes[*at] {
            Change::Upsert { row, expected: Some(_) } => Some((*at, row)),
            Change::Upsert { expected: None, .. } | Change::Delete { .. } => None,
        };
        let replacing: Vec<(usize, &SourceRow)> = places.iter().filter_map(of).collect();
        verdicts.lower = set_back(transaction, changing.table, &changing.local.schema, &replacing)?;
        let deletes = places.iter().filter(|at| is_delete(changes[**at])).count();
        let plan =
            |rows: usize, planned| Plan { rows: rows as u64, planned, along: 0, row_count, replacing: 0 };
        verdicts.deletes = guard::ask(transaction, name, plan(deletes, changing.planned))?;
        verdicts.lowering = guard::ask(transaction, name, plan(verdicts.lower.len(), 0))?;
        Ok(verdicts)
    }

    /// Whether a change is not to be made.
    fn holds(&self, at: usize, change: &Change) -> bool {
        let verdict = match is_delete(change) {
            true => self.deletes,
            false if self.lower.binary_search(&at).is_ok() => self.lowering,
            false => Verdict::Allowed,
        };
        verdict == Verdict::Held
    }

    /// Counts what was done with it.
    fn count(
        self,
        transaction: &mut dyn Transaction,
        changing: &Changing<'_>,
        deleted: u64,
        applied: &[Option<Applied>],
    ) -> Outcome<()> {
        let Some(row_count) = changing.row_count else { return Ok(()) };
        let name = &changing.local.local;
        let is_done = |at: &&usize| applied[**at] == Some(Applied::Done);
        let lower = self.lower.iter().filter(is_done).count() as u64;
        guard::count(transaction, name, deleted, row_count, self.deletes)?;
        guard::count(transaction, name, lower, row_count, self.lowering)
    }
}
