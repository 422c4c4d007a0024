//! Rows added to a table without a key since it was last level: as many deletes are those of their older versions, because
//! there an altered row is one that comes and one that goes. They are noted in the local database, in the transaction that
//! adds them, so that a run that goes on where another one ended knows of them. Not before the table was level once, until
//! when nothing in it is an older version of what comes. A note says since when it counts by the agent's own mark of when the
//! table was last level: the numbers of runs come again from a server that was restored.

use plimsoll_core::store::Outcome;

use crate::source::notes::{Cell, NoteType};
use crate::source::write::{LocalStore, Look, Transaction};

const TABLE: &str = "plimsoll_replacing";
/// Characters of a table's name.
const NAME: u32 = 250;

/// What notes of a table are good for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Replacing {
    /// The mark of when the table was last level: what was noted before is over. `None`: it never was.
    level: Option<i64>,
}

impl Replacing {
    /// For a table without a key with this mark of when it was level, if ever.
    pub fn new(level: Option<i64>) -> Self {
        Replacing { level }
    }

    /// The note that still counts: its mark, and how many rows.
    fn noted(self, look: &mut dyn Look, table: &str) -> Outcome<Option<(i64, i64)>> {
        let Some(level) = self.level else { return Ok(None) };
        let mut noted = None;
        let sql = format!("SELECT since, added FROM {TABLE} WHERE relation = ?");
        look.query(&sql, &[Cell::Text(table)], &mut |row| {
            if let [Cell::Int(since), Cell::Int(added)] = row {
                noted = Some((*since, *added)).filter(|(since, _)| *since == level);
            }
            Ok(())
        })?;
        Ok(noted)
    }

    fn note(self, transaction: &mut dyn Transaction, table: &str, since: i64, added: i64) -> Outcome<()> {
        let row = vec![Cell::Text(table), Cell::Int(since), Cell::Int(added)];
        transaction.notes().put(transaction, TABLE, &["relation"], &["since", "added"], &[row])
    }

    /// How many rows were added.
    ///
    /// # Errors
    /// What the database says.
    pub fn rows(self, look: &mut dyn Look, table: &str) -> Outcome<u64> {
        let noted = self.noted(look, table)?;
        Ok(noted.map_or(0, |(_, added)| u64::try_from(added).unwrap_or(0)))
    }

    /// Notes rows that are added in this transaction.
    ///
    /// # Errors
    /// What the database says.
    pub fn add(self, transaction: &mut dyn Transaction, table: &str, rows: u64) -> Outcome<()> {
        let Some(level) = self.level.filter(|_| rows > 0) else { return Ok(()) };
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let (since, before) = self.noted(transaction, table)?.unwrap_or((level, 0));
        self.note(transaction, table, since, before.saturating_add(rows))
    }

    /// Uses up added rows for those that are deleted in this transaction, and answers how many of these are lost.
    ///
    /// # Errors
    /// What the database says.
    pub fn lost(self, transaction: &mut dyn Transaction, table: &str, deleted: u64) -> Outcome<u64> {
        let Some((since, added)) = self.noted(transaction, table)? else { return Ok(deleted) };
        let used = added.min(i64::try_from(deleted).unwrap_or(i64::MAX));
        if used > 0 {
            self.note(transaction, table, since, added - used)?;
        }
        Ok(deleted.saturating_sub(u64::try_from(used).unwrap_or(0)))
    }
}

/// Makes the table of notes where there is none.
///
/// # Errors
/// What the database says.
pub fn define(store: &mut dyn LocalStore) -> Outcome<()> {
    let columns = [
        ("relation", NoteType::Text(NAME), false),
        ("since", NoteType::Int, false),
        ("added", NoteType::Int, false),
    ];
    let statement = store.notes().create(TABLE, &columns, &["relation"]);
    store.define(&statement)
}
