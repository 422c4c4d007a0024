//! The steps that the machines name, the answers they are told, and the driver's one way to carry a step
//! out. Each step is one call of a side: one short snapshot or one transaction.

use super::{TableMemory, World};
use crate::fingerprint::Fingerprint;
use crate::manifest::{Item, KeyedItem};
use crate::reconcile::{self, Question, Reply};
use crate::short::ShortItem;
use crate::store::{
    BatchLimit, BatchRecord, Cursor, Deleted, KeyId, Outcome, PositionRange, RangeHeld, Rejected, Rejection,
    Source, SourceBatch, SourceKey, SourceRecord, SourceRow, SourceWindow, Surplus, TableId, TableVersion,
    Target, Uploaded,
};

/// What is to be done next. It borrows from the machine that names it, so that naming it again is free:
/// a step that failed in passing is simply named again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step<'a> {
    /// Source: what differs whenever it may have changed.
    ChangeToken,
    /// Source: the highest position.
    MaxPosition,
    /// Source: the number of rows.
    CountRows,
    /// Source: where a tail of so many rows begins.
    TailStart {
        /// The tail's last position.
        upto: i64,
        /// Rows of the tail.
        rows: u64,
    },
    /// Source: the next rows in (position, key) order.
    ReadBatch {
        /// The last row read.
        after: Option<&'a Cursor>,
        /// How much at most.
        limit: BatchLimit,
    },
    /// Source: the row manifest of a stretch.
    ReadWindow {
        /// Where it begins, and where it ends at the latest.
        range: PositionRange,
        /// About how many rows.
        rows: u64,
    },
    /// Source: the row manifests of several stretches.
    ReadWindows {
        /// The stretches, ascending and disjoint.
        ranges: &'a [PositionRange],
        /// About how many rows in all.
        rows: u64,
    },
    /// Source: what ranges hold, in one pass over all rows.
    Fingerprints(&'a [PositionRange]),
    /// Source: whether it finds the rows of a range by reading all rows alone.
    IsScanned,
    /// Source: what all rows are by a manifest that it keeps.
    Kept,
    /// Source: what ranges hold by that manifest.
    KeptRanges(&'a [PositionRange]),
    /// Source: the position below which no row can appear any more.
    Settled,
    /// Source: the rows that items of a window stand for.
    RowsOf(&'a [Item]),
    /// Source: the rows with these keys.
    Lookup(&'a [SourceKey]),
    /// Source: the rows that share one of these keys.
    Sharing(&'a [SourceKey]),
    /// Target: what the table says of itself.
    TableVersion,
    /// Target: the fingerprint of a range.
    Fingerprint(PositionRange),
    /// Target: what it holds in ranges.
    Ask(Question<'a>),
    /// Target: the keys of rows.
    KeysOf(&'a [ShortItem]),
    /// Target: store rows.
    Upload(&'a [SourceRow]),
    /// Target: delete rows.
    Delete {
        /// The rows.
        rows: &'a [KeyedItem],
        /// About how many are still to be deleted, these among them.
        planned: u64,
    },
    /// Target: delete rows beside each of which another one of its key is there.
    DeleteSurplus {
        /// The rows.
        rows: &'a [Surplus],
        /// About how many are still to be deleted, these among them.
        planned: u64,
    },
    /// Target: the rows that were not stored in earlier runs.
    Rejected,
    /// Target: remember rows that were not stored.
    Reject(&'a [Rejection]),
    /// Target: forget rows that were not stored.
    ClearRejected(&'a [KeyId]),
    /// Target: the table's history of uploads.
    BatchHistory,
    /// Target: add to the history.
    RecordBatch(BatchRecord),
    /// Agent: save what it remembers of the table.
    Remember(&'a TableMemory),
    /// Agent: wait so many microseconds.
    Pause(u64),
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is done.
    Done,
    /// To [`Step::ChangeToken`].
    Token(Option<Vec<u8>>),
    /// To [`Step::MaxPosition`], [`Step::TailStart`] and [`Step::Settled`].
    Position(Option<i64>),
    /// To [`Step::CountRows`].
    Count(u64),
    /// To [`Step::ReadBatch`].
    Batch(SourceBatch),
    /// To [`Step::ReadWindow`].
    Window(SourceWindow),
    /// To [`Step::ReadWindows`].
    Windows(Vec<SourceWindow>),
    /// To [`Step::Fingerprints`].
    Held(Vec<RangeHeld>),
    /// To [`Step::IsScanned`].
    Scanned(bool),
    /// To [`Step::Kept`]; `None`: it keeps none.
    Kept(Option<Fingerprint>),
    /// To [`Step::KeptRanges`]; `None`: it keeps none any more.
    KeptRanges(Option<Vec<Fingerprint>>),
    /// To [`Step::RowsOf`].
    Rows(Vec<SourceRow>),
    /// To [`Step::Lookup`].
    Found(Vec<Option<SourceRecord>>),
    /// To [`Step::Sharing`].
    Sharing(Vec<SourceRecord>),
    /// To [`Step::TableVersion`].
    Version(TableVersion),
    /// To [`Step::Fingerprint`].
    Fingerprint(Fingerprint),
    /// To [`Step::Ask`].
    Reply(Reply),
    /// To [`Step::KeysOf`].
    Keys(Vec<KeyedItem>),
    /// To [`Step::Upload`].
    Uploaded(Uploaded),
    /// To [`Step::Delete`] and [`Step::DeleteSurplus`].
    Deleted(Deleted),
    /// To [`Step::Rejected`].
    Rejected(Vec<Rejected>),
    /// To [`Step::BatchHistory`].
    History(Vec<BatchRecord>),
}

impl Step<'_> {
    /// About how many rows are still to be deleted, where it deletes some.
    pub fn deletes(&self) -> Option<u64> {
        match self {
            Step::Delete { planned, .. } | Step::DeleteSurplus { planned, .. } => Some(*planned),
            _ => None,
        }
    }
}

/// The two sides and what surrounds the run.
pub(super) struct Sides<'a> {
    pub source: &'a mut dyn Source,
    pub target: &'a mut dyn Target,
    pub world: &'a mut dyn World,
    /// While both sides are held: the source's change token, as it stays. What is to be remembered of a table is known to be
    /// true when the target has committed, and saved then.
    pub held: Option<Vec<u8>>,
}

impl Sides<'_> {
    /// Carries a step out.
    pub fn carry_out(&mut self, table: TableId, step: Step<'_>) -> Outcome<Answer> {
        let (source, target) = (&mut *self.source, &mut *self.target);
        Ok(match step {
            Step::ChangeToken if self.held.is_some() => Answer::Token(self.held.clone()),
            Step::Remember(_) if self.held.is_some() => Answer::Done,
            Step::ChangeToken => Answer::Token(source.change_token()?),
            Step::MaxPosition => Answer::Position(source.max_position(table)?),
            Step::CountRows => Answer::Count(source.row_count(table)?),
            Step::TailStart { upto, rows } => Answer::Position(source.tail_start(table, upto, rows)?),
            Step::ReadBatch { after, limit } => Answer::Batch(source.read_batch(table, after, limit)?),
            Step::ReadWindow { range, rows } => Answer::Window(source.window(table, range, rows)?),
            Step::ReadWindows { ranges, rows } => Answer::Windows(source.windows(table, ranges, rows)?),
            Step::Fingerprints(ranges) => Answer::Held(source.fingerprints(table, ranges)?),
            Step::IsScanned => Answer::Scanned(source.is_scanned(table)?),
            Step::Kept => Answer::Kept(source.kept(table)?),
            Step::KeptRanges(ranges) => Answer::KeptRanges(source.kept_ranges(table, ranges)?),
            Step::Settled => Answer::Position(source.settled(table)?),
            Step::RowsOf(items) => Answer::Rows(source.rows_of(table, items)?),
            Step::Lookup(keys) => Answer::Found(source.lookup(table, keys)?),
            Step::Sharing(keys) => Answer::Sharing(source.sharing(table, keys)?),
            Step::TableVersion => Answer::Version(target.table_version(table)?),
            Step::Fingerprint(range) => Answer::Fingerprint(target.fingerprint(table, range)?),
            Step::Ask(question) => Answer::Reply(reconcile::ask(target, table, question)?),
            Step::KeysOf(items) => Answer::Keys(target.keys_of(table, items)?),
            Step::Upload(rows) => Answer::Uploaded(target.upload(table, rows)?),
            Step::Delete { rows, planned } => Answer::Deleted(target.delete(table, rows, planned)?),
            Step::DeleteSurplus { rows, planned } => {
                Answer::Deleted(target.delete_surplus(table, rows, planned)?)
            }
            Step::Rejected => Answer::Rejected(target.rejected(table)?),
            Step::Reject(rows) => done(target.reject(table, rows)?),
            Step::ClearRejected(keys) => done(target.clear_rejected(table, keys)?),
            Step::BatchHistory => Answer::History(target.batch_history(table)?),
            Step::RecordBatch(batch) => done(target.record_batch(table, batch)?),
            Step::Remember(memory) => done(self.world.remember(table, memory)?),
            Step::Pause(micros) => {
                self.world.pause(micros);
                Answer::Done
            }
        })
    }
}

fn done((): ()) -> Answer {
    Answer::Done
}
