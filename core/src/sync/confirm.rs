//! The second look at what was mended. A stretch that now holds what the source had in it, by its whole digest sum,
//! costs one question; else the places where it had differed are compared again, and mended again.

use super::compare::Piece;
use super::places::{beyond, joined};
use super::step::{Answer, Step};
use super::table::Table;
use super::task::{Purpose, Stage, Task};
use crate::fingerprint::Fingerprint;
use crate::ranges::{RangeSummary, ShortSum};
use crate::reconcile::{Question, Reply};
use crate::store::PositionRange;

/// How often what was mended is looked at again, and mended again, in one run.
const CONFIRM_ROUNDS: u32 = 3;
/// Places that a table keeps in mind at most; beyond, stretches are looked at as a whole.
const MOST_PLACES: usize = 4_096;

/// A stretch that differed and was mended, or several that were compared together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mended {
    /// All of it; an open end is closed, because rows arrive there all the time.
    ranges: Vec<PositionRange>,
    /// What the source had in it, as the target holds it once it is mended.
    expected: Fingerprint,
    /// Where it differed, in order; all of it where there is little else.
    places: Vec<PositionRange>,
    /// Whether the places are all of it.
    whole: bool,
    /// Whether its digest sum was asked for and is another one, so that the places must be compared.
    other_sum: bool,
}

impl Mended {
    fn of(piece: &Piece) -> Self {
        let (ranges, expected) = (piece.ranges.clone(), piece.expected);
        Mended { ranges, expected, places: Vec::new(), whole: false, other_sum: false }
    }

    /// What the target is asked about it. Of several stretches it tells short sums, which add up as whole ones do.
    pub fn question(&self) -> Step<'_> {
        match self.ranges.as_slice() {
            [range] => Step::Fingerprint(*range),
            ranges => Step::Ask(Question::Summaries(ranges)),
        }
    }

    /// Whether that is what the source had; `None` where it is no answer to the question.
    pub fn is_as_expected(&self, answer: &Answer) -> Option<bool> {
        match answer {
            Answer::Fingerprint(remote) => Some(*remote == self.expected),
            Answer::Reply(Reply::Summaries(parts)) => {
                let sum = |(rows, sum): (u64, u64), part: &RangeSummary| {
                    (rows.wrapping_add(part.row_count), sum.wrapping_add(part.sum.0))
                };
                let remote = parts.iter().fold((0, 0), sum);
                Some(remote == (self.expected.row_count(), ShortSum::from(&self.expected).0))
            }
            _ => None,
        }
    }
}

impl Table {
    /// Takes note of a difference that is about to be mended: it is to be looked at again.
    pub(super) fn differs(&mut self, piece: &Piece, purpose: Purpose) {
        let known: usize = self.unconfirmed.iter().map(|mended| mended.places.len()).sum();
        let mut mended = match self.confirming.last().filter(|_| purpose == Purpose::Confirm) {
            Some(mended) if mended.whole && mended.ranges == piece.ranges => Mended::of(piece),
            Some(mended) => {
                let earlier_part = self.unconfirmed.pop_if(|earlier| earlier.ranges == mended.ranges);
                let first = || Mended { places: Vec::new(), other_sum: false, ..mended.clone() };
                earlier_part.unwrap_or_else(first)
            }
            None => Mended::of(piece),
        };
        mended.places.extend_from_slice(&piece.places);
        mended.places = joined(mended.places);
        if known + mended.places.len() > MOST_PLACES {
            mended.places = mended.ranges.clone();
        }
        mended.whole = mended.places == mended.ranges;
        self.unconfirmed.push(mended);
    }

    /// Looks again at what was mended; what still differs is mended and looked at again, a few times.
    pub(super) fn confirm(&mut self, now: i64) -> Task {
        if self.confirming.is_empty() {
            // Where the guard holds rows, what differs stays so.
            let held = self.ledger.report.held > 0;
            let late = self.stop || now >= self.until.run;
            let tried = held || self.confirm_rounds >= CONFIRM_ROUNDS;
            if late || tried {
                self.pending |= !self.unconfirmed.is_empty();
                self.dropped |= !tried && !self.candidates.is_empty();
                self.candidates.clear();
            } else if !self.candidates.is_empty() {
                return self.delete();
            } else {
                self.confirm_rounds += 1;
                self.confirming = std::mem::take(&mut self.unconfirmed);
            }
        }
        match self.confirming.last() {
            Some(mended) if mended.other_sum => {
                let places = mended.places.clone();
                self.compare(places, Purpose::Confirm)
            }
            Some(_) => Task::Ask,
            None => {
                self.stage = self.after(Stage::Confirm);
                Task::None
            }
        }
    }

    /// Takes what the target holds of the stretch that is looked at again; `false` where it is no answer to that.
    pub(super) fn checked(&mut self, answer: &Answer) -> bool {
        // There may be another stretch.
        self.stage = Stage::Confirm;
        let Some(mended) = self.confirming.last_mut() else { return false };
        match mended.is_as_expected(answer) {
            Some(true) => drop(self.confirming.pop()),
            Some(false) => mended.other_sum = true,
            None => return false,
        }
        true
    }

    /// Takes note that the places below `end` were compared again.
    pub(super) fn confirmed(&mut self, end: Option<i64>) {
        let Some(mended) = self.confirming.last_mut() else { return };
        mended.places = beyond(&mended.places, end);
        if mended.places.is_empty() {
            let differs = self.unconfirmed.last().is_some_and(|again| again.ranges == mended.ranges);
            // Rows moved meanwhile elsewhere in it, on one side or the other.
            self.moved |= !mended.whole && !differs;
            self.confirming.pop();
        }
    }
}
