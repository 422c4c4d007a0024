//! Rows that foreign keys delete or change with others.

use std::collections::HashMap;
use std::ops::ControlFlow;

use mysql_async::Value as Raw;
use plimsoll_core::store::{Outcome, TableId};

use super::super::dialect::{Sql, local_type, quoted};
use super::super::raw::put;
use super::super::types::LocalType;
use super::table::ActingKey;
use super::{MOST_KEYS, Mysql};
use crate::source::plan::TablePlan;
use crate::source::query::RawValue;
use crate::source::statement::Dialect;
use crate::source::write::{Place, Referring, WritePlan};

impl Mysql {
    /// As [`WriteKind::referring`](crate::source::write::WriteKind::referring).
    pub(super) fn referring_to(
        &mut self,
        table: TableId,
        write: &WritePlan,
        rows: &[&Place],
        each: &mut dyn FnMut(Referring<'_>),
    ) -> Outcome<()> {
        let plan = &write.plan;
        let known = self.known(table)?;
        let acting = known.acting.clone();
        let types: Vec<LocalType> = plan.order.iter().map(|place| local_type(plan, *place)).collect();
        let orders: Vec<&Vec<RawValue>> = rows.iter().map(|row| &row.order).collect();
        let by_order: HashMap<&[RawValue], usize> =
            orders.iter().enumerate().map(|(at, order)| (order.as_slice(), at)).collect();
        for key in acting.iter() {
            for part in orders.chunks(MOST_KEYS.min(Self::rows_of(plan.order.len()))) {
                let (condition, values) = self.equal(plan, part);
                let indexes = self.indexes.get(&plan.table).map(Vec::as_slice).unwrap_or_default();
                let sql = search(&Sql(indexes), plan, key, &condition);
                self.session.stream(&sql, values, None, &mut |row| {
                    let name = |first: usize| -> Vec<RawValue> {
                        let value = |(place, local): (usize, &LocalType)| {
                            let mut bytes = Vec::new();
                            let class =
                                put(row.as_ref(first + place).unwrap_or(&Raw::NULL), local, &mut bytes);
                            RawValue { class, bytes }
                        };
                        types.iter().enumerate().map(value).collect()
                    };
                    let Some(to) = by_order.get(name(0).as_slice()).copied() else {
                        return ControlFlow::Continue(());
                    };
                    let (rows, own) = match key.is_own {
                        true => (1, by_order.get(name(types.len()).as_slice()).copied()),
                        false => match row.as_ref(types.len()) {
                            Some(Raw::Int(rows)) => (rows.unsigned_abs(), None),
                            Some(Raw::UInt(rows)) => (*rows, None),
                            _ => (0, None),
                        },
                    };
                    each(Referring { to, table: &key.name, rows, own });
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok(())
    }
}

/// The search for what refers by a foreign key to the rows that fulfil a condition: answers what names the row, and how many
/// refer to it; for rows of the table itself what names each.
fn search(dialect: &Sql<'_>, plan: &TablePlan, key: &ActingKey, condition: &str) -> String {
    let selected = |place: &usize| dialect.selected(plan, *place);
    let named: Vec<String> = plan
        .order
        .iter()
        .enumerate()
        .map(|(number, place)| format!("{} AS plimsoll_{number}", selected(place)))
        .collect();
    let list = |of: &str| {
        let names = (0..plan.order.len()).map(|number| format!("{of}.plimsoll_{number}"));
        names.collect::<Vec<_>>().join(", ")
    };
    let columns = |of: &dyn Fn(&(String, String)) -> String, letter: &str| {
        let named = key.columns.iter().enumerate();
        named
            .map(|(number, pair)| format!("{} AS plimsoll_{letter}{number}", quoted(&of(pair))))
            .collect::<Vec<_>>()
    };
    let parent = [named.clone(), columns(&|(_, to)| to.clone(), "p")].concat().join(", ");
    let parents = format!("(SELECT {parent} FROM {} WHERE {condition}) AS p", plan.relation);
    let children = |list: Vec<String>| format!("(SELECT {} FROM {}) AS c", list.join(", "), key.relation);
    let child = columns(&|(from, _)| from.clone(), "c");
    let equal: Vec<String> =
        (0..key.columns.len()).map(|number| format!("c.plimsoll_c{number} = p.plimsoll_p{number}")).collect();
    let equal = equal.join(" AND ");
    match key.is_own {
        true => {
            let children = children([named, child].concat());
            format!("SELECT {}, {} FROM {parents} JOIN {children} ON {equal}", list("p"), list("c"))
        }
        false => {
            let children = children(child);
            let name = list("p");
            format!("SELECT {name}, COUNT(*) FROM {parents} JOIN {children} ON {equal} GROUP BY {name}")
        }
    }
}
