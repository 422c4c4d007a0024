//! Rows of several pieces of the axis, in one statement for all of them.

use pgrx::pg_sys::Oid;
use plimsoll_core::store::PositionRange;

use crate::access::Database;
use crate::datum::{Indexes, Parameter, Row, by_index, by_only, read_all};
use crate::error::{Answer, Problem, state};
use crate::identity;
use crate::table::{ManagedTable, Placeholders};
use crate::version::{DigestedRow, RowDigests};

/// A stretch of the axis that is not empty: its first and last position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub first: i64,
    pub last: i64,
}

impl Piece {
    /// One position.
    pub fn point(position: i64) -> Self {
        Piece { first: position, last: position }
    }

    /// The same positions; `None` where there are none.
    pub fn of(range: &PositionRange) -> Option<Self> {
        let last = match range.to {
            None => i64::MAX,
            Some(to) => to.checked_sub(1)?,
        };
        let first = range.from.unwrap_or(i64::MIN);
        (first <= last).then_some(Piece { first, last })
    }

    /// What it shares with another.
    pub fn shared(&self, other: &Piece) -> Option<Piece> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Piece { first, last })
    }
}

/// The pieces that a caller's ranges are, which must ascend, not meet, and be at most `most`.
///
/// # Errors
/// `BAD_ARGUMENT` where they are not such ranges, `TOO_LARGE` where they are too many.
pub fn pieces(ranges: &[PositionRange], most: usize) -> Answer<Vec<Piece>> {
    if ranges.len() > most {
        let message = format!("{} ranges; at most {most} are taken in a call like this", ranges.len());
        return Err(Problem::new(state::TOO_LARGE, message)
            .hint("Ask in several calls, or have an admin raise the option max_ranges of this database."));
    }
    let mut pieces: Vec<Piece> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let piece = Piece::of(range)
            .filter(|piece| pieces.last().is_none_or(|before| before.last < piece.first))
            .ok_or_else(|| {
                Problem::new(state::BAD_ARGUMENT, "ranges must ascend, hold a position each, and not meet")
            })?;
        pieces.push(piece);
    }
    Ok(pieces)
}

/// The statement that reads the rows of ascending pieces, the table's columns in their order.
pub struct Scan {
    sql: String,
    parameters: Vec<Parameter>,
    index: Indexes,
    owner: Oid,
    pieces: usize,
}

impl Scan {
    /// Of rows in no particular order, or by ascending position.
    pub fn new(database: &Database, table: &ManagedTable, pieces: &[Piece], ordered: bool) -> Answer<Scan> {
        let mut bounds: Vec<(i64, i64)> = Vec::with_capacity(pieces.len());
        for (first, last) in pieces.iter().filter_map(|piece| table.possible(piece.first, piece.last)) {
            match bounds.last_mut() {
                Some((_, before)) if before.checked_add(1) == Some(first) => *before = last,
                _ => bounds.push((first, last)),
            }
        }
        let mut placeholders = Placeholders::for_tenant(table, database)?;
        let sql = match bounds[..] {
            [bounds] => table.piece_statement(bounds, ordered, &mut placeholders),
            _ => table.pieces_statement(&bounds, ordered, &mut placeholders),
        };
        let parameters = placeholders.parameters().to_vec();
        Ok(Scan { sql, parameters, index: table.position_index(), owner: table.owner, pieces: bounds.len() })
    }

    /// Hands its rows to `take`.
    pub fn read(&self, take: &mut dyn FnMut(&Row<'_>) -> Answer<()>) -> Answer<()> {
        self.read_some(&mut |row| take(row).map(|()| true))
    }

    /// Hands its rows to `take`, which answers whether to go on.
    pub fn read_some(&self, take: &mut dyn FnMut(&Row<'_>) -> Answer<bool>) -> Answer<()> {
        identity::as_owner(self.owner, || match self.pieces {
            0 => Ok(()),
            1 => by_only(self.index.clone(), || read_all(&self.sql, &self.parameters, take)),
            _ => by_index(self.index.clone(), || read_all(&self.sql, &self.parameters, take)),
        })
    }
}

/// Hands position and digest of the rows of ascending pieces to `take`, with their digest forms, in no particular
/// order or by ascending position.
pub fn digest(
    database: &Database,
    table: &mut ManagedTable,
    pieces: &[Piece],
    ordered: bool,
    take: &mut dyn FnMut(DigestedRow, &[u8]) -> Answer<()>,
) -> Answer<()> {
    let scan = Scan::new(database, table, pieces, ordered)?;
    let mut digests = RowDigests::new(database, table);
    let mut take = |row: DigestedRow, form: &[u8]| take(row, form).map(|()| true);
    scan.read(&mut |row| digests.add(row, &mut take).map(drop))?;
    digests.finish(&mut take)
}

/// The piece that holds a position, by its place among ascending ones.
pub fn place_of(pieces: &[Piece], position: i64) -> usize {
    pieces.partition_point(|piece| piece.last < position)
}
