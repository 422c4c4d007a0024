//! Two-way sync: both sides of a table may change. What both had when they last agreed on a row, the base, tells who
//! changed it; where both did, revisions or a policy decide. Rows stand at a hash of their key, so that a key has one
//! position on both sides, whatever its version.
//!
//! Pure, as [`crate::sync`]: a machine names steps and takes their answers. What either side must provide is in
//! [`crate::store::LocalSide`] and [`crate::store::RemoteSide`].
//!
//! | room | what lives there |
//! |---|---|
//! | `decide` | what becomes of a key: a total function |
//! | `merge` | one row out of two that changed in different columns |
//! | `sweep` | which ranges are not as they are remembered |
//! | `fresh` | those of which nothing is remembered, which may be read ahead |
//! | `group` | which keys of them are to be decided upon |
//! | `chunk` | brings the rows that decisions need |
//! | `batch`, `origin` | from decisions to what is done and remembered |
//! | `begin` | what an earlier run left, what can be relied on |
//! | `table`, `drive` | the machine of a table, and the driver |
//! | `step`, `report` | the steps; what is told |
//! | `wire` | what travels between a client and the remote side |
//!
//! How changes arrive exactly once, with a crash between any two steps: a batch is saved in the local database as pending,
//! then carried out on the remote side in one transaction that remembers its number, then turned into base in the local
//! transaction that makes the local changes. Each change is conditional on what it was decided upon. What a batch
//! remembers of a key is always a state that both sides had: what a side has later was made with knowledge of it.

mod batch;
mod begin;
mod chunk;
mod decide;
mod drive;
mod fresh;
mod group;
mod merge;
mod origin;
mod report;
mod step;
mod sweep;
mod table;
pub mod wire;

pub use decide::{Case, Decision, Policy, RowState, Rules, Verdict, decide};
pub use drive::run;
pub use merge::{Changed, Merging};
pub use report::{Memory, Report};

use crate::store::TableId;

/// A second, in the unit of all durations here.
const SECOND: u64 = 1_000_000;

/// What revisions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Revisions {
    /// Numbers, or stamps of no known time zone: clocks do not matter, the higher one is the later.
    #[default]
    Numbers,
    /// Stamps, in microseconds since 2000-01-01 UTC.
    Stamps,
}

/// A two-way table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Its place in the run's list.
    pub id: TableId,
    /// Who wins a conflict.
    pub policy: Policy,
    /// What revisions are.
    pub revisions: Revisions,
    /// How rows are merged by columns; `None`: they are not.
    pub merging: Option<Merging>,
}

/// The knobs of a run. Durations are microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a table may take, about.
    pub budget: u64,
    /// By how much stamps may be ahead of the clock before they are of the future.
    pub allowed_skew: u64,
    /// Rows of a range, about, of which one sum is compared.
    pub range_rows: u64,
    /// Rows that are kept in mind at once, about, without their content.
    pub group_rows: u64,
    /// The same of ranges of which nothing is remembered: their content may be kept on disk meanwhile.
    pub fresh_rows: u64,
    /// Keys of a batch at most.
    pub batch_rows: usize,
    /// Encoded bytes of rows that one read brings at most, from either side.
    pub batch_bytes: usize,
    /// Change nothing on either side; count what would be done.
    pub dry_run: bool,
    /// How often a step that failed in passing is tried in all.
    pub max_tries: u32,
    /// The pause before the second try; each further one doubles it.
    pub retry_pause: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            budget: 50 * SECOND,
            allowed_skew: 60 * SECOND,
            range_rows: 4_096,
            group_rows: 1 << 16,
            fresh_rows: 1 << 14,
            batch_rows: 1 << 13,
            batch_bytes: 8 << 20,
            dry_run: false,
            max_tries: 5,
            retry_pause: SECOND / 2,
        }
    }
}

/// What surrounds a run.
pub trait Clock {
    /// The time, in microseconds since the Unix epoch.
    fn now(&mut self) -> i64;

    /// Waits this many microseconds; may return early when the run is asked to stop.
    fn pause(&mut self, micros: u64);

    /// Whether the run is asked to stop after what is under way.
    fn stopping(&mut self) -> bool;
}
