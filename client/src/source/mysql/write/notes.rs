//! Statements on Plimsoll's own tables.

use mysql_async::consts::ColumnType as Kind;
use mysql_async::{Row, Value as Raw};
use plimsoll_core::store::Outcome;

use super::super::error::failure;
use super::super::session::Session;
use crate::failure::table as refused;
use crate::source::notes::Cell;

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

/// Hands the rows of a statement to `each`.
pub fn query(
    session: &mut Session,
    sql: &str,
    cells: &[Cell<'_>],
    each: &mut dyn FnMut(&[Cell<'_>]) -> Outcome<()>,
) -> Outcome<()> {
    let mut outcome = Ok(());
    let answer = session.change(sql, bound(cells), |row| {
        if outcome.is_ok() {
            let found: Outcome<Vec<Cell<'_>>> = (0..row.len()).map(|place| cell(row, place)).collect();
            outcome = found.and_then(|found| each(&found));
        }
    });
    answer.map_err(|error| failure(&error))?;
    outcome
}

/// Runs a statement and answers how many rows it changed.
pub fn execute(session: &mut Session, sql: &str, cells: &[Cell<'_>]) -> Outcome<u64> {
    session.change(sql, bound(cells), |_| ()).map_err(|error| failure(&error))
}
