//! How a run begins with a table: what an earlier one left under way, and what of the memory can be relied on.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::batch::Batch;
use super::report::Memory;
use super::sweep::Sweep;
use super::table::{Machine, State};
use crate::store::{
    BaseInfo, BatchId, Conclusion, LocalHeld, LocalStates, Made, MemoryEntry, MemoryKey, Open, OpenKind,
    Pending, PositionRange, Recollection, Settled,
};

/// Batches of a run are numbered below its own number.
const RUN_BITS: u32 = 24;

/// What a dry run takes the memory to be: another run would have changed it before it looked.
#[derive(Debug, Clone, Default)]
pub(super) struct Foretold {
    /// Nothing of it can be relied on.
    forgotten: bool,
    /// What was left open is to be decided anew.
    nothing_open: bool,
    /// What a batch of an earlier run did.
    settled: BTreeMap<MemoryKey, MemoryEntry>,
}

impl Foretold {
    /// Changes what is remembered of ranges, added up. Of a batch alone the sums stay: what it did is a difference then,
    /// and looked at key by key.
    pub fn change_sums(&self, held: &mut [LocalHeld]) {
        if self.forgotten {
            held.iter_mut().for_each(|held| *held = LocalHeld { rows: held.rows, ..LocalHeld::default() });
        }
    }

    /// Changes what is remembered of the keys of ranges.
    pub fn change(&self, ranges: &[PositionRange], states: &mut LocalStates) {
        if self.forgotten {
            states.entries.clear();
        }
        states.entries.retain(|entry| !self.settled.contains_key(&entry.key));
        let inside = |key: &MemoryKey| ranges.iter().any(|range| range.contains(key.position));
        states.entries.extend(self.settled.values().filter(|entry| inside(&entry.key)).cloned());
        if self.nothing_open {
            let is_undecided = |open: &Open| open.kind == OpenKind::Undecided;
            for entry in &mut states.entries {
                entry.open = entry.open.filter(is_undecided).map(|_| Open::ONCE_UNDECIDED);
            }
        }
        states.entries.retain(|entry| !entry.is_empty());
    }
}

impl Machine<'_> {
    pub(super) fn recall(&mut self) {
        self.number = self.remote.run << RUN_BITS;
        match self.recalled.pending.take() {
            Some(pending) => self.state = State::Settle(pending),
            None => self.locate(),
        }
    }

    /// Finds out whether what is remembered here is of the remote side as it is: of the same batches, be it that the remote
    /// side applied more of them since. One that was set back gives numbers out again.
    fn locate(&mut self) {
        let BaseInfo { last, .. } = self.recalled.base.unwrap_or_default();
        self.rewound = !self.remote.begun && self.recalled.entries > 0;
        match last.number.cmp(&self.remote.last.number) {
            Ordering::Less if self.recalled.base.is_some() => return self.state = State::Locate(last),
            Ordering::Less => {}
            Ordering::Equal => self.rewound |= last != self.remote.last,
            Ordering::Greater => self.rewound = true,
        }
        self.close_old();
    }

    pub(super) fn located(&mut self, settled: Settled) {
        self.rewound |= settled == Settled::Never;
        self.close_old();
    }

    pub(super) fn settle(&mut self, pending: Pending, settled: Settled) -> bool {
        if self.settings.dry_run {
            self.foretell(pending, settled);
            self.locate();
            return true;
        }
        let serial = self.next_serial();
        let mut conclusion = Conclusion { serial, batch: Some(pending.batch), ..Conclusion::default() };
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

    fn foretell(&mut self, pending: Pending, settled: Settled) {
        let Settled::Applied(done) = settled else { return };
        let settles =
            pending.settles.into_iter().zip(done).filter_map(|(settle, done)| done.then_some(settle));
        self.foretold.settled = settles.map(|settle| (settle.entry.key, settle.entry)).collect();
        if let Some(base) = &mut self.recalled.base {
            base.last = pending.batch;
        }
    }

    /// Whether the remote side remembers a batch that this side does not: a batch is saved here before it is sent, and
    /// settled before the next one is made. So the local database was restored from a backup, or is a copy of another;
    /// or what became of the batch was forgotten there.
    fn is_behind(&self) -> bool {
        self.recalled.base.is_some_and(|base| base.last.number < self.remote.last.number)
    }

    /// Records that an earlier run left open go first: what is recorded from here on is not closed with them.
    pub(super) fn close_old(&mut self) {
        self.closing.extend(self.recalled.closing.drain(..));
        let decides_anew = self.rewound || self.is_behind();
        if self.closing.is_empty() || decides_anew || self.settings.dry_run {
            self.closing.clear();
            return self.begin();
        }
        self.close();
    }

    pub(super) fn close(&mut self) {
        // Of a backup of before the keys were settled the remote side has to know that it is one.
        if !self.marked || self.closes_unmarked {
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
        self.report.made = self.recalled.base.map_or(Made::AsBefore, |_| self.recalled.made);
        let relied_on = !self.rewound && self.remote.begun && self.report.made != Made::OfOtherKeys;
        let base = self.recalled.base.filter(|_| relied_on);
        let was_lost = self.recalled.base.is_some_and(|base| base.rebuilding);
        let forgotten = base.is_none() && (self.remote.begun || self.recalled.entries > 0);
        self.lost = forgotten || was_lost;
        self.report.memory_lost = self.lost;
        self.report.local_restored = base.is_some() && self.is_behind();
        let keeps_open = base.is_some() && !self.report.local_restored;
        self.report.open = if keeps_open { self.recalled.open } else { 0 };
        if !keeps_open {
            self.recalled.waiting.clear();
        }
        if self.settings.dry_run {
            self.foretold.forgotten = base.is_none();
            self.foretold.nothing_open = !keeps_open;
            return self.sweep();
        }
        match base {
            None => {
                self.recalled = Recollection::default();
                let last = BatchId { number: self.number + 1, ..self.batch() };
                let info = BaseInfo { last, rebuilding: self.lost };
                // A remote side that alone knows of a base says that memory was lost: a first one begins here. Else records
                // of the lost one are closed first, because nobody would know of them any more.
                self.mark(match self.remote.begun {
                    true => State::Begun(Some(info)),
                    false => State::Begin(info),
                });
            }
            Some(_) if self.report.local_restored => self.mark(State::CloseAll),
            Some(_) if self.is_quiet() => self.finish(),
            Some(_) => self.sweep(),
        }
    }

    /// Without a number of its own what is begun now could not be told from what a remote side has that is set back to
    /// before it.
    fn mark(&mut self, then: State) {
        self.number += 1;
        self.marked = true;
        self.state = State::Mark(Box::new(then));
    }

    /// Whether what is remembered may be of other columns.
    pub(super) fn altered(&self) -> bool {
        self.recalled.made == Made::OfOtherColumns
    }

    /// Whether neither side says anything else of itself than when all was found settled.
    pub(super) fn is_quiet(&self) -> bool {
        let remote = self.remote.version.row_count.zip(self.remote.version.sum);
        let same = self.token.is_some() && self.token == self.memory.token;
        let nothing_due = self.recalled.waiting.is_empty()
            && self.remote.choices.is_empty()
            && !self.lost
            && !self.altered();
        same && remote.is_some() && remote == self.memory.remote && nothing_due
    }

    pub(super) fn sweep(&mut self) {
        self.memory = Memory::default();
        let rows = self.remote.version.row_count.unwrap_or(0).max(self.recalled.entries);
        let sweep = Sweep::new(rows, self.settings.range_rows, self.settings.group_rows);
        self.state = State::Sweep(Box::new(sweep));
    }
}
