//! A SQLite database that is written to: one writer at a time, so that what is read in a transaction stays as it is.
//!
//! | file | what lives there |
//! |---|---|
//! | `local` | the managed column's values as SQLite keeps them |
//! | `errors` | why a row is not taken |
//! | `along` | rows that foreign keys delete or change with others |
//! | `late` | foreign keys that are looked at when the transaction is committed |
//! | `notes` | statements on Plimsoll's own tables |

mod along;
mod errors;
mod late;
mod local;
mod notes;

use std::ops::ControlFlow;

use plimsoll_core::Result as Made;
use plimsoll_core::sqlstate::FOREIGN_KEY;
use plimsoll_core::store::{Outcome, TableId};
use plimsoll_core::value::Value;
use rusqlite::config::DbConfig;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Row, ToSql, params_from_iter};

use super::error::{commit_failure, failure};
use super::row::{borrowed, raw_at, tells_apart};
use super::schema::quoted;
use super::{Sql, Sqlite, render};
use crate::failure::table as refused;
use crate::source::plan::TablePlan;
use crate::source::query::{Condition, Query, RawValue};
use crate::source::statement::Dialect;
use crate::source::write::{
    Aside, Done, Mode, Place, Referring, RowError, Savepoint, Stopped, WriteKind, WritePlan, Written,
};
use errors::stopped;
pub use late::{ForeignKey, LateKeys};

/// A value of the database's own, to be bound as it is.
struct Own<'v>(&'v RawValue);

impl ToSql for Own<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(borrowed(self.0)))
    }
}

impl Sqlite {
    /// Runs a statement once for each row; `values` are what it is run with.
    fn run_each<'v, V: Iterator<Item = &'v RawValue>>(
        &self,
        sql: &str,
        rows: usize,
        mut values: impl FnMut(usize) -> V,
        mut done: impl FnMut(),
    ) -> Result<(), Stopped> {
        // The application's triggers may have texts in double quotes.
        let quotes = |allowed| self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, allowed);
        quotes(true).map_err(|error| failure(&error))?;
        let mut run = || {
            let prepared = self.connection.prepare_cached(sql);
            let mut statement = prepared.map_err(|error| Stopped::Failed(failure(&error)))?;
            for row in 0..rows {
                match statement.execute(params_from_iter(values(row).map(Own))) {
                    Ok(_) => done(),
                    Err(error) => return Err(stopped(row, &error, self.connection.is_autocommit())),
                }
            }
            Ok(())
        };
        let outcome = run();
        quotes(false).map_err(|error| failure(&error))?;
        outcome
    }

    /// The condition that names a row, whose marks begin at this number.
    fn named(&self, table: TableId, plan: &TablePlan, first: usize) -> Outcome<String> {
        if let Some(id) = &plan.row_id {
            return Ok(format!("{id} = ?{first}"));
        }
        let ordering = self.orders.get(&table).ok_or_else(|| refused("a table outside the run"))?;
        let column = |(number, place): (usize, &usize)| {
            format!("{} IS ?{number}", Sql(ordering).ordered(plan, *place))
        };
        Ok((first..).zip(&plan.order).map(column).collect::<Vec<_>>().join(" AND "))
    }

    /// Whether a row can be taken out of a table and put in again without anything noticing: no other row, and no trigger.
    fn is_exchangeable(&mut self, table: TableId, write: &WritePlan) -> Outcome<bool> {
        if !self.acting(table, write)?.is_empty() {
            return Ok(false);
        }
        // What a trigger is about SQLite does not tell: one that deletes rows itself is taken for one that runs on DELETE.
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM main.sqlite_schema t
             WHERE t.type = 'trigger' AND t.tbl_name = ?1 COLLATE NOCASE AND t.sql LIKE '%DELETE%')";
        let asked = || self.connection.prepare_cached(sql)?.query_row([&write.plan.table], |row| row.get(0));
        asked().map_err(|error| failure(&error))
    }

    /// The columns that are neither written nor computed.
    fn other_columns(&self, write: &WritePlan) -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0 ORDER BY cid";
        let mut statement = self.connection.prepare_cached(sql)?;
        let names = statement.query_map([&write.plan.table], |row| row.get::<_, String>(0))?;
        let is_written =
            |name: &String| write.places.iter().any(|place| write.plan.columns[*place].name == *name);
        names.filter(|name| name.as_ref().map_or(true, |name| !is_written(name))).collect()
    }
}

/// What names a row, in the order of the marks.
fn name_of<'p>(plan: &TablePlan, place: &'p Place) -> impl Iterator<Item = &'p RawValue> {
    let id = place.id.as_ref().filter(|_| plan.row_id.is_some());
    let order = if id.is_some() { &[][..] } else { &place.order[..] };
    id.into_iter().chain(order)
}

fn names(write: &WritePlan) -> impl Iterator<Item = String> {
    write.places.iter().map(|place| quoted(&write.plan.columns[*place].name))
}

fn insert_of(write: &WritePlan, others: &[String]) -> String {
    let names: Vec<String> = names(write).chain(others.iter().map(|name| quoted(name))).collect();
    let marks: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
    // Whatever the table says of conflicts, no other row is replaced.
    format!(
        "INSERT OR ABORT INTO main.{} ({}) VALUES ({})",
        write.plan.relation,
        names.join(", "),
        marks.join(", ")
    )
}

impl WriteKind for Sqlite {
    fn ready(&mut self, table: TableId, write: &WritePlan) -> Outcome<()> {
        self.ordering(table, &write.plan).map(drop)
    }

    fn begin_as(&mut self, mode: Mode) -> Outcome<()> {
        if !self.connection.is_autocommit() {
            super::Kind::end(self);
        }
        let sql = if mode == Mode::Snapshot { "BEGIN" } else { "BEGIN IMMEDIATE" };
        self.connection.execute_batch(sql).map_err(|error| failure(&error))
    }

    fn commit(&mut self) -> Outcome<()> {
        let Err(error) = self.connection.execute_batch("COMMIT") else { return Ok(()) };
        let is_open = !self.connection.is_autocommit();
        if is_open {
            super::Kind::end(self);
        }
        Err(commit_failure(&error, is_open))
    }

    fn savepoint(&mut self, act: Savepoint) -> Outcome<()> {
        let sql = match act {
            Savepoint::Set => "SAVEPOINT plimsoll",
            Savepoint::Undo => "ROLLBACK TO plimsoll",
            Savepoint::Release => "RELEASE plimsoll",
        };
        let run = || self.connection.prepare_cached(sql)?.execute([]);
        run().map(drop).map_err(|error| failure(&error))
    }

    fn local(&self, table: TableId, plan: &TablePlan, place: usize, value: &Value<'_>) -> Made<RawValue> {
        let column_type = &plan.schema.columns()[place].column_type;
        let axis = self.orders.get(&table).map(|ordering| &ordering.axis);
        local::local(
            value,
            column_type,
            &plan.columns[place].declared,
            axis.filter(|_| plan.version_place() == Some(place)),
        )
    }

    fn is_found_as_written(&self, _: TableId, plan: &TablePlan, place: usize) -> bool {
        tells_apart(&plan.schema.columns()[place].column_type)
    }

    fn stream_keys(
        &mut self,
        query: &Query<'_>,
        keys: &[Vec<RawValue>],
        _: bool,
        each: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Outcome<()> {
        self.ordering(query.table, query.plan)?;
        let ordering = self.orders.get(&query.table).ok_or_else(|| refused("a table outside the run"))?;
        let nulls = |key: &Vec<RawValue>| key.iter().map(RawValue::is_null).collect::<Vec<_>>();
        let mut stream = || -> rusqlite::Result<()> {
            // Keys with NULL in the same places are found by one statement.
            for like in keys.chunk_by(|one, other| nulls(one) == nulls(other)) {
                let Some(first) = like.first() else { continue };
                let rendered = render(&Sql(ordering), &Query { condition: Condition::Key(first), ..*query });
                let mut statement = self.connection.prepare_cached(&rendered.sql)?;
                for key in like {
                    let bound = key.iter().filter(|value| !value.is_null()).map(Own);
                    let mut rows = statement.query(params_from_iter(bound))?;
                    while let Some(row) = rows.next()? {
                        if each(row).is_break() {
                            return Ok(());
                        }
                    }
                }
            }
            Ok(())
        };
        stream().map_err(|error| failure(&error))
    }

    fn insert(&mut self, _: TableId, write: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped> {
        self.run_each(&insert_of(write, &[]), rows.len(), |row| rows[row].values.iter(), || ())
    }

    fn insert_keyless(
        &mut self,
        table: TableId,
        write: &WritePlan,
        rows: &[Written<'_>],
        back: &mut dyn FnMut(&Row<'_>),
    ) -> Result<(), Stopped> {
        let mut keys: Vec<Vec<RawValue>> = Vec::with_capacity(rows.len());
        let sql = insert_of(write, &[]);
        let by_id = write.plan.row_id.is_some();
        self.run_each(
            &sql,
            rows.len(),
            |row| rows[row].values.iter(),
            || {
                if by_id {
                    let id = rusqlite::types::Value::Integer(self.connection.last_insert_rowid());
                    keys.push(vec![super::row::raw_of(id)]);
                }
            },
        )?;
        if !by_id {
            keys.extend(rows.iter().filter_map(|row| write.order_of(row.values)));
        }
        let query = Query::of_rows(table, &write.plan);
        self.stream_keys(&query, &keys, false, &mut |row| {
            back(row);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn update(&mut self, table: TableId, write: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped> {
        let plan = &write.plan;
        if write.changed.is_empty() {
            return Ok(());
        }
        let name = |at: &usize| quoted(&plan.columns[write.places[*at]].name);
        let set: Vec<String> = (1..)
            .zip(&write.changed)
            .map(|(number, at): (usize, _)| format!("{} = ?{number}", name(at)))
            .collect();
        let named = self.named(table, plan, set.len() + 1)?;
        let sql = format!("UPDATE OR ABORT main.{} SET {} WHERE {named}", plan.relation, set.join(", "));
        let values = |row: usize| {
            let changed = write.changed.iter().filter_map(move |at| rows[row].values.get(*at));
            changed.chain(rows[row].at.into_iter().flat_map(|at| name_of(plan, at)))
        };
        self.run_each(&sql, rows.len(), values, || ())
    }

    fn delete(&mut self, table: TableId, write: &WritePlan, rows: &[&Place]) -> Result<(), Stopped> {
        let plan = &write.plan;
        let sql = format!("DELETE FROM main.{} WHERE {}", plan.relation, self.named(table, plan, 1)?);
        let deleted = self.run_each(&sql, rows.len(), |row| name_of(plan, rows[row]), || ());
        deleted.map_err(|stopped| match stopped {
            // A constraint that says ON CONFLICT FAIL, of a table that a trigger writes to, leaves all done that was done
            // before it, and a DELETE cannot say otherwise: it is undone.
            Stopped::At(_, error) if error.sqlstate != FOREIGN_KEY => Stopped::Somewhere(error),
            other => other,
        })
    }

    fn check(
        &mut self,
        table: TableId,
        write: &WritePlan,
        rows: &[Done<'_>],
    ) -> Result<Vec<(usize, RowError)>, Stopped> {
        if !late::is_broken(&self.connection) {
            return Ok(Vec::new());
        }
        if write.plan.schema.is_keyless() {
            return Err(Stopped::Somewhere(late::broken_key()));
        }
        if !self.late.contains_key(&table) {
            // By the plan's order: of a new row no id is known.
            let by_order = TablePlan { row_id: None, ..write.plan.clone() };
            let named = self.named(table, &by_order, 1)?;
            let found = LateKeys::read(&self.connection, write, &named)?;
            self.late.insert(table, found);
        }
        let mut broken = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let Some(late) = self.late.get(&table) else { break };
            let error = late.broken(&self.connection, row.order, row.is_gone)?;
            broken.extend(error.map(|error| (place, error)));
        }
        if broken.is_empty() {
            // By columns that are not looked up.
            return Err(Stopped::Somewhere(late::broken_key()));
        }
        Ok(broken)
    }

    fn takes_along(&mut self, table: TableId, write: &WritePlan) -> Outcome<bool> {
        Ok(!self.acting(table, write)?.is_empty())
    }

    fn referring(
        &mut self,
        table: TableId,
        write: &WritePlan,
        rows: &[&Place],
        each: &mut dyn FnMut(Referring<'_>),
    ) -> Outcome<()> {
        self.acting(table, write)?;
        let keys = self.acting.get(&table).map_or(&[][..], Vec::as_slice);
        self.referring_by(keys, write, rows, each).map_err(|error| failure(&error))
    }

    fn take_out(&mut self, table: TableId, write: &WritePlan, at: &Place) -> Result<Option<Aside>, Stopped> {
        let plan = &write.plan;
        let told = |error: rusqlite::Error| Stopped::Failed(failure(&error));
        if !self.is_exchangeable(table, write)? {
            return Ok(None);
        }
        let others = self.other_columns(write).map_err(told)?;
        let mut aside = Aside::default();
        if !others.is_empty() {
            let list: Vec<String> = others.iter().map(|name| quoted(name)).collect();
            let named = self.named(table, plan, 1)?;
            let sql = format!("SELECT {} FROM main.{} WHERE {named}", list.join(", "), plan.relation);
            let read = || {
                let mut statement = self.connection.prepare_cached(&sql)?;
                statement.query_row(params_from_iter(name_of(plan, at).map(Own)), |row| {
                    Ok((0..others.len()).map(|place| raw_at(row, place)).collect::<Vec<_>>())
                })
            };
            let values = read().map_err(told)?;
            aside.values = others.into_iter().zip(values).collect();
        }
        self.delete(table, write, &[at]).map(|()| Some(aside))
    }

    fn put_back(
        &mut self,
        _: TableId,
        write: &WritePlan,
        row: &Written<'_>,
        aside: &Aside,
    ) -> Result<(), Stopped> {
        let (others, values): (Vec<String>, Vec<RawValue>) = aside.values.iter().cloned().unzip();
        self.run_each(&insert_of(write, &others), 1, |_| row.values.iter().chain(&values), || ())
    }
}
