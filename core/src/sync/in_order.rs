//! Reads rows in order and sends them, a batch at a time.

use super::TableMemory;
use super::send::Send;
use super::table::Table;
use super::task::{BatchEnd, Stage, Task};
use crate::store::{SourceBatch, SourceKey, SourceRecord};

impl Table {
    /// The next batch in order; at least one, then until none is left or the time is up.
    pub(super) fn read_on(&mut self, now: i64) -> Task {
        if let Some(task) = self.remember(TableMemory {
            skipped_to: self.memory.skipped_to,
            reading: self.memory.reading.clone(),
            ..self.saved.clone()
        }) {
            return task;
        }
        // Where it cannot go on later, all is read at once.
        let at_once = self.input.shape.hashed && self.cursor.is_some() && self.memory.reading.is_none();
        let late = self.stop || (self.batches > 0 && now >= self.until.upload && !at_once);
        if self.reading && !late {
            return Task::Read(self.ledger.next_batch());
        }
        self.pending |= self.reading;
        self.unread = self.reading;
        self.reading = false;
        self.stage = self.after(Stage::Upload);
        Task::None
    }

    /// Takes rows read in order, and sends them.
    pub(super) fn read(&mut self, mut batch: SourceBatch) {
        let last = batch.records.iter().rev().find_map(|record| match record {
            SourceRecord::Row(row) => Some((SourceKey::Encoded(row.key.clone()).id(), row.item.position)),
            SourceRecord::Bad(bad) => Some((bad.key.id(), bad.position?)),
        });
        self.full_read.add(&batch);
        self.lacking(&mut batch);
        self.batch_end = BatchEnd { last, next: batch.next };
        let send = Send::records(batch.records, &mut self.ledger);
        if send.step().is_some() {
            self.task = Task::Upload(send);
        } else {
            self.batch_is_done();
        }
    }

    /// Moves the cursor on behind a batch that was stored, and its rejections recorded.
    pub(super) fn batch_is_done(&mut self) {
        let end = std::mem::take(&mut self.batch_end);
        let hashed = self.input.shape.hashed;
        if let Some((_, position)) = end.last.filter(|(id, _)| !hashed && self.ledger.is_known(id)) {
            self.memory.skipped_to = self.memory.skipped_to.max(Some(position));
        }
        self.batches += 1;
        self.reading = end.next.is_some();
        self.cursor = end.next;
        self.memory.reading = if hashed { self.reading_left() } else { None };
    }
}
