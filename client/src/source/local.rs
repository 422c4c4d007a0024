//! What a local database says of itself, whatever its kind.

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::store::{Outcome, Source};
use plimsoll_core::value::ColumnType;
use uuid::Uuid;

use super::notes::is_note;
use super::plan::TablePlan;
use super::write::LocalStore;
use crate::failure::{Advise, table as refused};
use crate::names::Relation;

/// What a column's declared type holds, as far as that says which part the column can play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Whole numbers, or whatever an application stores where nothing is declared.
    Numbers,
    /// Points in time.
    Stamps,
    /// Text, that may spell points in time.
    Text,
    /// Eight bytes that the database itself counts up with each change (SQL Server's rowversion).
    RowVersions,
    /// Anything else.
    Other,
}

/// A column as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalColumn {
    /// Its name as declared.
    pub name: String,
    /// The declared type with its modifiers, as the database spells it; empty where there is none.
    pub declared: String,
    /// What that holds.
    pub holds: Holds,
    /// Whether it was declared NOT NULL.
    pub not_null: bool,
    /// Its place in the primary key from 1, 0 where it is not in it.
    pub key_place: u32,
    /// Whether the database computes it.
    pub generated: bool,
}

/// An index over plain columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalIndex {
    /// Its columns up to the first expression.
    pub columns: Vec<String>,
    /// Whether it makes its columns unique for every row.
    pub unique: bool,
}

/// A table of the local database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTable {
    /// Its name as declared; with its schema in front where the name alone does not find it.
    pub name: String,
    /// As it stands in a statement, quoted.
    pub relation: String,
    /// Its columns in order, generated ones included.
    pub columns: Vec<LocalColumn>,
    /// Its indexes that hold every row.
    pub indexes: Vec<LocalIndex>,
    /// An expression for a value that tells its rows apart and stays with each while nobody changes it (SQLite's rowid,
    /// Postgres' ctid). Keyless tables are read in its order; without one in the order of all their columns.
    pub row_id: Option<String>,
}

impl LocalTable {
    /// The column with this name: as it is spelled, else in any case.
    pub fn column(&self, name: &str) -> Option<&LocalColumn> {
        let exact = self.columns.iter().find(|column| column.name == name);
        exact.or_else(|| self.columns.iter().find(|column| same_name(&column.name, name)))
    }

    /// The primary key's columns in its order; empty where there is none.
    pub fn primary_key(&self) -> Vec<&LocalColumn> {
        let mut key: Vec<_> = self.columns.iter().filter(|column| column.key_place > 0).collect();
        key.sort_by_key(|column| column.key_place);
        key
    }

    /// Whether no two rows can share their values in `key`, columns as they are spelled: names may differ in case alone.
    pub fn is_unique(&self, key: &[&str]) -> bool {
        let within = |column: &str| key.contains(&column);
        let primary = self.primary_key();
        (!primary.is_empty() && primary.iter().all(|column| within(&column.name)))
            || self
                .indexes
                .iter()
                .any(|index| index.unique && index.columns.iter().all(|column| within(column)))
    }

    /// Whether rows can be read in the order of this column without sorting them.
    pub fn is_indexed_by(&self, column: &str) -> bool {
        let leads = |name: Option<&str>| name.is_some_and(|name| same_name(name, column));
        leads(self.primary_key().first().map(|column| column.name.as_str()))
            || self.indexes.iter().any(|index| leads(index.columns.first().map(String::as_str)))
    }
}

/// Whether two names of columns or tables are the same but for the case of ASCII letters.
pub fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// Which part a column plays in its managed table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The version: its type must have positions.
    Version,
    /// The last change: a timestamp, or nothing.
    Modified,
    /// Any other.
    Plain,
}

/// Refuses the name of a table in which Plimsoll keeps notes.
///
/// # Errors
/// A `Table` failure.
pub fn no_note(name: &str) -> Outcome<()> {
    match is_note(name.rsplit('.').next().unwrap_or(name)) {
        true => Err(refused(format!("\"{name}\" of the local database holds Plimsoll's own notes"))
            .advise("take it out of the configuration")),
        false => Ok(()),
    }
}

/// An open database, of which the tables are still to be chosen.
pub trait LocalDatabase: Send {
    /// How messages call its kind: "SQLite".
    fn kind(&self) -> &'static str;

    /// The names of all tables that an application made, in alphabetical order.
    ///
    /// # Errors
    /// Where the database cannot be read.
    fn table_names(&mut self) -> Outcome<Vec<String>>;

    /// A table by its name, as it is spelled, else in any case.
    ///
    /// # Errors
    /// A `Table` failure where there is none of that name.
    fn table(&mut self, name: &str) -> Outcome<LocalTable>;

    /// A name as it stands in a statement.
    fn quoted(&self, name: &str) -> String;

    /// The name that the managed table should have for the table of this name; its schema where the kind has schemas too.
    fn managed_name(&self, name: &str) -> Relation {
        Relation { schema: None, table: name.to_owned() }
    }

    /// The Postgres type that a managed column should have for this one: a proposal, made from what was declared and,
    /// where that says nothing, from what is stored. For [`Part::Modified`] `None` where it holds no points in time.
    ///
    /// # Errors
    /// Where the database cannot be read.
    fn proposed_type(
        &mut self,
        table: &LocalTable,
        column: &LocalColumn,
        part: Part,
    ) -> Outcome<Option<String>>;

    /// Whether values of a column are taken for a managed column of type `to` at all: where none is, the table need not be
    /// read to know it.
    ///
    /// # Errors
    /// A `Table` failure that says what to do, where none is.
    fn fits(&mut self, table: &LocalTable, column: &str, to: &ColumnType) -> Outcome<()> {
        let _ = (table, column, to);
        Ok(())
    }

    /// Whether the database understands a statement; nothing is read.
    ///
    /// # Errors
    /// What it says of it.
    fn understands(&mut self, statement: &str) -> Outcome<()>;

    /// The highest position of a table whose rows stand at their version, for the server to notice a restored backup;
    /// `None` where it has no rows, or they stand elsewhere.
    ///
    /// # Errors
    /// Where the database cannot be read.
    fn highest_position(&mut self, plan: &TablePlan) -> Outcome<Option<i64>>;

    /// Has the source take what manifests say that the database itself keeps of its tables, where it does so under this
    /// id: rows that they prove are not read. Most kinds keep none.
    fn use_manifests(&mut self, database_id: Uuid) {
        let _ = database_id;
    }

    /// The source of a run over these tables. Their plans may have been made of what another connection told.
    ///
    /// # Errors
    /// Where the database does not tell what reading them needs to know.
    fn into_source(
        self: Box<Self>,
        tables: Vec<TablePlan>,
        key: FingerprintKey,
    ) -> Outcome<Box<dyn Source + Send>>;

    /// The same of a database that was opened to be written to.
    ///
    /// # Errors
    /// As [`into_source`](Self::into_source).
    fn into_store(
        self: Box<Self>,
        tables: Vec<TablePlan>,
        key: FingerprintKey,
    ) -> Outcome<Box<dyn LocalStore>>;
}
