//! Statements on Plimsoll's own tables.

use plimsoll_core::store::Outcome;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use super::super::error::failure;
use crate::failure::table as refused;
use crate::source::notes::Cell;

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Cell::Null => ValueRef::Null,
            Cell::Int(number) => ValueRef::Integer(number),
            Cell::Bytes(bytes) => ValueRef::Blob(bytes),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// Hands the rows of a statement to `each`.
pub fn query(
    connection: &Connection,
    sql: &str,
    cells: &[Cell<'_>],
    each: &mut dyn FnMut(&[Cell<'_>]) -> Outcome<()>,
) -> Outcome<()> {
    let told = |error: rusqlite::Error| failure(&error);
    let mut statement = connection.prepare_cached(sql).map_err(told)?;
    let columns = statement.column_count();
    let mut rows = statement.query(params_from_iter(cells)).map_err(told)?;
    while let Some(row) = rows.next().map_err(told)? {
        let cell = |place| match row.get_ref(place).map_err(told)? {
            ValueRef::Null => Ok(Cell::Null),
            ValueRef::Integer(number) => Ok(Cell::Int(number)),
            ValueRef::Blob(bytes) => Ok(Cell::Bytes(bytes)),
            ValueRef::Text(text) => {
                std::str::from_utf8(text).map(Cell::Text).map_err(|_| refused("a note that is no text"))
            }
            ValueRef::Real(_) => Err(refused("a note that is no whole number")),
        };
        let found: Vec<Cell<'_>> = (0..columns).map(cell).collect::<Outcome<_>>()?;
        each(&found)?;
    }
    Ok(())
}

/// Runs a statement and answers how many rows it changed.
pub fn execute(connection: &Connection, sql: &str, cells: &[Cell<'_>]) -> Outcome<u64> {
    let run = || connection.prepare_cached(sql)?.execute(params_from_iter(cells));
    run().map(|rows| rows as u64).map_err(|error| failure(&error))
}
