//! Compares a whole table of which both sides keep manifests: what all rows are is one answer of each, and ranges that
//! differ are divided until about a block of rows is left of each. Rows are read where the sides differ, and at the edges
//! of blocks.

use super::ledger::Ledger;
use super::places::joined;
use super::step::{Answer, Step};
use super::sweep::{Swept, expected};
use super::table::Table;
use crate::fingerprint::Fingerprint;
use crate::ranges::RangeSummary;
use crate::reconcile::{Question, Reply};
use crate::store::{PositionRange, RangeHeld, TableVersion};

/// Into how many ranges one that differs is divided.
const PARTS: u32 = 32;
/// Ranges asked about at once, at most.
const MOST_RANGES: usize = 1_024;
/// A range of so few rows is not divided any more: it is about a block, and blocks are read to be divided.
const FEW_ROWS: u64 = 4_096;
/// How often ranges are divided at most: 32 of 32 of 32 of 32 are a million.
const MOST_ROUNDS: u32 = 4;

#[derive(Debug)]
enum State {
    Root,
    Divide,
    Parts(Vec<RangeSummary>),
    Done,
}

/// Finds the ranges in which two kept manifests differ.
#[derive(Debug)]
pub(super) struct KeptSweep {
    remote: Fingerprint,
    ranges: Vec<PositionRange>,
    rounds: u32,
    state: State,
    /// Whether the source keeps its manifest still.
    kept: bool,
    swept: Swept,
}

/// All rows of the target, where it keeps their sum.
pub(super) fn root(version: &TableVersion) -> Option<Fingerprint> {
    version.row_count.zip(version.sum).map(|(rows, sum)| Fingerprint::from_parts(rows, sum))
}

/// What the source holds in a range; its manifest knows no row that has no encoding.
fn held(rows: Fingerprint) -> RangeHeld {
    RangeHeld { rows, bad: 0 }
}

impl KeptSweep {
    /// Compares with a target that holds this in all.
    pub fn new(remote: Fingerprint) -> Self {
        let (ranges, swept) = (vec![PositionRange::ALL], Swept::default());
        KeptSweep { remote, ranges, rounds: 0, state: State::Root, kept: true, swept }
    }

    pub fn step(&self) -> Option<Step<'_>> {
        let ranges = self.ranges.as_slice();
        match &self.state {
            State::Root => Some(Step::Kept),
            State::Divide => {
                let most = u32::try_from(MOST_RANGES / ranges.len().max(1)).unwrap_or(PARTS);
                let most = most.clamp(2, PARTS);
                Some(Step::Ask(Question::RangeManifest { ranges, most }))
            }
            State::Parts(_) => Some(Step::KeptRanges(ranges)),
            State::Done => None,
        }
    }

    /// Takes an answer; `false` where it is none to the step named.
    pub fn tell(&mut self, answer: Answer, ledger: &Ledger) -> bool {
        match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Root, Answer::Kept(Some(rows))) => {
                self.swept.rows = rows.row_count();
                // Ranges are compared by short sums: at the end this must be what the target holds.
                self.swept.whole = Some(rows);
                if expected(&self.ranges, &[held(rows)], ledger).0 == [self.remote] {
                    self.swept.equal_rows = rows.row_count();
                    self.swept.refused = rows.row_count().saturating_sub(self.remote.row_count());
                } else {
                    self.state = State::Divide;
                }
                true
            }
            (State::Root, Answer::Kept(None)) | (State::Parts(_), Answer::KeptRanges(None)) => {
                self.kept = false;
                true
            }
            (State::Divide, Answer::Reply(Reply::Summaries(parts))) => {
                let ranges: Vec<_> = parts.iter().map(|part| part.range).collect();
                let whole = joined(ranges.clone()) == joined(self.ranges.clone());
                self.ranges = ranges;
                self.state = State::Parts(parts);
                whole
            }
            (State::Parts(remote), Answer::KeptRanges(Some(local))) => {
                let fits = local.len() == remote.len();
                if fits {
                    self.compare(&remote, local, ledger);
                }
                fits
            }
            _ => false,
        }
    }

    /// Keeps the parts that differ, and divides those again that have many rows.
    fn compare(&mut self, remote: &[RangeSummary], local: Vec<Fingerprint>, ledger: &Ledger) {
        self.rounds += 1;
        let local: Vec<RangeHeld> = local.into_iter().map(held).collect();
        let (expected, _) = expected(&self.ranges, &local, ledger);
        let mut large = Vec::new();
        for ((remote, local), expected) in remote.iter().zip(&local).zip(expected) {
            let rows = local.rows.row_count();
            if remote.agrees(&RangeSummary::new(remote.range, &expected)) {
                self.swept.equal_rows += rows;
                self.swept.refused += rows.saturating_sub(remote.row_count);
                continue;
            }
            // The target divides it by its own rows.
            if remote.row_count > FEW_ROWS && self.rounds < MOST_ROUNDS {
                large.push(remote.range);
                continue;
            }
            self.swept.lacking += if rows >= remote.row_count { rows } else { 0 };
            self.swept.differing.push((remote.range, rows.max(remote.row_count)));
        }
        if !large.is_empty() && large.len() <= MOST_RANGES / 2 {
            self.ranges = large;
            self.state = State::Divide;
            return;
        }
        // So many differ that all of them are read.
        self.swept.differing.extend(large.into_iter().map(|range| (range, FEW_ROWS)));
    }

    /// What was found, when no step is left; `None` where the source keeps no manifest any more.
    pub fn finish(mut self) -> Option<Swept> {
        self.swept.differing.sort_unstable_by_key(|(range, _)| range.from);
        self.kept.then_some(self.swept)
    }
}

impl Table {
    /// Whether manifests are compared instead of rows.
    pub(super) fn both_keep(&self) -> bool {
        self.kept && root(&self.version).is_some()
    }

    /// The comparison of both manifests, where both sides keep them.
    pub(super) fn kept_sweep(&self) -> Option<KeptSweep> {
        root(&self.version).filter(|_| self.kept).map(KeptSweep::new)
    }

    /// Takes what it found. Where the source keeps no manifest any more, rows are compared.
    pub(super) fn swept_as_kept(&mut self, swept: Option<Swept>) {
        match swept {
            Some(swept) => {
                self.local_rows = Some(swept.rows);
                self.swept(swept);
            }
            None => self.kept = false,
        }
    }

    /// All rows were compared: what was not settled before the run began was met.
    pub(super) fn settle_all(&mut self) {
        if self.kept {
            self.memory.unsettled = self.settled;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::RowDigest;
    use crate::store::TableShape;
    use crate::sync::Settings;

    fn ledger() -> Ledger {
        Ledger::new(Settings::default(), TableShape::default())
    }

    fn rows(positions: std::ops::Range<i64>, odd: Option<i64>) -> Fingerprint {
        let digest = |position: i64| RowDigest([position as u8 ^ u8::from(odd == Some(position)); 32]);
        positions.map(digest).collect()
    }

    #[test]
    fn equal_roots_need_no_further_question() {
        let mut sweep = KeptSweep::new(rows(0..100, None));
        assert_eq!(sweep.step(), Some(Step::Kept));
        assert!(sweep.tell(Answer::Kept(Some(rows(0..100, None))), &ledger()));
        assert_eq!(sweep.step(), None);
        let swept = sweep.finish().expect("kept");
        assert_eq!((swept.rows, swept.equal_rows, swept.differing), (100, 100, vec![]));
    }

    #[test]
    fn ranges_that_differ_are_divided_until_they_are_small() {
        let cut = 50_000i64;
        let range = |from, to| PositionRange { from, to };
        let halves = [range(None, Some(cut)), range(Some(cut), None)];
        let sums = |odd| vec![rows(0..cut, odd), rows(cut..100_000, odd)];
        let summaries = |odd| -> Vec<RangeSummary> {
            halves.iter().zip(sums(odd)).map(|(range, sum)| RangeSummary::new(*range, &sum)).collect()
        };
        let mut sweep = KeptSweep::new(rows(0..100_000, Some(7)));
        assert!(sweep.tell(Answer::Kept(Some(rows(0..100_000, None))), &ledger()));
        assert!(sweep.tell(Answer::Reply(Reply::Summaries(summaries(Some(7)))), &ledger()));
        assert_eq!(sweep.step(), Some(Step::KeptRanges(&halves)));
        assert!(sweep.tell(Answer::KeptRanges(Some(sums(None))), &ledger()));
        assert_eq!(sweep.swept.whole, Some(rows(0..100_000, None)));
        assert_eq!(
            sweep.step(),
            Some(Step::Ask(Question::RangeManifest { ranges: &halves[..1], most: PARTS }))
        );
        // Parts that do not make it up are none.
        let mut other = summaries(None);
        other.truncate(1);
        other[0].range.to = Some(cut - 1);
        assert!(!sweep.tell(Answer::Reply(Reply::Summaries(other)), &ledger()));
    }

    #[test]
    fn a_manifest_that_is_no_longer_kept_says_nothing() {
        let mut sweep = KeptSweep::new(rows(0..9, None));
        assert!(sweep.tell(Answer::Kept(None), &ledger()));
        assert_eq!(sweep.step(), None);
        assert_eq!(sweep.finish(), None);
    }
}
