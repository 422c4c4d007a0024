//! Both sides of a two-way table as a run has them: who watches is told, and rows that are rejected one after the other
//! stop the table.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use plimsoll_core::ranges::RangeSummary;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    Applied, BaseInfo, BatchId, Change, Conclusion, Failure, Fetched, LocalHeld, LocalSide, LocalStates,
    MemoryKey, Outcome, Pending, PositionRange, Reason, Recollection, RemoteAct, RemoteMemory, RemoteSide,
    Settled, SourceKey, SourceRecord, Summaries, TableId, Wanted,
};
use plimsoll_core::sync::Event;
use plimsoll_core::two_way::Clock;

use crate::agent::world::now;
use crate::failure::{Advise, table as refused};
use crate::progress::Progress;
use crate::server::TwoWayRemote;
use crate::stop::Stop;
use crate::two_way::LocalTables;

/// Who watches, and what was counted.
pub struct Watch<'w> {
    progress: &'w mut Progress,
    table: TableId,
    /// Rows of the table that went each way.
    sent: u64,
    received: u64,
    /// Rows that were rejected since one was taken, and how many stop the table.
    rejected: u32,
    most_rejected: u32,
}

impl<'w> Watch<'w> {
    pub fn new(progress: &'w mut Progress, most_rejected: u32) -> Self {
        Watch { progress, table: 0, sent: 0, received: 0, rejected: 0, most_rejected }
    }

    /// The run turns to a table.
    pub fn begin(&mut self, table: TableId) {
        (self.table, self.sent, self.received, self.rejected) = (table, 0, 0, 0);
        self.event(Event::Started { expected_rows: None });
    }

    pub fn event(&mut self, event: Event) {
        self.progress.event(self.table, &event);
    }

    /// Why the table stopped, where it was because of rows that were rejected.
    pub fn rejected_too_often(&self) -> Option<Failure> {
        (self.rejected >= self.most_rejected).then(|| {
            refused(format!("{} rows in a row were rejected; the others were not tried", self.rejected))
                .advise("plimsoll.conflicts says why of each: is a column or a constraint another one on the other side?")
        })
    }

    /// So many rows more went each way.
    fn exchanged(&mut self, sent: u64, received: u64) {
        if sent + received > 0 {
            self.sent += sent;
            self.received += received;
            self.progress.exchanged(self.table, self.sent, self.received);
        }
    }

    fn came<'a>(&mut self, applied: impl Iterator<Item = (&'a Change, &'a Applied)>) -> u64 {
        let mut deleted = 0;
        for (change, applied) in applied {
            match applied {
                Applied::Refused { waits, reason } => {
                    // Those that wait say nothing of the others.
                    self.rejected = if *waits { self.rejected } else { self.rejected.saturating_add(1) };
                    self.tell(reason, *waits);
                }
                Applied::Done => {
                    // Once there are too many the table stops.
                    if self.rejected < self.most_rejected {
                        self.rejected = 0;
                    }
                    deleted += u64::from(matches!(change, Change::Delete { .. }));
                }
                Applied::Changed | Applied::Held => {}
            }
        }
        if deleted > 0 {
            self.event(Event::Deleted { rows: deleted });
        }
        deleted
    }

    fn tell(&mut self, reason: &Reason, waits: bool) {
        self.event(Event::Rejected {
            key_text: reason.key_text.clone(),
            message: reason.message.clone(),
            waits,
        });
    }
}

/// How many of these changes stored a row.
fn stored<'a>(changes: impl Iterator<Item = (&'a Change, &'a Applied)>) -> u64 {
    let is_stored = |(change, applied): &(&Change, &Applied)| {
        matches!(change, Change::Upsert { .. }) && **applied == Applied::Done
    };
    changes.filter(is_stored).count() as u64
}

/// The clock of a run, and the wish to stop.
pub struct RunClock<'w, 'p> {
    pub stop: &'w Stop,
    pub watch: &'w RefCell<Watch<'p>>,
}

impl Clock for RunClock<'_, '_> {
    fn now(&mut self) -> i64 {
        now()
    }

    fn pause(&mut self, micros: u64) {
        self.stop.pause(Duration::from_micros(micros));
    }

    fn stopping(&mut self) -> bool {
        self.stop.asked() || self.watch.borrow().rejected_too_often().is_some()
    }
}

/// The local side.
pub struct Here<'w, 'p> {
    pub tables: &'w RefCell<LocalTables>,
    pub watch: &'w RefCell<Watch<'p>>,
}

impl LocalSide for Here<'_, '_> {
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        self.tables.borrow_mut().change_token()
    }

    fn recall(&mut self, table: TableId) -> Outcome<Recollection> {
        self.tables.borrow_mut().recall(table)
    }

    fn begin_base(&mut self, table: TableId, info: BaseInfo) -> Outcome<()> {
        self.tables.borrow_mut().begin_base(table, info)
    }

    fn complete_base(&mut self, table: TableId) -> Outcome<()> {
        self.tables.borrow_mut().complete_base(table)
    }

    fn forget_open(&mut self, table: TableId, last: BatchId) -> Outcome<()> {
        self.tables.borrow_mut().forget_open(table, last)
    }

    fn held(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<LocalHeld>> {
        let held = self.tables.borrow_mut().held(table, ranges)?;
        let rows = held.iter().map(|held| held.rows.rows.row_count()).sum();
        self.watch.borrow_mut().event(Event::Compared { rows, missing: 0, excess: 0 });
        Ok(held)
    }

    fn states(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        later: &[Vec<PositionRange>],
    ) -> Outcome<LocalStates> {
        self.tables.borrow_mut().states(table, ranges, later)
    }

    fn lookup(
        &mut self,
        table: TableId,
        keys: &[SourceKey],
        bytes: usize,
    ) -> Outcome<Vec<Option<SourceRecord>>> {
        self.tables.borrow_mut().lookup(table, keys, bytes)
    }

    fn prepare(&mut self, table: TableId, pending: &Pending) -> Outcome<()> {
        self.tables.borrow_mut().prepare(table, pending)
    }

    fn conclude(&mut self, table: TableId, conclusion: &Conclusion) -> Outcome<Vec<Applied>> {
        let applied = self.tables.borrow_mut().conclude(table, conclusion)?;
        let changes = conclusion.changes.iter().map(|(change, _)| change).zip(&applied);
        let mut watch = self.watch.borrow_mut();
        watch.came(changes.clone());
        watch.exchanged(0, stored(changes));
        Ok(applied)
    }

    fn closed(&mut self, table: TableId, keys: &[MemoryKey]) -> Outcome<()> {
        self.tables.borrow_mut().closed(table, keys)
    }
}

/// The remote side.
pub struct There<'w, 's, 'p> {
    pub remote: &'w RefCell<TwoWayRemote<'s>>,
    pub tables: &'w RefCell<LocalTables>,
    pub watch: &'w RefCell<Watch<'p>>,
}

impl Summaries for There<'_, '_, '_> {
    fn range_manifest(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        self.remote.borrow_mut().range_manifest(table, ranges, most)
    }

    fn summaries(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        self.remote.borrow_mut().summaries(table, ranges)
    }

    fn sketch(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        first: u32,
        symbols: u32,
    ) -> Outcome<Vec<u8>> {
        self.remote.borrow_mut().sketch(table, ranges, first, symbols)
    }

    fn items(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        self.remote.borrow_mut().items(table, ranges)
    }
}

impl RemoteSide for There<'_, '_, '_> {
    fn remembered(&mut self, table: TableId, dry_run: bool) -> Outcome<RemoteMemory> {
        self.remote.borrow_mut().remembered(table, dry_run)
    }

    fn base_begun(&mut self, table: TableId) -> Outcome<()> {
        self.remote.borrow_mut().base_begun(table)
    }

    fn settle(&mut self, table: TableId, batch: BatchId) -> Outcome<Settled> {
        self.remote.borrow_mut().settle(table, batch)
    }

    fn fetch(&mut self, table: TableId, wanted: &[Wanted], bytes: usize) -> Outcome<Fetched> {
        self.remote.borrow_mut().fetch(table, wanted, bytes)
    }

    fn apply(
        &mut self,
        table: TableId,
        number: u64,
        acts: &[RemoteAct],
        planned: u64,
    ) -> Outcome<Vec<Applied>> {
        let recorded = acts.iter().filter_map(|act| match act {
            RemoteAct::Record(record) => Some((record.key, record.base?)),
            RemoteAct::Change(_) => None,
        });
        let recorded: HashMap<_, _> = recorded.collect();
        let kept = self.tables.borrow_mut().kept_rows(table, &recorded)?;
        let mut remote = self.remote.borrow_mut();
        remote.base_rows(kept);
        let applied = remote.apply(table, number, acts, planned)?;
        let mut watch = self.watch.borrow_mut();
        let changes = acts.iter().zip(&applied).filter_map(|(act, applied)| match act {
            RemoteAct::Change(change) => Some((change, applied)),
            RemoteAct::Record(_) => None,
        });
        watch.came(changes.clone());
        watch.exchanged(stored(changes), 0);
        Ok(applied)
    }

    fn close(&mut self, table: TableId, keys: &[MemoryKey]) -> Outcome<()> {
        self.remote.borrow_mut().close(table, keys)
    }
}
