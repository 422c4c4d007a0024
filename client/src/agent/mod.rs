//! Runs: begun on the server, made by the core's algorithm, ended with a report.

mod begin;
mod direct;
mod every;
mod patience;
mod prepare;
mod pull;
mod push;
mod scan;
mod side;
mod sides;
mod snapshot;
mod status;
mod two_way;
mod verify;
mod world;

pub use direct::{GroupResult, Moved, Running};
pub use every::keep_running;
pub use scan::{LocalScan, scan};
pub use status::status;
pub use verify::{Verdict, verify};
pub use world::now;

use std::path::Path;

use plimsoll_core::store::{Failure, Outcome};
use plimsoll_core::sync::{Status, TableReport};
use serde::Serialize;
use serde_json::json;

use crate::config::{Config, Direction, TableConfig, token};
use crate::progress::Progress;
use crate::server::address::{Address, Authorities};
use crate::server::{Keeper, Login, RunEnd, Server, TableNews};
use crate::state::State;
use crate::stop::Stop;
use patience::Patience;
use prepare::{Prepared, give_back, prepare};

/// What is asked of a run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The tables, by their local or remote name; all where empty.
    pub tables: Vec<String>,
    /// Change nothing.
    pub dry_run: bool,
    /// Approve what holds planned, before the run.
    pub allow_mass_delete: bool,
    /// Let the local database take the place of another one that replicas are kept level with.
    pub take_over: bool,
    /// How often runs are made, where they are.
    pub interval: Option<std::time::Duration>,
}

/// What became of one table.
#[derive(Debug, Serialize)]
pub struct TableResult {
    /// The local table.
    pub table: String,
    /// The managed table, where one was found.
    pub relation: Option<String>,
    /// Which side is right.
    pub direction: Direction,
    /// What the run did with it.
    #[serde(flatten)]
    pub report: TableReport,
    /// Rows by the side that they went to.
    pub moved: Moved,
}

/// What became of a run.
#[derive(Debug, Serialize)]
pub struct RunResult {
    /// Each table.
    pub tables: Vec<TableResult>,
    /// Why the run stopped, where it did.
    #[serde(skip)]
    pub failure: Option<Failure>,
    /// Whether it ended early because it was asked to.
    pub stopped: bool,
    /// Whether it only looked.
    pub dry_run: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl RunResult {
    /// Whether a table failed, differs or is on hold.
    pub fn is_troubled(&self) -> bool {
        self.failure.is_some() || self.tables.iter().any(is_troubled)
    }
}

fn is_troubled(table: &TableResult) -> bool {
    let TableResult { report, moved, .. } = table;
    let held = report.held + moved.held_here + moved.held_there;
    report.failure.is_some() || held > 0 || report.status == Status::Different
}

/// Connects, so far as a token and an address are to be had.
///
/// # Errors
/// A `Run` failure for a wrong setting.
pub fn server_of(config: &Config) -> Outcome<Server> {
    let mut address = Address::parse(&config.server.url)?;
    // Like every path of the file, the certificate's starts at the file.
    if let Authorities::File(path) = &mut address.authorities {
        *path = config.folder.join(&path);
    }
    if address.is_exposed() {
        tracing::warn!("{}", address.exposure());
    }
    let token = token::find(config.token_path().as_deref())?;
    Server::new(address, Login { database_id: config.server.database_id, token })
}

/// Makes one run.
///
/// # Errors
/// Where the run could not begin; everything later is in the result.
pub fn run_once(
    config: &Config,
    server: &mut Server,
    state: &mut State,
    options: &RunOptions,
    stop: &Stop,
    progress: &mut Progress,
) -> Outcome<RunResult> {
    let started = std::time::Instant::now();
    let settings = config.settings(options.interval, options.dry_run);
    let Prepared { run_id, term, local, groups, failed } =
        prepare(config, server, state, options, &mut Patience::new(&settings, stop))?;
    let sent = groups.iter().filter(|group| group.direction.writes_remote()).flat_map(|group| &group.tables);
    if !options.dry_run {
        state.remember_sent(sent.map(|table| (&table.input.name, table.sent())))?;
    }
    let writes_here = !options.dry_run && groups.iter().any(|group| group.direction.writes_local());
    let keeper = match writes_here {
        true => {
            Keeper::new(server, run_id, term).inspect_err(|failure| give_back(server, run_id, failure))?
        }
        false => Keeper::none(),
    };
    let (lease, local) = (keeper.lease(), Some(local));
    let running = Running { config, server, state, options, stop, progress, run_id, lease, settings, local };
    let mut done = direct::run(running, groups);
    drop(keeper);
    done.tables.extend(failed);
    let place = |name: &str| config.tables.iter().position(|table| table.name == name);
    done.tables.sort_by_key(|table| place(&table.table));
    let result = RunResult {
        tables: done.tables,
        failure: done.failure,
        stopped: done.stopped,
        dry_run: options.dry_run,
        seconds: started.elapsed().as_secs_f64(),
    };
    end_run(server, run_id, &result);
    Ok(result)
}

/// Tells the server how the run ended. A failure to do so changes nothing of what was done.
fn end_run(server: &mut Server, run_id: i64, result: &RunResult) {
    let end = match (&result.failure, result.stopped) {
        (Some(_), _) => RunEnd::Failed,
        (None, true) => RunEnd::Stopped,
        (None, false) => RunEnd::Finished,
    };
    // A dry run proves and changes nothing: there is no news of its tables.
    let news: Vec<TableNews> = match result.dry_run {
        true => Vec::new(),
        false => result.tables.iter().filter_map(news).collect(),
    };
    let error = result.failure.as_ref().map(ToString::to_string);
    if let Err(failure) = server.end_run(run_id, end, &news, error.as_deref()) {
        tracing::warn!("the end of the run could not be reported: {failure}");
    }
}

fn news(table: &TableResult) -> Option<TableNews> {
    let TableResult { report, moved, .. } = table;
    Some(json!({
        "relation": table.relation.as_ref()?,
        "direction": table.direction,
        "status": report.status,
        "proved_at": report.proved_at,
        "local_rows": report.local_rows,
        "inserted": report.inserted,
        "updated": report.updated,
        "deleted": report.deleted,
        "rejected": report.rejected,
        "waiting": report.waiting,
        "held": report.held,
        "planned": planned(table),
        "compared": report.compared_rows,
        "sent": moved.sent,
        "received": moved.received,
        "deleted_here": moved.deleted_here,
        "deleted_there": moved.deleted_there,
        "conflicts": moved.conflicts,
        "merged": moved.merged,
        "undecided": moved.undecided,
        "held_here": moved.held_here,
        "held_there": moved.held_there,
        "error": report.failure.as_ref().map(ToString::to_string),
    }))
}

/// How many rows the server's guard held of a snapshot, which was undone: the hold is to be put again.
fn planned(table: &TableResult) -> u64 {
    if table.direction == Direction::SnapshotPush { table.report.held } else { 0 }
}

/// What the report says of a table that could not start.
fn not_started(table: &TableConfig, relation: Option<String>, failure: Failure) -> TableResult {
    let report = TableReport { failure: Some(failure), ..TableReport::default() };
    let (direction, moved) = (table.direction(), Moved::default());
    TableResult { table: table.name.clone(), relation, direction, report, moved }
}

/// Opens the agent's memory.
///
/// # Errors
/// As [`State::open`].
pub fn open_state(config: &Config) -> Outcome<State> {
    State::open(Path::new(&config.state_path()), config.server.database_id)
}
