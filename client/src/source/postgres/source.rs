//! Rows of queries, and what tells that nothing changed.

use std::ops::ControlFlow;

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::store::{Outcome, PositionRange, TableId};
use plimsoll_core::value::{ColumnType, Value};
use tokio_postgres::{Column, Row};

use super::kept::Keeper;
use super::row::{Bound, PostgresRow};
use super::session::{Fetch, Names, Next, Session};
use super::shape::{Operators, Shape};
use super::spelled::spellings;
use super::write::WriteTable;
use crate::failure::{Advise, table as refused};
use crate::source::kind::{Kind, LocalRow};
use crate::source::plan::TablePlan;
use crate::source::query::{Query, RawValue, Select};
use crate::source::statement::{Dialect, render};

/// Rows that are fetched before it is known how large they are.
const FIRST_PORTION: i32 = 64;
/// The most rows of a portion.
const MOST_ROWS: usize = 5_000;
/// About how many bytes are fetched in one portion: where reading stops, the rest was sent in vain.
const PORTION_BYTES: usize = 512 << 10;

/// What reading a table needs to know of its columns, in the order of its plan.
#[derive(Debug, Clone)]
pub struct ReadTable {
    /// How their values look.
    pub shapes: Vec<Shape>,
    /// The OIDs of the types whose values look so; `None` of columns that are not selected as they are.
    types: Vec<Option<u32>>,
    /// By which operators they are compared.
    pub operators: Vec<Operators>,
    /// Where its rows stand, where that is a hash that an index has.
    pub position: Option<String>,
    /// How large its rows are, as far as they were read; 0 before.
    row_bytes: usize,
}

impl ReadTable {
    /// A table whose columns have these shapes and types, and are compared so.
    pub fn new(shapes: Vec<Shape>, types: Vec<Option<u32>>, operators: Vec<Operators>) -> Self {
        ReadTable { shapes, types, operators, position: None, row_bytes: 0 }
    }

    /// The first of the columns at these places of the plan whose values come with another type than when the run began.
    fn altered(&self, places: &[usize], row: &Row) -> Option<usize> {
        let is_other = |(place, column): (&usize, &Column)| {
            self.types[*place].is_some_and(|oid| oid != column.type_().oid()).then_some(*place)
        };
        places.iter().zip(row.columns()).find_map(is_other)
    }

    fn portion(&self) -> i32 {
        match self.row_bytes {
            0 => FIRST_PORTION,
            // It fits, because it is no more than the most.
            bytes => (PORTION_BYTES / bytes).clamp(1, MOST_ROWS) as i32,
        }
    }

    /// Rows grow at once and shrink slowly: a few large ones in a portion are what costs.
    fn saw(&mut self, bytes: usize) {
        self.row_bytes = (self.row_bytes - self.row_bytes / 16 + bytes / 16).max(bytes).max(1);
    }
}

/// The tables of one run.
#[derive(Debug)]
pub struct PostgresSource {
    pub(super) session: Session,
    pub(super) tables: Vec<ReadTable>,
    /// What tells of the manifests that the database keeps itself, where they are used.
    keeper: Option<Keeper>,
    /// Whether manifests may be asked.
    uses_kept: bool,
    /// What is known of tables that were written to.
    pub(super) writing: Vec<Option<WriteTable>>,
    /// Whether constraints are put off in this transaction, where they may be.
    pub(super) put_off: bool,
}

impl PostgresSource {
    /// The source over these tables.
    pub fn new(session: Session, tables: Vec<ReadTable>, keeper: Option<Keeper>) -> Self {
        let writing = Vec::new();
        PostgresSource { session, tables, keeper, uses_kept: true, writing, put_off: false }
    }
}

/// A state of the whole database: equal where nothing was committed between. The snapshot tells every transaction that
/// had a number; what comes without one (unlogged tables after a crash, a restored copy of the files) comes with a
/// start of the server. On a standby it tells of running transactions nothing: there is no token.
const TOKEN: &str = "SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.concat_ws(' ',
         s.system_identifier, c.timeline_id, d.oid,
         pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()), pg_catalog.pg_current_snapshot()) END
     FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_database d
     WHERE d.datname = pg_catalog.current_database()";

impl Kind for PostgresSource {
    type Row<'r> = PostgresRow<'r>;

    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        let token = self.session.catalogue(async |client| {
            client.query_typed_one(TOKEN, &[]).await?.try_get::<_, Option<String>>(0)
        })?;
        Ok(token.map(String::into_bytes))
    }

    fn begin(&mut self) -> Outcome<()> {
        self.session.begin()
    }

    fn end(&mut self) {
        self.session.end();
    }

    fn stream(
        &mut self,
        query: &Query<'_>,
        each: &mut dyn FnMut(&PostgresRow<'_>) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let PostgresSource { session, tables, .. } = self;
        session.name_by(Names::Catalogue)?;
        let table = &mut tables[query.table];
        let rendered = render(table, query);
        let version = table.version_shape(query.plan);
        let bound: Vec<Bound<'_>> =
            rendered.parameters.iter().map(|parameter| Bound::new(parameter, version)).collect();
        let places: Vec<usize> = match query.select {
            Select::Row => (0..query.plan.columns.len()).collect(),
            Select::Key => query.plan.schema.key_indexes().to_vec(),
            Select::Version => query.plan.version_place().into_iter().collect(),
        };
        let all_shapes = table.shapes.clone();
        let shapes: Vec<&Shape> = places.iter().map(|place| &all_shapes[*place]).collect();
        let fetch = match query.expected {
            Some(expected) if query.select == Select::Row => {
                Fetch::Portions(table.portion().min(i32::try_from(expected).unwrap_or(i32::MAX)).max(1))
            }
            Some(_) => Fetch::Portions(FIRST_PORTION),
            None => Fetch::All,
        };
        let unsorted = table.comes_in_order(query.plan, query.order);
        let (mut last_id, mut is_disorderly) = (Vec::new(), false);
        let (mut is_first, mut altered) = (true, None);
        session.rows(&rendered.sql, &bound, fetch, &query.plan.relation, |row| {
            if std::mem::take(&mut is_first) {
                altered = table.altered(&places, row);
                if altered.is_some() {
                    return Next::Stop;
                }
            }
            if query.select == Select::Row {
                table.saw(row.raw_size_bytes());
            }
            let row = PostgresRow { row, shapes: &shapes };
            if unsorted {
                // Block and line, the higher bytes first: their order is that of the rows.
                let mut id = Vec::with_capacity(6);
                row.raw(shapes.len(), &mut id);
                is_disorderly |= id <= last_id;
                last_id = id;
            }
            match each(&row) {
                ControlFlow::Continue(()) if !is_disorderly => Next::Rows(table.portion()),
                _ => Next::Stop,
            }
        })?;
        if let Some(place) = altered {
            let message = format!(
                "column \"{}\" of the local table \"{}\" has another type than when the run began",
                query.plan.columns[place].name, query.plan.table
            );
            return Err(refused(message).advise("run again: the table is read as it is by then"));
        }
        match is_disorderly {
            true => Err(refused(format!("the rows of {} come in no order", query.plan.relation))),
            false => Ok(()),
        }
    }

    fn use_kept(&mut self, use_it: bool) {
        self.uses_kept = use_it;
    }

    fn kept(&mut self, table: TableId, plan: &TablePlan) -> Outcome<Option<Fingerprint>> {
        let Some(keeper) = self.keeper.as_mut().filter(|_| self.uses_kept) else { return Ok(None) };
        let root = keeper.root(&self.session, table, plan)?;
        self.tables[table].position = keeper.position(table).cloned();
        Ok(root)
    }

    fn kept_ranges(
        &mut self,
        table: TableId,
        plan: &TablePlan,
        ranges: &[PositionRange],
    ) -> Outcome<Option<Vec<Fingerprint>>> {
        match self.keeper.as_mut().filter(|_| self.uses_kept) {
            Some(keeper) => keeper.ranges(&self.session, table, plan, ranges),
            None => Ok(None),
        }
    }

    fn finds_positions(&mut self, table: TableId, plan: &TablePlan) -> Outcome<bool> {
        Ok(plan.indexed || self.tables[table].position.is_some())
    }

    fn count(&mut self, table: TableId, plan: &TablePlan) -> Outcome<u64> {
        if let Some(held) = self.kept(table, plan)? {
            return Ok(held.row_count());
        }
        if self.uses_kept && self.keeper.as_mut().is_some_and(Keeper::take_failed) {
            self.session.begin()?;
        }
        self.session.name_by(Names::Catalogue)?;
        let sql = format!("SELECT count(*) FROM {}{}", plan.relation, plan.where_clause());
        let mut count = 0i64;
        self.session.rows(&sql, &[], Fetch::All, &plan.relation, |row| {
            count = row.try_get(0).unwrap_or_default();
            Next::Stop
        })?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    fn settled(&mut self, table: TableId, plan: &TablePlan) -> Outcome<Option<i64>> {
        // Other versions say nothing of the transaction that wrote them.
        if *self.tables[table].version_shape(plan) != Shape::Xid8 {
            return Ok(None);
        }
        let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8";
        let mut settled = None;
        self.session.rows(sql, &[], Fetch::All, &plan.relation, |row| {
            settled = row.try_get(0).ok();
            Next::Stop
        })?;
        Ok(settled)
    }

    fn spellings(
        &self,
        table: TableId,
        _: &TablePlan,
        place: usize,
        value: &Value<'_>,
    ) -> (Vec<RawValue>, bool) {
        spellings(&self.tables[table].shapes[place], value)
    }

    fn tells_apart(&self, plan: &TablePlan, place: usize) -> bool {
        // What may be held as text locally; where it is not, that is found by looking.
        let mut column_type = &plan.schema.columns()[place].column_type;
        while let ColumnType::Array(element) = column_type {
            column_type = element;
        }
        !matches!(column_type, ColumnType::Char(_) | ColumnType::Jsonb | ColumnType::Composite(_))
    }
}

impl Session {
    /// The highest position of a table.
    ///
    /// # Errors
    /// As the server says.
    pub fn highest(&mut self, plan: &TablePlan, place: usize, table: &ReadTable) -> Outcome<Option<i64>> {
        let version = table.version(plan);
        let sql = format!(
            "SELECT {version} FROM {} WHERE {version} IS NOT NULL{} ORDER BY {version} DESC LIMIT 1",
            plan.relation,
            plan.condition().map(|condition| format!(" AND {condition}")).unwrap_or_default()
        );
        let shape = &table.shapes[place];
        let column_type = &plan.schema.columns()[place].column_type;
        let mut highest = None;
        self.begin()?;
        let answer = self.rows(&sql, &[], Fetch::All, &plan.relation, |row| {
            highest = PostgresRow { row, shapes: &[shape] }.position(0, column_type, &mut Default::default());
            Next::Stop
        });
        self.end();
        answer.map(|()| highest)
    }
}
