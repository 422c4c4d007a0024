//! Compares one stretch of the axis: the source's row manifest, the target's fingerprint and, only where
//! that differs, the target's row manifest, page by page.

use super::ledger::Ledger;
use super::step::{Answer, Step};
use crate::fingerprint::Fingerprint;
use crate::manifest::{Item, Manifest};
use crate::store::{BadRow, PositionRange, SourceWindow};

/// What a comparison found in the stretch it covered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Piece {
    /// What it covered.
    pub range: PositionRange,
    /// Source rows in it.
    pub rows: u64,
    /// Rows that only the source has as they are.
    pub missing: Vec<Item>,
    /// Rows that only the target has as they are.
    pub excess: Vec<Item>,
    /// Rows of the source that no encoding holds.
    pub bad: Vec<BadRow>,
    /// The highest position seen in it on either side.
    pub top: Option<i64>,
}

impl Piece {
    pub fn is_equal(&self) -> bool {
        self.missing.is_empty() && self.excess.is_empty()
    }

    /// The range to compare again after a repair: an open end is closed, because rows arrive there all the
    /// time.
    pub fn closed_range(&self) -> PositionRange {
        let to = self.range.to.or_else(|| self.top.and_then(|top| top.checked_add(1)));
        PositionRange { from: self.range.from, to }
    }
}

/// Compares the beginning of a range. Where the answer ends before the range does, go on from there.
#[derive(Debug)]
pub(super) struct Compare {
    range: PositionRange,
    rows: u64,
    /// Rows of `excess` at which the stretch is cut off.
    room: usize,
    state: State,
    window: SourceWindow,
    /// Items of the window already compared.
    at: usize,
    piece: Piece,
}

#[derive(Debug, PartialEq)]
enum State {
    Read,
    Fingerprint,
    Manifest(PositionRange),
    Done,
}

impl Compare {
    /// Compares about `rows` source rows from the beginning of `range`; `room` bounds the target's rows that
    /// are kept in mind.
    pub fn new(range: PositionRange, rows: u64, room: usize) -> Self {
        Compare {
            range,
            rows: rows.max(1),
            room: room.max(1),
            state: State::Read,
            window: SourceWindow::default(),
            at: 0,
            piece: Piece::default(),
        }
    }

    pub fn step(&self) -> Option<Step<'_>> {
        match &self.state {
            State::Read => Some(Step::ReadWindow { range: self.range, rows: self.rows }),
            State::Fingerprint => Some(Step::Fingerprint(self.window.range)),
            State::Manifest(range) => Some(Step::ReadManifest { range: *range, rows: self.rows }),
            State::Done => None,
        }
    }

    /// Takes an answer; `false` where it is none to the step named.
    pub fn tell(&mut self, answer: Answer, ledger: &Ledger) -> bool {
        match (&self.state, answer) {
            (State::Read, Answer::Window(mut window)) => {
                window.items.sort_unstable();
                self.piece.range = window.range;
                self.piece.rows = (window.items.len() + window.bad.len()) as u64;
                self.piece.bad = std::mem::take(&mut window.bad);
                self.piece.top = window.items.last().map(|item| item.position);
                self.window = window;
                self.state = State::Fingerprint;
            }
            (State::Fingerprint, Answer::Fingerprint(remote)) => {
                self.state = if remote == self.expected(ledger) {
                    State::Done
                } else {
                    State::Manifest(self.window.range)
                };
            }
            (State::Manifest(range), Answer::Manifest(manifest)) => {
                // A page that does not go on beyond its beginning would never end.
                if manifest.next.is_some_and(|next| range.from.is_some_and(|from| next <= from)) {
                    return false;
                }
                self.merge(manifest, ledger);
            }
            _ => return false,
        }
        true
    }

    /// What the comparison found, when no step is left.
    pub fn finish(self) -> Piece {
        self.piece
    }

    /// The fingerprint the target has where it is level but for the rows it would not take.
    fn expected(&self, ledger: &Ledger) -> Fingerprint {
        let local = self.window.items.iter().filter(|item| !ledger.is_refused(item));
        let kept = ledger.kept().map(|(item, _)| item);
        let kept = kept.filter(|item| self.window.range.contains(item.position));
        local.chain(kept).map(|item| item.digest).collect()
    }

    /// Compares a page of the target's rows with the source's rows of the same stretch. Rows with equal
    /// items count one by one.
    fn merge(&mut self, mut manifest: Manifest, ledger: &Ledger) {
        manifest.items.sort_unstable();
        let next = manifest.next;
        let end = match next {
            Some(next) => {
                let rest = &self.window.items[self.at..];
                self.at + rest.partition_point(|item| item.position < next)
            }
            None => self.window.items.len(),
        };
        let mut local = self.window.items[self.at..end].iter().peekable();
        let mut remote = manifest.items.iter().peekable();
        loop {
            let order = match (local.peek(), remote.peek()) {
                (Some(a), Some(b)) => a.cmp(b),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => break,
            };
            if order.is_le() {
                let item = local.next();
                if order.is_lt() {
                    self.piece.missing.extend(item.filter(|item| !ledger.is_refused(item)));
                }
            }
            if order.is_ge() {
                let item = remote.next();
                if order.is_gt() {
                    self.piece.excess.extend(item.filter(|item| !ledger.is_kept(item)));
                }
            }
        }
        self.at = end;
        self.piece.top = self.piece.top.max(manifest.items.last().map(|item| item.position));
        self.state = match next {
            Some(next) if self.piece.excess.len() >= self.room => {
                self.piece.range.to = Some(next);
                State::Done
            }
            Some(next) => State::Manifest(PositionRange { from: Some(next), to: self.window.range.to }),
            None => State::Done,
        };
    }
}
