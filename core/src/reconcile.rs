//! Reconciliation: finds the rows in which two sides differ, at a cost that goes with their number and not
//! with that of the rows. Positions are the one order that all sides share, so ranges of them are what is
//! compared; keys and collations never are.
//!
//! A pure machine names what it needs of either side and is told the answer. Ranges whose row count and
//! digest sum differ are kept and divided; what then becomes of one depends on what is known of it:
//!
//! | a range that | then |
//! |---|---|
//! | one side has no rows of | all rows of the other differ |
//! | lacks one run of local rows, by count and sum | found without a word of the remote side |
//! | has few rows | its rows are asked for |
//! | has many differences, or too many rows to be read | it is divided again: damage is often in one place |
//! | is left | coded symbols over all such ranges: about 1.5 for each difference that is expected |
//!
//! Range-based reconciliation: Meyer, "Range-Based Set Reconciliation", 2022. Coded symbols: [`crate::sketch`].
//! It always ends: ranges are divided a limited number of times, and symbols are asked for only while they
//! cost less than the rows. Sides may change between two questions; what is found is then as wrong as a row
//! manifest read meanwhile would be, and is looked at again before anything is said of it.

mod drive;
mod estimate;
mod plan;
mod question;
mod region;
mod symbols;

pub(crate) use drive::ask;
pub use drive::{Differences, find, find_between};
use plan::Plan;
pub use question::{Question, Reply, Side};
pub use region::Rows;
use region::{Held, Region};

use crate::ranges::RangeSummary;
use crate::short::ShortItem;
use crate::sketch::Sketch;
use crate::store::PositionRange;

/// Bounds of a reconciliation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of the remote side alone at which it is cut short: the lower part of the range is then done.
    pub room: usize,
    /// Rows of the local side that may be read into memory at once; beyond, both sides make symbols.
    pub local_rows: u64,
    /// Local rows that are read at once to see whether a run of them is missing, before ranges are divided for it.
    /// That saves bytes; a side that keeps a manifest has to read few.
    pub early_rows: u64,
    /// Whether coded symbols may be asked for. Of a keyless table's rows there are none: equal rows may be very many.
    pub symbols: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { room: usize::MAX, local_rows: 900_000, early_rows: 1 << 16, symbols: true }
    }
}

/// What was found of a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Rows that only the local side has, one for each copy, by position.
    pub local_only: Vec<ShortItem>,
    /// Rows that only the remote side has, one for each copy, by position.
    pub remote_only: Vec<ShortItem>,
    /// Where the search was cut short for lack of room: nothing is said of this position and those beyond.
    pub end: Option<i64>,
}

#[derive(Debug)]
enum State {
    /// A side divides these of the open regions.
    Divide {
        side: Side,
        most: u32,
    },
    /// The local side tells what the parts hold.
    Parts(Vec<RangeSummary>),
    /// The local side gives its rows of these.
    LocalItems,
    /// The remote side gives its rows of these, whose local rows are known.
    RemoteItems,
    /// Symbols over these; the second is the local side's, where its rows are not known.
    RemoteSketch {
        symbols: u32,
    },
    LocalSketch {
        remote: Sketch,
    },
    Done,
}

/// Finds how two sides differ in a range.
#[derive(Debug)]
pub struct Reconcile {
    limits: Limits,
    /// Ranges that differ, in order.
    open: Vec<Region>,
    /// Which of them the present question is about, in order, and their ranges as they are asked for.
    asked: Vec<usize>,
    ranges: Vec<PositionRange>,
    /// Symbols of the asked regions so far, and how often they did not suffice.
    sketch: Option<Sketch>,
    failures: u32,
    found: Found,
    state: State,
}

impl Reconcile {
    /// Compares a range of which both sides told what they hold.
    pub fn new(local: RangeSummary, remote: RangeSummary, limits: Limits) -> Self {
        Self::begin(vec![Region::new(local.range, (&local).into(), (&remote).into())], limits)
    }

    /// Compares ranges of which the local rows are at hand, among others or alone. The remote side tells of them in
    /// ascending order.
    pub fn of_rows(rows: &Rows, remote: &[RangeSummary], limits: Limits) -> Self {
        let region = |remote: &RangeSummary| {
            let items = rows.within(remote.range);
            let region = Region::new(remote.range, items.held(), remote.into());
            Region { items: Some(items), ..region }
        };
        Self::begin(remote.iter().map(region).collect(), limits)
    }

    fn begin(open: Vec<Region>, limits: Limits) -> Self {
        let mut reconcile = Reconcile {
            limits: Limits { room: limits.room.max(1), ..limits },
            open,
            asked: Vec::new(),
            ranges: Vec::new(),
            sketch: None,
            failures: 0,
            found: Found::default(),
            state: State::Done,
        };
        reconcile.go_on();
        reconcile
    }

    /// What is asked next, and of whom; `None`: nothing is left to ask.
    pub fn step(&self) -> Option<(Side, Question<'_>)> {
        let ranges = self.ranges.as_slice();
        let first = self.sketch.as_ref().map_or(0, Sketch::symbols);
        Some(match &self.state {
            State::Divide { side, most } => (*side, Question::RangeManifest { ranges, most: *most }),
            State::Parts(_) => (Side::Local, Question::Summaries(ranges)),
            State::LocalItems => (Side::Local, Question::Items(ranges)),
            State::RemoteItems => (Side::Remote, Question::Items(ranges)),
            State::RemoteSketch { symbols } => {
                (Side::Remote, Question::Sketch { ranges, first, symbols: *symbols })
            }
            State::LocalSketch { remote } => {
                (Side::Local, Question::Sketch { ranges, first: 0, symbols: remote.symbols() })
            }
            State::Done => return None,
        })
    }

    /// Takes the answer; `false` where it is none to what was asked.
    pub fn tell(&mut self, reply: Reply) -> bool {
        let understood = match (std::mem::replace(&mut self.state, State::Done), reply) {
            (State::Divide { side, .. }, Reply::Summaries(parts)) => self.divided(side, parts),
            (State::Parts(parts), Reply::Summaries(local)) => {
                local.len() == parts.len()
                    && local.iter().zip(&parts).all(|(local, part)| local.range == part.range)
                    && self.compare_parts(&parts, Some(&local), Some(&parts))
            }
            (State::LocalItems, Reply::Items(items)) => self.take_local(items),
            (State::RemoteItems, Reply::Items(items)) => self.take_remote(items),
            (State::RemoteSketch { .. }, Reply::Sketch(bytes)) => self.take_symbols(&bytes),
            (State::LocalSketch { remote }, Reply::Sketch(bytes)) => {
                match Sketch::read(&self.ranges, 0, &bytes) {
                    Ok(local) if local.symbols() == remote.symbols() => {
                        self.decode(remote, &local);
                        true
                    }
                    _ => false,
                }
            }
            _ => false,
        };
        if understood && matches!(self.state, State::Done) {
            self.go_on();
        }
        understood
    }

    /// What was found, when no step is left.
    pub fn finish(mut self) -> Found {
        self.found.local_only.sort_unstable();
        self.found.remote_only.sort_unstable();
        let beyond = self.found.remote_only.get(self.limits.room).map(|item| item.position);
        if let Some(beyond) = beyond {
            // Whole positions, and one at least.
            let some = self.found.remote_only.first().is_some_and(|item| item.position < beyond);
            self.cut(if some { Some(beyond) } else { beyond.checked_add(1) });
        }
        self.found
    }

    /// Leaves everything from a position on to a later search.
    fn cut(&mut self, end: Option<i64>) {
        let Some(end) = end.filter(|end| self.found.end.is_none_or(|so_far| *end < so_far)) else { return };
        self.found.end = Some(end);
        self.open.retain(|region| region.range.from.is_none_or(|from| from < end));
        self.found.local_only.retain(|item| item.position < end);
        self.found.remote_only.retain(|item| item.position < end);
    }

    /// Settles what needs no further word, and names the next question.
    fn go_on(&mut self) {
        self.settle();
        self.cut_to_room();
        let plan = plan::next(&self.open, &self.limits, self.failures);
        let (asked, state) = match plan {
            Plan::Done => (Vec::new(), State::Done),
            Plan::Divide { regions, most } => (regions, State::Divide { side: Side::Remote, most }),
            Plan::DivideLocal { regions, most } => (regions, State::Divide { side: Side::Local, most }),
            Plan::LocalItems(regions) => (regions, State::LocalItems),
            Plan::RemoteItems(regions) => (regions, State::RemoteItems),
            Plan::Sketch { symbols } => {
                // Symbols go on from those at hand, but not for ever: they may be of different moments.
                let so_far = self.sketch.as_ref().map_or(0, Sketch::symbols);
                let symbols = match symbols.checked_sub(so_far).filter(|more| *more > 0 && self.failures < 3)
                {
                    Some(more) => more,
                    None => {
                        self.sketch = None;
                        symbols
                    }
                };
                ((0..self.open.len()).collect(), State::RemoteSketch { symbols })
            }
        };
        if !matches!(state, State::RemoteSketch { .. }) {
            self.sketch = None;
            self.failures = 0;
        }
        let ranges = asked.iter().map(|at| self.open[*at].range);
        self.ranges = match &state {
            State::Divide { .. } => ranges.collect(),
            _ => region::join(ranges),
        };
        self.asked = asked;
        self.state = state;
    }

    /// Takes out what is equal, what the remote side lacks altogether, and what lacks one run of rows.
    fn settle(&mut self) {
        let local_only = &mut self.found.local_only;
        self.open.retain_mut(|region| {
            if region.local == region.remote {
                return false;
            }
            if region.local.rows == 0 {
                region.items.get_or_insert_default();
            }
            let Some(rows) = &region.items else { return true };
            match rows.run(region.local, region.remote) {
                Some(run) => {
                    local_only.extend_from_slice(run);
                    false
                }
                None => true,
            }
        });
    }

    /// Cuts the search short where the remote side has more rows too many than there is room for.
    fn cut_to_room(&mut self) {
        self.found.remote_only.sort_unstable();
        let found = &self.found.remote_only;
        let mut surplus = 0u64;
        let end = self.open.iter().find_map(|region| {
            let from = region.range.from?;
            let below = found.partition_point(|item| item.position < from) as u64;
            let full = surplus.saturating_add(below) >= self.limits.room as u64;
            surplus = surplus.saturating_add(region.remote.rows.saturating_sub(region.local.rows));
            full.then_some(from)
        });
        self.cut(end);
    }

    /// Takes the parts of the asked regions, which must make them up.
    fn divided(&mut self, side: Side, parts: Vec<RangeSummary>) -> bool {
        let mut rest = parts.as_slice();
        for at in &self.asked {
            let range = self.open[*at].range;
            let own = rest.iter().take_while(|part| region::within(&part.range, &range)).count();
            let (own, after) = rest.split_at(own);
            if region::join(own.iter().map(|part| part.range)) != [range] {
                return false;
            }
            rest = after;
        }
        if !rest.is_empty() {
            return false;
        }
        if side == Side::Local {
            return self.compare_parts(&parts, Some(&parts), None);
        }
        if self.asked.iter().all(|at| self.open[*at].items.is_some()) {
            return self.compare_parts(&parts, None, Some(&parts));
        }
        self.ranges = parts.iter().map(|part| part.range).collect();
        self.state = State::Parts(parts);
        true
    }

    /// Replaces the asked regions by those of their parts that differ. `local`: what the local side holds in
    /// the parts, where its rows are not known; `remote`: the same of the remote side, where it has rows.
    fn compare_parts(
        &mut self,
        parts: &[RangeSummary],
        local: Option<&[RangeSummary]>,
        remote: Option<&[RangeSummary]>,
    ) -> bool {
        let of = |side: Option<&[RangeSummary]>, at: usize| side?.get(at).map(Held::from);
        let mut asked = std::mem::take(&mut self.asked).into_iter().peekable();
        let (mut open, mut at, mut differing) = (Vec::new(), 0, Vec::new());
        for (place, region) in std::mem::take(&mut self.open).into_iter().enumerate() {
            if asked.next_if_eq(&place).is_none() {
                open.push(region);
                continue;
            }
            let begin = at;
            while let Some(part) = parts.get(at).filter(|part| region::within(&part.range, &region.range)) {
                let items = region.items.as_ref().map(|rows| rows.within(part.range));
                let Some(held) = items.as_ref().map(Rows::held).or_else(|| of(local, at)) else {
                    return false;
                };
                let part = Region::new(part.range, held, of(remote, at).unwrap_or_default());
                at += 1;
                if part.local != part.remote {
                    differing.push(open.len());
                    open.push(Region { items, rounds: region.rounds + 1, ..part });
                }
            }
            if at == begin + 1
                && let Some(part) = open.last_mut().filter(|part| part.range == region.range)
            {
                part.stuck = true;
            }
        }
        let places = estimate::places(differing.len(), parts.len());
        differing.into_iter().for_each(|part| open[part].places = places);
        self.open = open;
        true
    }

    /// Sorts the local side's rows into the asked regions.
    fn take_local(&mut self, items: Vec<ShortItem>) -> bool {
        self.take_rows(items, |region, own, _| {
            region.local = own.held();
            region.items = Some(own);
        })
    }

    /// Compares the remote side's rows with the local ones, one by one.
    fn take_remote(&mut self, items: Vec<ShortItem>) -> bool {
        self.take_rows(items, |region, own, found| {
            if let Some(local) = &region.items {
                local.compare(&own, found);
            }
            region.remote = region.local;
        })
    }

    /// Hands each asked region the rows that lie in it; `false` where rows lie in none.
    fn take_rows(&mut self, items: Vec<ShortItem>, take: impl Fn(&mut Region, Rows, &mut Found)) -> bool {
        let rows = Rows::new(items);
        let mut taken = 0;
        for at in std::mem::take(&mut self.asked) {
            let own = rows.within(self.open[at].range);
            taken += own.len();
            take(&mut self.open[at], own, &mut self.found);
        }
        taken == rows.len()
    }
}

impl From<&RangeSummary> for Held {
    fn from(summary: &RangeSummary) -> Self {
        Held { rows: summary.row_count, sum: summary.sum.0 }
    }
}
