//! The source over any kind of database: batches, windows, looking up, bad rows, cursors. Each call is one short
//! snapshot, so an application that writes never waits for the network; unless it is asked to hold one over all calls.
//!
//! | file | what lives there |
//! |---|---|
//! | `encode` | rows to encoded rows |
//! | `read` | reading in order |
//! | `scan` | reading all rows in one pass |
//! | `find` | finding rows by key or item |
//! | `sharing` | rows of several local keys that become one |
//! | `cursor` | where reading goes on |
//! | `store` | transactions, and what holds all calls together |
//! | `apply` | changes of rows |
//! | `change` | what a change is in the database's own values |
//! | `look` | the rows of ranges with their content |

mod apply;
mod change;
mod cursor;
mod encode;
mod find;
mod look;
mod read;
mod scan;
mod sharing;
mod store;

use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::store::{
    BatchLimit, Cursor, Failure, Outcome, PositionRange, RangeHeld, Source, SourceBatch, SourceKey,
    SourceRecord, SourceRow, SourceWindow, TableId,
};

use super::kind::Kind;
use super::plan::TablePlan;
use super::query::Query;
use super::write::Mode;
use crate::failure::table as refused;
use encode::Encoder;
use store::Writing;

/// How long a read may hold its snapshot before it ends where it is.
const SNAPSHOT: Duration = Duration::from_millis(1500);
/// Rows between two looks at the clock.
const CLOCK_ROWS: u64 = 256;

/// The tables of one run in a database of one kind.
#[derive(Debug)]
pub struct Engine<K> {
    kind: K,
    tables: Vec<TablePlan>,
    /// How many encoded bytes a row of each table had in the last batch; 0 before.
    row_bytes: Vec<usize>,
    encoder: Encoder,
    /// How long a read may hold its snapshot.
    snapshot: Duration,
    /// When it was opened, in nanoseconds of the Unix epoch: no other was at the same time.
    opened: [u8; 16],
    /// Whether calls are part of something that is open.
    held: Held,
    /// What is remembered of tables that are written to.
    writing: Writing,
}

/// Whether calls are part of something that is open, and what became of it.
#[derive(Debug, Clone)]
enum Held {
    /// Each is by itself.
    Free,
    /// They are.
    Open(Mode),
    /// They were, until one failed.
    Failed(Failure),
}

/// A call's view: its snapshot, its table, its buffers.
struct Reader<'s, K> {
    kind: &'s mut K,
    table: TableId,
    plan: &'s TablePlan,
    encoder: &'s mut Encoder,
    snapshot: Duration,
    /// How many encoded bytes a row of the table had in the last batch; 0 before.
    row_bytes: &'s mut usize,
}

/// Why a call ended early.
enum Trouble {
    /// It fails.
    Failed(Failure),
    /// Rows came in another order than their positions'.
    Disorder,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failed(failure)
    }
}

type Step<T> = Result<T, Trouble>;

/// A snapshot's time: whether it is over is looked at now and then.
struct Clock {
    started: Instant,
    allowed: Duration,
    rows: u64,
    is_late: bool,
}

impl Clock {
    fn start(allowed: Duration) -> Self {
        Clock { started: Instant::now(), allowed, rows: 0, is_late: false }
    }

    /// One row more. Whether the snapshot lasts too long.
    fn is_late(&mut self) -> bool {
        self.rows += 1;
        self.is_late |= self.rows.is_multiple_of(CLOCK_ROWS) && self.started.elapsed() > self.allowed;
        self.is_late
    }
}

impl<K: Kind> Engine<K> {
    /// The source over these tables of an open database, whose digests are made with `key`.
    pub fn new(kind: K, tables: Vec<TablePlan>, key: FingerprintKey) -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let opened = since_epoch.as_nanos().to_le_bytes();
        let row_bytes = vec![0; tables.len()];
        let writing = Writing::new(tables.len());
        let encoder = Encoder::new(key);
        Engine { kind, tables, row_bytes, encoder, snapshot: SNAPSHOT, opened, held: Held::Free, writing }
    }

    /// The same with snapshots that are held for another time.
    #[cfg(test)]
    pub fn with_snapshots_of(self, snapshot: Duration) -> Self {
        Engine { snapshot, ..self }
    }

    fn with<T>(&mut self, table: TableId, mut work: impl FnMut(&mut Reader<'_, K>) -> Step<T>) -> Outcome<T> {
        let Engine { kind, tables, row_bytes, encoder, snapshot, held, .. } = self;
        let (Some(plan), Some(row_bytes)) = (tables.get(table), row_bytes.get_mut(table)) else {
            return Err(refused("a table outside the run"));
        };
        let is_held = match held {
            Held::Free => false,
            Held::Open(_) => true,
            Held::Failed(failure) => return Err(failure.clone()),
        };
        if !is_held {
            kind.begin()?;
        }
        let snapshot = if is_held { Duration::MAX } else { *snapshot };
        let mut reader = Reader { kind, table, plan, encoder, snapshot, row_bytes };
        let answer = match work(&mut reader) {
            Err(Trouble::Disorder) if reader.kind.reorder(table) => work(&mut reader),
            answer => answer,
        };
        if !is_held {
            reader.kind.end();
        }
        let answer = answer.map_err(|trouble| match trouble {
            Trouble::Failed(failure) => plan.explained(failure),
            Trouble::Disorder => refused(format!("the rows of \"{}\" come in no order", plan.table)),
        });
        if let (true, Err(failure)) = (is_held, &answer) {
            *held = Held::Failed(failure.clone());
        }
        answer
    }
}

impl<K: Kind> Reader<'_, K> {
    /// Goes through the rows of a query until `work` breaks or fails.
    fn each(
        &mut self,
        query: &Query<'_>,
        mut work: impl FnMut(&mut Encoder, &K::Row<'_>) -> Step<ControlFlow<()>>,
    ) -> Step<()> {
        let encoder = &mut *self.encoder;
        let mut trouble = None;
        self.kind.stream(query, &mut |row| match work(encoder, row) {
            Ok(flow) => flow,
            Err(found) => {
                trouble = Some(found);
                ControlFlow::Break(())
            }
        })?;
        trouble.map_or(Ok(()), Err)
    }
}

/// A query for all of a table's rows in any order.
fn all_rows(table: TableId, plan: &TablePlan) -> Query<'_> {
    Query::of_rows(table, plan)
}

impl<K: Kind> Source for Engine<K> {
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        let token = self.kind.change_token()?;
        // Between two runs rows may have come and gone by themselves. Within one, what they do is found by the next.
        let moves = self.tables.iter().any(TablePlan::condition_may_move);
        Ok(token.map(|token| if moves { [token.as_slice(), &self.opened].concat() } else { token }))
    }

    fn max_position(&mut self, table: TableId) -> Outcome<Option<i64>> {
        self.with(table, |reader| reader.position_from_end(None, 0))
    }

    fn row_count(&mut self, table: TableId) -> Outcome<u64> {
        self.with(table, |reader| Ok(reader.kind.count(table, reader.plan)?))
    }

    fn tail_start(&mut self, table: TableId, upto: i64, rows: u64) -> Outcome<Option<i64>> {
        let skipped = rows.saturating_sub(1);
        self.with(table, |reader| reader.position_from_end(upto.checked_add(1), skipped))
    }

    fn settled(&mut self, table: TableId) -> Outcome<Option<i64>> {
        self.with(table, |reader| Ok(reader.kind.settled(table, reader.plan)?))
    }

    fn is_scanned(&mut self, table: TableId) -> Outcome<bool> {
        self.with(table, |reader| Ok(!reader.kind.finds_positions(table, reader.plan)?))
    }

    fn kept(&mut self, table: TableId) -> Outcome<Option<Fingerprint>> {
        self.with(table, |reader| Ok(reader.kind.kept(table, reader.plan)?))
    }

    fn kept_ranges(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Option<Vec<Fingerprint>>> {
        self.with(table, |reader| Ok(reader.kind.kept_ranges(table, reader.plan, ranges)?))
    }

    fn fingerprints(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeHeld>> {
        self.with(table, |reader| reader.fingerprints(ranges))
    }

    fn read_batch(
        &mut self,
        table: TableId,
        after: Option<&Cursor>,
        limit: BatchLimit,
    ) -> Outcome<SourceBatch> {
        self.with(table, |reader| reader.read_batch(after, limit))
    }

    fn window(&mut self, table: TableId, range: PositionRange, rows: u64) -> Outcome<SourceWindow> {
        self.with(table, |reader| reader.window(range, rows))
    }

    fn windows(&mut self, table: TableId, ranges: &[PositionRange], rows: u64) -> Outcome<Vec<SourceWindow>> {
        self.with(table, |reader| reader.windows(ranges, rows))
    }

    fn rows_of(&mut self, table: TableId, items: &[Item]) -> Outcome<Vec<SourceRow>> {
        self.with(table, |reader| reader.rows_of(items))
    }

    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        self.with(table, |reader| reader.lookup(keys))
    }

    fn sharing(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<SourceRecord>> {
        self.with(table, |reader| reader.sharing(keys))
    }

    fn hold(&mut self) -> Outcome<()> {
        self.let_go();
        self.kind.use_kept(false);
        self.kind.begin()?;
        self.held = Held::Open(Mode::Snapshot);
        Ok(())
    }

    fn let_go(&mut self) {
        if !matches!(std::mem::replace(&mut self.held, Held::Free), Held::Free) {
            self.kind.end();
            self.kind.use_kept(true);
        }
    }
}
