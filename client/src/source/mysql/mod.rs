//! A MariaDB or MySQL database as the source. Each call is one snapshot (`START TRANSACTION WITH CONSISTENT SNAPSHOT, READ
//! ONLY`) over the binary protocol, in which numbers, dates and single-precision floats come as they are stored.
//!
//! | file | what lives there |
//! |---|---|
//! | `address` | where the server is, and what sessions are set to |
//! | `session` | the connection |
//! | `catalogue` | tables, columns, keys and indexes as the database tells |
//! | `types` | declared types, and which Postgres types are proposed for them |
//! | `dialect` | statements, and in which order rows come |
//! | `convert` | the database's values to Postgres' |
//! | `write` | writing |
//! | `row` | a row of a query |
//! | `raw` | the database's own values in cursors and keys |
//!
//! There is no change token: none of the server's counters that a user may read changes exactly when what a snapshot shows
//! does.

mod address;
mod catalogue;
mod convert;
mod dialect;
mod error;
mod raw;
mod row;
mod session;
mod types;
mod write;

use std::collections::HashMap;
use std::ops::ControlFlow;

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::store::{Outcome, PositionRange, Source, TableId};
use plimsoll_core::value::{ColumnType, Value};

use super::Password;
use super::engine::Engine;
use super::kind::{Kind, LocalRow, Scratch};
use super::local::{LocalColumn, LocalDatabase, LocalTable, Part, no_note};
use super::plan::TablePlan;
use super::query::{Condition, Order, Query, RawValue, Select};
use super::statement::{Rendered, render};
use super::write::LocalStore;
use crate::failure::{Advise, table as refused};
use catalogue::Index;
use dialect::{Sql, bounds, local_type, quoted};
use row::MysqlRow;
use session::Session;
use types::{LocalType, postgres_type};
use write::WriteTable;

/// Rows that a portion holds beyond those that are expected to be taken.
const SPARE_ROWS: u64 = 64;

/// An open database.
#[derive(Debug)]
pub struct Mysql {
    session: Session,
    database: String,
    /// The indexes of tables that were read, by the table's name.
    indexes: HashMap<String, Vec<Index>>,
    /// What is known of tables that were written to.
    writing: HashMap<TableId, WriteTable>,
}

impl Mysql {
    /// Connects.
    ///
    /// # Errors
    /// A `Run` failure where the url is none, the server lets nobody in by this name and password, or has no such
    /// database; `Passing` where it cannot be reached.
    pub fn open(url: &str, password: Option<&Password>) -> Outcome<Self> {
        Self::open_as(url, password, false)
    }

    /// Connects to write.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_writable(url: &str, password: Option<&Password>) -> Outcome<Self> {
        Self::open_as(url, password, true)
    }

    fn open_as(url: &str, password: Option<&Password>, is_written: bool) -> Outcome<Self> {
        let address = address::parse(url, password.map(|password| password.0.as_str()))?;
        if address.is_open {
            tracing::warn!(
                "nothing protects the connection to {}: ssl-mode=verify_identity behind the source's url does",
                address.opts.ip_or_hostname()
            );
        }
        Ok(Mysql {
            session: Session::open(address.opts, is_written)?,
            database: address.database,
            indexes: HashMap::new(),
            writing: HashMap::new(),
        })
    }

    /// Whether some row of the table meets a condition.
    fn has(&mut self, table: &LocalTable, condition: &str) -> Outcome<bool> {
        let sql = format!("SELECT 1 FROM {} WHERE {condition} LIMIT 1", table.relation);
        Ok(!self.session.rows(&sql, &[])?.is_empty())
    }

    /// Reads the indexes of a table, once.
    fn read_indexes(&mut self, table: &String) -> Outcome<()> {
        if !self.indexes.contains_key(table) {
            let found = catalogue::read_indexes(&mut self.session, table)?;
            self.indexes.insert(table.clone(), found);
        }
        Ok(())
    }

    /// Runs a query as it is. Answers how many rows there were, and whether `each` broke.
    fn run(
        &mut self,
        query: &Query<'_>,
        types: &[LocalType],
        each: &mut dyn FnMut(&MysqlRow<'_>) -> ControlFlow<()>,
    ) -> Outcome<(u64, bool)> {
        let table = &query.plan.table;
        self.read_indexes(table)?;
        let indexes = self.indexes.get(table).map(Vec::as_slice).unwrap_or_default();
        let Rendered { sql, parameters } = render(&Sql(indexes), query);
        let values = parameters.iter().map(|parameter| dialect::value(query.plan, parameter)).collect();
        // Few rows have one key.
        let most = match query.condition {
            Condition::Key(_) => Some(1),
            _ => query.limit,
        };
        let outcome = self.session.stream(&sql, values, most, &mut |row| each(&MysqlRow { row, types }));
        match outcome {
            // An index that was dropped, or may not be used.
            Err(failure) if error::is_no_index(&failure) && !indexes.is_empty() => {
                self.indexes.insert(table.clone(), Vec::new());
                self.run(query, types, each)
            }
            outcome => outcome,
        }
    }
}

/// The local types of the columns that a query selects.
fn selected_types(query: &Query<'_>) -> Vec<LocalType> {
    let plan = query.plan;
    let places: Vec<usize> = match query.select {
        Select::Row => (0..plan.columns.len()).collect(),
        Select::Key => plan.schema.key_indexes().to_vec(),
        Select::Version => plan.version_place().into_iter().collect(),
    };
    places.into_iter().map(|place| local_type(plan, place)).collect()
}

/// A range without the ends that lie outside the positions there can be; `None` where nothing is in it.
fn within(range: PositionRange, plan: &TablePlan) -> Option<PositionRange> {
    let Some((first, beyond)) = bounds(plan) else { return Some(range) };
    if range.from.is_some_and(|from| from >= beyond) || range.to.is_some_and(|to| to <= first) {
        return None;
    }
    Some(PositionRange {
        from: range.from.filter(|from| *from > first),
        to: range.to.filter(|to| *to < beyond),
    })
}

/// Whether rows can be read in order at all.
fn check_order(plan: &TablePlan) -> Outcome<()> {
    if let (Some(place), Some(version)) = (plan.version_place(), plan.schema.version()) {
        let local = local_type(plan, place);
        if !local.places(&version.column_type) {
            return Err(refused(format!(
                "column \"{}\" of the local table \"{}\" is {}: as a version of type {} it orders no rows",
                plan.columns[place].name,
                plan.table,
                local.shown(),
                version.column_type
            ))
            .advise("take an integer, DATETIME, TIMESTAMP or BINARY column, or manage the table without a version"));
        }
    }
    for place in plan.order.iter().copied().filter(|_| !plan.schema.is_keyless()) {
        match local_type(plan, place) {
            LocalType::Text(text) if !text.is_lossless() => {
                return Err(refused(format!(
                    "key column \"{}\" of the local table \"{}\" has the character set {}",
                    plan.columns[place].name, plan.table, text.charset
                ))
                .advise("keys may be in utf8mb4, utf8mb3, latin1 and ascii: ALTER TABLE ... CONVERT TO CHARACTER SET utf8mb4"));
            }
            _ => {}
        }
    }
    Ok(())
}

impl LocalDatabase for Mysql {
    fn kind(&self) -> &'static str {
        if self.session.is_mariadb() { "MariaDB" } else { "MySQL" }
    }

    fn table_names(&mut self) -> Outcome<Vec<String>> {
        catalogue::table_names(&mut self.session)
    }

    fn table(&mut self, name: &str) -> Outcome<LocalTable> {
        no_note(name)?;
        let (table, engine) = catalogue::read_table(&mut self.session, name)?;
        if let Some(engine) = engine {
            tracing::warn!(
                "\"{}\" of {} is a table of {engine}, which has no snapshots: rows that change while they are read may be \
                 taken for differences; ALTER TABLE {} ENGINE = InnoDB",
                table.name,
                self.database,
                table.relation
            );
        }
        Ok(table)
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
        let (local, name) = (LocalType::parse(&column.declared), quoted(&column.name));
        let Some(proposed) = postgres_type(&local) else {
            let message = format!(
                "column \"{}\" of \"{}\" is {}, which is not supported",
                column.name,
                table.name,
                local.shown()
            );
            return Err(refused(message)
                .advise(format!("leave it out: leave_out = [\"{}\"] in the configuration", column.name)));
        };
        Ok(match (part, &local) {
            (Part::Modified, LocalType::Datetime(_) | LocalType::Timestamp(_)) => Some(proposed),
            (Part::Modified, _) => None,
            (Part::Version, LocalType::Integer { .. } | LocalType::Decimal(_, 0)) => {
                Some("bigint".to_owned())
            }
            // What BOOLEAN means, unless other numbers are there.
            (_, LocalType::Integer { name: integer, width: Some(1), .. }) if integer == "tinyint" => {
                let others = self.has(table, &format!("{name} NOT IN (0, 1)"))?;
                Some(if others { proposed } else { "boolean".to_owned() })
            }
            // A time of day, unless there are others.
            (_, LocalType::Time(digits)) => {
                let others = self.has(table, &format!("{name} < '00:00:00' OR {name} > '24:00:00'"))?;
                Some(if others { format!("interval({digits})") } else { proposed })
            }
            _ => Some(proposed),
        })
    }

    fn fits(&mut self, table: &LocalTable, column: &str, to: &ColumnType) -> Outcome<()> {
        let Some(found) = table.column(column) else { return Ok(()) };
        let local = LocalType::parse(&found.declared);
        if convert::takes(to, &local) {
            return Ok(());
        }
        let message = format!(
            "column \"{}\" of the local table \"{}\" is {}, which the managed table's {to} does not take",
            found.name,
            table.name,
            local.shown()
        );
        let advice = match postgres_type(&local) {
            Some(proposed) => {
                format!("ALTER TABLE ... ALTER COLUMN \"{}\" TYPE {proposed}, or leave it out", found.name)
            }
            None => format!("leave it out: leave_out = [\"{}\"] in the configuration", found.name),
        };
        Err(refused(message).advise(advice))
    }

    fn understands(&mut self, statement: &str) -> Outcome<()> {
        self.session.rows(statement, &[]).map(drop)
    }

    fn highest_position(&mut self, plan: &TablePlan) -> Outcome<Option<i64>> {
        let Some(version) = plan.version_place().and_then(|_| plan.schema.version()) else { return Ok(None) };
        let query = Query {
            table: 0,
            plan,
            select: Select::Version,
            condition: Condition::At(PositionRange::ALL),
            order: Order::VersionDown,
            skip: 0,
            limit: None,
            expected: Some(1),
        };
        let (mut position, mut scratch) = (None, Scratch::default());
        self.begin()?;
        let outcome = self.stream(&query, &mut |row| {
            position = row.position(0, &version.column_type, &mut scratch);
            if position.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.end();
        outcome.map(|()| position)
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

impl Kind for Mysql {
    type Row<'r> = MysqlRow<'r>;

    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        Ok(None)
    }

    fn begin(&mut self) -> Outcome<()> {
        self.session.begin()
    }

    fn end(&mut self) {
        self.session.end();
    }

    /// There is none here; but the connection, and with it the snapshot, would be given up where rows are not all taken.
    fn use_kept(&mut self, use_it: bool) {
        self.session.stay(!use_it);
    }

    /// Rows that are not all taken are asked for in portions: with a limit the server finds them by an index instead of
    /// sorting them all, and little is left to be read when `each` breaks.
    fn stream(
        &mut self,
        query: &Query<'_>,
        each: &mut dyn FnMut(&MysqlRow<'_>) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let mut query = *query;
        if query.condition != Condition::All || query.order != Order::Any {
            check_order(query.plan)?;
        }
        if let Condition::At(range) = query.condition {
            match within(range, query.plan) {
                Some(range) => query.condition = Condition::At(range),
                None => return Ok(()),
            }
        }
        if !self.session.is_open() && !self.session.is_held() {
            // It was closed on a query before that was left half-way.
            self.session.begin()?;
        }
        let types = selected_types(&query);
        let (None, Some(expected)) = (query.limit, query.expected) else {
            return self.run(&query, &types, each).map(drop);
        };
        if query.order == Order::Version {
            // In the same order again: rows that share a version would else come as they like.
            query.order = Order::Reading;
        }
        let mut portion = expected.saturating_add(SPARE_ROWS);
        loop {
            query.limit = Some(portion);
            let (rows, broke) = self.run(&query, &types, each)?;
            if broke || rows < portion {
                return Ok(());
            }
            query.skip = query.skip.saturating_add(rows);
            portion = portion.saturating_mul(2);
        }
    }

    /// With a limit they are; without, the connection is closed on them.
    fn reads_what_was_asked(&self) -> bool {
        true
    }

    fn count(&mut self, _: TableId, plan: &TablePlan) -> Outcome<u64> {
        let rows = self
            .session
            .rows(&format!("SELECT count(*) FROM {}{}", plan.relation, plan.where_clause()), &[])?;
        let count = rows.first().and_then(|row| row.get_opt::<u64, _>(0)).and_then(Result::ok);
        count.ok_or_else(|| refused(format!("the rows of \"{}\" cannot be counted", plan.table)))
    }

    fn spellings(
        &self,
        _: TableId,
        plan: &TablePlan,
        place: usize,
        value: &Value<'_>,
    ) -> (Vec<RawValue>, bool) {
        raw::spellings_of(value, &local_type(plan, place))
    }

    fn tells_apart(&self, plan: &TablePlan, place: usize) -> bool {
        use ColumnType as T;
        let column_type = &plan.schema.columns()[place].column_type;
        match local_type(plan, place) {
            LocalType::Text(_) => {
                matches!(column_type, T::Text | T::Varchar(_) | T::Citext | T::Enum(_) | T::Other(_))
            }
            _ => !matches!(column_type, T::Char(_) | T::Jsonb),
        }
    }
}

#[cfg(test)]
mod tests;
