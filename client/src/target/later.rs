//! What is recorded on the server of a snapshot that is written here: kept until it is committed, for it is not true before,
//! and no transaction of the server waits for it.

use plimsoll_core::store::{BatchRecord, KeyId, Outcome, Rejected, Rejection, TableId, Target};

use crate::server::RunTarget;

/// One call that records something.
pub enum Record {
    /// Rows that were not stored.
    Reject(TableId, Vec<Rejection>),
    /// Rows that were stored after all, or are gone.
    Clear(TableId, Vec<KeyId>),
    /// A batch.
    Batch(TableId, BatchRecord),
}

impl Record {
    /// Makes the call.
    ///
    /// # Errors
    /// What the server says.
    pub fn save(&self, records: &mut RunTarget<'_>) -> Outcome<()> {
        match self {
            Record::Reject(table, rows) => records.reject(*table, rows),
            Record::Clear(table, rows) => records.clear_rejected(*table, rows),
            Record::Batch(table, batch) => records.record_batch(*table, *batch),
        }
    }
}

/// Calls that are still to be made.
#[derive(Default)]
pub struct Later(Vec<Record>);

impl Later {
    /// One more.
    pub fn push(&mut self, record: Record) {
        self.0.push(record);
    }

    /// The rows of a table that are not stored, as the server will tell of them when these calls were made; `recorded`: as
    /// it tells now.
    pub fn rejected(&self, table: TableId, mut recorded: Vec<Rejected>) -> Vec<Rejected> {
        for record in &self.0 {
            match record {
                Record::Reject(of, rows) if *of == table => {
                    let again = |known: &Rejected| rows.iter().any(|row| row.rejected.key_id == known.key_id);
                    recorded.retain(|known| !again(known));
                    recorded.extend(rows.iter().map(|row| row.rejected.clone()));
                }
                Record::Clear(of, ids) if *of == table => {
                    recorded.retain(|known| !ids.contains(&known.key_id));
                }
                _ => {}
            }
        }
        recorded
    }

    /// Makes the calls in one transaction. Whatever becomes of it, none is left.
    ///
    /// # Errors
    /// What the server says.
    pub fn save(&mut self, records: &mut RunTarget<'_>) -> Outcome<()> {
        let calls = std::mem::take(&mut self.0);
        if calls.is_empty() {
            return Ok(());
        }
        let mut save = || {
            records.hold()?;
            calls.iter().try_for_each(|call| call.save(records))?;
            records.commit()
        };
        save().inspect_err(|_| records.roll_back())
    }
}
