//! The guard against destruction, asked about rows and what goes along with them.

use crate::access::Database;
use crate::cascade::Taken;
use crate::error::Answer;
use crate::guard::{self, Verdict};
use crate::table::ManagedTable;

/// Leave to delete rows, with what they take along from other tables.
pub struct Leave {
    verdict: Verdict,
    /// Rows of tables that are not managed: they count as if they were this replica's.
    more: u64,
    children: Vec<(ManagedTable, u64, Verdict)>,
}

impl Leave {
    /// Asks the guard; `None`: the replica, or one whose rows would go along, is on hold.
    pub fn ask(
        database: &Database,
        table: &ManagedTable,
        rows: u64,
        planned: u64,
        taken: Vec<Taken>,
    ) -> Answer<Option<Leave>> {
        let mut leave = Leave { verdict: Verdict::Allowed, more: 0, children: Vec::new() };
        for Taken { table, rows } in taken {
            match table {
                Some(child) => {
                    let verdict = guard::ask(database, &child, rows, rows)?;
                    leave.children.push((child, rows, verdict));
                }
                None => leave.more += rows,
            }
        }
        leave.verdict = guard::ask(database, table, rows + leave.more, planned.max(rows) + leave.more)?;
        let mut verdicts = leave.children.iter().map(|(_, _, verdict)| *verdict).chain([leave.verdict]);
        let held = verdicts.any(|verdict| verdict == Verdict::Held);
        Ok((!held).then_some(leave))
    }

    /// Counts what was deleted with it.
    pub fn count(self, database: &Database, table: &ManagedTable, deleted: u64) -> Answer<()> {
        guard::count(database, table, deleted + self.more, self.verdict)?;
        self.children
            .iter()
            .try_for_each(|(child, rows, verdict)| guard::count(database, child, *rows, *verdict))
    }
}
