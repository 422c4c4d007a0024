//! Keys that reach their type by its input function: text which that refuses must reject its own row, and not
//! stop the probe that looks up all keys at once.

use plimsoll_core::row::Fields;
use plimsoll_core::value::ColumnType;

use super::store::fault;
use super::{IncomingRow, RefusedRow, Report};
use crate::datum::{Scratch, attempt};
use crate::error::Answer;
use crate::identity::as_owner;
use crate::manifest::shown_key;
use crate::run::shortened;
use crate::table::ManagedTable;

/// Whether values of the type are made by an input function that refuses some texts the core takes.
pub fn is_parsed(column_type: &ColumnType) -> bool {
    match column_type {
        ColumnType::Other(_) => true,
        ColumnType::Array(element) => is_parsed(element),
        _ => false,
    }
}

/// The rows whose keys are values of their columns' types; the others are refused in the report.
pub fn with_readable_keys<'u>(
    table: &mut ManagedTable,
    rows: Vec<IncomingRow<'u>>,
    report: &mut Report,
) -> Answer<Vec<IncomingRow<'u>>> {
    if !table.schema.key().any(|column| is_parsed(&column.column_type)) {
        return Ok(rows);
    }
    let mut readable = Vec::with_capacity(rows.len());
    // Halves that are still to be read, the first on top, so that the order is kept.
    let mut groups = vec![rows];
    while let Some(mut group) = groups.pop() {
        pgrx::check_for_interrupts!();
        let owner = table.owner;
        let caught = match attempt(|| as_owner(owner, || read_keys(table, &group))) {
            Ok(answer) => {
                answer?;
                readable.append(&mut group);
                continue;
            }
            Err(caught) => caught,
        };
        if fault(&caught).is_none() {
            caught.raise();
        }
        if group.len() > 1 {
            let rest = group.split_off(group.len() / 2);
            groups.extend([rest, group]);
            continue;
        }
        for row in &group {
            report.refused.push(RefusedRow {
                ordinal: row.ordinal,
                waits: false,
                holder: None,
                sqlstate: caught.sqlstate(),
                column: None,
                key: shown_key(row.row, &table.schema)?,
                message: shortened(&caught.message),
            });
        }
    }
    Ok(readable)
}

/// Makes each key's values once, and forgets them.
fn read_keys(table: &mut ManagedTable, rows: &[IncomingRow<'_>]) -> Answer<()> {
    let scratch = Scratch::new();
    for row in rows {
        scratch.reset();
        for field in Fields::new(row.row) {
            let field = field?;
            let place = table.schema.columns().iter().position(|column| column.number == field.number);
            let Some(place) = place.filter(|place| table.schema.key_indexes().contains(place)) else {
                continue;
            };
            scratch.within(|| table.codecs[place].make_datum(&field.value))?;
        }
    }
    Ok(())
}
