//! What two-way sync needs of either side, beside [`Summaries`]: conditional changes, and the memory of what both sides
//! had when they last agreed.

use super::{
    Outcome, PositionRange, RangeHeld, SourceKey, SourceRecord, SourceRow, Summaries, TableId, TableVersion,
};
use crate::manifest::Item;
use crate::ranges::ShortSum;
use crate::reconcile::Side;
use crate::short::ShortItem;

/// The first 16 bytes of a row's digest: what a side is remembered by, and what changes are conditional on. Digests are
/// keyed, so that two rows share it by chance alone.
pub type ShortDigest = [u8; 16];

/// Digests of a row's columns, by ascending column number: those that are not NULL, the version left out.
pub type ColumnDigests = Vec<(u32, u64)>;

/// The key of a row as it is remembered, 16 bytes: where it stands, and 8 bytes of the key's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemoryKey {
    /// The row's position, a hash of its key; the lowest of all where no key can be encoded.
    pub position: i64,
    /// The first bytes of [`SourceKey::id`].
    pub tail: [u8; 8],
}

impl MemoryKey {
    /// The key of a row that stands at `position`.
    pub fn new(position: i64, key: &SourceKey) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = key.id();
        MemoryKey { position, tail: [a, b, c, d, e, f, g, h] }
    }
}

/// What a side had of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// No row.
    Absent,
    /// The row with this digest.
    Row(ShortDigest),
    /// A row that no encoding holds.
    Unreadable,
}

impl Seen {
    /// The digest of the row, where there is one that can be encoded.
    pub fn digest(&self) -> Option<ShortDigest> {
        match self {
            Seen::Row(digest) => Some(*digest),
            Seen::Absent | Seen::Unreadable => None,
        }
    }
}

impl From<Option<ShortDigest>> for Seen {
    fn from(digest: Option<ShortDigest>) -> Self {
        digest.map_or(Seen::Absent, Seen::Row)
    }
}

/// What both sides had when they last agreed on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The digest of the row.
    pub digest: ShortDigest,
    /// Its columns, where rows are merged by columns; else empty.
    pub columns: ColumnDigests,
}

/// Why a key was left as it is on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenKind {
    /// Both sides changed it, and a person is to decide.
    Conflict,
    /// One side alone has it, and nothing is remembered: it is new there, or was deleted on the other.
    Undecided,
    /// This side cannot take what the other has, or has a row that cannot be encoded.
    Rejected(Side),
    /// This side cannot take it yet: other rows have to come or go first.
    Waiting(Side),
}

/// A key that was left as it is, and what both sides had then. While they have the same it is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Why.
    pub kind: OpenKind,
    /// What the local side had.
    pub local: Seen,
    /// What the remote side had.
    pub remote: Seen,
}

impl Open {
    /// A key that was undecided at another time: no more is known of it than that. No key is undecided of which a side has
    /// what cannot be read, so both sides are looked at.
    pub const ONCE_UNDECIDED: Open =
        Open { kind: OpenKind::Undecided, local: Seen::Unreadable, remote: Seen::Unreadable };
}

/// What is remembered of a key. Without a base and not open: nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryEntry {
    /// The key.
    pub key: MemoryKey,
    /// What both sides last agreed on; `None`: that neither has it, or on nothing yet.
    pub base: Option<Base>,
    /// Why the sides differ, where they are left so.
    pub open: Option<Open>,
}

impl MemoryEntry {
    /// What a side had when the key was last decided upon.
    pub fn seen(&self, side: Side) -> Seen {
        match (&self.open, side) {
            (Some(open), Side::Local) => open.local,
            (Some(open), Side::Remote) => open.remote,
            (None, _) => self.base.as_ref().map(|base| base.digest).into(),
        }
    }

    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.open.is_none()
    }
}

/// What a side had in a range when its keys were last decided upon: [`MemoryEntry::seen`], added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeenSum {
    /// Rows.
    pub rows: u64,
    /// The low 64 bits of their digests, added up.
    pub sum: ShortSum,
    /// Rows that no encoding holds.
    pub unreadable: u64,
}

impl SeenSum {
    /// Adds what was seen of a key.
    pub fn add(&mut self, seen: Seen) {
        match seen {
            Seen::Absent => {}
            Seen::Unreadable => self.unreadable += 1,
            Seen::Row(digest) => {
                self.rows += 1;
                self.sum.0 = self.sum.0.wrapping_add(ShortItem { position: 0, digest }.low());
            }
        }
    }
}

/// What the local side holds in a range, and what its memory says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalHeld {
    /// The rows.
    pub rows: RangeHeld,
    /// What this side had when its keys were last decided upon.
    pub local: SeenSum,
    /// What the other side had then.
    pub remote: SeenSum,
}

/// What a row of the local side is, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRow {
    /// Where it stands; `None` where its key cannot be encoded.
    pub position: Option<i64>,
    /// Its key.
    pub key: SourceKey,
    /// What else is known of it.
    pub content: LocalContent,
}

impl LocalRow {
    /// The key it is remembered by.
    pub fn memory_key(&self) -> MemoryKey {
        MemoryKey::new(self.position.unwrap_or(i64::MIN), &self.key)
    }

    /// What is seen of it.
    pub fn seen(&self) -> Seen {
        match &self.content {
            LocalContent::Row { digest, .. } => Seen::Row(*digest),
            LocalContent::Bad(_) => Seen::Unreadable,
        }
    }
}

/// What is known of a row of the local side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalContent {
    /// A row that can be sent.
    Row {
        /// Its digest.
        digest: ShortDigest,
        /// Its version, as [`crate::schema::position_of`] gives it.
        revision: i64,
        /// Its columns, where rows are merged by columns; else empty.
        columns: ColumnDigests,
    },
    /// A row that no encoding holds, or whose key another row has once both are encoded.
    Bad(Box<Reason>),
}

/// Why a row is not taken, for a person.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reason {
    /// The key as a person reads it.
    pub key_text: String,
    /// The SQLSTATE.
    pub sqlstate: String,
    /// The column at fault, where one is named.
    pub column: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl Reason {
    /// Characters of a message at most: what a trigger raises may have a whole row in it.
    pub const MOST_CHARACTERS: usize = 2_000;

    /// The same with the beginning of its message, where that is long.
    pub fn shortened(mut self) -> Self {
        if let Some((end, _)) = self.message.char_indices().nth(Self::MOST_CHARACTERS) {
            self.message.truncate(end);
            self.message.push('…');
        }
        self
    }
}

/// The rows and the memory of ranges, of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalStates {
    /// The rows, in any order. Those that stand nowhere are in the range that is open below.
    pub rows: Vec<LocalRow>,
    /// What is remembered, in any order.
    pub entries: Vec<MemoryEntry>,
}

/// A row of the remote side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRow {
    /// Position and digest.
    pub item: Item,
    /// The encoded key.
    pub key: Vec<u8>,
    /// Its version, as [`crate::schema::position_of`] gives it.
    pub revision: i64,
    /// The row in wire form, where it was asked for.
    pub row: Option<Vec<u8>>,
}

/// A row that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The row.
    pub item: ShortItem,
    /// Whether its content is wanted, or its key alone.
    pub content: bool,
}

/// Rows of the remote side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// Those that are as they were listed; others have changed and are left out.
    pub rows: Vec<RemoteRow>,
    /// How many of the list were looked for, from its beginning: as many as there was room for. Those of one position
    /// are looked for together.
    pub looked_for: usize,
}

/// What is to be remembered of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// What to remember, in place of what was; an empty one: nothing.
    pub entry: MemoryEntry,
    /// Whether the remote side has a record of the key, to be closed.
    pub closes: bool,
}

/// By what a batch is told from every other one. Numbers alone are given out again by a remote side that was set back to
/// what it was: then batches of two histories have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchId {
    /// Its number, `run << 24 | n`: higher than that of any batch before it; 0: of none.
    pub number: u64,
    /// The mark of its run, which the remote side made at random.
    pub mark: i64,
}

/// A batch that is on its way to the remote side: what is to be remembered of each of its acts, in their order, once
/// it is known to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pending {
    /// The batch.
    pub batch: BatchId,
    /// One for each act.
    pub settles: Vec<Settle>,
}

/// What the local side remembers of the base of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BaseInfo {
    /// The last batch that is known to be applied.
    pub last: BatchId,
    /// Whether memory was lost, and not all keys were looked at since.
    pub rebuilding: bool,
}

/// Whether rows are made as they were when what is remembered of them was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Made {
    /// They are.
    #[default]
    AsBefore,
    /// Of other columns, or otherwise converted, or it is not known: the digest of a row that nobody changed may be
    /// another one. Keys are as they were.
    OfOtherColumns,
    /// With other keys, or of another table: nothing that is remembered is of these rows.
    OfOtherKeys,
}

/// What the local side remembers of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recollection {
    /// The base; `None`: there is none.
    pub base: Option<BaseInfo>,
    /// Whether it is of rows as they are made now.
    pub made: Made,
    /// The number of the last conclusion; 0: none.
    pub concluded: u64,
    /// How many keys have an entry, about.
    pub entries: u64,
    /// How many of them are open, but for those [`Open::ONCE_UNDECIDED`].
    pub open: u64,
    /// The batch of which it is not known whether the remote side did it.
    pub pending: Option<Pending>,
    /// Keys whose records on the remote side are still to be closed.
    pub closing: Vec<MemoryKey>,
    /// Keys that wait for other rows, so many of them as may be tried again in a run.
    pub waiting: Vec<MemoryKey>,
}

/// What a person decided of a recorded key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The key.
    pub key: MemoryKey,
    /// The side whose state is to be copied to the other.
    pub side: Side,
    /// What the local side had when it was recorded. The choice is void where either side has something else now.
    pub local: Seen,
    /// What the remote side had.
    pub remote: Seen,
}

/// What the remote side remembers of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteMemory {
    /// What the replica says of itself.
    pub version: TableVersion,
    /// Whether a base was begun with it.
    pub begun: bool,
    /// The number of this run: higher than that of any before. Batches are numbered `run << 24 | n`.
    pub run: u64,
    /// What tells this run from another one of its number, made at random: part of what its batches are known by.
    pub mark: i64,
    /// The last batch that was applied.
    pub last: BatchId,
    /// This side's clock when it answered, in microseconds since the Unix epoch; `None`: it tells none.
    pub clock: Option<i64>,
    /// What persons decided, so much of it as may be carried out in a run.
    pub choices: Vec<Choice>,
}

/// Whether a batch was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It was: whether each of its acts was done, in their order.
    Applied(Vec<bool>),
    /// It was not, or it is too long ago. It never will be, because a later run has begun.
    Never,
    /// It was, and it is too long ago to say what became of its acts.
    Forgotten,
}

/// Something that is recorded for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: MemoryKey,
    /// The encoded key, where it can be.
    pub encoded_key: Option<Vec<u8>>,
    /// What it is about.
    pub kind: OpenKind,
    /// What the local side has.
    pub local: Seen,
    /// What the remote side has; recorded with its content only where it still has this.
    pub remote: Seen,
    /// The row of the local side, where it is at hand.
    pub local_row: Option<SourceRow>,
    /// The digest of what both sides last agreed on.
    pub base: Option<ShortDigest>,
    /// Why a row is not taken.
    pub reason: Option<Reason>,
}

/// One change of a side, done only where the side still has what it was decided upon: else it answers
/// [`Applied::Changed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Store a row as it is, its version included.
    Upsert {
        /// The row.
        row: SourceRow,
        /// What the side has now.
        expected: Option<ShortDigest>,
    },
    /// Delete a row.
    Delete {
        /// Where it stands.
        position: i64,
        /// The encoded key.
        key: Vec<u8>,
        /// What the side has now.
        expected: ShortDigest,
    },
}

/// One act of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteAct {
    /// Change a row.
    Change(Change),
    /// Record something, in place of what was recorded of the key. Recording the same again changes nothing.
    Record(Box<Record>),
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is done, or was so already.
    Done,
    /// The side had something else.
    Changed,
    /// The side cannot take the row.
    Refused {
        /// Whether it may fit later.
        waits: bool,
        /// Why.
        reason: Box<Reason>,
    },
    /// The guard against destruction left it as it is.
    Held,
}

/// What one transaction of the local side does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conclusion {
    /// Its own number, one more than the last one's: a conclusion whose answer was lost is made again with the same.
    pub serial: u64,
    /// The batch that is pending no more.
    pub batch: Option<BatchId>,
    /// Whether it was applied: it is the last one of the base then.
    pub applied: bool,
    /// What to remember.
    pub settled: Vec<Settle>,
    /// Changes, each with what to remember where it is done.
    pub changes: Vec<(Change, Settle)>,
    /// About how many rows of this side the run deletes from here on: what the guard weighs.
    pub planned: u64,
}

impl Conclusion {
    /// How many rows it deletes.
    pub fn deletes(&self) -> u64 {
        let is_delete = |(change, _): &&(Change, Settle)| matches!(change, Change::Delete { .. });
        self.changes.iter().filter(is_delete).count() as u64
    }
}

/// The local side: the rows, and the memory in the same database. Each call is one short snapshot, or one transaction.
/// Called again after a failure in passing, each does what is left to do.
pub trait LocalSide {
    /// A token that differs whenever the database may have changed since; `None` where none is to be had.
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>>;

    /// What is remembered of a table.
    fn recall(&mut self, table: TableId) -> Outcome<Recollection>;

    /// Forgets all of a table, and begins a base for it.
    fn begin_base(&mut self, table: TableId, info: BaseInfo) -> Outcome<()>;

    /// All keys were looked at: the base is being rebuilt no more, and is of rows as they are made now.
    fn complete_base(&mut self, table: TableId) -> Outcome<()>;

    /// Forgets which keys were left open and whose records are to be closed; what both sides last agreed on stays. Of those
    /// that are undecided it forgets no more than what both sides had ([`Open::ONCE_UNDECIDED`]): without a base they would be new
    /// otherwise. `last` is the last batch of the base from now on.
    fn forget_open(&mut self, table: TableId, last: BatchId) -> Outcome<()>;

    /// What these ranges hold and what is remembered of them, which ascend and may meet, one answer each. Keeps no rows.
    fn held(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<LocalHeld>>;

    /// The rows and the memory of these ranges, which ascend and may meet. `later`: further ranges of which the states are
    /// asked for next, as far as there is time, each list in a call of its own; nothing was remembered of them when they were
    /// swept. Their rows may be read with these and be answered once as they were then, as long as nothing is remembered of
    /// them.
    fn states(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        later: &[Vec<PositionRange>],
    ) -> Outcome<LocalStates>;

    /// The rows with these keys as they are now, or as they were when their states were told last, in the order asked, as
    /// many as fit into so many bytes, one at least; `None`: no such row.
    fn lookup(
        &mut self,
        table: TableId,
        keys: &[SourceKey],
        bytes: usize,
    ) -> Outcome<Vec<Option<SourceRecord>>>;

    /// Saves a batch before it is sent. From then on the base is of rows as they are made now, and of others where it was:
    /// [`Made::OfOtherColumns`] until [`LocalSide::complete_base`], be the columns set back meanwhile.
    fn prepare(&mut self, table: TableId, pending: &Pending) -> Outcome<()>;

    /// Makes changes and remembers what came of them, and of the conclusion its number, in one transaction. One with the
    /// number of the last is not made again, but answered from memory: what it changed may have changed since. Answers what became of each change. A change
    /// that is refused undoes no other. Keys whose records are to be closed are remembered until [`LocalSide::closed`], or
    /// until they are left open again.
    fn conclude(&mut self, table: TableId, conclusion: &Conclusion) -> Outcome<Vec<Applied>>;

    /// Forgets that the records of these keys are to be closed.
    fn closed(&mut self, table: TableId, keys: &[MemoryKey]) -> Outcome<()>;
}

/// The remote side. Each call is one short snapshot, or one transaction.
pub trait RemoteSide: Summaries {
    /// What is remembered of a table. Unless it is for a dry run, a run begins, with a number of its own: batches of earlier
    /// runs that are not applied yet never will be, though the call of one be still under way.
    fn remembered(&mut self, table: TableId, dry_run: bool) -> Outcome<RemoteMemory>;

    /// Remembers that a base was begun, and closes all records: what they are about is decided anew.
    fn base_begun(&mut self, table: TableId) -> Outcome<()>;

    /// Whether a batch of an earlier run was applied: in what led to what the remote side has now, not in what it had before it
    /// was set back.
    fn settle(&mut self, table: TableId, batch: BatchId) -> Outcome<Settled>;

    /// Rows, as they are now, as many as fit into so many bytes, those of one position at least.
    fn fetch(&mut self, table: TableId, wanted: &[Wanted], bytes: usize) -> Outcome<Fetched>;

    /// Carries a batch out in one transaction, and remembers its number and what became of each act. A number that was
    /// applied before is answered from memory; one of an earlier run is a failure. A refused act undoes no other. `planned`: about how many rows of this side the run deletes from here on.
    fn apply(
        &mut self,
        table: TableId,
        number: u64,
        acts: &[RemoteAct],
        planned: u64,
    ) -> Outcome<Vec<Applied>>;

    /// Closes the records of these keys: both sides agree.
    fn close(&mut self, table: TableId, keys: &[MemoryKey]) -> Outcome<()>;
}
