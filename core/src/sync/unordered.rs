//! What a table does otherwise whose rows stand at a hash. The highest position says nothing, so no tail and nothing
//! beyond is compared, and what is new is not read behind a cursor: rows are read in an order of the source's own
//! where the target lacks most of them, and else found by sweeps, which are made when something may have changed.

use super::compare::Piece;
use super::kept::root;
use super::sweep::{Sweep, Swept};
use super::table::Table;
use super::task::{Purpose, Stage, Task};
use super::{Event, LastSweep, Reading, close};
use crate::fingerprint::Fingerprint;
use crate::short::ShortItem;
use crate::store::{SourceBatch, SourceRecord};

/// A sweep is made no sooner than so many times as long after the last one as that one took, unless it was short.
const REST: u64 = 20;
/// So many times as many rows as one pass may compare must be about to be sent before all rows are read in order.
const WORTH_READING: u64 = 4;

impl Table {
    /// Whether the target lacks so many rows that all are read in order, or an earlier run was not done with that.
    /// Rows that are not stored would be read for nothing.
    pub(super) fn lacks_most(&self) -> bool {
        if self.rereading || self.reading_goes_on() {
            return true;
        }
        let refused = self.input.rejected > 0 || self.ledger.knows_any();
        let Some((local, remote)) = self.counts().filter(|_| !refused) else { return false };
        // A keyless table's rows must not be sent once more: those that are there are kept in mind.
        let few = !self.input.shape.keyless || remote <= self.rows_of_pass();
        local > 0 && (remote == 0 || (local / 2 > remote && few))
    }

    /// Whether reading goes on where an earlier run left it. A row of a keyless table would be there twice if the answer
    /// to its upload was lost, or if others changed the replica.
    pub(super) fn reading_goes_on(&self) -> bool {
        self.memory.reading.as_ref().is_some_and(|reading| match self.version.row_count {
            Some(rows) if self.input.shape.keyless => rows == reading.remote_rows,
            rows => rows.is_none_or(|rows| rows > 0),
        })
    }

    /// Whether the rows that the target has must be known, so that they are not sent once more.
    pub(super) fn asks_for_held(&self) -> bool {
        let keyless = self.input.shape.hashed && self.input.shape.keyless;
        keyless && self.reading && self.cursor.is_none() && self.version.row_count != Some(0) && !self.stop
    }

    /// Takes the rows that the target has.
    pub(super) fn hold(&mut self, items: Vec<ShortItem>) {
        items.into_iter().for_each(|item| *self.passed_by.entry(item).or_default() += 1);
        self.passing_by = true;
    }

    /// The rows of a batch that the target has not.
    pub(super) fn lacking(&mut self, batch: &mut SourceBatch) {
        if self.passed_by.is_empty() {
            return;
        }
        let held = &mut self.passed_by;
        batch.records.retain(|record| match record {
            SourceRecord::Row(row) => match held.get_mut(&ShortItem::from(&row.item)) {
                Some(copies) if *copies > 0 => {
                    *copies -= 1;
                    false
                }
                _ => true,
            },
            SourceRecord::Bad(_) => true,
        });
    }

    /// Where reading goes on in a later run, where it can.
    pub(super) fn reading_left(&self) -> Option<Reading> {
        let cursor = self.cursor.clone().filter(|cursor| cursor.key.is_some() && !self.passing_by)?;
        let report = &self.ledger.report;
        let rows = self.input.version.row_count.unwrap_or(0);
        Some(Reading { cursor, remote_rows: (rows + report.inserted).saturating_sub(report.deleted) })
    }

    /// Rows that one pass may compare one by one.
    fn rows_of_pass(&self) -> u64 {
        self.ledger.settings.max_window_rows.max(1)
    }

    /// Whether a sweep is to be made now: at the latest after `sweep_interval`; sooner where something may have changed,
    /// but a long one not all the time.
    pub(super) fn sweep_is_due(&self, now: i64) -> bool {
        let Some(last) = self.memory.last_sweep.as_ref().filter(|_| !self.both_keep()) else { return true };
        let settings = &self.ledger.settings;
        let age = u64::try_from(now.saturating_sub(last.ended)).unwrap_or(0);
        // Who releases a hold waits for what was held.
        if age.saturating_add(settings.run_interval) >= settings.sweep_interval || self.was_released() {
            return true;
        }
        let sums = self.memory.seen.as_ref().and_then(|seen| seen.remote_sum).zip(self.input.version.sum);
        let damaged = sums.is_some_and(|(then, now)| then != now);
        let differ = !close::counts_agree(self) && self.memory.swept_for != self.counts();
        let waits = self.input.shape.keyless && self.ledger.counts().1 > 0;
        // What rows to be deleted were referred to by may be gone by now, on the target alone.
        let may_be_free = self.memory.blocked;
        let changed = self.may_be_written()
            || self.token.is_none()
            || last.token != self.token
            || damaged
            || differ
            || waits
            || may_be_free;
        changed && (last.took <= settings.max_snapshot || age >= last.took.saturating_mul(REST))
    }

    /// Takes note of a sweep that came to its end, whole or with something left out.
    pub(super) fn remember_sweep(&mut self, whole: bool, now: i64) {
        if !self.input.shape.hashed {
            return;
        }
        let memory = &mut self.memory;
        memory.refused_copies = Some(memory.sweep_refused).filter(|_| whole);
        let token = memory.sweep_token.take().filter(|_| whole);
        memory.last_sweep =
            Some(LastSweep { ended: now, took: std::mem::take(&mut memory.sweep_took), token });
        if self
            .memory
            .last_sweep
            .as_ref()
            .is_some_and(|last| last.token.is_some() && last.token == self.token)
        {
            self.windows.relax();
        }
    }

    /// The next comparison of a source that reads all rows to find those of a range: first passes that tell which ranges
    /// differ, then those, as many as one more pass may compare at a time.
    pub(super) fn pass(&mut self, now: i64) -> Task {
        loop {
            let Some(groups) = &mut self.groups else {
                if self.stop || self.windows.is_done() || !self.sweep_is_due(now) {
                    self.stage = self.after(Stage::Windows);
                    return Task::None;
                }
                self.memory.window_from = None;
                self.begin_sweep(now);
                if let Some(sweep) = self.kept_sweep() {
                    return Task::KeptSweep(sweep);
                }
                let rows = self.local_rows.max(self.version.row_count).unwrap_or(0);
                let sweep = Sweep::new(rows, self.rows_of_pass());
                if sweep.step().is_some() {
                    return Task::Sweep(sweep);
                }
                self.swept(sweep.finish());
                continue;
            };
            let full = self.candidates.len() >= self.room;
            let late = self.ledger.report.windows > 0 && now >= self.until.slot;
            let next = groups.pop();
            let whole = next.is_none();
            match next.filter(|_| !self.stop && !full && !late) {
                Some(group) => {
                    self.group = group.clone();
                    return self.compare(group, Purpose::Group);
                }
                None if whole => {
                    self.windows.swept(&mut self.memory);
                    self.settle_all();
                }
                None => {
                    self.dropped = true;
                    (self.memory.sweep_started, self.memory.sweep_clean) = (None, false);
                }
            }
            self.remember_sweep(whole, now);
            self.stage = self.after(Stage::Windows);
            return Task::None;
        }
    }

    /// Goes on with the ranges that were found to differ before the run began.
    pub(super) fn pass_found(&mut self, now: i64) -> Task {
        if let Some(looked) = self.looked.take() {
            self.memory.window_from = None;
            self.begin_sweep(now);
            self.swept(looked);
        }
        if self.stage == Stage::Windows { self.pass(now) } else { Task::None }
    }

    /// Begins a window, at the bottom of the axis a sweep.
    pub(super) fn begin_sweep(&mut self, now: i64) -> crate::store::PositionRange {
        if self.memory.window_from.is_none() {
            self.windows_hold = Some(Fingerprint::default());
        }
        if self.memory.window_from.is_none() && self.input.shape.hashed {
            (self.memory.sweep_token, self.memory.sweep_took) = (self.token.clone(), 0);
            self.memory.sweep_refused = 0;
        }
        self.windows.begin(&mut self.memory, now)
    }

    /// Takes note of what the rows of a window are; of all rows, where the window was the last one of a sweep.
    pub(super) fn add_window(&mut self, piece: &Piece) {
        if let Some(hold) = &mut self.windows_hold {
            hold.combine(&piece.encoded);
        }
        if piece.range.to.is_none() {
            self.whole = self.windows_hold.take();
        }
    }

    /// Whether only a question, for which the target reads all its rows, tells whether it holds what the passes of the run
    /// found.
    pub(super) fn asks_for_whole(&self) -> bool {
        self.scanned
            && self.whole.is_some()
            && self.windows.is_done()
            && root(&self.version).is_none()
            && !self.stop
    }

    /// Whether the target's whole digest sum at the end of the run is that of all rows as a sweep of this run found them.
    /// The passes compared counts and short sums of ranges, and short sums alone prove nothing; and others may have changed
    /// the target behind a window. `None` where it cannot be said, because rows are not stored, no sweep was made, or the
    /// target would read all its rows to tell what windows proved already.
    pub(super) fn holds_the_whole(&self) -> Option<bool> {
        let whole = self.whole.filter(|_| self.ledger.counts() == (0, 0))?;
        let held = self.all_at_last.or(root(&self.version));
        (held.is_some() || self.scanned).then_some(held == Some(whole))
    }

    /// Takes what the passes found.
    pub(super) fn swept(&mut self, swept: Swept) {
        let few = self.rows_of_pass();
        let report = &mut self.ledger.report;
        self.memory.sweep_refused += swept.refused;
        if swept.rows > 0 {
            let rows = swept.equal_rows;
            report.compared_rows += rows;
            self.ledger.events.push(Event::Compared { rows, missing: 0, excess: 0 });
        }
        report.windows += u64::from(swept.differing.is_empty());
        let sends_most = swept.lacking > WORTH_READING.saturating_mul(few) && swept.lacking > swept.rows / 2;
        if sends_most && self.input.shape.hashed && !self.input.shape.keyless && !self.rereading && !self.stop
        {
            self.rereading = true;
            self.memory.proof = None;
            self.stage = Stage::History;
            return;
        }
        self.whole = swept.whole;
        let mut groups = swept.groups(few);
        groups.reverse();
        self.groups = Some(groups);
    }
}
