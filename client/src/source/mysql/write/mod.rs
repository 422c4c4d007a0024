//! A MariaDB or MySQL database that is written to. Many rows travel in one statement; rows are locked before they are
//! compared. Sessions are strict, so that nothing is cut or rounded without an error where the server can tell.
//!
//! | file | what lives there |
//! |---|---|
//! | `table` | what writing a table needs to know of it |
//! | `local` | the managed column's values as the local column takes them |
//! | `along` | rows that foreign keys delete or change with others |
//! | `errors` | why a row is not taken |
//! | `notes` | statements on Plimsoll's own tables |

mod along;
mod errors;
mod local;
mod notes;
mod table;

use std::ops::ControlFlow;

use mysql_async::Value as Raw;
use plimsoll_core::Result as Made;
use plimsoll_core::store::{Outcome, TableId};
use plimsoll_core::value::{ColumnType, Value};

use super::dialect::{Sql, local_type, quoted, value};
use super::raw::{bound, put};
use super::row::MysqlRow;
use super::types::LocalType;
use super::{Mysql, selected_types};
use crate::failure::{Advise, table as refused};
use crate::source::plan::TablePlan;
use crate::source::query::{Query, RawValue};
use crate::source::statement::{Dialect, Parameter, render};
use crate::source::write::{
    Aside, Mode, Place, Referring, RowError, Savepoint, Stopped, WriteKind, WritePlan, Written,
};
use errors::stopped;
pub use table::WriteTable;

/// Keys of one statement at most: beyond 1,000 MariaDB makes a table of them.
const MOST_KEYS: usize = 500;
/// Rows of one statement at most.
const MOST_ROWS: usize = 1_000;
/// Marks of one statement at most; the protocol has 65,535.
const MOST_MARKS: usize = 30_000;

impl Mysql {
    fn known(&self, table: TableId) -> Outcome<&WriteTable> {
        self.writing.get(&table).ok_or_else(|| refused("a table that was not made ready to be written to"))
    }

    /// Runs a statement that writes.
    fn write(&mut self, plan: &TablePlan, sql: &str, values: Vec<Raw>) -> Result<u64, Stopped> {
        let outcome = self.session.change(sql, values, |_| ());
        outcome.map_err(|error| {
            let indexes = self.indexes.get(&plan.table).map(Vec::as_slice).unwrap_or_default();
            stopped(&error, indexes)
        })
    }

    /// The conditions that find rows by these values of the plan's order, and what they are run with.
    fn equal(&self, plan: &TablePlan, orders: &[&Vec<RawValue>]) -> (String, Vec<Raw>) {
        let indexes = self.indexes.get(&plan.table).map(Vec::as_slice).unwrap_or_default();
        let dialect = Sql(indexes);
        let mut values = Vec::new();
        let mut mark = |place: usize, raw: &RawValue| {
            let parameter = Parameter::Read(place, raw);
            values.push(value(plan, &parameter));
            dialect.mark(values.len(), &parameter, plan)
        };
        if let ([place], false) = (&plan.order[..], orders.iter().any(|order| order[0].is_null())) {
            let marks: Vec<String> = orders.iter().map(|order| mark(*place, &order[0])).collect();
            let condition = format!("{} IN ({})", dialect.ordered(plan, *place), marks.join(", "));
            return (condition, values);
        }
        let mut ways = Vec::with_capacity(orders.len());
        for order in orders {
            let equal = plan.order.iter().zip(*order).map(|(place, raw)| {
                let name = dialect.ordered(plan, *place);
                match raw.is_null() {
                    true => format!("{name} IS NULL"),
                    false => format!("{name} = {}", mark(*place, raw)),
                }
            });
            ways.push(format!("({})", equal.collect::<Vec<_>>().join(" AND ")));
        }
        (format!("({})", ways.join(" OR ")), values)
    }

    /// How many rows of so many values there may be in one statement.
    fn rows_of(marks: usize) -> usize {
        (MOST_MARKS / marks.max(1)).clamp(1, MOST_ROWS)
    }

    /// Rows in parts, each as large as a statement may be.
    fn portions<'r>(
        &self,
        table: TableId,
        rows: &'r [Written<'r>],
    ) -> Result<Vec<&'r [Written<'r>]>, Stopped> {
        let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
        let room = self.known(table)?.most_bytes;
        let most = rows.first().map_or(1, |row| Self::rows_of(row.values.len()));
        for (at, row) in rows.iter().enumerate() {
            let own: usize = row.values.iter().map(|value| value.bytes.len() + 12).sum();
            if own > room {
                let message = format!(
                    "the row has {own} bytes, more than the server takes at once: raise max_allowed_packet"
                );
                return Err(Stopped::Somewhere(row_error("54000", None, message)));
            }
            if at > start && (at - start >= most || bytes + own > room) {
                parts.push(&rows[start..at]);
                (start, bytes) = (at, 0);
            }
            bytes += own;
        }
        parts.extend(rows.get(start..).filter(|rest| !rest.is_empty()));
        Ok(parts)
    }

    /// Rows of one key in the place of those that there are, in one statement.
    fn update_together(&mut self, write: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped> {
        let plan = &write.plan;
        let set = write.changed.iter().map(|at| {
            let name = quoted(&plan.columns[write.places[*at]].name);
            format!("{name} = VALUES({name})")
        });
        let set: Vec<String> = set.collect();
        let sql = format!("{} ON DUPLICATE KEY UPDATE {}", insert_of(write, &[], rows.len()), set.join(", "));
        self.write(plan, &sql, values_of(rows)).map(drop)
    }
}

fn values_of(rows: &[Written<'_>]) -> Vec<Raw> {
    rows.iter().flat_map(|row| row.values).map(bound).collect()
}

/// An INSERT of so many rows.
fn insert_of(write: &WritePlan, others: &[String], rows: usize) -> String {
    let names = write.places.iter().map(|place| quoted(&write.plan.columns[*place].name));
    let names: Vec<String> = names.chain(others.iter().map(|name| quoted(name))).collect();
    let list = format!("({})", vec!["?"; names.len()].join(", "));
    let lists = vec![list.as_str(); rows].join(", ");
    format!("INSERT INTO {} ({}) VALUES {lists}", write.plan.relation, names.join(", "))
}

/// A refusal by what a statement says.
fn row_error(code: &str, column: Option<String>, message: String) -> RowError {
    RowError { sqlstate: code.to_owned(), column, message }
}

impl WriteKind for Mysql {
    fn ready(&mut self, table: TableId, write: &WritePlan) -> Outcome<()> {
        self.read_indexes(&write.plan.table)?;
        if !self.writing.contains_key(&table) {
            let indexes = self.indexes.get(&write.plan.table).cloned().unwrap_or_default();
            let known = WriteTable::read(&mut self.session, &self.database, write, &indexes)?;
            self.writing.insert(table, known);
        }
        Ok(())
    }

    fn begin_as(&mut self, mode: Mode) -> Outcome<()> {
        self.session.begin_as(mode)
    }

    fn commit(&mut self) -> Outcome<()> {
        self.session.commit()
    }

    fn savepoint(&mut self, act: Savepoint) -> Outcome<()> {
        self.session.savepoint(act)
    }

    fn local(&self, table: TableId, plan: &TablePlan, place: usize, value: &Value<'_>) -> Made<RawValue> {
        let column_type = &plan.schema.columns()[place].column_type;
        match self.writing.get(&table).and_then(|known| known.types.get(place)) {
            Some(local) => local::local(local, column_type, value),
            None => local::local(&local_type(plan, place), column_type, value),
        }
    }

    /// Text may spell one value in several ways, all else is compared by its value.
    fn is_found_as_written(&self, _: TableId, plan: &TablePlan, place: usize) -> bool {
        use ColumnType as T;
        match local_type(plan, place) {
            LocalType::Text(_) | LocalType::Members { .. } | LocalType::Json => matches!(
                plan.schema.columns()[place].column_type,
                T::Text | T::Varchar(_) | T::Citext | T::Enum(_) | T::Other(_)
            ),
            LocalType::Other(_) => false,
            _ => true,
        }
    }

    fn stream_keys(
        &mut self,
        query: &Query<'_>,
        keys: &[Vec<RawValue>],
        lock: bool,
        each: &mut dyn FnMut(&MysqlRow<'_>) -> ControlFlow<()>,
    ) -> Outcome<()> {
        self.read_indexes(&query.plan.table)?;
        let types = selected_types(query);
        let orders: Vec<&Vec<RawValue>> = keys.iter().collect();
        for part in orders.chunks(MOST_KEYS.min(Self::rows_of(query.plan.order.len()))) {
            let indexes = self.indexes.get(&query.plan.table).map(Vec::as_slice).unwrap_or_default();
            let mut sql = render(&Sql(indexes), query).sql;
            let (condition, values) = self.equal(query.plan, part);
            sql.push_str(if query.plan.filter.is_some() { " AND " } else { " WHERE " });
            sql.push_str(&condition);
            sql.push_str(if lock { " FOR UPDATE" } else { "" });
            let (_, broke) =
                self.session.stream(&sql, values, None, &mut |row| each(&MysqlRow { row, types: &types }))?;
            if broke {
                break;
            }
        }
        Ok(())
    }

    fn insert(&mut self, table: TableId, write: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped> {
        for part in self.portions(table, rows)? {
            self.write(&write.plan, &insert_of(write, &[], part.len()), values_of(part))?;
        }
        Ok(())
    }

    fn insert_keyless(
        &mut self,
        table: TableId,
        write: &WritePlan,
        rows: &[Written<'_>],
        back: &mut dyn FnMut(&MysqlRow<'_>),
    ) -> Result<(), Stopped> {
        let plan = &write.plan;
        let query = Query::of_rows(table, plan);
        if !plan.shares_places {
            // Its own key tells its rows apart.
            self.insert(table, write, rows)?;
            let keys: Vec<Vec<RawValue>> = rows.iter().filter_map(|row| write.order_of(row.values)).collect();
            self.stream_keys(&query, &keys, false, &mut |row| {
                back(row);
                ControlFlow::Continue(())
            })?;
            return Ok(());
        }
        if !self.session.is_mariadb() {
            let told =
                format!("rows of \"{}\" have no key: MySQL does not tell what it stored of them", plan.table);
            return Err(refused(told).advise("give the table a primary key").into());
        }
        let indexes = self.indexes.get(&plan.table).map(Vec::as_slice).unwrap_or_default();
        let unfiltered = TablePlan { filter: None, ..plan.clone() };
        let selected = render(&Sql(indexes), &Query { plan: &unfiltered, ..query });
        let list = selected.sql.strip_prefix("SELECT ").and_then(|sql| sql.rsplit_once(" FROM "));
        let list = list.map(|(list, _)| list.to_owned()).unwrap_or_default();
        let fulfils = plan.condition().unwrap_or_else(|| "TRUE".to_owned());
        let types = selected_types(&query);
        for part in self.portions(table, rows)? {
            let sql = format!("{} RETURNING {list}, {fulfils}", insert_of(write, &[], part.len()));
            let outcome = self.session.change(&sql, values_of(part), |row| {
                if row.as_ref(types.len()) == Some(&Raw::Int(1)) {
                    back(&MysqlRow { row, types: &types });
                }
            });
            let indexes = self.indexes.get(&plan.table).map(Vec::as_slice).unwrap_or_default();
            outcome.map_err(|error| stopped(&error, indexes))?;
        }
        Ok(())
    }

    fn update(&mut self, table: TableId, write: &WritePlan, rows: &[Written<'_>]) -> Result<(), Stopped> {
        let plan = &write.plan;
        if write.changed.is_empty() {
            return Ok(());
        }
        if self.known(table)?.updates_together {
            for part in self.portions(table, rows)? {
                self.update_together(write, part)?;
            }
            return Ok(());
        }
        let name = |at: &usize| quoted(&plan.columns[write.places[*at]].name);
        let set: Vec<String> = write.changed.iter().map(|at| format!("{} = ?", name(at))).collect();
        // Too large for the server alone.
        self.portions(table, rows)?;
        for row in rows {
            let Some(at) = row.at else { continue };
            let (condition, named) = self.equal(plan, &[&at.order]);
            let sql = format!("UPDATE {} SET {} WHERE {condition}", plan.relation, set.join(", "));
            let changed = write.changed.iter().filter_map(|at| row.values.get(*at));
            self.write(plan, &sql, changed.map(bound).chain(named).collect())?;
        }
        Ok(())
    }

    fn delete(&mut self, _: TableId, write: &WritePlan, rows: &[&Place]) -> Result<(), Stopped> {
        let plan = &write.plan;
        let (most, limit) = match plan.shares_places {
            true => (1, " LIMIT 1"),
            false => (MOST_KEYS.min(Self::rows_of(plan.order.len())), ""),
        };
        for part in rows.chunks(most) {
            let orders: Vec<&Vec<RawValue>> = part.iter().map(|place| &place.order).collect();
            let (condition, values) = self.equal(plan, &orders);
            let sql = format!("DELETE FROM {} WHERE {condition}{limit}", plan.relation);
            self.write(plan, &sql, values)?;
        }
        Ok(())
    }

    fn takes_along(&mut self, table: TableId, _: &WritePlan) -> Outcome<bool> {
        Ok(!self.known(table)?.acting.is_empty())
    }

    fn referring(
        &mut self,
        table: TableId,
        write: &WritePlan,
        rows: &[&Place],
        each: &mut dyn FnMut(Referring<'_>),
    ) -> Outcome<()> {
        self.referring_to(table, write, rows, each)
    }

    fn take_out(&mut self, table: TableId, write: &WritePlan, at: &Place) -> Result<Option<Aside>, Stopped> {
        let plan = &write.plan;
        let known = self.known(table)?;
        if !known.is_exchangeable {
            return Ok(None);
        }
        let others = known.others.clone();
        let mut aside = Aside::default();
        if !others.is_empty() {
            let list: Vec<String> = others.iter().map(|(name, _)| quoted(name)).collect();
            let (condition, values) = self.equal(plan, &[&at.order]);
            let sql = format!("SELECT {} FROM {} WHERE {condition}", list.join(", "), plan.relation);
            self.session.stream(&sql, values, Some(1), &mut |row| {
                let raw = |(place, (name, local)): (usize, &(String, LocalType))| {
                    let mut bytes = Vec::new();
                    let class = put(row.as_ref(place).unwrap_or(&Raw::NULL), local, &mut bytes);
                    (name.clone(), RawValue { class, bytes })
                };
                aside.values = others.iter().enumerate().map(raw).collect();
                ControlFlow::Break(())
            })?;
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
        let others: Vec<String> = aside.values.iter().map(|(name, _)| name.clone()).collect();
        let values =
            row.values.iter().chain(aside.values.iter().map(|(_, value)| value)).map(bound).collect();
        self.write(&write.plan, &insert_of(write, &others, 1), values).map(drop)
    }
}
