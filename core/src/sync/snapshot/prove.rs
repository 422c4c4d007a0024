//! The proof before the commit: what the target holds, its uncommitted rows included, is what the source's snapshot holds.

use super::super::Status;
use super::super::kept::root;
use super::super::ledger::Ledger;
use super::super::places::{joined, point};
use super::super::table::Table;
use super::Snapshot;
use crate::fingerprint::Fingerprint;
use crate::manifest::Item;
use crate::store::{Failure, FailureKind, Outcome, TableId};

impl Snapshot<'_> {
    /// Proves a table by its whole digest sum.
    ///
    /// # Errors
    /// A `Table` failure where it is another one; others as the sides say.
    pub(super) fn prove(&mut self, id: TableId, table: &mut Table) -> Outcome<()> {
        let name = &self.inputs[id].name;
        let report = &table.ledger.report;
        if report.blocked > 0 {
            let rows = report.blocked;
            let (why, hint) = match &table.ledger.blocked_by {
                Some(why) => {
                    (format!(": {why}"), "the snapshot was undone; it is made once they can be deleted")
                }
                None => (
                    ", because other rows refer to them".to_owned(),
                    "the snapshot was undone; delete the rows that refer to them, or let their table be part of the snapshot",
                ),
            };
            let told = format!("{rows} rows of {name} are gone from the source and cannot be deleted{why}");
            return Err(refused(told, hint));
        }
        let whole = table.source_holds().filter(|_| report.status != Status::Different);
        let Some(whole) = whole else {
            return Err(refused(
                format!("{name} could not be made equal to the source's snapshot"),
                "it was undone; is something else writing to the managed table?",
            ));
        };
        let expected = self.expected(id, table, whole)?;
        let version = self.target.table_version(id)?;
        let held = self.all_of_target(id, &version)?;
        if held != expected {
            return Err(refused(
                format!(
                    "{} holds {} rows and should hold {}, or others than the source's snapshot has",
                    self.inputs[id].name,
                    held.row_count(),
                    expected.row_count()
                ),
                "the snapshot was undone; something else is writing to the managed table",
            ));
        }
        table.ledger.report.remote_rows = Some(held.row_count());
        for seen in table.saved.seen.iter_mut() {
            seen.remote_rows = version.row_count.or(seen.remote_rows);
            seen.remote_sum = root(&version).map(|root| root.sum());
        }
        Ok(())
    }

    /// What the target must hold: the source's rows without those that it would not take, and with the older versions of
    /// these, which stay.
    fn expected(&mut self, id: TableId, table: &Table, whole: Fingerprint) -> Outcome<Fingerprint> {
        let ledger = &table.ledger;
        let mut expected = whole;
        self.refused_rows(id, ledger)?.iter().for_each(|item| expected.remove(&item.digest));
        ledger.kept().for_each(|(item, _)| expected.insert(&item.digest));
        Ok(expected)
    }

    /// The source's rows that the target would not take, as they stand on the source. Of rows without a key one is remembered
    /// for all equal ones: the source says how many there are.
    pub(super) fn refused_rows(&mut self, id: TableId, ledger: &Ledger) -> Outcome<Vec<Item>> {
        let mut refused: Vec<Item> = ledger.refused_items().collect();
        if refused.is_empty() || !ledger.shape.keyless {
            return Ok(refused);
        }
        let places = joined(refused.iter().map(|item| point(item.position)).collect());
        let windows = self.source.windows(id, &places, u64::MAX)?;
        if !windows.iter().map(|window| window.range).eq(places) {
            return Err(Failure::new(
                FailureKind::Table,
                "the source told of other rows than it was asked for",
            ));
        }
        let items = windows.into_iter().flat_map(|window| window.items);
        refused = items.filter(|item| ledger.is_refused(item)).collect();
        Ok(refused)
    }
}

impl Table {
    /// All rows of the source that can be encoded, where the run read them all.
    fn source_holds(&self) -> Option<Fingerprint> {
        self.full_read.proved().or(self.whole).or(self.compared_whole)
    }
}

fn refused(message: String, hint: &str) -> Failure {
    Failure { hint: Some(hint.to_owned()), ..Failure::new(FailureKind::Table, message) }
}
