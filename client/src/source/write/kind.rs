//! What a kind of database implements to be written to, and the words it is spoken to in.

use std::ops::ControlFlow;

use plimsoll_core::Result as Made;
use plimsoll_core::sqlstate::FOREIGN_KEY;
use plimsoll_core::store::{Failure, Outcome, TableId};
use plimsoll_core::value::Value;

use crate::source::kind::Kind;
use crate::source::notes::{Cell, NoteDialect};
use crate::source::plan::TablePlan;
use crate::source::query::{Query, RawValue};

/// What sort of transaction it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One snapshot; nothing is written.
    Snapshot,
    /// One transaction that writes: statements see what others commit meanwhile, and lock what they change.
    Writing,
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
        matches!(self.sqlstate.as_str(), "23001" | FOREIGN_KEY | "23505" | "23P01")
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
    /// Which of those, by their number in the list, are written where a row is changed: all but the key's, which stay spelled
    /// as they are, and as other tables refer to them.
    pub changed: Vec<usize>,
}

impl WritePlan {
    /// Of a table that is read by this plan.
    pub fn new(plan: &TablePlan) -> Self {
        let is_written = |place: &usize| plan.columns[*place].is_local() && !plan.generated.contains(place);
        let places: Vec<usize> = (0..plan.columns.len()).filter(is_written).collect();
        let is_key = |number: &usize| plan.schema.key_indexes().contains(&places[*number]);
        let changed = (0..places.len()).filter(|number| !is_key(number)).collect();
        let plan = TablePlan { row_id: plan.scan_id.clone(), ..plan.clone() };
        WritePlan { plan, places, changed }
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

/// Rows that would be deleted or changed with another one.
#[derive(Debug, Clone, Copy)]
pub struct Referring<'r> {
    /// The place in the list of the row that they refer to.
    pub to: usize,
    /// Their table, as a configuration names it.
    pub table: &'r str,
    /// How many they are.
    pub rows: u64,
    /// The place in the list of the one row that this is about, where it is in the list too.
    pub own: Option<usize>,
}

/// A row that was written, or deleted.
#[derive(Debug, Clone, Copy)]
pub struct Done<'r> {
    /// Its values of the plan's order.
    pub order: &'r [RawValue],
    /// Whether it was deleted.
    pub is_gone: bool,
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
pub trait WriteKind: Kind + NoteKind {
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
    /// As [`LocalStore::transact`](super::LocalStore::transact). Nothing is begun any more.
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

    /// Changes rows in the columns that are written to change one.
    ///
    /// # Errors
    /// Why not.
    fn update(&mut self, table: TableId, plan: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped>;

    /// Deletes rows; of those that equal each other in all that names them, one for each that is listed.
    ///
    /// # Errors
    /// Why not.
    fn delete(&mut self, table: TableId, plan: &WritePlan, rows: &[&Place]) -> Result<(), Stopped>;

    /// Has constraints looked at that were put off until the end of the transaction, for rows that were written or deleted.
    /// Answers which of them, by their place in the list, do not hold, where that can be told.
    ///
    /// # Errors
    /// [`Stopped::Somewhere`] where one does not hold, and nobody knows of which row.
    fn check(
        &mut self,
        table: TableId,
        write: &WritePlan,
        rows: &[Done<'_>],
    ) -> Result<Vec<(usize, RowError)>, Stopped> {
        let _ = (table, write, rows);
        Ok(Vec::new())
    }

    /// Whether any foreign key acts on other rows when rows of a table are deleted (CASCADE, SET NULL, SET DEFAULT), as far as
    /// the catalogue shows it to who asks.
    ///
    /// # Errors
    /// As the database says.
    fn takes_along(&mut self, table: TableId, plan: &WritePlan) -> Outcome<bool>;

    /// Hands out what refers to these rows by such foreign keys.
    ///
    /// # Errors
    /// As the database says: also where who asks may not read a table that refers to this one.
    fn referring(
        &mut self,
        table: TableId,
        plan: &WritePlan,
        rows: &[&Place],
        each: &mut dyn FnMut(Referring<'_>),
    ) -> Outcome<()>;

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
}

/// What a kind of database does with notes, as [`NoteDialect`] writes the statements.
pub trait NoteKind {
    /// How notes are written.
    fn notes(&self) -> NoteDialect;

    /// Runs a statement on notes in the transaction or snapshot that is open, and hands the rows that it answers to `each`.
    /// The number of rows that it changed.
    ///
    /// # Errors
    /// That of `each`, or what the database says.
    fn note(
        &mut self,
        sql: &str,
        cells: &[Cell<'_>],
        each: &mut dyn FnMut(&[Cell<'_>]) -> Outcome<()>,
    ) -> Outcome<u64>;

    /// As [`LocalStore::define`](super::LocalStore::define).
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
