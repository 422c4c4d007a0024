//! A SQLite database as the source. It is opened read-only; each call is one short read transaction, so an
//! application that writes never waits for the network.
//!
//! | file | what lives there |
//! |---|---|
//! | `schema` | tables, columns, keys and indexes as the database tells |
//! | `plan` | how a local table becomes a managed one |
//! | `axis` | the version column as an axis of positions |
//! | `convert` | SQLite's values to Postgres' |
//! | `encode` | rows to encoded rows |
//! | `read`, `find` | reading in order, and by key or item |
//! | `change` | whether anything was written since |
//! | `raw` | SQLite's own values in cursors and keys |

pub mod axis;
mod change;
mod convert;
mod encode;
mod error;
mod find;
pub mod plan;
mod raw;
mod read;
pub mod schema;

use std::path::Path;
use std::time::Duration;

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::store::{
    BatchLimit, Cursor, Outcome, PositionRange, Source, SourceBatch, SourceKey, SourceRecord, SourceRow,
    SourceWindow, TableId,
};
use plimsoll_core::value::datetime::parse_timestamp;
use plimsoll_core::{manifest::Item, store::Failure};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::failure::{Advise, run as no_run, table as refused};
use axis::{VersionKind, find_axis};
use change::ChangeFiles;
use encode::Encoder;
pub use error::failure;
use plan::TablePlan;
use schema::{LocalTable, quoted};

/// How long a statement waits for a writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many prepared statements are kept.
const STATEMENTS: usize = 512;

/// An open database, of which the tables are still to be chosen.
#[derive(Debug)]
pub struct LocalDatabase {
    connection: Connection,
    /// Behind the connection: it is closed first.
    files: ChangeFiles,
}

impl LocalDatabase {
    /// Opens the file read-only.
    ///
    /// # Errors
    /// A `Run` failure where there is no such file or it is no database, `Passing` where it is locked.
    pub fn open(path: &Path) -> Outcome<Self> {
        if !path.exists() {
            return Err(no_run(format!("there is no file {}", path.display())).advise(
                "check sqlite = \"..\" under [source]; a relative path starts at the configuration",
            ));
        }
        let unreadable =
            |error: std::io::Error| no_run(format!("{} cannot be read: {error}", path.display()));
        let files = ChangeFiles::open(path).map_err(unreadable)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| failure(&error))?;
        let set_up = || {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "query_only", true)?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
            axis::add_functions(&connection)?;
            // The first statement that reads shows whether this is a database at all.
            connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()))
        };
        set_up().map_err(|error| failure(&error))?;
        Ok(LocalDatabase { connection, files })
    }

    /// The names of its tables.
    ///
    /// # Errors
    /// As [`failure`] says.
    pub fn table_names(&self) -> Outcome<Vec<String>> {
        schema::table_names(&self.connection).map_err(|error| failure(&error))
    }

    /// One table.
    ///
    /// # Errors
    /// A `Table` failure where there is none of that name.
    pub fn table(&self, name: &str) -> Outcome<LocalTable> {
        match schema::read_table(&self.connection, name) {
            Ok(Some(table)) => Ok(table),
            Ok(None) => Err(refused(format!("the local database has no table \"{name}\""))
                .advise("correct its name in the configuration, or take it out")),
            Err(error) => Err(failure(&error)),
        }
    }

    /// The highest position by a table's version column, whatever kind it is; for the server to notice a
    /// restored backup.
    ///
    /// # Errors
    /// As [`failure`] says.
    pub fn highest_version(&self, table: &str, version: &str) -> Outcome<Option<i64>> {
        let sql = format!("SELECT max({column}) FROM main.{}", quoted(table), column = quoted(version));
        let position = |row: &rusqlite::Row<'_>| {
            let raw = row.get_ref(0)?;
            Ok(VersionKind::Number.position(raw).or_else(|| VersionKind::Stamp.position(raw)))
        };
        let found = self.connection.query_row(&sql, [], position).optional();
        Ok(found.map_err(|error| failure(&error))?.flatten())
    }

    /// Whether all that a column holds are timestamps as ISO text, and whether one of them has a time zone;
    /// `None` where they are none or there are none. Looks at the first 1,000 rows.
    ///
    /// # Errors
    /// As [`failure`] says.
    pub fn holds_stamps(&self, table: &str, column: &str) -> Outcome<Option<bool>> {
        let (table, column) = (quoted(table), quoted(column));
        let sql = format!("SELECT {column} FROM main.{table} WHERE {column} IS NOT NULL LIMIT 1000");
        let look = || -> rusqlite::Result<Option<bool>> {
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            let mut zoned = None;
            while let Some(row) = rows.next()? {
                let text = row.get_ref(0)?.as_str().ok();
                let Some(Ok((_, zone))) = text.map(parse_timestamp) else { return Ok(None) };
                zoned = Some(zoned.unwrap_or(false) || zone.is_some());
            }
            Ok(zoned)
        };
        look().map_err(|error| failure(&error))
    }

    /// The storage classes of what a column holds, for a column declared without a type. Looks at the
    /// first 100,000 rows.
    ///
    /// # Errors
    /// As [`failure`] says.
    pub fn storage_classes(&self, table: &str, column: &str) -> Outcome<Vec<String>> {
        let (table, column) = (quoted(table), quoted(column));
        let sql = format!(
            "SELECT DISTINCT typeof({column}) FROM (SELECT {column} FROM main.{table} LIMIT 100000)
             WHERE {column} IS NOT NULL"
        );
        let classes = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self.connection.prepare(&sql)?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        classes().map_err(|error| failure(&error))
    }

    /// The source of a run over these tables.
    pub fn into_source(self, tables: Vec<TablePlan>, key: FingerprintKey) -> SqliteSource {
        SqliteSource { database: self, tables, encoder: Encoder::new(key) }
    }
}

/// The tables of one run.
#[derive(Debug)]
pub struct SqliteSource {
    database: LocalDatabase,
    tables: Vec<TablePlan>,
    encoder: Encoder,
}

/// A call's view: its transaction, its table, its buffers.
struct Reader<'s> {
    connection: &'s Connection,
    plan: &'s TablePlan,
    axis: &'s axis::Axis,
    encoder: &'s mut Encoder,
}

/// Why a call ended early.
enum Trouble {
    /// It fails.
    Failed(Failure),
    /// Rows came in another order than their positions': the spellings of a version changed.
    Disorder,
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Failed(failure(&error))
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failed(failure)
    }
}

type Step<T> = Result<T, Trouble>;

impl SqliteSource {
    fn with<T>(&mut self, table: TableId, mut work: impl FnMut(&mut Reader<'_>) -> Step<T>) -> Outcome<T> {
        let connection = &self.database.connection;
        let plan = self.tables.get_mut(table).ok_or_else(|| refused("a table outside the run"))?;
        let transaction = connection.unchecked_transaction().map_err(|error| failure(&error))?;
        let axis = match plan.axis.take() {
            Some(axis) => axis,
            None => find_axis(connection, &plan.table, plan.version_column(), plan.version_kind)
                .map_err(|error| failure(&error))?,
        };
        let mut attempt = |axis: &axis::Axis| {
            work(&mut Reader { connection: &transaction, plan, axis, encoder: &mut self.encoder })
        };
        let (axis, answer) = match attempt(&axis) {
            Err(Trouble::Disorder) => (axis::Axis::Computed, attempt(&axis::Axis::Computed)),
            answer => (axis, answer),
        };
        plan.axis = Some(axis);
        answer.map_err(|trouble| match trouble {
            Trouble::Failed(failure) => failure,
            Trouble::Disorder => refused(format!("the rows of \"{}\" come in no order", plan.table)),
        })
    }
}

impl Source for SqliteSource {
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        let files = &mut self.database.files;
        if files.is_replaced().unwrap_or(true) {
            return Err(no_run("the local database's file was replaced or removed while it was read")
                .advise("run again: the file that is there by then is read"));
        }
        Ok(files.token().ok())
    }

    fn max_position(&mut self, table: TableId) -> Outcome<Option<i64>> {
        self.with(table, |reader| reader.max_position())
    }

    fn row_count(&mut self, table: TableId) -> Outcome<u64> {
        self.with(table, |reader| reader.row_count())
    }

    fn tail_start(&mut self, table: TableId, upto: i64, rows: u64) -> Outcome<Option<i64>> {
        self.with(table, |reader| reader.tail_start(upto, rows))
    }

    fn read_batch(
        &mut self,
        table: TableId,
        after: Option<&Cursor>,
        limit: BatchLimit,
    ) -> Outcome<SourceBatch> {
        self.with(table, |reader| reader.read_batch(after, limit))
    }

    fn window(&mut self, table: TableId, range: PositionRange, rows: u64) -> Outcome<SourceWindow> {
        self.with(table, |reader| reader.window(range, rows))
    }

    fn windows(&mut self, table: TableId, ranges: &[PositionRange], rows: u64) -> Outcome<Vec<SourceWindow>> {
        self.with(table, |reader| reader.windows(ranges, rows))
    }

    fn rows_of(&mut self, table: TableId, items: &[Item]) -> Outcome<Vec<SourceRow>> {
        self.with(table, |reader| reader.rows_of(items))
    }

    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        self.with(table, |reader| reader.lookup(keys))
    }
}

#[cfg(test)]
mod tests;
