//! The local side of two-way tables: the rows of a database that is written to, and in the same database what both sides
//! had when they last agreed. What the calls must do is said at [`LocalSide`].
//!
//! | file | what lives there |
//! |---|---|
//! | `notes` | what is remembered, and where |
//! | `base`, `block` | what both sides last agreed on |
//! | `states` | the rows and the memory of ranges |
//! | `spool` | rows that were read in one pass with others, until they are asked for |
//! | `conclude` | changes, and what is remembered of them, in one transaction |
//! | `change` | the changes: what the guard lets, and none that takes other rows along |

mod base;
mod block;
mod change;
mod conclude;
mod notes;
mod spool;
mod states;

use std::collections::HashMap;

use plimsoll_core::row::{Field, Fields};
use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{
    Applied, BaseInfo, BatchId, Conclusion, LocalHeld, LocalSide, LocalStates, Made, MemoryKey, Outcome,
    Pending, PositionRange, Recollection, ShortDigest, SourceKey, SourceRecord, TableId,
};
use plimsoll_core::two_way::Merging;
use plimsoll_core::two_way::wire::{pack_settles, read_settles};

use sha2::{Digest, Sha256};

use crate::failure::table as refused;
use crate::fault::fault_point;
use crate::server::Lease;
use crate::source::notes::is_missing;
use crate::source::write::{LocalStore, Look, Transaction};
use crate::target::guard;
use change::HeldBack;
pub use notes::MadeOf;
use notes::{Found, Info, KeptRow, damaged};
pub use spool::MakeFile;
use spool::Spool;

/// A table of fewer rows is read as often as its ranges are asked for.
const SPOOLS_FROM: u64 = 1 << 15;

/// A two-way table of the local database.
#[derive(Debug, Clone)]
pub struct LocalTable {
    /// By which name it is remembered: of the database at the server and of the managed table.
    pub name: String,
    /// The local table's name.
    pub local: String,
    /// The managed table.
    pub schema: TableSchema,
    /// How rows are merged by columns; `None`: they are not.
    pub merging: Option<Merging>,
    /// Whether the rows themselves that both sides last agreed on are kept.
    pub keeps_rows: bool,
    /// Of what its rows are made now.
    pub made_of: MadeOf,
}

impl LocalTable {
    /// The number by which notes name it.
    fn relation(&self) -> i64 {
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::digest(&self.name)[..8]);
        i64::from_le_bytes(first)
    }
}

/// Whether the guard against destruction weighs what the local side loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarding {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// The local side of a run's two-way tables.
pub struct LocalTables {
    store: Box<dyn LocalStore>,
    tables: Vec<LocalTable>,
    guarding: Guarding,
    /// Without it nothing is written.
    lease: Lease,
    /// Which tables of notes are there, once that was looked at.
    found: Option<Found>,
    /// The position of the last of those keys that wait and are tried in this run, where there are more of them.
    tried: HashMap<TableId, i64>,
    /// How many rows each table had when all were last counted.
    rows: HashMap<TableId, u64>,
    /// What the guard held back of each table since its run began.
    held_back: HashMap<TableId, HeldBack>,
    /// The keys of the rows that were last told of with their states, where rows are kept.
    keys: HashMap<MemoryKey, Vec<u8>>,
    /// Rows that were read with others, which is done with tables of so many rows.
    spool: Option<Spool>,
    spools_from: u64,
    make_file: MakeFile,
    /// Whether there was no room for them since the table's run began.
    has_no_room: bool,
}

impl LocalTables {
    /// The local side of these tables, whose rows are in `store` in the same order.
    pub fn new(store: Box<dyn LocalStore>, tables: Vec<LocalTable>, guarding: Guarding) -> Self {
        LocalTables {
            store,
            tables,
            guarding,
            lease: Lease::none(),
            found: None,
            tried: HashMap::new(),
            rows: HashMap::new(),
            held_back: HashMap::new(),
            keys: HashMap::new(),
            spool: None,
            spools_from: SPOOLS_FROM,
            make_file: tempfile::tempfile,
            has_no_room: false,
        }
    }

    /// The same, writing only as long as no other run has the lease.
    pub fn under(self, lease: Lease) -> Self {
        LocalTables { lease, ..self }
    }

    /// Reads tables of so many rows at once where several groups of their ranges are asked for, into files that are made so.
    pub fn spool_from(&mut self, rows: u64, file: MakeFile) {
        (self.spools_from, self.make_file) = (rows, file);
    }

    /// Approves what the guard held back of these tables, once, for a day.
    ///
    /// # Errors
    /// What the database says.
    pub fn release_holds(&mut self) -> Outcome<()> {
        if !self.has_notes()? {
            return Ok(());
        }
        for table in self.tables.clone() {
            self.transact(|transaction| guard::release(transaction, &table.local).map(drop))?;
        }
        Ok(())
    }

    /// The rows in wire form that both sides last agreed on, of those among these keys where they are kept.
    ///
    /// # Errors
    /// What the database says.
    pub fn kept_rows(
        &mut self,
        table: TableId,
        keys: &HashMap<MemoryKey, ShortDigest>,
    ) -> Outcome<HashMap<MemoryKey, Vec<u8>>> {
        let local = self.table(table)?;
        if !local.keeps_rows || keys.is_empty() || !self.has_notes()? {
            return Ok(HashMap::new());
        }
        self.look(|look| {
            let mut rows = HashMap::new();
            for position in keys.keys().map(|key| key.position) {
                let place = PositionRange { from: Some(position), to: position.checked_add(1) };
                notes::each_row(look, local.relation(), place, true, &mut |kept| {
                    if keys.get(&kept.key) == Some(&kept.digest) && is_readable(&kept, &local.schema) {
                        rows.extend(kept.content.map(|content| (kept.key, content)));
                    }
                    Ok(())
                })?;
            }
            Ok(rows)
        })
    }

    fn table(&self, table: TableId) -> Outcome<LocalTable> {
        self.tables.get(table).cloned().ok_or_else(|| refused("a table outside the run"))
    }

    /// Whether the tables of notes are there.
    fn has_notes(&mut self) -> Outcome<bool> {
        self.found().map(|found| found != Found::Nothing)
    }

    /// Which tables of notes are there.
    fn found(&mut self) -> Outcome<Found> {
        if let Some(known) = self.found {
            return Ok(known);
        }
        let mut found = Found::Nothing;
        if self.is_there(&mut |look| notes::info(look, Found::ALL, 0).map(drop))? {
            found = Found::ALL;
        } else if self.is_there(&mut |look| notes::info(look, Found::OLDEST, 0).map(drop))? {
            // One by one: who added them may have died in between.
            let mut added = [false; notes::ADDED.len()];
            for (added, name) in added.iter_mut().zip(notes::ADDED) {
                *added = self.is_there(&mut |look| notes::probe(look, name))?;
            }
            found = Found::Some(added);
        }
        self.found = Some(found);
        Ok(found)
    }

    /// Whether there is what is looked for.
    fn is_there(&mut self, work: &mut dyn FnMut(&mut dyn Look) -> Outcome<()>) -> Outcome<bool> {
        match self.store.look(work) {
            Ok(()) => Ok(true),
            Err(failure) if is_missing(&failure) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Makes the tables of notes, where they are not there as they should be.
    fn have_notes(&mut self) -> Outcome<()> {
        let dialect = self.store.notes();
        match self.found()? {
            Found::Nothing => {
                guard::define(self.store.as_mut())?;
                for sql in notes::definitions(dialect) {
                    fault_point("two-way-defining");
                    self.store.define(&sql)?;
                }
            }
            Found::Some(added) => {
                let missing = notes::ADDED.iter().zip(added).filter(|(_, added)| !added);
                for (name, _) in missing {
                    self.store.define(&notes::addition(dialect, name))?;
                }
            }
        }
        self.found = Some(Found::ALL);
        Ok(())
    }

    /// Looks at a moment of the database.
    fn look<T: Default>(&mut self, mut work: impl FnMut(&mut dyn Look) -> Outcome<T>) -> Outcome<T> {
        let mut answer = T::default();
        self.store.look(&mut |look| {
            answer = work(look)?;
            Ok(())
        })?;
        Ok(answer)
    }

    /// Changes the database in one transaction.
    fn transact<T: Default>(
        &mut self,
        mut work: impl FnMut(&mut dyn Transaction) -> Outcome<T>,
    ) -> Outcome<T> {
        let mut answer = T::default();
        let lease = &self.lease;
        lease.hold_on()?;
        self.store.transact(&mut |transaction| {
            answer = work(transaction)?;
            lease.stands()
        })?;
        Ok(answer)
    }
}

/// Whether a row that was kept is one of the table as it is now.
fn is_readable(kept: &KeptRow, schema: &TableSchema) -> bool {
    let is_ours = |field: plimsoll_core::Result<Field<'_>>| {
        field.is_ok_and(|field| schema.column(field.number).is_some())
    };
    kept.content.as_deref().is_none_or(|row| Fields::new(row).all(is_ours))
}

/// What is remembered of a table as a whole, which was begun.
fn begun(look: &mut dyn Look, relation: i64) -> Outcome<Info> {
    notes::info(look, Found::ALL, relation)?
        .ok_or_else(|| damaged("it was removed while a run was under way"))
}

/// Whether a base is of rows as they are made now. An older client's does not say, nor one that is of two kinds of them: its
/// keys are taken for the same.
fn made(info: &Info, now: MadeOf) -> Made {
    if info.made_of_keys.is_some_and(|keys| keys != now.keys) {
        Made::OfOtherKeys
    } else if info.made_of_columns == Some(now.columns) {
        Made::AsBefore
    } else {
        Made::OfOtherColumns
    }
}

impl LocalSide for LocalTables {
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        self.store.change_token()
    }

    fn recall(&mut self, table: TableId) -> Outcome<Recollection> {
        (self.spool, self.has_no_room) = (None, false);
        let local = self.table(table)?;
        self.held_back.remove(&table);
        let (relation, found) = (local.relation(), self.found()?);
        if found == Found::Nothing {
            return Ok(Recollection::default());
        }
        let recalled = self.look(|look| {
            let Some(info) = notes::info(look, found, relation)? else { return Ok(Recollection::default()) };
            let made = made(&info, local.made_of);
            let pending = info.pending.map(|(batch, settles)| {
                let settles = read_settles(&settles).map_err(|_| damaged("the batch under way"))?;
                Ok(Pending { batch, settles })
            });
            Ok(Recollection {
                base: Some(BaseInfo { last: info.last, rebuilding: info.rebuilding }),
                made,
                concluded: info.concluded,
                entries: info.known.unsigned_abs(),
                open: notes::count_recorded(look, relation)?,
                pending: pending.transpose()?,
                closing: notes::keys(look, notes::CLOSING, relation, "", &[])?,
                waiting: notes::waiting(look, relation, info.tried)?,
            })
        })?;
        if let Some(last) = recalled.waiting.last() {
            self.tried.insert(table, last.position);
        }
        Ok(recalled)
    }

    fn begin_base(&mut self, table: TableId, info: BaseInfo) -> Outcome<()> {
        let local = self.table(table)?;
        self.have_notes()?;
        let relation = local.relation();
        let mut info = Info { last: info.last, rebuilding: info.rebuilding, ..Info::default() };
        info.is_made_of(local.made_of);
        self.transact(|transaction| {
            notes::forget(transaction, relation)?;
            notes::put_info(transaction, relation, &local.name, &info)
        })
    }

    fn complete_base(&mut self, table: TableId) -> Outcome<()> {
        let local = self.table(table)?;
        self.have_notes()?;
        self.transact(|transaction| {
            let mut info = Info { rebuilding: false, ..begun(transaction, local.relation())? };
            info.is_made_of(local.made_of);
            notes::put_info(transaction, local.relation(), &local.name, &info)
        })
    }

    fn forget_open(&mut self, table: TableId, last: BatchId) -> Outcome<()> {
        let local = self.table(table)?;
        self.have_notes()?;
        self.transact(|transaction| {
            let info = Info { last, ..begun(transaction, local.relation())? };
            notes::forget_open(transaction, local.relation())?;
            notes::put_info(transaction, local.relation(), &local.name, &info)
        })
    }

    /// The rows and the memory are read one after the other: while a run is under way nobody else writes the memory.
    fn held(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<LocalHeld>> {
        let relation = self.table(table)?.relation();
        let rows = self.store.fingerprints(table, ranges)?;
        if base::stretches(ranges) == [PositionRange::ALL] {
            let count = rows.iter().map(|held| held.rows.row_count() + held.bad).sum();
            self.rows.insert(table, count);
        }
        let mut held: Vec<LocalHeld> =
            rows.into_iter().map(|rows| LocalHeld { rows, ..LocalHeld::default() }).collect();
        if self.has_notes()? {
            self.store.look(&mut |look| base::add_up(look, relation, ranges, &mut held))?;
        }
        Ok(held)
    }

    fn states(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        later: &[Vec<PositionRange>],
    ) -> Outcome<LocalStates> {
        self.read_states(table, ranges, later)
    }

    fn lookup(
        &mut self,
        table: TableId,
        keys: &[SourceKey],
        bytes: usize,
    ) -> Outcome<Vec<Option<SourceRecord>>> {
        self.look_up(table, keys, bytes)
    }

    fn prepare(&mut self, table: TableId, pending: &Pending) -> Outcome<()> {
        let local = self.table(table)?;
        let settles = pack_settles(&pending.settles);
        self.have_notes()?;
        let tried = self.tried.get(&table).copied();
        self.transact(|transaction| {
            let mut info = begun(transaction, local.relation())?;
            info.tried = tried.or(info.tried);
            info.is_partly_made_of(local.made_of);
            info.pending = Some((pending.batch, settles.clone()));
            notes::put_info(transaction, local.relation(), &local.name, &info)
        })?;
        fault_point("two-way-prepared");
        Ok(())
    }

    fn conclude(&mut self, table: TableId, conclusion: &Conclusion) -> Outcome<Vec<Applied>> {
        fault_point("two-way-before-conclusion");
        let applied = self.carry_out(table, conclusion)?;
        fault_point("two-way-concluded");
        Ok(applied)
    }

    fn closed(&mut self, table: TableId, keys: &[MemoryKey]) -> Outcome<()> {
        let relation = self.table(table)?.relation();
        self.transact(|transaction| notes::remove(transaction, notes::CLOSING, relation, keys))
    }
}
