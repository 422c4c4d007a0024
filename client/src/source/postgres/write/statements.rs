//! Statements over many rows, and their parameters.

use plimsoll_core::store::{Outcome, TableId};

use super::arrays::{Column, array};
use super::table::{ActingKey, ctid};
use crate::source::plan::TablePlan;
use crate::source::postgres::catalogue::quoted;
use crate::source::postgres::row::Bound;
use crate::source::postgres::source::PostgresSource;
use crate::source::query::{Query, RawValue};
use crate::source::write::{Place, WritePlan, Written};

/// A table as it stands behind INTO.
fn into(plan: &TablePlan) -> &str {
    plan.relation.strip_prefix("ONLY ").unwrap_or(&plan.relation)
}

impl PostgresSource {
    /// The values of rows in the written columns with these numbers, column by column.
    pub(super) fn columns<'v>(
        &self,
        table: TableId,
        write: &WritePlan,
        wanted: impl Iterator<Item = usize>,
        rows: &'v [Written<'_>],
    ) -> Outcome<Vec<Column<'v>>> {
        let known = self.table(table)?;
        let column = |at: usize| {
            let values = rows.iter().map(move |row| row.values.get(at)).collect();
            Column { of: known.column(write.places[at]), values }
        };
        Ok(wanted.map(column).collect())
    }

    /// The part of a statement that reads columns of values as rows: `ROWS FROM (..) AS k(plimsoll_0, plimsoll_1)`.
    pub(super) fn unnested(columns: &[Column<'_>], first: usize) -> String {
        let mark =
            |(number, column): (usize, &Column<'_>)| format!("pg_catalog.unnest({})", column.mark(number));
        let marks: Vec<String> = (first..).zip(columns).map(mark).collect();
        let names: Vec<String> = (0..columns.len()).map(|at| format!("plimsoll_{at}")).collect();
        format!("ROWS FROM ({}) AS k({})", marks.join(", "), names.join(", "))
    }

    /// An INSERT of rows with these columns: the written ones, and others of these names behind them.
    pub(super) fn insert_of(write: &WritePlan, others: &[String], columns: &[Column<'_>]) -> String {
        let names = write.places.iter().map(|place| quoted(&write.plan.columns[*place].name));
        let names: Vec<String> = names.chain(others.iter().map(|name| quoted(name))).collect();
        let values: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(at, column)| column.value(&format!("k.plimsoll_{at}")))
            .collect();
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
            into(&write.plan),
            names.join(", "),
            values.join(", "),
            Self::unnested(columns, 1)
        )
    }

    /// Columns that name rows, and the condition that finds them: of a table `t` beside the rows `k`, whose columns these are
    /// from `first` on.
    pub(super) fn named<'v>(
        &self,
        table: TableId,
        plan: &TablePlan,
        places: &'v [&'v Place],
        first: usize,
    ) -> Outcome<(Vec<Column<'v>>, String)> {
        let known = self.table(table)?;
        if plan.row_id.is_some() {
            let values = places.iter().map(|place| place.id.as_ref()).collect();
            let condition = format!("t.ctid OPERATOR(pg_catalog.=) k.plimsoll_{first}");
            return Ok((vec![Column { of: ctid(), values }], condition));
        }
        let (mut columns, mut conditions) = (Vec::new(), Vec::new());
        for (at, place) in plan.order.iter().enumerate() {
            let column = Column {
                of: known.column(*place),
                values: places.iter().map(|row| row.order.get(at)).collect(),
            };
            let (name, sign) = (quoted(&plan.columns[*place].name), known.equals(*place));
            conditions
                .push(format!("t.{name} {sign} {}", column.value(&format!("k.plimsoll_{}", first + at))));
            columns.push(column);
        }
        Ok((columns, conditions.join(" AND ")))
    }

    /// The search for what refers to rows by a foreign key, and its parameters: answers the number of the row, from 1, and how
    /// many refer to it; for rows of the table itself each, and its own number where it is one of these rows.
    pub(super) fn referring_to<'v>(
        &self,
        table: TableId,
        plan: &TablePlan,
        key: &ActingKey,
        places: &'v [&'v Place],
    ) -> Outcome<(String, Vec<Column<'v>>)> {
        let (columns, named) = self.named(table, plan, places, 0)?;
        let marks: Vec<String> = (1..)
            .zip(&columns)
            .map(|(number, column): (usize, _)| format!("pg_catalog.unnest({})", column.mark(number)))
            .collect();
        let names: Vec<String> = (0..columns.len()).map(|at| format!("plimsoll_{at}")).collect();
        let rows = |name: &str| {
            let (marks, names) = (marks.join(", "), names.join(", "));
            format!("ROWS FROM ({marks}) WITH ORDINALITY AS {name}({names}, plimsoll_row)")
        };
        let from = format!(
            "{} JOIN {} AS t ON {named} JOIN {} AS c ON {}",
            rows("k"),
            plan.relation,
            key.relation,
            key.refers
        );
        let sql = match key.is_own {
            true => {
                let own: Vec<String> = columns
                    .iter()
                    .enumerate()
                    .map(|(at, column)| {
                        let (name, sign) = match (&plan.row_id, plan.order.get(at)) {
                            (None, Some(place)) => {
                                let sign =
                                    self.table(table).map(|known| known.equals(*place)).unwrap_or_default();
                                (quoted(&plan.columns[*place].name), sign)
                            }
                            _ => ("ctid".to_owned(), "OPERATOR(pg_catalog.=)".to_owned()),
                        };
                        format!("c.{name} {sign} {}", column.value(&format!("j.plimsoll_{at}")))
                    })
                    .collect();
                format!(
                    "SELECT DISTINCT k.plimsoll_row, 1::pg_catalog.int8, j.plimsoll_row FROM {from} LEFT JOIN {} ON {}",
                    rows("j"),
                    own.join(" AND ")
                )
            }
            false => format!(
                "SELECT k.plimsoll_row, pg_catalog.count(*), NULL::pg_catalog.int8 FROM {from} GROUP BY k.plimsoll_row"
            ),
        };
        Ok((sql, columns))
    }

    /// The condition that finds the rows with these keys, and its parameters.
    pub(super) fn keys<'v>(
        &self,
        query: &Query<'_>,
        keys: &[&'v Vec<RawValue>],
    ) -> Outcome<(String, Vec<Bound<'v>>)> {
        let (plan, known) = (query.plan, self.table(query.table)?);
        let mut columns = Vec::new();
        for (at, place) in plan.order.iter().enumerate() {
            let of = if *place == plan.columns.len() { ctid() } else { known.column(*place) };
            columns.push((*place, Column { of, values: keys.iter().map(|key| key.get(at)).collect() }));
        }
        // With the table's name in front: a column may be called as one of `k` is.
        let name = |place: usize| match plan.columns.get(place) {
            Some(column) => format!("{}.{}", into(plan), quoted(&column.name)),
            None => format!("{}.ctid", into(plan)),
        };
        let sign = |place: usize| match place == plan.columns.len() {
            true => "OPERATOR(pg_catalog.=)".to_owned(),
            false => known.equals(place),
        };
        let parameters = columns.iter().map(|(_, column)| Bound::binary(array(column))).collect();
        let condition = match &columns[..] {
            [(place, column)] => {
                format!("{} {} ANY ({})", name(*place), sign(*place), column.values(&column.mark(1)))
            }
            several => {
                let all: Vec<Column<'_>> = several.iter().map(|(_, column)| column.clone()).collect();
                let equal: Vec<String> = several
                    .iter()
                    .enumerate()
                    .map(|(at, (place, column))| {
                        format!(
                            "{} {} {}",
                            name(*place),
                            sign(*place),
                            column.value(&format!("k.plimsoll_{at}"))
                        )
                    })
                    .collect();
                format!("EXISTS (SELECT FROM {} WHERE {})", Self::unnested(&all, 1), equal.join(" AND "))
            }
        };
        Ok((condition, parameters))
    }
}
