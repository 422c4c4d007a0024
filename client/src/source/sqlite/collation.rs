//! Where a key's index tells apart what its columns' own collations do not: rows are read in the order of the index.

use rusqlite::{Connection, Result, params};

use super::schema::quoted;
use crate::source::local::same_name;
use crate::source::plan::TablePlan;

/// For the places of key columns that are unique under another collation than their own: its name.
pub fn of_key(connection: &Connection, plan: &TablePlan) -> Result<Vec<(usize, String)>> {
    if plan.schema.is_keyless() {
        return Ok(Vec::new());
    }
    let Some(index) = unique_index(connection, plan)? else { return Ok(Vec::new()) };
    let mut differing = Vec::new();
    for (name, collation) in index {
        let place =
            plan.schema.key_indexes().iter().find(|place| same_name(&plan.columns[**place].name, &name));
        if let Some(place) = place.filter(|_| is_other(connection, plan, &name, &collation).unwrap_or(true)) {
            differing.push((*place, collation));
        }
    }
    Ok(differing)
}

/// The columns of an index that makes the key unique, with their collations.
fn unique_index(connection: &Connection, plan: &TablePlan) -> Result<Option<Vec<(String, String)>>> {
    let mut names = connection.prepare(
        "SELECT name FROM pragma_index_list(?1, 'main') WHERE \"unique\" AND partial = 0 ORDER BY seq",
    )?;
    let names: Vec<String> =
        names.query_map(params![plan.table], |row| row.get(0))?.collect::<Result<_>>()?;
    let mut columns_of = connection
        .prepare("SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE \"key\" ORDER BY seqno")?;
    for index in names {
        let columns: Vec<(Option<String>, String)> = columns_of
            .query_map(params![index], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?;
        let in_key = |name: &str| {
            plan.schema.key_indexes().iter().any(|place| same_name(&plan.columns[*place].name, name))
        };
        let columns = columns.into_iter().map(|(name, collation)| Some((name?, collation)));
        match columns.collect::<Option<Vec<_>>>() {
            Some(columns) if columns.iter().all(|(name, _)| in_key(name)) => return Ok(Some(columns)),
            _ => {}
        }
    }
    Ok(None)
}

/// Whether a column compares otherwise than under this collation. A compound takes its collation from the first part.
fn is_other(connection: &Connection, plan: &TablePlan, column: &str, collation: &str) -> Result<bool> {
    let (column, collation) = (quoted(column), quoted(collation));
    let sql = format!(
        "SELECT (k = 'A') IS NOT ('a' = 'A' COLLATE {collation}) OR (k = 'a ') IS NOT ('a' = 'a ' COLLATE {collation})
           FROM (SELECT {column} AS k FROM {} WHERE 0 UNION ALL SELECT 'a')",
        plan.relation
    );
    connection.query_row(&sql, [], |row| row.get(0))
}
