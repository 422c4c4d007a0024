//! The local database as the core's target: the server is right, and what differs here is mended here.
//!
//! | file | what lives there |
//! |---|---|
//! | `summaries` | what the local side tells of its rows |
//! | `change` | rows stored and deleted |
//! | `guard` | the guard against destruction on this side, and its notes |
//! | `fallen` | whether the server looks like one that was restored from an old backup |
//! | `later` | what is recorded on the server once a snapshot is committed here |
//! | `replacing` | rows without a key that came, and whose older versions are to go |
//! | `number` | uploads of tables without a key, each done once |
//! | `root` | what a table is known to hold while nothing was committed |
//! | `local_key` | keys of rows that no encoding holds |
//!
//! Rows that are refused here, and the history of batches, are the server's to show, as with any other direction.

mod change;
mod fallen;
pub mod guard;
mod later;
pub mod local_key;
mod number;
mod replacing;
mod root;
mod summaries;

pub use change::set_back;
pub use fallen::{Fall, hold_fallen};
pub use root::Root;

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::KeyedItem;
use plimsoll_core::schema::TableSchema;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    BatchRecord, Deleted, KeyId, Outcome, PositionRange, Rejected, Rejection, SourceRow, Surplus, TableId,
    TableShape, TableVersion, Target, Uploaded,
};

use crate::failure::table as refused;
use crate::server::{Lease, RunTarget};
use crate::source::plan::TablePlan;
use crate::source::write::LocalStore;
use change::Asked;
use later::{Later, Record};
use number::Numbered;
use replacing::Replacing;
use summaries::Kept;

/// A local table that is written to.
#[derive(Debug)]
pub struct LocalTable {
    /// Its name.
    name: String,
    schema: TableSchema,
    shape: TableShape,
    /// Whether all rows are read to find those of a range: known once the run of the table began.
    is_scanned: bool,
    /// What it is known to hold.
    root: Option<Root>,
    /// Rows of it when the run began, once it was asked.
    began_with: Option<u64>,
    /// Rows of it, as far as this run knows.
    rows: u64,
    /// No row stands higher; `None`: it was empty. Says nothing where rows stand at a hash.
    top: Option<i64>,
    /// What is noted of rows added to it, where it has no key.
    replacing: Replacing,
    numbered: Numbered,
    asked: Asked,
}

impl LocalTable {
    /// Takes note of what it says of itself, the first time in a run or a later one.
    fn began(&mut self, version: &TableVersion) {
        self.rows = version.row_count.unwrap_or(0);
        self.began_with.get_or_insert(self.rows);
        self.top = self.top.max(version.max_position);
    }
}

/// The local tables of one run.
pub struct LocalTarget<'t> {
    store: Box<dyn LocalStore>,
    tables: Vec<LocalTable>,
    /// What is recorded on the server.
    records: RunTarget<'t>,
    /// What is recorded there once the transaction that is open here was committed.
    later: Later,
    /// Without it nothing is written.
    lease: Lease,
    /// Rows of ranges that were read a moment ago.
    kept: Option<Kept>,
    /// Whether all calls are one transaction.
    held: bool,
}

impl<'t> LocalTarget<'t> {
    /// Those of `store`, of which these are the plans; `roots`: what each was known to hold when that was remembered.
    /// `records` has the same tables. Nothing is written once `lease` is lost.
    pub fn new(
        store: Box<dyn LocalStore>,
        plans: &[TablePlan],
        roots: Vec<Option<Root>>,
        records: RunTarget<'t>,
        lease: Lease,
    ) -> Self {
        let table = |(plan, root): (&TablePlan, Option<Root>)| LocalTable {
            name: plan.table.clone(),
            schema: plan.schema.clone(),
            shape: TableShape::of(&plan.schema),
            is_scanned: false,
            root,
            began_with: None,
            rows: 0,
            top: None,
            replacing: Replacing::default(),
            numbered: Numbered::default(),
            asked: Asked::default(),
        };
        let tables = plans.iter().zip(roots).map(table).collect();
        LocalTarget { store, tables, records, later: Later::default(), lease, kept: None, held: false }
    }

    fn table(&self, table: TableId) -> Outcome<&LocalTable> {
        self.tables.get(table).ok_or_else(|| refused("a table outside the run"))
    }

    fn table_mut(&mut self, table: TableId) -> Outcome<&mut LocalTable> {
        self.tables.get_mut(table).ok_or_else(|| refused("a table outside the run"))
    }

    /// The local database itself.
    pub fn store(&mut self) -> &mut dyn LocalStore {
        self.store.as_mut()
    }

    /// The local name of a table.
    pub fn name(&self, table: TableId) -> &str {
        self.tables.get(table).map_or("", |table| table.name.as_str())
    }

    /// Whether all rows of a table are read to find those of a range.
    pub fn is_scanned(&self, table: TableId) -> bool {
        self.tables.get(table).is_some_and(|table| table.is_scanned)
    }

    /// Records something on the server: at once, or after the transaction that is open.
    fn record(&mut self, record: Record) -> Outcome<()> {
        if !self.held {
            return record.save(&mut self.records);
        }
        self.later.push(record);
        Ok(())
    }

    /// Takes note of the mark of when each table was last level.
    pub fn follow(&mut self, level: impl IntoIterator<Item = Option<i64>>) {
        for (table, level) in self.tables.iter_mut().zip(level).filter(|(table, _)| table.shape.keyless) {
            table.replacing = Replacing::new(level);
        }
    }

    /// Sends what is kept of the history.
    ///
    /// # Errors
    /// As the server says.
    pub fn flush(&mut self) -> Outcome<()> {
        self.records.flush()
    }

    /// Makes the tables of notes in the local database, where there are none.
    ///
    /// # Errors
    /// What the database says.
    pub fn define_notes(&mut self) -> Outcome<()> {
        guard::define(self.store.as_mut())?;
        if self.tables.iter().any(|table| table.shape.keyless) {
            number::define(self.store.as_mut())?;
            replacing::define(self.store.as_mut())?;
        }
        Ok(())
    }

    /// The table's hold here, where there is one.
    ///
    /// # Errors
    /// What the database says: also where no notes were ever made.
    pub fn hold_of(&mut self, table: TableId) -> Outcome<Option<guard::Hold>> {
        let name = self.table(table)?.name.clone();
        let mut hold = None;
        self.store.look(&mut |look| {
            hold = guard::hold_of(look, &name)?;
            Ok(())
        })?;
        Ok(hold)
    }

    /// Approves what a table's hold here planned, where there is one.
    ///
    /// # Errors
    /// What the database says.
    pub fn release(&mut self, table: TableId) -> Outcome<bool> {
        let name = self.table(table)?.name.clone();
        let mut released = false;
        self.store.transact(&mut |transaction| {
            released = guard::release(transaction, &name)?;
            Ok(())
        })?;
        Ok(released)
    }

    /// Puts a table on hold whose transaction met the guard, and was rolled back with the hold in it.
    ///
    /// # Errors
    /// What the database says.
    pub fn hold_again(&mut self, table: TableId, planned: u64) -> Outcome<()> {
        let known = self.table(table)?;
        let (name, planned) = (known.name.clone(), planned.saturating_add(known.asked.come_back()));
        self.store.transact(&mut |transaction| guard::hold(transaction, &name, planned, guard::TOO_MANY))
    }

    /// What each table is known to hold, to be remembered.
    pub fn into_roots(self) -> Vec<Option<Root>> {
        self.tables.into_iter().map(|table| table.root).collect()
    }
}

impl Target for LocalTarget<'_> {
    /// Rows are counted where it is not known that nothing was committed since they were.
    fn table_version(&mut self, table: TableId) -> Outcome<TableVersion> {
        let version = match self.root_now(table)? {
            Some(root) => root.version(),
            None => {
                let hashed = self.table(table)?.shape.hashed;
                let max_position = if hashed { None } else { self.store.max_position(table)? };
                let row_count = Some(self.store.row_count(table)?);
                TableVersion { row_count, max_position, ..TableVersion::default() }
            }
        };
        self.table_mut(table)?.began(&version);
        Ok(version)
    }

    fn fingerprint(&mut self, table: TableId, range: PositionRange) -> Outcome<Fingerprint> {
        if range == PositionRange::ALL {
            return self.all(table);
        }
        let held = self.sums(table, &[range])?;
        held.first().copied().ok_or_else(|| refused("what a range holds is missing"))
    }

    fn keys_of(&mut self, table: TableId, items: &[ShortItem]) -> Outcome<Vec<KeyedItem>> {
        self.keyed(table, items)
    }

    fn upload(&mut self, table: TableId, rows: &[SourceRow]) -> Outcome<Uploaded> {
        self.put(table, rows)
    }

    fn delete(&mut self, table: TableId, rows: &[KeyedItem], planned: u64) -> Outcome<Deleted> {
        self.remove(table, rows, &[], planned)
    }

    fn delete_surplus(&mut self, table: TableId, rows: &[Surplus], planned: u64) -> Outcome<Deleted> {
        let (rows, stored): (Vec<_>, Vec<_>) = rows.iter().map(|row| (row.row.clone(), row.stored)).unzip();
        self.remove(table, &rows, &stored, planned)
    }

    fn rejected(&mut self, table: TableId) -> Outcome<Vec<Rejected>> {
        let recorded = self.records.rejected(table)?;
        Ok(self.later.rejected(table, recorded))
    }

    fn reject(&mut self, table: TableId, rows: &[Rejection]) -> Outcome<()> {
        self.record(Record::Reject(table, rows.to_vec()))
    }

    fn clear_rejected(&mut self, table: TableId, rows: &[KeyId]) -> Outcome<()> {
        self.record(Record::Clear(table, rows.to_vec()))
    }

    fn batch_history(&mut self, table: TableId) -> Outcome<Vec<BatchRecord>> {
        self.records.batch_history(table)
    }

    fn record_batch(&mut self, table: TableId, batch: BatchRecord) -> Outcome<()> {
        self.record(Record::Batch(table, batch))
    }

    /// What is recorded on the server belongs to the transaction too, and follows it.
    fn hold(&mut self) -> Outcome<()> {
        self.kept = None;
        self.lease.hold_on()?;
        LocalStore::hold(self.store.as_mut(), true)?;
        self.tables.iter_mut().for_each(|table| table.asked.begin());
        self.held = true;
        Ok(())
    }

    fn commit(&mut self) -> Outcome<()> {
        self.lease.hold_on()?;
        LocalStore::finish(self.store.as_mut(), true)?;
        (self.held, self.kept) = (false, None);
        // Rows not stored that are not recorded are met again by the next run.
        if let Err(failure) = self.later.save(&mut self.records) {
            tracing::warn!("what was recorded of the snapshot could not be saved on the server: {failure}");
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        self.later = Later::default();
        self.kept = None;
        if std::mem::take(&mut self.held)
            && let Err(failure) = LocalStore::finish(self.store.as_mut(), false)
        {
            tracing::debug!("the local transaction ended by itself: {failure}");
        }
    }
}
