//! Compares a whole table whose source has no index on positions: it reads all rows to find those of a range. So one
//! pass adds up what many ranges hold, and only the few that differ are compared row by row, in another pass.
//!
//! Positions are hashes there, so that ranges of equal length hold about as many rows.

use super::ledger::Ledger;
use super::places::joined;
use super::step::{Answer, Step};
use crate::digest::RowDigest;
use crate::fingerprint::Fingerprint;
use crate::passes::{self, FEW_ROWS, divided};
use crate::ranges::RangeSummary;
use crate::reconcile::{Question, Reply};
use crate::store::{PositionRange, RangeHeld};

/// Rows of a range, about, when all are compared.
pub(super) const RANGE_ROWS: u64 = 4_096;
/// Passes that find where a table differs, at most.
const MOST_PASSES: u32 = 3;

/// What the passes found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Swept {
    /// Rows of the source.
    pub rows: u64,
    /// All of those that can be encoded, as the first pass found them; `None`: no pass was made.
    pub whole: Option<Fingerprint>,
    /// Those of them in ranges that do not differ, and how many of these the target has not because it would not take
    /// them.
    pub equal_rows: u64,
    pub refused: u64,
    /// Rows of the source in ranges that differ, where the target has no more.
    pub lacking: u64,
    /// Ranges that differ, in order, each with the rows of the side that has more.
    pub differing: Vec<(PositionRange, u64)>,
}

impl Swept {
    /// How many rows the ranges have that differ.
    pub fn differing_rows(&self) -> u64 {
        self.differing.iter().map(|(_, rows)| rows).sum()
    }

    /// The ranges that differ in groups of about so many rows, one range at least. Those of a group do not meet.
    pub fn groups(self, rows: u64) -> Vec<Vec<PositionRange>> {
        passes::groups(self.differing, rows).into_iter().map(joined).collect()
    }
}

#[derive(Debug)]
enum State {
    Ask,
    Pass(Vec<RangeSummary>),
    Done,
}

/// Finds the ranges in which a table differs.
#[derive(Debug)]
pub(super) struct Sweep {
    ranges: Vec<PositionRange>,
    /// Rows that may be compared one by one in one pass.
    few: u64,
    passes: u32,
    state: State,
    swept: Swept,
}

impl Sweep {
    /// Compares a table of about so many rows, until about `few` rows are left that may differ.
    pub fn new(rows: u64, few: u64) -> Self {
        if rows <= few {
            let differing = vec![(PositionRange::ALL, rows)];
            let swept = Swept { differing, ..Swept::default() };
            return Sweep { ranges: Vec::new(), few, passes: 0, state: State::Done, swept };
        }
        let ranges = passes::first_ranges(rows, RANGE_ROWS);
        Sweep { ranges, few, passes: 0, state: State::Ask, swept: Swept::default() }
    }

    pub fn step(&self) -> Option<Step<'_>> {
        match &self.state {
            State::Ask => Some(Step::Ask(Question::Summaries(&self.ranges))),
            State::Pass(_) => Some(Step::Fingerprints(&self.ranges)),
            State::Done => None,
        }
    }

    /// Takes an answer; `false` where it is none to the step named.
    pub fn tell(&mut self, answer: Answer, ledger: &Ledger) -> bool {
        match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Ask, Answer::Reply(Reply::Summaries(remote))) => {
                let fits = passes::are_of(&remote, &self.ranges);
                self.state = State::Pass(remote);
                fits
            }
            (State::Pass(remote), Answer::Held(local)) => {
                local.len() == remote.len() && {
                    self.compare(&remote, local, ledger);
                    true
                }
            }
            _ => false,
        }
    }

    /// What was found, when no step is left.
    pub fn finish(self) -> Swept {
        self.swept
    }

    fn compare(&mut self, remote: &[RangeSummary], local: Vec<RangeHeld>, ledger: &Ledger) {
        if self.passes == 0 {
            self.swept.rows = local.iter().map(|held| held.rows.row_count() + held.bad).sum();
            let mut whole = Fingerprint::default();
            local.iter().for_each(|held| whole.combine(&held.rows));
            self.swept.whole = Some(whole);
        }
        self.passes += 1;
        let (expected, known_bad) = expected(&self.ranges, &local, ledger);
        let mut lost = 0;
        self.swept.differing.clear();
        self.swept.lacking = 0;
        for (((remote, local), expected), known_bad) in remote.iter().zip(&local).zip(expected).zip(known_bad)
        {
            if remote.agrees(&RangeSummary::new(remote.range, &expected)) && local.bad == known_bad {
                let rows = local.rows.row_count() + local.bad;
                self.swept.equal_rows += rows;
                self.swept.refused += rows.saturating_sub(remote.row_count);
                continue;
            }
            if local.rows.row_count() >= remote.row_count {
                self.swept.lacking += local.rows.row_count();
            }
            lost += expected.row_count().saturating_sub(remote.row_count);
            let rows = (local.rows.row_count() + local.bad).max(remote.row_count);
            self.swept.differing.push((remote.range, rows));
        }
        let rows = self.swept.differing_rows();
        let ranges = self.swept.differing.len();
        let parts = passes::parts(rows, ranges);
        let dense = rows <= FEW_ROWS.saturating_mul(ranges as u64) || lost > rows / 2;
        if rows > self.few && !dense && parts > 1 && self.passes < MOST_PASSES {
            let differing = std::mem::take(&mut self.swept.differing);
            self.ranges = differing.into_iter().flat_map(|(range, _)| divided(range, parts)).collect();
            self.state = State::Ask;
        }
    }
}

/// What the target holds in each range, of those in order, where it is level but for the rows that it would not take, and
/// how many of the source's rows there are known to have no encoding.
pub(super) fn expected(
    ranges: &[PositionRange],
    local: &[RangeHeld],
    ledger: &Ledger,
) -> (Vec<Fingerprint>, Vec<u64>) {
    let mut expected: Vec<Fingerprint> = local.iter().map(|held| held.rows).collect();
    let mut bad = vec![0; local.len()];
    let place = |position: i64| {
        let at = ranges.partition_point(|range| range.to.is_some_and(|to| to <= position));
        ranges.get(at).is_some_and(|range| range.contains(position)).then_some(at)
    };
    let mut change = |position: i64, by: &dyn Fn(&mut Fingerprint, &RowDigest), digest: &RowDigest| {
        if let Some(held) = place(position).and_then(|at| expected.get_mut(at)) {
            by(held, digest);
        }
    };
    for item in ledger.refused_items() {
        change(item.position, &Fingerprint::remove, &item.digest);
    }
    for (item, _) in ledger.kept() {
        change(item.position, &Fingerprint::insert, &item.digest);
    }
    for position in ledger.bad_positions() {
        let at = match position {
            Some(position) => place(position),
            None => ranges.first().filter(|range| range.from.is_none()).map(|_| 0),
        };
        if let Some(rows) = at.and_then(|at| bad.get_mut(at)) {
            *rows += 1;
        }
    }
    (expected, bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_about_as_many_rows_as_one_pass_may_compare() {
        let range = |from: i64, to: i64| PositionRange { from: Some(from), to: Some(to) };
        let differing = vec![
            (range(0, 5), 30),
            (range(5, 9), 30),
            (range(20, 30), 50),
            (range(40, 41), 500),
            (range(50, 51), 1),
        ];
        let groups = Swept { differing, ..Swept::default() }.groups(100);
        assert_eq!(
            groups,
            [vec![range(0, 9)], vec![range(20, 30)], vec![range(40, 41)], vec![range(50, 51)]]
        );
    }
}
