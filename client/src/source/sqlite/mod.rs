//! A SQLite database as the source. It is opened read-only; each call is one short read transaction, so an
//! application that writes never waits for the network.
//!
//! | file | what lives there |
//! |---|---|
//! | `open` | opening the file |
//! | `schema` | tables, columns, keys and indexes as the database tells |
//! | `types` | which Postgres types are proposed for them |
//! | `axis` | the version column as an axis of positions |
//! | `convert` | SQLite's values to Postgres' |
//! | `row` | rows, and SQLite's own values in cursors and keys |
//! | `collation` | keys that are unique under another collation than their columns' |
//! | `change` | whether anything was written since |
//! | `write` | writing |

mod axis;
mod change;
mod collation;
mod convert;
mod error;
mod open;
mod row;
mod schema;
mod types;
mod write;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;
use std::path::Path;

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::store::{Outcome, Source, TableId};
use plimsoll_core::value::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::engine::Engine;
use super::kind::Kind;
use super::local::{LocalColumn, LocalDatabase, LocalTable, Part, no_note};
use super::plan::TablePlan;
use super::query::{Query, RawValue};
use super::statement::{Dialect, Parameter, Rendered, render};
use super::write::LocalStore;
use crate::failure::{Advise, run as no_run, table as refused};
use axis::{Axis, VersionKind, find_axis};
use change::ChangeFiles;
use error::failure;
use row::{Bound, spellings_of, tells_apart};
use schema::quoted;
use write::{ForeignKey, LateKeys};

/// An open database.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    /// Behind the connection: it is closed first.
    files: ChangeFiles,
    /// How the run's tables are ordered, found at the first read.
    orders: HashMap<TableId, Ordering>,
    /// What is looked at before tables that are written to are committed.
    late: HashMap<TableId, LateKeys>,
    /// The foreign keys that act on other rows when rows of a table are deleted.
    acting: HashMap<TableId, Vec<ForeignKey>>,
}

/// How the rows of a table are ordered.
#[derive(Debug)]
struct Ordering {
    /// How versions compare.
    axis: Axis,
    /// Collations of key columns, by their places, where they are not the columns' own.
    collations: Vec<(usize, String)>,
}

impl Sqlite {
    /// Opens the file read-only.
    ///
    /// # Errors
    /// A `Run` failure where there is no such file or it is no database, `Passing` where it is locked.
    pub fn open(path: &Path) -> Outcome<Self> {
        Self::open_as(path, true)
    }

    /// Opens the file to be written to.
    ///
    /// # Errors
    /// As [`open`](Self::open); a `Run` failure where it may not be written to.
    pub fn open_writable(path: &Path) -> Outcome<Self> {
        Self::open_as(path, false)
    }

    fn open_as(path: &Path, read_only: bool) -> Outcome<Self> {
        if !path.exists() {
            return Err(no_run(format!("there is no file {}", path.display())).advise(
                "check sqlite = \"..\" under [source]; a relative path starts at the configuration",
            ));
        }
        let unreadable =
            |error: std::io::Error| no_run(format!("{} cannot be read: {error}", path.display()));
        let files = ChangeFiles::open(path).map_err(unreadable)?;
        let connection = open::connect(path, read_only)?;
        if !read_only && connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false) {
            return Err(no_run(format!("{} may not be written to", path.display()))
                .advise("give the user that runs plimsoll the right to write the file and its folder"));
        }
        Ok(Sqlite { connection, files, orders: HashMap::new(), late: HashMap::new(), acting: HashMap::new() })
    }

    /// How the rows of a table are ordered.
    fn ordering(&mut self, table: TableId, plan: &TablePlan) -> Outcome<&Ordering> {
        match self.orders.entry(table) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(vacant) => {
                let found = Ordering::find(&self.connection, plan).map_err(|error| failure(&error))?;
                Ok(vacant.insert(found))
            }
        }
    }
}

impl Ordering {
    fn find(connection: &Connection, plan: &TablePlan) -> rusqlite::Result<Ordering> {
        let axis = match plan.version_place() {
            None => Axis::Number,
            Some(place) => {
                let kind = VersionKind::of(&plan.schema.columns()[place].column_type);
                find_axis(connection, &plan.relation, &plan.columns[place].name, kind)?
            }
        };
        Ok(Ordering { axis, collations: collation::of_key(connection, plan)? })
    }
}

impl LocalDatabase for Sqlite {
    fn kind(&self) -> &'static str {
        "SQLite"
    }

    fn table_names(&mut self) -> Outcome<Vec<String>> {
        schema::table_names(&self.connection).map_err(|error| failure(&error))
    }

    fn table(&mut self, name: &str) -> Outcome<LocalTable> {
        no_note(name)?;
        match schema::read_table(&self.connection, name) {
            Ok(Some(table)) => Ok(table),
            Ok(None) => Err(refused(format!("the local SQLite database has no table \"{name}\""))
                .advise("correct its name in the configuration, or take it out")),
            Err(error) => Err(failure(&error)),
        }
    }

    fn quoted(&self, name: &str) -> String {
        quoted(name)
    }

    fn proposed_type(
        &mut self,
        table: &LocalTable,
        column: &LocalColumn,
        part: Part,
    ) -> Outcome<Option<String>> {
        types::proposed(&self.connection, table, column, part).map_err(|error| failure(&error))
    }

    fn understands(&mut self, statement: &str) -> Outcome<()> {
        self.connection.prepare(statement).map(drop).map_err(|error| failure(&error))
    }

    fn highest_position(&mut self, plan: &TablePlan) -> Outcome<Option<i64>> {
        let Some(place) = plan.version_place() else { return Ok(None) };
        let kind = VersionKind::of(&plan.schema.columns()[place].column_type);
        let (version, filter) = (quoted(&plan.columns[place].name), plan.where_clause());
        let sql = format!("SELECT max({version}) FROM {}{filter}", plan.relation);
        let position = |row: &Row<'_>| Ok(kind.position(row.get_ref(0)?));
        self.connection.query_row(&sql, [], position).map_err(|error| failure(&error))
    }

    fn into_source(
        self: Box<Self>,
        tables: Vec<TablePlan>,
        key: FingerprintKey,
    ) -> Outcome<Box<dyn Source + Send>> {
        Ok(Box::new(Engine::new(*self, tables, key)))
    }

    fn into_store(
        self: Box<Self>,
        tables: Vec<TablePlan>,
        key: FingerprintKey,
    ) -> Outcome<Box<dyn LocalStore>> {
        Ok(Box::new(Engine::new(*self, tables, key)))
    }
}

/// SQLite's statements, for a table whose rows are ordered like this.
struct Sql<'a>(&'a Ordering);

impl Dialect for Sql<'_> {
    fn quoted(&self, name: &str) -> String {
        quoted(name)
    }

    fn mark(&self, number: usize, _: &Parameter<'_>, _: &TablePlan) -> String {
        format!("?{number}")
    }

    fn version(&self, plan: &TablePlan) -> String {
        plan.version().map(|column| self.0.axis.expression(&column.name)).unwrap_or_default()
    }

    fn placed(&self, plan: &TablePlan) -> String {
        plan.version().map(|column| self.0.axis.placed(&column.name)).unwrap_or_default()
    }

    fn misplaced(&self, plan: &TablePlan) -> String {
        plan.version().map(|column| self.0.axis.misplaced(&column.name)).unwrap_or_default()
    }

    fn ordered(&self, plan: &TablePlan, place: usize) -> String {
        let Some(column) = plan.columns.get(place) else { return plan.row_id.clone().unwrap_or_default() };
        let collation = self.0.collations.iter().find(|(other, _)| *other == place);
        let collation = collation.map(|(_, name)| format!(" COLLATE {}", quoted(name)));
        quoted(&column.name) + &collation.unwrap_or_default()
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn nulls_first(&self) -> bool {
        true
    }

    fn limits(&self, limit: Option<String>, skip: Option<String>) -> String {
        match (limit, skip) {
            (None, None) => String::new(),
            (limit, None) => format!(" LIMIT {}", limit.unwrap_or_default()),
            (limit, Some(skip)) => format!(" LIMIT {} OFFSET {skip}", limit.as_deref().unwrap_or("-1")),
        }
    }
}

impl Kind for Sqlite {
    type Row<'r> = Row<'r>;

    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        if self.files.is_replaced().unwrap_or(true) {
            return Err(no_run("the local SQLite database's file was replaced or removed while it was read")
                .advise("run again: the file that is there by then is read"));
        }
        Ok(self.files.token().ok())
    }

    fn begin(&mut self) -> Outcome<()> {
        self.connection.execute_batch("BEGIN").map_err(|error| failure(&error))
    }

    fn end(&mut self) {
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::debug!("the end of a read transaction: {error}");
        }
    }

    fn holds_up_writers(&self) -> bool {
        true
    }

    fn stream(
        &mut self,
        query: &Query<'_>,
        each: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Outcome<()> {
        self.ordering(query.table, query.plan)?;
        let Sqlite { connection, orders, .. } = self;
        let ordering = orders.get(&query.table).ok_or_else(|| refused("a table outside the run"))?;
        let Rendered { sql, parameters } = render(&Sql(ordering), query);
        let axis = &ordering.axis;
        let stream = || -> rusqlite::Result<()> {
            let mut statement = connection.prepare_cached(&sql)?;
            let bound = parameters.into_iter().map(|parameter| Bound { parameter, axis });
            let mut rows = statement.query(params_from_iter(bound))?;
            while let Some(row) = rows.next()? {
                if each(row).is_break() {
                    break;
                }
            }
            Ok(())
        };
        stream().map_err(|error| failure(&error))
    }

    fn count(&mut self, _: TableId, plan: &TablePlan) -> Outcome<u64> {
        let count = || -> rusqlite::Result<i64> {
            let sql = format!("SELECT count(*) FROM {}{}", plan.relation, plan.where_clause());
            self.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))
        };
        count().map(i64::unsigned_abs).map_err(|error| failure(&error))
    }

    fn finds_positions(&mut self, table: TableId, plan: &TablePlan) -> Outcome<bool> {
        Ok(plan.indexed && self.ordering(table, plan)?.axis != Axis::Computed)
    }

    /// Rows that share a position come by their spelling where that is what versions compare by.
    fn order_mark(&mut self, table: TableId, plan: &TablePlan) -> Outcome<u8> {
        Ok(u8::from(self.ordering(table, plan)?.axis == Axis::Computed))
    }

    /// The spellings of a version changed: from now on positions are computed.
    fn reorder(&mut self, table: TableId) -> bool {
        let Some(ordering) = self.orders.get_mut(&table) else { return false };
        std::mem::replace(&mut ordering.axis, Axis::Computed) != Axis::Computed
    }

    fn spellings(
        &self,
        _: TableId,
        plan: &TablePlan,
        place: usize,
        value: &Value<'_>,
    ) -> (Vec<RawValue>, bool) {
        spellings_of(value, &plan.schema.columns()[place].column_type)
    }

    fn tells_apart(&self, plan: &TablePlan, place: usize) -> bool {
        tells_apart(&plan.schema.columns()[place].column_type)
    }
}

#[cfg(test)]
pub(in crate::source) mod tests;
