//! The narrow traits through which the algorithm reaches data. A local database, the server and the
//! simulated world in tests implement them; nothing else of a side is known to the algorithm.
//!
//! Tables are named by their index in the run's list ([`TableId`]). Every method is one short snapshot or
//! one transaction of its side: nothing stays open between two calls, unless the side is asked to hold.

use std::fmt;

mod source;
mod summaries;
mod two_way;

pub use source::{
    BadRow, BatchLimit, Cursor, KeyId, ROW_ROOM, RangeHeld, Source, SourceBatch, SourceKey, SourceRecord,
    SourceRow, SourceWindow,
};
pub use summaries::Summaries;
pub use two_way::{
    Applied, Base, BaseInfo, BatchId, Change, Choice, ColumnDigests, Conclusion, Fetched, LocalContent,
    LocalHeld, LocalRow, LocalSide, LocalStates, Made, MemoryEntry, MemoryKey, Open, OpenKind, Pending,
    Reason, Recollection, Record, RemoteAct, RemoteMemory, RemoteRow, RemoteSide, Seen, SeenSum, Settle,
    Settled, ShortDigest, Wanted,
};

use crate::digest::RowDigest;
use crate::fingerprint::Fingerprint;
use crate::manifest::KeyedItem;
use crate::schema::{Axis, TableSchema};
use crate::short::ShortItem;

/// A table's place in the run's list.
pub type TableId = usize;

/// What sort of table it is. The default has a key, and its rows stand at their version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableShape {
    /// Whether rows stand at a hash: the order of positions says nothing, and there is no highest one to go by.
    pub hashed: bool,
    /// Whether rows have no key: a row is its content, and equal rows are counted.
    pub keyless: bool,
}

impl TableShape {
    /// The shape of a table with this schema.
    pub fn of(schema: &TableSchema) -> Self {
        TableShape { hashed: schema.axis() == Axis::Hash, keyless: schema.is_keyless() }
    }
}

/// A half-open range of positions; `None` is an open end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PositionRange {
    /// The first position of the range.
    pub from: Option<i64>,
    /// The first position beyond the range.
    pub to: Option<i64>,
}

impl PositionRange {
    /// Every position.
    pub const ALL: PositionRange = PositionRange { from: None, to: None };

    /// From `position` inclusive to the end of the axis.
    pub fn starting_at(position: i64) -> Self {
        PositionRange { from: Some(position), to: None }
    }

    /// Everything beyond `position`; `None` where nothing can be.
    pub fn beyond(position: i64) -> Option<Self> {
        Some(Self::starting_at(position.checked_add(1)?))
    }

    /// Whether `position` lies in the range.
    pub fn contains(&self, position: i64) -> bool {
        self.from.is_none_or(|from| from <= position) && self.to.is_none_or(|to| position < to)
    }
}

/// What a table says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableVersion {
    /// Number of rows, where it is known without a scan.
    pub row_count: Option<u64>,
    /// The highest position, `None` in an empty table.
    pub max_position: Option<i64>,
    /// The latest change, in microseconds since 2000-01-01 UTC.
    pub max_modified: Option<i64>,
    /// The digest sum of all rows, where it is kept.
    pub sum: Option<[u8; 32]>,
}

/// Why a side did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It may work when tried again: connection lost, lock timeout, server shutting down, disk full.
    Passing,
    /// This table cannot go on (a missing column, no privilege); other tables can.
    Table,
    /// The run cannot go on: the lease passed to another agent, the database was suspended, the token is
    /// wrong.
    Run,
}

/// A failure of a side: what it means for the run, and what to tell a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it means for the run.
    pub kind: FailureKind,
    /// The SQLSTATE, where a database gave one.
    pub sqlstate: Option<String>,
    /// One sentence without a full stop.
    pub message: String,
    /// What to do, where that is known.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with a message alone.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure { kind, sqlstate: None, message: message.into(), hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// What a trait method answers.
pub type Outcome<T> = Result<T, Failure>;

/// The SQLSTATE of a row that was not taken because another one of the upload has its key, and another content.
pub const TWICE_IN_UPLOAD: &str = "21000";

/// Why the target did not store a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The row's place in the upload.
    pub ordinal: usize,
    /// Whether it may fit later, when other rows have come or gone.
    pub waits: bool,
    /// The encoded key of the row that holds the unique value it needs, where that row is of this replica.
    pub holder: Option<Vec<u8>>,
    /// The SQLSTATE.
    pub sqlstate: String,
    /// The column at fault, where one is named.
    pub column: Option<String>,
    /// The key as a person reads it.
    pub key_text: String,
    /// The database's own message.
    pub message: String,
}

/// What an upload did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uploaded {
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that were changed.
    pub updated: u64,
    /// Rows that were there as sent.
    pub unchanged: u64,
    /// Rows not applied, because they lower a version and the guard is spent: the replica is on hold.
    pub held: u64,
    /// Rows not stored.
    pub refused: Vec<Refusal>,
}

/// What a delete did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deleted {
    /// Rows deleted.
    pub deleted: u64,
    /// Rows not deleted, because the guard is spent: the replica is on hold.
    pub held: u64,
    /// Places in the list of rows that other rows still refer to.
    pub blocked: Vec<usize>,
    /// Why the first of those is still there, where the target says so.
    pub why: Option<String>,
}

/// A row of the target that is one too many: another one of its key is there, as the source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surplus {
    /// The row.
    pub row: KeyedItem,
    /// The whole digest of the other one.
    pub stored: RowDigest,
}

/// A row that was not stored in an earlier run, as the target remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The identity of the row.
    pub key_id: KeyId,
    /// How to find it on the source.
    pub key: SourceKey,
    /// Its digest when it was rejected: the row's where it could be encoded, else the source values'.
    pub source_digest: RowDigest,
    /// Where it stood.
    pub position: Option<i64>,
    /// Whether it waits for other rows.
    pub waits: bool,
}

/// A rejection to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What to remember of the row.
    pub rejected: Rejected,
    /// The key as a person reads it.
    pub key_text: String,
    /// The SQLSTATE.
    pub sqlstate: String,
    /// The column at fault, where one is named.
    pub column: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// One entry of a table's history of uploads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchRecord {
    /// What was done.
    pub kind: BatchKind,
    /// Rows sent, deleted or compared.
    pub rows: u64,
    /// Bytes sent or received.
    pub bytes: u64,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// What a batch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchKind {
    /// Rows were sent.
    Upload,
    /// Rows were deleted.
    Delete,
    /// A window that differed was compared row by row.
    Compare,
}

impl BatchKind {
    /// The word the server's history uses.
    pub fn name(self) -> &'static str {
        match self {
            BatchKind::Upload => "upload",
            BatchKind::Delete => "delete",
            BatchKind::Compare => "compare",
        }
    }
}

/// The side that is made level. All calls belong to one run, begun before.
pub trait Target: Summaries {
    /// What the table says of itself.
    fn table_version(&mut self, table: TableId) -> Outcome<TableVersion>;

    /// The fingerprint of a range.
    fn fingerprint(&mut self, table: TableId, range: PositionRange) -> Outcome<Fingerprint>;

    /// The keys and whole digests of the rows that these items stand for; rows that are gone are left out. In a keyless
    /// table an item is answered as often as it is listed, and at most as often as it is there.
    fn keys_of(&mut self, table: TableId, items: &[ShortItem]) -> Outcome<Vec<KeyedItem>>;

    /// Stores rows. Those of a keyless table are added to the rows that are there, exactly once: where a call failed in
    /// passing, it is made again with the same rows before any other upload of the table, and the target tells by a
    /// number of the upload whether it was done before its answer was lost.
    fn upload(&mut self, table: TableId, rows: &[SourceRow]) -> Outcome<Uploaded>;

    /// Deletes exactly these rows; one that is not there as named is left alone. Of a keyless table's equal rows as many
    /// are deleted as are listed. `planned`: about how many
    /// rows this run deletes from here on, these among them; what the guard against destruction weighs.
    fn delete(&mut self, table: TableId, rows: &[KeyedItem], planned: u64) -> Outcome<Deleted>;

    /// Deletes these rows, each only where the other one of its key is there with the digest that is given: it may else be the
    /// only copy of what the source has. Asked of targets alone that may hold several rows of one key
    /// ([`Settings::keys_repeat`](crate::sync::Settings::keys_repeat)); others have no such rows.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    fn delete_surplus(&mut self, table: TableId, rows: &[Surplus], planned: u64) -> Outcome<Deleted> {
        let _ = (table, rows, planned);
        Ok(Deleted::default())
    }

    /// The rows rejected or waiting from earlier runs.
    fn rejected(&mut self, table: TableId) -> Outcome<Vec<Rejected>>;

    /// Remembers rows that were not stored. Replaces what was remembered of the same rows.
    fn reject(&mut self, table: TableId, rows: &[Rejection]) -> Outcome<()>;

    /// Forgets rejections: the rows were stored, or are gone from the source.
    fn clear_rejected(&mut self, table: TableId, rows: &[KeyId]) -> Outcome<()>;

    /// The latest uploads of the table, newest first.
    fn batch_history(&mut self, table: TableId) -> Outcome<Vec<BatchRecord>>;

    /// Adds to the history. May be sent together with the next call.
    fn record_batch(&mut self, table: TableId, batch: BatchRecord) -> Outcome<()>;

    /// From now on all calls are one transaction, which nobody else sees the changes of, until [`Target::commit`] or
    /// [`Target::roll_back`]. A call that fails loses all of it: nothing but a rollback may follow.
    fn hold(&mut self) -> Outcome<()> {
        Err(Failure::new(FailureKind::Table, "this side cannot make a snapshot's changes in one transaction"))
    }

    /// Commits that transaction. Where it fails in passing, it may be committed or not.
    fn commit(&mut self) -> Outcome<()> {
        Ok(())
    }

    /// Undoes that transaction, where there is one. Nothing is left of it whatever the connection does.
    fn roll_back(&mut self) {}
}
