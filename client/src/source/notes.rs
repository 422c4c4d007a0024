//! Notes: Plimsoll's own small tables inside a local database, in SQL that all kinds take but for the types' names and
//! what upserts are called.
//!
//! Their names begin with `plimsoll_`; no kind tells of such tables as an application's.

use plimsoll_core::store::{Failure, FailureKind, Outcome};

use super::write::Transaction;

/// What the names of all tables of notes begin with.
pub const PREFIX: &str = "plimsoll_";

/// Whether a table is one of notes, by its name without its schema.
pub fn is_note(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Whether a statement on notes failed because there is no such table, or column, or none that may be seen: nothing else says
/// that nothing was noted.
pub fn is_missing(failure: &Failure) -> bool {
    let of_names_and_rights = ["42P01", "42703", "42501", "42S02", "42S22", "42000"];
    let code = failure.sqlstate.as_deref();
    failure.kind == FailureKind::Table && code.is_some_and(|code| of_names_and_rights.contains(&code))
}

/// A value of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'c> {
    /// NULL
    Null,
    /// A whole number.
    Int(i64),
    /// Bytes.
    Bytes(&'c [u8]),
    /// Text.
    Text(&'c str),
}

/// What a column of notes holds. None is NULL but where a statement says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteType {
    /// Whole numbers of 64 bits.
    Int,
    /// At most so many bytes, good for a key.
    Bytes(u32),
    /// Any number of bytes.
    LongBytes,
    /// At most so many characters, good for a key, compared byte by byte.
    Text(u32),
}

/// How a kind of database writes what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteDialect {
    /// SQLite
    Sqlite,
    /// Postgres
    Postgres,
    /// MariaDB and MySQL
    Mysql,
}

/// A column of notes: its name, what it holds, whether it may be NULL.
pub type NoteColumn<'n> = (&'n str, NoteType, bool);

/// Values of one statement at most.
const MOST_VALUES: usize = 4_000;

impl NoteDialect {
    /// How a type is declared.
    pub fn declared(self, of: NoteType) -> String {
        use NoteDialect as D;
        match (self, of) {
            (_, NoteType::Int) => "BIGINT".to_owned(),
            (D::Sqlite, NoteType::Bytes(_) | NoteType::LongBytes) => "BLOB".to_owned(),
            (D::Postgres, NoteType::Bytes(_) | NoteType::LongBytes) => "bytea".to_owned(),
            (D::Mysql, NoteType::Bytes(most)) => format!("VARBINARY({most})"),
            (D::Mysql, NoteType::LongBytes) => "LONGBLOB".to_owned(),
            (D::Sqlite, NoteType::Text(_)) => "TEXT".to_owned(),
            (D::Postgres, NoteType::Text(_)) => "text COLLATE pg_catalog.\"C\"".to_owned(),
            (D::Mysql, NoteType::Text(most)) => {
                format!("VARCHAR({most}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
            }
        }
    }

    /// The statement for [`LocalStore::define`](super::write::LocalStore::define) that makes a table where there is none:
    /// its rows lie in the order of its key where the database can have it so.
    pub fn create(self, table: &str, columns: &[NoteColumn<'_>], key: &[&str]) -> String {
        let column = |(name, of, may_be_null): &NoteColumn<'_>| {
            let null = if *may_be_null { "" } else { " NOT NULL" };
            format!("{name} {}{null}", self.declared(*of))
        };
        let list: Vec<String> = columns.iter().map(column).collect();
        let end = match self {
            NoteDialect::Sqlite => " WITHOUT ROWID",
            NoteDialect::Postgres => "",
            NoteDialect::Mysql => " ENGINE = InnoDB",
        };
        let (list, key) = (list.join(", "), key.join(", "));
        format!("CREATE TABLE IF NOT EXISTS {table} ({list}, PRIMARY KEY ({key})){end}")
    }

    /// Puts notes in place of those that have their keys: the key's columns, then the others. Rows hold them in that order.
    ///
    /// # Errors
    /// What the database says.
    pub fn put(
        self,
        transaction: &mut dyn Transaction,
        table: &str,
        key: &[&str],
        others: &[&str],
        rows: &[Vec<Cell<'_>>],
    ) -> Outcome<()> {
        let columns: Vec<&str> = key.iter().chain(others).copied().collect();
        let set = |of: &dyn Fn(&str) -> String| {
            others.iter().map(|name| format!("{name} = {}", of(name))).collect::<Vec<_>>().join(", ")
        };
        let conflict = match (self, others.is_empty()) {
            (NoteDialect::Mysql, true) => format!("ON DUPLICATE KEY UPDATE {0} = {0}", key[0]),
            (NoteDialect::Mysql, false) => {
                format!("ON DUPLICATE KEY UPDATE {}", set(&|name| format!("VALUES({name})")))
            }
            (_, true) => "ON CONFLICT DO NOTHING".to_owned(),
            (_, false) => format!(
                "ON CONFLICT ({}) DO UPDATE SET {}",
                key.join(", "),
                set(&|name| format!("excluded.{name}"))
            ),
        };
        let start = format!("INSERT INTO {table} ({}) VALUES ", columns.join(", "));
        in_portions(transaction, &start, columns.len(), rows, &format!(" {conflict}"))
    }

    /// Removes the notes that have these keys.
    ///
    /// # Errors
    /// What the database says.
    pub fn remove(
        self,
        transaction: &mut dyn Transaction,
        table: &str,
        key: &[&str],
        rows: &[Vec<Cell<'_>>],
    ) -> Outcome<()> {
        let values = if self == NoteDialect::Sqlite { "VALUES " } else { "" };
        let start = format!("DELETE FROM {table} WHERE ({}) IN ({values}", key.join(", "));
        in_portions(transaction, &start, key.len(), rows, ")")
    }
}

/// Runs a statement with lists of marks between its beginning and its end, so many rows at once as one statement takes.
fn in_portions(
    transaction: &mut dyn Transaction,
    start: &str,
    columns: usize,
    rows: &[Vec<Cell<'_>>],
    end: &str,
) -> Outcome<()> {
    let list = format!("({})", vec!["?"; columns].join(", "));
    for portion in rows.chunks((MOST_VALUES / columns.max(1)).max(1)) {
        let lists = vec![list.as_str(); portion.len()].join(", ");
        let cells: Vec<Cell<'_>> = portion.iter().flatten().copied().collect();
        transaction.execute(&format!("{start}{lists}{end}"), &cells)?;
    }
    Ok(())
}
