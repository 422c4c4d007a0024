//! The moving window: where the next one begins, how large it is, how many a run compares, and when a sweep
//! is complete.

use super::compare::Piece;
use super::{Settings, TableMemory};
use crate::store::PositionRange;

/// Windows do not get smaller than this, unless the settings begin smaller.
const FEWEST_ROWS: u64 = 1_000;

/// A sweep that reached the end of the axis in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub started: i64,
    pub quiet: bool,
    pub settled: bool,
}

/// The windows of one table in one run.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// Whether the whole table is to be compared in this run.
    forced: bool,
    /// Where the circle began.
    start: Option<i64>,
    wrapped: bool,
    /// Whether a first proof is sought, one window after the other.
    eager: bool,
    covered: u64,
    needed: u64,
    count: u64,
    until: i64,
    /// How long the windows of this run may take, in microseconds.
    share: u64,
    /// The row counts when the windows began.
    pub counts: Option<(u64, u64)>,
    /// The row counts at the beginning of a sweep that ended in this run.
    pub swept_for: Option<(u64, u64)>,
    /// The sweep that was found clean and complete, but for ranges still to be confirmed.
    pub ended: Option<Ended>,
}

impl Windows {
    /// Windows for a table of `rows` rows that may go on until `until`.
    pub fn new(memory: &TableMemory, settings: &Settings, rows: u64, now: i64, until: i64) -> Self {
        let elapsed = match memory.compared_at {
            Some(then) => u64::try_from(now.saturating_sub(then)).unwrap_or(0),
            None => settings.run_interval,
        };
        let interval = settings.sweep_interval.max(1);
        let needed = (u128::from(rows) * u128::from(elapsed.min(interval))).div_ceil(u128::from(interval));
        Windows {
            start: memory.window_from,
            eager: memory.proved_at.is_none(),
            needed: u64::try_from(needed).unwrap_or(u64::MAX),
            until,
            share: u64::try_from(until.saturating_sub(now)).unwrap_or(0).max(1),
            ..Windows::default()
        }
    }

    /// Compares the whole table in this run, beginning at the next window, as far as the budget goes.
    pub fn force(&mut self, memory: &TableMemory, until: i64) {
        if !self.forced {
            self.forced = true;
            self.start = memory.window_from;
            self.wrapped = false;
            self.until = self.until.max(until);
        }
    }

    /// The replica is on hold: there is no proof to be had before a person agrees.
    pub fn hold(&mut self) {
        self.eager = false;
    }

    /// Takes note that all rows were found equal, as one window would have found them: a sweep that began at
    /// `started`.
    pub fn all_at_once(&mut self, memory: &mut TableMemory, started: i64, rows: u64) {
        self.count += 1;
        self.covered += rows;
        (self.start, self.wrapped) = (None, true);
        self.swept_for = self.counts;
        self.ended = Some(Ended { started, quiet: true, settled: true });
        (memory.window_from, memory.sweep_started, memory.sweep_clean) = (None, None, false);
    }

    /// Takes note that a sweep which began at the bottom compared all rows, by passes over the source.
    pub fn swept(&mut self, memory: &mut TableMemory) {
        self.count += 1;
        (self.start, self.wrapped) = (None, true);
        self.swept_for = memory.sweep_counts;
        let ended = memory.sweep_started.take().filter(|_| memory.sweep_clean);
        let (quiet, settled) = (memory.sweep_quiet, memory.sweep_settled);
        self.ended = ended.map(|started| Ended { started, quiet, settled });
        (memory.window_from, memory.sweep_clean) = (None, false);
    }

    /// Whether all rows were found equal already.
    pub fn is_done(&self) -> bool {
        self.ended.is_some()
    }

    /// A sweep was made of what the source has now: no more of it needs to be compared in this run.
    pub fn relax(&mut self) {
        (self.start, self.wrapped) = (None, true);
    }

    /// Whether the whole table was compared because it had to be.
    pub fn forced_sweep_is_done(&self, memory: &TableMemory) -> bool {
        self.forced && self.circled(memory)
    }

    fn circled(&self, memory: &TableMemory) -> bool {
        self.wrapped && (self.start.is_none() || memory.window_from >= self.start)
    }

    /// Whether another window is to be compared in this run. The first always is.
    pub fn wants_more(&self, memory: &TableMemory, now: i64) -> bool {
        if self.count == 0 {
            return true;
        }
        if now >= self.until || self.circled(memory) {
            return false;
        }
        self.forced || self.covered < self.needed || (self.eager && self.ended.is_none())
    }

    /// Begins the next window, and says where.
    pub fn begin(&mut self, memory: &mut TableMemory, now: i64) -> PositionRange {
        if memory.window_from.is_none() {
            memory.sweep_started = Some(now);
            memory.sweep_clean = true;
            memory.sweep_quiet = true;
            memory.sweep_settled = true;
            memory.sweep_counts = self.counts;
        }
        PositionRange { from: memory.window_from, to: None }
    }

    /// Takes note of a window that was compared: it took `took` microseconds, the source's read of it
    /// `snapshot`.
    pub fn done(
        &mut self,
        piece: &Piece,
        memory: &mut TableMemory,
        settings: &Settings,
        took: u64,
        snapshot: u64,
    ) {
        self.count += 1;
        self.covered += piece.rows;
        memory.window_from = piece.range.to;
        memory.window_rows = self.next_rows(memory, settings, piece.rows, took, snapshot);
        if piece.range.to.is_none() {
            if self.wrapped {
                // The whole axis, whatever lies between the last window's ends: where the circle began may.
                self.start = None;
            }
            self.wrapped = true;
            self.swept_for = memory.sweep_counts;
            let ended = memory.sweep_started.take().filter(|_| memory.sweep_clean);
            self.ended = ended.map(|started| Ended {
                started,
                quiet: memory.sweep_quiet,
                settled: memory.sweep_settled,
            });
            memory.sweep_clean = false;
        }
    }

    /// As many rows as the time share and the longest snapshot allow, at most twice or half as many as now.
    fn next_rows(
        &self,
        memory: &TableMemory,
        settings: &Settings,
        rows: u64,
        took: u64,
        snapshot: u64,
    ) -> u64 {
        let now = rows_of_window(memory, settings);
        let fits = |time: u64, taken: u64| u128::from(rows) * u128::from(time) / u128::from(taken.max(1));
        let fits = fits(self.share, took).min(fits(settings.max_snapshot, snapshot));
        let fits = u64::try_from(fits).unwrap_or(u64::MAX);
        // A window that ran out of rows says nothing of larger ones.
        let most = if rows < now { now } else { now.saturating_mul(2) };
        let slow = took > self.share || snapshot > settings.max_snapshot;
        let next = if slow { fits.clamp(now / 2, now) } else { fits.clamp(now, most) };
        let most = settings.max_window_rows.max(1);
        next.clamp(FEWEST_ROWS.min(settings.window_rows).clamp(1, most), most)
    }
}

/// How many rows the next window has.
pub(super) fn rows_of_window(memory: &TableMemory, settings: &Settings) -> u64 {
    let rows = if memory.window_rows == 0 { settings.window_rows } else { memory.window_rows };
    rows.clamp(1, settings.max_window_rows.max(1))
}
