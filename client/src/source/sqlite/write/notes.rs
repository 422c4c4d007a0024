//! Statements on Plimsoll's own tables.

use plimsoll_core::store::Outcome;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ToSql, params_from_iter};

use super::super::Sqlite;
use super::super::error::failure;
use crate::failure::table as refused;
use crate::source::notes::{Cell, NoteDialect};
use crate::source::write::NoteKind;

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

impl NoteKind for Sqlite {
    fn notes(&self) -> NoteDialect {
        NoteDialect::Sqlite
    }

    fn note(
        &mut self,
        sql: &str,
        cells: &[Cell<'_>],
        each: &mut dyn FnMut(&[Cell<'_>]) -> Outcome<()>,
    ) -> Outcome<u64> {
        let told = |error: rusqlite::Error| failure(&error);
        let mut statement = self.connection.prepare_cached(sql).map_err(told)?;
        let columns = statement.column_count();
        if columns == 0 {
            return statement.execute(params_from_iter(cells)).map(|rows| rows as u64).map_err(told);
        }
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
        Ok(0)
    }

    fn define(&mut self, sql: &str) -> Outcome<()> {
        self.connection.execute_batch(sql).map_err(|error| failure(&error))
    }
}
