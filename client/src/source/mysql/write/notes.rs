//! Statements on Plimsoll's own tables.

use mysql_async::consts::ColumnType as Kind;
use mysql_async::{Row, Value as Raw};
use plimsoll_core::store::Outcome;

use super::super::Mysql;
use super::super::error::failure;
use crate::failure::table as refused;
use crate::source::notes::{Cell, NoteDialect};
use crate::source::write::NoteKind;

/// The character set of bytes.
const BINARY: u16 = 63;

fn bound(cells: &[Cell<'_>]) -> Vec<Raw> {
    let bound = |cell: &Cell<'_>| match *cell {
        Cell::Null => Raw::NULL,
        Cell::Int(number) => Raw::Int(number),
        Cell::Bytes(bytes) => Raw::Bytes(bytes.to_vec()),
        Cell::Text(text) => Raw::from(text),
    };
    cells.iter().map(bound).collect()
}

fn cell(row: &Row, place: usize) -> Outcome<Cell<'_>> {
    let other = || refused("a note of another type than notes have");
    let columns = row.columns_ref();
    let (Some(raw), Some(column)) = (row.as_ref(place), columns.get(place)) else { return Err(other()) };
    match raw {
        Raw::NULL => Ok(Cell::Null),
        Raw::Int(number) => Ok(Cell::Int(*number)),
        Raw::UInt(number) => i64::try_from(*number).map(Cell::Int).map_err(|_| other()),
        Raw::Bytes(bytes) => {
            let text = || std::str::from_utf8(bytes).map_err(|_| other());
            match column.column_type() {
                // A sum.
                Kind::MYSQL_TYPE_NEWDECIMAL => text()?.parse().map(Cell::Int).map_err(|_| other()),
                _ if column.character_set() == BINARY => Ok(Cell::Bytes(bytes)),
                _ => text().map(Cell::Text),
            }
        }
        _ => Err(other()),
    }
}

impl NoteKind for Mysql {
    fn notes(&self) -> NoteDialect {
        NoteDialect::Mysql
    }

    fn note(
        &mut self,
        sql: &str,
        cells: &[Cell<'_>],
        each: &mut dyn FnMut(&[Cell<'_>]) -> Outcome<()>,
    ) -> Outcome<u64> {
        let mut outcome = Ok(());
        let answer = self.session.change(sql, bound(cells), |row| {
            if outcome.is_ok() {
                let found: Outcome<Vec<Cell<'_>>> = (0..row.len()).map(|place| cell(row, place)).collect();
                outcome = found.and_then(|found| each(&found));
            }
        });
        let changed = answer.map_err(|error| failure(&error))?;
        outcome.map(|()| changed)
    }

    fn define(&mut self, sql: &str) -> Outcome<()> {
        self.session.define(sql)
    }
}
