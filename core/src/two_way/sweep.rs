//! Finds the ranges in which a side is not as it is remembered. What is compared is each side with what was seen of it
//! when its keys were last decided upon: so a key that is left open, as it was, is no difference, and one that both sides
//! changed to the same is one.

use super::step::{Answer, Step};
use crate::fingerprint::Fingerprint;
use crate::passes::{self, FEW_ROWS, divided};
use crate::ranges::RangeSummary;
use crate::reconcile::{Question, Reply};
use crate::store::{LocalHeld, PositionRange, SeenSum};

/// Passes at most, each over all rows of a local side without an index on positions.
const MOST_PASSES: u32 = 4;

/// Whether the local side is as it was seen last.
fn is_local_settled(held: &LocalHeld) -> bool {
    let summary = RangeSummary::new(PositionRange::ALL, &held.rows.rows);
    let seen = SeenSum { rows: summary.row_count, sum: summary.sum, unreadable: held.rows.bad };
    seen == held.local
}

/// Whether the remote side is.
fn is_remote_settled(held: &LocalHeld, remote: &RangeSummary) -> bool {
    (remote.row_count, remote.sum) == (held.remote.rows, held.remote.sum)
}

/// A range that is not as it is remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Differing {
    pub range: PositionRange,
    /// The rows of the side that has most.
    pub rows: u64,
    /// Whether nothing is remembered of it.
    pub fresh: bool,
}

/// What the passes found.
#[derive(Debug, Clone, Default)]
pub(super) struct Swept {
    /// All rows of the local side that can be encoded.
    pub whole: Fingerprint,
    /// Rows of the local side.
    pub rows: u64,
    /// Ranges that are not as they are remembered, in order.
    pub differing: Vec<Differing>,
    /// How many rows fewer than remembered each side has there, local first: about so many are to be deleted on the other.
    pub gone: [u64; 2],
}

#[derive(Debug)]
enum State {
    Remote,
    Local(Vec<RangeSummary>),
    Done,
}

#[derive(Debug)]
pub(super) struct Sweep {
    ranges: Vec<PositionRange>,
    /// Rows that may be read at once.
    few: u64,
    passes: u32,
    state: State,
    swept: Swept,
}

impl Sweep {
    /// Sweeps a table of about `rows` rows in ranges of about `range_rows`.
    pub fn new(rows: u64, range_rows: u64, few: u64) -> Self {
        let ranges = passes::first_ranges(rows, range_rows);
        Sweep { ranges, few: few.max(1), passes: 0, state: State::Remote, swept: Swept::default() }
    }

    pub fn step(&self) -> Option<Step<'_>> {
        match &self.state {
            State::Remote => Some(Step::Ask(Question::Summaries(&self.ranges))),
            State::Local(_) => Some(Step::Held(&self.ranges)),
            State::Done => None,
        }
    }

    /// Takes an answer; `false` where it is none to the step named.
    pub fn tell(&mut self, answer: Answer) -> bool {
        match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Remote, Answer::Reply(Reply::Summaries(remote))) => {
                let fits = passes::are_of(&remote, &self.ranges);
                self.state = State::Local(remote);
                fits
            }
            (State::Local(remote), Answer::Held(local)) if local.len() == remote.len() => {
                self.compare(&remote, &local);
                true
            }
            _ => false,
        }
    }

    /// What was found, when no step is left.
    pub fn finish(self) -> Swept {
        self.swept
    }

    fn compare(&mut self, remote: &[RangeSummary], local: &[LocalHeld]) {
        if self.passes == 0 {
            local.iter().for_each(|held| self.swept.whole.combine(&held.rows.rows));
            self.swept.rows = local.iter().map(|held| held.rows.rows.row_count() + held.rows.bad).sum();
        }
        self.passes += 1;
        self.swept.differing.clear();
        self.swept.gone = [0; 2];
        for (remote, held) in remote.iter().zip(local) {
            if is_local_settled(held) && is_remote_settled(held, remote) {
                continue;
            }
            let ours = held.rows.rows.row_count() + held.rows.bad;
            let [gone_here, gone_there] = &mut self.swept.gone;
            *gone_here += (held.local.rows + held.local.unreadable).saturating_sub(ours);
            *gone_there += held.remote.rows.saturating_sub(remote.row_count);
            let remembered = held.local.rows.max(held.remote.rows);
            let fresh = held.local == SeenSum::default() && held.remote == SeenSum::default();
            let rows = ours.max(remote.row_count).max(remembered);
            self.swept.differing.push(Differing { range: remote.range, rows, fresh });
        }
        self.divide();
    }

    /// Divides what differs once more, where that is worth a pass.
    fn divide(&mut self) {
        let differing = &self.swept.differing;
        let rows: u64 = differing.iter().map(|differing| differing.rows).sum();
        let largest = differing.iter().map(|differing| differing.rows).max().unwrap_or(0);
        let ranges = differing.len().max(1);
        let parts = passes::parts(rows, ranges);
        let mostly = rows > self.swept.rows / 2 || rows <= FEW_ROWS.saturating_mul(ranges as u64);
        let dense = mostly && largest <= self.few;
        if rows > self.few && !dense && parts > 1 && self.passes < MOST_PASSES {
            let differing = std::mem::take(&mut self.swept.differing);
            self.ranges = differing.iter().flat_map(|differing| divided(differing.range, parts)).collect();
            self.state = State::Remote;
        }
    }
}
