//! A run that read the whole source in order, and sent it, knows what the target must hold: where one fingerprint
//! of the target says so, the table is proved level, and no row is read a second time.

use super::Event;
use super::table::Table;
use crate::fingerprint::Fingerprint;
use crate::store::{SourceBatch, SourceRecord};

/// The rows that a run read in order.
#[derive(Debug, Default)]
pub(super) struct FullRead {
    /// When the first was about to be read.
    began: i64,
    rows: Fingerprint,
    /// Whether they are all of the source, which did not change between the first and the last.
    complete: bool,
    /// All rows of the target, where it had to be asked for them.
    pub remote: Option<Fingerprint>,
    /// Whether the target was found to hold the same.
    proved: bool,
}

impl FullRead {
    /// Nothing is read yet.
    pub fn new(now: i64) -> Self {
        FullRead { began: now, ..FullRead::default() }
    }

    /// All rows of the source, where the target was found to hold the same.
    pub fn proved(&self) -> Option<Fingerprint> {
        self.proved.then_some(self.rows)
    }

    /// Takes note of rows that were read. The target cannot hold one that no encoding holds.
    pub fn add(&mut self, batch: &SourceBatch) {
        for record in &batch.records {
            if let SourceRecord::Row(row) = record {
                self.rows.insert(&row.item.digest);
            }
        }
    }
}

impl Table {
    /// Whether the rows read in order may be all there are: as many as the source counted, and none of them is
    /// known not to be stored. A source without a change token may have changed unnoticed.
    pub(super) fn may_be_full_read(&self) -> bool {
        let all = self.batches > 0 && self.local_rows == Some(self.full_read.rows.row_count());
        all && self.token.is_some() && self.ledger.counts() == (0, 0)
    }

    /// Takes the change token after the last row was read. Where it is another than before the first, rows may
    /// have come, gone or changed behind the reading.
    pub(super) fn read_until(&mut self, token: &Option<Vec<u8>>) {
        self.full_read.complete = *token == self.token;
    }

    /// Whether only a question, for which the target reads all its rows, tells what they add up to.
    pub(super) fn asks_for_all(&self) -> bool {
        let kept = self.version.row_count.is_some() && self.version.sum.is_some();
        self.full_read.complete && !kept && !self.stop
    }

    /// Whether the target, asked after the last row was sent, holds the rows that were read and no others: then
    /// the windows are done. Whatever was there before counts too.
    pub(super) fn conclude_full_read(&mut self) -> bool {
        let kept = self.version.row_count.zip(self.version.sum);
        let remote = self.full_read.remote.or(kept.map(|(rows, sum)| Fingerprint::from_parts(rows, sum)));
        let read = &self.full_read;
        if !read.complete || remote != Some(read.rows) {
            return false;
        }
        let rows = read.rows.row_count();
        self.full_read.proved = true;
        self.windows.all_at_once(&mut self.memory, self.full_read.began, rows);
        self.ledger.report.windows += 1;
        self.ledger.report.compared_rows += rows;
        self.ledger.events.push(Event::Compared { rows, missing: 0, excess: 0 });
        true
    }
}
