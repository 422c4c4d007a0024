//! Compares one stretch of the axis: the source's row manifest with the target's fingerprint and, only where
//! that differs, with what the target tells of ever fewer rows.

use std::collections::HashSet;

use super::ledger::Ledger;
use super::step::{Answer, Step};
use crate::fingerprint::Fingerprint;
use crate::manifest::Item;
use crate::ranges::RangeSummary;
use crate::reconcile::{Found, Limits, Reconcile, Rows, Side};
use crate::short::ShortItem;
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
    pub excess: Vec<ShortItem>,
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
    piece: Piece,
}

#[derive(Debug)]
enum State {
    Read,
    Fingerprint,
    Reconcile(Box<Reconcile>),
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
            piece: Piece::default(),
        }
    }

    pub fn step(&self) -> Option<Step<'_>> {
        match &self.state {
            State::Read => Some(Step::ReadWindow { range: self.range, rows: self.rows }),
            State::Fingerprint => Some(Step::Fingerprint(self.window.range)),
            State::Reconcile(machine) => machine.step().map(|(_, question)| Step::Ask(question)),
            State::Done => None,
        }
    }

    /// Takes an answer; `false` where it is none to the step named.
    pub fn tell(&mut self, answer: Answer, ledger: &Ledger) -> bool {
        match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Read, Answer::Window(mut window)) => {
                window.items.sort_unstable();
                self.piece.range = window.range;
                self.piece.rows = (window.items.len() + window.bad.len()) as u64;
                self.piece.bad = std::mem::take(&mut window.bad);
                self.piece.top = window.items.last().map(|item| item.position);
                self.window = window;
                self.state = State::Fingerprint;
                true
            }
            (State::Fingerprint, Answer::Fingerprint(remote)) => {
                if remote == self.expected(ledger) {
                    return true;
                }
                let range = self.window.range;
                let limits = Limits { room: self.room, ..Limits::default() };
                let remote = RangeSummary::new(range, &remote);
                let machine = Reconcile::of_rows(range, self.expected_rows(ledger), remote, limits);
                self.go_on(Box::new(machine), ledger)
            }
            (State::Reconcile(mut machine), Answer::Reply(reply)) => {
                machine.tell(reply) && self.go_on(machine, ledger)
            }
            _ => false,
        }
    }

    /// What the comparison found, when no step is left.
    pub fn finish(self) -> Piece {
        self.piece
    }

    /// Waits for the next answer, or takes what was found. All local rows are known, so that the target
    /// alone is ever asked.
    fn go_on(&mut self, machine: Box<Reconcile>, ledger: &Ledger) -> bool {
        match machine.step() {
            Some((Side::Remote, _)) => self.state = State::Reconcile(machine),
            Some((Side::Local, _)) => return false,
            None => self.found(machine.finish(), ledger),
        }
        true
    }

    /// The source's rows as the target has them where it is level but for the rows it would not take.
    fn expected_items<'a>(&'a self, ledger: &'a Ledger) -> impl Iterator<Item = &'a Item> {
        let local = self.window.items.iter().filter(|item| !ledger.is_refused(item));
        let kept = ledger.kept().map(|(item, _)| item);
        local.chain(kept.filter(|item| self.window.range.contains(item.position)))
    }

    fn expected(&self, ledger: &Ledger) -> Fingerprint {
        self.expected_items(ledger).map(|item| item.digest).collect()
    }

    fn expected_rows(&self, ledger: &Ledger) -> Rows {
        Rows::new(self.expected_items(ledger).map(ShortItem::from).collect())
    }

    /// Takes what was found, without what is known of rows that the target would not take.
    fn found(&mut self, found: Found, ledger: &Ledger) {
        let mut kept: HashSet<ShortItem> = ledger.kept().map(|(item, _)| item.into()).collect();
        let mut local = self.window.items.iter();
        for missing in found.local_only {
            // An older version that went from the target is no loss.
            if !kept.remove(&missing) {
                self.piece.missing.extend(local.find(|item| ShortItem::from(*item) == missing));
            }
        }
        let as_refused = |excess: &ShortItem| {
            let first = self.window.items.partition_point(|item| ShortItem::from(item) < *excess);
            let local = self.window.items.get(first).filter(|item| ShortItem::from(*item) == *excess);
            local.is_some_and(|item| ledger.is_refused(item))
        };
        self.piece.excess = found.remote_only;
        // A row that it would not take before, and has now.
        self.piece.excess.retain(|excess| !as_refused(excess));
        self.piece.top = self.piece.top.max(self.piece.excess.last().map(|item| item.position));
        if found.end.is_some() {
            self.piece.range.to = found.end;
        }
    }
}
