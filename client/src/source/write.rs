//! Local databases that are written to: what callers see of one ([`LocalStore`]), and what a kind implements to be one
//! ([`WriteKind`]). The engine does the rest (`engine/apply`): finding, comparing, writing, reading back.
//!
//! What is written is read again in the same transaction, and its digest compared: a row that a column's type or a
//! trigger of the database would change is taken back and refused.

use std::ops::ControlFlow;

use plimsoll_core::Result as Made;
use plimsoll_core::digest::RowDigest;
use plimsoll_core::manifest::Item;
use plimsoll_core::store::{
    Applied, BadRow, Failure, Outcome, PositionRange, ShortDigest, Source, SourceKey, SourceRecord,
    SourceRow, TableId,
};
use plimsoll_core::value::Value;

use super::kind::Kind;
use super::notes::{Cell, NoteDialect};
use super::plan::TablePlan;
use super::query::{Query, RawValue};

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
    /// [`finish`](Self::finish). The first failure rolls it back, and is what every further call answers until then.
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

    /// How many rows the last [`apply`](Self::apply) touched.
    fn tally(&self) -> Tally;

    /// A statement on notes: `?` marks, whatever the kind. The number of rows it changed.
    ///
    /// # Errors
    /// What the database says.
    fn execute(&mut self, sql: &str, cells: &[Cell<'_>]) -> Outcome<u64>;
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
}

/// What a change expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever there is.
    Anything,
    /// No row of the key.
    Absent,
    /// The row with this digest.
    Row(ShortDigest),
}

/// What sort of transaction it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One snapshot; nothing is written.
    Snapshot,
    /// One transaction that writes: statements see what others commit meanwhile, and lock what they change.
    Writing,
    /// One transaction that writes, and sees the others' rows as they were when it began.
    WritingSnapshot,
}

/// What is done about a savepoint. There is one name for all: they nest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Savepoint {
    /// It is set.
    Set,
    /// All since is undone; it stays.
    Undo,
    /// It is given up.
    Release,
}

/// Why a row was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The SQLSTATE, translated where the database has other codes.
    pub sqlstate: String,
    /// The local column at fault, where one is named.
    pub column: Option<String>,
    /// What the database says.
    pub message: String,
}

impl RowError {
    /// Whether the row may fit later, when others have come or gone.
    pub fn waits(&self) -> bool {
        matches!(self.sqlstate.as_str(), "23503" | "23505" | "23P01")
    }

    /// Whether another row has a value that may be there once.
    pub fn is_unique(&self) -> bool {
        matches!(self.sqlstate.as_str(), "23505" | "23P01")
    }
}

/// Why a statement that writes rows did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Because of this one: those before it in the list are written.
    At(usize, RowError),
    /// Because of one of them: none is written, and the transaction is to go back to the last savepoint.
    Somewhere(RowError),
    /// The statement fails whatever the rows.
    Failed(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped::Failed(failure)
    }
}

/// How the rows of a table are written: settled when a table is first written to.
#[derive(Debug, Clone)]
pub struct WritePlan {
    /// How they are read back: with their id behind the columns, where they have one.
    pub plan: TablePlan,
    /// The places of the columns that are written.
    pub places: Vec<usize>,
}

impl WritePlan {
    /// Of a table that is read by this plan.
    pub fn new(plan: &TablePlan) -> Self {
        let is_written = |place: &usize| plan.columns[*place].is_local() && !plan.generated.contains(place);
        let places = (0..plan.columns.len()).filter(is_written).collect();
        let plan = TablePlan { row_id: plan.scan_id.clone(), ..plan.clone() };
        WritePlan { plan, places }
    }

    /// The values of a written row in the columns of the plan's order; `None` where one of them is not written.
    pub fn order_of(&self, values: &[RawValue]) -> Option<Vec<RawValue>> {
        let value = |place: &usize| values.get(self.places.binary_search(place).ok()?).cloned();
        self.plan.order.iter().map(value).collect()
    }
}

/// A row of the database, as it is named in statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its id, where rows have one.
    pub id: Option<RawValue>,
    /// Its values of the plan's order.
    pub order: Vec<RawValue>,
}

/// What a row is to become.
#[derive(Debug, Clone, Copy)]
pub struct Written<'r> {
    /// The values of the plan's written columns, in their order.
    pub values: &'r [RawValue],
    /// The row that is changed.
    pub at: Option<&'r Place>,
}

/// What a kind of database implements to be written to.
pub trait WriteKind: Kind {
    /// Finds out what writing a table needs to know of it, before anything else is asked of it in a transaction.
    ///
    /// # Errors
    /// As the database says.
    fn ready(&mut self, table: TableId, write: &WritePlan) -> Outcome<()> {
        let _ = (table, write);
        Ok(())
    }

    /// Begins a transaction; one that was begun before is rolled back. [`Kind::end`] rolls it back.
    ///
    /// # Errors
    /// As the database says.
    fn begin_as(&mut self, mode: Mode) -> Outcome<()>;

    /// Commits.
    ///
    /// # Errors
    /// As [`LocalStore::transact`]. Nothing is begun any more.
    fn commit(&mut self) -> Outcome<()>;

    /// Sets, undoes or releases a savepoint.
    ///
    /// # Errors
    /// As the database says.
    fn savepoint(&mut self, act: Savepoint) -> Outcome<()>;

    /// A value as the column at this place holds it, so that it is read back as the same.
    ///
    /// # Errors
    /// Where it holds no such value, as far as that is known before it is written. The message does not name the column.
    fn local(&self, table: TableId, plan: &TablePlan, place: usize, value: &Value<'_>) -> Made<RawValue>;

    /// Whether whatever row has a value in the key column at this place is found by [`local`](Self::local) of it: by
    /// however many spellings it is spelled.
    fn is_found_as_written(&self, table: TableId, plan: &TablePlan, place: usize) -> bool;

    /// Hands out the rows whose columns of the plan's order equal one of these lists of values. Rows come in any order,
    /// and may come again. Where `lock`, they are kept from changing until the transaction ends, and handed out as they
    /// are by then.
    ///
    /// # Errors
    /// As the database says.
    fn stream_keys(
        &mut self,
        query: &Query<'_>,
        keys: &[Vec<RawValue>],
        lock: bool,
        each: &mut dyn FnMut(&Self::Row<'_>) -> ControlFlow<()>,
    ) -> Outcome<()>;

    /// Puts new rows into a table.
    ///
    /// # Errors
    /// Why not.
    fn insert(&mut self, table: TableId, plan: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped>;

    /// The same into a table without a key; hands out what it put there as it is read back.
    ///
    /// # Errors
    /// Why not.
    fn insert_keyless(
        &mut self,
        table: TableId,
        plan: &WritePlan,
        rows: &[Written<'_>],
        back: &mut dyn FnMut(&Self::Row<'_>),
    ) -> Result<(), Stopped>;

    /// Changes rows.
    ///
    /// # Errors
    /// Why not.
    fn update(&mut self, table: TableId, plan: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped>;

    /// Deletes rows; of those that equal each other in all that names them, one for each that is listed.
    ///
    /// # Errors
    /// Why not.
    fn delete(&mut self, table: TableId, plan: &WritePlan, rows: &[&Place]) -> Result<(), Stopped>;

    /// Has constraints looked at that were put off until the end of the transaction.
    ///
    /// # Errors
    /// [`Stopped::Somewhere`] where one does not hold.
    fn check(&mut self, table: TableId, plan: &WritePlan) -> Result<(), Stopped> {
        let _ = (table, plan);
        Ok(())
    }

    /// Takes a row out that is to be put in again, and answers what it had in the columns that are not written; `None`, and
    /// it is still there, where that could change other tables.
    ///
    /// # Errors
    /// Why not.
    fn take_out(&mut self, table: TableId, plan: &WritePlan, at: &Place) -> Result<Option<Aside>, Stopped>;

    /// Puts a row in again that was taken out.
    ///
    /// # Errors
    /// Why not.
    fn put_back(
        &mut self,
        table: TableId,
        plan: &WritePlan,
        row: &Written<'_>,
        aside: &Aside,
    ) -> Result<(), Stopped>;

    /// How notes are written.
    fn notes(&self) -> NoteDialect;

    /// As [`Look::query`].
    ///
    /// # Errors
    /// That of `each`, or what the database says.
    fn query_notes(
        &mut self,
        sql: &str,
        cells: &[Cell<'_>],
        each: &mut dyn FnMut(&[Cell<'_>]) -> Outcome<()>,
    ) -> Outcome<()>;

    /// As [`Transaction::execute`].
    ///
    /// # Errors
    /// As the database says.
    fn execute_notes(&mut self, sql: &str, cells: &[Cell<'_>]) -> Outcome<u64>;

    /// As [`LocalStore::define`].
    ///
    /// # Errors
    /// As the database says.
    fn define(&mut self, sql: &str) -> Outcome<()>;
}

/// The values that a row had in the columns that are not written, when it was taken out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aside {
    /// Each with its column's name.
    pub values: Vec<(String, RawValue)>,
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
