//! What becomes of the differences that a comparison found.

use super::Event;
use super::compare::Piece;
use super::places::beyond;
use super::plan::lower;
use super::send::Send;
use super::table::Table;
use super::task::{Purpose, Stage, Task};
use crate::short::ShortItem;
use crate::store::{BatchKind, BatchRecord, PositionRange};

impl Table {
    /// Takes note of what a comparison found, and sends what the target lacks.
    pub(super) fn compared(&mut self, piece: Piece, purpose: Purpose, now: i64) {
        let report = &mut self.ledger.report;
        let (missing, excess) = (piece.missing.len() as u64, piece.excess.len() as u64);
        if purpose != Purpose::Confirm {
            report.compared_rows += piece.rows;
            report.found_missing += missing;
            report.found_excess += excess;
            self.ledger.events.push(Event::Compared { rows: piece.rows, missing, excess });
        }
        let settings = self.ledger.settings.clone();
        let (took, snapshot) = std::mem::take(&mut self.window_took);
        let rest = PositionRange { from: piece.range.to, ..Default::default() };
        if self.input.shape.hashed && matches!(purpose, Purpose::Window | Purpose::Group) {
            self.memory.sweep_refused += piece.refused;
        }
        match purpose {
            Purpose::Tail(whole) => {
                let rest = PositionRange { to: whole.to, ..rest };
                let over = piece.range.to.is_none() || piece.range.to == whole.to;
                let full = self.candidates.len() + piece.excess.len() >= self.room;
                if !over && !full {
                    self.stage = Stage::Tail(rest);
                }
                self.dropped |= !over && full;
                if !over && full {
                    self.tail_left = lower(self.tail_left, piece.range.to);
                }
            }
            Purpose::Window => {
                self.ledger.report.windows += 1;
                if self.input.shape.hashed {
                    self.memory.sweep_took = self.memory.sweep_took.saturating_add(took);
                }
                self.windows.done(&piece, &mut self.memory, &settings, took, snapshot);
                self.add_window(&piece);
                if piece.range.to.is_none() {
                    self.remember_sweep(true, now);
                }
            }
            Purpose::Group => {
                self.ledger.report.windows += 1;
                self.memory.sweep_took = self.memory.sweep_took.saturating_add(took);
                if self.group == [PositionRange::ALL] && piece.range == PositionRange::ALL {
                    self.compared_whole = Some(piece.encoded);
                }
                let rest = beyond(&self.group, piece.range.to);
                if let Some(groups) = self.groups.as_mut().filter(|_| !rest.is_empty()) {
                    groups.push(rest);
                }
            }
            Purpose::Confirm => {}
        }
        if !piece.is_equal() {
            // Saved before anything is mended: a proof that a comparison disproved must not come back.
            self.memory.proof = None;
            self.dropping_proof = self.saved.proof.take().is_some();
            self.differs(&piece, purpose);
            self.ledger.records.push(BatchRecord {
                kind: BatchKind::Compare,
                rows: piece.rows,
                bytes: 0,
                micros: took,
            });
        }
        if purpose == Purpose::Confirm {
            self.confirmed(piece.range.to);
        }
        if !piece.excess.is_empty() {
            // Tail and windows overlap; a row counts once, toward the guard too.
            merge(&mut self.candidates, piece.excess);
        }
        let send = Send::items(piece.missing, piece.bad, &mut self.ledger);
        if send.step().is_some() {
            self.task = Task::Send(send);
        }
    }
}

/// Puts rows that a comparison found to those found before. Comparisons cover whole positions, so that of equal rows as
/// many count as one of them found.
fn merge(known: &mut Vec<ShortItem>, mut found: Vec<ShortItem>) {
    found.sort_unstable();
    let (mut merged, mut rest) =
        (Vec::with_capacity(known.len() + found.len()), found.into_iter().peekable());
    for item in known.drain(..) {
        merged.extend(std::iter::from_fn(|| rest.next_if(|other| *other < item)));
        rest.next_if_eq(&item);
        merged.push(item);
    }
    merged.extend(rest);
    *known = merged;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_two_comparisons_found_count_once_and_equal_rows_each() {
        let item = |position: i64| ShortItem { position, digest: [0; 16] };
        let list = |positions: &[i64]| positions.iter().copied().map(item).collect::<Vec<_>>();
        let mut known = list(&[1, 3, 3, 5]);
        merge(&mut known, list(&[7, 3, 3, 3, 1, 2]));
        assert_eq!(known, list(&[1, 2, 3, 3, 3, 5, 7]));
    }
}
