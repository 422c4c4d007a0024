//! The narrow traits through which the algorithm reaches data. A local database, the server and the
//! simulated world in tests implement them; nothing else of a side is known to the algorithm.
//!
//! Tables are named by their index in the run's list ([`TableId`]). Every method is one short snapshot or
//! one transaction of its side: nothing stays open between two calls.

use std::fmt;

mod summaries;

pub use summaries::Summaries;

use crate::digest::RowDigest;
use crate::fingerprint::Fingerprint;
use crate::manifest::{Item, KeyedItem};
use crate::short::ShortItem;

/// A table's place in the run's list.
pub type TableId = usize;

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

/// Identifies a source row whatever its content: a hash of its encoded key, or of the source's own key
/// values where those cannot be encoded.
pub type KeyId = [u8; 16];

/// How to find a row on the source again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SourceKey {
    /// The key as `row::key_of` makes it.
    Encoded(Vec<u8>),
    /// Bytes that only the source understands: the key has a value that cannot be encoded.
    Raw(Vec<u8>),
}

impl SourceKey {
    /// The identity of the row.
    pub fn id(&self) -> KeyId {
        let (domain, bytes) = match self {
            SourceKey::Encoded(bytes) => (0u8, bytes),
            SourceKey::Raw(bytes) => (1u8, bytes),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[domain]).update(bytes);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        id
    }
}

/// A row of the source, encoded for the managed table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    /// Position and digest.
    pub item: Item,
    /// The encoded key.
    pub key: Vec<u8>,
    /// The row in wire form.
    pub row: Vec<u8>,
}

/// A row of the source that no encoding holds: its value fits the managed table's column in no way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Where it stands; `None` where even its version is no version.
    pub position: Option<i64>,
    /// How to find it again.
    pub key: SourceKey,
    /// The key as a person reads it, a JSON object of column names and values.
    pub key_text: String,
    /// A digest of the source's own values: it changes when the row does.
    pub source_digest: RowDigest,
    /// The column at fault.
    pub column: Option<String>,
    /// The SQLSTATE that says what is wrong.
    pub sqlstate: String,
    /// What is wrong, naming the column.
    pub message: String,
}

/// A row as the source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceRecord {
    /// A row that can be sent.
    Row(SourceRow),
    /// A row that can never be: seldom, so it takes no room beside the others.
    Bad(Box<BadRow>),
}

/// Where reading in (position, key) order goes on. `key` is the source's own form of the last key read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The position of the last row read.
    pub position: i64,
    /// The source's own bytes of the last row's key; `None`: go on beyond all rows of the position.
    pub key: Option<Vec<u8>>,
}

/// How much one read may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// Rows at most, 1 or more.
    pub rows: usize,
    /// Encoded bytes at most; one row comes whatever its size.
    pub bytes: usize,
}

/// Rows read in (position, key) order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceBatch {
    /// The rows, in order.
    pub records: Vec<SourceRecord>,
    /// Where to go on; `None`: there was nothing beyond the last row.
    pub next: Option<Cursor>,
}

/// The row manifest of a stretch of the source that holds about as many rows as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceWindow {
    /// What the window covers. Whole positions only.
    pub range: PositionRange,
    /// The rows that can be encoded, by ascending position.
    pub items: Vec<Item>,
    /// The rows that cannot.
    pub bad: Vec<BadRow>,
}

impl SourceWindow {
    /// How many rows it covers.
    pub fn rows(&self) -> u64 {
        (self.items.len() + self.bad.len()) as u64
    }
}

/// The side that is right.
pub trait Source {
    /// A token that differs whenever the database may have changed since; `None` where none is to be had.
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>>;

    /// The highest position, by index.
    fn max_position(&mut self, table: TableId) -> Outcome<Option<i64>>;

    /// Number of rows. May scan.
    fn row_count(&mut self, table: TableId) -> Outcome<u64>;

    /// The position of the row that has `rows` rows at or above it, at or below `upto`: where a tail of
    /// that many rows begins. `None` where the table has fewer rows up to there.
    fn tail_start(&mut self, table: TableId, upto: i64, rows: u64) -> Outcome<Option<i64>>;

    /// The next rows in (position, key) order beyond `after` (`None`: from the beginning).
    fn read_batch(
        &mut self,
        table: TableId,
        after: Option<&Cursor>,
        limit: BatchLimit,
    ) -> Outcome<SourceBatch>;

    /// The row manifest from `range.from` on: whole positions until about `rows` rows are covered, and no
    /// further than `range.to`. The answer's range starts at `range.from`; it ends at `range.to` where
    /// everything was covered.
    fn window(&mut self, table: TableId, range: PositionRange, rows: u64) -> Outcome<SourceWindow>;

    /// The row manifests of these ranges, which ascend and do not meet: of each as [`Source::window`] answers, until
    /// about `rows` rows are covered in all or one of them was not covered to its end; of those beyond, nothing.
    /// A source that finds a range by reading all rows reads them once for all ranges.
    fn windows(&mut self, table: TableId, ranges: &[PositionRange], rows: u64) -> Outcome<Vec<SourceWindow>> {
        let (mut windows, mut left) = (Vec::with_capacity(ranges.len()), rows.max(1));
        for range in ranges {
            let window = self.window(table, *range, left)?;
            left = left.saturating_sub(window.rows());
            let is_whole = window.range == *range;
            windows.push(window);
            if left == 0 || !is_whole {
                break;
            }
        }
        Ok(windows)
    }

    /// The rows that these items of a window stand for, as they are now; rows that changed meanwhile are
    /// left out.
    fn rows_of(&mut self, table: TableId, items: &[Item]) -> Outcome<Vec<SourceRow>>;

    /// The rows with these keys as they are now, in the order asked; `None`: no such row.
    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>>;
}

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

    /// The keys and whole digests of the rows that these items stand for; rows that are gone are left out.
    fn keys_of(&mut self, table: TableId, items: &[ShortItem]) -> Outcome<Vec<KeyedItem>>;

    /// Stores rows.
    fn upload(&mut self, table: TableId, rows: &[SourceRow]) -> Outcome<Uploaded>;

    /// Deletes exactly these rows; one that is not there as named is left alone. `planned`: about how many
    /// rows this run deletes from here on, these among them; what the guard against destruction weighs.
    fn delete(&mut self, table: TableId, rows: &[KeyedItem], planned: u64) -> Outcome<Deleted>;

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
}
