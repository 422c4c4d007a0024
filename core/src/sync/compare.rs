//! Compares stretches of the axis: the source's row manifest with the target's fingerprint and, only where
//! that differs, with what the target tells of ever fewer rows.

use std::collections::HashSet;

use super::ledger::Ledger;
use super::places::{below, places};
use super::step::{Answer, Step};
use crate::fingerprint::Fingerprint;
use crate::manifest::Item;
use crate::passes::are_of;
use crate::ranges::RangeSummary;
use crate::reconcile::{Found, Limits, Question, Reconcile, Reply, Rows, Side};
use crate::short::ShortItem;
use crate::store::{BadRow, PositionRange, SourceWindow};

/// What a comparison found in the stretches it covered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Piece {
    /// From the beginning of the first stretch to the end of what it covered of the last.
    pub range: PositionRange,
    /// The stretches, where it differs: an open end is closed.
    pub ranges: Vec<PositionRange>,
    /// Source rows in it.
    pub rows: u64,
    /// Those of them that the target would not take.
    pub refused: u64,
    /// Rows that only the source has as they are.
    pub missing: Vec<Item>,
    /// Rows that only the target has as they are.
    pub excess: Vec<ShortItem>,
    /// Rows of the source that no encoding holds.
    pub bad: Vec<BadRow>,
    /// The highest position seen in it on either side.
    pub top: Option<i64>,
    /// Where it differs, few rows beside those that do.
    pub places: Vec<PositionRange>,
    /// What the target holds in it once it does not differ.
    pub expected: Fingerprint,
    /// The source's rows in it that can be encoded, whether the target takes them or not.
    pub encoded: Fingerprint,
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

/// The rows that are not among others, or more often, in order.
fn without(rows: &Rows, others: &Rows) -> Vec<ShortItem> {
    let mut others = others.iter().peekable();
    let mut left: Vec<ShortItem> = Vec::new();
    for item in rows.iter() {
        while others.next_if(|other| *other < item).is_some() {}
        if others.next_if_eq(&item).is_none() {
            left.push(*item);
        }
    }
    left
}

/// Compares the beginning of some stretches. Where the answer ends before they do, go on from there.
#[derive(Debug)]
pub(super) struct Compare {
    /// Ascending and disjoint; the last one's end, once it was read, is where reading ended.
    ranges: Vec<PositionRange>,
    rows: u64,
    /// Rows of `excess` at which the stretch is cut off.
    room: usize,
    state: State,
    /// The source's rows, by position.
    items: Vec<Item>,
    piece: Piece,
}

#[derive(Debug)]
enum State {
    Read,
    Ask,
    Reconcile(Box<Reconcile>),
    /// All rows: whole sums differ and short ones are equal by chance.
    Items,
    Done,
}

impl Compare {
    /// Compares about `rows` source rows from the beginning of `ranges`, which ascend and do not meet; `room` bounds
    /// the target's rows that are kept in mind.
    pub fn new(ranges: Vec<PositionRange>, rows: u64, room: usize) -> Self {
        Compare {
            state: if ranges.is_empty() { State::Done } else { State::Read },
            ranges,
            rows: rows.max(1),
            room: room.max(1),
            items: Vec::new(),
            piece: Piece::default(),
        }
    }

    pub fn step(&self) -> Option<Step<'_>> {
        let rows = self.rows;
        match (&self.state, self.ranges.as_slice()) {
            (State::Read, [range]) => Some(Step::ReadWindow { range: *range, rows }),
            (State::Read, ranges) => Some(Step::ReadWindows { ranges, rows }),
            (State::Ask, [range]) => Some(Step::Fingerprint(*range)),
            (State::Ask, ranges) => Some(Step::Ask(Question::Summaries(ranges))),
            (State::Reconcile(machine), _) => machine.step().map(|(_, question)| Step::Ask(question)),
            (State::Items, ranges) => Some(Step::Ask(Question::Items(ranges))),
            (State::Done, _) => None,
        }
    }

    /// Takes an answer; `false` where it is none to the step named.
    pub fn tell(&mut self, answer: Answer, ledger: &Ledger) -> bool {
        match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Read, Answer::Window(window)) => self.read(vec![window], ledger),
            (State::Read, Answer::Windows(windows)) => self.read(windows, ledger),
            (State::Ask, Answer::Fingerprint(remote)) => {
                let [range] = self.ranges[..] else { return false };
                let expected = self.expected(ledger);
                self.piece.expected = expected;
                self.piece.encoded = self.encoded(expected, None, ledger);
                if remote == expected {
                    return true;
                }
                let remote = RangeSummary::new(range, &remote);
                if remote.agrees(&RangeSummary::new(range, &expected)) {
                    self.state = State::Items;
                    return true;
                }
                self.reconcile(&[remote], ledger)
            }
            (State::Items, Answer::Reply(Reply::Items(remote))) => {
                let (local, remote) = (self.expected_rows(ledger), Rows::new(remote));
                let (local_only, remote_only) = (without(&local, &remote), without(&remote, &local));
                self.found(Found { local_only, remote_only, end: None }, ledger);
                true
            }
            (State::Ask, Answer::Reply(Reply::Summaries(remote))) => {
                are_of(&remote, &self.ranges) && self.reconcile(&remote, ledger)
            }
            (State::Reconcile(mut machine), Answer::Reply(reply)) => {
                machine.tell(reply) && self.go_on(machine, ledger)
            }
            _ => false,
        }
    }

    /// Takes the source's rows. The stretches beyond those that were read are left to a later comparison.
    fn read(&mut self, windows: Vec<SourceWindow>, ledger: &Ledger) -> bool {
        let fits = |(window, range): (&SourceWindow, &PositionRange)| window.range.from == range.from;
        if windows.is_empty() || !windows.iter().zip(&self.ranges).all(fits) {
            return false;
        }
        self.ranges.truncate(windows.len());
        for (window, range) in windows.into_iter().zip(&mut self.ranges) {
            self.piece.rows += window.rows();
            self.items.extend(window.items);
            self.piece.bad.extend(window.bad);
            range.to = window.range.to;
        }
        self.items.sort_unstable();
        self.piece.range = PositionRange {
            from: self.ranges.first().and_then(|range| range.from),
            to: self.ranges.last().and_then(|range| range.to),
        };
        self.piece.top = self.items.last().map(|item| item.position);
        let refused = self.items.iter().filter(|item| ledger.is_refused(item)).count() + self.piece.bad.len();
        self.piece.refused = refused as u64;
        self.state = State::Ask;
        true
    }

    fn reconcile(&mut self, remote: &[RangeSummary], ledger: &Ledger) -> bool {
        let limits = Limits { room: self.room, symbols: !ledger.shape.keyless, ..Limits::default() };
        let machine = Reconcile::of_rows(&self.expected_rows(ledger), remote, limits);
        self.go_on(Box::new(machine), ledger)
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
        let local = ledger.taken(&self.items);
        let kept = ledger.kept().map(|(item, _)| item);
        local.chain(kept.filter(|item| self.covers(item.position)))
    }

    fn covers(&self, position: i64) -> bool {
        let at = self.ranges.partition_point(|range| range.to.is_some_and(|to| to <= position));
        self.ranges.get(at).is_some_and(|range| range.contains(position))
    }

    fn expected(&self, ledger: &Ledger) -> Fingerprint {
        self.expected_items(ledger).map(|item| item.digest).collect()
    }

    /// What the source's rows amount to that can be encoded, in `covered` alone: what is expected, where no row is refused.
    fn encoded(&self, expected: Fingerprint, covered: Option<PositionRange>, ledger: &Ledger) -> Fingerprint {
        if !ledger.knows_any() {
            return expected;
        }
        let within = |item: &&Item| covered.is_none_or(|covered| covered.contains(item.position));
        self.items.iter().filter(within).map(|item| item.digest).collect()
    }

    fn expected_rows(&self, ledger: &Ledger) -> Rows {
        Rows::new(self.expected_items(ledger).map(ShortItem::from).collect())
    }

    /// Takes what was found, without what is known of rows that the target would not take.
    fn found(&mut self, found: Found, ledger: &Ledger) {
        let mut kept: HashSet<ShortItem> = ledger.kept().map(|(item, _)| item.into()).collect();
        let mut local = self.items.iter();
        for missing in found.local_only {
            // An older version that went from the target is no loss.
            if !kept.remove(&missing) {
                self.piece.missing.extend(local.find(|item| ShortItem::from(*item) == missing));
            }
        }
        let copies_refused = |excess: &ShortItem| {
            let first = self.items.partition_point(|item| ShortItem::from(item) < *excess);
            let equal = self.items[first..].iter().take_while(|item| ShortItem::from(*item) == *excess);
            equal.filter(|item| ledger.is_refused(item)).count()
        };
        let (mut before, mut left) = (None, 0);
        self.piece.excess = found.remote_only;
        // A row that it would not take before, and has now; of equal ones no more than the source has.
        self.piece.excess.retain(|excess| {
            if before.replace(*excess) != Some(*excess) {
                left = copies_refused(excess);
            }
            let is_excess = left == 0;
            left = left.saturating_sub(1);
            is_excess
        });
        self.piece.top = self.piece.top.max(self.piece.excess.last().map(|item| item.position));
        if found.end.is_some() {
            self.piece.range.to = found.end;
        }
        let covered = self.piece.closed_range();
        let expected = self.expected_items(ledger).filter(|item| covered.contains(item.position));
        self.piece.expected = expected.map(|item| item.digest).collect();
        self.piece.encoded = self.encoded(self.piece.expected, Some(covered), ledger);
        if self.piece.is_equal() {
            return;
        }
        self.piece.ranges = below(&self.ranges, covered.to);
        self.piece.places = places(&self.piece, &self.items);
    }
}
