//! Fingerprints of exact ranges, and ranges divided: whole blocks of the kept manifest and a scan of what they do
//! not cover, or a scan of all where none is kept; one statement for the rows of all ranges, in one snapshot.

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::leaves::{Leaf, Leaves};
use plimsoll_core::store::PositionRange;

use super::scan::{self, Piece, place_of};
use crate::access::Database;
use crate::error::Answer;
use crate::kept;
use crate::table::ManagedTable;

/// So many leaves are made for each range that is asked for: they are of about equal row count only, and joined
/// again.
const LEAVES_A_RANGE: usize = 4;

/// How many rows of whole blocks one call reads to divide finer than the blocks are.
const MOST_ROWS_READ: u64 = 65_536;

/// The blocks of the replica that meet any of the pieces; `None`: no manifest is kept, or it is untrusted.
fn blocks(database: &Database, table: &ManagedTable, pieces: &[Piece]) -> Answer<Option<Vec<Leaf>>> {
    let ([first, ..], [.., last]) = (pieces, pieces) else { return Ok(Some(Vec::new())) };
    let range = PositionRange { from: Some(first.first), to: last.last.checked_add(1) };
    let nodes = kept::nodes(database, table, range)?;
    Ok(nodes.map(|nodes| nodes.iter().map(|node| (node.range, node.fingerprint)).collect()))
}

/// The fingerprint of each piece.
pub fn fingerprints(
    database: &Database,
    table: &mut ManagedTable,
    pieces: &[Piece],
) -> Answer<Vec<Fingerprint>> {
    let mut sums = vec![Fingerprint::default(); pieces.len()];
    let mut uncovered = Vec::new();
    match blocks(database, table, pieces)? {
        None => uncovered.extend_from_slice(pieces),
        Some(blocks) => {
            for (piece, sum) in pieces.iter().zip(&mut sums) {
                blocks_of(&blocks, piece, &mut uncovered).iter().for_each(|(_, whole)| sum.combine(whole));
            }
        }
    }
    scan::digest(database, table, &uncovered, false, &mut |row, _| {
        if let Some(sum) = sums.get_mut(place_of(pieces, row.position)) {
            sum.insert(&row.digest);
        }
        Ok(())
    })?;
    Ok(sums)
}

/// The rows of each piece as leaves of about equal row count, some times `most` of them where it has the rows.
pub fn leaves(
    database: &Database,
    table: &mut ManagedTable,
    pieces: &[Piece],
    most: usize,
) -> Answer<Vec<Vec<Leaf>>> {
    let mut uncovered = Vec::new();
    let mut row_budget = MOST_ROWS_READ;
    let blocks = blocks(database, table, pieces)?;
    let mut parts: Vec<Part<'_>> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let mut edges = Vec::new();
        let whole = blocks.as_deref().map_or(&[][..], |blocks| blocks_of(blocks, piece, &mut edges));
        let rows: u64 = whole.iter().map(|(_, fingerprint)| fingerprint.row_count()).sum();
        // Where there are too few blocks to divide by, the rows themselves say where to.
        let is_coarse =
            2 * whole.len() < most && rows <= row_budget && !(whole.is_empty() && edges.is_empty());
        let whole = if blocks.is_none() || is_coarse {
            row_budget -= rows;
            uncovered.push(*piece);
            &[]
        } else {
            uncovered.append(&mut edges);
            whole
        };
        parts.push(Part { whole, leaves: Leaves::new(LEAVES_A_RANGE * most) });
    }
    scan::digest(database, table, &uncovered, true, &mut |row, _| {
        if let Some(part) = parts.get_mut(place_of(pieces, row.position)) {
            part.take_before(Some(row.position));
            part.leaves.insert(row.position, &row.digest);
        }
        Ok(())
    })?;
    let finish = |mut part: Part<'_>| {
        part.take_before(None);
        part.leaves.finish()
    };
    Ok(parts.into_iter().map(finish).collect())
}

/// A piece that is divided: its whole blocks that are still to come, and what came of it.
struct Part<'b> {
    whole: &'b [Leaf],
    leaves: Leaves,
}

impl Part<'_> {
    /// Takes the blocks before a position, or all.
    fn take_before(&mut self, position: Option<i64>) {
        while let [(range, fingerprint), rest @ ..] = self.whole {
            if position.is_some_and(|position| range.first() > position) {
                break;
            }
            self.leaves.push(*range, fingerprint);
            self.whole = rest;
        }
    }
}

/// The blocks that lie in a piece wholly; what it shares with others is added to `uncovered`.
fn blocks_of<'b>(blocks: &'b [Leaf], piece: &Piece, uncovered: &mut Vec<Piece>) -> &'b [Leaf] {
    let begin = blocks.partition_point(|(range, _)| range.last() < piece.first);
    let end = blocks.partition_point(|(range, _)| range.first() <= piece.last);
    let mut whole = blocks.get(begin..end).unwrap_or_default();
    let mut edge = |(range, _): &Leaf| {
        let shared = Piece { first: range.first(), last: range.last() }.shared(piece)?;
        (shared.first != range.first() || shared.last != range.last()).then(|| uncovered.push(shared))
    };
    if let [first, rest @ ..] = whole
        && edge(first).is_some()
    {
        whole = rest;
    }
    if let [rest @ .., last] = whole
        && edge(last).is_some()
    {
        whole = rest;
    }
    whole
}
