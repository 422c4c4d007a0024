//! What an agent remembers of a table from run to run. All of it may be lost: a run then looks again at
//! what it would have known.

use serde::{Deserialize, Serialize};

use crate::store::{Cursor, KeyId, TableVersion};

/// What the agent remembers of one table. The default remembers nothing, and is always safe.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TableMemory {
    /// The position up to which rows were read and dealt with, where the highest of them were not stored.
    pub skipped_to: Option<i64>,
    /// Where the next window begins; `None`: at the bottom.
    pub window_from: Option<i64>,
    /// Rows of the next window; 0: as the settings say.
    pub window_rows: u64,
    /// When the sweep under way began, in microseconds since the Unix epoch.
    pub sweep_started: Option<i64>,
    /// The row counts (source, target) when it began.
    pub sweep_counts: Option<(u64, u64)>,
    /// Whether every window of the sweep was found equal, or was mended and then found equal.
    pub sweep_clean: bool,
    /// Whether nothing was known to change on either side since the sweep began, but for our own repairs.
    pub sweep_quiet: bool,
    /// When the last sweep that compared every row and found it equal began, in microseconds since the Unix
    /// epoch: every row has been found equal at that time or later.
    pub proved_at: Option<i64>,
    /// What both sides said of themselves at the last proof that still stands.
    pub proof: Option<Seen>,
    /// What both sides said of themselves when the last run ended.
    pub seen: Option<Seen>,
    /// The row counts (source, target) that a whole sweep could not bring together: no reason to sweep again
    /// until one of them changes.
    pub swept_for: Option<(u64, u64)>,
    /// Whether no row was newly rejected since the sweep under way began.
    pub sweep_settled: bool,
    /// Whether a whole sweep found all of `stale`, and no row was newly rejected since: row counts can be
    /// compared exactly.
    pub stale_known: bool,
    /// Older versions of rejected rows that stay on the target: what windows need not ask about again. At
    /// most [`MOST_STALE`].
    pub stale: Vec<Stale>,
    /// Whether the last sweep found rows to delete that other rows still referred to: once the source has
    /// changed they may be free.
    pub blocked: bool,
    /// Whether rows were held that a sweep would delete or set back: once the hold is released they are looked for.
    pub held: bool,
    /// How long the windows of the sweep under way took so far, in microseconds.
    pub sweep_took: u64,
    /// The source's change token when the sweep under way began.
    pub sweep_token: Option<Vec<u8>>,
    /// Rows of the source that the sweep under way found not stored because the target would not take them.
    pub sweep_refused: u64,
    /// How many there were in the last whole sweep: of a keyless table's equal rows one is remembered by the server, and
    /// each is missing from the row count.
    pub refused_copies: Option<u64>,
    /// The last sweep, where rows stand at a hash: there sweeps alone find what changed.
    pub last_sweep: Option<LastSweep>,
    /// Where reading all rows in order goes on, where rows stand at a hash.
    pub reading: Option<Reading>,
    /// The position below which no row of the source could appear any more when its tail was last compared: the next
    /// tail begins there.
    pub unsettled: Option<i64>,
    /// When the last run compared windows, in microseconds since the Unix epoch.
    pub compared_at: Option<i64>,
    /// The plan that all of it is true under, as [`TableInput::plan`](super::TableInput::plan).
    pub plan: Option<i64>,
}

impl TableMemory {
    /// What is still true under this plan: all, or nothing.
    pub(super) fn under(self, plan: Option<i64>) -> Self {
        if self.plan == plan { self } else { TableMemory { plan, ..TableMemory::default() } }
    }
}

/// A sweep that reached the end of the axis.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LastSweep {
    /// When it ended, in microseconds since the Unix epoch.
    pub ended: i64,
    /// How long it took, in microseconds: reading and comparing alone.
    pub took: u64,
    /// The source's change token when it began; `None`: there was none, or the sweep left something out.
    pub token: Option<Vec<u8>>,
}

/// Where reading all rows in order goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The last row read and dealt with.
    pub cursor: Cursor,
    /// How many rows the replica had then.
    pub remote_rows: u64,
}

/// How many older versions of rejected rows are remembered.
pub const MOST_STALE: usize = 1_000;

/// The older version of a rejected row, which stays on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stale {
    /// The identity of the rejected row.
    pub key_id: KeyId,
    /// Where the older version stands.
    pub position: i64,
    /// Its digest.
    pub digest: [u8; 32],
}

/// What both sides said of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// The source's change token.
    pub token: Option<Vec<u8>>,
    /// Rows of the source.
    pub local_rows: Option<u64>,
    /// The source's highest position.
    pub local_max: Option<i64>,
    /// Rows of the replica.
    pub remote_rows: Option<u64>,
    /// The replica's highest position.
    pub remote_max: Option<i64>,
    /// The replica's latest change.
    pub remote_modified: Option<i64>,
    /// The replica's digest sum.
    pub remote_sum: Option<[u8; 32]>,
}

impl Seen {
    /// Whether the replica still says the same of itself.
    pub(super) fn same_target(&self, version: &TableVersion) -> bool {
        (self.remote_rows, self.remote_max, self.remote_modified, self.remote_sum)
            == (version.row_count, version.max_position, version.max_modified, version.sum)
    }

    /// Whether the source says that nothing changed: the same token or, where there is none, the same
    /// highest position.
    pub(super) fn same_source(&self, token: Option<&[u8]>, max: Option<i64>) -> bool {
        self.token.as_deref() == token && self.local_max == max
    }
}
