//! Rows that foreign keys delete or change with others, which SQLite does whenever they are switched on.

use std::collections::HashMap;

use plimsoll_core::store::{Outcome, TableId};
use rusqlite::params_from_iter;

use super::super::Sqlite;
use super::super::error::failure;
use super::super::row::raw_at;
use super::super::schema::quoted;
use super::Own;
use super::late::{ForeignKey, foreign_keys};
use crate::source::query::RawValue;
use crate::source::write::{Place, Referring, WritePlan};

/// Marks of one statement at most; SQLite takes 32,766.
const MOST_MARKS: usize = 30_000;

impl Sqlite {
    /// The foreign keys that act on other rows when rows of a table are deleted.
    pub(super) fn acting(&mut self, table: TableId, write: &WritePlan) -> Outcome<&[ForeignKey]> {
        if !self.acting.contains_key(&table) {
            let of_table = &write.plan.table;
            let mut keys = foreign_keys(&self.connection, of_table).map_err(|error| failure(&error))?;
            let refers =
                |key: &ForeignKey| key.parent.eq_ignore_ascii_case(of_table) && !key.columns.is_empty();
            keys.retain(|key| key.acts() && refers(key));
            self.acting.insert(table, keys);
        }
        Ok(self.acting.get(&table).map_or(&[], Vec::as_slice))
    }

    /// Hands out what refers to rows by these foreign keys.
    pub(super) fn referring_by(
        &self,
        keys: &[ForeignKey],
        write: &WritePlan,
        rows: &[&Place],
        each: &mut dyn FnMut(Referring<'_>),
    ) -> rusqlite::Result<()> {
        let names = Names::of(write);
        let by_name: HashMap<Vec<&RawValue>, usize> =
            rows.iter().enumerate().map(|(at, row)| (names.values(row), at)).collect();
        let part = (MOST_MARKS / names.0.len().max(1)).max(1);
        for key in keys {
            let is_own = key.child.eq_ignore_ascii_case(&write.plan.table);
            for (number, part_of) in rows.chunks(part).enumerate() {
                let mut statement =
                    self.connection.prepare(&names.search(key, write, is_own, part_of.len()))?;
                let values = part_of.iter().flat_map(|row| names.values(row)).map(Own);
                let mut found = statement.query(params_from_iter(values))?;
                while let Some(row) = found.next()? {
                    let to = number * part + usize::try_from(row.get::<_, i64>(0)?).unwrap_or(usize::MAX);
                    let (rows, own) = match is_own {
                        true => {
                            let name: Vec<RawValue> =
                                (0..names.0.len()).map(|place| raw_at(row, place + 1)).collect();
                            (1, by_name.get(&name.iter().collect::<Vec<_>>()).copied())
                        }
                        false => (u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0), None),
                    };
                    each(Referring { to, table: &key.child, rows, own });
                }
            }
        }
        Ok(())
    }
}

/// What names a row of a table in statements: its id, or the columns of its key.
struct Names(Vec<String>);

impl Names {
    fn of(write: &WritePlan) -> Self {
        match &write.plan.row_id {
            Some(id) => Names(vec![id.clone()]),
            None => {
                Names(write.plan.order.iter().map(|place| quoted(&write.plan.columns[*place].name)).collect())
            }
        }
    }

    fn values<'p>(&self, place: &'p Place) -> Vec<&'p RawValue> {
        match &place.id {
            Some(id) if self.0.len() == 1 => vec![id],
            _ => place.order.iter().collect(),
        }
    }

    /// The search for what refers to so many rows. The parent's column stands first: it is compared by its rules.
    fn search(&self, key: &ForeignKey, write: &WritePlan, is_own: bool, rows: usize) -> String {
        let columns: Vec<String> = (0..self.0.len()).map(|place| format!("plimsoll_{place}")).collect();
        let mut mark = 0;
        let mut values = |row: usize| {
            let marks = (0..self.0.len()).map(|_| {
                mark += 1;
                format!("?{mark}")
            });
            format!("({row}, {})", marks.collect::<Vec<_>>().join(", "))
        };
        let list: Vec<String> = (0..rows).map(&mut values).collect();
        let named: Vec<String> = self
            .0
            .iter()
            .zip(&columns)
            .map(|(name, column)| format!("p.{name} = k.{column} COLLATE BINARY"))
            .collect();
        let refers: Vec<String> =
            key.columns.iter().map(|(from, to)| format!("p.{} = c.{}", quoted(to), quoted(from))).collect();
        let (answer, group) = match is_own {
            true => {
                let own: Vec<String> = self.0.iter().map(|name| format!("c.{name}")).collect();
                (own.join(", "), "")
            }
            false => ("count(*)".to_owned(), " GROUP BY k.plimsoll_row"),
        };
        format!(
            "WITH k(plimsoll_row, {}) AS (VALUES {}) SELECT k.plimsoll_row, {answer}
             FROM k CROSS JOIN main.{} AS p ON {} JOIN main.{} AS c ON {}{group}",
            columns.join(", "),
            list.join(", "),
            write.plan.relation,
            named.join(" AND "),
            quoted(&key.child),
            refers.join(" AND ")
        )
    }
}
