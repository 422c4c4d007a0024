//! Rows that are likely new, stored without looking each of them up.

use super::store::{Failed, Mode, Writer, fault};
use super::{IncomingRow, Report};
use crate::access::Database;
use crate::datum::{Row, by_index, execute};
use crate::error::Answer;
use crate::table::{ManagedTable, Placeholders};

/// Rows beyond everything the replica has are new, or newer versions of rows it has. The first are stored here
/// without asking for each, which is most of a first sync; the others fail at the first of them, which costs
/// little, and are answered for the usual way.
pub fn store_as_new<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: Vec<IncomingRow<'u>>,
    report: &mut Report,
) -> Answer<Option<Vec<IncomingRow<'u>>>> {
    let Some(lowest) = rows.iter().map(|row| row.position).min() else { return Ok(None) };
    if !is_beyond_all(database, table, lowest)? {
        return Ok(Some(rows));
    }
    let rows: Vec<(IncomingRow<'u>, bool)> = rows.into_iter().map(|row| (row, false)).collect();
    let mut writer = Writer { database, table, may_replace: false, report, waiting: Vec::new() };
    match writer.attempt(&rows, Mode::Update)? {
        Ok(()) => Ok(None),
        // A cancelled statement, a serialization failure and the like are not for a second try.
        Err(Failed::Raised(caught)) if fault(&caught).is_none() => caught.raise(),
        Err(_) => Ok(Some(rows.into_iter().map(|(row, _)| row).collect())),
    }
}

/// Whether the replica has no row at this position or beyond.
fn is_beyond_all(database: &Database, table: &ManagedTable, position: i64) -> Answer<bool> {
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = table.range_predicate(Some(position), None, &mut placeholders);
    let sql = format!("SELECT 1 FROM {} t WHERE {predicate} LIMIT 1", table.name);
    let mut none = true;
    let mut take = |_: &Row<'_>| {
        none = false;
        Ok(())
    };
    table.as_owner(|| by_index(|| execute(&sql, placeholders.parameters(), None, &mut take)))?;
    Ok(none)
}
