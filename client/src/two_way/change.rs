//! Changes of local rows, as far as the guard lets them, and none that takes other rows along.

use plimsoll_core::sqlstate::FOREIGN_KEY;
use plimsoll_core::store::{Applied, Change, Outcome, Reason, SourceRow, TableId};

use super::LocalTable;
use crate::failure::table as refused;
use crate::report::key_text;
use crate::source::write::{Expected, RowChange, Transaction};
use crate::target::guard::{self, Plan, Verdict};
use crate::target::set_back;

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

/// What the guard held back since the table's run began. A hold is about all of it, however many batches it came in.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeldBack {
    /// About how many deletes.
    deletes: u64,
    /// Rows that were to be set back.
    lower: u64,
}

/// How a table is changed.
pub struct Changing<'l> {
    pub table: TableId,
    pub local: &'l LocalTable,
    /// Rows of the table before the run; `None`: the guard weighs nothing.
    pub row_count: Option<u64>,
    /// About how many rows the run deletes from here on.
    pub planned: u64,
    /// What the guard holds back is added to it.
    pub held_back: HeldBack,
}

impl Changing<'_> {
    /// Makes changes; what became of each. A delete that a foreign key would extend to rows that stay waits: what it would
    /// delete or change with it may have changed on either side, and is decided upon by itself.
    pub fn make(
        &mut self,
        transaction: &mut dyn Transaction,
        changes: Vec<&Change>,
    ) -> Outcome<Vec<Applied>> {
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
        &mut self,
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
        let weighed = Weighed::ask(transaction, self, changes, &alone)?;
        let (held, free): (Vec<usize>, Vec<usize>) =
            alone.into_iter().partition(|at| weighed.holds(*at, changes[*at]));
        held.into_iter().for_each(|at| applied[at] = Some(Applied::Held));
        let mut deleted = 0;
        if !free.is_empty() {
            let told: Vec<RowChange<'_>> = free.iter().map(|at| row_change(changes[*at])).collect();
            let answers = transaction.apply(self.table, &told)?;
            free.into_iter().zip(answers).for_each(|(at, answer)| applied[at] = Some(answer));
            deleted = transaction.tally().deleted;
        }
        self.planned = self.planned.saturating_sub(deleted);
        weighed.count(transaction, self, deleted, applied)?;
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
            sqlstate: FOREIGN_KEY.to_owned(),
            column: None,
            message,
        };
        Applied::Refused { waits: true, reason: Box::new(reason) }
    }
}

/// What the guard says of rows that are deleted or set back.
struct Weighed {
    verdict: Verdict,
    /// How many of both.
    rows: u64,
    /// The places of the rows that are set back, in ascending order.
    lower: Vec<usize>,
}

impl Weighed {
    fn ask(
        transaction: &mut dyn Transaction,
        changing: &mut Changing<'_>,
        changes: &[&Change],
        places: &[usize],
    ) -> Outcome<Self> {
        let Some(row_count) = changing.row_count else {
            return Ok(Weighed { verdict: Verdict::Allowed, rows: 0, lower: Vec::new() });
        };
        let of = |at: &usize| match changes[*at] {
            Change::Upsert { row, expected: Some(_) } => Some((*at, row)),
            Change::Upsert { expected: None, .. } | Change::Delete { .. } => None,
        };
        let replacing: Vec<(usize, &SourceRow)> = places.iter().filter_map(of).collect();
        let lower = set_back(transaction, changing.table, &changing.local.schema, &replacing)?;
        let deletes = places.iter().filter(|at| is_delete(changes[**at])).count() as u64;
        let all = HeldBack {
            deletes: changing.held_back.deletes.max(changing.planned).max(deletes),
            lower: changing.held_back.lower + lower.len() as u64,
        };
        let rows = deletes + lower.len() as u64;
        let plan = Plan { rows, planned: all.deletes + all.lower, along: 0, row_count, replacing: 0 };
        let verdict = guard::ask(transaction, &changing.local.local, plan)?;
        if verdict == Verdict::Held {
            changing.held_back = all;
        }
        Ok(Weighed { verdict, rows, lower })
    }

    /// Whether a change is not to be made.
    fn holds(&self, at: usize, change: &Change) -> bool {
        self.verdict == Verdict::Held && (is_delete(change) || self.lower.binary_search(&at).is_ok())
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
        let is_done = |at: &&usize| applied[**at] == Some(Applied::Done);
        let name = &changing.local.local;
        let touched = deleted + self.lower.iter().filter(is_done).count() as u64;
        guard::give_back(transaction, name, self.rows.saturating_sub(touched), self.verdict)?;
        guard::count(transaction, name, touched, row_count, self.verdict)
    }
}
