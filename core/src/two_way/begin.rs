//! How a run begins with a table: what an earlier one left under way, and what of the memory can be relied on.

use super::batch::Batch;
use super::report::Memory;
use super::sweep::Sweep;
use super::table::{Machine, State};
use crate::store::{BaseInfo, Conclusion, Pending, Recollection, Settled};

/// Batches of a run are numbered below its own number.
const RUN_BITS: u32 = 24;

impl Machine<'_> {
    pub(super) fn recall(&mut self) {
        self.number = self.remote.run << RUN_BITS;
        let base = self.recalled.base.unwrap_or_default();
        self.rewound = base.last > self.remote.last || (!self.remote.begun && self.recalled.entries > 0);
        match self.recalled.pending.take().filter(|_| !self.settings.dry_run) {
            Some(pending) => self.state = State::Settle(pending),
            None => self.close_old(),
        }
    }

    pub(super) fn settle(&mut self, pending: Pending, settled: Settled) -> bool {
        let serial = self.next_serial();
        let mut conclusion = Conclusion { serial, number: Some(pending.number), ..Conclusion::default() };
        if let Settled::Applied(done) = settled {
            if done.len() != pending.settles.len() {
                return false;
            }
            let settles = pending.settles.into_iter().zip(done);
            conclusion.applied = true;
            conclusion.settled = settles.filter_map(|(settle, done)| done.then_some(settle)).collect();
        }
        self.state = State::Settled(conclusion);
        true
    }

    /// Records that an earlier run left open go first: what is recorded from here on is not closed with them.
    pub(super) fn close_old(&mut self) {
        self.closing.extend(self.recalled.closing.drain(..));
        if self.closing.is_empty() || self.rewound || self.settings.dry_run {
            self.closing.clear();
            return self.begin();
        }
        self.close();
    }

    pub(super) fn close(&mut self) {
        if !self.marked {
            return self.prepare(Batch::default());
        }
        // What was chosen of them is done.
        self.remote.choices.retain(|choice| !self.closing.contains(&choice.key));
        self.closing_now = std::mem::take(&mut self.closing).into_iter().collect();
        self.state = State::Close;
    }

    /// What of the memory can be relied on.
    pub(super) fn begin(&mut self) {
        self.begun = true;
        let base = self.recalled.base.filter(|_| !self.rewound && self.remote.begun);
        let was_lost = self.recalled.base.is_some_and(|base| base.rebuilding);
        let forgotten = base.is_none() && (self.remote.begun || self.recalled.entries > 0);
        self.lost = forgotten || was_lost;
        self.report.memory_lost = self.lost;
        self.report.open = if base.is_some() { self.recalled.open } else { 0 };
        if self.settings.dry_run {
            return self.sweep();
        }
        match base {
            None => {
                self.recalled = Recollection::default();
                let info = BaseInfo { last: 0, rebuilding: self.lost };
                // A remote side that alone knows of a base says that memory was lost: a first one begins here. Else records
                // of the lost one are closed first, because nobody would know of them any more.
                self.state = match self.remote.begun {
                    true => State::Begun(Some(info)),
                    false => State::Begin(info),
                };
            }
            Some(_) if self.is_quiet() => self.finish(),
            Some(_) => self.sweep(),
        }
    }

    /// Whether neither side says anything else of itself than when all was found settled.
    pub(super) fn is_quiet(&self) -> bool {
        let remote = self.remote.version.row_count.zip(self.remote.version.sum);
        let same = self.token.is_some() && self.token == self.memory.token;
        let nothing_due = self.recalled.waiting.is_empty() && self.remote.choices.is_empty() && !self.lost;
        same && remote.is_some() && remote == self.memory.remote && nothing_due
    }

    pub(super) fn sweep(&mut self) {
        self.memory = Memory::default();
        let rows = self.remote.version.row_count.unwrap_or(0).max(self.recalled.entries);
        let sweep = Sweep::new(rows, self.settings.range_rows, self.settings.group_rows);
        self.state = State::Sweep(Box::new(sweep));
    }
}
