//! The sync algorithm: from what two sides say of themselves to the next step.
//!
//! Pure machines name steps and take their answers: no I/O, no clock. `docs/algorithm.md` tells how a run
//! goes.
//!
//! | room | what lives there |
//! |---|---|
//! | `step` | the steps, their answers, and how one is carried out |
//! | `drive` | the machine of a run, and the driver |
//! | `table`, `task` | the machine of one table, and what it may be doing |
//! | `plan` | which task of a table comes next |
//! | `close` | status and proof at the end |
//! | `compare`, `compared` | compares stretches of both sides; what becomes of what differs |
//! | `in_order` | reads rows in order |
//! | `places` | where a stretch differs |
//! | `confirm` | the second look at what was mended |
//! | `window` | which stretches, how large, how many |
//! | `sweep` | which ranges differ, by passes over a source without an index on positions |
//! | `kept` | which ranges differ, by the manifests that both sides keep |
//! | `unordered` | what else is done where rows stand at a hash |
//! | `full_read` | the proof by reading all rows in order |
//! | `send` | sends rows, deals with those not stored |
//! | `excess` | deletes, after a lookup on the source |
//! | `ledger` | what those machines share |
//! | `survey` | full comparisons that change nothing: |
//! | `verify`, `dry_run` | what differs, what a run would do |
//! | `snapshot` | runs over one snapshot of the source within one transaction of the target |
//! | `memory`, `report` | what is remembered, what is told |

mod close;
mod compare;
mod compared;
mod confirm;
mod drive;
mod dry_run;
mod excess;
mod full_read;
mod in_order;
mod kept;
mod ledger;
mod memory;
mod places;
mod plan;
mod report;
mod send;
mod snapshot;
mod step;
mod survey;
mod sweep;
mod table;
mod task;
mod unordered;
mod verify;
mod window;

pub(crate) use places::{joined, point};

pub use memory::{LastSweep, MOST_STALE, Reading, Seen, Stale, TableMemory};
pub use report::{Difference, DifferenceKind, Event, RunReport, Status, TableReport, VerifyReport};
pub use snapshot::snapshot;

use crate::store::{Outcome, Source, TableId, TableShape, TableVersion, Target};

/// A second, in the unit of all durations here.
const SECOND: u64 = 1_000_000;

/// The knobs of a run. Durations are microseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How long a run may take, about; each table gets at least one window whatever it says.
    pub run_budget: u64,
    /// The share of the time that belongs to comparing, 0 to 1, also while rows stream in without end.
    pub window_share: f64,
    /// How long one upload should take.
    pub target_batch: u64,
    /// Rows of an upload at most.
    pub max_batch_rows: usize,
    /// Encoded bytes of an upload at most.
    pub max_batch_bytes: usize,
    /// Rows of the first window.
    pub window_rows: u64,
    /// Rows of a window at most.
    pub max_window_rows: u64,
    /// Rows at the top that every run compares.
    pub tail_rows: u64,
    /// How soon every row is compared again.
    pub sweep_interval: u64,
    /// How often runs are made.
    pub run_interval: u64,
    /// How long one snapshot of the source may stay open.
    pub max_snapshot: u64,
    /// Change nothing; count what would be sent and deleted.
    pub dry_run: bool,
    /// A table stops after this many rows in a row that the target rejects.
    pub max_rejections_in_a_row: u32,
    /// Rows to delete that a run keeps in mind at most, over all tables; the rest is found by the next run.
    pub max_excess_rows: usize,
    /// Rows of one delete at most.
    pub delete_rows: usize,
    /// Whether others write to the target, as to a local table that is pulled: where it does not tell its digest sum,
    /// nothing says that it is as it was.
    pub others_write: bool,
    /// Whether the target may hold several rows whose keys are one on the source, as a local table may: then a row for
    /// which the source's was sent, and which is there still, is one too many.
    pub keys_repeat: bool,
    /// How often a step that failed in passing is tried in all.
    pub max_tries: u32,
    /// The pause before the second try; each further one doubles it.
    pub retry_pause: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            run_budget: 50 * SECOND,
            window_share: 0.25,
            target_batch: SECOND,
            max_batch_rows: 100_000,
            max_batch_bytes: 8 << 20,
            window_rows: 10_000,
            max_window_rows: 200_000,
            tail_rows: 256,
            sweep_interval: 24 * 60 * 60 * SECOND,
            run_interval: 60 * SECOND,
            max_snapshot: 2 * SECOND,
            dry_run: false,
            max_rejections_in_a_row: 100,
            max_excess_rows: 100_000,
            delete_rows: 1_000,
            others_write: false,
            keys_repeat: false,
            max_tries: 5,
            retry_pause: SECOND / 2,
        }
    }
}

/// What the run is told of a table when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInput {
    /// The name on the server, `schema.table`.
    pub name: String,
    /// What the replica said of itself when the run began.
    pub version: TableVersion,
    /// Whether the replica is on hold.
    pub on_hold: bool,
    /// How many rows the server remembers as rejected or waiting.
    pub rejected: u64,
    /// Parents have lower ranks than the tables that refer to them.
    pub rank: u32,
    /// What sort of table it is.
    pub shape: TableShape,
    /// A number that is another whenever the source's rows become other rows of the target: by the schema, by how columns
    /// are mapped and converted, by which rows are taken.
    pub plan: Option<i64>,
}

/// What surrounds a run: its clock, its durable memory, the wish to stop, and who watches.
pub trait World {
    /// The time, in microseconds since the Unix epoch.
    fn now(&mut self) -> i64;

    /// Waits this many microseconds; may return early when the run is asked to stop.
    fn pause(&mut self, micros: u64);

    /// Whether the run is asked to stop after the current batch.
    fn stopping(&mut self) -> bool;

    /// Saves what the agent remembers of a table, durably. Called after what it says was committed.
    fn remember(&mut self, table: TableId, memory: &TableMemory) -> Outcome<()>;

    /// Tells what happens, for progress display.
    fn event(&mut self, table: TableId, event: Event);
}

/// Makes one run over all tables: brings the target level with the source, as far as the budget goes.
///
/// `memories` has one entry per table; each is what [`World::remember`] was last told of it, or the default.
/// Failures are in the report.
pub fn run(
    source: &mut dyn Source,
    target: &mut dyn Target,
    world: &mut dyn World,
    settings: &Settings,
    tables: &[TableInput],
    memories: &mut [TableMemory],
) -> RunReport {
    let mut sides = step::Sides { source, target, world, held: None };
    if settings.dry_run {
        return dry_run::dry_run(&mut sides, settings, tables);
    }
    drive::drive(&mut sides, settings, tables, memories)
}

/// Compares all rows of a table on both sides, changing nothing. Each difference is read a second time
/// before `on_difference` is told of it.
///
/// # Errors
/// The first failure of a side that did not pass.
pub fn verify(
    source: &mut dyn Source,
    target: &mut dyn Target,
    world: &mut dyn World,
    settings: &Settings,
    (table, shape): (TableId, TableShape),
    on_difference: &mut dyn FnMut(Difference),
) -> Outcome<VerifyReport> {
    verify::verify(
        &mut step::Sides { source, target, world, held: None },
        settings,
        (table, shape),
        on_difference,
    )
}
