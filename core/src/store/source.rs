//! The side that is right, and what it tells of its rows.

use serde::{Deserialize, Serialize};

use super::{Failure, FailureKind, Outcome, PositionRange, TableId};
use crate::digest::RowDigest;
use crate::fingerprint::Fingerprint;
use crate::manifest::Item;

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
    /// The identity alone of a key that is too long to be remembered, or of a row whose key has a NULL: all rows are
    /// looked through for it.
    Long(KeyId),
}

impl SourceKey {
    /// The identity of the row.
    pub fn id(&self) -> KeyId {
        let (domain, bytes) = match self {
            SourceKey::Encoded(bytes) => (0u8, bytes),
            SourceKey::Raw(bytes) => (1u8, bytes),
            SourceKey::Long(id) => return *id,
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
    /// Whether it could be encoded, but its key is then that of another row too, which is sent. Windows list such a row
    /// as any other, with `source_digest` as its digest.
    pub shares_key: bool,
}

/// A row as the source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceRecord {
    /// A row that can be sent.
    Row(SourceRow),
    /// A row that can never be: seldom, so it takes no room beside the others.
    Bad(Box<BadRow>),
}

/// Where reading in order goes on. `key` is the source's own form of the last key read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The position of the last row read. Says nothing where rows stand at a hash.
    pub position: i64,
    /// The source's own bytes of the last row's key; `None`: go on beyond all rows of the position. Where rows stand at a
    /// hash, bytes are good for a source that is opened later too, and `None` is where this one source can go on alone.
    pub key: Option<Vec<u8>>,
}

/// What keeping a row takes besides its encoded bytes: its place in a list, its key, and what the allocator adds to each.
pub const ROW_ROOM: usize = 144;

/// How much one read may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// Rows at most, 1 or more.
    pub rows: usize,
    /// Bytes at most, encoded and [`ROW_ROOM`] for each row; one row comes whatever its size.
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

/// What a source holds in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RangeHeld {
    /// The rows that can be encoded.
    pub rows: Fingerprint,
    /// How many rows cannot. Those that stand nowhere are in the range that is open below.
    pub bad: u64,
}

impl From<&SourceWindow> for RangeHeld {
    fn from(window: &SourceWindow) -> Self {
        let rows = window.items.iter().map(|item| item.digest).collect();
        RangeHeld { rows, bad: window.bad.len() as u64 }
    }
}

/// The side that is right. Of a keyless table's equal rows each counts, wherever rows are told of.
pub trait Source {
    /// A token that differs whenever the database may have changed since; `None` where none is to be had.
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>>;

    /// The highest position, by index. Not asked where rows stand at a hash.
    fn max_position(&mut self, table: TableId) -> Outcome<Option<i64>>;

    /// Number of rows. May scan.
    fn row_count(&mut self, table: TableId) -> Outcome<u64>;

    /// The position of the row that has `rows` rows at or above it, at or below `upto`: where a tail of
    /// that many rows begins. `None` where the table has fewer rows up to there. Not asked where rows stand at a hash.
    fn tail_start(&mut self, table: TableId, upto: i64, rows: u64) -> Outcome<Option<i64>>;

    /// The position below which no row can appear any more, as far as the source knows one: transactions under way may
    /// yet commit rows at or above it. Not asked where rows stand at a hash.
    fn settled(&mut self, _table: TableId) -> Outcome<Option<i64>> {
        Ok(None)
    }

    /// Whether the rows of a range are found by reading all rows alone: no index leads to positions.
    fn is_scanned(&mut self, _table: TableId) -> Outcome<bool> {
        Ok(false)
    }

    /// What all rows of a table are by a manifest that the source keeps of them as they change, under the same key,
    /// columns and positions, and trusts: no row is read. `None` where it keeps none.
    fn kept(&mut self, _table: TableId) -> Outcome<Option<Fingerprint>> {
        Ok(None)
    }

    /// What these ranges hold by that manifest, which ascend and may meet, one answer each; rows are read where they end
    /// within a block of it. `None` where it is no longer kept.
    fn kept_ranges(
        &mut self,
        _table: TableId,
        _ranges: &[PositionRange],
    ) -> Outcome<Option<Vec<Fingerprint>>> {
        Ok(None)
    }

    /// The next rows in order beyond `after` (`None`: from the beginning): by position and key or, where rows stand at a
    /// hash, in an order of the source's own.
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

    /// What these ranges hold, which ascend and may meet, one answer each. A source that finds a range by reading all
    /// rows reads them once, and keeps none.
    fn fingerprints(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeHeld>> {
        let held = |range: &PositionRange| Ok(RangeHeld::from(&self.window(table, *range, u64::MAX)?));
        ranges.iter().map(held).collect()
    }

    /// The rows that these items of a window stand for, as they are now; rows that changed meanwhile are
    /// left out. An item that is listed several times is answered as often, and at most as often as it is there.
    fn rows_of(&mut self, table: TableId, items: &[Item]) -> Outcome<Vec<SourceRow>>;

    /// The rows with these keys as they are now, in the order asked; `None`: no such row. A key of a keyless table is the
    /// row: one of several equal ones is answered.
    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>>;

    /// All rows of those among these encoded keys that several rows share once they are encoded: of each such key the row
    /// that [`Source::lookup`] answers, and the others as bad rows, which it answers to their own keys too. Nothing where
    /// no two local keys become one.
    fn sharing(&mut self, _table: TableId, _keys: &[SourceKey]) -> Outcome<Vec<SourceRecord>> {
        Ok(Vec::new())
    }

    /// From now on all calls see the same rows, those of one snapshot, until [`Source::let_go`]. The change token tells of
    /// the present all the same. A call that fails may have lost the snapshot: nothing but [`Source::let_go`] may follow.
    fn hold(&mut self) -> Outcome<()> {
        Err(Failure::new(FailureKind::Table, "this side cannot hold a snapshot"))
    }

    /// Ends that snapshot, where there is one.
    fn let_go(&mut self) {}
}
