//! A Postgres database that is written to. Many rows travel as arrays, one for each column; rows are locked before they
//! are compared, and changed where they stand.
//!
//! | file | what lives there |
//! |---|---|
//! | `table` | what writing a table needs to know of it |
//! | `local` | the managed column's values as the local column takes them |
//! | `statements` | statements over many rows |
//! | `arrays` | columns of values as parameters |
//! | `errors` | why a row is not taken |
//! | `notes` | statements on Plimsoll's own tables |

mod arrays;
mod errors;
mod local;
mod notes;
mod statements;
mod table;

use std::ops::ControlFlow;
use std::sync::Arc;

use plimsoll_core::Result as Made;
use plimsoll_core::store::{Outcome, TableId};
use plimsoll_core::value::Value;
use tokio_postgres::Row;

use super::catalogue::quoted;
use super::row::{Bound, PostgresRow, Raw};
use super::session::{Fetch, Names, Next};
use super::shape::Shape;
use super::source::PostgresSource;
use crate::failure::{Advise, table as refused};
use crate::source::kind::{Kind, LocalRow};
use crate::source::plan::TablePlan;
use crate::source::query::{Query, RawValue};
use crate::source::statement::render;
use crate::source::write::{
    Aside, Done, Mode, Place, Referring, RowError, Savepoint, Stopped, WriteKind, WritePlan, Written,
};
use arrays::{Column, array};
use errors::stopped;
pub use table::WriteTable;

impl PostgresSource {
    fn table(&self, table: TableId) -> Outcome<&WriteTable> {
        let known = self.writing.get(table).and_then(Option::as_ref);
        known.ok_or_else(|| refused("a table that was not made ready to be written to"))
    }

    /// Runs a statement that writes, as the application would.
    fn write(
        &mut self,
        sql: &str,
        parameters: &[Bound<'_>],
        relation: &str,
        each: impl FnMut(&Row),
    ) -> Result<(), Stopped> {
        self.session.name_by(Names::Application)?;
        match self.session.change(sql, parameters, each) {
            Ok(_) => Ok(()),
            Err(error) => Err(stopped(&error, self.session.role(), relation)),
        }
    }
}

impl WriteKind for PostgresSource {
    fn ready(&mut self, table: TableId, write: &WritePlan) -> Outcome<()> {
        if self.writing.len() <= table {
            self.writing.resize_with(table + 1, || None);
        }
        if self.writing[table].is_none() {
            self.session.name_by(Names::Catalogue)?;
            let shapes = self.tables[table].shapes.clone();
            let operators = self.tables[table].operators.clone();
            let known = WriteTable::read(&self.session, &write.plan, shapes, operators)?;
            self.writing[table] = Some(known);
        }
        let puts_off = self.writing[table].as_ref().is_some_and(|known| known.puts_off);
        if puts_off && !std::mem::replace(&mut self.put_off, true) {
            self.session.ask(async |client| client.batch_execute("SET CONSTRAINTS ALL DEFERRED").await)?;
        }
        Ok(())
    }

    fn begin_as(&mut self, mode: Mode) -> Outcome<()> {
        self.put_off = false;
        self.session.begin_as(mode)
    }

    fn commit(&mut self) -> Outcome<()> {
        self.session.commit()
    }

    fn savepoint(&mut self, act: Savepoint) -> Outcome<()> {
        self.session.savepoint(act)
    }

    fn local(&self, table: TableId, plan: &TablePlan, place: usize, value: &Value<'_>) -> Made<RawValue> {
        let known = self.writing.get(table).and_then(Option::as_ref);
        let text_type =
            known.map_or(&plan.schema.columns()[place].column_type, |known| known.text_type(place));
        local::local(&self.tables[table].shapes[place], text_type, value)
    }

    fn is_found_as_written(&self, table: TableId, plan: &TablePlan, place: usize) -> bool {
        let is_its_own = matches!(self.tables[table].shapes[place], Shape::Padded | Shape::Jsonb);
        is_its_own || self.tells_apart(plan, place)
    }

    fn stream_keys(
        &mut self,
        query: &Query<'_>,
        keys: &[Vec<RawValue>],
        lock: bool,
        each: &mut dyn FnMut(&PostgresRow<'_>) -> ControlFlow<()>,
    ) -> Outcome<()> {
        if query.plan.shares_places {
            return Err(refused(format!(
                "\"{}\" is partitioned and its rows have no key: equal ones are not told apart",
                query.plan.table
            ))
            .advise("give the table a primary key"));
        }
        self.session.name_by(Names::Catalogue)?;
        let shapes = self.tables[query.table].shapes.clone();
        let shapes: Vec<&Shape> = shapes.iter().collect();
        // Values of one column are all text or all binary in one statement.
        let classes = |key: &Vec<RawValue>| key.iter().map(|value| value.class).collect::<Vec<_>>();
        let mut sorted: Vec<&Vec<RawValue>> =
            keys.iter().filter(|key| !key.iter().any(RawValue::is_null)).collect();
        sorted.sort_by_cached_key(|key| classes(key));
        let mut is_over = false;
        for like in sorted.chunk_by(|one, other| classes(one) == classes(other)) {
            let (condition, parameters) = self.keys(query, like)?;
            let mut sql = render(&self.tables[query.table], query).sql;
            sql.push_str(if query.plan.filter.is_some() { " AND " } else { " WHERE " });
            sql.push_str(&condition);
            sql.push_str(if lock { " FOR UPDATE" } else { "" });
            self.session.rows(&sql, &parameters, Fetch::All, &query.plan.relation, |row| {
                is_over |= each(&PostgresRow { row, shapes: &shapes }).is_break();
                if is_over { Next::Stop } else { Next::Rows(1) }
            })?;
            if is_over {
                break;
            }
        }
        Ok(())
    }

    fn insert(&mut self, table: TableId, write: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped> {
        let columns = self.columns(table, write, 0..write.places.len(), rows)?;
        let parameters: Vec<Bound<'_>> = columns.iter().map(|column| Bound::binary(array(column))).collect();
        let sql = Self::insert_of(write, &[], &columns);
        self.write(&sql, &parameters, &write.plan.relation, |_| ())
    }

    fn insert_keyless(
        &mut self,
        table: TableId,
        write: &WritePlan,
        rows: &[Written<'_>],
        back: &mut dyn FnMut(&PostgresRow<'_>),
    ) -> Result<(), Stopped> {
        let columns = self.columns(table, write, 0..write.places.len(), rows)?;
        let parameters: Vec<Bound<'_>> = columns.iter().map(|column| Bound::binary(array(column))).collect();
        let Some(id) = &write.plan.row_id else {
            let told = "rows of a partitioned table without a key are not written";
            return Err(refused(told).advise("give the table a primary key").into());
        };
        let sql = format!("{} RETURNING {id}", Self::insert_of(write, &[], &columns));
        let mut keys: Vec<Vec<RawValue>> = Vec::with_capacity(rows.len());
        self.write(&sql, &parameters, &write.plan.relation, |row| {
            let bytes = row.try_get::<_, Raw<'_>>(0).ok().and_then(|raw| raw.0).unwrap_or_default();
            keys.push(vec![RawValue { class: super::row::BINARY, bytes: bytes.to_vec() }]);
        })?;
        let query = Query::of_rows(table, &write.plan);
        self.stream_keys(&query, &keys, false, &mut |row| {
            back(row);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn update(&mut self, table: TableId, write: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped> {
        let plan = &write.plan;
        let places: Vec<&Place> = rows.iter().filter_map(|row| row.at).collect();
        let mut columns = self.columns(table, write, write.changed.iter().copied(), rows)?;
        let place = |at: usize| write.places[at];
        let is_settable = |place: usize| !self.table(table).is_ok_and(|known| known.is_counted(place));
        let set: Vec<String> = write
            .changed
            .iter()
            .zip(&columns)
            .enumerate()
            .filter(|(_, (at, _))| is_settable(place(**at)))
            .map(|(number, (at, column))| {
                let name = quoted(&plan.columns[place(*at)].name);
                format!("{name} = {}", column.value(&format!("k.plimsoll_{number}")))
            })
            .collect();
        let (named, condition) = self.named(table, plan, &places, columns.len())?;
        columns.extend(named);
        if set.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "UPDATE {} AS t SET {} FROM {} WHERE {condition}",
            plan.relation,
            set.join(", "),
            Self::unnested(&columns, 1)
        );
        let parameters: Vec<Bound<'_>> = columns.iter().map(|column| Bound::binary(array(column))).collect();
        self.write(&sql, &parameters, &plan.relation, |_| ())
    }

    fn delete(&mut self, table: TableId, write: &WritePlan, rows: &[&Place]) -> Result<(), Stopped> {
        let plan = &write.plan;
        let (columns, condition) = self.named(table, plan, rows, 0)?;
        let sql = format!(
            "DELETE FROM {} AS t USING {} WHERE {condition}",
            plan.relation,
            Self::unnested(&columns, 1)
        );
        let parameters: Vec<Bound<'_>> = columns.iter().map(|column| Bound::binary(array(column))).collect();
        self.write(&sql, &parameters, &plan.relation, |_| ())
    }

    fn check(
        &mut self,
        table: TableId,
        write: &WritePlan,
        _: &[Done<'_>],
    ) -> Result<Vec<(usize, RowError)>, Stopped> {
        if self.table(table)?.puts_off {
            self.write("SET CONSTRAINTS ALL IMMEDIATE", &[], &write.plan.relation, |_| ())?;
            self.write("SET CONSTRAINTS ALL DEFERRED", &[], &write.plan.relation, |_| ())?;
        }
        Ok(Vec::new())
    }

    fn takes_along(&mut self, table: TableId, _: &WritePlan) -> Outcome<bool> {
        Ok(!self.table(table)?.acting.is_empty())
    }

    fn referring(
        &mut self,
        table: TableId,
        write: &WritePlan,
        rows: &[&Place],
        each: &mut dyn FnMut(Referring<'_>),
    ) -> Outcome<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.session.name_by(Names::Catalogue)?;
        let acting = Arc::clone(&self.table(table)?.acting);
        for key in acting.iter() {
            let (sql, columns) = self.referring_to(table, &write.plan, key, rows)?;
            let parameters: Vec<Bound<'_>> =
                columns.iter().map(|column| Bound::binary(array(column))).collect();
            self.session.rows(&sql, &parameters, Fetch::All, &key.relation, |row| {
                let number = |place| row.try_get::<_, Option<i64>>(place).ok().flatten();
                let place = |number: i64| usize::try_from(number - 1).ok();
                if let (Some(to), Some(rows)) = (number(0).and_then(place), number(1)) {
                    let own = number(2).and_then(place);
                    each(Referring { to, table: &key.name, rows: rows.unsigned_abs(), own });
                }
                Next::Rows(1)
            })?;
        }
        Ok(())
    }

    fn take_out(&mut self, table: TableId, write: &WritePlan, at: &Place) -> Result<Option<Aside>, Stopped> {
        let plan = &write.plan;
        let known = self.table(table)?;
        if !known.is_exchangeable {
            return Ok(None);
        }
        let others: Vec<String> = known.others.iter().map(|(name, _)| name.clone()).collect();
        let mut aside = Aside::default();
        if !others.is_empty() {
            let list: Vec<String> =
                others.iter().map(|name| super::dialect::written(&format!("t.{}", quoted(name)))).collect();
            let places = [at];
            let (columns, condition) = self.named(table, plan, &places, 0)?;
            let sql = format!(
                "SELECT {} FROM {} AS t, {} WHERE {condition}",
                list.join(", "),
                plan.relation,
                Self::unnested(&columns, 1)
            );
            let parameters: Vec<Bound<'_>> =
                columns.iter().map(|column| Bound::binary(array(column))).collect();
            self.session.name_by(Names::Catalogue)?;
            let mut values = Vec::new();
            self.session.rows(&sql, &parameters, Fetch::All, &plan.relation, |row| {
                let row = PostgresRow { row, shapes: &[] };
                for place in 0..others.len() {
                    let mut bytes = Vec::new();
                    let class = row.raw(place, &mut bytes);
                    values.push(RawValue { class: class.min(1) * super::row::WRITTEN, bytes });
                }
                Next::Stop
            })?;
            aside.values = others.into_iter().zip(values).collect();
        }
        self.delete(table, write, &[at]).map(|()| Some(aside))
    }

    fn put_back(
        &mut self,
        table: TableId,
        write: &WritePlan,
        row: &Written<'_>,
        aside: &Aside,
    ) -> Result<(), Stopped> {
        let rows = [*row];
        let mut columns = self.columns(table, write, 0..write.places.len(), &rows)?;
        let known = self.table(table)?;
        let mut others = Vec::with_capacity(aside.values.len());
        for (name, value) in &aside.values {
            let Some((_, of)) = known.others.iter().find(|(other, _)| other == name) else { continue };
            others.push(name.clone());
            columns.push(Column { of: Arc::clone(of), values: vec![Some(value)] });
        }
        let sql = Self::insert_of(write, &others, &columns);
        let parameters: Vec<Bound<'_>> = columns.iter().map(|column| Bound::binary(array(column))).collect();
        self.write(&sql, &parameters, &write.plan.relation, |_| ())
    }
}

/// A refusal by what a statement says.
pub fn row_error(code: &str, column: Option<String>, message: String) -> RowError {
    RowError { sqlstate: code.to_owned(), column, message }
}
