//! The second look at what was mended. A stretch that now holds what the source had in it, by its whole digest sum,
//! costs one question; else the places where it had differed are compared again, and mended again.

use super::compare::Piece;
use super::places::{beyond, joined};
use super::table::Table;
use super::task::{Purpose, Stage, Task};
use crate::fingerprint::Fingerprint;
use crate::store::PositionRange;

/// How often what was mended is looked at again, and mended again, in one run.
const CONFIRM_ROUNDS: u32 = 3;
/// Places that a table keeps in mind at most; beyond, stretches are looked at as a whole.
const MOST_PLACES: usize = 4_096;

/// A stretch that differed and was mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mended {
    /// All of it; an open end is closed, because rows arrive there all the time.
    range: PositionRange,
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
        let (range, expected) = (piece.closed_range(), piece.expected);
        Mended { range, expected, places: Vec::new(), whole: false, other_sum: false }
    }

    pub fn range(&self) -> PositionRange {
        self.range
    }
}

impl Table {
    /// Takes note of a difference that is about to be mended: it is to be looked at again.
    pub(super) fn differs(&mut self, piece: &Piece, purpose: Purpose) {
        let known: usize = self.unconfirmed.iter().map(|mended| mended.places.len()).sum();
        let mut mended = match self.confirming.last().filter(|_| purpose == Purpose::Confirm) {
            Some(mended) if mended.whole && mended.range == piece.range => Mended::of(piece),
            Some(mended) => {
                let range = mended.range;
                let earlier_part = self.unconfirmed.pop_if(|earlier| earlier.range == range);
                let first = || Mended { places: Vec::new(), other_sum: false, ..mended.clone() };
                earlier_part.unwrap_or_else(first)
            }
            None => Mended::of(piece),
        };
        mended.places.extend_from_slice(&piece.places);
        mended.places = joined(mended.places);
        if known + mended.places.len() > MOST_PLACES {
            mended.places = vec![mended.range];
        }
        mended.whole = mended.places == [mended.range];
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

    /// Takes the fingerprint of the stretch that is looked at again.
    pub(super) fn checked(&mut self, remote: &Fingerprint) {
        // There may be another stretch.
        self.stage = Stage::Confirm;
        match self.confirming.last_mut() {
            Some(mended) if mended.expected != *remote => mended.other_sum = true,
            _ => drop(self.confirming.pop()),
        }
    }

    /// Takes note that the places below `end` were compared again.
    pub(super) fn confirmed(&mut self, end: Option<i64>) {
        let Some(mended) = self.confirming.last_mut() else { return };
        mended.places = beyond(&mended.places, end);
        if mended.places.is_empty() {
            let differs = self.unconfirmed.last().is_some_and(|again| again.range == mended.range);
            // Rows moved meanwhile elsewhere in it, on one side or the other.
            self.moved |= !mended.whole && !differs;
            self.confirming.pop();
        }
    }
}
