//! What the sender of rows knows of the table: its columns, and which of them the source has.

use std::collections::HashMap;

use super::store::key_rows;
use super::{IncomingRow, RefusedRow, Report};
use crate::access::Database;
use crate::datum::{Row, by_index, execute};
use crate::error::{Answer, Problem, state};
use crate::manifest::shown_key;
use crate::table::{ManagedTable, Placeholders, quoted};

/// Refuses rows that were encoded for other columns than the table has.
///
/// # Errors
/// `OTHER_SCHEMA`: nothing of the upload is stored.
pub fn check_stamp(table: &ManagedTable, stamp: Option<i64>) -> Answer<()> {
    if stamp.is_none_or(|stamp| stamp == table.schema.stamp()) {
        return Ok(());
    }
    Err(Problem::new(
        state::OTHER_SCHEMA,
        format!("the columns of {} are not those that the rows were made for", table.name),
    )
    .detail("They were altered since the sender asked for them. Nothing was stored.")
    .hint("Ask plimsoll.table_schema for the columns that there are now, and send the rows anew."))
}

/// Where the columns with these numbers stand, which the source does not have. Rows hold NULL in them.
///
/// # Errors
/// `OTHER_SCHEMA` where one is none of the table's; `BAD_ARGUMENT` where it is one that no row can do without.
pub fn absent_places(table: &ManagedTable, numbers: &[i32]) -> Answer<Vec<usize>> {
    let schema = &table.schema;
    let place = |number: &i32| {
        let place = schema.columns().iter().position(|column| i64::from(column.number) == i64::from(*number));
        let place = place.ok_or_else(|| {
            let message = format!("{} has no column with the number {number}", table.name);
            Problem::new(state::OTHER_SCHEMA, message).hint("plimsoll.table_schema tells the columns.")
        })?;
        let column = &schema.columns()[place];
        let plays_a_part = schema.key_indexes().contains(&place)
            || schema.placed_by_indexes().contains(&place)
            || schema.version_index() == Some(place);
        if column.not_null || plays_a_part {
            let message = format!("column \"{}\" of {} cannot be absent", column.name, table.name);
            return Err(Problem::new(state::BAD_ARGUMENT, message)
                .detail("It takes no NULL, or is of the key, or says where rows stand."));
        }
        Ok(place)
    };
    numbers.iter().map(place).collect()
}

/// Refuses the rows that would take a value away, because it stands in a column that the source does not have;
/// answers the others. What is stored under the rows' keys stays locked.
pub fn without_losses<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: Vec<IncomingRow<'u>>,
    absent: &[usize],
    report: &mut Report,
) -> Answer<Vec<IncomingRow<'u>>> {
    if absent.is_empty() || rows.is_empty() || table.schema.is_keyless() {
        return Ok(rows);
    }
    let owner = table.owner;
    let losing = crate::identity::as_owner(owner, || {
        let placeholders = Placeholders::for_tenant(table, database)?;
        let keys = key_rows(table, rows.iter())?;
        let held = |place: &usize| format!("t.{} IS NOT NULL", quoted(&table.physical[*place].name));
        let flags: Vec<String> = absent.iter().map(held).collect();
        let columns: Vec<String> = (0..flags.len()).map(|i| format!("\"plimsoll held {i}\"")).collect();
        let selected: Vec<String> =
            flags.iter().zip(&columns).map(|(flag, column)| format!("({flag}) AS {column}")).collect();
        let list: Vec<String> = columns.iter().map(|column| format!("t.{column}")).collect();
        let sql = format!(
            "SELECT i.\"plimsoll ordinal\", {} FROM {} WHERE {}",
            list.join(", "),
            table.incoming_with_stored(&selected.join(", "), "FOR UPDATE"),
            list.join(" OR ")
        );
        let mut losing: HashMap<usize, usize> = HashMap::new();
        let mut take = |row: &Row<'_>| {
            let held = (0..absent.len()).find(|i| row.bool(i + 1) == Some(true));
            if let (Some(ordinal), Some(held)) = (row.int8(0), held) {
                losing.insert(ordinal as usize, absent[held]);
            }
            Ok(())
        };
        by_index(table.key_index(), || execute(&sql, placeholders.parameters(), Some(&keys), &mut take))?;
        Ok(losing)
    })?;
    let mut kept = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(place) = losing.get(&row.ordinal) else {
            kept.push(row);
            continue;
        };
        let name = &table.physical[*place].name;
        report.refused.push(RefusedRow {
            ordinal: row.ordinal,
            waits: false,
            holder: None,
            sqlstate: "22000".to_owned(),
            column: Some(name.clone()),
            key: shown_key(row.row, &table.schema)?,
            message: format!(
                "column \"{name}\" has a value here, and the source has no such column: it would be lost"
            ),
        });
    }
    Ok(kept)
}
