//! Local databases that are written to: what callers see of one ([`LocalStore`]), and what a kind implements to be one
//! ([`WriteKind`]). The engine does the rest (`engine/apply`): finding, comparing, writing, reading back.
//!
//! What is written is read again in the same transaction, and its digest compared: a row that a column's type or a
//! trigger of the database would change is taken back and refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plimsoll_core::digest::RowDigest;
use plimsoll_core::manifest::Item;
use plimsoll_core::store::{
    Applied, BadRow, Outcome, PositionRange, ShortDigest, Source, SourceKey, SourceRecord, SourceRow, TableId,
};

use super::notes::{Cell, NoteDialect};
pub use kind::{
    Aside, Done, Mode, NoteKind, Place, Referring, RowError, Savepoint, Stopped, WriteKind, WritePlan,
    Written,
};

mod kind;

/// A local database that is written to: all that a source is, and transactions.
pub trait LocalStore: Source + Send {
    /// One transaction that writes; committed where `work` answers Ok and nothing in it failed, else rolled back. Rows
    /// that [`Transaction::apply`] reads and writes, and notes, are seen in it as it has changed them.
    ///
    /// # Errors
    /// That of `work`, or what the database says. `Passing` with a message that says so where it is not known whether
    /// the transaction was committed: what a transaction does must do no harm when it is done again.
    fn transact(&mut self, work: &mut dyn FnMut(&mut dyn Transaction) -> Outcome<()>) -> Outcome<()>;

    /// One snapshot, in which nothing is written: rows and notes of one moment.
    ///
    /// # Errors
    /// That of `work`, or what the database says.
    fn look(&mut self, work: &mut dyn FnMut(&mut dyn Look) -> Outcome<()>) -> Outcome<()>;

    /// From now on all calls, of the source too, are one transaction (`writing`) or one snapshot, until
    /// [`finish`](Self::finish). In a transaction each statement sees what others committed before it. The first failure rolls it back, and is what every further call answers until then.
    ///
    /// # Errors
    /// What the database says. `Run` where it is held already.
    fn hold(&mut self, writing: bool) -> Outcome<()>;

    /// Ends what [`hold`](Self::hold) began. Nothing is committed that failed.
    ///
    /// # Errors
    /// The failure that ended it before, where it was to be committed; as [`transact`](Self::transact).
    fn finish(&mut self, commit: bool) -> Outcome<()>;

    /// How notes are written here.
    fn notes(&self) -> NoteDialect;

    /// Runs a statement that makes or drops a table of notes, which some databases commit at once: not within a
    /// transaction, and not while the store is held.
    ///
    /// # Errors
    /// What the database says; a hint names the privilege that is missing.
    fn define(&mut self, sql: &str) -> Outcome<()>;
}

/// What is seen of a row.
#[derive(Debug, Clone, Copy)]
pub enum RowSeen<'r> {
    /// A row that can be sent.
    Row(&'r SourceRow),
    /// One that no encoding holds.
    Bad(&'r BadRow),
}

/// A moment of the database.
pub trait Look {
    /// Each row of these ranges, which ascend and may meet, in any order. Those that stand nowhere are in the range that
    /// is open below. Within a [`Transaction`] too they are as they are at this moment, and nobody is kept from changing
    /// them: what [`Transaction::apply`] is told to expect is compared when the row is locked.
    ///
    /// # Errors
    /// That of `each`, or what the database says.
    fn rows(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        each: &mut dyn FnMut(RowSeen<'_>) -> Outcome<()>,
    ) -> Outcome<()>;

    /// As [`Source::lookup`].
    ///
    /// # Errors
    /// What the database says.
    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>>;

    /// As [`Source::sharing`].
    ///
    /// # Errors
    /// What the database says.
    fn sharing(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<SourceRecord>>;

    /// A statement on notes that answers rows: `?` marks, whatever the kind.
    ///
    /// # Errors
    /// That of `each`, or what the database says.
    fn query(
        &mut self,
        sql: &str,
        cells: &[Cell<'_>],
        each: &mut dyn FnMut(&[Cell<'_>]) -> Outcome<()>,
    ) -> Outcome<()>;

    /// How notes are written here.
    fn notes(&self) -> NoteDialect;
}

/// A transaction that writes.
pub trait Transaction: Look {
    /// Makes changes, each only where the row is what it expects; answers what became of each, in their order. A refused
    /// change (constraint, value that the column cannot hold) undoes no other.
    ///
    /// # Errors
    /// What the database says of the statement as a whole: the transaction is rolled back then, whatever the caller
    /// does.
    fn apply(&mut self, table: TableId, changes: &[RowChange<'_>]) -> Outcome<Vec<Applied>>;

    /// What the deletes among these changes would take along: rows that refer to what is deleted by a foreign key that acts.
    /// The rows that are to be deleted are locked. Only direct references are looked at, and those to tables with a key.
    ///
    /// # Errors
    /// What the database says: also where a table that refers to this one may not be read.
    fn taken_along(&mut self, table: TableId, changes: &[RowChange<'_>]) -> Outcome<TakenAlong>;

    /// Which of these deletes find the row that they would delete, by their places in the list, in ascending order. Their rows
    /// are locked. Several that name one row find it each.
    ///
    /// # Errors
    /// What the database says.
    fn finds(&mut self, table: TableId, deletes: &[RowChange<'_>]) -> Outcome<Vec<usize>>;

    /// How many rows the last [`apply`](Self::apply) touched.
    fn tally(&self) -> Tally;

    /// A statement on notes: `?` marks, whatever the kind. The number of rows it changed.
    ///
    /// # Errors
    /// What the database says.
    fn execute(&mut self, sql: &str, cells: &[Cell<'_>]) -> Outcome<u64>;
}

/// What deletes would take along.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TakenAlong {
    /// How many rows of which table, by the name that a configuration has for it; those that are deleted anyway are none.
    pub rows: BTreeMap<String, u64>,
    /// The deletes, by their place in the list, that would take rows along which are to stay; each with these tables.
    pub by: HashMap<usize, BTreeSet<String>>,
}

/// What was done of the changes that were answered [`Applied::Done`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that were changed.
    pub updated: u64,
    /// Rows that were deleted.
    pub deleted: u64,
    /// Changes that were so already.
    pub unchanged: u64,
}

/// One change of a row.
#[derive(Debug, Clone, Copy)]
pub enum RowChange<'c> {
    /// Stores a row as it is. In a keyless table it is one row more, whatever is expected.
    Upsert {
        /// The row.
        row: &'c SourceRow,
        /// What there is now.
        expected: Expected,
    },
    /// Deletes a row; of a keyless table one of the equal ones.
    Delete {
        /// Where it stands.
        position: i64,
        /// The encoded key.
        key: &'c [u8],
        /// What there is now.
        expected: Expected,
    },
    /// Deletes a row that no encoding holds.
    DeleteBad {
        /// How to find it.
        key: &'c SourceKey,
        /// Its digest, as [`BadRow::source_digest`].
        expected: RowDigest,
    },
    /// Deletes one of several rows that are one in the managed table, only where another one of them is there.
    DeleteSurplus {
        /// The encoded key.
        key: &'c [u8],
        /// What the row is; `None`: whatever no encoding holds.
        surplus: Option<ShortDigest>,
        /// What the other one is.
        stored: RowDigest,
    },
}

/// What a change expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Whatever there is.
    Anything,
    /// No row of the key.
    Absent,
    /// The row with this digest.
    Row(ShortDigest),
}

/// Where a row stands and what it is: for those who look at many.
impl RowSeen<'_> {
    /// Its item, where it can be encoded.
    pub fn item(&self) -> Option<Item> {
        match self {
            RowSeen::Row(row) => Some(row.item),
            RowSeen::Bad(_) => None,
        }
    }
}
